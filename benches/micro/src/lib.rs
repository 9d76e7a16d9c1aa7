//! Single operations of the broker, each as a value that can be run any number of times: for the wall clock (`benches/wall_clock.rs`) and
//! for counting instructions (`src/bin/instructions`).
//!
//! The broker's modules are compiled in as source: they are private to the crate `ternmq`, and without `net` and its cryptography the build
//! takes a fraction of the time. What is measured here is what those modules do, nothing of it is written a second time, but for the few
//! lines of `net/packets.rs` that `cases/turn.rs` says.
//!
//! Lints look at those modules where they belong.
//!
//! A case prepares what it needs, checks once that the operation does what its name says, and then does nothing but the operation.

#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/accounts.rs"]
mod accounts;
mod auth;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/authentication.rs"]
mod authentication;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/broker/mod.rs"]
mod broker;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/config/mod.rs"]
mod config;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/escape.rs"]
mod escape;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/ledger.rs"]
mod ledger;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/metrics.rs"]
mod metrics;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/protocol/mod.rs"]
mod protocol;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/router/mod.rs"]
mod router;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/session/mod.rs"]
mod session;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/storage/mod.rs"]
mod storage;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/sync.rs"]
mod sync;
#[allow(clippy::all, dead_code, unused_imports)]
#[path = "../../../src/turns.rs"]
mod turns;

mod cases;

use std::fmt;

/// How much the operation finds: filters in the router, topics with a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// 10,000: enough to be no special case, and quickly built under valgrind.
    Small,
    /// 1,000,000.
    Large,
}

impl Scale {
    fn count(self) -> usize {
        match self {
            Self::Small => 10_000,
            Self::Large => 1_000_000,
        }
    }

    /// Different topics asked for: few for counting, for the wall clock more than the processor's caches hold entries of.
    fn topics(self) -> usize {
        match self {
            Self::Small => 1_000,
            Self::Large => 50_000,
        }
    }
}

/// An operation that is ready to be measured.
pub trait Operation {
    /// Puts things in order before a measurement; not measured itself.
    fn ready(&mut self) {}

    /// Does it so many times.
    fn run(&mut self, times: u32);
}

impl<F: FnMut(u32)> Operation for F {
    fn run(&mut self, times: u32) {
        self(times);
    }
}

/// One operation by its name.
pub struct Case {
    /// Unique; the name of its budget.
    pub name: &'static str,
    /// How often it is done in one measurement.
    pub times: u32,
    prepare: fn(Scale) -> Box<dyn Operation>,
}

impl Case {
    const fn new(name: &'static str, times: u32, prepare: fn(Scale) -> Box<dyn Operation>) -> Self {
        Self { name, times, prepare }
    }

    /// Makes it ready.
    ///
    /// # Panics
    /// If the operation does not do what it should.
    pub fn prepare(&self, scale: Scale) -> Box<dyn Operation> {
        (self.prepare)(scale)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// All cases, in the order of a message's way through the broker.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    cases::ALL.iter().flat_map(|cases| cases.iter())
}
