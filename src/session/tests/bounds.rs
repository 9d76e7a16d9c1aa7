//! The in-flight window and the bounds of what waits.

use std::sync::Arc;

use super::wire::*;
use crate::protocol::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::session::{AckOutcome, Delivered, DropReason, Session, SessionLimits};

/// What [`deliver`] charges beyond the payload: one byte of topic and the fixed overhead.
const CHARGE: usize = 1 + 96;

#[test]
fn the_window_closes_at_inflight_max_and_each_acknowledgement_opens_it_by_one() {
    let mut session = connected(limits());
    for n in 0..4 {
        assert_eq!(deliver(&mut session, &[n], AtLeastOnce), Delivered::Sent);
    }
    for n in 4..6 {
        assert_eq!(deliver(&mut session, &[n], AtLeastOnce), Delivered::Queued);
    }
    assert_eq!((session.unfinished(), session.queued()), (4, 2));
    assert_eq!(write_all(&mut session).len(), 4);

    assert_eq!(acknowledge(&mut session, AckKind::PubAck, 2), AckOutcome::Accepted);
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 5, &[4])]);
    assert_eq!((session.unfinished(), session.queued()), (4, 1));
}

#[test]
fn a_qos_2_delivery_holds_its_place_in_the_window_until_pubcomp() {
    let mut session = connected(SessionLimits { inflight_max: 1, ..limits() });
    deliver(&mut session, b"a", ExactlyOnce);
    assert_eq!(deliver(&mut session, b"b", AtLeastOnce), Delivered::Queued);
    write_all(&mut session);
    acknowledge(&mut session, AckKind::PubRec, 1);
    assert_eq!(write_all(&mut session), [Sent::Ack(AckKind::PubRel, 1)]);
    acknowledge(&mut session, AckKind::PubComp, 1);
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 2, b"b")]);
}

#[test]
fn qos_0_passes_a_closed_window_and_takes_no_place_in_it() {
    let mut session = connected(SessionLimits { inflight_max: 1, ..limits() });
    deliver(&mut session, b"a", AtLeastOnce);
    deliver(&mut session, b"b", AtLeastOnce);
    assert_eq!(deliver(&mut session, b"c", AtMostOnce), Delivered::Sent);
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 1, b"a"), publish(AtMostOnce, 0, b"c")]);
    assert_eq!(session.unfinished(), 1);
}

#[test]
fn a_newer_message_waits_behind_those_that_wait() {
    let mut session = connected(SessionLimits { inflight_max: 1, ..limits() });
    for payload in [b"a", b"b", b"c"] {
        deliver(&mut session, payload, AtLeastOnce);
    }
    let mut seen = write_all(&mut session);
    for n in 1..=2 {
        acknowledge(&mut session, AckKind::PubAck, n);
        deliver(&mut session, &[b'c' + n as u8], AtLeastOnce);
        seen.extend(write_all(&mut session));
    }
    assert_eq!(seen, [1, 2, 3].map(|n| publish(AtLeastOnce, n, &[b'a' + n as u8 - 1])));
}

#[test]
fn the_lower_qos_counts() {
    let mut session = connected(limits());
    for (published, granted, sent, id) in [
        (ExactlyOnce, AtLeastOnce, AtLeastOnce, 1),
        (AtLeastOnce, ExactlyOnce, AtLeastOnce, 2),
        (ExactlyOnce, AtMostOnce, AtMostOnce, 0),
        (AtMostOnce, ExactlyOnce, AtMostOnce, 0),
    ] {
        assert_eq!(deliver_message(&mut session, &message(b"m", published), granted), Delivered::Sent);
        assert_eq!(write_all(&mut session), [publish(sent, id, b"m")], "{published:?} under {granted:?}");
    }
}

#[test]
fn the_queue_is_bounded_in_messages() {
    let mut session = offline(limits());
    for n in 0..5 {
        assert_eq!(deliver(&mut session, &[n], AtLeastOnce), Delivered::Queued);
    }
    assert_eq!(deliver(&mut session, &[5], AtLeastOnce), Delivered::Dropped(DropReason::QueueFull));
    assert_eq!(deliver(&mut session, &[5], ExactlyOnce), Delivered::Dropped(DropReason::QueueFull));
    assert_eq!(session.queued(), 5);
    let kept: Vec<Sent> = attach(&mut session);
    assert_eq!(kept[0], publish(AtLeastOnce, 1, &[0]), "the oldest are kept, the newest is dropped");
}

