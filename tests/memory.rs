//! What a subscription and a retained message cost in memory, from what the process holds before and after.
//!
//! One test in a process of its own, so that nothing else moves the figure. The bounds are a little above what was measured when they were
//! set (114 and 240 bytes); the aims are 120 with a million filters, and 250. What is measured is printed. Deep filters, with which one
//! client can take most, took 600 bytes each.

use std::sync::Arc;

use ternmq::QoS;
use ternmq::ledger::{Ledger, Position, Stored};
use ternmq::router::{Retained, RetainedStore, Router, Subscriber, SubscriptionOptions};
use ternmq::session::{Message, Session, SessionLimits};

#[derive(Clone)]
struct Peer(Arc<u64>);

impl Subscriber for Peer {
    fn key(&self) -> u64 {
        *self.0
    }
}

#[derive(Clone)]
struct Kept {
    message: Arc<Message>,
    _revision: u64,
}

impl Retained for Kept {
    fn topic(&self) -> &str {
        self.message.topic()
    }
}

/// Bytes of memory this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("the second number of statm") * 4096
}

/// Three in ten end in `+`, three in ten in `#`, two have a wildcard in the second level, two have none.
fn filter(n: usize) -> String {
    match n / 100 % 10 {
        0..3 => format!("site/{}/device{n}/sensor/+", n % 100),
        3..6 => format!("site/{}/device{n}/#", n % 100),
        6..8 => format!("site/+/device{n}/sensor/temperature"),
        _ => format!("site/{}/device{n}/sensor/temperature", n % 100),
    }
}

fn limits() -> Arc<SessionLimits> {
    Arc::new(SessionLimits {
        inflight_max: 1,
        queue_messages_max: 1,
        queue_bytes_max: 1,
        subscriptions_max: usize::MAX,
        subscription_bytes_max: usize::MAX,
    })
}

struct Subscribed {
    router: Router<Peer>,
    sessions: Vec<(Peer, Session)>,
}

impl Subscribed {
    fn new(sessions: usize) -> Self {
        let limits = limits();
        let session = |key| (Peer(Arc::new(key as u64)), Session::new(Arc::clone(&limits), false));
        Self { router: Router::new(), sessions: (0..sessions).map(session).collect() }
    }

    fn subscribe(&mut self, numbers: impl Iterator<Item = usize>) {
        let count = self.sessions.len();
        for n in numbers {
            let (filter, (peer, session)) = (filter(n), &mut self.sessions[n % count]);
            assert_eq!(session.subscribe(&filter, QoS::AtMostOnce), Ok(true));
            assert!(self.router.subscribe(
                &filter,
                peer.clone(),
                SubscriptionOptions::with_qos(QoS::AtMostOnce)
            ));
        }
    }

    fn unsubscribe(&mut self, numbers: impl Iterator<Item = usize>) {
        let count = self.sessions.len();
        for n in numbers {
            let (filter, (peer, session)) = (filter(n), &mut self.sessions[n % count]);
            assert!(session.unsubscribe(&filter));
            assert!(self.router.unsubscribe(&filter, peer.key()));
        }
    }
}

fn grown<T>(what: &str, count: usize, run: impl FnOnce() -> T) -> (T, usize) {
    let before = resident();
    let result = run();
    let each = resident().saturating_sub(before) / count;
    println!("{what}: {each} bytes each");
    (result, each)
}

#[test]
fn subscriptions_and_retained_messages_stay_small() {
    const COUNT: usize = 100_000;
    // First, and kept to the end: what others have freed would hide what it takes.
    let (ledger, store) = (Arc::new(Ledger::default()), RetainedStore::new());
    let ((), each) = grown("retained messages", COUNT, || {
        for n in 0..COUNT {
            let topic = format!("state/{}/device{n}/value", n % 100);
            let message = Arc::new(Message::new(&topic, [7; 64], QoS::AtLeastOnce));
            message.set_stored(Stored::new(&ledger, Position::new(1, n as u32), 100));
            store.set(Kept { message, _revision: n as u64 });
        }
    });
    assert!(each <= 255, "{each} bytes for each of 100,000 retained messages");

    // Filters of a hundred levels, each of which has another that parts from it in the last level only: no level is in a tail, and each
    // node serves two.
    let deep =
        |n: usize| format!("{}{}{}", n / 2, "/l".repeat(101), if n.is_multiple_of(2) { "/a" } else { "/b" });
    const DEEP: usize = 4_000;
    let (peer, router) = (Peer(Arc::new(1)), Router::new());
    let mut session = Session::new(limits(), false);
    let ((), each) = grown("filters of 103 levels", DEEP, || {
        for filter in (0..DEEP).map(deep) {
            assert_eq!(session.subscribe(&filter, QoS::AtMostOnce), Ok(true));
            router.subscribe(&filter, peer.clone(), SubscriptionOptions::with_qos(QoS::AtMostOnce));
        }
    });
    assert!(each <= 1_024, "{each} bytes for each of 4,000 deep filters");

    let mut subscribed = Subscribed::new(100);
    let ((), each) = grown("mixed filters", COUNT, || subscribed.subscribe(0..COUNT));
    assert!(each <= 130, "{each} bytes for each of 100,000 mixed filters");
    let held = resident();
    for _ in 0..3 {
        subscribed.unsubscribe(0..COUNT - 1_000);
        subscribed.subscribe(0..COUNT - 1_000);
    }
    let more = resident().saturating_sub(held) / COUNT;
    println!("three times given up and taken again: {more} bytes each");
    assert!(more <= 40, "{more} bytes more for each filter after three cycles");
    assert_eq!(store.len(), COUNT);

    // What comes and goes leaves nothing behind.
    let held = resident();
    for n in 0..COUNT {
        let topic = format!("gone/{}/device{n}/value", n % 100);
        store.set(Kept { message: Arc::new(Message::new(&topic, [7; 64], QoS::AtLeastOnce)), _revision: 0 });
        if n >= 100 {
            let topic = format!("gone/{}/device{}/value", n % 100, n - 100);
            assert!(store.remove(&topic).is_some());
        }
    }
    let more = resident().saturating_sub(held) / COUNT;
    println!("retained messages that came and went: {more} bytes each");
    assert!(more <= 30, "{more} bytes are left of each retained message that is no more");
    assert_eq!(store.len(), COUNT + 100);
}
