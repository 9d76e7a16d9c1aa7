//! What messages carry, and the checks of what arrives: contents, order per publisher, nothing twice, nothing missing.
//!
//! Layout: publisher (4 bytes), tag (4, free for the scenario), sequence (8), intended time (8, nanoseconds since the
//! start of the run), then bytes that follow from publisher and sequence.

/// The least size of a payload.
pub const LEAST: usize = 24;
const PATTERN_BYTES: usize = 1 << 16;

/// The meaning of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Who sent it, from 0.
    pub publisher: u32,
    /// Whatever the scenario needs.
    pub tag: u32,
    /// Its place among the messages of that publisher, from 0.
    pub sequence: u64,
    /// When it was to be sent, in nanoseconds since the start of the run.
    pub intended_ns: u64,
}

/// Writes and checks payloads of one size.
pub struct Payloads {
    size: usize,
    pattern: Vec<u8>,
    scratch: Vec<u8>,
}

impl Payloads {
    /// Payloads of `size` bytes, at least `LEAST`.
    pub fn new(size: usize) -> Self {
        let size = size.max(LEAST);
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let pattern = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        });
        Self {
            size,
            pattern: pattern.take(PATTERN_BYTES + size).collect(),
            scratch: Vec::with_capacity(size),
        }
    }

    /// The bytes for `stamp`.
    pub fn write(&mut self, stamp: Stamp) -> &[u8] {
        let filler = filler(&self.pattern, self.size, stamp);
        self.scratch.clear();
        self.scratch.extend_from_slice(&stamp.publisher.to_be_bytes());
        self.scratch.extend_from_slice(&stamp.tag.to_be_bytes());
        self.scratch.extend_from_slice(&stamp.sequence.to_be_bytes());
        self.scratch.extend_from_slice(&stamp.intended_ns.to_be_bytes());
        self.scratch.extend_from_slice(filler);
        &self.scratch
    }

    /// What `payload` says, if it is whole.
    pub fn read(&self, payload: &[u8]) -> Option<Stamp> {
        let (head, tail) = payload.split_at_checked(LEAST)?;
        let number = |at: usize| Some(u64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
        let first = number(0)?;
        let stamp = Stamp {
            publisher: (first >> 32) as u32,
            tag: first as u32,
            sequence: number(8)?,
            intended_ns: number(16)?,
        };
        (tail == filler(&self.pattern, self.size, stamp)).then_some(stamp)
    }
}

fn filler(pattern: &[u8], size: usize, stamp: Stamp) -> &[u8] {
    // Multiplication by an odd number spreads every bit of both into the topmost, which choose the place.
    let mixed = (stamp.sequence ^ u64::from(stamp.publisher) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = (mixed >> 48) as usize % PATTERN_BYTES;
    &pattern[start..start + size - LEAST]
}

/// What went wrong with deliveries, by kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Faults {
    /// Skipped: a later message of the same publisher came first, or none at all.
    pub missing: u64,
    /// Came after a later one, or a second time.
    pub disordered: u64,
    /// Payload, topic or receiver is not what it must be.
    pub corrupt: u64,
}

impl Faults {
    /// Whether every delivery was right.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

/// The next sequence number per subscriber and publisher.
pub struct Order {
    publishers: usize,
    next: Vec<u64>,
    /// What was found so far.
    pub faults: Faults,
}

impl Order {
    /// Each of `subscribers` gets all messages of the publishers it hears, in order and from 0.
    pub fn new(subscribers: usize, publishers: usize) -> Self {
        Self { publishers, next: vec![0; subscribers * publishers], faults: Faults::default() }
    }

    /// Notes a delivery of consecutive messages; false if it was not a new one.
    pub fn accept(&mut self, subscriber: usize, stamp: Stamp) -> bool {
        let Some(next) = self.slot(subscriber, stamp) else { return false };
        let expected = *next;
        if stamp.sequence < expected {
            self.faults.disordered += 1;
            return false;
        }
        *next = stamp.sequence + 1;
        self.faults.missing += stamp.sequence - expected;
        true
    }

    /// Notes a delivery where a subscriber hears only some messages: order alone can be judged.
    pub fn accept_rising(&mut self, subscriber: usize, stamp: Stamp) -> bool {
        let Some(next) = self.slot(subscriber, stamp) else { return false };
        let is_new = stamp.sequence >= *next;
        *next = (*next).max(stamp.sequence + 1);
        self.faults.disordered += u64::from(!is_new);
        is_new
    }

    fn slot(&mut self, subscriber: usize, stamp: Stamp) -> Option<&mut u64> {
        let publisher = stamp.publisher as usize;
        if publisher >= self.publishers {
            self.faults.corrupt += 1;
            return None;
        }
        self.next.get_mut(subscriber * self.publishers + publisher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_is_noticed() {
        let mut payloads = Payloads::new(64);
        for sequence in [0, 1, 70_000] {
            let stamp = Stamp { publisher: 3, tag: 9, sequence, intended_ns: 5 };
            let bytes = payloads.write(stamp).to_vec();
            assert_eq!(bytes.len(), 64);
            assert_eq!(payloads.read(&bytes), Some(stamp));
            assert_eq!(payloads.read(&bytes[..63]), None);
            for at in (0..4).chain(8..16).chain(LEAST..64) {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(payloads.read(&changed), None, "byte {at}");
            }
        }
    }

    #[test]
    fn gaps_and_repetitions_are_counted() {
        let mut order = Order::new(2, 2);
        let stamp = |publisher, sequence| Stamp { publisher, sequence, ..Stamp::default() };
        assert!(order.accept(1, stamp(1, 0)));
        assert!(order.accept(1, stamp(1, 3)));
        assert!(!order.accept(1, stamp(1, 2)));
        assert!(order.accept(0, stamp(1, 0)));
        assert!(!order.accept(0, stamp(2, 0)));
        assert_eq!(order.faults, Faults { missing: 2, disordered: 1, corrupt: 1 });
        assert!(order.accept_rising(0, stamp(0, 5)) && !order.accept_rising(0, stamp(0, 4)));
        assert_eq!(order.faults, Faults { missing: 2, disordered: 2, corrupt: 1 });
    }
}
