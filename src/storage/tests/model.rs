//! Anything may happen in any order: random deeds, faults, ends and power cuts, against the account of what was promised.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Event {
    Deed(Deed),
    /// So many steps from now, one fails.
    Fault(u64, Fault),
    /// The disk has so many bytes for all files; or room again.
    Limit(Option<usize>),
    /// The process ends, in order or not, and starts again.
    End(bool),
    /// The power is lost, and what is found depends on the seed.
    PowerCut(u64),
    /// One of the frames is needed, or no longer.
    Need(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let urgency = prop_oneof![Just(Urgency::Waited), Just(Urgency::Lazy)];
    let len = prop_oneof![8 => 1..200_usize, 1 => 500..3000_usize];
    let deed = prop_oneof![
        6 => (vec(len, 1..5), urgency).prop_map(|(lens, urgency)| Deed::Submit(lens, urgency)),
        6 => (0..400_u64).prop_map(Deed::Turn),
        1 => (0..6_usize).prop_map(Deed::Checkpoint),
        1 => Just(Deed::Free),
    ];
    let fault = prop_oneof![Just(Fault::Broken), Just(Fault::Full)];
    prop_oneof![
        24 => deed.prop_map(Event::Deed),
        2 => (0..6_u64, fault).prop_map(|(steps, fault)| Event::Fault(steps, fault)),
        1 => (0..20_000_usize).prop_map(|limit| Event::Limit(Some(limit))),
        1 => Just(Event::Limit(None)),
        1 => any::<bool>().prop_map(Event::End),
        2 => any::<u64>().prop_map(Event::PowerCut),
        2 => any::<usize>().prop_map(Event::Need),
    ]
}

struct World {
    files: SimulatedFiles,
    options: LogOptions,
    account: Account,
    needed: BTreeSet<Position>,
}

impl World {
    /// Starts again; what is found is checked, and is the truth from now on.
    fn start(&mut self) -> Rig {
        let rig = Rig::open(&self.files, self.options);
        self.account.check(&rig.found);
        for needed in &self.needed {
            let is_it = |frame: &&(Position, Vec<u8>)| frame.0 == *needed;
            if let Some(frame) = rig.found.frames.iter().find(is_it) {
                rig.ledger.add(*needed, (frame::FRAME_HEADER + frame.1.len()) as u32);
            }
        }
        // What was freed may come back after a power cut.
        let Account { submitted, freed, .. } = &mut self.account;
        submitted.retain(|frame| freed.contains(&frame.0.segment()));
        submitted.extend(rig.found.frames.iter().cloned());
        submitted.sort();
        submitted.dedup();
        self.account.committed = rig.log.committed();
        let position = rig.found.checkpoint.unwrap_or_default();
        self.account.checkpoints.retain(|checkpoint| checkpoint.0 == position);
        self.account.checkpoints.iter_mut().for_each(|checkpoint| checkpoint.2 = true);
        rig
    }

    fn power_cut(&mut self, seed: u64) {
        let limit = self.files.limit();
        self.files = self.files.after_power_cut(seed);
        self.files.set_limit(limit);
    }
}

fn play(sync: Sync, events: &[Event]) {
    let options = LogOptions { sync, ..SMALL };
    let mut world = World {
        files: SimulatedFiles::new(1),
        options,
        account: Account::default(),
        needed: BTreeSet::new(),
    };
    let mut rig = world.start();
    for event in events {
        match event {
            Event::Deed(deed) => {
                perform(std::slice::from_ref(deed), &mut rig, &world.files, &mut world.account);
            }
            Event::Fault(steps, fault) => {
                let (at, fault) = (world.files.steps().len() as u64 + 1 + steps, *fault);
                world.files.on_step(move |step| (step.number == at).then_some(fault));
            }
            Event::Limit(limit) => world.files.set_limit(*limit),
            Event::End(in_order) => {
                if *in_order {
                    rig.close();
                }
                world.files.heal();
                // The end of the log is written again after a failed sync; without room for it the report has to do.
                world.files.set_limit(None);
                rig = world.start();
            }
            // Elsewhere more may be lost than the account knows of.
            Event::PowerCut(_) if sync != Sync::Always => {}
            Event::PowerCut(seed) => {
                world.power_cut(*seed);
                rig = world.start();
            }
            Event::Need(which) => {
                let live: Vec<_> = world
                    .account
                    .submitted
                    .iter()
                    .filter(|frame| end_of(frame) <= rig.log.committed())
                    .collect();
                let Some((position, body)) = live.get(which % live.len().max(1)) else { continue };
                let bytes = (frame::FRAME_HEADER + body.len()) as u32;
                if world.needed.remove(position) {
                    rig.ledger.subtract(*position, bytes);
                } else if !world.account.freed.contains(&position.segment()) {
                    world.needed.insert(*position);
                    rig.ledger.add(*position, bytes);
                }
            }
        }
        let mut body = Vec::new();
        for needed in &world.needed {
            rig.log.read(*needed, &mut body).expect("what is needed is there");
        }
    }
    // In the end all is well, whatever it was before.
    world.files.heal();
    world.files.set_limit(None);
    // The first try may find that a name was not synced by somebody else's failed try, and that the file must be written again: the second does.
    for _ in 0..2 {
        rig.pass(Duration::from_millis(250));
        rig.sync();
    }
    assert!(!rig.log.status().failing);
    world.account.committed = rig.log.committed();
    if let Some(last) = world.account.submitted.last() {
        assert!(end_of(last) <= world.account.committed);
    }
    if sync == Sync::Always {
        world.power_cut(3);
    }
    world.start();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_promise_is_kept(events in vec(event(), 1..60)) {
        play(Sync::Always, &events);
    }
    #[test]
    fn every_promise_is_kept_with_an_interval(events in vec(event(), 1..60)) {
        play(Sync::Interval(Duration::from_millis(500)), &events);
    }

    #[test]
    fn every_promise_is_kept_with_never(events in vec(event(), 1..60)) {
        play(Sync::Never, &events);
    }
}

/// Sync fails, then the sync of the directory for the file written in its place, then all is well: found by chance.
#[test]
fn a_failure_of_the_directory_is_got_over_in_two_tries() {
    let submit = |lens: &[usize]| Event::Deed(Deed::Submit(lens.to_vec(), Urgency::Waited));
    let events = [
        submit(&[941, 139]),
        Event::Fault(5, Fault::Broken),
        submit(&[162, 39]),
        submit(&[192, 15, 4]),
        submit(&[94, 8, 157, 166]),
        Event::Deed(Deed::Checkpoint(0)),
        Event::Fault(5, Fault::Broken),
        Event::Deed(Deed::Turn(250)),
        submit(&[1]),
    ];
    play(Sync::Never, &events);
}
