//! Every way a connection can end, and whether its will is published: once, or not at all.

use crate::support::wire;
use crate::support::{Connect, RawClient, Settings, TestBroker, broker};

const PACKET_BYTES_MAX: usize = 4096;

/// Lets a client with a will meet its end, and returns how often the will came.
#[track_caller]
fn wills_after(connect: &Connect, end: impl FnOnce(RawClient, &TestBroker)) -> usize {
    let broker = TestBroker::with(|settings: &mut Settings| settings.packet_bytes_max = PACKET_BYTES_MAX);
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("will/#", 2);
    let connect = connect.clone().will("will/mortal", "gone", 1, false);
    let (client, _) = RawClient::open(broker.addr(), &connect);
    end(client, &broker);
    // The fence is a will as well, of a later connection under the same id: it comes by the same way as the one
    // before it.
    RawClient::open(broker.addr(), &Connect::new("mortal").will("will/fence", "x", 1, false)).0.vanish();
    let mut count = 0;
    loop {
        let publish = watcher.expect_publish();
        watcher.send(&wire::puback(publish.id()));
        if publish.topic == "will/fence" {
            // Nothing behind the fence either.
            watcher.expect_nothing();
            return count;
        }
        assert_eq!(publish.text(), "gone");
        count += 1;
    }
}

fn mortal() -> Connect {
    Connect::new("mortal")
}

/// The client sends this and the broker closes the connection.
#[track_caller]
fn will_after_violation(bytes: &[u8]) {
    let count = wills_after(&mortal(), |mut client, _| {
        client.send(bytes);
        client.packets_until_closed();
    });
    assert_eq!(count, 1);
}

#[test]
fn disconnect_no_will() {
    assert_eq!(wills_after(&mortal(), |client, _| client.disconnect()), 0);
    assert_eq!(wills_after(&Connect::persistent("mortal"), |client, _| client.disconnect()), 0);
}

#[test]
fn fin_one_will() {
    assert_eq!(wills_after(&mortal(), |client, _| client.vanish()), 1);
    assert_eq!(wills_after(&Connect::persistent("mortal"), |client, _| client.vanish()), 1);
}

#[test]
fn reset_one_will() {
    assert_eq!(wills_after(&mortal(), |client, _| client.reset()), 1);
}

#[test]
fn keep_alive_one_will() {
    let count = wills_after(&mortal().keep_alive(1), |mut client, _| client.expect_closed());
    assert_eq!(count, 1);
}

#[test]
fn protocol_error_one_will() {
    will_after_violation(&wire::subscribe(0, &[("t", 0)]));
}

#[test]
fn malformed_packet_one_will() {
    will_after_violation(&[0xF0, 0x00]);
}

#[test]
fn ill_formed_utf_8_one_will() {
    will_after_violation(&wire::publish_qos0(b"\xFF", "x"));
}

#[test]
fn second_connect_one_will() {
    if broker::skipped_on_mosquitto("it drops the will") {
        return;
    }
    will_after_violation(&mortal().bytes());
    // The will in the second CONNECT counts for nothing.
    will_after_violation(&mortal().will("will/second", "never", 0, false).bytes());
}

#[test]
fn oversized_packet_one_will() {
    will_after_violation(&wire::publish_qos0("t", vec![0; PACKET_BYTES_MAX]));
}

#[test]
fn take_over_one_will() {
    for connect in [mortal(), Connect::persistent("mortal")] {
        if connect.is_persistent()
            && broker::skipped_on_mosquitto("it forgets the will when the session goes on")
        {
            continue;
        }
        let count = wills_after(&connect, |mut old, broker| {
            let (new, _) = RawClient::open(broker.addr(), &connect);
            old.expect_closed();
            new.disconnect();
        });
        assert_eq!(count, 1, "{connect:?}");
    }
}

#[test]
fn take_over_leaves_the_will_of_the_new_connection() {
    let count = wills_after(&mortal(), |mut old, broker| {
        let (new, _) = RawClient::open(broker.addr(), &mortal().will("will/mortal", "gone", 1, false));
        old.expect_closed();
        new.vanish();
    });
    assert_eq!(count, 2);
}

#[test]
fn end_in_the_middle_of_a_packet_one_will() {
    let count = wills_after(&mortal(), |mut client, _| {
        client.send(&wire::publish_qos1(1, "t", "never complete")[..6]);
        client.vanish();
    });
    assert_eq!(count, 1);
}

#[test]
fn half_a_disconnect_one_will() {
    let count = wills_after(&mortal(), |mut client, _| {
        client.send(&wire::DISCONNECT[..1]);
        client.vanish();
    });
    assert_eq!(count, 1);
}

#[test]
fn disconnect_and_garbage_behind_it_no_will() {
    let count = wills_after(&mortal(), |mut client, _| {
        client.send(&[&wire::DISCONNECT[..], &[0xF0, 0x00]].concat());
        client.packets_until_closed();
    });
    assert_eq!(count, 0);
}
