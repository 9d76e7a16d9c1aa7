//! CONNECT of every version.
//!
//! This is where versions end: what MQTT 5 says in properties and MQTT 3.1.1 by a flag or by its silence
//! comes out as the same values.
//!
//! The protocol name and level are judged first and alone, because their answer differs: an unknown name just
//! ends the connection, an unknown level is told (CONNACK 0x01), even if what follows makes no sense to this
//! codec. The limits of a client id (empty with a session to keep, its length) are the broker's to judge, for
//! they are answered too. Neither the password nor the payload of a will is ever printed.

use std::fmt;

use super::error::{DecodeError, Field};
use super::frame::{Frame, fixed_header_len};
use super::properties::{Carrier, Property, PropertyValue};
use super::publish_properties::PublishProperties;
use super::read::Reader;
use super::{ProtocolVersion, QoS};

/// Bits of the connect flags (section 3.1.2.3).
pub(crate) mod flag {
    pub(crate) const RESERVED: u8 = 0x01;
    pub(crate) const CLEAN_SESSION: u8 = 0x02;
    pub(crate) const WILL: u8 = 0x04;
    pub(crate) const WILL_QOS: u8 = 0x18;
    pub(crate) const WILL_QOS_SHIFT: u8 = 3;
    pub(crate) const WILL_RETAIN: u8 = 0x20;
    pub(crate) const PASSWORD: u8 = 0x40;
    pub(crate) const USER_NAME: u8 = 0x80;
}

/// How long a session outlives its connection (MQTT 5, section 3.1.2.11.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionExpiry {
    /// Not at all. MQTT 5 without the property or with 0; MQTT 3.1.1 with CleanSession 1.
    AtDisconnect,
    /// This many seconds, 1 to `u32::MAX - 1`.
    AfterSeconds(u32),
    /// For ever.
    Never,
    /// As long as the server likes: MQTT 3.1.1 with CleanSession 0 names no time.
    ServerDefault,
}

impl SessionExpiry {
    /// What a Session Expiry Interval of MQTT 5 means; `None` if there is none.
    pub const fn from_interval(seconds: Option<u32>) -> Self {
        match seconds {
            None | Some(0) => Self::AtDisconnect,
            Some(u32::MAX) => Self::Never,
            Some(seconds) => Self::AfterSeconds(seconds),
        }
    }

    /// The Session Expiry Interval that means this, `None` for 0 and where it is the server's to choose.
    pub(crate) const fn interval(self) -> Option<u32> {
        match self {
            Self::AtDisconnect | Self::ServerDefault => None,
            Self::AfterSeconds(seconds) => Some(seconds),
            Self::Never => Some(u32::MAX),
        }
    }
}

/// A CONNECT packet (section 3.1). User properties are checked and left behind.
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What protocol name and level say.
    pub version: ProtocolVersion,
    /// Whether the session begins with this connection. In MQTT 3.1.1, CleanSession, which makes it end with
    /// it too.
    pub clean_start: bool,
    /// How long the session is to outlive this connection.
    pub session_expiry: SessionExpiry,
    /// Seconds; 0 turns keep-alive off.
    pub keep_alive: u16,
    /// Client identifier; may be empty. MQTT 3.1 asks for 1 to 23 characters, but its clients do not keep to
    /// that.
    pub client_id: &'a str,
    /// What to publish when the connection ends without DISCONNECT.
    pub will: Option<ConnectWill<'a>>,
    /// User name; may be empty.
    pub user_name: Option<&'a str>,
    /// Password: any bytes. Before MQTT 5 only together with a user name.
    pub password: Option<&'a [u8]>,
    /// How many QoS 1 and 2 messages the client takes before it has acknowledged the first, at least 1;
    /// 65,535 unless it says otherwise.
    pub receive_maximum: u16,
    /// The largest packet the client takes, in bytes with the fixed header, at least 1; `None`: no limit.
    pub maximum_packet_size: Option<u32>,
    /// The highest topic alias the client takes from the server; 0: none.
    pub topic_alias_maximum: u16,
    /// Whether the client asks for Response Information in CONNACK.
    pub request_response_information: bool,
    /// Whether reason strings and user properties may be in every packet, else only in PUBLISH, CONNACK and
    /// DISCONNECT [MQTT-3.1.2-29]. True unless the client says otherwise.
    pub request_problem_information: bool,
    /// Method and data of enhanced authentication (MQTT 5, section 4.12).
    pub authentication: Option<(&'a str, Option<&'a [u8]>)>,
}

