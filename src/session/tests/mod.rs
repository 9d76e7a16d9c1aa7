//! Tests of [`Session`](super::Session) by itself: scripts, one behaviour each; two ends on virtual time over a lossy
//! connection; random operations against a reference model.
//!
//! `model` and `model_run` use only what is public: the fuzz target `session` compiles them in as well.

mod acknowledgements;
mod bounds;
mod durable;
mod durable_kept;
mod flow_v5;
mod inbound;
mod inflight_operations;
mod lifetime;
pub(crate) mod model;
mod model_operations;
pub(crate) mod model_run;
mod output;
mod output_v5;
mod pair;
mod pair_client;
mod pair_connection;
mod redelivery;
mod shared;
mod shedding;
mod wire;
mod wire_v5;
