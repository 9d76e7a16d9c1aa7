//! A sorted set of topic names in little memory.
//!
//! Names lie in blocks of up to 32, each name as what it shares with the one before it and what it has besides: neighbours mostly differ in a
//! few bytes, and a name costs these and two more. A block is known by a text that no name in it is below; it is the first name that once was in it.
//! To look a name up costs a search among the blocks and a walk through one.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Names in a block.
const BLOCK_NAMES: usize = 32;
/// A block of more bytes is split as well: names can be long.
const BLOCK_BYTES: usize = 4096;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Names {
    blocks: BTreeMap<Box<[u8]>, Block>,
    len: usize,
}

/// Entries `shared u8, length (7 bits a byte, lowest first), bytes` in a row. Never empty.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    names: usize,
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds a name that is not there yet.
    pub(super) fn insert(&mut self, name: &str) {
        let name = name.as_bytes();
        self.len += 1;
        let Some((_, block)) = self.blocks.range_mut::<[u8], _>(up_to(name)).next_back() else {
            // It is the first of all: its block would have to begin earlier.
            let mut block = self.blocks.pop_first().map(|(_, block)| block).unwrap_or_default();
            block.insert(name);
            let upper = block.split(name);
            self.blocks.extend(upper);
            self.blocks.insert(Box::from(name), block);
            return;
        };
        block.insert(name);
        let upper = block.split(name);
        self.blocks.extend(upper);
    }

    /// Removes a name; whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let name = name.as_bytes();
        let Some((key, block)) = self.blocks.range_mut::<[u8], _>(up_to(name)).next_back() else {
            return false;
        };
        if !block.remove(name) {
            return false;
        }
        self.len -= 1;
        if block.names < BLOCK_NAMES / 4 {
            let key = key.clone();
            let after = self.blocks.range::<[u8], _>((Bound::Excluded(&*key), Bound::Unbounded)).next();
            let after = after.map(|(key, _)| key.clone());
            self.join(&key);
            after.iter().for_each(|after| self.join(after));
        }
        true
    }

    /// Puts the names of a block into the one before it, if both are sparse; removes it if it has none.
    fn join(&mut self, key: &[u8]) {
        let Some(block) = self.blocks.get(key) else { return };
        let (names, bytes) = (block.names, block.bytes.len());
        if names == 0 {
            self.blocks.remove(key);
            return;
        }
        let below = (Bound::Unbounded, Bound::Excluded(key));
        let fits = self.blocks.range::<[u8], _>(below).next_back().is_some_and(|(_, before)| {
            before.names + names <= BLOCK_NAMES / 2 && before.bytes.len() + bytes <= BLOCK_BYTES
        });
        if fits
            && let Some(block) = self.blocks.remove(key)
            && let Some((_, before)) = self.blocks.range_mut::<[u8], _>(below).next_back()
        {
            let mut walk = Walk::new(&block.bytes);
            while walk.next() {
                before.insert(&walk.name);
            }
        }
    }

    /// A cursor that stands before the first name within the bound.
    pub(super) fn scan(&self, from: Bound<&str>) -> Scan<'_> {
        let mut scan = Scan { names: self, walk: Walk::new(&[]), key: &[], is_held: false };
        match from {
            Bound::Unbounded => _ = scan.enter(Bound::Unbounded),
            Bound::Included(text) => scan.seek(text.as_bytes(), true),
            Bound::Excluded(text) => scan.seek(text.as_bytes(), false),
        }
        scan
    }
}

/// A walk through the names in their order.
pub(super) struct Scan<'a> {
    names: &'a Names,
    walk: Walk<'a>,
    /// What the block is known by.
    key: &'a [u8],
    /// The walk stands at a name that was not handed out yet.
    is_held: bool,
}

impl<'a> Scan<'a> {
    /// The next name.
    pub(super) fn next(&mut self) -> Option<&str> {
        if !std::mem::take(&mut self.is_held) {
            while !self.walk.next() {
                let key = self.key;
                if !self.enter(Bound::Excluded(key)) {
                    return None;
                }
            }
        }
        // What went in as text comes out as text.
        std::str::from_utf8(&self.walk.name).ok()
    }

