//! Clients that want more than their share, and what uninvolved ones wait meanwhile.
//!
//! Each case prepares its clients, then the bystanders begin to measure and the case does its
//! worst. A case asks for what a client may ask for at default limits; it is not judged what
//! becomes of it. What counts is the wait of the bystanders, less the lateness of their own echo:
//! see `bystanders`.

mod broker;
mod bystanders;
mod groups;
mod routing;
mod sessions;
mod stage;

use std::net::SocketAddrV4;
use std::time::Duration;

use self::broker::Broker;
use self::bystanders::{Bystanders, Seen, Waits};
use self::stage::Stage;
use crate::args::Args;
use crate::error::{Error, Result};
use crate::mqtt::Version;
use crate::net::{Link, Net};
use crate::probe::Process;
use crate::report::Report;

/// All names of cases begin with it.
pub(super) const PREFIX: &str = "hostile-";
const ALL: &str = "hostile-all";
/// What the bystanders may wait, less the lateness.
const P999_MAX: Duration = Duration::from_millis(20);
const WORST_MAX: Duration = Duration::from_millis(100);
/// The bystanders measure at least so long, so that there are thousands of moments, and some time
/// behind the end of the case's own work.
const MEASURED_MIN: Duration = Duration::from_secs(10);
const AFTER: Duration = Duration::from_secs(2);

/// A way to be hostile.
struct Case {
    name: &'static str,
    /// Another filter of the pair's receiver.
    also: Option<&'static str>,
    /// Prepares, calls [`Stage::begin`], and does its worst.
    run: fn(&mut Stage) -> Result<()>,
}

const fn case(name: &'static str, run: fn(&mut Stage) -> Result<()>) -> Case {
    Case { name, also: None, run }
}

const CASES: &[Case] = &[
    // What the machine does to the bystanders without any load.
    case("hostile-nobody", |stage| stage.begin()),
    case("hostile-filters", routing::filters),
    case("hostile-filters-200k", routing::filters_200k),
    case("hostile-unsubscribe", sessions::unsubscribe),
    case("hostile-subscribe", sessions::subscribe),
    case("hostile-subscribe-persistent", sessions::subscribe_persistent),
    case("hostile-group", groups::leave_at_once),
    case("hostile-group-busy", groups::busy),
    case("hostile-receivers", routing::receivers),
    Case { also: Some(routing::SHARED_WITH_PAIR), ..case("hostile-wait", routing::wait) },
    case("hostile-ends", sessions::ends),
    case("hostile-expired", sessions::expired),
    case("hostile-expiry", sessions::expiry),
    case("hostile-replay", sessions::replay),
];

/// Runs the case that `args` names, or all of them, each with a broker of its own if one is to be started.
///
/// # Errors
/// An unknown name, or a run that could not be made to its end.
pub(super) fn run(args: &Args) -> Result<Report> {
    if args.scenario != ALL {
        let case = CASES.iter().find(|case| case.name == args.scenario);
        let case = case.ok_or_else(|| Error(format!("unknown scenario {}", args.scenario)))?;
        return run_one(case, args);
    }
    let mut all = Report::new(ALL, 0);
    if !args.json {
        println!("{}", heading());
    }
    for case in CASES {
        match run_one(case, args) {
            Ok(report) => {
                println!("{}", if args.json { report.json() } else { row(case, &report) });
                if !report.is_clean() {
                    all.note(format!("{}: too long", case.name));
                }
            }
            Err(error) => {
                println!("{:<30} {error}", case.name);
                all.note(format!("{}: {error}", case.name));
            }
        }
    }
    all.number("cases", CASES.len() as f64);
    Ok(all)
}

fn run_one(case: &Case, args: &Args) -> Result<Report> {
    let started = args.program.as_deref().map(Broker::start).transpose()?;
    let (address, pid) = started.as_ref().map_or((args.broker, args.pid), |it| (it.address, it.pid()));
    let broker = Process::new(pid)?;
    let (seen, mut report) = measure(case, address, broker)?;
    report.number("broker_rss_mb", broker.rss()? as f64 / 1e6);
    judge(&seen, &mut report);
    Ok(report)
}

