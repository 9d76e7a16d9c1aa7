//! The power goes at every step of a workload, and again at every step of the recovery.

use super::*;
use crate::storage::tail::SMALL_BATCHES;

const SEEDS: u64 = 24;

fn deeds() -> Vec<Deed> {
    use Urgency::{Lazy, Waited};
    let submit = |lens: &[usize], urgency| Deed::Submit(lens.to_vec(), urgency);
    vec![
        submit(&[10, 300, 4], Waited),
        Deed::Turn(1),
        submit(&[700], Waited),
        submit(&[5], Lazy),
        Deed::Turn(1),
        submit(&[20, 20, 20], Lazy),
        Deed::Turn(1),
        Deed::Turn(300),
        // The next segment, and one in between for a batch that is larger than a segment.
        submit(&[900, 600], Waited),
        submit(&[3000, 100], Waited),
        submit(&[1, 1], Waited),
        Deed::Turn(1),
        Deed::Checkpoint(4),
        submit(&[600, 30], Waited),
        Deed::Turn(300),
        submit(&[1500], Waited),
        Deed::Turn(1),
        Deed::Free,
        submit(&[80, 90, 1700], Lazy),
        Deed::Checkpoint(30),
        Deed::Checkpoint(0),
        Deed::Turn(300),
        submit(&[900], Waited),
        Deed::Turn(300),
        submit(&[1900], Waited),
        Deed::Turn(300),
        Deed::Free,
        submit(&[50, 60, 70, 80], Waited),
        Deed::Turn(300),
        submit(&[50, 60, 70, 80], Waited),
        Deed::Turn(300),
    ]
}

/// Runs the deeds above on a new disk; some steps fail, at one the power goes.
fn run(options: LogOptions, failing: &[u64], cut: Option<u64>) -> (SimulatedFiles, Account) {
    run_deeds(&deeds(), options, failing, cut)
}

fn run_deeds(
    deeds: &[Deed],
    options: LogOptions,
    failing: &[u64],
    cut: Option<u64>,
) -> (SimulatedFiles, Account) {
    let files = SimulatedFiles::new(1);
    let failing = failing.to_vec();
    files.on_step(move |step| {
        if Some(step.number) == cut {
            Some(Fault::PowerCut)
        } else {
            failing.contains(&step.number).then_some(Fault::Broken)
        }
    });
    let mut account = Account::default();
    if let Ok(mut rig) = Rig::try_open(Arc::new(files.clone()), options) {
        perform(deeds, &mut rig, &files, &mut account);
    }
    (files, account)
}

/// What a disk holds is as it must be, stays so through another start, and the log goes on behind it.
fn check(found: &SimulatedFiles, options: LogOptions, account: &Account) -> Found {
    let mut rig = Rig::open(found, options);
    account.check(&rig.found);
    let first = rig.found.clone();
    // What was found counts as committed: it is there again when the power goes now.
    let again = Rig::open(&found.after_power_cut(5), options);
    // But a segment that was freed may come back, whole or in part: its going was not synced.
    let kept = |found: &Found| {
        let frames = found.frames.iter().filter(|frame| !account.freed.contains(&frame.0.segment()));
        frames.cloned().collect::<Vec<_>>()
    };
    assert_same(&kept(&again.found), &kept(&first));
    // The log goes on, in a segment that never was.
    let new = rig.submit(&[b"new"], Urgency::Waited);
    rig.turn();
    assert_eq!(rig.log.committed(), end_of(&new[0]));
    assert!(!rig.log.status().failing);
    let mut ids = first.frames.iter().map(|frame| frame.0.segment()).chain(account.freed.iter().copied());
    assert!(ids.all(|id| id < new[0].0.segment()), "a segment's number again");
    rig.close();
    let mut both = first.frames.clone();
    both.extend(new);
    assert_same(&Rig::open(found, options).found.frames, &both);
    first
}

