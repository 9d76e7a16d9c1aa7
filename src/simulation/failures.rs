//! A disk that fails for a while, or is full: nothing is acknowledged that is not stored, whatever needs no disk is served, and afterwards
//! everything goes on by itself.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::broker::{SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::server_packet::ServerPacket;
use super::support::wire;
use super::world::World;
use crate::accounts::Account;
use crate::config::Limits;
use crate::storage::simulated::{Fault, Random, SimulatedFiles, Step};

const OPERATIONS: usize = 30;

/// From this step on so many steps fail; then the power goes, after which everything acknowledged is there.
fn run(workload: u64, from: u64, steps: u64, fault: Fault) -> u64 {
    let mut random = Random(workload * 1_009 + from);
    let mut world = World::new(workload);
    let files = SimulatedFiles::new(random.next());
    world.account.note(format!("{fault:?} from {from}, {steps} steps"));
    let failing = move |step: &Step| (from..from + steps).contains(&step.number).then_some(fault);
    world.live_with(&files, failing, OPERATIONS);
    let all = files.steps().len() as u64;
    world.settle(&files.after_power_cut(random.next()));
    all
}

#[test]
fn a_disk_that_fails_for_a_while_at_any_step_loses_nothing() {
    let all = run(3, 0, 0, Fault::Broken);
    // The first steps are those of the start: without a disk it is refused.
    let mut random = Random(3);
    for from in (3..all).step_by(4) {
        let fault = if random.coin() { Fault::Broken } else { Fault::Full };
        run(3, from, 1 + random.below(3) as u64, fault);
    }
}

/// A broker whose disk can be switched.
struct Bench {
    files: SimulatedFiles,
    broken: Arc<AtomicBool>,
    broker: TestBroker,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        let files = SimulatedFiles::new(1);
        let broken = Arc::new(AtomicBool::new(false));
        let is_broken = Arc::clone(&broken);
        files.on_step(move |_| is_broken.load(Ordering::Acquire).then_some(Fault::Broken));
        let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
        Self { files, broken, broker }
    }

    fn addr(&self) -> SocketAddr {
        self.broker.addr
    }

    fn break_disk(&self, broken: bool) {
        self.broken.store(broken, Ordering::Release);
    }

    fn wait_until_failing(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.broker.log().status().failing {
            assert!(Instant::now() < deadline, "the disk does not fail");
            std::thread::yield_now();
        }
    }
}

/// What needs no disk is served.
fn others_are_served(addr: SocketAddr) {
    let mut subscriber = RawClient::clean(addr, "other-subscriber");
    subscriber.subscribe("free/#", 1);
    let mut publisher = RawClient::clean(addr, "other-publisher");
    publisher.publish("free/0", 0, "at QoS 0");
    publisher.publish("free/1", 1, "at QoS 1");
    subscriber.expect_message("free/0", "at QoS 0");
    subscriber.expect_message_and_ack("free/1", "at QoS 1");
    publisher.disconnect();
    subscriber.disconnect();
}

#[test]
fn while_the_disk_fails_nothing_is_acknowledged_and_others_are_served() {
    let bench = Bench::new();
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept/#", 1);
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    bench.break_disk(true);
    publisher.send(&wire::publish_qos1(1, "kept/1", "while it fails"));
    bench.wait_until_failing();
    // Its acknowledgement waits, the answers behind it too, and nobody else.
    let mut retained = RawClient::clean(bench.addr(), "retained");
    retained.send(&wire::raw_publish(0x03, "topic", Some(1), "retained"));
    retained.stays_silent_and_open(Duration::from_millis(20));
    publisher.stays_silent_and_open(Duration::from_millis(20));
    subscriber.send(&wire::subscribe(77, &[("more/#", 1)]));
    let early = subscriber.packets_until_ping();
    assert!(!early.iter().any(|packet| matches!(packet, ServerPacket::SubAck(77, _))), "{early:?}");
    others_are_served(bench.addr());
    let mut newcomer = RawClient::connect(bench.addr());
    newcomer.send(&wire::Connect::persistent("newcomer").bytes());
    newcomer.stays_silent_and_open(Duration::from_millis(20));

    bench.break_disk(false);
    publisher.expect(&wire::puback(1));
    retained.expect(&wire::puback(1));
    newcomer.expect(&[0x20, 2, 0, 0]);
    assert_eq!(subscriber.expect_packet(), ServerPacket::SubAck(77, vec![1]));
    // The answers may leave a moment before the log says that it is well.
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.broker.log().status().failing {
        assert!(Instant::now() < deadline, "{:?}", bench.broker.log().status());
        std::thread::yield_now();
    }
    let status = bench.broker.log().status();
    assert!(status.write_failures + status.sync_failures > 0, "{status:?}");
    // And what was acknowledged is there.
    let found = bench.files.after_power_cut(3);
    bench.broker.kill();
    let broker = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
    RawClient::resume(broker.addr, "subscriber").expect_message_and_ack("kept/1", "while it fails");
    RawClient::resume(broker.addr, "newcomer").expect_nothing();
    broker.kill();
}

