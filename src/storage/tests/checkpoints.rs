//! Checkpoints replace one another and what precedes them; segments go when nobody needs them, and their numbers with them.

use super::*;

fn names(files: &SimulatedFiles, kind: &str) -> Vec<String> {
    files.list().expect("a list").into_iter().filter(|name| name.starts_with(kind)).collect()
}

fn fill(rig: &mut Rig, frames: usize) -> Vec<(Position, Vec<u8>)> {
    let mut all = Vec::new();
    for _ in 0..frames {
        all.extend(rig.submit(&[&[6; 900]], Urgency::Waited));
        rig.turn();
    }
    all
}

#[test]
fn the_newest_replaces_the_others() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    assert_eq!((rig.log.checkpoint_position(), rig.log.bytes_since_checkpoint()), (Position::START, 0));
    let mut account = Account::default();
    for round in 1..5_u8 {
        account.submitted.extend(rig.submit(&[&[round; 100]], Urgency::Lazy));
        let position = rig.log.shared.pending.lock().cursor;
        assert!(checkpoint(&mut rig, vec![vec![round; 50], vec![round]], &mut account));
        assert_eq!((rig.log.checkpoint_position(), rig.log.bytes_since_checkpoint()), (position, 0));
        account.submitted.extend(rig.submit(&[&[round; 10]], Urgency::Waited));
        rig.turn();
        assert_eq!(rig.log.bytes_since_checkpoint(), 22);
        assert_eq!(names(&files, "checkpoint").len(), 1);
        account.committed = rig.log.committed();
        let again = Rig::open(&files.copy(), SMALL);
        account.check(&again.found);
        assert_eq!(again.found.checkpoint, Some(position));
        assert_eq!((again.log.checkpoint_position(), again.log.bytes_since_checkpoint()), (position, 22));
    }
}

#[test]
fn one_at_a_time_and_unfinished_ones_leave_nothing() {
    let files = SimulatedFiles::new(1);
    let rig = Rig::open(&files, SMALL);
    let mut first = rig.log.begin_checkpoint().expect("it begins");
    first.frame(b"one").expect("it is written");
    assert!(rig.log.begin_checkpoint().is_err());
    drop(first);
    assert_eq!(files.list().expect("a list"), Vec::<String>::new());
    let second = rig.log.begin_checkpoint().expect("it begins");
    second.finish(Position::START).expect("nothing is pending");
    // Once more, at the same position.
    let mut third = rig.log.begin_checkpoint().expect("it begins");
    third.frame(b"other").expect("it is written");
    third.finish(Position::START).expect("nothing is pending");
    assert_eq!(names(&files, "checkpoint"), ["checkpoint-00000001-00000000.log"]);
    assert_eq!(Rig::open(&files, SMALL).found.checkpoint_frames, [b"other"]);
}

#[test]
fn what_is_submitted_meanwhile_belongs_to_the_log() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    rig.submit(&[b"before"], Urgency::Lazy);
    let mut writer = rig.log.begin_checkpoint().expect("it begins");
    let after = rig.submit(&[b"after"], Urgency::Lazy);
    assert_eq!(writer.position(), after[0].0);
    writer.frame(b"state").expect("it is written");
    rig.sync();
    writer.finish(Position::START).expect("it is synced");
    assert_eq!(rig.log.bytes_since_checkpoint(), 17);
}

#[test]
fn a_large_checkpoint_is_written_and_read_in_pieces() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let mut random = Random(2);
    let frames: Vec<Vec<u8>> = (0..40).map(|number| body(&mut random, number * 4000)).collect();
    let mut account = Account::default();
    assert!(checkpoint(&mut rig, frames, &mut account));
    let again = Rig::open(&files, SMALL);
    account.check(&again.found);
    assert_eq!(again.report.damage, []);
    assert_eq!(
        rig.log.status().files_bytes,
        files.contents(&names(&files, "checkpoint")[0]).map_or(0, |all| all.len() as u64)
    );
}

