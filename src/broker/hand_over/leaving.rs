//! `Leaving`: the messages that a session gives away and nobody has yet.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{SLICE_BYTES, SLICE_MESSAGES};
use crate::accounts::{Account, Accounts, Charge};
use crate::broker::full_disk::DELIVERY_BYTES;
use crate::broker::load::Loaded;
use crate::ledger::{Position, Stored};
use crate::session::{Message, Session, SharedMessage, Shed, Subscriptions};
use crate::storage::HandOverRoom;

/// What a session gives away. See the module's documentation.
#[derive(Default)]
pub(crate) struct Leaving {
    /// By their sequence, if the session is durable.
    pub(super) messages: VecDeque<SharedMessage>,
    /// Set when the session has ended.
    pub(super) ended: Option<EndedSession>,
    /// It is among those that the task looks after.
    pub(super) is_queued: bool,
    /// Of what is in memory.
    charge: Option<Charge>,
    /// The same without the room for entries.
    bytes: usize,
}

/// A session that has ended and has not given everything away.
pub(super) struct EndedSession {
    pub(super) is_durable: bool,
    /// Filters to leave the router, from this one on.
    pub(super) filters: Subscriptions,
    pub(super) next_filter: Option<usize>,
}

/// Bytes of an entry.
const ENTRY: usize = size_of::<SharedMessage>();

/// Room for no more entries than this is kept.
const ROOM_KEPT: usize = 64;

/// Bytes that it holds in memory for this session, besides its entry.
fn memory_of(shared: &SharedMessage) -> usize {
    shared.origin_bytes() + shared.message.as_ref().map_or(0, |message| message.memory_of_holder())
}

/// The same with its entry, and with a body that others may hold as well.
fn held_by(shared: &SharedMessage) -> usize {
    ENTRY + shared.origin_bytes() + shared.message.as_ref().map_or(0, |message| message.memory())
}

/// Bytes that it takes on record at its new place, about, with the end at its old one.
fn recorded(shared: &SharedMessage) -> usize {
    let message = match &shared.message {
        Ok(message) => message.cost(),
        Err(stored) => stored.bytes() as usize,
    };
    message + DELIVERY_BYTES
}

/// A message that leaves its session in this turn.
pub(super) struct Given {
    /// Where it was. Its place in the log is given up in the turn that puts its new one on record.
    pub(super) shared: SharedMessage,
    /// `None`: it cannot be read.
    pub(super) message: Option<Message>,
}

impl Leaving {
    /// Messages that are given away from now on.
    pub(super) fn add(&mut self, messages: Vec<SharedMessage>, accounts: &Arc<Accounts>) {
        self.messages.extend(messages);
        self.messages.make_contiguous().sort_by_key(|message| message.sequence);
        self.charge.get_or_insert_with(|| Charge::new(accounts, Account::Waiting, 0));
        self.recharge();
    }

    /// Bytes that it holds in memory, whoever else holds them as well.
    pub(in crate::broker) fn holds(&self) -> usize {
        self.messages.iter().map(held_by).sum()
    }

    /// What is written to the log leaves memory. In a turn.
    pub(in crate::broker) fn unload(&mut self, written: Position) {
        for shared in &mut self.messages {
            if let Ok(message) = &shared.message
                && let Some(stored) = message.stored().filter(|stored| stored.position() < written)
            {
                shared.message = Err(Stored::new(stored.ledger(), stored.position(), stored.bytes()));
            }
        }
        self.recharge();
    }

    /// Gives up what a session that is not durable gives away, oldest first, until `bytes` are given
    /// back, as far as there is any.
    pub(in crate::broker) fn shed(&mut self, bytes: usize) -> Shed {
        let mut shed = Shed::default();
        while shed.bytes < bytes
            && let Some(oldest) = self.messages.pop_front()
        {
            shed += Shed { messages: 1, bytes: held_by(&oldest) };
        }
        self.recharge();
        shed
    }

    /// Counts anew what is in memory.
    fn recharge(&mut self) {
        self.bytes = self.messages.iter().map(memory_of).sum();
        self.settle();
    }

    /// Charges that, and the room for entries, of which much is given back after many have gone.
    fn settle(&mut self) {
        let room = self.messages.capacity();
        if room > ROOM_KEPT && self.messages.len() < room / 4 {
            self.messages.shrink_to(room / 2);
        }
        let bytes = self.bytes + self.messages.capacity() * ENTRY;
        self.charge.iter_mut().for_each(|charge| charge.set(bytes));
    }

    /// Whether there is no room for further messages beside those that wait for the session: they
    /// may come back to it, and are bounded together.
    pub(in crate::broker) fn fills(&self, session: &Session) -> bool {
        let in_memory = self.charge.as_ref().map_or(0, Charge::bytes);
        let limits = session.limits();
        self.messages.len() + session.queued() >= limits.queue_messages_max
            || in_memory + session.held_bytes() >= limits.queue_bytes_max
    }

