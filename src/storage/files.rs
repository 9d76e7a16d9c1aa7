//! What the log needs of a directory, and the real one.
//!
//! The log sees names, not paths, and calls these once per batch, not per message. Whoever implements [`Files`] keeps three promises
//! apart which file systems keep apart too: contents are safe after [`LogFile::sync`], names after [`Files::sync_dir`], neither before.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

/// A directory of log files; chosen once at start.
pub(crate) trait Files: Debug + Send + Sync {
    /// The names of its files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new, empty file for its owner alone (mode 0600). An error if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// A file that is there, to be read and written.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Gives a file another name; one that had that name is gone.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// What was created, renamed and removed so far survives a power cut when this has returned.
    fn sync_dir(&self) -> io::Result<()>;
    /// How messages to people name a file.
    fn path(&self, name: &str) -> String;
    /// Bytes that can still be written to its disk; `None`: nobody knows.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
    /// Waits for what is under way and lets nothing be changed from then on, through any handle: the
    /// next broker may have the directory.
    fn release(&self) {}
}

/// One file of a [`Files`].
pub(crate) trait LogFile: Debug + Send + Sync {
    /// Bytes in it.
    fn len(&self) -> io::Result<u64>;
    /// Reads from an offset on; fewer bytes than asked for only at the file's end.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it. After an error any part of it may stand there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// What was written so far survives a power cut when this has returned (fdatasync). After an error nothing is known of what was
    /// not synced before, and another call proves nothing.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Debug)]
pub(crate) struct DirFiles {
    path: PathBuf,
    directory: File,
    /// It was told that names cannot be synced here.
    unsynced_told: AtomicBool,
    hold: Arc<Hold>,
}

/// The right to change a directory: shared with each of its files, so that the lock lasts as long
/// as anything can be written.
#[derive(Debug)]
struct Hold(RwLock<Held>);

#[derive(Debug)]
enum Held {
    /// With the file whose lock keeps others out, if there is one.
    Ours {
        _lock: Option<File>,
    },
    Released,
}

impl Hold {
    /// Does something that changes the directory, which is ours until it is done.
    fn change<T>(&self, change: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &*self.0.read() {
            Held::Ours { .. } => change(),
            Held::Released => Err(io::Error::other("the directory was given to the next broker")),
        }
    }
}

impl DirFiles {
    /// A directory that exists and belongs to the caller alone.
    ///
    /// # Errors
    /// What the system says, if it cannot be opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let hold = Arc::new(Hold(RwLock::new(Held::Ours { _lock: None })));
        let unsynced_told = AtomicBool::new(false);
        Ok(Self { path: path.to_owned(), directory: File::open(path)?, unsynced_told, hold })
    }

    /// With the file whose lock keeps others out (see `data_dir`): it is closed when nothing can be
    /// written any more.
    #[must_use]
    pub(crate) fn with_lock(self, lock: File) -> Self {
        *self.hold.0.write() = Held::Ours { _lock: Some(lock) };
        self
    }

    fn file(&self, file: File) -> Arc<dyn LogFile> {
        Arc::new(RealFile { file, hold: Arc::clone(&self.hold) })
    }
}

impl Files for DirFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            // Names that are not UTF-8 and things that are not files are not the log's.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(self.file(self.hold.change(|| options.open(self.path.join(name)))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.hold.change(|| fs::rename(self.path.join(from), self.path.join(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.hold.change(|| fs::remove_file(self.path.join(name)))
    }

    fn sync_dir(&self) -> io::Result<()> {
        match self.hold.change(|| self.directory.sync_all()) {
            // Some file systems (FUSE, some network ones) have no sync of directories, and say so
            // by EINVAL. Their names are as safe as they make them; to take it for a failure would
            // mean that nothing is ever acknowledged.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                if !self.unsynced_told.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        path = %self.path.display(),
                        %error,
                        "the file system of the data directory cannot sync names of files; it decides itself whether new ones survive a \
                         power cut"
                    );
                }
                Ok(())
            }
            synced => synced,
        }
    }

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn free_bytes(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn release(&self) {
        *self.hold.0.write() = Held::Released;
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    hold: Arc<Hold>,
}

impl LogFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.hold.change(|| self.file.write_all_at(bytes, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.hold.change(|| self.file.sync_data())
    }
}
