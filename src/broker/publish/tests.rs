//! Publishes that the rules forbid.

use std::sync::Arc;

use super::super::{Cause, Client, Core, Publisher, Security, Turn};
use crate::auth::acl::Acl;
use crate::config::{Limits, RefusedPublish};
use crate::protocol::{PacketId, ProtocolVersion, Publish, PublishProperties, QoS};
use crate::router::SubscriptionOptions;
use crate::session::{Owner, Session};

/// A listener that ends the connection where the rules forbid a publish: the message was not taken,
/// so the client's retry is a new one.
#[test]
fn a_qos_2_id_that_was_refused_by_closing_is_free() {
    let rules = Acl::parse(b"topic read #\n", "acl.txt").unwrap();
    let security = Security { rules: Some(Arc::new(rules)), ..Security::default() };
    let core = Core::new(Limits::default(), security);
    let [receiver, sender] = ["receiver", "sender"].map(|id| {
        let session = Session::new(core.limits.of_sessions(), true);
        Client::new(core.next_key(), Owner { client_id: Arc::from(id), user: None }, session, None)
    });
    let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
    assert!(core.add_subscription(&receiver, &mut receiver.lock(), "t", options).is_ok());
    let publish = |dup| {
        let publish = Publish {
            dup,
            qos: QoS::ExactlyOnce,
            retain: false,
            topic: "t",
            packet_id: PacketId::new(7),
            properties: PublishProperties::default(),
            payload: b"m",
            wire: &[],
            packet_id_offset: 0,
        };
        // Each on a connection of its own.
        let mut publisher =
            Publisher::new(ProtocolVersion::V311, RefusedPublish::Disconnect, &Limits::default());
        let mut turn = Turn::new();
        turn.begin(&core);
        let taken = core.publish(&mut turn, &sender, &mut publisher, &publish);
        turn.finish(&core);
        (taken, publisher.acks)
    };
    assert_eq!(publish(false), (Err(Cause::PublishRefused), vec![]));
    assert_eq!(receiver.lock().session.queued(), 0);
    core.set_rules(None, false);
    let pubrec = vec![0x50, 2, 0, 7];
    assert_eq!(publish(true), (Ok(()), pubrec.clone()));
    assert_eq!(receiver.lock().session.queued(), 1, "the retry is a new message");
    assert_eq!(publish(true), (Ok(()), pubrec));
    assert_eq!(receiver.lock().session.queued(), 1, "and from now on a repetition");
}
