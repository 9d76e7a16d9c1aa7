//! Counts and bans under keys, each until its time, and no more of them than a maximum.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

/// Entries that go away by themselves. `order` has each entry once, under the time it is over.
#[derive(Debug)]
pub(super) struct Table<K> {
    entries: HashMap<K, Entry, ahash::RandomState>,
    order: BTreeMap<(Duration, u64), K>,
    len_max: usize,
    next_id: u64,
    bans: usize,
    evicted: u64,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    is_banned: bool,
    /// When it is over, and a number to tell it from others that are over at the same time.
    over: (Duration, u64),
}

impl<K: Copy + Eq + Hash> Table<K> {
    pub(super) fn new(len_max: usize) -> Self {
        Self {
            entries: HashMap::default(),
            order: BTreeMap::new(),
            len_max: len_max.max(1),
            next_id: 0,
            bans: 0,
            evicted: 0,
        }
    }

    /// One more failure, and how many there are now. The first one begins a window of this length.
    pub(super) fn count(&mut self, key: K, now: Duration, window: Duration) -> u32 {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.failures = entry.failures.saturating_add(1);
            return entry.failures;
        }
        self.put(key, 1, false, now.saturating_add(window));
        1
    }

    /// An entry without failures until then, whatever was there before.
    pub(super) fn remember(&mut self, key: K, until: Duration) {
        self.put(key, 0, false, until);
    }

    /// A ban until then.
    pub(super) fn ban(&mut self, key: K, until: Duration) {
        self.put(key, self.failures(&key), true, until);
    }

    /// Takes the failures back, if it is not too late.
    pub(super) fn forgive(&mut self, key: &K) {
        if self.banned_until(key).is_none() {
            self.remove(key);
        }
    }

    pub(super) fn failures(&self, key: &K) -> u32 {
        self.entries.get(key).map_or(0, |entry| entry.failures)
    }

    pub(super) fn contains(&self, key: &K) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn banned_until(&self, key: &K) -> Option<Duration> {
        self.entries.get(key).filter(|entry| entry.is_banned).map(|entry| entry.over.0)
    }

    /// How many of the entries are bans.
    pub(super) fn bans(&self) -> usize {
        self.bans
    }

    /// How many entries had to go before their time.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Forgets what is over at `now`.
    pub(super) fn expire(&mut self, now: Duration) {
        while let Some((_, key)) = self.order.first_key_value().filter(|((over, _), _)| *over <= now) {
            let key = *key;
            self.remove(&key);
        }
    }

    fn put(&mut self, key: K, failures: u32, is_banned: bool, over: Duration) {
        self.remove(&key);
        while self.entries.len() >= self.len_max {
            let Some((_, oldest)) = self.order.first_key_value() else { break };
            let oldest = *oldest;
            self.remove(&oldest);
            self.evicted += 1;
        }
        let over = (over, self.next_id);
        self.next_id += 1;
        self.entries.insert(key, Entry { failures, is_banned, over });
        self.order.insert(over, key);
        self.bans += usize::from(is_banned);
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.remove(key) {
            self.order.remove(&entry.over);
            self.bans -= usize::from(entry.is_banned);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}
