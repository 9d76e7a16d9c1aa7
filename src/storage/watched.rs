//! `Watched`: files whose operations are timed, so that a disk that takes long is told of: nobody else can say why
//! answers do not come.
//!
//! The log sees its directory through this only, so no call can be forgotten. An operation that
//! took a second or more is told when it is over; one that goes on for five is told while it does,
//! and again whenever it has taken twice as long. Of each kind of operation both come every ten
//! seconds at most. (While the log is opened at start nobody looks after what is under way; that is
//! told when it is over.)

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::files::{Files, LogFile};

/// What is done with a directory or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    List,
    Create,
    Open,
    Rename,
    Remove,
    SyncDirectory,
    FreeSpace,
    Length,
    Read,
    Write,
    Sync,
}

impl Operation {
    pub(super) const ALL: [Self; 11] = [
        Self::List,
        Self::Create,
        Self::Open,
        Self::Rename,
        Self::Remove,
        Self::SyncDirectory,
        Self::FreeSpace,
        Self::Length,
        Self::Read,
        Self::Write,
        Self::Sync,
    ];

    /// For the log's lines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Create => "create",
            Self::Open => "open",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDirectory => "sync_directory",
            Self::FreeSpace => "free_space",
            Self::Length => "length",
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        }
    }
}

/// What is told, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// An operation that took as long is told.
    pub(super) slow: Duration,
    /// One that is under way for so long is told.
    pub(super) stalled: Duration,
    /// Of each kind of operation at most this often.
    pub(super) told_every: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            slow: Duration::from_secs(1),
            stalled: Duration::from_secs(5),
            told_every: Duration::from_secs(10),
        }
    }
}

/// The operations under way, and when one of each kind was told of last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    patience: Patience,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    under_way: Vec<UnderWay>,
    last_number: u64,
    slow: [Told; Operation::ALL.len()],
    stalled: [Told; Operation::ALL.len()],
}

#[derive(Debug)]
struct UnderWay {
    number: u64,
    operation: Operation,
    /// Of its file; empty for the directory.
    name: Arc<str>,
    since: Instant,
    /// When it has taken so long it is told.
    told_after: Duration,
}

#[derive(Debug, Default, Clone, Copy)]
struct Told {
    at: Option<Instant>,
    /// Not told since then.
    left_out: u64,
}

impl Told {
    /// Whether it may be told now; if so, how many were not since the last.
    fn may(&mut self, now: Instant, every: Duration) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < every) {
            self.left_out += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

impl Watch {
    #[cfg(test)]
    pub(super) fn with_patience(patience: Patience) -> Self {
        Self { patience, state: Mutex::default() }
    }

    /// Notes that something begins; that it has ended when the value is dropped.
    fn begin<'w>(&'w self, files: &'w dyn Files, operation: Operation, name: Arc<str>) -> Doing<'w> {
        let mut state = self.state.lock();
        state.last_number += 1;
        let (number, since, told_after) = (state.last_number, Instant::now(), self.patience.stalled);
        state.under_way.push(UnderWay { number, operation, name, since, told_after });
        Doing { watch: self, files, number }
    }

    fn end(&self, files: &dyn Files, number: u64) {
        let mut state = self.state.lock();
        let Some(index) = state.under_way.iter().position(|other| other.number == number) else { return };
        let ended = state.under_way.remove(index);
        let (now, patience) = (Instant::now(), self.patience);
        let took = now - ended.since;
        if took < patience.slow {
            return;
        }
        let told = state.slow.get_mut(ended.operation as usize);
        let Some(left_out) = told.and_then(|told| told.may(now, patience.told_every)) else { return };
        drop(state);
        tracing::warn!(
            operation = ended.operation.name(),
            path = %files.path(&ended.name),
            seconds = %format_args!("{:.1}", took.as_secs_f64()),
            left_out,
            "the disk took long: whoever waited for it was not answered meanwhile; told every ten seconds at most for \
             each operation"
        );
    }

    /// Tells of each kind of operation the one that is under way longest, if that is long.
    pub(super) fn tell_stalled(&self, files: &dyn Files, now: Instant) {
        for operation in Operation::ALL {
            let mut state = self.state.lock();
            let State { under_way, stalled, .. } = &mut *state;
            let count = under_way.iter().filter(|other| other.operation == operation).count();
            let Some(oldest) = under_way.iter_mut().find(|other| other.operation == operation) else {
                continue;
            };
            let takes = now.saturating_duration_since(oldest.since);
            let told = stalled.get_mut(operation as usize).filter(|_| takes >= oldest.told_after);
            if told.is_none_or(|told| told.may(now, self.patience.told_every).is_none()) {
                continue;
            }
            oldest.told_after = 2 * takes;
            let name = Arc::clone(&oldest.name);
            drop(state);
            tracing::warn!(
                operation = operation.name(),
                path = %files.path(&name),
                seconds = takes.as_secs(),
                under_way = count,
                "the disk does not answer: whoever waits for it is not answered either"
            );
        }
    }
}

/// Something under way.
struct Doing<'w> {
    watch: &'w Watch,
    files: &'w dyn Files,
    number: u64,
}

impl Drop for Doing<'_> {
    fn drop(&mut self) {
        self.watch.end(self.files, self.number);
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    files: Arc<dyn Files>,
    watch: Arc<Watch>,
}

impl Watched {
    pub(super) fn new(files: Arc<dyn Files>, watch: Arc<Watch>) -> Self {
        Self { files, watch }
    }

    fn time<T>(&self, operation: Operation, name: &str, call: impl FnOnce(&dyn Files) -> T) -> T {
        let _doing = self.watch.begin(&*self.files, operation, Arc::from(name));
        call(&*self.files)
    }

    fn file(&self, name: &str, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        Arc::new(WatchedFile { file, name: Arc::from(name), directory: self.clone() })
    }
}

impl Files for Watched {
    fn list(&self) -> io::Result<Vec<String>> {
        self.time(Operation::List, "", |files| files.list())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let created = self.time(Operation::Create, name, |files| files.create(name));
        Ok(self.file(name, created?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let opened = self.time(Operation::Open, name, |files| files.open(name));
        Ok(self.file(name, opened?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.time(Operation::Rename, to, |files| files.rename(from, to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.time(Operation::Remove, name, |files| files.remove(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.time(Operation::SyncDirectory, "", |files| files.sync_dir())
    }

    fn path(&self, name: &str) -> String {
        self.files.path(name)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.time(Operation::FreeSpace, "", |files| files.free_bytes())
    }

    fn release(&self) {
        // Waits for operations, of which each is told.
        self.files.release();
    }
}

#[derive(Debug)]
struct WatchedFile {
    file: Arc<dyn LogFile>,
    /// As it was when it was opened.
    name: Arc<str>,
    directory: Watched,
}

impl WatchedFile {
    fn time<T>(&self, operation: Operation, call: impl FnOnce(&dyn LogFile) -> T) -> T {
        let Watched { files, watch } = &self.directory;
        let _doing = watch.begin(&**files, operation, Arc::clone(&self.name));
        call(&*self.file)
    }
}

impl LogFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.time(Operation::Length, |file| file.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.time(Operation::Read, |file| file.read_at(into, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.time(Operation::Write, |file| file.write_at(bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.time(Operation::Sync, |file| file.sync())
    }
}
