//! Answers that wait for the durable log.
//!
//! An acknowledgement leaves when everything that its connection had put on record by then is committed. The answers behind it wait as
//! well, so that they keep their order ([MQTT-4.6.0-2], [MQTT-4.6.0-3]). They are let go by the connection's task, or, where that saves a
//! lone client a task switch, by the log's thread itself.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::client::{ClientState, Link};
use super::flush::{By, flush, take_spare};
use super::{Client, Core};
use crate::accounts::{Account, Accounts, Charge, STEP};
use crate::ledger::Position;

/// The answers of one connection that wait.
#[derive(Default)]
pub(crate) struct Held {
    answers: VecDeque<(Position, Vec<u8>)>,
    bytes: usize,
    /// The watermark at which the connection is woken.
    woken_at: Position,
    /// What the answers are charged with.
    charge: Option<Charge>,
}

impl Held {
    /// Brings the charge up to date.
    fn settle(&mut self, accounts: &Arc<Accounts>) {
        let charge = self.charge.get_or_insert_with(|| Charge::new(accounts, Account::Answers, 0));
        charge.follow(self.bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A thread that has let answers go directly leaves those of others to their tasks for this long: it has a disk to write.
const DIRECT_AGAIN_AFTER: Duration = Duration::from_micros(100);

impl Core {
    /// Keeps answers until the log has come to `recorded`, or as long as those before them. `false` if there is nothing to wait for: then they
    /// stay with the caller.
    pub(crate) fn hold_answers(
        &self,
        client: &Client,
        epoch: u64,
        recorded: Option<Position>,
        answers: &mut Vec<u8>,
    ) -> bool {
        let mut state = client.lock();
        let Some(link) = state.link_of(epoch) else { return false };
        let last = link.held.as_ref().and_then(|held| held.answers.back()).map(|last| last.0);
        let Some(until) = recorded.max(last) else { return false };
        let held = link.held.get_or_insert_default();
        held.bytes += answers.len();
        match held.answers.back_mut() {
            Some(last) if last.0 == until => last.1.append(answers),
            _ => held.answers.push_back((until, std::mem::take(answers))),
        }
        held.settle(&self.accounts);
        true
    }

    /// Puts the answers for which the log has come far enough into the output, and has `task` woken for the next. `false` if none is left.
    pub(crate) fn release_answers(self: &Arc<Self>, client: &Arc<Client>, epoch: u64, task: &Waker) -> bool {
        let Some(log) = &self.log else { return false };
        let mut guard = client.lock();
        let state = &mut *guard;
        loop {
            let next = release_due(state, epoch, self.ledger.committed());
            let (Some(next), Some(link)) = (next, state.link_of(epoch)) else { return false };
            let Some(held) = &mut link.held else { return false };
            if held.woken_at != next {
                held.woken_at = next;
                let answerer = Answerer {
                    core: Arc::clone(self),
                    client: Arc::clone(client),
                    epoch,
                    task: task.clone(),
                };
                log.wake_at(next, &Waker::from(Arc::new(answerer)));
            }
            if self.ledger.committed() < next {
                return true;
            }
        }
    }

    /// Where the log has to come for the last answer of a connection; `None` if none waits.
    pub(crate) fn held_until(&self, client: &Client, epoch: u64) -> Option<Position> {
        let mut state = client.lock();
        let held = state.link_of(epoch)?.held.as_ref()?;
        held.answers.back().map(|last| last.0)
    }
}

/// Moves what is due to the output; returns what the next answer waits for.
fn release_due(state: &mut ClientState, epoch: u64, committed: Position) -> Option<Position> {
    let link = state.link.as_mut().filter(|link| link.epoch == epoch)?;
    let held = link.held.as_mut()?;
    while let Some((until, _)) = held.answers.front()
        && *until <= committed
        && let Some((_, answers)) = held.answers.pop_front()
    {
        held.bytes -= answers.len();
        if let Some(charge) = &mut held.charge {
            charge.follow(held.bytes);
        }
        state.session.out.lend(take_spare);
        state.session.send_acks(&answers);
    }
    let next = held.answers.front().map(|next| next.0);
    if next.is_none() {
        link.held = None;
    }
    next
}

/// Wakes a connection's task when the log has moved, or does for it what it would do.
struct Answerer {
    core: Arc<Core>,
    client: Arc<Client>,
    epoch: u64,
    task: Waker,
}

thread_local! {
    static LAST_DIRECT: Cell<Option<Instant>> = const { Cell::new(None) };
}

impl Wake for Answerer {
    fn wake(self: Arc<Self>) {
        // Where registration finds that the log is there already, the caller holds the client's lock.
        let Some(mut state) = self.client.try_lock() else {
            self.task.wake_by_ref();
            return;
        };
        let now = Instant::now();
        let is_free = LAST_DIRECT.get().is_none_or(|last| now.duration_since(last) > DIRECT_AGAIN_AFTER);
        let is_simple = |link: &Link| link.socket.is_some() && !link.blocked && !link.writing;
        if !is_free
            || state.replays.is_some()
            || !state.link_of(self.epoch).is_some_and(|link| is_simple(link))
        {
            drop(state);
            self.task.wake_by_ref();
            return;
        }
        LAST_DIRECT.set(Some(now));
        // Its task may have stopped reading for them.
        let were_many = state
            .link_of(self.epoch)
            .and_then(|link| link.held.as_ref())
            .is_some_and(|held| held.bytes >= STEP);
        // This may be the log's thread: a fault of one connection must not end it.
        let next = catch_unwind(AssertUnwindSafe(|| {
            let next = release_due(&mut state, self.epoch, self.core.ledger.committed());
            drop(state);
            flush(&self.core, &self.client, self.core.now(), By::Publisher);
            next
        }));
        if were_many || !matches!(next, Ok(None)) {
            self.task.wake_by_ref();
        }
    }
}
