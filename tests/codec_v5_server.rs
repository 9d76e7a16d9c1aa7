//! What the codec writes for a server in MQTT 5, read by a client of another make (rumqttc).

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rumqttc::v5::mqttbytes::v5 as theirs;
use ternmq::protocol::ProtocolVersion::V5;
use ternmq::protocol::encode::{self, AckKind, ConnackProperties, PublishHeader, PublishPropertiesOut};
use ternmq::protocol::{PacketId, QoS, ReasonCode};

/// What the client makes of it; it must take every byte.
fn read(encode: impl FnOnce(&mut Vec<u8>)) -> theirs::Packet {
    let mut bytes = Vec::new();
    encode(&mut bytes);
    let mut stream = BytesMut::from(&bytes[..]);
    let packet = theirs::Packet::read(&mut stream, None).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
    assert!(stream.is_empty());
    packet
}

fn id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

/// 0 is told where it is not the default.
fn told(available: bool) -> Option<u8> {
    (!available).then_some(0)
}

proptest! {
    #[test]
    fn connack_is_understood(
        numbers in (option::of(any::<u32>()), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>()),
        keep_alive in option::of(any::<u16>()),
        maximum_qos in qos(),
        available in any::<[bool; 4]>(),
        texts in vec(option::of("[a-z\u{e9}]{0,40}"), 4),
        auth_data in option::of(vec(any::<u8>(), 0..300)),
        session_present in any::<bool>(),
    ) {
        let (session_expiry, receive_maximum, maximum_packet_size, topic_alias_maximum) = numbers;
        let [retain_available, wildcard_available, subscription_ids_available, shared_available] = available;
        let properties = ConnackProperties {
            session_expiry,
            receive_maximum,
            maximum_qos,
            retain_available,
            maximum_packet_size,
            assigned_client_id: texts[0].as_deref(),
            topic_alias_maximum,
            reason_string: texts[1].as_deref(),
            wildcard_available,
            subscription_ids_available,
            shared_available,
            server_keep_alive: keep_alive,
            response_information: texts[2].as_deref(),
            auth_method: texts[3].as_deref(),
            auth_data: auth_data.as_deref(),
            client_packet_bytes_max: None,
        };
        let packet = read(|out| {
            assert!(encode::connack(out, V5, session_present, ReasonCode::Success, &properties));
        });
        let theirs::Packet::ConnAck(connack) = packet else { panic!("{packet:?}") };
        prop_assert_eq!(connack.session_present, session_present);
        prop_assert_eq!(connack.code, theirs::ConnectReturnCode::Success);
        let expected = theirs::ConnAckProperties {
            session_expiry_interval: session_expiry,
            receive_max: (receive_maximum != u16::MAX).then_some(receive_maximum),
            max_qos: (maximum_qos != QoS::ExactlyOnce).then_some(maximum_qos as u8),
            retain_available: told(retain_available),
            max_packet_size: maximum_packet_size,
            assigned_client_identifier: texts[0].clone(),
            topic_alias_max: (topic_alias_maximum != 0).then_some(topic_alias_maximum),
            reason_string: texts[1].clone(),
            user_properties: Vec::new(),
            wildcard_subscription_available: told(wildcard_available),
            subscription_identifiers_available: told(subscription_ids_available),
            shared_subscription_available: told(shared_available),
            server_keep_alive: keep_alive,
            response_information: texts[2].clone(),
            server_reference: None,
            authentication_method: texts[3].clone(),
            authentication_data: auth_data.clone().filter(|_| texts[3].is_some()).map(Into::into),
        };
        let nothing_told = connack.properties.is_none();
        prop_assert!(nothing_told || connack.properties == Some(expected.clone()));
        let same = ConnackProperties { auth_data: None, ..properties } == ConnackProperties::default();
        prop_assert_eq!(nothing_told, same);
    }

    #[test]
    fn publish_is_understood(
        (qos, retain, dup, id) in (qos(), any::<bool>(), any::<bool>(), id()),
        expiry in option::of(any::<u32>()),
        topic_alias in option::of(1..=u16::MAX),
        subscription_ids in vec(1..=268_435_455_u32, 0..5),
        user_properties in vec(("[a-z]{0,9}", "[a-z\u{e9}]{0,100}"), 0..4),
        payload in vec(any::<u8>(), 0..300),
    ) {
        let mut forwarded = Vec::new();
        for text in &user_properties {
            forwarded.push(0x26);
            for text in [&text.0, &text.1] {
                forwarded.extend_from_slice(&(text.len() as u16).to_be_bytes());
                forwarded.extend_from_slice(text.as_bytes());
            }
        }
        let header = PublishHeader { dup, qos, retain, topic: "a/b", packet_id: Some(id) };
        let properties =
            PublishPropertiesOut { expiry, topic_alias, subscription_ids: &subscription_ids, forwarded: &forwarded };
        let packet = read(|out| encode::publish(out, V5, &header, &properties, &payload));
        let theirs::Packet::Publish(publish) = packet else { panic!("{packet:?}") };
        let has_id = qos != QoS::AtMostOnce;
        prop_assert_eq!((publish.dup, publish.retain), (dup && has_id, retain));
        prop_assert_eq!(publish.qos as u8, qos as u8);
        prop_assert_eq!((&publish.topic[..], &publish.payload[..]), (&b"a/b"[..], &payload[..]));
        prop_assert_eq!(publish.pkid, if has_id { id.get() } else { 0 });
        let expected = theirs::PublishProperties {
            message_expiry_interval: expiry,
            topic_alias,
            user_properties,
            subscription_identifiers: subscription_ids.iter().map(|id| *id as usize).collect(),
            ..theirs::PublishProperties::default()
        };
        prop_assert_eq!(publish.properties.unwrap_or_default(), expected);
    }
}

