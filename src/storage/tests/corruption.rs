//! Every byte of a small directory is damaged, and every file cut at every byte: the log opens, shows whatever was not touched, and
//! keeps aside what it could not read.

use super::*;

/// A directory that was left in order: a checkpoint and three segments; what is in it.
fn small_directory() -> (SimulatedFiles, Found) {
    let files = SimulatedFiles::new(1);
    let options = LogOptions { segment_bytes: 200, ..SMALL };
    let mut rig = Rig::open(&files, options);
    let mut random = Random(5);
    for round in 0..5 {
        let bodies = [body(&mut random, 20), body(&mut random, 7), body(&mut random, 25)];
        rig.submit(&bodies.each_ref().map(Vec::as_slice), Urgency::Waited);
        rig.turn();
        if round == 1 {
            let frames = vec![body(&mut random, 9), body(&mut random, 30), body(&mut random, 1)];
            assert!(checkpoint(&mut rig, frames, &mut Account::default()));
        }
    }
    rig.close();
    let rig = Rig::open(&files, options);
    assert_eq!(rig.report.damage, []);
    let names: Vec<String> = files.list().expect("a list");
    assert_eq!((names.len(), rig.found.checkpoint_frames.len(), rig.found.frames.len()), (4, 3, 15));
    (files, rig.found)
}

/// The frames of a file with the bytes they take in it; the checkpoint's have no position.
fn places(name: &str, found: &Found) -> Vec<(std::ops::Range<usize>, Option<Position>, Vec<u8>)> {
    let mut at = frame::FILE_HEADER;
    let segment = frame::FileHeader::from_name(name).expect("one of ours");
    let bodies: Vec<(Option<Position>, Vec<u8>)> = match segment.kind {
        frame::Kind::Checkpoint => found.checkpoint_frames.iter().map(|body| (None, body.clone())).collect(),
        frame::Kind::Segment => {
            let its = found.frames.iter().filter(|frame| frame.0.segment() == segment.segment);
            its.map(|(position, body)| (Some(*position), body.clone())).collect()
        }
    };
    let place = |(position, body): (Option<Position>, Vec<u8>)| {
        let start = at;
        at += frame::FRAME_HEADER + body.len();
        (start..at, position, body)
    };
    bodies.into_iter().map(place).collect()
}

/// What of `found` does not lie in `damaged` bytes of the file.
fn untouched(name: &str, found: &Found, damaged: &std::ops::Range<usize>) -> Found {
    let mut rest = Found { checkpoint: found.checkpoint, ..Found::default() };
    for (place, position, body) in places(name, found) {
        if place.end <= damaged.start || place.start >= damaged.end {
            match position {
                Some(position) => rest.frames.push((position, body)),
                None => rest.checkpoint_frames.push(body),
            }
        }
    }
    let segment = frame::FileHeader::from_name(name).expect("one of ours");
    match segment.kind {
        frame::Kind::Checkpoint => rest.frames.clone_from(&found.frames),
        frame::Kind::Segment => {
            rest.checkpoint_frames.clone_from(&found.checkpoint_frames);
            let others = found.frames.iter().filter(|frame| frame.0.segment() != segment.segment);
            rest.frames.extend(others.cloned());
            rest.frames.sort();
        }
    }
    rest
}

fn assert_found(rig: &Rig, expected: &Found, what: &str) {
    assert!(rig.found.checkpoint_frames == expected.checkpoint_frames, "{what}: the checkpoint's frames");
    let positions = |found: &Found| found.frames.iter().map(|frame| frame.0).collect::<Vec<_>>();
    assert_eq!(positions(&rig.found), positions(expected), "{what}");
    assert!(rig.found == *expected, "{what}: other bytes");
}

/// The bytes reported as damaged are kept, and another start finds the same and copies nothing again.
fn assert_kept(files: &SimulatedFiles, damaged: &SimulatedFiles, rig: &Rig, what: &str) {
    for damage in &rig.report.damage {
        let before = damaged.contents(&damage.file).expect("it was there");
        let lost = &before[damage.offset as usize..(damage.offset + damage.bytes) as usize];
        match &damage.kept_as {
            Some(name) => {
                assert!(
                    files.contents(name).is_some_and(|kept| kept.starts_with(lost)),
                    "{what}: {damage:?}"
                );
            }
            None => assert!(lost.iter().all(|byte| *byte == 0), "{what}: {damage:?}"),
        }
    }
    let names = files.list().expect("a list");
    let copies = || files.steps().iter().filter(|step| step.name.ends_with(".bad")).count();
    let copied = copies();
    let again = Rig::open(files, SMALL);
    assert_found(&again, &rig.found, what);
    assert_eq!((files.list().expect("a list"), copies()), (names, copied), "{what}");
    for seed in 0..2 {
        assert_found(&Rig::open(&files.after_power_cut(seed), SMALL), &rig.found, what);
    }
}

