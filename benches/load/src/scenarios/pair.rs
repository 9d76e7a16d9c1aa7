//! A quiet pair of clients on a thread of its own: a few messages per second at QoS 0, and how long each takes while
//! others load the broker.
//!
//! The thread is there so that the pair does not wait while the rest of the generator is busy. Latency runs from the
//! moment a message was meant to be sent, as in `rate`, and `lateness` says how late the pair itself was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Bench;
use crate::clients::{GLANCE, Spec, Watch, bring_up};
use crate::drive::{Drive, Topics};
use crate::error::{Error, Result, fault};
use crate::net::{Link, Net};
use crate::payload::Faults;
use crate::publisher::{Publisher, Window};
use crate::report::Report;

/// Its topic: those who subscribe to everything hear it, too.
pub(super) const TOPIC: &str = "quiet/pair";
const RATE: u64 = 100;
const QOS: u8 = 0;
/// Tag of messages before the measurement.
const UNCOUNTED: u32 = 0;
/// Tag of those within.
const COUNTED: u32 = 1;

/// See the module's documentation.
pub(super) struct Pair {
    switches: Arc<Switches>,
    thread: JoinHandle<Result<Outcome>>,
}

#[derive(Default)]
struct Switches {
    is_counting: AtomicBool,
    is_over: AtomicBool,
}

struct Outcome {
    latency: Vec<u64>,
    lateness: Vec<u64>,
    faults: Faults,
}

impl Pair {
    /// Connects the pair and lets it talk.
    ///
    /// # Errors
    /// It does not come up.
    pub(super) fn start(bench: &Bench) -> Result<Self> {
        let switches = Arc::new(Switches::default());
        let (link, payload) = (bench.link.clone(), bench.args.payload);
        let rate = bench.args.rate.unwrap_or(RATE);
        let (up, is_up) = channel();
        let theirs = Arc::clone(&switches);
        let thread = std::thread::spawn(move || talk(link, payload, rate, &theirs, &up));
        let pair = Self { switches, thread };
        if is_up.recv().is_err() {
            return pair.join().and_then(|_| fault("the pair ended before it began"));
        }
        Ok(pair)
    }

    /// Measures from here on.
    pub(super) fn count(&self) {
        self.switches.is_counting.store(true, Ordering::Relaxed);
    }

    /// Stops, waits for what is on its way, and reports.
    ///
    /// # Errors
    /// The pair lost its connections.
    pub(super) fn finish(self, report: &mut Report) -> Result<()> {
        self.switches.is_over.store(true, Ordering::Relaxed);
        let mut outcome = self.join()?;
        report.number("pair_messages", outcome.latency.len() as f64);
        report.percentiles("pair_latency", &mut outcome.latency);
        report.percentiles("pair_lateness", &mut outcome.lateness);
        report.faults(&outcome.faults);
        Ok(())
    }

    fn join(self) -> Result<Outcome> {
        self.thread.join().map_err(|_| Error("the pair's thread panicked".to_owned()))?
    }
}

fn talk(link: Link, payload: usize, rate: u64, switches: &Switches, up: &Sender<()>) -> Result<Outcome> {
    let mut net = Net::new(link)?;
    let subscriber = Spec::clean("load-pair-sub".to_owned(), vec![TOPIC.to_owned()], QOS);
    let publisher = Spec::clean("load-pair-pub".to_owned(), Vec::new(), QOS);
    let ids = bring_up(&mut net, &[subscriber, publisher])?;
    // The schedule alone decides when to send.
    let window = Window { unacknowledged: u64::MAX, undelivered: u64::MAX, burst: 1 };
    let publishers = vec![Publisher::new(ids[1], 0, QOS, window, 1)];
    let topics = Topics { names: vec![TOPIC.to_owned(); 2], hears: |_, _, _| true, is_all_or_none: true };
    let mut drive = Drive::new(publishers, &ids[..1], topics, payload);
    // Whoever started this is not there any more only if the run is over.
    let _ = up.send(());

    let (mut latency, mut lateness, mut watch) = (Vec::new(), Vec::new(), Watch::new());
    let interval = Duration::from_nanos(1_000_000_000 / rate);
    let start = Instant::now();
    let (mut sent, mut next) = (0u64, start);
    loop {
        let is_over = switches.is_over.load(Ordering::Relaxed);
        if is_over && drive.received >= sent {
            break;
        }
        let now = Instant::now();
        while !is_over && next <= now {
            let is_counted = switches.is_counting.load(Ordering::Relaxed);
            if is_counted {
                lateness.push((now - next).as_nanos() as u64);
            }
            let tag = if is_counted { COUNTED } else { UNCOUNTED };
            let intended_ns = (next - start).as_nanos() as u64;
            drive.publishers[0].send(&mut net, &mut drive.payloads, TOPIC, tag, intended_ns);
            sent += 1;
            next += interval;
        }
        if !is_over {
            net.wake_at(next)?;
        }
        net.turn(GLANCE, |net, id, event| {
            let stamp = drive.receive(net, id, event)?;
            if let Some(stamp) = stamp.filter(|stamp| stamp.tag == COUNTED) {
                latency.push((start.elapsed().as_nanos() as u64).saturating_sub(stamp.intended_ns));
            }
            Ok(())
        })?;
        // What is sent is no progress: a broker that has forgotten the pair must be noticed.
        if watch.is_stuck(drive.received) {
            break;
        }
    }
    drive.settle(sent);
    Ok(Outcome { latency, lateness, faults: drive.order.faults })
}
