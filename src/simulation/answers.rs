//! An answer leaves when what it acknowledges is on disk, also where its own packet, or the last part
//! of it, has nothing to add.

use std::sync::Arc;

use super::asking::{retained_value, wait_until};
use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use crate::broker::Turn;
use crate::config::Limits;
use crate::protocol::QoS;
use crate::session::Message;
use crate::storage::simulated::SimulatedFiles;

/// So many filters fill a turn.
const SLICE: usize = 512;

fn start_with(limits: Limits) -> (SimulatedFiles, TestBroker) {
    let files = SimulatedFiles::new(1);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, limits).unwrap();
    (files, broker)
}

fn start() -> (SimulatedFiles, TestBroker) {
    start_with(Limits::default())
}

/// The power goes, in sixteen ways, and a broker starts on what is found.
fn after_power_cuts(files: &SimulatedFiles, power: &Power, check: impl Fn(&TestBroker, u64)) {
    power.cut(files);
    files.release_syncs();
    for seed in 0..16 {
        let again =
            TestBroker::start(Arc::new(files.after_power_cut(seed)), SMALL, Limits::default()).unwrap();
        check(&again, seed);
        again.kill();
    }
}

fn filters(n: usize) -> Vec<(String, u8)> {
    (0..n).map(|n| (format!("f/{n}"), 1)).collect()
}

fn names(n: usize) -> Vec<String> {
    filters(n).into_iter().map(|filter| filter.0).collect()
}

/// Sent while the disk is held, this packet is not answered before the disk is done.
fn is_answered_by_the_disk(
    files: &SimulatedFiles,
    broker: &TestBroker,
    client: &mut RawClient,
    packet: &[u8],
) -> ServerPacket {
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    client.send(packet);
    // The answer to a ping overtakes what waits for the disk, and nothing else.
    client.expect_nothing();
    files.release_syncs();
    client.expect_packet()
}

/// Its filters fill whole turns, so that the last one finds none; or it finds such as are refused.
#[test]
fn a_large_subscribe_is_answered_when_all_of_its_turns_are_on_disk() {
    let few = Limits { subscriptions_max: SLICE - 10, ..Limits::default() };
    for (n, limits) in [(SLICE, Limits::default()), (2 * SLICE, Limits::default()), (SLICE + 10, few)] {
        let (files, broker) = start_with(limits);
        let mut client = RawClient::persistent(broker.addr, "A");
        let packet = wire::subscribe(7, &filters(n));
        let answer = is_answered_by_the_disk(&files, &broker, &mut client, &packet);
        assert!(matches!(&answer, ServerPacket::SubAck(7, codes) if codes.len() == n), "{answer:?}");
        broker.kill();
    }
}

/// The same, and its last filters are unknown.
#[test]
fn a_large_unsubscribe_is_answered_when_all_of_its_turns_are_on_disk() {
    for n in [SLICE, SLICE + 10] {
        let (files, broker) = start();
        let mut client = RawClient::persistent(broker.addr, "A");
        client.send(&wire::subscribe(7, &filters(SLICE)));
        assert!(matches!(client.expect_packet(), ServerPacket::SubAck(7, _)));
        let packet = wire::unsubscribe(8, &names(n));
        let answer = is_answered_by_the_disk(&files, &broker, &mut client, &packet);
        assert_eq!(answer, ServerPacket::UnsubAck(8));
        broker.kill();
    }
}

/// Its connection broke before UNSUBACK: it asks again, and there is nothing to unsubscribe.
#[test]
fn an_unsubscribe_that_is_sent_again_waits_for_the_first() {
    let (files, broker) = start();
    let power = Power::with(&files, |_| None);
    let mut client = RawClient::persistent(broker.addr, "A");
    client.subscribe("f", 1);
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    client.send(&wire::unsubscribe(5, &["f"]));
    wait_until("it is done", || broker.core.metrics().subscriptions == 0);
    client.reset();
    let (mut client, _) = RawClient::open(broker.addr, &Connect::persistent("A"));
    client.send(&wire::unsubscribe(5, &["f"]));
    client.expect_nothing();
    files.release_syncs();
    assert_eq!(client.expect_packet(), ServerPacket::UnsubAck(5));
    after_power_cuts(&files, &power, |again, seed| {
        assert_eq!(again.core.metrics().subscriptions, 0, "seed {seed}: it is subscribed again");
    });
    broker.kill();
}

/// A retained value is on record, `first` removes it and has not that on record. Who removes it
/// after him, at QoS 1, is answered when it stays away.
fn a_second_removal_is_on_record(first: impl FnOnce(&TestBroker)) {
    let (files, broker) = start();
    let power = Power::with(&files, |_| None);
    let mut second = RawClient::clean(broker.addr, "second");
    second.publish_retained("r", 1, "value");
    broker.wait_for_log(broker.log().submitted());
    files.hold_syncs();
    first(&broker);
    wait_until("it is removed", || broker.core.metrics().retained == 0);
    second.send(&wire::raw_publish(3, "r", Some(77), ""));
    second.expect_nothing();
    files.release_syncs();
    assert_eq!(second.expect_packet(), ServerPacket::PubAck(77));
    after_power_cuts(&files, &power, |again, seed| {
        assert_eq!(retained_value(again, "r"), None, "seed {seed}: it is back");
    });
    broker.kill();
}

#[test]
fn a_value_that_was_removed_lazily_is_gone_when_its_second_removal_is_acknowledged() {
    a_second_removal_is_on_record(|broker| {
        RawClient::clean(broker.addr, "first").send(&wire::raw_publish(1, "r", None, ""));
    });
}

/// To wait for what is submitted is not enough.
#[test]
fn a_value_that_a_turn_under_way_has_removed_is_gone_when_its_second_removal_is_acknowledged() {
    let (mut turn, core) = (Turn::new(), std::cell::OnceCell::new());
    a_second_removal_is_on_record(|broker| {
        let core = core.get_or_init(|| Arc::clone(&broker.core));
        turn.begin(core);
        let message = Arc::new(Message::new("r", b"", QoS::AtMostOnce));
        assert!(core.publish_message(&mut turn, &message, true).is_none());
    });
    // Its record comes too late for the one who was told.
    turn.finish(core.get().unwrap());
}

/// A value that comes after a removal which found nothing is newer than that.
#[test]
fn a_value_outlives_a_removal_that_came_before_it_and_found_nothing() {
    let (files, broker) = start();
    let power = Power::with(&files, |_| None);
    let mut client = RawClient::clean(broker.addr, "client");
    for value in ["first", "", "", "last"] {
        client.publish_retained("r", 1, value);
    }
    after_power_cuts(&files, &power, |again, seed| {
        assert_eq!(retained_value(again, "r").as_deref(), Some(&b"last"[..]), "seed {seed}");
    });
    broker.kill();
}
