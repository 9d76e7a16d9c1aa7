//! `Inflight`: the QoS 1 and 2 deliveries a client has not finished, and the packet ids they hold.
//!
//! Deliveries have positions 0, 1, 2, … in the order in which they were first sent; the packet id follows from the position. So
//! looking one up takes constant time, an id is never given out twice while it is in use ([MQTT-2.3.1-4]), and the order of redelivery is
//! the order of sending ([MQTT-4.6.0-1]). A delivery finished out of order leaves a gap that closes once the older ones are finished. One
//! that a client leaves unfinished while thousands of later ones are done is put aside, so that it neither holds up the others nor keeps
//! their gaps in memory; its id is skipped.
//!
//! In a session that is kept in the durable log a delivery has its position from the moment it is queued
//! ([`begin_at`](Inflight::begin_at)), so that the id is the same after a restart. Should that id be in use at
//! its turn, the nearest free one before it is taken, which a restart finds again.

mod memory;

use std::collections::VecDeque;
use std::sync::Arc;

use super::kept::Kept;
use super::message::Message;
use super::queue::DeliveryExtra;
use super::stragglers::Stragglers;
use crate::ledger::Stored;
use crate::protocol::{PacketId, QoS};

/// A QoS 1 delivery that another client is to get, unless its own takes it back first.
#[derive(Debug)]
pub(super) struct TakenDelivery {
    pub(super) position: u64,
    pub(super) id: PacketId,
    pub(super) retain: bool,
    /// With the whole filter of its shared subscription.
    pub(super) extra: Box<DeliveryExtra>,
    /// Its message, or where that is.
    pub(super) message: Result<Arc<Message>, Stored>,
}

/// What the client owes for a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaiting {
    /// PUBACK of a QoS 1 delivery.
    PubAck,
    /// PUBREC of a QoS 2 delivery.
    PubRec,
    /// PUBCOMP: the client has the message, PUBREL was sent.
    PubComp,
    /// Nothing any more; an older delivery is unfinished.
    Nothing,
}

/// A delivery begun.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) awaiting: Awaiting,
    pub(super) retain: bool,
    /// It is still to be sent again on this connection.
    due_again: bool,
    pub(super) kept: Kept,
    pub(super) extra: Option<Box<DeliveryExtra>>,
}

