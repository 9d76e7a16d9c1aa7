//! Retained messages: the last one of each topic, and their replay to a new subscription.
//!
//! A map from topic to message is the truth, and the only thing an update of a topic touches; it keeps no topics, for a message knows its own. A sorted set of
//! the topic names answers wildcard filters; it changes only when a topic appears or disappears, while the
//! topic's shard of the map is locked, so the two never disagree for longer than that.
//! Lock order: map, then names. A replay takes the names, lets go, then takes the map.
//! What is stored here is bounded by the caller, who knows the limits and can say why it refuses.

use std::hash::{BuildHasher, Hasher};
use std::ops::Bound;

use ahash::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use parking_lot::RwLock;

use super::is_wildcard;
use super::names::Names;
use super::skip_scan::{Verdict, judge};

/// Shards of the map; a power of two.
const SHARDS: usize = 64;

/// A shared handle of a retained message.
pub trait Retained: Clone {
    /// The topic name under which it is retained.
    fn topic(&self) -> &str;

    /// The same as bytes, for comparison: to say again of each that it is text would cost more than to compare it.
    fn topic_bytes(&self) -> &[u8] {
        self.topic().as_bytes()
    }
}

/// All retained messages; `M` is a shared handle of one.
pub struct RetainedStore<M> {
    state: RandomState,
    messages: Box<[RwLock<HashTable<M>>]>,
    names: RwLock<Names>,
}

/// How far a replay has come; for one filter.
#[derive(Default, Debug)]
pub struct ReplayCursor {
    position: Position,
}

#[derive(Default, Debug)]
enum Position {
    #[default]
    Start,
    /// The last topic looked at.
    After(String),
    /// Where the next match may be.
    From(String),
    End,
}

impl<M: Retained> RetainedStore<M> {
    /// A store without messages.
    pub fn new() -> Self {
        Self {
            state: RandomState::new(),
            messages: (0..SHARDS).map(|_| RwLock::new(HashTable::new())).collect(),
            names: RwLock::default(),
        }
    }

    /// Makes `message` the retained message of its topic; returns the one before.
    pub fn set(&self, message: M) -> Option<M> {
        let topic: Box<str> = message.topic().into();
        self.set_with(&topic, || message)
    }

    /// The same with a message that is made while the topic is locked: what `make` counts is in the order of the changes. It must have this topic.
    pub fn set_with(&self, topic: &str, make: impl FnOnce() -> M) -> Option<M> {
        let hash = self.hash(topic.as_bytes());
        let mut shard = self.shard(hash).write();
        let entry = shard.entry(
            hash,
            |held| held.topic_bytes() == topic.as_bytes(),
            |held| self.hash(held.topic_bytes()),
        );
        // What was there is dropped by the caller, after the lock.
        match entry {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), make())),
            Entry::Vacant(entry) => {
                entry.insert(make());
                self.names.write().insert(topic);
                None
            }
        }
    }

    /// Removes and returns the retained message of the topic.
    pub fn remove(&self, topic: &str) -> Option<M> {
        self.remove_with(topic, |_| {})
    }

    /// The same; `removing` is called while the topic is locked, and told whether there is a message.
    pub fn remove_with(&self, topic: &str, removing: impl FnOnce(bool)) -> Option<M> {
        self.take_if(topic, |held| {
            removing(held.is_some());
            true
        })
    }

    /// Removes the retained message of the topic if it is the one that `wanted` knows.
    pub fn remove_if(&self, topic: &str, wanted: impl Fn(&M) -> bool) -> bool {
        self.take_if(topic, |held| held.is_some_and(wanted)).is_some()
    }

    /// `wanted` is asked while the topic is locked, also if it has no message.
    fn take_if(&self, topic: &str, wanted: impl FnOnce(Option<&M>) -> bool) -> Option<M> {
        let hash = self.hash(topic.as_bytes());
        let mut shard = self.shard(hash).write();
        let entry = shard.find_entry(hash, |held| held.topic_bytes() == topic.as_bytes()).ok();
        let is_wanted = wanted(entry.as_ref().map(|entry| entry.get()));
        let entry = entry.filter(|_| is_wanted)?;
        let (removed, _) = entry.remove();
        self.names.write().remove(topic);
        if shard.capacity() > 16 && shard.len() < shard.capacity() / 4 {
            let len = shard.len();
            shard.shrink_to(2 * len, |held| self.hash(held.topic_bytes()));
        }
        Some(removed)
    }

    /// The retained message of the topic.
    pub fn get(&self, topic: &str) -> Option<M> {
        let hash = self.hash(topic.as_bytes());
        self.shard(hash).read().find(hash, |held| held.topic_bytes() == topic.as_bytes()).cloned()
    }

    /// Whether the filter may match a retained message now; no more than `steps_max` topics are looked at, and `true` is said if that is not enough.
    pub fn may_match(&self, filter: &str, steps_max: usize) -> bool {
        if !is_wildcard(filter) {
            let hash = self.hash(filter.as_bytes());
            return self
                .shard(hash)
                .read()
                .find(hash, |held| held.topic_bytes() == filter.as_bytes())
                .is_some();
        }
        let mut cursor = ReplayCursor::default();
        let (_, ends) = self.matching(filter, &mut cursor, steps_max);
        !ends.is_empty() || !matches!(cursor.position, Position::End)
    }

    /// Calls `visit` with each message, in no order; those that come or go meanwhile may be seen or not.
    pub fn for_each(&self, mut visit: impl FnMut(&M)) {
        for shard in &self.messages {
            shard.read().iter().for_each(&mut visit);
        }
    }

    fn hash(&self, topic: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write(topic);
        hasher.finish()
    }

    fn shard(&self, hash: u64) -> &RwLock<HashTable<M>> {
        // Other bits than those by which the shard's table chooses, the lowest and the highest.
        &self.messages[(hash >> 40) as usize & (SHARDS - 1)]
    }

    /// Number of retained messages.
    pub fn len(&self) -> usize {
        self.names.read().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the next retained messages that match the filter; true when there are no more.
    ///
    /// Looks at up to `steps_max` topics (at least one) under one read lock; to be called with the same cursor
    /// until it returns true. A topic that has a message all along is seen exactly once, with the message of the
    /// moment; one that gets or loses it meanwhile may be seen or not. A filter that begins with a wildcard does
    /// not see topics that begin with `$`. Wildcard matches come in the bytewise order of their topics.
    pub fn replay(
        &self,
        filter: &str,
        cursor: &mut ReplayCursor,
        steps_max: usize,
        into: &mut Vec<M>,
    ) -> bool {
        if matches!(cursor.position, Position::End) {
            return true;
        }
        if !is_wildcard(filter) {
            cursor.position = Position::End;
            into.extend(self.get(filter));
            return true;
        }
        let (topics, ends) = self.matching(filter, cursor, steps_max);
        let mut start = 0;
        for end in ends {
            into.extend(topics.get(start..end).and_then(|topic| self.get(topic)));
            start = end;
        }
        matches!(cursor.position, Position::End)
    }

    /// The topics that match, one behind the other, and where each ends.
    fn matching(&self, filter: &str, cursor: &mut ReplayCursor, steps_max: usize) -> (String, Vec<usize>) {
        let (mut found, mut ends) = (String::new(), Vec::new());
        let mut seek = String::new();
        let mut position = Position::End;
        let names = self.names.read();
        let mut scan = names.scan(cursor.position.bound());
        for left in (0..steps_max.max(1)).rev() {
            let Some(name) = scan.next() else {
                position = Position::End;
                break;
            };
            match judge(filter, name, &mut seek) {
                Verdict::End => {
                    position = Position::End;
                    break;
                }
                Verdict::Seek if left == 0 => position = Position::From(std::mem::take(&mut seek)),
                Verdict::Seek => scan.seek_to(&seek),
                verdict => {
                    if verdict == Verdict::Match {
                        found.push_str(name);
                        ends.push(found.len());
                    }
                    if left == 0 {
                        position = Position::After(name.to_owned());
                    }
                }
            }
        }
        cursor.position = position;
        (found, ends)
    }
}

