//! The `ternmq` program.
fn main() {}
