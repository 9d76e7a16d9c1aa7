//! Keeps what could not be read: copies of damaged bytes, whole files under another name.

use std::collections::BTreeSet;
use std::io;

use super::directory::{Directory, copy, write_whole};
use super::files::LogFile;
use super::frame::{FILE_HEADER, FileHeader};

/// A directory whose files are examined.
#[derive(Debug)]
pub(super) struct Aside<'f> {
    files: &'f Directory,
    names: BTreeSet<String>,
}

impl<'f> Aside<'f> {
    /// With the names that are there.
    pub(super) fn new(files: &'f Directory, names: &[String]) -> Self {
        Self { files, names: names.iter().cloned().collect() }
    }

    /// Copies bytes of a file to `NAME.OFFSET.bad`, unless an earlier start did; returns that name. The copy is safe when this
    /// returns.
    pub(super) fn keep(&mut self, name: &str, file: &dyn LogFile, at: u64, bytes: u64) -> io::Result<String> {
        let kept_as = format!("{name}.{at}.bad");
        if self.names.contains(&kept_as) && self.files.open(&kept_as)?.len()? >= bytes {
            return Ok(kept_as);
        }
        write_whole(self.files, &kept_as, |to| copy(file, at, bytes, to, 0))?;
        self.names.insert(kept_as.clone());
        Ok(kept_as)
    }

    /// Writes a segment's file again, under its own name, up to byte `end`.
    pub(super) fn rewrite(&self, header: FileHeader, file: &dyn LogFile, end: u64) -> io::Result<()> {
        let behind_header = FILE_HEADER as u64;
        write_whole(self.files, &header.name(), |to| {
            to.write_at(&header.encode(), 0)?;
            copy(file, behind_header, end.saturating_sub(behind_header), to, behind_header)
        })?;
        Ok(())
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
