//! CONNECT of MQTT 3.1.1 and 3.1.
//!
//! The protocol name and level are judged first and alone, because their answer differs: an unknown name just
//! ends the connection, an unknown level is told (CONNACK 0x01), even if what follows makes no sense to this
//! codec. The limits of a client id (empty with a session to keep, its length) are the broker's to judge, for
//! they are answered too. Neither the password nor the payload of a will is ever printed.

use std::fmt;

use super::error::{DecodeError, Field};
use super::frame::Frame;
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

/// A CONNECT packet (section 3.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What protocol name and level say.
    pub version: ProtocolVersion,
    /// Whether the session begins and ends with this connection.
    pub clean_session: bool,
    /// Seconds; 0 turns keep-alive off.
    pub keep_alive: u16,
    /// Client identifier; may be empty. MQTT 3.1 asks for 1 to 23 characters, but its clients do not keep to
    /// that.
    pub client_id: &'a str,
    /// What to publish when the connection ends without DISCONNECT.
    pub will: Option<ConnectWill<'a>>,
    /// User name; may be empty.
    pub user_name: Option<&'a str>,
    /// Password: any bytes. Only together with a user name.
    pub password: Option<&'a [u8]>,
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
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_session", &self.clean_session)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("user_name", &self.user_name)
            .field("has_password", &self.password.is_some())
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
            .finish()
    }
}

pub(crate) fn decode<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let version = version(&mut reader)?;

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
    if flags & (flag::USER_NAME | flag::PASSWORD) == flag::PASSWORD {
        return Err(DecodeError::PasswordWithoutUserName);
    }

    // The order is that of the payload [MQTT-3.1.3-1]. MQTT 3.1 let a flagged user name or password be
    // missing at the end; 3.1.1 does not, and the same is asked of both.
    let keep_alive = reader.u16(Field::KeepAlive)?;
    let client_id = reader.string(Field::ClientId)?;
    let will = if has_will {
        // A will is published like any message, so its topic is held to the same rules here rather than when
        // it is due.
        let topic = reader.topic_name(Field::WillTopic)?;
        let payload = reader.bytes(Field::WillPayload)?;
        Some(ConnectWill { topic, payload, qos: will_qos, retain: flags & flag::WILL_RETAIN != 0 })
    } else {
        None
    };
    let user_name = if flags & flag::USER_NAME != 0 { Some(reader.string(Field::UserName)?) } else { None };
    let password = if flags & flag::PASSWORD != 0 { Some(reader.bytes(Field::Password)?) } else { None };
    reader.end()?;

    let clean_session = flags & flag::CLEAN_SESSION != 0;
    Ok(Connect { version, clean_session, keep_alive, client_id, will, user_name, password })
}

fn version(reader: &mut Reader<'_>) -> Result<ProtocolVersion, DecodeError> {
    // Compared as bytes: a name that is not even text is as unknown as any other.
    let (name_version, level_known) = match reader.bytes(Field::ProtocolName)? {
        b"MQTT" => (ProtocolVersion::V311, 4),
        b"MQIsdp" => (ProtocolVersion::V31, 3),
        _ => return Err(DecodeError::UnknownProtocolName),
    };
    // Level 5 is refused like any other until this codec speaks MQTT 5. Bridges of mosquitto first try level
    // 0x84 and fall back to 4 when that is answered with CONNACK 0x01.
    let level = reader.u8(Field::ProtocolLevel)?;
    if level == level_known { Ok(name_version) } else { Err(DecodeError::UnsupportedLevel { level }) }
}

#[cfg(test)]
mod tests {
    use super::super::packet::testing::{decode_whole, packet};
    use super::super::{Packet, TopicError};
    use super::*;

    const HEADER: &[u8] = b"\x00\x04MQTT\x04";

    /// CONNECT with these flags, keep-alive 60, and this payload.
    fn connect_bytes(flags: u8, payload: &[u8]) -> Vec<u8> {
        packet(0x10, &[HEADER, &[flags, 0, 60], payload].concat())
    }

