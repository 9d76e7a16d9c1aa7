//! The router and the retained store against naive models, and under concurrent use.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::protocol::matches;

/// A subscriber that is its key.
#[derive(Clone, Debug)]
pub(super) struct Peer(pub(super) u64);

impl Retained for Arc<str> {
    fn topic(&self) -> &str {
        self
    }
}

impl Subscriber for Peer {
    fn key(&self) -> u64 {
        self.0
    }
}

const LEVELS: [&str; 7] = ["a", "b", "", "$x", "a!", "a-", "longer than one word"];

/// Topics of one to five levels, of an alphabet so small that filters often match.
pub(super) fn topics() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&LEVELS[..]), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| !topic.is_empty())
}

/// Filters of one to five levels of the same alphabet and wildcards.
pub(super) fn filters() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => select(&LEVELS[..]), 2 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, subtree)| {
            levels.extend(subtree.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(vec![QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
}

fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions::with_qos(qos)
}

/// Key and QoS of each route, in the order given.
fn plain(routes: &[Route<Peer>]) -> Vec<(u64, u8)> {
    routes.iter().map(|route| (route.subscriber.0, route.options.qos as u8)).collect()
}

fn routed(router: &Router<Peer>, topic: &str) -> Vec<(u64, u8)> {
    let mut routes = Vec::new();
    router.route(topic, &mut routes);
    plain(&routes)
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(String, u64, QoS),
    Unsubscribe(String, u64),
    /// Of those that exist, chosen by a number: random filters rarely meet a subscription.
    UnsubscribeNth(usize),
    Route(String),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (filters(), 0u64..6, qos()).prop_map(|(filter, key, qos)| Step::Subscribe(filter, key, qos)),
        1 => (filters(), 0u64..6).prop_map(|(filter, key)| Step::Unsubscribe(filter, key)),
        3 => any::<usize>().prop_map(Step::UnsubscribeNth),
        4 => topics().prop_map(Step::Route),
    ]
}

/// Subscriptions as the standard describes them.
#[derive(Default)]
struct Model(BTreeMap<(String, u64), QoS>);

impl Model {
    fn route(&self, topic: &str) -> Vec<(u64, u8)> {
        let mut routes = BTreeMap::new();
        for ((filter, key), qos) in &self.0 {
            if matches(topic, filter) {
                let highest = routes.entry(*key).or_insert(0);
                *highest = (*qos as u8).max(*highest);
            }
        }
        routes.into_iter().collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn routes_as_the_rule_says(steps in prop::collection::vec(steps(), 1..120)) {
        let router = Router::new();
        let mut model = Model::default();
        let threads = ThreadRoutes::new(2, &Arc::default());
        let (mut cache, mut many) = (RouteCache::default(), of_many_topics(&router, &threads));
        let mut seen = BTreeSet::new();
        for step in steps {
            match step {
                Step::Subscribe(filter, key, qos) => {
                    let new = router.subscribe(&filter, Peer(key), options(qos));
                    prop_assert_eq!(new, model.0.insert((filter, key), qos).is_none());
                }
                Step::Unsubscribe(filter, key) => {
                    let found = router.unsubscribe(&filter, key);
                    prop_assert_eq!(found, model.0.remove(&(filter, key)).is_some());
                }
                Step::UnsubscribeNth(nth) => {
                    let chosen = model.0.keys().nth(nth % model.0.len().max(1)).cloned();
                    if let Some((filter, key)) = chosen {
                        prop_assert!(router.unsubscribe(&filter, key), "{} of {}", filter, key);
                        model.0.remove(&(filter, key));
                    }
                }
                Step::Route(topic) => {
                    prop_assert_eq!(routed(&router, &topic), model.route(&topic), "{}", topic);
                    seen.insert(topic);
                }
            }
            // Whatever the step changed, the cache must know it for each topic it has met.
            for topic in &seen {
                for cache in [&mut cache, &mut many] {
                    let cached = plain(cache.get(&asked(&router, &threads, topic), nobody).0);
                    prop_assert_eq!(cached, model.route(topic), "cached {}", topic);
                }
            }
            prop_assert_eq!(router.subscriptions(), model.0.len());
        }
        for (filter, key) in model.0.into_keys() {
            prop_assert!(router.unsubscribe(&filter, key));
        }
        prop_assert_eq!((router.filter_nodes(), router.subscriptions()), (0, 0));
    }

    #[test]
    fn replays_what_the_rule_matches(
        names in prop::collection::btree_set(topics(), 0..40),
        removed in prop::collection::btree_set(topics(), 0..20),
        filter in filters(),
        steps_max in 0usize..7,
        disturbed in prop::collection::vec((topics(), any::<bool>()), 0..30),
    ) {
        let store = RetainedStore::new();
        for name in &names {
            let name: Arc<str> = name.as_str().into();
            prop_assert!(store.set(Arc::clone(&name)).is_none());
            prop_assert_eq!(store.set(Arc::clone(&name)), Some(name));
        }
        for name in &removed {
            prop_assert_eq!(store.remove(name).is_some(), names.contains(name));
        }
        let mut throughout: BTreeSet<String> = names.difference(&removed).cloned().collect();
        let mut sometime = throughout.clone();
        prop_assert_eq!(store.len(), throughout.len());

        let (mut cursor, mut found) = (ReplayCursor::default(), Vec::new());
        let mut disturbed = disturbed.into_iter();
        let mut slices = 0;
        while !store.replay(&filter, &mut cursor, steps_max, &mut found) {
            slices += 1;
            prop_assert!(slices <= 100, "a replay of at most 70 topics must come to an end");
            if let Some((topic, set)) = disturbed.next() {
                if set {
                    store.set(Arc::<str>::from(topic.as_str()));
                    sometime.insert(topic);
                } else {
                    store.remove(&topic);
                    throughout.remove(&topic);
                }
            }
        }
        prop_assert!(store.replay(&filter, &mut cursor, steps_max, &mut found), "the end stays the end");

        let unique: BTreeSet<String> = found.iter().map(|name| name.to_string()).collect();
        prop_assert_eq!(unique.len(), found.len(), "no topic is seen twice");
        for name in &unique {
            prop_assert!(sometime.contains(name) && matches(name, &filter), "{} in {}", name, filter);
        }
        for name in throughout.iter().filter(|name| matches(name, &filter)) {
            prop_assert!(unique.contains(name), "{} missing in {}", name, filter);
        }
    }
}

#[test]
fn mqtt_4_7_2_1_a_filter_that_begins_with_a_wildcard_does_not_see_dollar_topics() {
    let router = Router::new();
    for (key, filter) in ["#", "+/x", "+/+/y", "$SYS/#", "$SYS/x"].into_iter().enumerate() {
        router.subscribe(filter, Peer(key as u64), options(QoS::AtMostOnce));
    }
    assert_eq!(routed(&router, "$SYS/x"), [(3, 0), (4, 0)]);
    assert_eq!(routed(&router, "$SYS/x/y"), [(3, 0)]);
    assert_eq!(routed(&router, "SYS/x"), [(0, 0), (1, 0)]);
}

#[test]
fn route_appends_and_leaves_what_was_there() {
    let router = Router::new();
    for (filter, qos) in [("a/b", QoS::AtLeastOnce), ("a/+", QoS::ExactlyOnce), ("#", QoS::AtMostOnce)] {
        router.subscribe(filter, Peer(7), options(qos));
    }
    let mut routes = vec![Route { subscriber: Peer(7), options: options(QoS::AtMostOnce) }];
    router.route("a/b", &mut routes);
    assert_eq!(plain(&routes), [(7, 0), (7, 2)]);
}

#[test]
fn a_change_elsewhere_leaves_the_generation_alone() {
    let router = Router::new();
    let topic = "site/1/temp";
    let distant =
        |n: &u32| router.generation_index(&format!("site/{n}/temp")) != router.generation_index(topic);
    let other = (2..).find(distant).expect("one of 4,096 counters is another");
    let before = router.generation(topic);
    router.subscribe(&format!("site/{other}/temp"), Peer(1), options(QoS::AtMostOnce));
    router.subscribe(&format!("site/{other}/#"), Peer(1), options(QoS::AtMostOnce));
    router.unsubscribe(topic, 1);
    assert_eq!(router.generation(topic), before);
    router.subscribe("+/9/x", Peer(1), options(QoS::AtMostOnce));
    assert_ne!(router.generation(topic), before);
}

/// What a publisher asks that says nothing about itself.
pub(super) fn asked<'a, S, V>(
    router: &'a Router<S>,
    threads: &'a ThreadRoutes<S, V>,
    topic: &'a str,
) -> Asked<'a, S, V> {
    Asked { router, threads, publisher: 0, topic }
}