fn at_every_step(deeds: &[Deed], options: LogOptions) -> usize {
    let (all, account) = run_deeds(deeds, options, &[], None);
    check(&all, options, &account);
    let steps = all.steps().len() as u64;
    for cut in 1..=steps {
        let (files, account) = run_deeds(deeds, options, &[], Some(cut));
        for seed in 0..SEEDS {
            check(&files.after_power_cut(seed * 1000 + cut), options, &account);
        }
    }
    steps as usize
}

#[test]
fn what_is_committed_survives_a_power_cut_at_every_step() {
    assert!(at_every_step(&deeds(), SMALL) > 60);
}

#[test]
fn what_is_committed_survives_where_room_was_made_for_it() {
    let small =
        |count| (0..count).flat_map(|len| [Deed::Submit(vec![len % 40], Urgency::Waited), Deed::Turn(1)]);
    let mut deeds: Vec<Deed> = small(SMALL_BATCHES as usize + 12).collect();
    deeds.extend([Deed::Submit(vec![1000, 5], Urgency::Waited), Deed::Turn(1)]);
    deeds.extend(small(5));
    assert!(at_every_step(&deeds, SMALL) > 60);
}

#[test]
fn what_is_synced_survives_with_an_interval_too() {
    // Committed is what is written here, so the account knows no promise but those of the checkpoints; order and bytes it checks.
    let options = LogOptions { sync: Sync::Interval(Duration::from_millis(250)), ..SMALL };
    let (all, _) = run(options, &[], None);
    for cut in 1..=all.steps().len() as u64 {
        let (files, mut account) = run(options, &[], Some(cut));
        account.committed = Position::START;
        for seed in 0..SEEDS {
            check(&files.after_power_cut(seed * 1000 + cut), options, &account);
        }
    }
}

#[test]
fn what_a_checkpoint_relies_on_survives_even_without_syncs() {
    let options = LogOptions { sync: Sync::Never, ..SMALL };
    let (all, _) = run(options, &[], None);
    for cut in 1..=all.steps().len() as u64 {
        let (files, mut account) = run(options, &[], Some(cut));
        let finished = account.checkpoints.iter().rfind(|checkpoint| checkpoint.2);
        account.committed = finished.map_or(Position::START, |checkpoint| checkpoint.0);
        account.holes = true;
        for seed in 0..SEEDS {
            check(&files.after_power_cut(seed * 1000 + cut), options, &account);
        }
    }
}

#[test]
fn syncs_that_failed_before_the_power_cut_have_lost_nothing() {
    let (all, _) = run(SMALL, &[], None);
    let syncs =
        all.steps().into_iter().filter(|step| matches!(step.kind, StepKind::Sync | StepKind::SyncDir));
    for sync in syncs.map(|step| step.number).filter(|number| *number > 2) {
        // The one that makes good for it fails as well.
        for failing in [vec![sync], vec![sync, sync + 3]] {
            let (all, account) = run(SMALL, &failing, None);
            check(&all, SMALL, &account);
            for cut in sync + 1..=(sync + 12).min(all.steps().len() as u64) {
                let (files, account) = run(SMALL, &failing, Some(cut));
                for seed in 0..4 {
                    check(&files.after_power_cut(seed * 1000 + cut), SMALL, &account);
                }
            }
        }
    }
}

#[test]
fn the_power_goes_again_at_every_step_of_the_recovery() {
    let (all, _) = run(SMALL, &[], None);
    for cut in (1..=all.steps().len() as u64).step_by(3) {
        let (files, account) = run(SMALL, &[], Some(cut));
        for seed in 0..4 {
            let found = files.after_power_cut(seed * 1000 + cut);
            for second in 1.. {
                let found = found.copy();
                found.on_step(move |step| (step.number == second).then_some(Fault::PowerCut));
                let opened = Rig::try_open(Arc::new(found.clone()), SMALL);
                if found.has_power() {
                    break;
                }
                drop(opened);
                check(&found.after_power_cut(second), SMALL, &account);
            }
        }
    }
}
