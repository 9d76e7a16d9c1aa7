//! A disk that takes long is told of: which operation, how long, and not too often.

use super::disk_full::RETRY;
use super::*;
use crate::logging::tests::Lines;
use crate::storage::watched::{Operation, Patience, Watch, Watched};

/// What `work` logs.
fn logged(work: impl FnOnce()) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(log, work);
    lines.text()
}

/// How many lines tell of an operation with a file whose name contains this.
fn told(lines: &str, operation: &str, file: &str) -> usize {
    let operation = format!("operation=\"{operation}\"");
    lines.lines().filter(|l| l.contains("WARN") && l.contains(&operation) && l.contains(file)).count()
}

fn watched(files: &SimulatedFiles, slow: Duration, told_every: Duration) -> Arc<dyn Files> {
    let watch = Watch::with_patience(Patience { slow, told_every, ..Patience::default() });
    Arc::new(Watched::new(Arc::new(files.clone()), Arc::new(watch)))
}

/// A life in which the log does everything with its disk that it can.
fn live(files: &SimulatedFiles, watched: &Arc<dyn Files>) {
    let options = LogOptions { reserve_bytes: 10_000, ..SMALL };
    let mut rig = Rig::try_open(Arc::clone(watched), options).expect("it opens");
    rig.log.tend_reserve();
    let frames = rig.submit(&[b"first"], Urgency::Waited);
    rig.turn();
    rig.log.read(frames[0].0, &mut Vec::new()).expect("it is there");
    // What was not synced is written again, to another file.
    rig.submit(&[b"again"], Urgency::Waited);
    files.on_step(|step| (step.kind == StepKind::Sync).then_some(Fault::Broken));
    rig.turn();
    files.heal();
    rig.pass(RETRY);
    rig.turn();
    for _ in 0..2 {
        rig.submit(&[b"more"], Urgency::Lazy);
        assert!(checkpoint(&mut rig, vec![vec![1; 50]], &mut Account::default()));
    }
    rig.close();
    Rig::try_open(Arc::clone(watched), options).expect("it opens");
}

#[test]
fn every_operation_is_told_with_its_name_and_its_file() {
    let files = SimulatedFiles::new(1);
    let lines = logged(|| live(&files, &watched(&files, Duration::ZERO, Duration::ZERO)));
    for operation in Operation::ALL {
        assert!(told(&lines, operation.name(), "path=simulated/") > 0, "{}: {lines}", operation.name());
    }
    for (operation, file) in [
        ("create", "segment-"),
        ("write", "segment-"),
        ("sync", "segment-"),
        ("read", "segment-"),
        ("write", "segment-00000001-00000011.log.tmp"),
        ("rename", "segment-"),
        ("create", "checkpoint-"),
        ("write", "checkpoint-"),
        ("sync", "checkpoint-"),
        ("rename", "checkpoint-"),
        ("remove", "checkpoint-"),
        ("create", "reserve"),
        ("write", "reserve"),
        ("sync", "reserve"),
    ] {
        assert!(told(&lines, operation, file) > 0, "{operation} {file}: {lines}");
    }
}

#[test]
fn a_disk_that_is_quick_is_not_told_of_and_a_slow_one_not_with_each_operation() {
    let files = SimulatedFiles::new(1);
    let lines = logged(|| live(&files, &watched(&files, Duration::from_secs(3600), Duration::ZERO)));
    assert!(lines.contains("cannot sync") && !lines.contains("WARN"), "{lines}");
    let files = SimulatedFiles::new(1);
    let lines = logged(|| live(&files, &watched(&files, Duration::ZERO, Duration::from_secs(3600))));
    for operation in Operation::ALL {
        assert_eq!(told(&lines, operation.name(), ""), 1, "{}: {lines}", operation.name());
    }
}

#[test]
fn an_operation_that_does_not_end_is_told_while_it_goes_on() {
    let files = SimulatedFiles::new(1);
    let ledger = Arc::new(Ledger::default());
    let (log, _) =
        Log::open(Arc::new(files.clone()), SMALL, ledger, &mut Found::default()).expect("it opens");
    files.hold_syncs();
    submit(&log, &[b"waits"], Urgency::Waited);
    files.wait_for_held_sync();
    let began = Instant::now();
    let after = |seconds| logged(|| log.tell_stalled(began + Duration::from_secs(seconds)));
    let is_told = |lines: &str| told(lines, "sync", "segment-") == 1 && lines.lines().count() == 1;
    assert_eq!(after(4), "");
    let lines = after(6);
    assert!(is_told(&lines) && lines.contains("seconds=6") && lines.contains("under_way=1"), "{lines}");
    assert_eq!(after(7), "");
    assert_eq!(after(11), "");
    assert!(is_told(&after(17)), "again after twice the time");
    assert_eq!(after(30), "");
    files.release_syncs();
    log.close();
    assert_eq!(after(3600), "");
}
