//! Tests of [`Session`](super::Session) by itself: scripts, one behaviour each; two ends on virtual time over a lossy
//! connection; random operations against a reference model.
//!
//! `model` and `operations` use only what is public: the fuzz target `session` compiles them in as well.

mod acknowledgements;
mod bounds;
mod inbound;
mod lifetime;
pub(crate) mod model;
mod model_operations;
pub(crate) mod model_run;
mod output;
mod redelivery;
mod wire;
