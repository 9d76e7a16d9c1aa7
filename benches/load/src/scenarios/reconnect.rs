//! All clients lose their connections at once and come back at once, to sessions that waited for them.
//!
//! Nothing limits how many are on their way: each connects as soon as this program gets to it, and its time runs from
//! there to its CONNACK, as the time-out of a real client does. Afterwards each gets a message, so that a session that
//! lost its subscription is noticed.

use std::time::{Duration, Instant};

use super::Bench;
use crate::clients::{GLANCE, Spec, Watch, bring_up};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::{Id, expect_packet};
use crate::report::{Report, Span};

/// How long Tasmota waits for CONNACK before it tries again.
const TIMEOUT: Duration = Duration::from_secs(4);
/// What has come is read after so many connections opened.
const OPENED_PER_TURN: usize = 64;
const QOS: u8 = 1;

fn client_id(n: usize) -> String {
    format!("load-device-{n:06}")
}

fn topic(n: usize) -> String {
    format!("device/{n:06}/command")
}

/// Runs the scenario.
pub(super) fn run(mut bench: Bench) -> Result<Report> {
    if bench.qos(QOS) != QOS {
        return fault("this scenario is about QoS 1");
    }
    let count = bench.args.count.unwrap_or(10_000) as usize;
    let specs: Vec<Spec> = (0..count)
        .map(|n| Spec { clean_session: false, ..Spec::clean(client_id(n), vec![topic(n)], QOS) })
        .collect();
    let ids = bring_up(&mut bench.net, &specs)?;
    let before = bench.broker.settled_rss()?;

    let span = Span::begin(bench.broker)?;
    ids.into_iter().for_each(|id| bench.net.close(id));
    let mut storm = Storm { opened: Vec::with_capacity(count), clients: Vec::new(), waits: Vec::new() };
    let (began, mut watch) = (Instant::now(), Watch::new());
    while storm.waits.len() < count {
        let patience = if storm.opened.len() < count { Duration::ZERO } else { GLANCE };
        for n in storm.opened.len()..count.min(storm.opened.len() + OPENED_PER_TURN) {
            let id = bench.net.open()?;
            mqtt::connect(bench.net.out(id), &client_id(n), false);
            storm.note(id, n);
        }
        bench.net.turn(patience, |_, id, event| match expect_packet(id, event)? {
            Packet::Connack { present: true, code: 0 } => {
                storm.waits.push(storm.opened[storm.clients[id]].1.elapsed().as_nanos() as u64);
                Ok(())
            }
            other => fault(format!("{other:?} in place of CONNACK with a session")),
        })?;
        if watch.is_stuck(storm.waits.len() as u64) {
            break;
        }
    }
    let all = began.elapsed();
    let mut report = Report::new("reconnect", QOS);
    report.per_unit("connection", count as u64, span.end()?);
    report.number("all_back_ms", all.as_secs_f64() * 1e3);
    let late = storm.waits.iter().filter(|wait| **wait > TIMEOUT.as_nanos() as u64).count();
    report.number("later_than_4_s", late as f64);
    report.percentiles("connack", &mut storm.waits);
    let not_back = count - storm.waits.len();
    report.number("not_back", not_back as f64);
    if not_back > 0 {
        report.note(format!("{not_back} of {count} clients did not come back"));
        return Ok(report);
    }

    let window = bench.window(1, QOS, super::WINDOW);
    let publishers = bench.publishers(1, QOS, window, 1)?;
    let topics = Topics {
        names: (0..count).map(topic).collect(),
        hears: |subscriber, tag, _| subscriber == tag,
        is_all_or_none: false,
    };
    let back: Vec<Id> = storm.opened.iter().map(|(id, _)| *id).collect();
    let mut drive = Drive::new(publishers, &back, topics, bench.args.payload);
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(count as u64));
    drive.run(&mut bench.net, count as u64, |_, sequence| sequence as usize)?;
    drive.settle(count as u64);
    report.faults(&drive.order.faults);
    let after = bench.broker.settled_rss()?;
    report.number("rss_drift_bytes_per_connection", (after as f64 - before as f64) / count as f64);
    Ok(report)
}

struct Storm {
    /// By client: its connection, and since when.
    opened: Vec<(Id, Instant)>,
    /// By connection: its client.
    clients: Vec<usize>,
    /// Nanoseconds until CONNACK.
    waits: Vec<u64>,
}

impl Storm {
    fn note(&mut self, id: Id, client: usize) {
        if self.clients.len() <= id {
            self.clients.resize(id + 1, usize::MAX);
        }
        self.clients[id] = client;
        self.opened.push((id, Instant::now()));
    }
}
