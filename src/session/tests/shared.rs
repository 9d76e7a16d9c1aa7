//! What comes by shared subscriptions: who is asked first, and what goes to another member.

use std::sync::Arc;

use super::durable::{Disk, durable, roomy, seen as told};
use super::wire::*;
use super::wire_v5::*;
use crate::protocol::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::session::{
    AckOutcome, EncodeScratch, GivenUp, Granted, Outgoing, Readiness, Session, SharedMessage, Terms,
    Timestamp,
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
    let taken = session.take_shared(|filter| &**filter == "$share/g/t", GivenUp::Waiting);
    assert_eq!(seen(&taken), [("$share/g/t", &b"e"[..]), ("$share/g/t", b"h")]);
    assert_eq!((session.unfinished(), session.queued()), (4, 2));
    assert_eq!(
        held - session.held_bytes(),
        taken.iter().map(|taken| taken.message.as_ref().map_or(0, |message| message.cost())).sum::<usize>()
    );
    assert!(session.take_shared(|filter| &**filter == "$share/g/t", GivenUp::Waiting).is_empty());
}

#[test]
fn without_its_connection_qos_1_under_way_is_given_up_and_qos_2_begun_stays() {
    for outlives in [true, false] {
        let mut session = busy(outlives);
        session.detach();
        let taken = session.take_shared(|_| true, GivenUp::ForGood);
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
fn what_is_taken_back_is_as_if_it_had_never_been_given_up() {
    let (mut kept, mut session) = (busy(true), busy(true));
    kept.detach();
    session.detach();
    let taken = session.take_shared(|_| true, GivenUp::WhileAway);
    assert_eq!((session.unfinished(), session.queued(), taken.len()), (2, 1, 5));
    session.take_back(taken);
    assert_eq!((session.unfinished(), session.queued()), (4, 4));
    assert_eq!(session.held_bytes(), kept.held_bytes());
    assert_eq!(attach_v5(&mut session, V5), attach_v5(&mut kept, V5));
    for n in 1..=4 {
        let kind = if n == 3 { AckKind::PubRec } else { AckKind::PubAck };
        assert_eq!(acknowledge(&mut session, kind, n), acknowledge(&mut kept, kind, n), "{n}");
    }
    // Without a log what waits has no place of its own, and goes first.
    let payloads = |sent: &[_]| publishes(sent).iter().map(|sent| sent.payload[0]).collect::<Vec<_>>();
    assert_eq!(payloads(&write_v5(&mut kept)), *b"efg");
    assert_eq!(payloads(&write_v5(&mut session)), *b"efh");
}

/// Some of it has gone to others meanwhile, some of it the log has alone, and between them stands
/// what came by other subscriptions.
#[test]
fn what_is_left_is_taken_back_each_to_its_place() {
    const MESSAGES: usize = 90;
    let shared: Arc<str> = Arc::from("$share/g/t");
    for synced in ["not yet", "before", "after"] {
        let mut disk = Disk::new();
        let mut session = durable(&disk, roomy());
        attach(&mut session);
        for n in 0..MESSAGES {
            let by = (n % 3 > 0).then_some(&shared);
            disk.deliver_by(&mut session, by, &n.to_string(), AtLeastOnce);
            if n < MESSAGES / 2 {
                disk.sync();
            }
        }
        let sent = told(&write_all(&mut session)).len();
        session.detach();
        if synced == "before" {
            disk.sync();
        }
        let mut taken = session.take_shared(|_| true, GivenUp::WhileAway);
        assert_eq!(taken.len(), MESSAGES / 3 * 2);
        if synced == "after" {
            // What is left in the session leaves memory.
            disk.sync();
            session.unload();
        }
        let mut n = 0;
        taken.retain(|_| {
            n += 1;
            n % 4 > 0
        });
        let gone: Vec<usize> = (0..MESSAGES).filter(|n| n % 3 > 0).skip(3).step_by(4).collect();
        session.take_back(taken);
        let (mut got, mut acknowledged) = (told(&attach(&mut session)), 0);
        while got.len() < MESSAGES - gone.len() {
            disk.load(&mut session);
            got.extend(told(&write_all(&mut session)));
            assert!(got.len() > acknowledged, "nothing comes behind {:?}", got.last());
            for (id, ..) in &got[acknowledged..] {
                acknowledge(&mut session, AckKind::PubAck, *id);
            }
            acknowledged = got.len();
            got.extend(told(&write_all(&mut session)));
        }
        let expected = (0..MESSAGES).filter(|n| !gone.contains(n));
        let expected: Vec<_> = expected.map(|n| (n as u16 + 1, n < sent, n.to_string())).collect();
        assert_eq!(got, expected, "synced: {synced}");
    }
}

#[test]
fn ids_given_up_mean_nothing_any_more_and_those_kept_are_not_given_out_again() {
    let mut session = busy(true);
    session.detach();
    session.take_shared(|_| true, GivenUp::ForGood);
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
