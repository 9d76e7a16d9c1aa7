//! Filters without a wildcard, and their subscribers: one shard of a hash table.
//!
//! The table holds numbers of entries and half of their filters' hashes, eight bytes and one of its own each, so that the places it leaves empty are cheap and
//! it can grow without a look at the filters; entries stand without gaps in a row, and the bytes of all filters in a few buffers. Removing an entry moves the
//! last one into its place.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use hashbrown::HashTable;

use super::arena::Arena;
use super::subscribers::{Removal, Subscribers};
use super::texts::{Text, Texts};
use super::{Route, Subscriber, spread};

/// See the module's documentation.
pub(super) struct ExactFilters<S> {
    state: RandomState,
    /// Numbers of entries, with a part of their filters' hashes.
    table: HashTable<Place>,
    entries: Arena<Entry<S>>,
    texts: Texts,
}

/// Where an entry is, and a part of its filter's hash, so that most others need not be looked at.
struct Place {
    hash: u32,
    at: u32,
}

struct Entry<S> {
    filter: Text,
    subscribers: Subscribers<S>,
}

impl<S: Subscriber> ExactFilters<S> {
    /// `state` is what makes the hashes that are handed in.
    pub(super) fn new(state: RandomState) -> Self {
        Self { state, table: HashTable::new(), entries: Arena::default(), texts: Texts::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn get(&self, hash: u64, topic: &str) -> Option<&Subscribers<S>> {
        let at = self.find(hash, topic)?;
        self.entries.get(at as usize).map(|entry| &entry.subscribers)
    }

    /// Adds a subscriber to the filter; returns what it replaces.
    pub(super) fn insert(&mut self, hash: u64, filter: &str, route: Route<S>) -> Option<Route<S>> {
        if let Some(at) = self.find(hash, filter)
            && let Some(entry) = self.entries.get_mut(at as usize)
        {
            return entry.subscribers.insert(route);
        }
        // Stays far below the greatest u32: that many entries would be 96 GiB, and there are many shards.
        let at = self.entries.len() as u32;
        let filter = self.texts.add(filter.as_bytes());
        self.entries.push(Entry { filter, subscribers: Subscribers::One(route) });
        let place = Place { hash: hash as u32, at };
        self.table.insert_unique(spread(place.hash), place, |place| spread(place.hash));
        None
    }

    /// Removes the subscriber `key` from the filter.
    pub(super) fn remove(&mut self, hash: u64, filter: &str, key: u64) -> Option<Route<S>> {
        let at = self.find(hash, filter)?;
        match self.entries.get_mut(at as usize)?.subscribers.remove(key) {
            Removal::Absent => None,
            Removal::Removed(route) => Some(route),
            Removal::Last => self.remove_entry(hash, at)?.into_only(),
        }
    }

    fn remove_entry(&mut self, hash: u64, at: u32) -> Option<Subscribers<S>> {
        if let Ok(found) = self.table.find_entry(spread(hash as u32), |place| place.at == at) {
            found.remove();
        }
        let last = self.entries.len() as u32 - 1;
        if last != at {
            let hash = hash_of(&self.state, &self.entries, &self.texts, last) as u32;
            if let Some(place) = self.table.find_mut(spread(hash), |place| place.at == last) {
                place.at = at;
            }
        }
        let removed = self.entries.swap_remove(at as usize)?;
        self.texts.free(self.texts.get(removed.filter).len());
        self.tidy();
        Some(removed.subscribers)
    }

    /// Gives memory back.
    fn tidy(&mut self) {
        let Self { table, entries, texts, .. } = self;
        if entries.is_empty() {
            *entries = Arena::default();
            *table = HashTable::new();
            texts.clear();
            return;
        }
        if texts.wants_compaction() {
            texts.compact(entries.iter_mut().map(|entry| &mut entry.filter));
        }
        if table.capacity() > 16 && table.len() < table.capacity() / 4 {
            table.shrink_to(2 * table.len(), |place| spread(place.hash));
        }
    }

    fn find(&self, hash: u64, filter: &str) -> Option<u32> {
        let hash = hash as u32;
        let is_it = |place: &Place| {
            place.hash == hash && {
                let entry = self.entries.get(place.at as usize);
                entry.is_some_and(|entry| self.texts.get(entry.filter) == filter.as_bytes())
            }
        };
        self.table.find(spread(hash), is_it).map(|place| place.at)
    }
}

/// The hash of an entry's filter, as [`super::Router`] makes it of a topic.
fn hash_of<S>(state: &RandomState, entries: &Arena<Entry<S>>, texts: &Texts, at: u32) -> u64 {
    let filter = entries.get(at as usize).map_or(Text::EMPTY, |entry| entry.filter);
    let mut hasher = state.build_hasher();
    hasher.write(texts.get(filter));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::QoS;
    use crate::router::SubscriptionOptions;
    use crate::router::tests::Peer;

    fn hash(state: &RandomState, text: &str) -> u64 {
        let mut hasher = state.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    #[test]
    fn an_entry_takes_three_words() {
        assert_eq!(size_of::<Entry<Arc<u64>>>(), 24);
    }

    #[test]
    fn gives_its_memory_back_and_does_not_grow_over_cycles() {
        let state = RandomState::new();
        let mut filters = ExactFilters::new(state.clone());
        let subscribe = |filters: &mut ExactFilters<Peer>, n: u64| {
            let (name, options) = (format!("device/{n}"), SubscriptionOptions::with_qos(QoS::AtMostOnce));
            filters.insert(hash(&state, &name), &name, Route { subscriber: Peer(n), options })
        };
        let unsubscribe = |filters: &mut ExactFilters<Peer>, n: u64| {
            let name = format!("device/{n}");
            filters.remove(hash(&state, &name), &name, n)
        };
        for n in 0..10_000 {
            assert!(subscribe(&mut filters, n).is_none());
        }
        let full = filters.entries.capacity();
        for n in 100..10_000 {
            assert!(unsubscribe(&mut filters, n).is_some_and(|route| route.subscriber.0 == n));
        }
        assert!(filters.entries.capacity() < full / 20 && filters.table.capacity() < 1_000);
        let small = (filters.entries.capacity(), filters.table.capacity());
        for n in 10_000..50_000 {
            assert!(subscribe(&mut filters, n).is_none());
            assert!(unsubscribe(&mut filters, n).is_some());
        }
        // What has been removed leaves marks in the table, for which it may double once.
        assert_eq!(filters.entries.capacity(), small.0);
        assert!(filters.table.capacity() <= 2 * small.1 + 8, "{} of {}", filters.table.capacity(), small.1);
        for n in 0..100 {
            let name = format!("device/{n}");
            assert!(filters.get(hash(&state, &name), &name).is_some());
            assert!(unsubscribe(&mut filters, n).is_some());
            assert!(filters.get(hash(&state, &name), &name).is_none());
        }
        assert_eq!((filters.len(), filters.entries.capacity(), filters.table.capacity()), (0, 0, 0));
    }
}
