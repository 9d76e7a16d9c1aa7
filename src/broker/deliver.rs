//! Handing one message to one receiver.

use std::sync::Arc;

use super::client::ClientState;
use super::turn_log::{Target, TurnLog};
use super::{Client, Core, Turn, flush};
use crate::accounts::STEP;
use crate::escape::escape;
use crate::protocol::QoS;
use crate::router::Route;
use crate::session::{Delivered, DropReason, Granted, Outgoing, Session};

/// A receiver that took bytes within this time is reading; holding its publishers for a moment helps.
const READING_WITHIN_MS: u64 = 100;

/// Output that is about to be written is not charged, up to so many bytes a client.
const UNSETTLED_MAX: usize = 2 * STEP;

impl Core {
    /// Delivers to one session, whose lock is held, under its matching subscriptions. A drop is logged here and counted by the caller.
    pub(super) fn deliver_locked(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        outgoing: &mut Outgoing<'_>,
        routes: &[Route<Arc<Client>>],
        shared: Option<&Arc<str>>,
    ) -> Delivered {
        let mut ids = std::mem::take(&mut turn.subscription_ids);
        ids.clear();
        let mut granted: Option<Granted<'_>> = None;
        for Route { options, .. } in routes {
            if options.no_local && outgoing.publisher() == client.key {
                continue;
            }
            let best = granted.get_or_insert(Granted { shared, ..Granted::with_qos(QoS::AtMostOnce) });
            if options.qos as u8 > best.qos as u8 {
                best.qos = options.qos;
            }
            best.retain |= options.retain_as_published && outgoing.retain();
            ids.extend(options.subscription_id.map(std::num::NonZeroU32::get));
        }
        let delivered = match granted {
            // Nothing but subscriptions that do not want the client's own messages.
            None => Delivered::Ended,
            Some(granted) => {
                let granted = Granted { subscription_ids: &ids, ..granted };
                self.deliver_granted(turn, client, state, outgoing, &granted)
            }
        };
        turn.subscription_ids = ids;
        delivered
    }

    fn deliver_granted(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        outgoing: &mut Outgoing<'_>,
        granted: &Granted<'_>,
    ) -> Delivered {
        let delivered = match &mut state.local {
            // Away, with as much to give away as it may have waiting.
            None if state.leaving.as_ref().is_some_and(|leaving| {
                state.link.is_none() && granted.qos != QoS::AtMostOnce && leaving.fills(&state.session)
            }) =>
            {
                Delivered::Dropped(DropReason::QueueFull)
            }
            Some(local) => local.push(outgoing, granted, state.session.limits()),
            None => {
                if state.link.is_some() {
                    state.session.out.lend(flush::take_spare);
                }
                let delivered = state.session.at(turn.now).deliver(outgoing, granted);
                if delivered != Delivered::Sent {
                    flush::give_spare(state.session.out.reclaim());
                }
                delivered
            }
        };
        if matches!(delivered, Delivered::Sent | Delivered::Queued) && state.session.is_durable() {
            self.note_durable(turn, client, state, outgoing, granted);
        }
        match delivered {
            Delivered::Sent => {
                turn.sent += 1;
                if let Some(link) = &mut state.link {
                    turn.promise_flush_of(client, link);
                    let pending = state.session.out.pending();
                    let steps = u32::try_from(pending / STEP).unwrap_or(u32::MAX);
                    if pending >= UNSETTLED_MAX && steps != link.charged_steps {
                        // Its task may be long in coming to it, and until then it is not settled.
                        link.charged_steps = steps;
                        turn.held += client.charge(state.session.charged().waiting);
                    }
                    if pending > state.session.limits().queue_bytes_max / 4 * 3
                        && turn.now.since(link.progress).as_millis() < u128::from(READING_WITHIN_MS)
                    {
                        turn.congested = true;
                    }
                }
            }
            Delivered::Queued => {
                turn.queued += 1;
                turn.held += client.charge(state.session.charged().waiting);
            }
            Delivered::Dropped(reason) => {
                if state.session.report_drop(reason) {
                    self.log_drop(client, outgoing.topic(), reason);
                }
            }
            Delivered::Ended => {}
        }
        if outgoing.is_kept() {
            outgoing.charge_to(&self.accounts);
        }
        delivered
    }

    /// The message stands in a durable session: at QoS 1 and 2 that goes on record.
    pub(super) fn note_durable(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        state: &mut ClientState,
        outgoing: &Outgoing<'_>,
        granted: &Granted<'_>,
    ) {
        let qos = if (outgoing.qos() as u8) < granted.qos as u8 { outgoing.qos() } else { granted.qos };
        if qos == QoS::AtMostOnce {
            return;
        }
        turn.log.deliver(Target {
            session: client.key,
            sequence: state.session.last_sequence(),
            qos,
            retain: granted.retain,
            subscription_ids: Box::from(granted.subscription_ids),
            shared: granted.shared.cloned(),
        });
        if qos == QoS::ExactlyOnce {
            turn.log.wake_at_commit(client, state.link.is_some());
        }
    }

    /// Puts on record what happened to a session's deliveries outside of a turn of its own.
    pub(crate) fn record_work_now(&self, client: &Client, session: &mut Session) {
        if let Some(work) = session.log_work() {
            let mut log = TurnLog::default();
            log.work(client.key, work, &mut Vec::new());
            log.commit(self);
        }
    }

    /// Counts what a session dropped on its way out of the queue.
    pub(crate) fn count_late_drops(&self, state: &mut ClientState) {
        let (expired, too_large) = state.session.take_dropped_late();
        self.count_late(expired, too_large);
    }

    /// The same for who has taken the numbers out already.
    pub(super) fn count_late(&self, expired: u32, too_large: u32) {
        self.metrics.dropped.add(DropReason::Expired.label(), expired.into());
        self.metrics.dropped.add(DropReason::ClientPacketMax.label(), too_large.into());
    }

    fn log_drop(&self, client: &Client, topic: &str, reason: DropReason) {
        let (client_id, topic, reason_label) = (escape(&client.id), escape(topic), reason.label());
        let limits = self.limits.of_sessions();
        let value = match reason {
            DropReason::QueueFull => limits.queue_messages_max,
            _ => limits.queue_bytes_max,
        };
        match reason.limit_key() {
            Some(limit) => tracing::warn!(
                client_id = %client_id,
                topic = %topic,
                reason = reason_label,
                limit,
                value,
                "message dropped: the client's queue is full; further ones of this connection are only counted"
            ),
            // The standard's own rule or the client's own limit, not one of ours that bites.
            None => tracing::debug!(
                client_id = %client_id,
                topic = %topic,
                reason = reason_label,
                "message not delivered; further ones of this connection are only counted"
            ),
        }
    }
}