    fn error(flags: u8, payload: &[u8]) -> DecodeError {
        decode_whole(&connect_bytes(flags, payload)).expect_err("must be refused")
    }

    fn connect(bytes: &[u8]) -> Connect<'_> {
        match decode_whole(bytes) {
            Ok(Packet::Connect(connect)) => connect,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_least_connect_is_read() {
        let bytes = connect_bytes(0x02, b"\x00\x00");
        let expected = Connect {
            version: ProtocolVersion::V311,
            clean_session: true,
            keep_alive: 60,
            client_id: "",
            will: None,
            user_name: None,
            password: None,
        };
        assert_eq!(connect(&bytes), expected);
    }

    /// [MQTT-3.1.3-1]; the password is any bytes.
    #[test]
    fn a_full_connect_is_read_in_order() {
        let bytes = connect_bytes(0xf4, b"\x00\x02id\x00\x01w\x00\x02\x00\xff\x00\x01u\x00\x03\xff\x00p");
        let expected = Connect {
            version: ProtocolVersion::V311,
            clean_session: false,
            keep_alive: 60,
            client_id: "id",
            will: Some(ConnectWill { topic: "w", payload: &[0, 0xff], qos: QoS::ExactlyOnce, retain: true }),
            user_name: Some("u"),
            password: Some(b"\xff\x00p"),
        };
        assert_eq!(connect(&bytes), expected);
    }

    #[test]
    fn mqtt_3_1_is_accepted_with_a_long_client_id() {
        let bytes = packet(0x10, b"\x00\x06MQIsdp\x03\x00\x00\x0a\x00\x18aaaaaaaabbbbbbbbcccccccc");
        let connect = connect(&bytes);
        assert_eq!(connect.version, ProtocolVersion::V31);
        assert_eq!(connect.client_id, "aaaaaaaabbbbbbbbcccccccc");
    }

    /// [MQTT-3.1.2-1]
    #[test]
    fn unknown_protocol_name_is_refused() {
        for name in
            [&b"\x00\x04mqtt"[..], b"\x00\x05MQTT ", b"\x00\x06MQISDP", b"\x00\x00", b"\x00\x02\xff\xff"]
        {
            let bytes = packet(0x10, &[name, b"\x04\x02\x00\x3c\x00\x00"].concat());
            assert_eq!(decode_whole(&bytes), Err(DecodeError::UnknownProtocolName));
        }
    }

    /// [MQTT-3.1.2-2], whatever stands behind the level.
    #[test]
    fn unsupported_level_is_told_from_the_level_alone() {
        for (start, known) in [(&b"\x00\x04MQTT"[..], 4), (b"\x00\x06MQIsdp", 3)] {
            for level in (0..=255).filter(|&level| level != known) {
                let expected = Err(DecodeError::UnsupportedLevel { level });
                assert_eq!(decode_whole(&packet(0x10, &[start, &[level]].concat())), expected);
                assert_eq!(decode_whole(&packet(0x10, &[start, &[level], &[0xff; 9]].concat())), expected);
            }
        }
    }

    /// [MQTT-3.1.2-3]
    #[test]
    fn reserved_connect_flag_is_refused() {
        assert_eq!(error(0x03, b"\x00\x01a"), DecodeError::ConnectReservedFlag);
    }

    /// [MQTT-3.1.2-11], [MQTT-3.1.2-13], [MQTT-3.1.2-15]
    #[test]
    fn will_flags_without_will_are_refused() {
        for flags in [0x08, 0x10, 0x18, 0x20, 0x28] {
            assert_eq!(error(flags | 0x02, b"\x00\x01a"), DecodeError::WillFlagsWithoutWill);
        }
    }

    /// [MQTT-3.1.2-14]
    #[test]
    fn will_qos_3_is_refused() {
        assert_eq!(error(0x1e, b"\x00\x01a\x00\x01w\x00\x00"), DecodeError::WillQos3);
    }

    /// [MQTT-3.1.2-22]
    #[test]
    fn password_without_user_name_is_refused() {
        assert_eq!(error(0x42, b"\x00\x01a\x00\x01p"), DecodeError::PasswordWithoutUserName);
    }

    /// [MQTT-3.1.2-9], [MQTT-3.1.2-19], [MQTT-3.1.2-21], [MQTT-3.1.3-3]
    #[test]
    fn missing_fields_are_refused() {
        let missing = |flags, payload: &[u8], field| {
            assert_eq!(error(flags, payload), DecodeError::Truncated { field });
        };
        missing(0x02, b"", Field::ClientId);
        missing(0x02, b"\x00\x02a", Field::ClientId);
        missing(0x06, b"\x00\x01a", Field::WillTopic);
        missing(0x06, b"\x00\x01a\x00\x01w", Field::WillPayload);
        missing(0x06, b"\x00\x01a\x00\x01w\x00\x05w", Field::WillPayload);
        missing(0x82, b"\x00\x01a", Field::UserName);
        missing(0xc2, b"\x00\x01a\x00\x01u", Field::Password);
        let header = [HEADER, &[0x02, 0, 60]].concat();
        for (len, field) in [
            (0, Field::ProtocolName),
            (5, Field::ProtocolName),
            (6, Field::ProtocolLevel),
            (7, Field::ConnectFlags),
            (8, Field::KeepAlive),
            (9, Field::KeepAlive),
        ] {
            assert_eq!(decode_whole(&packet(0x10, &header[..len])), Err(DecodeError::Truncated { field }));
        }
    }

    /// [MQTT-3.1.2-18], [MQTT-3.1.2-20]: fields without their flag are bytes too many.
    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(error(0x02, b"\x00\x01a\x00\x01u"), DecodeError::TrailingBytes { count: 3 });
        assert_eq!(error(0x82, b"\x00\x01a\x00\x01u\x00\x01p"), DecodeError::TrailingBytes { count: 3 });
    }

