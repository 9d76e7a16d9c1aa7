//! Beginnings and ends: attach, detach, end, the will, and time.

use std::sync::Arc;
use std::time::Duration;

use super::wire::*;
use crate::protocol::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::session::{Delivered, KeepAlive, Owner, Session, SubscribeError, Timestamp, Will};

fn will_of(text: &[u8], qos: QoS) -> Will {
    Will {
        key: 0,
        owner: Owner { client_id: Arc::from("c"), user: None },
        topic: Arc::from("will"),
        payload: Box::from(text),
        qos,
        retain: true,
        delay: Duration::ZERO,
        forwarded: Box::default(),
        expiry_seconds: None,
        charge: None,
    }
}

#[test]
fn connack_is_the_first_packet_and_says_whether_a_session_was_there() {
    for session_present in [false, true] {
        let mut session = offline(limits());
        deliver(&mut session, b"waits", AtLeastOnce);
        attach_with(&mut session, session_present, None);
        assert_eq!(
            write_all(&mut session),
            [Sent::ConnAck { session_present }, publish(AtLeastOnce, 1, b"waits")]
        );
    }
}

#[test]
fn a_new_connection_gets_nothing_of_the_old_ones_output() {
    let mut session = connected(limits());
    session.send_pingresp();
    deliver(&mut session, b"lost", AtMostOnce);
    // Half a packet is on its way to the old connection.
    let mut output = session.out.take();
    output.advance(1);
    session.out.put_back(output);
    session.out.written(1);
    session.detach();
    assert_eq!((session.out.pending(), session.out.has_output()), (0, false));
    assert_eq!(attach(&mut session), []);

    // And without a detach in between, as in a take-over.
    deliver(&mut session, &[0; 20_000], AtMostOnce);
    let mut output = session.out.take();
    output.advance(9_000);
    session.out.put_back(output);
    assert_eq!(attach(&mut session), []);
}

#[test]
fn an_offline_session_holds_no_buffer() {
    let mut session = connected(limits());
    session.out.lend(|| Vec::with_capacity(1_000));
    assert_eq!(session.out.capacity(), 1_000);
    session.detach();
    assert_eq!(session.out.capacity(), 0);
}

#[test]
fn end_gives_everything_back_but_the_will() {
    let mut session = connected(limits());
    session.subscribe("a", AtLeastOnce).expect("below the bound");
    session.subscribe("b", AtLeastOnce).expect("below the bound");
    let kept = message(&[1; 50], ExactlyOnce);
    for _ in 0..6 {
        deliver_message(&mut session, &kept, ExactlyOnce);
    }
    session.accept_publish(id(1));
    assert_eq!(Arc::strong_count(&kept), 7);
    let will = will_of(b"gone", AtLeastOnce);
    attach_with(&mut session, true, Some(will));

    let filters = session.end();
    let mut filters: Vec<&str> = filters.iter().map(|(filter, _)| filter).collect();
    filters.sort_unstable();
    assert_eq!(filters, ["a", "b"]);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(session.is_ended() && !session.is_connected() && !session.outlives_connection());
    assert_eq!((session.unfinished(), session.queued(), session.subscriptions()), (0, 0, 0));
    assert_eq!((session.held_bytes(), session.out.capacity()), (0, 0));
    assert_eq!(session.take_will().map(|will| will.payload.to_vec()), Some(b"gone".to_vec()));
    assert!(session.take_will().is_none());
}

#[test]
fn an_ended_session_takes_nothing_in() {
    let mut session = connected(limits());
    let _ = session.end();
    assert_eq!(deliver(&mut session, b"a", AtMostOnce), Delivered::Ended);
    assert_eq!(deliver(&mut session, b"a", AtLeastOnce), Delivered::Ended);
    assert_eq!(session.subscribe("a", AtMostOnce), Err(SubscribeError::Ended));
    deliver_retained(&mut session, b"a", AtMostOnce);
    session.send_pingresp();
    session.detach();
    assert!(session.is_ended(), "a late detach does not bring it back");
    assert!(!session.out.has_output() && session.end().is_empty());
}

