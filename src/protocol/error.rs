//! What can be wrong with bytes from a peer, and with topic strings from anywhere.
//!
//! One variant per fault, with what a debugger needs to see and nothing that could be secret or long: no text
//! of the peer is kept. Every fault is the peer's and ends its connection. What an MQTT 5 client is told
//! first says [`DecodeError::reason_code`]; a client of MQTT 3.1.1 is told of an unsupported level only, with
//! CONNACK 0x01. Statement numbers are those of 3.1.1 unless MQTT 5 is named.

use std::fmt;

use thiserror::Error;

use super::properties::{Carrier, Property};
use super::reason::ReasonCode;

/// A packet that is not MQTT as a client may send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Packet type 0, or before MQTT 5 also 15 (table 2.1).
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
    /// The remaining length of a packet of MQTT 5 is written with more bytes than needed (MQTT 5,
    /// [MQTT-1.5.5-1]).
    #[error("remaining length is not in its shortest form")]
    RemainingLengthNotShortest,
    /// The packet is larger than this side takes.
    #[error("packet of {total} bytes is larger than the limit of {packet_bytes_max}")]
    PacketTooLarge {
        /// Bytes of the whole packet with its fixed header.
        total: usize,
        /// The limit it was held against, in bytes.
        packet_bytes_max: usize,
    },
    /// The remaining length of a packet that has one fixed length is another, or in MQTT 5 too short for an
    /// acknowledgement.
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
    /// A topic filter of MQTT 5 with a reserved bit set in its options (MQTT 5, [MQTT-3.8.3-5]).
    #[error("reserved bits in subscription options {byte:#04x}")]
    SubscriptionOptionsReserved {
        /// The byte behind the filter.
        byte: u8,
    },
    /// A topic filter of MQTT 5 with QoS 3 (MQTT 5, section 3.8.3.1).
    #[error("subscription with QoS 3")]
    SubscriptionQos3,
    /// A topic filter of MQTT 5 with retain handling 3 (MQTT 5, section 3.8.3.1).
    #[error("subscription with retain handling 3")]
    RetainHandling3,
    /// No Local on a shared subscription (MQTT 5, [MQTT-3.8.3-4]).
    #[error("no local on a shared subscription")]
    NoLocalOnShared,
    /// A variable byte integer of more than four bytes, or not in its shortest form (MQTT 5,
    /// [MQTT-1.5.5-1]).
    #[error("{field} is not a variable byte integer in its shortest form")]
    BadVariableByteInteger {
        /// The number.
        field: Field,
    },
    /// A property identifier that the standard does not know (MQTT 5, section 2.2.2.2).
    #[error("unknown property {id:#04x}")]
    UnknownProperty {
        /// The identifier.
        id: u32,
    },
    /// A property in a packet that cannot carry it (MQTT 5, section 2.2.2.2).
    #[error("{} cannot have the property {}", .carrier.name(), .property.name())]
    MisplacedProperty {
        /// The property.
        property: Property,
        /// Where it stood.
        carrier: Carrier,
    },
    /// A property twice where it may stand once.
    #[error("property {} more than once", .property.name())]
    RepeatedProperty {
        /// The property.
        property: Property,
    },
    /// A property with a value it cannot have.
    #[error("property {} cannot be {value}", .property.name())]
    PropertyOutOfRange {
        /// The property.
        property: Property,
        /// Its value.
        value: u32,
    },
    /// A subscription identifier in a client's PUBLISH (MQTT 5, [MQTT-3.3.4-6]).
    #[error("subscription identifier in a PUBLISH of a client")]
    SubscriptionIdFromClient,
    /// A PUBLISH with neither topic name nor topic alias (MQTT 5, section 3.3.2.1).
    #[error("PUBLISH with neither topic name nor topic alias")]
    NoTopic,
    /// A reason code that this packet cannot have from a client (MQTT 5, section 2.4).
    #[error("{} with reason code {code:#04x}", .carrier.name())]
    BadReasonCode {
        /// The packet.
        carrier: Carrier,
        /// The byte.
        code: u8,
    },
    /// Authentication data without an authentication method (MQTT 5, section 3.1.2.11.10), or AUTH without one
    /// (section 3.15.2.2.2).
    #[error("no authentication method")]
    NoAuthenticationMethod,
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
    /// CONNECT with a password but no user name [MQTT-3.1.2-22]; legal in MQTT 5.
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
            Self::RemainingLengthNotShortest => "remaining_length_not_shortest",
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
            Self::SubscriptionOptionsReserved { .. } => "subscription_options_reserved",
            Self::SubscriptionQos3 => "subscription_qos_3",
            Self::RetainHandling3 => "retain_handling_3",
            Self::NoLocalOnShared => "no_local_on_shared",
            Self::BadVariableByteInteger { .. } => "bad_variable_byte_integer",
            Self::UnknownProperty { .. } => "unknown_property",
            Self::MisplacedProperty { .. } => "misplaced_property",
            Self::RepeatedProperty { .. } => "repeated_property",
            Self::PropertyOutOfRange { .. } => "property_out_of_range",
            Self::SubscriptionIdFromClient => "subscription_id_from_client",
            Self::NoTopic => "no_topic",
            Self::BadReasonCode { .. } => "bad_reason_code",
            Self::NoAuthenticationMethod => "no_authentication_method",
            Self::UnknownProtocolName => "unknown_protocol_name",
            Self::UnsupportedLevel { .. } => "unsupported_protocol_level",
            Self::ConnectReservedFlag => "connect_reserved_flag",
            Self::WillFlagsWithoutWill => "will_flags_without_will",
            Self::WillQos3 => "will_qos_3",
            Self::PasswordWithoutUserName => "password_without_user_name",
        }
    }

    /// What to tell an MQTT 5 client in CONNACK or DISCONNECT before its connection is closed.
    ///
    /// Where the standard names the code it is that one. Else the definitions of section 1.2 decide: what
    /// cannot be parsed is malformed (0x81), what can be but is not allowed is a protocol error (0x82). So
    /// packet id 0 and reason codes of other packets are protocol errors.
    pub const fn reason_code(self) -> ReasonCode {
        match self {
            Self::ReservedPacketType { .. }
            | Self::ReservedFlags { .. }
            | Self::PublishQos3
            | Self::DupOnQos0
            | Self::RemainingLengthMalformed
            | Self::RemainingLengthNotShortest
            | Self::WrongLength { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::BadUtf8 { .. }
            | Self::NulInString { .. }
            | Self::RequestedQosMalformed { .. }
            | Self::SubscriptionOptionsReserved { .. }
            | Self::BadVariableByteInteger { .. }
            | Self::UnknownProperty { .. }
            | Self::MisplacedProperty { .. }
            | Self::ConnectReservedFlag
            | Self::WillFlagsWithoutWill
            | Self::WillQos3
            | Self::PasswordWithoutUserName => ReasonCode::MalformedPacket,
            Self::UnexpectedPacketType { .. }
            | Self::PacketIdZero
            | Self::NoTopicFilter
            | Self::SubscriptionQos3
            | Self::RetainHandling3
            | Self::NoLocalOnShared
            | Self::RepeatedProperty { .. }
            | Self::SubscriptionIdFromClient
            | Self::NoTopic
            | Self::BadReasonCode { .. }
            | Self::NoAuthenticationMethod => ReasonCode::ProtocolError,
            Self::PropertyOutOfRange { property: Property::TopicAlias, .. } => ReasonCode::TopicAliasInvalid,
            Self::PropertyOutOfRange { .. } => ReasonCode::ProtocolError,
            Self::BadTopic { field: Field::TopicFilter, .. } => ReasonCode::TopicFilterInvalid,
            Self::BadTopic { field: Field::TopicName | Field::WillTopic, .. } => ReasonCode::TopicNameInvalid,
            // The response topic: 0x90 speaks of the topic of the message.
            Self::BadTopic { .. } => ReasonCode::ProtocolError,
            Self::PacketTooLarge { .. } => ReasonCode::PacketTooLarge,
            Self::UnknownProtocolName | Self::UnsupportedLevel { .. } => {
                ReasonCode::UnsupportedProtocolVersion
            }
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
    /// The share name of a shared subscription is empty or has a wildcard (MQTT 5, [MQTT-4.8.2-1],
    /// [MQTT-4.8.2-2]).
    #[error("the share name must have a character and no wildcards")]
    BadShareName,
    /// A shared subscription without a filter behind its share name (MQTT 5, [MQTT-4.8.2-2]).
    #[error("a topic filter must follow the share name")]
    NoSharedFilter,
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
            Self::BadShareName => "bad_share_name",
            Self::NoSharedFilter => "no_shared_filter",
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
    /// The QoS or options byte behind a topic filter of SUBSCRIBE.
    RequestedQos,
    /// A reason code.
    ReasonCode,
    /// The length of a property section, or the section itself.
    Properties,
    /// The identifier of a property.
    PropertyIdentifier,
    /// The value of a property.
    Property(Property),
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
            Self::ReasonCode => "reason code",
            Self::Properties => "properties",
            Self::PropertyIdentifier => "property identifier",
            Self::Property(property) => property.name(),
        })
    }
}
