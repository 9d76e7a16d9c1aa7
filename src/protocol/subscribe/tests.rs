use super::super::packet::testing::{decode_v5, decode_whole, packet};
use super::super::{Packet, TopicError};
use super::*;

fn subscribe_error(body: &[u8]) -> DecodeError {
    decode_whole(&packet(0x82, body)).expect_err("must be refused")
}

fn unsubscribe_error(body: &[u8]) -> DecodeError {
    decode_whole(&packet(0xa2, body)).expect_err("must be refused")
}

#[test]
fn subscribe_lists_its_filters_in_order() {
    let bytes = packet(0x82, b"\x00\x07\x00\x01a\x02\x00\x03+/#\x00\x00\x01/\x01");
    let Ok(Packet::Subscribe(subscribe)) = decode_whole(&bytes) else { panic!() };
    assert_eq!(subscribe.packet_id.get(), 7);
    assert_eq!(subscribe.count(), 3);
    assert_eq!(subscribe.filters().len(), 3);
    let expected = [("a", QoS::ExactlyOnce), ("+/#", QoS::AtMostOnce), ("/", QoS::AtLeastOnce)]
        .map(|(filter, qos)| (filter, SubscribeOptions::with_qos(qos)));
    assert!(subscribe.filters().eq(expected));
    // Nothing is used up by iterating.
    assert!(subscribe.filters().eq(expected));
    assert_eq!(
        format!("{subscribe:?}"),
        "Subscribe { packet_id: PacketId(7), count: 3, first: Some(\"a\"), .. }"
    );
}

#[test]
fn unsubscribe_lists_its_filters_in_order() {
    let bytes = packet(0xa2, b"\x01\x00\x00\x01a\x00\x03a/+");
    let Ok(Packet::Unsubscribe(unsubscribe)) = decode_whole(&bytes) else { panic!() };
    assert_eq!((unsubscribe.packet_id.get(), unsubscribe.count()), (256, 2));
    assert_eq!(unsubscribe.filters().len(), 2);
    assert!(unsubscribe.filters().eq(["a", "a/+"]));
}

/// [MQTT-3.8.3-3], [MQTT-3.10.3-2]
#[test]
fn no_filter_is_refused() {
    assert_eq!(subscribe_error(b"\x00\x01"), DecodeError::NoTopicFilter);
    assert_eq!(unsubscribe_error(b"\x00\x01"), DecodeError::NoTopicFilter);
}

/// [MQTT-2.3.1-1]
#[test]
fn packet_id_zero_is_refused() {
    assert_eq!(subscribe_error(b"\x00\x00\x00\x01a\x00"), DecodeError::PacketIdZero);
    assert_eq!(unsubscribe_error(b"\x00\x00\x00\x01a"), DecodeError::PacketIdZero);
}

/// [MQTT-3.8.3-4]
#[test]
fn requested_qos_above_2_is_refused() {
    for byte in 3..=255 {
        let body = [b"\x00\x01\x00\x01a\x00\x00\x01b", &[byte][..]].concat();
        assert_eq!(subscribe_error(&body), DecodeError::RequestedQosMalformed { byte });
    }
}

#[test]
fn a_cut_packet_is_refused() {
    let cut = |field| DecodeError::Truncated { field };
    for error in [subscribe_error, unsubscribe_error] {
        assert_eq!(error(b""), cut(Field::PacketId));
        assert_eq!(error(b"\x01"), cut(Field::PacketId));
        assert_eq!(error(b"\x00\x01\x00"), cut(Field::TopicFilter));
        assert_eq!(error(b"\x00\x01\x00\x02a"), cut(Field::TopicFilter));
    }
    assert_eq!(subscribe_error(b"\x00\x01\x00\x01a"), cut(Field::RequestedQos));
}

/// [MQTT-1.5.3-1], [MQTT-1.5.3-2], [MQTT-3.8.3-1], [MQTT-3.10.3-1]; the second filter counts like the
/// first.
#[test]
fn bad_strings_are_refused() {
    let field = Field::TopicFilter;
    assert_eq!(subscribe_error(b"\x00\x01\x00\x01a\x00\x00\x01\xff\x00"), DecodeError::BadUtf8 { field });
    assert_eq!(unsubscribe_error(b"\x00\x01\x00\x01a\x00\x01\xff"), DecodeError::BadUtf8 { field });
    assert_eq!(subscribe_error(b"\x00\x01\x00\x02a\x00\x00"), DecodeError::NulInString { field });
    assert_eq!(unsubscribe_error(b"\x00\x01\x00\x02a\x00"), DecodeError::NulInString { field });
}

