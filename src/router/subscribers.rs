//! The subscribers of one filter, unique and sorted by session key.
//!
//! One subscriber, by far the most common case, is kept in place; more are kept in a sorted list cut into
//! chunks, so that a filter with a million subscribers is joined and left without moving megabytes.
//! Never empty: who removes the last one removes the whole value.
//!
//! A shared-subscription group will be one more variant of what a list holds; it has no place in
//! `Subscribers::One` then, which keeps the common case as small as it is.

use super::{Route, Subscriber};

/// Routes in one chunk of a list: 8 KiB with a pointer as the subscriber.
const CHUNK_MAX: usize = 512;

/// The holders of one filter.
pub(super) enum Subscribers<S> {
    One(Route<S>),
    Many(Box<SubscriberList<S>>),
}

/// What a removal did.
pub(super) enum Removal<S> {
    /// There is no such subscriber.
    Absent,
    /// It was removed; others remain.
    Removed(Route<S>),
    /// It is the only one and still there: the whole value is to be removed.
    Last,
}

impl<S: Subscriber> Subscribers<S> {
    /// Adds a subscriber, or replaces that with the same key and returns what was there.
    pub(super) fn insert(&mut self, route: Route<S>) -> Option<Route<S>> {
        match self {
            Self::One(one) if one.subscriber.key() == route.subscriber.key() => {
                Some(std::mem::replace(one, route))
            }
            Self::One(one) => {
                let list = SubscriberList::pair(one.clone(), route);
                *self = Self::Many(Box::new(list));
                None
            }
            Self::Many(list) => list.insert(route),
        }
    }

    /// Removes the subscriber with this key unless it is the last.
    pub(super) fn remove(&mut self, key: u64) -> Removal<S> {
        match self {
            Self::One(one) if one.subscriber.key() == key => Removal::Last,
            Self::One(_) => Removal::Absent,
            Self::Many(list) => {
                let Some(removed) = list.remove(key) else { return Removal::Absent };
                if let Some(one) = list.only() {
                    *self = Self::One(one);
                }
                Removal::Removed(removed)
            }
        }
    }

    /// The one subscriber of which [`Removal::Last`] was said.
    pub(super) fn into_only(self) -> Option<Route<S>> {
        match self {
            Self::One(route) => Some(route),
            Self::Many(_) => None,
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(list) => list.chunks.iter().map(Vec::len).sum(),
        }
    }

    /// Appends the first `count` subscribers with higher keys than `after`.
    pub(super) fn append_after(&self, after: Option<u64>, count: usize, into: &mut Vec<Route<S>>) {
        let is_next = |route: &Route<S>| after.is_none_or(|after| route.subscriber.key() > after);
        match self {
            Self::One(one) => into.extend((is_next(one) && count > 0).then(|| one.clone())),
            Self::Many(list) => {
                let first = after.map_or(0, |after| list.chunk_of(after));
                let chunks = list.chunks.get(first..).unwrap_or_default();
                let skipped =
                    chunks.first().map_or(0, |chunk| chunk.partition_point(|route| !is_next(route)));
                into.extend(chunks.iter().flatten().skip(skipped).take(count).cloned());
            }
        }
    }

    /// Appends all subscribers in the order of their keys.
    pub(super) fn append_to(&self, into: &mut Vec<Route<S>>) {
        match self {
            Self::One(one) => into.push(one.clone()),
            Self::Many(list) => {
                into.reserve(list.chunks.iter().map(Vec::len).sum());
                for chunk in &list.chunks {
                    into.extend_from_slice(chunk);
                }
            }
        }
    }
}

/// Two subscribers or more. No chunk is empty; keys ascend within and across chunks.
pub(super) struct SubscriberList<S> {
    chunks: Vec<Vec<Route<S>>>,
}

impl<S: Subscriber> SubscriberList<S> {
    fn pair(a: Route<S>, b: Route<S>) -> Self {
        let chunk = if a.subscriber.key() < b.subscriber.key() { vec![a, b] } else { vec![b, a] };
        Self { chunks: vec![chunk] }
    }

    fn only(&self) -> Option<Route<S>> {
        match self.chunks.as_slice() {
            [chunk] if chunk.len() == 1 => chunk.first().cloned(),
            _ => None,
        }
    }

    fn insert(&mut self, route: Route<S>) -> Option<Route<S>> {
        let key = route.subscriber.key();
        let at = self.chunk_of(key);
        let is_last = at + 1 == self.chunks.len();
        let chunk = &mut self.chunks[at];
        let position = match search(chunk, key) {
            Ok(position) => return Some(std::mem::replace(&mut chunk[position], route)),
            Err(position) => position,
        };
        if chunk.len() < CHUNK_MAX {
            chunk.insert(position, route);
        } else if is_last && position == chunk.len() {
            // Sessions mostly come with ascending keys: leave full chunks behind instead of half-full ones.
            self.chunks.push(vec![route]);
        } else {
            let mut upper = chunk.split_off(CHUNK_MAX / 2);
            if position <= chunk.len() {
                chunk.insert(position, route);
            } else {
                upper.insert(position - chunk.len(), route);
            }
            chunk.shrink_to_fit();
            self.chunks.insert(at + 1, upper);
        }
        None
    }

    fn remove(&mut self, key: u64) -> Option<Route<S>> {
        let at = self.chunk_of(key);
        let chunk = &mut self.chunks[at];
        let removed = chunk.remove(search(chunk, key).ok()?);
        if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() <= CHUNK_MAX / 4 {
            self.tidy(at);
        }
        Some(removed)
    }