fn measure(case: &Case, address: SocketAddrV4, broker: Process) -> Result<(Seen, Report)> {
    let link = Link { address, version: Version::V5, tls: None };
    let bystanders = Bystanders::start(&link, case.also)?;
    let mut stage = Stage::new(Net::new(link)?, broker, bystanders);
    (case.run)(&mut stage)?;
    let begun = stage.begun()?;
    while begun.began().elapsed() < MEASURED_MIN {
        stage.pass(Duration::from_millis(100))?;
    }
    stage.pass(AFTER)?;
    let load = load_average();
    let (seen, begun) = stage.finish()?;
    let spent = begun.end()?;
    let mut report = Report::new(case.name, 0);
    report.number("broker_cpu_s", spent.broker.as_secs_f64());
    report.number("load_cpu_s", spent.own.as_secs_f64());
    report.number("wall_s", spent.wall.as_secs_f64());
    report.number("machine_load", load);
    Ok((seen, report))
}

/// Puts the waits into the report, and says which are too long.
fn judge(seen: &Seen, report: &mut Report) {
    let mut lateness = seen.lateness.clone();
    report.percentiles("lateness", &mut lateness);
    let unanswered: usize =
        [&seen.pair, &seen.ping, &seen.connect].iter().map(|waits| waits.unanswered).sum();
    report.number("unanswered", unanswered as f64);
    for (name, waits) in [("pair", &seen.pair), ("ping", &seen.ping), ("connect", &seen.connect)] {
        let Waits { raw, net, .. } = waits;
        report.number(format!("{name}_count"), raw.len() as f64);
        report.percentiles(&format!("{name}_raw"), &mut raw.clone());
        let mut net = net.clone();
        report.percentiles(name, &mut net);
        for (label, bound) in [("p999", P999_MAX), ("max", WORST_MAX)] {
            let value = report.get(&format!("{name}_{label}_us")).unwrap_or(0.0);
            if value > bound.as_secs_f64() * 1e6 {
                report.note(format!("{name} {label}: {:.0} ms", value / 1e3));
            }
        }
    }
}

fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn heading() -> String {
    format!(
        "{:<30} {:>8} {:>5}  {:>31}  {:>23}  {:>23}  {:>23}  {:>10}\n{:<30} {:>8} {:>5}  {:>31}  {:>23}  {:>23}  {:>23}",
        "waits in ms, less lateness",
        "CPU s",
        "load",
        "pair",
        "ping",
        "connect",
        "lateness",
        "unanswered",
        "",
        "",
        "",
        "p50     p99   p99.9   worst",
        "p99   p99.9   worst",
        "p99   p99.9   worst",
        "p99   p99.9   worst"
    )
}

fn row(case: &Case, report: &Report) -> String {
    let number = |name: &str| report.get(name).unwrap_or(0.0);
    let ms = |name: &str, labels: &[&str]| {
        let values = labels.iter().map(|label| number(&format!("{name}_{label}_us")) / 1e3);
        values
            .map(|value| format!("{:>7}", format!("{value:.*}", usize::from(value < 99.95))))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let rare = ["p99", "p999", "max"];
    format!(
        "{:<30} {:>8.2} {:>5.1}  {}  {}  {}  {}  {:>10} {}",
        case.name,
        number("broker_cpu_s"),
        number("machine_load"),
        ms("pair", &["p50", "p99", "p999", "max"]),
        ms("ping", &rare),
        ms("connect", &rare),
        ms("lateness", &rare),
        number("unanswered"),
        if report.is_clean() { "ok" } else { "TOO LONG" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_alike_and_a_wait_beyond_the_bounds_is_told() {
        assert!(CASES.iter().all(|case| case.name.starts_with(PREFIX) && case.name != ALL));
        let waits = |ms: u64| Waits { raw: vec![ms * 1_000_000], net: vec![ms * 1_000_000], unanswered: 0 };
        for (ms, is_right) in [(19, true), (21, false)] {
            let seen = Seen { pair: waits(ms), ..Seen::default() };
            let mut report = Report::new(ALL, 0);
            judge(&seen, &mut report);
            assert_eq!(report.is_clean(), is_right);
        }
    }
}
