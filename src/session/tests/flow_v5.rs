//! What a client of MQTT 5 says it can take: Receive Maximum, Maximum Packet Size; expiry; errors in acknowledgements.

use super::wire::*;
use super::wire_v5::*;
use crate::protocol::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::ReasonCode;
use crate::protocol::encode::AckKind::{PubAck, PubComp, PubRec};
use crate::session::{
    AckOutcome, Delivered, DropReason, Expiry, Reception, Session, SessionLimits, Terms, Timestamp,
};

fn connected_v5(terms: Terms) -> Session {
    let mut session = offline(limits());
    assert_eq!(attach_v5(&mut session, terms), []);
    session
}

#[test]
fn the_window_is_the_lower_of_ours_and_the_clients() {
    for (receive_maximum, window) in [(1, 1), (3, 3), (4, 4), (5, 4), (u16::MAX, 4)] {
        let mut session = connected_v5(Terms { receive_maximum, ..V5 });
        assert_eq!(session.replay_room(), window);
        for n in 0..window + 2 {
            let expected = if n < window { Delivered::Sent } else { Delivered::Queued };
            assert_eq!(deliver(&mut session, &[n as u8], AtLeastOnce), expected, "{receive_maximum}");
        }
        assert!(!session.has_room_for_replay());
        // QoS 0 does not count.
        assert_eq!(deliver(&mut session, b"0", AtMostOnce), Delivered::Sent);
        assert_eq!(write_v5(&mut session).len(), window + 1);
        acknowledge(&mut session, PubAck, 1);
        assert_eq!(write_v5(&mut session), [plain(AtLeastOnce, window as u16 + 1, &[window as u8])]);
    }
}

#[test]
fn what_is_sent_again_keeps_within_a_receive_maximum_that_is_lower_now() {
    let mut session = connected_v5(V5);
    for payload in [b"a", b"b", b"c", b"d"] {
        deliver(&mut session, payload, ExactlyOnce);
    }
    session.detach();
    let terms = Terms { receive_maximum: 2, ..V5 };
    let first_two = [plain_again(ExactlyOnce, 1, b"a"), plain_again(ExactlyOnce, 2, b"b")];
    assert_eq!(attach_v5(&mut session, terms), first_two);
    deliver(&mut session, b"e", AtLeastOnce);
    // One that was not sent again yet makes no room, a PUBREC neither.
    assert_eq!(session.handle_ack(PubRec, id(4), ReasonCode::UnspecifiedError), AckOutcome::Accepted);
    assert_eq!(write_v5(&mut session), []);
    acknowledge(&mut session, PubRec, 1);
    assert_eq!(write_v5(&mut session), [Sent5::Other(vec![0x62, 2, 0, 1])]);
    acknowledge(&mut session, PubComp, 1);
    assert_eq!(write_v5(&mut session), [plain_again(ExactlyOnce, 3, b"c")]);
    assert_eq!((session.unfinished(), session.queued()), (2, 1));
    session.handle_ack(PubRec, id(2), ReasonCode::NotAuthorized);
    assert_eq!(write_v5(&mut session), [plain(AtLeastOnce, 5, b"e")]);
}

