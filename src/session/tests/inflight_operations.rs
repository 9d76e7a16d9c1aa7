//! Random operations on `Inflight` against a map: through many wraps of the packet ids, with deliveries that a client leaves
//! unfinished for long.

use std::collections::BTreeMap;

use super::pair_connection::Rng;
use crate::protocol::{PacketId, QoS};
use crate::session::inflight::{Awaiting, Inflight};

/// Unfinished deliveries: by the order of sending, their ids and what is due.
type Model = BTreeMap<u64, (PacketId, Awaiting)>;

fn run(seed: u64, window: usize, operations: u64) {
    let mut rng = Rng::new(seed);
    let mut inflight = Inflight::new();
    let mut model = Model::new();
    let mut by_id: BTreeMap<PacketId, u64> = BTreeMap::new();
    for sent in 0..operations {
        if model.len() < window && !inflight.is_exhausted() {
            let qos = if rng.one_in(2) { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
            let id = inflight.begin(qos, false, None, None);
            let due = if qos == QoS::AtLeastOnce { Awaiting::PubAck } else { Awaiting::PubRec };
            model.insert(sent, (id, due));
            assert_eq!(by_id.insert(id, sent), None, "id {id} is in use [MQTT-2.3.1-4]");
        }
        // Mostly one of the newest: the oldest stay for thousands of others.
        let reach = rng.below(8) as usize;
        let chosen = if rng.one_in(50) { model.iter().nth(reach) } else { model.iter().rev().nth(reach) };
        if let Some((&sent, &(id, due))) = chosen {
            let wrong = if due == Awaiting::PubAck { Awaiting::PubRec } else { Awaiting::PubAck };
            assert!(inflight.advance(id, wrong, Awaiting::Nothing).is_none());
            assert!(inflight.awaits(id, due) && !inflight.awaits(id, wrong));
            let next = if due == Awaiting::PubRec { Awaiting::PubComp } else { Awaiting::Nothing };
            assert!(inflight.advance(id, due, next).is_some(), "{id} awaits {due:?}");
            if next == Awaiting::Nothing {
                model.remove(&sent);
                by_id.remove(&id);
                assert!(inflight.advance(id, due, next).is_none(), "twice");
            } else {
                model.insert(sent, (id, next));
            }
        }
        assert_eq!(inflight.unfinished(), model.len());
        if sent % 5_000 == 0 {
            assert_same_order(&inflight, &model);
        }
    }
    assert_same_order(&inflight, &model);
    for (id, due) in model.into_values() {
        assert!(inflight.advance(id, due, Awaiting::Nothing).is_some());
    }
    assert_eq!((inflight.unfinished(), inflight.next_unfinished(0).is_none()), (0, true));
}

/// What is sent again comes in the order of first sending ([MQTT-4.6.0-1]).
fn assert_same_order(inflight: &Inflight, model: &Model) {
    let (mut from, mut found) = (0, Vec::new());
    while let Some((position, id, delivery)) = inflight.next_unfinished(from) {
        assert!(position >= from);
        found.push((id, delivery.awaiting));
        from = position + 1;
    }
    assert_eq!(found, model.values().copied().collect::<Vec<_>>());
}

#[test]
fn ids_are_unique_and_order_is_kept_through_wraps_with_small_and_large_windows() {
    for (seed, window) in [(1, 1), (2, 4), (3, 64), (4, 1_500)] {
        run(seed, window, 100_000);
    }
}

#[test]
fn ids_are_unique_when_nearly_all_are_in_use() {
    run(5, 65_535, 80_000);
}
