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
    let (router, threads) = (router(), ThreadRoutes::new(2));
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
    let (router, threads) = (router(), ThreadRoutes::new(2));
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
    let (router, threads) = (Router::new(), ThreadRoutes::new(2));
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
