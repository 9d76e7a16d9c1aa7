//! The client of the pair: QoS 1 and 2 both ways as the standard asks of a client, and a judge of what it receives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::pair_connection::Rng;
use super::wire::{Sent, SentPublish, packets};
use crate::protocol::encode::{self, AckKind, PublishHeader, PublishPropertiesOut};
use crate::protocol::{Connect, Framed, PacketId, ProtocolVersion, QoS, SessionExpiry, frame_from_server};

pub(super) const KEEP_ALIVE_SECONDS: u16 = 10;
const PING_AFTER_MS: u64 = 5_000;
/// Silence after which the client gives the connection up.
const PATIENCE_MS: u64 = 9_000;
const WINDOW: usize = 6;

/// A message to the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToServer {
    pub(super) number: u32,
    pub(super) qos: QoS,
}

struct Unfinished {
    id: u16,
    message: ToServer,
    /// PUBREC came: PUBREL is what is repeated.
    released: bool,
}

/// A message handed onward to the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) number: u32,
    pub(super) qos: QoS,
    pub(super) connection: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Away { until: u64 },
    AwaitingConnAck,
    Connected,
}

pub(super) struct Client {
    phase: Phase,
    /// The connection now, or the last one.
    pub(super) connection: u32,
    pub(super) clean: bool,
    pub(super) output: Vec<u8>,
    /// Bytes of a packet that is not complete.
    partial: Vec<u8>,
    last_sent: u64,
    last_heard: u64,
    /// Not handed to the protocol yet.
    pub(super) to_publish: VecDeque<ToServer>,
    unfinished: VecDeque<Unfinished>,
    last_id: u16,
    /// Messages whose state was thrown away with a session.
    pub(super) abandoned: Vec<u32>,
    /// Acknowledgements the application takes its time for.
    late_acks: VecDeque<(AckKind, u16)>,
    pub(super) received: Vec<Received>,
    /// QoS 2 messages received and not released.
    open: BTreeMap<u16, u32>,
    /// Ids of deliveries that this client has not finished, and their messages.
    in_use: BTreeMap<u16, u32>,
    /// PUBLISHes and PUBRECs sent on this connection, in order, whose answers are due in that order.
    due: [VecDeque<u16>; 3],
    /// Numbers received with QoS 1 and 2 on this connection: none may come twice.
    seen_here: BTreeSet<u32>,
}

const PUBACK: usize = 0;
const PUBREC: usize = 1;
const PUBREL: usize = 2;