    /// Goes on at the first name that is not below the text; where that is, or what follows it, is after the name handed out last.
    pub(super) fn seek_to(&mut self, text: &str) {
        self.seek(text.as_bytes(), true);
    }

    fn seek(&mut self, text: &[u8], inclusive: bool) {
        self.is_held = false;
        let block = self.names.blocks.range::<[u8], _>(up_to(text)).next_back();
        match block.or_else(|| self.names.blocks.first_key_value()) {
            Some((key, block)) => (self.key, self.walk) = (key, Walk::new(&block.bytes)),
            None => return,
        }
        while self.walk.next() {
            let name = self.walk.name.as_slice();
            if name > text || inclusive && name == text {
                self.is_held = true;
                return;
            }
        }
    }

    /// Stands at the beginning of the first block within the bound; `false` if there is none.
    fn enter(&mut self, from: Bound<&[u8]>) -> bool {
        match self.names.blocks.range::<[u8], _>((from, Bound::Unbounded)).next() {
            Some((key, block)) => {
                (self.key, self.walk) = (key, Walk::new(&block.bytes));
                true
            }
            None => false,
        }
    }
}

/// A walk through one block.
struct Walk<'a> {
    bytes: &'a [u8],
    /// Where the present entry begins, and where it ends.
    at: usize,
    end: usize,
    name: Vec<u8>,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: 0, name: Vec::new() }
    }

    /// Goes to the next name; `false` at the end.
    fn next(&mut self) -> bool {
        self.at = self.end;
        let Some((shared, suffix, end)) = entry(self.bytes, self.at) else { return false };
        self.name.truncate(shared);
        self.name.extend_from_slice(suffix);
        self.end = end;
        true
    }
}

