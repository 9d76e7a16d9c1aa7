//! Models of what threads do to one another in the broker: between a turn, the log and the task of
//! a connection. Each is run in every order that its threads can come in, and fails where one of
//! them waits for ever.
//!
//! `tests/run models`, or here `cargo test`. What is in the models themselves is as short as it can
//! be; what they are about is the broker's own code:
//!
//! | file of the broker | models |
//! |---|---|
//! | `src/storage/watermark.rs` | `waiting`, `delivery` |
//! | `src/broker/signals.rs` | `signalling` |
//! | `src/broker/gate.rs` | `writing` |
//! | `src/turns.rs` | `turning` |
//!
//! To add one: the file takes its locks and atomics from `crate::sync`; it is named below; a module
//! of tests beside this file says what its threads do, within [`check`].

// The broker uses all of it; the models a part.
#[allow(dead_code)]
#[path = "../../../src/broker/gate.rs"]
mod gate;
#[allow(dead_code)]
#[path = "../../../src/ledger.rs"]
mod ledger;
#[allow(dead_code)]
#[path = "../../../src/broker/signals.rs"]
mod signals;
mod sync;
#[allow(dead_code)]
#[path = "../../../src/turns.rs"]
mod turns;
#[allow(dead_code)]
#[path = "../../../src/storage/watermark.rs"]
mod watermark;

#[cfg(test)]
mod delivery;
#[cfg(test)]
mod signalling;
#[cfg(test)]
mod turning;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod writing;

/// How often a thread may lose the processor where it need not. Nearly all faults show with two,
/// one needed three. All orders without a bound would take hours.
#[cfg(test)]
const PREEMPTIONS_MAX: usize = 3;

/// Runs a model in every order within that bound.
#[cfg(test)]
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(model);
}