impl<'a> Connect<'a> {
    /// The least CONNECT: a clean start, nothing kept afterwards, no keep-alive, nothing asked for.
    pub const fn new(version: ProtocolVersion, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            session_expiry: SessionExpiry::AtDisconnect,
            keep_alive: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            authentication: None,
        }
    }

    /// Whether the client must name itself: MQTT 3.1.1 makes up an id only for a clean session ([MQTT-3.1.3-8]), MQTT 3.1 never does, but
    /// its clients are not held to that.
    pub const fn needs_client_id(&self) -> bool {
        !self.version.has_properties() && !self.clean_start
    }

    /// Whether the server may end the connection with DISCONNECT: MQTT 5.
    pub const fn hears_disconnect(&self) -> bool {
        self.version.has_properties()
    }

    /// The Receive Maximum the client knows of when the server wants `wanted`: MQTT 3.1.1 cannot be told one.
    pub const fn receive_maximum_told(&self, wanted: u16) -> u16 {
        if self.version.has_properties() { wanted } else { u16::MAX }
    }

    /// Reads the properties of MQTT 5 (section 3.1.2.11).
    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<(), DecodeError> {
        let (mut session_expiry, mut method, mut data) = (None, None, None);
        let mut properties = reader.properties(Carrier::Connect)?;
        while let Some(property) = properties.next()? {
            use Property as P;
            use PropertyValue as V;
            match property {
                (P::SessionExpiryInterval, V::FourBytes(seconds)) => session_expiry = Some(seconds),
                (P::ReceiveMaximum, V::TwoBytes(count)) => self.receive_maximum = count,
                (P::MaximumPacketSize, V::FourBytes(bytes)) => self.maximum_packet_size = Some(bytes),
                (P::TopicAliasMaximum, V::TwoBytes(alias)) => self.topic_alias_maximum = alias,
                (P::RequestResponseInformation, V::Byte(wanted)) => {
                    self.request_response_information = wanted != 0;
                }
                (P::RequestProblemInformation, V::Byte(wanted)) => {
                    self.request_problem_information = wanted != 0;
                }
                (P::AuthenticationMethod, V::String(text)) => method = Some(text),
                (P::AuthenticationData, V::Binary(bytes)) => data = Some(bytes),
                _ => {}
            }
        }
        self.session_expiry = SessionExpiry::from_interval(session_expiry);
        self.authentication = match (method, data) {
            (Some(method), data) => Some((method, data)),
            (None, None) => None,
            (None, Some(_)) => return Err(DecodeError::NoAuthenticationMethod),
        };
        Ok(())
    }
}

/// The will in a CONNECT packet (section 3.1.2.5).
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectWill<'a> {
    /// Topic name: 1 to 65,535 bytes, no U+0000, no wildcard.
    pub topic: &'a str,
    /// Application message; may be empty.
    pub payload: &'a [u8],
    /// Quality of service to publish with.
    pub qos: QoS,
    /// Whether to publish as a retained message.
    pub retain: bool,
    /// Seconds from the end of the connection to the publishing, unless the session ends before (MQTT 5,
    /// section 3.1.3.2.2).
    pub delay_seconds: u32,
    /// What MQTT 5 has to say of the message: expiry, payload format, and what is only passed on.
    pub properties: PublishProperties<'a>,
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("session_expiry", &self.session_expiry)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
            .field("authentication_method", &self.authentication.map(|(method, _)| method))
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("request_response_information", &self.request_response_information)
            .field("request_problem_information", &self.request_problem_information)
            .finish()
    }
}

