//! The routes of the topics one connection publishes to.
//!
//! Most publishers use a handful of topics again and again, and subscriptions change rarely: a hit costs a hash
//! of the topic, a comparison and two atomic loads. Each connection has its own cache, so there is no lock. A publisher of more topics than
//! that has room for, a gateway, goes over to the table of the thread it runs on: [`ThreadRoutes`].
//! A kept route holds handles of its subscribers, also of sessions that have ended since (they are empty then), until its topic is used
//! again or it makes room; what a connection keeps goes with it, what a thread keeps with the broker. Bounded in topics, in bytes per topic and in
//! routes; the argument that a stale route is never used stands at [`Router::generation`].

mod found;
mod thread;

use std::convert::Infallible;
use std::sync::Arc;

pub use self::found::{Lookup, RouteList, RouteMatch, Routes};
pub use self::thread::ThreadRoutes;
use super::{Generation, Route, RouteCursor, Router, Subscriber};

/// Topics kept per connection; with one more it goes over to the table of its thread.
pub const ROUTE_CACHE_TOPICS_MAX: usize = 32;
/// Longer topic names are routed afresh each time: 32 of the longest would be 2 MiB per connection.
pub const ROUTE_CACHE_TOPIC_BYTES_MAX: usize = 512;
/// Routes kept per connection over all topics; a single topic with more subscribers is kept alone.
pub const ROUTE_CACHE_ROUTES_MAX: usize = 16_384;
/// Routes for which a connection's room stays with it when the thread does not keep them.
const OWN_ROUTES_KEPT: usize = 64;

/// A cache of routes, each with a verdict of whoever asks; one pointer while it is empty.
pub struct RouteCache<S, V> {
    inner: Option<Box<Inner<S, V>>>,
}

struct Inner<S, V> {
    /// Of a publisher of few topics; empty for one of many.
    entries: Vec<Entry<S, V>>,
    /// The sum over all entries.
    routes: usize,
    many: Option<Box<Passing<S, V>>>,
}

/// Of a publisher of many: the topic used last.
struct Passing<S, V> {
    topic: String,
    found: Found<S>,
    terms: Option<Terms<V>>,
}

struct Found<S> {
    kept: Option<Arc<[Route<S>]>>,
    /// If it is not kept: computed for this time only.
    own: Vec<Route<S>>,
}

/// A route that is kept.
struct Entry<S, V> {
    /// Empty for a topic that is not to be kept: no lookup asks for it. There is at most one such entry.
    topic: Box<str>,
    routes: Arc<[Route<S>]>,
    terms: Terms<V>,
    hash: u32,
}

/// How long a route holds, and what was said of it.
#[derive(Clone, Copy)]
struct Terms<V> {
    verdict: V,
    generation: Generation,
    /// Which of the router's counters concerns the topic.
    counter: u16,
}

/// A publisher's question.
#[derive(Clone, Copy)]
pub struct Asked<'a, S, V> {
    /// The cache belongs to it.
    pub router: &'a Router<S>,
    /// Where the routes of publishers of many topics are kept.
    pub threads: &'a ThreadRoutes<S, V>,
    /// Whom the verdict is about: publishers that say the same here share what the threads keep.
    pub publisher: u64,
    /// The topic name of the message.
    pub topic: &'a str,
}

/// What is said of a route.
#[derive(Debug, Clone, Copy)]
pub struct Judged<V> {
    /// Whom it is said about; where that is not who asked, because what one judges by has changed meanwhile, no other publisher gets it.
    pub publisher: u64,
    /// Kept with the route.
    pub verdict: V,
}

impl<S, V> Default for RouteCache<S, V> {
    fn default() -> Self {
        Self { inner: None }
    }
}

impl<S: Subscriber, V: Copy> RouteCache<S, V> {
    /// What `router.route(topic)` gives, as `judge` has changed it, and its verdict; computed only if it may have changed since the last
    /// call. Who judges by something that has changed calls [`Router::invalidate`].
    pub fn get(
        &mut self,
        asked: &Asked<'_, S, V>,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> Judged<V>,
    ) -> (&[Route<S>], V) {
        let supply = |routes: &mut Vec<Route<S>>| Ok::<_, Infallible>(compute(asked, routes, judge));
        let Ok((routes, verdict)) = self.look_up(asked, supply);
        (routes.as_slice(), verdict)
    }

