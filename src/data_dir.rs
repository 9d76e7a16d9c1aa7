//! The data directory: made if need be, and held by one broker at a time.
//!
//! The hold is a lock of the operating system on the file `lock` inside it. It ends with the process however that
//! ends, so there is no stale lock and nothing to clean up; the file stays. It is advisory, and sure on local file
//! systems.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A data directory that this process holds until the value is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    /// Closing it gives the directory free.
    lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It could not be made, or its lock file not be opened.
    #[error("cannot use the data directory {}: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// A later version of the program wrote it. Nothing was changed; starting again does not help.
    #[error("cannot use the data directory {}: {what}", path.display())]
    LaterFormat {
        /// The directory.
        path: PathBuf,
        /// Which file says so, its format and ours.
        what: String,
    },
    /// Another process holds it.
    #[error("the data directory {} is in use by another broker{holder}", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
        /// ` (process 4711)`, or empty if the lock file does not say.
        holder: String,
    },
}

impl DataDir {
    /// Makes the directory with mode 0700 (its parents too, if they are not there) and takes hold of it. One that
    /// is there keeps its mode. Blocks for a few calls to the file system.
    ///
    /// # Errors
    /// [`DataDirError`], with the path.
    pub(crate) fn open(path: &Path) -> Result<Self, DataDirError> {
        let failed = |error| DataDirError::Io { path: path.to_owned(), error };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut options = OpenOptions::new();
        // Not truncated: until the lock is ours, what is in the file belongs to who has it.
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut lock = options.open(path.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(DataDirError::InUse { path: path.to_owned(), holder: holder(&mut lock) });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // The process id is a help in the message above and nothing more, so a full disk is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(DataDir { lock })
    }

    /// The file whose lock is the hold: for what writes there, which may outlive the caller.
    pub(crate) fn into_lock(self) -> File {
        self.lock
    }
}

fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    let read = lock.take(32).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(process)) => format!(" (process {process})"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_made_private_and_held_by_one() {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("a/b");
        let held = DataDir::open(&path).expect("the first holder");
        assert_eq!(fs::metadata(&path).expect("made").permissions().mode() & 0o777, 0o700);

        let error = DataDir::open(&path).expect_err("a second holder").to_string();
        assert!(error.contains("in use by another broker"), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        assert!(error.contains(path.to_str().expect("UTF-8")), "{error}");
        drop(held);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn what_cannot_be_a_directory_is_named() {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("file");
        fs::write(&path, "").expect("a file");
        let error = DataDir::open(&path).expect_err("a file").to_string();
        assert!(error.contains("cannot use the data directory") && error.contains("file"), "{error}");
    }
}
