//! What the tests share: a broker on a free port, a client that speaks raw bytes, and packets pushed together byte by
//! byte.
//!
//! Nothing here uses the codec of the crate: these tests are an independent judge of it. Nothing here sleeps: a test
//! waits for bytes, for the end of the connection, or for a fence (a PINGRESP or an acknowledgement, behind which
//! everything sent earlier has been handled). Every wait has the deadline [`raw_client::DEADLINE`].

// Each test binary compiles its own copy of this module and uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod broker;
mod mosquitto;
pub mod raw_client;
pub mod raw_client5;
pub mod server_packet;
pub mod server_packet5;
mod transport;
pub mod wire;
pub mod wire5;

pub use broker::{Settings, TestBroker};
pub use raw_client::{DEADLINE, RawClient};
pub use raw_client5::RawClient5;
pub use server_packet::{Publish, ServerPacket};
pub use server_packet5::{Publish5, ServerPacket5};
pub use wire::Connect;
pub use wire5::Connect5;
