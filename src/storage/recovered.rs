//! `Recovered`: the state that the log's frames add up to, gathered while they are read at start.
//!
//! The checkpoint says what existed at its position, which deliveries and retained messages were live, and nothing about where their
//! bodies are: those are found in the older segments, which tell nothing else. From the position on every record counts. A checkpoint is
//! written while the broker works, so it may already contain what records behind its position say again: all of them can be applied twice.
//! Bodies of queued messages are not kept here, only where they are; those of retained messages are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use ahash::RandomState;

use super::open::Visitor;
use super::record::{
    Begun, ClockRecord, DeliverRecord, Keep, MessageRecord, Numbers, Record, Records, SessionRecord,
    SourceRecord, SubscribeRecord, WillRecord,
};
use crate::ledger::Position;
use crate::protocol::QoS;

type Map<K, V> = HashMap<K, V, RandomState>;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Recovered {
    /// By their key.
    pub(crate) sessions: Map<u64, RecoveredSession>,
    /// By topic; also those that were removed, until [`finish`](Self::finish).
    retained: Map<Box<str>, RecoveredRetained>,
    /// By their key, oldest first.
    pub(crate) wills: BTreeMap<u64, RecoveredWill>,
    /// Above every key of a session or will that is on record.
    pub(crate) next_key: u64,
    /// Above every revision of a retained message that is on record.
    pub(crate) next_revision: u64,
    /// What the clock showed last.
    pub(crate) clock: Option<ClockRecord>,
    /// The newest time that something is on record to have happened at.
    pub(crate) newest_stamp: u64,
    checkpoint: Position,
    /// Revisions that the checkpoint knows to be live.
    live_revisions: HashSet<u64, RandomState>,
    /// Frames whose checksum was right and whose contents could not be read.
    pub(crate) unreadable_frames: u64,
}

/// A session as it was.
#[derive(Debug, Default)]
pub(crate) struct RecoveredSession {
    pub(crate) client_id: Box<str>,
    /// Whose it is.
    pub(crate) user: Option<Box<str>>,
    pub(crate) keep: Keep,
    /// How many connections it has had.
    pub(crate) epoch: u64,
    /// When its connection ended, and what had been sent; `None`: it had one.
    pub(crate) detached: Option<(u64, Begun)>,
    pub(crate) next_sequence: u64,
    pub(crate) subscriptions: BTreeMap<Box<str>, RecoveredSubscription>,
    pub(crate) received: HashSet<u16, RandomState>,
    /// Position of the delivery, packet id.
    pub(crate) completing: BTreeMap<u64, u16>,
    /// After [`Recovered::finish`]: in the order of their sequences.
    pub(crate) messages: Vec<RecoveredMessage>,
    /// What the checkpoint says is live: first and length, in ascending order.
    live: Vec<(u64, u64)>,
    /// What was to go to other members of its groups: first and length.
    given_up: Vec<(u64, u64)>,
    finished: HashSet<u64, RandomState>,
}

/// A message in a session's queue.
#[derive(Debug)]
pub(crate) struct RecoveredMessage {
    pub(crate) sequence: u64,
    pub(crate) position: Position,
    pub(crate) frame_bytes: u32,
    /// Bytes of topic, properties and payload.
    pub(crate) message_bytes: u32,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// It goes to another member of its group. At QoS 2 it was not sent.
    pub(crate) is_given_up: bool,
    pub(crate) extra: Option<Box<RecoveredExtra>>,
}

/// What few messages have.
#[derive(Debug)]
pub(crate) struct RecoveredExtra {
    /// Identifiers of the matching subscriptions.
    pub(crate) subscription_ids: Box<[u32]>,
    /// The filter of the shared subscription.
    pub(crate) shared: Option<Box<str>>,
}

/// What goes with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecoveredSubscription {
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_id: u32,
}

/// A retained message, or the end of one.
#[derive(Debug, Default)]
pub(crate) struct RecoveredRetained {
    pub(crate) revision: u64,
    /// `None`: it was removed.
    pub(crate) message: Option<OwnedMessage>,
    /// Who stored it.
    pub(crate) source: Option<Box<RecoveredSource>>,
    pub(crate) position: Position,
    pub(crate) frame_bytes: u32,
}

/// A client that has stored a retained message.
#[derive(Debug)]
pub(crate) struct RecoveredSource {
    pub(crate) client_id: Box<str>,
    pub(crate) user: Option<Box<str>>,
}

/// A message with its body.
#[derive(Debug)]
pub(crate) struct OwnedMessage {
    pub(crate) qos: QoS,
    pub(crate) expires_at: Option<u64>,
    pub(crate) properties: Box<[u8]>,
    pub(crate) payload: Box<[u8]>,
}

/// A will of a client that was connected, or whose delay was running.
#[derive(Debug)]
pub(crate) struct RecoveredWill {
    /// 0: none that outlived the connection.
    pub(crate) session: u64,
    pub(crate) retain: bool,
    pub(crate) delay: Duration,
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) topic: Box<str>,
    pub(crate) message: OwnedMessage,
    pub(crate) client_id: Box<str>,
    pub(crate) user: Option<Box<str>>,
}

