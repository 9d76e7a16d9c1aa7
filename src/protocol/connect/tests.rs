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
    let expected = Connect { keep_alive: 60, ..Connect::new(ProtocolVersion::V311, "") };
    assert_eq!(connect(&bytes), expected);
}

/// [MQTT-3.1.3-1]; the password is any bytes.
#[test]
fn a_full_connect_is_read_in_order() {
    let bytes = connect_bytes(0xf4, b"\x00\x02id\x00\x01w\x00\x02\x00\xff\x00\x01u\x00\x03\xff\x00p");
    let expected = Connect {
        clean_start: false,
        session_expiry: SessionExpiry::ServerDefault,
        keep_alive: 60,
        will: Some(ConnectWill {
            topic: "w",
            payload: &[0, 0xff],
            qos: QoS::ExactlyOnce,
            retain: true,
            delay_seconds: 0,
            properties: PublishProperties::NONE,
        }),
        user_name: Some("u"),
        password: Some(b"\xff\x00p"),
        ..Connect::new(ProtocolVersion::V311, "id")
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
    for name in [&b"\x00\x04mqtt"[..], b"\x00\x05MQTT ", b"\x00\x06MQISDP", b"\x00\x00", b"\x00\x02\xff\xff"]
    {
        let bytes = packet(0x10, &[name, b"\x04\x02\x00\x3c\x00\x00"].concat());
        assert_eq!(decode_whole(&bytes), Err(DecodeError::UnknownProtocolName));
    }
}

/// [MQTT-3.1.2-2], whatever stands behind the level.
#[test]
fn unsupported_level_is_told_from_the_level_alone() {
    for (start, known) in [(&b"\x00\x04MQTT"[..], &[4, 5][..]), (b"\x00\x06MQIsdp", &[3])] {
        for level in (0..=255).filter(|level| !known.contains(level)) {
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

const V5_HEADER: &[u8] = b"\x00\x04MQTT\x05";

#[test]
fn the_least_connect_of_mqtt_5_has_the_defaults() {
    let bytes = packet(0x10, &[V5_HEADER, b"\x02\x00\x3c\x00\x00\x00"].concat());
    let expected = Connect { keep_alive: 60, ..Connect::new(ProtocolVersion::V5, "") };
    assert_eq!(connect(&bytes), expected);
    assert_eq!((expected.receive_maximum, expected.topic_alias_maximum), (65_535, 0));
    assert_eq!(expected.session_expiry, SessionExpiry::AtDisconnect);
    assert!(expected.request_problem_information && !expected.request_response_information);
}

#[test]
fn a_full_connect_of_mqtt_5_is_read() {
    let properties = b"\x11\x00\x00\x00\x78\x21\x00\x14\x27\x00\x01\x00\x00\x22\x00\x0a\x19\x01\x17\x00\
        \x26\x00\x01k\x00\x01v\x15\x00\x01m\x16\x00\x01\xff";
    let will_properties = b"\x18\x00\x00\x00\x05\x01\x01\x02\x00\x00\x00\x3c\x03\x00\x01t";
    let payload = [
        V5_HEADER,
        b"\x6c\x00\x3c",
        &[properties.len() as u8],
        properties,
        b"\x00\x02id",
        &[will_properties.len() as u8],
        will_properties,
        b"\x00\x01w\x00\x01p\x00\x01\xff",
    ]
    .concat();
    let bytes = packet(0x10, &payload);
    let connect = connect(&bytes);
    assert_eq!(connect.session_expiry, SessionExpiry::AfterSeconds(120));
    assert_eq!((connect.receive_maximum, connect.topic_alias_maximum), (20, 10));
    assert_eq!(connect.maximum_packet_size, Some(65_536));
    assert!(connect.request_response_information && !connect.request_problem_information);
    assert_eq!(connect.authentication, Some(("m", Some(&b"\xff"[..]))));
    // Legal in MQTT 5.
    assert_eq!((connect.user_name, connect.password), (None, Some(&b"\xff"[..])));
    let will = connect.will.unwrap();
    assert_eq!((will.topic, will.payload, will.qos), ("w", &b"p"[..], QoS::AtLeastOnce));
    assert_eq!((will.retain, will.delay_seconds), (true, 5));
    assert_eq!(will.properties.payload_format_indicator, Some(1));
    assert_eq!(will.properties.message_expiry_interval, Some(60));
    assert_eq!(will.properties.content_type(), Some("t"));
}

#[test]
fn session_expiry_has_two_special_values() {
    for (seconds, expected) in [
        (None, SessionExpiry::AtDisconnect),
        (Some(0), SessionExpiry::AtDisconnect),
        (Some(1), SessionExpiry::AfterSeconds(1)),
        (Some(u32::MAX - 1), SessionExpiry::AfterSeconds(u32::MAX - 1)),
        (Some(u32::MAX), SessionExpiry::Never),
    ] {
        assert_eq!(SessionExpiry::from_interval(seconds), expected);
    }
}

#[test]
fn version_is_told_of_a_faulty_connect() {
    let version = |bytes: &[u8]| match super::super::frame(bytes, 1000, ProtocolVersion::V311) {
        Ok(super::super::Framed::Frame(frame)) => connect_version(&frame),
        other => panic!("{other:?}"),
    };
    assert_eq!(version(&packet(0x10, &[V5_HEADER, b"\xff"].concat())), Ok(ProtocolVersion::V5));
    assert_eq!(version(&packet(0x10, HEADER)), Ok(ProtocolVersion::V311));
    let error = DecodeError::UnsupportedLevel { level: 6 };
    assert_eq!(version(&packet(0x10, b"\x00\x04MQTT\x06")), Err(error));
    assert_eq!(version(&[0xc0, 0]), Err(DecodeError::UnexpectedPacketType { packet_type: 12 }));
}
