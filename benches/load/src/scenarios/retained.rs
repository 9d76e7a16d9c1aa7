//! Retained messages: storing many, what one costs in memory, and reading all of them with one `#`; and what such reads
//! do to a quiet pair of clients that has nothing to do with them.

use super::pair::{self, Pair};
use super::{Bench, WINDOW, share};
use crate::clients::{GLANCE, Spec, Watch, bring_up, take_down};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::expect_packet;
use crate::payload::{Faults, Payloads};
use crate::publisher::Window;
use crate::report::{Report, Span, Spent};

const QOS: u8 = 1;
/// Reads of everything in `storm`, one after the other.
const READS: usize = 20;

/// What is stored.
struct Stored {
    /// By tag.
    names: Vec<String>,
    payloads: Payloads,
}

/// Stores and reads once.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let mut report = Report::new("retained", bench.qos(QOS));
    let stored = store(&mut bench, &mut report)?;
    let (received, spent) = read(&mut bench, &stored, &mut report)?;
    report.per_unit("read", received, spent);
    Ok(report)
}

/// Stores, and reads many times beside a quiet pair.
pub(super) fn storm(mut bench: Bench) -> Result<Report> {
    let mut report = Report::new("retained-storm", bench.qos(QOS));
    let stored = store(&mut bench, &mut report)?;
    let pair = Pair::start(&bench)?;
    pair.count();
    for _ in 0..bench.args.subscribers.unwrap_or(READS) {
        read(&mut bench, &stored, &mut report)?;
    }
    pair.finish(&mut report)?;
    Ok(report)
}

fn store(bench: &mut Bench, report: &mut Report) -> Result<Stored> {
    let (qos, publisher_count) = (bench.qos(QOS), bench.args.publishers.unwrap_or(10));
    if qos == 0 {
        return fault("QoS 1 or 2 is needed: without acknowledgements nobody knows when all is stored");
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
    report.per_unit("store", count, spent);
    report.number("bytes_per_retained", (after as f64 - before as f64) / count as f64);
    if drive.publishers.iter().any(|publisher| !publisher.is_done()) {
        report.note("not all stores were acknowledged");
    }
    report.faults(&drive.order.faults);
    Ok(Stored { names, payloads: drive.payloads })
}

/// A new subscriber of everything; returns how many messages it got, and at what cost. Coming and going are not in it.
fn read(bench: &mut Bench, stored: &Stored, report: &mut Report) -> Result<(u64, Spent)> {
    let (qos, count) = (bench.qos(QOS), stored.names.len() as u64);
    let mut seen = vec![false; stored.names.len()];
    let (mut received, mut wrong, mut watch) = (0u64, 0u64, Watch::new());
    let ids = bring_up(&mut bench.net, &[Spec::clean("load-reader".to_owned(), Vec::new(), qos)])?;
    let subscriber = ids[0];
    let span = Span::begin(bench.broker)?;
    mqtt::subscribe(bench.net.out(subscriber), 1, &["#".to_owned()], qos);
    while received < count && !watch.is_stuck(received) {
        bench.net.turn(GLANCE, |net, id, event| {
            let packet = expect_packet(id, event)?;
            mqtt::answer(net.out(id), &packet);
            let publish = match packet {
                Packet::Publish(publish) => publish,
                Packet::Suback(true) | Packet::Pubrel(_) => return Ok(()),
                other => return fault(format!("{other:?} among retained messages")),
            };
            if publish.topic == pair::TOPIC.as_bytes() {
                return Ok(());
            }
            let stamp = stored.payloads.read(publish.payload).filter(|stamp| {
                let name = stored.names.get(stamp.tag as usize);
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
    let spent = span.end()?;
    report.faults(&Faults { missing: count - received, corrupt: wrong, disordered: 0 });
    // The last acknowledgements go first.
    take_down(&mut bench.net, &ids)?;
    Ok((received, spent))
}
