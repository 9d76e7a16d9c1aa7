//! What the tests of the log share: a log whose writer is run by hand and whose clock is a number, what it finds, and the account of
//! what was promised.

mod checkpoints;
mod corruption;
mod directory;
mod disk_full;
mod ends;
mod format;
mod frames;
mod group_commit;
mod model;
mod power_cut;
mod reading;
mod room;
mod slow_disk;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::log::Submitted;
use super::open::{Report, Visitor};
use super::segments::Freed;
use super::shared::Timing;
use super::simulated::{Fault, Random, SimulatedFiles, StepKind};
use super::writer::{Next, Writer};
use super::*;
use crate::ledger::{Ledger, Position};

/// What a visitor is shown.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Found {
    checkpoint: Option<Position>,
    checkpoint_frames: Vec<Vec<u8>>,
    frames: Vec<(Position, Vec<u8>)>,
}

impl Visitor for Found {
    fn checkpoint_position(&mut self, position: Position) {
        assert_eq!(self.checkpoint, None, "called twice");
        assert!(self.checkpoint_frames.is_empty() && self.frames.is_empty(), "not called first");
        self.checkpoint = Some(position);
    }

    fn checkpoint_frame(&mut self, body: &[u8]) {
        assert!(self.frames.is_empty(), "the checkpoint comes first");
        self.checkpoint_frames.push(body.to_vec());
    }

    fn frame(&mut self, position: Position, frame_len: u32, body: &[u8]) {
        assert_eq!(frame_len as usize, frame::FRAME_HEADER + body.len());
        if let Some((last, before)) = self.frames.last() {
            let end = last.plus((frame::FRAME_HEADER + before.len()) as u32);
            assert!(end <= position, "{position:?} after {last:?}: twice, or out of order");
        }
        self.frames.push((position, body.to_vec()));
    }
}

/// A log, its writer, and its clock.
struct Rig {
    log: Arc<Log>,
    writer: Writer,
    now: Instant,
    ledger: Arc<Ledger>,
    found: Found,
    report: Report,
}

impl Rig {
    fn open(files: &SimulatedFiles, options: LogOptions) -> Self {
        Self::try_open(Arc::new(files.clone()), options).expect("it opens")
    }

    fn try_open(files: Arc<dyn Files>, options: LogOptions) -> std::io::Result<Self> {
        let (mut found, ledger) = (Found::default(), Arc::new(Ledger::default()));
        let (log, writer, report) =
            Log::open_idle(files, options, Timing::default(), Arc::clone(&ledger), &mut found)?;
        Ok(Self { log, writer, now: Instant::now(), ledger, found, report })
    }

    /// Lets the writer do what is due.
    fn turn(&mut self) -> Next {
        self.writer.work(self.now).expect("not closed")
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// Everything submitted is written and synced, unless the disk fails.
    fn sync(&mut self) {
        self.log.shared.pending.lock().sync_wanted = true;
        self.turn();
    }

    fn close(mut self) {
        self.log.close();
        assert_eq!(self.writer.work(self.now), None);
    }

    fn submit(&self, bodies: &[&[u8]], urgency: Urgency) -> Vec<(Position, Vec<u8>)> {
        submit(&self.log, bodies, urgency).1
    }
}

/// Submits frames as one batch; returns where each is.
fn submit(log: &Log, bodies: &[&[u8]], urgency: Urgency) -> (Submitted, Vec<(Position, Vec<u8>)>) {
    let mut batch = Batch::default();
    let mut at = Vec::new();
    for body in bodies {
        batch.begin();
        batch.body().extend_from_slice(body);
        at.push(batch.end());
    }
    let submitted = log.submit(&mut batch, urgency);
    assert!(batch.is_empty());
    let frames = at.iter().zip(bodies);
    (submitted, frames.map(|(at, body)| (submitted.first.plus(at.offset), body.to_vec())).collect())
}

/// Says where they differ, not all of what they are.
fn assert_same(found: &[(Position, Vec<u8>)], expected: &[(Position, Vec<u8>)]) {
    for (found, expected) in found.iter().zip(expected) {
        assert!(found == expected, "{:?} ({} bytes), not {:?}", found.0, found.1.len(), expected.0);
    }
    assert_eq!(found.len(), expected.len());
}

fn end_of((position, body): &(Position, Vec<u8>)) -> Position {
    position.plus((frame::FRAME_HEADER + body.len()) as u32)
}

/// A waker that counts.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn counter() -> (Arc<Counter>, Waker) {
    let counter = Arc::new(Counter::default());
    (Arc::clone(&counter), Waker::from(counter))
}

