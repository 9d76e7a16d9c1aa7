//! The time of day over restarts: wrong and set right, gone on without the broker, set back
//! (`broker/clock.rs` works the cases out).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::broker::{SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::raw_client5::RawClient5;
use super::support::server_packet5::ServerPacket5;
use super::support::wire::Connect;
use super::support::wire5::{Connect5, four, id};
use crate::broker::WallClock;
use crate::config::Limits;
use crate::storage::simulated::SimulatedFiles;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;
/// When it really is: some day of 2027.
const TODAY: u64 = 1_800_000_000_000;
const MESSAGES: usize = 50;

/// A time of day that goes on and can be set.
#[derive(Clone)]
struct TestWall(Arc<Mutex<(u64, Instant)>>);

impl TestWall {
    fn at(unix_millis: u64) -> Self {
        Self(Arc::new(Mutex::new((unix_millis, Instant::now()))))
    }

    fn set(&self, unix_millis: u64) {
        *self.0.lock() = (unix_millis, Instant::now());
    }

    fn clock(&self) -> WallClock {
        let wall = self.clone();
        WallClock::from_fn(move || {
            let (set_to, at) = *wall.0.lock();
            set_to + at.elapsed().as_millis() as u64
        })
    }
}

fn start(files: &SimulatedFiles, wall: &TestWall) -> TestBroker {
    let limits = Limits { session_expiry: Some(Duration::from_millis(30 * DAY)), ..Limits::default() };
    TestBroker::start_at(Arc::new(files.clone()), SMALL, limits, wall.clock()).unwrap()
}

/// How a broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    InOrder,
    Killed,
}

fn end(broker: TestBroker, how: End) {
    match how {
        End::InOrder => broker.shut_down(),
        End::Killed => broker.kill(),
    }
}

/// A session that is left, and messages for it.
fn leave_with_messages(broker: &TestBroker) {
    let mut away = RawClient::open(broker.addr, &Connect::persistent("away")).0;
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..MESSAGES {
        publisher.publish("t", 1, n.to_string());
    }
}

/// It comes back: how many messages there are, if there is a session.
fn come_back(broker: &TestBroker) -> Option<usize> {
    let (mut away, present) = RawClient::open(broker.addr, &Connect::persistent("away"));
    let there = present.then(|| {
        for n in 0..MESSAGES {
            away.expect_message_and_ack("t", n.to_string());
        }
        MESSAGES
    });
    away.disconnect();
    there
}