#[test]
fn only_what_nobody_needs_is_freed() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let frames = fill(&mut rig, 7);
    let sealed: Vec<u32> = rig.log.sealed_segments().iter().map(|segment| segment.id).collect();
    assert_eq!(sealed, [1, 2, 3]);
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails"), Freed::default(), "no checkpoint yet");
    rig.ledger.add(frames[2].0, 912);
    assert_eq!(rig.log.sealed_segments()[1], SegmentInfo { id: 2, bytes: 32 + 2 * 912, live: 912 });
    assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
    let freed = rig.log.free_dead_segments().expect("nothing fails");
    assert_eq!(freed, Freed { segments: 2, bytes: 2 * (32 + 2 * 912) });
    assert_eq!(names(&files, "segment"), ["segment-00000002-00000000.log", "segment-00000004-00000000.log"]);
    let mut body = Vec::new();
    assert!(matches!(rig.log.read(frames[0].0, &mut body), Err(ReadError::Gone)));
    rig.log.read(frames[2].0, &mut body).expect("it is needed");
    rig.ledger.subtract(frames[2].0, 912);
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails").segments, 1);
    // The last one goes when the next has begun and a checkpoint is behind it.
    fill(&mut rig, 2);
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails"), Freed::default());
    assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails").segments, 1);
}

#[test]
fn a_segment_that_is_still_to_be_written_is_not_freed() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    rig.submit(&[&[6; 900]], Urgency::Waited);
    assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
    // The segment goes on, and the one after it has begun in memory.
    let rest = rig.submit(&[&[7; 900]], Urgency::Lazy);
    let next = rig.submit(&[&[8; 900]], Urgency::Lazy);
    assert_eq!((rest[0].0.segment(), next[0].0.segment()), (1, 2));
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails"), Freed::default());
    rig.sync();
    let mut body = Vec::new();
    rig.log.read(rest[0].0, &mut body).expect("it is there");
    assert_eq!(body, [7; 900]);
}

#[test]
fn numbers_are_never_used_again() {
    let files = SimulatedFiles::new(1);
    let mut last = Position::START;
    for _ in 0..4 {
        let mut rig = Rig::open(&files, SMALL);
        let frames = fill(&mut rig, 4);
        assert!(frames[0].0.segment() > last.segment());
        last = frames[3].0;
        assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
        rig.close();
        let rig = Rig::open(&files, SMALL);
        rig.log.free_dead_segments().expect("nothing fails");
        assert_eq!(names(&files, "segment"), Vec::<String>::new());
        let again = Rig::open(&files, SMALL);
        assert_eq!((again.report.segments, again.found.frames.len()), (0, 0));
        assert!(again.log.committed() > last);
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_tried_again() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    fill(&mut rig, 5);
    assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
    files.on_step(|step| (step.kind == StepKind::Remove).then_some(Fault::Broken));
    assert!(rig.log.free_dead_segments().is_err());
    files.heal();
    assert_eq!(rig.log.free_dead_segments().expect("nothing fails").segments, 2);
}

/// The process ended between the new name and the going of the old one: nothing says that the new name is safe.
#[test]
fn of_two_checkpoints_the_newer_counts_and_frees_nothing() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    fill(&mut rig, 3);
    let mut account = Account::default();
    assert!(checkpoint(&mut rig, vec![b"older".to_vec()], &mut account));
    fill(&mut rig, 3);
    files.on_step(|step| (step.kind == StepKind::Remove).then_some(Fault::Broken));
    assert!(checkpoint(&mut rig, vec![b"newer".to_vec()], &mut account));
    files.heal();
    assert_eq!(names(&files, "checkpoint").len(), 2);
    let mut again = Rig::open(&files, SMALL);
    assert_eq!(again.found.checkpoint_frames, [b"newer"]);
    assert_eq!(again.log.checkpoint_position(), rig.log.checkpoint_position());
    assert_eq!(again.log.free_dead_segments().expect("nothing fails"), Freed::default());
    assert!(checkpoint(&mut again, vec![b"newest".to_vec()], &mut account));
    assert_eq!(names(&files, "checkpoint").len(), 1);
    assert_eq!(again.log.free_dead_segments().expect("nothing fails").segments, 3);
}
