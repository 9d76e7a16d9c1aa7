//! One publisher floods its own subscriber as fast as the broker takes it, beside a quiet pair: what the flood costs
//! the pair is the question.

use super::Bench;
use super::flow::measure;
use super::pair::Pair;
use crate::drive::{Drive, Topics};
use crate::error::Result;
use crate::publisher::Window;
use crate::report::Report;

const TOPIC: &str = "flood/all";
/// Messages on their way: enough that the broker never waits for the publisher.
const OUTSTANDING: u64 = 10_000;

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let qos = bench.qos(0);
    let subscribers = bench.subscribers(vec![vec![TOPIC.to_owned()]], qos)?;
    let window = bench.window(1, qos, OUTSTANDING);
    let window = Window { undelivered: bench.args.outstanding.unwrap_or(OUTSTANDING), ..window };
    let publishers = bench.publishers(1, qos, window, 1)?;
    let topics = Topics { names: vec![TOPIC.to_owned()], hears: |_, _, _| true, is_all_or_none: true };
    let drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);
    let pair = Pair::start(&bench)?;
    pair.count();
    let (mut report, _) = measure(bench, drive, Report::new("flood", qos), 1, 2_000_000)?;
    pair.finish(&mut report)?;
    Ok(report)
}
