//! A client that sends and expects raw bytes over TCP, blocking, with a deadline on every wait.
//!
//! A packet that comes where another one was expected fails the test, with one exception the standard grants: PUBLISH
//! may come before the SUBACK of its subscription, so [`RawClient::subscribe`] puts such packets by for later.

use super::server_packet::{self, Publish, ServerPacket, show};
use super::transport::{Incoming, Transport};
use super::wire::{self, Connect};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub use super::transport::DEADLINE;

/// A TCP connection to the broker, MQTT spoken by hand.
#[derive(Debug)]
pub struct RawClient {
    transport: Transport,
    put_by: VecDeque<ServerPacket>,
    last_packet_id: u16,
}

impl RawClient {
    /// Opens the TCP connection; nothing is sent.
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        Self { transport: Transport::connect(addr), put_by: VecDeque::new(), last_packet_id: 0 }
    }

    /// The same from this address of the machine; every address that begins with 127 is one.
    #[track_caller]
    pub fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        let transport = Transport::connect_from(source, addr);
        Self { transport, put_by: VecDeque::new(), last_packet_id: 0 }
    }

    /// Connects with this CONNECT, expects return code 0, and says whether a session was present.
    #[track_caller]
    pub fn open(addr: SocketAddr, connect: &Connect) -> (Self, bool) {
        let mut client = Self::connect(addr);
        client.send(&connect.bytes());
        match client.expect_packet() {
            ServerPacket::ConnAck(session_present, 0) => (client, session_present),
            other => panic!("expected CONNACK with return code 0, got {other:?}"),
        }
    }

    /// A client with CleanSession 1.
    #[track_caller]
    pub fn clean(addr: SocketAddr, client_id: &str) -> Self {
        let (client, session_present) = Self::open(addr, &Connect::new(client_id));
        assert!(!session_present, "session present in answer to CleanSession 1");
        client
    }

    /// A client with CleanSession 0, whose session is new.
    #[track_caller]
    pub fn persistent(addr: SocketAddr, client_id: &str) -> Self {
        let (client, session_present) = Self::open(addr, &Connect::persistent(client_id));
        assert!(!session_present, "session present, but this is the first one of {client_id}");
        client
    }

    /// A client with CleanSession 0, whose session the broker must still have.
    #[track_caller]
    pub fn resume(addr: SocketAddr, client_id: &str) -> Self {
        let (client, session_present) = Self::open(addr, &Connect::persistent(client_id));
        assert!(session_present, "the broker has no session of {client_id}");
        client
    }

    /// Sends bytes. A broker that has already closed the connection is no failure here: what it has answered tells.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.transport.send(bytes);
    }

    /// The next packet of the broker.
    #[track_caller]
    pub fn expect_packet(&mut self) -> ServerPacket {
        let Some(packet) = self.packet_or_end() else {
            panic!("the broker closed; left over: {}", show(&self.transport.received))
        };
        packet
    }

    /// The next packet of the broker; `None` if it closes the connection instead.
    #[track_caller]
    pub fn packet_or_end(&mut self) -> Option<ServerPacket> {
        let deadline = Instant::now() + DEADLINE;
        if let Some(packet) = self.put_by.pop_front() {
            return Some(packet);
        }
        loop {
            if let Some(packet) = server_packet::take(&mut self.transport.received) {
                return Some(packet);
            }
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => return None,
                Incoming::Nothing => {
                    panic!("no packet in time; left over: {}", show(&self.transport.received))
                }
            }
        }
    }

    /// Exactly these bytes come next.
    #[track_caller]
    pub fn expect(&mut self, bytes: &[u8]) {
        assert!(self.put_by.is_empty(), "packets not looked at yet: {:?}", self.put_by);
        let deadline = Instant::now() + DEADLINE;
        while self.transport.received.len() < bytes.len() {
            let common = self.transport.received.len();
            assert_eq!(show(&self.transport.received), show(&bytes[..common]), "first bytes of the answer");
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => {
                    panic!(
                        "the broker closed; expected {}, got {}",
                        show(bytes),
                        show(&self.transport.received)
                    )
                }
                Incoming::Nothing => {
                    panic!("expected {}, got {}", show(bytes), show(&self.transport.received))
                }
            }
        }
        let got: Vec<u8> = self.transport.received.drain(..bytes.len()).collect();
        assert!(got == bytes, "expected {}, got {}", show(bytes), show(&got));
    }

    /// The next packet as its first byte and its body, whatever it is: for packets that 3.1.1 does not know.
    #[track_caller]
    pub fn expect_raw_packet(&mut self) -> (u8, Vec<u8>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let [first_byte, length, rest @ ..] = self.transport.received.as_slice()
                && *length < 0x80
                && rest.len() >= usize::from(*length)
            {
                let (first_byte, length) = (*first_byte, usize::from(*length));
                let body = self.transport.received.drain(..2 + length).skip(2).collect();
                return (first_byte, body);
            }
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => {
                    panic!("the broker closed; left over: {}", show(&self.transport.received))
                }
                Incoming::Nothing => {
                    panic!("no packet in time; left over: {}", show(&self.transport.received))
                }
            }
        }
    }

    /// The broker closes the connection (FIN or RST) and sends nothing more before that.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let last = self.packets_until_closed();
        assert!(last.is_empty() && self.transport.received.is_empty(), "before the end came {last:?}");
    }

    /// The broker closes the connection; the packets it sent before that.
    #[track_caller]
    pub fn packets_until_closed(&mut self) -> Vec<ServerPacket> {
        let deadline = Instant::now() + DEADLINE;
        let mut packets: Vec<ServerPacket> = self.put_by.drain(..).collect();
        loop {
            while let Some(packet) = server_packet::take(&mut self.transport.received) {
                packets.push(packet);
            }
            match self.transport.read_until(deadline) {
                Incoming::Bytes => {}
                Incoming::Closed => return packets,
                Incoming::Nothing => panic!("the broker did not close the connection; it sent {packets:?}"),
            }
        }
    }

    /// Nothing comes and the connection stays open for this long. Only for what is about time (keep alive).
    #[track_caller]
    pub fn stays_silent_and_open(&mut self, time: Duration) {
        match self.transport.read_until(Instant::now() + time) {
            Incoming::Nothing => {}
            Incoming::Bytes => panic!("unexpected: {}", show(&self.transport.received)),
            Incoming::Closed => panic!("the broker closed too early"),
        }
    }

    /// Nothing is on its way to this client: the answer to a PINGREQ is the next packet. Also shows that the
    /// connection lives and that all this client sent before has been handled.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        self.send(&wire::PINGREQ);
        match self.expect_packet() {
            ServerPacket::PingResp => {}
            other => panic!("expected nothing, got {other:?}"),
        }
    }

    /// All packets up to the answer to a PINGREQ.
    #[track_caller]
    pub fn packets_until_ping(&mut self) -> Vec<ServerPacket> {
        self.send(&wire::PINGREQ);
        let mut packets = Vec::new();
        loop {
            match self.expect_packet() {
                ServerPacket::PingResp => return packets,
                packet => packets.push(packet),
            }
        }
    }

    /// Puts packets by that a test has read too early; they come before everything that is still on its way.
    pub fn put_back(&mut self, packets: Vec<ServerPacket>) {
        for packet in packets.into_iter().rev() {
            self.put_by.push_front(packet);
        }
    }

    /// The next packet, which is a PUBLISH.
    #[track_caller]
    pub fn expect_publish(&mut self) -> Publish {
        match self.expect_packet() {
            ServerPacket::Publish(publish) => publish,
            other => panic!("expected PUBLISH, got {other:?}"),
        }
    }

    /// The next packet, which is a PUBLISH with this topic and payload.
    #[track_caller]
    pub fn expect_message(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        let publish = self.expect_publish();
        let payload = payload.as_ref();
        assert!(
            publish.topic == topic && publish.payload == payload,
            "expected {topic} {}, got {publish:?}",
            show(payload)
        );
        publish
    }

    /// A message at QoS 1 arrives and is acknowledged.
    #[track_caller]
    pub fn expect_message_and_ack(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        let publish = self.expect_message(topic, payload);
        assert_eq!(publish.qos, 1, "{publish:?}");
        self.send(&wire::puback(publish.id()));
        publish
    }

    /// Takes the QoS 2 delivery of this PUBLISH to its end.
    #[track_caller]
    pub fn complete_qos2(&mut self, publish: &Publish) {
        assert_eq!(publish.qos, 2, "{publish:?}");
        self.send(&wire::pubrec(publish.id()));
        self.expect(&wire::pubrel(publish.id()));
        self.send(&wire::pubcomp(publish.id()));
    }

    /// A packet id this client has not used yet (from 1 on; tests with ids of their own stay above 1,000).
    pub fn next_packet_id(&mut self) -> u16 {
        self.last_packet_id += 1;
        self.last_packet_id
    }

    /// Subscribes and expects the QoS asked for to be granted.
    #[track_caller]
    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        assert_eq!(self.subscribe_all(&[(filter, qos)]), [qos], "granted for {filter}");
    }

    /// Subscribes and returns the return codes. PUBLISH that comes before SUBACK is put by.
    #[track_caller]
    pub fn subscribe_all(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let packet_id = self.next_packet_id();
        self.send(&wire::subscribe(packet_id, filters));
        let mut earlier = VecDeque::new();
        loop {
            match self.expect_packet() {
                ServerPacket::SubAck(id, codes) => {
                    assert_eq!(id, packet_id, "packet id of SUBACK");
                    self.put_by = earlier;
                    return codes;
                }
                publish @ ServerPacket::Publish(_) => earlier.push_back(publish),
                other => panic!("expected SUBACK, got {other:?}"),
            }
        }
    }

    /// Unsubscribes and expects UNSUBACK next.
    #[track_caller]
    pub fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.next_packet_id();
        self.send(&wire::unsubscribe(packet_id, &[filter]));
        assert_eq!(self.expect_packet(), ServerPacket::UnsubAck(packet_id));
    }

    /// Publishes and waits until the broker has taken the message over; RETAIN 0.
    #[track_caller]
    pub fn publish(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_with_retain(topic, qos, payload, false);
    }

    /// Publishes with RETAIN 1 and waits until the broker has taken the message over.
    #[track_caller]
    pub fn publish_retained(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>) {
        self.publish_with_retain(topic, qos, payload, true);
    }

    /// Publishes at QoS 0 with RETAIN 1 to a topic this client is subscribed to, and waits for the message to come back.
    #[track_caller]
    pub fn publish_retained_and_receive(&mut self, topic: &str, payload: impl AsRef<[u8]>) {
        self.send(&wire::raw_publish(1, topic, None, &payload));
        self.expect_message(topic, payload);
    }

    #[track_caller]
    fn publish_with_retain(&mut self, topic: &str, qos: u8, payload: impl AsRef<[u8]>, retain: bool) {
        let flags = qos << 1 | u8::from(retain);
        if qos == 0 {
            self.send(&wire::raw_publish(flags, topic, None, payload));
            return self.expect_nothing();
        }
        let packet_id = self.next_packet_id();
        self.send(&wire::raw_publish(flags, topic, Some(packet_id), payload));
        if qos == 1 {
            return self.expect(&wire::puback(packet_id));
        }
        self.expect(&wire::pubrec(packet_id));
        self.send(&wire::pubrel(packet_id));
        self.expect(&wire::pubcomp(packet_id));
    }

    /// Ends the connection as the standard wants it and waits until the broker has closed it.
    #[track_caller]
    pub fn disconnect(mut self) {
        self.send(&wire::DISCONNECT);
        self.packets_until_closed();
    }

    /// Ends the sending half (FIN) and waits until the broker has closed the connection.
    #[track_caller]
    pub fn vanish(mut self) {
        self.finish_sending();
        self.packets_until_closed();
    }

    /// Ends the sending half (FIN); the broker's bytes can still be read.
    pub fn finish_sending(&mut self) {
        self.transport.finish_sending();
    }

    /// The bare socket, for a test that goes on by itself.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.transport.received.is_empty() && self.put_by.is_empty(), "packets not looked at yet");
        self.transport.into_stream()
    }

    /// Ends the connection by RST.
    pub fn reset(self) {
        self.transport.reset();
    }
}

/// Topics of what is there for a client now; QoS 1 is acknowledged.
#[track_caller]
pub fn topics(client: &mut RawClient) -> Vec<String> {
    let mut seen = Vec::new();
    for packet in client.packets_until_ping() {
        if let ServerPacket::Publish(publish) = packet {
            if publish.qos == 1 {
                client.send(&wire::puback(publish.id()));
            }
            seen.push(publish.topic);
        }
    }
    seen
}
