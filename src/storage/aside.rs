//! Keeps what could not be read: copies of damaged bytes, whole files under another name.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::files::{Files, LogFile};
use super::frame::{FILE_HEADER, FileHeader};

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
        self.write(&kept_as, &[], file, at, bytes)?;
        self.names.insert(kept_as.clone());
        Ok(kept_as)
    }

    /// Writes a segment's file again, under its own name, up to byte `end`.
    pub(super) fn rewrite(&self, header: FileHeader, file: &dyn LogFile, end: u64) -> io::Result<()> {
        let behind_header = FILE_HEADER as u64;
        self.write(&header.name(), &header.encode(), file, behind_header, end.saturating_sub(behind_header))
    }

    /// A file of these first bytes and a part of another file; it is whole and safe before it has its name.
    fn write(&self, name: &str, first: &[u8], file: &dyn LogFile, at: u64, bytes: u64) -> io::Result<()> {
        let unfinished = format!("{name}.tmp");
        let written = self.copy(&unfinished, first, file, at, bytes);
        if let Err(error) = written.and_then(|()| self.files.rename(&unfinished, name)) {
            let _ = self.files.remove(&unfinished);
            return Err(error);
        }
        self.files.sync_dir()
    }

    fn copy(&self, to: &str, first: &[u8], file: &dyn LogFile, at: u64, bytes: u64) -> io::Result<()> {
        let copy = self.files.create(to)?;
        copy.write_at(first, 0)?;
        let mut buffer = vec![0; PIECE.min(bytes as usize)];
        let mut done = 0;
        while done < bytes {
            let len = buffer.len().min((bytes - done) as usize);
            let piece = buffer.get_mut(..len).unwrap_or_default();
            // What cannot be read at all is zeros in the copy too.
            if file.read_at(piece, at + done).is_err() {
                piece.fill(0);
            }
            copy.write_at(piece, first.len() as u64 + done)?;
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
