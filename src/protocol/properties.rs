//! The properties of MQTT 5 (section 2.2.2): which there are, where each may stand, and one reader for all.
//!
//! The rules are data: [`DEFINITIONS`] says of each property its type, the packets that may carry it, where
//! it may be repeated and which values it may have. [`PropertyReader`] holds a section against that table and
//! gives out values that borrow from the packet; a packet's decoder only picks what it wants. Nothing is
//! collected, so a section with a million user properties costs no more memory than its bytes.

use super::error::{DecodeError, Field};
use super::read::Reader;

/// The largest number a variable byte integer can say (section 1.5.5).
pub const VARIABLE_BYTE_INTEGER_MAX: u32 = 268_435_455;

/// What a property or a reason code stands in: a packet, or the will inside CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names of the packets")]
pub enum Carrier {
    Connect,
    ConnAck,
    Publish,
    Will,
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Subscribe,
    SubAck,
    Unsubscribe,
    UnsubAck,
    Disconnect,
    Auth,
}

impl Carrier {
    /// Every carrier.
    pub const ALL: &[Self] = &[
        Self::Connect,
        Self::ConnAck,
        Self::Publish,
        Self::Will,
        Self::PubAck,
        Self::PubRec,
        Self::PubRel,
        Self::PubComp,
        Self::Subscribe,
        Self::SubAck,
        Self::Unsubscribe,
        Self::UnsubAck,
        Self::Disconnect,
        Self::Auth,
    ];

    /// As the standard writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::Will => "will",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

/// A set of carriers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carriers(u16);

impl Carriers {
    const NONE: Self = Self(0);
    const ANY: Self = Self::of(Carrier::ALL);

    pub(crate) const fn of(mut list: &[Carrier]) -> Self {
        let mut bits = 0;
        while let [carrier, rest @ ..] = list {
            bits |= 1 << *carrier as u16;
            list = rest;
        }
        Self(bits)
    }

    pub(crate) const fn contains(self, carrier: Carrier) -> bool {
        self.0 & (1 << carrier as u16) != 0
    }
}

/// How the value of a property is written (section 1.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Byte,
    TwoBytes,
    FourBytes,
    Variable,
    String,
    Binary,
    StringPair,
}

/// The values a property may have, beyond what its type says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    Any,
    ZeroOrOne,
    NotZero,
}

/// All there is to know about a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) property: Property,
    pub(crate) kind: Kind,
    pub(crate) carriers: Carriers,
    /// Where it may stand more than once.
    pub(crate) repeats_in: Carriers,
    pub(crate) range: Range,
}

macro_rules! properties {
    ($($property:ident = $id:literal, $name:literal, $kind:ident, $range:ident, $carriers:expr, $repeats:expr;)+) => {
        /// A property of MQTT 5, by its identifier (section 2.2.2.2).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Property {
            $(#[doc = $name] $property = $id,)+
        }

        /// Table 2-4, in the order of the identifiers.
        pub(crate) const DEFINITIONS: &[Definition] = {
            use Carrier::*;
            &[$(Definition {
                property: Property::$property,
                kind: Kind::$kind,
                range: Range::$range,
                carriers: $carriers,
                repeats_in: $repeats,
            }),+]
        };

        impl Property {
            /// As the standard names it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$property => $name,)+
                }
            }
        }
    };
}

const fn only(list: &[Carrier]) -> Carriers {
    Carriers::of(list)
}

properties! {
    PayloadFormatIndicator = 0x01, "Payload Format Indicator", Byte, ZeroOrOne,
        only(&[Publish, Will]), Carriers::NONE;
    MessageExpiryInterval = 0x02, "Message Expiry Interval", FourBytes, Any,
        only(&[Publish, Will]), Carriers::NONE;
    ContentType = 0x03, "Content Type", String, Any, only(&[Publish, Will]), Carriers::NONE;
    ResponseTopic = 0x08, "Response Topic", String, Any, only(&[Publish, Will]), Carriers::NONE;
    CorrelationData = 0x09, "Correlation Data", Binary, Any, only(&[Publish, Will]), Carriers::NONE;
    SubscriptionIdentifier = 0x0b, "Subscription Identifier", Variable, NotZero,
        only(&[Publish, Subscribe]), only(&[Publish]);
    SessionExpiryInterval = 0x11, "Session Expiry Interval", FourBytes, Any,
        only(&[Connect, ConnAck, Disconnect]), Carriers::NONE;
    AssignedClientIdentifier = 0x12, "Assigned Client Identifier", String, Any, only(&[ConnAck]), Carriers::NONE;
    ServerKeepAlive = 0x13, "Server Keep Alive", TwoBytes, Any, only(&[ConnAck]), Carriers::NONE;
    AuthenticationMethod = 0x15, "Authentication Method", String, Any,
        only(&[Connect, ConnAck, Auth]), Carriers::NONE;
    AuthenticationData = 0x16, "Authentication Data", Binary, Any,
        only(&[Connect, ConnAck, Auth]), Carriers::NONE;
    RequestProblemInformation = 0x17, "Request Problem Information", Byte, ZeroOrOne,
        only(&[Connect]), Carriers::NONE;
    WillDelayInterval = 0x18, "Will Delay Interval", FourBytes, Any, only(&[Will]), Carriers::NONE;
    RequestResponseInformation = 0x19, "Request Response Information", Byte, ZeroOrOne,
        only(&[Connect]), Carriers::NONE;
    ResponseInformation = 0x1a, "Response Information", String, Any, only(&[ConnAck]), Carriers::NONE;
    ServerReference = 0x1c, "Server Reference", String, Any, only(&[ConnAck, Disconnect]), Carriers::NONE;
    ReasonString = 0x1f, "Reason String", String, Any,
        only(&[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth]), Carriers::NONE;
    ReceiveMaximum = 0x21, "Receive Maximum", TwoBytes, NotZero, only(&[Connect, ConnAck]), Carriers::NONE;
    TopicAliasMaximum = 0x22, "Topic Alias Maximum", TwoBytes, Any, only(&[Connect, ConnAck]), Carriers::NONE;
    TopicAlias = 0x23, "Topic Alias", TwoBytes, NotZero, only(&[Publish]), Carriers::NONE;
    MaximumQos = 0x24, "Maximum QoS", Byte, ZeroOrOne, only(&[ConnAck]), Carriers::NONE;
    RetainAvailable = 0x25, "Retain Available", Byte, ZeroOrOne, only(&[ConnAck]), Carriers::NONE;
    UserProperty = 0x26, "User Property", StringPair, Any, Carriers::ANY, Carriers::ANY;
    MaximumPacketSize = 0x27, "Maximum Packet Size", FourBytes, NotZero,
        only(&[Connect, ConnAck]), Carriers::NONE;
    WildcardSubscriptionAvailable = 0x28, "Wildcard Subscription Available", Byte, ZeroOrOne,
        only(&[ConnAck]), Carriers::NONE;
    SubscriptionIdentifierAvailable = 0x29, "Subscription Identifier Available", Byte, ZeroOrOne,
        only(&[ConnAck]), Carriers::NONE;
    SharedSubscriptionAvailable = 0x2a, "Shared Subscription Available", Byte, ZeroOrOne,
        only(&[ConnAck]), Carriers::NONE;
}