/// Judges nothing.
pub(super) fn nobody<S>(_: &mut Vec<Route<S>>) -> Judged<()> {
    Judged { publisher: 0, verdict: () }
}

/// The cache of a publisher that has used more topics than it has room for.
fn of_many_topics<S: Subscriber>(router: &Router<S>, threads: &ThreadRoutes<S, ()>) -> RouteCache<S, ()> {
    let mut cache = RouteCache::default();
    for n in 0..=ROUTE_CACHE_TOPICS_MAX {
        cache.get(&asked(router, threads, &format!("of many/{n}")), nobody);
    }
    cache
}

#[test]
fn a_cache_is_bounded_in_topics_bytes_and_routes() {
    let (router, threads) = (Router::new(), ThreadRoutes::new(2, &Arc::default()));
    let mut cache = RouteCache::default();
    let computed = AtomicUsize::new(0);
    let mut get = |topic: &str| {
        let before = computed.load(Ordering::Relaxed);
        let judge = |_: &mut Vec<Route<Peer>>| {
            computed.fetch_add(1, Ordering::Relaxed);
            Judged { publisher: 0, verdict: () }
        };
        let found = plain(cache.get(&asked(&router, &threads, topic), judge).0);
        (computed.load(Ordering::Relaxed) - before, found.len())
    };
    router.subscribe("#", Peer(1), options(QoS::AtMostOnce));
    let long = "l".repeat(ROUTE_CACHE_TOPIC_BYTES_MAX + 1);
    assert_eq!([get(&long[1..]), get(&long[1..])], [(1, 1), (0, 1)], "the longest topic that is kept");
    assert_eq!([get(&long), get(&long)], [(1, 1), (1, 1)], "a longer one is not found again");
    for key in 0..ROUTE_CACHE_ROUTES_MAX as u64 {
        router.subscribe("large", Peer(key), options(QoS::AtMostOnce));
    }
    assert_eq!([get("small"), get("small")], [(1, 1), (0, 1)]);
    assert_eq!([get("large"), get("large")], [(1, ROUTE_CACHE_ROUTES_MAX), (0, ROUTE_CACHE_ROUTES_MAX)]);
    assert_eq!(get("small"), (1, 1), "a topic with very many subscribers is kept alone");
    router.subscribe("large", Peer(u64::MAX), options(QoS::AtMostOnce));
    assert_eq!([get("large").0, get("large").0], [1, 0], "and if it is too large itself, alone all the same");

    // The first of them throws "large" out, and a topic that is not kept takes one place however often it comes.
    let kept: Vec<String> = (0..ROUTE_CACHE_TOPICS_MAX - 1).map(|n| format!("t/{n}")).collect();
    router.unsubscribe("large", u64::MAX);
    kept.iter().for_each(|topic| assert_eq!(get(topic).0, 1));
    (0..40).for_each(|_| assert_eq!(get(&long).0, 1));
    kept.iter().for_each(|topic| assert_eq!(get(topic).0, 0, "as many topics as the bound says are kept"));
    assert_eq!(threads.topics(), 0, "none of them by the thread");
    assert_eq!(get("one more").0, 1);
    kept.iter().for_each(|topic| _ = get(topic));
    assert!(threads.topics() > 0, "beyond that the thread keeps them");
}

