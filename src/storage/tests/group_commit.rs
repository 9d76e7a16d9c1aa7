//! What is written and synced together, when, and who is woken.

use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::thread;

use super::*;

fn threaded(files: &SimulatedFiles, options: LogOptions) -> Arc<Log> {
    let ledger = Arc::new(Ledger::default());
    Log::open(Arc::new(files.clone()), options, ledger, &mut Found::default()).expect("it opens").0
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_until(log: &Log, end: Position) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut wait = pin!(log.wait(end));
    while wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
        thread::park();
    }
}

#[test]
fn what_comes_during_a_sync_shares_the_next() {
    let files = SimulatedFiles::new(1);
    let log = threaded(&files, SMALL);
    let before = files.count(StepKind::Sync);
    files.hold_syncs();
    let (first, _) = submit(&log, &[b"first"], Urgency::Waited);
    files.wait_for_held_sync();
    let others: Vec<Submitted> = (0..20).map(|_| submit(&log, &[b"meanwhile"], Urgency::Waited).0).collect();
    assert!(log.committed() < first.end);
    files.let_one_sync_through();
    block_until(&log, first.end);
    assert_eq!(log.committed(), first.end);
    files.wait_for_held_sync();
    files.let_one_sync_through();
    block_until(&log, others[19].end);
    files.release_syncs();
    assert_eq!(files.count(StepKind::Sync) - before, 2);
    log.close();
}

#[test]
fn nothing_that_is_waited_for_waits_for_a_timer() {
    let mut rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let lazy = rig.submit(&[b"lazy"], Urgency::Lazy);
    rig.writer.park(Next { at: None, patient: false });
    let next = rig.turn();
    assert_eq!(next, Next { at: Some(rig.now + Duration::from_millis(200)), patient: false });
    let waited = rig.submit(&[b"waited"], Urgency::Waited);
    // Does not wait, though there is no time to wait for.
    rig.writer.park(Next { at: None, patient: false });
    assert_eq!(rig.turn(), Next { at: None, patient: false });
    assert!(rig.log.committed() >= end_of(&waited[0]) && end_of(&waited[0]) > end_of(&lazy[0]));
}

/// Somebody waits for all that there is, without a record of his own.
#[test]
fn what_was_lazy_is_written_when_somebody_wants_it() {
    let mut rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let lazy = rig.submit(&[b"lazy"], Urgency::Lazy);
    rig.turn();
    assert!(rig.log.committed() < end_of(&lazy[0]));
    let wanted = rig.log.submitted_and_wanted();
    rig.writer.park(Next { at: None, patient: false });
    rig.turn();
    assert!(wanted == end_of(&lazy[0]) && rig.log.committed() == wanted);
}

#[test]
fn what_nobody_waits_for_waits_for_company() {
    let files = SimulatedFiles::new(1);
    let options = LogOptions { pending_bytes_max: 4000, ..SMALL };
    let mut rig = Rig::open(&files, options);
    let lazy = rig.submit(&[b"lazy"], Urgency::Lazy);
    let steps = files.steps().len();
    rig.turn();
    rig.pass(Duration::from_millis(199));
    rig.submit(&[b"another"], Urgency::Lazy);
    rig.turn();
    assert_eq!((files.steps().len(), rig.log.written() < end_of(&lazy[0])), (steps, true));
    rig.pass(Duration::from_millis(1));
    rig.turn();
    assert_eq!(rig.log.committed(), rig.log.shared.pending.lock().cursor);
    // Half of what may be pending is company enough.
    let many = rig.submit(&[&[1; 2001]], Urgency::Lazy);
    rig.writer.park(Next { at: None, patient: false });
    rig.turn();
    assert_eq!(rig.log.committed(), end_of(&many[0]));
}

