//! The codec against mqttbytes' v4 decoder, which was written by others from the same standard.
//!
//! Where both accept, they read the same values from the same bytes. Where they differ, the difference is on
//! a list: what mqttbytes refuses although it is legal ([`wrongly_refused`]) and what it lets through
//! ([`wrongly_accepted`]). Every entry of both lists is shown by an example, so that none outlives its
//! reason.

#[path = "codec/packets.rs"]
mod packets;

use bytes::BytesMut;
use mqttbytes::v4;
use packets::{OwnedPacket, damaged_packet, owned_packet, packet_id, qos, topic_filter, topic_name};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use ternmq::protocol::ProtocolVersion::V311;
use ternmq::protocol::encode::{self, AckKind, ConnackProperties, PublishHeader, PublishPropertiesOut};
use ternmq::protocol::{
    Connect, ConnectReturnCode, DecodeError, Framed, Packet, ProtocolVersion, Publish, QoS, ReasonCode,
    connect_version, decode, frame,
};

/// What mqttbytes makes of the bytes, and how many of them it took.
fn theirs(bytes: &[u8]) -> (Result<v4::Packet, mqttbytes::Error>, usize) {
    let mut stream = BytesMut::from(bytes);
    let result = v4::read(&mut stream, usize::MAX);
    (result, bytes.len() - stream.len())
}

/// Legal packets that mqttbytes refuses.
fn wrongly_refused(packet: &Packet<'_>, error: mqttbytes::Error) -> bool {
    let Packet::Connect(connect) = packet else { return false };
    match error {
        // It does not know MQTT 3.1.
        mqttbytes::Error::InvalidProtocol => connect.version == ProtocolVersion::V31,
        // It takes the password for a string.
        mqttbytes::Error::TopicNotUtf8 => {
            connect.password.is_some_and(|password| std::str::from_utf8(password).is_err())
        }
        _ => false,
    }
}

/// Faults that mqttbytes does not see, at least in some places. It does see all others.
fn wrongly_accepted(error: DecodeError) -> bool {
    match error {
        DecodeError::ReservedFlags { .. }
        | DecodeError::DupOnQos0
        | DecodeError::WrongLength { .. }
        | DecodeError::TrailingBytes { .. }
        | DecodeError::NulInString { .. }
        | DecodeError::BadTopic { .. }
        | DecodeError::PacketIdZero
        | DecodeError::NoTopicFilter
        | DecodeError::ConnectReservedFlag
        | DecodeError::PasswordWithoutUserName => true,
        // It looks at the lower two bits of the byte.
        DecodeError::RequestedQosMalformed { byte } => byte & 0b11 != 3,
        // Not a fault of theirs: it is the decoder of both sides.
        DecodeError::UnexpectedPacketType { .. } => true,
        _ => false,
    }
}

fn check_same_connect(ours: &Connect<'_>, theirs: &v4::Connect) -> Result<(), TestCaseError> {
    prop_assert_eq!(ours.version, V311);
    prop_assert_eq!(theirs.protocol, mqttbytes::Protocol::V4);
    prop_assert_eq!(ours.clean_start, theirs.clean_session);
    prop_assert_eq!(ours.keep_alive, theirs.keep_alive);
    prop_assert_eq!(ours.client_id, &theirs.client_id);
    let will =
        ours.will.as_ref().map(|will| v4::LastWill::new(will.topic, will.payload, will.qos, will.retain));
    prop_assert_eq!(will.as_ref(), theirs.last_will.as_ref());
    // It cannot tell an empty user name or password from none.
    let user_name = ours.user_name.unwrap_or_default();
    let password = std::str::from_utf8(ours.password.unwrap_or_default()).unwrap();
    let login = (!user_name.is_empty() || !password.is_empty()).then(|| v4::Login::new(user_name, password));
    prop_assert_eq!(login.as_ref(), theirs.login.as_ref());
    Ok(())
}