/// A subscriber that can be counted.
#[derive(Clone)]
struct Counted(u64, #[expect(dead_code)] Arc<()>);

impl Subscriber for Counted {
    fn key(&self) -> u64 {
        self.0
    }
}

#[test]
fn nothing_is_left_when_all_subscriptions_are_gone() {
    let alive = Arc::new(());
    let router = Router::new();
    let shapes =
        ["s/{}/t", "s/{}/+/a level longer than fits a node/x", "s/+/{}/#", "+/{}/y", "$share/{}/#", "#"];
    let filter = |n: usize| shapes[n % shapes.len()].replace("{}", &(n / 12).to_string());
    for round in 0..2 {
        for n in 0..6_000 {
            router.subscribe(&filter(n), Counted(n as u64 % 5, alive.clone()), options(QoS::AtMostOnce));
        }
        assert_eq!(Arc::strong_count(&alive), router.subscriptions() + 1);
        let order: Vec<usize> = if round == 0 { (0..6_000).collect() } else { (0..6_000).rev().collect() };
        let removed = order.into_iter().filter(|n| router.unsubscribe(&filter(*n), *n as u64 % 5)).count();
        assert!(removed > 3_000, "{removed}");
        assert_eq!((router.subscriptions(), router.filter_nodes()), (0, 0));
        assert_eq!(Arc::strong_count(&alive), 1, "a removed subscriber is let go of");
    }
}

#[test]
fn a_topic_of_65_535_slashes_takes_little_per_level() {
    let router = Router::new();
    let deep = "/".repeat(65_535);
    let plus: Vec<&str> = vec!["+"; 32_768];
    let (plus, mixed) = (plus.join("/"), format!("{}#", "/".repeat(65_534)));
    let begun = Instant::now();
    for (key, filter) in [deep.as_str(), &plus, &mixed, "#", "/#", "//+/#"].into_iter().enumerate() {
        assert!(router.subscribe(filter, Peer(key as u64), options(QoS::AtMostOnce)));
    }
    assert_eq!(
        plain(
            RouteCache::default()
                .get(&asked(&router, &ThreadRoutes::new(2, &Arc::default()), &deep), nobody)
                .0
        ),
        [(0, 0), (2, 0), (3, 0), (4, 0), (5, 0)]
    );
    assert_eq!(routed(&router, &"/".repeat(32_767)), [(1, 0), (3, 0), (4, 0), (5, 0)]);

    let store = RetainedStore::new();
    store.set(Arc::<str>::from(deep.as_str()));
    for filter in [deep.as_str(), "#", &mixed] {
        let (mut cursor, mut found) = (ReplayCursor::default(), Vec::new());
        while !store.replay(filter, &mut cursor, 10, &mut found) {}
        assert_eq!(found.len(), 1);
    }
    for (key, filter) in [deep.as_str(), &plus, &mixed, "#", "/#", "//+/#"].into_iter().enumerate() {
        assert!(router.unsubscribe(filter, key as u64));
    }
    assert_eq!(router.filter_nodes(), 0);
    // About 400,000 levels were walked; 5 s are 12 µs for each, in a debug build on a busy machine.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

/// Sessions subscribe and unsubscribe while publishers route through caches of their own. Each session says
/// before and after each change how far it is; a publisher that finds it at rest before and after routing knows
/// what the route must have said. Both go on until each publisher has seen enough of either kind.
#[test]
fn a_route_knows_each_change_that_has_returned() {
    const SESSIONS: usize = 2;
    const PUBLISHERS: usize = 2;
    const ROUNDS_MIN: u64 = 25_000;
    const JUDGED_MIN: u64 = 1_000;
    let filters = ["t/a", "t/a/#", "t/+", "#", "+/a"];
    let router = Router::new();
    // Even while at rest: a multiple of 4 when not subscribed, 2 more when subscribed.
    let progress = [const { AtomicU64::new(0) }; SESSIONS];
    let publishing = AtomicUsize::new(PUBLISHERS);

    let threads = ThreadRoutes::new(2, &Arc::default());
    // One publisher of few topics, one of many.
    let publish = |is_gateway: bool| {
        let _leaving = Leaving(&publishing);
        let mut cache = if is_gateway { of_many_topics(&router, &threads) } else { RouteCache::default() };
        let mut judged = [0u64; 2];
        let rounds = || progress.iter().map(|it| it.load(Ordering::SeqCst) / 4).min().unwrap_or(0);
        for turn in 0u64.. {
            if rounds() >= ROUNDS_MIN && judged.iter().all(|count| *count >= JUDGED_MIN) {
                break;
            }
            if turn % 32 == 0 {
                // On fewer cores than threads the sessions would wait for the end of this one's time slice.
                std::thread::yield_now();
            }
            let before: Vec<u64> = progress.iter().map(|it| it.load(Ordering::SeqCst)).collect();
            // What it asked for last is at hand; with another topic in between it is the thread's table that must know.
            if is_gateway {
                cache.get(&asked(&router, &threads, "t/other"), nobody);
            }
            let routes = plain(cache.get(&asked(&router, &threads, "t/a"), nobody).0);
            for (key, before) in before.into_iter().enumerate() {
                let after = progress[key].load(Ordering::SeqCst);
                if before != after || before % 2 == 1 {
                    continue;
                }
                let subscribed = before % 4 == 2;
                let found = routes.iter().any(|route| route.0 == key as u64);
                assert_eq!(found, subscribed, "session {key} at {before}: {routes:?}");
                judged[usize::from(subscribed)] += 1;
            }
        }
    };
    let subscribe = |key: usize| {
        for filter in filters.iter().cycle().skip(key) {
            if publishing.load(Ordering::SeqCst) == 0 {
                return;
            }
            progress[key].fetch_add(1, Ordering::SeqCst);
            router.subscribe(filter, Peer(key as u64), options(QoS::AtLeastOnce));
            progress[key].fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            progress[key].fetch_add(1, Ordering::SeqCst);
            assert!(router.unsubscribe(filter, key as u64));
            progress[key].fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let publish = &publish;
            scope.spawn(move || publish(publisher % 2 == 1));
        }
        for key in 0..SESSIONS {
            scope.spawn(move || subscribe(key));
        }
    });
    assert_eq!(router.filter_nodes(), 0);
}

/// Counts a thread off when it ends, also by a failed assertion, so that nobody waits for it for ever.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn the_names_agree_with_the_messages_whatever_the_order_of_changes() {
    let store = RetainedStore::new();
    let topics: Vec<Arc<str>> = (0..8).map(|n| format!("t/{n}").as_str().into()).collect();
    let change = |thread: usize| {
        let mut found = Vec::new();
        for round in 0..20_000 {
            let topic = &topics[(round * 7 + thread * 3) % topics.len()];
            match (round + thread) % 5 {
                0..2 => _ = store.set(Arc::clone(topic)),
                2..4 => _ = store.remove(topic),
                _ => {
                    found.clear();
                    let mut cursor = ReplayCursor::default();
                    while !store.replay("t/+", &mut cursor, 3, &mut found) {}
                    assert!(found.len() <= topics.len());
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let change = &change;
            scope.spawn(move || change(thread));
        }
    });
    let left = topics.iter().filter(|topic| store.get(topic).is_some()).count();
    let mut found = Vec::new();
    assert!(store.replay("#", &mut ReplayCursor::default(), 100, &mut found));
    assert_eq!((found.len(), store.len()), (left, left));
}