/// It is the client that makes room on a full disk, by acknowledging: what waits for it is sent
/// although its connection cannot be put on record, also if that was found out only after it had
/// begun to wait for that.
#[test]
fn what_waited_for_a_client_is_sent_when_the_disk_begins_to_fail() {
    let bench = Bench::new();
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept/#", 2);
    subscriber.disconnect();
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    publisher.publish("kept/1", 1, "at QoS 1");
    publisher.publish("kept/2", 2, "at QoS 2");
    bench.break_disk(true);
    let mut subscriber = RawClient::resume(bench.addr(), "subscriber");
    subscriber.expect_message_and_ack("kept/1", "at QoS 1");
    subscriber.expect_message("kept/2", "at QoS 2");
    bench.wait_until_failing();
    bench.broker.kill();
}

/// The same for the first one after a restart.
#[test]
fn the_first_connection_after_a_restart_on_a_full_disk_gets_its_queue() {
    let bench = Bench::new();
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept/#", 2);
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    publisher.publish("kept/0", 2, "completed");
    let begun = subscriber.expect_message("kept/0", "completed");
    subscriber.send(&wire::pubrec(begun.id()));
    subscriber.expect(&wire::pubrel(begun.id()));
    subscriber.disconnect();
    publisher.publish("kept/1", 1, "at QoS 1");
    publisher.publish("kept/2", 2, "at QoS 2");
    bench.broker.kill();
    let files = bench.files.after_power_cut(3);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    // The system's disk is full from now on, whatever is written.
    files.on_step(|_| Some(Fault::Full));
    let mut subscriber = RawClient::resume(broker.addr, "subscriber");
    subscriber.expect(&wire::pubrel(begun.id()));
    subscriber.expect_message_and_ack("kept/1", "at QoS 1");
    subscriber.expect_message("kept/2", "at QoS 2");
    broker.kill();
}

#[test]
fn a_full_disk_is_waited_for() {
    let bench = Bench::new();
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept/#", 1);
    subscriber.disconnect();
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    bench.files.set_limit(Some(10_000));
    let body = vec![b'x'; 500];
    let sent = 60;
    for id in 1..=sent {
        publisher.send(&wire::publish_qos1(id, "kept/1", &body));
    }
    bench.wait_until_failing();
    others_are_served(bench.addr());
    bench.files.set_limit(None);
    for id in 1..=sent {
        publisher.expect(&wire::puback(id));
    }
    let mut subscriber = RawClient::resume(bench.addr(), "subscriber");
    for _ in 1..=sent {
        subscriber.expect_message_and_ack("kept/1", &body);
    }
    bench.broker.kill();
}

/// Sends these bytes again and again until the broker takes no more; how often.
fn flood(addr: SocketAddr, client_id: &str, packet: &[u8], most: usize) -> (std::net::TcpStream, usize) {
    let mut stream = RawClient::clean(addr, client_id).into_stream();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sent = 0;
    while sent < most && stream.write_all(packet).is_ok() {
        sent += packet.len();
    }
    (stream, sent)
}

/// What two sockets and a turn may hold, above the log's own bound.
const SLACK: u64 = 1024 * 1024;

#[test]
fn a_publisher_is_held_while_the_disk_fails_and_memory_stays_bounded() {
    const FLOOD: usize = 64 * 1024 * 1024;
    let bench = Bench::new();
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept/#", 1);
    subscriber.disconnect();
    let before = bench.broker.log().status().bytes_submitted;
    bench.break_disk(true);
    let packet = wire::publish_qos1(1, "kept/1", vec![b'x'; 4096]);
    let (_stream, sent) = flood(bench.addr(), "publisher", &packet, FLOOD);
    let taken = bench.broker.log().status().bytes_submitted - before;
    assert!(sent < FLOOD && taken < SLACK, "sent {sent}, taken {taken}");
    others_are_served(bench.addr());
    bench.break_disk(false);
    others_are_served(bench.addr());
    bench.broker.kill();
}