    /// What its session has again, oldest first: what was sent, and what waits and it `may` get. The
    /// others are given up for good; those of them that were not before, as runs.
    pub(super) fn take_back(
        &mut self,
        may: impl Fn(&Message) -> bool,
    ) -> (Vec<SharedMessage>, Vec<(u64, u64)>) {
        let comes_back = |shared: &SharedMessage| {
            shared.origin.is_some()
                && (shared.is_begun() || shared.message.as_ref().ok().is_none_or(|message| may(message)))
        };
        let (back, mut others): (Vec<_>, Vec<_>) = self.messages.drain(..).partition(comes_back);
        let news = others.iter_mut().filter_map(|other| other.origin.take().map(|_| other.sequence));
        let news = runs(news);
        self.messages = others.into();
        self.recharge();
        (back, news)
    }

    /// Behind the last message that its session may have been sent.
    pub(in crate::broker) fn begun(&self) -> u64 {
        let last = self.messages.iter().rev().find(|message| message.is_begun());
        last.map_or(0, |last| last.sequence + 1)
    }

    /// Whether it is a durable session's that has ended: its end is still to be put on record.
    pub(in crate::broker) fn ends_on_record(&self) -> bool {
        self.ended.as_ref().is_some_and(|ended| ended.is_durable)
    }

    /// The sequences that still belong to the session, oldest first.
    pub(in crate::broker) fn sequences(&self) -> impl Iterator<Item = u64> {
        self.messages.iter().map(|message| message.sequence)
    }

    /// Of those, as runs: what does not come back. At QoS 2 nothing of it was sent.
    pub(in crate::broker) fn given_up(&self) -> Vec<(u64, u64)> {
        let for_good = self.messages.iter().filter(|message| message.origin.is_none());
        runs(for_good.map(|message| message.sequence))
    }

    /// These were taken out and did not go: they are the next again.
    pub(super) fn put_back(&mut self, rest: impl DoubleEndedIterator<Item = SharedMessage>) {
        rest.rev().for_each(|shared| self.messages.push_front(shared));
        self.recharge();
    }

    pub(super) fn find(&self, sequence: u64) -> Option<&SharedMessage> {
        let found = self.messages.binary_search_by_key(&sequence, |message| message.sequence).ok()?;
        self.messages.get(found)
    }

    /// Where a message is in the log.
    pub(in crate::broker) fn position_of(&self, sequence: u64) -> Option<Position> {
        self.find(sequence)?.stored().map(|stored| stored.position())
    }

    /// A message was copied from one place in the log to another.
    pub(in crate::broker) fn moved(&self, sequence: u64, from: Position, to: Position) {
        if let Some(stored) = self.find(sequence).and_then(SharedMessage::stored) {
            stored.move_to(from, to);
        }
    }

    /// What of the next slice is in the log only.
    pub(super) fn wanted(&self) -> Vec<(u64, Position)> {
        let mut bytes = 0;
        let slice = self.messages.iter().take(SLICE_MESSAGES);
        let in_log = slice.filter_map(|message| match &message.message {
            Ok(_) => None,
            Err(stored) => Some((message.sequence, stored)),
        });
        in_log
            .take_while(|(_, stored)| {
                let is_within = bytes == 0 || bytes + stored.bytes() as usize <= SLICE_BYTES;
                bytes += stored.bytes() as usize;
                is_within
            })
            .map(|(sequence, stored)| (sequence, stored.position()))
            .collect()
    }

    /// Takes the next slice out, up to the first message that was not read back or, if the session
    /// is on record, is not there itself: a message with many receivers comes on record behind the
    /// last of them, and the end of a delivery must not stand before it.
    /// No more than there is `room` for: on a full disk one slice could need more than there is, and
    /// then nothing could be written behind it.
    pub(super) fn take_slice(
        &mut self,
        loaded: Vec<Loaded>,
        is_on_record: bool,
        room: HandOverRoom,
    ) -> Vec<Given> {
        let mut loaded = loaded.into_iter().peekable();
        let mut given = Vec::new();
        let mut bytes = 0;
        while given.len() < SLICE_MESSAGES
            && let Some(next) = self.messages.front()
        {
            bytes += recorded(next);
            if bytes > room.bytes && !(room.at_least_one && given.is_empty()) {
                break;
            }
            let message = match &next.message {
                Ok(message) if is_on_record && message.stored().is_none() => break,
                // Others may hold it as well, and put it on record at a place of their own.
                Ok(message) => Some(message.without_place()),
                Err(stored) => {
                    let Some((_, from, read)) = loaded.next_if(|(sequence, ..)| *sequence == next.sequence)
                    else {
                        break;
                    };
                    match read {
                        Ok(message) => Some(message),
                        // Copied forward, or to be written again, meanwhile: it is asked for again.
                        Err(error) if error.is_passing() => break,
                        Err(_) if stored.position() != from => break,
                        Err(_) => None,
                    }
                }
            };
            let Some(shared) = self.messages.pop_front() else { break };
            given.push(Given { shared, message });
        }
        // What one holds may have changed since it was charged.
        let gone: usize = given.iter().map(|given| memory_of(&given.shared)).sum();
        self.bytes = self.bytes.saturating_sub(gone);
        self.settle();
        given
    }
}

/// Ascending numbers as runs: first and length.
pub(super) fn runs(numbers: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((first, length)) if *first + *length == number => *length += 1,
            _ => runs.push((number, 1)),
        }
    }
    runs
}
