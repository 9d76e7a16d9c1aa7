//! What all clients together hold in memory (`accounts.rs`), and what is done when it is above
//! `limits.memory_max`.
//!
//! Each client has on it what it is charged with ([`Client::charge`]), brought up to date under its
//! lock where its queue, its output or what is on its way to it has changed for longer than a turn:
//! when a message is queued, when a socket has taken or left something, when a session ends.
//! Delivery to a client that reads touches nothing here. A body that may have several holders is
//! charged once ([`Message::charge_to`]).
//!
//! Whoever finds the sum above the bound at the end of a turn brings it down to 7/8 of it. The steps,
//! each only if those before were not enough:
//!
//! 1. What is on disk as well leaves memory, of the longest first.
//! 2. QoS 0 messages in unwritten output are dropped, oldest first: the longest are cut to one length.
//! 3. Connections in the midst of a large packet are closed: nothing of it was acknowledged, unlike
//!    what is given up from here on. One whose bytes are read at this moment is passed over: it may
//!    complete its packet, and those who hold what cannot be dropped go before it.
//! 4. Messages of QoS 1 and 2 that are in memory only are dropped in the same way.
//!
//!    What a session gives to other members of a group ([`hand_over`](super::hand_over)) counts like
//!    its queue in 1 and 4, also when it has ended: on a full or failing disk it waits for long.
//! 5. A message on disk has an entry in its client's queue, which is in memory. If entries fill more
//!    than half of the bound, the longest queues lose their oldest messages.
//!
//! If the sum is above the bound even then:
//!
//! 6. Those with most unwritten output and waiting answers are closed.
//! 7. The longest queues lose their oldest messages, on disk or not.
//!
//! What a round could not bring below the bound is left alone for a while. What others can hold in
//! spite of 1 to 6 (retained messages, wills, aliases, subscriptions, handshakes) is bounded by parts
//! of the bound, which leave three eighths of it for entries.
//!
//! [`Message::charge_to`]: crate::session::Message::charge_to

mod close;
mod tell;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

pub(super) use self::close::Closed;
use super::client::signal;
use super::{Client, ClientState, Core};
use crate::accounts::{Account, Accounts};
use crate::session::{Shed, Sheddable};

/// The name of the bound in the configuration.
const LIMIT: &str = "limits.memory_max";
/// Why a message was dropped, in the metrics.
const LIMIT_REASON: &str = "memory_max";

/// See the module's documentation.
pub(super) struct Memory {
    accounts: Arc<Accounts>,
    /// Held by the one who sheds: milliseconds to the next round, after one that was not enough.
    shedding: Mutex<u64>,
    /// No other round before this moment of the broker's clock, unless the sum comes to `unless`.
    not_before: AtomicU64,
    unless: AtomicUsize,
    /// Bytes of what connections that have ended are still to be sent.
    last_words: AtomicUsize,
}

/// Times that the clients are gone through in one round: some may hold what cannot be given up, or
/// what others hold as well.
const PASSES_MAX: usize = 6;

/// After a round that was not enough the next one comes after this, and then after twice the time before.
const PAUSE_MIN_MS: u64 = 100;
const PAUSE_MAX_MS: u64 = 5_000;
/// Or when the sum has grown by this part of the bound.
const GROWN_PART: usize = 8;

/// The part of the bound that entries of queues may fill while there is something else to be given up.
const ENTRIES_PART: usize = 2;

/// A client with what it holds.
struct Holder {
    client: Arc<Client>,
    bytes: usize,
    shed: Shed,
    /// Bytes that somebody else gives back, who is writing this client's output at this moment.
    promised: usize,
}

impl Memory {
    pub(super) fn new(accounts: &Arc<Accounts>) -> Self {
        Self {
            accounts: Arc::clone(accounts),
            shedding: Mutex::new(0),
            not_before: AtomicU64::new(0),
            unless: AtomicUsize::new(0),
            last_words: AtomicUsize::new(0),
        }
    }

    /// Another bound, for the end of the next turn.
    pub(super) fn set_max(&self, max: Option<usize>) {
        self.accounts.set_max(max);
        self.not_before.store(0, Ordering::Relaxed);
    }