/// The timers have looked, at the sessions and at the clock.
fn let_timers_run(broker: &TestBroker) {
    let begun = broker.core.now();
    while broker.core.now().since(begun) < Duration::from_millis(3 * crate::broker::TICK_MS) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_clock_that_is_set_right_after_the_start_costs_nobody_his_session() {
    for wrong in [0, 2 * 365 * DAY, TODAY - 91 * DAY, TODAY - 40 * DAY] {
        for (how, checkpoint) in [(End::InOrder, false), (End::Killed, false), (End::Killed, true)] {
            let files = SimulatedFiles::new(1);
            let wall = TestWall::at(wrong);
            let broker = start(&files, &wall);
            wall.set(TODAY);
            // At once, before the timers look at the clock.
            leave_with_messages(&broker);
            if checkpoint {
                // What the log says of the clock is out of date then.
                broker.tend_now();
            }
            end(broker, how);
            wall.set(TODAY + HOUR);
            let broker = start(&files, &wall);
            let_timers_run(&broker);
            assert_eq!(come_back(&broker), Some(MESSAGES), "{wrong} {how:?} {checkpoint}");
            broker.kill();
        }
    }
}

#[test]
fn a_jump_is_on_record_though_nothing_else_is_recorded() {
    let files = SimulatedFiles::new(1);
    let wall = TestWall::at(TODAY - 40 * DAY);
    let broker = start(&files, &wall);
    leave_with_messages(&broker);
    let end = broker.log().submitted();
    broker.wait_for_log(end);
    wall.set(TODAY);
    let deadline = Instant::now() + Duration::from_secs(10);
    while broker.log().committed() == end {
        assert!(Instant::now() < deadline, "the timers do not look at the clock");
        std::thread::sleep(Duration::from_millis(10));
    }
    let files = files.after_power_cut(1);
    broker.kill();
    let broker = start(&files, &wall);
    let_timers_run(&broker);
    assert_eq!(come_back(&broker), Some(MESSAGES));
    broker.kill();
}

#[test]
fn a_device_that_never_knows_the_time_keeps_what_it_owes() {
    let files = SimulatedFiles::new(1);
    for _ in 0..3 {
        let broker = start(&files, &TestWall::at(0));
        leave_with_messages(&broker);
        broker.kill();
        let broker = start(&files, &TestWall::at(0));
        let_timers_run(&broker);
        assert_eq!(come_back(&broker), Some(MESSAGES));
        broker.kill();
    }
    // And then once it does.
    let broker = start(&files, &TestWall::at(0));
    leave_with_messages(&broker);
    broker.kill();
    let broker = start(&files, &TestWall::at(TODAY));
    let_timers_run(&broker);
    assert_eq!(come_back(&broker), Some(MESSAGES));
    broker.kill();
}

#[test]
fn after_forty_days_without_power_what_has_expired_is_gone() {
    for how in [End::InOrder, End::Killed] {
        let files = SimulatedFiles::new(1);
        let wall = TestWall::at(TODAY);
        let broker = start(&files, &wall);
        // Thirty days, the most that is granted.
        leave_with_messages(&broker);
        let mut publisher = RawClient5::clean(broker.addr, "publisher 5");
        let expiring = |days: u64| four(id::MESSAGE_EXPIRY, (days * DAY / 1_000) as u32);
        publisher.publish_with("kept/1", 3, &expiring(1), "expired");
        publisher.publish_with("kept/50", 3, &expiring(50), "not yet");
        publisher.disconnect();
        broker.wait_for_log(broker.log().submitted());
        end(broker, how);
        wall.set(TODAY + 40 * DAY);
        let broker = start(&files, &wall);
        let_timers_run(&broker);
        assert_eq!(come_back(&broker), None, "{how:?}");
        let mut late = RawClient5::clean(broker.addr, "late");
        late.subscribe("kept/#", 0);
        let kept = late.publishes_until_ping();
        assert_eq!(kept.iter().map(|publish| publish.text()).collect::<Vec<_>>(), ["not yet"]);
        let left = u64::from(kept[0].expiry().unwrap()) * 1_000;
        assert!(left <= 10 * DAY && left > 10 * DAY - HOUR, "{left}");
        broker.kill();
    }
}

#[test]
fn twenty_days_without_power_are_not_forty() {
    let files = SimulatedFiles::new(1);
    let wall = TestWall::at(TODAY);
    let broker = start(&files, &wall);
    leave_with_messages(&broker);
    broker.tend_now();
    broker.kill();
    wall.set(TODAY + 20 * DAY);
    // A start that counted the days, and one after it that must not count them again.
    start(&files, &wall).kill();
    let broker = start(&files, &wall);
    let_timers_run(&broker);
    assert_eq!(come_back(&broker), Some(MESSAGES));
    broker.kill();
}

#[test]
fn a_clock_that_is_set_back_moves_no_deadline() {
    for (while_it_runs, how) in
        [(true, End::InOrder), (true, End::Killed), (false, End::InOrder), (false, End::Killed)]
    {
        let files = SimulatedFiles::new(1);
        let wall = TestWall::at(TODAY);
        let broker = start(&files, &wall);
        let mut away = RawClient5::open(broker.addr, &Connect5::resuming("away 5").session_expiry(10_000)).0;
        away.subscribe("five", 1);
        away.disconnect();
        let mut publisher = RawClient5::clean(broker.addr, "publisher 5");
        let properties = four(id::MESSAGE_EXPIRY, 2 * 3_600);
        publisher.publish_with("five", 2, &properties, "before");
        if while_it_runs {
            wall.set(TODAY - HOUR);
        }
        leave_with_messages(&broker);
        publisher.publish_with("five", 2, &properties, "after");
        end(broker, how);
        wall.set(TODAY - HOUR);
        let broker = start(&files, &wall);
        let_timers_run(&broker);
        assert_eq!(come_back(&broker), Some(MESSAGES), "{while_it_runs} {how:?}");
        let mut away =
            RawClient5::resume_with(broker.addr, &Connect5::resuming("away 5").session_expiry(10_000));
        for payload in ["before", "after"] {
            let left = away.expect_and_ack("five", payload).expiry().unwrap();
            assert!((7_100..=7_200).contains(&left), "{payload}: {left}");
        }
        broker.kill();
    }
}

#[test]
fn a_message_lives_as_long_as_its_publisher_said_over_a_jump_and_a_restart() {
    for wrong in [0, TODAY - 2 * DAY] {
        let files = SimulatedFiles::new(1);
        let wall = TestWall::at(wrong);
        let broker = start(&files, &wall);
        let mut away =
            RawClient5::open(broker.addr, &Connect5::resuming("away 5").session_expiry(1_000_000)).0;
        away.subscribe("five", 1);
        away.disconnect();
        wall.set(TODAY);
        let mut publisher = RawClient5::clean(broker.addr, "publisher 5");
        // The first that is recorded after the jump, and has a time in it.
        publisher.publish_with("five", 3, &four(id::MESSAGE_EXPIRY, 86_400), "queued and kept");
        broker.kill();
        wall.set(TODAY + 60_000);
        let broker = start(&files, &wall);
        let connect = Connect5::resuming("away 5").session_expiry(1_000_000);
        let left =
            |publish: Option<u32>| assert!((86_000..=86_340).contains(&publish.unwrap()), "{publish:?}");
        let mut away = RawClient5::resume_with(broker.addr, &connect);
        left(away.expect_and_ack("five", "queued and kept").expiry());
        let mut late = RawClient5::clean(broker.addr, "late");
        late.subscribe("five", 0);
        left(late.publishes_until_ping()[0].expiry());
        broker.kill();
    }
}

/// CONNACK says that the session goes on, and for an hour. It waits until that is on record: the power
/// goes as soon as it is there, and comes back when the session would have ended by what was on record
/// before.
#[test]
fn how_long_a_session_stays_is_on_record_before_connack_says_so() {
    for is_away in [true, false] {
        let (files, wall) = (SimulatedFiles::new(7), TestWall::at(TODAY));
        let broker = start(&files, &wall);
        let (mut first, ..) = RawClient5::open(broker.addr, &Connect5::resuming("A").session_expiry(60));
        first.subscribe("x", 1);
        if is_away {
            first.disconnect();
        }
        broker.wait_for_log(broker.log().submitted());
        files.hold_syncs();
        let for_an_hour = Connect5::resuming("A").session_expiry(3_600);
        let mut second = RawClient5::connect(broker.addr);
        second.send_connect(&for_an_hour);
        files.wait_for_held_sync();
        second.stays_silent_and_open(Duration::from_millis(20));
        files.let_one_sync_through();
        assert!(matches!(second.expect_packet(), ServerPacket5::ConnAck(true, 0, _)));
        let found: Vec<SimulatedFiles> = (0..16).map(|seed| files.after_power_cut(seed)).collect();
        files.release_syncs();
        broker.kill();
        wall.set(TODAY + HOUR / 2);
        for found in found {
            let again = start(&found, &wall);
            assert!(again.core.stays_for("A", Duration::from_mins(20)), "is away: {is_away}");
            again.kill();
        }
    }
}
