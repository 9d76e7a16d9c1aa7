//! Handing one message to one receiver.

use std::sync::Arc;

use super::{Client, Core, Turn, flush};
use crate::escape::escape;
use crate::protocol::QoS;
use crate::session::{Delivered, DropReason, Outgoing};

/// A receiver that took bytes within this time is reading; holding its publishers for a moment helps.
const READING_WITHIN_MS: u64 = 100;

impl Core {
    /// Delivers to one session under a subscription of QoS `granted`.
    pub(crate) fn deliver(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        outgoing: &mut Outgoing<'_>,
        granted: QoS,
    ) {
        let mut guard = client.lock();
        let state = &mut *guard;
        if let Some(local) = &mut state.local {
            match local.push(outgoing, granted, state.session.limits()) {
                Ok(()) => turn.sent += 1,
                Err(reason) => {
                    turn.count_drop(reason, 1);
                    if state.session.report_drop(reason) {
                        self.log_drop(client, outgoing.topic(), reason);
                    }
                }
            }
            return;
        }
        if state.link.is_some() {
            state.session.out.lend(flush::take_spare);
        }
        let delivered = state.session.deliver(outgoing, granted, false);
        if delivered != Delivered::Sent {
            flush::give_spare(state.session.out.reclaim());
        }
        match delivered {
            Delivered::Sent => {
                turn.sent += 1;
                if let Some(link) = &mut state.link {
                    if !link.flush_promised {
                        link.flush_promised = true;
                        turn.touch(client);
                    }
                    if state.session.out.pending() > self.limits.queue_bytes_max / 4 * 3
                        && turn.now.since(link.progress).as_millis() < u128::from(READING_WITHIN_MS)
                    {
                        turn.congested = true;
                    }
                }
            }
            Delivered::Queued => turn.queued += 1,
            Delivered::Dropped(reason) => {
                turn.count_drop(reason, 1);
                let first = state.session.report_drop(reason);
                drop(guard);
                if first {
                    self.log_drop(client, outgoing.topic(), reason);
                }
            }
            Delivered::Ended => {}
        }
    }

    fn log_drop(&self, client: &Client, topic: &str, reason: DropReason) {
        let (client_id, topic, reason_label) = (escape(&client.id), escape(topic), reason.label());
        match reason {
            // The standard's own rule, not a limit that bites.
            DropReason::OfflineQos0 => tracing::debug!(
                client_id = %client_id,
                topic = %topic,
                reason = reason_label,
                "QoS 0 message not kept for an offline session; further ones are only counted"
            ),
            DropReason::QueueFull => tracing::warn!(
                client_id = %client_id,
                topic = %topic,
                reason = reason_label,
                limit = reason.limit_key(),
                value = self.limits.queue_messages_max,
                "message dropped: the client's queue is full; further ones of this connection are only counted"
            ),
            DropReason::QueueFullQos0 | DropReason::QueueFullBytes | DropReason::TooLarge => tracing::warn!(
                client_id = %client_id,
                topic = %topic,
                reason = reason_label,
                limit = reason.limit_key(),
                value = self.limits.queue_bytes_max,
                "message dropped: the client's queue is full; further ones of this connection are only counted"
            ),
        }
    }
}
