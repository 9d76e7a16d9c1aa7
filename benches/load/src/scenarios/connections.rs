//! Connections rather than messages: what one costs while it is idle, to open, and to use once and leave.

use std::collections::HashMap;
use std::time::Duration;

use super::Bench;
use crate::clients::{GLANCE, Spec, Watch, bring_up, take_down};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::{Event, Id};
use crate::payload::{Payloads, Stamp};
use crate::report::{Report, Span, Spent};

/// Connections of one storm; more than a process may usually have descriptors are made in several.
const STORM: u64 = 5_000;
/// Clients that come and go at the same time.
const COMING_AND_GOING: usize = 20;

fn specs(bench: &Bench, count: u64, qos: u8) -> Vec<Spec> {
    let filters = |n| if bench.args.bare { Vec::new() } else { vec![format!("device/{n:06}/command")] };
    (0..count).map(|n| Spec::clean(format!("load-idle-{n:06}"), filters(n), qos)).collect()
}

/// Memory per connection that does nothing, with one subscription each unless told otherwise.
pub(super) fn idle(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.count.unwrap_or(10_000));
    let specs = specs(&bench, count, qos);
    // Threads, allocator arenas and tables of the first few are not counted as those of the many.
    let first = specs.len().div_ceil(100);
    bring_up(&mut bench.net, &specs[..first])?;
    let before = bench.broker.settled_rss()?;
    bring_up(&mut bench.net, &specs[first..])?;
    let after = bench.broker.settled_rss()?;
    let mut report = Report::new("idle", qos);
    let counted = (specs.len() - first).max(1) as f64;
    report.number("bytes_per_connection", (after as f64 - before as f64) / counted);
    report.number("rss_kb", after as f64 / 1024.0);
    Ok(report)
}

/// CPU per connection opened: TCP, TLS if asked for, CONNECT and SUBSCRIBE. Closing is not measured.
pub(super) fn connect(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.count.unwrap_or(20_000));
    let mut total = Spent { broker: Duration::ZERO, own: Duration::ZERO, wall: Duration::ZERO };
    let (mut opened, mut is_warm) = (0, false);
    while opened < count {
        let size = if is_warm { STORM.min(count - opened) } else { STORM / 10 };
        let specs = specs(&bench, size, qos);
        let span = Span::begin(bench.broker)?;
        let ids = bring_up(&mut bench.net, &specs)?;
        let spent = span.end()?;
        take_down(&mut bench.net, &ids)?;
        if is_warm {
            total.broker += spent.broker;
            total.own += spent.own;
            total.wall += spent.wall;
            opened += size;
        }
        is_warm = true;
    }
    let mut report = Report::new("connect", qos);
    report.per_unit("connection", opened, total);
    Ok(report)
}

/// A client's life: CONNECT, SUBSCRIBE, PUBLISH to itself, delivery, DISCONNECT, closed by the broker.
pub(super) fn churn(mut bench: Bench) -> Result<Report> {
    let (qos, count) = (bench.qos(0), bench.args.count.unwrap_or(20_000));
    let mut churn = Churn {
        payloads: Payloads::new(bench.args.payload),
        qos,
        lives: HashMap::new(),
        begun: 0,
        ended: 0,
        corrupt: 0,
    };
    churn.run(&mut bench, count.div_ceil(10))?;
    let before = bench.broker.settled_rss()?;
    let span = Span::begin(bench.broker)?;
    churn.run(&mut bench, count)?;
    let spent = span.end()?;
    let after = bench.broker.settled_rss()?;
    let mut report = Report::new("churn", qos);
    report.per_unit("cycle", count, spent);
    report.number("rss_drift_bytes_per_cycle", (after as f64 - before as f64) / count as f64);
    if churn.corrupt > 0 {
        report.note(format!("{} lives took a wrong turn", churn.corrupt));
    }
    Ok(report)
}

struct Churn {
    payloads: Payloads,
    qos: u8,
    /// By connection: which life, and whether its message came back.
    lives: HashMap<Id, (u64, bool)>,
    begun: u64,
    ended: u64,
    corrupt: u64,
}

impl Churn {
    /// Lets `count` more clients live.
    fn run(&mut self, bench: &mut Bench, count: u64) -> Result<()> {
        let goal = self.ended + count;
        let mut watch = Watch::new();
        while self.ended < goal {
            while self.begun < goal && self.lives.len() < COMING_AND_GOING {
                let id = bench.net.open()?;
                mqtt::connect(bench.net.out(id), &format!("load-churn-{}", self.begun), true);
                self.lives.insert(id, (self.begun, false));
                self.begun += 1;
            }
            bench.net.turn(GLANCE, |net, id, event| {
                let Some((life, is_back)) = self.lives.get_mut(&id) else {
                    return fault(format!("{event:?} for nobody"));
                };
                let packet = match event {
                    Event::Packet(packet) => packet,
                    Event::Closed => {
                        self.corrupt += u64::from(!*is_back);
                        self.ended += 1;
                        self.lives.remove(&id);
                        return Ok(());
                    }
                };
                match packet {
                    Packet::Connack { code: 0, .. } => {
                        let topic = format!("churn/{life}");
                        let stamp = Stamp { sequence: *life, ..Stamp::default() };
                        let payload = self.payloads.write(stamp);
                        let out = net.out(id);
                        mqtt::subscribe(out, 1, std::slice::from_ref(&topic), self.qos);
                        mqtt::publish(out, &topic, self.qos, false, 2, payload);
                    }
                    Packet::Publish(publish) => {
                        let stamp = self.payloads.read(publish.payload);
                        if stamp.is_some_and(|stamp| stamp.sequence == *life) && !*is_back {
                            *is_back = true;
                        } else {
                            self.corrupt += 1;
                        }
                        mqtt::answer(net.out(id), &packet);
                        mqtt::disconnect(net.out(id));
                    }
                    Packet::Pubrec(packet_id) => mqtt::pubrel(net.out(id), packet_id),
                    Packet::Suback(true) | Packet::Puback(_) | Packet::Pubcomp(_) | Packet::Pubrel(_) => {}
                    other => return fault(format!("{other:?} in life {life}")),
                }
                Ok(())
            })?;
            if watch.is_stuck(self.ended) {
                return fault(format!("churn stands still after {} of {goal} lives", self.ended));
            }
        }
        Ok(())
    }
}
