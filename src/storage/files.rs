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
}

impl DirFiles {
    /// A directory that exists and belongs to this process alone (see `data_dir`).
    ///
    /// # Errors
    /// What the system says, if it cannot be opened.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), directory: File::open(path)? })
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
        Ok(Arc::new(RealFile(options.open(self.path.join(name))?)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

#[derive(Debug)]
struct RealFile(File);

impl LogFile for RealFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = into.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
