//! The bounds of topic names and filters: `limits.topic_levels_max` and `limits.topic_bytes_max`.

use super::{Cause, Client, Core};
use crate::escape::escape;
use crate::protocol::{Connect, ReasonCode, levels_count};

/// Bytes of a topic that a line of the log shows.
const SHOWN_BYTES: usize = 100;

/// A bound that a topic name or filter is beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicLimit {
    Levels,
    Bytes,
}

impl TopicLimit {
    fn key(self) -> &'static str {
        match self {
            Self::Levels => "limits.topic_levels_max",
            Self::Bytes => "limits.topic_bytes_max",
        }
    }

    /// The label of the counter.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Levels => "topic_levels_max",
            Self::Bytes => "topic_bytes_max",
        }
    }
}

impl Core {
    /// The bound that a topic name or filter is beyond, if it is beyond one.
    pub(crate) fn topic_limit(&self, topic: &str) -> Option<TopicLimit> {
        if topic.len() > self.limits.topic_bytes_max() {
            return Some(TopicLimit::Bytes);
        }
        // There is no more than one level a byte, and one: most topics are too short to be counted.
        let levels_max = self.limits.topic_levels_max();
        (topic.len() >= levels_max && levels_count(topic) > levels_max).then_some(TopicLimit::Levels)
    }

    /// Whether a PUBLISH is not taken because of its topic; that is counted and told here.
    pub(super) fn refuses_topic(&self, client: &Client, topic: &str) -> bool {
        let Some(limit) = self.topic_limit(topic) else { return false };
        self.metrics.dropped.add(limit.label(), 1);
        if let Some(untold) = self.told.tell(limit.key(), self.now()) {
            tracing::warn!(
                client_id = %escape(&client.id),
                topic = %escape(topic.get(..SHOWN_BYTES).unwrap_or(topic)),
                limit = limit.key(),
                value = self.value_of(limit),
                untold,
                "message not taken because of its topic; told every ten seconds at most"
            );
        }
        true
    }

    /// Whether the topic of a will is within the bounds, and the will has room in memory.
    ///
    /// # Errors
    /// It is not, or has none: CONNECT is to be refused.
    pub(crate) fn check_will(&self, connect: &Connect<'_>) -> Result<(), Cause> {
        let Some(will) = &connect.will else { return Ok(()) };
        if let Some(limit) = self.topic_limit(will.topic) {
            return Err(Cause::Limit { limit: limit.key(), code: ReasonCode::TopicNameInvalid });
        }
        if !self.accounts.has_room_for_lasting(will.topic.len() + will.payload.len()) {
            return Err(Cause::Limit { limit: "limits.memory_max", code: ReasonCode::QuotaExceeded });
        }
        Ok(())
    }

    fn value_of(&self, limit: TopicLimit) -> usize {
        match limit {
            TopicLimit::Levels => self.limits.topic_levels_max(),
            TopicLimit::Bytes => self.limits.topic_bytes_max(),
        }
    }
}
