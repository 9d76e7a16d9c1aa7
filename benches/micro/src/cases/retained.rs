//! Retained messages: an update, and the replay of all that match a filter, in slices as the broker asks for them.

use std::hint::black_box;
use std::sync::{Arc, OnceLock};

use super::{PAYLOAD, Shuffled};
use crate::broker::Kept;
use crate::protocol::QoS;
use crate::router::{ReplayCursor, RetainedStore};
use crate::session::Message;
use crate::{Case, Operation, Scale};

pub(crate) const CASES: &[Case] = &[
    Case::new("retained_store", 1_000, storing),
    // Both match the topics of one site: a thousandth of all.
    Case::new("retained_match_plus", 20, |scale| {
        replaying(scale, "site/7/device/+/temperature", scale.count() / SITES)
    }),
    Case::new("retained_match_hash", 20, |scale| replaying(scale, "site/7/#", scale.count() / SITES)),
    // One topic, behind a level of which all values have to be tried.
    Case::new("retained_match_plus_before", 5, |scale| replaying(scale, "site/+/device/23/temperature", 1)),
];

const SITES: usize = 1_000;
/// Topics looked at under one lock: as many as the window of a session that `Core::replay` fills.
const STEPS: usize = 64;

type Store = RetainedStore<Kept>;

fn topic(i: usize) -> Arc<str> {
    Arc::from(format!("site/{}/device/{i}/temperature", i % SITES))
}

fn message(topic: &Arc<str>) -> Kept {
    Kept { message: Arc::new(Message::new(topic, PAYLOAD, QoS::AtLeastOnce)), revision: 0 }
}

fn store(scale: Scale) -> &'static Store {
    static SMALL: OnceLock<Store> = OnceLock::new();
    static LARGE: OnceLock<Store> = OnceLock::new();
    let place = match scale {
        Scale::Small => &SMALL,
        Scale::Large => &LARGE,
    };
    place.get_or_init(|| {
        let store = Store::new();
        for topic in (0..scale.count()).map(topic) {
            store.set(message(&topic));
        }
        store
    })
}

/// A topic that has one gets another message; it is made before.
fn storing(scale: Scale) -> Box<dyn Operation> {
    let store = store(scale);
    let mut shuffled = Shuffled(1);
    let topics: Vec<_> = (0..scale.topics()).map(|_| topic(shuffled.below(scale.count()))).collect();
    let messages: Vec<_> = topics.iter().map(message).collect();
    let mut next = 0;
    Box::new(move |times| {
        for _ in 0..times {
            let message = messages[next].clone();
            assert!(store.set_with(&topics[next], || message).is_some());
            next = (next + 1) % topics.len();
        }
    })
}

fn replaying(scale: Scale, filter: &'static str, expected: usize) -> Box<dyn Operation> {
    let store = store(scale);
    let mut found = Vec::new();
    Box::new(move |times| {
        for _ in 0..times {
            let mut count = 0;
            let mut cursor = ReplayCursor::default();
            let mut done = false;
            while !done {
                done = store.replay(black_box(filter), &mut cursor, STEPS, &mut found);
                count += found.len();
                found.clear();
            }
            assert_eq!(count, expected);
        }
    })
}
