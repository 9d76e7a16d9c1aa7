//! A directory of a later version: nobody touches it.

use super::frame::{FILE_HEADER, FORMAT_VERSION};
use super::*;

/// A disk with a checkpoint, segments, and what an interrupted start leaves; and the names of the
/// log's files.
fn disk() -> (SimulatedFiles, Vec<String>) {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    for _ in 0..8 {
        rig.submit(&[&[7; 900]], Urgency::Waited);
        rig.turn();
    }
    let mut writer = rig.log.begin_checkpoint().expect("it begins");
    writer.frame(b"all").expect("it is written");
    rig.sync();
    writer.finish(Position::START).expect("it ends");
    rig.close();
    let names: Vec<String> = files.list().expect("a list");
    assert!(names.iter().any(|name| name.starts_with("checkpoint")) && names.len() > 2, "{names:?}");
    // What a start would remove, and what it would set aside.
    files.set_contents("checkpoint-00000009-00000000.log.tmp", vec![1]);
    files.set_contents("segment-00000000-00000000.log", vec![9; 100]);
    (files, names)
}

fn all(files: &SimulatedFiles) -> Vec<(String, Vec<u8>)> {
    let names = files.list().expect("a list");
    names.iter().map(|name| (name.clone(), files.contents(name).expect("it is there"))).collect()
}

/// The file says something else of itself at these bytes of its header, with a checksum that is
/// right.
fn say(files: &SimulatedFiles, name: &str, at: usize, what: &[u8]) {
    let mut bytes = files.contents(name).expect("it is there");
    bytes[at..at + what.len()].copy_from_slice(what);
    let check = crc32fast::hash(&bytes[..FILE_HEADER - 4]);
    bytes[FILE_HEADER - 4..FILE_HEADER].copy_from_slice(&check.to_le_bytes());
    files.set_contents(name, bytes);
}

fn refusal(files: &SimulatedFiles) -> String {
    let before = all(files);
    let steps = files.steps().len();
    let Err(error) = Rig::try_open(Arc::new(files.clone()), SMALL) else { panic!("it opens") };
    assert!(UnknownFormat::cause_of(&error).is_some(), "{error:?}");
    assert_eq!(files.steps().len(), steps, "something was done to the directory");
    assert!(all(files) == before);
    error.to_string()
}

#[test]
fn a_later_format_of_any_file_leaves_the_directory_as_it_is() {
    let (_, names) = disk();
    for name in &names {
        let (files, _) = disk();
        say(&files, name, 8, &(FORMAT_VERSION + 1).to_le_bytes());
        let error = refusal(&files);
        for word in [name.as_str(), "format version 2", "format 1"] {
            assert!(error.contains(word), "{error}");
        }
        // Who goes forward again finds everything.
        say(&files, name, 8, &FORMAT_VERSION.to_le_bytes());
        assert_eq!(Rig::open(&files, SMALL).found.frames.len(), 8);
    }
}

#[test]
fn a_kind_of_file_that_is_not_known_is_left_alone_too() {
    let (files, names) = disk();
    say(&files, &names[0], 10, &[3]);
    let error = refusal(&files);
    assert!(error.contains("kind 3") && error.contains(&names[0]), "{error}");
}

#[test]
fn a_damaged_header_is_damage_whatever_it_says() {
    let (files, names) = disk();
    let mut bytes = files.contents(&names[0]).expect("it is there");
    bytes[8] = 2;
    files.set_contents(&names[0], bytes);
    let rig = Rig::open(&files, SMALL);
    assert!(rig.report.damage.iter().any(|damage| damage.file == names[0]), "{:?}", rig.report.damage);
}
