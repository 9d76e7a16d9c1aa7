//! The command line.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use crate::error::{Error, Result, fault};

/// How to call the program.
pub const USAGE: &str = "\
load SCENARIO --broker ADDR:PORT --pid PID [options]
load fan-in|fan-out|pairs --relay [options]
load hostile-all|hostile-CASE --program FILE [options]

Scenarios: fan-in fan-out pairs rate idle connect churn stalled filters retained offline
Of scale and fairness: connections flood reconnect retained-storm
Of durable state, QoS 1: fill drain fill-sessions drain-sessions rewrite ack-latency
  `drain` and `drain-sessions` take the options of the fill before them, perhaps from another run of the broker.
Of clients that want too much, and what uninvolved ones wait meanwhile; MQTT 5:
  hostile-all, or one of hostile-nobody filters filters-200k unsubscribe subscribe subscribe-persistent group
  group-busy receivers wait ends expired expiry replay

  --program FILE         hostile: start this broker, TernMQ or mosquitto, on a free port for each case
  --v5                   MQTT 5 instead of 3.1.1
  --tls --ca FILE        TLS 1.3 to a broker whose certificate is for `localhost`, signed by one of FILE
  --relay                no broker: a second process of this program that passes packets on and knows no protocol
  --qos 0|1|2            of publishers and subscribers (default 0; offline and retained: 1)
  --payload BYTES        at least 24 (default 64)
  --count N              messages published, connections, cycles, filters or retained messages, as the scenario has it
  --persistent           fan-in, fan-out, pairs: subscribers' sessions outlive their connections: messages are durable
  --dir DIR              ack-latency: compare with writes and syncs of files made here, which is on the broker's disk
  --publishers N         publishing clients (fan-in, pairs, rate 100; filters, retained, offline, stalled 10;
                         connections: 5, with as many subscribers)
  --subscribers N        subscribing clients (fan-out 100; filters: one per 1,000, but 100 to 1,000 of them;
                         sessions of fill-sessions 100000, reads of all in retained-storm 20)
  --messages N           filters, connections: messages published through them
  --rate N               messages per second in all (rate: 4000; the pair of flood and retained-storm: 100)
  --bare                 connect, idle: connections without a subscription
  --window N             unacknowledged packets per publisher, QoS 1 and 2 (default 64, fan-in 16, rewrite 1)
  --outstanding N        messages per publisher that are not yet at their subscribers
                         (default: 4000 in all, at most 400 each)
  --burst N              a publisher waits until it may send so many, then sends them in one write (default 1)
  --json                 one JSON object on standard output in place of a line for people

Exit code: 0 if everything arrived whole, once and in order, 1 if not, 2 if the run could not be made.";

/// What to run; a `None` is the scenario's default.
#[derive(Debug, Clone)]
pub struct Args {
    /// Name of the scenario.
    pub scenario: String,
    /// The broker.
    pub broker: SocketAddrV4,
    /// Its process.
    pub pid: u32,
    /// A broker to start.
    pub program: Option<PathBuf>,
    /// QoS of publishers and subscribers.
    pub qos: Option<u8>,
    /// Bytes of payload.
    pub payload: usize,
    /// How much; the unit is the scenario's.
    pub count: Option<u64>,
    /// Publishing clients.
    pub publishers: Option<usize>,
    /// Subscribing clients.
    pub subscribers: Option<usize>,
    /// Messages of `filters`.
    pub messages: Option<u64>,
    /// Messages per second.
    pub rate: Option<u64>,
    /// Unacknowledged packets per publisher.
    pub window: Option<u64>,
    /// Undelivered messages per publisher.
    pub outstanding: Option<u64>,
    /// Messages a publisher waits to be allowed to send together.
    pub burst: u64,
    /// Subscribers have sessions that outlive their connections.
    pub persistent: bool,
    /// Where `ack-latency` makes the files it compares with.
    pub dir: Option<PathBuf>,
    /// MQTT 5.
    pub v5: bool,
    /// Speak TLS.
    pub tls: bool,
    /// Certificates to trust.
    pub ca: Option<PathBuf>,
    /// Against the relay in place of a broker.
    pub relay: bool,
    /// Connections do not subscribe.
    pub bare: bool,
    /// Print JSON.
    pub json: bool,
}

