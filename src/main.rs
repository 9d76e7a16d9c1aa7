//! The `ternmq` program: flags, configuration, logs, broker, signals, exit code. Everything else is in the library.
//!
//! Exit codes: 0 stopped as asked or `check` found nothing, 1 the broker could not start or had to
//! end by itself, 2 faults in the flags or the configuration or a data directory of a later
//! version, 128 + n a second signal ended a shutdown under way. Those of `passwd` are in its
//! module. `acl explain`: 0 allowed, 1 denied, 2 faults.

mod allocator;
mod cli;
mod passwd;
mod process;
mod reload;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use ternmq::auth::acl;
use ternmq::config::{self, Loaded, Sources};
use ternmq::logging::{self, LogControl};
use ternmq::{Broker, Ended, StartError};
use tracing::{info, warn};

use self::allocator::Trimming;
use self::process::{Asked, Signals};
use self::reload::Reloader;

fn main() -> ExitCode {
    let _flush = FlushLog;
    allocator::give_large_blocks_back();
    let arguments = cli::Arguments::read();
    if let Some(arguments) = arguments.passwd() {
        return passwd::run(arguments);
    }
    let is_check = arguments.is_check();
    let question = arguments.question();
    let sources = arguments.into_sources(std::env::vars_os().collect());
    let loaded = match config::load(&sources) {
        Ok(mut loaded) => {
            loaded.use_default_data_dir(&sources.environment);
            loaded.use_machine_memory();
            loaded
        }
        Err(faults) => {
            complain(&faults);
            return ExitCode::from(2);
        }
    };
    if let Some(question) = question {
        return answer(&loaded, &question);
    }
    if is_check {
        if let Err(faults) = acl::load(&loaded.config) {
            complain(&faults);
            return ExitCode::from(2);
        }
        // Whoever closed the pipe has read enough.
        let _ = cli::print(&loaded);
        return ExitCode::SUCCESS;
    }
    match start(sources, loaded) {
        Ok(code) => code,
        Err(error) => {
            complain(&format_args!("ternmq: {error}"));
            // A supervisor must not start it again: it cannot succeed.
            let is_final = error.downcast_ref().is_some_and(StartError::is_final);
            if is_final { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// One line (or one per fault) on standard error, whatever the log's level and form.
fn complain(what: &dyn fmt::Display) {
    logging::print(what);
}

/// Waits at the end of `main`, however it comes, until the log is written.
struct FlushLog;

impl Drop for FlushLog {
    fn drop(&mut self) {
        logging::flush();
    }
}

/// Says what the access rules say to the question.
fn answer(loaded: &Loaded, question: &cli::Question) -> ExitCode {
    match acl::explain(&loaded.config, question.who(), question.access(), &question.topic) {
        Ok(explanation) => {
            let _ = writeln!(io::stdout(), "{explanation}");
            ExitCode::from(u8::from(!explanation.allowed))
        }
        Err(faults) => {
            complain(&faults);
            ExitCode::from(2)
        }
    }
}

fn start(sources: Sources, loaded: Loaded) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let log = logging::init(&loaded.config.log)?;
    process::log_panics();
    loaded.warnings.iter().for_each(|warning| warn!("{warning}"));
    process::raise_descriptor_limit(&loaded.config.limits);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(sources, loaded, log));
    // The broker has had its time to finish; a task that is stuck must not keep the process.
    runtime.shutdown_background();
    result
}

async fn run(
    sources: Sources,
    loaded: Loaded,
    log: LogControl,
) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut signals = Signals::new()?;
    let mut reloader = Reloader::new(sources, loaded.clone(), log);
    let is_default_listener = loaded.has_default_listener();
    let is_default_data_dir = loaded.has_default_data_dir();
    let broker = tokio::select! {
        broker = Broker::start(loaded.config) => match broker {
            Err(error @ StartError::DataDir(_)) if is_default_data_dir && !error.is_final() => {
                return Err(process::with_ways_out(&error).into());
            }
            broker => broker?,
        },
        signal = signals.stop() => {
            info!(signal = signal.name(), "stopped before the broker was up");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if is_default_listener {
        process::log_default_listener();
    }
    info!(version = env!("CARGO_PKG_VERSION"), "started");
    let mut trimming = Trimming::default();
    let mut looks = tokio::time::interval(Trimming::EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let signal = loop {
        tokio::select! {
            _ = looks.tick() => if trimming.is_due(&broker.metrics()) {
                tokio::task::spawn_blocking(allocator::give_free_pages_back);
            },
            ended = broker.ended() => {
                tokio::select! {
                    () = broker.shutdown() => {}
                    _ = signals.stop() => {}
                }
                return Err(format!("the broker has ended by itself: {ended:?}").into());
            }
            asked = signals.next() => match asked {
                Asked::Stop(signal) => break signal,
                Asked::Reload => reloader.reload(&broker, "SIGHUP"),
            },
            () = reloader.changed() => reloader.reload(&broker, "a file has changed"),
        }
    };
    info!(signal = signal.name(), "shutting down; a second signal ends at once");
    tokio::select! {
        () = broker.shutdown() => match broker.ended().await {
            Ended::ShutDown => {
                info!("stopped");
                Ok(ExitCode::SUCCESS)
            }
            ended => Err(format!("the broker did not end in order: {ended:?}").into()),
        },
        signal = signals.stop() => Ok(signal.exit_code()),
    }
}
