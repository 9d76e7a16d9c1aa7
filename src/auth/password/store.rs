//! A password file replaced: whoever reads it sees the old one or the new one, whole, and a crash leaves one of the two.
//!
//! Changes of several processes follow one another (a lock of the operating system on the file, taken again if the file was replaced
//! meanwhile). A symbolic link is followed and stays. The owner and group stay; a file that others may read or write
//! becomes private, any other keeps its mode but for what nobody needs: a group may read at most (the broker's, say, of a file of root).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{PasswordFileError, read_bounded};

/// The mode of a new file.
const MODE_NEW: u32 = 0o600;
/// What an existing file may keep of its mode.
const MODE_KEPT: u32 = 0o640;
/// Each round means that another process has replaced the file between our look and our lock.
const ROUNDS_MAX: usize = 1_000;

/// Why a password file could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such file.
    #[error("there is no password file {}", .0.display())]
    NotThere(PathBuf),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] PasswordFileError),
    /// A directory, a device or the like.
    #[error("{} is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// The new file could not be made; the old one is as it was.
    #[error("cannot replace the password file {}: {action}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system says.
        error: io::Error,
    },
}

/// Replaces the file at `path` by what `edit` makes of its bytes; leaves it if that is an error. A file that is not there counts as empty if
/// `may_create`. Blocks, also for others that change the file.
///
/// # Errors
/// [`StoreError`], or the error of `edit`; the file is as it was before.
pub fn update<E: From<StoreError>>(
    path: &Path,
    may_create: bool,
    edit: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let (target, _lock) = take_hold(path, may_create)?;
    let old = read_bounded(&target).map_err(StoreError::from)?;
    let new = edit(&old)?;
    Ok(replace(&target, &new)?)
}

/// The file behind `path`, locked.
fn take_hold(path: &Path, may_create: bool) -> Result<(PathBuf, File), StoreError> {
    let failed = |action| move |error| StoreError::Io { path: path.to_owned(), action, error };
    for _ in 0..ROUNDS_MAX {
        match fs::metadata(path) {
            // Before it is opened: opening a pipe would wait.
            Ok(metadata) if !metadata.is_file() => return Err(StoreError::NotAFile(path.to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && may_create => {
                let mut options = OpenOptions::new();
                options.write(true).create(true).truncate(false).mode(MODE_NEW);
                options.open(path).map_err(failed("making it"))?;
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(StoreError::NotThere(path.to_owned()));
            }
            Err(error) => return Err(failed("looking at it")(error)),
        }
        let target = fs::canonicalize(path).map_err(failed("following it"))?;
        let file = File::open(&target).map_err(failed("opening it"))?;
        file.lock().map_err(failed("locking it"))?;
        let held = file.metadata().map_err(failed("looking at it"))?;
        if fs::metadata(&target).is_ok_and(|now| (now.dev(), now.ino()) == (held.dev(), held.ino())) {
            return Ok((target, file));
        }
    }
    Err(failed("locking it")(ErrorKind::ResourceBusy.into()))
}

/// Puts a file with these bytes in the place of `target`, of which the lock is held.
fn replace(target: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let failed = |action| move |error| StoreError::Io { path: target.to_owned(), action, error };
    let (Some(directory), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(StoreError::NotAFile(target.to_owned()));
    };
    let mut new_name = OsString::from(".");
    new_name.push(name);
    new_name.push(".new");
    let new = directory.join(new_name);
    // Ours alone while we hold the lock: one that is there was left by a crash.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("removing what a crash has left")(error));
        }
        _ => {}
    }
    let written = write(&new, bytes, target);
    let renamed =
        written.and_then(|()| fs::rename(&new, target).map_err(|error| ("renaming the new file", error)));
    if let Err((action, error)) = renamed {
        let _ = fs::remove_file(&new);
        return Err(failed(action)(error));
    }
    // Until the directory is on the disk a crash could bring the old file back.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed("syncing its directory"))
}

