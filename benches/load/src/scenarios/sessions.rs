//! Very many sessions that are away, each with a few messages: filling them, and fetching all of it again, perhaps
//! from another run of the broker. What a broker needs to start with them is measured from outside in between.

use super::{Bench, WINDOW, share};
use crate::clients::{GLANCE, Spec, Watch, bring_up, take_down};
use crate::drive::{Drive, Topics};
use crate::error::{Result, fault};
use crate::mqtt::{self, Packet};
use crate::net::Event;
use crate::payload::Payloads;
use crate::publisher::Window;
use crate::report::{Report, Span};

/// Connections of one storm; a process may usually not have as many descriptors as there are sessions.
const STORM: usize = 5_000;
const QOS: u8 = 1;
const PUBLISHERS: usize = 10;

/// How many there are, and how many messages each of the publishers sends.
struct Plan {
    sessions: usize,
    publishers: usize,
    each: u64,
}

impl Plan {
    fn new(bench: &Bench) -> Result<Self> {
        if bench.qos(QOS) != QOS {
            return fault("this scenario is about QoS 1");
        }
        let publishers = bench.args.publishers.unwrap_or(PUBLISHERS);
        let sessions = bench.args.subscribers.unwrap_or(100_000);
        Ok(Self { sessions, publishers, each: share(bench.args.count.unwrap_or(1_000_000), publishers) })
    }

    fn count(&self) -> u64 {
        self.each * self.publishers as u64
    }

    /// For which session a message is.
    fn session(&self, publisher: usize, sequence: u64) -> usize {
        ((sequence * self.publishers as u64 + publisher as u64) % self.sessions as u64) as usize
    }
}

fn client_id(session: usize) -> String {
    format!("load-session-{session:06}")
}

fn topic(session: usize) -> String {
    format!("session/{session:06}/command")
}

/// Makes the sessions and queues messages for them.
pub(super) fn fill(mut bench: Bench) -> Result<Report> {
    let plan = Plan::new(&bench)?;
    let before = bench.broker.settled_rss()?;
    let span = Span::begin(bench.broker)?;
    for first in (0..plan.sessions).step_by(STORM) {
        let specs: Vec<Spec> = (first..plan.sessions.min(first + STORM))
            .map(|n| Spec { clean_session: false, ..Spec::clean(client_id(n), vec![topic(n)], QOS) })
            .collect();
        let ids = bring_up(&mut bench.net, &specs)?;
        take_down(&mut bench.net, &ids)?;
    }
    let mut report = Report::new("fill-sessions", QOS);
    report.per_unit("session", plan.sessions as u64, span.end()?);

    let window = Window { undelivered: u64::MAX, ..bench.window(plan.publishers, QOS, WINDOW) };
    let publishers = bench.publishers(plan.publishers, QOS, window, 1)?;
    let topics = Topics {
        names: (0..plan.sessions).map(topic).collect(),
        hears: |_, _, _| true,
        is_all_or_none: false,
    };
    let mut drive = Drive::new(publishers, &[], topics, bench.args.payload);
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(plan.each));
    let span = Span::begin(bench.broker)?;
    drive.run(&mut bench.net, 0, |publisher, sequence| plan.session(publisher, sequence))?;
    report.per_unit("queued", plan.count(), span.end()?);
    let after = bench.broker.settled_rss()?;
    report.number("rss_growth_mb", (after as f64 - before as f64) / 1e6);
    report.number("rss_mb", after as f64 / 1e6);
    if drive.publishers.iter().any(|publisher| !publisher.is_done()) {
        report.note("not all messages were acknowledged");
    }
    Ok(report)
}

/// Fetches everything that `fill` with the same options has left in the broker.
pub(super) fn drain(mut bench: Bench) -> Result<Report> {
    let plan = Plan::new(&bench)?;
    let mut missing = vec![0u32; plan.sessions];
    for publisher in 0..plan.publishers {
        (0..plan.each).for_each(|sequence| missing[plan.session(publisher, sequence)] += 1);
    }
    let mut report = Report::new("drain-sessions", QOS);
    let mut collection = Collection {
        plan: &plan,
        payloads: Payloads::new(bench.args.payload),
        missing,
        owners: Vec::new(),
        next: vec![0; plan.sessions],
        done: 0,
        received: 0,
        corrupt: 0,
        disordered: 0,
    };
    let span = Span::begin(bench.broker)?;
    for first in (0..plan.sessions).step_by(STORM) {
        collection.fetch(&mut bench, first..plan.sessions.min(first + STORM))?;
    }
    report.per_unit("drained", collection.received, span.end()?);
    let missing = plan.count().saturating_sub(collection.received);
    if missing > 0 || collection.corrupt > 0 || collection.disordered > 0 {
        report.note(format!(
            "{missing} missing, {} not for who got them or not whole, {} out of order",
            collection.corrupt, collection.disordered
        ));
    }
    Ok(report)
}

struct Collection<'a> {
    plan: &'a Plan,
    payloads: Payloads,
    /// Messages to come, by session.
    missing: Vec<u32>,
    /// Which session a connection belongs to.
    owners: Vec<usize>,
    /// By session: the least sequence number its next message may have.
    next: Vec<u64>,
    /// Sessions that have all they were to get.
    done: u64,
    received: u64,
    corrupt: u64,
    disordered: u64,
}

impl Collection<'_> {
    /// Connects as these sessions, and reads until each has what is its own; silence ends it, too.
    fn fetch(&mut self, bench: &mut Bench, sessions: std::ops::Range<usize>) -> Result<()> {
        let goal = self.done + sessions.len() as u64;
        let (mut ids, mut watch, mut answered) = (Vec::new(), Watch::new(), 0u64);
        for session in sessions {
            let id = bench.net.open()?;
            mqtt::connect(bench.net.out(id), &client_id(session), false);
            if self.owners.len() <= id {
                self.owners.resize(id + 1, usize::MAX);
            }
            self.owners[id] = session;
            ids.push(id);
        }
        while self.done < goal && !watch.is_stuck(self.received + answered) {
            bench.net.turn(GLANCE, |net, id, event| {
                let Event::Packet(packet) = event else {
                    return fault("the broker closed a session's connection");
                };
                let session = self.owners[id];
                match packet {
                    Packet::Connack { present: true, code: 0 } => {
                        answered += 1;
                        self.done += u64::from(self.missing[session] == 0);
                    }
                    Packet::Publish(publish) => {
                        mqtt::answer(net.out(id), &packet);
                        self.take(session, publish.topic, publish.payload);
                    }
                    other => return fault(format!("{other:?} for session {session}: was it lost?")),
                }
                Ok(())
            })?;
        }
        take_down(&mut bench.net, &ids)
    }

    fn take(&mut self, session: usize, name: &[u8], payload: &[u8]) {
        let stamp = self.payloads.read(payload).filter(|stamp| stamp.tag as usize == session);
        let Some(stamp) = stamp.filter(|_| name == topic(session).as_bytes() && self.missing[session] > 0)
        else {
            self.corrupt += 1;
            return;
        };
        // Where the numbers make one publisher serve a session, the order of its messages can be judged.
        if self.plan.sessions.is_multiple_of(self.plan.publishers) {
            self.disordered += u64::from(stamp.sequence < self.next[session]);
            self.next[session] = stamp.sequence + 1;
        }
        self.missing[session] -= 1;
        self.received += 1;
        self.done += u64::from(self.missing[session] == 0);
    }
}
