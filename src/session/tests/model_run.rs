//! Drives a session and its [`Model`] with the operations that a string of bytes stands for.

use std::io::IoSlice;
use std::sync::Arc;

use super::model::{Model, ModelMessage, Reached};
use crate::protocol::encode::AckKind;
use crate::protocol::{Framed, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, decode, frame};
use crate::session::{
    AckOutcome, Delivered, EncodeScratch, Granted, Message, Outgoing, Output, Reception, Session,
    SessionLimits, SubscribeError, Terms, Timestamp,
};

const V311: ProtocolVersion = ProtocolVersion::V311;
const KINDS: [AckKind; 4] = [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp];
const PAYLOAD_LENS: [usize; 8] = [0, 10, 100, 300, 1_000, 9_000, 60_000, 270_000];
const QUEUE_BYTES: [usize; 4] = [400, 5_000, 100_000, 2_000_000];
const WRITE_LENS: [usize; 8] = [0, 1, 3, 40, 500, 9_001, 100_000, usize::MAX];

/// Runs the operations in `bytes`: three bytes choose the limits, then each operation takes four.
///
/// # Panics
/// At the first difference between session and model.
pub(crate) fn run(bytes: &[u8], reached: &mut Reached) {
    let Some((&[inflight, queue, kind], operations)) = bytes.split_first_chunk::<3>() else { return };
    let limits = SessionLimits {
        inflight_max: u16::from(inflight % 6) + 1,
        queue_messages_max: usize::from(queue % 8),
        queue_bytes_max: QUEUE_BYTES[usize::from(kind % 4)],
        subscriptions_max: 3,
        subscription_bytes_max: 1_000,
    };
    let outlives_connection = kind & 0x0c != 0;
    let mut pair = Pair {
        session: Session::new(Arc::new(limits.clone()), outlives_connection),
        model: Model::new(limits, outlives_connection),
        outlives_connection,
        taken: None,
        scratch: EncodeScratch::default(),
        messages: 0,
    };
    let (operations, _) = operations.as_chunks::<4>();
    for operation in operations {
        reached.operations += 1;
        pair.run(*operation, reached);
        pair.compare();
    }
}

struct Pair {
    session: Session,
    model: Model,
    outlives_connection: bool,
    /// Output under way to the socket, as TLS has it.
    taken: Option<Output>,
    scratch: EncodeScratch,
    messages: u32,
}

impl Pair {
    fn run(&mut self, [operation, a, b, c]: [u8; 4], reached: &mut Reached) {
        match operation % 16 {
            0..=3 => self.deliver(a, b, c, reached),
            4 if !self.model.connected || a % 8 == 0 => self.attach(reached),
            5 if a % 4 == 0 => self.detach(),
            4 | 6 | 7 => self.acknowledge(a, reached),
            5 => self.write(usize::MAX, false, reached),
            8 => {
                let raw = u16::from(b % 16) + self.model.unfinished.first().map_or(0, |first| first.id);
                self.ack(KINDS[usize::from(a % 4)], raw.max(1), reached);
            }
            9 | 10 => self.write(WRITE_LENS[usize::from(a % 8)], b % 2 == 0, reached),
            11 => self.write(usize::MAX, false, reached),
            12 => self.accept_publish(u16::from(a % 6) + 1, reached),
            13 => {
                let id = u16::from(a % 6) + 1;
                self.session.release(packet_id(id));
                self.model.received.retain(|other| *other != id);
            }
            14 => self.replay(a, b, c, reached),
            _ => self.rest(a, b),
        }
    }

    fn compare(&self) {
        let (session, model) = (&self.session, &self.model);
        assert_eq!(session.is_connected(), model.connected);
        assert_eq!(session.is_ended(), model.ended);
        assert_eq!(session.unfinished(), model.unfinished.len());
        assert_eq!(session.queued(), model.queued());
        assert_eq!(session.out.pending(), model.pending());
        assert_eq!(session.held_bytes(), model.pending() + model.waiting_bytes());
        assert_eq!(session.has_room_for_replay(), model.has_room_for_replay());
        assert_eq!(session.replay_room(), model.window());
        assert_eq!(session.subscriptions(), model.filters.len());
        if self.taken.is_none() {
            assert_eq!(session.out.has_output(), model.pending() > 0);
        }
        // The bounds, whatever was asked for.
        assert!(session.queued() <= model.limits.queue_messages_max);
        assert!(model.waiting_bytes() <= model.limits.queue_bytes_max);
        assert!(session.unfinished() <= usize::from(model.limits.inflight_max));
    }

