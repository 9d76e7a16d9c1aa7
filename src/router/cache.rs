//! The routes of the topics one connection publishes to.
//!
//! Most publishers use a handful of topics again and again, and subscriptions change rarely: a hit costs a hash
//! of the topic, a comparison and two atomic loads. Each connection has its own cache, so there is no lock.
//! A kept route holds handles of its subscribers, also of sessions that have ended since (they are empty then), until its topic is used
//! again, it makes room, or the connection ends. Bounded in topics, in bytes per topic and in routes; the argument that a stale route is never used
//! stands at [`Router::generation`].

use std::sync::Arc;

use super::{Generation, Route, Router, Subscriber};

/// Topics kept per connection; beyond that the one kept longest makes room.
pub const ROUTE_CACHE_TOPICS_MAX: usize = 32;
/// Longer topic names are routed afresh each time: 32 of the longest would be 2 MiB per connection.
pub const ROUTE_CACHE_TOPIC_BYTES_MAX: usize = 512;
/// Routes kept per connection over all topics; a single topic with more subscribers is kept alone.
pub const ROUTE_CACHE_ROUTES_MAX: usize = 16_384;

/// A cache of routes, each with a verdict of whoever asks; one pointer while it is empty.
pub struct RouteCache<S, V> {
    inner: Option<Box<Inner<S, V>>>,
}

struct Inner<S, V> {
    entries: Vec<Entry<S, V>>,
    /// Which entry makes room next.
    hand: u32,
    /// The sum over all entries.
    routes: usize,
}

struct Entry<S, V> {
    /// Empty for a topic that is not to be kept: no lookup asks for it.
    topic: Box<str>,
    routes: Arc<[Route<S>]>,
    verdict: V,
    generation: Generation,
    hash: u32,
    /// Which of the router's counters concerns the topic.
    counter: u16,
}

impl<S, V> Default for RouteCache<S, V> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<S: Subscriber, V: Copy> RouteCache<S, V> {
    /// What `router.route(topic)` gives, as `judge` has changed it, and its verdict; computed only if it may have changed since the last
    /// call. Who judges by something that has changed calls [`Router::invalidate`].
    ///
    /// A cache belongs to one router.
    pub fn get(
        &mut self,
        router: &Router<S>,
        topic: &str,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> V,
    ) -> (&Arc<[Route<S>]>, V) {
        let hash = router.hash(topic) as u32;
        let inner = self.inner.get_or_insert_default();
        let at = match inner.find(topic, hash) {
            Some(at) => {
                let entry = &inner.entries[at];
                if router.generation_of(entry.counter) == entry.generation {
                    at
                } else {
                    inner.fill(Some(at), router, topic, hash, judge)
                }
            }
            None => inner.fill(None, router, topic, hash, judge),
        };
        let entry = &inner.entries[at];
        (&entry.routes, entry.verdict)
    }

    /// Forgets everything and frees the memory.
    pub fn clear(&mut self) {
        self.inner = None;
    }
}

impl<S, V> Default for Inner<S, V> {
    fn default() -> Self {
        Self { entries: Vec::with_capacity(1), hand: 0, routes: 0 }
    }
}

impl<S: Subscriber, V> Inner<S, V> {
    fn find(&self, topic: &str, hash: u32) -> Option<usize> {
        if !is_kept(topic) {
            return None;
        }
        self.entries.iter().position(|entry| entry.hash == hash && *entry.topic == *topic)
    }

    /// Computes the route into the entry `at`, or into a new one or the next to make room; returns which.
    #[cold]
    fn fill(
        &mut self,
        at: Option<usize>,
        router: &Router<S>,
        topic: &str,
        hash: u32,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> V,
    ) -> usize {
        let counter = router.generation_index(topic);
        // Before the route: see `Router::generation`.
        let generation = router.generation_of(counter);
        let mut routes = Vec::new();
        router.route(topic, &mut routes);
        let verdict = judge(&mut routes);
        let routes: Arc<[Route<S>]> = if routes.is_empty() { Arc::default() } else { routes.into() };
        let name = if is_kept(topic) { topic } else { "" };
        let added = routes.len();
        let entry = Entry { topic: name.into(), routes, verdict, generation, hash, counter };

        let at = at.or_else(|| (self.entries.len() == ROUTE_CACHE_TOPICS_MAX).then(|| self.next()));
        let replaced = at.map_or(0, |at| self.entries[at].routes.len());
        self.routes = self.routes - replaced + added;
        if self.routes > ROUTE_CACHE_ROUTES_MAX {
            self.entries.clear();
            self.entries.push(entry);
            self.routes = added;
            return 0;
        }
        match at {
            Some(at) => {
                self.entries[at] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    fn next(&mut self) -> usize {
        let at = self.hand as usize % ROUTE_CACHE_TOPICS_MAX;
        self.hand = (at as u32 + 1) % ROUTE_CACHE_TOPICS_MAX as u32;
        at
    }
}

fn is_kept(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= ROUTE_CACHE_TOPIC_BYTES_MAX
}
