//! The routes of the topics one connection publishes to.
//!
//! Most publishers use a handful of topics again and again, and subscriptions change rarely: a hit costs a hash
//! of the topic, a comparison and two atomic loads. Each connection has its own cache, so there is no lock. A publisher of more topics than
//! that has room for, a gateway, goes over to the table of the thread it runs on: [`ThreadRoutes`].
//! A kept route holds handles of its subscribers, also of sessions that have ended since (they are empty then), until its topic is used
//! again, it makes room, or somebody has all caches let go of what does not hold any more ([`RouteCache::let_go`]); what a connection keeps goes
//! with it, what a thread keeps with the broker. Bounded in topics, in bytes per topic and in routes.
//!
//! What a connection keeps is charged to [`Account::Routes`] from one [`STEP`] on, less is not: a
//! publisher of a few topics with a few receivers touches no counter. Where the account has no room,
//! a connection gives up the other topics for the one it publishes to now; if that does not fit
//! alone, it is not kept. Who asked then has the match, finished, as a list of his own
//! ([`Lookup::Begun`]), which he has to account for.
//!
//! The argument that a stale route is never used stands at [`Router::generation`].

mod found;
mod thread;

use std::sync::Arc;

pub use self::found::{Lookup, RouteList, RouteMatch, Routes};
pub use self::thread::ThreadRoutes;
use super::{Generation, Route, RouteCursor, Router, Subscriber};
use crate::accounts::{Account, Accounts, Charge, STEP};

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
    /// The sums over all entries: routes, and bytes of topics and routes.
    routes: usize,
    bytes: usize,
    /// Of all that is kept here, if it is a [`STEP`] or more.
    charge: Option<Charge>,
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

