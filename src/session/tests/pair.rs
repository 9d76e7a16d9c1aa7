//! Two ends on virtual time: a session and a client, over a connection that is cut, stalls, and loses what is on its way.
//!
//! Whatever the network does, a QoS 1 message arrives at least once, a QoS 2 message exactly once, both ways and in order;
//! no packet id stands for two unfinished messages; and once the network is well again, everything comes to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::sync::Arc;

use super::pair_client::{Client, KEEP_ALIVE_SECONDS, Received, ToServer};
use super::pair_connection::{Connection, End, Rng};
use super::wire::attach_with;
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{
    Ack, Connect, Framed, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, decode, frame,
};
use crate::session::{
    Delivered, EncodeScratch, Granted, KeepAlive, Message, Outgoing, Reception, Session, SessionLimits,
    Timestamp,
};

const TICK_MS: u64 = 20;
/// Two minutes of a bad network.
const BAD_TICKS: u64 = 6_000;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// The broker's part around the session, as far as one client needs it.
struct Server {
    limits: Arc<SessionLimits>,
    session: Session,
    /// Sessions this client has had.
    generation: u32,
    partial: Vec<u8>,
    heard: Timestamp,
    /// QoS 1 and 2 messages the session took for its client, with its generation.
    accepted: BTreeMap<u32, (QoS, u32)>,
    received: Vec<ToServer>,
}

impl Server {
    fn new(rng: &mut Rng) -> Self {
        let limits = Arc::new(SessionLimits {
            inflight_max: 1 + rng.below(8) as u16,
            queue_messages_max: 60,
            queue_bytes_max: 2_000_000,
            subscriptions_max: 1,
            subscription_bytes_max: 100,
        });
        let mut session = Session::new(Arc::clone(&limits), false);
        let _ = session.end();
        Self {
            limits,
            session,
            generation: 0,
            partial: Vec::new(),
            heard: Timestamp::default(),
            accepted: BTreeMap::new(),
            received: Vec::new(),
        }
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        let session_present = !connect.clean_start && self.session.outlives_connection();
        if !session_present {
            let _ = self.session.end();
            self.session = Session::new(Arc::clone(&self.limits), !connect.clean_start);
            self.generation += 1;
        }
        attach_with(&mut self.session, session_present, None);
    }

    fn detach(&mut self) {
        self.partial.clear();
        self.session.detach();
        if !self.session.outlives_connection() {
            let _ = self.session.end();
        }
    }

    fn deliver(&mut self, number: u32, qos: QoS, padding: usize) {
        let payload = format!("{number} {}", "x".repeat(padding));
        let topic = format!("from/server/{}", number % 3);
        let message = Arc::new(Message::new(topic, payload, qos));
        let mut scratch = EncodeScratch::default();
        let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
        let delivered = self.session.deliver(&mut outgoing, &Granted::with_qos(QoS::ExactlyOnce));
        if qos != QoS::AtMostOnce && matches!(delivered, Delivered::Sent | Delivered::Queued) {
            self.accepted.insert(number, (qos, self.generation));
        }
    }

    /// Bytes from the client. `true` if a CONNECT was among them.
    fn handle_bytes(&mut self, now: Timestamp, bytes: &[u8], mut attached: bool) -> bool {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut whole = 0;
        let mut acks = Vec::new();
        while let Framed::Frame(frame) =
            frame(&all[whole..], usize::MAX, ProtocolVersion::V311).expect("well formed")
        {
            whole += frame.total();
            self.heard = now;
            match decode(&frame, ProtocolVersion::V311).expect("well formed") {
                Packet::Connect(connect) => {
                    assert!(!attached);
                    attached = true;
                    self.connect(&connect);
                }
                packet => self.handle(packet, &mut acks),
            }
        }
        self.session.send_acks(&acks);
        self.partial = all.split_off(whole);
        attached
    }

    fn handle(&mut self, packet: Packet<'_>, acks: &mut Vec<u8>) {
        match packet {
            Packet::Publish(publish) => {
                let number = String::from_utf8_lossy(publish.payload).parse().expect("a number");
                let received = ToServer { number, qos: publish.qos };
                match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => {
                        self.received.push(received);
                        acks.extend(encode::ack(AckKind::PubAck, id));
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        if self.session.accept_publish(id) == Reception::New {
                            self.received.push(received);
                        }
                        acks.extend(encode::ack(AckKind::PubRec, id));
                    }
                    _ => self.received.push(received),
                }
            }
            Packet::PubRel(Ack { packet_id: id, .. }) => {
                self.session.release(id);
                acks.extend(encode::ack(AckKind::PubComp, id));
            }
            Packet::PubAck(Ack { packet_id: id, .. }) => self.acknowledged(AckKind::PubAck, id),
            Packet::PubRec(Ack { packet_id: id, .. }) => self.acknowledged(AckKind::PubRec, id),
            Packet::PubComp(Ack { packet_id: id, .. }) => self.acknowledged(AckKind::PubComp, id),
            Packet::PingReq => self.session.send_pingresp(),
            other => panic!("{other:?}"),
        }
    }

    fn acknowledged(&mut self, kind: AckKind, id: PacketId) {
        self.session.handle_ack(kind, id, ReasonCode::Success);
    }

    /// What the socket takes of the output: at most `n` bytes.
    fn write(&mut self, n: usize) -> Vec<u8> {
        let mut output = self.session.out.take();
        let mut bytes = Vec::new();
        while bytes.len() < n && !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = output.slices(&mut slices);
            let before = bytes.len();
            for slice in &slices[..used] {
                bytes.extend_from_slice(&slice[..slice.len().min(n - bytes.len())]);
            }
            output.advance(bytes.len() - before);
        }
        if output.is_empty() {
            self.session.output_written(bytes.len());
        } else {
            self.session.out.put_back(output);
            self.session.out.written(bytes.len());
        }
        bytes
    }
}

