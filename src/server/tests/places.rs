//! Connections that wait for a place among the fan-outs, with real sockets.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;

use super::*;

/// Levels of a topic with two filters for each, so that its receivers are not found in one turn.
const LEVELS: usize = 12;
const PATIENCE: Duration = Duration::from_millis(200);

fn topic() -> String {
    ["a"; LEVELS].join("/")
}

/// A string as MQTT has it.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut rest = body.len();
    while rest >= 128 {
        packet.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    packet.push(rest as u8);
    [&packet, body].concat()
}

fn publish(id: u16) -> Vec<u8> {
    packet(0x32, &[&text(&topic())[..], &id.to_be_bytes(), b"m"].concat())
}

fn connect_bytes(id: &str) -> Vec<u8> {
    packet(0x10, &[b"\0\x04MQTT\x04\x02\0\0", &text(id)[..]].concat())
}

fn expect(stream: &mut TcpStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).expect("an answer");
    assert_eq!(bytes, expected);
}

fn begin(address: SocketAddr, id: &str) -> TcpStream {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
    stream.write_all(&connect_bytes(id)).expect("it is open");
    stream
}

fn connect(address: SocketAddr, id: &str) -> TcpStream {
    let mut stream = begin(address, id);
    expect(&mut stream, b"\x20\x02\0\0");
    stream
}

/// A broker with one receiver that has all these filters, so that each match takes several turns.
struct Rig {
    broker: Broker,
    address: SocketAddr,
    /// It has the filters, and gets each message.
    receiver: TcpStream,
}

impl Rig {
    async fn new() -> Self {
        let broker = Broker::start(config(None, any_port())).await.expect("it starts");
        let address = broker.local_addrs()[0];
        let mut receiver = connect(address, "receiver");
        let filters: Vec<u8> = (0..1 << LEVELS)
            .flat_map(|n: usize| {
                let level = |level| if n >> level & 1 == 1 { "+" } else { "a" };
                let levels: Vec<&str> = (0..LEVELS).map(level).collect();
                [&text(&levels.join("/"))[..], b"\0"].concat()
            })
            .collect();
        receiver.write_all(&packet(0x82, &[b"\0\x01", &filters[..]].concat())).expect("it is open");
        expect(&mut receiver, &packet(0x90, &[&[0, 1], &[0; 1 << LEVELS][..]].concat()));
        Self { broker, address, receiver }
    }

    fn take_places(&self) -> Vec<OwnedSemaphorePermit> {
        let places = self.broker.core.fan_out_places();
        std::iter::from_fn(|| Arc::clone(places).try_acquire_owned().ok()).collect()
    }

    async fn until(&self, what: &str, is_true: impl Fn(&Core) -> bool) {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        while !is_true(&self.broker.core) {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Takes so many messages, and nothing else comes.
    fn receive(&mut self, count: usize) {
        let message = packet(0x30, &[&text(&topic())[..], b"m"].concat());
        (0..count).for_each(|_| expect(&mut self.receiver, &message));
    }

    fn gets_nothing(&mut self) {
        is_silent(&mut self.receiver);
    }
}

fn is_silent(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let read = stream.read(&mut [0]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_place_goes_on_in_the_order_of_its_packets_when_there_is_one() {
    let mut rig = Rig::new().await;
    let places = rig.take_places();
    let mut publisher = connect(rig.address, "publisher");
    publisher.write_all(&[&publish(1)[..], &publish(2), b"\xc0\0"].concat()).expect("it is open");
    rig.until("it has published", |core| core.is_publishing("publisher")).await;
    rig.gets_nothing();
    is_silent(&mut publisher);
    drop(places);
    rig.receive(2);
    expect(&mut publisher, b"\x40\x02\0\x01\x40\x02\0\x02\xd0\0");
    rig.until("it is done", |core| !core.is_publishing("publisher")).await;
    let places = rig.take_places();
    assert!(places.len() > 1, "they have come back");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_more_publishers_than_places_are_all_answered() {
    const PUBLISHERS: usize = 40;
    let mut rig = Rig::new().await;
    let mut all: Vec<_> = (0..PUBLISHERS).map(|n| connect(rig.address, &n.to_string())).collect();
    for publisher in &mut all {
        publisher.write_all(&[publish(1), publish(2)].concat()).expect("it is open");
    }
    rig.receive(2 * PUBLISHERS);
    for publisher in &mut all {
        expect(publisher, b"\x40\x02\0\x01\x40\x02\0\x02");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_waits_with_is_delivered_when_it_is_taken_over() {
    let mut rig = Rig::new().await;
    let places = rig.take_places();
    let mut publisher = connect(rig.address, "publisher");
    publisher.write_all(&publish(1)).expect("it is open");
    rig.until("it has published", |core| core.is_publishing("publisher")).await;
    let mut successor = begin(rig.address, "publisher");
    is_silent(&mut successor);
    drop(places);
    rig.receive(1);
    expect(&mut successor, b"\x20\x02\0\0");
    rig.gets_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_waits_with_is_delivered_at_a_shutdown() {
    let rig = Rig::new().await;
    let places = rig.take_places();
    let mut publisher = connect(rig.address, "publisher");
    publisher.write_all(&publish(1)).expect("it is open");
    rig.until("it has published", |core| core.is_publishing("publisher")).await;
    rig.broker.core.begin_shutdown();
    drop(places);
    rig.until("it is delivered", |core| !core.is_publishing("publisher")).await;
    rig.broker.shutdown().await;
}
