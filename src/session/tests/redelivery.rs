//! Sending again after a reconnect.

use super::wire::*;
use crate::protocol::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::session::{AckOutcome, Delivered, Session, SessionLimits};

/// More than a session encodes ahead of its socket.
const LARGE: usize = 150_000;

fn roomy() -> SessionLimits {
    SessionLimits { inflight_max: 20, queue_messages_max: 100, queue_bytes_max: 50_000_000, ..limits() }
}

#[test]
fn unfinished_deliveries_are_sent_again_with_dup_the_same_id_and_in_order() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", AtLeastOnce);
    deliver(&mut session, b"b", ExactlyOnce);
    deliver(&mut session, b"c", AtLeastOnce);
    write_all(&mut session);
    acknowledge(&mut session, AckKind::PubAck, 1);
    for _ in 0..2 {
        session.detach();
        let expected = [again(ExactlyOnce, 2, b"b"), again(AtLeastOnce, 3, b"c")];
        assert_eq!(attach(&mut session), expected);
    }
}

#[test]
fn a_delivery_begun_and_never_written_is_sent_again_all_the_same() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", AtLeastOnce);
    session.detach();
    assert_eq!(attach(&mut session), [again(AtLeastOnce, 1, b"a")]);
}

#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    let mut session = connected(limits());
    deliver(&mut session, b"a", ExactlyOnce);
    deliver(&mut session, b"b", ExactlyOnce);
    write_all(&mut session);
    acknowledge(&mut session, AckKind::PubRec, 1);
    session.detach();
    assert_eq!(attach(&mut session), [Sent::Ack(AckKind::PubRel, 1), again(ExactlyOnce, 2, b"b")]);
    acknowledge(&mut session, AckKind::PubComp, 1);
    session.detach();
    assert_eq!(attach(&mut session), [again(ExactlyOnce, 2, b"b")]);
}

#[test]
fn unfinished_first_then_what_waited_then_what_is_new() {
    let mut session = connected(SessionLimits { inflight_max: 3, ..limits() });
    for payload in [b"a", b"b"] {
        deliver(&mut session, payload, AtLeastOnce);
    }
    session.detach();
    for payload in [b"c", b"d"] {
        assert_eq!(deliver(&mut session, payload, AtLeastOnce), Delivered::Queued);
    }
    let expected = [again(AtLeastOnce, 1, b"a"), again(AtLeastOnce, 2, b"b"), publish(AtLeastOnce, 3, b"c")];
    assert_eq!(attach(&mut session), expected);
    assert_eq!(deliver(&mut session, b"e", AtLeastOnce), Delivered::Queued);
    for n in 1..=2 {
        acknowledge(&mut session, AckKind::PubAck, n);
    }
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 4, b"d"), publish(AtLeastOnce, 5, b"e")]);
}

#[test]
fn dup_is_not_set_on_what_merely_waited() {
    let mut session = offline(limits());
    deliver(&mut session, b"a", AtLeastOnce);
    assert_eq!(attach(&mut session), [publish(AtLeastOnce, 1, b"a")]);
}

#[test]
fn the_retain_flag_is_kept_in_queue_and_redelivery() {
    let mut session = connected(limits());
    deliver_retained(&mut session, b"r", AtLeastOnce);
    let is_retained =
        |sent: &[Sent]| matches!(sent, [Sent::Publish(publish)] if publish.retain && publish.payload == b"r");
    assert!(is_retained(&write_all(&mut session)));
    session.detach();
    assert!(is_retained(&attach(&mut session)));
}

#[test]
fn redelivery_is_paced_by_written_output() {
    let mut session = connected(roomy());
    for n in 0..10 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    let mut seen = 0;
    while session.out.has_output() {
        // Up to 256 KiB are encoded ahead, and the packet that passes that.
        assert!(session.out.pending() < 256 * 1024 + LARGE + 16, "{}", session.out.pending());
        seen += write_once(&mut session).len();
    }
    assert_eq!(seen, 1 + 10);
}

#[test]
fn nothing_new_overtakes_a_redelivery_under_way() {
    let mut session = connected(roomy());
    for n in 0..6 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    assert_eq!(deliver(&mut session, b"new", AtLeastOnce), Delivered::Queued);
    assert!(!session.has_room_for_replay());
    let sent = write_all(&mut session);
    let ids: Vec<u16> =
        sent.iter().filter_map(|sent| if let Sent::Publish(p) = sent { Some(p.id) } else { None }).collect();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(sent.last(), Some(&publish(AtLeastOnce, 7, b"new")));
    assert!(session.has_room_for_replay());
}