struct Pair {
    rng: Rng,
    now: u64,
    network_is_bad: bool,
    client: Client,
    server: Server,
    connection: Option<Connection>,
    /// The session that each connection of the client was attached to.
    generations: BTreeMap<u32, u32>,
    published: Vec<ToServer>,
    deliveries: u32,
    expired: u32,
}

impl Pair {
    /// Two minutes of a bad network, then until nothing is left to do.
    fn run(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let server = Server::new(&mut rng);
        let mut pair = Self {
            rng,
            now: 0,
            network_is_bad: true,
            client: Client::new(),
            server,
            connection: None,
            generations: BTreeMap::new(),
            published: Vec::new(),
            deliveries: 0,
            expired: 0,
        };
        for _ in 0..BAD_TICKS {
            pair.offer_messages();
            pair.disturb();
            pair.tick();
        }
        pair.network_is_bad = false;
        if let Some(connection) = &mut pair.connection {
            // What vanished stays vanished: a stalled connection has to be given up.
            connection.stalled |= pair.rng.one_in(2);
        }
        let mut ticks = 0;
        while !pair.is_done() {
            pair.tick();
            ticks += 1;
            assert!(ticks < 5_000, "something never comes to its end");
        }
        pair
    }

    fn is_done(&self) -> bool {
        self.client.is_connected()
            && self.client.has_nothing_left()
            && (self.server.session.unfinished(), self.server.session.queued()) == (0, 0)
            && self.connection.as_ref().is_some_and(|connection| !connection.stalled && connection.is_quiet())
    }

    fn tick(&mut self) {
        self.now += TICK_MS;
        self.run_client();
        self.run_server();
    }

    fn offer_messages(&mut self) {
        if self.rng.one_in(4) {
            let message =
                ToServer { number: self.published.len() as u32, qos: QOS[self.rng.below(3) as usize] };
            self.published.push(message);
            self.client.to_publish.push_back(message);
        }
        if self.rng.one_in(4) {
            let padding = match self.rng.below(100) {
                0 => 100_000,
                1..5 => 9_000,
                _ => self.rng.below(30) as usize,
            };
            let qos = QOS[self.rng.below(3) as usize];
            self.deliveries += 1;
            self.server.deliver(self.deliveries, qos, padding);
        }
    }

    fn disturb(&mut self) {
        if self.rng.one_in(200) && self.connection.as_ref().is_some_and(|connection| !connection.stalled) {
            self.cut();
        }
        if self.rng.one_in(1_000)
            && let Some(connection) = &mut self.connection
        {
            connection.stalled = true;
        }
    }

    /// The connection ends; each side still gets some part of what was on its way.
    fn cut(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let bytes = connection.cut(End::Server, &mut self.rng);
        self.server_reads(&mut connection, &bytes);
        let bytes = connection.cut(End::Client, &mut self.rng);
        self.client.handle_bytes(self.now, &bytes, &mut self.rng);
        if connection.attached {
            self.server.detach();
        } else {
            self.server.partial.clear();
        }
        self.client.closed(self.now, &mut self.rng);
    }

    fn run_client(&mut self) {
        if self.connection.is_none() {
            let clean = self.network_is_bad && self.rng.one_in(12);
            if !self.client.opens(self.now, clean) {
                return;
            }
            self.server.partial.clear();
            self.connection = Some(Connection::default());
        }
        let Some(connection) = &mut self.connection else { return };
        let bytes = connection.receive(End::Client, self.now);
        self.client.handle_bytes(self.now, &bytes, &mut self.rng);
        if !self.client.tick(self.now, &mut self.rng) {
            // Given up. A server that is cut off is not told.
            if connection.attached && !connection.stalled {
                self.server.detach();
            }
            self.connection = None;
            self.client.closed(self.now, &mut self.rng);
            return;
        }
        connection.send(End::Server, self.now, std::mem::take(&mut self.client.output));
    }

