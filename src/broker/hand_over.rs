//! Handing over: what a session gives away, in slices.
//!
//! A session gives messages of shared subscriptions away when it ends, when its connection is gone
//! while other members are connected, and when it unsubscribes. They first move into
//! [`ClientState::leaving`]; a task of the broker ([`Core::run_background`]) then gives them to other
//! members, a bounded number in each turn. What is in the log only is read back on a thread that
//! may block.
//!
//! On record a message belongs to the old session until it has a new owner: each one is a single
//! frame with the message, the new owner's delivery and the end of the old one. So a crash between
//! two slices loses nothing that anybody is there for: a group lives after a crash only by members
//! whose sessions are kept. What is still to go to others, all with clean sessions, has no subscriber
//! at the next start, and is dropped. The old session's own end ([`Record::SessionEnd`]) comes last. Before
//! that it is on record as one that is kept for no time, so a start knows that nobody may have it
//! back, and goes on with its end.
//!
//! What a session has left by UNSUBSCRIBE, or may not have any more, and was not sent, is on record as
//! given up ([`Record::GivenUp`]) before anything behind it is sent: other records of the session say
//! only that everything below some place was sent ([`Begun`]). A start gives it to others, and at QoS 2
//! nothing else that may have been sent.
//!
//! The log has to have room for that. On a full disk half of what the reserve had is used for it:
//! who gets the messages makes room by acknowledging. A session that is not over takes back what is
//! left when its client is there again first, and it makes room in the same way.
//!
//! A session that has left the registry is found in [`Core::leaving`] until its end is on record:
//! checkpoints look there as well.

mod leaving;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use leaving::Leaving;
use leaving::{EndedSession, Given, runs};

use super::fan_out::Publishing;
use super::load::Loaded;
use super::turn_log::{Retention, TurnLog};
use super::{Client, ClientState, Core, Turn};
use crate::escape::escape;
use crate::ledger::Position;
use crate::session::{DropReason, Expiry, GivenUp, Outgoing, SharedMessage, Subscriptions};
use crate::storage::{Begun, HandOverRoom, Numbers, Record};

/// Messages given to other members in one turn.
const SLICE_MESSAGES: usize = 64;
/// Bytes of messages read back for one turn, but for one message that is larger.
const SLICE_BYTES: usize = 256 * 1024;
/// How long a hand-over waits for room before it looks again.
const ROOM_PAUSE: Duration = Duration::from_millis(100);
/// Filters of an ended session that leave the router in one turn.
pub(super) const SLICE_FILTERS: usize = 256;
/// Runs of messages in one record of what is given up.
const RUNS_PER_RECORD: usize = 4_096;

/// How far a slice has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is nothing left.
    Done,
    /// There is more to do.
    Some,
    /// There is more to do, and the first of it has to wait: for its own record, or for the disk.
    None,
}

