//! The directory, with what is known of its names, and files that are written whole.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::files::{Files, LogFile};

const COPIED_AT_ONCE: usize = 1024 * 1024;

/// Files, and how often a sync of their names has failed: it says nothing of names that were made before it and not synced, nor does
/// one that succeeds later, whoever asked for it.
#[derive(Debug)]
pub(super) struct Directory {
    files: Arc<dyn Files>,
    failures: AtomicU64,
}

impl Directory {
    pub(super) fn new(files: Arc<dyn Files>) -> Self {
        Self { files, failures: AtomicU64::new(0) }
    }

    /// To be asked before a name is made, for [`sync_names`](Self::sync_names).
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Makes those names safe that were made, changed and removed since there had been so many failures.
    pub(super) fn sync_names(&self, since: u64) -> io::Result<()> {
        let synced = self.files.sync_dir();
        if synced.is_err() {
            self.failures.fetch_add(1, Ordering::AcqRel);
        } else if self.failures() != since {
            return Err(io::Error::other("an earlier sync of the directory has failed"));
        }
        synced
    }
}

impl Deref for Directory {
    type Target = dyn Files;

    fn deref(&self) -> &Self::Target {
        &*self.files
    }
}

/// Makes a file, or replaces one, by what `fill` writes: it is whole and safe before it has its name.
pub(super) fn write_whole(
    files: &Directory,
    name: &str,
    fill: impl FnOnce(&dyn LogFile) -> io::Result<()>,
) -> io::Result<Arc<dyn LogFile>> {
    let unfinished = format!("{name}.tmp");
    let create = || match files.create(&unfinished) {
        // An attempt that failed may have left it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            files.remove(&unfinished)?;
            files.create(&unfinished)
        }
        created => created,
    };
    let file = create()?;
    let since = files.failures();
    let filled = fill(&*file).and_then(|()| file.sync());
    if let Err(error) = filled.and_then(|()| files.rename(&unfinished, name)) {
        let _ = files.remove(&unfinished);
        return Err(error);
    }
    files.sync_names(since)?;
    Ok(file)
}

/// Makes the file of a new segment. Names were looked at when the log was opened, and the directory
/// is ours, so one that is there by now and empty was made by a call that failed nevertheless (a
/// network file system that asks twice): it is taken. One with something in it stays as it is and
/// the log waits: another number would not do, for the positions of what is to be written were
/// given out, and are in use.
pub(super) fn create_segment(files: &Directory, name: &str) -> io::Result<Arc<dyn LogFile>> {
    match files.create(name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = files.open(name)?;
            if file.len()? == 0 { Ok(file) } else { Err(error) }
        }
        created => created,
    }
}

/// Appends a part of one file to another; what cannot be read is zeros in the copy.
pub(super) fn copy(
    from: &dyn LogFile,
    at: u64,
    bytes: u64,
    to: &dyn LogFile,
    mut to_at: u64,
) -> io::Result<()> {
    let mut buffer = vec![0; COPIED_AT_ONCE.min(bytes as usize)];
    let mut done = 0;
    while done < bytes {
        let len = buffer.len().min((bytes - done) as usize);
        let piece = buffer.get_mut(..len).unwrap_or_default();
        if from.read_at(piece, at + done).is_err() {
            piece.fill(0);
        }
        to.write_at(piece, to_at)?;
        done += len as u64;
        to_at += len as u64;
    }
    Ok(())
}
