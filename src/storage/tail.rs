//! A segment that the writer is not done with.
//!
//! While batches are small (one client that waits for each of its answers), room is made ahead of them with zeros: to sync bytes within
//! a file takes two thirds of the time that a file takes which grows, for its length need not be written as well.

use std::collections::VecDeque;
use std::sync::Arc;

use super::files::LogFile;
use super::frame::{FILE_HEADER, FileHeader, Kind, ROOM};
use super::shared::Part;
use crate::ledger::Position;

/// A batch of fewer bytes is a small one: a disk writes a page for it anyway.
const SMALL_BATCH: u64 = 4096;
/// After so many small batches in a row room is made: so it costs no more than they did, a page each.
pub(super) const SMALL_BATCHES: u32 = 16;
/// Room is written in pieces of so many bytes: the system keeps what one call wrote as one piece, and would write all 64 KiB of it to the
/// disk again for each frame (measured on ext4, Linux 6.18: 112 bytes written per byte of payload, and 23 with pieces).
const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// A segment that is not wholly synced, or the one being written.
#[derive(Debug)]
pub(super) struct Tail {
    /// Of the file being written.
    pub(super) header: FileHeader,
    pub(super) file: Option<Arc<dyn LogFile>>,
    /// It was made and its name may not survive.
    pub(super) name_unsynced: bool,
    /// How often syncs of names had failed before it was made.
    pub(super) name_since: u64,
    /// A sync of it failed.
    pub(super) distrusted: bool,
    /// Offsets up to which it is written, and synced.
    pub(super) written: u32,
    pub(super) synced: u32,
    /// The byte of the file up to which zeros were written ahead.
    pub(super) room: u64,
    /// How many small batches were the last ones.
    pub(super) small_batches: u32,
    /// What is not written or not synced, in order.
    pub(super) held: VecDeque<Part>,
}

impl Tail {
    pub(super) fn new(segment: u32, tag: u32) -> Self {
        let header = FileHeader { kind: Kind::Segment, segment, offset: 0, tag };
        Self {
            header,
            file: None,
            name_unsynced: true,
            name_since: 0,
            distrusted: false,
            written: 0,
            synced: 0,
            room: 0,
            small_batches: 0,
            held: VecDeque::new(),
        }
    }

    /// Where in the file an offset stands.
    pub(super) fn at(&self, offset: u32) -> u64 {
        FILE_HEADER as u64 + u64::from(offset - self.header.offset)
    }

    pub(super) fn position(&self, offset: u32) -> Position {
        Position::new(self.header.segment, offset)
    }

    /// A batch of so many bytes was written.
    pub(super) fn count_batch(&mut self, bytes: u64) {
        self.small_batches = if bytes < SMALL_BATCH { self.small_batches.saturating_add(1) } else { 0 };
    }

    /// Writes zeros behind what is written, up to the segment's end, if it is time; how many. To fail here fails nobody: the next
    /// batch finds out by itself.
    pub(super) fn make_room(&mut self, file: &dyn LogFile, segment_bytes: u32) -> Option<u64> {
        let end = self.at(self.written);
        if self.small_batches < SMALL_BATCHES || end <= self.room {
            return None;
        }
        let left = u64::from(segment_bytes.saturating_sub(self.written));
        let (mut at, to) = (end, end + left.min(ROOM as u64));
        while at < to {
            // As pages lie.
            let len = (PAGE as u64 - at % PAGE as u64).min(to - at);
            file.write_at(ZEROS.get(..len as usize)?, at).ok()?;
            at += len;
        }
        self.room = at;
        Some(at - end)
    }
}
