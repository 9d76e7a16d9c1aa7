//! The data directory under observation: which files of the broker appear and go, while it happens.

use std::io;
use std::path::Path;

use inotify::{EventMask, Inotify, WatchMask};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Files of the data directory whose coming and going can be the moment of the broker's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileAim {
    /// A file that is not whole yet appears: a checkpoint is being written.
    UnfinishedAppears,
    /// A checkpoint has got its name.
    CheckpointAppears,
    /// A new segment is there.
    SegmentAppears,
    /// A segment is not needed any more.
    SegmentGoes,
    /// An old checkpoint has been replaced.
    CheckpointGoes,
}

impl FileAim {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::UnfinishedAppears,
        Self::CheckpointAppears,
        Self::SegmentAppears,
        Self::SegmentGoes,
        Self::CheckpointGoes,
    ];

    /// Which it is, if any of interest.
    fn of(name: &str, appears: bool) -> Option<Self> {
        let is_unfinished = name.ends_with(".tmp");
        Some(match appears {
            true if is_unfinished => Self::UnfinishedAppears,
            true if name.starts_with("checkpoint-") => Self::CheckpointAppears,
            true if name.starts_with("segment-") => Self::SegmentAppears,
            false if is_unfinished => return None,
            false if name.starts_with("checkpoint-") => Self::CheckpointGoes,
            false if name.starts_with("segment-") => Self::SegmentGoes,
            _ => return None,
        })
    }
}

/// A file that appeared or went.
#[derive(Clone, Debug)]
pub struct FileEvent {
    /// Which kind of event.
    pub aim: FileAim,
    /// The file's name.
    pub name: String,
}

/// Observes a directory, by a thread of its own, to the end of the process.
///
/// # Errors
/// The system does not let us.
pub fn watch(directory: &Path) -> io::Result<UnboundedReceiver<FileEvent>> {
    let mut inotify = Inotify::init()?;
    let mask = WatchMask::CREATE | WatchMask::MOVED_TO | WatchMask::DELETE;
    inotify.watches().add(directory, mask)?;
    let (sender, receiver) = unbounded_channel();
    std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
            for event in events {
                let Some(name) = event.name.and_then(|name| name.to_str()) else { continue };
                let Some(aim) = FileAim::of(name, !event.mask.contains(EventMask::DELETE)) else { continue };
                if sender.send(FileEvent { aim, name: name.to_owned() }).is_err() {
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_seen_as_they_come_and_go() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = watch(directory.path()).unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("checkpoint-1.log.tmp"), "").unwrap();
        std::fs::rename(path("checkpoint-1.log.tmp"), path("checkpoint-1.log")).unwrap();
        std::fs::write(path("segment-1.log"), "").unwrap();
        std::fs::write(path("lock"), "").unwrap();
        std::fs::remove_file(path("segment-1.log")).unwrap();
        std::fs::remove_file(path("checkpoint-1.log")).unwrap();
        let aims: Vec<FileAim> = (0..5).map(|_| events.blocking_recv().unwrap().aim).collect();
        assert_eq!(
            aims,
            [
                FileAim::UnfinishedAppears,
                FileAim::CheckpointAppears,
                FileAim::SegmentAppears,
                FileAim::SegmentGoes,
                FileAim::CheckpointGoes
            ]
        );
    }
}
