//! A match in slices against one in a piece, undisturbed and disturbed.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::{QoS, matches};
use crate::router::SubscriptionOptions;
use crate::router::tests::{Peer, filters, topics};

fn options(qos: QoS, id: u32) -> SubscriptionOptions {
    SubscriptionOptions { subscription_id: NonZeroU32::new(id), ..SubscriptionOptions::with_qos(qos) }
}

/// With an identifier, so that what is found twice is not put together.
fn alone() -> SubscriptionOptions {
    options(QoS::AtMostOnce, 1)
}

/// Key and options of each route, in the order given.
fn plain(routes: &[Route<Peer>]) -> Vec<(u64, SubscriptionOptions)> {
    routes.iter().map(|route| (route.subscriber.0, route.options)).collect()
}

fn whole(router: &Router<Peer>, topic: &str) -> Vec<(u64, SubscriptionOptions)> {
    let mut routes = Vec::new();
    router.route(topic, &mut routes);
    plain(&routes)
}

/// What slices of these sizes find, in turn, with something happening between them; and how many there were.
fn sliced(
    router: &Router<Peer>,
    topic: &str,
    sizes: &[usize],
    mut between: impl FnMut(usize),
) -> (Vec<(u64, SubscriptionOptions)>, usize) {
    let (mut cursor, mut routes, mut found) = (RouteCursor::default(), Vec::new(), Vec::new());
    let mut calls = 0;
    for size in sizes.iter().cycle() {
        calls += 1;
        assert!(calls < 100_000, "it never ends");
        let is_end = router.route_from(topic, &mut cursor, &mut { *size }, &mut routes);
        // What was appended is final, so it may be taken out.
        found.extend(plain(&routes));
        routes.clear();
        if is_end {
            break;
        }
        between(calls);
    }
    assert!(router.route_from(topic, &mut cursor, &mut 1, &mut routes) && routes.is_empty(), "the end stays");
    (found, calls)
}

/// A topic of so many levels, all the same but the first.
fn deep(first: &str, levels: usize) -> String {
    let mut topic = first.to_owned();
    (1..levels).for_each(|_| topic.push_str("/a"));
    topic
}

/// Filters that match `deep("a", levels)`: a `+` at each level whose bit is set, and `#` in place of the rest
/// behind `subtree` levels.
fn matching(levels: usize, plus: u64, subtree: Option<usize>) -> String {
    let kept = subtree.unwrap_or(levels).min(levels);
    let mut filter: Vec<&str> =
        (0..kept).map(|level| if level < 64 && plus >> level & 1 == 1 { "+" } else { "a" }).collect();
    filter.extend(subtree.map(|_| "#"));
    filter.join("/")
}

/// Most of them match `a/a/a/a/a`, and they share levels in all ways.
fn dense() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => (0u64..32, prop::option::of(0usize..6)).prop_map(|(plus, subtree)| matching(5, plus, subtree)),
        1 => filters(),
    ]
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![3 => 1usize..4, 1 => 1usize..200], 1..8)
}

