//! Routing: which sessions receive a message with a given topic name, and which messages are retained.
//!
//! Filters without a wildcard live in a hash table of 64 shards; filters with one live in
//! tries, 64 of them chosen by the first two levels and one for filters that have a wildcard there. Everything
//! here is a data structure behind short locks: no await, no I/O, no call into a subscriber but `key()`, and no
//! two locks of the subscriptions are ever held at once.
//!
//! Invariants:
//! - Once `subscribe` has returned, every route computed or taken from a [`RouteCache`] afterwards has the
//!   subscriber; once `unsubscribe` has returned, none has it (the argument stands at [`Router::generation`]).
//! - A filter that nobody holds leaves nothing behind: [`Router::filter_nodes`] returns to 0.
//! - No recursion, and no trie node is visited twice for one topic (but to go on behind a slice).
//!
//! Filters and topic names are taken as validated; an invalid one matches nothing and does no harm.

mod arena;
mod cache;
mod exact;
mod names;
mod retained;
mod skip_scan;
mod slices;
mod subscribers;
#[cfg(test)]
mod tests;
mod texts;
mod trie;

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::RwLock;

pub use self::cache::{
    Asked, Judged, Lookup, ROUTE_CACHE_ROUTES_MAX, ROUTE_CACHE_TOPIC_BYTES_MAX, ROUTE_CACHE_TOPICS_MAX,
    RouteCache, RouteList, RouteMatch, Routes, ThreadRoutes,
};
use self::exact::ExactFilters;
pub use self::retained::{ReplayCursor, Retained, RetainedStore};
pub use self::slices::RouteCursor;
use self::trie::Trie;
use crate::protocol::QoS;

/// Shards of the filters without a wildcard, and tries of those whose first two levels are literal; a power of two.
const SHARDS: usize = 64;
/// Generation counters, chosen by the first two levels of a topic; a power of two, 32 KiB in all.
const GENERATIONS: usize = 4096;
const _: () = assert!(SHARDS.is_power_of_two() && GENERATIONS.is_power_of_two());
const _: () = assert!(GENERATIONS <= 1 << 16);

/// What a subscription leads to; the broker uses a shared handle of a session.
pub trait Subscriber: Clone + Send + Sync + 'static {
    /// Unique per session, and the same for all handles of one session as long as it holds subscriptions.
    ///
    /// Must not call the router: it is called with the router's locks held. Cheapest if later sessions have
    /// higher keys, for then a session joins the end of a list.
    fn key(&self) -> u64;
}

/// What the subscriber asked for along with the filter (MQTT 5, section 3.8.3.1); 3.1.1 has the QoS alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionOptions {
    /// Highest QoS at which messages are delivered through this subscription.
    pub qos: QoS,
    /// The client's own messages do not come back to it.
    pub no_local: bool,
    /// The RETAIN flag is forwarded as it was published.
    pub retain_as_published: bool,
    /// Sent along with each message.
    pub subscription_id: Option<NonZeroU32>,
}

impl SubscriptionOptions {
    /// A subscription with nothing but its QoS.
    pub const fn with_qos(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, subscription_id: None }
    }

    /// Whether a receiver must know this subscription by itself, even when another one of the same session matches too.
    const fn stands_alone(&self) -> bool {
        self.no_local || self.subscription_id.is_some()
    }
}

/// One session that receives a message.
#[derive(Clone, Debug)]
pub struct Route<S> {
    /// The receiver.
    pub subscriber: S,
    /// Of overlapping subscriptions of one session, those with the highest QoS (MQTT 3.1.1, section 3.3.5), unless they must be told
    /// apart.
    pub options: SubscriptionOptions,
}

/// A moment in the life of the subscriptions that can concern one topic; see [`Router::generation`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

/// All subscriptions of the broker.
pub struct Router<S> {
    state: RandomState,
    /// Filters without a wildcard, by their hash.
    exact: Box<[RwLock<ExactFilters<S>>]>,
    /// Wildcard filters with literal first two levels, by the hash of these; the two levels are one edge.
    shards: Box<[RwLock<Trie<S>>]>,
    /// Wildcard filters with a wildcard in the first two levels.
    broad: RwLock<Trie<S>>,
    generations: Box<[AtomicU64]>,
    broad_generation: AtomicU64,
    subscriptions: AtomicUsize,
}

impl<S: Subscriber> Router<S> {
    /// A router without subscriptions.
    pub fn new() -> Self {
        Self::with_state(RandomState::new())
    }

    fn with_state(state: RandomState) -> Self {
        Self {
            exact: (0..SHARDS).map(|_| RwLock::new(ExactFilters::new(state.clone()))).collect(),
            shards: (0..SHARDS).map(|_| RwLock::new(Trie::new(state.clone(), 2))).collect(),
            broad: RwLock::new(Trie::new(state.clone(), 1)),
            generations: (0..GENERATIONS).map(|_| AtomicU64::new(0)).collect(),
            broad_generation: AtomicU64::new(0),
            subscriptions: AtomicUsize::new(0),
            state,
        }
    }

