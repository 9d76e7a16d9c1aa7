//! Who receives a message: from the route cache, from the router, and what changes there cost.
//!
//! Of the filters four fifths are exact; the others have a wildcard at the end, in the middle, or in the first level.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};

use super::Shuffled;
use crate::protocol::QoS;
use crate::router::{
    Asked, Judged, Lookup, Route, RouteCache, Router, Subscriber, SubscriptionOptions, ThreadRoutes,
};
use crate::{Case, Operation, Scale};

pub(crate) const CASES: &[Case] = &[
    Case::new("route_cache_hit", 1_000, |scale| route_cache_hit(scale, 4)),
    Case::new("route_cache_hit_of_a_gateway", 1_000, |scale| route_cache_hit(scale, 500)),
    Case::new("match_exact", 1_000, |scale| matching(scale, |i| i % 5 != 4)),
    Case::new("match_wildcard", 1_000, |scale| matching(scale, |i| i % 5 == 4)),
    Case::new("subscribe_and_unsubscribe_exact", 1_000, |scale| {
        subscribing(scale, |n| format!("new/{n}/device"))
    }),
    Case::new("subscribe_and_unsubscribe_wildcard", 1_000, |scale| {
        subscribing(scale, |n| format!("site/{}/new/{n}/+", n % SITES))
    }),
];

const SITES: usize = 1_000;
const OPTIONS: SubscriptionOptions = SubscriptionOptions::with_qos(QoS::AtLeastOnce);

/// A handle as the broker's: counted, with the key behind it.
#[derive(Clone)]
struct Receiver(Arc<u64>);

impl Subscriber for Receiver {
    fn key(&self) -> u64 {
        *self.0
    }
}

fn filter(i: usize) -> String {
    let site = i % SITES;
    match i % 20 {
        4 => format!("site/{site}/device/{i}/+"),
        9 => format!("site/{site}/device/{i}/#"),
        14 => format!("site/{site}/+/{i}/temperature"),
        19 => format!("+/{site}/device/{i}/temperature"),
        _ => topic(i),
    }
}

/// The topic that filter number `i` matches, and no other filter does.
fn topic(i: usize) -> String {
    format!("site/{}/device/{i}/temperature", i % SITES)
}

/// The router with so many filters, of a session each; built once, for all cases put back what they change.
fn router(scale: Scale) -> &'static Router<Receiver> {
    static SMALL: OnceLock<Router<Receiver>> = OnceLock::new();
    static LARGE: OnceLock<Router<Receiver>> = OnceLock::new();
    let place = match scale {
        Scale::Small => &SMALL,
        Scale::Large => &LARGE,
    };
    place.get_or_init(|| {
        let router = Router::new();
        for i in 0..scale.count() {
            router.subscribe(&Arc::from(filter(i)), Receiver(Arc::new(i as u64)), OPTIONS);
        }
        router
    })
}

fn routes_to(routes: &[Route<Receiver>], key: usize) -> bool {
    matches!(routes, [route] if route.subscriber.key() == key as u64)
}

/// A publisher with so many topics: those of a few stand with the connection, those of many with the thread.
fn route_cache_hit(scale: Scale, topics: usize) -> Box<dyn Operation> {
    let (router, threads) = (router(scale), ThreadRoutes::new(2, &Arc::default()));
    let mut cache = RouteCache::default();
    let mut topics: Vec<String> = (0..topics).map(topic).collect();
    let mut get = move |topic: &str, computed: &mut u64| {
        let asked = Asked { router, threads: &threads, publisher: 0, topic };
        let judge = |_: &mut Vec<Route<Receiver>>| {
            *computed += 1;
            Judged { publisher: 0, verdict: () }
        };
        let Lookup::Found(routes, ()) = cache.get_within(&asked, &mut { usize::MAX }, judge) else {
            panic!("there is no bound");
        };
        assert!(matches!(black_box(routes.as_slice()), [_]));
    };
    let first = topics.iter().cycle().take(3 * topics.len());
    first.for_each(|topic| get(topic, &mut 0));
    // The keys of the hash are other ones with each build: with some of them a topic or two find no place.
    let mut has_place = |topic: &String| {
        let mut computed = 0;
        get(topic, &mut computed);
        computed == 0
    };
    let all = topics.len();
    topics.retain(&mut has_place);
    topics.retain(&mut has_place);
    assert!(topics.len() * 100 >= all * 99, "{} of {all}", topics.len());
    let mut next = 0;
    Box::new(move |times| {
        let mut computed = 0;
        for topic in topics.iter().cycle().skip(next).take(times as usize) {
            get(black_box(topic), &mut computed);
        }
        next = (next + times as usize) % topics.len();
        assert_eq!(computed, 0);
    })
}

/// Topics of which each has one receiver, by a filter of the kind that `wanted` picks.
fn matching(scale: Scale, wanted: fn(usize) -> bool) -> Box<dyn Operation> {
    let router = router(scale);
    let mut shuffled = Shuffled(1);
    let mut topics = Vec::new();
    let mut routes = Vec::new();
    while topics.len() < scale.topics() {
        let i = shuffled.below(scale.count());
        if wanted(i) {
            topics.push(topic(i));
            routes.clear();
            router.route(&topic(i), &mut routes);
            assert!(routes_to(&routes, i));
        }
    }
    let mut next = 0;
    Box::new(move |times| {
        for _ in 0..times {
            routes.clear();
            router.route(&topics[next], &mut routes);
            black_box(&routes);
            next = (next + 1) % topics.len();
        }
    })
}

/// A new filter, and its end: the router stays as it is.
fn subscribing(scale: Scale, filter: fn(usize) -> String) -> Box<dyn Operation> {
    let router = router(scale);
    let filters: Vec<Arc<str>> = (0..scale.topics()).map(|n| Arc::from(filter(n))).collect();
    let receiver = Receiver(Arc::new(u64::MAX));
    let mut next = 0;
    Box::new(move |times| {
        for _ in 0..times {
            let filter = &filters[next];
            assert!(router.subscribe(filter, receiver.clone(), OPTIONS));
            assert!(router.unsubscribe(filter, receiver.key()));
            next = (next + 1) % filters.len();
        }
    })
}
