//! A session that is kept in the durable log: what waits for it, what is left to it, what comes back from it. The log is played by
//! [`Disk`]: it gives places, and its watermark moves when the test says so.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::wire::*;
use crate::ledger::{Ledger, Position, Stored};
use crate::protocol::QoS::{self, AtLeastOnce, ExactlyOnce};
use crate::protocol::encode::AckKind::{PubAck, PubComp, PubRec, PubRel};
use crate::session::{
    Delivered, EncodeScratch, Granted, Message, Outgoing, RestoredMessage, Session, SessionLimits, Timestamp,
    message_cost,
};

const FRAME: u32 = 100;

pub(super) struct Disk {
    pub(super) ledger: Arc<Ledger>,
    next: u32,
    /// By place: what a reader finds there.
    frames: BTreeMap<Position, (u64, QoS, Vec<u8>)>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { ledger: Arc::new(Ledger::default()), next: FRAME, frames: BTreeMap::new() }
    }

    /// Everything submitted so far is on the disk.
    pub(super) fn sync(&self) {
        self.ledger.set_written(Position::new(1, self.next));
        self.ledger.set_committed(Position::new(1, self.next));
    }

    pub(super) fn deliver(&mut self, session: &mut Session, payload: &str, qos: QoS) -> Delivered {
        self.deliver_by(session, None, payload, qos)
    }

    /// The same by a shared subscription.
    pub(super) fn deliver_by(
        &mut self,
        session: &mut Session,
        shared: Option<&Arc<str>>,
        payload: &str,
        qos: QoS,
    ) -> Delivered {
        let mut scratch = EncodeScratch::default();
        let message = message(payload.as_bytes(), qos);
        let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
        let delivered = session.deliver(&mut outgoing, &Granted { shared, ..Granted::with_qos(ExactlyOnce) });
        let position = Position::new(1, self.next);
        self.next += FRAME;
        self.frames.insert(position, (session.last_sequence(), qos, payload.as_bytes().to_vec()));
        message.set_stored(Stored::new(&self.ledger, position, FRAME));
        delivered
    }

    /// Reads back what the session wants, as the broker does.
    pub(super) fn load(&self, session: &mut Session) -> usize {
        self.load_all(session, session.wanted(512, true))
    }

    /// The same while memory is short.
    pub(super) fn load_what_can_go(&self, session: &mut Session) -> usize {
        self.load_all(session, session.wanted(512, false))
    }

    /// The same before a connection begins.
    pub(super) fn load_first(&self, session: &mut Session) -> usize {
        self.load_all(session, session.wanted_first(128, true))
    }

    fn load_all(&self, session: &mut Session, wanted: Vec<(u64, Position)>) -> usize {
        for (sequence, position) in &wanted {
            let (of, qos, payload) = &self.frames[position];
            assert_eq!(of, sequence, "another delivery's frame");
            assert!(session.provide(*sequence, Some(read_back(payload, *qos))));
        }
        wanted.len()
    }

    /// The session as a restart finds it.
    fn restore(&self, session: &Session, limits: SessionLimits, begun: u64) -> Session {
        let snapshot = session.snapshot();
        let mut restored = offline(limits);
        restored.make_durable(&self.ledger);
        let live = |sequence: u64| {
            snapshot.live.iter().any(|(first, length)| (*first..first + length).contains(&sequence))
        };
        let frames = self.frames.iter().filter(|(_, (sequence, ..))| live(*sequence));
        let messages: Vec<RestoredMessage> = frames
            .map(|(position, (sequence, qos, payload))| RestoredMessage {
                sequence: *sequence,
                position: *position,
                frame_bytes: FRAME,
                cost: message_cost(payload.len()) as u32,
                qos: *qos,
                retain: false,
                again: *sequence < begun,
                subscription_ids: Box::default(),
                shared: None,
            })
            .collect();
        restored.restore(snapshot.next, messages.into_iter(), &snapshot.completing, &snapshot.received);
        restored
    }
}

pub(super) fn read_back(payload: &[u8], qos: QoS) -> Message {
    Message::new(Arc::from("t"), Box::from(payload), qos)
}

pub(super) fn roomy() -> SessionLimits {
    SessionLimits { queue_messages_max: 100_000, queue_bytes_max: 1_000_000_000, ..limits() }
}

pub(super) fn durable(disk: &Disk, limits: SessionLimits) -> Session {
    let mut session = offline(limits);
    session.make_durable(&disk.ledger);
    session
}