#[test]
fn every_byte_may_be_damaged() {
    let (sound, found) = small_directory();
    let mut random = Random(9);
    for name in sound.list().expect("a list") {
        let contents = sound.contents(&name).expect("it is there");
        for at in 0..contents.len() {
            let mut bytes = contents.clone();
            bytes[at] ^= 1 << random.below(8);
            let damaged = sound.copy();
            damaged.set_contents(&name, bytes);
            let files = damaged.copy();
            let what = format!("{name} at {at}");
            let rig = Rig::open(&files, SMALL);
            let expected = untouched(&name, &found, &(at..at + 1));
            assert_found(&rig, &expected, &what);
            assert_ne!(rig.report.damage, [], "{what} is not noticed");
            assert_kept(&files, &damaged, &rig, &what);
        }
    }
}

#[test]
fn every_file_may_be_cut_anywhere() {
    let (sound, found) = small_directory();
    for name in sound.list().expect("a list") {
        let contents = sound.contents(&name).expect("it is there");
        for at in 0..contents.len() {
            let damaged = sound.copy();
            damaged.set_contents(&name, contents[..at].to_vec());
            let files = damaged.copy();
            let what = format!("{name} cut at {at}");
            let rig = Rig::open(&files, SMALL);
            let mut expected = untouched(&name, &found, &(at..usize::MAX));
            if name.starts_with("checkpoint")
                && at <= frame::FILE_HEADER + 12
                && rig.found.checkpoint_frames.is_empty()
            {
                // Nothing of it can be read, its header neither: then it is none.
                expected.checkpoint = rig.found.checkpoint;
            }
            assert_found(&rig, &expected, &what);
            assert_kept(&files, &damaged, &rig, &what);
        }
    }
}

#[test]
fn regions_may_be_damaged_in_any_way() {
    let (sound, found) = small_directory();
    let names = sound.list().expect("a list");
    for seed in 0..2000 {
        let mut random = Random(seed);
        let name = &names[random.below(names.len())];
        let mut bytes = sound.contents(name).expect("it is there");
        // Not the header: with it and the first frame all that is known of a lone file may be gone.
        let start = frame::FILE_HEADER + random.below(bytes.len() - frame::FILE_HEADER);
        let end = start + 1 + random.below((bytes.len() - start).min(90));
        let zeros = random.coin();
        for byte in &mut bytes[start..end] {
            *byte = if zeros { 0 } else { random.next() as u8 };
        }
        let damaged = sound.copy();
        damaged.set_contents(name, bytes);
        let files = damaged.copy();
        let what = format!("{name} from {start} to {end} (seed {seed})");
        let rig = Rig::open(&files, SMALL);
        let whole = untouched(name, &found, &(start..end));
        let left = |found: &Found| (found.checkpoint_frames.len(), found.frames.len());
        // Zeros may hit zeros only; and the mark at the end may be gone, so that the last write may be a torn one.
        let mark_gone = name.ends_with("00000003-00000000.log")
            && end > sound.contents(name).map_or(0, |all| all.len() - 12);
        if !mark_gone {
            assert!(left(&rig.found) >= left(&whole), "{what}");
        }
        let genuine = |frame: &(Position, Vec<u8>)| found.frames.contains(frame);
        assert!(rig.found.frames.iter().all(genuine), "{what}: invented");
        assert!(
            rig.found.checkpoint_frames.iter().all(|frame| found.checkpoint_frames.contains(frame)),
            "{what}"
        );
        assert_kept(&files, &damaged, &rig, &what);
    }
}

#[test]
fn what_looks_like_a_frame_is_none_elsewhere() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let first = rig.submit(&[b"genuine"], Urgency::Waited);
    rig.turn();
    let name = files.list().expect("a list").remove(0);
    let genuine = files.contents(&name).expect("it is there")[frame::FILE_HEADER..].to_vec();
    // Somebody who knew the tag, and even where a frame will stand in another segment.
    let mut forged = b"forged".to_vec();
    forged.splice(0..0, genuine.iter().copied());
    let second = rig.submit(&[&forged, b"after"], Urgency::Waited);
    rig.turn();
    rig.close();
    let mut bytes = files.contents(&name).expect("it is there");
    let outer = frame::FILE_HEADER + second[0].0.offset() as usize;
    bytes[outer] ^= 4;
    files.set_contents(&name, bytes);
    let found = Rig::open(&files, SMALL).found.frames;
    assert_same(&found, &[first[0].clone(), second[1].clone()]);
}

/// Nothing says that the last write was synced; but lost writes look different.
#[test]
fn bytes_that_rotted_in_the_last_write_hide_nothing_else() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let frames = rig.submit(&[&[1; 600], &[2; 600], &[3; 600]], Urgency::Waited);
    rig.turn();
    let name = files.list().expect("a list").remove(0);
    let mut bytes = files.contents(&name).expect("it is there");
    bytes[32 + 612 + 300] ^= 1;
    files.set_contents(&name, bytes);
    for _ in 0..2 {
        assert_same(&Rig::open(&files, SMALL).found.frames, &[frames[0].clone(), frames[2].clone()]);
    }
}