#[test]
fn those_are_woken_who_are_due_and_once() {
    let mut rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let first = end_of(&rig.submit(&[b"first"], Urgency::Waited)[0]);
    let ((one, one_waker), (two, two_waker), (three, three_waker)) = (counter(), counter(), counter());
    rig.log.wake_at(first, &one_waker);
    rig.log.wake_at(first, &one_waker);
    rig.log.wake_at(first.plus(1), &two_waker);
    rig.log.wake_at(first, &three_waker);
    assert_eq!((one.count(), two.count()), (0, 0));
    rig.turn();
    assert_eq!((one.count(), two.count(), three.count()), (1, 0, 1));
    rig.log.wake_at(first, &one_waker);
    assert_eq!(one.count(), 2, "at once");
    rig.submit(&[b"second"], Urgency::Waited);
    rig.turn();
    assert_eq!((one.count(), two.count(), three.count()), (2, 1, 1));
}

#[test]
fn a_wait_ends_when_the_watermark_is_there() {
    let mut rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let end = end_of(&rig.submit(&[b"first"], Urgency::Waited)[0]);
    let (count, waker) = counter();
    let log = Arc::clone(&rig.log);
    let mut wait = pin!(log.wait(end));
    assert_eq!(wait.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Pending);
    rig.turn();
    assert_eq!(count.count(), 1);
    assert_eq!(wait.as_mut().poll(&mut Context::from_waker(&waker)), Poll::Ready(()));
}

#[test]
fn an_empty_batch_is_committed_and_empty_frames_are_none() {
    let rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let (submitted, _) = submit(&rig.log, &[b""], Urgency::Waited);
    assert_eq!(submitted, Submitted { first: Position::START, end: Position::START });
    assert!(rig.log.committed() > submitted.end);
    assert_eq!(rig.log.status().bytes_submitted, 0);
}

#[test]
fn who_submits_too_much_is_told_and_woken() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LogOptions { pending_bytes_max: 1000, ..SMALL });
    rig.submit(&[&[7; 988]], Urgency::Waited);
    assert!(!rig.log.is_full());
    let (count, waker) = counter();
    rig.log.wake_when_not_full(&waker);
    assert_eq!(count.count(), 1, "at once");
    rig.submit(&[b"x"], Urgency::Waited);
    assert!(rig.log.is_full());
    files.on_step(|_| Some(Fault::Full));
    rig.log.wake_when_not_full(&waker);
    rig.log.wake_when_not_full(&waker);
    rig.turn();
    assert_eq!((rig.log.is_full(), count.count()), (true, 2), "the disk fails: that is waited for otherwise");
    rig.log.wake_when_not_full(&waker);
    rig.pass(Duration::from_millis(250));
    rig.turn();
    assert_eq!((rig.log.is_full(), count.count()), (true, 2), "which is told once");
    files.heal();
    rig.pass(Duration::from_millis(250));
    rig.turn();
    assert_eq!((rig.log.is_full(), count.count()), (false, 3));
}

#[test]
fn with_an_interval_committed_is_written_and_synced_in_time() {
    let files = SimulatedFiles::new(1);
    let interval = Duration::from_secs(2);
    let options =
        LogOptions { sync: Sync::Interval(interval), pending_bytes_max: 4000, segment_bytes: 9000, ..SMALL };
    let mut rig = Rig::open(&files, options);
    let first = rig.submit(&[b"first"], Urgency::Waited);
    let next = rig.turn();
    assert_eq!((rig.log.committed(), files.count(StepKind::Sync)), (end_of(&first[0]), 0));
    assert_eq!(next.at, Some(rig.now + interval));
    rig.pass(Duration::from_secs(1));
    let second = rig.submit(&[b"second"], Urgency::Waited);
    rig.turn();
    assert_eq!((rig.log.committed(), files.count(StepKind::Sync)), (end_of(&second[0]), 0));
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.turn(), Next { at: None, patient: false });
    assert_eq!((rig.log.shared.synced(), files.count(StepKind::Sync)), (end_of(&second[0]), 1));
    // More than half of what may be in memory: before its time.
    rig.submit(&[&[3; 1000]], Urgency::Waited);
    rig.turn();
    assert_eq!(files.count(StepKind::Sync), 1);
    rig.submit(&[&[3; 1000]], Urgency::Waited);
    rig.turn();
    assert_eq!((files.count(StepKind::Sync), rig.log.shared.held()), (2, 0));
}

