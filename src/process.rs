//! What the program asks of the operating system: descriptors, and signals to stop.

#![forbid(unsafe_code)]

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::process::ExitCode;

use ternmq::StartError;
use ternmq::config::Limits;
use ternmq::logging;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// Descriptors the program needs besides one for each client: listeners, files, the runtime's own.
const OWN_DESCRIPTORS: u64 = 100;

/// Allows this process as many descriptors as it may have, and says so if that is too few for
/// `connections_max`.
pub(crate) fn raise_descriptor_limit(limits: &Limits) {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(descriptors) => {
            let wanted = (limits.connections_max as u64).saturating_add(OWN_DESCRIPTORS);
            // The default is meant as "as many as the system allows"; whoever wrote a number is
            // told when it cannot be had.
            if wanted > descriptors && limits.connections_max != Limits::default().connections_max {
                warn!(
                    nofile = descriptors,
                    connections_max = limits.connections_max,
                    "the limit of open files (NOFILE) is too low for limits.connections_max; raise the one or lower \
                     the other"
                );
            }
        }
        Err(error) => warn!(%error, "cannot raise the limit of open files (NOFILE)"),
    }
}

/// Has panics told through the log's queue: else a thread that serves clients would wait for the
/// log's reader.
pub(crate) fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("<unnamed>");
        // With RUST_BACKTRACE, as usual.
        match Backtrace::capture() {
            trace if trace.status() == BacktraceStatus::Captured => {
                logging::print(&format_args!("thread '{name}' {info}\n{trace}"));
            }
            _ => logging::print(&format_args!("thread '{name}' {info}")),
        }
    }));
}

/// The signals the program obeys. Made before anything is started, so that none is missed.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Stop(Stop),
    /// SIGHUP.
    Reload,
}

/// A signal to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Terminate,
    Interrupt,
}

impl Stop {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stop::Terminate => "SIGTERM",
            Stop::Interrupt => "SIGINT",
        }
    }

    /// What a shell reports of a program that such a signal ended.
    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Stop::Terminate => ExitCode::from(128 + 15),
            Stop::Interrupt => ExitCode::from(128 + 2),
        }
    }
}

impl Signals {
    /// Takes the signals over; must be called inside the runtime.
    ///
    /// # Errors
    /// That of the operating system.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal. Drops none if it is cancelled.
    pub(crate) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop(Stop::Terminate),
            _ = self.interrupt.recv() => Asked::Stop(Stop::Interrupt),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }

    /// Waits for the next signal to stop; there is nothing to reload.
    pub(crate) async fn stop(&mut self) -> Stop {
        loop {
            if let Asked::Stop(stop) = self.next().await {
                return stop;
            }
        }
    }
}

/// Says how to get from a broker for this machine to one for the network.
pub(crate) fn log_default_listener() {
    info!(
        "no listener is configured: clients on this machine only, without login. To open the broker to the network \
         start it with --bind 0.0.0.0:1883 --allow-anonymous, or set [[listeners]] in a file given with --config"
    );
}

/// Why the broker does not start in the default data directory, and what to do about it: whoever
/// reads it has not chosen that directory and may not know of it.
pub(crate) fn with_ways_out(error: &StartError) -> String {
    format!(
        "{error}. Nothing names a data directory, so this is the default one: give this broker one of its own with \
         --data-dir DIR (data_dir in the file), or start it with --storage memory to keep nothing on disk"
    )
}
