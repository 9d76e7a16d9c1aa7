//! `Durable`: what a session that is kept in the durable log has besides, and what it wants written there.
//!
//! The session does not write: it gathers what has happened to its deliveries, and the broker takes it out
//! ([`Session::log_work`]) in the same turn. Two answers are held back until the log has what they follow from: a QoS 2 PUBLISH waits
//! in the queue until its message is committed, PUBREL is handed to the broker for sending after PUBREC is on record.

use std::sync::Arc;

use super::inflight::Awaiting;
use super::message::Message;
use super::outbound::ENCODE_AHEAD_BYTES;
use super::queue::{Body, DeliveryExtra, MessageQueue, QueuedMessage};
use super::{Session, State};
use crate::ledger::{Ledger, Position};
use crate::protocol::{PacketId, QoS};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Durable {
    pub(super) ledger: Arc<Ledger>,
    /// Positions below it are taken, by deliveries begun or queued.
    next: u64,
    /// What waited when the connection began is sent when the log is here: else, after a crash, nobody knows that it was sent.
    attached: Position,
    /// Where the log had come to then: what earlier connections have acknowledged is on record before it.
    acknowledged: Position,
    /// A PUBREC came in this run of the broker.
    has_completing: bool,
    work: LogWork,
}

/// What is to be put on record for a session, and what is to be sent after that.
#[derive(Debug, Default)]
pub struct LogWork {
    /// Deliveries that are over, by their position.
    pub finished: Vec<u64>,
    /// Deliveries whose PUBREC came: position and packet id.
    pub completing: Vec<(u64, PacketId)>,
    /// Packets to be sent when `completing` is committed.
    pub answers: Vec<u8>,
}

/// What a checkpoint says of a session, besides its subscriptions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The position the next delivery will have.
    pub next: u64,
    /// Positions of deliveries that are not over, the client's own (PubRec came) apart: first and length.
    pub live: Vec<(u64, u64)>,
    /// Deliveries whose PUBREC came: position and packet id.
    pub completing: Vec<(u64, PacketId)>,
    /// QoS 2 ids of the client that are not released.
    pub received: Vec<PacketId>,
}

/// A message that was in a session's queue when the broker stopped.
#[derive(Debug)]
pub struct RestoredMessage {
    /// Its position among the session's deliveries.
    pub sequence: u64,
    /// Where it is in the log.
    pub position: Position,
    /// Bytes of its frame.
    pub frame_bytes: u32,
    /// Bytes charged for it.
    pub cost: u32,
    /// At which QoS it is to be delivered.
    pub qos: QoS,
    /// With which RETAIN flag.
    pub retain: bool,
    /// It may have been sent before.
    pub again: bool,
    /// Identifiers of the matching subscriptions.
    pub subscription_ids: Box<[u32]>,
    /// The whole filter of the shared subscription it came by.
    pub shared: Option<Arc<str>>,
}

/// Bytes read back in one go, but for one message that is larger: ahead of the client's window, or
/// while memory is short.
const REFILL_BYTES: usize = 1024 * 1024;
const REFILL_BYTES_SHORT: usize = 64 * 1024;

fn refill_bytes(ahead: bool) -> usize {
    if ahead { REFILL_BYTES } else { REFILL_BYTES_SHORT }
}

impl Durable {
    pub(super) fn finish(&mut self, sequence: u64) {
        self.work.finished.push(sequence);
    }

    pub(super) fn completing(&mut self, sequence: u64, id: PacketId) {
        self.has_completing = true;
        self.work.completing.push((sequence, id));
    }

    pub(super) fn answer(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.work.answers);
    }

    /// Whether the log does not tell of the connection yet. While it cannot be written at all that
    /// is not waited for: it is the client that makes room, by acknowledging.
    fn is_attaching(&self) -> bool {
        self.attached > self.ledger.committed() && !self.ledger.is_failing()
    }

    /// Whether the log has the message.
    pub(super) fn is_committed(&self, message: &Message) -> bool {
        message.stored().is_some_and(|stored| stored.position() < self.ledger.committed())
    }
}

impl Session {
    /// Drops what waits in memory and has an unwanted topic; how many. What is in the log only is not looked at before it is read back.
    pub fn drop_queued(&mut self, is_unwanted: impl Fn(&str) -> bool) -> u64 {
        let taken = self
            .queue
            .take_if(|queued| matches!(&queued.body, Body::Loaded(message) if is_unwanted(message.topic())));
        for queued in &taken {
            self.queue.release(&queued.body);
            self.finish(queued.sequence);
        }
        taken.len() as u64
    }

    /// From now on the session is kept in the log that `ledger` accounts for. To be called before anything is delivered to it.
    pub fn make_durable(&mut self, ledger: &Arc<Ledger>) {
        if self.durable.is_none() {
            self.durable = Some(Box::new(Durable {
                ledger: Arc::clone(ledger),
                next: 0,
                attached: Position::START,
                acknowledged: Position::START,
                has_completing: false,
                work: LogWork::default(),
            }));
            self.queue = MessageQueue::durable(Arc::clone(ledger));
        }
    }