impl<M: Retained> Default for RetainedStore<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl Position {
    fn bound(&self) -> Bound<&str> {
        match self {
            Self::Start | Self::End => Bound::Unbounded,
            Self::After(topic) => Bound::Excluded(topic),
            Self::From(text) => Bound::Included(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Note(&'static str, u8);

    impl Retained for Note {
        fn topic(&self) -> &str {
            self.0
        }
    }

    /// Runs `change` while the names cannot be changed, and says whether it waits with the topic locked.
    fn holds_the_topic(store: &RetainedStore<Note>, topic: &str, change: impl FnOnce() + Send) -> bool {
        std::thread::scope(|scope| {
            let names = store.names.read();
            let changing = scope.spawn(change);
            // A waiting writer keeps further readers out.
            while store.names.try_read().is_some() && !changing.is_finished() {
                std::thread::yield_now();
            }
            let locked = store.shard(store.hash(topic.as_bytes())).try_read().is_none();
            drop(names);
            locked
        })
    }

    #[test]
    fn a_topic_stays_locked_until_its_name_has_changed_too() {
        let store = RetainedStore::new();
        let topic = "a/b";
        assert!(holds_the_topic(&store, topic, || assert_eq!(store.set(Note(topic, 1)), None)), "it appears");
        assert!(
            holds_the_topic(&store, topic, || assert_eq!(store.remove(topic), Some(Note(topic, 1)))),
            "it disappears"
        );
        assert_eq!((store.len(), store.get(topic)), (0, None));
    }

    /// Else its number could be above that of a message that comes right after it was looked for.
    #[test]
    fn a_removal_that_finds_nothing_is_told_so_while_the_topic_is_locked() {
        let store = RetainedStore::new();
        let topic = "a/b";
        for is_there in [true, false] {
            store.set(Note(topic, 1));
            if !is_there {
                store.remove(topic);
            }
            let mut told = None;
            let removed = store.remove_with(topic, |found| {
                let is_locked = store.shard(store.hash(topic.as_bytes())).try_read().is_none();
                told = Some((found, is_locked));
            });
            assert_eq!((removed.is_some(), told), (is_there, Some((is_there, true))));
        }
    }

    #[test]
    fn an_update_does_not_touch_the_names() {
        let store = RetainedStore::new();
        let topic = "a/b";
        store.set(Note(topic, 1));
        let names = store.names.read();
        assert_eq!(store.set(Note(topic, 2)), Some(Note(topic, 1)));
        drop(names);
        assert_eq!(store.get(topic), Some(Note(topic, 2)));
    }
}
