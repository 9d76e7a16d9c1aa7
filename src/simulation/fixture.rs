//! The data directory `tests/fixtures/format-1`, written by the version that introduced the format: every later one reads it.
//!
//! It was made by `TERNMQ_WRITE_FIXTURE=<directory> cargo test --lib simulation::fixture`, which writes [`sample::make`] there. Not to be made anew:
//! what this format can hold besides is for another directory, beside it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::broker::SMALL;
use super::sample;
use crate::storage::{DirFiles, LogOptions};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/format-1");

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The sample, as a broker leaves it that is killed; its clients are connected.
fn write(to: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let broker = sample::start(Arc::new(DirFiles::new(directory.path()).unwrap()), SMALL);
    let connected = sample::make(&broker);
    // What nobody has waited for is on record as well.
    let log = broker.log();
    broker.wait_for_log(log.submitted());
    copy(directory.path(), to);
    drop(connected);
    broker.kill();
}

/// A broker finds everything in a copy of this directory, twice: what it has found it keeps.
fn read(from: &Path) {
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    let files = || Arc::new(DirFiles::new(directory.path()).unwrap());
    let broker = sample::start(files(), LogOptions::default());
    broker.tend_now();
    broker.shut_down();
    let broker = sample::start(files(), LogOptions::default());
    sample::check(&broker);
    broker.kill();
    let directory = tempfile::tempdir().unwrap();
    copy(from, directory.path());
    let broker = sample::start(Arc::new(DirFiles::new(directory.path()).unwrap()), SMALL);
    sample::check(&broker);
    broker.kill();
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let bad: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".bad")).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn what_is_written_today_is_found() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path());
    read(directory.path());
    if let Some(to) = std::env::var_os("TERNMQ_WRITE_FIXTURE") {
        let to = Path::new(&to);
        assert!(!to.exists(), "{} is there", to.display());
        fs::create_dir_all(to).unwrap();
        copy(directory.path(), to);
    }
}

#[test]
fn what_the_first_version_of_the_format_wrote_is_found() {
    read(Path::new(FIXTURE));
}
