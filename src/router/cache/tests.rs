//! A cache that is asked within a budget.

use super::*;
use crate::protocol::QoS;
use crate::router::SubscriptionOptions;
use crate::router::tests::{Peer, asked, nobody};

const FILTERS: u64 = 500;
const STEPS: usize = 20;
const OPTIONS: SubscriptionOptions = SubscriptionOptions::with_qos(QoS::AtMostOnce);
const JUDGED: Judged<()> = Judged { publisher: 0, verdict: () };

/// Subscribers of filters that all match `a/a/a/a/a/a/a/a/a/a/<n>`.
fn router() -> Router<Peer> {
    let router = Router::new();
    for n in 0..FILTERS {
        let levels: Vec<&str> = (0..10).map(|level| if n >> level & 1 == 1 { "+" } else { "a" }).collect();
        router.subscribe(&format!("{}/#", levels.join("/")), Peer(n), OPTIONS);
    }
    router
}

impl<S: Subscriber, V: Copy> RouteCache<S, V> {
    /// As long as it takes, where nothing is bounded.
    pub(in crate::router) fn get(
        &mut self,
        asked: &Asked<'_, S, V>,
        judge: impl FnOnce(&mut Vec<Route<S>>) -> Judged<V>,
    ) -> (&[Route<S>], V) {
        match self.get_within(asked, &mut { usize::MAX }, judge) {
            Lookup::Found(routes, verdict) => (routes.as_slice(), verdict),
            Lookup::Begun(_) => panic!("there is no bound"),
        }
    }
}

fn topic(n: usize) -> String {
    format!("a/a/a/a/a/a/a/a/a/a/{n}")
}

fn keys(routes: &[Route<Peer>]) -> Vec<u64> {
    routes.iter().map(|route| route.subscriber.0).collect()
}

/// The cache of a device, and that of a gateway.
fn caches(router: &Router<Peer>, threads: &ThreadRoutes<Peer, ()>) -> [RouteCache<Peer, ()>; 2] {
    let mut gateway = RouteCache::default();
    for n in 0..=ROUTE_CACHE_TOPICS_MAX {
        gateway.get(&asked(router, threads, &format!("of many/{n}")), nobody);
    }
    [RouteCache::default(), gateway]
}

fn begun(lookup: Lookup<'_, Peer, ()>) -> RouteMatch<Peer> {
    match lookup {
        Lookup::Begun(begun) => *begun,
        Lookup::Found(routes, ()) => panic!("{routes:?}"),
    }
}

fn finish(begun: &mut RouteMatch<Peer>, router: &Router<Peer>, topic: &str) {
    while !begun.go_on(router, topic, &mut { STEPS }) {}
}

#[test]
fn what_takes_too_long_is_begun_and_kept_when_it_is_finished() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    for mut cache in caches(&router, &threads) {
        let (topic, other) = (topic(1), topic(2));
        let about = asked(&router, &threads, &topic);
        let mut found = begun(cache.get_within(&about, &mut { STEPS }, |_| panic!("nothing to judge yet")));
        finish(&mut found, &router, &topic);
        // Whoever judges has the last one left out.
        assert_eq!(found.routes.pop().map(|route| route.subscriber.0), Some(FILTERS - 1));
        let (mut list, ()) = cache.put(&about, found, JUDGED);
        assert_eq!(list.left() as u64, FILTERS - 1);
        let mut all = Vec::new();
        while list.left() > 0 {
            let next = keys(list.next(7));
            assert!(!next.is_empty() && next.len() <= 7);
            all.extend(next);
        }
        assert!(list.next(7).is_empty());
        assert_eq!(all, (0..FILTERS - 1).collect::<Vec<_>>());
        match cache.get_within(&about, &mut 1, |_| panic!("it is kept")) {
            Lookup::Found(routes, ()) => assert_eq!(keys(routes.as_slice()), all),
            Lookup::Begun(_) => panic!("it is kept"),
        }
        assert_eq!(keys(cache.get(&about, |_| panic!("it is kept")).0), all);
        // With a budget that suffices it is as if there were none.
        match cache.get_within(&asked(&router, &threads, &other), &mut (1 << 20), nobody) {
            Lookup::Found(routes, ()) => {
                assert_eq!(keys(routes.as_slice()), (0..FILTERS).collect::<Vec<_>>());
            }
            Lookup::Begun(_) => panic!("a budget that suffices"),
        }
    }
}