pub(super) fn seen(sent: &[Sent]) -> Vec<(u16, bool, String)> {
    sent.iter()
        .map(|sent| match sent {
            Sent::Publish(publish) => {
                (publish.id, publish.dup, String::from_utf8_lossy(&publish.payload).into_owned())
            }
            Sent::Ack(PubRel, id) => (*id, false, "PUBREL".to_owned()),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn ids(sent: &[Sent]) -> Vec<u16> {
    seen(sent).into_iter().map(|(id, ..)| id).collect()
}

#[test]
fn qos_2_is_sent_when_the_log_has_it_and_qos_1_at_once() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, limits());
    attach(&mut session);
    assert_eq!(disk.deliver(&mut session, "one", AtLeastOnce), Delivered::Sent);
    assert_eq!(disk.deliver(&mut session, "two", ExactlyOnce), Delivered::Queued);
    // Behind it: what comes later keeps its place.
    assert_eq!(disk.deliver(&mut session, "three", AtLeastOnce), Delivered::Queued);
    session.send_more();
    assert_eq!(ids(&write_all(&mut session)), [1]);
    assert!(session.awaits_log().is_some());
    disk.sync();
    session.send_more();
    assert_eq!(ids(&write_all(&mut session)), [2, 3]);
    assert!(session.awaits_log().is_none());
}

#[test]
fn pubrel_waits_until_pubrec_is_on_record() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, limits());
    attach(&mut session);
    disk.deliver(&mut session, "m", ExactlyOnce);
    disk.sync();
    session.send_more();
    write_all(&mut session);
    acknowledge(&mut session, PubRec, 1);
    assert!(!session.out.has_output(), "PUBREL is for the broker to send");
    let work = session.log_work().expect("something for the record");
    assert_eq!(work.completing, [(0, id(1))]);
    let answers = std::mem::take(&mut work.answers);
    work.completing.clear();
    assert_eq!(seen(&packets(&answers)), [(1, false, "PUBREL".to_owned())]);
    assert!(session.log_work().is_none());
    // A repetition is answered, and is nothing new.
    acknowledge(&mut session, PubRec, 1);
    let work = session.log_work().expect("an answer");
    assert!(work.completing.is_empty() && !work.answers.is_empty());
    work.answers.clear();
    acknowledge(&mut session, PubComp, 1);
    assert_eq!(session.log_work().expect("it is over").finished, [0]);
}

#[test]
fn a_long_queue_is_left_to_the_log_and_comes_back_in_order() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    for n in 0..20_000 {
        assert_eq!(disk.deliver(&mut session, &n.to_string(), AtLeastOnce), Delivered::Queued);
        disk.sync();
    }
    assert_eq!((session.queued(), disk.ledger.live(1)), (20_000, 20_000 * u64::from(FRAME)));
    assert!(session.wanted(10, true).is_empty(), "nobody is there to read");
    let mut received = Vec::new();
    attach(&mut session);
    let mut rounds = 0;
    while received.len() < 20_000 {
        disk.load(&mut session);
        for (id, dup, payload) in seen(&write_all(&mut session)) {
            assert!(!dup);
            assert_eq!(usize::from(id), received.len() % 65_535 + 1);
            received.push(payload);
            acknowledge(&mut session, PubAck, id);
        }
        rounds += 1;
        assert!(rounds < 40_000, "stuck after {} messages", received.len());
    }
    assert!(received.iter().enumerate().all(|(n, payload)| *payload == n.to_string()));
    assert_eq!(disk.ledger.live(1), 0, "what is over holds nothing in the log");
    assert_eq!(session.log_work().expect("all of them").finished.len(), 20_000);
}

#[test]
fn what_is_not_on_the_disk_yet_stays_in_memory() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    for n in 0..100 {
        disk.deliver(&mut session, &n.to_string(), AtLeastOnce);
    }
    assert_eq!(attach(&mut session).len(), 4);
    assert!(session.wanted(512, true).is_empty());
}

#[test]
fn a_connected_client_that_is_slow_has_a_window_of_its_queue_in_memory() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    attach(&mut session);
    for n in 0..10_000 {
        disk.deliver(&mut session, &n.to_string(), AtLeastOnce);
        disk.sync();
    }
    let mut next = 0;
    while next < 10_000 {
        disk.load(&mut session);
        for (id, _, payload) in seen(&write_all(&mut session)) {
            assert_eq!(payload, next.to_string());
            next += 1;
            acknowledge(&mut session, PubAck, id);
        }
    }
    assert_eq!((session.queued(), session.unfinished(), disk.ledger.live(1)), (0, 0, 0));
}

#[test]
fn a_message_that_cannot_be_read_any_more_does_not_stop_those_behind_it() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, limits());
    for payload in ["a", "b", "c"] {
        disk.deliver(&mut session, payload, AtLeastOnce);
        disk.sync();
    }
    session.detach();
    attach(&mut session);
    let wanted = session.wanted(512, true);
    assert_eq!(wanted.len(), 3);
    assert!(!session.provide(wanted[1].0, None), "not in its turn");
    assert!(session.provide(wanted[0].0, None));
    assert!(session.provide(wanted[1].0, Some(read_back(b"b", AtLeastOnce))));
    assert!(session.provide(wanted[2].0, Some(read_back(b"c", AtLeastOnce))));
    assert_eq!(ids(&write_all(&mut session)), [2, 3]);
    assert_eq!(session.log_work().expect("the lost one is over").finished, [0]);
    assert_eq!(session.held_bytes(), 0);
}

