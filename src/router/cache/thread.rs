//! The routes of publishers of many topics: one table per thread, whoever publishes there.
//!
//! A gateway speaks for hundreds of devices; to keep the routes of all its topics with its connection would cost each connection that much. What a
//! thread keeps is bounded. Once the places for a topic are taken, another one makes room only when the topic is asked for a second time while few
//! others have been asked for the first time; then one that was not used since the last time room was needed. So a publisher that never uses a topic
//! twice costs the others next to nothing.
//!
//! A thread begins with a table of its own and takes another one only if somebody has that: nobody ever waits.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::{Asked, Found, Room, Terms, is_kept};
use crate::accounts::Accounts;
use crate::router::{Route, Router, Subscriber};

/// Topics kept per thread.
const TOPICS_MAX: usize = 8_192;
/// Routes kept per thread over all topics: beyond that it begins anew.
const ROUTES_MAX: usize = 65_536;
/// A topic with more receivers than this is not kept: to find them costs little beside delivering to them.
const ROUTES_OF_ONE_MAX: usize = ROUTES_MAX / 16;
/// Places in which a topic can stand.
const WAYS: usize = 8;
const SETS_MIN: usize = 8;
const SETS_MAX: usize = TOPICS_MAX / WAYS;
/// Rows of marks of topics that were asked for and are not kept, and how many a row has.
const MARKS: usize = TOPICS_MAX / 8;
const MARKS_IN_ROW: usize = 4;
const _: () = assert!(SETS_MIN.is_power_of_two() && SETS_MAX.is_power_of_two() && MARKS.is_power_of_two());

/// See the module's documentation.
pub struct ThreadRoutes<S, V> {
    tables: Box<[Mutex<Table<S, V>>]>,
    /// For what connections keep beside it.
    accounts: Arc<Accounts>,
}

struct Table<S, V> {
    /// A power of two of them, chosen by the lowest bits of a hash. None before the first topic is kept.
    sets: Vec<Set<S, V>>,
    /// Hashes, in a row that is chosen by their lowest bits as well; 0 for none.
    marks: Vec<[u64; MARKS_IN_ROW]>,
    /// Where in its row the next mark goes. Not the place of the oldest: of topics that are asked for in turn none would be found again.
    mark: usize,
    /// Entries, and the sum of their routes.
    kept: usize,
    routes: usize,
}

struct Set<S, V> {
    /// The upper half of each entry's hash, so that those which do not fit need not be looked at.
    hashes: [u32; WAYS],
    entries: [Option<Box<Entry<S, V>>>; WAYS],
    /// A bit for each entry that came or was used since all had been.
    used: u8,
}

struct Entry<S, V> {
    topic: Box<str>,
    routes: Arc<[Route<S>]>,
    terms: Terms<V>,
    publisher: u64,
    hash: u64,
}

/// The number of a set and that of a place in it.
type Place = (usize, usize);

impl<S, V> ThreadRoutes<S, V> {
    /// Tables for so many threads. They take memory when they are used, which is in no account.
    /// `accounts`: where connections that ask are charged.
    pub fn new(threads: usize, accounts: &Arc<Accounts>) -> Self {
        let table = || Mutex::new(Table { sets: Vec::new(), marks: Vec::new(), mark: 0, kept: 0, routes: 0 });
        Self { tables: (0..threads).map(|_| table()).collect(), accounts: Arc::clone(accounts) }
    }

    pub(super) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Lets go of routes that do not hold any more. It may have to wait for publishers; none waits
    /// for it.
    pub fn let_go(&self, router: &Router<S>)
    where
        S: Subscriber,
    {
        for table in &self.tables {
            let given_up = table.lock().let_go(|entry| !entry.terms.hold(router));
            // What is dropped may do anything, so not under the lock.
            drop(given_up);
        }
    }

