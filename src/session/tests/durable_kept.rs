//! Messages on their way to a client of a durable session: they leave memory, and are read back
//! when they are to be sent again.

use super::durable::{Disk, durable, read_back, roomy, seen};
use super::wire::*;
use crate::ledger::Position;
use crate::protocol::QoS::{self, AtLeastOnce, ExactlyOnce};
use crate::protocol::encode::AckKind::{PubAck, PubComp, PubRec};
use crate::session::{Session, SessionLimits, Shed, Sheddable, Terms};

/// So large that it is charged once for all who hold it, and leaves memory with the connection.
fn large(name: &str) -> String {
    name.repeat(2_000 / name.len())
}

fn names(sent: &[Sent]) -> Vec<(u16, bool, String)> {
    seen(sent).into_iter().map(|(id, dup, text)| (id, dup, text.chars().take(2).collect())).collect()
}

fn again(id: u16, name: &str) -> (u16, bool, String) {
    (id, true, name.to_owned())
}

/// A connected session with these on their way, all of which are on disk.
fn under_way(disk: &mut Disk, limits: SessionLimits, messages: &[(&str, QoS)]) -> Session {
    let mut session = durable(disk, limits);
    attach(&mut session);
    for (text, qos) in messages {
        disk.deliver(&mut session, text, *qos);
        disk.sync();
        session.send_more();
    }
    assert_eq!(names(&write_all(&mut session)).len(), messages.len());
    session
}

#[test]
fn they_leave_memory_with_the_connection_and_come_again_in_their_order() {
    let mut disk = Disk::new();
    let (a, b, d) = (large("aa"), large("bb"), large("dd"));
    let messages = [(&*a, AtLeastOnce), (&b, ExactlyOnce), ("cc", AtLeastOnce), (&d, AtLeastOnce)];
    let mut session = under_way(&mut disk, SessionLimits { inflight_max: 10, ..roomy() }, &messages);
    let held = session.holds();
    assert!(held > 6_000, "{held}");
    let needed = disk.ledger.live(1);
    session.detach();
    // The small one stays: its place in the log would take as much.
    assert!(session.holds() < 200, "{}", session.holds());
    assert_eq!(disk.ledger.live(1), needed);
    // Before the connection begins those up to the first that is there.
    assert_eq!(disk.load_first(&mut session), 2);
    let first = attach(&mut session);
    assert_eq!(names(&first), [again(1, "aa"), again(2, "bb"), again(3, "cc")]);
    assert!(session.wants_messages(true));
    // What comes new stays behind them.
    disk.deliver(&mut session, "ee", AtLeastOnce);
    disk.sync();
    assert!(write_all(&mut session).is_empty());
    assert_eq!(disk.load(&mut session), 1);
    let rest = names(&write_all(&mut session));
    assert_eq!(rest, [again(4, "dd"), (5, false, "ee".to_owned())]);
    for (id, kind) in [(1, PubAck), (2, PubRec), (2, PubComp), (3, PubAck), (4, PubAck), (5, PubAck)] {
        acknowledge(&mut session, kind, id);
    }
    assert_eq!((session.unfinished(), session.holds(), disk.ledger.live(1)), (0, session.out.memory(), 0));
}

#[test]
fn when_memory_is_short_all_of_them_go_and_an_acknowledgement_ends_them_all_the_same() {
    let mut disk = Disk::new();
    let a = large("aa");
    let mut session =
        under_way(&mut disk, roomy(), &[(&a, AtLeastOnce), ("bb", ExactlyOnce), ("cc", AtLeastOnce)]);
    session.unload();
    // What is left of them is an entry and a place in the log each.
    assert_eq!(session.holds(), 0);
    assert!((1..600).contains(&session.charged().in_flight), "{}", session.charged().in_flight);
    assert_eq!(session.shed(usize::MAX, Sheddable::Any).messages, 0, "none of them is lost");
    acknowledge(&mut session, PubAck, 1);
    acknowledge(&mut session, PubRec, 2);
    assert_eq!((session.unfinished(), disk.ledger.live(1)), (2, 100));
    session.detach();
    assert_eq!(disk.load_first(&mut session), 1);
    assert_eq!(names(&attach(&mut session)), [(2, false, "PU".to_owned()), again(3, "cc")]);
    let _ = session.end();
    assert_eq!(disk.ledger.live(1), 0, "a session that is over needs nothing");
}

#[test]
fn one_that_cannot_be_read_back_is_over_and_the_others_go_on() {
    let mut disk = Disk::new();
    let (a, b) = (large("aa"), large("bb"));
    let mut session = under_way(&mut disk, roomy(), &[(&a, AtLeastOnce), (&b, ExactlyOnce)]);
    session.detach();
    assert!(session.provide(0, None));
    assert!(!session.provide(0, Some(read_back(b"aa", AtLeastOnce))), "it is over");
    assert_eq!(session.log_work().map(|work| work.finished.clone()), Some(vec![0]));
    assert_eq!(disk.load_first(&mut session), 1);
    assert_eq!(names(&attach(&mut session)), [again(2, "bb")]);
    assert_eq!(session.unfinished(), 1);
}

