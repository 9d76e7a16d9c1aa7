use super::super::ProtocolVersion::{V5, V311};
use super::super::packet::testing::{decode_v5, decode_whole};
use super::super::{Framed, Packet, frame_from_server};
use super::*;

const NONE: PublishPropertiesOut<'_> = PublishPropertiesOut::NONE;

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Something is in the buffer already: it must stay.
    let mut out = vec![1, 2, 3];
    encode(&mut out);
    let packet = out.split_off(3);
    assert_eq!(out, [1, 2, 3]);
    packet
}

#[test]
fn acknowledgements_are_written() {
    assert_eq!(ack(AckKind::PubAck, id(0x1234)), [0x40, 2, 0x12, 0x34]);
    assert_eq!(ack(AckKind::PubRec, id(1)), [0x50, 2, 0, 1]);
    assert_eq!(ack(AckKind::PubRel, id(0xffff)), [0x62, 2, 0xff, 0xff]);
    assert_eq!(ack(AckKind::PubComp, id(0x100)), [0x70, 2, 1, 0]);
}

/// [MQTT-2.3.1-7], [MQTT-3.9.3-1], [MQTT-3.9.3-2]
#[test]
fn suback_and_unsuback_are_written() {
    let codes = [
        ReasonCode::granted(QoS::ExactlyOnce),
        ReasonCode::QuotaExceeded,
        ReasonCode::granted(QoS::AtMostOnce),
        ReasonCode::granted(QoS::AtLeastOnce),
    ];
    assert_eq!(encoded(|out| suback(out, V311, id(7), &codes)), [0x90, 6, 0, 7, 2, 0x80, 0, 1]);
    assert_eq!(encoded(|out| suback(out, V5, id(7), &codes)), [0x90, 7, 0, 7, 0, 2, 0x97, 0, 1]);
    let many = encoded(|out| suback(out, V311, id(7), &[ReasonCode::UnspecifiedError; 1000]));
    assert_eq!((&many[..5], many.len()), (&[0x90, 0xea, 0x07, 0, 7][..], 1005));
    let codes = [ReasonCode::NoSubscriptionExisted, ReasonCode::Success];
    assert_eq!(encoded(|out| unsuback(out, V311, id(0x0102), &codes)), [0xb0, 2, 1, 2]);
    assert_eq!(encoded(|out| unsuback(out, V5, id(0x0102), &codes)), [0xb0, 5, 1, 2, 0, 0x11, 0]);
    assert_eq!(encoded(pingresp), [0xd0, 0]);
}

#[test]
fn publish_is_written() {
    let header =
        PublishHeader { dup: false, qos: QoS::AtMostOnce, retain: true, topic: "ab", packet_id: None };
    assert_eq!(encoded(|out| publish(out, V311, &header, &NONE, b"xyz")), b"\x31\x07\x00\x02abxyz");
    let header = PublishHeader { dup: true, qos: QoS::ExactlyOnce, packet_id: Some(id(0x0102)), ..header };
    assert_eq!(encoded(|out| publish(out, V311, &header, &NONE, b"xyz")), b"\x3d\x09\x00\x02ab\x01\x02xyz");
    let header = PublishHeader { qos: QoS::AtLeastOnce, retain: false, packet_id: None, ..header };
    assert_eq!(encoded(|out| publish(out, V311, &header, &NONE, b"")), b"\x3a\x06\x00\x02ab\x00\x00");
}

/// [MQTT-2.3.1-5], [MQTT-3.3.1-2]
#[test]
fn qos_0_is_written_without_packet_id_and_dup() {
    let header =
        PublishHeader { dup: true, qos: QoS::AtMostOnce, retain: false, topic: "a", packet_id: Some(id(1)) };
    assert_eq!(encoded(|out| publish(out, V311, &header, &NONE, b"")), b"\x30\x03\x00\x01a");
}

#[test]
fn packet_id_offset_and_length_are_right_at_every_length_of_the_header() {
    for payload_len in [0, 122, 123, 124, 125, 126, 16_378, 16_379, 16_380, 16_381, 2_097_147, 2_097_148] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            let has_packet_id = qos != QoS::AtMostOnce;
            let header =
                PublishHeader { dup: false, qos, retain: false, topic: "a", packet_id: Some(id(0x1234)) };
            let payload = vec![b'x'; payload_len];
            let mut offset = usize::MAX;
            let mut packet = encoded(|out| offset = publish_header(out, V311, &header, &NONE, payload_len));
            packet.extend_from_slice(&payload);
            assert_eq!(packet.len(), publish_len(V311, 1, has_packet_id, &NONE, payload_len));
            let Ok(Packet::Publish(decoded)) = decode_whole(&packet) else { panic!() };
            assert_eq!((decoded.topic, decoded.payload), ("a", &payload[..]));
            assert_eq!(offset, if has_packet_id { decoded.packet_id_offset } else { 0 });
            assert_eq!(decoded.packet_id, has_packet_id.then_some(id(0x1234)));
        }
    }
    assert_eq!(
        publish_len(V311, 65_535, true, &NONE, REMAINING_LENGTH_MAX - 65_539),
        REMAINING_LENGTH_MAX + 5
    );
    assert_eq!(publish_len(V5, usize::MAX, true, &NONE, usize::MAX), usize::MAX);
}

