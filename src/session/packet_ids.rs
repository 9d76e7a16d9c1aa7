//! `PacketIdSet`: the packet ids of QoS 2 messages that a client sent and did not release yet.
//!
//! At most 65,535 ids exist, so the set is bounded by itself: a short sorted list, and from 512 ids on a bitmap of 8 KiB.

use crate::protocol::PacketId;

const LIST_MAX: usize = 512;
const WORDS: usize = 65_536 / 64;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) enum PacketIdSet {
    #[default]
    Empty,
    List(Vec<u16>),
    Bitmap {
        words: Box<[u64; WORDS]>,
        len: u32,
    },
}

impl PacketIdSet {
    /// Adds an id; `false` if it was there.
    pub(super) fn insert(&mut self, id: PacketId) -> bool {
        let id = id.get();
        match self {
            Self::Empty => {
                *self = Self::List(vec![id]);
                true
            }
            Self::List(list) => match list.binary_search(&id) {
                Ok(_) => false,
                Err(_) if list.len() >= LIST_MAX => {
                    let mut words = Box::new([0; WORDS]);
                    for id in list.iter().copied().chain([id]) {
                        set_bit(&mut words, id);
                    }
                    *self = Self::Bitmap { len: list.len() as u32 + 1, words };
                    true
                }
                Err(place) => {
                    list.insert(place, id);
                    true
                }
            },
            Self::Bitmap { words, len } => {
                let new = set_bit(words, id);
                *len += u32::from(new);
                new
            }
        }
    }

    /// Removes an id; `false` if it was not there.
    pub(super) fn remove(&mut self, id: PacketId) -> bool {
        let id = id.get();
        let removed = match self {
            Self::Empty => false,
            Self::List(list) => list.binary_search(&id).map(|place| list.remove(place)).is_ok(),
            Self::Bitmap { words, len } => {
                let word = words.get_mut(usize::from(id / 64));
                let bit = 1 << (id % 64);
                let removed = word.is_some_and(|word| {
                    let there = *word & bit != 0;
                    *word &= !bit;
                    there
                });
                *len -= u32::from(removed);
                removed
            }
        };
        if removed && self.len() == 0 && !self.is_small() {
            *self = Self::Empty;
        }
        removed
    }

    /// Whether the id is in the set.
    #[cfg(test)]
    pub(super) fn contains(&self, id: PacketId) -> bool {
        let id = id.get();
        match self {
            Self::Empty => false,
            Self::List(list) => list.binary_search(&id).is_ok(),
            Self::Bitmap { words, .. } => {
                words.get(usize::from(id / 64)).is_some_and(|word| word & (1 << (id % 64)) != 0)
            }
        }
    }

    /// The ids, in ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = PacketId> + '_ {
        let (list, words): (&[u16], &[u64]) = match self {
            Self::Empty => (&[], &[]),
            Self::List(list) => (list, &[]),
            Self::Bitmap { words, .. } => (&[], &words[..]),
        };
        let bits = words.iter().zip(0_u16..).flat_map(|(word, index)| {
            (0..64).filter(move |bit| word & (1 << bit) != 0).map(move |bit| index * 64 + bit)
        });
        list.iter().copied().chain(bits).filter_map(PacketId::new)
    }

    /// Whether it is worth keeping when empty, so that QoS 2 traffic does not allocate for each message.
    fn is_small(&self) -> bool {
        matches!(self, Self::List(list) if list.capacity() <= 64)
    }

    /// Ids in the set.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::List(list) => list.len(),
            Self::Bitmap { len, .. } => *len as usize,
        }
    }
}

fn set_bit(words: &mut [u64; WORDS], id: u16) -> bool {
    let bit = 1 << (id % 64);
    words.get_mut(usize::from(id / 64)).is_some_and(|word| {
        let new = *word & bit == 0;
        *word |= bit;
        new
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_set(operations in prop::collection::vec((any::<bool>(), 1_u16..1_200), 0..3_000)) {
            let mut set = PacketIdSet::default();
            let mut model = BTreeSet::new();
            for (insert, raw) in operations {
                let id = PacketId::new(raw).unwrap();
                if insert {
                    prop_assert_eq!(set.insert(id), model.insert(raw));
                } else {
                    prop_assert_eq!(set.remove(id), model.remove(&raw));
                }
                prop_assert_eq!(set.len(), model.len());
                prop_assert_eq!(set.contains(id), model.contains(&raw));
            }
            prop_assert!(set.iter().map(PacketId::get).eq(model));
        }
    }

    #[test]
    fn holds_every_id_at_once() {
        let mut set = PacketIdSet::default();
        for raw in 1..=u16::MAX {
            assert!(set.insert(PacketId::new(raw).unwrap()));
        }
        assert_eq!(set.len(), 65_535);
        for raw in 1..=u16::MAX {
            assert!(set.remove(PacketId::new(raw).unwrap()));
        }
        assert!(matches!(set, PacketIdSet::Empty), "the bitmap is given back");
    }
}