#[test]
fn acknowledgements_are_understood() {
    let id = PacketId::new(0x1234).unwrap();
    let ack = |kind, code| read(|out| out.extend_from_slice(encode::ack_v5(kind, id, code).as_ref()));
    for (code, reason) in [
        (ReasonCode::Success, theirs::PubAckReason::Success),
        (ReasonCode::NoMatchingSubscribers, theirs::PubAckReason::NoMatchingSubscribers),
        (ReasonCode::QuotaExceeded, theirs::PubAckReason::QuotaExceeded),
    ] {
        let theirs::Packet::PubAck(puback) = ack(AckKind::PubAck, code) else { panic!() };
        assert_eq!((puback.pkid, puback.reason), (0x1234, reason));
    }
    let theirs::Packet::PubRec(pubrec) = ack(AckKind::PubRec, ReasonCode::NotAuthorized) else { panic!() };
    assert_eq!((pubrec.pkid, pubrec.reason), (0x1234, theirs::PubRecReason::NotAuthorized));
    let not_found = ReasonCode::PacketIdentifierNotFound;
    let theirs::Packet::PubRel(pubrel) = ack(AckKind::PubRel, not_found) else { panic!() };
    assert_eq!((pubrel.pkid, pubrel.reason), (0x1234, theirs::PubRelReason::PacketIdentifierNotFound));
    let theirs::Packet::PubComp(pubcomp) = ack(AckKind::PubComp, not_found) else { panic!() };
    assert_eq!((pubcomp.pkid, pubcomp.reason), (0x1234, theirs::PubCompReason::PacketIdentifierNotFound));

    let codes = [ReasonCode::GrantedQos2, ReasonCode::TopicFilterInvalid, ReasonCode::GRANTED_QOS_0];
    let theirs::Packet::SubAck(suback) = read(|out| encode::suback(out, V5, id, &codes)) else { panic!() };
    use rumqttc::v5::mqttbytes::QoS as TheirQos;
    use theirs::SubscribeReasonCode::{Success, TopicFilterInvalid};
    assert_eq!(suback.pkid, 0x1234);
    let expected = [Success(TheirQos::ExactlyOnce), TopicFilterInvalid, Success(TheirQos::AtMostOnce)];
    assert_eq!(suback.return_codes, expected);
    let codes = [ReasonCode::NoSubscriptionExisted, ReasonCode::Success];
    let theirs::Packet::UnsubAck(unsuback) = read(|out| encode::unsuback(out, V5, id, &codes)) else {
        panic!()
    };
    assert_eq!(unsuback.pkid, 0x1234);
    assert_eq!(
        unsuback.reasons,
        [theirs::UnsubAckReason::NoSubscriptionExisted, theirs::UnsubAckReason::Success]
    );
}

#[test]
fn disconnect_is_understood() {
    let packet = read(|out| {
        assert!(encode::disconnect(out, ReasonCode::SessionTakenOver, Some("why"), None));
    });
    let theirs::Packet::Disconnect(disconnect) = packet else { panic!() };
    assert_eq!(disconnect.reason_code, theirs::DisconnectReasonCode::SessionTakenOver);
    assert_eq!(disconnect.properties.and_then(|told| told.reason_string).as_deref(), Some("why"));
}