#[test]
fn what_has_changed_since_the_match_began_is_computed_again() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    for mut cache in caches(&router, &threads) {
        let topic = topic(1);
        let about = asked(&router, &threads, &topic);
        let mut found = begun(cache.get_within(&about, &mut { STEPS }, nobody));
        // Behind the end of the walk through the table, so that this match does not have it.
        router.subscribe(&topic, Peer(FILTERS), OPTIONS);
        finish(&mut found, &router, &topic);
        let (list, ()) = cache.put(&about, found, JUDGED);
        assert_eq!(list.left() as u64, FILTERS);
        let mut found = begun(cache.get_within(&about, &mut { STEPS }, nobody));
        finish(&mut found, &router, &topic);
        let (list, ()) = cache.put(&about, found, JUDGED);
        assert_eq!(list.left() as u64, FILTERS + 1);
        assert_eq!(cache.get(&about, nobody).0.len() as u64, FILTERS + 1);
        router.unsubscribe(&topic, FILTERS);
    }
}

#[test]
fn more_routes_than_are_kept_are_given_to_whoever_found_them_and_let_go_bit_by_bit() {
    let (router, threads) = (Router::new(), ThreadRoutes::new(2, &Arc::default()));
    for n in 0..=ROUTE_CACHE_ROUTES_MAX as u64 {
        router.subscribe("large", Peer(n), OPTIONS);
    }
    let about = asked(&router, &threads, "large");
    let mut cache = RouteCache::default();
    let mut found = begun(cache.get_within(&about, &mut { STEPS }, nobody));
    finish(&mut found, &router, "large");
    let (mut list, ()) = cache.put(&about, found, JUDGED);
    assert_eq!(
        (list.left(), list.next(1).len(), list.left()),
        (ROUTE_CACHE_ROUTES_MAX + 1, 1, ROUTE_CACHE_ROUTES_MAX)
    );
    assert_eq!(keys(list.next(2)), [1, 2]);
    assert_eq!(list.next(usize::MAX).len(), ROUTE_CACHE_ROUTES_MAX - 2);
    assert!(list.next(1).is_empty() && list.left() == 0);
    begun(cache.get_within(&about, &mut { STEPS }, nobody));
}

/// Bytes that a list of so many routes with its topic is charged with.
fn charged(topic: &str, routes: usize) -> usize {
    topic.len() + routes * size_of::<Route<Peer>>()
}

/// A router with so many receivers for each topic of one letter, and accounts with so much for lists.
fn with_receivers<const N: usize>(
    receivers: [(&str, usize); N],
    room: usize,
) -> (Router<Peer>, ThreadRoutes<Peer, ()>, Arc<Accounts>) {
    let router = Router::new();
    for (topic, count) in receivers {
        (0..count as u64).for_each(|n| _ = router.subscribe(topic, Peer(n), OPTIONS));
    }
    let accounts = Arc::new(Accounts::new(Some(16 * room)));
    (router, ThreadRoutes::new(2, &accounts), accounts)
}

/// So many routes that the lookup kept, or the finished match that it gave because it could not.
fn look_up(
    cache: &mut RouteCache<Peer, ()>,
    asked: &Asked<'_, Peer, ()>,
) -> Result<usize, Box<RouteMatch<Peer>>> {
    let mut judged = false;
    let judge = |_: &mut Vec<Route<Peer>>| {
        judged = true;
        JUDGED
    };
    match cache.get_within(asked, &mut { usize::MAX }, judge) {
        Lookup::Found(routes, ()) => Ok(routes.as_slice().len()),
        Lookup::Begun(found) => {
            assert!(!judged, "it is judged when it is finished");
            Err(found)
        }
    }
}

/// A match that could not be kept has all receivers, and its end costs nothing. Nor is it kept later.
fn expect_own(
    found: Result<usize, Box<RouteMatch<Peer>>>,
    cache: &mut RouteCache<Peer, ()>,
    asked: &Asked<'_, Peer, ()>,
    count: usize,
) {
    let mut found = found.expect_err("there is no room for it");
    let mut steps = 1;
    assert!(found.go_on(asked.router, asked.topic, &mut steps) && steps == 1, "it is finished");
    assert_eq!(keys(&found.routes), (0..count as u64).collect::<Vec<_>>());
    let (list, ()) = cache.put(asked, *found, JUDGED);
    assert!(list.left() == count && list.own() >= count, "it is a list of its own");
}