/// Bytes shared, the others, and where the entry ends.
fn entry(bytes: &[u8], at: usize) -> Option<(usize, &[u8], usize)> {
    let shared = *bytes.get(at)?;
    let (mut at, mut len) = (at + 1, 0_usize);
    for shift in [0, 7, 14] {
        let byte = *bytes.get(at)?;
        at += 1;
        len |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some((shared.into(), bytes.get(at..at + len)?, at + len))
}

fn write_entry(into: &mut Vec<u8>, before: &[u8], name: &[u8]) {
    let shared = before.iter().zip(name).take(255).take_while(|(a, b)| a == b).count();
    let suffix = name.get(shared..).unwrap_or_default();
    into.push(shared as u8);
    let mut len = suffix.len();
    while len >= 0x80 {
        into.push(len as u8 | 0x80);
        len >>= 7;
    }
    into.push(len as u8);
    into.extend_from_slice(suffix);
}

impl Block {
    fn insert(&mut self, name: &[u8]) {
        let (at, end, before, after) = self.around(name);
        let mut entries = Vec::with_capacity(name.len() + 8);
        write_entry(&mut entries, &before, name);
        if let Some(after) = after {
            write_entry(&mut entries, name, &after);
        }
        self.splice(at, end, &entries);
        self.names += 1;
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let (at, end, before, found) = self.around(name);
        if found.as_deref() != Some(name) {
            return false;
        }
        let mut entries = Vec::new();
        let mut walk = Walk { bytes: &self.bytes, at, end, name: name.to_vec() };
        let mut through = end;
        if walk.next() {
            write_entry(&mut entries, &before, &walk.name);
            through = walk.end;
        }
        self.splice(at, through, &entries);
        self.names -= 1;
        true
    }

    /// Where the first entry not below the name begins and ends, the name before it, and its own.
    fn around(&self, name: &[u8]) -> (usize, usize, Vec<u8>, Option<Vec<u8>>) {
        let mut before = Vec::new();
        let mut walk = Walk::new(&self.bytes);
        while walk.next() {
            if walk.name.as_slice() >= name {
                return (walk.at, walk.end, before, Some(walk.name));
            }
            before.clone_from(&walk.name);
        }
        (self.bytes.len(), self.bytes.len(), before, None)
    }

    fn splice(&mut self, at: usize, end: usize, entries: &[u8]) {
        if self.bytes.capacity() < self.bytes.len() + entries.len() {
            self.bytes.reserve_exact(entries.len() + 32);
        }
        self.bytes.splice(at..end, entries.iter().copied());
    }

    /// Gives up the upper half of a block that is too large, with what it is to be known by. `newest` is the name that came last.
    fn split(&mut self, newest: &[u8]) -> Option<(Box<[u8]>, Self)> {
        if self.names <= BLOCK_NAMES && (self.bytes.len() <= BLOCK_BYTES || self.names == 1) {
            return None;
        }
        let mut lower = Vec::with_capacity(self.names);
        let mut walk = Walk::new(&self.bytes);
        while walk.next() {
            lower.push(walk.name.clone());
        }
        // Who adds names in their order leaves full blocks behind instead of half-full ones.
        let is_last = lower.last().is_some_and(|last| last == newest);
        let upper = lower.split_off(if is_last { lower.len() - 1 } else { lower.len() / 2 });
        *self = Self::of(&lower);
        Some((upper.first()?.as_slice().into(), Self::of(&upper)))
    }

    fn of(names: &[Vec<u8>]) -> Self {
        let (mut bytes, mut before) = (Vec::new(), [].as_slice());
        for name in names {
            write_entry(&mut bytes, before, name);
            before = name;
        }
        bytes.shrink_to_fit();
        Self { bytes, names: names.len() }
    }
}

/// All blocks that may have the name.
fn up_to(name: &[u8]) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Unbounded, Bound::Included(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::router::tests::topics;

    fn all(names: &Names, from: Bound<&str>) -> Vec<String> {
        let (mut scan, mut all) = (names.scan(from), Vec::new());
        while let Some(name) = scan.next() {
            all.push(name.to_owned());
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn is_a_sorted_set(
            steps in prop::collection::vec((topics(), 0u32..4, prop::bool::weighted(0.7)), 1..400),
            probes in prop::collection::vec(topics(), 1..8),
        ) {
            let (mut names, mut model) = (Names::default(), BTreeSet::new());
            for (name, n, add) in steps {
                let name = format!("{name}\u{e4}{n}");
                if add {
                    if model.insert(name.clone()) {
                        names.insert(&name);
                    }
                } else {
                    prop_assert_eq!(names.remove(&name), model.remove(&name));
                }
                prop_assert_eq!(names.len(), model.len());
            }
            for probe in probes.iter().chain(model.iter().next()) {
                for from in [Bound::Unbounded, Bound::Included(probe.as_str()), Bound::Excluded(probe.as_str())] {
                    let expected: Vec<String> = model.range::<str, _>((from, Bound::Unbounded)).cloned().collect();
                    prop_assert_eq!(all(&names, from), expected);
                }
            }
            for name in model {
                prop_assert!(names.remove(&name));
            }
            prop_assert_eq!((names.len(), names.blocks.len()), (0, 0));
        }
    }

    #[test]
    fn a_name_costs_little_more_than_what_tells_it_from_its_neighbour() {
        let mut names = Names::default();
        let name = |n: u32| format!("state/{}/device{n}/value", n % 100);
        for n in 0..10_000_u32 {
            names.insert(&name(n.wrapping_mul(7_919) % 10_000));
        }
        let held =
            |names: &Names| names.blocks.values().map(|block| block.bytes.capacity() + 80).sum::<usize>();
        assert!(held(&names) < 10_000 * 20, "{} for 10,000 names", held(&names));
        for n in (0..10_000).filter(|n| n % 50 != 0) {
            assert!(names.remove(&name(n)));
        }
        assert!(held(&names) < 200 * 60, "{} for 200 names", held(&names));
    }

    #[test]
    fn long_names_stand_in_blocks_of_their_own() {
        let mut names = Names::default();
        let long: Vec<String> = (0..40).map(|n| format!("{}{n}", "x".repeat(n * 1_600))).collect();
        long.iter().for_each(|name| names.insert(name));
        assert_eq!(all(&names, Bound::Unbounded).len(), 40);
        assert!(long.iter().all(|name| names.remove(name)));
        assert_eq!(names.blocks.len(), 0);
    }
}
