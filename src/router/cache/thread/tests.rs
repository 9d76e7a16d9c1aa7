use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;

use super::super::{Judged, ROUTE_CACHE_TOPICS_MAX, RouteCache};
use super::*;
use crate::protocol::QoS;
use crate::router::tests::Peer;
use crate::router::{Router, SubscriptionOptions};

/// A publisher of many topics, and how often its routes were computed.
struct Gateway<'a> {
    router: &'a Router<Peer>,
    threads: &'a ThreadRoutes<Peer, u64>,
    cache: RouteCache<Peer, u64>,
    publisher: u64,
    computed: AtomicUsize,
}

impl<'a> Gateway<'a> {
    fn new(router: &'a Router<Peer>, threads: &'a ThreadRoutes<Peer, u64>, publisher: u64) -> Self {
        let (cache, computed) = (RouteCache::default(), AtomicUsize::new(0));
        let mut gateway = Self { router, threads, cache, publisher, computed };
        (0..=ROUTE_CACHE_TOPICS_MAX).for_each(|n| _ = gateway.asks(&format!("first of {publisher}/{n}")));
        gateway
    }

    /// Asks for a route and says whether it was computed. The verdict is the publisher's number.
    fn asks(&mut self, topic: &str) -> bool {
        let before = self.computed.load(Ordering::Relaxed);
        let Self { router, threads, publisher, .. } = *self;
        let computed = &self.computed;
        let judge = |_: &mut Vec<Route<Peer>>| {
            computed.fetch_add(1, Ordering::Relaxed);
            Judged { publisher, verdict: publisher }
        };
        let (_, verdict) = self.cache.get(&Asked { router, threads, publisher, topic }, judge);
        assert_eq!(verdict, publisher, "a verdict about another publisher");
        self.computed.load(Ordering::Relaxed) > before
    }

    /// How many of these topics were computed, each asked for in turn.
    fn asks_all(&mut self, topics: impl Iterator<Item = usize>) -> usize {
        topics.filter(|n| self.asks(&format!("of many/{n}"))).count()
    }
}

/// Always with the same hashes: where topics meet by chance, they meet in each run.
fn router<S: Subscriber>() -> Router<S> {
    Router::with_state(RandomState::with_seeds(1, 2, 3, 4))
}

fn table(threads: &ThreadRoutes<Peer, u64>) -> MutexGuard<'_, Table<Peer, u64>> {
    threads.table().expect("nobody else has it")
}

impl<S, V> ThreadRoutes<S, V> {
    /// Topics kept by all threads.
    pub(in crate::router) fn topics(&self) -> usize {
        let tables = self.tables.iter().map(Mutex::lock);
        tables.map(|table| table.sets.iter().flat_map(|set| &set.entries).flatten().count()).sum()
    }
}

fn subscribe(router: &Router<Peer>, filter: &str, key: u64) {
    router.subscribe(filter, Peer(key), SubscriptionOptions::with_qos(QoS::AtMostOnce));
}

#[test]
fn the_topics_of_a_gateway_are_computed_once_or_twice() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    subscribe(&router, "of many/#", 1);
    let mut gateway = Gateway::new(&router, &threads, 7);
    // In the same order each time, the worst for who keeps too little.
    for _ in 0..3 {
        gateway.asks_all(0..2_000);
    }
    // Places are chosen by hash: where more topics meet than a set has room for, some are computed each time.
    let few = 0..10;
    let computed = gateway.asks_all(0..2_000);
    assert!(few.contains(&computed), "{computed}");
    subscribe(&router, "of many/+", 2);
    assert_eq!(gateway.asks_all(0..2_000), 2_000, "what has changed is computed again");
    let computed = gateway.asks_all(0..2_000);
    assert!(few.contains(&computed), "{computed}");
    // Another one shares nothing with it, for the verdicts are not the same.
    let mut other = Gateway::new(&router, &threads, 8);
    assert_eq!(other.asks_all(0..500), 500);
    let computed = Gateway::new(&router, &threads, 7).asks_all(0..500);
    assert!(few.contains(&computed), "{computed}, but all connections of one publisher share");
}

#[test]
fn topics_that_are_used_once_do_not_take_the_place_of_others() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    let mut gateway = Gateway::new(&router, &threads, 7);
    for _ in 0..3 {
        gateway.asks_all(0..1_000);
    }
    let before = table(&threads).sets.len();
    Gateway::new(&router, &threads, 8).asks_all(10_000..60_000);
    assert_eq!(table(&threads).sets.len(), before, "nor does the table grow for them");
    let computed = gateway.asks_all(0..1_000);
    assert!(computed < 20, "{computed} of 1,000 have lost their place");
}