impl Recovered {
    /// The retained messages by topic.
    pub(crate) fn take_retained(&mut self) -> impl Iterator<Item = (Box<str>, RecoveredRetained)> {
        std::mem::take(&mut self.retained).into_iter().filter(|(_, retained)| retained.message.is_some())
    }

    /// Everything is read: what is over goes, queues are put in order.
    pub(crate) fn finish(&mut self) {
        self.live_revisions = HashSet::default();
        for session in self.sessions.values_mut() {
            let (finished, completing) = (std::mem::take(&mut session.finished), &session.completing);
            session.messages.retain(|message| {
                !finished.contains(&message.sequence) && !completing.contains_key(&message.sequence)
            });
            session.completing.retain(|sequence, _| !finished.contains(sequence));
            // Of two copies of one delivery the later one: it was copied forward.
            session
                .messages
                .sort_unstable_by_key(|message| (message.sequence, std::cmp::Reverse(message.position)));
            session.messages.dedup_by_key(|message| message.sequence);
            session.messages.shrink_to_fit();
            session.live = Vec::new();
            session.mark_given_up();
        }
    }

    fn note_key(&mut self, key: u64) {
        self.next_key = self.next_key.max(key.saturating_add(1));
    }

    /// A record of a checkpoint or behind it.
    fn apply(&mut self, record: Record<'_>) {
        match record {
            Record::Session(SessionRecord { session, keep, client_id, epoch, user }) => {
                self.note_key(session);
                let known = self.sessions.entry(session).or_default();
                known.client_id = Box::from(client_id);
                known.keep = keep;
                known.epoch = known.epoch.max(epoch);
                known.user = user.map(Box::from);
                known.detached = None;
            }
            Record::SessionEnd { session } => {
                self.note_key(session);
                self.sessions.remove(&session);
            }
            Record::Detached { session, since, keep, begun } => {
                self.newest_stamp = self.newest_stamp.max(since);
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.keep = keep;
                    session.detached = Some((since, begun));
                }
            }
            Record::Subscribe(subscribe) => self.subscribe(&subscribe),
            Record::Unsubscribe { session, filter } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.subscriptions.remove(filter);
                }
            }
            Record::Received { session, id } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.received.insert(id);
                }
            }
            Record::Released { session, id } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.received.remove(&id);
                }
            }
            Record::Finished { session, sequences } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.finished.extend(sequences.iter());
                }
            }
            Record::Completing { session, sequence, id } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.completing.insert(sequence, id);
                    session.next_sequence = session.next_sequence.max(sequence + 1);
                }
            }
            Record::Snapshot { session, next_sequence, live, received } => {
                self.snapshot(session, next_sequence, live, received);
            }
            Record::GivenUp { session, runs } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.given_up.extend(pairs(runs));
                }
            }
            Record::Will(will) => self.will(&will),
            Record::WillEnd { will } => {
                self.note_key(will);
                self.wills.remove(&will);
            }
            Record::Revisions { differences } => {
                let mut revision = 0_u64;
                self.live_revisions.extend(differences.iter().map(|difference| {
                    revision = revision.wrapping_add(difference);
                    revision
                }));
            }
            Record::Counters { next_key, next_revision } => {
                self.next_key = self.next_key.max(next_key);
                self.next_revision = self.next_revision.max(next_revision);
            }
            Record::Clock(clock) => {
                self.newest_stamp = self.newest_stamp.max(clock.log_time);
                // A checkpoint is read first, and was written later than some of what stands behind
                // its position.
                if self.clock.is_none_or(|known| known.log_time <= clock.log_time) {
                    self.clock = Some(clock);
                }
            }
            // These belong to a message and its frame.
            Record::Message(_) | Record::Deliver(_) | Record::Retain { .. } => {}
            Record::Unretain { revision, topic } => self.unretain(topic, revision),
        }
    }

    fn subscribe(&mut self, subscribe: &SubscribeRecord<'_>) {
        let &SubscribeRecord { qos, no_local, retain_as_published, subscription_id, .. } = subscribe;
        if let Some(session) = self.sessions.get_mut(&subscribe.session) {
            let options = RecoveredSubscription { qos, no_local, retain_as_published, subscription_id };
            session.subscriptions.insert(Box::from(subscribe.filter), options);
        }
    }

    fn snapshot(
        &mut self,
        session: u64,
        next_sequence: u64,
        live: Numbers<'_, u64>,
        received: Numbers<'_, u16>,
    ) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.next_sequence = session.next_sequence.max(next_sequence);
            session.live.extend(pairs(live));
            session.received.extend(received.iter());
        }
    }

    fn will(&mut self, will: &WillRecord<'_>) {
        self.note_key(will.will);
        let message = OwnedMessage {
            qos: will.qos,
            expires_at: None,
            properties: Box::from(will.properties),
            payload: Box::from(will.payload),
        };
        self.wills.insert(
            will.will,
            RecoveredWill {
                session: will.session,
                retain: will.retain,
                delay: will.delay,
                expiry_seconds: will.expiry_seconds,
                topic: Box::from(will.topic),
                message,
                client_id: Box::from(will.client_id),
                user: will.user.map(Box::from),
            },
        );
    }

    fn deliver(&mut self, deliver: &DeliverRecord<'_>, message: &MessageRecord<'_>, place: Place) {
        let Some(session) = self.sessions.get_mut(&deliver.session) else { return };
        let sequence = deliver.sequence;
        if place.is_old && !session.is_live(sequence) {
            return;
        }
        session.next_sequence = session.next_sequence.max(sequence + 1);
        let shared = deliver.shared.map(Box::from);
        let subscription_ids: Box<[u32]> = deliver.subscription_ids.iter().collect();
        let bytes = message.topic.len() + message.properties.len() + message.payload.len();
        session.messages.push(RecoveredMessage {
            sequence,
            position: place.position,
            frame_bytes: place.frame_bytes,
            message_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            qos: deliver.qos,
            retain: deliver.retain,
            is_given_up: false,
            extra: (!subscription_ids.is_empty() || shared.is_some())
                .then(|| Box::new(RecoveredExtra { subscription_ids, shared })),
        });
    }

    fn retain(
        &mut self,
        message: &MessageRecord<'_>,
        revision: u64,
        source: Option<SourceRecord<'_>>,
        place: Place,
    ) {
        self.next_revision = self.next_revision.max(revision.saturating_add(1));
        if place.is_old && !self.live_revisions.contains(&revision) {
            return;
        }
        // Of the same revision the later place, for it was copied forward, unless it is over.
        let is_over = |known: &RecoveredRetained| {
            known.revision > revision || known.revision == revision && known.message.is_none()
        };
        if self.retained.get(message.topic).is_some_and(is_over) {
            return;
        }
        let topic = Box::from(message.topic);
        let source = source.map(|source| {
            let (client_id, user) = (Box::from(source.client_id), source.user.map(Box::from));
            Box::new(RecoveredSource { client_id, user })
        });
        let message = Some(OwnedMessage {
            qos: message.qos,
            expires_at: message.expires_at,
            properties: Box::from(message.properties),
            payload: Box::from(message.payload),
        });
        let Place { position, frame_bytes, .. } = place;
        self.retained.insert(topic, RecoveredRetained { revision, message, source, position, frame_bytes });
    }

    /// What the topic had up to this revision is over, wherever that stands. (Before the checkpoint
    /// nobody asks for this: it tells what is live there, and what else may stand behind it.)
    fn unretain(&mut self, topic: &str, revision: u64) {
        self.next_revision = self.next_revision.max(revision.saturating_add(1));
        if self.retained.get(topic).is_none_or(|known| known.revision <= revision) {
            self.retained.insert(Box::from(topic), RecoveredRetained { revision, ..Default::default() });
        }
    }
}

