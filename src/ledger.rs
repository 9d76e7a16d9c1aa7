//! Places in the durable log, and the account of what is still needed of each segment.
//!
//! Pure: no file is touched here. Sessions and retained messages hold what they need of the log by adding it to the account; the log
//! frees a segment when nothing in it is needed. [`Stored`] does so by itself when the last reference goes; a queue of many messages
//! adds and subtracts its entries, so that each costs a few bytes only.
//!
//! The log's two watermarks stand here as well, for those who must not know the log: what ends at or before `committed` may be
//! acknowledged, what begins before `written` can be read back. Both move from the end of one submitted batch to the end of another, so a
//! frame that *begins* before a watermark lies wholly before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::turns::{BarrierSeat, Turns};

/// A place in the log: which segment, and how many bytes into it. Later places are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position(u64);

impl Position {
    /// Before everything.
    pub const START: Self = Self(0);
    /// After everything.
    pub const END: Self = Self(u64::MAX);

    /// `offset` bytes into the segment.
    pub const fn new(segment: u32, offset: u32) -> Self {
        Self(((segment as u64) << 32) | offset as u64)
    }

    /// The segment's number.
    pub const fn segment(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bytes from the segment's beginning.
    pub const fn offset(self) -> u32 {
        self.0 as u32
    }

    /// As one number, for atomics and files.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// From [`as_u64`](Self::as_u64).
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// So many bytes further in the same segment.
    #[must_use]
    pub const fn plus(self, bytes: u32) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Ledger {
    segments: RwLock<BTreeMap<u32, AtomicU64>>,
    committed: AtomicU64,
    written: AtomicU64,
    failing: AtomicBool,
    turns: Turns,
    /// References are given up inside turns only; debug builds check it.
    is_watched: AtomicBool,
}

impl Default for Ledger {
    fn default() -> Self {
        let ledger = Self::new().0;
        ledger.unwatch();
        ledger
    }
}

impl Ledger {
    /// An account whose references are given up inside turns, and the right to wait for these.
    pub(crate) fn new() -> (Self, BarrierSeat) {
        let (turns, seat) = Turns::new();
        let (committed, written) = (AtomicU64::new(0), AtomicU64::new(0));
        (
            Self {
                segments: RwLock::default(),
                committed,
                written,
                failing: AtomicBool::new(false),
                turns,
                is_watched: AtomicBool::new(true),
            },
            seat,
        )
    }

    /// The turns that may have a reference in their hands.
    pub(crate) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Everything is given up from now on: the broker goes, and nobody frees segments any more.
    pub(crate) fn unwatch(&self) {
        self.is_watched.store(false, Ordering::Relaxed);
    }

    /// A reference is given up: inside a turn, else nobody waits until its successor is on record.
    fn check_turn(&self) {
        #[cfg(any(test, debug_assertions))]
        if self.is_watched.load(Ordering::Relaxed) {
            self.turns.check_open("a reference into the log is given up");
        }
    }

    /// `bytes` at `position` are needed once more.
    pub fn add(&self, position: Position, bytes: u32) {
        let segment = position.segment();
        if let Some(live) = self.segments.read().get(&segment) {
            live.fetch_add(bytes.into(), Ordering::AcqRel);
            return;
        }
        self.segments.write().entry(segment).or_default().fetch_add(bytes.into(), Ordering::AcqRel);
    }

    /// The opposite of one [`add`](Self::add) with the same values. What replaces the reference goes on
    /// record in the turn that gives it up, so the segment is not freed before that is safe.
    pub fn subtract(&self, position: Position, bytes: u32) {
        self.check_turn();
        if let Some(live) = self.segments.read().get(&position.segment()) {
            live.fetch_sub(bytes.into(), Ordering::AcqRel);
        }
    }

    /// Bytes of a segment that are needed. What several hold counts several times.
    pub fn live(&self, segment: u32) -> u64 {
        self.segments.read().get(&segment).map_or(0, |live| live.load(Ordering::Acquire))
    }

    /// The end of what may be acknowledged.
    pub fn committed(&self) -> Position {
        Position::from_u64(self.committed.load(Ordering::Acquire))
    }

    /// The end of what can be read back.
    pub fn written(&self) -> Position {
        Position::from_u64(self.written.load(Ordering::Acquire))
    }

    /// Moves a watermark; never back.
    pub fn set_committed(&self, end: Position) {
        self.committed.fetch_max(end.as_u64(), Ordering::AcqRel);
    }

    /// Moves the other one.
    pub fn set_written(&self, end: Position) {
        self.written.fetch_max(end.as_u64(), Ordering::AcqRel);
    }

    /// Whether nothing can be put on record at present.
    pub fn is_failing(&self) -> bool {
        self.failing.load(Ordering::Acquire)
    }

    /// Nothing can be put on record, or something can be again.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::Release);
    }

    /// Nobody will ask for this segment again: it is gone.
    pub fn forget(&self, segment: u32) {
        self.segments.write().remove(&segment);
    }
}

/// A message's place in the log, held for as long as this value lives.
#[derive(Debug)]
pub struct Stored {
    ledger: Arc<Ledger>,
    position: AtomicU64,
    bytes: u32,
}

impl Stored {
    /// Holds `bytes` at `position`.
    pub fn new(ledger: &Arc<Ledger>, position: Position, bytes: u32) -> Self {
        ledger.add(position, bytes);
        Self { ledger: Arc::clone(ledger), position: AtomicU64::new(position.as_u64()), bytes }
    }

    /// Where it is.
    pub fn position(&self) -> Position {
        Position::from_u64(self.position.load(Ordering::Acquire))
    }

    /// Bytes of its frame.
    pub fn bytes(&self) -> u32 {
        self.bytes
    }

    /// Where the account is kept.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// It was copied forward; nothing happens if it has moved from `from` already.
    pub fn move_to(&self, from: Position, to: Position) {
        self.ledger.add(to, self.bytes);
        let moved =
            self.position.compare_exchange(from.as_u64(), to.as_u64(), Ordering::AcqRel, Ordering::Acquire);
        self.ledger.subtract(if moved.is_ok() { from } else { to }, self.bytes);
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.ledger.subtract(self.position(), self.bytes);
    }
}
