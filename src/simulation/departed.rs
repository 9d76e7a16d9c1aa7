//! What a session leaves behind when it is over: its end on its way to the disk, its will on its way
//! to others. The next connection with its client id waits for both, and nobody else does.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::asking::wait_until;
use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::raw_client5::RawClient5;
use super::support::server_packet5::ServerPacket5;
use super::support::wire::Connect;
use super::support::wire5::{Connect5, four, id};
use crate::config::Limits;
use crate::storage::simulated::SimulatedFiles;

/// Long enough for a broker that does not wait.
const RASH: Duration = Duration::from_millis(50);

fn start_with(limits: Limits) -> (SimulatedFiles, TestBroker) {
    let files = SimulatedFiles::new(1);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
    (files, broker)
}

/// The power goes, and CONNACK has said that there is no session.
fn it_stays_over(files: &SimulatedFiles, power: &Power) {
    power.cut(files);
    files.release_syncs();
    for seed in 0..16 {
        let again =
            TestBroker::start(Arc::new(files.after_power_cut(seed)), SMALL, Limits::default()).unwrap();
        let (_client, is_present) = RawClient::open(again.addr, &Connect::persistent("A"));
        assert!(!is_present, "seed {seed}: the old session is back");
        again.kill();
    }
}

/// The first attempt has ended the session, and was refused for the slow disk. The second finds none.
#[test]
fn a_clean_start_that_is_tried_again_waits_for_the_end_of_the_old_session() {
    // So long CONNACK waits for the disk.
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let (files, broker) = start_with(limits);
    let power = Power::with(&files, |_| None);
    let mut client = RawClient::persistent(broker.addr, "A");
    client.subscribe("old", 1);
    client.disconnect();
    wait_until("it has gone", || broker.core.metrics().clients_connected == 0);
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    let connect = Connect5::new("A").bytes();
    for _attempt in 0..3 {
        RawClient5::refused(broker.addr, &connect, 0x88);
    }
    files.release_syncs();
    drop(RawClient5::clean(broker.addr, "A"));
    it_stays_over(&files, &power);
    broker.kill();
}

#[test]
fn who_comes_after_a_session_has_ended_waits_until_that_is_on_record_and_nobody_else() {
    let (files, broker) = start_with(Limits::default());
    let power = Power::with(&files, |_| None);
    let (mut client, ..) = RawClient5::open(broker.addr, &Connect5::resuming("A").session_expiry(3_600));
    client.subscribe("old", 1);
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    client.disconnect_with(0, &four(id::SESSION_EXPIRY, 0));
    wait_until("it is over", || {
        let metrics = broker.core.metrics();
        metrics.clients_connected + metrics.sessions_offline == 0
    });
    let mut second = RawClient5::connect(broker.addr);
    second.send_connect(&Connect5::resuming("A"));
    second.stays_silent_and_open(RASH);
    drop(RawClient5::clean(broker.addr, "B"));
    files.release_syncs();
    assert!(matches!(second.expect_packet(), ServerPacket5::ConnAck(false, 0, _)));
    wait_until("nothing is kept of it", || broker.core.departed() == 0);
    it_stays_over(&files, &power);
    broker.kill();
}

fn take_all_places(broker: &TestBroker) -> OwnedSemaphorePermit {
    let places = broker.core.fan_out_places();
    let all = u32::try_from(places.available_permits()).unwrap();
    Arc::clone(places).try_acquire_many_owned(all).unwrap()
}

/// The will of "A" is on its way, for nothing of the background runs and all places are taken; "A"
/// comes again and has to wait.
struct Successor {
    broker: TestBroker,
    listener: RawClient,
    places: OwnedSemaphorePermit,
    second: RawClient5,
}

impl Successor {
    fn of(with_will: &Connect5, is_kept: bool) -> Self {
        let files = SimulatedFiles::new(1);
        let broker = TestBroker::start_without_hand_over(Arc::new(files)).unwrap();
        let mut listener = RawClient::clean(broker.addr, "listener");
        listener.subscribe("state", 1);
        let (first, ..) = RawClient5::open(broker.addr, with_will);
        let places = take_all_places(&broker);
        drop(first);
        wait_until("its will is due", || {
            let metrics = broker.core.metrics();
            let is_over = metrics.clients_connected + metrics.sessions_offline == 1;
            metrics.wills_published == 1 && (is_kept || is_over)
        });
        let mut second = RawClient5::connect(broker.addr);
        second.send_connect(&Connect5::resuming("A").session_expiry(600));
        second.stays_silent_and_open(RASH);
        Self { broker, listener, places, second }
    }
}

/// It says that it is there, which must be the last that others hear.
fn a_successor_comes_behind_the_will(with_will: &Connect5, is_kept: bool) {
    let Successor { broker, mut listener, places, mut second } = Successor::of(with_will, is_kept);
    drop(places);
    broker.run_background();
    assert!(matches!(second.expect_packet(), ServerPacket5::ConnAck(_, 0, _)));
    second.publish("state", 1, "online");
    listener.expect_message_and_ack("state", "offline");
    listener.expect_message_and_ack("state", "online");
    wait_until("nothing is kept of it", || broker.core.departed() == 0);
    broker.kill();
}

fn with_will(session_expiry: u32, delay: u32) -> Connect5 {
    Connect5::resuming("A")
        .session_expiry(session_expiry)
        .will("state", "offline", 1, false)
        .will_with(four(id::WILL_DELAY, delay))
}

#[test]
fn a_successor_comes_behind_a_delayed_will() {
    a_successor_comes_behind_the_will(&with_will(600, 1), true);
}

#[test]
fn a_successor_comes_behind_the_will_of_a_session_that_has_expired() {
    a_successor_comes_behind_the_will(&with_will(1, 600), false);
}

#[test]
fn a_successor_comes_behind_the_will_of_a_session_that_was_not_kept() {
    a_successor_comes_behind_the_will(&with_will(0, 0), false);
}

/// Nobody goes on with wills that are on their way.
#[test]
fn a_shutdown_does_not_wait_for_who_waits_for_a_will() {
    for (session_expiry, delay) in [(600, 1), (1, 600)] {
        let is_kept = session_expiry > delay;
        let Successor { broker, places, mut second, .. } =
            Successor::of(&with_will(session_expiry, delay), is_kept);
        broker.core.begin_shutdown();
        second.expect_closed();
        drop(places);
        broker.kill();
    }
}