/// The socket takes `n` bytes and then no more: what it left is put back, and nothing is pumped until it takes the rest.
fn write_part(session: &mut Session, n: usize) {
    let mut output = session.out.take();
    output.advance(n);
    session.out.put_back(output);
    session.out.written(n);
}

#[test]
fn nothing_new_slips_in_while_a_redelivery_pauses_at_a_blocked_socket() {
    let mut session = connected(roomy());
    for n in 0..6 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    write_part(&mut session, LARGE);
    assert!(session.out.pending() < 256 * 1024);
    assert!(!session.has_room_for_replay());
    assert_eq!(deliver(&mut session, b"new", AtLeastOnce), Delivered::Queued);
    assert_eq!(session.queued(), 1);
}

#[test]
fn nothing_new_overtakes_what_waits_at_a_blocked_socket() {
    let mut session = connected(roomy());
    for n in 0..4 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
    }
    assert_eq!((session.unfinished(), session.queued()), (2, 2));
    write_part(&mut session, LARGE);
    assert!(session.out.pending() < 256 * 1024);
    assert_eq!(deliver(&mut session, b"new", AtLeastOnce), Delivered::Queued);
}

#[test]
fn qos_0_need_not_wait_for_a_redelivery_under_way() {
    let mut session = connected(roomy());
    for n in 0..6 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    assert_eq!(deliver(&mut session, b"now", AtMostOnce), Delivered::Sent);
}

#[test]
fn what_is_acknowledged_before_its_turn_is_not_sent_again() {
    let mut session = connected(roomy());
    for n in 0..8 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    // Acknowledgements of the first connection's deliveries, the last in the middle of the redelivery.
    for n in [4, 6] {
        assert_eq!(acknowledge(&mut session, AckKind::PubAck, n), AckOutcome::Accepted);
    }
    let ids: Vec<u16> = write_all(&mut session)
        .iter()
        .filter_map(|sent| if let Sent::Publish(p) = sent { Some(p.id) } else { None })
        .collect();
    assert_eq!(ids, [1, 2, 3, 5, 7, 8]);
}

#[test]
fn all_acknowledged_during_redelivery_leaves_the_session_ready_for_more() {
    let mut session = connected(roomy());
    for n in 0..8 {
        deliver(&mut session, &vec![n; LARGE], AtLeastOnce);
        write_all(&mut session);
    }
    session.detach();
    attach_with(&mut session, true, None);
    assert_eq!(deliver(&mut session, b"waits", AtLeastOnce), Delivered::Queued);
    for n in 1..=8 {
        assert_eq!(acknowledge(&mut session, AckKind::PubAck, n), AckOutcome::Accepted);
    }
    assert_eq!(write_all(&mut session).last(), Some(&publish(AtLeastOnce, 9, b"waits")));
    assert_eq!(deliver(&mut session, b"next", AtLeastOnce), Delivered::Sent);
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 10, b"next")]);
}

#[test]
fn ids_of_unfinished_deliveries_are_not_given_out_after_a_reconnect() {
    let mut session = connected(SessionLimits { inflight_max: 3, ..limits() });
    deliver(&mut session, b"stuck", AtLeastOnce);
    deliver(&mut session, b"done", AtLeastOnce);
    acknowledge(&mut session, AckKind::PubAck, 2);
    session.detach();
    attach(&mut session);
    // More than once round all ids: that of the delivery that is stuck comes up and is passed over.
    for _ in 0..70_000 {
        assert_eq!(deliver(&mut session, b"x", AtLeastOnce), Delivered::Sent);
        let sent = write_all(&mut session);
        let [Sent::Publish(publish)] = sent.as_slice() else { panic!("{sent:?}") };
        assert_ne!(publish.id, 1);
        acknowledge(&mut session, AckKind::PubAck, publish.id);
    }
    // It is still known, and comes first when all is sent again.
    deliver(&mut session, b"late", AtLeastOnce);
    session.detach();
    let sent = attach(&mut session);
    let [Sent::Publish(first), Sent::Publish(second)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(
        (first.id, first.payload.as_slice(), second.payload.as_slice()),
        (1, &b"stuck"[..], &b"late"[..])
    );
    assert_eq!(acknowledge(&mut session, AckKind::PubAck, 1), AckOutcome::Accepted);
    assert_eq!(session.unfinished(), 1);
}