#[test]
fn a_thread_keeps_no_more_topics_and_routes_than_it_may() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    let mut gateway = Gateway::new(&router, &threads, 7);
    for _ in 0..3 {
        gateway.asks_all(0..2 * TOPICS_MAX);
    }
    assert_eq!(table(&threads).sets.len(), SETS_MAX);
    let count = threads.topics();
    assert_eq!(table(&threads).kept, count);
    assert!(count > TOPICS_MAX / 2 && count <= TOPICS_MAX, "{count}");

    (0..200).for_each(|key| subscribe(&router, "of many/#", key));
    let mut most = 0;
    for n in (0..2_000).chain(1_900..2_000) {
        if n == 1_900 {
            // From here on other routes stand where there are some.
            subscribe(&router, "of many/+", 1_000);
        }
        gateway.asks(&format!("of many/{n}"));
        let table = table(&threads);
        let entries = table.sets.iter().flat_map(|set| &set.entries).flatten();
        let routes: usize = entries.map(|entry| entry.routes.len()).sum();
        assert_eq!(routes, table.routes);
        most = most.max(routes);
    }
    assert!(most > ROUTES_MAX / 2 && most <= ROUTES_MAX, "{most}");
}

#[test]
fn a_thread_that_finds_its_table_taken_does_without() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    subscribe(&router, "of many/+", 1);
    let mut gateway = Gateway::new(&router, &threads, 7);
    let taken: Vec<_> = threads.tables.iter().map(Mutex::lock).collect();
    assert_eq!((gateway.asks_all(0..10), gateway.asks_all(0..10)), (10, 10));
    drop(taken);
    gateway.asks_all(0..10);
    gateway.asks_all(0..10);
    assert_eq!(gateway.asks_all(0..10), 0);
}

#[test]
fn a_route_that_is_not_kept_is_let_go_of_with_the_next() {
    #[derive(Clone)]
    struct Counted(#[expect(dead_code)] Arc<()>);
    impl Subscriber for Counted {
        fn key(&self) -> u64 {
            1
        }
    }
    let alive = Arc::new(());
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    router.subscribe("once/+", Counted(alive.clone()), SubscriptionOptions::with_qos(QoS::AtMostOnce));
    let mut cache = RouteCache::default();
    let mut ask = |topic: &str| {
        let asked = Asked { router: &router, threads: &threads, publisher: 0, topic };
        cache.get(&asked, |_| Judged { publisher: 0, verdict: () }).0.len()
    };
    (0..=ROUTE_CACHE_TOPICS_MAX).for_each(|n| _ = ask(&format!("few/{n}")));
    // Too long to be kept.
    assert_eq!(ask(&format!("once/{}", "x".repeat(600))), 1);
    assert_eq!(Arc::strong_count(&alive), 3, "by the publisher, too");
    ask("few/0");
    assert_eq!(Arc::strong_count(&alive), 2);
}

#[test]
fn publishers_of_the_same_topics_do_not_take_each_others_places() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    let mut clients: Vec<_> = (1..=20).map(|key| Gateway::new(&router, &threads, key)).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| _ = client.asks_all(0..50));
    }
    let computed: usize = clients.iter_mut().map(|client| client.asks_all(0..50)).sum();
    assert!(computed < 50, "{computed} of 1,000");
}

#[test]
fn a_full_table_gives_up_what_is_not_used() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    let mut gateway = Gateway::new(&router, &threads, 7);
    for _ in 0..4 {
        gateway.asks_all(100_000..100_000 + TOPICS_MAX);
    }
    let dead = threads.topics();
    assert!(dead > TOPICS_MAX * 3 / 4, "{dead}");
    for _ in 0..12 {
        gateway.asks_all(0..1_000);
    }
    let computed = gateway.asks_all(0..1_000);
    assert!(computed < 10, "{computed} of 1,000 find no place among {dead} that nobody uses");
}

#[test]
fn a_topic_with_very_many_receivers_is_not_kept_and_empties_nothing() {
    let (router, threads) = (router(), ThreadRoutes::new(2, &Arc::default()));
    (0..=ROUTES_OF_ONE_MAX as u64).for_each(|key| subscribe(&router, "wide", key));
    let mut gateway = Gateway::new(&router, &threads, 7);
    for _ in 0..3 {
        gateway.asks_all(0..100);
        assert!(gateway.asks("wide"));
    }
    assert_eq!(gateway.asks_all(0..100), 0);
    router.unsubscribe("wide", 0);
    (0..3).for_each(|_| _ = (gateway.asks("wide"), gateway.asks("another")));
    assert!(!gateway.asks("wide"), "with one receiver less it is");
    let Gateway { cache, .. } = gateway;
    let own = cache.inner.and_then(|inner| inner.many).map_or(0, |passing| passing.found.own.capacity());
    assert!(own <= super::super::OWN_ROUTES_KEPT, "room for {own} routes stays with the connection");
}

#[test]
fn a_verdict_about_somebody_else_than_who_asked_is_not_kept_for_others() {
    let (router, threads) = (router::<Peer>(), ThreadRoutes::<Peer, u64>::new(2, &Arc::default()));
    let mut caches = [RouteCache::default(), RouteCache::default()];
    // Who asks believes that there are no rules; then they come, and the verdict is about publisher 7 or 8.
    let mut ask = |who: u64, topic: &str| {
        let asked = Asked { router: &router, threads: &threads, publisher: 0, topic };
        caches[who as usize - 7].get(&asked, |_| Judged { publisher: who, verdict: who }).1
    };
    (7..9).for_each(|who| {
        (0..=ROUTE_CACHE_TOPICS_MAX).for_each(|n| _ = ask(who, &format!("first of {who}/{n}")))
    });
    for _ in 0..3 {
        for who in 7..9 {
            assert_eq!((ask(who, "a"), ask(who, "b")), (who, who));
        }
    }
}