fn check_same_publish(ours: &Publish<'_>, theirs: &v4::Publish) -> Result<(), TestCaseError> {
    prop_assert_eq!((ours.dup, ours.qos, ours.retain), (theirs.dup, theirs.qos, theirs.retain));
    prop_assert_eq!(ours.topic, &theirs.topic);
    prop_assert_eq!(ours.packet_id.map_or(0, |id| id.get()), theirs.pkid);
    prop_assert_eq!(ours.payload, &theirs.payload[..]);
    Ok(())
}

fn check_same(ours: &Packet<'_>, theirs: &v4::Packet) -> Result<(), TestCaseError> {
    match (ours, theirs) {
        (Packet::Connect(ours), v4::Packet::Connect(theirs)) => check_same_connect(ours, theirs)?,
        (Packet::Publish(ours), v4::Packet::Publish(theirs)) => check_same_publish(ours, theirs)?,
        (Packet::PubAck(ack), v4::Packet::PubAck(v4::PubAck { pkid }))
        | (Packet::PubRec(ack), v4::Packet::PubRec(v4::PubRec { pkid }))
        | (Packet::PubRel(ack), v4::Packet::PubRel(v4::PubRel { pkid }))
        | (Packet::PubComp(ack), v4::Packet::PubComp(v4::PubComp { pkid })) => {
            prop_assert_eq!(ack.packet_id.get(), *pkid)
        }
        (Packet::Subscribe(ours), v4::Packet::Subscribe(theirs)) => {
            prop_assert_eq!(ours.packet_id.get(), theirs.pkid);
            let theirs = theirs.filters.iter().map(|filter| (&filter.path[..], filter.qos));
            prop_assert!(ours.filters().map(|(filter, options)| (filter, options.qos)).eq(theirs));
        }
        (Packet::Unsubscribe(ours), v4::Packet::Unsubscribe(theirs)) => {
            prop_assert_eq!(ours.packet_id.get(), theirs.pkid);
            prop_assert!(ours.filters().eq(theirs.topics.iter().map(String::as_str)));
        }
        (Packet::PingReq, v4::Packet::PingReq) | (Packet::Disconnect(_), v4::Packet::Disconnect) => {}
        other => prop_assert!(false, "{other:?}"),
    }
    Ok(())
}

/// Both decoders on the same bytes.
fn check_agreement(bytes: &[u8]) -> Result<(), TestCaseError> {
    let (theirs, taken) = theirs(bytes);
    match frame(bytes, usize::MAX, V311).map(|framed| match framed {
        Framed::Frame(frame) => Some((frame, decode(&frame, V311))),
        Framed::NeedMore { .. } => None,
    }) {
        // A CONNECT of MQTT 5 is no matter of mqttbytes' v4 half; it reads it as one of 3.1.1, or not at all.
        Ok(Some((frame, _))) if connect_version(&frame) == Ok(ProtocolVersion::V5) => {}
        Ok(Some((frame, Ok(ours)))) => {
            prop_assert_eq!(frame.total(), taken);
            match theirs {
                Ok(theirs) => check_same(&ours, &theirs)?,
                Err(error) => prop_assert!(wrongly_refused(&ours, error), "{ours:?}: {error}"),
            }
        }
        Ok(None) => {
            prop_assert!(matches!(theirs, Err(mqttbytes::Error::InsufficientBytes(_))), "{theirs:?}");
            prop_assert_eq!(taken, 0);
        }
        // What is refused by its header may not be whole yet for the other.
        Ok(Some((_, Err(error)))) | Err(error) => {
            prop_assert!(theirs.is_err() || wrongly_accepted(error), "{error}, but {theirs:?}");
        }
    }
    Ok(())
}

const PLAUSIBLE_FIRST_BYTES: &[u8] = &[0x10, 0x30, 0x32, 0x34, 0x40, 0x62, 0x82, 0xa2, 0xe0];