impl Client {
    pub(super) fn new() -> Self {
        Self {
            phase: Phase::Away { until: 0 },
            connection: 0,
            clean: false,
            output: Vec::new(),
            partial: Vec::new(),
            last_sent: 0,
            last_heard: 0,
            to_publish: VecDeque::new(),
            unfinished: VecDeque::new(),
            last_id: 0,
            abandoned: Vec::new(),
            late_acks: VecDeque::new(),
            received: Vec::new(),
            open: BTreeMap::new(),
            in_use: BTreeMap::new(),
            due: Default::default(),
            seen_here: BTreeSet::new(),
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    pub(super) fn has_nothing_left(&self) -> bool {
        self.unfinished.is_empty()
            && self.to_publish.is_empty()
            && self.late_acks.is_empty()
            && self.open.is_empty()
    }

    /// Whether it opens a connection now. CONNECT stands in the output then.
    pub(super) fn opens(&mut self, now: u64, clean: bool) -> bool {
        let Phase::Away { until } = self.phase else { return false };
        if now < until {
            return false;
        }
        // Once a clean session is wanted, it is asked for until it is granted.
        self.clean |= clean;
        self.connection += 1;
        self.phase = Phase::AwaitingConnAck;
        (self.last_sent, self.last_heard) = (now, now);
        let connect = Connect {
            clean_start: self.clean,
            session_expiry: if self.clean {
                SessionExpiry::AtDisconnect
            } else {
                SessionExpiry::ServerDefault
            },
            keep_alive: KEEP_ALIVE_SECONDS,
            ..Connect::new(ProtocolVersion::V311, "pair")
        };
        encode::connect(&mut self.output, &connect);
        true
    }

    /// The connection is gone.
    pub(super) fn closed(&mut self, now: u64, rng: &mut Rng) {
        let was_connected = self.is_connected();
        let away = if rng.one_in(4) { 12_000 } else { 2_000 };
        self.phase = Phase::Away { until: now + rng.below(away) };
        self.output.clear();
        self.partial.clear();
        self.late_acks.clear();
        self.due = Default::default();
        self.seen_here.clear();
        if self.clean && was_connected {
            // The state of a clean session must not be used again ([MQTT-3.1.2-6]).
            self.discard();
            self.clean = false;
        }
    }

    fn discard(&mut self) {
        self.abandoned.extend(self.unfinished.drain(..).map(|unfinished| unfinished.message.number));
        self.open.clear();
        self.in_use.clear();
    }

    /// What time asks for. `false`: the server is silent, the connection is given up.
    pub(super) fn tick(&mut self, now: u64, rng: &mut Rng) -> bool {
        if !matches!(self.phase, Phase::Away { .. }) && now - self.last_heard >= PATIENCE_MS {
            return false;
        }
        if self.phase != Phase::Connected {
            return true;
        }
        if now - self.last_sent >= PING_AFTER_MS {
            encode::pingreq(&mut self.output);
        }
        if !rng.one_in(3) {
            for (kind, id) in std::mem::take(&mut self.late_acks) {
                self.acknowledge(kind, id);
            }
        }
        while self.unfinished.len() < WINDOW
            && let Some(message) = self.to_publish.pop_front()
        {
            let mut id = 0;
            if message.qos != QoS::AtMostOnce {
                self.last_id = if self.last_id >= 500 { 1 } else { self.last_id + 1 };
                id = self.last_id;
                if self.unfinished.iter().any(|unfinished| unfinished.id == id) {
                    self.to_publish.push_front(message);
                    break;
                }
                self.unfinished.push_back(Unfinished { id, message, released: false });
            }
            self.publish(message, id, false);
        }
        if !self.output.is_empty() {
            self.last_sent = now;
        }
        true
    }

    fn publish(&mut self, message: ToServer, id: u16, dup: bool) {
        let packet_id = PacketId::new(id);
        let header = PublishHeader { dup, qos: message.qos, retain: false, topic: "to/server", packet_id };
        encode::publish(
            &mut self.output,
            ProtocolVersion::V311,
            &header,
            &PublishPropertiesOut::NONE,
            message.number.to_string().as_bytes(),
        );
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.due[PUBACK].push_back(id),
            QoS::ExactlyOnce => self.due[PUBREC].push_back(id),
        }
    }

    pub(super) fn handle_bytes(&mut self, now: u64, bytes: &[u8], rng: &mut Rng) {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut whole = 0;
        while let Framed::Frame(frame) =
            frame_from_server(&all[whole..], usize::MAX, ProtocolVersion::V311).expect("well formed")
        {
            whole += frame.total();
        }
        for packet in packets(&all[..whole]) {
            self.handle(now, packet, rng);
        }
        self.partial = all.split_off(whole);
    }

    fn handle(&mut self, now: u64, packet: Sent, rng: &mut Rng) {
        self.last_heard = now;
        match packet {
            Sent::ConnAck { session_present } => self.connected(session_present),
            _ if self.phase != Phase::Connected => panic!("before CONNACK: {packet:?}"),
            Sent::Publish(publish) => self.handle_publish(&publish, rng),
            Sent::Ack(AckKind::PubAck, id) => {
                assert_eq!(self.due[PUBACK].pop_front(), Some(id), "PUBACKs out of order [MQTT-4.6.0-2]");
                self.finish(id);
            }
            Sent::Ack(AckKind::PubRec, id) => {
                assert_eq!(self.due[PUBREC].pop_front(), Some(id), "PUBRECs out of order [MQTT-4.6.0-3]");
                let unfinished = self.unfinished.iter_mut().find(|unfinished| unfinished.id == id);
                unfinished.expect("PUBREC for a delivery of ours").released = true;
                self.output.extend(encode::ack(AckKind::PubRel, packet_id(id)));
            }
            Sent::Ack(AckKind::PubComp, id) => self.finish(id),
            Sent::Ack(AckKind::PubRel, id) => {
                // Those that answer a PUBREC of this connection come in its order ([MQTT-4.6.0-4]).
                if self.due[PUBREL].contains(&id) {
                    assert_eq!(self.due[PUBREL].pop_front(), Some(id), "PUBRELs out of order");
                }
                self.open.remove(&id);
                self.owe(AckKind::PubComp, id, rng);
            }
            Sent::PingResp => {}
            Sent::SubAck(..) | Sent::UnsubAck(_) => panic!("not asked for: {packet:?}"),
        }
    }

    fn connected(&mut self, session_present: bool) {
        assert_eq!(self.phase, Phase::AwaitingConnAck, "one CONNACK only");
        self.phase = Phase::Connected;
        if !session_present {
            self.discard();
        }
        // Everything unfinished again, in its order ([MQTT-4.4.0-1], [MQTT-4.6.0-1]).
        let again: Vec<(ToServer, u16, bool)> =
            self.unfinished.iter().map(|again| (again.message, again.id, again.released)).collect();
        for (message, id, released) in again {
            if released {
                self.output.extend(encode::ack(AckKind::PubRel, packet_id(id)));
            } else {
                self.publish(message, id, true);
            }
        }
    }

    fn finish(&mut self, id: u16) {
        // A PUBCOMP may come twice after a reconnect.
        self.unfinished.retain(|unfinished| unfinished.id != id);
    }

    fn handle_publish(&mut self, publish: &SentPublish, rng: &mut Rng) {
        let text = String::from_utf8_lossy(&publish.payload);
        let number: u32 = text.split(' ').next().and_then(|text| text.parse().ok()).expect("a number");
        assert_eq!(
            &*publish.topic,
            format!("from/server/{}", number % 3),
            "payload and topic belong together"
        );
        let onward = Received { number, qos: publish.qos, connection: self.connection };
        if publish.qos == QoS::AtMostOnce {
            self.received.push(onward);
            return;
        }
        let id = publish.id;
        assert!(self.seen_here.insert(number), "{number} came twice on one connection: {publish:?}");
        match self.in_use.insert(id, number) {
            Some(other) if publish.dup => {
                assert_eq!(other, number, "id {id} was sent again for another message")
            }
            Some(other) => panic!("id {id} for {number} while {other} is unfinished [MQTT-2.3.1-4]"),
            None => {}
        }
        if publish.qos == QoS::AtLeastOnce {
            self.received.push(onward);
            self.owe(AckKind::PubAck, id, rng);
        } else {
            if self.open.insert(id, number).is_none() {
                self.received.push(onward);
            }
            self.owe(AckKind::PubRec, id, rng);
        }
    }

    fn owe(&mut self, kind: AckKind, id: u16, rng: &mut Rng) {
        if self.late_acks.is_empty() && !rng.one_in(4) {
            self.acknowledge(kind, id);
        } else {
            self.late_acks.push_back((kind, id));
        }
    }

    fn acknowledge(&mut self, kind: AckKind, id: u16) {
        match kind {
            AckKind::PubRec => self.due[PUBREL].push_back(id),
            _ => {
                self.in_use.remove(&id);
            }
        }
        self.output.extend(encode::ack(kind, packet_id(id)));
    }
}

fn packet_id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}