    /// Whether it is kept in the log.
    pub fn is_durable(&self) -> bool {
        self.durable.is_some() && self.state != State::Ended
    }

    /// What is to be put on record, for the broker to drain; `None` if there is nothing.
    pub fn log_work(&mut self) -> Option<&mut LogWork> {
        let work = &mut self.durable.as_mut()?.work;
        let any = !work.finished.is_empty() || !work.completing.is_empty() || !work.answers.is_empty();
        any.then_some(work)
    }

    /// The position of the delivery that was begun or queued last.
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence().saturating_sub(1)
    }

    /// The position the next delivery will have.
    fn next_sequence(&self) -> u64 {
        self.durable.as_ref().map_or(0, |durable| durable.next).max(self.inflight.end())
    }

    /// Takes the next position; 0 if the session is not durable: others number their deliveries when they begin.
    pub(super) fn assign(&mut self) -> u64 {
        let next = self.next_sequence();
        match &mut self.durable {
            Some(durable) => {
                durable.next = next + 1;
                next
            }
            None => 0,
        }
    }

    /// The positions below which deliveries may have been sent: at QoS 1, and at QoS 2.
    pub fn begun(&self) -> (u64, u64) {
        // After a restart what was sent before stands in the queue again.
        let end_of = |qos| self.inflight.end().max(self.queue.end_of_repeated(qos));
        (end_of(QoS::AtLeastOnce), end_of(QoS::ExactlyOnce))
    }

    /// Where the log has to come before the next packet may go that waits for it; `None` if none
    /// does, or if it has no place in the log yet: then its turn sees to it.
    pub fn awaits_log(&self) -> Option<Position> {
        let durable = self.durable.as_ref().filter(|_| self.state == State::Connected)?;
        if self.pubrel_must_wait() {
            return Some(durable.acknowledged);
        }
        let (queued, message) = self.queue.front()?;
        if durable.is_attaching() {
            return Some(durable.attached);
        }
        if queued.qos != QoS::ExactlyOnce || durable.is_committed(message) {
            return None;
        }
        // The watermark moves from the end of one batch to that of another.
        message.stored().map(|stored| stored.position().plus(1))
    }

    pub(super) fn must_wait(&self, qos: QoS, message: &Message) -> bool {
        self.durable.as_ref().is_some_and(|durable| {
            durable.is_attaching() || (qos == QoS::ExactlyOnce && !durable.is_committed(message))
        })
    }

    /// A connection is about to begin: the log tells of it when it has come to `recorded`, and of every PUBREC of earlier ones when it has
    /// come to `acknowledged`.
    pub fn attached_at(&mut self, recorded: Position, acknowledged: Position) {
        if let Some(durable) = &mut self.durable {
            durable.attached = recorded;
            // What was restored is on record.
            durable.acknowledged = if durable.has_completing { acknowledged } else { Position::START };
        }
    }

    /// Whether what is to be sent again next is a PUBREL, and the PUBREC before it not on record yet.
    pub(super) fn pubrel_must_wait(&self) -> bool {
        let Some(durable) = &self.durable else { return false };
        durable.acknowledged > durable.ledger.committed()
            && self.inflight.next_unfinished(self.resend_next).is_some_and(|(position, _, delivery)| {
                position < self.resend_end && delivery.awaiting == Awaiting::PubComp
            })
    }

    /// Whether messages had better be read back from the log now. `ahead`: also those that cannot be
    /// sent yet. A client that does not read would else hold in memory what was left to the log.
    pub fn wants_messages(&self, ahead: bool) -> bool {
        if self.state != State::Connected {
            false
        } else if self.resend_is_stored() {
            self.may_load_again() && (ahead || self.room_for(true) > 0)
        } else {
            self.queue.wants() && (ahead || self.queue.front().is_none() && self.room_for(false) > 0)
        }
    }

    /// How many messages could be sent now: those of before (`again`), or new ones.
    fn room_for(&self, again: bool) -> usize {
        if again {
            let is_open = self.out.pending() < ENCODE_AHEAD_BYTES;
            let window = usize::from(self.terms.receive_maximum);
            if is_open { window.saturating_sub(self.inflight.under_way()) } else { 0 }
        } else if self.may_begin() {
            self.window().saturating_sub(self.inflight.unfinished())
        } else {
            0
        }
    }

    /// Whether what is to be sent again next is in the log only.
    pub(super) fn resend_is_stored(&self) -> bool {
        self.durable.is_some()
            && self.resend_next < self.resend_end
            && self.inflight.next_unfinished(self.resend_next).is_some_and(|(position, _, delivery)| {
                position < self.resend_end && delivery.kept.is_stored()
            })
    }

    /// Whether it may be read back: acknowledgements of others make room, if others are under way.
    fn may_load_again(&self) -> bool {
        self.inflight.under_way() == 0 || self.inflight.kept_bytes() < self.kept_bytes_max()
    }

    /// The messages that a client which is about to connect will be sent first, if they are in the
    /// log only: those sent before, else those at the front of its queue.
    pub fn wanted_first(&self, max: usize, ahead: bool) -> Vec<(u64, Position)> {
        let bytes_max = refill_bytes(ahead);
        let again = self.inflight.wanted(0, u64::MAX, max, bytes_max);
        if again.is_empty() && self.queue.wants() { self.queue.wanted(max, bytes_max) } else { again }
    }

    /// Messages that had better be read back from the log now: position of the delivery and place of each, at most `max`.
    pub fn wanted(&self, max: usize, ahead: bool) -> Vec<(u64, Position)> {
        if !self.wants_messages(ahead) {
            return Vec::new();
        }
        let again = self.resend_is_stored();
        let max = if ahead { max } else { max.min(self.room_for(again)) };
        if again {
            self.inflight.wanted(self.resend_next, self.resend_end, max, refill_bytes(ahead))
        } else {
            self.queue.wanted(max, refill_bytes(ahead))
        }
    }

    /// A message that was [`wanted`](Self::wanted), or `None` if it cannot be read any more: its delivery is over then. `false` if nobody waits
    /// for it any more.
    pub fn provide(&mut self, sequence: u64, read: Option<Message>) -> bool {
        if let Some(id) = self.inflight.stored_id(sequence) {
            let provided = match read {
                Some(read) => self.inflight.provide(sequence, read).is_ok(),
                None => self.end_delivery(id, Awaiting::PubAck) || self.end_delivery(id, Awaiting::PubRec),
            };
            self.pump();
            return provided;
        }
        let lost = read.is_none();
        let provided = self.queue.provide(sequence, read);
        if provided && lost {
            self.finish(sequence);
        }
        if provided {
            self.pump();
        }
        provided
    }

    /// Notes that a delivery is over.
    pub(super) fn finish(&mut self, sequence: u64) {
        if let Some(durable) = &mut self.durable {
            durable.finish(sequence);
        }
    }

    /// What a checkpoint has to say of it.
    pub fn snapshot(&self) -> Snapshot {
        let sent = self.inflight.unacknowledged().into_iter().map(|(position, _)| (position, 1));
        let mut live: Vec<(u64, u64)> = sent.chain(self.queue.sequences()).collect();
        live.sort_unstable();
        live.dedup_by(|(first, length), (before, before_length)| {
            let adjoins = *before + *before_length == *first;
            if adjoins {
                *before_length += *length;
            }
            adjoins
        });
        Snapshot {
            next: self.next_sequence(),
            live,
            completing: self.inflight.completing(),
            received: self.received_qos2.iter().collect(),
        }
    }

    /// Takes up what a durable session had when the broker stopped. It is without connection and has nothing yet.
    pub fn restore(
        &mut self,
        next: u64,
        messages: impl ExactSizeIterator<Item = RestoredMessage>,
        completing: &[(u64, PacketId)],
        received: &[PacketId],
    ) {
        for (position, id) in completing {
            self.inflight.restore_completing(*position, *id);
        }
        if let Some(durable) = &mut self.durable {
            durable.next = next;
        }
        for id in received {
            self.received_qos2.insert(*id);
        }
        self.queue.extend(messages.map(|restored| {
            let has_extra = !restored.subscription_ids.is_empty() || restored.shared.is_some();
            QueuedMessage {
                sequence: restored.sequence,
                body: Body::Stored(restored.position, restored.frame_bytes),
                cost: restored.cost,
                qos: restored.qos,
                retain: restored.retain,
                again: restored.again,
                extra: has_extra.then(|| {
                    Box::new(DeliveryExtra {
                        subscription_ids: restored.subscription_ids,
                        shared: restored.shared,
                    })
                }),
            }
        }));
    }

    /// Where a delivery's message is in the log; `None` if the delivery is over or its message not needed any more.
    pub fn position_of(&self, sequence: u64) -> Option<Position> {
        if let Some(position) = self.queue.position_of(sequence) {
            return Some(position);
        }
        Some(self.inflight.stored_at(sequence)?.position())
    }

    /// A delivery's message was copied from one place in the log to another.
    pub fn moved(&mut self, sequence: u64, from: Position, to: Position) {
        self.queue.moved(sequence, from, to);
        if let Some(stored) = self.inflight.stored_at(sequence) {
            stored.move_to(from, to);
        }
    }

    /// PUBREC in a durable session: PUBREL goes when that is on record.
    pub(super) fn complete_durably(&mut self, id: PacketId, advanced: Option<u64>) -> bool {
        let Some(durable) = &mut self.durable else { return false };
        if let Some(sequence) = advanced {
            durable.completing(sequence, id);
        }
        let known = advanced.is_some() || self.inflight.awaits(id, Awaiting::PubComp);
        let version = self.terms.version;
        durable.answer(|out| super::outbound::encode_pubrel(out, version, id, known));
        true
    }
}