/// The tag is known from another file, which goes afterwards.
#[test]
fn a_header_that_was_lost_is_written_again() {
    let (files, found) = small_directory();
    let name = "segment-00000001-00000000.log";
    let mut bytes = files.contents(name).expect("it is there");
    let first = frame::FILE_HEADER + frame::FRAME_HEADER + found.frames[0].1.len();
    bytes[..first].fill(0);
    files.set_contents(name, bytes);
    let rig = Rig::open(&files, SMALL);
    assert_same(&rig.found.frames, &found.frames[1..]);
    for other in files.list().expect("a list").iter().filter(|other| *other != name) {
        files.remove(other).expect("it is there");
    }
    let again = Rig::open(&files, SMALL);
    let its = found.frames.iter().filter(|frame| frame.0.segment() == 1).skip(1).cloned();
    assert_same(&again.found.frames, &its.collect::<Vec<_>>());
}

#[test]
fn unfinished_files_go() {
    let (files, found) = small_directory();
    let names = files.list().expect("a list");
    let unfinished = ["checkpoint-00000009-00000000.log.tmp", "segment-00000001-00000000.log.47.bad.tmp"];
    for name in unfinished.iter().chain(&["segment-00000003-00000009.log.tmp"]) {
        files.set_contents(name, b"half".to_vec());
    }
    files.set_contents("notes.tmp", b"mine".to_vec());
    let rig = Rig::open(&files, SMALL);
    assert_same(&rig.found.frames, &found.frames);
    assert_eq!(rig.report.damage, []);
    let left: Vec<String> =
        files.list().expect("a list").into_iter().filter(|name| *name != "notes.tmp").collect();
    assert_eq!((left, files.contents("notes.tmp")), (names, Some(b"mine".to_vec())));
}

#[test]
fn files_of_another_place_are_left_alone() {
    let (sound, found) = small_directory();
    let names = sound.list().expect("a list");
    // A file under the name of another segment.
    let files = sound.copy();
    let stranger = sound.contents(&names[1]).expect("it is there");
    files.set_contents("segment-00000077-00000000.log", stranger.clone());
    let mut rig = Rig::open(&files, SMALL);
    assert_same(&rig.found.frames, &found.frames);
    assert_eq!(files.contents("segment-00000077-00000000.log.bad"), Some(stranger));
    let new = rig.submit(&[b"new"], Urgency::Waited);
    rig.turn();
    assert_eq!(new[0].0, Position::new(0x78, 0));

    // Names that are none of ours.
    let files = sound.copy();
    for name in [
        "lock",
        "segment-1-0.log",
        "segment-xxxxxxxx-00000000.log",
        "notes.txt",
        "segment-00000001-00000000.log~",
    ] {
        files.set_contents(name, b"mine".to_vec());
    }
    assert_same(&Rig::open(&files, SMALL).found.frames, &found.frames);
    assert_eq!(files.contents("segment-00000001-00000000.log~"), Some(b"mine".to_vec()));
}

#[test]
fn what_the_disk_cannot_read_is_damage_and_is_not_overwritten() {
    let files = SimulatedFiles::new(1);
    let options = LogOptions { segment_bytes: 100_000, ..SMALL };
    let mut rig = Rig::open(&files, options);
    let mut random = Random(3);
    let bodies: Vec<Vec<u8>> = (0..50).map(|_| body(&mut random, 900)).collect();
    let mut frames = Vec::new();
    for body in &bodies {
        frames.extend(rig.submit(&[body], Urgency::Waited));
        rig.turn();
    }
    let name = files.list().expect("a list").remove(0);
    let contents = files.contents(&name);
    for piece in 0..12_u32 {
        let spoiled = files.copy();
        spoiled.spoil(&name, piece.into());
        let rig = Rig::open(&spoiled, options);
        // With its header and its first frame nobody can tell what it is, and it gets another name.
        let kept = spoiled.contents(&name).or_else(|| spoiled.contents(&format!("{name}.bad")));
        assert!(kept == contents, "piece {piece}");
        let bad = piece * 4096..(piece + 1) * 4096;
        let readable = |frame: &&(Position, Vec<u8>)| {
            let start = 32 + frame.0.offset();
            start + 912 <= bad.start || start >= bad.end
        };
        let expected: Vec<_> = frames.iter().filter(readable).cloned().collect();
        if piece > 0 && piece < 11 {
            assert_same(&rig.found.frames, &expected);
        } else {
            assert!(rig.found.frames.iter().all(|frame| expected.contains(frame)));
        }
        assert_ne!(rig.report.damage, []);
    }
}

#[test]
fn a_large_frame_behind_damage_is_found() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let mut random = Random(3);
    let large: Vec<u8> = (0..3_000_000).map(|_| random.next() as u8).collect();
    let frames = rig.submit(&[&large, b"small", &large[..1_500_000], b"last"], Urgency::Waited);
    rig.turn();
    rig.close();
    assert_same(&Rig::open(&files, SMALL).found.frames, &frames);
    let name = files.list().expect("a list").remove(0);
    let mut bytes = files.contents(&name).expect("it is there");
    bytes[32 + 7] ^= 0x80;
    files.set_contents(&name, bytes);
    assert_same(&Rig::open(&files, SMALL).found.frames, &frames[1..]);
}
