//! What the log, its writer and a checkpoint's writer share: what is pending, the watermarks, and who waits for them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::checkpoint::Checkpoints;
use super::directory::Directory;
use super::frame::FILE_HEADER;
use super::log::LogOptions;
use super::reserve::Reserve;
use super::segments::Segments;
use super::watched::Watch;
use super::watermark::{Identity, Watermark, identity};
use crate::ledger::Position;

/// See `Shared::is_company`.
const LAZY_BYTES: usize = 1024 * 1024;

/// How long things wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// What nobody waits for is written after this.
    pub(super) lazy: Duration,
    /// After a failure the next attempt comes after this.
    pub(super) retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lazy: Duration::from_millis(200), retry: Duration::from_millis(250) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) bytes_submitted: AtomicU64,
    pub(super) bytes_written: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) write_failures: AtomicU64,
    pub(super) sync_failures: AtomicU64,
}

/// Bytes of one segment, to be written one behind the other.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) segment: u32,
    /// Of the first frame.
    pub(super) offset: u32,
    /// If `offset` is 0, the file's header precedes the frames.
    pub(super) bytes: Vec<u8>,
}

impl Part {
    /// Where the frames begin in `bytes`.
    pub(super) fn header_len(&self) -> usize {
        if self.offset == 0 { FILE_HEADER } else { 0 }
    }

    /// The offset behind its last frame.
    pub(super) fn end(&self) -> u32 {
        self.offset + (self.bytes.len() - self.header_len()) as u32
    }
}

/// What was submitted and the writer has not taken.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) parts: Vec<Part>,
    pub(super) bytes: usize,
    /// Where the next batch begins, if it fits.
    pub(super) cursor: Position,
    /// Somebody waits for some of it.
    pub(super) waited: bool,
    /// Somebody waits until everything submitted so far is synced.
    pub(super) sync_wanted: bool,
    /// The writer has set its clock for what is lazy.
    pub(super) noted: bool,
    pub(super) closing: bool,
    /// The writer has ended.
    pub(super) closed: bool,
    /// A buffer to be used again.
    pub(super) spare: Vec<u8>,
}

/// What the log, its writer and a checkpoint's writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) files: Directory,
    pub(super) segments: Segments,
    pub(super) options: LogOptions,
    pub(super) timing: Timing,
    pub(super) tag: u32,
    pub(super) pending: Mutex<Pending>,
    /// With `pending`: there is something for the writer to look at.
    pub(super) work: Condvar,
    /// With `pending`: `synced`, `failing` or `closed` has changed.
    pub(super) progress: Condvar,
    committed: Watermark,
    written: AtomicU64,
    synced: AtomicU64,
    pub(super) failing: AtomicBool,
    /// The writer's thread has ended by a panic.
    pub(super) panicked: AtomicBool,
    /// Bytes submitted and still needed in memory.
    held: AtomicUsize,
    not_full: Mutex<HashMap<Identity, Waker>>,
    pub(super) counters: Counters,
    pub(super) checkpoints: Checkpoints,
    pub(super) reserve: Reserve,
    pub(super) watch: Arc<Watch>,
    short_of_room: AtomicBool,
    /// Bytes that may wait in memory.
    pending_max: AtomicUsize,
}

impl Shared {
    /// Of a log that goes on at `start`; everything before that is safe.
    pub(super) fn new(
        (files, watch): (Directory, Arc<Watch>),
        segments: Segments,
        checkpoints: Checkpoints,
        (options, timing): (LogOptions, Timing),
        tag: u32,
        start: Position,
    ) -> Self {
        let reserve = Reserve::found(&files);
        let watermark = || AtomicU64::new(start.as_u64());
        Self {
            files,
            segments,
            options,
            timing,
            tag,
            pending: Mutex::new(Pending { cursor: start, ..Pending::default() }),
            work: Condvar::new(),
            progress: Condvar::new(),
            committed: Watermark::at(start),
            written: watermark(),
            synced: watermark(),
            failing: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            held: AtomicUsize::new(0),
            not_full: Mutex::default(),
            counters: Counters::default(),
            checkpoints,
            reserve,
            watch,
            short_of_room: AtomicBool::new(false),
            pending_max: AtomicUsize::new(options.pending_bytes_max),
        }
    }

    pub(super) fn committed(&self) -> Position {
        self.committed.position()
    }

    pub(super) fn written(&self) -> Position {
        Position::from_u64(self.written.load(Ordering::Acquire))
    }

    pub(super) fn synced(&self) -> Position {
        Position::from_u64(self.synced.load(Ordering::Acquire))
    }

