//! What can be wrong with bytes from a peer, and with topic strings from anywhere.
//!
//! One variant per fault, with what a debugger needs to see and nothing that could be secret or long: no text
//! of the peer is kept. Every fault is the peer's and ends its connection; only
//! [`DecodeError::UnsupportedLevel`] is answered first, with CONNACK 0x01.

use std::fmt;

use thiserror::Error;

/// A packet that is not MQTT 3.1.1 (or 3.1) as a client may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Packet type 0 or 15 (table 2.1).
    #[error("packet type {packet_type} is reserved")]
    ReservedPacketType {
        /// The upper half of byte 1.
        packet_type: u8,
    },
    /// A packet type that only the other side may send, as CONNACK to a server (table 2.1).
    #[error("packet type {packet_type} is not for this side to receive")]
    UnexpectedPacketType {
        /// The upper half of byte 1.
        packet_type: u8,
    },
    /// Flags of the fixed header differ from table 2.2 [MQTT-2.2.2-2].
    #[error("flags of the fixed header are wrong in first byte {first_byte:#04x}")]
    ReservedFlags {
        /// Byte 1: packet type and flags.
        first_byte: u8,
    },
    /// PUBLISH with both QoS bits set [MQTT-3.3.1-4].
    #[error("PUBLISH with QoS 3")]
    PublishQos3,
    /// PUBLISH with QoS 0 and DUP 1 [MQTT-3.3.1-2].
    #[error("PUBLISH with QoS 0 and DUP")]
    DupOnQos0,
    /// The remaining length goes on after its fourth byte (section 2.2.3).
    #[error("remaining length has more than 4 bytes")]
    RemainingLengthMalformed,
    /// The packet is larger than this side takes.
    #[error("packet of {total} bytes is larger than the limit of {packet_bytes_max}")]
    PacketTooLarge {
        /// Bytes of the whole packet with its fixed header.
        total: usize,
        /// The limit it was held against, in bytes.
        packet_bytes_max: usize,
    },
    /// The remaining length of a packet that has one fixed length is another.
    #[error("packet type {packet_type} with remaining length {remaining_length}")]
    WrongLength {
        /// The upper half of byte 1.
        packet_type: u8,
        /// The remaining length it came with, in bytes.
        remaining_length: usize,
    },
    /// The packet ends before or inside a field.
    #[error("packet ends within its {field}")]
    Truncated {
        /// The field that is missing or cut.
        field: Field,
    },
    /// Bytes are left over behind the last field.
    #[error("{count} bytes too many in the packet")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
    /// A string is not well-formed UTF-8 [MQTT-1.5.3-1].
    #[error("{field} is not well-formed UTF-8")]
    BadUtf8 {
        /// The string.
        field: Field,
    },
    /// A string contains U+0000 [MQTT-1.5.3-2].
    #[error("{field} contains U+0000")]
    NulInString {
        /// The string.
        field: Field,
    },
    /// A topic name or topic filter breaks a rule of section 4.7.
    #[error("{field}: {error}")]
    BadTopic {
        /// The topic name, topic filter or will topic.
        field: Field,
        /// The rule.
        error: TopicError,
    },
    /// Packet id 0 [MQTT-2.3.1-1].
    #[error("packet id is 0")]
    PacketIdZero,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter [MQTT-3.8.3-3], [MQTT-3.10.3-2].
    #[error("no topic filter in the payload")]
    NoTopicFilter,
    /// The byte behind a filter of SUBSCRIBE is not 0, 1 or 2 [MQTT-3.8.3-4].
    #[error("requested QoS byte {byte:#04x} is not 0, 1 or 2")]
    RequestedQosMalformed {
        /// The byte.
        byte: u8,
    },
    /// CONNECT with a protocol name other than `MQTT` and `MQIsdp` [MQTT-3.1.2-1].
    #[error("unknown protocol name")]
    UnknownProtocolName,
    /// CONNECT with a protocol level this codec does not speak [MQTT-3.1.2-2]: answer with CONNACK 0x01, then
    /// close.
    #[error("unsupported protocol level {level}")]
    UnsupportedLevel {
        /// The level: 5 is MQTT 5; bit 7 is how mosquitto's bridges mark themselves.
        level: u8,
    },
    /// CONNECT with bit 0 of the connect flags set [MQTT-3.1.2-3].
    #[error("reserved connect flag is set")]
    ConnectReservedFlag,
    /// CONNECT with will QoS or will retain but no will flag [MQTT-3.1.2-11], [MQTT-3.1.2-13],
    /// [MQTT-3.1.2-15].
    #[error("will QoS or will retain without a will")]
    WillFlagsWithoutWill,
    /// CONNECT with will QoS 3 [MQTT-3.1.2-14].
    #[error("will with QoS 3")]
    WillQos3,
    /// CONNECT with a password but no user name [MQTT-3.1.2-22].
    #[error("password without a user name")]
    PasswordWithoutUserName,
}

