//! `Model`: what a session has to do, in the plainest data structures, which `model_run` holds a session against.
//!
//! Both are given the same operations; after each, every answer, count and bound must be equal, and every byte the session
//! writes must be the model's. The model encodes its packets itself. Bytes decide the operations, so that property tests
//! and the fuzz target can share it; for the latter only public items are used.

use std::collections::VecDeque;

use crate::protocol::QoS;
use crate::protocol::encode::AckKind;
use crate::session::{Delivered, DropReason, SessionLimits};

/// As in `outbound.rs`: what may be unwritten before QoS 1 and 2 wait un-encoded.
const ENCODE_AHEAD_BYTES: usize = 256 * 1024;
/// As in `message.rs`: what a message is charged with beyond its text and body.
const OVERHEAD: usize = 96;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelMessage {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
}

impl ModelMessage {
    fn cost(&self) -> usize {
        self.topic.len() + self.payload.len() + OVERHEAD
    }

    /// A PUBLISH, byte by byte as section 3.3 has it.
    pub(crate) fn publish(&self, dup: bool, qos: QoS, retain: bool, id: u16) -> Vec<u8> {
        let mut body = (self.topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(self.topic.as_bytes());
        if qos != QoS::AtMostOnce {
            body.extend(id.to_be_bytes());
        }
        body.extend_from_slice(&self.payload);
        let mut bytes = vec![0x30 + if dup { 8 } else { 0 } + 2 * (qos as u8) + u8::from(retain)];
        let mut length = body.len();
        loop {
            let low = (length % 128) as u8;
            length /= 128;
            bytes.push(if length > 0 { low + 128 } else { low });
            if length == 0 {
                break;
            }
        }
        bytes.extend_from_slice(&body);
        bytes
    }
}

#[derive(Debug, Clone)]
struct Waiting {
    message: ModelMessage,
    qos: QoS,
    retain: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Unfinished {
    pub(crate) id: u16,
    /// The acknowledgement that is due.
    pub(crate) due: AckKind,
    delivery: Waiting,
}

/// What the operations led to: a generator that never gets anywhere would prove nothing.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    pub(crate) operations: usize,
    pub(crate) sent: usize,
    pub(crate) queued: usize,
    pub(crate) dropped: [usize; DropReason::ALL.len()],
    pub(crate) ended: usize,
    pub(crate) resent: usize,
    pub(crate) pubrel_resent: usize,
    pub(crate) resend_paced: usize,
    pub(crate) waited_for_output: usize,
    pub(crate) put_back: usize,
    pub(crate) repeated: usize,
    pub(crate) retained: usize,
    pub(crate) wrong_acks: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) limits: SessionLimits,
    /// The session outlives its connections, so it keeps what it may have to send again.
    keeps: bool,
    pub(crate) connected: bool,
    pub(crate) ended: bool,
    /// All output of this connection, written or not.
    pub(crate) out: Vec<u8>,
    pub(crate) written: usize,
    pub(crate) unfinished: Vec<Unfinished>,
    /// Ids of what is to be sent again.
    resend: VecDeque<u16>,
    waiting: VecDeque<Waiting>,
    last_id: u16,
    pub(crate) received: Vec<u16>,
    pub(crate) filters: Vec<String>,
}

impl Model {
    pub(crate) fn new(limits: SessionLimits, keeps: bool) -> Self {
        Self {
            limits,
            keeps,
            connected: false,
            ended: false,
            out: Vec::new(),
            written: 0,
            unfinished: Vec::new(),
            resend: VecDeque::new(),
            waiting: VecDeque::new(),
            last_id: 0,
            received: Vec::new(),
            filters: Vec::new(),
        }
    }

    pub(crate) fn end(&mut self) -> Vec<String> {
        let mut filters = std::mem::take(&mut self.filters);
        filters.sort();
        *self = Self { ended: true, ..Self::new(self.limits.clone(), self.keeps) };
        filters
    }

    pub(crate) fn attach(&mut self, session_present: bool, reached: &mut Reached) {
        self.connected = true;
        self.out = vec![0x20, 2, u8::from(session_present), 0];
        self.written = 0;
        self.resend = self.unfinished.iter().map(|unfinished| unfinished.id).collect();
        self.pump(reached);
    }

    pub(crate) fn detach(&mut self) {
        self.connected = false;
        self.out.clear();
        self.written = 0;
    }

    pub(crate) fn pending(&self) -> usize {
        self.out.len() - self.written
    }

    pub(crate) fn queued(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting.iter().map(|waiting| waiting.message.cost()).sum()
    }

    pub(crate) fn window(&self) -> usize {
        usize::from(self.limits.inflight_max).saturating_sub(self.unfinished.len())
    }

    fn may_begin(&self) -> bool {
        let kept = self.unfinished.iter().filter(|unfinished| unfinished.due != AckKind::PubComp);
        let kept: usize = kept.map(|unfinished| unfinished.delivery.message.cost()).sum();
        let kept_max = (self.limits.queue_bytes_max / 4).max(ENCODE_AHEAD_BYTES);
        let has_room = !self.keeps || self.unfinished.is_empty() || kept < kept_max;
        self.window() > 0 && self.pending() < ENCODE_AHEAD_BYTES && has_room
    }

