//! The filters of a session that has more than a few: records in pages, and a hash table of their places.
//!
//! Pages, because a buffer that grows is moved as it grows, and a thousand sessions whose buffers move leave behind holes that none of them
//! fits into. A table of our own, because one that doubles is half empty at worst: this one has any number of slots, four bytes each, 64 to
//! 80 % of them in use. What is removed leaves a hole in its page until half of all is holes; then everything is made anew.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use super::FilterOptions;
use super::record::{self, Record};

/// Bytes of a page: with the allocator's own word no more than one of the system's. A longer record has a page of its own.
const PAGE: usize = (1 << PAGE_BITS) - 16;
const PAGE_BITS: u32 = 12;
/// The last page grows by so much.
const PAGE_STEP: usize = 256;
/// A slot without a record; no record begins at the end of a page.
const FREE: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Table {
    pages: Vec<Vec<u8>>,
    /// Where each record begins: page and offset. Looked for from where the hash points to, up to the first free slot.
    slots: Box<[u32]>,
    len: usize,
    /// Bytes of all records, and of those that are removed.
    bytes: usize,
    holes: usize,
    state: RandomState,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether every place of another record can be written down.
    pub(super) fn has_room(&self) -> bool {
        self.pages.len() + 1 < 1 << (u32::BITS - PAGE_BITS)
    }

    pub(super) fn get(&self, filter: &str) -> Option<FilterOptions> {
        Some(self.find(filter)?.1.options())
    }

    /// Adds a filter that is not there.
    pub(super) fn add(&mut self, filter: &str, options: FilterOptions) {
        if (self.len + 1) * 5 > self.slots.len() * 4 {
            self.resize((self.len + 1) * 25 / 16 + 1);
        }
        let place = self.append(filter, options);
        self.len += 1;
        self.link(place);
    }

    /// Removes a filter; whether it was there.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        let Some((slot, found)) = self.find(filter) else { return false };
        self.holes += found.len();
        self.len -= 1;
        self.close(slot);
        if self.holes > self.bytes / 2 {
            // Fewer pages, and a table for those that are left.
            *self = self.iter().collect();
        }
        true
    }

    /// All records, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        self.slots.iter().filter_map(|place| self.at(*place))
    }

    /// The filters in some slots, and the slot behind these.
    pub(super) fn slice(&self, from: usize, max: usize) -> (Vec<Box<str>>, Option<usize>) {
        let slots = self.slots.get(from..).unwrap_or_default();
        let slots = slots.get(..max.max(1)).unwrap_or(slots);
        let filters =
            slots.iter().filter_map(|place| self.at(*place)).map(|record| Box::from(record.filter()));
        let next = from + slots.len();
        (filters.collect(), (next < self.slots.len()).then_some(next))
    }

    /// Bytes of memory it takes, without what the allocator adds.
    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.pages.iter().map(Vec::capacity).sum::<usize>() + 4 * self.slots.len()
    }

    fn at(&self, place: u32) -> Option<Record<'_>> {
        let page = self.pages.get((place >> PAGE_BITS) as usize)?;
        Record::first(page.get(place as usize & ((1 << PAGE_BITS) - 1)..)?)
    }

    fn append(&mut self, filter: &str, options: FilterOptions) -> u32 {
        let size = record::size(filter, options);
        self.bytes += size;
        if self.pages.last().is_none_or(|page| page.len() + size > PAGE) {
            self.pages.push(Vec::new());
        }
        let number = self.pages.len() - 1;
        let Some(page) = self.pages.last_mut() else { return FREE };
        let offset = page.len();
        if page.capacity() < offset + size {
            let room = (offset + size).next_multiple_of(PAGE_STEP).min(PAGE.max(offset + size));
            page.reserve_exact(room - offset);
        }
        record::write(page, filter, options);
        // Within 32 bits: see `has_room`.
        ((number as u32) << PAGE_BITS) | offset as u32
    }

    /// The slot and the record of a filter.
    fn find(&self, filter: &str) -> Option<(usize, Record<'_>)> {
        let mut slot = self.wanted(filter.as_bytes());
        loop {
            // A free slot ends the search, and there is always one.
            let record = self.at(*self.slots.get(slot)?)?;
            if record.is(filter) {
                return Some((slot, record));
            }
            slot = self.after(slot);
        }
    }

    /// Puts a place into the first free slot from where its record is looked for.
    fn link(&mut self, place: u32) {
        let Some(record) = self.at(place) else { return };
        let mut slot = self.wanted(record.text());
        while self.slots.get(slot).is_some_and(|place| *place != FREE) {
            slot = self.after(slot);
        }
        if let Some(free) = self.slots.get_mut(slot) {
            *free = place;
        }
    }

    /// Frees a slot, and moves into it what would not be found behind a free one.
    fn close(&mut self, slot: usize) {
        let (mut free, mut slot) = (slot, slot);
        loop {
            slot = self.after(slot);
            let Some(place) = self.slots.get(slot).copied().filter(|place| *place != FREE) else { break };
            let wanted = self.at(place).map_or(slot, |record| self.wanted(record.text()));
            if self.distance(wanted, slot) >= self.distance(free, slot) {
                self.slots.swap(free, slot);
                free = slot;
            }
        }
        if let Some(free) = self.slots.get_mut(free) {
            *free = FREE;
        }
    }

    fn resize(&mut self, slots: usize) {
        let before = std::mem::replace(&mut self.slots, vec![FREE; slots].into());
        before.iter().filter(|place| **place != FREE).for_each(|place| self.link(*place));
    }

    /// Where the search for a filter begins.
    fn wanted(&self, filter: &[u8]) -> usize {
        let mut hasher = self.state.build_hasher();
        hasher.write(filter);
        // The upper half of the product spreads the hash evenly over any number of slots.
        ((u128::from(hasher.finish()) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 < self.slots.len() { slot + 1 } else { 0 }
    }

    /// How far the search goes from one slot to the other.
    fn distance(&self, from: usize, to: usize) -> usize {
        if from <= to { to - from } else { to + self.slots.len() - from }
    }
}

impl<'a> FromIterator<Record<'a>> for Table {
    fn from_iter<I: IntoIterator<Item = Record<'a>>>(records: I) -> Self {
        let mut table = Self::default();
        for record in records {
            table.add(record.filter(), record.options());
        }
        table
    }
}
