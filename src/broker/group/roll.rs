//! `Roll`: the members of one group, each filed in exactly one list by what it is believed to take.
//!
//! Lists are rings through one slab, so that filing, picking, joining and leaving touch a fixed
//! number of members however many there are. A plain value: locks and sessions are the caller's.

use hashbrown::HashTable;

/// How a member is filed: as what the group believes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Filed {
    /// Connected, with room: a message would be sent at once.
    Ready,
    /// Connected; a message would wait.
    Busy,
    /// Without connection; a message would wait.
    Away,
    /// Connected, and it took no more.
    Full,
    /// Without connection, and it took nothing, or no more.
    AwayFull,
}

const LISTS: usize = 5;

/// What the roll asks of a member.
pub(super) trait Keyed {
    /// The same as long as it is a member, and no other member's.
    fn key(&self) -> u64;
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Roll<M> {
    slots: Vec<Slot<M>>,
    /// Slots by the hash of the member's key.
    by_key: HashTable<u32>,
    lists: [List; LISTS],
}

#[derive(Debug)]
struct Slot<M> {
    member: M,
    /// Neighbours in the ring of its list.
    next: u32,
    before: u32,
    /// A number that the member keeps here.
    place: u32,
    filed: Filed,
}

/// A ring; the one whose turn is next comes first.
#[derive(Debug, Clone, Copy)]
struct List {
    first: u32,
    len: u32,
}

const NOBODY: u32 = u32::MAX;

/// Slots kept however few are in use; above it no more than four times those in use.
const SLOTS_KEPT: usize = 16;

/// A member that has left.
#[derive(Debug)]
pub(super) struct Left<M> {
    pub(super) member: M,
    pub(super) filed: Filed,
    pub(super) place: u32,
}

impl<M> Default for Roll<M> {
    fn default() -> Self {
        let lists = [List { first: NOBODY, len: 0 }; LISTS];
        Self { slots: Vec::new(), by_key: HashTable::new(), lists }
    }
}

impl<M: Keyed> Roll<M> {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(super) fn get(&self, key: u64) -> Option<&M> {
        Some(&self.slot(self.find_slot(key)?)?.member)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut M> {
        let slot = self.find_slot(key)?;
        Some(&mut self.slot_mut(slot)?.member)
    }

    /// How a member is filed.
    pub(super) fn filed(&self, key: u64) -> Option<Filed> {
        Some(self.slot(self.find_slot(key)?)?.filed)
    }

    /// Adds a member that is not there, at the end of a list. `false` if there is no number left
    /// for it.
    pub(super) fn insert(&mut self, member: M, filed: Filed, place: u32) -> bool {
        let Some(slot) = u32::try_from(self.slots.len()).ok().filter(|slot| *slot < NOBODY) else {
            return false;
        };
        let hash = hash(member.key());
        #[cfg(test)]
        moved(if self.slots.len() == self.slots.capacity() { self.slots.len() } else { 1 });
        self.slots.push(Slot { member, next: slot, before: slot, place, filed });
        let slots = &self.slots;
        self.by_key.insert_unique(hash, slot, |slot| hash_of(slots, *slot));
        self.link(slot, filed);
        true
    }

    /// Takes a member out.
    pub(super) fn remove(&mut self, key: u64) -> Option<Left<M>> {
        let slots = &self.slots;
        let found = self.by_key.find_entry(hash(key), |slot| is(slots, *slot, key)).ok()?;
        let (slot, _) = found.remove();
        self.unlink(slot);
        #[cfg(test)]
        moved(1);
        // The last one takes its place.
        let last = u32::try_from(self.slots.len()).ok()?.checked_sub(1)?;
        if slot != last {
            self.renumber(last, slot);
        }
        let Slot { member, filed, place, .. } = self.slots.swap_remove(slot as usize);
        if self.slots.len().max(SLOTS_KEPT) < self.slots.capacity() / 4 {
            let kept = self.slots.len() * 2;
            self.slots.shrink_to(kept);
            let slots = &self.slots;
            self.by_key.shrink_to(kept, |slot| hash_of(slots, *slot));
        }
        Some(Left { member, filed, place })
    }

    /// Files a member anew, at the end of that list; stays in its place if it is filed so already.
    /// How it was filed before, and its number.
    pub(super) fn file(&mut self, key: u64, filed: Filed) -> Option<(Filed, u32)> {
        let slot = self.find_slot(key)?;
        let (before, place) = self.slot(slot).map(|slot| (slot.filed, slot.place))?;
        if before != filed {
            self.unlink(slot);
            self.slot_mut(slot)?.filed = filed;
            self.link(slot, filed);
        }
        Some((before, place))
    }

