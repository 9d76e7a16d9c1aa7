use std::sync::Arc;

use crate::ledger::*;

#[test]
fn what_is_held_is_counted_where_it_is() {
    let ledger = Arc::new(Ledger::default());
    let (old, new) = (Position::new(1, 100), Position::new(7, 12));
    let stored = Stored::new(&ledger, old, 50);
    ledger.add(old, 8);
    assert_eq!((ledger.live(1), ledger.live(7)), (58, 0));
    stored.move_to(old, new);
    assert_eq!((stored.position(), ledger.live(1), ledger.live(7)), (new, 8, 50));
    stored.move_to(old, Position::new(9, 0));
    assert_eq!((stored.position(), ledger.live(7), ledger.live(9)), (new, 50, 0));
    drop(stored);
    ledger.subtract(old, 8);
    assert_eq!((ledger.live(1), ledger.live(7)), (0, 0));
}

#[test]
fn places_are_ordered_by_segment_then_offset() {
    assert!(Position::new(1, u32::MAX) < Position::new(2, 0));
    assert!(Position::new(2, 5) < Position::new(2, 6));
    let place = Position::new(3, 17).plus(4);
    assert_eq!((place.segment(), place.offset()), (3, 21));
    assert_eq!(Position::from_u64(place.as_u64()), place);
}