    fn table(&self) -> Option<MutexGuard<'_, Table<S, V>>> {
        let (before, from) = self.tables.split_at(thread_number().checked_rem(self.tables.len())?);
        from.iter().chain(before).find_map(Mutex::try_lock)
    }
}

impl<S: Subscriber, V: Copy> ThreadRoutes<S, V> {
    /// Puts the route into `found`; `hash` is the router's of the topic. One that is kept here is
    /// computed all the same where whoever asks has no room for it: `supply` says what then.
    pub(super) fn get<E>(
        &self,
        asked: &Asked<'_, S, V>,
        hash: u64,
        found: &mut Found<S>,
        room: &mut Room<'_>,
        supply: impl FnOnce(&mut Vec<Route<S>>, &mut Room<'_>) -> Result<(Terms<V>, u64), E>,
    ) -> Result<Terms<V>, E> {
        found.clear();
        let Some(mut table) = self.table().filter(|_| is_kept(asked.topic)) else {
            return Ok(found.fill(room, supply)?.0);
        };
        let place = table.find(asked, hash_with(hash, asked.publisher));
        if let Some(entry) = place.and_then(|place| table.hit(place))
            && entry.terms.hold(asked.router)
            && room.take_list::<S>(asked.topic, entry.routes.len())
        {
            if !entry.routes.is_empty() {
                found.kept = Some(Arc::clone(&entry.routes));
            }
            return Ok(entry.terms);
        }
        let (terms, publisher) = found.fill(room, supply)?;
        let place = place.filter(|_| publisher == asked.publisher);
        let hash = hash_with(hash, publisher);
        // What was kept and does not hold any more was asked for before.
        let is_used_again = place.is_some() || table.is_second_time(hash);
        if found.as_slice().len() <= ROUTES_OF_ONE_MAX && (is_used_again || table.has_room_for(hash)) {
            let routes = found.kept.clone().unwrap_or_else(|| found.own.as_slice().into());
            let entry = Entry { topic: asked.topic.into(), routes, terms, publisher, hash };
            let given_up = table.put(place, Box::new(entry));
            // What is dropped may do anything.
            drop(table);
            drop(given_up);
        }
        Ok(terms)
    }
}

impl<S, V> Table<S, V> {
    fn find(&self, asked: &Asked<'_, S, V>, hash: u64) -> Option<Place> {
        let number = self.set_of(hash);
        let set = self.sets.get(number)?;
        let upper = (hash >> 32) as u32;
        let is_it = |way: &usize| {
            set.hashes[*way] == upper
                && set.entries[*way]
                    .as_ref()
                    .is_some_and(|entry| entry.publisher == asked.publisher && *entry.topic == *asked.topic)
        };
        (0..WAYS).find(is_it).map(|way| (number, way))
    }

    fn hit(&mut self, (number, way): Place) -> Option<&Entry<S, V>> {
        let set = self.sets.get_mut(number)?;
        set.used |= 1 << way;
        set.entries[way].as_deref()
    }

    fn set_of(&self, hash: u64) -> usize {
        hash as usize & self.sets.len().wrapping_sub(1)
    }

    /// Whether the topic is among the last that were asked for of those that share a row of marks; from now on it is.
    fn is_second_time(&mut self, hash: u64) -> bool {
        if self.marks.is_empty() {
            self.marks = vec![[0; MARKS_IN_ROW]; MARKS];
        }
        let Some(row) = self.marks.get_mut(hash as usize % MARKS) else { return false };
        let is_known = row.contains(&hash);
        if !is_known {
            row[self.mark % MARKS_IN_ROW] = hash;
            self.mark = self.mark.wrapping_add(1);
        }
        is_known
    }

    /// Whether nothing has to be given up, nor the table to grow beyond its least.
    fn has_room_for(&self, hash: u64) -> bool {
        self.sets.is_empty() || self.free_place(hash).is_some()
    }