/// Tells what a session gives up for good, in records of a bounded size.
pub(super) fn tell_given_up(session: u64, runs: &[(u64, u64)], mut tell: impl FnMut(&Record<'_>)) {
    for runs in runs.chunks(RUNS_PER_RECORD) {
        let runs: Vec<u64> = runs.iter().flat_map(|(first, length)| [*first, *length]).collect();
        tell(&Record::GivenUp { session, runs: Numbers::Slice(&runs) });
    }
}

impl Core {
    /// Gives messages of a session to other members, a little later. Under the client's lock, in the
    /// turn that has taken them out.
    pub(super) fn give_away(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        messages: Vec<SharedMessage>,
    ) {
        if messages.is_empty() {
            return;
        }
        let leaving = state.leaving.get_or_insert_default();
        leaving.add(messages, &self.accounts);
        self.look_after(client, leaving);
    }

    /// The client is about to be connected again: what its session gives away and nobody has yet
    /// stays with it. Under its lock, in a turn.
    pub(super) fn take_back(&self, client: &Client, state: &mut ClientState) {
        let Some(leaving) = &mut state.leaving else { return };
        let (back, given_up) = leaving.take_back(|message| self.may_receive(client, message.topic()));
        state.session.take_back(back);
        // No more than that: whoever connects again and again must not write it each time.
        if state.session.is_durable() {
            self.record_given_up(client, &given_up);
        }
        self.settle(client, state);
    }

    /// The client has left these subscriptions: what it has of them and was not sent is given up for
    /// good. In a turn, under its lock.
    pub(super) fn give_up(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        is_left: impl Fn(&str) -> bool,
    ) {
        let given = state.session.take_shared(|shared| is_left(shared), GivenUp::Waiting);
        self.settle(client, state);
        if state.session.is_durable() {
            let mut sequences: Vec<u64> = given.iter().map(|message| message.sequence).collect();
            sequences.sort_unstable();
            self.record_given_up(client, &runs(sequences.into_iter()));
        }
        self.give_away(client, state, given);
    }

    /// Puts on record that a session was not sent these at QoS 2, and is not going to be. Under its
    /// lock: what is told of it later says that all below a place was sent.
    fn record_given_up(&self, client: &Client, runs: &[(u64, u64)]) {
        let mut turn_log = TurnLog::default();
        tell_given_up(client.key, runs, |record| turn_log.record(record, false));
        turn_log.commit(self);
    }

    /// The messages whose groups have other members; those of others are lost with their last one.
    pub(super) fn of_groups_that_go_on(&self, mut messages: Vec<SharedMessage>) -> Vec<SharedMessage> {
        let before = messages.len();
        messages.retain(|message| self.groups.contains_key(&message.filter));
        let lost = before - messages.len();
        self.metrics.dropped.add(DropReason::SharedGroupGone.label(), lost as u64);
        messages
    }

    fn look_after(&self, client: &Arc<Client>, leaving: &mut Leaving) {
        if !std::mem::replace(&mut leaving.is_queued, true) {
            client.set_giving_away(true);
            self.background.sessions.push(Arc::clone(client));
        }
    }

    /// The session has ended, and has more to give away than fits into the turn of its end. Under its
    /// lock. From now on nobody may have it back, after a crash neither; `Some`: when that is safe.
    pub(super) fn end_in_slices(
        &self,
        client: &Arc<Client>,
        state: &mut ClientState,
        is_durable: bool,
        begun: Begun,
        filters: Subscriptions,
    ) -> Option<Position> {
        // Before the registry forgets it: a checkpoint finds it here or there.
        self.leaving.insert(client.key, Arc::clone(client));
        let leaving = state.leaving.get_or_insert_default();
        leaving.ended = Some(EndedSession { is_durable, filters, next_filter: Some(0) });
        self.look_after(client, leaving);
        if !is_durable {
            return None;
        }
        let mut turn_log = TurnLog::default();
        turn_log.record(&self.kept_for_no_time(client, begun), true);
        turn_log.commit(self)
    }

    /// What the log has of a session that ends in slices: also what it had begun, for that ends
    /// with it at QoS 2 ([MQTT-4.8.2-5]).
    pub(super) fn kept_for_no_time(&self, client: &Client, begun: Begun) -> Record<'static> {
        let (session, since) = (client.key, self.log_time(self.now()));
        let keep = Some(Duration::ZERO);
        Record::Detached { session, since, keep, begun }
    }

    /// Goes on with the end of a session at which the last run was stopped.
    pub(super) fn resume_end(&self, client: &Arc<Client>, messages: Vec<SharedMessage>) {
        self.leaving.insert(client.key, Arc::clone(client));
        let mut state = client.lock();
        let filters = state.session.end();
        let leaving = state.leaving.get_or_insert_default();
        leaving.add(messages, &self.accounts);
        leaving.ended = Some(EndedSession { is_durable: true, filters, next_filter: None });
        self.look_after(client, leaving);
    }

    /// One slice of a session.
    pub(super) async fn hand_over_slice(self: &Arc<Self>, client: &Arc<Client>) -> Progress {
        let mut room = HandOverRoom::ALL;
        if let Some(log) = &self.log {
            room = log.room_to_hand_over();
            if room.is_none() {
                // Nobody tells when others' acknowledgements have made so much room on a full disk.
                let _ = tokio::time::timeout(ROOM_PAUSE, log.wait_not_full()).await;
                room = log.room_to_hand_over();
            }
            if room.is_none() {
                return Progress::None;
            }
        }
        let wanted = client.lock().leaving.as_ref().map(|leaving| leaving.wanted()).unwrap_or_default();
        let loaded = if wanted.is_empty() {
            Vec::new()
        } else {
            let core = Arc::clone(self);
            tokio::task::spawn_blocking(move || core.load(wanted)).await.unwrap_or_default()
        };
        // One session's fault must not end the hand-overs of all others.
        catch_unwind(AssertUnwindSafe(|| self.hand_over_loaded(client, loaded, room))).unwrap_or_else(|_| {
            tracing::error!(client_id = %escape(&client.id), "a hand-over between members panicked");
            if client.lock().leaving.is_some() { Progress::None } else { Progress::Done }
        })
    }

    /// The turn of one slice, of which no more goes on record than has `room`.
    fn hand_over_loaded(&self, client: &Arc<Client>, loaded: Vec<Loaded>, room: HandOverRoom) -> Progress {
        let mut turn = Turn::new();
        turn.begin(self);
        // Between being taken out and given to somebody, who may be this session, its messages are
        // nowhere. A connection that attached now would get those behind them first.
        let (from, given, is_stuck, _moving) = {
            let mut state = client.lock();
            let moving = state.link.is_none().then(|| Publishing::of(client));
            let is_on_record = state.gives_from_log();
            let Some(leaving) = &mut state.leaving else { return Progress::Done };
            let from = is_on_record.then_some(client.key);
            let given = leaving.take_slice(loaded, is_on_record, room);
            let is_stuck = given.is_empty() && !leaving.messages.is_empty();
            (from, given, is_stuck, moving)
        };
        let mut given = given.into_iter();
        while let Some(next) = given.next() {
            self.hand_over(&mut turn, from, next);
            // A group of many clean sessions is looked through for each message.
            if turn.budget.is_spent()
                && given.len() > 0
                && let Some(leaving) = &mut client.lock().leaving
            {
                leaving.put_back(given.by_ref().map(|given| given.shared));
            }
        }
        let has_more = self.leave_router(&mut turn, client);
        turn.finish(self);
        match has_more {
            false => Progress::Done,
            true if is_stuck => Progress::None,
            true => Progress::Some,
        }
    }

    /// When a session has given all its messages away: its filters leave the router, then it is over.
    fn leave_router(&self, turn: &mut Turn, client: &Arc<Client>) -> bool {
        let filters = {
            let mut state = client.lock();
            let Some(leaving) = &mut state.leaving else { return false };
            if !leaving.messages.is_empty() {
                return true;
            }
            let Some(ended) = &mut leaving.ended else {
                state.leaving = None;
                client.set_giving_away(false);
                return false;
            };
            let slice = ended.next_filter.map(|from| ended.filters.slice(from, SLICE_FILTERS));
            let Some((filters, next)) = slice else {
                if ended.is_durable {
                    turn.log.record(&Record::SessionEnd { session: client.key }, false);
                }
                state.leaving = None;
                client.set_giving_away(false);
                client.end_charge();
                drop(state);
                // In this turn: a checkpoint that does not find it waits for its end on record.
                self.leaving.remove(&client.key);
                return false;
            };
            ended.next_filter = next;
            filters
        };
        let mut state = client.lock();
        for filter in filters {
            self.remove_subscription(&filter, client.key, &mut state);
        }
        true
    }

    /// Gives a message to another member of its group. On record it leaves the session `from`, if that
    /// is durable, and enters the other one at once.
    fn hand_over(&self, turn: &mut Turn, from: Option<u64>, given: Given) {
        let Given { shared, message } = given;
        let SharedMessage { filter, sequence, .. } = &shared;
        let sequences = [*sequence];
        let finished =
            from.map(|session| Record::Finished { session, sequences: Numbers::Slice(&sequences) });
        let Some(message) = message.map(Arc::new) else {
            tracing::error!("a message in the data directory cannot be read back and is lost");
            self.metrics.dropped.add("unreadable", 1);
            finished.iter().for_each(|finished| turn.log.record(finished, false));
            return;
        };
        // To the next member it has not begun ([MQTT-3.3.2-5]).
        if message.expiry(turn.now) == Expiry::Over {
            turn.count_drop(DropReason::Expired, 1);
            finished.iter().for_each(|finished| turn.log.record(finished, false));
            return;
        }
        let group = self.groups.get(filter).map(|entry| Arc::clone(entry.value()));
        let mut scratch = std::mem::take(&mut turn.scratch);
        let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch);
        match group.as_ref().and_then(|group| group.group.as_ref()) {
            // What is on record stays there, if anybody's session can have it there.
            Some(group) if from.is_some() && self.deliver_to_durable(turn, group, &mut outgoing) => {}
            Some(group) => self.deliver_shared(turn, group, &mut outgoing),
            None => turn.count_drop(DropReason::SharedGroupGone, 1),
        }
        turn.log.publish(self, &mut outgoing, Retention::None, finished.as_slice(), false);
        turn.scratch = scratch;
    }
}

#[cfg(test)]
mod testing;
