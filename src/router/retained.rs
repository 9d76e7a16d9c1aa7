//! Retained messages: the last one of each topic, and their replay to a new subscription.
//!
//! A map from topic to message is the truth, and the only thing an update of a topic touches. A sorted set of
//! the topic names answers wildcard filters; it changes only when a topic appears or disappears, while the
//! topic's entry in the map is locked, so the two never disagree for longer than that.
//! Lock order: map, then names. A replay takes the names, lets go, then takes the map.
//! What is stored here is bounded by the caller, who knows the limits and can say why it refuses.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use ahash::RandomState;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use parking_lot::RwLock;

use super::is_wildcard;
use super::skip_scan::{Verdict, judge};

/// All retained messages; `M` is a shared handle of one.
pub struct RetainedStore<M> {
    messages: DashMap<Arc<str>, M, RandomState>,
    names: RwLock<BTreeSet<Arc<str>>>,
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
    After(Arc<str>),
    /// Where the next match may be.
    From(String),
    End,
}

impl<M: Clone> RetainedStore<M> {
    /// A store without messages.
    pub fn new() -> Self {
        Self { messages: DashMap::with_hasher(RandomState::new()), names: RwLock::new(BTreeSet::new()) }
    }

    /// Makes `message` the retained message of the topic; returns the one before.
    pub fn set(&self, topic: &Arc<str>, message: M) -> Option<M> {
        self.set_with(topic, || message)
    }

    /// The same with a message that is made while the topic is locked: what `make` counts is in the order of the changes.
    pub fn set_with(&self, topic: &Arc<str>, make: impl FnOnce() -> M) -> Option<M> {
        match self.messages.entry(Arc::clone(topic)) {
            Entry::Occupied(mut entry) => Some(entry.insert(make())),
            Entry::Vacant(entry) => {
                let _locked = entry.insert(make());
                self.names.write().insert(Arc::clone(topic));
                None
            }
        }
    }

    /// Removes and returns the retained message of the topic.
    pub fn remove(&self, topic: &str) -> Option<M> {
        self.remove_with(topic, || {})
    }

    /// The same; `removing` is called while the topic is locked, if there is a message.
    pub fn remove_with(&self, topic: &str, mut removing: impl FnMut()) -> Option<M> {
        let removed = self.messages.remove_if(topic, |name, _| {
            removing();
            self.names.write().remove(name);
            true
        });
        removed.map(|(_, message)| message)
    }

    /// Removes the retained message of the topic if it is the one that `wanted` knows.
    pub fn remove_if(&self, topic: &str, wanted: impl Fn(&M) -> bool) -> bool {
        self.messages
            .remove_if(topic, |name, message| {
                let wanted = wanted(message);
                if wanted {
                    self.names.write().remove(name);
                }
                wanted
            })
            .is_some()
    }

    /// The retained message of the topic.
    pub fn get(&self, topic: &str) -> Option<M> {
        self.messages.get(topic).map(|message| message.clone())
    }

    /// Calls `visit` with each message, in no order; those that come or go meanwhile may be seen or not.
    pub fn for_each(&self, mut visit: impl FnMut(&M)) {
        for entry in &self.messages {
            visit(entry.value());
        }
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
        let topics = self.matching(filter, cursor, steps_max);
        into.extend(topics.iter().filter_map(|topic| self.get(topic)));
        matches!(cursor.position, Position::End)
    }

    fn matching(&self, filter: &str, cursor: &mut ReplayCursor, steps_max: usize) -> Vec<Arc<str>> {
        let mut found = Vec::new();
        let mut seek = String::new();
        let names = self.names.read();
        let mut range = names.range::<str, _>((cursor.position.bound(), Bound::Unbounded));
        let mut last = None;
        let mut sought = false;
        for _ in 0..steps_max.max(1) {
            last = range.next();
            let Some(name) = last else { break };
            let verdict = judge(filter, name, &mut seek);
            sought = verdict == Verdict::Seek;
            match verdict {
                Verdict::Match => found.push(Arc::clone(name)),
                Verdict::Next => {}
                Verdict::Seek => {
                    range = names.range::<str, _>((Bound::Included(seek.as_str()), Bound::Unbounded))
                }
                Verdict::End => {
                    last = None;
                    break;
                }
            }
        }
        cursor.position = match last {
            None => Position::End,
            Some(_) if sought => Position::From(seek),
            Some(name) => Position::After(Arc::clone(name)),
        };
        found
    }
}

impl<M: Clone> Default for RetainedStore<M> {
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

    /// Runs `change` while the names cannot be changed, and says whether it waits with the topic locked.
    fn holds_the_topic(store: &RetainedStore<u8>, topic: &str, change: impl FnOnce() + Send) -> bool {
        std::thread::scope(|scope| {
            let names = store.names.read();
            let changing = scope.spawn(change);
            // A waiting writer keeps further readers out.
            while store.names.try_read().is_some() && !changing.is_finished() {
                std::thread::yield_now();
            }
            let locked = store.messages.try_get(topic).is_locked();
            drop(names);
            locked
        })
    }

    #[test]
    fn a_topic_stays_locked_until_its_name_has_changed_too() {
        let store = RetainedStore::new();
        let topic: Arc<str> = "a/b".into();
        assert!(holds_the_topic(&store, &topic, || assert_eq!(store.set(&topic, 1), None)), "it appears");
        assert!(
            holds_the_topic(&store, &topic, || assert_eq!(store.remove(&topic), Some(1))),
            "it disappears"
        );
        assert_eq!((store.len(), store.get(&topic)), (0, None));
    }

    #[test]
    fn an_update_does_not_touch_the_names() {
        let store = RetainedStore::new();
        let topic: Arc<str> = "a/b".into();
        store.set(&topic, 1);
        let names = store.names.read();
        assert_eq!(store.set(&topic, 2), Some(1));
        drop(names);
        assert_eq!(store.get(&topic), Some(2));
    }
}