    /// Keeps an entry in this place, or in that of none or another one. Returns what has lost its place.
    #[must_use]
    fn put(&mut self, place: Option<Place>, entry: Box<Entry<S, V>>) -> Vec<Box<Entry<S, V>>> {
        let mut given_up = Vec::new();
        let (number, way) = place.unwrap_or_else(|| self.room_for(entry.hash));
        let replaced = self.sets.get_mut(number).and_then(|set| set.entries[way].take());
        if let Some(replaced) = replaced {
            self.kept -= 1;
            self.routes -= replaced.routes.len();
            given_up.push(replaced);
        }
        if self.routes + entry.routes.len() > ROUTES_MAX {
            given_up.extend(self.sets.iter_mut().flat_map(|set| &mut set.entries).filter_map(Option::take));
            (self.kept, self.routes) = (0, 0);
        }
        self.kept += 1;
        self.routes += entry.routes.len();
        if let Some(set) = self.sets.get_mut(number) {
            set.place(way, entry);
        }
        given_up
    }

    /// Takes out those for which this holds.
    #[must_use]
    fn let_go(&mut self, is_over: impl Fn(&Entry<S, V>) -> bool) -> Vec<Box<Entry<S, V>>> {
        let mut given_up = Vec::new();
        for set in &mut self.sets {
            for way in 0..WAYS {
                if let Some(entry) = set.entries[way].take_if(|entry| is_over(entry)) {
                    set.used &= !(1 << way);
                    self.kept -= 1;
                    self.routes -= entry.routes.len();
                    given_up.push(entry);
                }
            }
        }
        given_up
    }

    fn free_place(&self, hash: u64) -> Option<Place> {
        let number = self.set_of(hash);
        let way = self.sets.get(number)?.entries.iter().position(Option::is_none)?;
        Some((number, way))
    }

    /// A free place, or one that is to become free.
    fn room_for(&mut self, hash: u64) -> Place {
        loop {
            if let Some(free) = self.free_place(hash) {
                return free;
            }
            // Sets fill unevenly: with two topics in each on average, one in four thousand has more than it has places for.
            let is_large = self.sets.len() == SETS_MAX || self.kept < 2 * self.sets.len();
            if is_large {
                let number = self.set_of(hash);
                let way = self.sets.get_mut(number).map_or(0, |set| set.least_used(hash));
                return (number, way);
            }
            self.grow();
        }
    }

    fn grow(&mut self) {
        let sets = (2 * self.sets.len()).max(SETS_MIN);
        let empty = || Set { hashes: [0; WAYS], entries: [const { None }; WAYS], used: 0 };
        let before = std::mem::replace(&mut self.sets, (0..sets).map(|_| empty()).collect());
        // Those of one set go to two, so each finds a place.
        for entry in before.into_iter().flat_map(|set| set.entries).flatten() {
            if let Some((number, way)) = self.free_place(entry.hash)
                && let Some(set) = self.sets.get_mut(number)
            {
                set.place(way, entry);
            }
        }
    }
}

impl<S, V> Set<S, V> {
    fn place(&mut self, way: usize, entry: Box<Entry<S, V>>) {
        self.used |= 1 << way;
        self.hashes[way] = (entry.hash >> 32) as u32;
        self.entries[way] = Some(entry);
    }

    /// A place that was not used since the last time all had been; from somewhere on, so that it is not always the first.
    fn least_used(&mut self, hash: u64) -> usize {
        if self.used == u8::MAX {
            self.used = 0;
        }
        let first = (hash >> 56) as usize;
        (0..WAYS).map(|n| (first + n) % WAYS).find(|way| self.used & 1 << way == 0).unwrap_or(0)
    }
}

/// Of a topic and a publisher together: what many publish to the same topics spreads over all places.
fn hash_with(hash: u64, publisher: u64) -> u64 {
    hash.wrapping_add(publisher.wrapping_mul(0x9e37_79b9_7f4a_7c15))
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
