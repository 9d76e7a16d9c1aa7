//! Many connections on few client ids that come, take each other over, and leave in every way there is, for some seconds.
//!
//! Afterwards the broker must answer, own no socket, client or subscription, and have no session that cannot be used: races between
//! take-over, disconnect, clean start and the writing of other threads show here. The operations follow from a seed
//! (`TERNMQ_STRESS_SEED`); their interleaving does not.

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::wire::{self, Connect};
use support::{DEADLINE, RawClient, ServerPacket, TestBroker};

const THREADS: u64 = 24;
const CLIENT_IDS: u64 = 5;
const TOPICS: u64 = 4;
const TIME: Duration = Duration::from_secs(4);

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n
    }

    fn topic(&mut self) -> String {
        format!("t/{}", self.below(TOPICS))
    }

    fn filter(&mut self) -> String {
        match self.below(4) {
            0 => "#".to_owned(),
            1 => "t/+".to_owned(),
            _ => self.topic(),
        }
    }
}

/// One connection from its CONNECT to some end. Errors of the socket are part of the game.
fn live_once(addr: SocketAddr, random: &mut Random) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(Duration::from_millis(5)))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    let id = format!("stress-{}", random.below(CLIENT_IDS));
    let mut connect = if random.below(2) == 0 { Connect::new(&id) } else { Connect::persistent(&id) };
    if random.below(2) == 0 {
        connect = connect.will(random.topic(), "will", random.below(3) as u8, false);
    }
    stream.write_all(&connect.bytes())?;
    let mut buffer = vec![0; 32 * 1024];
    let mut packet_id = 0;
    for _ in 0..random.below(12) {
        packet_id += 1;
        let packet = match random.below(10) {
            0 | 1 => wire::subscribe(packet_id, &[(random.filter(), random.below(3) as u8)]),
            2 => wire::unsubscribe(packet_id, &[random.filter()]),
            3 => wire::publish_qos1(packet_id, random.topic(), "one"),
            4 => wire::publish_qos2(packet_id, random.topic(), "two"),
            5 => wire::pubrel(1 + random.below(8) as u16),
            6 => wire::puback(1 + random.below(64) as u16),
            7 => {
                let id = 1 + random.below(64) as u16;
                [wire::pubrec(id), wire::pubcomp(id)].concat()
            }
            8 => wire::publish_qos0(random.topic(), vec![b'x'; random.below(20_000) as usize]),
            _ => wire::PINGREQ.to_vec(),
        };
        stream.write_all(&packet)?;
        if random.below(3) == 0 {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    match random.below(4) {
        0 => stream.write_all(&wire::DISCONNECT)?,
        1 => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?,
        2 => stream.write_all(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF])?,
        _ => stream.shutdown(Shutdown::Write)?,
    }
    Ok(())
}

#[test]
fn nothing_is_left_of_a_storm_of_take_overs() {
    let seed: u64 = std::env::var("TERNMQ_STRESS_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("TERNMQ_STRESS_SEED={seed}");
    let broker = TestBroker::start();
    let addr = broker.addr();
    let lives = AtomicU64::new(0);
    let end = Instant::now() + TIME;
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let lives = &lives;
            scope.spawn(move || {
                let mut random = Random(seed.wrapping_mul(1_000).wrapping_add(thread));
                while Instant::now() < end {
                    let _ = live_once(addr, &mut random);
                    lives.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{} connections", lives.load(Ordering::Relaxed));

    let deadline = Instant::now() + DEADLINE;
    while broker.metrics().sockets > 0 {
        assert!(Instant::now() < deadline, "sockets are left: {:#?}", broker.metrics());
        std::thread::yield_now();
    }
    let metrics = broker.metrics();
    assert_eq!(metrics.clients_connected, 0, "{metrics:#?}");
    assert!(metrics.sessions_offline <= CLIENT_IDS, "{metrics:#?}");
    assert_eq!(metrics.closed.get("shutdown"), None, "nobody shut the broker down: {metrics:#?}");
    assert_eq!(metrics.closed.get("internal_error"), None, "a task panicked: {metrics:#?}");

    assert_eq!(metrics.dropped.get("session_ended"), None, "a connection outlived its session: {metrics:#?}");

    // Every session can be used, and ended.
    for n in 0..CLIENT_IDS {
        let id = format!("stress-{n}");
        let (mut client, _) = RawClient::open(addr, &Connect::persistent(&id));
        client.packets_until_ping();
        client.disconnect();
        let mut client = RawClient::clean(addr, &id);
        client.expect_nothing();
        client.subscribe("still/here", 1);
        client.send(&wire::publish_qos1(1_001, "still/here", "yes"));
        let answers = [client.expect_packet(), client.expect_packet()];
        assert!(answers.contains(&ServerPacket::PubAck(1_001)), "{answers:?}");
        let delivered =
            |answer: &ServerPacket| matches!(answer, ServerPacket::Publish(p) if p.topic == "still/here");
        assert!(answers.iter().any(delivered), "{answers:?}");
        client.disconnect();
    }
    let deadline = Instant::now() + DEADLINE;
    while broker.metrics().sockets > 0 {
        assert!(Instant::now() < deadline, "sockets are left: {:#?}", broker.metrics());
        std::thread::yield_now();
    }
    let metrics = broker.metrics();
    let left = (metrics.clients_connected, metrics.sessions_offline, metrics.subscriptions, metrics.retained);
    assert_eq!(left, (0, 0, 0, 0), "{metrics:#?}");
}
