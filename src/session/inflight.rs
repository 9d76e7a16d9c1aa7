//! `Inflight`: the QoS 1 and 2 deliveries a client has not finished, and the packet ids they hold.
//!
//! Deliveries have positions 0, 1, 2, … in the order in which they were first sent; the packet id follows from the position. So
//! looking one up takes constant time, an id is never given out twice while it is in use ([MQTT-2.3.1-4]), and the order of redelivery is
//! the order of sending ([MQTT-4.6.0-1]). A delivery finished out of order leaves a gap that closes once the older ones are finished. One
//! that a client leaves unfinished while thousands of later ones are done is put aside, so that it neither holds up the others nor keeps
//! their gaps in memory; its id is skipped.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::Message;
use super::queue::DeliveryExtra;
use super::stragglers::Stragglers;
use crate::protocol::{PacketId, QoS};

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
    /// Held only by sessions that outlive their connection: others never send it again.
    pub(super) message: Option<Arc<Message>>,
    pub(super) extra: Option<Box<DeliveryExtra>>,
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
        self.stragglers.change_all(due, |_| false);
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
        while self.stragglers.contains(id_of(self.end())) {
            self.deliveries.push_back(Delivery {
                awaiting: Awaiting::Nothing,
                retain: false,
                due_again: false,
                message: None,
                extra: None,
            });
            self.close_gap();
        }
        let id = id_of(self.end());
        let awaiting = if qos == QoS::ExactlyOnce { Awaiting::PubRec } else { Awaiting::PubAck };
        self.deliveries.push_back(Delivery { awaiting, retain, due_again: false, message, extra });
        self.unfinished += 1;
        id
    }

    /// Moves the delivery with this id from `from` to `to`. `false` if it is not there or is not in `from`.
    pub(super) fn advance(&mut self, id: PacketId, from: Awaiting, to: Awaiting) -> bool {
        let Some(delivery) = self.find_mut(id) else { return false };
        if delivery.awaiting != from {
            return false;
        }
        delivery.awaiting = to;
        if to != Awaiting::PubRec {
            // After PUBREC the message is the client's: it is never sent again ([MQTT-4.3.3-1]).
            delivery.message = None;
            delivery.extra = None;
        }
        if to == Awaiting::Nothing {
            let was_due = std::mem::take(&mut delivery.due_again);
            self.due_again -= u16::from(was_due);
            self.unfinished -= 1;
            self.stragglers.remove(id);
            self.close_gap();
        }
        true
    }

    /// Whether the delivery with this id awaits `awaiting`.
    pub(super) fn awaits(&mut self, id: PacketId, awaiting: Awaiting) -> bool {
        self.find_mut(id).is_some_and(|delivery| delivery.awaiting == awaiting)
    }

    /// Gives up the QoS 1 deliveries that came by a shared subscription for which `wanted` holds: another client will get them.
    pub(super) fn take_shared_qos1(
        &mut self,
        wanted: impl Fn(&Arc<str>) -> bool,
    ) -> Vec<(Arc<str>, Arc<Message>)> {
        let mut taken = Vec::new();
        let mut were_due = 0;
        let mut take = |delivery: &mut Delivery| {
            if delivery.awaiting == Awaiting::PubAck
                && let Some(shared) = delivery.extra.as_ref().and_then(|extra| extra.shared.clone())
                && wanted(&shared)
                && let Some(message) = delivery.message.take()
            {
                delivery.awaiting = Awaiting::Nothing;
                delivery.extra = None;
                were_due += u16::from(std::mem::take(&mut delivery.due_again));
                taken.push((shared, message));
            }
        };
        self.stragglers.change_all(&mut take, |delivery| delivery.awaiting == Awaiting::Nothing);
        self.deliveries.iter_mut().for_each(take);
        self.unfinished -= taken.len() as u16;
        self.due_again -= were_due;
        self.close_gap();
        taken
    }

    /// Position of the next delivery to begin.
    pub(super) fn end(&self) -> u64 {
        self.start + self.deliveries.len() as u64
    }

    /// The oldest unfinished delivery from a position on.
    pub(super) fn next_unfinished(&self, from: u64) -> Option<(u64, PacketId, &Delivery)> {
        if let Some(aside) = self.stragglers.next(from) {
            return Some(aside);
        }
        let first = usize::try_from(from.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let mut ring = self.deliveries.iter().enumerate().skip(first);
        ring.find(|(_, delivery)| delivery.awaiting != Awaiting::Nothing).map(|(index, delivery)| {
            let position = self.start + index as u64;
            (position, id_of(position), delivery)
        })
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
        if self.deliveries.is_empty() && self.deliveries.capacity() > 64 {
            self.deliveries = VecDeque::new();
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
mod tests {
    use super::*;

    fn finish(inflight: &mut Inflight, id: PacketId) -> bool {
        inflight.advance(id, Awaiting::PubAck, Awaiting::Nothing)
    }

    #[test]
    fn ids_run_through_the_wrap_and_skip_zero() {
        let mut inflight = Inflight::new();
        let mut expected = 1_u16;
        for _ in 0..70_000 {
            let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
            assert_eq!(id.get(), expected);
            assert!(finish(&mut inflight, id));
            expected = if expected == u16::MAX { 1 } else { expected + 1 };
        }
        assert_eq!((inflight.deliveries.len(), inflight.unfinished()), (0, 0));
    }

    #[test]
    fn an_unfinished_delivery_keeps_its_id_from_being_reused() {
        let mut inflight = Inflight::new();
        let stuck = inflight.begin(QoS::AtLeastOnce, false, None, None);
        for _ in 0..140_000 {
            let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
            assert_ne!(id, stuck);
            assert!(finish(&mut inflight, id));
        }
        assert!(
            inflight.deliveries.len() <= GAPS_MAX + 2,
            "gaps stay in memory: {}",
            inflight.deliveries.len()
        );
        assert_eq!(inflight.next_unfinished(0).map(|(position, id, _)| (position, id)), Some((0, stuck)));
        assert!(finish(&mut inflight, stuck));
        assert_eq!((inflight.unfinished(), inflight.deliveries.len()), (0, 0));
        assert!(inflight.stragglers.is_empty());
    }

    #[test]
    fn every_id_can_be_in_use_at_once() {
        let mut inflight = Inflight::new();
        let mut ids = std::collections::BTreeSet::new();
        while !inflight.is_exhausted() {
            assert!(ids.insert(inflight.begin(QoS::AtLeastOnce, false, None, None)));
        }
        assert_eq!(ids.len(), 65_535);
        // Finished from the newest on: the gaps are many, and all ids come free.
        for id in ids.into_iter().rev() {
            assert!(finish(&mut inflight, id));
        }
        assert_eq!((inflight.unfinished(), inflight.deliveries.len()), (0, 0));
    }

    #[test]
    fn unfinished_ones_are_found_in_the_order_of_sending() {
        let mut inflight = Inflight::new();
        let mut kept = Vec::new();
        for n in 0..10_000 {
            let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
            if n % 900 == 0 {
                kept.push(id);
            } else {
                assert!(finish(&mut inflight, id));
            }
        }
        assert!(!inflight.stragglers.is_empty());
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((position, id, _)) = inflight.next_unfinished(from) {
            found.push(id);
            from = position + 1;
        }
        assert_eq!(found, kept);
    }

    #[test]
    fn acknowledgements_of_the_wrong_kind_or_id_change_nothing() {
        let mut inflight = Inflight::new();
        let one = inflight.begin(QoS::AtLeastOnce, false, None, None);
        let two = inflight.begin(QoS::ExactlyOnce, false, None, None);
        assert!(!inflight.advance(one, Awaiting::PubRec, Awaiting::PubComp));
        assert!(!inflight.advance(two, Awaiting::PubAck, Awaiting::Nothing));
        assert!(!inflight.advance(two, Awaiting::PubComp, Awaiting::Nothing));
        for id in [3, 4, 65_535] {
            assert!(!finish(&mut inflight, PacketId::new(id).unwrap()));
        }
        assert!(inflight.advance(two, Awaiting::PubRec, Awaiting::PubComp));
        assert!(finish(&mut inflight, one));
        assert!(!finish(&mut inflight, one));
        assert!(inflight.advance(two, Awaiting::PubComp, Awaiting::Nothing));
        assert_eq!(inflight.unfinished(), 0);
    }
}
