//! What several tests ask of a broker.

use std::time::Instant;

use super::broker::TestBroker;
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::server_packet::{Publish, ServerPacket};
use super::support::wire::{self, Connect};

/// Waits until it is so, which must not take long.
#[track_caller]
pub(super) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

/// The topic's retained message, as a new subscriber is sent it.
pub(super) fn retained_value(broker: &TestBroker, topic: &str) -> Option<Vec<u8>> {
    let mut anybody = RawClient::clean(broker.addr, "reader");
    anybody.subscribe(topic, 1);
    anybody.packets_until_ping().into_iter().find_map(|packet| match packet {
        ServerPacket::Publish(publish) => Some(publish.payload),
        _ => None,
    })
}

/// Takes what a session has at QoS 2, to its end.
pub(super) fn drain_qos2(broker: &TestBroker, id: &str) -> Vec<Publish> {
    let (mut member, _) = RawClient::open(broker.addr, &Connect::persistent(id));
    let (mut got, deadline) = (Vec::new(), Instant::now() + DEADLINE);
    while broker.core.has_anything_for(id) {
        assert!(Instant::now() < deadline, "{id} is owed something and gets nothing");
        for packet in member.packets_until_ping() {
            match packet {
                ServerPacket::Publish(publish) => {
                    member.send(&wire::pubrec(publish.id()));
                    got.push(publish);
                }
                ServerPacket::PubRel(id) => member.send(&wire::pubcomp(id)),
                other => panic!("{other:?}"),
            }
        }
    }
    got
}
