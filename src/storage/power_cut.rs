//! `PowerCutFiles`: real files whose unsynced writes stay in this process, so that its end loses them as a power cut does. For the crash
//! checker, with the feature `planted-faults` only.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::files::{Files, LogFile};
use crate::faults::{Fault, planted};

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct PowerCutFiles {
    files: Arc<dyn Files>,
    /// One for each file, however often it is opened.
    opened: Mutex<HashMap<String, Arc<PowerCutFile>>>,
}

#[derive(Debug)]
struct PowerCutFile {
    file: Arc<dyn LogFile>,
    /// By where they begin, in the order of writing where they overlap.
    unsynced: Mutex<BTreeMap<u64, Vec<u8>>>,
}

impl PowerCutFiles {
    pub(crate) fn new(files: Arc<dyn Files>) -> Self {
        Self { files, opened: Mutex::default() }
    }

    fn wrap(&self, name: &str, file: Arc<dyn LogFile>) -> Arc<dyn LogFile> {
        let make = || Arc::new(PowerCutFile { file, unsynced: Mutex::default() });
        Arc::clone(self.opened.lock().entry(name.to_owned()).or_insert_with(make)) as Arc<dyn LogFile>
    }
}

impl Files for PowerCutFiles {
    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.wrap(name, self.files.create(name)?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        Ok(self.wrap(name, self.files.open(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)?;
        let mut opened = self.opened.lock();
        if let Some(file) = opened.remove(from) {
            opened.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.opened.lock().remove(name);
        self.files.remove(name)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.files.sync_dir()
    }

    fn path(&self, name: &str) -> String {
        self.files.path(name)
    }

    fn release(&self) {
        self.files.release();
    }
}

impl LogFile for PowerCutFile {
    fn len(&self) -> io::Result<u64> {
        let unsynced = self.unsynced.lock();
        let ends = unsynced.iter().map(|(at, bytes)| at + bytes.len() as u64);
        Ok(ends.max().unwrap_or(0).max(self.file.len()?))
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let unsynced = self.unsynced.lock();
        let len = unsynced.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0);
        let wanted = usize::try_from(len.max(self.file.len()?).saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = wanted.min(into.len());
        let Some(into) = into.get_mut(..wanted) else { return Ok(0) };
        let mut read = 0;
        while let Some(rest) = into.get_mut(read..)
            && !rest.is_empty()
        {
            match self.file.read_at(rest, offset + read as u64)? {
                0 => break,
                n => read += n,
            }
        }
        for (at, bytes) in unsynced.iter() {
            for (byte, place) in bytes.iter().zip(*at..) {
                let index = place.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
                if let Some(target) = index.and_then(|index| into.get_mut(index)) {
                    *target = *byte;
                }
            }
        }
        Ok(wanted)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut unsynced = self.unsynced.lock();
        // What is written over is gone.
        unsynced.retain(|at, old| *at < offset || at + old.len() as u64 > offset + bytes.len() as u64);
        unsynced.insert(offset, bytes.to_vec());
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if planted(Fault::WriteWithoutSync) {
            return Ok(());
        }
        let mut unsynced = self.unsynced.lock();
        for (at, bytes) in unsynced.iter() {
            self.file.write_at(bytes, *at)?;
        }
        unsynced.clear();
        self.file.sync()
    }
}
