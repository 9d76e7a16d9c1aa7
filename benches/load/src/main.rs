//! Measures an MQTT broker from outside: its CPU time per message, its memory, its latency, and whether every message
//! arrived whole, once and in order. One thread; see `net` for how it keeps its own cost low.
//!
//! What it is not: a conformance suite. It assumes that the broker speaks MQTT 3.1.1 over plain TCP on this machine,
//! because it reads the broker's `/proc`.

mod args;
mod clients;
mod drive;
mod error;
mod mqtt;
mod net;
mod payload;
mod probe;
mod publisher;
mod report;
mod scenarios;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_none_or(|word| word == "--help" || word == "-h") {
        println!("{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    let outcome = args::Args::parse(words).and_then(|args| {
        let is_json = args.json;
        scenarios::run(args).map(|report| (report, is_json))
    });
    match outcome {
        Ok((report, is_json)) => {
            println!("{}", if is_json { report.json() } else { report.human() });
            ExitCode::from(u8::from(!report.is_clean()))
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(2)
        }
    }
}
