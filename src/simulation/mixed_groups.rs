//! Groups of which some members have sessions that are kept, and some have clean ones: what is on
//! record stays on record, and what is in memory is put there by a shutdown in order.

use std::sync::Arc;

use super::asking::wait_until;
use super::broker::{SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::wire;
use crate::config::Limits;
use crate::storage::simulated::SimulatedFiles;

fn start(files: &SimulatedFiles) -> TestBroker {
    TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap()
}

fn publish(broker: &TestBroker, numbers: std::ops::Range<u32>) {
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    numbers.for_each(|n| publisher.publish("t", 1, n.to_string()));
}

fn kept_member(broker: &TestBroker, id: &str) {
    let mut kept = RawClient::persistent(broker.addr, id);
    kept.subscribe("$share/g/t", 1);
    kept.disconnect();
}

fn clean_member(broker: &TestBroker) -> RawClient {
    let mut clean = RawClient::clean(broker.addr, "clean");
    clean.subscribe("$share/g/t", 1);
    clean
}

/// So many messages that a client is sent and acknowledges: their numbers, in order.
fn take(client: &mut RawClient, count: u32) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..count)
        .map(|_| {
            let publish = client.expect_publish();
            client.send(&wire::puback(publish.id()));
            String::from_utf8(publish.payload).unwrap().parse().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    client.expect_nothing();
    numbers
}

fn has_nothing_to_give(broker: &TestBroker) {
    wait_until("it gives nothing away", || broker.core.is_leaving_nobody());
}

/// Reported: they went to the clean session, which a crash ends.
#[test]
fn what_an_absent_member_has_on_record_does_not_go_to_a_clean_session() {
    let files = SimulatedFiles::new(1);
    let broker = start(&files);
    kept_member(&broker, "kept");
    publish(&broker, 0..5);
    let mut clean = clean_member(&broker);
    RawClient::resume(broker.addr, "kept").disconnect();
    clean.expect_nothing();
    has_nothing_to_give(&broker);
    broker.wait_for_log(broker.log().submitted());
    let found = files.after_power_cut(1);
    broker.kill();
    let again = start(&found);
    let mut kept = RawClient::resume(again.addr, "kept");
    assert_eq!(take(&mut kept, 5), [0, 1, 2, 3, 4]);
    again.kill();
}

#[test]
fn what_a_session_leaves_goes_to_one_that_is_kept_and_else_to_any() {
    let files = SimulatedFiles::new(2);
    let broker = start(&files);
    for id in ["first", "second"] {
        kept_member(&broker, id);
    }
    publish(&broker, 0..6);
    let mut clean = clean_member(&broker);
    drop(RawClient::clean(broker.addr, "first"));
    has_nothing_to_give(&broker);
    clean.expect_nothing();
    let mut second = RawClient::resume(broker.addr, "second");
    assert!((0..6).all(|_| second.expect_publish().qos == 1), "they are its");
    drop(second);
    drop(RawClient::clean(broker.addr, "second"));
    assert_eq!(take(&mut clean, 6), [0, 1, 2, 3, 4, 5]);
    broker.kill();
}

/// Reported: they were lost, though another member's session is kept.
#[test]
fn what_clean_sessions_have_of_a_group_survives_a_shutdown_in_order() {
    let files = SimulatedFiles::new(3);
    let broker = start(&files);
    kept_member(&broker, "kept");
    let mut clean = clean_member(&broker);
    publish(&broker, 0..10);
    assert!((0..10).all(|n| clean.expect_publish().payload == n.to_string().into_bytes()));
    broker.shut_down();
    let again = start(&files.copy());
    let mut kept = RawClient::resume(again.addr, "kept");
    assert_eq!(take(&mut kept, 10), (0..10).collect::<Vec<_>>());
    again.kill();
}
