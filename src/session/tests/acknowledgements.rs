//! Acknowledgements that are in order, and those that are not.

use super::wire::*;
use crate::protocol::QoS::{AtLeastOnce, ExactlyOnce};
use crate::protocol::encode::AckKind::{PubAck, PubComp, PubRec, PubRel};
use crate::session::AckOutcome::{Accepted, Unknown};

#[test]
fn the_whole_exchange_of_qos_2() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", ExactlyOnce);
    assert_eq!(write_all(&mut session), [publish(ExactlyOnce, 1, b"a")]);
    assert_eq!(acknowledge(&mut session, PubRec, 1), Accepted);
    assert_eq!(write_all(&mut session), [Sent::Ack(PubRel, 1)]);
    assert_eq!(session.unfinished(), 1);
    assert_eq!(acknowledge(&mut session, PubComp, 1), Accepted);
    assert_eq!((session.unfinished(), write_all(&mut session)), (0, vec![]));
}

#[test]
fn pubrels_come_in_the_order_of_the_pubrecs() {
    let mut session = connected(limits());
    for payload in [b"a", b"b", b"c"] {
        deliver(&mut session, payload, ExactlyOnce);
    }
    write_all(&mut session);
    for n in [3, 1, 2] {
        acknowledge(&mut session, PubRec, n);
    }
    assert_eq!(write_all(&mut session), [3, 1, 2].map(|n| Sent::Ack(PubRel, n)));
}

#[test]
fn wrong_acknowledgements_change_nothing() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", AtLeastOnce);
    deliver(&mut session, b"b", ExactlyOnce);
    write_all(&mut session);
    for (kind, n) in
        [(PubRec, 1), (PubComp, 1), (PubAck, 2), (PubComp, 2), (PubAck, 3), (PubComp, 65_535), (PubRel, 1)]
    {
        assert_eq!(acknowledge(&mut session, kind, n), Unknown, "{kind:?} {n}");
    }
    assert_eq!(write_all(&mut session), []);
    session.detach();
    assert_eq!(attach(&mut session), [again(AtLeastOnce, 1, b"a"), again(ExactlyOnce, 2, b"b")]);
}

#[test]
fn an_acknowledgement_twice_counts_once() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", AtLeastOnce);
    deliver(&mut session, b"b", AtLeastOnce);
    assert_eq!(acknowledge(&mut session, PubAck, 1), Accepted);
    assert_eq!(acknowledge(&mut session, PubAck, 1), Unknown);
    assert_eq!(session.unfinished(), 1);
}

#[test]
fn pubrec_is_answered_even_if_repeated_or_unknown() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", ExactlyOnce);
    write_all(&mut session);
    acknowledge(&mut session, PubRec, 1);
    assert_eq!(acknowledge(&mut session, PubRec, 1), Unknown);
    assert_eq!(acknowledge(&mut session, PubRec, 77), Unknown);
    assert_eq!(write_all(&mut session), [Sent::Ack(PubRel, 1), Sent::Ack(PubRel, 1), Sent::Ack(PubRel, 77)]);
    assert_eq!(session.unfinished(), 1);
}

#[test]
fn acknowledgements_for_a_session_without_connection_put_nothing_into_its_output() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", ExactlyOnce);
    deliver(&mut session, b"b", ExactlyOnce);
    session.detach();
    acknowledge(&mut session, PubRec, 1);
    acknowledge(&mut session, PubRec, 99);
    session.send_acks(&[0x40, 2, 0, 1]);
    session.send_pingresp();
    assert!(!session.out.has_output());
    assert_eq!(session.held_bytes(), 0);
}

#[test]
fn answers_stand_in_the_output_in_the_order_of_the_calls() {
    let mut session = connected(limits());
    session.send_acks(&[0x90, 5, 0, 5, 1, 0x80, 2]);
    session.send_acks(&[0x40, 2, 0, 1, 0x50, 2, 0, 2]);
    session.send_pingresp();
    session.send_acks(&[0xb0, 2, 0, 6]);
    let expected = [
        Sent::SubAck(5, vec![1, 0x80, 2]),
        Sent::Ack(PubAck, 1),
        Sent::Ack(PubRec, 2),
        Sent::PingResp,
        Sent::UnsubAck(6),
    ];
    assert_eq!(write_all(&mut session), expected);
}