const IDS: usize = 0x2b;

/// From identifier to definition.
static BY_ID: [Option<&Definition>; IDS] = {
    let mut by_id = [None; IDS];
    let mut list = DEFINITIONS;
    while let [definition, rest @ ..] = list {
        by_id[definition.property as usize] = Some(definition);
        list = rest;
    }
    by_id
};

/// The value of a property, borrowed from its packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyValue<'a> {
    /// One byte.
    Byte(u8),
    /// Two bytes, big-endian.
    TwoBytes(u16),
    /// Four bytes, big-endian.
    FourBytes(u32),
    /// A variable byte integer, at most [`VARIABLE_BYTE_INTEGER_MAX`].
    Variable(u32),
    /// A UTF-8 string.
    String(&'a str),
    /// Binary data.
    Binary(&'a [u8]),
    /// A name and its value.
    StringPair(&'a str, &'a str),
}

impl PropertyValue<'_> {
    const fn number(self) -> Option<u32> {
        match self {
            Self::Byte(number) => Some(number as u32),
            Self::TwoBytes(number) => Some(number as u32),
            Self::FourBytes(number) | Self::Variable(number) => Some(number),
            Self::String(_) | Self::Binary(_) | Self::StringPair(..) => None,
        }
    }
}

/// Reads a property section behind its length, one property after the other, and checks every rule of the
/// table.
#[derive(Debug, Clone)]
pub(crate) struct PropertyReader<'a> {
    reader: Reader<'a>,
    carrier: Carrier,
    /// A bit for each identifier met so far.
    seen: u64,
}

const _: () = assert!(IDS <= u64::BITS as usize);

impl<'a> PropertyReader<'a> {
    pub(crate) const fn new(section: &'a [u8], carrier: Carrier) -> Self {
        Self { reader: Reader::new(section), carrier, seen: 0 }
    }

    /// Goes on in a section of which a beginning has been read, with what it had met.
    pub(crate) const fn resume(rest: &'a [u8], carrier: Carrier, seen: u64) -> Self {
        Self { reader: Reader::new(rest), carrier, seen }
    }

    /// A bit for each identifier met so far.
    pub(crate) const fn seen(&self) -> u64 {
        self.seen
    }

    /// The bytes not read yet.
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The next property, or `None` at the end of the section.
    pub(crate) fn next(&mut self) -> Result<Option<(Property, PropertyValue<'a>)>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let id = self.reader.variable(Field::PropertyIdentifier)?;
        let Some(&Some(definition)) = usize::try_from(id).ok().and_then(|id| BY_ID.get(id)) else {
            return Err(DecodeError::UnknownProperty { id });
        };
        let property = definition.property;
        if !definition.carriers.contains(self.carrier) {
            return Err(DecodeError::MisplacedProperty { property, carrier: self.carrier });
        }
        let bit = 1 << property as u8;
        if self.seen & bit != 0 && !definition.repeats_in.contains(self.carrier) {
            return Err(DecodeError::RepeatedProperty { property });
        }
        self.seen |= bit;

        let field = Field::Property(property);
        let value = match definition.kind {
            Kind::Byte => PropertyValue::Byte(self.reader.u8(field)?),
            Kind::TwoBytes => PropertyValue::TwoBytes(self.reader.u16(field)?),
            Kind::FourBytes => PropertyValue::FourBytes(self.reader.u32(field)?),
            Kind::Variable => PropertyValue::Variable(self.reader.variable(field)?),
            Kind::String => PropertyValue::String(self.reader.string(field)?),
            Kind::Binary => PropertyValue::Binary(self.reader.bytes(field)?),
            Kind::StringPair => {
                PropertyValue::StringPair(self.reader.string(field)?, self.reader.string(field)?)
            }
        };
        let in_range = match (definition.range, value.number()) {
            (Range::ZeroOrOne, Some(number)) => number <= 1,
            (Range::NotZero, Some(number)) => number != 0,
            _ => true,
        };
        if !in_range {
            return Err(DecodeError::PropertyOutOfRange { property, value: value.number().unwrap_or(0) });
        }
        Ok(Some((property, value)))
    }

    /// Checks what is left, where no value is wanted.
    pub(crate) fn check(mut self) -> Result<(), DecodeError> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests;