impl Delivery {
    /// A position at which nothing is under way.
    const fn gap() -> Self {
        Self {
            awaiting: Awaiting::Nothing,
            retain: false,
            due_again: false,
            kept: Kept::NOTHING,
            extra: None,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inflight {
    deliveries: VecDeque<Delivery>,
    /// Put aside, oldest first; all before `start`.
    stragglers: Stragglers,
    /// Position of the oldest delivery held, or of the next one if there is none.
    start: u64,
    unfinished: u16,
    due_again: u16,
    /// What is charged to this client: bytes of messages kept in memory, of places of those in the
    /// log, and of what few deliveries have besides.
    own_bytes: u32,
    /// Bytes of all messages kept in memory.
    kept_bytes: usize,
}

/// Packet ids run from 1 to 65,535.
const IDS: u64 = u16::MAX as u64;

/// The ring may be this much longer than what is unfinished in it before its oldest deliveries are put aside.
const GAPS_MAX: usize = 1_024;

impl Inflight {
    pub(super) fn new() -> Self {
        Self {
            deliveries: VecDeque::new(),
            stragglers: Stragglers::default(),
            start: 0,
            unfinished: 0,
            due_again: 0,
            own_bytes: 0,
            kept_bytes: 0,
        }
    }

    /// Deliveries not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.into()
    }

    /// Deliveries not finished that this connection's client was sent.
    pub(super) fn under_way(&self) -> usize {
        self.unfinished.saturating_sub(self.due_again).into()
    }

    /// A new connection: whatever is unfinished is to be sent again.
    pub(super) fn begin_again(&mut self) {
        let due = |delivery: &mut Delivery| delivery.due_again = delivery.awaiting != Awaiting::Nothing;
        self.stragglers.change_all(|_, _, delivery| due(delivery), |_| false);
        self.deliveries.iter_mut().for_each(due);
        self.due_again = self.unfinished;
    }

    /// The delivery with this id is sent again.
    pub(super) fn sent_again(&mut self, id: PacketId) {
        let was_due = self.find_mut(id).is_some_and(|delivery| std::mem::take(&mut delivery.due_again));
        self.due_again -= u16::from(was_due);
    }

    /// Whether every packet id is in use.
    pub(super) fn is_exhausted(&self) -> bool {
        u64::from(self.unfinished) >= IDS
    }

    /// Begins a delivery; the caller has checked the window and [`is_exhausted`](Self::is_exhausted).
    pub(super) fn begin(
        &mut self,
        qos: QoS,
        retain: bool,
        message: Option<Arc<Message>>,
        extra: Option<Box<DeliveryExtra>>,
    ) -> PacketId {
        while self.deliveries.len() > usize::from(self.unfinished) + GAPS_MAX
            || self.deliveries.len() as u64 >= IDS
        {
            self.put_oldest_aside();
        }
        // Ids that are in use from long ago are passed over.
        while self.stragglers.contains(id_of(self.ring_end())) {
            self.deliveries.push_back(Delivery::gap());
            self.close_gap();
        }
        let id = id_of(self.ring_end());
        let awaiting = if qos == QoS::ExactlyOnce { Awaiting::PubRec } else { Awaiting::PubAck };
        let kept = Kept::from(message);
        self.hold(&kept, extra.as_deref());
        self.deliveries.push_back(Delivery { awaiting, retain, due_again: false, kept, extra });
        self.unfinished += 1;
        id
    }

    /// Begins the delivery that was given this position; positions come in ascending order. The caller has checked the window and
    /// [`is_exhausted`](Self::is_exhausted).
    pub(super) fn begin_at(
        &mut self,
        position: u64,
        qos: QoS,
        retain: bool,
        message: Option<Arc<Message>>,
        extra: Option<Box<DeliveryExtra>>,
    ) -> PacketId {
        let awaiting = if qos == QoS::ExactlyOnce { Awaiting::PubRec } else { Awaiting::PubAck };
        let kept = Kept::from(message);
        self.hold(&kept, extra.as_deref());
        let delivery = Delivery { awaiting, retain, due_again: false, kept, extra };
        while position.saturating_sub(self.start) >= self.ring_max() && !self.deliveries.is_empty() {
            self.put_oldest_aside();
        }
        if self.deliveries.is_empty() {
            self.start = position;
        }
        self.unfinished += 1;
        let id = id_of(position);
        if self.stragglers.contains(id) || position < self.ring_end() {
            let id = self.free_id_before(position);
            self.stragglers.insert(position, id, delivery);
            return id;
        }
        while self.ring_end() < position {
            self.deliveries.push_back(Delivery::gap());
        }
        self.deliveries.push_back(delivery);
        id
    }

    /// Takes up again a delivery whose PUBREC came before a restart: PUBREL is owed.
    pub(super) fn restore_completing(&mut self, position: u64, id: PacketId) {
        if self.is_exhausted() || self.stragglers.contains(id) {
            return;
        }
        self.unfinished += 1;
        let delivery = Delivery { awaiting: Awaiting::PubComp, ..Delivery::gap() };
        self.stragglers.insert(position, id, delivery);
    }

    /// Unfinished deliveries whose message the client has: position and id, oldest first.
    pub(super) fn completing(&self) -> Vec<(u64, PacketId)> {
        self.unfinished_where(|awaiting| awaiting == Awaiting::PubComp)
    }

    /// Unfinished deliveries whose message may be sent again: position and id, oldest first.
    pub(super) fn unacknowledged(&self) -> Vec<(u64, PacketId)> {
        self.unfinished_where(|awaiting| matches!(awaiting, Awaiting::PubAck | Awaiting::PubRec))
    }

    fn unfinished_where(&self, wanted: impl Fn(Awaiting) -> bool) -> Vec<(u64, PacketId)> {
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((position, id, delivery)) = self.next_unfinished(from) {
            if wanted(delivery.awaiting) {
                found.push((position, id));
            }
            from = position + 1;
        }
        found
    }

    /// Where the log has the message of the unfinished delivery at this position.
    pub(super) fn stored_at(&self, position: u64) -> Option<&Stored> {
        let (found, _, delivery) = self.next_unfinished(position)?;
        delivery.kept.stored().filter(|_| found == position)
    }

    fn ring_max(&self) -> u64 {
        (u64::from(self.unfinished) + GAPS_MAX as u64).min(IDS)
    }

    /// An id in use by nobody. There is one: the caller has seen to that.
    fn free_id_before(&mut self, position: u64) -> PacketId {
        let before = (1..=IDS).map(|back| id_of(position + IDS - back));
        let free = before.into_iter().find(|id| {
            !self.stragglers.contains(*id)
                && self
                    .deliveries
                    .get(self.index_of(*id))
                    .is_none_or(|delivery| delivery.awaiting == Awaiting::Nothing)
        });
        free.unwrap_or(PacketId::MIN)
    }

    /// Moves the delivery with this id from `from` to `to`; returns its position. `None` if it is not there or is not in `from`.
    pub(super) fn advance(&mut self, id: PacketId, from: Awaiting, to: Awaiting) -> Option<u64> {
        if (self.kept_bytes > 0 || self.own_bytes > 0) && to != Awaiting::PubRec {
            self.let_go(id, from);
        }
        let position = match self.stragglers.position(id) {
            Some(position) => position,
            None => self.start + self.index_of(id) as u64,
        };
        let delivery = self.find_mut(id)?;
        if delivery.awaiting != from {
            return None;
        }
        delivery.awaiting = to;
        if to != Awaiting::PubRec {
            // After PUBREC the message is the client's: it is never sent again ([MQTT-4.3.3-1]).
            delivery.kept = Kept::NOTHING;
            delivery.extra = None;
        }
        if to == Awaiting::Nothing {
            let was_due = std::mem::take(&mut delivery.due_again);
            self.due_again -= u16::from(was_due);
            self.unfinished -= 1;
            self.stragglers.remove(id);
            self.close_gap();
        }
        Some(position)
    }

    /// Whether the delivery with this id awaits `awaiting`.
    pub(super) fn awaits(&mut self, id: PacketId, awaiting: Awaiting) -> bool {
        self.find_mut(id).is_some_and(|delivery| delivery.awaiting == awaiting)
    }

    /// Gives up the QoS 1 deliveries that came by a shared subscription for which `wanted` holds: another client will get them.
    pub(super) fn take_shared_qos1(&mut self, wanted: impl Fn(&Arc<str>) -> bool) -> Vec<TakenDelivery> {
        let mut taken = Vec::new();
        let mut were_due = 0;
        let mut take = |position: u64, id: PacketId, delivery: &mut Delivery| {
            if delivery.awaiting == Awaiting::PubAck
                && !delivery.kept.is_nothing()
                && let Some(extra) =
                    delivery.extra.take_if(|extra| extra.shared.as_ref().is_some_and(&wanted))
                && let Some(message) = std::mem::take(&mut delivery.kept).into_message()
            {
                delivery.awaiting = Awaiting::Nothing;
                were_due += u16::from(std::mem::take(&mut delivery.due_again));
                taken.push(TakenDelivery { position, id, retain: delivery.retain, extra, message });
            }
        };
        self.stragglers.change_all(&mut take, |delivery| delivery.awaiting == Awaiting::Nothing);
        let ring = (self.start..).zip(&mut self.deliveries);
        ring.for_each(|(position, delivery)| take(position, id_of(position), delivery));
        self.unfinished -= taken.len() as u16;
        self.due_again -= were_due;
        self.count_kept();
        self.close_gap();
        taken
    }

    /// Takes deliveries back, oldest first, that were given up and that nobody has got: they have the
    /// ids they had, and are to be sent again. No delivery has begun in between.
    pub(super) fn put_back(&mut self, taken: Vec<TakenDelivery>) {
        for TakenDelivery { position, id, retain, extra, message } in taken.into_iter().rev() {
            let (awaiting, kept) = (Awaiting::PubAck, Kept::from(message));
            let delivery = Delivery { awaiting, retain, due_again: false, kept, extra: Some(extra) };
            self.unfinished += 1;
            let in_ring = if id == id_of(position) { self.reach_back(position) } else { None };
            match in_ring {
                Some(place) => *place = delivery,
                None => self.stragglers.insert(position, id, delivery),
            }
        }
        self.count_kept();
    }

    /// The place in the ring of a position before its end, if the ring may become so long.
    fn reach_back(&mut self, position: u64) -> Option<&mut Delivery> {
        if self.ring_end().saturating_sub(position) > self.ring_max() {
            return None;
        }
        while self.start > position {
            self.deliveries.push_front(Delivery::gap());
            self.start -= 1;
        }
        let index = usize::try_from(position - self.start).ok()?;
        self.deliveries.get_mut(index)
    }

    /// Behind the last delivery begun.
    pub(super) fn end(&self) -> u64 {
        self.ring_end().max(self.stragglers.end())
    }

    /// The oldest unfinished delivery from a position on.
    pub(super) fn next_unfinished(&self, from: u64) -> Option<(u64, PacketId, &Delivery)> {
        let aside = self.stragglers.next(from);
        let first = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let mut ring = self.deliveries.iter().enumerate().skip(first);
        let in_ring =
            ring.find(|(_, delivery)| delivery.awaiting != Awaiting::Nothing).map(|(index, delivery)| {
                let position = self.start + index as u64;
                (position, id_of(position), delivery)
            });
        match (aside, in_ring) {
            (Some(aside), Some(in_ring)) => Some(if aside.0 < in_ring.0 { aside } else { in_ring }),
            (aside, in_ring) => aside.or(in_ring),
        }
    }

    fn ring_end(&self) -> u64 {
        self.start + self.deliveries.len() as u64
    }

    fn find_mut(&mut self, id: PacketId) -> Option<&mut Delivery> {
        if self.stragglers.contains(id) {
            return self.stragglers.get_mut(id);
        }
        let index = self.index_of(id);
        self.deliveries.get_mut(index)
    }

    fn put_oldest_aside(&mut self) {
        if let Some(oldest) = self.deliveries.pop_front() {
            self.stragglers.insert(self.start, id_of(self.start), oldest);
            self.start += 1;
        }
        self.close_gap();
    }

    fn close_gap(&mut self) {
        while self.deliveries.front().is_some_and(|delivery| delivery.awaiting == Awaiting::Nothing) {
            self.deliveries.pop_front();
            self.start += 1;
        }
        let capacity = self.deliveries.capacity();
        if capacity > 64 && self.deliveries.len() < capacity / 4 {
            self.deliveries.shrink_to(capacity / 2);
        }
    }

    /// The place of an id in the ring; beyond its end for ids that are not held.
    fn index_of(&self, id: PacketId) -> usize {
        let first = self.start % IDS;
        ((u64::from(id.get()) - 1 + IDS - first) % IDS) as usize
    }
}

fn id_of(position: u64) -> PacketId {
    PacketId::new((position % IDS) as u16 + 1).unwrap_or(PacketId::MIN)
}

#[cfg(test)]
mod tests;