    /// [MQTT-1.5.3-1], [MQTT-3.1.3-4], [MQTT-3.1.3-10], [MQTT-3.1.3-11]
    #[test]
    fn ill_formed_strings_are_refused() {
        let bad = |field| DecodeError::BadUtf8 { field };
        assert_eq!(error(0x02, b"\x00\x01\xff"), bad(Field::ClientId));
        assert_eq!(error(0x06, b"\x00\x01a\x00\x03\xed\xa0\x80\x00\x00"), bad(Field::WillTopic));
        assert_eq!(error(0x82, b"\x00\x01a\x00\x02\xc0\xaf"), bad(Field::UserName));
    }

    /// [MQTT-1.5.3-2]
    #[test]
    fn nul_in_strings_is_refused() {
        let nul = |field| DecodeError::NulInString { field };
        assert_eq!(error(0x02, b"\x00\x02a\x00"), nul(Field::ClientId));
        assert_eq!(error(0x06, b"\x00\x01a\x00\x01\x00\x00\x00"), nul(Field::WillTopic));
        assert_eq!(error(0x82, b"\x00\x01a\x00\x01\x00"), nul(Field::UserName));
    }

    #[test]
    fn will_topic_is_held_to_the_rules_of_topic_names() {
        let field = Field::WillTopic;
        for (topic, fault) in [
            (&b"\x00\x00"[..], TopicError::Empty),
            (b"\x00\x03a/+", TopicError::WildcardInName),
            (b"\x00\x01#", TopicError::WildcardInName),
        ] {
            let payload = [b"\x00\x01a", topic, b"\x00\x00"].concat();
            assert_eq!(error(0x06, &payload), DecodeError::BadTopic { field, error: fault });
        }
    }

    #[test]
    fn debug_shows_neither_password_nor_will_payload() {
        let bytes = connect_bytes(0xc6, b"\x00\x02id\x00\x01w\x00\x06SECRET\x00\x01u\x00\x06SECRET");
        let text = format!("{:?}", connect(&bytes));
        assert!(text.contains("has_password: true") && text.contains("payload_len: 6"), "{text}");
        assert!(!text.contains("SECRET") && !text.contains("83, 69"), "{text}");
    }
}