/// A code for SUBACK, and what mqttbytes has for it.
fn suback_code() -> impl Strategy<Value = (ReasonCode, v4::SubscribeReasonCode)> {
    prop_oneof![
        3 => qos().prop_map(|qos| (ReasonCode::granted(qos), v4::SubscribeReasonCode::Success(qos))),
        1 => Just((ReasonCode::QuotaExceeded, v4::SubscribeReasonCode::Failure)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn both_read_valid_packets_alike(packet in owned_packet(), behind in vec(any::<u8>(), 0..4)) {
        let mut bytes = packet.to_bytes();
        bytes.extend_from_slice(&behind);
        check_agreement(&bytes)?;
    }

    #[test]
    fn both_judge_damaged_packets_alike(bytes in damaged_packet()) {
        check_agreement(&bytes)?;
    }

    #[test]
    fn both_judge_random_packets_alike(
        first_byte in prop_oneof![select(PLAUSIBLE_FIRST_BYTES), any::<u8>()],
        body in vec(prop_oneof![0..6u8, any::<u8>()], 0..60),
    ) {
        check_agreement(&[&[first_byte, body.len() as u8][..], &body].concat())?;
        check_agreement(&[&[first_byte][..], &body].concat())?;
    }

    #[test]
    fn mqttbytes_reads_what_the_server_writes(
        id in packet_id(),
        session_present in any::<bool>(),
        codes in vec(suback_code(), 1..300),
        topic in topic_name(),
        qos in qos(),
        payload in vec(any::<u8>(), 0..300),
    ) {
        let read = |encode: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            encode(&mut bytes);
            let (packet, taken) = theirs(&bytes);
            assert_eq!(taken, bytes.len());
            packet.unwrap()
        };
        let pkid = id.get();
        let code = ConnectReturnCode::Success;
        let connack = read(&|out| {
            assert!(encode::connack(out, V311, session_present, code.into(), &ConnackProperties::default()));
        });
        prop_assert_eq!(connack, v4::Packet::ConnAck(v4::ConnAck { session_present, code }));
        let (codes, return_codes): (Vec<_>, _) = codes.iter().copied().unzip();
        let suback = read(&|out| encode::suback(out, V311, id, &codes));
        prop_assert_eq!(suback, v4::Packet::SubAck(v4::SubAck { pkid, return_codes }));
        let unsuback = read(&|out| encode::unsuback(out, V311, id, &codes));
        prop_assert_eq!(unsuback, v4::Packet::UnsubAck(v4::UnsubAck { pkid }));
        prop_assert_eq!(read(&encode::pingresp), v4::Packet::PingResp);
        let ack = |kind| read(&|out| out.extend_from_slice(&encode::ack(kind, id)));
        prop_assert_eq!(ack(AckKind::PubAck), v4::Packet::PubAck(v4::PubAck { pkid }));
        prop_assert_eq!(ack(AckKind::PubRec), v4::Packet::PubRec(v4::PubRec { pkid }));
        prop_assert_eq!(ack(AckKind::PubRel), v4::Packet::PubRel(v4::PubRel { pkid }));
        prop_assert_eq!(ack(AckKind::PubComp), v4::Packet::PubComp(v4::PubComp { pkid }));

        let header = PublishHeader { dup: false, qos, retain: false, topic: &topic, packet_id: Some(id) };
        let mut expected = v4::Publish::new(&topic, qos, payload.clone());
        expected.pkid = if qos == QoS::AtMostOnce { 0 } else { pkid };
        let publish = read(&|out| {
            encode::publish(out, V311, &header, &PublishPropertiesOut::NONE, &payload);
        });
        prop_assert_eq!(publish, v4::Packet::Publish(expected));
    }

    #[test]
    fn mqttbytes_writes_what_this_codec_reads(
        id in packet_id(),
        filters in vec((topic_filter(), qos()), 1..5),
        topic in topic_name(),
        qos in qos(),
        payload in vec(any::<u8>(), 0..40),
    ) {
        let check = |theirs: v4::Packet| {
            let mut bytes = BytesMut::new();
            match &theirs {
                v4::Packet::Connect(packet) => packet.write(&mut bytes),
                v4::Packet::Publish(packet) => packet.write(&mut bytes),
                v4::Packet::Subscribe(packet) => packet.write(&mut bytes),
                v4::Packet::Unsubscribe(packet) => packet.write(&mut bytes),
                other => panic!("{other:?}"),
            }
            .unwrap();
            let Ok(Framed::Frame(frame)) = frame(&bytes, usize::MAX, V311) else { panic!("{theirs:?}") };
            check_same(&decode(&frame, V311).unwrap(), &theirs)
        };
        let mut connect = v4::Connect::new(&topic);
        connect.set_login("user", "password");
        connect.last_will = Some(v4::LastWill::new(&topic, payload.clone(), qos, true));
        check(v4::Packet::Connect(connect))?;
        let mut publish = v4::Publish::new(&topic, qos, payload);
        publish.pkid = if qos == QoS::AtMostOnce { 0 } else { id.get() };
        check(v4::Packet::Publish(publish))?;
        let entries = filters.iter().map(|(filter, qos)| v4::SubscribeFilter::new(filter.clone(), *qos));
        let mut subscribe = v4::Subscribe::new_many(entries);
        subscribe.pkid = id.get();
        check(v4::Packet::Subscribe(subscribe))?;
        let topics = filters.into_iter().map(|(filter, _)| filter).collect();
        check(v4::Packet::Unsubscribe(v4::Unsubscribe { pkid: id.get(), topics }))?;
    }
}

/// One example for each entry of [`wrongly_accepted`].
#[test]
fn mqttbytes_still_accepts_what_the_list_says() {
    let examples: [(&[u8], &str); 13] = [
        (b"\x6f\x02\x00\x01", "reserved_flags"),
        (b"\x38\x03\x00\x01a", "dup_on_qos_0"),
        (b"\x40\x04\x00\x01\x00\x00", "wrong_length"),
        (b"\xe0\x01\x00", "wrong_length"),
        (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x01a\x00", "trailing_bytes"),
        (b"\x30\x03\x00\x01\x00", "nul_in_string"),
        (b"\x30\x03\x00\x01#", "wildcard_in_topic_name"),
        (b"\x62\x02\x00\x00", "packet_id_zero"),
        (b"\xa2\x02\x00\x01", "no_topic_filter"),
        (b"\x10\x0d\x00\x04MQTT\x04\x03\x00\x00\x00\x01a", "connect_reserved_flag"),
        (b"\x10\x10\x00\x04MQTT\x04\x42\x00\x00\x00\x01a\x00\x01p", "password_without_user_name"),
        (b"\x82\x06\x00\x01\x00\x01a\x04", "bad_requested_qos"),
        (b"\x20\x02\x00\x00", "unexpected_packet_type"),
    ];
    for (bytes, reason) in examples {
        let ours = frame(bytes, usize::MAX, V311).and_then(|framed| match framed {
            Framed::Frame(frame) => decode(&frame, V311).map(drop),
            Framed::NeedMore { .. } => panic!("{bytes:?} is not whole"),
        });
        let error = ours.expect_err(reason);
        assert_eq!(error.reason(), reason, "{bytes:?}");
        assert!(wrongly_accepted(error), "{reason} is not on the list");
        let (theirs, taken) = theirs(bytes);
        assert!(theirs.is_ok(), "{reason}: {theirs:?}");
        assert_eq!(taken, bytes.len());
    }
}

/// One example for each entry of [`wrongly_refused`].
#[test]
fn mqttbytes_still_refuses_what_the_list_says() {
    let connect = |version, password: &[u8]| OwnedPacket::Connect {
        version,
        clean_session: true,
        keep_alive: 0,
        client_id: "a".to_owned(),
        will: None,
        login: Some(("u".to_owned(), Some(password.to_vec()))),
    };
    for (packet, expected) in [
        (connect(ProtocolVersion::V31, b"p"), mqttbytes::Error::InvalidProtocol),
        (connect(V311, b"\xff"), mqttbytes::Error::TopicNotUtf8),
    ] {
        let bytes = packet.to_bytes();
        let (theirs, _) = theirs(&bytes);
        assert_eq!(theirs.expect_err("must be refused"), expected);
        let ours = Packet::Connect(packet.as_connect().unwrap());
        assert!(wrongly_refused(&ours, expected));
        check_agreement(&bytes).unwrap();
    }
    let (theirs, _) = theirs(&connect(V311, b"p").to_bytes());
    assert!(theirs.is_ok());
}
