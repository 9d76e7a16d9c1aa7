//! A segment that the writer is not done with.

use std::collections::VecDeque;
use std::sync::Arc;

use super::files::LogFile;
use super::frame::{FILE_HEADER, FileHeader, Kind};
use super::shared::Part;
use crate::ledger::Position;

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
}