/// Room for what a connection is to keep.
struct Room<'a> {
    accounts: &'a Arc<Accounts>,
    /// The connection's.
    charge: &'a mut Option<Charge>,
    /// Bytes of what it keeps already; 0 as well when that has to be given up.
    others: usize,
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
    /// What `router.route(topic)` gives, as `judge` has changed it, and its verdict; computed only
    /// if it may have changed since the last call, and if that takes no more than about so many
    /// steps of [`Router::route_from`], of which it leaves what it did not use. Who judges by
    /// something that has changed calls [`Router::invalidate`].
    ///
    /// Otherwise the match has begun, and `judge` was not called: when the match is finished,
    /// [`put`](Self::put) keeps it. It may be finished already: there was no room to keep it.
    pub fn get_within(
        &mut self,
        asked: &Asked<'_, S, V>,
        steps: &mut usize,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> Judged<V>,
    ) -> Lookup<'_, S, V> {
        let supply = |routes: &mut Vec<Route<S>>, room: &mut Room<'_>| {
            let (generation, counter) = moment(asked);
            let mut cursor = RouteCursor::default();
            let is_whole = asked.router.route_from(asked.topic, &mut cursor, steps, routes);
            if !is_whole || !room.take(bytes::<S>(asked.topic, routes.len())) {
                let routes = std::mem::take(routes);
                return Err(Box::new(RouteMatch { routes, cursor, generation, counter }));
            }
            let Judged { publisher, verdict } = judge(routes);
            // What was left out needs none.
            let _ = room.take(bytes::<S>(asked.topic, routes.len()));
            Ok((Terms { verdict, generation, counter }, publisher))
        };
        match self.look_up(asked, supply) {
            Ok((routes, verdict)) => Lookup::Found(routes, verdict),
            Err(begun) => Lookup::Begun(begun),
        }
    }

    /// Keeps the routes of a finished match, as the caller has judged them, and gives them back with the
    /// verdict. They hold from the moment at which the match began: if anything has changed since, the next
    /// call computes them again. More than [`ROUTE_CACHE_ROUTES_MAX`] are not kept, nor those for
    /// which there is no room.
    pub fn put(
        &mut self,
        asked: &Asked<'_, S, V>,
        found: RouteMatch<S>,
        judged: Judged<V>,
    ) -> (RouteList<S>, V) {
        let RouteMatch { mut routes, generation, counter, .. } = found;
        let Judged { publisher, verdict } = judged;
        if routes.len() > ROUTE_CACHE_ROUTES_MAX {
            return (RouteList::of_own(routes), verdict);
        }
        let hash = asked.router.hash(asked.topic);
        let inner = self.inner.get_or_insert_default();
        let at = inner.find(asked.topic, hash as u32);
        let supply = |into: &mut Vec<Route<S>>, room: &mut Room<'_>| {
            if !room.take(bytes::<S>(asked.topic, routes.len())) {
                return Err(());
            }
            *into = std::mem::take(&mut routes);
            Ok((Terms { verdict, generation, counter }, publisher))
        };
        match inner.miss(at, asked, hash, supply) {
            Ok((routes, verdict)) => (routes.to_list(), verdict),
            Err(()) => (RouteList::of_own(routes), verdict),
        }
    }

    /// Lets go of routes that do not hold any more; whether it keeps others, or may without saying so.
    pub fn let_go(&mut self, router: &Router<S>, threads: &ThreadRoutes<S, V>) -> bool {
        let Some(inner) = &mut self.inner else { return false };
        for at in (0..inner.entries.len()).rev() {
            if !inner.entries[at].terms.hold(router) {
                inner.remove(at);
            }
        }
        let mut room = Room { accounts: threads.accounts(), charge: &mut inner.charge, others: 0 };
        let Some(passing) = &mut inner.many else {
            // No more than before, so there is room.
            let _ = room.take(inner.bytes);
            return !inner.entries.is_empty();
        };
        if !passing.terms.is_some_and(|terms| terms.hold(router)) {
            passing.terms = None;
            passing.topic.clear();
            passing.found.clear();
            let _ = room.take(0);
        }
        // It keeps what its next publish finds in a thread's table, and nobody says so then.
        true
    }

    /// `supply` computes what is not there, if there is room: the route, how long it holds, and whom
    /// its verdict is about.
    #[inline]
    fn look_up<E>(
        &mut self,
        asked: &Asked<'_, S, V>,
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<(Terms<V>, u64), E>,
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
        Self { entries: Vec::with_capacity(1), routes: 0, bytes: 0, charge: None, many: None }
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
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        if self.many.is_none() {
            let name = if is_kept(asked.topic) { asked.topic } else { "" };
            let is_it = |entry: &Entry<S, V>| name.is_empty() && entry.topic.is_empty();
            // It makes room for what comes in its place.
            at.or_else(|| self.entries.iter().position(is_it)).into_iter().for_each(|at| self.remove(at));
            if self.entries.len() < ROUTE_CACHE_TOPICS_MAX {
                return self.miss_of_few(name, asked, hash as u32, supply);
            }
            self.clear();
            self.entries = Vec::new();
            self.many = Some(Box::default());
        }
        let room = &mut Room { accounts: asked.threads.accounts(), charge: &mut self.charge, others: 0 };
        self.many.get_or_insert_default().get(asked, hash, room, supply)
    }

    fn miss_of_few<E>(
        &mut self,
        name: &str,
        asked: &Asked<'_, S, V>,
        hash: u32,
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        let accounts = asked.threads.accounts();
        let mut room = Room { accounts, charge: &mut self.charge, others: self.bytes };
        let mut routes = Vec::new();
        let supplied = supply(&mut routes, &mut room);
        if room.others == 0 || self.routes + routes.len() > ROUTE_CACHE_ROUTES_MAX {
            // They are given up for it.
            self.clear();
        }
        if let Ok((terms, _)) = supplied {
            let (topic, routes) = (name.into(), routes.into());
            self.add(Entry { topic, routes, terms, hash });
        }
        // No more than before, so there is room.
        let _ = Room { accounts, charge: &mut self.charge, others: 0 }.take(self.bytes);
        supplied?;
        let entry = &self.entries[self.entries.len() - 1];
        Ok((Routes::Kept(&entry.routes), entry.terms.verdict))
    }

    fn add(&mut self, entry: Entry<S, V>) {
        self.routes += entry.routes.len();
        self.bytes += bytes::<S>(&entry.topic, entry.routes.len());
        self.entries.push(entry);
    }

    fn remove(&mut self, at: usize) {
        let entry = self.entries.swap_remove(at);
        self.routes -= entry.routes.len();
        self.bytes -= bytes::<S>(&entry.topic, entry.routes.len());
    }

    fn clear(&mut self) {
        self.entries.clear();
        (self.routes, self.bytes) = (0, 0);
    }
}

