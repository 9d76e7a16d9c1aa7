//! The power goes at every step of the disk, and what was acknowledged is there.

use super::world::World;
use crate::storage::simulated::{Random, SimulatedFiles};

const OPERATIONS: usize = 40;

/// A workload, cut at this step; then a second broker, cut at another, and a third, where everything must be right.
/// How many steps the first took.
fn run(workload: u64, cut: Option<u64>) -> u64 {
    let mut random = Random(workload * 100_003 + cut.unwrap_or(0));
    let mut world = World::new(workload);
    let files = SimulatedFiles::new(random.next());
    world.live(&files, cut, OPERATIONS);
    let steps = files.steps().len() as u64;
    // The same clients go on in other ways after every cut.
    world.random = Random(random.next());
    let mut found = files.after_power_cut(random.next());
    for _ in 0..random.below(3) {
        // Often while it starts.
        let until = if random.coin() { 1 + random.below(12) } else { 1 + random.below(80) };
        world.live(&found, Some(until as u64), 15);
        found = found.after_power_cut(random.next());
    }
    world.settle(&found);
    steps
}

fn at_every_step(workload: u64) {
    let steps = run(workload, None);
    assert!(steps > 50, "{steps}");
    for cut in 1..=steps {
        run(workload, Some(cut));
    }
}

#[test]
fn nothing_acknowledged_is_lost_whenever_the_power_goes() {
    at_every_step(1);
}

#[test]
fn more_workloads() {
    let seeds = std::env::var("SIMULATION_SEEDS").unwrap_or_else(|_| "2..60".to_owned());
    let (from, to) = seeds.split_once("..").unwrap();
    for workload in from.parse().unwrap()..to.parse::<u64>().unwrap() {
        let mut random = Random(workload);
        run(workload, Some(1 + random.below(200) as u64));
    }
}
