//! Many short texts in a few buffers that never move (why: [`super::arena`]), each named by the eight bytes of a [`Text`].
//!
//! An allocation of its own would cost a text of twenty bytes a pointer, a length and the allocator's rounding besides: as much again.
//! What is freed stays as a hole until holes make up half of all; then the owner, who alone knows its texts, has the rest moved
//! together with [`Texts::compact`]. So there is never more than twice what is in use, and a byte is moved about once per byte freed.

/// Below this much, holes are not worth the work.
const HOLES_MIN: usize = 1024;

/// Bytes of a buffer, with the allocator's word a multiple of the system's pages. A longer text has one of its own.
const BUFFER: usize = 16 * 1024 - 16;

/// A place is the number of a buffer and, in so many bits, where in it.
const OFFSET_BITS: u32 = 16;

/// The place of a text in its [`Texts`]. The empty text has no place of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Text {
    at: u32,
    /// The bits of the place above those 32.
    at_high: u16,
    len: u16,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Texts {
    buffers: Vec<Vec<u8>>,
    /// Bytes in all of them, and those not in use.
    len: usize,
    holes: usize,
}

impl Text {
    pub(super) const EMPTY: Self = Self { at: 0, at_high: 0, len: 0 };

    fn new(at: usize, len: u16) -> Self {
        // 48 bits of address: more than any machine has memory.
        Self { at: at as u32, at_high: (at as u64 >> 32) as u16, len }
    }

    fn at(self) -> usize {
        (u64::from(self.at_high) << 32 | u64::from(self.at)) as usize
    }

    /// The first `len` bytes of it.
    pub(super) fn first(self, len: usize) -> Self {
        Self::new(self.at(), self.len.min(clamp(len)))
    }

    /// What follows its first `len` bytes.
    pub(super) fn after(self, len: usize) -> Self {
        let len = self.len.min(clamp(len));
        Self::new(self.at() + usize::from(len), self.len - len)
    }
}

impl Texts {
    /// Keeps a copy. A text longer than 65,535 bytes, which no filter is, would be cut off there.
    pub(super) fn add(&mut self, text: &[u8]) -> Text {
        let len = clamp(text.len());
        let text = text.get(..usize::from(len)).unwrap_or(text);
        if self.buffers.last().is_none_or(|buffer| buffer.len() + text.len() > BUFFER) {
            self.buffers.push(Vec::new());
        }
        let number = self.buffers.len() - 1;
        let Some(buffer) = self.buffers.last_mut() else { return Text::EMPTY };
        let offset = buffer.len();
        if buffer.capacity() - offset < text.len() {
            // A little ahead; not doubled.
            let room = (offset + text.len() + offset / 4 + 32).min(BUFFER.max(text.len()));
            buffer.reserve_exact(room - offset);
        }
        buffer.extend_from_slice(text);
        self.len += text.len();
        Text::new(number << OFFSET_BITS | offset, len)
    }

    pub(super) fn get(&self, text: Text) -> &[u8] {
        let (number, offset) = (text.at() >> OFFSET_BITS, text.at() & ((1 << OFFSET_BITS) - 1));
        let buffer = self.buffers.get(number).map(Vec::as_slice).unwrap_or_default();
        buffer.get(offset..offset + usize::from(text.len)).unwrap_or_default()
    }

    /// These bytes are not needed any more.
    pub(super) fn free(&mut self, bytes: usize) {
        self.holes += bytes;
    }

    pub(super) fn wants_compaction(&self) -> bool {
        self.holes > HOLES_MIN && self.holes > self.len / 2
    }

    /// Moves the texts together; `all` are all that are in use, which get their new places.
    pub(super) fn compact<'a>(&mut self, all: impl Iterator<Item = &'a mut Text>) {
        let mut fresh = Self::default();
        for text in all.filter(|text| text.len > 0) {
            *text = fresh.add(self.get(*text));
        }
        *self = fresh;
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.buffers.iter().map(Vec::capacity).sum()
    }

    /// Gives the memory back; there is no text any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn clamp(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_takes_eight_bytes_and_reaches_beyond_four_gigabytes() {
        assert_eq!(size_of::<Text>(), 8);
        let far = Text::new(0x1234_5678_9abc, 7);
        assert_eq!((far.at(), far.after(3).at(), far.after(3).len), (0x1234_5678_9abc, 0x1234_5678_9abf, 4));
        assert_eq!((far.first(3).len, far.first(9).len, far.after(9).len), (3, 7, 0));
    }

    #[test]
    fn what_is_freed_is_given_back_and_the_rest_stays_as_it_was() {
        let mut texts = Texts::default();
        let mut kept = Vec::new();
        for round in 0..200 {
            for n in 0..100 {
                let text = format!("{round}/{n}");
                let place = texts.add(text.as_bytes());
                if n == 50 {
                    kept.push((text, place));
                } else {
                    texts.free(text.len());
                }
                if texts.wants_compaction() {
                    texts.compact(kept.iter_mut().map(|(_, place)| place));
                }
            }
        }
        let live: usize = kept.iter().map(|(text, _)| text.len()).sum();
        assert!(texts.bytes_held() < 2 * live + 4 * HOLES_MIN, "{} for {live}", texts.bytes_held());
        for (text, place) in &kept {
            assert_eq!(texts.get(*place), text.as_bytes());
        }
        assert_eq!(texts.get(Text::EMPTY), b"");
    }
}