    fn message(&mut self, qos: u8, len: u8) -> ModelMessage {
        self.messages += 1;
        let number = self.messages.to_be_bytes();
        ModelMessage {
            topic: format!("t/{}", self.messages % 11),
            payload: number.repeat(PAYLOAD_LENS[usize::from(len % 8)].div_ceil(4)),
            qos: qos_of(qos),
        }
    }

    fn deliver(&mut self, a: u8, b: u8, c: u8, reached: &mut Reached) {
        let message = self.message(a % 3, b);
        let (granted, retain) = (qos_of(a / 3 % 3), c & 2 != 0);
        if c & 4 != 0 {
            self.session.out.lend(|| Vec::with_capacity(64));
        }
        let (under, now) = (Granted { retain, ..Granted::with_qos(granted) }, Timestamp::default());
        let delivered = if c & 1 != 0 {
            // As the broker forwards what it has read, flags of the publisher included.
            let wire = message.publish(
                c & 8 != 0 && message.qos != QoS::AtMostOnce,
                message.qos,
                c & 16 != 0,
                0x1234,
            );
            let Ok(Framed::Frame(frame)) = frame(&wire, usize::MAX, V311) else { panic!("{wire:02x?}") };
            let Ok(Packet::Publish(publish)) = decode(&frame, V311) else { panic!("{wire:02x?}") };
            let mut outgoing =
                Outgoing::from_publish(&publish, publish.topic, V311, 7, now, &mut self.scratch);
            self.session.deliver(&mut outgoing, &under)
        } else {
            let owned = owned(&message);
            self.session.deliver(&mut Outgoing::from_message(&owned, now, &mut self.scratch), &under)
        };
        assert_eq!(delivered, self.model.deliver(message, granted, retain, reached));
    }

    fn attach(&mut self, reached: &mut Reached) {
        if self.model.ended || (self.model.connected && !self.outlives_connection) {
            // A clean session is never attached twice: the broker makes a new one.
            self.end();
            self.session = Session::new(Arc::new(self.model.limits.clone()), self.outlives_connection);
            self.model = Model::new(self.model.limits.clone(), self.outlives_connection);
        }
        self.taken = None;
        let connack = [0x20, 2, u8::from(self.outlives_connection), 0];
        self.session.attach(Terms::V311, &connack, None, self.outlives_connection);
        self.model.attach(self.outlives_connection, reached);
    }

    fn detach(&mut self) {
        self.taken = None;
        self.session.detach();
        self.model.detach();
        if !self.outlives_connection {
            self.end();
        }
    }

    fn end(&mut self) {
        self.taken = None;
        let mut filters: Vec<String> =
            self.session.end().iter().map(|(filter, _)| filter.to_owned()).collect();
        filters.sort();
        assert_eq!(filters, self.model.end());
    }

    /// The acknowledgement which one of the unfinished deliveries waits for.
    fn acknowledge(&mut self, which: u8, reached: &mut Reached) {
        let unfinished = &self.model.unfinished;
        if let Some(due) = unfinished.get(usize::from(which) % unfinished.len().max(1)) {
            self.ack(due.due, due.id, reached);
        }
    }

    fn ack(&mut self, kind: AckKind, id: u16, reached: &mut Reached) {
        let accepted =
            self.session.handle_ack(kind, packet_id(id), ReasonCode::Success) == AckOutcome::Accepted;
        assert_eq!(accepted, self.model.handle_ack(kind, id, reached), "{kind:?} {id}");
    }