    pub(crate) fn has_room_for_replay(&self) -> bool {
        self.connected && self.resend.is_empty() && self.may_begin()
    }

    pub(crate) fn deliver(
        &mut self,
        message: ModelMessage,
        granted: QoS,
        retain: bool,
        reached: &mut Reached,
    ) -> Delivered {
        let delivered = self.judge_and_deliver(message, granted, retain, reached);
        match delivered {
            Delivered::Sent => reached.sent += 1,
            Delivered::Queued => reached.queued += 1,
            Delivered::Dropped(reason) => reached.dropped[reason as usize] += 1,
            Delivered::Ended => reached.ended += 1,
        }
        delivered
    }

    fn judge_and_deliver(
        &mut self,
        message: ModelMessage,
        granted: QoS,
        retain: bool,
        reached: &mut Reached,
    ) -> Delivered {
        let qos = if (message.qos as u8) < granted as u8 { message.qos } else { granted };
        let cost = message.cost();
        let held = self.pending() + self.waiting_bytes() + cost;
        let delivery = Waiting { message, qos, retain };
        if self.ended {
            Delivered::Ended
        } else if qos == QoS::AtMostOnce {
            if !self.connected {
                Delivered::Dropped(DropReason::OfflineQos0)
            } else if cost > self.limits.queue_bytes_max {
                Delivered::Dropped(DropReason::TooLarge)
            } else if held > self.limits.queue_bytes_max {
                Delivered::Dropped(DropReason::QueueFullQos0)
            } else {
                self.out.extend_from_slice(&delivery.message.publish(false, qos, retain, 0));
                Delivered::Sent
            }
        } else if self.has_room_for_replay() && self.waiting.is_empty() {
            self.begin(delivery);
            Delivered::Sent
        } else if cost > self.limits.queue_bytes_max {
            Delivered::Dropped(DropReason::TooLarge)
        } else if self.waiting.len() >= self.limits.queue_messages_max {
            Delivered::Dropped(DropReason::QueueFull)
        } else if held > self.limits.queue_bytes_max {
            Delivered::Dropped(DropReason::QueueFullBytes)
        } else {
            reached.waited_for_output += usize::from(self.connected && self.window() > 0);
            self.waiting.push_back(delivery);
            Delivered::Queued
        }
    }

    pub(crate) fn deliver_retained(&mut self, message: ModelMessage, granted: QoS) {
        let qos = if (message.qos as u8) < granted as u8 { message.qos } else { granted };
        if qos == QoS::AtMostOnce {
            self.out.extend_from_slice(&message.publish(false, qos, true, 0));
        } else {
            self.begin(Waiting { message, qos, retain: true });
        }
    }

    fn begin(&mut self, delivery: Waiting) {
        self.last_id = if self.last_id == u16::MAX { 1 } else { self.last_id + 1 };
        let id = self.last_id;
        assert!(self.unfinished.iter().all(|other| other.id != id), "the model is not made for a wrap");
        self.out.extend_from_slice(&delivery.message.publish(false, delivery.qos, delivery.retain, id));
        let due = if delivery.qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        self.unfinished.push(Unfinished { id, due, delivery });
    }

    /// Whether the acknowledgement was a step of a delivery.
    pub(crate) fn handle_ack(&mut self, kind: AckKind, id: u16, reached: &mut Reached) -> bool {
        let place = self.unfinished.iter().position(|unfinished| unfinished.id == id);
        let due = place.map(|place| self.unfinished[place].due);
        let accepted = due == Some(kind);
        match (kind, place) {
            (AckKind::PubRec, Some(place)) if accepted => self.unfinished[place].due = AckKind::PubComp,
            (_, Some(place)) if accepted => {
                self.unfinished.remove(place);
            }
            _ => reached.wrong_acks += 1,
        }
        if kind == AckKind::PubRec && due != Some(AckKind::PubAck) && self.connected {
            self.send_pubrel(id);
        }
        if accepted {
            self.pump(reached);
        }
        accepted
    }

    fn send_pubrel(&mut self, id: u16) {
        self.out.extend([0x62, 2]);
        self.out.extend(id.to_be_bytes());
    }

    pub(crate) fn pump(&mut self, reached: &mut Reached) {
        if !self.connected {
            return;
        }
        while self.pending() < ENCODE_AHEAD_BYTES
            && let Some(id) = self.resend.pop_front()
        {
            let Some(again) = self.unfinished.iter().find(|unfinished| unfinished.id == id) else { continue };
            if again.due == AckKind::PubComp {
                reached.pubrel_resent += 1;
                self.send_pubrel(id);
            } else {
                reached.resent += 1;
                let Waiting { message, qos, retain } = &again.delivery;
                let bytes = message.publish(true, *qos, *retain, id);
                self.out.extend_from_slice(&bytes);
            }
            // What was acknowledged before its turn is not waited for.
            while let Some(next) = self.resend.front()
                && !self.unfinished.iter().any(|unfinished| unfinished.id == *next)
            {
                self.resend.pop_front();
            }
        }
        if !self.resend.is_empty() {
            reached.resend_paced += 1;
            return;
        }
        while self.may_begin()
            && let Some(delivery) = self.waiting.pop_front()
        {
            self.begin(delivery);
        }
    }
}