#[test]
fn a_few_short_lists_are_not_charged_and_more_are_with_all_there_is() {
    let few = (STEP - 100) / size_of::<Route<Peer>>();
    let (router, threads, accounts) = with_receivers([("f", few), ("s", 3), ("l", 1_000)], 1 << 20);
    let mut cache = RouteCache::default();
    let held = || accounts.of(Account::Routes);
    for (topic, count, sum) in [("f", few, 0), ("l", 1_000, 0), ("s", 3, 0)] {
        assert_eq!(look_up(&mut cache, &asked(&router, &threads, topic)).ok(), Some(count));
        let expected = [charged("f", few), charged("l", 1_000), charged("s", 3)];
        let expected = match topic {
            "f" => sum,
            "l" => expected[0] + expected[1],
            _ => expected.iter().sum(),
        };
        assert_eq!(held(), expected, "{topic}");
    }
    // Found again, and computed again.
    let before = held();
    assert_eq!(look_up(&mut cache, &asked(&router, &threads, "l")).ok(), Some(1_000));
    assert_eq!(held(), before);
    (0..999).for_each(|n| _ = router.unsubscribe("l", n));
    assert_eq!(look_up(&mut cache, &asked(&router, &threads, "l")).ok(), Some(1));
    assert!(charged("f", few) + charged("l", 1) + charged("s", 3) < STEP);
    assert_eq!(held(), 0, "what is little again is not charged");
    (0..1_000).for_each(|n| _ = router.subscribe("l", Peer(n), OPTIONS));
    assert_eq!(look_up(&mut cache, &asked(&router, &threads, "l")).ok(), Some(1_000));
    assert!(held() > 0);
    // With a topic too many the thread keeps them.
    (0..ROUTE_CACHE_TOPICS_MAX).for_each(|n| _ = look_up(&mut cache, &asked(&router, &threads, &topic(n))));
    assert_eq!(held(), 0);
    assert_eq!(look_up(&mut cache, &asked(&router, &threads, "l")).ok(), Some(1_000));
    assert_eq!(held(), charged("l", 1_000));
    drop(cache);
    assert_eq!((held(), accounts.total()), (0, 0));
}

#[test]
fn what_is_left_out_is_not_charged() {
    let (router, threads, accounts) = with_receivers([("l", 1_000)], 1 << 20);
    for mut cache in caches(&router, &threads) {
        let halve = |routes: &mut Vec<Route<Peer>>| {
            routes.truncate(500);
            JUDGED
        };
        assert_eq!(cache.get(&asked(&router, &threads, "l"), halve).0.len(), 500);
        assert_eq!(accounts.of(Account::Routes), charged("l", 500));
    }
}

#[test]
fn a_list_for_which_the_account_has_no_room_is_not_kept_and_is_given_as_a_finished_match() {
    let room = charged("l", 1_000) + 100;
    let (router, threads, accounts) = with_receivers([("l", 1_000), ("m", 600), ("s", 3)], room);
    for (is_gateway, mut cache) in caches(&router, &threads).into_iter().enumerate() {
        let held = || accounts.of(Account::Routes);
        let [large, middle, small] = ["l", "m", "s"].map(|topic| asked(&router, &threads, topic));
        let other = Charge::new(&accounts, Account::Routes, charged("m", 600));
        // Twice, so that the thread keeps it if anybody does.
        for _ in 0..2 {
            let found = look_up(&mut cache, &large);
            expect_own(found, &mut cache, &large, 1_000);
            assert_eq!(held(), other.bytes(), "nothing is kept");
        }
        assert_eq!(look_up(&mut cache, &small).ok(), Some(3), "little always has room");
        drop(other);
        assert_eq!(look_up(&mut cache, &middle).ok(), Some(600));
        let expected = charged("m", 600) + if is_gateway == 1 { 0 } else { charged("s", 3) };
        assert_eq!(held(), expected);
        assert_eq!(look_up(&mut cache, &large).ok(), Some(1_000), "the other one is given up for it");
        assert_eq!(held(), charged("l", 1_000));
        // Less than before always has room.
        accounts.set_max(Some(0));
        assert_eq!(look_up(&mut cache, &middle).ok(), Some(600));
        let found = look_up(&mut cache, &large);
        expect_own(found, &mut cache, &large, 1_000);
        assert_eq!(held(), if is_gateway == 1 { 0 } else { charged("m", 600) }, "others are let be");
        accounts.set_max(Some(16 * room));
        assert_eq!(look_up(&mut cache, &large).ok(), Some(1_000));
    }
}

