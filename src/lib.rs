//! TernMQ: an MQTT broker for IoT devices, as a library.
//!
//! ```no_run
//! use ternmq::{Broker, QoS, config::Config};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Broker::start(Config::default()).await?;
//! let mut subscription = broker.subscribe("plant/+/temperature", QoS::AtLeastOnce)?;
//! broker.publish("plant/7/temperature", b"21.5", QoS::AtLeastOnce, false)?;
//! let message = subscription.recv().await;
//! assert_eq!(message.map(|m| m.payload().to_vec()), Some(b"21.5".to_vec()));
//! broker.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The modules, in the order in which a PUBLISH meets them
//! - `net`: listeners, TLS, and the task of each connection, which reads, handles and writes in turns;
//! - [`protocol`]: bytes ↔ packets, topic names and filters; pure;
//! - `broker`: the engine that ties the rest together: who gets what, take-over, ends;
//! - [`session`]: what MQTT asks to be remembered about one client, as a plain value; sans-IO;
//! - [`router`]: subscriptions, route caches, retained topics; data structures without I/O;
//! - [`auth`]: who may come in and what they may do; leaves that `broker` and `net` call;
//! - [`config`]: settings with their layers; `metrics`: what is counted; `escape`: peers' text made safe for logs.
//!
//! `server` puts these together as [`Broker`]. Imports go one way only; ARCHITECTURE.md draws them and `tests/architecture.rs` watches
//! them.

#![forbid(unsafe_code)]

pub mod accounts;
pub mod auth;
pub mod authentication;
mod broker;
pub mod config;
mod data_dir;
mod escape;
pub mod ledger;
// Not inside of it: `tests/models` compiles the file with loom's types.
#[cfg(test)]
#[path = "ledger/tests.rs"]
mod ledger_tests;
pub mod logging;
mod metrics;
mod net;
pub mod protocol;
pub mod router;
mod server;
pub mod session;
#[cfg(test)]
mod simulation;
mod storage;
mod sync;
mod turns;
#[cfg(test)]
#[path = "turns/tests.rs"]
mod turns_tests;

pub use broker::ReceivedMessage;
pub use data_dir::DataDirError;
pub use metrics::{MetricsSnapshot, StorageSnapshot};
pub use net::TlsError;
pub use protocol::{QoS, TopicError};
pub use server::{Broker, Closed, Ended, Extensions, PublishError, StartError, SubscribeError, Subscription};
