//! Writes what was submitted, syncs it, moves the watermark.
//!
//! [`Writer::work`] does all that is due at a moment and says when it wants to be asked again; [`Writer::park`] waits for that or for
//! news. What was not synced stays in memory, so that it can be written again, to a new file, when a sync has failed: a second sync
//! of the same file would succeed without proving anything.
//!
//! A segment is synced whole before the next one is begun (but with [`Sync::Never`]), so that only the last one can be torn.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::directory::{copy, create_segment, write_whole};
use super::files::LogFile;
use super::frame::{FILE_HEADER, FRAME_HEADER, FileHeader, mark, own_mark};
use super::log::Sync;
use super::open::Cut;
use super::reserve::is_no_room;
use super::shared::Shared;
use super::tail::Tail;
use crate::ledger::Position;

/// With [`Sync::Interval`] more than this is synced before its time.
const UNSYNCED_BYTES: usize = 8 * 1024 * 1024;
/// Buffers up to this size are used again.
const SPARE_BYTES: usize = 1024 * 1024;

/// When the writer wants to be asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Next {
    /// At this time, or when there is news.
    pub(super) at: Option<Instant>,
    /// The disk fails: not before `at`, whatever comes meanwhile (but the end).
    pub(super) patient: bool,
}

/// What failed, for the one message about it: the step, the file's name, the error.
struct Failure(&'static str, String, io::Error);

fn failed(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure(what, name.to_owned(), error)
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    cuts: Vec<Cut>,
    tails: VecDeque<Tail>,
    /// Since when something that nobody waits for is there.
    lazy_since: Option<Instant>,
    /// The disk fails; the next attempt.
    retry_at: Option<Instant>,
    /// When what is written must be synced at the latest.
    sync_at: Option<Instant>,
    sync_wanted: bool,
    closing: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, cuts: Vec<Cut>) -> Self {
        Self {
            shared,
            cuts,
            tails: VecDeque::new(),
            lazy_since: None,
            retry_at: None,
            sync_at: None,
            sync_wanted: false,
            closing: false,
        }
    }

    /// Waits for news, or for the time that [`work`](Self::work) named.
    pub(super) fn park(&self, next: Next) {
        let mut pending = self.shared.pending.lock();
        loop {
            let unnoted = !pending.noted && !pending.parts.is_empty();
            let news = pending.waited || pending.sync_wanted || unnoted || self.shared.is_company(&pending);
            if pending.closing || (news && !next.patient) {
                return;
            }
            match next.at {
                Some(at) => {
                    if self.shared.work.wait_until(&mut pending, at).timed_out() {
                        return;
                    }
                }
                None => self.shared.work.wait(&mut pending),
            }
        }
    }

    /// Does what is due. `None` when the log was closed and this was the last.
    pub(super) fn work(&mut self, now: Instant) -> Option<Next> {
        self.closing = self.shared.pending.lock().closing;
        if let Some(at) = self.retry_at.filter(|at| now < *at && !self.closing) {
            return Some(Next { at: Some(at), patient: true });
        }
        self.take(now);
        let result = self.write_all(now).and_then(|()| self.sync_if_due(now));
        if self.closing {
            let closed = result.and_then(|()| self.end_cleanly());
            if let Err(failure) = closed {
                self.report(&failure);
            }
            self.shared.closed();
            return None;
        }
        match result {
            Ok(()) => {
                self.recovered();
                let lazy_at = self.lazy_since.map(|since| since + self.shared.timing.lazy);
                let at = [lazy_at, self.sync_at].into_iter().flatten().min();
                Some(Next { at, patient: false })
            }
            Err(failure) if is_no_room(&failure.2) && self.shared.give_up_reserve() => {
                // Once more, with the room that it had.
                Some(Next { at: Some(now), patient: true })
            }
            Err(failure) => {
                self.report(&failure);
                let at = now + self.shared.timing.retry;
                self.retry_at = Some(at);
                Some(Next { at: Some(at), patient: true })
            }
        }
    }

    /// Takes over what is pending, if somebody waits for it or it has waited long enough.
    fn take(&mut self, now: Instant) {
        let mut pending = self.shared.pending.lock();
        self.sync_wanted |= std::mem::take(&mut pending.sync_wanted);
        let waited_enough = self.lazy_since.is_some_and(|since| now >= since + self.shared.timing.lazy);
        let due = pending.waited || self.sync_wanted || waited_enough || self.shared.is_company(&pending);
        if !due && !self.closing {
            if !pending.parts.is_empty() {
                pending.noted = true;
                self.lazy_since.get_or_insert(now);
            }
            return;
        }
        let parts = std::mem::take(&mut pending.parts);
        (pending.waited, pending.noted, pending.bytes) = (false, false, 0);
        drop(pending);
        self.lazy_since = None;
        for part in parts {
            if self.tails.back().is_none_or(|tail| tail.header.segment != part.segment) {
                self.tails.push_back(Tail::new(part.segment, self.shared.tag));
            }
            if let Some(tail) = self.tails.back_mut() {
                tail.held.push_back(part);
            }
        }
    }

    fn write_all(&mut self, now: Instant) -> Result<(), Failure> {
        if !self.tails.is_empty() {
            self.make_cuts()?;
        }
        let mode = self.shared.options.sync;
        let mut index = 0;
        while index < self.tails.len() {
            if self.tails[index].distrusted {
                self.write_again(index)?;
            }
            self.write(index)?;
            let tail = &self.tails[index];
            let unsynced = tail.synced < tail.written;
            let is_last = index + 1 == self.tails.len();
            if unsynced && matches!(mode, Sync::Interval(_)) && tail.name_unsynced {
                self.sync_names()?;
            }
            let tail = &self.tails[index];
            let written = tail.position(tail.written);
            if unsynced && !is_last && mode != Sync::Never {
                self.sync(index)?;
            }
            if mode != Sync::Always {
                self.shared.commit(written.max(self.shared.committed()));
            }
            if let (Sync::Interval(interval), true) = (mode, unsynced) {
                self.sync_at.get_or_insert(now + interval);
            }
            if !is_last && mode == Sync::Never {
                // There may be many until a checkpoint syncs them: they are opened again then.
                self.tails[index].file = None;
            }
            if !is_last && self.tails[index].synced == self.tails[index].written {
                self.tails.remove(index);
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    /// What the recovery could not cut off in the old file, a new one hides.
    fn make_cuts(&mut self) -> Result<(), Failure> {
        while let Some(cut) = self.cuts.last() {
            let header = cut.header;
            let _ = self.write_file(header, |_, _| Ok(0))?;
            self.shared.segments.add_file(header, FILE_HEADER as u64);
            self.cuts.pop();
        }
        Ok(())
    }

    /// Writes what is held of a segment and not written.
    fn write(&mut self, index: usize) -> Result<(), Failure> {
        let tail = &self.tails[index];
        let from = tail.held.iter().rposition(|part| part.end() <= tail.written).map_or(0, |last| last + 1);
        if from == tail.held.len() {
            return Ok(());
        }
        let earlier_synced = self.tails.iter().take(index).all(|tail| tail.synced == tail.written);
        let mode = self.shared.options.sync;
        let tail = &mut self.tails[index];
        let name = tail.header.name();
        let file = match &tail.file {
            Some(file) => Arc::clone(file),
            None => {
                tail.name_since = self.shared.files.failures();
                let file = create_segment(&self.shared.files, &name).map_err(failed("create", &name))?;
                self.shared.segments.add_file(tail.header, 0);
                tail.file = Some(Arc::clone(&file));
                file
            }
        };
        let mut batch = 0;
        for part in tail.held.range_mut(from..) {
            let header_len = part.header_len();
            if earlier_synced && tail.synced == part.offset {
                mark(part.bytes.get_mut(header_len..).unwrap_or_default(), tail.header.tag);
            }
            let at = FILE_HEADER as u64 + u64::from(part.offset - tail.header.offset) - header_len as u64;
            file.write_at(&part.bytes, at).map_err(failed("write", &name))?;
            let bytes = part.bytes.len() as u64;
            self.shared.counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
            tail.written = part.end();
            self.shared.segments.grown(tail.header.segment, tail.written, tail.room.max(at + bytes));
            self.shared.set_written(Position::new(tail.header.segment, tail.written));
            batch += bytes;
        }
        let segment_bytes = self.shared.options.segment_bytes;
        tail.count_batch(batch);
        if mode == Sync::Always
            && let Some(zeros) = tail.make_room(&*file, segment_bytes)
        {
            self.shared.counters.bytes_written.fetch_add(zeros, Ordering::Relaxed);
            self.shared.segments.grown(tail.header.segment, tail.written, tail.room);
        }
        if mode == Sync::Never {
            self.let_go(index);
        }
        Ok(())
    }

    fn sync_if_due(&mut self, now: Instant) -> Result<(), Failure> {
        let unsynced = self.tails.iter().any(|tail| tail.synced < tail.written);
        let due = match self.shared.options.sync {
            _ if self.sync_wanted || self.closing => true,
            Sync::Always => true,
            Sync::Never => false,
            Sync::Interval(_) => {
                let most = UNSYNCED_BYTES.min(self.shared.options.pending_bytes_max / 2);
                self.sync_at.is_some_and(|at| now >= at) || self.shared.held() > most
            }
        };
        if due && unsynced {
            for index in 0..self.tails.len() {
                if self.tails[index].synced < self.tails[index].written {
                    self.sync(index)?;
                }
            }
        }
        if due {
            self.sync_at = None;
            self.sync_wanted = false;
            // All but the one being written are done with.
            self.tails.drain(..self.tails.len().saturating_sub(1));
            // What nobody submitted is synced as well.
            if !unsynced {
                self.shared.set_synced(self.shared.synced());
            }
        }
        Ok(())
    }

    fn sync(&mut self, index: usize) -> Result<(), Failure> {
        let file = self.file(index)?;
        let tail = &mut self.tails[index];
        if let Err(error) = file.sync() {
            tail.distrusted = true;
            self.shared.counters.sync_failures.fetch_add(1, Ordering::Relaxed);
            return Err(failed("sync", &tail.header.name())(error));
        }
        self.shared.counters.syncs.fetch_add(1, Ordering::Relaxed);
        if tail.name_unsynced {
            self.sync_names()?;
        }
        self.synced(index);
        Ok(())
    }

    /// Makes the names of all segments safe that have a file.
    fn sync_names(&mut self) -> Result<(), Failure> {
        let unsynced = || self.tails.iter().filter(|tail| tail.name_unsynced && tail.written > 0);
        let since = unsynced().map(|tail| tail.name_since).min().unwrap_or(0);
        let result = self.shared.files.sync_names(since);
        let (counters, failed_now) = (&self.shared.counters, result.is_err());
        let counter = if failed_now { &counters.sync_failures } else { &counters.syncs };
        counter.fetch_add(1, Ordering::Relaxed);
        for tail in self.tails.iter_mut().filter(|tail| tail.name_unsynced && tail.written > 0) {
            tail.name_unsynced = failed_now;
            tail.distrusted |= failed_now;
        }
        result.map_err(failed("sync the name of", ""))
    }

    /// All that is written of this segment, and everything before it, is safe.
    fn synced(&mut self, index: usize) {
        let tail = &mut self.tails[index];
        tail.synced = tail.written;
        let position = tail.position(tail.synced);
        self.let_go(index);
        self.shared.set_synced(position);
        if self.shared.options.sync == Sync::Always {
            self.shared.commit(position);
        }
    }

    /// What need not be written again leaves the memory.
    fn let_go(&mut self, index: usize) {
        let never = self.shared.options.sync == Sync::Never;
        let tail = &mut self.tails[index];
        let safe = if never { tail.written } else { tail.synced };
        let mut released = 0;
        while let Some(part) = tail.held.pop_front_if(|part| part.end() <= safe) {
            released += part.bytes.len() - part.header_len();
            if part.bytes.capacity() <= SPARE_BYTES {
                let mut pending = self.shared.pending.lock();
                if pending.spare.capacity() < part.bytes.capacity() {
                    pending.spare = part.bytes;
                }
            }
        }
        if released > 0 {
            self.shared.release(released);
        }
    }

    /// A sync failed: everything since the last one that did not, once more, to a new file.
    fn write_again(&mut self, index: usize) -> Result<(), Failure> {
        let tail = &self.tails[index];
        let header = FileHeader { offset: tail.synced, ..tail.header };
        let held = tail.held.iter().filter(|part| part.end() <= tail.written);
        let file = if self.shared.options.sync == Sync::Never {
            // It is not in memory any more; what the system still shows of it has to do.
            let old = self.file(index)?;
            let (from, to) = (tail.at(tail.synced), tail.at(tail.written));
            self.write_file(header, |file, at| copy(&*old, from, to - from, file, at).map(|()| to - from))?
        } else {
            self.write_file(header, |file, mut at| {
                let start = at;
                for part in held {
                    let frames = part.bytes.get(part.header_len()..).unwrap_or_default();
                    file.write_at(frames, at)?;
                    at += frames.len() as u64;
                }
                Ok(at - start)
            })?
        };
        let tail = &mut self.tails[index];
        tail.header = header;
        tail.file = Some(file);
        tail.room = 0;
        (tail.distrusted, tail.name_unsynced) = (false, false);
        let bytes = tail.at(tail.written);
        self.shared.segments.add_file(header, bytes);
        self.synced(index);
        Ok(())
    }

    /// Makes a file with this header and the frames that `fill` writes from a byte on; it returns how many bytes that are.
    fn write_file(
        &self,
        header: FileHeader,
        fill: impl FnOnce(&dyn LogFile, u64) -> io::Result<u64>,
    ) -> Result<Arc<dyn LogFile>, Failure> {
        let name = header.name();
        let counters = &self.shared.counters;
        let file = write_whole(&self.shared.files, &name, |file| {
            file.write_at(&header.encode(), 0)?;
            let bytes = FILE_HEADER as u64 + fill(file, FILE_HEADER as u64)?;
            counters.bytes_written.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        });
        let file = file.map_err(failed("write again", &name))?;
        counters.syncs.fetch_add(2, Ordering::Relaxed);
        Ok(file)
    }

    /// The file of a segment, opened again if need be.
    fn file(&self, index: usize) -> Result<Arc<dyn LogFile>, Failure> {
        let tail = &self.tails[index];
        let name = tail.header.name();
        match &tail.file {
            Some(file) => Ok(Arc::clone(file)),
            None => self.shared.files.open(&name).map_err(failed("open", &name)),
        }
    }

    /// Says behind the last frame that everything was synced, so that nobody takes rotten bytes for a torn write.
    fn end_cleanly(&mut self) -> Result<(), Failure> {
        let Some(tail) = self.tails.back().filter(|tail| tail.written > 0) else { return Ok(()) };
        let (at, name) = (tail.at(tail.written), tail.header.name());
        let Some(file) = &tail.file else { return Ok(()) };
        let frame = own_mark(tail.header.tag, tail.header.place(at));
        file.write_at(&frame, at).map_err(failed("write", &name))?;
        self.shared.counters.bytes_written.fetch_add(FRAME_HEADER as u64, Ordering::Relaxed);
        file.sync().map_err(failed("sync", &name))
    }

    /// Counts a failure; says it if it is the first one.
    fn report(&mut self, failure: &Failure) {
        let Failure(what, name, error) = failure;
        if !what.starts_with("sync") {
            self.shared.counters.write_failures.fetch_add(1, Ordering::Relaxed);
        }
        if self.shared.set_failing(true) {
            tracing::error!(
                path = %self.shared.files.path(name), %error,
                "cannot {what} a file of the log: no message that must be stored is acknowledged until it succeeds; \
                 see that data_dir has free space and its disk is sound"
            );
        }
        let _pending = self.shared.pending.lock();
        self.shared.progress.notify_all();
    }

    fn recovered(&mut self) {
        self.retry_at = None;
        if self.shared.set_failing(false) {
            tracing::info!("the log can be written again");
        }
    }
}
