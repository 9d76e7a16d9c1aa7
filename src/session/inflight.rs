//! `Inflight`: the QoS 1 and 2 deliveries a client has not finished, and the packet ids they hold.
//!
//! Deliveries have positions 0, 1, 2, … in the order in which they were first sent; the packet id follows from the position. So
//! looking one up takes constant time, an id is never given out twice while it is in use ([MQTT-2.3.1-4]), and the order of redelivery is the order of
//! sending ([MQTT-4.6.0-1]). A delivery finished out of order leaves a gap that closes once the older ones are finished.

use std::collections::VecDeque;
use std::sync::Arc;

use super::message::Message;
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
    /// Held only by sessions that outlive their connection: others never send it again.
    pub(super) message: Option<Arc<Message>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Inflight {
    deliveries: VecDeque<Delivery>,
    /// Position of the oldest delivery held, or of the next one if there is none.
    start: u64,
    unfinished: u16,
}

/// Packet ids run from 1 to 65,535.
const IDS: u64 = u16::MAX as u64;

impl Inflight {
    pub(super) fn new() -> Self {
        Self { deliveries: VecDeque::new(), start: 0, unfinished: 0 }
    }

    /// Deliveries not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished.into()
    }

    /// Whether every packet id is held, finished or not.
    pub(super) fn is_exhausted(&self) -> bool {
        self.deliveries.len() >= IDS as usize
    }

    /// Begins a delivery; the caller has checked the window and [`is_exhausted`](Self::is_exhausted).
    pub(super) fn begin(&mut self, qos: QoS, retain: bool, message: Option<Arc<Message>>) -> PacketId {
        let id = id_of(self.end());
        let awaiting = if qos == QoS::ExactlyOnce { Awaiting::PubRec } else { Awaiting::PubAck };
        self.deliveries.push_back(Delivery { awaiting, retain, message });
        self.unfinished += 1;
        id
    }

    /// Moves the delivery with this id from `from` to `to`. `false` if it is not there or is not in `from`.
    pub(super) fn advance(&mut self, id: PacketId, from: Awaiting, to: Awaiting) -> bool {
        let index = self.index_of(id);
        let Some(delivery) = self.deliveries.get_mut(index) else { return false };
        if delivery.awaiting != from {
            return false;
        }
        delivery.awaiting = to;
        if to != Awaiting::PubRec {
            // After PUBREC the message is the client's: it is never sent again ([MQTT-4.3.3-1]).
            delivery.message = None;
        }
        if to == Awaiting::Nothing {
            self.unfinished -= 1;
            self.close_gap();
        }
        true
    }

    /// Whether the delivery with this id awaits `awaiting`.
    pub(super) fn awaits(&self, id: PacketId, awaiting: Awaiting) -> bool {
        self.deliveries.get(self.index_of(id)).is_some_and(|delivery| delivery.awaiting == awaiting)
    }

    /// Position of the oldest delivery held.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Position of the next delivery.
    pub(super) fn end(&self) -> u64 {
        self.start + self.deliveries.len() as u64
    }

    /// The delivery at a position.
    pub(super) fn at(&self, position: u64) -> Option<(PacketId, &Delivery)> {
        let index = usize::try_from(position.checked_sub(self.start)?).ok()?;
        Some((id_of(position), self.deliveries.get(index)?))
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
            let id = inflight.begin(QoS::AtLeastOnce, false, None);
            assert_eq!(id.get(), expected);
            assert!(finish(&mut inflight, id));
            expected = if expected == u16::MAX { 1 } else { expected + 1 };
        }
        assert_eq!((inflight.end() - inflight.start(), inflight.unfinished()), (0, 0));
    }

    #[test]
    fn an_unfinished_delivery_keeps_its_id_from_being_reused() {
        let mut inflight = Inflight::new();
        let stuck = inflight.begin(QoS::AtLeastOnce, false, None);
        while !inflight.is_exhausted() {
            let id = inflight.begin(QoS::AtLeastOnce, false, None);
            assert_ne!(id, stuck);
            assert!(finish(&mut inflight, id));
        }
        assert_eq!((inflight.end() - inflight.start(), inflight.unfinished()), (65_535, 1));
        assert!(finish(&mut inflight, stuck));
        assert_eq!(inflight.start(), inflight.end());
        assert_eq!(inflight.begin(QoS::AtLeastOnce, false, None), stuck);
    }

    #[test]
    fn acknowledgements_of_the_wrong_kind_or_id_change_nothing() {
        let mut inflight = Inflight::new();
        let one = inflight.begin(QoS::AtLeastOnce, false, None);
        let two = inflight.begin(QoS::ExactlyOnce, false, None);
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
