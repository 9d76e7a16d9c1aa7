//! A session that is away: queueing for it, what a queued message costs in memory, and draining when it comes back.

use super::{Bench, WINDOW, share};
use crate::clients::{Spec, bring_up, take_down};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt;
use crate::publisher::Window;
use crate::report::{Report, Span};

const CLIENT_ID: &str = "load-offline";

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    let (qos, publisher_count) = (bench.qos(1), bench.args.publishers.unwrap_or(10));
    if qos == 0 {
        return fault("offline needs QoS 1 or 2: QoS 0 is not queued");
    }
    let each = share(bench.args.count.unwrap_or(100_000), publisher_count);
    let count = each * publisher_count as u64;
    let spec = Spec {
        client_id: CLIENT_ID.to_owned(),
        clean_session: false,
        filters: vec!["queue/+".to_owned()],
        qos,
    };
    let subscriber = bring_up(&mut bench.net, &[spec])?;
    take_down(&mut bench.net, &subscriber)?;

    let window = Window { undelivered: u64::MAX, ..bench.window(publisher_count, qos, WINDOW) };
    let publishers = bench.publishers(publisher_count, qos, window, 1)?;
    let topics = Topics {
        names: (0..publisher_count).map(|n| format!("queue/{n}")).collect(),
        hears: |_, _, _| true,
        is_all_or_none: true,
    };
    let mut drive = Drive::new(publishers, &[], topics, bench.args.payload);
    let before = bench.broker.settled_rss()?;
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(each));
    let span = Span::begin(bench.broker)?;
    drive.run(&mut bench.net, 0, |publisher, _| publisher)?;
    let spent = span.end()?;
    let after = bench.broker.settled_rss()?;
    let mut report = Report::new("offline", qos);
    report.per_unit("queued", count, spent);
    report.number("bytes_per_queued", (after as f64 - before as f64) / count as f64);

    let span = Span::begin(bench.broker)?;
    let id = bench.net.open()?;
    drive.add_subscriber(0, id);
    mqtt::connect(bench.net.out(id), CLIENT_ID, false);
    drive.run(&mut bench.net, count, |publisher, _| publisher)?;
    report.per_unit("drained", drive.received, span.end()?);
    drive.settle(count);
    report.faults(&drive.order.faults);
    Ok(report)
}
