//! The I/O shell: listeners, TLS, and the task of each connection. Nothing here decides what MQTT means; it moves bytes and wakes up.

mod attend;
mod authenticate;
mod close;
mod connection;
mod entry;
mod handshake;
mod hold;
mod line;
mod listener;
mod output;
mod packets;
mod proxy;
mod rate;
mod set_up;
mod stalled;
mod stream;
mod tls;
mod tls_stream;
mod unfinished;
mod worker;

pub(crate) use listener::{BindError, BoundListener, LiveListener, bind};
pub use tls::TlsError;