#[test]
fn what_no_packet_can_hold_is_not_begun() {
    let long = "a".repeat(TOPIC_BYTES_MAX + 1);
    for (topic, payload_len) in [(&long[..], 0), ("a", REMAINING_LENGTH_MAX), ("a", usize::MAX)] {
        let header =
            PublishHeader { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None };
        let mut out = Vec::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            publish_header(&mut out, V311, &header, &NONE, payload_len);
        }));
        assert!(result.is_err() && out.is_empty());
    }
}

#[test]
fn packets_of_the_server_can_be_told_apart_again() {
    let mut out = Vec::new();
    assert!(connack(&mut out, V311, true, ReasonCode::Success, &ConnackProperties::default()));
    suback(&mut out, V311, id(1), &[ReasonCode::UnspecifiedError]);
    unsuback(&mut out, V311, id(2), &[]);
    pingresp(&mut out);
    out.extend_from_slice(&ack(AckKind::PubRel, id(3)));
    let mut types = Vec::new();
    let mut rest = &out[..];
    while let Ok(Framed::Frame(frame)) = frame_from_server(rest, usize::MAX, V311) {
        types.push(frame.packet_type());
        rest = &rest[frame.total()..];
    }
    assert_eq!((types, rest.len()), (vec![2, 9, 11, 13, 6], 0));
}

#[test]
fn acknowledgements_of_mqtt_5_name_their_reason() {
    let written = |kind, code| ack_v5(kind, id(0x1234), code).as_ref().to_vec();
    assert_eq!(written(AckKind::PubAck, ReasonCode::Success), [0x40, 2, 0x12, 0x34]);
    let code = ReasonCode::NoMatchingSubscribers;
    assert_eq!(written(AckKind::PubRec, code), [0x50, 3, 0x12, 0x34, 0x10]);
    let code = ReasonCode::PacketIdentifierNotFound;
    assert_eq!(written(AckKind::PubRel, code), [0x62, 3, 0x12, 0x34, 0x92]);
    assert_eq!(written(AckKind::PubComp, code), [0x70, 3, 0x12, 0x34, 0x92]);
}

#[test]
fn publish_of_mqtt_5_has_its_properties() {
    let header = PublishHeader {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "a",
        packet_id: Some(id(0x0102)),
    };
    let properties = PublishPropertiesOut {
        expiry: Some(60),
        topic_alias: Some(7),
        subscription_ids: &[1, 200],
        forwarded: &[1, 1],
    };
    let packet = encoded(|out| publish(out, V5, &header, &properties, b"xy"));
    let expected = b"\x32\x17\x00\x01a\x01\x02\x0f\
        \x02\x00\x00\x00\x3c\x23\x00\x07\x0b\x01\x0b\xc8\x01\x01\x01xy";
    assert_eq!(packet, expected);
    // MQTT 3.1.1 gets none of it.
    let packet = encoded(|out| publish(out, V311, &header, &properties, b"xy"));
    assert_eq!(packet, b"\x32\x07\x00\x01a\x01\x02xy");
    // [MQTT-2.2.2-1]
    let packet = encoded(|out| publish(out, V5, &header, &NONE, b"xy"));
    assert_eq!(packet, b"\x32\x08\x00\x01a\x01\x02\x00xy");
}

#[test]
fn lengths_of_mqtt_5_are_right_where_they_grow() {
    for forwarded_len in [0, 118, 119, 120, 127, 128, 16_370, 16_383, 16_384] {
        // User properties of three bytes and up, of which the last makes up the length.
        let forwarded = match forwarded_len {
            0 => Vec::new(),
            len => {
                let value_len = (len - 5) as u16;
                let mut bytes = vec![0x26, 0, 0];
                bytes.extend_from_slice(&value_len.to_be_bytes());
                bytes.resize(len, b'v');
                bytes
            }
        };
        for qos in [QoS::AtMostOnce, QoS::ExactlyOnce] {
            let has_packet_id = qos != QoS::AtMostOnce;
            let header =
                PublishHeader { dup: false, qos, retain: false, topic: "ab", packet_id: Some(id(0x1234)) };
            let properties = PublishPropertiesOut { expiry: Some(1), forwarded: &forwarded, ..NONE };
            let mut offset = usize::MAX;
            let mut packet = encoded(|out| offset = publish_header(out, V5, &header, &properties, 3));
            packet.extend_from_slice(b"xyz");
            assert_eq!(packet.len(), publish_len(V5, 2, has_packet_id, &properties, 3));
            let Ok(Packet::Publish(decoded)) = decode_v5(&packet) else { panic!("{packet:?}") };
            assert_eq!(offset, if has_packet_id { decoded.packet_id_offset } else { 0 });
            assert_eq!((decoded.topic, decoded.payload), ("ab", &b"xyz"[..]));
            assert_eq!(decoded.properties.message_expiry_interval, Some(1));
            let mut again = Vec::new();
            decoded.properties.write_forwardable(&mut again);
            assert_eq!(again, forwarded);
        }
    }
}