#[test]
fn the_queue_is_bounded_in_bytes_to_the_byte() {
    let queue_bytes_max = 2 * (CHARGE + 100);
    let mut session = offline(SessionLimits { queue_bytes_max, ..limits() });
    assert_eq!(deliver(&mut session, &[0; 100], AtLeastOnce), Delivered::Queued);
    assert_eq!(deliver(&mut session, &[0; 101], AtLeastOnce), Delivered::Dropped(DropReason::QueueFullBytes));
    assert_eq!(deliver(&mut session, &[0; 100], AtLeastOnce), Delivered::Queued);
    assert_eq!(deliver(&mut session, &[], AtLeastOnce), Delivered::Dropped(DropReason::QueueFullBytes));
    assert_eq!(session.held_bytes(), queue_bytes_max);
}

#[test]
fn unwritten_output_counts_against_the_bytes_of_the_queue() {
    let queue_bytes_max = 1_000 + CHARGE;
    let mut session = connected(SessionLimits { inflight_max: 1, queue_bytes_max, ..limits() });
    deliver(&mut session, &[0; 600], AtLeastOnce);
    assert_eq!(deliver(&mut session, &[1; 600], AtLeastOnce), Delivered::Dropped(DropReason::QueueFullBytes));
    write_all(&mut session);
    assert_eq!(deliver(&mut session, &[1; 600], AtLeastOnce), Delivered::Queued);
}

#[test]
fn a_message_larger_than_the_bound_is_too_large_for_the_queue_and_for_qos_0() {
    let queue_bytes_max = 500;
    let too_large = vec![0; queue_bytes_max - CHARGE + 1];
    let mut session = offline(SessionLimits { queue_bytes_max, ..limits() });
    let dropped = Delivered::Dropped(DropReason::TooLarge);
    assert_eq!(deliver(&mut session, &too_large, AtLeastOnce), dropped);
    assert_eq!(deliver(&mut session, &too_large[1..], AtLeastOnce), Delivered::Queued);
    attach(&mut session);
    assert_eq!(deliver(&mut session, &too_large, AtMostOnce), dropped);
    assert_eq!(deliver(&mut session, &too_large[1..], AtMostOnce), Delivered::Sent);
}

#[test]
fn qos_0_is_dropped_at_the_byte_bound_and_sent_again_once_output_is_written() {
    let queue_bytes_max = 10_000;
    let mut session = connected(SessionLimits { queue_bytes_max, ..limits() });
    let mut sent = 0;
    let dropped = loop {
        match deliver(&mut session, &[0; 500], AtMostOnce) {
            Delivered::Sent => sent += 1,
            other => break other,
        }
        assert!(session.held_bytes() <= queue_bytes_max);
    };
    assert_eq!(dropped, Delivered::Dropped(DropReason::QueueFullQos0));
    // Each is charged with 500 bytes, topic and fixed overhead when it comes in, and with its packet once it stands there.
    assert_eq!(sent, (queue_bytes_max - 500 - CHARGE) / (500 + 1 + 2 + 3) + 1);
    assert_eq!(write_all(&mut session).len(), sent);
    assert_eq!(deliver(&mut session, &[0; 500], AtMostOnce), Delivered::Sent);
}

#[test]
fn what_waits_leaves_less_room_for_qos_0() {
    let queue_bytes_max = 2_000;
    let mut session = connected(SessionLimits { inflight_max: 1, queue_bytes_max, ..limits() });
    deliver(&mut session, b"a", AtLeastOnce);
    write_all(&mut session);
    assert_eq!(deliver(&mut session, &[0; 1_500], AtLeastOnce), Delivered::Queued);
    assert_eq!(deliver(&mut session, &[0; 500], AtMostOnce), Delivered::Dropped(DropReason::QueueFullQos0));
    assert_eq!(deliver(&mut session, &[0; 100], AtMostOnce), Delivered::Sent);
}

#[test]
fn an_offline_session_keeps_qos_1_and_2_in_order_and_not_qos_0() {
    let mut session = offline(limits());
    assert_eq!(deliver(&mut session, b"a", AtLeastOnce), Delivered::Queued);
    assert_eq!(deliver(&mut session, b"b", AtMostOnce), Delivered::Dropped(DropReason::OfflineQos0));
    assert_eq!(deliver(&mut session, b"c", ExactlyOnce), Delivered::Queued);
    assert!(!session.out.has_output());
    assert_eq!(attach(&mut session), [publish(AtLeastOnce, 1, b"a"), publish(ExactlyOnce, 2, b"c")]);
}

