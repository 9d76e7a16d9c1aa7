//! Messages at full speed: many to one, one to many, each to its own, and past a subscriber that does not read.
//!
//! A tenth of the messages goes first and is not measured. Full speed means as fast as the windows let: see
//! `Publisher`.

use super::{Bench, WINDOW, share};
use crate::drive::{Drive, Topics};
use crate::error::Result;
use crate::publisher::Publisher;
use crate::report::{Report, Span};

/// With 100 publishers, 64 each would be more on the way than one subscriber's queue should hold.
const FAN_IN_WINDOW: u64 = 16;

/// Publishers on a topic each, one subscriber to all of them.
pub(super) fn fan_in(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.publishers.unwrap_or(100));
    let subscribers = bench.subscribers(vec![vec!["in/+".to_owned()]], qos)?;
    let window = bench.window(count, qos, FAN_IN_WINDOW);
    let publishers = bench.publishers(count, qos, window, 1)?;
    let topics = Topics {
        names: (0..count).map(|n| format!("in/{n}")).collect(),
        hears: |_, _, _| true,
        is_all_or_none: true,
    };
    let drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);
    measure(bench, drive, Report::new("fan-in", qos), 1, 500_000).map(|(report, _)| report)
}

/// One publisher, all subscribers on its topic.
pub(super) fn fan_out(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.subscribers.unwrap_or(100));
    let subscribers = bench.subscribers(vec![vec!["out/all".to_owned()]; count], qos)?;
    let window = bench.window(1, qos, WINDOW);
    let publishers = bench.publishers(1, qos, window, count as u64)?;
    let topics = Topics { names: vec!["out/all".to_owned()], hears: |_, _, _| true, is_all_or_none: true };
    let drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);
    measure(bench, drive, Report::new("fan-out", qos), count as u64, 10_000).map(|(report, _)| report)
}

/// Publishers, each with a subscriber of its own.
pub(super) fn pairs(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.publishers.unwrap_or(100));
    let names: Vec<String> = (0..count).map(|n| format!("pair/{n}/data")).collect();
    let subscribers = bench.subscribers(names.iter().map(|name| vec![name.clone()]).collect(), qos)?;
    let window = bench.window(count, qos, WINDOW);
    let publishers = bench.publishers(count, qos, window, 1)?;
    let topics = Topics { names, hears: |subscriber, tag, _| subscriber == tag, is_all_or_none: true };
    let drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);
    measure(bench, drive, Report::new("pairs", qos), 1, 500_000).map(|(report, _)| report)
}

/// Publishers flood a topic tree; of its two subscribers one never reads. Only the other's deliveries are awaited.
pub(super) fn stalled(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.publishers.unwrap_or(10));
    let both = bench.subscribers(vec![vec!["flood/+".to_owned()]; 2], qos)?;
    let (healthy, stalled) = both.split_at(1);
    bench.net.pause(stalled[0]);
    let window = bench.window(count, qos, WINDOW);
    let publishers = bench.publishers(count, qos, window, 1)?;
    let topics = Topics {
        names: (0..count).map(|n| format!("flood/{n}")).collect(),
        hears: |_, _, _| true,
        is_all_or_none: true,
    };
    let mut drive = Drive::new(publishers, healthy, topics, bench.args.payload);
    drive.watch_memory = Some(bench.broker);
    let before = bench.broker.rss()?;
    let (mut report, drive) = measure(bench, drive, Report::new("stalled", qos), 1, 500_000)?;
    report.number("rss_growth_kb", drive.rss_peak.saturating_sub(before) as f64 / 1024.0);
    Ok(report)
}

/// A tenth of the messages goes first; the rest is measured.
pub(super) fn measure(
    mut bench: Bench,
    mut drive: Drive,
    mut report: Report,
    fan_out: u64,
    default_count: u64,
) -> Result<(Report, Drive)> {
    let each = share(bench.args.count.unwrap_or(default_count), drive.publishers.len());
    let warm_up = each.div_ceil(10);
    let deliveries = |messages: u64, publishers: &[Publisher]| messages * publishers.len() as u64 * fan_out;
    let first = deliveries(warm_up, &drive.publishers);
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(warm_up));
    drive.run(&mut bench.net, first, |publisher, _| publisher)?;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(each));
    let expected = first + deliveries(each, &drive.publishers);
    let (received, writes, span) = (drive.received, bench.net.writes(), Span::begin(bench.broker)?);
    drive.run(&mut bench.net, expected, |publisher, _| publisher)?;
    let spent = span.end()?;
    report.per_unit("delivery", drive.received - received, spent);
    let published = each * drive.publishers.len() as u64;
    let writes = (bench.net.writes() - writes).max(1);
    // Acknowledgements of subscribers count as writes too.
    report.number("published_per_write", published as f64 / writes as f64);
    drive.settle(expected);
    report.faults(&drive.order.faults);
    Ok((report, drive))
}