impl fmt::Debug for ConnectWill<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectWill")
            .field("topic", &self.topic)
            .field("payload_len", &self.payload.len())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("delay_seconds", &self.delay_seconds)
            .field("properties_len", &self.properties.raw().len())
            .finish()
    }
}

pub(crate) fn decode<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let version = version(&mut reader)?;
    let v5 = version == ProtocolVersion::V5;
    // Not judged when it was framed: the version was not known then.
    if v5 && frame.header_len() != fixed_header_len(frame.body().len()) {
        return Err(DecodeError::RemainingLengthNotShortest);
    }

    let flags = reader.u8(Field::ConnectFlags)?;
    if flags & flag::RESERVED != 0 {
        return Err(DecodeError::ConnectReservedFlag);
    }
    let has_will = flags & flag::WILL != 0;
    if !has_will && flags & (flag::WILL_QOS | flag::WILL_RETAIN) != 0 {
        return Err(DecodeError::WillFlagsWithoutWill);
    }
    let will_qos = match (flags & flag::WILL_QOS) >> flag::WILL_QOS_SHIFT {
        0 => QoS::AtMostOnce,
        1 => QoS::AtLeastOnce,
        2 => QoS::ExactlyOnce,
        _ => return Err(DecodeError::WillQos3),
    };
    if !v5 && flags & (flag::USER_NAME | flag::PASSWORD) == flag::PASSWORD {
        return Err(DecodeError::PasswordWithoutUserName);
    }

    // The order is that of the payload [MQTT-3.1.3-1]. MQTT 3.1 let a flagged user name or password be
    // missing at the end; 3.1.1 does not, and the same is asked of both.
    let mut connect = Connect::new(version, "");
    connect.clean_start = flags & flag::CLEAN_SESSION != 0;
    connect.keep_alive = reader.u16(Field::KeepAlive)?;
    if v5 {
        connect.read_properties(&mut reader)?;
    } else if !connect.clean_start {
        connect.session_expiry = SessionExpiry::ServerDefault;
    }
    connect.client_id = reader.string(Field::ClientId)?;
    if has_will {
        let (properties, delay_seconds) = if v5 {
            PublishProperties::read(reader.properties(Carrier::Will)?)?
        } else {
            (PublishProperties::NONE, 0)
        };
        // A will is published like any message, so its topic is held to the same rules here rather than when
        // it is due.
        let topic = reader.topic_name(Field::WillTopic)?;
        let payload = reader.bytes(Field::WillPayload)?;
        let retain = flags & flag::WILL_RETAIN != 0;
        connect.will = Some(ConnectWill { topic, payload, qos: will_qos, retain, delay_seconds, properties });
    }
    if flags & flag::USER_NAME != 0 {
        connect.user_name = Some(reader.string(Field::UserName)?);
    }
    if flags & flag::PASSWORD != 0 {
        connect.password = Some(reader.bytes(Field::Password)?);
    }
    reader.end()?;
    Ok(connect)
}

/// What a CONNECT says of its version, to answer it in that version even if the rest is faulty.
///
/// # Errors
/// The version is unknown, or this is no CONNECT.
pub fn connect_version(frame: &Frame<'_>) -> Result<ProtocolVersion, DecodeError> {
    match frame.packet_type() {
        1 => version(&mut Reader::new(frame.body())),
        packet_type => Err(DecodeError::UnexpectedPacketType { packet_type }),
    }
}

fn version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    // Compared as bytes: a name that is not even text is as unknown as any other.
    let name = reader.bytes(Field::ProtocolName)?;
    if !matches!(name, b"MQTT" | b"MQIsdp") {
        return Err(DecodeError::UnknownProtocolName);
    }
    // Bridges of mosquitto first try level 0x84 and fall back to 4 when that is answered with CONNACK 0x01.
    match (name, reader.u8(Field::ProtocolLevel)?) {
        (b"MQTT", 5) => Ok(ProtocolVersion::V5),
        (b"MQTT", 4) => Ok(ProtocolVersion::V311),
        (b"MQIsdp", 3) => Ok(ProtocolVersion::V31),
        (_, level) => Err(DecodeError::UnsupportedLevel { level }),
    }
}

#[cfg(test)]
mod tests;