impl Room<'_> {
    /// Whether something of so many bytes may be kept, without the others if there is no room for
    /// them as well. From then on it is charged.
    #[inline(never)]
    fn take(&mut self, bytes: usize) -> bool {
        if self.set(self.others + bytes) {
            return true;
        }
        let fits = self.others > 0 && self.set(bytes);
        if fits {
            self.others = 0;
        }
        fits
    }

    /// Whether a list of so many routes may be kept alone, with its topic.
    #[inline]
    fn take_list<S>(&mut self, topic: &str, routes: usize) -> bool {
        let is_little = routes * size_of::<Route<S>>() < STEP - ROUTE_CACHE_TOPIC_BYTES_MAX;
        is_little && self.charge.is_none() || self.take(bytes::<S>(topic, routes))
    }

    fn set(&mut self, bytes: usize) -> bool {
        if bytes < STEP {
            *self.charge = None;
            return true;
        }
        let charge = self.charge.get_or_insert_with(|| Charge::new(self.accounts, Account::Routes, 0));
        let fits = charge.set_routes(bytes);
        if charge.bytes() == 0 {
            *self.charge = None;
        }
        fits
    }
}

impl<S: Subscriber, V: Copy> Passing<S, V> {
    fn get<E>(
        &mut self,
        asked: &Asked<'_, S, V>,
        hash: u64,
        room: &mut Room<'_>,
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<(Routes<'_, S>, V), E> {
        let holds = |terms: &Terms<V>| self.topic == asked.topic && terms.hold(asked.router);
        let terms = match self.terms.filter(holds) {
            Some(terms) => terms,
            None => {
                // Should judging panic, there is nothing that could be taken for the answer.
                self.terms = None;
                self.topic.clear();
                let terms = match asked.threads.get(asked, hash, &mut self.found, room, supply) {
                    Ok(terms) => terms,
                    Err(error) => {
                        self.found.clear();
                        let _ = room.take(0);
                        return Err(error);
                    }
                };
                // A longer one is not kept here either.
                if is_kept(asked.topic) {
                    self.topic.push_str(asked.topic);
                    self.terms = Some(terms);
                }
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

    /// Has `supply` compute it. What is more than a little is put where others can share it.
    fn fill<T, E>(
        &mut self,
        room: &mut Room<'_>,
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let supplied = supply(&mut self.own, room)?;
        if self.own.len() > OWN_ROUTES_KEPT {
            self.kept = Some(std::mem::take(&mut self.own).into());
        }
        self.own.shrink_to(OWN_ROUTES_KEPT);
        Ok(supplied)
    }

    fn as_slice(&self) -> &[Route<S>] {
        self.kept.as_deref().unwrap_or(&self.own)
    }
}

/// To be taken before a route is computed: see [`Router::generation`].
fn moment<S: Subscriber, V>(asked: &Asked<'_, S, V>) -> (Generation, u16) {
    let counter = asked.router.generation_index(asked.topic);
    (asked.router.generation_of(counter), counter)
}

/// What so many routes take, and their topic with them.
fn bytes<S>(topic: &str, routes: usize) -> usize {
    (if is_kept(topic) { topic.len() } else { 0 }) + routes * size_of::<Route<S>>()
}

fn is_kept(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= ROUTE_CACHE_TOPIC_BYTES_MAX
}

#[cfg(test)]
mod tests;
