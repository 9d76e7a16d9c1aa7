//! Bytes as operations on a session, held against its reference model: see `src/session/tests/model_run.rs`.
//!
//! As in `decode.rs` the sources are compiled in directly: they are pure, and need nothing of the rest of the crate.
#![no_main]

// Here they are private modules, of which this target uses a part.
#[allow(dead_code)]
#[path = "../../../src/accounts.rs"]
mod accounts;
#[allow(dead_code)]
#[path = "../../../src/ledger.rs"]
mod ledger;
#[allow(dead_code, unused_imports)]
#[path = "../../../src/protocol/mod.rs"]
mod protocol;
#[allow(dead_code, unused_imports)]
#[path = "../../../src/session/mod.rs"]
mod session;
#[allow(dead_code, unused_imports)]
#[path = "../../../src/sync.rs"]
mod sync;
#[allow(dead_code)]
#[path = "../../../src/turns.rs"]
mod turns;

#[path = "../../../src/session/tests/model.rs"]
mod model;
#[path = "../../../src/session/tests/model_run.rs"]
mod model_run;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|operations: &[u8]| model_run::run(operations, &mut model::Reached::default()));
