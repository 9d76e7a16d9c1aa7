//! The same traffic with few and with very many connections alive: what a message costs must not depend on it.
//!
//! Twice: a handful of pairs at full speed while all others are idle, and then messages to all of them in random order,
//! one on its way per publisher, so that a message is one read and one write however many connections there are.

use super::{Bench, WINDOW, share};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::publisher::{Publisher, Window};
use crate::report::{Report, Span};

const PUBLISHERS: usize = 5;
const MESSAGES: u64 = 200_000;
/// Each of these costs a round trip.
const SPREAD_SHARE: u64 = 4;

/// `--count` is the number of connections, publishers included.
pub(super) fn connections(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.count.unwrap_or(1_000) as usize);
    let publisher_count = bench.args.publishers.unwrap_or(PUBLISHERS);
    let Some(subscriber_count) = count.checked_sub(publisher_count).filter(|n| *n >= publisher_count) else {
        return fault(format!("--count: at least {} connections", 2 * publisher_count));
    };
    let topic = |n| format!("device/{n:06}/command");
    let subscribers = bench.subscribers((0..subscriber_count).map(|n| vec![topic(n)]).collect(), qos)?;
    let window = bench.window(publisher_count, qos, WINDOW);
    let publishers = bench.publishers(publisher_count, qos, window, 1)?;
    let ids: Vec<_> = publishers.iter().map(|publisher| publisher.id).collect();
    let topics = || Topics {
        names: (0..subscriber_count).map(topic).collect(),
        hears: |subscriber, tag, _| subscriber == tag,
        is_all_or_none: false,
    };
    let messages = bench.args.messages.unwrap_or(MESSAGES);
    let mut report = Report::new("connections", qos);
    report.number("connections", count as f64);

    let mut pairs = Drive::new(publishers, &subscribers, topics(), bench.args.payload);
    flow(&mut bench, &mut pairs, "delivery", messages, &mut report, |publisher| publisher)?;

    let window = Window { unacknowledged: 1, undelivered: 1, burst: 1 };
    let numbered = ids.into_iter().enumerate();
    let publishers = numbered.map(|(index, id)| Publisher::new(id, index, qos, window, 1)).collect();
    let mut spread = Drive::new(publishers, &subscribers, topics(), bench.args.payload);
    let mut state = 1u64;
    flow(&mut bench, &mut spread, "spread_delivery", messages / SPREAD_SHARE, &mut report, |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % subscriber_count
    })?;
    Ok(report)
}

/// A tenth first, which is not measured, then `messages`.
fn flow(
    bench: &mut Bench,
    drive: &mut Drive,
    unit: &str,
    messages: u64,
    report: &mut Report,
    mut choose: impl FnMut(usize) -> usize,
) -> Result<()> {
    let publishers = drive.publishers.len();
    let each = share(messages, publishers);
    let warm_up = each.div_ceil(10);
    let mut expected = warm_up * publishers as u64;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(warm_up));
    drive.run(&mut bench.net, expected, |publisher, _| choose(publisher))?;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(each));
    expected += each * publishers as u64;
    let (received, span) = (drive.received, Span::begin(bench.broker)?);
    drive.run(&mut bench.net, expected, |publisher, _| choose(publisher))?;
    report.per_unit(unit, drive.received - received, span.end()?);
    drive.settle(expected);
    report.faults(&drive.order.faults);
    Ok(())
}
