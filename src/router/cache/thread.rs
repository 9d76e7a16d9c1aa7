//! The routes of publishers of many topics: one table per thread, whoever publishes there.
//!
//! A gateway speaks for hundreds of devices; to keep the routes of all its topics with its connection would cost each connection that much. What a
//! thread keeps is bounded, and for one topic another makes room only when it is used again: when it is asked for the second time while few others have
//! been asked for the first time. So a publisher that never uses a topic twice costs the others next to nothing.
//!
//! A table is locked by the thread it belongs to and hence never waited for; where threads are more than tables, one that finds its table
//! taken does without.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::{Asked, Entry, Found, Terms, compute, is_kept};
use crate::router::{Route, Subscriber};

/// Topics kept per thread.
const TOPICS_MAX: usize = 8_192;
/// Routes kept per thread over all topics: beyond that it begins anew.
const ROUTES_MAX: usize = 65_536;
/// Places in which a topic can stand.
const WAYS: usize = 8;
const SETS_MIN: usize = 8;
const SETS_MAX: usize = TOPICS_MAX / WAYS;
/// Marks of topics that were asked for and are not kept.
const MARKS: usize = TOPICS_MAX;
const _: () = assert!(SETS_MIN.is_power_of_two() && SETS_MAX.is_power_of_two() && MARKS.is_power_of_two());

/// See the module's documentation.
pub struct ThreadRoutes<S, V> {
    tables: Box<[Mutex<Table<S, V>>]>,
}

struct Table<S, V> {
    /// A power of two of them, chosen by the lowest bits of a hash. None before the first is asked for.
    sets: Vec<Set<S, V>>,
    /// Hashes, by their lowest bits; 0 for none.
    marks: Vec<u32>,
    /// Entries, and the sum of their routes.
    kept: usize,
    routes: usize,
}

struct Set<S, V> {
    entries: [Option<Box<Kept<S, V>>>; WAYS],
    /// Of the entries, so that those which do not fit need not be looked at.
    hashes: [u32; WAYS],
}

struct Kept<S, V> {
    entry: Entry<S, V>,
    publisher: u64,
}

impl<S, V> ThreadRoutes<S, V> {
    /// As many tables as the machine has processors for this process. They take memory when they are used.
    pub fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let table = || Mutex::new(Table { sets: Vec::new(), marks: Vec::new(), kept: 0, routes: 0 });
        Self { tables: (0..threads).map(|_| table()).collect() }
    }
}

impl<S, V> Default for ThreadRoutes<S, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: Subscriber, V: Copy> ThreadRoutes<S, V> {
    /// Puts the route into `found`.
    pub(super) fn get(
        &self,
        asked: &Asked<'_, S, V>,
        hash: u32,
        found: &mut Found<S>,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> V,
    ) -> Terms<V> {
        let table = self.tables.get(thread_number() % self.tables.len());
        let table = table.filter(|_| is_kept(asked.topic)).and_then(Mutex::try_lock);
        let Some(mut table) = table else { return compute(asked, found.own(), judge) };
        let place = table.find(asked, hash);
        if let Some(kept) = place.and_then(|place| table.at(place))
            && kept.entry.terms.hold(asked.router)
        {
            found.keep(Arc::clone(&kept.entry.routes));
            return kept.entry.terms;
        }
        let routes = found.own();
        let terms = compute(asked, routes, judge);
        // What was kept and does not hold any more was asked for before.
        let is_used_again = place.is_some() || table.is_second_time(hash);
        if is_used_again || table.free_place(hash).is_some() {
            let routes = super::shared(routes.clone());
            let entry = Entry { topic: asked.topic.into(), routes, terms, hash };
            table.put(place, Box::new(Kept { entry, publisher: asked.publisher }));
        }
        terms
    }
}

impl<S, V> Table<S, V> {
    /// The set and the place in it.
    fn find(&self, asked: &Asked<'_, S, V>, hash: u32) -> Option<(usize, usize)> {
        let number = self.set_of(hash);
        let set = self.sets.get(number)?;
        let is_it = |way: &usize| {
            set.hashes[*way] == hash
                && set.entries[*way].as_ref().is_some_and(|kept| {
                    kept.publisher == asked.publisher && *kept.entry.topic == *asked.topic
                })
        };
        (0..WAYS).find(is_it).map(|way| (number, way))
    }

    fn at(&self, (set, way): (usize, usize)) -> Option<&Kept<S, V>> {
        self.sets.get(set)?.entries[way].as_deref()
    }

    fn set_of(&self, hash: u32) -> usize {
        hash as usize & self.sets.len().wrapping_sub(1)
    }

    /// Whether the topic was the last to be asked for of those that share its mark; from now on it is.
    fn is_second_time(&mut self, hash: u32) -> bool {
        if self.marks.is_empty() {
            self.marks = vec![0; MARKS];
        }
        let mark = self.marks.get_mut(hash as usize % MARKS);
        mark.is_some_and(|mark| std::mem::replace(mark, hash) == hash)
    }

    /// Keeps an entry in this place, or in that of none or another one.
    fn put(&mut self, place: Option<(usize, usize)>, kept: Box<Kept<S, V>>) {
        self.routes += kept.entry.routes.len();
        if self.routes > ROUTES_MAX {
            self.sets = Vec::new();
            (self.kept, self.routes) = (0, kept.entry.routes.len());
        }
        let hash = kept.entry.hash;
        let place = place.filter(|_| !self.sets.is_empty());
        let (number, way) = place.unwrap_or_else(|| self.room_for(hash));
        let Some(set) = self.sets.get_mut(number) else { return };
        set.hashes[way] = hash;
        let replaced = set.entries[way].replace(kept);
        match replaced {
            Some(replaced) => self.routes -= replaced.entry.routes.len(),
            None => self.kept += 1,
        }
    }

    fn free_place(&self, hash: u32) -> Option<(usize, usize)> {
        let number = self.set_of(hash);
        let way = self.sets.get(number)?.entries.iter().position(Option::is_none)?;
        Some((number, way))
    }

    /// A free place, or one that is to become free.
    fn room_for(&mut self, hash: u32) -> (usize, usize) {
        loop {
            if let Some(free) = self.free_place(hash) {
                return free;
            }
            // Sets fill unevenly: with two topics in each on average, one in five thousand has more than it has places for.
            let is_large = self.sets.len() == SETS_MAX || self.kept < 2 * self.sets.len();
            if is_large && !self.sets.is_empty() {
                return (self.set_of(hash), (hash >> 24) as usize % WAYS);
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let sets = (2 * self.sets.len()).max(SETS_MIN);
        let empty = || Set { entries: [const { None }; WAYS], hashes: [0; WAYS] };
        let before = std::mem::replace(&mut self.sets, (0..sets).map(|_| empty()).collect());
        // Those of one set go to two, so each finds a place.
        for kept in before.into_iter().flat_map(|set| set.entries).flatten() {
            if let Some((number, way)) = self.free_place(kept.entry.hash)
                && let Some(set) = self.sets.get_mut(number)
            {
                set.hashes[way] = kept.entry.hash;
                set.entries[way] = Some(kept);
            }
        }
    }
}

/// Counted from the first thread that asks.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

#[cfg(test)]
mod tests;