#[test]
fn a_copy_elsewhere_in_the_log_is_followed() {
    let mut disk = Disk::new();
    let a = large("aa");
    let mut session = under_way(&mut disk, roomy(), &[(&a, AtLeastOnce)]);
    session.detach();
    let from = session.position_of(0).expect("it is there");
    session.moved(0, from, Position::new(2, 7));
    assert_eq!((disk.ledger.live(1), disk.ledger.live(2)), (0, 100));
    assert_eq!(session.wanted_first(10, true), [(0, Position::new(2, 7))]);
}

#[test]
fn they_fill_a_part_of_the_queues_bound_and_no_more_is_read_back_than_that() {
    let mut disk = Disk::new();
    let limits = SessionLimits { inflight_max: 100, queue_bytes_max: 2_000_000, ..roomy() };
    let mut session = durable(&disk, limits);
    attach(&mut session);
    let body = "x".repeat(100_000);
    for _ in 0..10 {
        disk.deliver(&mut session, &body, AtLeastOnce);
        disk.sync();
        write_all(&mut session);
    }
    // A quarter of the bound, and none begins beyond that.
    assert_eq!((session.unfinished(), session.queued()), (5, 5));
    acknowledge(&mut session, PubAck, 1);
    assert_eq!(session.unfinished(), 5);
    session.detach();
    assert_eq!(session.holds(), 0);
    // All that may be sent again is, though no more than so much is read back at a time.
    let mut sent = attach(&mut session);
    while disk.load(&mut session) > 0 {
        assert!(session.holds() <= 1_300_000, "{}", session.holds());
        sent.extend(write_all(&mut session));
    }
    let ids: Vec<u16> = seen(&sent).iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, [2, 3, 4, 5, 6]);
}

#[test]
fn without_a_log_they_are_given_up_last_and_end_when_they_cannot_be_sent_again() {
    let mut session = connected(SessionLimits { queue_bytes_max: 1_000_000, ..roomy() });
    for (payload, qos) in [("a", AtLeastOnce), ("b", ExactlyOnce), ("c", AtLeastOnce)] {
        deliver(&mut session, payload.repeat(1_000).as_bytes(), qos);
    }
    write_all(&mut session);
    assert_eq!(session.shed(1_500, Sheddable::Any).messages, 2);
    assert_eq!((session.unfinished(), session.charged().in_flight > 0), (3, true));
    acknowledge(&mut session, PubAck, 1);
    session.detach();
    let sent = attach(&mut session);
    assert_eq!(seen(&sent).iter().map(|(id, dup, _)| (*id, *dup)).collect::<Vec<_>>(), [(3, true)]);
    // The one at QoS 2 has no message any more: its place is free.
    assert_eq!(session.unfinished(), 1);
}

#[test]
fn while_memory_is_short_a_client_that_does_not_read_gets_nothing_back() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    attach(&mut session);
    for n in 0..1_000 {
        disk.deliver(&mut session, &n.to_string(), AtLeastOnce);
    }
    disk.sync();
    session.unload();
    assert_eq!(session.unfinished(), 4);
    assert!(session.wants_messages(true) && !session.wants_messages(false));
    assert_eq!(disk.load_what_can_go(&mut session), 0);
    // One that reads gets everything, as much as its window takes at a time.
    let mut received = seen(&write_all(&mut session));
    let mut next = 0;
    while next < received.len() {
        let id = received[next].0;
        next += 1;
        acknowledge(&mut session, PubAck, id);
        assert!(disk.load_what_can_go(&mut session) <= 4);
        received.extend(seen(&write_all(&mut session)));
    }
    let expected: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    assert_eq!(received.into_iter().map(|(_, _, text)| text).collect::<Vec<_>>(), expected);
    // The same where they were sent before.
    for n in 0..4 {
        disk.deliver(&mut session, &n.to_string(), AtLeastOnce);
    }
    disk.sync();
    write_all(&mut session);
    session.unload();
    session.detach();
    session.attach(Terms { receive_maximum: 2, ..Terms::V311 }, &[0x20, 2, 1, 0], None, true);
    assert_eq!(disk.load_what_can_go(&mut session), 2);
    assert_eq!(disk.load_what_can_go(&mut session), 0);
    assert!(session.wants_messages(true));
}

#[test]
fn what_is_on_disk_is_charged_with_its_entries_and_those_are_given_up_oldest_first() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    for n in 0..1_000 {
        disk.deliver(&mut session, &n.to_string(), AtLeastOnce);
        disk.sync();
    }
    session.unload();
    assert_eq!(session.holds(), 0);
    let (entries, waiting) = (session.entry_bytes(), session.charged().waiting);
    assert!(waiting == entries && (40_000..100_000).contains(&entries), "{entries} {waiting}");
    assert_eq!(
        session.shed(usize::MAX, Sheddable::Any),
        Shed::default(),
        "it would give nothing back but entries"
    );
    let shed = session.shed_entries(20_000);
    assert!(session.entry_bytes() <= 20_000 && shed.bytes == entries - session.entry_bytes());
    let left = session.queued();
    assert_eq!((left, shed.messages, disk.ledger.live(1)), (500, 500, 100 * left as u64));
    assert_eq!(session.log_work().expect("they are over").finished, (0..500).collect::<Vec<_>>());
    attach(&mut session);
    disk.load(&mut session);
    let first = seen(&write_all(&mut session));
    assert_eq!(first.first().map(|(.., text)| &**text), Some("500"));
    // An empty queue takes nothing.
    assert_eq!(session.shed_entries(0).messages, 496);
    session.detach();
    assert_eq!(session.charged().waiting, 0);
}
