//! A publishing client: what it may still send, and the handshakes of QoS 1 and 2.
//!
//! Two bounds keep the broker from having to drop: a window of unacknowledged packets, and a window of messages sent
//! and not yet seen at their subscribers. The second is the only flow control QoS 0 has.

use crate::mqtt::{self, Packet};
use crate::net::{Id, Net};
use crate::payload::{Payloads, Stamp};

/// The bounds of a publisher.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Packets without PUBACK or PUBCOMP, at QoS 1 and 2.
    pub unacknowledged: u64,
    /// Messages that not all subscribers have.
    pub undelivered: u64,
    /// Nothing is sent until so many may be; then they leave together. Without it, a broker that answers in drops is
    /// fed in drops, and one that answers in gulps in gulps: their input differs.
    pub burst: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Publisher {
    /// Its connection.
    pub id: Id,
    index: u32,
    qos: u8,
    retain: bool,
    window: Window,
    /// How many subscribers each of its messages reaches.
    fan_out: u64,
    quota: u64,
    sent: u64,
    unacknowledged: u64,
    delivered: u64,
    packet_id: u16,
}

impl Publisher {
    /// A publisher that has sent nothing and may send nothing yet.
    pub fn new(id: Id, index: usize, qos: u8, window: Window, fan_out: u64) -> Self {
        Self {
            id,
            index: index as u32,
            qos,
            retain: false,
            window,
            fan_out,
            quota: 0,
            sent: 0,
            unacknowledged: 0,
            delivered: 0,
            packet_id: 0,
        }
    }

    /// Sets RETAIN on everything it sends.
    pub fn retaining(mut self) -> Self {
        self.retain = true;
        self
    }

    /// A publisher whose first `sent` messages another run has sent, and the broker acknowledged.
    pub fn resumed(mut self, sent: u64) -> Self {
        self.sent = sent;
        self
    }

    /// Lets it send `messages` more.
    pub fn allow(&mut self, messages: u64) {
        self.quota += messages;
    }

    /// The sequence number of the next message.
    pub fn sequence(&self) -> u64 {
        self.sent
    }

    /// How many messages bounds and quota let it send now: none, or at least a burst, or the last ones.
    pub fn room(&self) -> u64 {
        let undelivered = self.window.undelivered.saturating_sub(self.sent - self.delivered / self.fan_out);
        let unacknowledged = match self.qos {
            0 => u64::MAX,
            _ => self.window.unacknowledged.saturating_sub(self.unacknowledged),
        };
        let room = undelivered.min(unacknowledged).min(self.quota);
        if room >= self.window.burst.min(self.quota) { room } else { 0 }
    }

    /// Whether everything allowed is sent and acknowledged.
    pub fn is_done(&self) -> bool {
        self.quota == 0 && self.unacknowledged == 0
    }

    /// Sends one message.
    pub fn send(&mut self, net: &mut Net, payloads: &mut Payloads, topic: &str, tag: u32, intended_ns: u64) {
        let stamp = Stamp { publisher: self.index, tag, sequence: self.sent, intended_ns };
        self.packet_id = self.packet_id.checked_add(1).unwrap_or(1);
        let payload = payloads.write(stamp);
        mqtt::publish(net.out(self.id), topic, self.qos, self.retain, self.packet_id, payload);
        self.sent += 1;
        self.quota = self.quota.saturating_sub(1);
        self.unacknowledged += u64::from(self.qos > 0);
    }

    /// Notes that a subscriber has one of its messages.
    pub fn note_delivery(&mut self) {
        self.delivered += 1;
    }

    /// An acknowledgement from the broker, answered where it has to be; false if the packet is none.
    pub fn handle(&mut self, net: &mut Net, packet: &Packet<'_>) -> bool {
        match packet {
            Packet::Puback(_) if self.qos == 1 => self.unacknowledged = self.unacknowledged.saturating_sub(1),
            Packet::Pubrec(packet_id) => mqtt::pubrel(net.out(self.id), *packet_id),
            Packet::Pubcomp(_) => self.unacknowledged = self.unacknowledged.saturating_sub(1),
            _ => return false,
        }
        true
    }
}