/// A new file with owner and mode after those of `old`, on the disk when this returns.
fn write(new: &Path, bytes: &[u8], old: &Path) -> Result<(), (&'static str, io::Error)> {
    let old = fs::metadata(old).map_err(|error| ("looking at it", error))?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(MODE_NEW);
    let mut file = options.open(new).map_err(|error| ("making a new file beside it", error))?;
    let made = file.metadata().map_err(|error| ("looking at the new file", error))?;
    if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
        fchown(&file, Some(old.uid()), Some(old.gid()))
            .map_err(|error| ("keeping its owner and group", error))?;
    }
    // After the owner: a change of owner may take bits away.
    let permissions = Permissions::from_mode(new_mode(old.mode()));
    file.set_permissions(permissions).map_err(|error| ("setting its mode", error))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|error| ("writing the new file", error))
}

/// A mode that is open to others was hardly chosen for a password file; a stricter one was.
fn new_mode(old: u32) -> u32 {
    if old & 0o007 == 0 { old & MODE_KEPT } else { MODE_NEW }
}

#[cfg(test)]
mod tests {
    use std::fs::DirBuilder;
    use std::os::unix::fs::symlink;
    use std::thread;

    use super::*;

    fn append(path: &Path, text: &str) -> Result<(), StoreError> {
        update(path, true, |old| Ok([old, text.as_bytes()].concat()))
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").mode() & 0o777
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(directory).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_file_is_private_and_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passwords");
        append(&path, "a\n").expect("made");
        append(&path, "b\n").expect("replaced");
        assert_eq!(fs::read(&path).expect("there"), b"a\nb\n");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(directory.path()), ["passwords"]);
    }

    #[test]
    fn modes_get_stricter_only() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passwords");
        fs::write(&path, "").expect("a file");
        for (before, after) in
            [(0o644, 0o600), (0o666, 0o600), (0o640, 0o640), (0o660, 0o640), (0o400, 0o400), (0o600, 0o600)]
        {
            fs::set_permissions(&path, Permissions::from_mode(before)).expect("ours");
            append(&path, "x").expect("replaced");
            assert_eq!(mode(&path), after, "{before:o}");
        }
    }

    #[test]
    fn links_are_followed_and_stay() {
        let directory = tempfile::tempdir().expect("a directory");
        let real = directory.path().join("real");
        DirBuilder::new().create(&real).expect("a directory");
        let link = directory.path().join("link");
        symlink("real/passwords", &link).expect("a link");
        // At first it leads nowhere.
        append(&link, "a").expect("made");
        append(&link, "b").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::read(real.join("passwords")).expect("there"), b"ab");
        assert_eq!(names(&real), ["passwords"]);
    }

    #[test]
    fn what_a_crash_left_is_no_hindrance() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passwords");
        fs::write(directory.path().join(".passwords.new"), "half").expect("a file");
        append(&path, "a").expect("made");
        assert_eq!(fs::read(&path).expect("there"), b"a");
        assert_eq!(names(directory.path()), ["passwords"]);
    }

    #[test]
    fn a_failure_leaves_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passwords");
        append(&path, "a").expect("made");
        let refused = update(&path, false, |_| Err::<Vec<u8>, _>(StoreError::NotAFile(PathBuf::new())));
        refused.expect_err("refused");
        assert_eq!(fs::read(&path).expect("there"), b"a");

        let missing = update::<StoreError>(&directory.path().join("other"), false, |old| Ok(old.to_vec()));
        assert!(matches!(missing, Err(StoreError::NotThere(_))), "{missing:?}");
        assert!(matches!(append(directory.path(), "a"), Err(StoreError::NotAFile(_))));
        assert!(matches!(append(Path::new("/dev/null"), "a"), Err(StoreError::NotAFile(_))));
        // The new file cannot be made where a directory has its name.
        DirBuilder::new().create(directory.path().join(".passwords.new")).expect("a directory");
        assert!(matches!(append(&path, "b"), Err(StoreError::Io { .. })));
        assert_eq!(fs::read(&path).expect("there"), b"a");
    }

    #[test]
    fn changes_at_one_time_are_all_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("passwords");
        thread::scope(|scope| {
            for n in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    (0..10).for_each(|m| append(path, &format!("{n}-{m}\n")).expect("appended"))
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).expect("there").lines().count(), 80);
    }
}