    /// Bytes that wait for clients or are on their way to them.
    pub(super) fn waiting(&self) -> usize {
        let accounts = [Account::Waiting, Account::Bodies, Account::InFlight];
        accounts.into_iter().map(|account| self.accounts.of(account)).sum()
    }

    /// A connection that has ended is still to be sent so many bytes.
    pub(super) fn add_last_words(&self, bytes: usize) {
        self.last_words.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are sent, or given up.
    pub(super) fn remove_last_words(&self, bytes: usize) {
        self.last_words.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What clients have waiting has grown or shrunk.
    pub(super) fn add(&self, bytes: i64) {
        self.accounts.add(Account::Waiting, bytes);
    }

    /// Whether a round may begin at this moment.
    fn is_due(&self, now: u64) -> bool {
        now >= self.not_before.load(Ordering::Relaxed)
            || self.accounts.total() >= self.unless.load(Ordering::Relaxed)
    }

    /// A round is over: whoever comes next waits, if it was not enough.
    fn pause(&self, pause: &mut u64, now: u64) {
        *pause = if self.accounts.is_over() { (*pause * 2).clamp(PAUSE_MIN_MS, PAUSE_MAX_MS) } else { 0 };
        let grown = self.accounts.total().saturating_add(self.accounts.max() / GROWN_PART);
        self.unless.store(grown, Ordering::Relaxed);
        self.not_before.store(now + *pause, Ordering::Relaxed);
    }
}

impl Core {
    /// Brings the accounts up to date with what a client holds now.
    pub(crate) fn settle(&self, client: &Client, state: &mut ClientState) {
        if let Some(link) = &mut state.link {
            link.charged_steps = 0;
        }
        state.session.charge_output(&self.accounts);
        let charged = state.session.charged();
        self.accounts.add(Account::Waiting, client.charge(charged.waiting));
        let in_flight = client.charge_in_flight(charged.in_flight, charged.kept);
        self.accounts.add(Account::InFlight, in_flight);
    }

    /// Sheds if the sum is above its bound. Not under any lock.
    pub(super) fn shed_if_over(&self) {
        if !self.accounts.is_over() {
            return;
        }
        let now = self.now().as_millis();
        if !self.memory.is_due(now) {
            return;
        }
        // Somebody is at it: what comes meanwhile is seen at the end of the next turn.
        let Some(mut pause) = self.memory.shedding.try_lock() else { return };
        self.shed(self.accounts.max());
        self.memory.pause(&mut pause, now);
    }

    fn shed(&self, max: usize) {
        let target = max / 8 * 7;
        let over = || self.accounts.total().saturating_sub(target);
        // Collected first: no guard of the registry is held while a client's lock is taken.
        let registered = self.clients.iter().map(|entry| Arc::clone(entry.value()));
        let mut clients: Vec<Arc<Client>> = registered.filter(|client| client.is_charged()).collect();
        clients.extend(self.leaving.iter().map(|entry| Arc::clone(entry.value())));
        // One that moves from those to these is in both.
        clients.sort_unstable_by_key(|client| client.key);
        clients.dedup_by_key(|client| client.key);
        let holder = |client: Arc<Client>| {
            let bytes = holds(&client.lock(), Sheddable::Any);
            Holder { client, bytes, shed: Shed::default(), promised: 0 }
        };
        let mut holders: Vec<Holder> = clients.into_iter().map(holder).collect();
        let before = self.accounts.total();
        let wanted = self.held_in_common(&holders, over());
        let level = level(&mut holders, wanted);
        for holder in holders.iter_mut().take_while(|holder| holder.bytes > level) {
            self.unload(holder);
        }
        let unloaded = before.saturating_sub(self.accounts.total());
        self.shed_messages(&mut holders, Sheddable::AtMostOnce, target);
        let mut closed = self.close_unfinished(over().saturating_sub(promised(&holders)));
        self.shed_messages(&mut holders, Sheddable::Any, target + closed.given_back);
        closed.given_back += promised(&holders);
        if self.kept() > max {
            // It is not those who would have to give something up.
            self.tell_shedding(max, before, unloaded, closed.connections, holders);
            return;
        }
        if over() > closed.given_back {
            self.shed_entries(&mut holders, |entries| {
                let part = max / ENTRIES_PART;
                if entries > part { entries - part / 8 * 7 } else { 0 }
            });
        }
        let too_much = self.accounts.total().saturating_sub(max).saturating_sub(closed.given_back);
        if too_much > 0 {
            closed += self.close_largest_holders(too_much);
            let too_much = self.accounts.total().saturating_sub(max).saturating_sub(closed.given_back);
            if too_much > 0 {
                self.shed_entries(&mut holders, |_| too_much + max / 8);
            }
        }
        self.tell_shedding(max, before, unloaded, closed.connections, holders);
    }

    /// Bytes of what is never given up for others.
    fn kept(&self) -> usize {
        let kept = [
            Account::Retained,
            Account::Wills,
            Account::Aliases,
            Account::Subscriptions,
            Account::Sessions,
            Account::Ended,
            Account::Handshakes,
            Account::Routes,
        ];
        kept.into_iter().map(|account| self.accounts.of(account)).sum()
    }

    /// How much has to be given up for `bytes` to be given back, if what clients hold is held by
    /// several of them.
    fn held_in_common(&self, holders: &[Holder], bytes: usize) -> usize {
        let held: usize = holders.iter().map(|holder| holder.bytes).sum();
        let charged = self.memory.waiting().max(1);
        let wanted = bytes as u128 * held.max(charged) as u128 / charged as u128;
        usize::try_from(wanted).unwrap_or(usize::MAX)
    }

    /// Cuts the longest to one length, until the sum is no more than `target`, as far as they have
    /// messages that may be given up.
    fn shed_messages(&self, holders: &mut [Holder], what: Sheddable, target: usize) {
        let over = |holders: &[Holder]| {
            self.accounts.total().saturating_sub(target).saturating_sub(promised(holders))
        };
        if over(holders) == 0 {
            return;
        }
        for holder in holders.iter_mut() {
            let state = holder.client.lock();
            holder.bytes = holds(&state, what);
            if state.link.as_ref().is_none_or(|link| link.cut_to.is_none()) {
                // He has been back.
                holder.promised = 0;
            }
        }
        for pass in 1..=PASSES_MAX {
            let over = over(holders);
            if over == 0 {
                break;
            }
            let wanted = match what {
                // A body is given back by the last who holds it. Should the first pass not be enough,
                // what is held in common is counted in.
                _ if pass == 1 => over,
                // It goes before anything that comes next.
                Sheddable::AtMostOnce if pass == PASSES_MAX => usize::MAX,
                _ => self.held_in_common(holders, over),
            };
            let level = level(holders, wanted);
            for holder in holders.iter_mut().take_while(|holder| holder.bytes > level) {
                self.shed_from(holder, what, level);
            }
        }
    }

    /// What a client has on disk as well leaves memory.
    fn unload(&self, holder: &mut Holder) {
        let mut guard = holder.client.lock();
        let state = &mut *guard;
        self.leave_to_log(state);
        self.settle(&holder.client, state);
        holder.bytes = holds(state, Sheddable::Any);
        if self.wants_messages(&state.session)
            && let Some(link) = &state.link
        {
            // Its task reads back what is sent next.
            link.signal(signal::FLUSH);
        }
    }

    /// What a client and what its session gives away have on disk as well leaves memory.
    fn leave_to_log(&self, state: &mut ClientState) {
        state.session.unload();
        if state.gives_from_log()
            && let Some(leaving) = &mut state.leaving
        {
            leaving.unload(self.ledger.written());
        }
    }

    /// Drops such messages of a client until it holds no more than `level`, as far as there are any.
    fn shed_from(&self, holder: &mut Holder, what: Sheddable, level: usize) {
        let mut guard = holder.client.lock();
        let state = &mut *guard;
        // First what is on disk as well: nothing of that is lost.
        self.leave_to_log(state);
        let excess = holds(state, what).saturating_sub(level);
        if let Some(link) = state.link.as_mut().filter(|link| link.gate.is_writing()) {
            // The oldest are with the writer, who comes back: not those behind them are left out.
            link.cut_to = Some((what, u32::try_from(level).unwrap_or(u32::MAX)));
            (holder.bytes, holder.promised) = (level, excess);
            return;
        }
        let shed = self.cut(&holder.client, state, what, level);
        holder.shed += shed;
        // Who could not give up as much has nothing more to give.
        holder.bytes = if shed.bytes < excess { 0 } else { holds(state, what) };
    }

    /// Does what a round has left to the one who was writing the client's output.
    #[cold]
    pub(super) fn cut_as_promised(&self, client: &Client, state: &mut ClientState) {
        let Some((what, level)) = state.link.as_mut().and_then(|link| link.cut_to.take()) else { return };
        let _turn = self.enter_turn();
        let shed = self.cut(client, state, what, level as usize);
        self.metrics.dropped.add(LIMIT_REASON, shed.messages as u64);
    }

    /// Drops such messages until the client holds no more than `level`. Nobody is writing its output.
    fn cut(&self, client: &Client, state: &mut ClientState, what: Sheddable, level: usize) -> Shed {
        // First what is on disk as well: nothing of that is lost.
        self.leave_to_log(state);
        let excess = holds(state, what).saturating_sub(level);
        let mut shed = state.session.at(self.now()).shed(excess, what);
        if shed.bytes < excess
            && what == Sheddable::Any
            && !state.gives_from_log()
            && let Some(leaving) = &mut state.leaving
        {
            shed += leaving.shed(excess - shed.bytes);
        }
        self.record_work_now(client, &mut state.session);
        self.settle(client, state);
        signal_shed(state, shed);
        shed
    }

    /// Has the longest queues lose their oldest messages, in memory or on disk, until `excess` bytes of
    /// entries are given back, which depends on what all of them take now.
    fn shed_entries(&self, holders: &mut [Holder], excess: impl Fn(usize) -> usize) {
        for holder in holders.iter_mut() {
            holder.bytes = holder.client.lock().session.entry_bytes();
        }
        let excess = excess(holders.iter().map(|holder| holder.bytes).sum());
        let level = if excess == 0 { usize::MAX } else { level(holders, excess) };
        for holder in holders.iter_mut() {
            let mut guard = holder.client.lock();
            let state = &mut *guard;
            if holder.bytes > level {
                let shed = state.session.shed_entries(level);
                holder.shed += shed;
                self.record_work_now(&holder.client, &mut state.session);
                self.settle(&holder.client, state);
                signal_shed(state, shed);
            }
            holder.bytes = holds(state, Sheddable::Any);
        }
    }
}

/// Bytes that those give back who write somebody's output at this moment.
fn promised(holders: &[Holder]) -> usize {
    holders.iter().map(|holder| holder.promised).sum()
}

/// Bytes that a client holds in memory where such messages stand; for any, also what its session
/// gives to others.
fn holds(state: &ClientState, what: Sheddable) -> usize {
    let leaving = state.leaving.as_ref().filter(|_| what == Sheddable::Any);
    state.session.holds_of(what) + leaving.map_or(0, |leaving| leaving.holds())
}

/// Messages of a session were given up: what stood behind them may go now.
fn signal_shed(state: &ClientState, shed: Shed) {
    if shed.messages > 0
        && let Some(link) = &state.link
    {
        link.signal(signal::FLUSH);
    }
}

/// The length to which the longest have to be cut so that `over` bytes are given back. Puts the longest first.
fn level(holders: &mut [Holder], over: usize) -> usize {
    holders.sort_unstable_by_key(|holder| std::cmp::Reverse(holder.bytes));
    let mut sum = 0_usize;
    for (n, holder) in holders.iter().enumerate() {
        sum = sum.saturating_add(holder.bytes);
        let next = holders.get(n + 1).map_or(0, |next| next.bytes);
        let given_back = sum.saturating_sub(next.saturating_mul(n + 1));
        if given_back >= over {
            return sum.saturating_sub(over) / (n + 1);
        }
    }
    0
}

#[cfg(test)]
mod tests;
