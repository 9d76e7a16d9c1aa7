//! Zeros are written ahead of small batches, and nobody takes them for damage.

use super::*;
use crate::storage::frame::ROOM;
use crate::storage::tail::SMALL_BATCHES;

const SEGMENT: &str = "segment-00000001-00000000.log";
const LARGE: LogOptions = LogOptions { segment_bytes: 1024 * 1024, ..SMALL };

fn one_by_one(rig: &mut Rig, batches: u32, len: usize) -> Vec<(Position, Vec<u8>)> {
    let one = |rig: &mut Rig| {
        let frames = rig.submit(&[&vec![7; len]], Urgency::Waited);
        rig.turn();
        assert_eq!(rig.log.committed(), end_of(&frames[0]));
        frames
    };
    (0..batches).flat_map(|_| one(rig)).collect()
}

/// How far the file reaches behind the last frame.
fn room(files: &SimulatedFiles, frames: &[(Position, Vec<u8>)]) -> usize {
    let end = frame::FILE_HEADER + end_of(&frames[frames.len() - 1]).offset() as usize;
    files.contents(SEGMENT).expect("it is there").len() - end
}

#[test]
fn room_is_made_once_for_many_small_batches() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LARGE);
    let mut frames = one_by_one(&mut rig, SMALL_BATCHES - 1, 50);
    assert_eq!(room(&files, &frames), 0, "nobody knows yet that they are many");
    frames.extend(one_by_one(&mut rig, 1, 50));
    assert_eq!(room(&files, &frames), ROOM);
    let writes = files.count(StepKind::Write);
    frames.extend(one_by_one(&mut rig, 100, 50));
    assert_eq!(files.count(StepKind::Write), writes + 100);
    assert_eq!(room(&files, &frames), ROOM - 100 * (frame::FRAME_HEADER + 50));
    let bytes: usize = files.contents(SEGMENT).expect("it is there").len();
    assert_eq!(rig.log.status().files_bytes, bytes as u64, "it counts as what the log takes");

    for found in [files.copy(), files.after_power_cut(1)] {
        let rig = Rig::open(&found, LARGE);
        assert_eq!(rig.report.damage, []);
        assert_same(&rig.found.frames, &frames);
    }
    rig.close();
    let rig = Rig::open(&files, LARGE);
    assert_eq!(rig.report.damage, []);
    assert_same(&rig.found.frames, &frames);
}

#[test]
fn large_batches_get_none() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LARGE);
    let mut frames = one_by_one(&mut rig, SMALL_BATCHES - 1, 50);
    frames.extend(one_by_one(&mut rig, 1, 5000));
    frames.extend(one_by_one(&mut rig, SMALL_BATCHES - 1, 50));
    assert_eq!(room(&files, &frames), 0);
}

#[test]
fn room_ends_with_the_segment() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let frames = one_by_one(&mut rig, SMALL_BATCHES + 40, 50);
    assert!(frames[frames.len() - 1].0.segment() > 1);
    let bytes = files.contents(SEGMENT).expect("it is there").len();
    assert_eq!(bytes, frame::FILE_HEADER + SMALL.segment_bytes as usize);
    let found = Rig::open(&files.after_power_cut(1), SMALL);
    assert_eq!(found.report.damage, []);
    assert_same(&found.found.frames, &frames);
}

#[test]
fn room_that_cannot_be_made_is_no_failure() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LARGE);
    one_by_one(&mut rig, SMALL_BATCHES - 1, 50);
    files.set_limit(Some(files.contents(SEGMENT).expect("it is there").len() + 500));
    one_by_one(&mut rig, 4, 50);
    assert!(!rig.log.status().failing);
}

#[test]
fn more_zeros_than_room_are_damage() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LARGE);
    let frames = one_by_one(&mut rig, 3, 50);
    let mut bytes = files.contents(SEGMENT).expect("it is there");
    for (zeros, damaged) in [(ROOM, false), (1, true)] {
        bytes.resize(bytes.len() + zeros, 0);
        let found = files.copy();
        found.set_contents(SEGMENT, bytes.clone());
        let rig = Rig::open(&found, LARGE);
        assert_eq!(!rig.report.damage.is_empty(), damaged);
        assert_same(&rig.found.frames, &frames);
    }
}
