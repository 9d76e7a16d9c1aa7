//! The disk fails or is full: nothing committed is lost, nothing spins, and all is well when space returns.

use super::*;
use crate::logging::tests::Lines;

pub(super) const RETRY: Duration = Duration::from_millis(250);

fn deeds() -> Vec<Deed> {
    let mut deeds = Vec::new();
    for round in 0..12_usize {
        deeds.push(Deed::Submit(vec![10, 200 * (round % 4), 300], Urgency::Waited));
        deeds.push(Deed::Turn(30));
        deeds.push(Deed::Submit(vec![900], Urgency::Lazy));
        deeds.push(Deed::Turn(60));
        if round % 4 == 3 {
            deeds.push(Deed::Checkpoint(round));
            deeds.push(Deed::Free);
        }
    }
    deeds
}

/// Runs the deeds while the steps of a range fail; then the disk is sound again, and everything must be there.
fn run(options: LogOptions, fault: Fault, failing: std::ops::Range<u64>) -> usize {
    let files = SimulatedFiles::new(failing.start);
    let mut account = Account::default();
    let range = failing.clone();
    files.on_step(move |step| range.contains(&step.number).then_some(fault));
    let mut rig = Rig::open(&files, options);
    perform(&deeds(), &mut rig, &files, &mut account);
    let steps = files.steps().len();
    files.heal();
    rig.pass(RETRY);
    rig.sync();
    let end = account.submitted.last().map(end_of);
    assert_eq!(Some(rig.log.committed()), end, "{fault:?} {failing:?}");
    assert!(!rig.log.status().failing);
    assert_eq!(rig.log.shared.held(), 0);
    account.committed = rig.log.committed();
    let mut body = Vec::new();
    for (position, expected) in &account.submitted {
        if !account.freed.contains(&position.segment()) {
            rig.log.read(*position, &mut body).expect("it is there");
            assert!(body == *expected);
        }
    }
    for seed in 0..3 {
        account.check(&Rig::open(&files.after_power_cut(seed), options).found);
    }
    rig.close();
    let again = Rig::open(&files, options);
    account.check(&again.found);
    assert_eq!(again.report.damage, []);
    steps
}

#[test]
fn whatever_step_fails_nothing_is_lost() {
    for sync in [Sync::Always, Sync::Interval(Duration::from_millis(70)), Sync::Never] {
        let options = LogOptions { sync, ..SMALL };
        let steps = run(options, Fault::Broken, 0..0) as u64;
        for fault in [Fault::Broken, Fault::Full] {
            for step in 1..=steps {
                run(options, fault, step..step + 1);
            }
            for step in (1..=steps).step_by(5) {
                run(options, fault, step..step + 2);
                run(options, fault, step..step + 7);
            }
        }
    }
}

#[test]
fn a_full_disk_is_tried_four_times_a_second_and_no_more() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    let safe = rig.submit(&[b"safe"], Urgency::Waited);
    rig.turn();
    files.on_step(|_| Some(Fault::Full));
    let unsafe_ = rig.submit(&[b"not yet"], Urgency::Waited);
    let steps = files.steps().len();
    let next = rig.turn();
    assert_eq!(next, Next { at: Some(rig.now + RETRY), patient: true });
    assert_eq!(files.steps().len(), steps + 1);
    for _ in 0..249 {
        rig.pass(Duration::from_millis(1));
        rig.submit(&[b"more"], Urgency::Waited);
        assert_eq!(rig.turn(), next);
    }
    assert_eq!(files.steps().len(), steps + 1);
    let status = rig.log.status();
    assert_eq!((status.failing, status.write_failures, status.sync_failures), (true, 1, 0));
    assert_eq!(rig.log.committed(), end_of(&safe[0]));
    rig.pass(Duration::from_millis(1));
    rig.turn();
    assert_eq!((files.steps().len(), rig.log.status().write_failures), (steps + 2, 2));
    // What is safe can be read meanwhile.
    let mut body = Vec::new();
    rig.log.read(safe[0].0, &mut body).expect("it is there");
    assert_eq!(body, b"safe");
    assert!(matches!(rig.log.read(unsafe_[0].0, &mut body), Err(ReadError::NotWritten)));
    files.heal();
    rig.pass(RETRY);
    assert_eq!(rig.turn(), Next { at: None, patient: false });
    assert!(rig.log.committed() > end_of(&unsafe_[0]) && !rig.log.status().failing);
}

#[test]
fn a_disk_that_fails_is_told_of_once_and_so_is_its_return() {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, || {
        let files = SimulatedFiles::new(3);
        let mut rig = Rig::open(&files, SMALL);
        for _ in 0..2 {
            files.on_step(|_| Some(Fault::Full));
            for _ in 0..20 {
                rig.submit(&[b"waits"], Urgency::Waited);
                rig.turn();
                rig.pass(RETRY);
            }
            files.heal();
            rig.turn();
        }
    });
    let lines = lines.text();
    let told: Vec<bool> =
        lines.lines().map(|line| line.contains("ERROR") && line.contains("data_dir")).collect();
    assert_eq!(told, [true, false, true, false], "{lines}");
}

