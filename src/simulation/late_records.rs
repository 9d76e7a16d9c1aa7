//! What a turn has done in memory and puts on record later, while a checkpoint is gathered in
//! between: the checkpoint does not tell what was undone before it, and the record comes behind it.

use std::sync::Arc;

use super::asking::{retained_value, wait_until};
use super::broker::{SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::raw_client5::RawClient5;
use super::support::wire;
use super::support::wire5::{self, id};
use crate::accounts::Account;
use crate::auth::acl::Acl;
use crate::broker::Turn;
use crate::config::Limits;
use crate::protocol::{PacketId, QoS};
use crate::session::Message;
use crate::storage::simulated::{SimulatedFiles, Step, StepKind};

fn start(files: &SimulatedFiles) -> TestBroker {
    TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap()
}

/// Checkpoints that have their names.
fn checkpoints(files: &SimulatedFiles) -> usize {
    let is_named = |step: &&Step| step.kind == StepKind::Rename && step.name.contains("checkpoint");
    files.steps().iter().filter(is_named).count()
}

/// A turn has stored the topic's value and puts it on record last of all; `others` do away with it
/// meanwhile. Neither a checkpoint nor a crash brings it back.
fn a_late_value_does_not_come_back(others: impl Fn(&TestBroker)) {
    let files = SimulatedFiles::new(1);
    let mut broker = start(&files);
    let core = Arc::clone(&broker.core);
    let mut late = Turn::new();
    late.begin(&core);
    let message = Arc::new(Message::new("r", b"late", QoS::AtLeastOnce));
    assert!(core.publish_message(&mut late, &message, true).is_none());
    drop(message);
    others(&broker);
    assert_eq!(retained_value(&broker, "r"), None);
    broker.tend_until_gathered();
    assert_eq!(checkpoints(&files), 0, "it waits for the turn");
    late.finish(&core);
    broker.finish_tending();
    assert_eq!(checkpoints(&files), 1);
    assert_eq!(core.accounts.of(Account::Retained), 0, "nothing is kept of it");
    // What the first checkpoint told is before the second one.
    for checkpoint in 1..=2 {
        for seed in 0..4 {
            let again = start(&files.after_power_cut(seed));
            let value = retained_value(&again, "r");
            again.kill();
            assert_eq!(value, None, "checkpoint {checkpoint}, seed {seed}: it is back");
        }
        broker.tend_now();
    }
    drop((late, core));
    broker.kill();
}

#[test]
fn a_value_removed_before_it_is_on_record_stays_removed() {
    a_late_value_does_not_come_back(|broker| {
        RawClient::clean(broker.addr, "other").publish_retained("r", 1, "");
    });
}

#[test]
fn a_value_replaced_before_it_is_on_record_does_not_survive_its_successor() {
    a_late_value_does_not_come_back(|broker| {
        let mut other = RawClient::clean(broker.addr, "other");
        other.publish_retained("r", 1, "successor");
        other.publish_retained("r", 1, "");
    });
}

/// The end of the successor is on record nowhere.
#[test]
fn a_value_replaced_before_it_is_on_record_does_not_outlive_a_successor_that_expires() {
    a_late_value_does_not_come_back(|broker| {
        let mut other = RawClient5::clean(broker.addr, "other");
        let expiry = wire5::four(id::MESSAGE_EXPIRY, 1);
        other.send(&wire5::publish5(0x03, "r", Some(1), &expiry, "successor"));
        other.expect_packet();
        wait_until("it expires", || retained_value(broker, "r").is_none());
    });
}

/// Between the moments at which a QoS 2 PUBLISH is noted and is refused, a checkpoint notes its id.
#[test]
fn the_id_of_a_refused_qos_2_publish_is_free_after_a_crash() {
    let files = SimulatedFiles::new(1);
    let mut broker = start(&files);
    let core = Arc::clone(&broker.core);
    let mut client = RawClient::persistent(broker.addr, "client");
    core.set_rules(Some(Arc::new(Acl::parse(b"topic read #\n", "acl.txt").unwrap())), false);
    let rules = core.hold_rules();
    client.send(&wire::publish_qos2(7, "t", "refused"));
    let packet_id = PacketId::new(7).unwrap();
    wait_until("it is noted", || core.has_received("client", packet_id));
    broker.tend_until_gathered();
    drop(rules);
    client.expect(&wire::pubrec(7));
    broker.finish_tending();
    assert_eq!(checkpoints(&files), 1);
    for seed in 0..4 {
        let again = start(&files.after_power_cut(seed));
        let mut subscriber = RawClient::clean(again.addr, "subscriber");
        subscriber.subscribe("t", 1);
        let mut client = RawClient::resume(again.addr, "client");
        client.send(&wire::publish_qos2(7, "t", "new"));
        client.expect(&wire::pubrec(7));
        subscriber.expect_message("t", "new");
        again.kill();
    }
    drop(core);
    broker.kill();
}