#[test]
fn after_a_restart_ids_and_order_are_the_same_and_what_may_have_been_sent_says_so() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    attach(&mut session);
    for (n, qos) in
        [AtLeastOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce].iter().enumerate()
    {
        disk.deliver(&mut session, &n.to_string(), *qos);
    }
    disk.sync();
    session.send_more();
    assert_eq!(ids(&write_all(&mut session)), [1, 2, 3, 4]);
    acknowledge(&mut session, PubRec, 2);
    acknowledge(&mut session, PubAck, 3);
    session.accept_publish(id(77));
    assert_eq!(ids(&write_all(&mut session)), [5]);

    let mut restored = disk.restore(&session, roomy(), session.begun().0);
    assert_eq!(restored.snapshot(), session.snapshot());
    attach_with(&mut restored, true, None);
    while disk.load(&mut restored) > 0 {}
    let mut sent = write_all(&mut restored);
    sent.remove(0);
    let expected = [(2, false, "PUBREL"), (1, true, "0"), (4, true, "3"), (5, true, "4")];
    assert_eq!(seen(&sent), expected.map(|(id, dup, payload)| (id, dup, payload.to_owned())));
    acknowledge(&mut restored, PubComp, 2);
    assert_eq!(seen(&write_all(&mut restored)), [(6, false, "5".to_owned())]);
    assert_eq!(restored.accept_publish(id(77)), crate::session::Reception::Repeated);
    // The next one has an id of its own.
    for n in [1, 5] {
        acknowledge(&mut restored, PubAck, n);
    }
    disk.deliver(&mut restored, "new", AtLeastOnce);
    assert_eq!(ids(&write_all(&mut restored)), [7]);
}

#[test]
fn a_copy_elsewhere_in_the_log_is_followed_wherever_the_message_is() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, SessionLimits { inflight_max: 1, ..roomy() });
    attach(&mut session);
    disk.deliver(&mut session, "under way", AtLeastOnce);
    disk.sync();
    session.detach();
    disk.deliver(&mut session, "in the log", AtLeastOnce);
    disk.sync();
    disk.deliver(&mut session, "in memory", AtLeastOnce);
    disk.deliver(&mut session, "not on disk", AtLeastOnce);
    let from: Vec<Position> = (0..4).map(|n| session.position_of(n).expect("it is there")).collect();
    for (n, from) in from.iter().enumerate() {
        session.moved(n as u64, *from, Position::new(2, n as u32));
        session.moved(n as u64, *from, Position::new(3, 0));
        assert_eq!(session.position_of(n as u64), Some(Position::new(2, n as u32)));
    }
    assert_eq!((disk.ledger.live(1), disk.ledger.live(2), disk.ledger.live(3)), (0, 4 * u64::from(FRAME), 0));
    let _ = session.end();
    assert_eq!(disk.ledger.live(2), 0, "a session that is over needs nothing");
}

#[test]
fn a_session_that_is_not_durable_records_nothing() {
    let mut session = connected(limits());
    let mut disk = Disk::new();
    disk.deliver(&mut session, "m", ExactlyOnce);
    assert_eq!(write_all(&mut session).len(), 1);
    acknowledge(&mut session, PubRec, 1);
    assert_eq!(ids(&write_all(&mut session)), [1]);
    assert!(session.log_work().is_none() && !session.is_durable());
}

#[test]
fn after_a_take_over_pubrel_waits_for_the_pubrec_of_the_older_connection() {
    let mut disk = Disk::new();
    let mut session = durable(&disk, roomy());
    attach(&mut session);
    disk.deliver(&mut session, "two", ExactlyOnce);
    disk.sync();
    session.send_more();
    assert_eq!(ids(&write_all(&mut session)), [1]);
    disk.deliver(&mut session, "one", AtLeastOnce);
    assert_eq!(ids(&write_all(&mut session)), [2]);
    acknowledge(&mut session, PubRec, 1);
    session.log_work().expect("PUBREC").answers.clear();
    // Its record is submitted, and the connection replaced before the disk has it.
    disk.next += FRAME;
    session.detach();
    session.attached_at(Position::START, Position::new(1, disk.next));
    assert_eq!(attach(&mut session), []);
    assert!(session.awaits_log().is_some());
    disk.sync();
    session.send_more();
    assert_eq!(
        seen(&write_all(&mut session)),
        [(1, false, "PUBREL".to_owned()), (2, true, "one".to_owned())]
    );
}
