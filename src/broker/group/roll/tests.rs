//! A roll against lists as one would write them down.

use std::collections::VecDeque;

use super::{Filed, Keyed, MOVED, Roll, Slot};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Peer(u64);

impl Keyed for Peer {
    fn key(&self) -> u64 {
        self.0
    }
}

const ALL: [Filed; 5] = [Filed::Ready, Filed::Busy, Filed::Away, Filed::Full, Filed::AwayFull];

/// A sequence of numbers that look random, the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn filed(&mut self) -> Filed {
        ALL[self.below(5) as usize]
    }
}

#[test]
fn lists_are_in_order_whatever_happens() {
    for seed in 0..40 {
        let mut numbers = Numbers(seed);
        let mut roll = Roll::default();
        let mut lists: [VecDeque<u64>; 5] = Default::default();
        let mut places = std::collections::HashMap::new();
        // Few keys and many, so that lists become empty and slots move.
        let keys = 1 + seed % 20;
        for step in 0..2_000 {
            let key = numbers.below(keys) * 1_000;
            let at = lists.iter().position(|list| list.contains(&key));
            match numbers.below(6) {
                0 | 1 if at.is_none() => {
                    let filed = numbers.filed();
                    assert!(roll.insert(Peer(key), filed, step));
                    lists[filed as usize].push_back(key);
                    places.insert(key, step);
                }
                0 => {
                    let left = roll.remove(key);
                    assert_eq!(left.as_ref().map(|left| left.filed as usize), at);
                    assert_eq!(
                        left.map(|left| (left.member.0, left.place)),
                        places.remove(&key).map(|p| (key, p))
                    );
                    lists.iter_mut().for_each(|list| list.retain(|other| *other != key));
                }
                1 => {
                    roll.set_place(key, step);
                    places.insert(key, step);
                }
                2 | 3 => {
                    let filed = numbers.filed();
                    let before = roll.file(key, filed);
                    assert_eq!(before.map(|before| before.0 as usize), at);
                    assert_eq!(before.map(|before| before.1), places.get(&key).copied());
                    if at.is_some_and(|at| at != filed as usize) {
                        lists.iter_mut().for_each(|list| list.retain(|other| *other != key));
                        lists[filed as usize].push_back(key);
                    }
                }
                _ => {
                    let (filed, unwanted) = (numbers.filed(), numbers.below(keys) * 1_000);
                    let list = &mut lists[filed as usize];
                    let position = list.iter().position(|key| *key != unwanted);
                    let expected = position.map(|position| list[position]);
                    let found = roll.find(filed, |peer| peer.0 != unwanted).map(|peer| peer.0);
                    assert_eq!(found, expected);
                    let next = roll.next(filed, |peer| peer.0 != unwanted).map(|peer| peer.0);
                    assert_eq!(next, expected);
                    list.rotate_left(position.map_or(0, |position| position + 1));
                }
            }
            for filed in ALL {
                let mut seen = Vec::new();
                while let Some(peer) = roll.find(filed, |peer| !seen.contains(&peer.0)) {
                    seen.push(peer.0);
                }
                assert_eq!(VecDeque::from(seen), lists[filed as usize], "seed {seed}, step {step}");
                assert!(lists[filed as usize].iter().all(|key| roll.get(*key) == Some(&Peer(*key))));
            }
            assert_eq!(roll.is_empty(), lists.iter().all(VecDeque::is_empty));
        }
    }
}

#[test]
fn who_joins_and_leaves_moves_no_others() {
    const MEMBERS: u64 = 10_000;
    let mut roll = Roll::default();
    let before = MOVED.get();
    for key in 0..MEMBERS {
        assert!(roll.insert(Peer(key), Filed::Away, 0));
    }
    for key in 0..MEMBERS {
        assert!(roll.remove(key * 7 % MEMBERS).is_some());
    }
    let moved = MOVED.get() - before;
    // One for each, and what a vector that doubles moves.
    assert!(moved <= 4 * MEMBERS as usize, "{moved} slots were moved");
    assert!(roll.is_empty() && roll.slots.capacity() <= 128, "{}", roll.slots.capacity());
}

#[test]
fn a_member_takes_little_room() {
    // With a handle of eight bytes and eight bytes of options.
    assert_eq!(size_of::<Slot<(Box<u8>, u64)>>(), 32);
}