    fn run_server(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let bytes = connection.receive(End::Server, self.now);
            self.server_reads(&mut connection, &bytes);
            self.connection = Some(connection);
        }
        // A session whose connection has silently gone writes on.
        let n = if self.network_is_bad { self.rng.below(4_000) as usize } else { usize::MAX };
        let bytes = self.server.write(n);
        let connection = self.connection.as_mut().filter(|connection| connection.attached);
        let reachable = connection.as_ref().is_some_and(|connection| !connection.stalled);
        if let Some(connection) = connection {
            connection.send(End::Client, self.now, bytes);
        }
        let keep_alive = KeepAlive::from_seconds(KEEP_ALIVE_SECONDS).expect("not 0");
        let now = Timestamp::from_millis(self.now);
        if self.server.session.is_connected() && now >= keep_alive.deadline(self.server.heard) {
            assert!(!reachable, "a client that pings was thrown out");
            assert!(now.since(self.server.heard).as_millis() >= 15_000);
            self.expired += 1;
            self.server.detach();
            if let Some(connection) = &mut self.connection
                && connection.attached
            {
                connection.attached = false;
            }
        }
    }

    fn server_reads(&mut self, connection: &mut Connection, bytes: &[u8]) {
        let attached = self.server.handle_bytes(Timestamp::from_millis(self.now), bytes, connection.attached);
        if attached && !connection.attached {
            connection.attached = true;
            self.generations.insert(self.client.connection, self.server.generation);
        }
    }

    fn judge(&self) {
        self.judge_deliveries();
        self.judge_publishes();
    }

    /// From the session to the client.
    fn judge_deliveries(&self) {
        let mut receipts: BTreeMap<u32, Vec<Received>> = BTreeMap::new();
        for received in self.client.received.iter().filter(|received| received.qos != QoS::AtMostOnce) {
            receipts.entry(received.number).or_default().push(*received);
            let (qos, generation) = self.server.accepted[&received.number];
            assert_eq!(received.qos, qos);
            assert_eq!(
                self.generations[&received.connection], generation,
                "{received:?} is of another session"
            );
        }
        for (number, (qos, generation)) in &self.server.accepted {
            let copies = receipts.get(number).map_or(0, Vec::len);
            assert!(*qos == QoS::AtLeastOnce || copies <= 1, "QoS 2 message {number} came {copies} times");
            // The state of earlier sessions was thrown away at the client's wish.
            assert!(copies > 0 || *generation < self.server.generation, "{number} ({qos:?}) is lost");
        }
        let numbers = |qos: QoS| {
            self.client.received.iter().filter(move |received| received.qos == qos).map(|r| r.number)
        };
        for qos in QOS {
            assert_in_order(numbers(qos), "first receipts");
            let latest: Vec<u32> = numbers(qos).collect();
            assert_in_order(latest.into_iter().rev().map(|number| u32::MAX - number), "last receipts");
        }
    }

    /// From the client to the session.
    fn judge_publishes(&self) {
        let mut copies: BTreeMap<u32, u32> = BTreeMap::new();
        for received in &self.server.received {
            assert_eq!(received.qos, self.published[received.number as usize].qos);
            *copies.entry(received.number).or_default() += 1;
        }
        let abandoned: BTreeSet<u32> = self.client.abandoned.iter().copied().collect();
        for message in self.published.iter().filter(|message| message.qos != QoS::AtMostOnce) {
            let copies = copies.get(&message.number).copied().unwrap_or(0);
            assert!(message.qos == QoS::AtLeastOnce || copies <= 1, "{message:?} was taken {copies} times");
            assert!(copies > 0 || abandoned.contains(&message.number), "{message:?} is lost");
        }
        for qos in QOS {
            assert_in_order(
                self.server.received.iter().filter(|r| r.qos == qos).map(|r| r.number),
                "inbound",
            );
        }
    }
}

/// First sightings must come in ascending order.
fn assert_in_order(numbers: impl Iterator<Item = u32>, what: &str) {
    let mut seen = BTreeSet::new();
    for number in numbers {
        if seen.insert(number) {
            assert_eq!(seen.last(), Some(&number), "{what}: out of order");
        }
    }
}

#[test]
fn whatever_the_network_does_every_message_keeps_its_promise() {
    let (mut expired, mut connections, mut sessions, mut repeated) = (0, 0, 0, 0);
    for seed in 0..40 {
        let pair = std::panic::catch_unwind(|| {
            let pair = Pair::run(seed);
            pair.judge();
            pair
        });
        let Ok(pair) = pair else { panic!("seed {seed}: see above") };
        expired += pair.expired;
        connections += pair.client.connection;
        sessions += pair.server.generation;
        let qos_1 = pair.client.received.iter().filter(|received| received.qos == QoS::AtLeastOnce);
        let numbers: Vec<u32> = qos_1.map(|received| received.number).collect();
        repeated += numbers.len() - numbers.iter().collect::<BTreeSet<_>>().len();
    }
    // It was a bad network indeed.
    assert!(
        expired > 10 && connections > 500 && sessions > 60 && repeated > 50,
        "{expired} expired, {connections} connections, {sessions} sessions, {repeated} repeated"
    );
}