    /// The same, if it takes no more than about so many steps of [`Router::route_from`], of which
    /// it leaves what it did not use. Otherwise the match has begun, and `judge` was not called:
    /// when the match is finished, [`put`](Self::put) keeps it.
    pub fn get_within(
        &mut self,
        asked: &Asked<'_, S, V>,
        steps: &mut usize,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> Judged<V>,
    ) -> Lookup<'_, S, V> {
        let supply = |routes: &mut Vec<Route<S>>| {
            let (generation, counter) = moment(asked);
            let mut cursor = RouteCursor::default();
            if !asked.router.route_from(asked.topic, &mut cursor, steps, routes) {
                return Err(Box::new(RouteMatch { routes: Vec::new(), cursor, generation, counter }));
            }
            let Judged { publisher, verdict } = judge(routes);
            Ok((Terms { verdict, generation, counter }, publisher))
        };
        match self.look_up(asked, supply) {
            Ok((routes, verdict)) => Lookup::Found(routes, verdict),
            Err(begun) => Lookup::Begun(begun),
        }
    }

    /// Keeps the routes of a finished match, as the caller has judged them, and gives them back with the
    /// verdict. They hold from the moment at which the match began: if anything has changed since, the next
    /// call computes them again. More than [`ROUTE_CACHE_ROUTES_MAX`] are not kept.
    pub fn put(
        &mut self,
        asked: &Asked<'_, S, V>,
        found: RouteMatch<S>,
        judged: Judged<V>,
    ) -> (RouteList<S>, V) {
        let RouteMatch { routes, generation, counter, .. } = found;
        let Judged { publisher, verdict } = judged;
        if routes.len() > ROUTE_CACHE_ROUTES_MAX {
            return (RouteList::of_own(routes), verdict);
        }
        let hash = asked.router.hash(asked.topic);
        let inner = self.inner.get_or_insert_default();
        let at = inner.find(asked.topic, hash as u32);
        let supply = |into: &mut Vec<Route<S>>| {
            *into = routes;
            Ok::<_, Infallible>((Terms { verdict, generation, counter }, publisher))
        };
        let Ok((routes, verdict)) = inner.miss(at, asked, hash, supply);
        (routes.to_list(), verdict)
    }

    /// `supply` computes what is not there: the route, how long it holds, and whom its verdict is about.
    #[inline]
    fn look_up<E>(
        &mut self,
        asked: &Asked<'_, S, V>,
        supply: impl FnOnce(&mut Vec<Route<S>>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        let hash = asked.router.hash(asked.topic);
        let inner = self.inner.get_or_insert_default();
        match inner.find(asked.topic, hash as u32) {
            Some(at) if inner.entries[at].terms.hold(asked.router) => {
                let entry = &inner.entries[at];
                Ok((Routes::Kept(&entry.routes), entry.terms.verdict))
            }
            at => inner.miss(at, asked, hash, supply),
        }
    }
}

impl<S, V> Default for Inner<S, V> {
    fn default() -> Self {
        Self { entries: Vec::with_capacity(1), routes: 0, many: None }
    }
}

impl<S, V> Default for Passing<S, V> {
    fn default() -> Self {
        Self { topic: String::new(), found: Found { kept: None, own: Vec::new() }, terms: None }
    }
}

impl<S: Subscriber, V: Copy> Inner<S, V> {
    fn find(&self, topic: &str, hash: u32) -> Option<usize> {
        if !is_kept(topic) {
            return None;
        }
        self.entries.iter().position(|entry| entry.hash == hash && *entry.topic == *topic)
    }

    /// `at` is the entry that does not hold any more, if there is one.
    #[inline(never)]
    fn miss<E>(
        &mut self,
        at: Option<usize>,
        asked: &Asked<'_, S, V>,
        hash: u64,
        supply: impl FnOnce(&mut Vec<Route<S>>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        let name = if is_kept(asked.topic) { asked.topic } else { "" };
        let at =
            at.or_else(|| self.entries.iter().position(|entry| name.is_empty() && entry.topic.is_empty()));
        if at.is_none() && self.entries.len() == ROUTE_CACHE_TOPICS_MAX {
            (self.entries, self.routes) = (Vec::new(), 0);
            self.many = Some(Box::default());
        }
        if self.many.is_none() {
            let mut routes = Vec::new();
            let (terms, _) = supply(&mut routes)?;
            let entry = Entry { topic: name.into(), routes: routes.into(), terms, hash: hash as u32 };
            let at = self.put(at, entry);
            let entry = &self.entries[at];
            return Ok((Routes::Kept(&entry.routes), entry.terms.verdict));
        }
        self.many.get_or_insert_default().get(asked, hash, supply)
    }

    /// Keeps an entry in place of another one, or of none; returns where.
    fn put(&mut self, at: Option<usize>, entry: Entry<S, V>) -> usize {
        let added = entry.routes.len();
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
}

impl<S: Subscriber, V: Copy> Passing<S, V> {
    fn get<E>(
        &mut self,
        asked: &Asked<'_, S, V>,
        hash: u64,
        supply: impl FnOnce(&mut Vec<Route<S>>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        let holds = |terms: &Terms<V>| self.topic == asked.topic && terms.hold(asked.router);
        let terms = match self.terms.filter(holds) {
            Some(terms) => terms,
            None => {
                // Should judging panic, there is nothing that could be taken for the answer.
                self.terms = None;
                self.topic.clear();
                self.topic.shrink_to(ROUTE_CACHE_TOPIC_BYTES_MAX);
                self.topic.push_str(asked.topic);
                let terms = asked.threads.get(asked, hash, &mut self.found, supply)?;
                self.terms = Some(terms);
                terms
            }
        };
        let Found { kept, own } = &self.found;
        Ok((kept.as_ref().map_or(Routes::Own(own), Routes::Kept), terms.verdict))
    }
}

impl<V> Terms<V> {
    fn hold<S: Subscriber>(&self, router: &Router<S>) -> bool {
        router.generation_of(self.counter) == self.generation
    }
}

impl<S> Found<S> {
    /// Lets go of everything but a little room.
    fn clear(&mut self) {
        self.kept = None;
        self.own.clear();
        self.own.shrink_to(OWN_ROUTES_KEPT);
    }
}

/// Computes a route; how long it holds, and whom its verdict is about.
fn compute<S: Subscriber, V>(
    asked: &Asked<'_, S, V>,
    routes: &mut Vec<Route<S>>,
    judge: impl FnOnce(&mut Vec<Route<S>>) -> Judged<V>,
) -> (Terms<V>, u64) {
    let (generation, counter) = moment(asked);
    asked.router.route(asked.topic, routes);
    let Judged { publisher, verdict } = judge(routes);
    (Terms { verdict, generation, counter }, publisher)
}

/// To be taken before a route is computed: see [`Router::generation`].
fn moment<S: Subscriber, V>(asked: &Asked<'_, S, V>) -> (Generation, u16) {
    let counter = asked.router.generation_index(asked.topic);
    (asked.router.generation_of(counter), counter)
}

fn is_kept(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= ROUTE_CACHE_TOPIC_BYTES_MAX
}

#[cfg(test)]
mod tests;
