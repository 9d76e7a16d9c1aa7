//! The log as its users see it: submit, wait for the watermark, read, free.
//!
//! [`Log::submit`] takes one short lock; everything that touches a disk happens in the writer's thread, or in calls that say so.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::checkpoint::CheckpointWriter;
use super::directory::Directory;
use super::files::Files;
use super::frame::{Batch, FileHeader, Kind, settle};
use super::open::{Report, Visitor, recover};
use super::reserve::{HandOverRoom, LetIn};
use super::segments::{Freed, ReadError, SegmentInfo, Segments, Window};
use super::shared::{Counters, Part, Shared, Timing};
use super::watched::{Watch, Watched};
use super::writer::Writer;
use crate::ledger::{Ledger, Position};
use crate::turns::Ended;

/// When an acknowledgement may leave, and when the disk is told to keep what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sync {
    /// Committed is what is synced. Nothing acknowledged is lost.
    #[default]
    Always,
    /// Committed is what is written; synced every so often. A power cut may lose the last interval, the end of the process nothing.
    Interval(Duration),
    /// Committed is what is written; synced for checkpoints only. A power cut may lose everything since, and leave holes.
    Never,
}

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogOptions {
    /// When to sync.
    pub(crate) sync: Sync,
    /// Bytes of a segment, but for a batch that is larger than that.
    pub(crate) segment_bytes: u32,
    /// Bytes that may wait in memory before [`Log::is_full`].
    pub(crate) pending_bytes_max: usize,
    /// Bytes kept in reserve for a full disk, besides two checkpoints; 0: none.
    pub(crate) reserve_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        let (segment_bytes, pending_bytes_max) = (4 * 1024 * 1024, 8 * 1024 * 1024);
        // What may wait in memory when the disk is full, and a segment to copy into.
        let reserve_bytes = pending_bytes_max as u64 + u64::from(segment_bytes);
        Self { sync: Sync::Always, segment_bytes, pending_bytes_max, reserve_bytes }
    }
}

/// Where a batch stands: its first frame's position, and the place behind its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Submitted {
    /// Position of the batch's first frame.
    pub(crate) first: Position,
    /// When [`Log::committed`] has reached this, all of it is committed.
    pub(crate) end: Position,
}

/// Segments to which nothing referred when this was made.
#[derive(Debug)]
pub(crate) struct Condemned(Vec<u32>);

/// Whether somebody waits for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It is written as soon as the disk is free.
    Waited,
    /// It may wait a little for company.
    Lazy,
}

/// Counters since [`Log::open`], and the state of the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LogStatus {
    /// Bytes of frames submitted.
    pub(crate) bytes_submitted: u64,
    /// Bytes written to files: frames, headers, checkpoints, and what was written again.
    pub(crate) bytes_written: u64,
    /// Times that a file or the directory was synced.
    pub(crate) syncs: u64,
    /// Writes (and creations of files, and attempts to write a file again) that failed.
    pub(crate) write_failures: u64,
    /// Syncs that failed, but those while writing a file again.
    pub(crate) sync_failures: u64,
    /// The last attempt to write or sync failed: nothing is committed until one succeeds.
    pub(crate) failing: bool,
    /// The reserve was given up and is not there again.
    pub(crate) full: bool,
    /// Bytes of all segments and the checkpoint.
    pub(crate) files_bytes: u64,
}