    pub(super) fn set_written(&self, position: Position) {
        self.written.store(position.as_u64(), Ordering::Release);
        self.segments.ledger.set_written(position);
    }

    pub(super) fn set_synced(&self, position: Position) {
        self.synced.store(position.as_u64(), Ordering::Release);
        let _pending = self.pending.lock();
        self.progress.notify_all();
    }

    /// Moves the watermark, and wakes those who wait for no more than that.
    pub(super) fn commit(&self, position: Position) {
        // The ledger first: who is woken looks there.
        self.segments.ledger.set_committed(position);
        self.committed.advance(position);
    }

    /// So many bytes need not be in memory any more.
    pub(super) fn release(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::AcqRel);
        self.wake_those_not_full();
    }

    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Acquire)
    }

    /// So much that nobody waits for that it need not wait for more.
    pub(super) fn is_company(&self, pending: &Pending) -> bool {
        pending.bytes > LAZY_BYTES.min(self.options.pending_bytes_max / 2)
    }

    pub(super) fn is_full(&self) -> bool {
        self.held.load(Ordering::Acquire) > self.pending_max() || self.is_short_of_room()
    }

    pub(super) fn pending_max(&self) -> usize {
        self.pending_max.load(Ordering::Relaxed)
    }

    /// The reserve was given up and is not there again: nothing that makes the log grow is taken.
    pub(super) fn is_short_of_room(&self) -> bool {
        self.short_of_room.load(Ordering::Acquire)
    }

    pub(super) fn set_short_of_room(&self, is_short: bool) {
        match (self.short_of_room.swap(is_short, Ordering::AcqRel), is_short) {
            (true, false) => {
                tracing::info!("there is room on the disk again: messages are stored as before");
                self.wake_those_not_full();
            }
            // Who waited for a busy disk waits otherwise for a full one.
            (false, true) => self.wake_all_who_wait_for_room(),
            _ => {}
        }
    }

    /// No more than this waits in memory, or than the options say.
    pub(super) fn set_pending_max(&self, bytes: usize) {
        self.pending_max.store(bytes.min(self.options.pending_bytes_max), Ordering::Relaxed);
    }

    fn wake_those_not_full(&self) {
        if !self.is_full() {
            self.wake_all_who_wait_for_room();
        }
    }

    /// How many wait for the log to come to a place.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.committed.waiters()
    }

    fn wake_all_who_wait_for_room(&self) {
        let waiting = std::mem::take(&mut *self.not_full.lock());
        waiting.into_values().for_each(Waker::wake);
    }

    /// See [`Log::wake_at`](super::Log::wake_at).
    pub(super) fn wake_at(&self, end: Position, waker: &Waker) {
        self.committed.wake_at(end, waker);
    }

    /// The last attempt to write has failed, or one has succeeded again; whether that is news.
    /// Sessions may send then what else waits for the log, so those who wait look again.
    pub(super) fn set_failing(&self, failing: bool) -> bool {
        if self.failing.swap(failing, Ordering::AcqRel) == failing {
            return false;
        }
        // The ledger first: who is woken looks there.
        self.segments.ledger.set_failing(failing);
        self.committed.wake_all();
        self.wake_all_who_wait_for_room();
        true
    }

    /// See [`Log::wake_when_not_full`](super::Log::wake_when_not_full).
    pub(super) fn wake_when_not_full(&self, waker: &Waker) {
        {
            let mut waiting = self.not_full.lock();
            if self.is_full() {
                waiting.entry(identity(waker)).or_insert_with(|| waker.clone());
                return;
            }
        }
        waker.wake_by_ref();
    }

    /// So many bytes more are in memory.
    pub(super) fn hold(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Waits until everything before `end` is synced, whatever the mode.
    ///
    /// # Errors
    /// If the disk is failing now, or the log is closed.
    pub(super) fn wait_synced(&self, end: Position) -> io::Result<()> {
        let mut pending = self.pending.lock();
        loop {
            if self.synced() >= end {
                return Ok(());
            }
            if pending.closed {
                return Err(io::Error::other("the log is closed"));
            }
            if self.failing.load(Ordering::Acquire) {
                return Err(io::Error::other("the log cannot be written at present"));
            }
            pending.sync_wanted = true;
            self.work.notify_one();
            self.progress.wait(&mut pending);
        }
    }

    /// The writer has ended: nothing will be committed any more.
    pub(super) fn closed(&self) {
        {
            let mut pending = self.pending.lock();
            pending.closed = true;
            pending.parts = Vec::new();
            self.progress.notify_all();
        }
        self.committed.close();
        self.wake_all_who_wait_for_room();
    }
}
