//! Many small values of one kind, named by their number, without gaps.
//!
//! They lie in pages that never move. A buffer of all of them would be moved as it grows, and with as many buffers as a router has shards, each leaves
//! behind holes into which none of the others fits: a tenth of the memory, measured with a million filters.

use std::ops::{Index, IndexMut};

/// Values of a page: with 32 bytes each it is one of the system's.
const PAGE: usize = 1 << PAGE_BITS;
const PAGE_BITS: u32 = 7;

pub(super) struct Arena<T> {
    /// All are full but the last, and none is empty.
    pages: Vec<Vec<T>>,
}

impl<T> Arena<T> {
    pub(super) fn len(&self) -> usize {
        self.pages.last().map_or(0, |last| (self.pages.len() - 1) * PAGE + last.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Values for which there is memory.
    pub(super) fn capacity(&self) -> usize {
        self.pages.iter().map(Vec::capacity).sum()
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.pages.get(at >> PAGE_BITS)?.get(at & (PAGE - 1))
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        self.pages.get_mut(at >> PAGE_BITS)?.get_mut(at & (PAGE - 1))
    }

    pub(super) fn push(&mut self, value: T) {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE => page.push(value),
            _ => self.pages.push(vec![value]),
        }
    }

    /// Takes a value out; the last one comes into its place.
    pub(super) fn swap_remove(&mut self, at: usize) -> Option<T> {
        let page = self.pages.last_mut()?;
        let last = page.pop()?;
        if page.is_empty() {
            self.pages.pop();
        } else if page.capacity() > 16 && page.len() < page.capacity() / 4 {
            page.shrink_to(2 * page.len());
        }
        match self.get_mut(at) {
            Some(place) => Some(std::mem::replace(place, last)),
            None => Some(last),
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.pages.iter_mut().flatten()
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.pages[at >> PAGE_BITS][at & (PAGE - 1)]
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut self.pages[at >> PAGE_BITS][at & (PAGE - 1)]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn is_a_row_of_values(steps in prop::collection::vec((any::<u32>(), prop::bool::weighted(0.7)), 1..900)) {
            let (mut arena, mut model) = (Arena::default(), Vec::new());
            for (number, add) in steps {
                if add || model.is_empty() {
                    arena.push(number);
                    model.push(number);
                } else {
                    let at = number as usize % model.len();
                    prop_assert_eq!(arena.swap_remove(at), Some(model.swap_remove(at)));
                }
                prop_assert_eq!((arena.len(), arena.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(arena.get(model.len()), None);
            }
            prop_assert!(model.iter().enumerate().all(|(at, number)| arena[at] == *number));
            prop_assert!(arena.iter_mut().map(|number| *number).eq(model));
        }
    }

    #[test]
    fn nothing_moves_when_it_grows_and_memory_is_given_back() {
        let mut arena = Arena::default();
        (0..PAGE).for_each(|n| arena.push(n));
        let first: *const usize = &arena[0];
        (0..100 * PAGE).for_each(|n| arena.push(n));
        assert!(std::ptr::eq(first, &arena[0]));
        assert_eq!(arena.capacity(), 101 * PAGE);
        while arena.len() > 3 {
            arena.swap_remove(0);
        }
        assert!(arena.capacity() <= 32, "{}", arena.capacity());
        (0..3).for_each(|_| assert!(arena.swap_remove(0).is_some()));
        assert_eq!((arena.swap_remove(0), arena.capacity(), arena.is_empty()), (None, 0, true));
    }
}