#[test]
fn the_will_belongs_to_the_connection_and_is_taken_once() {
    let will = |text: &[u8]| Some(will_of(text, AtMostOnce));
    let mut session = offline(limits());
    attach_with(&mut session, false, will(b"first"));
    session.detach();
    assert_eq!(session.take_will().map(|will| will.payload.to_vec()), Some(b"first".to_vec()));
    assert!(session.take_will().is_none());
    attach_with(&mut session, true, will(b"second"));
    attach_with(&mut session, true, None);
    assert!(session.take_will().is_none(), "the next connection has none");
}

#[test]
fn a_session_that_ends_with_its_connection_holds_no_message_it_will_not_send_again() {
    let mut session = Session::new(Arc::new(limits()), false);
    attach_with(&mut session, false, None);
    let sent = message(&[0; 100], ExactlyOnce);
    for _ in 0..4 {
        assert_eq!(deliver_message(&mut session, &sent, ExactlyOnce), Delivered::Sent);
    }
    assert_eq!(Arc::strong_count(&sent), 1);
    assert_eq!(deliver_message(&mut session, &sent, ExactlyOnce), Delivered::Queued);
    assert_eq!(Arc::strong_count(&sent), 2, "what waits is held");
}

#[test]
fn a_message_is_held_no_longer_than_until_the_client_has_it() {
    use crate::protocol::encode::AckKind;
    let mut session = connected(limits());
    let one = message(b"1", AtLeastOnce);
    let two = message(b"2", ExactlyOnce);
    deliver_message(&mut session, &one, ExactlyOnce);
    deliver_message(&mut session, &two, ExactlyOnce);
    assert_eq!((Arc::strong_count(&one), Arc::strong_count(&two)), (2, 2));
    acknowledge(&mut session, AckKind::PubRec, 2);
    assert_eq!(Arc::strong_count(&two), 1, "after PUBREC");
    acknowledge(&mut session, AckKind::PubAck, 1);
    assert_eq!(Arc::strong_count(&one), 1, "after PUBACK");
}

#[test]
fn unsubscribing_leaves_what_waits_and_what_is_in_flight() {
    // [MQTT-3.10.4-3]
    let mut session = connected(limits());
    session.subscribe("t", AtLeastOnce).expect("below the bound");
    for n in 0..6 {
        deliver(&mut session, &[n], AtLeastOnce);
    }
    session.unsubscribe("t");
    assert_eq!((session.unfinished(), session.queued()), (4, 2));
}

#[test]
fn keep_alive_ends_at_one_and_a_half_times_and_zero_turns_it_off() {
    assert_eq!(KeepAlive::from_seconds(0), None);
    let heard = Timestamp::from_millis(777);
    for (seconds, limit_ms) in [(1, 1_500), (10, 15_000), (65_535, 98_302_500)] {
        let keep_alive = KeepAlive::from_seconds(seconds).expect("not 0");
        assert_eq!(keep_alive.deadline(heard), heard.after(Duration::from_millis(limit_ms)));
    }
    let end_of_time = Timestamp::from_millis(u64::MAX);
    assert_eq!(
        KeepAlive::from_seconds(1).map(|keep_alive| keep_alive.deadline(end_of_time)),
        Some(end_of_time)
    );
}

#[test]
fn time_neither_wraps_nor_goes_below_zero() {
    let (early, late) = (Timestamp::from_millis(5), Timestamp::from_millis(9));
    assert_eq!(late.since(early), Duration::from_millis(4));
    assert_eq!(early.since(late), Duration::ZERO);
    assert_eq!(Timestamp::from_millis(u64::MAX).after(Duration::MAX).as_millis(), u64::MAX);
}
