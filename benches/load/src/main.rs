//! Measures an MQTT broker from outside: its CPU time per message, its memory, its latency, and whether every message
//! arrived whole, once and in order. One thread; see `net` for how it keeps its own cost low.
//!
//! What it is not: a conformance suite. It assumes that the broker runs on this machine, because it reads the broker's
//! `/proc`, and that it speaks MQTT correctly.

mod args;
mod clients;
mod drive;
mod error;
mod mqtt;
mod net;
mod payload;
mod probe;
mod publisher;
mod relay;
mod report;
mod scenarios;
mod tls;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_none_or(|word| word == "--help" || word == "-h") {
        println!("{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    if words.peek().is_some_and(|word| word == relay::COMMAND) {
        // Only an error ends it; else whoever started it does.
        if let Err(error) = relay::serve() {
            eprintln!("load: {error}");
        }
        return ExitCode::from(2);
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
