//! A session that is away: queueing for it, what a queued message costs in memory, and draining when it comes back.
//!
//! `offline` does both in one go. `fill` and `drain` are its halves, so that the broker can be ended and started in
//! between: `drain` knows by its options what `fill` has left.

use std::time::Instant;

use super::{Bench, WINDOW, share};
use crate::clients::{GLANCE, Watch};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::Event;
use crate::publisher::Window;
use crate::report::{Report, Span};

const CLIENT_ID: &str = "load-offline";

/// Queues, then drains.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let (mut drive, each) = bring_publishers_up(&mut bench)?;
    let mut report = Report::new("offline", bench.qos(1));
    queue(&mut bench, &mut drive, each, &mut report)?;
    take(&mut bench, &mut drive, each, &mut report)?;
    Ok(report)
}

/// Queues and leaves it at that.
pub(super) fn fill(mut bench: Bench) -> Result<Report> {
    let (mut drive, each) = bring_publishers_up(&mut bench)?;
    let mut report = Report::new("fill", bench.qos(1));
    queue(&mut bench, &mut drive, each, &mut report)?;
    if drive.publishers.iter().any(|publisher| !publisher.is_done()) {
        report.note("not all messages were acknowledged");
    }
    Ok(report)
}

/// Takes what `fill` with the same options has left in the broker.
pub(super) fn drain(mut bench: Bench) -> Result<Report> {
    let (mut drive, each) = bring_publishers_up(&mut bench)?;
    let publishers = std::mem::take(&mut drive.publishers);
    drive.publishers = publishers.into_iter().map(|publisher| publisher.resumed(each)).collect();
    let mut report = Report::new("drain", bench.qos(1));
    take(&mut bench, &mut drive, each, &mut report)?;
    Ok(report)
}

/// The publishers, and how many messages each of them is to send.
fn bring_publishers_up(bench: &mut Bench) -> Result<(Drive, u64)> {
    let (qos, count) = (bench.qos(1), bench.args.publishers.unwrap_or(10));
    if qos == 0 {
        return fault("QoS 1 or 2 is needed: QoS 0 is not queued");
    }
    let window = Window { undelivered: u64::MAX, ..bench.window(count, qos, WINDOW) };
    let publishers = bench.publishers(count, qos, window, 1)?;
    let topics = Topics {
        names: (0..count).map(|n| format!("queue/{n}")).collect(),
        hears: |_, _, _| true,
        is_all_or_none: true,
    };
    let each = share(bench.args.count.unwrap_or(100_000), count);
    Ok((Drive::new(publishers, &[], topics, bench.args.payload), each))
}

fn queue(bench: &mut Bench, drive: &mut Drive, each: u64, report: &mut Report) -> Result<()> {
    bench.absent_subscriber(CLIENT_ID, "queue/+", bench.qos(1))?;
    let count = each * drive.publishers.len() as u64;
    let before = bench.broker.settled_rss()?;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(each));
    let span = Span::begin(bench.broker)?;
    drive.run(&mut bench.net, 0, |publisher, _| publisher)?;
    let spent = span.end()?;
    let after = bench.broker.settled_rss()?;
    report.per_unit("queued", count, spent);
    report.number("bytes_per_queued", (after as f64 - before as f64) / count as f64);
    report.number("rss_growth_mb", (after as f64 - before as f64) / 1e6);
    report.number("rss_mb", after as f64 / 1e6);
    Ok(())
}

fn take(bench: &mut Bench, drive: &mut Drive, each: u64, report: &mut Report) -> Result<()> {
    let count = each * drive.publishers.len() as u64;
    let before = bench.broker.rss()?;
    drive.watch_memory = Some(bench.broker);
    let span = Span::begin(bench.broker)?;
    let began = Instant::now();
    let id = bench.net.open()?;
    drive.add_subscriber(0, id);
    mqtt::connect(bench.net.out(id), CLIENT_ID, false);
    let (mut connack, mut watch) = (None, Watch::new());
    while connack.is_none() && !watch.is_stuck(0) {
        bench.net.turn(GLANCE, |net, id, event| {
            if matches!(event, Event::Packet(Packet::Connack { .. })) {
                connack = Some(began.elapsed());
            }
            drive.receive(net, id, event).map(drop)
        })?;
    }
    let Some(connack) = connack else { return fault("no CONNACK") };
    drive.run(&mut bench.net, count, |publisher, _| publisher)?;
    report.per_unit("drained", drive.received, span.end()?);
    report.number("connack_ms", connack.as_secs_f64() * 1e3);
    report.number("rss_before_drain_mb", before as f64 / 1e6);
    report.number("rss_peak_mb", drive.rss_peak.max(before) as f64 / 1e6);
    drive.settle(count);
    report.faults(&drive.order.faults);
    Ok(())
}