fn any_topics() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just(deep("a", 5)),
        1 => select(vec!["a/a/a", "$x/a/a", "a//a", "/", "//a", "a", "$x", "a/a/a/a/a/a"]).prop_map(str::to_owned),
        2 => topics(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn slices_find_what_one_piece_finds(
        subscriptions in prop::collection::vec((dense(), 0u64..40, 0u32..3, 0u8..3), 0..120),
        topics in prop::collection::vec(any_topics(), 1..6),
        sizes in sizes(),
    ) {
        let router = Router::new();
        for (filter, key, id, qos) in subscriptions {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(qos)];
            router.subscribe(&filter, Peer(key), options(qos, id));
        }
        for topic in topics {
            prop_assert_eq!(sliced(&router, &topic, &sizes, |_| {}).0, whole(&router, &topic), "{}", topic);
        }
    }

    #[test]
    fn what_stays_is_found_once_whatever_comes_and_goes(
        first in prop::collection::btree_set(dense(), 0..60),
        changes in prop::collection::vec((dense(), any::<bool>()), 0..120),
        at_once in 1usize..6,
        topic in any_topics(),
        sizes in sizes(),
    ) {
        let router = Router::new();
        // Each filter has a subscriber of its own.
        let mut keys: BTreeMap<String, u64> = BTreeMap::new();
        let mut key_of = |filter: &str| {
            let next = keys.len() as u64;
            *keys.entry(filter.to_owned()).or_insert(next)
        };
        let option = alone();
        for filter in &first {
            router.subscribe(filter, Peer(key_of(filter)), option);
        }
        let (mut throughout, mut sometime) = (first.clone(), first.clone());
        let mut changes = changes.into_iter();
        let (found, _) = sliced(&router, &topic, &sizes, |_| {
            for (filter, subscribe) in changes.by_ref().take(at_once) {
                let key = key_of(&filter);
                if subscribe {
                    router.subscribe(&filter, Peer(key), option);
                    sometime.insert(filter);
                } else {
                    router.unsubscribe(&filter, key);
                    throughout.remove(&filter);
                }
            }
        });
        let mut times: BTreeMap<u64, usize> = BTreeMap::new();
        found.iter().for_each(|(key, _)| *times.entry(*key).or_default() += 1);
        prop_assert!(found.is_sorted_by_key(|(key, _)| *key));
        for (filter, key) in keys {
            let (times, is_match) = (times.get(&key).copied().unwrap_or(0), matches(&topic, &filter));
            prop_assert!(times <= 1, "{} is found {} times in {}", filter, times, topic);
            prop_assert!(times == 0 || is_match && sometime.contains(&filter), "{} in {}", filter, topic);
            prop_assert!(times == 1 || !is_match || !throughout.contains(&filter), "{} in {}", filter, topic);
        }
    }

    #[test]
    fn so_it_is_with_200_levels(
        filters in prop::collection::btree_set(
            (any::<u64>(), prop_oneof![Just(None), (0usize..=200).prop_map(Some)]), 1..80),
        sizes in sizes(),
        dollar in any::<bool>(),
        gone in prop::collection::vec(any::<usize>(), 0..40),
    ) {
        let router = Router::new();
        let filters: BTreeSet<String> =
            filters.into_iter().map(|(plus, subtree)| matching(200, plus, subtree)).collect();
        let filters: Vec<String> = filters.into_iter().collect();
        for (key, filter) in filters.iter().enumerate() {
            router.subscribe(filter, Peer(key as u64), alone());
        }
        let topic = deep(if dollar { "$a" } else { "a" }, 200);
        prop_assert_eq!(sliced(&router, &topic, &sizes, |_| {}).0, whole(&router, &topic));

        let mut throughout: BTreeSet<u64> = whole(&router, &topic).iter().map(|(key, _)| *key).collect();
        let mut gone = gone.into_iter().map(|n| n % filters.len());
        let (found, _) = sliced(&router, &topic, &sizes, |_| {
            if let Some(key) = gone.next() {
                router.unsubscribe(&filters[key], key as u64);
                throughout.remove(&(key as u64));
            }
        });
        let found: Vec<u64> = found.iter().map(|(key, _)| *key).collect();
        let unique: BTreeSet<u64> = found.iter().copied().collect();
        prop_assert!(unique.len() == found.len() && unique.is_superset(&throughout));
    }
}

/// As many filters as a turn must not walk through in one go, all of which match.
#[test]
fn a_slice_is_as_long_as_it_was_told() {
    const LEVELS: usize = 12;
    let router = Router::new();
    for plus in 0..1 << LEVELS {
        router.subscribe(&matching(LEVELS, plus, Some(LEVELS)), Peer(plus), options(QoS::AtMostOnce, 0));
    }
    let topic = deep("a", LEVELS);
    let expected = whole(&router, &topic);
    assert_eq!(expected.len(), 1 << LEVELS);
    for size in [1, 7, 100, 1_000] {
        let (found, calls) = sliced(&router, &topic, &[size], |_| {});
        assert_eq!(found, expected);
        // Nodes, tails and receivers: some three steps for each filter, and one to merge it.
        let steps = 4 * (1 << LEVELS);
        assert!((steps / size / 3..=3 * steps / size + 10).contains(&calls), "{calls} slices of {size}");
    }
    let mut routes = Vec::new();
    assert!(router.route_from(&topic, &mut RouteCursor::default(), &mut (1 << 20), &mut routes));
    assert_eq!(plain(&routes), expected, "one is enough if it is long enough");
}

/// Many filters of one session make one route, and not a list of them.
#[test]
fn filters_of_one_session_are_put_together_on_the_way() {
    const LEVELS: usize = 12;
    let router = Router::new();
    for plus in 0..1 << LEVELS {
        let qos = if plus == 1_234 { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
        router.subscribe(&matching(LEVELS, plus, None), Peer(plus % 3), options(qos, 0));
    }
    let topic = deep("a", LEVELS);
    let mut cursor = RouteCursor::default();
    let mut routes = Vec::new();
    while !router.route_from(&topic, &mut cursor, &mut 50, &mut routes) {
        let kept: usize = cursor.runs.found.iter().map(Vec::len).sum();
        assert!(kept <= 3 + LIST_AT_ONCE, "{kept}");
    }
    let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce];
    let expected: Vec<_> = (0..3).map(|key| (key, options(qos[key as usize], 0))).collect();
    assert_eq!(plain(&routes), expected);
}