/// Retained messages at QoS 0 are put on record without anybody waiting for it: they must not pile up either.
#[test]
fn retained_messages_at_qos_0_do_not_pile_up_while_the_disk_fails() {
    const FLOOD: usize = 16 * 1024 * 1024;
    let bench = Bench::new();
    let before = bench.broker.log().status().bytes_submitted;
    bench.break_disk(true);
    let packet = wire::raw_publish(1, "retained", None, vec![b'x'; 4096]);
    let (_stream, sent) = flood(bench.addr(), "publisher", &packet, FLOOD);
    let taken = bench.broker.log().status().bytes_submitted - before;
    assert!(taken < SLACK, "sent {sent}, taken {taken}");
    others_are_served(bench.addr());
    bench.break_disk(false);
    bench.broker.kill();
}

/// Reported: only of those were they bounded who had made the log grow.
#[test]
fn answers_to_one_that_makes_nothing_grow_are_bounded_too() {
    const BOUND: usize = 100_000;
    const BEYOND: usize = 64 * 1024;
    const FLOOD: usize = 16 * 1024 * 1024;
    let bench = Bench::with(Limits { queue_bytes_max: BOUND, ..Limits::default() });
    let mut kept = RawClient::persistent(bench.addr(), "kept");
    kept.subscribe("other", 1);
    kept.disconnect();
    RawClient::persistent(bench.addr(), "subscriber").subscribe("kept", 1);
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    bench.break_disk(true);
    publisher.send(&wire::publish_qos1(1, "kept", "while it fails"));
    bench.wait_until_failing();
    // This connection has made nothing grow.
    let kept = RawClient::resume(bench.addr(), "kept");
    // Of messages that nobody knows: each answer waits, and nothing is put on record.
    let mut stream = kept.into_stream();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let packets = wire::pubrel(7).repeat(4_096);
    let mut sent = 0;
    while sent < FLOOD
        && let Ok(n) = stream.write(&packets[sent % packets.len()..])
    {
        sent += n;
    }
    assert!(sent < FLOOD, "it is read without end");
    let answers = bench.broker.core.accounts.of(Account::Answers);
    assert!((BOUND..BOUND + BEYOND).contains(&(answers + 4_096)), "{answers} bytes");
    others_are_served(bench.addr());
    bench.break_disk(false);
    bench.broker.kill();
}

#[test]
fn answers_that_wait_for_a_failing_disk_are_bounded_and_all_come_in_the_end() {
    const BOUND: usize = 100_000;
    // One read brings so many answers at most.
    const BEYOND: usize = 64 * 1024;
    let bench = Bench::with(Limits { queue_bytes_max: BOUND, ..Limits::default() });
    let mut subscriber = RawClient::persistent(bench.addr(), "subscriber");
    subscriber.subscribe("kept", 1);
    let mut publisher = RawClient::clean(bench.addr(), "publisher");
    bench.break_disk(true);
    publisher.send(&wire::publish_qos1(1, "kept", "while it fails"));
    bench.wait_until_failing();
    // Nobody hears these, and their answers wait behind that one.
    let mut stream = publisher.into_stream();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let packets = wire::publish_qos1(2, "n", "").repeat(6_000);
    let mut sent = 0;
    let is_held_up = |error: std::io::Error| {
        assert!(
            matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
            "{error}"
        );
    };
    while sent < 64 * 1024 * 1024 {
        match stream.write(&packets[sent % packets.len()..]) {
            Ok(n) => sent += n,
            Err(error) => {
                is_held_up(error);
                break;
            }
        }
    }
    assert!(sent < 64 * 1024 * 1024, "it is read without end");
    let answers = bench.broker.core.accounts.of(Account::Answers);
    assert!((BOUND..BOUND + BEYOND).contains(&(answers + 4_096)), "{answers} bytes");
    others_are_served(bench.addr());
    // The last packet may have been cut off.
    let one = packets.len() / 6_000;
    let rest = packets[..one].len() - (sent % one);
    let (mut reading, whole) = (stream.try_clone().unwrap(), sent / one + 2);
    bench.break_disk(false);
    let writing = std::thread::spawn(move || {
        stream.set_write_timeout(None).unwrap();
        let start = one - rest;
        stream.write_all(&packets[start..one]).unwrap();
        stream
    });
    let mut acknowledged = vec![0; 4 * whole];
    reading.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    std::io::Read::read_exact(&mut reading, &mut acknowledged).expect("all answers");
    assert!(acknowledged.chunks(4).all(|answer| answer[..2] == [0x40, 2]));
    drop(writing.join().unwrap());
    assert_eq!(bench.broker.core.accounts.of(Account::Answers), 0);
}