#[test]
fn a_receive_maximum_of_one_comes_to_the_end_of_everything() {
    let mut session = connected_v5(V5);
    for n in 0..4 {
        deliver(&mut session, &[n], if n % 2 == 0 { ExactlyOnce } else { AtLeastOnce });
    }
    acknowledge(&mut session, PubRec, 1);
    session.detach();
    for n in 4..8 {
        deliver(&mut session, &[n], AtLeastOnce);
    }
    let mut sent = attach_v5(&mut session, Terms { receive_maximum: 1, ..V5 });
    let mut seen = Vec::new();
    while let Some(packet) = sent.pop() {
        assert!(sent.is_empty(), "more than one at a time: {sent:?}");
        match packet {
            Sent5::Other(pubrel) => {
                acknowledge(&mut session, PubComp, u16::from(pubrel[3]));
            }
            Sent5::Publish(publish) => {
                seen.push(publish.payload[0]);
                let kind = if publish.first_byte & 4 != 0 { PubRec } else { PubAck };
                acknowledge(&mut session, kind, publish.id);
            }
        }
        sent = write_v5(&mut session);
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((session.unfinished(), session.queued()), (0, 0));
}

/// Bytes of a PUBLISH on topic `t` with QoS 0 and without properties, beyond its payload; an id takes two more.
const AROUND: usize = 2 + 3 + 1;

#[test]
fn what_is_too_large_for_the_client_is_dropped_to_the_byte_and_uses_no_id() {
    let terms = Terms { packet_bytes_max: 50, ..V5 };
    let too_large = Delivered::Dropped(DropReason::ClientPacketMax);
    // Topic aliases must not cost a message that fits without.
    for topic_alias_maximum in [0, 5] {
        let mut session = connected_v5(Terms { topic_alias_maximum, ..terms });
        let mut id = 0;
        for (qos, max) in [(AtMostOnce, 50 - AROUND), (AtLeastOnce, 48 - AROUND), (ExactlyOnce, 48 - AROUND)]
        {
            assert_eq!(deliver(&mut session, &vec![0; max + 1], qos), too_large, "{qos:?}");
            assert_eq!(deliver(&mut session, &vec![0; max], qos), Delivered::Sent, "{qos:?}");
            id += u16::from(qos != AtMostOnce);
            let expected_id = if qos == AtMostOnce { 0 } else { id };
            assert_eq!(write_v5(&mut session), [plain(qos, expected_id, &vec![0; max])]);
        }
        assert_eq!(deliver_retained(&mut session, &[0; 48], AtLeastOnce), too_large);
        assert_eq!(session.unfinished(), 2);
        assert_eq!(session.take_dropped_late(), (0, 0), "these were told at once");
    }
}

#[test]
fn what_waited_and_is_too_large_is_passed_over_and_counted() {
    let mut session = offline(limits());
    for payload in [&b"a"[..], &[0; 60], b"b", &[1; 60], b"c"] {
        deliver(&mut session, payload, AtLeastOnce);
    }
    let expected = [plain(AtLeastOnce, 1, b"a"), plain(AtLeastOnce, 2, b"b"), plain(AtLeastOnce, 3, b"c")];
    assert_eq!(attach_v5(&mut session, Terms { packet_bytes_max: 50, ..V5 }), expected);
    assert_eq!((session.unfinished(), session.queued()), (3, 0));
    assert_eq!(session.take_dropped_late(), (0, 2));
    assert_eq!(session.take_dropped_late(), (0, 0));
}

#[test]
fn what_is_too_large_for_the_next_connections_client_counts_as_delivered() {
    let mut session = connected_v5(V5);
    deliver(&mut session, &[0; 60], AtLeastOnce);
    deliver(&mut session, b"b", AtLeastOnce);
    deliver(&mut session, &[0; 60], ExactlyOnce);
    session.detach();
    let terms = Terms { packet_bytes_max: 50, ..V5 };
    assert_eq!(attach_v5(&mut session, terms), [plain_again(AtLeastOnce, 2, b"b")]);
    assert_eq!((session.unfinished(), session.take_dropped_late()), (1, (0, 2)));
    assert_eq!(acknowledge(&mut session, PubAck, 1), AckOutcome::Unknown);
    deliver(&mut session, b"d", AtLeastOnce);
    assert_eq!(write_v5(&mut session), [plain(AtLeastOnce, 4, b"d")]);
}

#[test]
fn what_is_left_of_the_expiry_is_sent_along_and_what_has_none_left_is_dropped() {
    let second = |n: u64| Timestamp::from_millis(n * 1_000);
    let waiting = || {
        let mut session = offline(limits());
        for expires_at in [Some(second(10)), None, Some(second(20))] {
            deliver_message(&mut session, &message_v5(b"m", AtLeastOnce, expires_at), AtLeastOnce);
        }
        session
    };
    for (millis, left) in [
        (0, &[Some(10), None, Some(20)][..]),
        (3_200, &[Some(7), None, Some(17)]),
        (9_999, &[Some(1), None, Some(11)]),
        (10_000, &[None, Some(10)]),
        (20_000, &[None]),
    ] {
        let mut session = waiting();
        let sent = attach_v5_at(&mut session, V5, Timestamp::from_millis(millis));
        let sent = publishes(&sent);
        let seen: Vec<Option<u32>> = sent.iter().map(|publish| publish.expiry).collect();
        assert_eq!(seen, left, "after {millis} ms");
        let ids: Vec<u16> = sent.iter().map(|publish| publish.id).collect();
        assert_eq!(ids, (1..=left.len() as u16).collect::<Vec<_>>(), "no id is used for what expired");
        assert!(sent.iter().all(|publish| publish.others == FORWARDED));
        assert_eq!(session.take_dropped_late(), (3 - left.len() as u32, 0));
    }
}

#[test]
fn what_was_sent_once_does_not_expire() {
    let mut session = connected_v5(V5);
    let at = Timestamp::from_millis(5_000);
    deliver_message(&mut session, &message_v5(b"m", AtLeastOnce, Some(at)), AtLeastOnce);
    session.detach();
    let sent = attach_v5_at(&mut session, V5, Timestamp::from_millis(100_000));
    assert_eq!(publishes(&sent).len(), 1);
    assert_eq!((publishes(&sent)[0].first_byte, publishes(&sent)[0].id), (0x3a, 1));
    assert_eq!(session.take_dropped_late(), (0, 0));
}

#[test]
fn expiry_counts_whole_seconds_waited() {
    let message = message_v5(b"m", AtLeastOnce, Some(Timestamp::from_millis(10_500)));
    for (millis, expected) in
        [(0, Expiry::Left(11)), (500, Expiry::Left(10)), (10_499, Expiry::Left(1)), (10_500, Expiry::Over)]
    {
        assert_eq!(message.expiry(Timestamp::from_millis(millis)), expected, "{millis}");
    }
    assert_eq!(message_v5(b"m", AtLeastOnce, None).expiry(Timestamp::from_millis(u64::MAX)), Expiry::Never);
}

#[test]
fn the_client_may_leave_as_many_unreleased_as_it_was_told() {
    let mut session = connected_v5(Terms { receive_maximum_granted: 2, ..V5 });
    assert_eq!(session.accept_publish(id(1)), Reception::New);
    assert_eq!(session.accept_publish(id(2)), Reception::New);
    assert_eq!(session.accept_publish(id(2)), Reception::Repeated);
    assert_eq!(session.accept_publish(id(3)), Reception::TooMany);
    assert_eq!(session.accept_publish(id(3)), Reception::TooMany, "the id is not kept");
    assert!(session.release(id(1)));
    assert!(!session.release(id(1)));
    assert_eq!(session.accept_publish(id(3)), Reception::New);
    session.refuse_publish(id(3));
    assert_eq!(session.accept_publish(id(4)), Reception::New, "what is refused is free at once");
}

#[test]
fn an_error_in_puback_or_pubrec_ends_the_delivery() {
    let mut session = offline(SessionLimits { inflight_max: 2, ..limits() });
    assert_eq!(attach_v5(&mut session, V5), []);
    deliver(&mut session, b"a", AtLeastOnce);
    deliver(&mut session, b"b", ExactlyOnce);
    deliver(&mut session, b"c", ExactlyOnce);
    deliver(&mut session, b"d", ExactlyOnce);
    write_v5(&mut session);
    assert_eq!(session.handle_ack(PubAck, id(1), ReasonCode::QuotaExceeded), AckOutcome::Accepted);
    assert_eq!(write_v5(&mut session), [plain(ExactlyOnce, 3, b"c")], "the window opens");
    assert_eq!(session.handle_ack(PubRec, id(2), ReasonCode::NotAuthorized), AckOutcome::Accepted);
    assert_eq!(write_v5(&mut session), [plain(ExactlyOnce, 4, b"d")], "and no PUBREL answers");
    // 0x10 is no error.
    assert_eq!(session.handle_ack(PubRec, id(3), ReasonCode::NoMatchingSubscribers), AckOutcome::Accepted);
    assert_eq!(write_v5(&mut session), [Sent5::Other(vec![0x62, 2, 0, 3])]);
    session.detach();
    let expected = [Sent5::Other(vec![0x62, 2, 0, 3]), plain_again(ExactlyOnce, 4, b"d")];
    assert_eq!(attach_v5(&mut session, V5), expected);
}

#[test]
fn pubrel_says_that_an_id_is_unknown() {
    let mut session = connected_v5(V5);
    deliver(&mut session, b"a", ExactlyOnce);
    write_v5(&mut session);
    acknowledge(&mut session, PubRec, 1);
    acknowledge(&mut session, PubRec, 1);
    assert_eq!(acknowledge(&mut session, PubRec, 77), AckOutcome::Unknown);
    let known = Sent5::Other(vec![0x62, 2, 0, 1]);
    assert_eq!(write_v5(&mut session), [known.clone(), known, Sent5::Other(vec![0x62, 3, 0, 77, 0x92])]);
    assert_eq!(session.handle_ack(PubRec, id(78), ReasonCode::NotAuthorized), AckOutcome::Unknown);
    assert_eq!(write_v5(&mut session), [], "an error is not answered");
}
