//! What comes by shared subscriptions: who is asked first, and what goes to another member.

use std::sync::Arc;

use super::wire::*;
use super::wire_v5::*;
use crate::protocol::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::session::{
    AckOutcome, EncodeScratch, Granted, Outgoing, Readiness, Session, SharedMessage, Terms, Timestamp,
};

fn deliver_by(session: &mut Session, shared: Option<&str>, payload: &[u8], qos: QoS) {
    let mut scratch = EncodeScratch::default();
    let shared = shared.map(Arc::from);
    let message = message(payload, qos);
    let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
    session.deliver(&mut outgoing, &Granted { shared: shared.as_ref(), ..Granted::with_qos(ExactlyOnce) });
}

fn payload_of(taken: &SharedMessage) -> &[u8] {
    taken.message.as_ref().map_or(b"in the log", |message| message.payload())
}

fn seen(taken: &[SharedMessage]) -> Vec<(&str, &[u8])> {
    taken.iter().map(|taken| (&*taken.filter, payload_of(taken))).collect()
}

/// Four under way, by two shared subscriptions and none, and as many waiting.
fn busy(outlives_connection: bool) -> Session {
    let mut session = Session::new(Arc::new(limits()), outlives_connection);
    attach_v5(&mut session, V5);
    for (shared, payload, qos) in [
        (Some("$share/g/t"), b"a", AtLeastOnce),
        (None, b"b", AtLeastOnce),
        (Some("$share/g/t"), b"c", ExactlyOnce),
        (Some("$share/h/t"), b"d", AtLeastOnce),
        (Some("$share/g/t"), b"e", AtLeastOnce),
        (Some("$share/h/t"), b"f", AtLeastOnce),
        (None, b"g", AtLeastOnce),
        (Some("$share/g/t"), b"h", ExactlyOnce),
    ] {
        deliver_by(&mut session, shared, payload, qos);
    }
    assert_eq!((session.unfinished(), session.queued()), (4, 4));
    write_v5(&mut session);
    session
}

#[test]
fn what_waits_is_given_up_and_what_is_under_way_is_not() {
    let mut session = busy(true);
    let held = session.held_bytes();
    let taken = session.take_shared(|filter| &**filter == "$share/g/t", false);
    assert_eq!(seen(&taken), [("$share/g/t", &b"e"[..]), ("$share/g/t", b"h")]);
    assert_eq!((session.unfinished(), session.queued()), (4, 2));
    assert_eq!(
        held - session.held_bytes(),
        taken.iter().map(|taken| taken.message.as_ref().map_or(0, |message| message.cost())).sum::<usize>()
    );
    assert!(session.take_shared(|filter| &**filter == "$share/g/t", false).is_empty());
}

#[test]
fn without_its_connection_qos_1_under_way_is_given_up_and_qos_2_begun_stays() {
    for outlives in [true, false] {
        let mut session = busy(outlives);
        session.detach();
        let taken = session.take_shared(|_| true, true);
        let expected = [
            ("$share/g/t", &b"a"[..]),
            ("$share/h/t", b"d"),
            ("$share/g/t", b"e"),
            ("$share/h/t", b"f"),
            ("$share/g/t", b"h"),
        ];
        assert_eq!(seen(&taken), expected, "oldest first");
        assert_eq!((session.unfinished(), session.queued()), (2, 1));
        if outlives {
            let expected = [
                plain_again(AtLeastOnce, 2, b"b"),
                plain_again(ExactlyOnce, 3, b"c"),
                plain(AtLeastOnce, 5, b"g"),
            ];
            assert_eq!(attach_v5(&mut session, V5), expected);
        }
    }
}

#[test]
fn ids_given_up_mean_nothing_any_more_and_those_kept_are_not_given_out_again() {
    let mut session = busy(true);
    session.detach();
    session.take_shared(|_| true, true);
    attach_v5(&mut session, V5);
    for n in [1, 4] {
        assert_eq!(acknowledge(&mut session, AckKind::PubAck, n), AckOutcome::Unknown);
    }
    assert_eq!(session.unfinished(), 3);
    // Once round all ids: 2, 3 and 5 are still in use, 1 and 4 are free.
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..65_532 {
        deliver(&mut session, b"x", AtLeastOnce);
        let sent = write_v5(&mut session);
        let id = publishes(&sent)[0].id;
        assert!(ids.insert(id), "{id} twice");
        acknowledge(&mut session, AckKind::PubAck, id);
    }
    assert!([2, 3, 5].iter().all(|id| !ids.contains(id)) && ids.contains(&1) && ids.contains(&4));
}

#[test]
fn readiness_says_who_would_send_at_once() {
    let mut session = offline(limits());
    assert_eq!(session.readiness(), Readiness::Away);
    attach_v5(&mut session, Terms { receive_maximum: 1, ..V5 });
    assert_eq!(session.readiness(), Readiness::Ready);
    deliver(&mut session, b"0", AtMostOnce);
    assert_eq!(session.readiness(), Readiness::Ready);
    deliver(&mut session, b"1", AtLeastOnce);
    assert_eq!(session.readiness(), Readiness::Busy, "the client's window is closed");
    acknowledge(&mut session, AckKind::PubAck, 1);
    assert_eq!(session.readiness(), Readiness::Ready);
    session.detach();
    assert_eq!(session.readiness(), Readiness::Away);
    let _ = session.end();
    assert_eq!(session.readiness(), Readiness::Ended);
}