    /// The socket accepts up to `n` bytes. What it leaves is held for the next time (`keep`) or put back.
    fn write(&mut self, n: usize, keep: bool, reached: &mut Reached) {
        let mut output = match self.taken.take() {
            Some(output) => output,
            None => self.session.out.take(),
        };
        let mut bytes = Vec::new();
        while bytes.len() < n && !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 3];
            let used = output.slices(&mut slices);
            assert!(used > 0, "output that is not empty offers nothing to write");
            assert_eq!(output.first(), &*slices[0]);
            assert!(!output.is_single() || used == 1);
            let before = bytes.len();
            for slice in &slices[..used] {
                bytes.extend_from_slice(&slice[..slice.len().min(n - bytes.len())]);
            }
            output.advance(bytes.len() - before);
        }
        let expected = &self.model.out[self.model.written..];
        assert!(expected.starts_with(&bytes), "wrong bytes:\n{bytes:02x?}\n{expected:02x?}");
        self.model.written += bytes.len();
        if output.is_empty() || keep {
            self.taken = (!output.is_empty()).then_some(output);
            self.session.output_written(bytes.len());
            self.model.pump(reached);
        } else {
            reached.put_back += 1;
            self.session.out.put_back(output);
            self.session.out.written(bytes.len());
        }
    }

    fn accept_publish(&mut self, id: u16, reached: &mut Reached) {
        let repeated = self.model.received.contains(&id);
        let expected = if repeated { Reception::Repeated } else { Reception::New };
        assert_eq!(self.session.accept_publish(packet_id(id)), expected);
        if repeated {
            reached.repeated += 1;
        } else {
            self.model.received.push(id);
        }
    }

    /// Retained messages as the broker sends them: as many as there is room for.
    fn replay(&mut self, a: u8, b: u8, c: u8, reached: &mut Reached) {
        for _ in 0..self.session.replay_room().min(usize::from(c % 3) + 1) {
            if !self.session.has_room_for_replay() {
                return;
            }
            let message = self.message(a % 3, b);
            let (owned, granted) = (owned(&message), qos_of(a / 3 % 3));
            let mut outgoing = Outgoing::from_message(&owned, Timestamp::default(), &mut self.scratch);
            let granted_retained = Granted { retain: true, ..Granted::with_qos(granted) };
            assert_eq!(self.session.deliver_retained(&mut outgoing, &granted_retained), Delivered::Sent);
            self.model.deliver_retained(message, granted);
            reached.retained += 1;
        }
    }

    fn rest(&mut self, a: u8, b: u8) {
        let id = u16::from(b) + 1;
        let [high, low] = id.to_be_bytes();
        let filter = format!("f/{}", b % 5);
        let answer: &[u8] = match a % 16 {
            0 => return self.end(),
            1..=4 => {
                let known = self.model.filters.contains(&filter);
                let result = self.session.subscribe(&filter, qos_of(b % 3));
                if self.model.ended {
                    assert_eq!(result, Err(SubscribeError::Ended));
                } else if !known && self.model.filters.len() == self.model.limits.subscriptions_max {
                    assert_eq!(result, Err(SubscribeError::TooMany));
                } else {
                    assert_eq!(result, Ok(!known));
                    if !known {
                        self.model.filters.push(filter.clone());
                    }
                }
                assert_eq!(self.session.is_subscribed(&filter), self.model.filters.contains(&filter));
                return;
            }
            5 | 6 => {
                let known = self.model.filters.contains(&filter);
                assert_eq!(self.session.unsubscribe(&filter), known);
                self.model.filters.retain(|other| *other != filter);
                return;
            }
            7 | 8 => {
                self.session.send_acks(&[0x90, 3, high, low, 0x80]);
                &[0x90, 3, high, low, 0x80]
            }
            9 | 10 => {
                self.session.send_acks(&[0xb0, 2, high, low]);
                &[0xb0, 2, high, low]
            }
            11 | 12 => {
                self.session.send_pingresp();
                &[0xd0, 0]
            }
            _ => {
                self.session.send_acks(&[0x40, 2, high, low]);
                &[0x40, 2, high, low]
            }
        };
        if self.model.connected {
            self.model.out.extend(answer);
        }
    }
}

fn owned(message: &ModelMessage) -> Arc<Message> {
    Arc::new(Message::new(Arc::from(&*message.topic), Box::from(&*message.payload), message.qos))
}

fn qos_of(n: u8) -> QoS {
    [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n)]
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).unwrap_or(PacketId::MIN)
}