/// Lists of many subscribers are taken in slices too, wherever they stand, and are joined and left meanwhile.
#[test]
fn a_long_list_is_cut_by_its_keys() {
    const EACH: u64 = 3_000;
    // In the table, as a tail, at the end of a node, in `#` below it, and in `#` of all.
    let lists = ["a/b/c/d", "a/b/+/d", "a/b/c/#", "a/b/#", "+/b/c/d", "#"];
    let router = Router::new();
    router.subscribe("a/b/c/+", Peer(u64::MAX), alone());
    for (number, filter) in lists.iter().enumerate() {
        for n in 0..EACH {
            let key = n * lists.len() as u64 + number as u64;
            router.subscribe(filter, Peer(2 * key), alone());
        }
    }
    let expected = whole(&router, "a/b/c/d");
    assert_eq!(expected.len() as u64, 1 + EACH * lists.len() as u64);
    for size in [1, 90, 1_000] {
        let (found, calls) = sliced(&router, "a/b/c/d", &[size], |_| {});
        assert_eq!(found, expected);
        let least = expected.len() / size.max(LIST_AT_ONCE);
        assert!(calls >= least, "{calls} slices of {size}");
    }
    // Odd keys come, and those of a tenth of the others go.
    let mut state = 1u64;
    let (mut gone, mut come) = (BTreeSet::new(), BTreeSet::new());
    let (found, _) = sliced(&router, "a/b/c/d", &[100], |_| {
        for _ in 0..10 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let key = (state >> 33) % (EACH * lists.len() as u64);
            let filter = lists[(key % lists.len() as u64) as usize];
            if state >> 32 & 1 == 0 {
                router.subscribe(filter, Peer(2 * key + 1), alone());
                come.insert(2 * key + 1);
            } else {
                router.unsubscribe(filter, 2 * key);
                gone.insert(2 * key);
            }
        }
    });
    let found: Vec<u64> = found.iter().map(|(key, _)| *key).collect();
    assert!(found.is_sorted_by(|a, b| a < b), "no key twice");
    assert!(gone.len() > 100 && come.len() > 100);
    let stayed: BTreeSet<u64> =
        expected.iter().map(|(key, _)| *key).filter(|key| !gone.contains(key)).collect();
    let found: BTreeSet<u64> = found.into_iter().collect();
    assert!(found.is_superset(&stayed));
    assert!(found.iter().all(|key| stayed.contains(key) || gone.contains(key) || come.contains(key)));
}

/// The way leads to nothing any more, and the next trie is walked through from its root all the same.
#[test]
fn a_way_that_is_gone_does_not_lead_into_another_trie() {
    let router = Router::new();
    let filters = ["a/a/a/+/b", "a/a/a/+/+", "+/a/a/a/+", "+/#"];
    for (key, filter) in filters.into_iter().enumerate() {
        router.subscribe(filter, Peer(key as u64), alone());
    }
    let (found, _) = sliced(&router, "a/a/a/a/a", &[1], |calls| {
        if calls == 3 {
            assert!(router.unsubscribe(filters[0], 0) && router.unsubscribe(filters[1], 1));
        }
    });
    assert_eq!(found.iter().map(|(key, _)| *key).collect::<Vec<u64>>(), [2, 3]);
}

/// A tail that was looked at and becomes a node afterwards is not looked at again, and one that was not is.
#[test]
fn a_tail_that_becomes_a_node_meanwhile_is_found_once() {
    for size in 1..12 {
        for after in 0..8 {
            let router = Router::new();
            let filters = ["+/a/#", "a/+/a/+", "a/a/+/a", "a/a/a/a", "+/+/+/+", "a/#", "a/+/#", "a/a/a/+"];
            for (key, filter) in filters.into_iter().enumerate() {
                router.subscribe(filter, Peer(key as u64), alone());
            }
            let (found, _) = sliced(&router, "a/a/a/a", &[size], |calls| {
                if calls == after {
                    // Each shares a level more with one of them.
                    for filter in ["+/a/x", "a/+/a/x", "a/a/+/x", "+/+/+/x", "a/+/x", "a/a/a/x/y"] {
                        router.subscribe(filter, Peer(99), alone());
                    }
                }
            });
            let found: Vec<u64> = found.iter().map(|(key, _)| *key).collect();
            assert_eq!(found, (0..8).collect::<Vec<u64>>(), "slices of {size}, disturbed after {after}");
        }
    }
}