impl Counter {
    fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

const SMALL: LogOptions = LogOptions {
    sync: Sync::Always,
    segment_bytes: 2048,
    pending_bytes_max: 16 * 1024 * 1024,
    reserve_bytes: 0,
};

/// What was asked of a log, and what it promised.
#[derive(Debug, Default, Clone)]
struct Account {
    submitted: Vec<(Position, Vec<u8>)>,
    committed: Position,
    /// Segments that were freed, or may have been.
    freed: BTreeSet<u32>,
    /// Position, frames, whether it was finished.
    checkpoints: Vec<(Position, Vec<Vec<u8>>, bool)>,
    /// What was not committed may be missing anywhere (with [`Sync::Never`]).
    holes: bool,
}

impl Account {
    /// What was found is a beginning of what was submitted, with all that was committed, but for freed segments.
    fn check(&self, found: &Found) {
        let mut submitted = self.submitted.iter().peekable();
        let mut missing = None;
        for frame in &found.frames {
            for skipped in std::iter::from_fn(|| submitted.next_if(|next| next.0 < frame.0)) {
                if !self.freed.contains(&skipped.0.segment()) {
                    assert!(end_of(skipped) > self.committed, "{:?} is lost", skipped.0);
                    missing.get_or_insert(skipped);
                }
            }
            assert!(submitted.next() == Some(frame), "{:?} was never submitted", frame.0);
            assert!(self.holes || missing.is_none(), "there is {:?} behind a hole", frame.0);
        }
        let lost = submitted
            .find(|frame| end_of(frame) <= self.committed && !self.freed.contains(&frame.0.segment()));
        assert_eq!(lost.map(|frame| frame.0), None, "lost; committed: {:?}", self.committed);
        self.check_checkpoint(found);
    }

    fn check_checkpoint(&self, found: &Found) {
        let position = found.checkpoint.expect("the position of the checkpoint is told");
        let finished = self.checkpoints.iter().rfind(|checkpoint| checkpoint.2);
        assert!(finished.is_none_or(|finished| finished.0 <= position), "the checkpoint is lost");
        if position > Position::START {
            // Those of one position replace the same, so any will do.
            let mut may_be = self.checkpoints.iter().filter(|checkpoint| checkpoint.0 == position);
            assert!(
                may_be.any(|checkpoint| checkpoint.1 == found.checkpoint_frames),
                "{position:?} is none of the checkpoints"
            );
        }
    }
}

/// One thing that is done with a log.
#[derive(Debug, Clone)]
enum Deed {
    /// Frames of these lengths, as one batch.
    Submit(Vec<usize>, Urgency),
    /// The writer's turn, after so many milliseconds.
    Turn(u64),
    /// A checkpoint of so many frames.
    Checkpoint(usize),
    Free,
}

/// A body that cannot be taken for another; some of it zeros.
fn body(random: &mut Random, len: usize) -> Vec<u8> {
    let zeros = random.below(3) == 0;
    (0..len.max(1)).map(|_| if zeros && random.below(4) > 0 { 0 } else { random.next() as u8 }).collect()
}

/// Does these things as far as the disk has power, and keeps the account.
fn perform(deeds: &[Deed], rig: &mut Rig, files: &SimulatedFiles, account: &mut Account) {
    let mut random = Random(77 + account.submitted.len() as u64);
    for deed in deeds {
        match deed {
            Deed::Submit(lens, urgency) => {
                let bodies: Vec<Vec<u8>> = lens.iter().map(|len| body(&mut random, *len)).collect();
                let bodies: Vec<&[u8]> = bodies.iter().map(Vec::as_slice).collect();
                account.submitted.extend(rig.submit(&bodies, *urgency));
            }
            Deed::Turn(milliseconds) => {
                rig.pass(Duration::from_millis(*milliseconds));
                rig.turn();
            }
            Deed::Checkpoint(frames) => {
                let frames: Vec<Vec<u8>> = (0..*frames).map(|len| body(&mut random, 40 * len)).collect();
                checkpoint(rig, frames, account);
            }
            Deed::Free => {
                let up_to = rig.log.checkpoint_position();
                let dead = rig.log.sealed_segments().into_iter().filter(|segment| segment.live == 0);
                account.freed.extend(dead.map(|segment| segment.id).filter(|id| *id <= up_to.segment()));
                let _ = rig.log.free_dead_segments();
            }
        }
        account.committed = rig.log.committed();
        if !files.has_power() {
            return;
        }
    }
}

/// Writes a checkpoint, whether the disk fails or not.
fn checkpoint(rig: &mut Rig, frames: Vec<Vec<u8>>, account: &mut Account) -> bool {
    let Ok(mut writer) = rig.log.begin_checkpoint() else { return false };
    let position = writer.position();
    if frames.iter().any(|frame| writer.frame(frame).is_err()) {
        return false;
    }
    rig.sync();
    if rig.log.shared.synced() < position && !rig.log.status().failing {
        panic!("neither synced nor failing");
    }
    account.checkpoints.push((position, frames, false));
    let finished = writer.finish(Position::START).is_ok();
    if let Some(last) = account.checkpoints.last_mut() {
        last.2 = finished;
    }
    finished
}