    /// Keeps a number for a member.
    pub(super) fn set_place(&mut self, key: u64, place: u32) {
        if let Some(slot) = self.find_slot(key)
            && let Some(slot) = self.slot_mut(slot)
        {
            slot.place = place;
        }
    }

    /// The first of a list that is wanted. It, and those before it, go to the end: their turn is
    /// over.
    pub(super) fn next(&mut self, filed: Filed, wanted: impl Fn(&M) -> bool) -> Option<&M> {
        let found = self.look(filed, wanted)?;
        let next = self.slot(found)?.next;
        self.lists.get_mut(filed as usize)?.first = next;
        Some(&self.slot(found)?.member)
    }

    /// The same, and nobody's turn is over.
    pub(super) fn find(&self, filed: Filed, wanted: impl Fn(&M) -> bool) -> Option<&M> {
        Some(&self.slot(self.look(filed, wanted)?)?.member)
    }

    fn look(&self, filed: Filed, wanted: impl Fn(&M) -> bool) -> Option<u32> {
        let List { first, len } = *self.lists.get(filed as usize)?;
        let mut at = first;
        for _ in 0..len {
            let slot = self.slot(at)?;
            if wanted(&slot.member) {
                return Some(at);
            }
            at = slot.next;
        }
        None
    }

    fn slot(&self, slot: u32) -> Option<&Slot<M>> {
        self.slots.get(slot as usize)
    }

    fn slot_mut(&mut self, slot: u32) -> Option<&mut Slot<M>> {
        self.slots.get_mut(slot as usize)
    }

    fn find_slot(&self, key: u64) -> Option<u32> {
        self.by_key.find(hash(key), |slot| is(&self.slots, *slot, key)).copied()
    }

    /// Puts a slot that is in no list at the end of one.
    fn link(&mut self, slot: u32, filed: Filed) {
        let Some(list) = self.lists.get_mut(filed as usize) else { return };
        list.len += 1;
        if list.first == NOBODY {
            list.first = slot;
            self.tie(slot, slot);
            return;
        }
        let first = list.first;
        let last = self.slot(first).map_or(first, |slot| slot.before);
        self.tie(last, slot);
        self.tie(slot, first);
    }

    fn unlink(&mut self, slot: u32) {
        let Some(Slot { next, before, filed, .. }) = self.slot(slot) else { return };
        let (next, before, filed) = (*next, *before, *filed);
        let Some(list) = self.lists.get_mut(filed as usize) else { return };
        list.len -= 1;
        if next == slot {
            list.first = NOBODY;
            return;
        }
        if list.first == slot {
            list.first = next;
        }
        self.tie(before, next);
    }

    fn tie(&mut self, before: u32, next: u32) {
        if let Some(slot) = self.slot_mut(before) {
            slot.next = next;
        }
        if let Some(slot) = self.slot_mut(next) {
            slot.before = before;
        }
    }

    /// A slot is about to have another number.
    fn renumber(&mut self, from: u32, to: u32) {
        let Some(Slot { member, next, before, filed, .. }) = self.slot(from) else { return };
        let (key, next, before, filed) = (member.key(), *next, *before, *filed);
        if let Some(number) = self.by_key.find_mut(hash(key), |slot| *slot == from) {
            *number = to;
        }
        if let Some(list) = self.lists.get_mut(filed as usize)
            && list.first == from
        {
            list.first = to;
        }
        if next == from {
            if let Some(slot) = self.slot_mut(from) {
                (slot.next, slot.before) = (to, to);
            }
            return;
        }
        if let Some(slot) = self.slot_mut(before) {
            slot.next = to;
        }
        if let Some(slot) = self.slot_mut(next) {
            slot.before = to;
        }
    }
}

/// Keys are the broker's own numbers: nobody can choose them to collide.
fn hash(key: u64) -> u64 {
    key.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

fn hash_of<M: Keyed>(slots: &[Slot<M>], slot: u32) -> u64 {
    slots.get(slot as usize).map_or(0, |slot| hash(slot.member.key()))
}

fn is<M: Keyed>(slots: &[Slot<M>], slot: u32, key: u64) -> bool {
    slots.get(slot as usize).is_some_and(|slot| slot.member.key() == key)
}

#[cfg(test)]
thread_local! {
    static MOVED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
fn moved(slots: usize) {
    MOVED.set(MOVED.get() + slots);
}

#[cfg(test)]
#[path = "roll/tests.rs"]
mod tests;