#[test]
fn what_a_thread_keeps_is_charged_to_each_connection_that_uses_it() {
    let (router, threads, accounts) = with_receivers([("l", 1_000)], charged("l", 1_000) * 5 / 2);
    let about = asked(&router, &threads, "l");
    let mut gateways = [(); 3].map(|()| caches(&router, &threads)).map(|[_, gateway]| gateway);
    for gateway in &mut gateways[..2] {
        (0..3).for_each(|_| assert_eq!(look_up(gateway, &about).ok(), Some(1_000)));
    }
    assert!(threads.topics() > 0, "the thread keeps it");
    assert_eq!(accounts.of(Account::Routes), 2 * charged("l", 1_000));
    let [first, _, last] = &mut gateways;
    let found = look_up(last, &about);
    expect_own(found, last, &about, 1_000);
    assert_eq!(accounts.of(Account::Routes), 2 * charged("l", 1_000));
    // The last topic is let go of for the next one.
    look_up(first, &asked(&router, &threads, "other")).expect("it has no receivers");
    assert_eq!(look_up(last, &about).ok(), Some(1_000));
    drop(gateways);
    assert_eq!(accounts.total(), 0);
}

#[test]
fn a_long_topic_is_not_kept_by_a_publisher_of_many_either() {
    let (router, threads, accounts) = with_receivers([("s", 1)], 1 << 20);
    let [_, mut gateway] = caches(&router, &threads);
    let long = "l".repeat(65_000);
    assert_eq!(look_up(&mut gateway, &asked(&router, &threads, &long)).ok(), Some(0));
    let many = gateway.inner.as_ref().and_then(|inner| inner.many.as_ref()).expect("it has many topics");
    assert!(many.topic.capacity() <= 2 * ROUTE_CACHE_TOPIC_BYTES_MAX && accounts.total() == 0);
}

/// A subscriber of which it is seen whether somebody still holds it.
#[derive(Clone, Debug)]
struct Held {
    key: u64,
    _mark: Arc<()>,
}

impl Subscriber for Held {
    fn key(&self) -> u64 {
        self.key
    }
}

#[test]
fn what_does_not_hold_any_more_is_let_go_of_when_it_is_asked_for() {
    let judge = |_: &mut Vec<Route<Held>>| JUDGED;
    for is_gateway in [false, true] {
        let (router, accounts) = (Router::new(), Arc::default());
        let threads = ThreadRoutes::new(2, &accounts);
        let mut cache = RouteCache::default();
        let topics = if is_gateway { ROUTE_CACHE_TOPICS_MAX + 1 } else { 0 };
        let topics: Vec<String> = (0..topics).map(|n| format!("of many/{n}")).collect();
        let asked = |topic| Asked { router: &router, threads: &threads, publisher: 0, topic };
        topics.iter().for_each(|topic| assert!(cache.get(&asked(topic), judge).0.is_empty()));
        let [left, stays] = [Arc::new(()), Arc::new(())];
        for n in 0..200 {
            router.subscribe("a/left", Held { key: n, _mark: Arc::clone(&left) }, OPTIONS);
            router.subscribe("b/stays", Held { key: 200 + n, _mark: Arc::clone(&stays) }, OPTIONS);
        }
        for topic in ["a/left", "b/stays", "a/left", "b/stays", "a/left"] {
            assert_eq!(cache.get(&asked(topic), judge).0.len(), 200);
        }
        (0..200).for_each(|n| assert!(router.unsubscribe("a/left", n)));
        assert!(Arc::strong_count(&left) > 200, "somebody keeps the route");
        let charged = accounts.of(Account::Routes);
        threads.let_go(&router);
        // A gateway's connection has the last one only, which is in no table any more; but it keeps
        // what it finds there next, and says nothing then.
        assert!(cache.let_go(&router, &threads));
        assert_eq!(Arc::strong_count(&left), 1, "{is_gateway}");
        assert!(accounts.of(Account::Routes) < charged, "{charged}");
        assert_eq!(cache.get(&asked("b/stays"), |_| panic!("it is kept")).0.len(), 200);
        assert_eq!(cache.get(&asked("a/left"), judge).0.len(), 0);
        assert!(cache.let_go(&router, &threads), "what holds is kept");
    }
}