impl Args {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// The first argument that cannot be used.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let Some(scenario) = words.next() else { return fault("which scenario?") };
        let (mut broker, mut pid) = (None, None);
        let mut args = Self {
            scenario,
            broker: SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0),
            pid: 0,
            program: None,
            qos: None,
            payload: 64,
            count: None,
            publishers: None,
            subscribers: None,
            messages: None,
            rate: None,
            window: None,
            outstanding: None,
            burst: 1,
            persistent: false,
            dir: None,
            v5: false,
            tls: false,
            ca: None,
            relay: false,
            bare: false,
            json: false,
        };
        while let Some(name) = words.next() {
            let switch = match name.as_str() {
                "--json" => Some(&mut args.json),
                "--persistent" => Some(&mut args.persistent),
                "--v5" => Some(&mut args.v5),
                "--tls" => Some(&mut args.tls),
                "--relay" => Some(&mut args.relay),
                "--bare" => Some(&mut args.bare),
                _ => None,
            };
            if let Some(switch) = switch {
                *switch = true;
                continue;
            }
            let Some(value) = words.next() else { return fault(format!("{name} needs a value")) };
            match name.as_str() {
                "--broker" => broker = Some(number(&name, &value)?),
                "--pid" => pid = Some(number(&name, &value)?),
                "--qos" => args.qos = Some(number(&name, &value)?),
                "--payload" => args.payload = number(&name, &value)?,
                "--count" => args.count = Some(number(&name, &value)?),
                "--publishers" => args.publishers = Some(number(&name, &value)?),
                "--subscribers" => args.subscribers = Some(number(&name, &value)?),
                "--messages" => args.messages = Some(number(&name, &value)?),
                "--rate" => args.rate = Some(number(&name, &value)?),
                "--window" => args.window = Some(number(&name, &value)?),
                "--burst" => args.burst = number(&name, &value)?,
                "--ca" => args.ca = Some(value.into()),
                "--program" => args.program = Some(value.into()),
                "--dir" => args.dir = Some(value.into()),
                "--outstanding" => args.outstanding = Some(number(&name, &value)?),
                _ => return fault(format!("unknown option {name}")),
            }
        }
        let is_hostile = args.scenario.starts_with("hostile-");
        match (broker, pid, args.relay, &args.program) {
            (Some(broker), Some(pid), false, None) => (args.broker, args.pid) = (broker, pid),
            (None, None, true, None) => {}
            (None, None, false, Some(_)) if is_hostile => {}
            _ => {
                return fault(
                    "either --relay, or --broker and --pid, are needed; or --program for hostile-*",
                );
            }
        }
        if args.tls != args.ca.is_some() {
            return fault("--tls and --ca go together");
        }
        let zeros = [args.count, args.messages, args.window, args.outstanding, args.rate, Some(args.burst)];
        let sizes = [args.publishers, args.subscribers];
        if zeros.contains(&Some(0)) || sizes.contains(&Some(0)) {
            return fault("a count of zero measures nothing");
        }
        if args.qos.is_some_and(|qos| qos > 2) || args.payload < crate::payload::LEAST {
            return fault("--qos is 0, 1 or 2, --payload at least 24");
        }
        if args.window.is_some_and(|window| window > 60_000) {
            return fault("--window: there are only 65,535 packet ids");
        }
        Ok(args)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error(format!("{name}: {value:?} cannot be used")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_line_is_read() {
        let args = parse("fan-in --broker 127.0.0.1:99 --pid 7 --qos 2 --json --count 5").unwrap();
        assert_eq!((args.pid, args.qos, args.count, args.json), (7, Some(2), Some(5), true));
        assert_eq!(args.broker.port(), 99);
        let args = parse("fan-in --persistent --broker 127.0.0.1:99 --dir a/b --pid 7").unwrap();
        assert_eq!((args.persistent, args.dir.as_deref()), (true, Some("a/b".as_ref())));
        let args = parse("pairs --relay --v5").unwrap();
        assert!(args.relay && args.v5 && !args.tls);
        let args = parse("hostile-all --program a/b").unwrap();
        assert_eq!(args.program.as_deref(), Some("a/b".as_ref()));
        let args = parse("connect --broker 127.0.0.1:99 --pid 7 --tls --ca c.pem --bare").unwrap();
        assert_eq!((args.tls, args.bare, args.ca.as_deref()), (true, true, Some("c.pem".as_ref())));
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let good = "fan-in --broker 127.0.0.1:99 --pid 7";
        assert!(parse(good).is_ok());
        for bad in ["", "fan-in", "fan-in --pid 7", "fan-in --broker x --pid 7", "fan-in --program x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        for bad in [
            "--qos 3",
            "--count 0",
            "--payload 23",
            "--window 60001",
            "--what 1",
            "--count",
            "--tls",
            "--ca x",
            "--relay",
        ] {
            assert!(parse(&format!("{good} {bad}")).is_err(), "{bad}");
        }
    }
}
