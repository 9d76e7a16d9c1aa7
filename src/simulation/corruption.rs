//! A data directory in which bytes have changed or are missing: the broker starts, serves what is intact, and deletes nothing it cannot read.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::broker::{SMALL, TestBroker};
use super::sample::{self, QUEUED, RETAINED};
use super::support::raw_client5::RawClient5;
use crate::storage::simulated::SimulatedFiles;
use crate::storage::{DirFiles, LogOptions};

/// The sample on a simulated disk, as a kill leaves it; and the names of its files with their lengths.
fn sample_disk() -> (SimulatedFiles, Vec<(String, usize)>) {
    let files = SimulatedFiles::new(1);
    let broker = sample::start(Arc::new(files.clone()), SMALL);
    let connected = sample::make(&broker);
    broker.wait_for_log(broker.log().submitted());
    let found = files.copy();
    drop(connected);
    broker.kill();
    let names = crate::storage::Files::list(&found).unwrap();
    let lengths =
        names.into_iter().map(|name| (name.clone(), found.contents(&name).unwrap_or_default().len()));
    let lengths = lengths.collect();
    (found, lengths)
}

/// How much of the sample a broker serves.
#[derive(Debug, PartialEq, Eq)]
struct Served {
    retained: usize,
    queued: usize,
}

/// Whatever is served is right, and new work is done.
fn judge(broker: &TestBroker) -> Served {
    let addr = broker.addr;
    let known: BTreeSet<(&str, &str)> = RETAINED.into_iter().collect();
    // These were there and are replaced, or removed: without the record of that they are the truth.
    let earlier = [("retained/2", "first"), ("retained/3", "removed later")];
    let mut retained = 0;
    for (topic, kept) in sample::retained(addr) {
        let found = (topic.as_str(), &*kept.text());
        assert!(known.contains(&found) || earlier.contains(&found), "never retained: {found:?}");
        retained += usize::from(known.contains(&found));
    }
    let queue = sample::collect_queue(addr).unwrap_or_default();
    let all: Vec<String> = (0..QUEUED).map(sample::queued).collect();
    let mut from = 0;
    for text in &queue {
        let at = all[from..].iter().position(|known| known == text);
        from += 1 + at.unwrap_or_else(|| panic!("not in the queue, or not in its place: {text}"));
    }
    let mut client = RawClient5::persistent(addr, "newcomer");
    client.subscribe("new", 2);
    client.publish("new", 2, "new");
    client.expect_message("new", "new");
    Served { retained, queued: queue.len() }
}

fn start_and_judge(files: &SimulatedFiles) -> Served {
    let broker = sample::start(Arc::new(files.clone()), SMALL);
    let served = judge(&broker);
    broker.kill();
    served
}

const ALL: Served = Served { retained: RETAINED.len(), queued: QUEUED };

#[test]
fn the_broker_starts_whatever_byte_is_wrong() {
    let (disk, files) = sample_disk();
    assert_eq!(start_and_judge(&disk.copy()), ALL);
    let mut harmless = 0;
    let mut tried = 0;
    for (name, length) in files {
        let bytes = disk.contents(&name).unwrap();
        for at in 0..length {
            // Whole brokers cost milliseconds: every byte is opened, some are served from.
            let damaged = disk.copy();
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged.set_contents(&name, bytes);
            if at % 17 == 0 {
                let served = start_and_judge(&damaged);
                tried += 1;
                harmless += usize::from(served == ALL);
                // A message of the queue and a retained one never share a frame.
                let lost = ALL.retained - served.retained + ALL.queued - served.queued;
                assert!(lost <= 1 || is_larger_loss(&name, at), "{name} at {at}: {served:?}");
            } else {
                open_only(damaged);
            }
        }
    }
    assert!(tried > 100 && harmless > tried / 4, "{harmless} of {tried}");
}

/// What a file's header and the frames of a checkpoint carry is more than one message.
fn is_larger_loss(name: &str, at: usize) -> bool {
    at < 64 || name.starts_with("checkpoint")
}

fn open_only(files: SimulatedFiles) {
    let core = crate::broker::Core::open_with(
        Arc::new(files),
        SMALL,
        sample::limits(),
        crate::broker::Security::default(),
        crate::broker::WallClock::system(),
    );
    core.unwrap().log.as_ref().unwrap().close();
}

#[test]
fn the_broker_starts_wherever_a_file_ends() {
    let (disk, files) = sample_disk();
    for (name, length) in files {
        let bytes = disk.contents(&name).unwrap();
        for end in 0..length {
            let damaged = disk.copy();
            damaged.set_contents(&name, bytes[..end].to_vec());
            if end % 29 == 0 {
                start_and_judge(&damaged);
            } else {
                open_only(damaged);
            }
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_cannot_be_read_is_kept_aside() {
    let (disk, files) = sample_disk();
    for (name, length) in files {
        let directory = tempfile::tempdir().unwrap();
        for other in crate::storage::Files::list(&disk).unwrap() {
            fs::write(directory.path().join(&other), disk.contents(&other).unwrap()).unwrap();
        }
        let path = directory.path().join(&name);
        let mut bytes = fs::read(&path).unwrap();
        let middle = length / 2;
        bytes[middle] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        let broker = sample::start(Arc::new(DirFiles::new(directory.path()).unwrap()), LogOptions::default());
        judge(&broker);
        broker.kill();
        // The very byte is in some file still.
        let kept = names(directory.path()).into_iter().any(|found| {
            let found = fs::read(directory.path().join(found)).unwrap();
            found.windows(9).any(|window| bytes[middle - 4..].starts_with(window))
        });
        assert!(kept, "{name}: the damaged bytes are gone; there are {:?}", names(directory.path()));
    }
}