#[test]
fn bad_filters_are_refused() {
    let bad = |error| DecodeError::BadTopic { field: Field::TopicFilter, error };
    assert_eq!(subscribe_error(b"\x00\x01\x00\x00\x00"), bad(TopicError::Empty));
    assert_eq!(unsubscribe_error(b"\x00\x01\x00\x00"), bad(TopicError::Empty));
    assert_eq!(subscribe_error(b"\x00\x01\x00\x02a#\x00"), bad(TopicError::MisplacedMultiLevel));
    assert_eq!(unsubscribe_error(b"\x00\x01\x00\x03#/a"), bad(TopicError::MisplacedMultiLevel));
    assert_eq!(subscribe_error(b"\x00\x01\x00\x02a+\x00"), bad(TopicError::MisplacedSingleLevel));
}

#[test]
fn options_of_mqtt_5_come_with_each_filter() {
    let bytes = packet(0x82, b"\x00\x07\x03\x0b\xc8\x01\x00\x01a\x02\x00\x01b\x0c\x00\x0a$share/g/a\x21");
    let Ok(Packet::Subscribe(subscribe)) = decode_v5(&bytes) else { panic!("{:?}", decode_v5(&bytes)) };
    assert_eq!(subscribe.subscription_id, NonZeroU32::new(200));
    let plain = SubscribeOptions::with_qos(QoS::AtMostOnce);
    let expected = [
        ("a", SubscribeOptions::with_qos(QoS::ExactlyOnce)),
        ("b", SubscribeOptions { no_local: true, retain_as_published: true, ..plain }),
        (
            "$share/g/a",
            SubscribeOptions { qos: QoS::AtLeastOnce, retain_handling: RetainHandling::DoNotSend, ..plain },
        ),
    ];
    assert!(subscribe.filters().eq(expected));
}

/// Every options byte, in the order of the bits. [MQTT-3.8.3-5]
#[test]
fn options_of_mqtt_5_are_judged_bit_by_bit() {
    for byte in 0..=255_u8 {
        let bytes = packet(0x82, &[0, 1, 0, 0, 1, b'a', byte]);
        match decode_v5(&bytes) {
            Ok(Packet::Subscribe(subscribe)) => {
                let (_, options) = subscribe.filters().next().unwrap();
                assert_eq!(options.byte(), byte);
                assert!(byte < 0x30 && byte & 3 != 3);
            }
            Err(DecodeError::SubscriptionOptionsReserved { byte: told }) => {
                assert!(told == byte && byte >= 0x40);
            }
            Err(DecodeError::SubscriptionQos3) => assert!(byte < 0x40 && byte & 3 == 3),
            Err(DecodeError::RetainHandling3) => assert!(byte & 0xf0 == 0x30 && byte & 3 != 3),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn unsubscribe_of_mqtt_5_has_properties() {
    let bytes = packet(0xa2, b"\x01\x00\x07\x26\x00\x01k\x00\x01v\x00\x01a");
    let Ok(Packet::Unsubscribe(unsubscribe)) = decode_v5(&bytes) else { panic!() };
    assert!(unsubscribe.filters().eq(["a"]));
}

/// In MQTT 3.1.1 they are filters like any other.
#[test]
fn bad_shared_filters_are_refused_in_mqtt_5_only() {
    let field = Field::TopicFilter;
    let bad = DecodeError::BadTopic { field, error: TopicError::NoSharedFilter };
    let v311 = b"\x00\x01\x00\x08$share/g";
    let v5 = b"\x00\x01\x00\x00\x08$share/g";
    assert_eq!(decode_v5(&packet(0xa2, v5)), Err(bad));
    assert!(decode_whole(&packet(0xa2, v311)).is_ok());
    assert_eq!(decode_v5(&packet(0x82, &[&v5[..], &[0]].concat())), Err(bad));
    assert!(decode_whole(&packet(0x82, &[&v311[..], &[0]].concat())).is_ok());
}
