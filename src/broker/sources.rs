//! `Sources`: who stored the retained messages, so that a replay can ask whether they may still write there.
//!
//! A message knows its source by a number of four bytes, which stand before its topic. Here stands once, for all
//! messages of a client, whose number it is. The bytes of it are charged with those of the retained messages, for a client id can be long.
//! A number that is not needed any more rests before it is given to somebody else: a replay that has just looked a message up must not take one for the
//! other.
//!
//! Number 0 is nobody: the broker itself, the program that it is part of, or a message stored by a version that did not remember it.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;
use parking_lot::Mutex;

use crate::session::Owner;

/// Numbers that rest.
const RESTING: usize = 4_096;
/// What a source takes besides its names.
const OVERHEAD: usize = 64;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Sources {
    state: RandomState,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Indices of `slots`.
    ids: HashTable<u32>,
    /// Number 1 is the first.
    slots: Vec<Slot>,
    free: VecDeque<u32>,
}

#[derive(Default)]
struct Slot {
    owner: Option<Owner>,
    messages: usize,
}

impl Sources {
    /// One message more of this client: its number, and the bytes that it takes if it is new.
    pub(super) fn take(&self, client_id: &Arc<str>, user: Option<&Arc<str>>) -> (u32, usize) {
        let hash = self.hash(client_id, user.map(|user| &**user));
        let mut inner = self.inner.lock();
        let Inner { ids, slots, free } = &mut *inner;
        let is_it = |index: &u32| {
            let owner = slots.get(*index as usize).and_then(|slot| slot.owner.as_ref());
            owner.is_some_and(|owner| owner.client_id == *client_id && owner.user.as_ref() == user)
        };
        if let Some(index) = ids.find(hash, is_it).copied()
            && let Some(slot) = slots.get_mut(index as usize)
        {
            slot.messages += 1;
            return (index + 1, 0);
        }
        let rested = if free.len() >= RESTING { free.pop_front() } else { None };
        let index = match rested {
            Some(index) => index,
            None => {
                // More than four billion cannot be there at once; if so, nobody is their source.
                let Some(index) = u32::try_from(slots.len()).ok().filter(|index| *index < u32::MAX) else {
                    return (0, 0);
                };
                slots.push(Slot::default());
                index
            }
        };
        let owner = Owner { client_id: Arc::clone(client_id), user: user.cloned() };
        let bytes = bytes(&owner);
        if let Some(slot) = slots.get_mut(index as usize) {
            *slot = Slot { owner: Some(owner), messages: 1 };
        }
        ids.insert_unique(hash, index, |index| {
            let owner = slots.get(*index as usize).and_then(|slot| slot.owner.as_ref());
            owner.map_or(0, |owner| self.hash(&owner.client_id, owner.user.as_deref()))
        });
        (index + 1, bytes)
    }

    /// One message less; returns the bytes that are given back.
    pub(super) fn release(&self, id: u32) -> usize {
        let Some(index) = id.checked_sub(1) else { return 0 };
        let mut inner = self.inner.lock();
        let Inner { ids, slots, free } = &mut *inner;
        let Some(slot) = slots.get_mut(index as usize) else { return 0 };
        slot.messages = slot.messages.saturating_sub(1);
        if slot.messages > 0 {
            return 0;
        }
        let Some(owner) = slot.owner.take() else { return 0 };
        let hash = self.hash(&owner.client_id, owner.user.as_deref());
        if let Ok(entry) = ids.find_entry(hash, |known| *known == index) {
            entry.remove();
        }
        free.push_back(index);
        bytes(&owner)
    }

    /// Who has this number.
    pub(super) fn get(&self, id: u32) -> Option<Owner> {
        let index = id.checked_sub(1)?;
        self.inner.lock().slots.get(index as usize)?.owner.clone()
    }

    fn hash(&self, client_id: &str, user: Option<&str>) -> u64 {
        self.state.hash_one((client_id, user))
    }
}

fn bytes(owner: &Owner) -> usize {
    OVERHEAD + owner.client_id.len() + owner.user.as_ref().map_or(0, |user| user.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_held_once_and_given_back_with_its_last_message() {
        let sources = Sources::default();
        let (a, b): (Arc<str>, Arc<str>) = (Arc::from("a"), Arc::from("b"));
        let (first, bytes) = sources.take(&a, Some(&b));
        assert_eq!((sources.take(&a, Some(&b)), bytes), ((first, 0), OVERHEAD + 2));
        let (anonymous, _) = sources.take(&a, None);
        let (other, _) = sources.take(&b, Some(&a));
        assert!(first != anonymous && first != other && anonymous != other && first != 0);
        assert_eq!(sources.get(first).and_then(|owner| owner.user), Some(Arc::clone(&b)));
        assert_eq!(sources.get(anonymous).map(|owner| owner.user), Some(None));
        assert_eq!((sources.release(first), sources.release(first)), (0, bytes));
        assert!(sources.get(first).is_none() && sources.get(0).is_none());
        assert_eq!((sources.release(first), sources.release(0), sources.release(99)), (0, 0, 0));
        // Not at once for somebody else.
        let (again, _) = sources.take(&b, Some(&b));
        assert!(![first, anonymous, other].contains(&again));
    }

    #[test]
    fn numbers_come_back_in_the_end() {
        let sources = Sources::default();
        for n in 0..20 * RESTING {
            let id: Arc<str> = Arc::from(n.to_string());
            let (number, taken) = sources.take(&id, None);
            assert_eq!(sources.release(number), taken);
        }
        let inner = sources.inner.lock();
        assert!(inner.slots.len() <= RESTING + 1 && inner.ids.is_empty(), "{}", inner.slots.len());
    }
}