    /// Adds a subscription, or replaces that of the same session with the same filter; true if it is new.
    pub fn subscribe(&self, filter: &str, subscriber: S, options: SubscriptionOptions) -> bool {
        let route = Route { subscriber, options };
        let place = self.place(filter);
        // What was replaced is dropped by this frame, after the lock: dropping a subscriber may do anything.
        let replaced = match place {
            Place::Exact { hash, .. } => self.exact_shard(hash).write().insert(hash, filter, route),
            Place::Shard { trie, .. } => trie.write().insert(filter, route),
            Place::Broad => self.broad.write().insert(filter, route),
        };
        let new = replaced.is_none();
        if new {
            self.subscriptions.fetch_add(1, Ordering::Relaxed);
        }
        self.counter(&place).fetch_add(1, Ordering::AcqRel);
        new
    }

    /// Removes the subscription of the session `key` with this very filter; false if there is none.
    pub fn unsubscribe(&self, filter: &str, key: u64) -> bool {
        let place = self.place(filter);
        // Dropped by this frame, after the lock, as in `subscribe`.
        let removed = match place {
            Place::Exact { hash, .. } => self.exact_shard(hash).write().remove(hash, filter, key),
            Place::Shard { trie, .. } => trie.write().remove(filter, key),
            Place::Broad => self.broad.write().remove(filter, key),
        };
        if removed.is_some() {
            self.subscriptions.fetch_sub(1, Ordering::Relaxed);
            self.counter(&place).fetch_add(1, Ordering::AcqRel);
        }
        removed.is_some()
    }

    /// Number of subscriptions: pairs of session and filter.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.load(Ordering::Relaxed)
    }

    /// Filters without wildcards and nodes of the tries: 0 when all subscriptions are gone. Takes each lock in turn.
    pub fn filter_nodes(&self) -> usize {
        let sharded: usize = self.shards.iter().map(|trie| trie.read().nodes()).sum();
        let exact: usize = self.exact.iter().map(|shard| shard.read().len()).sum();
        exact + sharded + self.broad.read().nodes()
    }

    /// Changes whenever the result of `route(topic)` may have changed; may change without that.
    ///
    /// Who keeps a route reads the generation *before* calling `route` and keeps it with the result. The kept
    /// route may be used while the generation still has the kept value:
    /// - A change is made under the lock of its structure first and counted second, and only then does
    ///   `subscribe` or `unsubscribe` return.
    /// - Suppose a use of a kept route begins after such a return. It loads counters that include the change.
    ///   If the kept generation does not, the two differ and the route is computed afresh, after the change.
    ///   If it does, then it was loaded (acquire) after the change was counted (release), hence after the
    ///   change was made, and `route`, called after the load, took the lock after the change and saw it.
    /// - If a route is computed while a change is between its two steps, it may or may not have it, but it
    ///   is kept with the count from before and thrown away at the next use after the count.
    ///
    /// Both counters only grow, so their sum is equal at two moments only if both are.
    pub fn generation(&self, topic: &str) -> Generation {
        self.generation_of(self.generation_index(topic))
    }

    /// Which counter concerns the topic; for caches, which need not hash the topic again.
    fn generation_index(&self, topic: &str) -> u16 {
        counter_index(self.hash(head_of(topic))) as u16
    }

    fn generation_of(&self, index: u16) -> Generation {
        let counted = self.generations[usize::from(index) & (GENERATIONS - 1)].load(Ordering::Acquire);
        Generation(counted.wrapping_add(self.broad_generation.load(Ordering::Acquire)))
    }

    /// Has every kept route computed afresh: what it was judged by has changed.
    pub fn invalidate(&self) {
        // One counter is part of all generations.
        self.broad_generation.fetch_add(1, Ordering::AcqRel);
    }

    fn place(&self, filter: &str) -> Place<'_, S> {
        let head = head_of(filter);
        if !is_wildcard(filter) {
            Place::Exact { hash: self.hash(filter), counter: counter_index(self.hash(head)) }
        } else if is_wildcard(head) {
            Place::Broad
        } else {
            let hash = self.hash(head);
            Place::Shard { trie: self.shard(hash), counter: counter_index(hash) }
        }
    }

    fn counter(&self, place: &Place<'_, S>) -> &AtomicU64 {
        match place {
            Place::Exact { counter, .. } | Place::Shard { counter, .. } => &self.generations[*counter],
            Place::Broad => &self.broad_generation,
        }
    }

    fn shard(&self, hash: u64) -> &RwLock<Trie<S>> {
        // Other bits than those of the counter, so that one busy counter is not one busy trie.
        &self.shards[(hash >> 32) as usize & (SHARDS - 1)]
    }

    fn exact_shard(&self, hash: u64) -> &RwLock<ExactFilters<S>> {
        // Other bits than those by which the shard's table chooses, the lowest and the highest.
        &self.exact[(hash >> 40) as usize & (SHARDS - 1)]
    }

    fn hash(&self, text: &str) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }
}

impl<S: Subscriber> Default for Router<S> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a filter is kept and which counter tells of its changes.
enum Place<'a, S> {
    Exact { hash: u64, counter: usize },
    Shard { trie: &'a RwLock<Trie<S>>, counter: usize },
    Broad,
}

fn counter_index(hash: u64) -> usize {
    hash as usize & (GENERATIONS - 1)
}

/// Whether a filter has a wildcard: in a valid filter these two bytes stand for nothing else.
fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}

/// A hash for a table, made of the half that is kept with what the table holds: tables choose by the lowest and by the highest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// The first level, and what follows its `/` if there is one.
fn split_level(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (text, None),
    }
}

/// The first two levels as one.
fn head_of(text: &str) -> &str {
    let mut slashes = text.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    slashes.nth(1).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}