#[test]
fn a_writer_that_waits_for_a_broken_disk_is_not_woken_by_submits() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    files.on_step(|_| Some(Fault::Full));
    rig.submit(&[b"x"], Urgency::Waited);
    let next = rig.turn();
    rig.submit(&[b"y"], Urgency::Waited);
    // Would return at once otherwise, long before.
    let soon = Instant::now() + Duration::from_millis(20);
    rig.writer.park(Next { at: Some(soon), ..next });
    assert!(Instant::now() >= soon);
}

#[test]
fn space_that_returns_is_used() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    files.set_limit(Some(5000));
    let mut frames = Vec::new();
    for _ in 0..20 {
        frames.extend(rig.submit(&[&[9; 500]], Urgency::Waited));
        rig.turn();
    }
    let committed = rig.log.committed();
    let safe = frames.iter().filter(|frame| end_of(frame) <= committed).count();
    assert_eq!((rig.log.status().failing, safe), (true, 9));
    let found = Rig::open(&files.after_power_cut(1), SMALL).found.frames;
    assert_same(&found[..safe], &frames[..safe]);
    files.set_limit(Some(50_000));
    rig.pass(RETRY);
    rig.turn();
    assert_eq!(rig.log.committed(), end_of(&frames[19]));
    assert_same(&Rig::open(&files.after_power_cut(1), SMALL).found.frames, &frames);
}

#[test]
fn a_checkpoint_that_fails_leaves_the_one_before_it() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    let mut account = Account::default();
    account.submitted.extend(rig.submit(&[b"one"], Urgency::Waited));
    assert!(checkpoint(&mut rig, vec![b"first".to_vec()], &mut account));
    let first = rig.log.checkpoint_position();
    account.submitted.extend(rig.submit(&[b"two"], Urgency::Waited));
    rig.turn();
    for kind in [StepKind::Create, StepKind::Write, StepKind::Sync, StepKind::Rename, StepKind::SyncDir] {
        files.on_step(move |step| (step.kind == kind).then_some(Fault::Full));
        assert!(!checkpoint(&mut rig, vec![b"second".to_vec(); 9], &mut account), "{kind:?}");
        assert_eq!(rig.log.checkpoint_position(), first);
        files.heal();
        for seed in 0..8 {
            account.check(&Rig::open(&files.after_power_cut(seed), SMALL).found);
        }
    }
    assert!(checkpoint(&mut rig, vec![b"third".to_vec()], &mut account));
    assert!(rig.log.checkpoint_position() > first);
    let checkpoints = files.list().expect("a list").into_iter().filter(|name| name.contains("checkpoint"));
    assert_eq!(checkpoints.count(), 1);
}

#[test]
fn a_log_that_cannot_be_written_finishes_no_checkpoint() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    rig.submit(&[b"one"], Urgency::Waited);
    files.on_step(|step| step.name.starts_with("segment").then_some(Fault::Full));
    rig.turn();
    let checkpoint = rig.log.begin_checkpoint().expect("its own file can be made");
    assert!(checkpoint.finish(Position::START).is_err());
    assert_eq!(rig.log.checkpoint_position(), Position::START);
}

/// A torn tail that cannot be kept aside, for want of space, is neither deleted nor believed later.
#[test]
fn a_torn_tail_on_a_full_disk_stays_and_is_hidden() {
    let files = SimulatedFiles::new(3);
    let mut rig = Rig::open(&files, SMALL);
    let frames = rig.submit(&[b"one", b"two"], Urgency::Waited);
    rig.turn();
    rig.submit(&[&[5; 1500], b"three"], Urgency::Waited);
    rig.turn();
    // A lost sector, and behind it a frame that is whole.
    let name = files.list().expect("a list").remove(0);
    let mut bytes = files.contents(&name).expect("it is there");
    bytes[512..1024].fill(0);
    files.set_contents(&name, bytes.clone());
    files.set_limit(Some(bytes.len()));
    for _ in 0..2 {
        let again = Rig::open(&files, SMALL);
        assert_same(&again.found.frames, &frames);
        assert_eq!(again.report.damage[0].kept_as, None);
        assert_eq!(files.contents(&name), Some(bytes.clone()));
    }
    let mut rig = Rig::open(&files, SMALL);
    files.set_limit(None);
    let new = rig.submit(&[b"new"], Urgency::Waited);
    rig.turn();
    assert_eq!(rig.log.committed(), end_of(&new[0]));
    assert_eq!(files.contents(&name), Some(bytes.clone()));
    let both: Vec<_> = frames.iter().chain(&new).cloned().collect();
    // Though it is no longer the last segment.
    for seed in 0..8 {
        let again = Rig::open(&files.after_power_cut(seed), SMALL);
        assert_same(&again.found.frames, &both);
    }
    // When nobody needs the segment, what was never read is kept still.
    assert!(checkpoint(&mut rig, Vec::new(), &mut Account::default()));
    assert_eq!(rig.log.free_dead_segments().expect("it can").segments, 1);
    assert_eq!(files.contents(&format!("{name}.bad")), Some(bytes));
}