/// Pairs of numbers: first and length.
fn pairs(numbers: Numbers<'_, u64>) -> impl Iterator<Item = (u64, u64)> {
    let mut numbers = numbers.iter();
    std::iter::from_fn(move || Some((numbers.next()?, numbers.next()?)))
}

/// Where a frame is.
#[derive(Clone, Copy)]
struct Place {
    position: Position,
    frame_bytes: u32,
    /// Before the checkpoint.
    is_old: bool,
}

impl RecoveredSession {
    /// Its messages are in order, each is there once. What is told twice may be told in other runs.
    fn mark_given_up(&mut self) {
        let mut runs = std::mem::take(&mut self.given_up);
        runs.sort_unstable();
        let (mut runs, mut end) = (runs.into_iter().peekable(), 0);
        for message in &mut self.messages {
            while let Some((first, length)) = runs.next_if(|(first, _)| *first <= message.sequence) {
                end = end.max(first.saturating_add(length));
            }
            message.is_given_up = message.sequence < end;
        }
    }

    fn is_live(&self, sequence: u64) -> bool {
        let after = self.live.partition_point(|(first, _)| *first <= sequence);
        after
            .checked_sub(1)
            .and_then(|index| self.live.get(index))
            .is_some_and(|(first, length)| sequence - first < *length)
    }
}

impl Visitor for Recovered {
    fn checkpoint_position(&mut self, position: Position) {
        self.checkpoint = position;
    }

    fn checkpoint_frame(&mut self, body: &[u8]) {
        let mut records = Records::new(body);
        records.by_ref().for_each(|record| self.apply(record));
        self.unreadable_frames += u64::from(!records.is_whole());
    }

    fn frame(&mut self, position: Position, frame_bytes: u32, body: &[u8]) {
        let place = Place { position, frame_bytes, is_old: position < self.checkpoint };
        let mut message = None;
        let mut records = Records::new(body);
        for record in records.by_ref() {
            match (record, &message) {
                (Record::Message(found), _) => message = Some(found),
                (Record::Deliver(deliver), Some(message)) => self.deliver(&deliver, message, place),
                (Record::Retain { revision, source }, Some(message)) => {
                    self.retain(message, revision, source, place);
                }
                // What the checkpoint says is newer.
                (record, _) if !place.is_old => self.apply(record),
                _ => {}
            }
        }
        self.unreadable_frames += u64::from(!records.is_whole());
    }
}

#[cfg(test)]
mod tests;
