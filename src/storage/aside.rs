//! Keeps what could not be read: copies of damaged bytes, whole files under another name.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::files::{Files, LogFile};

const PIECE: usize = 1024 * 1024;

/// A directory whose files are examined.
#[derive(Debug)]
pub(super) struct Aside<'f> {
    files: &'f Arc<dyn Files>,
    names: BTreeSet<String>,
}

impl<'f> Aside<'f> {
    /// With the names that are there.
    pub(super) fn new(files: &'f Arc<dyn Files>, names: &[String]) -> Self {
        Self { files, names: names.iter().cloned().collect() }
    }

    /// Copies bytes of a file to `NAME.OFFSET.bad`, unless an earlier start did; returns that name. The copy is safe when this
    /// returns.
    pub(super) fn keep(&mut self, name: &str, file: &dyn LogFile, at: u64, bytes: u64) -> io::Result<String> {
        let kept_as = format!("{name}.{at}.bad");
        if self.names.contains(&kept_as) && self.files.open(&kept_as)?.len()? >= bytes {
            return Ok(kept_as);
        }
        let unfinished = format!("{kept_as}.tmp");
        let copied = self.copy(&unfinished, file, at, bytes);
        let safe = copied.and_then(|()| self.files.rename(&unfinished, &kept_as));
        if let Err(error) = safe {
            let _ = self.files.remove(&unfinished);
            return Err(error);
        }
        self.files.sync_dir()?;
        self.names.insert(kept_as.clone());
        Ok(kept_as)
    }

    fn copy(&self, to: &str, file: &dyn LogFile, at: u64, bytes: u64) -> io::Result<()> {
        let copy = self.files.create(to)?;
        let mut buffer = vec![0; PIECE.min(bytes as usize)];
        let mut done = 0;
        while done < bytes {
            let len = buffer.len().min((bytes - done) as usize);
            let piece = buffer.get_mut(..len).unwrap_or_default();
            // What cannot be read at all is zeros in the copy too.
            if file.read_at(piece, at + done).is_err() {
                piece.fill(0);
            }
            copy.write_at(piece, done)?;
            done += len as u64;
        }
        copy.sync()
    }

    /// Gives a whole file a name that ends in `.bad`; returns it.
    pub(super) fn set_aside(&mut self, name: &str) -> io::Result<String> {
        let mut kept_as = format!("{name}.bad");
        let mut number = 2;
        while self.names.contains(&kept_as) {
            kept_as = format!("{name}.{number}.whole.bad");
            number += 1;
        }
        self.files.rename(name, &kept_as)?;
        self.names.insert(kept_as.clone());
        Ok(kept_as)
    }
}
