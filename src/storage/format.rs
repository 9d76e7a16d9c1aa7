//! Whether this version may touch a directory at all.
//!
//! A file whose header is whole, and of another format, is no damage: a later version wrote it. Who
//! goes back to an older version of the program, and forward again, must find the directory as it
//! was. So it is looked at before anything is renamed, written or removed, and one such file is
//! enough to leave all of them alone. The same holds for a kind of file that is not known here: this
//! version would take what is in it for missing.

use std::io;

use super::directory::Directory;
use super::frame::{FILE_HEADER, FORMAT_VERSION, FileHeader, HeaderFault};

/// A file of a version that is not known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} was written by a later version of TernMQ: {what}, and this version knows format {FORMAT_VERSION} only. Nothing was changed; \
     start the later version on it, or this one on another data directory"
)]
pub(crate) struct UnknownFormat {
    /// Its name, as people see it.
    pub(crate) file: String,
    what: String,
}

impl UnknownFormat {
    /// The cause of an error of the opening, if it was this.
    pub(crate) fn cause_of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

/// Looks at the headers of all files and changes nothing.
///
/// # Errors
/// [`UnknownFormat`], as the cause of an [`io::Error`].
pub(super) fn check(files: &Directory, names: &[String]) -> io::Result<()> {
    for name in names.iter().filter(|name| FileHeader::from_name(name).is_some()) {
        let mut bytes = [0; FILE_HEADER];
        // What cannot be opened or read is damage, and told as such.
        if files.open(name).and_then(|file| file.read_at(&mut bytes, 0)).is_err() {
            continue;
        }
        if let Err(fault @ (HeaderFault::Version(_) | HeaderFault::Kind(_))) = FileHeader::decode(&bytes) {
            return Err(io::Error::other(UnknownFormat { file: files.path(name), what: fault.to_string() }));
        }
    }
    Ok(())
}
