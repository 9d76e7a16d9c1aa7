//! Retained messages: storing many, what one costs in memory, and reading all of them with one `#`.

use super::{Bench, WINDOW, share};
use crate::clients::{GLANCE, Watch};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::expect_packet;
use crate::publisher::Window;
use crate::report::{Report, Span};

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let (qos, publisher_count) = (bench.qos(1), bench.args.publishers.unwrap_or(10));
    if qos == 0 {
        return fault("retained needs QoS 1 or 2: without acknowledgements nobody knows when all is stored");
    }
    let each = share(bench.args.count.unwrap_or(100_000), publisher_count);
    let count = each * publisher_count as u64;
    let window = Window { undelivered: u64::MAX, ..bench.window(publisher_count, qos, WINDOW) };
    let publishers = bench.publishers(publisher_count, qos, window, 1)?;
    let publishers = publishers.into_iter().map(|publisher| publisher.retaining()).collect();
    let names: Vec<String> = (0..count).map(|n| format!("state/{}/device{n}/value", n % 100)).collect();
    let topics = Topics { names: names.clone(), hears: |_, _, _| true, is_all_or_none: false };
    let mut drive = Drive::new(publishers, &[], topics, bench.args.payload);

    let before = bench.broker.settled_rss()?;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(each));
    let span = Span::begin(bench.broker)?;
    drive.run(&mut bench.net, 0, |publisher, sequence| sequence as usize * publisher_count + publisher)?;
    let spent = span.end()?;
    let after = bench.broker.settled_rss()?;
    let mut report = Report::new("retained", qos);
    report.per_unit("store", count, spent);
    report.number("bytes_per_retained", (after as f64 - before as f64) / count as f64);
    if drive.publishers.iter().any(|publisher| !publisher.is_done()) {
        report.note("not all stores were acknowledged");
    }

    let mut seen = vec![false; count as usize];
    let (mut received, mut wrong, mut watch) = (0u64, 0u64, Watch::new());
    let subscriber = bench.subscribers(vec![Vec::new()], qos)?[0];
    let span = Span::begin(bench.broker)?;
    mqtt::subscribe(bench.net.out(subscriber), 1, &["#".to_owned()], qos);
    while received < count && !watch.is_stuck(received) {
        bench.net.turn(GLANCE, |net, id, event| {
            let packet = expect_packet(id, event)?;
            let Packet::Publish(publish) = packet else {
                if matches!(packet, Packet::Pubrel(_)) {
                    mqtt::answer(net.out(id), &packet);
                }
                return Ok(());
            };
            mqtt::answer(net.out(id), &packet);
            let stamp = drive.payloads.read(publish.payload).filter(|stamp| {
                let name = names.get(stamp.tag as usize);
                publish.retain && name.is_some_and(|name| name.as_bytes() == publish.topic)
            });
            match stamp.and_then(|stamp| seen.get_mut(stamp.tag as usize)) {
                Some(seen) if !*seen => {
                    *seen = true;
                    received += 1;
                }
                _ => wrong += 1,
            }
            Ok(())
        })?;
    }
    report.per_unit("read", received, span.end()?);
    drive.order.faults.missing += count - received;
    drive.order.faults.corrupt += wrong;
    report.faults(&drive.order.faults);
    Ok(report)
}
