//! Checkpoints: files that replace what precedes a position of the log.
//!
//! A checkpoint has its name only when its content is safe and the log is safe up to its position; it takes the place of those before
//! it only when its name is safe too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

use super::files::LogFile;
use super::frame::{Batch, FileHeader, Kind, own_mark, settle};
use super::shared::Shared;
use crate::ledger::Position;

/// Written at once.
const BUFFER: usize = 256 * 1024;

#[derive(Debug, Default)]
struct State {
    position: Position,
    /// Before this, segments may be freed.
    safe: Position,
    /// Bytes that had been submitted then; less than nothing for a checkpoint found at the opening.
    submitted: i128,
    /// Files that are there and their bytes, the last one being the checkpoint that counts.
    files: Vec<(String, u64)>,
    under_way: bool,
}

/// What is known of the checkpoints.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(Mutex<State>);

impl Checkpoints {
    /// As found at the opening; `safe` if segments may be freed because of it.
    pub(super) fn found(position: Position, safe: bool, files: Vec<(String, u64)>) -> Self {
        let safe = if safe { position } else { Position::START };
        Self(Mutex::new(State { position, safe, files, ..State::default() }))
    }

    /// So many bytes of frames follow the one that was found.
    pub(super) fn found_bytes_since(&self, bytes: u64) {
        self.0.lock().submitted = -i128::from(bytes);
    }

    pub(super) fn position(&self) -> Position {
        self.0.lock().position
    }

    pub(super) fn safe(&self) -> Position {
        self.0.lock().safe
    }

    pub(super) fn bytes_since(&self, submitted: u64) -> u64 {
        u64::try_from(i128::from(submitted) - self.0.lock().submitted).unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().files.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// Writes one checkpoint. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    shared: Arc<Shared>,
    header: FileHeader,
    submitted: u64,
    file: Arc<dyn LogFile>,
    /// Where in the file `buffer` goes.
    at: u64,
    buffer: Vec<u8>,
    batch: Batch,
    renamed: bool,
}

impl CheckpointWriter {
    pub(super) fn begin(shared: &Arc<Shared>) -> io::Result<Self> {
        if std::mem::replace(&mut shared.checkpoints.0.lock().under_way, true) {
            return Err(io::Error::other("a checkpoint is under way"));
        }
        let (position, submitted) = {
            let pending = shared.pending.lock();
            (pending.cursor, shared.counters.bytes_submitted.load(Ordering::Relaxed))
        };
        let (segment, offset) = (position.segment(), position.offset());
        let header = FileHeader { kind: Kind::Checkpoint, segment, offset, tag: shared.tag };
        let name = unfinished(header);
        // One that failed may have left it.
        let created = shared.files.create(&name).or_else(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                shared.files.remove(&name)?;
                shared.files.create(&name)
            }
            _ => Err(error),
        });
        let file = match created {
            Ok(file) => file,
            Err(error) => {
                shared.checkpoints.0.lock().under_way = false;
                return Err(error);
            }
        };
        let shared = Arc::clone(shared);
        let buffer = header.encode().to_vec();
        Ok(Self { shared, header, submitted, file, at: 0, buffer, batch: Batch::default(), renamed: false })
    }

    /// The position that it replaces what precedes: the end of what was submitted when it was begun.
    pub(crate) fn position(&self) -> Position {
        self.header.position()
    }

    /// Appends a frame; an empty body is left out.
    ///
    /// # Errors
    /// If it cannot be written: the checkpoint can then only be dropped.
    pub(crate) fn frame(&mut self, body: &[u8]) -> io::Result<()> {
        self.batch.begin();
        self.batch.body().extend_from_slice(body);
        self.batch.end();
        let (start, place) = (self.buffer.len(), self.header.place(self.at + self.buffer.len() as u64));
        self.buffer.extend_from_slice(self.batch.frames());
        self.batch.clear();
        settle(self.buffer.get_mut(start..).unwrap_or_default(), self.header.tag, place);
        if self.buffer.len() >= BUFFER { self.write() } else { Ok(()) }
    }

    /// Waits until the log is synced up to `submitted`, which is at or behind [`position`](Self::position),
    /// makes the file safe, gives it its name, and removes the checkpoints before it. Blocks.
    ///
    /// # Errors
    /// If something of that fails or the log cannot be written at present; the checkpoint before it is
    /// then still there and counts.
    pub(super) fn finish(mut self, submitted: Position) -> io::Result<()> {
        let end = own_mark(self.header.tag, self.header.place(self.at + self.buffer.len() as u64));
        self.buffer.extend_from_slice(&end);
        self.write()?;
        let shared = Arc::clone(&self.shared);
        shared.wait_synced(submitted.max(self.position()))?;
        self.count_sync(self.file.sync())?;
        let name = self.header.name();
        let since = shared.files.failures();
        shared.files.rename(&unfinished(self.header), &name)?;
        self.renamed = true;
        let replaced = {
            let mut state = shared.checkpoints.0.lock();
            let before = state.files.len();
            state.files.retain(|(file, _)| *file != name);
            let replaced = state.files.len() < before;
            state.files.push((name.clone(), self.at));
            replaced
        };
        let safe = self.count_sync(shared.files.sync_names(since));
        // The next start could not know that its name may vanish. (Had it replaced one of that name, either would do.)
        if safe.is_err() && !replaced && shared.files.remove(&name).is_ok() {
            shared.checkpoints.0.lock().files.retain(|(file, _)| *file != name);
        }
        safe?;
        {
            let mut state = shared.checkpoints.0.lock();
            (state.position, state.safe) = (self.position(), self.position());
            state.submitted = i128::from(self.submitted);
        }
        let older = shared.checkpoints.0.lock().files.clone();
        for (file, _) in older.iter().filter(|(file, _)| *file != name) {
            match shared.files.remove(file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    // The next one tries again.
                    tracing::warn!(path = %shared.files.path(file), %error, "cannot remove an old checkpoint");
                }
                _ => shared.checkpoints.0.lock().files.retain(|(other, _)| other != file),
            }
        }
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_at(&self.buffer, self.at)?;
        self.at += self.buffer.len() as u64;
        self.shared.counters.bytes_written.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        self.buffer.clear();
        Ok(())
    }

    fn count_sync(&self, result: io::Result<()>) -> io::Result<()> {
        let counters = &self.shared.counters;
        let counter = if result.is_ok() { &counters.syncs } else { &counters.sync_failures };
        counter.fetch_add(1, Ordering::Relaxed);
        result
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.renamed {
            // What is left of it is removed at the next start.
            let _ = self.shared.files.remove(&unfinished(self.header));
        }
        self.shared.checkpoints.0.lock().under_way = false;
    }
}

fn unfinished(header: FileHeader) -> String {
    format!("{}.tmp", header.name())
}
