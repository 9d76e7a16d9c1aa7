//! Retained messages within their bounds (MQTT 3.1.1 section 3.3.1.3).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use super::sys::is_sys;
use super::turn_log::{Retention, TurnLog};
use crate::accounts::{Account, signed};
use crate::escape::escape;
use crate::protocol::QoS;
use crate::router::Retained;
use crate::session::{Message, Outgoing, Owner};

/// A retained message.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) message: Arc<Message>,
    /// Which change of a retained message this was; 0: it is not to be remembered.
    pub(crate) revision: u64,
}

impl Retained for Kept {
    fn topic(&self) -> &str {
        self.message.topic()
    }

    fn topic_bytes(&self) -> &[u8] {
        self.message.topic_bytes()
    }
}

impl Core {
    /// Makes it the topic's retained message, or with an empty payload removes that ([MQTT-3.3.1-5], [MQTT-3.3.1-10]).
    /// `source`: the client who publishes it; `None`: the broker or the program that it is part of.
    pub(super) fn retain(
        &self,
        turn_log: &TurnLog,
        outgoing: &mut Outgoing<'_>,
        source: Option<(&Arc<str>, Option<&Arc<str>>)>,
    ) -> Retention {
        if outgoing.payload().is_empty() {
            return self.forget_retained(turn_log, outgoing);
        }
        let (source, source_cost) =
            source.map_or((0, 0), |(client_id, user)| self.sources.take(client_id, user));
        let cost = outgoing.cost() + source_cost;
        self.accounts.add(Account::Retained, signed(cost));
        let held = self.accounts.of(Account::Retained);
        let replaces = self.retained.get(outgoing.topic()).map(|replaced| replaced.message.cost());
        let (bytes_max, messages_max) =
            (self.limits.retained_bytes_max(), self.limits.retained_messages_max());
        let refused = if held - replaces.unwrap_or(0).min(held) > bytes_max {
            Some(("retained_bytes_max", bytes_max))
        } else if replaces.is_none() && self.retained.len() >= messages_max {
            Some(("retained_messages_max", messages_max))
        } else {
            None
        };
        if let Some((limit, value)) = refused {
            self.accounts.add(Account::Retained, -signed(outgoing.cost() + self.sources.release(source)));
            // Later subscribers had better get nothing than what is out of date.
            let removed = self.forget_retained(turn_log, outgoing);
            self.refuse_retained(outgoing.topic(), limit, value);
            return removed;
        }
        let message = outgoing.message_of(source);
        let mut revision = 0;
        let replaced = self.retained.set_with(message.topic(), || {
            revision = self.revision_for(message.topic());
            Kept { message: Arc::clone(&message), revision }
        });
        if let Some(replaced) = replaced {
            self.note_superseded(turn_log, &replaced);
            self.give_back(&replaced.message);
        }
        if revision == 0 { Retention::None } else { Retention::Kept(revision) }
    }

    /// A message is not retained any more.
    fn give_back(&self, message: &Message) {
        let bytes = message.cost() + self.sources.release(message.source());
        self.accounts.add(Account::Retained, -signed(bytes));
    }

    /// Takes up a retained message from the log, and who stored it.
    pub(super) fn restore_retained(&self, message: Message, revision: u64, source: Option<&Owner>) {
        let (source, source_cost) =
            source.map_or((0, 0), |owner| self.sources.take(&owner.client_id, owner.user.as_ref()));
        self.accounts.add(Account::Retained, signed(message.cost() + source_cost));
        self.next_revision.fetch_max(revision + 1, Ordering::AcqRel);
        self.retained.set(Kept { message: Arc::new(message.with_source(source)), revision });
    }

    /// The number of this change, or 0 if it is not for the log. Called while the topic is locked.
    fn revision_for(&self, topic: &str) -> u64 {
        if self.log.is_none() || is_sys(topic) {
            0
        } else {
            self.next_revision.fetch_add(1, Ordering::AcqRel)
        }
    }

    /// Removes a retained message whose time is over, unless a newer one has taken its place. After a restart it would be found over again.
    /// So would it be if it came on record only after this: nothing is noted of it.
    pub(super) fn forget_expired(&self, message: &Arc<Message>) {
        if self.retained.remove_if(message.topic(), |kept| Arc::ptr_eq(&kept.message, message)) {
            self.give_back(message);
        }
    }

    /// The topic has no retained message any more, by the word of this publish.
    ///
    /// If there is none, whoever took it may not have that on record yet: his turn may be open, or his
    /// message on its way to many, and at QoS 0 he has not been told anything. So what is acknowledged
    /// goes on record by itself, and what the topic had before is older than that.
    fn forget_retained(&self, turn_log: &TurnLog, outgoing: &Outgoing<'_>) -> Retention {
        let (topic, is_acknowledged) = (outgoing.topic(), outgoing.qos() != QoS::AtMostOnce);
        let mut revision = 0;
        let removed = self.retained.remove_with(topic, |is_there| {
            if is_there || is_acknowledged {
                revision = self.revision_for(topic);
            }
        });
        if let Some(removed) = removed {
            self.note_superseded(turn_log, &removed);
            self.give_back(&removed.message);
        }
        if revision == 0 { Retention::None } else { Retention::Removed(revision) }
    }

    fn refuse_retained(&self, topic: &str, limit: &'static str, value: usize) {
        self.metrics.dropped.add(limit, 1);
        if !self.retained_refusal_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                topic = %escape(topic),
                limit,
                value,
                "message not retained: limits.retained_messages_max or limits.retained_bytes_max; further ones are only counted"
            );
        }
    }
}
