//! `Memory`: what waits for all clients together in memory, and what is done when that is above `limits.memory_max`.
//!
//! Each client has on it what the total is charged with for it ([`Client::charged`]), brought up to date under its lock where its queue or output
//! has changed for longer than a turn: when a message is queued, when a socket has taken or left something, when a session ends. Delivery to
//! a client that reads touches nothing here. A message that waits for several clients is charged to each.
//!
//! Whoever finds the total above the bound at the end of a turn brings it down to 7/8 of it: the longest queues are cut to one length. What they
//! have on disk as well leaves memory; if that is not enough, messages are dropped, QoS 0 first, oldest first.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::client::signal;
use super::{Client, ClientState, Core};
use crate::escape::escape;
use crate::session::Shed;

/// See the module's documentation.
pub(super) struct Memory {
    /// `usize::MAX`: there is no bound.
    max: AtomicUsize,
    total: AtomicI64,
    /// Held by the one who sheds.
    shedding: Mutex<()>,
}

/// Clients named in the line that tells of a shedding.
const NAMED_MAX: usize = 3;

/// Times that the clients are gone through: some may hold what cannot be given up.
const ROUNDS_MAX: usize = 4;

/// A client with what it holds.
struct Holder {
    client: Arc<Client>,
    bytes: usize,
    shed: Shed,
}

impl Memory {
    pub(super) fn new(max: Option<usize>) -> Self {
        let max = AtomicUsize::new(max.unwrap_or(usize::MAX));
        Self { max, total: AtomicI64::new(0), shedding: Mutex::new(()) }
    }

    /// Another bound, for the end of the next turn.
    pub(super) fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> usize {
        usize::try_from(self.total.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn add(&self, bytes: i64) {
        if bytes != 0 {
            self.total.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Core {
    /// Brings the total up to date with what a client holds now.
    pub(crate) fn settle(&self, client: &Client, state: &ClientState) {
        self.memory.add(client.charge(state.session.memory_bytes()));
    }

    /// Sheds if the total is above its bound. Not under any lock.
    pub(super) fn shed_if_over(&self) {
        let max = self.memory.max.load(Ordering::Relaxed);
        if self.memory.total() <= max {
            return;
        }
        // Somebody is at it: what comes meanwhile is seen at the end of the next turn.
        let Some(_shedding) = self.memory.shedding.try_lock() else { return };
        self.shed(max);
    }

    fn shed(&self, max: usize) {
        let target = max / 8 * 7;
        let over = || self.memory.total().saturating_sub(target);
        // Collected first: no guard of the registry is held while a client's lock is taken.
        let holder = |client: &Arc<Client>| {
            let bytes = client.charged();
            (bytes > 0).then(|| Holder { client: Arc::clone(client), bytes, shed: Shed::default() })
        };
        let mut holders: Vec<Holder> =
            self.clients.iter().filter_map(|entry| holder(entry.value())).collect();
        let before = self.memory.total();
        let level = level(&mut holders, over());
        for holder in holders.iter_mut().take_while(|holder| holder.bytes > level) {
            self.unload(holder);
        }
        let unloaded = before.saturating_sub(self.memory.total());
        let mut spent: Vec<Holder> = Vec::new();
        for _ in 0..ROUNDS_MAX {
            let over = over();
            if over == 0 {
                break;
            }
            let level = self::level(&mut holders, over);
            let longest = holders.partition_point(|holder| holder.bytes > level);
            for mut holder in holders.drain(..longest) {
                self.shed_from(&mut holder, level);
                spent.push(holder);
            }
        }
        self.tell_shedding(max, before, unloaded, spent);
    }

    /// What a client has on disk as well leaves memory.
    fn unload(&self, holder: &mut Holder) {
        let mut guard = holder.client.lock();
        let state = &mut *guard;
        state.session.unload();
        self.settle(&holder.client, state);
        holder.bytes = state.session.memory_bytes();
        if state.session.wants_messages()
            && let Some(link) = &state.link
        {
            // Its task reads back what is sent next.
            link.signal(signal::FLUSH);
        }
    }

    /// Drops messages of a client until it holds no more than `level`, as far as there are any.
    fn shed_from(&self, holder: &mut Holder, level: usize) {
        let mut guard = holder.client.lock();
        let state = &mut *guard;
        let held = state.session.memory_bytes();
        let shed = state.session.at(self.now()).shed(held.saturating_sub(level));
        holder.shed =
            Shed { messages: holder.shed.messages + shed.messages, bytes: holder.shed.bytes + shed.bytes };
        self.record_work_now(&holder.client, &mut state.session);
        self.settle(&holder.client, state);
        if shed.messages > 0
            && let Some(link) = &state.link
        {
            // What stood behind it may go now.
            link.signal(signal::FLUSH);
        }
    }

    fn tell_shedding(&self, max: usize, before: usize, unloaded: usize, mut spent: Vec<Holder>) {
        spent.retain(|holder| holder.shed.messages > 0);
        let dropped: usize = spent.iter().map(|holder| holder.shed.messages).sum();
        self.metrics.dropped.add("memory_max", dropped as u64);
        self.metrics.sheddings.add(1);
        spent.sort_unstable_by_key(|holder| std::cmp::Reverse(holder.shed.bytes));
        let named = spent.iter().take(NAMED_MAX).map(|holder| {
            let Shed { messages, bytes } = holder.shed;
            format!("{} ({messages} messages, {bytes} bytes)", escape(&holder.client.id))
        });
        let most: Vec<String> = named.collect();
        tracing::warn!(
            limit = "limits.memory_max",
            value = max,
            before,
            after = self.memory.total(),
            unloaded,
            dropped,
            clients = spent.len(),
            most = most.join(", "),
            "too much waits for clients in memory: what is on disk too has left it, and messages were dropped where that was \
             not enough"
        );
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
mod tests {
    use super::*;
    use crate::session::{Owner, Session, SessionLimits};

    fn holders(bytes: &[usize]) -> Vec<Holder> {
        let limits = Arc::new(SessionLimits {
            inflight_max: 1,
            queue_messages_max: 1,
            queue_bytes_max: 1,
            subscriptions_max: 1,
            subscription_bytes_max: 1,
        });
        let client = |n| {
            let owner = Owner { client_id: Arc::from("id"), user: None };
            Client::new(n, owner, Session::new(Arc::clone(&limits), false), None)
        };
        bytes.iter().map(|bytes| Holder { client: client(1), bytes: *bytes, shed: Shed::default() }).collect()
    }

    #[test]
    fn the_longest_are_cut_to_one_length() {
        for (bytes, over, expected) in [
            (&[100, 10, 10][..], 50, 50),
            (&[10, 100, 90], 50, 70),
            (&[10, 100, 90], 10, 90),
            (&[10, 100, 90], 11, 89),
            (&[10, 10], 20, 0),
            (&[10, 10], 1_000, 0),
            (&[], 1, 0),
        ] {
            let mut holders = holders(bytes);
            let level = level(&mut holders, over);
            assert_eq!(level, expected, "{bytes:?} {over}");
            let given: usize = holders.iter().map(|holder| holder.bytes.saturating_sub(level)).sum();
            assert!(given >= over.min(bytes.iter().sum()), "{bytes:?} {over}");
        }
    }
}