#[test]
fn with_never_only_checkpoints_sync() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LogOptions { sync: Sync::Never, ..SMALL });
    let mut last = Position::START;
    for _ in 0..10 {
        last = end_of(&rig.submit(&[&[3; 900]], Urgency::Waited)[0]);
        assert_eq!(rig.turn(), Next { at: None, patient: false });
        assert_eq!((rig.log.committed(), rig.log.shared.held()), (last, 0));
    }
    assert_eq!((files.count(StepKind::Sync), rig.log.sealed_segments().len()), (0, 4));
    assert!(checkpoint(&mut rig, vec![b"state".to_vec()], &mut Account::default()));
    // Five segments, and the checkpoint.
    assert_eq!((files.count(StepKind::Sync), rig.log.shared.synced()), (6, last));
}

#[test]
fn many_threads_share_syncs_and_lose_nothing() {
    let files = SimulatedFiles::new(1);
    let log = threaded(&files, SMALL);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for thread in 0..8_u8 {
            let (log, sender) = (&log, sender.clone());
            scope.spawn(move || {
                for number in 0..100_u8 {
                    let (submitted, frames) = submit(log, &[&[thread, number], &[1; 30]], Urgency::Waited);
                    block_until(log, submitted.end);
                    sender.send(frames).expect("somebody receives");
                }
            });
        }
        drop(sender);
    });
    let mut frames: Vec<_> = receiver.into_iter().flatten().collect();
    frames.sort();
    log.close();
    assert_same(&Rig::open(&files, SMALL).found.frames, &frames);
}

#[test]
fn the_end_leaves_nothing_behind() {
    let files = SimulatedFiles::new(1);
    let log = threaded(&files, SMALL);
    let (submitted, frames) = submit(&log, &[b"lazy"], Urgency::Lazy);
    log.close();
    assert_eq!(log.committed(), submitted.end);
    let (late, _) = submit(&log, &[b"late"], Urgency::Waited);
    let (later, _) = submit(&log, &[b"later"], Urgency::Waited);
    assert!(log.committed() < late.end && late.end <= later.first);
    assert_eq!((log.shared.held(), log.status().bytes_submitted), (0, 16));
    log.close();
    assert!(log.begin_checkpoint().expect("a file can be made").finish(Position::START).is_err());
    for seed in 0..20 {
        let found = Rig::open(&files.after_power_cut(seed), SMALL);
        assert_same(&found.found.frames, &frames);
        assert_eq!(found.report.damage, []);
    }
}

#[test]
fn whatever_the_mode_the_end_is_synced() {
    for sync in [Sync::Interval(Duration::from_secs(9)), Sync::Never] {
        let files = SimulatedFiles::new(1);
        let mut rig = Rig::open(&files, LogOptions { sync, ..SMALL });
        let mut frames = Vec::new();
        for _ in 0..9 {
            frames.extend(rig.submit(&[&[7; 900]], Urgency::Waited));
            rig.turn();
        }
        rig.close();
        for seed in 0..20 {
            assert_same(&Rig::open(&files.after_power_cut(seed), SMALL).found.frames, &frames);
        }
    }
}

#[test]
fn a_segment_is_filled_to_its_last_byte() {
    let rig = Rig::open(&SimulatedFiles::new(1), SMALL);
    let first = rig.submit(&[&[1; 1000]], Urgency::Waited);
    let fits = rig.submit(&[&[1; 2048 - 1012 - 12]], Urgency::Waited);
    assert_eq!((first[0].0.segment(), end_of(&fits[0])), (1, Position::new(1, 2048)));
    let next = rig.submit(&[b"x"], Urgency::Waited);
    assert_eq!(next[0].0, Position::new(2, 0));
}

#[test]
fn the_end_does_not_wait_for_a_disk_that_fails() {
    let files = SimulatedFiles::new(1);
    let log = threaded(&files, SMALL);
    files.on_step(|_| Some(Fault::Full));
    let (submitted, _) = submit(&log, &[b"never"], Urgency::Waited);
    let (count, waker) = counter();
    log.wake_at(submitted.end, &waker);
    log.close();
    // Once when the disk begins to fail, if it was registered by then, and at the end.
    assert!((1..=2).contains(&count.count()) && log.committed() < submitted.end);
}