impl DecodeError {
    /// A short stable label for a metric; the set of labels is small and does not depend on the peer.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedPacketType { .. } => "reserved_packet_type",
            Self::UnexpectedPacketType { .. } => "unexpected_packet_type",
            Self::ReservedFlags { .. } => "reserved_flags",
            Self::PublishQos3 => "publish_qos_3",
            Self::DupOnQos0 => "dup_on_qos_0",
            Self::RemainingLengthMalformed => "bad_remaining_length",
            Self::PacketTooLarge { .. } => "packet_too_large",
            Self::WrongLength { .. } => "wrong_length",
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes { .. } => "trailing_bytes",
            Self::BadUtf8 { .. } => "bad_utf8",
            Self::NulInString { .. } => "nul_in_string",
            Self::BadTopic { error, .. } => error.reason(),
            Self::PacketIdZero => "packet_id_zero",
            Self::NoTopicFilter => "no_topic_filter",
            Self::RequestedQosMalformed { .. } => "bad_requested_qos",
            Self::UnknownProtocolName => "unknown_protocol_name",
            Self::UnsupportedLevel { .. } => "unsupported_protocol_level",
            Self::ConnectReservedFlag => "connect_reserved_flag",
            Self::WillFlagsWithoutWill => "will_flags_without_will",
            Self::WillQos3 => "will_qos_3",
            Self::PasswordWithoutUserName => "password_without_user_name",
        }
    }

    /// The error of `field` for a topic that broke `error`; U+0000 is the same fault in every string.
    pub(crate) const fn topic(field: Field, error: TopicError) -> Self {
        match error {
            TopicError::Nul => Self::NulInString { field },
            error => Self::BadTopic { field, error },
        }
    }
}

/// A topic name or topic filter that breaks section 4.7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TopicError {
    /// No character at all [MQTT-4.7.3-1].
    #[error("the topic is empty")]
    Empty,
    /// More than 65,535 bytes of UTF-8 [MQTT-4.7.3-3].
    #[error("the topic has {bytes} bytes, more than 65535")]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// U+0000 [MQTT-4.7.3-2].
    #[error("the topic contains U+0000")]
    Nul,
    /// `+` or `#` in a topic name [MQTT-3.3.2-2].
    #[error("a topic name must not contain wildcards")]
    WildcardInName,
    /// `#` that is not the whole of the last level [MQTT-4.7.1-2].
    #[error("# must be the whole of the last level")]
    MisplacedMultiLevel,
    /// `+` that is not the whole of its level [MQTT-4.7.1-3].
    #[error("+ must be the whole of a level")]
    MisplacedSingleLevel,
}

impl TopicError {
    /// A short stable label for a metric.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "topic_empty",
            Self::TooLong { .. } => "topic_too_long",
            Self::Nul => "nul_in_string",
            Self::WildcardInName => "wildcard_in_topic_name",
            Self::MisplacedMultiLevel => "misplaced_multi_level_wildcard",
            Self::MisplacedSingleLevel => "misplaced_single_level_wildcard",
        }
    }
}

/// A field of a packet, to say where a fault is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Field {
    /// Protocol name of CONNECT.
    ProtocolName,
    /// Protocol level of CONNECT.
    ProtocolLevel,
    /// Connect flags.
    ConnectFlags,
    /// Keep alive of CONNECT.
    KeepAlive,
    /// Client identifier.
    ClientId,
    /// Topic of the will.
    WillTopic,
    /// Payload of the will.
    WillPayload,
    /// User name.
    UserName,
    /// Password.
    Password,
    /// Topic name of PUBLISH.
    TopicName,
    /// Packet identifier.
    PacketId,
    /// A topic filter of SUBSCRIBE or UNSUBSCRIBE.
    TopicFilter,
    /// The QoS byte behind a topic filter of SUBSCRIBE.
    RequestedQos,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ProtocolName => "protocol name",
            Self::ProtocolLevel => "protocol level",
            Self::ConnectFlags => "connect flags",
            Self::KeepAlive => "keep alive",
            Self::ClientId => "client id",
            Self::WillTopic => "will topic",
            Self::WillPayload => "will payload",
            Self::UserName => "user name",
            Self::Password => "password",
            Self::TopicName => "topic name",
            Self::PacketId => "packet id",
            Self::TopicFilter => "topic filter",
            Self::RequestedQos => "requested QoS",
        })
    }
}
