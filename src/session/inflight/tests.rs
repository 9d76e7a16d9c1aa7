use super::*;

fn finish(inflight: &mut Inflight, id: PacketId) -> bool {
    inflight.advance(id, Awaiting::PubAck, Awaiting::Nothing).is_some()
}

#[test]
fn ids_run_through_the_wrap_and_skip_zero() {
    let mut inflight = Inflight::new();
    let mut expected = 1_u16;
    for _ in 0..70_000 {
        let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
        assert_eq!(id.get(), expected);
        assert!(finish(&mut inflight, id));
        expected = if expected == u16::MAX { 1 } else { expected + 1 };
    }
    assert_eq!((inflight.deliveries.len(), inflight.unfinished()), (0, 0));
}

#[test]
fn an_unfinished_delivery_keeps_its_id_from_being_reused() {
    let mut inflight = Inflight::new();
    let stuck = inflight.begin(QoS::AtLeastOnce, false, None, None);
    for _ in 0..140_000 {
        let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
        assert_ne!(id, stuck);
        assert!(finish(&mut inflight, id));
    }
    assert!(inflight.deliveries.len() <= GAPS_MAX + 2, "gaps stay in memory: {}", inflight.deliveries.len());
    assert_eq!(inflight.next_unfinished(0).map(|(position, id, _)| (position, id)), Some((0, stuck)));
    assert!(finish(&mut inflight, stuck));
    assert_eq!((inflight.unfinished(), inflight.deliveries.len()), (0, 0));
    assert!(inflight.stragglers.is_empty());
}

#[test]
fn every_id_can_be_in_use_at_once() {
    let mut inflight = Inflight::new();
    let mut ids = std::collections::BTreeSet::new();
    while !inflight.is_exhausted() {
        assert!(ids.insert(inflight.begin(QoS::AtLeastOnce, false, None, None)));
    }
    assert_eq!(ids.len(), 65_535);
    // Finished from the newest on: the gaps are many, and all ids come free.
    for id in ids.into_iter().rev() {
        assert!(finish(&mut inflight, id));
    }
    assert_eq!((inflight.unfinished(), inflight.deliveries.len()), (0, 0));
}

#[test]
fn unfinished_ones_are_found_in_the_order_of_sending() {
    let mut inflight = Inflight::new();
    let mut kept = Vec::new();
    for n in 0..10_000 {
        let id = inflight.begin(QoS::AtLeastOnce, false, None, None);
        if n % 900 == 0 {
            kept.push(id);
        } else {
            assert!(finish(&mut inflight, id));
        }
    }
    assert!(!inflight.stragglers.is_empty());
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some((position, id, _)) = inflight.next_unfinished(from) {
        found.push(id);
        from = position + 1;
    }
    assert_eq!(found, kept);
}

#[test]
fn acknowledgements_of_the_wrong_kind_or_id_change_nothing() {
    let mut inflight = Inflight::new();
    let one = inflight.begin(QoS::AtLeastOnce, false, None, None);
    let two = inflight.begin(QoS::ExactlyOnce, false, None, None);
    assert!(inflight.advance(one, Awaiting::PubRec, Awaiting::PubComp).is_none());
    assert!(inflight.advance(two, Awaiting::PubAck, Awaiting::Nothing).is_none());
    assert!(inflight.advance(two, Awaiting::PubComp, Awaiting::Nothing).is_none());
    for id in [3, 4, 65_535] {
        assert!(!finish(&mut inflight, PacketId::new(id).unwrap()));
    }
    assert!(inflight.advance(two, Awaiting::PubRec, Awaiting::PubComp).is_some());
    assert!(finish(&mut inflight, one));
    assert!(!finish(&mut inflight, one));
    assert!(inflight.advance(two, Awaiting::PubComp, Awaiting::Nothing).is_some());
    assert_eq!(inflight.unfinished(), 0);
}

#[test]
fn a_queued_delivery_has_its_id_before_it_begins() {
    let mut inflight = Inflight::new();
    // Those between are dropped while they wait.
    for position in [1, 4] {
        let id = inflight.begin_at(position, QoS::AtLeastOnce, false, None, None);
        assert_eq!(u64::from(id.get()), position + 1);
    }
    assert_eq!(inflight.unacknowledged().len(), 2);
    assert_eq!(inflight.end(), 5);
}

#[test]
fn an_id_in_use_at_its_turn_is_replaced_by_the_nearest_free_one() {
    let mut inflight = Inflight::new();
    let first = 0;
    let stuck = inflight.begin_at(first, QoS::ExactlyOnce, false, None, None);
    let mut seen = std::collections::BTreeSet::new();
    for position in 1..200_001 {
        let id = inflight.begin_at(position, QoS::AtLeastOnce, false, None, None);
        assert_ne!(id, stuck, "at {position}");
        seen.insert(id);
        assert_eq!(inflight.advance(id, Awaiting::PubAck, Awaiting::Nothing), Some(position));
    }
    assert_eq!(seen.len(), 65_534);
    assert!(inflight.deliveries.len() <= GAPS_MAX + 2, "{}", inflight.deliveries.len());
    assert_eq!(inflight.advance(stuck, Awaiting::PubRec, Awaiting::PubComp), Some(first));
    assert_eq!(inflight.completing(), [(first, stuck)]);
}

#[test]
fn what_was_completing_before_a_restart_stands_beside_older_messages() {
    let mut inflight = Inflight::new();
    inflight.restore_completing(11, PacketId::new(12).unwrap());
    assert_eq!(inflight.end(), 12);
    let id = inflight.begin_at(10, QoS::AtLeastOnce, false, None, None);
    assert_eq!(id.get(), 11);
    let id = inflight.begin_at(12, QoS::AtLeastOnce, false, None, None);
    assert_eq!(id.get(), 13);
    let order: Vec<u64> = inflight.unacknowledged().into_iter().map(|(position, _)| position).collect();
    assert_eq!((order, inflight.completing().len()), (vec![10, 12], 1));
    assert_eq!(inflight.next_unfinished(0).map(|found| found.0), Some(10));
    assert_eq!(inflight.next_unfinished(11).map(|found| found.0), Some(11));
    assert_eq!((inflight.end(), inflight.unfinished()), (13, 3));
}

#[test]
fn a_long_gap_takes_no_memory() {
    let mut inflight = Inflight::new();
    let kept = inflight.begin_at(3, QoS::AtLeastOnce, false, None, None);
    inflight.begin_at(5_000_000, QoS::AtLeastOnce, false, None, None);
    assert!(inflight.deliveries.len() <= GAPS_MAX + 2, "{}", inflight.deliveries.len());
    assert_eq!(inflight.advance(kept, Awaiting::PubAck, Awaiting::Nothing), Some(3));
}
