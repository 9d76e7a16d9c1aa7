//! The raw clients and packets of the tests outside of the crate.

#![allow(dead_code, unreachable_pub, unused_imports, missing_docs)]

#[path = "../../tests/support/raw_client.rs"]
pub mod raw_client;
#[path = "../../tests/support/raw_client5.rs"]
pub mod raw_client5;
#[path = "../../tests/support/server_packet.rs"]
pub mod server_packet;
#[path = "../../tests/support/server_packet5.rs"]
pub mod server_packet5;
#[path = "../../tests/support/transport.rs"]
mod transport;
#[path = "../../tests/support/wire.rs"]
pub mod wire;
#[path = "../../tests/support/wire5.rs"]
pub mod wire5;

pub use raw_client::{DEADLINE, RawClient};
pub use raw_client5::RawClient5;
