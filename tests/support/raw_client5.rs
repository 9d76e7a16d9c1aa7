//! A client of MQTT 5 that sends and expects raw bytes, the counterpart of `raw_client`.
//!
//! It holds the broker to what it announced itself: a packet above its Maximum Packet Size, a topic alias above its
//! maximum or one that stands for nothing, and a PUBLISH above its Receive Maximum fail the test whatever it is about.

use super::server_packet::show;
use super::server_packet5::{self, Properties, Publish5, ServerPacket5};
use super::transport::{DEADLINE, Incoming, Transport};
use super::wire;
use super::wire5::{self, Connect5};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A TCP connection to the broker, MQTT 5 spoken by hand.
#[derive(Debug)]
pub struct RawClient5 {
    transport: Transport,
    put_by: VecDeque<ServerPacket5>,
    last_packet_id: u16,
    terms: Terms,
    aliases: HashMap<u32, String>,
    /// Deliveries neither acknowledged nor refused.
    open: HashSet<u16>,
}

/// What the broker has to keep to.
#[derive(Clone, Copy, Debug)]
struct Terms {
    packet_bytes_max: usize,
    topic_alias_maximum: u32,
    receive_maximum: usize,
}

impl RawClient5 {
    /// Opens the TCP connection; nothing is sent.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self {
            transport: Transport::connect(addr),
            put_by: VecDeque::new(),
            last_packet_id: 0,
            terms: Terms { packet_bytes_max: usize::MAX, topic_alias_maximum: 0, receive_maximum: 65_535 },
            aliases: HashMap::new(),
            open: HashSet::new(),
        }
    }

    /// Connects with this CONNECT and expects reason code 0: session present, and the properties of CONNACK.
    #[track_caller]
    pub fn open(addr: SocketAddr, connect: &Connect5) -> (Self, bool, Properties) {
        let mut client = Self::connect(addr);
        client.send_connect(connect);
        match client.expect_packet() {
            ServerPacket5::ConnAck(session_present, 0, properties) => (client, session_present, properties),
            other => panic!("expected CONNACK with reason code 0, got {other:?}"),
        }
    }

    /// Sends CONNECT and holds the broker to what it announces.
    #[track_caller]
    pub fn send_connect(&mut self, connect: &Connect5) {
        let announced = |id: u8| connect.announced(id);
        self.terms = Terms {
            packet_bytes_max: announced(wire5::id::MAXIMUM_PACKET_SIZE)
                .map_or(usize::MAX, |max| max as usize),
            topic_alias_maximum: announced(wire5::id::TOPIC_ALIAS_MAXIMUM).unwrap_or(0),
            receive_maximum: announced(wire5::id::RECEIVE_MAXIMUM).map_or(65_535, |max| max as usize),
        };
        self.send(&connect.bytes());
    }

    /// CONNECT is refused with this reason code, and the connection closed.
    #[track_caller]
    pub fn refused(addr: SocketAddr, connect: &[u8], code: u8) -> Properties {
        let mut client = Self::connect(addr);
        client.send(connect);
        client.expect_refused(code)
    }

    /// CONNACK with this reason code comes next, then the end.
    #[track_caller]
    pub fn expect_refused(&mut self, code: u8) -> Properties {
        match self.expect_packet() {
            ServerPacket5::ConnAck(false, got, properties) if got == code => {
                self.expect_closed();
                properties
            }
            other => panic!("expected CONNACK with reason code {code:#04x}, got {other:?}"),
        }
    }

    /// A client with Clean Start 1 whose session ends with its connection.
    #[track_caller]
    pub fn clean(addr: SocketAddr, client_id: &str) -> Self {
        let (client, session_present, _) = Self::open(addr, &Connect5::new(client_id));
        assert!(!session_present, "session present in answer to Clean Start 1");
        client
    }

    /// A client with Clean Start 0 and a session that stays; it is new.
    #[track_caller]
    pub fn persistent(addr: SocketAddr, client_id: &str) -> Self {
        let (client, session_present, _) = Self::open(addr, &Connect5::persistent(client_id));
        assert!(!session_present, "session present, but this is the first one of {client_id}");
        client
    }

    /// A client with Clean Start 0, whose session the broker must still have.
    #[track_caller]
    pub fn resume(addr: SocketAddr, client_id: &str) -> Self {
        Self::resume_with(addr, &Connect5::persistent(client_id))
    }

    /// The same with a CONNECT of its own.
    #[track_caller]
    pub fn resume_with(addr: SocketAddr, connect: &Connect5) -> Self {
        let (client, session_present, _) = Self::open(addr, connect);
        assert!(session_present, "the broker has no such session");
        client
    }

    /// Sends bytes. A broker that has already closed the connection is no failure here: what it has answered tells.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.transport.send(bytes);
    }

    /// The next packet of the broker.
    #[track_caller]
    pub fn expect_packet(&mut self) -> ServerPacket5 {
        let deadline = Instant::now() + DEADLINE;
        if let Some(packet) = self.put_by.pop_front() {
            return packet;
        }
        loop {
            if let Some(packet) = self.take() {
                return packet;
            }
            let received = &self.transport.received;
            let left_over = show(received);
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => panic!("the broker closed; left over: {left_over}"),
                Incoming::Nothing => panic!("no packet in time; left over: {left_over}"),
            }
        }
    }

    /// Takes a packet off what was received, and judges it.
    #[track_caller]
    fn take(&mut self) -> Option<ServerPacket5> {
        let (mut packet, length) = server_packet5::take(&mut self.transport.received)?;
        assert!(length <= self.terms.packet_bytes_max, "{length} bytes are above our maximum: {packet:?}");
        if let ServerPacket5::Publish(publish) = &mut packet {
            self.judge(publish);
        }
        Some(packet)
    }

    #[track_caller]
    fn judge(&mut self, publish: &mut Publish5) {
        if let Some(alias) = publish.alias() {
            let max = self.terms.topic_alias_maximum;
            assert!(alias <= max, "topic alias {alias} is above our maximum {max}: {publish:?}");
            if publish.named {
                self.aliases.insert(alias, publish.topic.clone());
            }
            publish.topic =
                self.aliases.get(&alias).unwrap_or_else(|| panic!("alias of nothing: {publish:?}")).clone();
        }
        if let Some(id) = publish.packet_id {
            assert!(self.open.insert(id), "packet id {id} is in use: {publish:?}");
            let (open, max) = (self.open.len(), self.terms.receive_maximum);
            assert!(open <= max, "{open} deliveries are open, our Receive Maximum is {max}");
        }
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        assert!(self.put_by.is_empty(), "packets not looked at yet: {:?}", self.put_by);
        let deadline = Instant::now() + DEADLINE;
        while self.transport.received.len() < bytes.len() {
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed | Incoming::Nothing => {
                    panic!("expected {}, got {}", show(bytes), show(&self.transport.received))
                }
            }
        }
        let got: Vec<u8> = self.transport.received.drain(..bytes.len()).collect();
        assert!(got == bytes, "expected {}, got {}", show(bytes), show(&got));
    }

    /// The broker closes the connection (FIN or RST) and sends nothing more before that.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let last = self.packets_until_closed();
        assert!(last.is_empty() && self.transport.received.is_empty(), "before the end came {last:?}");
    }

    /// The end, after nothing or a CONNACK of 3.1.1 or 5 that says the version is not supported.
    #[track_caller]
    pub fn expect_closed_or_refusal(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => break,
                Incoming::Nothing => panic!("the broker did not close the connection"),
            }
        }
        let answer = std::mem::take(&mut self.transport.received);
        let fits = matches!(answer.as_slice(), [] | [0x20, 2, 0, 1] | [0x20, _, 0, 0x84, ..]);
        assert!(fits, "answer to an unsupported version: {}", show(&answer));
    }

    /// DISCONNECT with this reason code is the next and last packet.
    #[track_caller]
    pub fn expect_disconnect(&mut self, code: u8) {
        let packets = self.packets_until_closed();
        match packets.as_slice() {
            [ServerPacket5::Disconnect(got, _)] if *got == code => {}
            _ => panic!("expected DISCONNECT {code:#04x} and the end, got {packets:02X?}"),
        }
    }

    /// The broker closes the connection; the packets it sent before that.
    #[track_caller]
    pub fn packets_until_closed(&mut self) -> Vec<ServerPacket5> {
        let deadline = Instant::now() + DEADLINE;
        let mut packets: Vec<ServerPacket5> = self.put_by.drain(..).collect();
        loop {
            while let Some(packet) = self.take() {
                packets.push(packet);
            }
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => return packets,
                Incoming::Nothing => panic!("the broker did not close the connection; it sent {packets:?}"),
            }
        }
    }

    /// Nothing comes and the connection stays open for this long. Only for what is about time.
    #[track_caller]
    pub fn stays_silent_and_open(&mut self, time: Duration) {
        match self.transport.read_until(Instant::now() + time) {
            Incoming::Nothing => {}
            Incoming::Bytes => panic!("unexpected: {}", show(&self.transport.received)),
            Incoming::Closed => panic!("the broker closed too early"),
        }
    }

    /// Nothing is on its way to this client: the answer to a PINGREQ is the next packet.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send(&wire::PINGREQ);
        match self.expect_packet() {
            ServerPacket5::PingResp => {}
            other => panic!("expected nothing, got {other:?}"),
        }
    }

    /// All packets up to the answer to a PINGREQ.
    #[track_caller]
    pub fn packets_until_ping(&mut self) -> Vec<ServerPacket5> {
        self.send(&wire::PINGREQ);
        let mut packets = Vec::new();
        loop {
            match self.expect_packet() {
                ServerPacket5::PingResp => return packets,
                packet => packets.push(packet),
            }
        }
    }

    /// The PUBLISH packets up to the answer to a PINGREQ; there are no others.
    #[track_caller]
    pub fn publishes_until_ping(&mut self) -> Vec<Publish5> {
        let packets = self.packets_until_ping().into_iter();
        packets
            .map(|packet| match packet {
                ServerPacket5::Publish(publish) => publish,
                other => panic!("expected PUBLISH, got {other:?}"),
            })
            .collect()
    }

    /// The next packet, which is a PUBLISH.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish5 {
        match self.expect_packet() {
            ServerPacket5::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// The next packet, which is a PUBLISH with this topic and payload.
    #[track_caller]
    pub fn expect_message(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish5 {
        let publish = self.expect_publish();
        let payload = payload.as_ref();
        let same = publish.topic == topic && publish.payload == payload;
        assert!(same, "expected {topic} {}, got {publish:?}", show(payload));
        publish
    }

    /// A message arrives and is acknowledged as its QoS asks.
    #[track_caller]
    pub fn expect_and_ack(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish5 {
        let publish = self.expect_message(topic, payload);
        self.ack(&publish);
        publish
    }

    /// Some message arrives; PUBACK or PUBREC and PUBCOMP are sent without waiting for PUBREL, which is passed over.
    #[track_caller]
    pub fn expect_any_and_ack(&mut self) -> Publish5 {
        loop {
            match self.expect_packet() {
                ServerPacket5::Publish(publish) => {
                    match publish.qos {
                        0 => {}
                        1 => self.answer(0x40, publish.id(), 0),
                        _ => self.answer(0x50, publish.id(), 0),
                    }
                    return publish;
                }
                ServerPacket5::PubRel(id, 0) => self.answer(0x70, id, 0),
                other => panic!("expected PUBLISH, got {other:?}"),
            }
        }
    }

    /// Answers what is left of QoS 2 deliveries; nothing else is on its way.
    #[track_caller]
    pub fn finish_pubrels(&mut self) {
        for packet in self.packets_until_ping() {
            match packet {
                ServerPacket5::PubRel(id, 0) => self.answer(0x70, id, 0),
                other => panic!("expected PUBREL, got {other:?}"),
            }
        }
    }

    /// Acknowledges a delivery to its end.
    #[track_caller]
    pub fn ack(&mut self, publish: &Publish5) {
        match publish.qos {
            0 => {}
            1 => self.answer(0x40, publish.id(), 0),
            _ => {
                self.answer(0x50, publish.id(), 0);
                self.expect_pubrel(publish.id());
                self.answer(0x70, publish.id(), 0);
            }
        }
    }

    /// Sends PUBACK (0x40), PUBREC (0x50) or PUBCOMP (0x70).
    #[track_caller]
    pub fn answer(&mut self, first_byte: u8, id: u16, code: u8) {
        if first_byte != 0x50 || code >= 0x80 {
            self.open.remove(&id);
        }
        let bytes = if code == 0 {
            wire::packet(first_byte, &id.to_be_bytes())
        } else {
            wire5::ack5(first_byte, id, code, &[])
        };
        self.send(&bytes);
    }

    /// PUBREL with this id and success is the next packet.
    #[track_caller]
    pub fn expect_pubrel(&mut self, id: u16) {
        assert_eq!(self.expect_answer(), ServerPacket5::PubRel(id, 0));
    }

    /// The next packet that is no PUBLISH. Those that come before it are put by: they go their own way.
    #[track_caller]
    pub fn expect_answer(&mut self) -> ServerPacket5 {
        let mut earlier = VecDeque::new();
        loop {
            match self.expect_packet() {
                publish @ ServerPacket5::Publish(_) => earlier.push_back(publish),
                other => {
                    self.put_by = earlier;
                    return other;
                }
            }
        }
    }

    /// A packet id this client has not used yet (from 1 on; tests with ids of their own stay above 1,000).
    pub fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id += 1;
        self.last_packet_id
    }

    /// Subscribes and expects the QoS asked for to be granted.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, options: u8) {
        assert_eq!(self.subscribe_all(&[], &[(filter, options)]), [options & 3], "granted for {filter}");
    }

    /// Subscribes with a subscription identifier.
    #[track_caller]
    pub fn subscribe_with_id(&mut self, filter: &str, options: u8, subscription_id: usize) {
        let properties = wire5::variable(wire5::id::SUBSCRIPTION_ID, subscription_id);
        assert_eq!(
            self.subscribe_all(&properties, &[(filter, options)]),
            [options & 3],
            "granted for {filter}"
        );
    }

    /// Subscribes and returns the reason codes. PUBLISH that comes before SUBACK is put by.
    #[track_caller]
    pub fn subscribe_all(&mut self, properties: &[u8], filters: &[(&str, u8)]) -> Vec<u8> {
        let packet_id = self.next_packet_id();
        self.send(&wire5::subscribe5(packet_id, properties, filters));
        match self.expect_answer() {
            ServerPacket5::SubAck(id, codes) if id == packet_id => codes,
            other => panic!("expected SUBACK {packet_id}, got {other:?}"),
        }
    }

    /// Unsubscribes, expects UNSUBACK next and returns its reason codes.
    #[track_caller]
    pub fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let packet_id = self.next_packet_id();
        self.send(&wire5::unsubscribe5(packet_id, &[], filters));
        match self.expect_packet() {
            ServerPacket5::UnsubAck(id, codes) if id == packet_id => codes,
            other => panic!("expected UNSUBACK {packet_id}, got {other:?}"),
        }
    }

    /// Publishes without properties and waits until the broker has taken the message over.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_with(topic, qos << 1, &[], payload);
    }

    /// The same with RETAIN 1.
    #[track_caller]
    pub fn publish_retained(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_with(topic, qos << 1 | 1, &[], payload);
    }

    /// Publishes with flags (QoS 6, RETAIN 1) and properties, takes it to its end, and returns the reason code. What
    /// comes meanwhile is put by.
    #[track_caller]
    pub fn publish_with(
        &mut self,
        topic: &str,
        flags: u8,
        properties: &[u8],
        payload: impl AsRef<[u8]>,
    ) -> u8 {
        let qos = flags >> 1 & 3;
        if qos == 0 {
            self.send(&wire5::publish5(flags, topic, None, properties, payload));
            self.send(&wire::PINGREQ);
            assert_eq!(self.expect_answer(), ServerPacket5::PingResp);
            return 0;
        }
        let packet_id = self.next_packet_id();
        self.send(&wire5::publish5(flags, topic, Some(packet_id), properties, payload));
        match self.expect_answer() {
            ServerPacket5::PubAck(id, code) if qos == 1 && id == packet_id => code,
            ServerPacket5::PubRec(id, code) if qos == 2 && id == packet_id => {
                if code < 0x80 {
                    self.send(&wire::pubrel(packet_id));
                    assert_eq!(self.expect_answer(), ServerPacket5::PubComp(packet_id, 0));
                }
                code
            }
            other => panic!("expected the acknowledgement of {packet_id}, got {other:?}"),
        }
    }

    /// Ends the connection as the standard wants it and waits until the broker has closed it.
    #[track_caller]
    pub fn disconnect(self) {
        self.disconnect_with(0, &[]);
    }

    /// DISCONNECT with a reason code and properties; waits until the broker has closed.
    #[track_caller]
    pub fn disconnect_with(mut self, code: u8, properties: &[u8]) {
        self.send(&wire5::disconnect5(code, properties));
        self.packets_until_closed();
    }

    /// Ends the sending half (FIN); the broker's bytes can still be read.
    pub fn finish_sending(&mut self) {
        self.transport.finish_sending();
    }

    /// Ends the sending half (FIN) and waits until the broker has closed the connection.
    #[track_caller]
    pub fn vanish(mut self) {
        self.transport.finish_sending();
        self.packets_until_closed();
    }
}
