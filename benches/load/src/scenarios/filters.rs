//! Many filters of mixed shape, spread over the subscribers: memory per filter, CPU to subscribe (of all, and of the
//! last tenth alone), CPU per delivery through them and per delivery on the same 1,000 topics, and how much memory stays when the subscribers have gone.
//!
//! Each topic is matched by exactly one filter, so that the deliveries are known; which topic comes next is random
//! but the same in every run.

use std::ops::Range;

use super::{Bench, WINDOW, share};
use crate::clients::{GLANCE, Watch, take_down};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::{Id, expect_packet};
use crate::report::{Report, Span};

const GROUPS: usize = 100;
/// Topics of the traffic that is the same with any number of filters.
const SAME_TOPICS: usize = 1_000;
const FILTERS_PER_PACKET: usize = 100;

fn topic(n: usize) -> String {
    format!("site/{}/device{n}/sensor/temperature", n % GROUPS)
}

/// Three in ten end in `+`, three in ten in `#`, two have a wildcard in the second level, two have none.
fn filter(n: usize) -> String {
    match n / GROUPS % 10 {
        0..3 => format!("site/{}/device{n}/sensor/+", n % GROUPS),
        3..6 => format!("site/{}/device{n}/#", n % GROUPS),
        6..8 => format!("site/+/device{n}/sensor/temperature"),
        _ => topic(n),
    }
}

/// A device or a dashboard has up to a thousand.
fn subscribers_for(filters: usize) -> usize {
    (filters / 1_000).clamp(100, 1_000)
}

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let qos = bench.qos(0);
    let filters = bench.args.count.unwrap_or(100_000) as usize;
    let (publisher_count, subscriber_count) =
        (bench.args.publishers.unwrap_or(10), bench.args.subscribers.unwrap_or(subscribers_for(filters)));
    let messages = share(bench.args.messages.unwrap_or(200_000), publisher_count);
    let window = bench.window(publisher_count, qos, WINDOW);
    let subscribers = bench.subscribers(vec![Vec::new(); subscriber_count], qos)?;
    let publishers = bench.publishers(publisher_count, qos, window, 1)?;

    let before = bench.broker.settled_rss()?;
    let nearly_all = filters / 10 * 9;
    let span = Span::begin(bench.broker)?;
    subscribe(&mut bench, &subscribers, 0..nearly_all, qos)?;
    let last = Span::begin(bench.broker)?;
    subscribe(&mut bench, &subscribers, nearly_all..filters, qos)?;
    let (last, spent) = (last.end()?, span.end()?);
    let after = bench.broker.settled_rss()?;
    let mut report = Report::new("filters", qos);
    report.number("bytes_per_filter", (after as f64 - before as f64) / filters as f64);
    report.per_unit("filter", filters as u64, spent);
    report.per_unit("last_filter", (filters - nearly_all) as u64, last);

    let topics = Topics {
        names: (0..filters).map(topic).collect(),
        hears: |subscriber, tag, subscribers| tag % subscribers == subscriber,
        is_all_or_none: false,
    };
    let mut drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);
    let mut state = 1u64;
    let mut expected = 0;
    // To all of them, and then the same traffic whatever the number of filters.
    for (unit, spread) in [("delivery", filters), ("same_delivery", SAME_TOPICS.min(filters))] {
        drive.publishers.iter_mut().for_each(|publisher| publisher.allow(messages));
        expected += messages * publisher_count as u64;
        let (received, span) = (drive.received, Span::begin(bench.broker)?);
        drive.run(&mut bench.net, expected, |_, _| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % spread
        })?;
        report.per_unit(unit, drive.received - received, span.end()?);
    }
    drive.settle(expected);
    report.faults(&drive.order.faults);

    let span = Span::begin(bench.broker)?;
    // A broker that is not done with it in time has shown what was asked for all the same: these numbers are missing.
    if take_down(&mut bench.net, &subscribers).is_ok() {
        report.per_unit("filter_dropped", filters as u64, span.end()?);
        let left = bench.broker.settled_rss()?;
        report.number("bytes_left_per_filter", (left as f64 - before as f64) / filters as f64);
    }
    Ok(report)
}

/// Subscribes to the filters with these numbers, and waits until all are granted. Subscribers take turns, as they
/// would.
fn subscribe(bench: &mut Bench, subscribers: &[Id], numbers: Range<usize>, qos: u8) -> Result<()> {
    let count = subscribers.len();
    let (mut asked, mut granted, mut watch) = (0, 0, Watch::new());
    let mut next: Vec<usize> =
        (0..count).map(|place| numbers.start + (place + count - numbers.start % count) % count).collect();
    while asked > granted || next.iter().any(|next| numbers.contains(next)) {
        for (next, id) in next.iter_mut().zip(subscribers).filter(|(next, _)| numbers.contains(next)) {
            let end = *next + FILTERS_PER_PACKET * count;
            let part: Vec<String> = (*next..end.min(numbers.end)).step_by(count).map(filter).collect();
            mqtt::subscribe(bench.net.out(*id), 1, &part, qos);
            asked += 1;
            *next = end;
        }
        bench.net.turn(GLANCE, |_, id, event| match expect_packet(id, event)? {
            Packet::Suback(true) => {
                granted += 1;
                Ok(())
            }
            other => fault(format!("{other:?} instead of SUBACK")),
        })?;
        if watch.is_stuck(granted as u64) {
            return fault("no SUBACK");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
        loop {
            match (filter.next(), topic.next()) {
                (Some("#"), _) | (None, None) => return true,
                (Some("+"), Some(_)) => {}
                (Some(left), Some(right)) if left == right => {}
                _ => return false,
            }
        }
    }

    #[test]
    fn each_topic_has_its_one_filter() {
        let filters: Vec<String> = (0..2_000).map(filter).collect();
        for n in (0..2_000).step_by(7) {
            let found: Vec<usize> = (0..2_000).filter(|f| matches(&filters[*f], &topic(n))).collect();
            assert_eq!(found, [n]);
        }
    }
}