/// The durable log; see the module's documentation.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Reads what is there, shows each intact frame to the visitor, the checkpoint's first, and starts the writer's thread. What is
    /// damaged is in the report; nothing is logged here.
    ///
    /// # Errors
    /// Only if the directory cannot be used at all, or no thread be started.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        options: LogOptions,
        ledger: Arc<Ledger>,
        visitor: &mut dyn Visitor,
    ) -> io::Result<(Arc<Self>, Report)> {
        let (log, mut writer, report) = Self::open_idle(files, options, Timing::default(), ledger, visitor)?;
        let shared = Arc::clone(&log.shared);
        let thread = std::thread::Builder::new().name("storage".to_owned());
        let thread = thread.spawn(move || {
            let write = AssertUnwindSafe(|| {
                while let Some(next) = writer.work(Instant::now()) {
                    writer.park(next);
                }
            });
            if let Err(panic) = catch_unwind(write) {
                shared.panicked.store(true, Ordering::Release);
                let what = panic.downcast_ref::<String>().map(String::as_str);
                let what = what.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                tracing::error!(
                    what,
                    "the thread that writes the log has panicked: nothing can be stored any more"
                );
                shared.closed();
            }
            drop(writer);
            shared.files.release();
        })?;
        *log.thread.lock() = Some(thread);
        Ok((log, report))
    }

    /// As [`open`](Self::open), with the writer for the caller to run.
    pub(super) fn open_idle(
        files: Arc<dyn Files>,
        options: LogOptions,
        timing: Timing,
        ledger: Arc<Ledger>,
        visitor: &mut dyn Visitor,
    ) -> io::Result<(Arc<Self>, Writer, Report)> {
        let watch = Arc::new(Watch::default());
        let files: Arc<dyn Files> = Arc::new(Watched::new(files, Arc::clone(&watch)));
        let directory = Directory::new(Arc::clone(&files));
        let recovered = recover(&directory, visitor)?;
        let start = Position::new(recovered.next_segment, 0);
        ledger.set_committed(start);
        ledger.set_written(start);
        let segments = Segments::new(files, ledger, recovered.segments);
        let settings = (options, timing);
        let shared =
            Shared::new((directory, watch), segments, recovered.checkpoints, settings, recovered.tag, start);
        let shared = Arc::new(shared);
        let writer = Writer::new(Arc::clone(&shared), recovered.cuts);
        let log = Arc::new(Self { shared, thread: Mutex::default() });
        Ok((log, writer, recovered.report))
    }

    /// Takes the batch's frames over and says where they will stand. Never blocks on the disk. An empty batch is committed already.
    /// After [`close`](Self::close) frames are forgotten, and never committed.
    pub(crate) fn submit(&self, batch: &mut Batch, urgency: Urgency) -> Submitted {
        if batch.is_empty() {
            return Submitted { first: Position::START, end: Position::START };
        }
        let shared = &*self.shared;
        let bytes = batch.bytes();
        let len = bytes as u32;
        let mut pending = shared.pending.lock();
        let room = shared.options.segment_bytes.saturating_sub(pending.cursor.offset());
        if pending.cursor.offset() > 0 && len > room {
            pending.cursor = Position::new(pending.cursor.segment() + 1, 0);
        }
        let first = pending.cursor;
        let end = first.plus(len);
        pending.cursor = end;
        if pending.closed {
            drop(pending);
            batch.clear();
            return Submitted { first, end };
        }
        if pending.parts.last().is_none_or(|part| part.segment != first.segment()) {
            let part = new_part(&mut pending.spare, first, shared.tag);
            pending.parts.push(part);
        }
        if let Some(part) = pending.parts.last_mut() {
            let at = part.bytes.len();
            part.bytes.extend_from_slice(batch.frames());
            settle(part.bytes.get_mut(at..).unwrap_or_default(), shared.tag, first.as_u64());
        }
        pending.bytes += bytes;
        pending.waited |= urgency == Urgency::Waited;
        shared.hold(bytes);
        shared.counters.bytes_submitted.fetch_add(bytes as u64, Ordering::Relaxed);
        if pending.waited || !pending.noted || shared.is_company(&pending) {
            shared.work.notify_one();
        }
        drop(pending);
        batch.clear();
        Submitted { first, end }
    }

    /// Acknowledgements for everything that ends at or before this may leave. What was found at the opening is committed.
    pub(crate) fn committed(&self) -> Position {
        self.shared.committed()
    }

    /// The end of everything that was submitted.
    pub(crate) fn submitted(&self) -> Position {
        self.shared.pending.lock().cursor
    }

    /// The same for somebody who waits for it: what was to wait for company goes now.
    pub(crate) fn submitted_and_wanted(&self) -> Position {
        let mut pending = self.shared.pending.lock();
        if !pending.parts.is_empty() && !pending.waited {
            pending.waited = true;
            self.shared.work.notify_one();
        }
        pending.cursor
    }

    /// What ends at or before this can be [read](Self::read_with).
    pub(crate) fn written(&self) -> Position {
        self.shared.written()
    }

    /// Nothing is written any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.pending.lock().closed
    }

    /// It was closed by a panic of its thread.
    pub(crate) fn has_panicked(&self) -> bool {
        self.shared.panicked.load(Ordering::Acquire)
    }

    /// So much is in memory and not yet safe on the disk that nobody should submit more: stop reading sockets.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.is_full()
    }

    /// The disk is full, and the log takes only what ends things: see the reserve.
    pub(crate) fn is_short_of_room(&self) -> bool {
        self.shared.is_short_of_room()
    }

    /// Bytes of messages that may go from one session to another. May block.
    pub(crate) fn room_to_hand_over(&self) -> HandOverRoom {
        self.shared.room_to_hand_over()
    }

    /// Whether a client that is known may be let in, of which so many bytes will go on record that are
    /// no ends.
    pub(crate) fn may_let_in(&self, bytes: usize, why: LetIn) -> bool {
        self.shared.may_let_in(bytes, why)
    }

    /// Tells the operator's log of operations of the disk that are under way for long. Does not wait for them.
    pub(crate) fn tell_stalled(&self, now: Instant) {
        self.shared.watch.tell_stalled(&*self.shared.files, now);
    }

    /// Looks after the room that is kept for a full disk. Blocks.
    pub(crate) fn tend_reserve(&self) {
        self.shared.tend_reserve();
    }

    /// Replaces what is in `into` by the body of the frame at this position. May block on the disk. For those that stand near one another one
    /// `window` saves reads of the file.
    ///
    /// # Errors
    /// [`ReadError`]; `NotWritten` also for what had to be written again after a failed sync, until that is done.
    pub(crate) fn read_with(
        &self,
        window: &mut Window,
        position: Position,
        into: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        if position >= self.written() {
            return Err(ReadError::NotWritten);
        }
        match self.shared.segments.read(position, window, into) {
            Err(ReadError::Damaged) if position >= self.shared.synced() => Err(ReadError::NotWritten),
            result => result,
        }
    }

    /// The same for one.
    #[cfg(test)]
    pub(crate) fn read(&self, position: Position, into: &mut Vec<u8>) -> Result<(), ReadError> {
        self.read_with(&mut Window::default(), position, into)
    }

    /// Shows every intact frame of a segment, as far as it is written: its position, bytes of the whole frame, its body. Blocks.
    ///
    /// # Errors
    /// If there is no such segment, or a file of it cannot be opened.
    pub(crate) fn scan_segment(
        &self,
        segment: u32,
        visit: &mut dyn FnMut(Position, u32, &[u8]),
    ) -> io::Result<()> {
        self.shared.segments.scan(segment, visit)
    }

    /// The segments that are not written to any more.
    pub(crate) fn sealed_segments(&self) -> Vec<SegmentInfo> {
        self.shared.segments.sealed(self.written().segment())
    }

    /// Begins the file that replaces everything submitted up to now, but for bodies to which positions still point. One at a time.
    ///
    /// # Errors
    /// If one is under way, or its file cannot be made.
    pub(crate) fn begin_checkpoint(&self) -> io::Result<CheckpointWriter> {
        CheckpointWriter::begin(&self.shared)
    }

    /// The position that the last finished checkpoint replaces what precedes; [`Position::START`] if there is none.
    pub(crate) fn checkpoint_position(&self) -> Position {
        self.shared.checkpoints.position()
    }

    /// Bytes of frames submitted since that position.
    pub(crate) fn bytes_since_checkpoint(&self) -> u64 {
        let submitted = self.shared.counters.bytes_submitted.load(Ordering::Relaxed);
        self.shared.checkpoints.bytes_since(submitted)
    }

    /// Puts a checkpoint in force that was gathered before a barrier: what turns had in their hands
    /// while it was gathered is on record by now, and is synced before the checkpoint counts. Blocks.
    ///
    /// # Errors
    /// As [`CheckpointWriter::finish`]; the checkpoint before it then still counts.
    pub(crate) fn finish_checkpoint(&self, writer: Ended<CheckpointWriter>) -> io::Result<()> {
        writer.into_inner().finish(self.submitted())
    }

    /// The sealed segments before the last finished checkpoint to which nothing refers now; `None` if
    /// there are none. They can be [freed](Self::free) when the turns of this moment have ended.
    pub(crate) fn condemn(&self) -> Option<Condemned> {
        let (current, safe) = (self.written().segment(), self.shared.checkpoints.safe());
        let dead = self.shared.segments.dead(current, safe);
        (!dead.is_empty()).then_some(Condemned(dead))
    }

    /// Removes condemned segments, if still nothing refers to them. A reference may have been given up
    /// by a turn that has put its successor on record only since: that is synced first. Blocks.
    ///
    /// After a power cut such a segment may be found again, whole or in part: visitors must not rely on
    /// its being gone.
    ///
    /// # Errors
    /// If the log cannot be synced at present or a file cannot be removed; tried again next time.
    pub(crate) fn free(&self, condemned: Ended<Condemned>) -> io::Result<Freed> {
        self.shared.wait_synced(self.submitted())?;
        self.shared.segments.free(&condemned.into_inner().0)
    }

    /// Both at once, for tests of the log alone, which has no turns.
    #[cfg(test)]
    pub(crate) fn free_dead_segments(&self) -> io::Result<Freed> {
        match self.condemn() {
            Some(Condemned(dead)) => self.shared.segments.free(&dead),
            None => Ok(Freed::default()),
        }
    }

    /// Waits until everything submitted so far is synced, whatever the mode. Blocks.
    ///
    /// # Errors
    /// If the disk is failing now, or the log is closed.
    pub(crate) fn wait_synced(&self) -> io::Result<()> {
        self.shared.wait_synced(self.submitted())
    }

    /// Counters and state.
    pub(crate) fn status(&self) -> LogStatus {
        let Counters { bytes_submitted, bytes_written, syncs, write_failures, sync_failures } =
            &self.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStatus {
            bytes_submitted: read(bytes_submitted),
            bytes_written: read(bytes_written),
            syncs: read(syncs),
            write_failures: read(write_failures),
            sync_failures: read(sync_failures),
            failing: self.shared.failing.load(Ordering::Acquire),
            full: self.shared.is_short_of_room(),
            files_bytes: self.shared.segments.bytes() + self.shared.checkpoints.bytes(),
        }
    }

    /// Writes and syncs what is pending, or gives up at the first failure; ends the writer's thread
    /// and waits for it: as long as the disk takes for that. Then nothing can be written any more,
    /// and the directory is free for the next one.
    pub(crate) fn close(&self) {
        {
            let mut pending = self.shared.pending.lock();
            pending.closing = true;
            self.shared.work.notify_one();
        }
        // Kept until it has ended: another call waits as well.
        let mut thread = self.thread.lock();
        let Some(thread) = thread.take() else { return };
        // The last handle may go in a waker that the thread itself calls; it ends by itself then.
        if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
            tracing::error!("the thread that writes the log has ended out of order");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.close();
    }
}

fn new_part(spare: &mut Vec<u8>, first: Position, tag: u32) -> Part {
    let mut bytes = std::mem::take(spare);
    bytes.clear();
    let (segment, offset) = (first.segment(), first.offset());
    if offset == 0 {
        let header = FileHeader { kind: Kind::Segment, segment, offset, tag };
        bytes.extend_from_slice(&header.encode());
    }
    Part { segment, offset, bytes }
}
