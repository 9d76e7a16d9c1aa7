//! A fixed rate, spread evenly over time and connections: nothing can be batched, each message is a wake-up.
//!
//! Latency runs from the moment a message was meant to be sent, whether or not the generator was in time, so that a
//! broker that stops for a while cannot hide it. `lateness` says how late the generator itself was.

use std::time::{Duration, Instant};

use super::{Bench, share};
use crate::clients::{GLANCE, Watch};
use crate::drive::{Drive, Topics};
use crate::error::Result;
use crate::publisher::Window;
use crate::report::{Report, Span};

const RATE: u64 = 4_000;
/// Messages not measured, so that threads, caches and the clock of the processor are warm.
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.publishers.unwrap_or(100));
    let names: Vec<String> = (0..count).map(|n| format!("rate/{n}/data")).collect();
    let subscribers = bench.subscribers(names.iter().map(|name| vec![name.clone()]).collect(), qos)?;
    // The schedule alone decides when to send.
    let window = Window { unacknowledged: u64::MAX, undelivered: u64::MAX, burst: 1 };
    let publishers = bench.publishers(count, qos, window, 1)?;
    let topics =
        Topics { names: names.clone(), hears: |subscriber, tag, _| subscriber == tag, is_all_or_none: true };
    let mut drive = Drive::new(publishers, &subscribers, topics, bench.args.payload);

    let rate = bench.args.rate.unwrap_or(RATE);
    let interval_ns = |message: u64| (u128::from(message) * 1_000_000_000 / u128::from(rate)) as u64;
    let warm_up = rate * WARM_UP.as_millis() as u64 / 1000;
    let measured = share(bench.args.count.unwrap_or(rate * 3), count) * count as u64;
    let total = warm_up + measured;
    let mut latency = Vec::with_capacity(measured as usize);
    let mut lateness = Vec::with_capacity(measured as usize);
    let (mut sent, mut span, mut watch) = (0, None, Watch::new());
    let start = Instant::now();
    while drive.received < total || drive.publishers.iter().any(|publisher| !publisher.is_done()) {
        let now = start.elapsed().as_nanos() as u64;
        while sent < total && interval_ns(sent) <= now {
            if sent == warm_up {
                span = Some(Span::begin(bench.broker)?);
            }
            let place = (sent % count as u64) as usize;
            if sent >= warm_up {
                lateness.push(now - interval_ns(sent));
            }
            let publisher = &mut drive.publishers[place];
            publisher.send(
                &mut bench.net,
                &mut drive.payloads,
                &names[place],
                place as u32,
                interval_ns(sent),
            );
            sent += 1;
        }
        if sent < total {
            bench.net.wake_at(start + Duration::from_nanos(interval_ns(sent)))?;
        }
        bench.net.turn(GLANCE, |net, id, event| {
            if let Some(stamp) = drive.receive(net, id, event)? {
                // Taken per message: a moment spent on checking others is not the broker's.
                let now = start.elapsed().as_nanos() as u64;
                if stamp.intended_ns >= interval_ns(warm_up) {
                    latency.push(now.saturating_sub(stamp.intended_ns));
                }
            }
            Ok(())
        })?;
        if watch.is_stuck(drive.received + sent) {
            break;
        }
    }
    let mut report = Report::new("rate", qos);
    if let Some(span) = span {
        report.per_unit("delivery", latency.len() as u64, span.end()?);
    }
    report.percentiles("latency", &mut latency);
    report.percentiles("lateness", &mut lateness);
    drive.settle(total);
    report.faults(&drive.order.faults);
    Ok(report)
}
