//! MQTT control packets: pure bytes to values and back.
//!
//! [`frame()`] finds the next whole packet in a read buffer and judges what byte 1 and the length tell before
//! the body has arrived; [`decode()`] turns a whole packet into a borrowed [`Packet`]; [`encode`] appends
//! packets to a buffer. What is spoken here is MQTT 5, MQTT 3.1.1 and, from the same packets, MQTT 3.1. The
//! values that come out mean the same in every version: whoever uses them need not ask for it.
//!
//! There is no I/O here, no clock, no runtime, and nothing of the rest of the crate. Decoding copies nothing
//! and allocates nothing, whatever the peer sends. Whatever is accepted has been checked as a whole, so
//! iterating over the filters of an accepted packet cannot fail. An error is final: it ends the connection.

mod connect;
pub mod encode;
mod encode_client;
mod encode_v5;
mod error;
mod frame;
mod packet;
mod properties;
mod publish;
mod publish_properties;
mod read;
mod reason;

mod shared;
mod subscribe;
mod topic;

use std::fmt;
use std::num::NonZeroU16;

pub use connect::{Connect, ConnectWill, SessionExpiry, connect_version};
pub use error::{DecodeError, Field, TopicError};
pub use frame::{Frame, Framed, REMAINING_LENGTH_MAX, frame, frame_from_server};
pub use mqttbytes::QoS;
pub use mqttbytes::v4::ConnectReturnCode;
pub use packet::{Ack, Auth, Disconnect, Packet, decode};
pub use properties::{Carrier, Property, PropertyValue, VARIABLE_BYTE_INTEGER_MAX};
pub use publish::Publish;
pub use publish_properties::PublishProperties;
pub use reason::ReasonCode;
pub use shared::SharedFilter;
pub use subscribe::{
    RetainHandling, Subscribe, SubscribeCursor, SubscribeFilters, SubscribeOptions, Unsubscribe,
    UnsubscribeCursor, UnsubscribeFilters,
};
pub use topic::{TOPIC_BYTES_MAX, levels_count, matches, validate_topic_filter, validate_topic_name};

/// The protocol a connection speaks, as its CONNECT says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// Whether packets have properties and reason codes: MQTT 5.
    pub const fn has_properties(self) -> bool {
        matches!(self, Self::V5)
    }

    /// Whether a refused PUBLISH has an answer of its own; else it is an acknowledgement like any other ([MQTT-3.3.5-2]).
    pub const fn tells_refused_publish(self) -> bool {
        self.has_properties()
    }

    /// The name people use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5.0",
        }
    }
}

/// A packet identifier (section 2.3.1): 1 to 65,535, never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The lowest id.
    pub const MIN: Self = Self(NonZeroU16::MIN);

    /// The id of this number, or `None` for 0.
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
