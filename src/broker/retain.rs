//! Retained messages within their bounds (MQTT 3.1.1 section 3.3.1.3).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Core;
use crate::escape::escape;
use crate::session::{Message, Outgoing};

impl Core {
    /// Makes it the topic's retained message, or with an empty payload removes that ([MQTT-3.3.1-5], [MQTT-3.3.1-10]).
    pub(super) fn retain(&self, outgoing: &mut Outgoing<'_>) {
        if outgoing.payload().is_empty() {
            self.forget_retained(outgoing.topic());
            return;
        }
        let cost = outgoing.cost();
        let held = self.retained_bytes.fetch_add(cost, Ordering::AcqRel) + cost;
        let replaces = self.retained.get(outgoing.topic()).map(|replaced| replaced.cost());
        let refused = if held - replaces.unwrap_or(0).min(held) > self.limits.retained_bytes_max {
            Some(("retained_bytes_max", self.limits.retained_bytes_max))
        } else if replaces.is_none() && self.retained.len() >= self.limits.retained_messages_max {
            Some(("retained_messages_max", self.limits.retained_messages_max))
        } else {
            None
        };
        if let Some((limit, value)) = refused {
            self.retained_bytes.fetch_sub(cost, Ordering::AcqRel);
            // Later subscribers had better get nothing than what is out of date.
            self.forget_retained(outgoing.topic());
            self.refuse_retained(outgoing.topic(), limit, value);
            return;
        }
        let message = outgoing.message();
        if let Some(replaced) = self.retained.set(message.topic(), Arc::clone(&message)) {
            self.retained_bytes.fetch_sub(replaced.cost(), Ordering::AcqRel);
        }
    }

    /// Removes a retained message whose time is over, unless a newer one has taken its place.
    pub(super) fn forget_expired(&self, message: &Arc<Message>) {
        if self.retained.remove_if(message.topic(), |kept| Arc::ptr_eq(kept, message)) {
            self.retained_bytes.fetch_sub(message.cost(), Ordering::AcqRel);
        }
    }

    fn forget_retained(&self, topic: &str) {
        if let Some(removed) = self.retained.remove(topic) {
            self.retained_bytes.fetch_sub(removed.cost(), Ordering::AcqRel);
        }
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