#[test]
fn what_is_in_flight_is_never_dropped() {
    let mut session = connected(SessionLimits { queue_messages_max: 1, queue_bytes_max: 300, ..limits() });
    for n in 0..4 {
        assert_eq!(deliver(&mut session, &[n], ExactlyOnce), Delivered::Sent);
        write_all(&mut session);
    }
    for n in 0..100 {
        deliver(&mut session, &[n; 150], [AtMostOnce, AtLeastOnce, ExactlyOnce][n as usize % 3]);
    }
    session.detach();
    for n in 0..100 {
        deliver(&mut session, &[n; 250], AtLeastOnce);
    }
    assert_eq!(session.unfinished(), 4);
    let expected: Vec<Sent> = (0..4).map(|n| again(ExactlyOnce, n + 1, &[n as u8])).collect();
    assert_eq!(attach(&mut session), expected);
}

#[test]
fn qos_1_waits_unencoded_while_much_output_is_unwritten() {
    let limits =
        SessionLimits { inflight_max: 100, queue_messages_max: 100, queue_bytes_max: 10_000_000, ..limits() };
    let mut session = connected(limits);
    let big = message(&[7; 100_000], AtLeastOnce);
    let mut outcomes = Vec::new();
    for _ in 0..10 {
        outcomes.push(deliver_message(&mut session, &big, AtLeastOnce));
    }
    assert_eq!((session.unfinished(), session.queued()), (3, 7), "{outcomes:?}");
    // The first take brings three; they make room for the next three when they are written.
    assert_eq!(write_once(&mut session).len(), 3);
    assert_eq!(write_all(&mut session).len(), 7);
    assert_eq!((session.unfinished(), session.queued()), (10, 0));
}

#[test]
fn filters_are_bounded_and_a_known_one_may_be_replaced_at_the_bound() {
    use crate::session::SubscribeError;
    let mut session = connected(limits());
    for filter in ["a", "b", "c"] {
        assert_eq!(session.subscribe(filter, AtMostOnce), Ok(true));
    }
    assert_eq!(session.subscribe("d", AtMostOnce), Err(SubscribeError::TooMany));
    assert_eq!(session.subscribe("b", ExactlyOnce), Ok(false));
    assert!(session.unsubscribe("a"));
    assert!(!session.unsubscribe("a"));
    assert_eq!(session.subscribe("d", AtMostOnce), Ok(true));
    assert_eq!(session.subscriptions(), 3);
}

#[test]
fn each_drop_reason_is_reported_once_per_connection() {
    let mut session = connected(limits());
    for reason in DropReason::ALL {
        assert!(session.report_drop(reason), "{reason:?}");
        assert!(!session.report_drop(reason), "{reason:?}");
    }
    attach_with(&mut session, true, None);
    assert!(session.report_drop(DropReason::QueueFull));
}

#[test]
fn every_drop_reason_has_its_own_label_and_names_its_limit() {
    let labels: std::collections::BTreeSet<&str> = DropReason::ALL.map(DropReason::label).into();
    assert_eq!(labels.len(), DropReason::ALL.len());
    for (place, reason) in DropReason::ALL.into_iter().enumerate() {
        assert_eq!(reason as usize, place, "counters are kept by this number");
        let by_the_standard = matches!(
            reason,
            DropReason::OfflineQos0
                | DropReason::ClientPacketMax
                | DropReason::Expired
                | DropReason::SharedGroupGone
        );
        assert_eq!(reason.limit_key().is_none(), by_the_standard);
    }
}

#[test]
fn an_idle_session_is_small() {
    // A device with one filter costs this and the text of the filter; see limits in README.md.
    // (The connection's part of a client has become smaller by what the accounts of memory added here.)
    assert!(size_of::<Session>() <= 304, "{}", size_of::<Session>());
    let mut session = connected(limits());
    session.subscribe("plant/7/temperature", AtLeastOnce).expect("below the bound");
    write_all(&mut session);
    assert_eq!(session.out.capacity(), 0, "no buffer is kept without output");
}

#[test]
fn limits_are_shared_by_all_sessions() {
    let limits = Arc::new(limits());
    let sessions: Vec<Session> = (0..3).map(|_| Session::new(Arc::clone(&limits), true)).collect();
    assert_eq!(Arc::strong_count(&limits), 4);
    assert!(sessions.iter().all(|session| std::ptr::eq(session.limits(), &*limits)));
}