    /// Joins a sparse chunk to a neighbour if there is room, or gives unused memory back.
    fn tidy(&mut self, at: usize) {
        let fits = |a: usize, b: usize| {
            self.chunks
                .get(a)
                .zip(self.chunks.get(b))
                .is_some_and(|(a, b)| a.len() + b.len() <= CHUNK_MAX / 2)
        };
        let lower = if fits(at, at + 1) {
            at
        } else if at > 0 && fits(at - 1, at) {
            at - 1
        } else {
            let chunk = &mut self.chunks[at];
            if chunk.capacity() > 4 * chunk.len() {
                chunk.shrink_to(2 * chunk.len());
            }
            return;
        };
        let upper = self.chunks.remove(lower + 1);
        self.chunks[lower].extend(upper);
    }

    /// The chunk in which this key is or would be.
    fn chunk_of(&self, key: u64) -> usize {
        // Who comes last is looked for first: it spares a walk over the keys of other sessions.
        let last = self.chunks.len().saturating_sub(1);
        let begins_by =
            |chunk: &Vec<Route<S>>| chunk.first().is_some_and(|route| route.subscriber.key() <= key);
        if self.chunks.get(last).is_some_and(begins_by) {
            return last;
        }
        self.chunks.partition_point(begins_by).saturating_sub(1)
    }
}

fn search<S: Subscriber>(chunk: &[Route<S>], key: u64) -> Result<usize, usize> {
    match chunk.last() {
        Some(last) if last.subscriber.key() < key => Err(chunk.len()),
        _ => chunk.binary_search_by_key(&key, |route| route.subscriber.key()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::protocol::QoS;
    use crate::router::SubscriptionOptions;
    use crate::router::tests::Peer;

    const OPTIONS: SubscriptionOptions = SubscriptionOptions::with_qos(QoS::AtMostOnce);

    fn route(key: u64, qos: QoS) -> Route<Peer> {
        Route { subscriber: Peer(key), options: SubscriptionOptions::with_qos(qos) }
    }

    fn keys(subscribers: &Subscribers<Peer>) -> Vec<u64> {
        let mut routes = Vec::new();
        subscribers.append_to(&mut routes);
        routes.iter().map(|route| route.subscriber.0).collect()
    }

    #[test]
    fn one_subscriber_and_the_empty_slot_of_a_node_take_two_words() {
        #[derive(Clone)]
        struct Handle(#[expect(dead_code)] Arc<u64>);
        impl Subscriber for Handle {
            fn key(&self) -> u64 {
                0
            }
        }
        assert_eq!(size_of::<Subscribers<Handle>>(), 2 * size_of::<usize>());
        assert_eq!(size_of::<Option<Subscribers<Handle>>>(), 2 * size_of::<usize>());
    }

    #[test]
    fn the_same_key_is_replaced_and_the_old_entry_handed_back() {
        let mut subscribers = Subscribers::One(route(1, QoS::AtMostOnce));
        let old = subscribers.insert(route(1, QoS::ExactlyOnce));
        assert_eq!(old.map(|old| old.options.qos), Some(QoS::AtMostOnce));
        assert!(subscribers.insert(route(2, QoS::AtMostOnce)).is_none());
        let old = subscribers.insert(route(2, QoS::AtLeastOnce));
        assert_eq!(old.map(|old| old.options.qos), Some(QoS::AtMostOnce));
        assert_eq!(keys(&subscribers), [1, 2]);
    }

    #[test]
    fn a_list_that_thins_out_gives_its_memory_back() {
        let mut subscribers = Subscribers::One(route(0, QoS::AtMostOnce));
        for key in 1..100_000 {
            subscribers.insert(route(key, QoS::AtMostOnce));
        }
        for key in (0..100_000).filter(|key| key % 500 != 0) {
            assert!(matches!(subscribers.remove(key), Removal::Removed(_)));
        }
        assert_eq!(keys(&subscribers), (0..100_000).step_by(500).collect::<Vec<_>>());
        let Subscribers::Many(list) = &subscribers else { panic!("200 remain") };
        let capacity: usize = list.chunks.iter().map(Vec::capacity).sum();
        assert!(capacity <= 4 * 200, "{capacity} places for 200 subscribers in {} chunks", list.chunks.len());
        for key in (500..100_000).step_by(500) {
            assert!(matches!(subscribers.remove(key), Removal::Removed(_)));
        }
        assert!(matches!(subscribers, Subscribers::One(_)), "one subscriber alone needs no list");
        assert!(matches!(subscribers.remove(500), Removal::Absent));
        assert!(matches!(subscribers.remove(0), Removal::Last));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn is_a_sorted_map(steps in prop::collection::vec((0u64..3000, prop::bool::weighted(0.7)), 1..6000)) {
            let mut model = BTreeMap::from([(1500, ())]);
            let mut subscribers = Subscribers::One(Route { subscriber: Peer(1500), options: OPTIONS });
            for (key, insert) in steps {
                if insert {
                    let old = subscribers.insert(Route { subscriber: Peer(key), options: OPTIONS });
                    prop_assert_eq!(old.is_some(), model.insert(key, ()).is_some());
                } else {
                    match subscribers.remove(key) {
                        Removal::Absent => prop_assert!(!model.contains_key(&key)),
                        Removal::Removed(route) => {
                            prop_assert_eq!(route.subscriber.0, key);
                            prop_assert!(model.remove(&key).is_some());
                        }
                        Removal::Last => prop_assert_eq!(model.keys().collect::<Vec<_>>(), [&key]),
                    }
                }
            }
            prop_assert_eq!(keys(&subscribers), model.into_keys().collect::<Vec<_>>());
        }
    }
}
