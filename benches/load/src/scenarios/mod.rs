//! The scenarios by name, and what they share.

mod connections;
mod durable;
mod filters;
mod flood;
mod flow;
mod hostile;
mod offline;
mod pair;
mod rate;
mod reconnect;
mod retained;
mod scale;
mod sessions;

use crate::args::Args;
use crate::clients::{Spec, bring_up, take_down};
use crate::error::{Result, fault};
use crate::mqtt::Version;
use crate::net::{Id, Link, Net};
use crate::probe::Process;
use crate::publisher::{Publisher, Window};
use crate::relay::{HELLO_BYTES, Relay, hello};
use crate::report::Report;
use crate::tls;

/// Messages on their way through the broker at once, over all publishers, unless said otherwise.
const OUTSTANDING: u64 = 4_000;
const OUTSTANDING_EACH: u64 = 400;
/// Unacknowledged packets per publisher, unless said otherwise.
const WINDOW: u64 = 64;

/// A run: its options, its connections, the broker's process.
pub struct Bench {
    args: Args,
    net: Net,
    /// For connections from other threads.
    link: Link,
    broker: Process,
    /// Stands in for a broker, if this is there.
    relay: Option<Relay>,
}

/// Runs the scenario `args` names.
///
/// # Errors
/// An unknown name, or a run that could not be made to its end.
pub fn run(args: Args) -> Result<Report> {
    if args.scenario.starts_with(hostile::PREFIX) {
        return hostile::run(&args);
    }
    let relay = if args.relay { Some(start_relay(&args)?) } else { None };
    let (address, pid) = relay.as_ref().map_or((args.broker, args.pid), |r| (r.address, r.pid()));
    let version = if args.v5 { Version::V5 } else { Version::V3 };
    let tls = args.ca.as_deref().map(tls::client_config).transpose()?;
    let link = Link { address, version, tls };
    let bench = Bench { args, net: Net::new(link.clone())?, link, broker: Process::new(pid)?, relay };
    match bench.args.scenario.as_str() {
        "fan-in" => flow::fan_in(bench),
        "fan-out" => flow::fan_out(bench),
        "pairs" => flow::pairs(bench),
        "stalled" => flow::stalled(bench),
        "rate" => rate::run(bench),
        "connections" => scale::connections(bench),
        "flood" => flood::run(bench),
        "reconnect" => reconnect::run(bench),
        "retained-storm" => retained::storm(bench),
        "idle" => connections::idle(bench),
        "connect" => connections::connect(bench),
        "churn" => connections::churn(bench),
        "filters" => filters::run(bench),
        "retained" => retained::run(bench),
        "offline" => offline::run(bench),
        "fill" => offline::fill(bench),
        "drain" => offline::drain(bench),
        "fill-sessions" => sessions::fill(bench),
        "drain-sessions" => sessions::drain(bench),
        "rewrite" => durable::rewrite(bench),
        "ack-latency" => durable::ack_latency(bench),
        other => fault(format!("unknown scenario {other}")),
    }
}

fn start_relay(args: &Args) -> Result<Relay> {
    let is_possible = matches!(args.scenario.as_str(), "fan-in" | "fan-out" | "pairs");
    if !is_possible || args.qos.unwrap_or(0) > 0 || args.tls {
        return fault("--relay: only fan-in, fan-out and pairs, at QoS 0 and without TLS");
    }
    Relay::start()
}

impl Bench {
    /// What the relay is told, if there is one: it ties all clients together, or each pair.
    fn hello(&self, is_publisher: bool, client: usize) -> Option<[u8; HELLO_BYTES]> {
        let group = if self.args.scenario == "pairs" { client as u32 } else { 0 };
        self.relay.as_ref().map(|_| hello(is_publisher, group))
    }

    fn qos(&self, default: u8) -> u8 {
        self.args.qos.unwrap_or(default)
    }

    fn window(&self, publishers: usize, qos: u8, unacknowledged: u64) -> Window {
        let each = (OUTSTANDING / publishers as u64).clamp(1, OUTSTANDING_EACH);
        let unacknowledged = self.args.window.unwrap_or(unacknowledged);
        let undelivered = self.args.outstanding.unwrap_or(each);
        // A burst larger than what may be on the way would never leave.
        let burst = self.args.burst.min(undelivered);
        Window { unacknowledged, undelivered, burst: if qos > 0 { burst.min(unacknowledged) } else { burst } }
    }

    /// Brings `count` publishers up.
    fn publishers(&mut self, count: usize, qos: u8, window: Window, fan_out: u64) -> Result<Vec<Publisher>> {
        let specs: Vec<Spec> = (0..count)
            .map(|n| Spec {
                hello: self.hello(true, n),
                ..Spec::clean(format!("load-pub-{n}"), Vec::new(), qos)
            })
            .collect();
        let ids = bring_up(&mut self.net, &specs)?;
        let numbered = ids.into_iter().enumerate();
        Ok(numbered.map(|(index, id)| Publisher::new(id, index, qos, window, fan_out)).collect())
    }

    /// Brings subscribers up, one for each list of filters.
    fn subscribers(&mut self, filters: Vec<Vec<String>>, qos: u8) -> Result<Vec<Id>> {
        let clean_session = !self.args.persistent;
        let spec = |(n, filters): (usize, Vec<String>)| match self.hello(false, n) {
            None => Spec { clean_session, ..Spec::clean(format!("load-sub-{n}"), filters, qos) },
            hello => Spec { hello, ..Spec::clean(String::new(), Vec::new(), qos) },
        };
        let specs: Vec<Spec> = filters.into_iter().enumerate().map(spec).collect();
        bring_up(&mut self.net, &specs)
    }

    /// Makes a session with a subscription and leaves it to itself.
    fn absent_subscriber(&mut self, client_id: &str, filter: &str, qos: u8) -> Result<()> {
        let filters = vec![filter.to_owned()];
        let spec = Spec { clean_session: false, ..Spec::clean(client_id.to_owned(), filters, qos) };
        let ids = bring_up(&mut self.net, &[spec])?;
        take_down(&mut self.net, &ids)
    }
}

/// `count` in equal shares, rounded up.
fn share(count: u64, publishers: usize) -> u64 {
    count.div_ceil(publishers as u64)
}
