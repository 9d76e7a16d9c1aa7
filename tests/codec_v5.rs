//! MQTT 5 in the codec: what is refused and with which reason code, and the properties that hold for 3.1.1
//! too (encoding and decoding are inverse, reads may be cut anywhere, nothing panics, an error is final).

#[path = "codec/malformed_v5.rs"]
mod malformed_v5;
#[path = "codec/packets_v5.rs"]
mod packets_v5;

use malformed_v5::{FRAMING, LEGAL, MALFORMED};
use packets_v5::{damaged_packet, packet_bytes};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use ternmq::protocol::ProtocolVersion::{V5, V311};
use ternmq::protocol::{DecodeError, Framed, Packet, decode, encode, frame};

const MAX: usize = 1 << 20;

/// The packet of bytes that hold exactly one.
fn decode_whole(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, MAX, V5)? {
        Framed::Frame(frame) if frame.total() == bytes.len() => decode(&frame, V5),
        other => panic!("not one whole packet: {other:?}"),
    }
}

/// A packet of this first byte around this body of less than 128 bytes.
fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    [&[first_byte, body.len() as u8], body].concat()
}

#[test]
fn malformed_packets_get_the_reason_code_of_the_standard() {
    for (name, first_byte, body, reason, code) in MALFORMED {
        let bytes = packet(*first_byte, body);
        let error = decode_whole(&bytes).expect_err(name);
        assert_eq!((error.reason(), error.reason_code().byte()), (*reason, *code), "{name}");
    }
    for (name, bytes, reason, code) in FRAMING {
        let error = frame(bytes, MAX, V5).expect_err(name);
        assert_eq!((error.reason(), error.reason_code().byte()), (*reason, *code), "{name}");
    }
}

/// A CONNECT is framed before its version is known, so its decoder judges the form of its length.
#[test]
fn connect_of_mqtt_5_has_the_shortest_length() {
    let bytes = b"\x10\x8d\x00\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x00";
    let Ok(Framed::Frame(frame)) = frame(bytes, MAX, V311) else { panic!() };
    let error = decode(&frame, V311).expect_err("not shortest");
    assert_eq!((error.reason(), error.reason_code().byte()), ("remaining_length_not_shortest", 0x81));
}

/// The neighbours of what is refused: so no row above is refused for another fault than its own.
#[test]
fn legal_packets_beside_them_are_read() {
    for (name, first_byte, body) in LEGAL {
        if let Err(error) = decode_whole(&packet(*first_byte, body)) {
            panic!("{name}: {error}");
        }
    }
}

#[test]
fn a_packet_above_the_limit_is_too_large() {
    let error = frame(&[0x30, 99], 100, V5).expect_err("101 bytes");
    assert_eq!((error.reason(), error.reason_code().byte()), ("packet_too_large", 0x95));
    assert!(frame(&[0x30, 98], 100, V5).is_ok());
}

#[test]
fn a_publish_holds_what_its_section_says() {
    let bytes = b"\x3d\x14\x00\x01a\x00\x09\x0c\x02\x00\x00\x00\x0a\x23\x00\x03\x03\x00\x01tbc";
    let Ok(Packet::Publish(publish)) = decode_whole(bytes) else { panic!() };
    assert_eq!((publish.topic, publish.payload, publish.packet_id_offset), ("a", &b"bc"[..], 5));
    assert_eq!(publish.properties.message_expiry_interval, Some(10));
    assert_eq!(publish.properties.topic_alias.map(|alias| alias.get()), Some(3));
    assert_eq!(publish.properties.content_type(), Some("t"));
    assert!(!publish.properties.forwardable());
    // With QoS 0 the offset is where the id would stand: before the properties.
    let Ok(Packet::Publish(publish)) = decode_whole(b"\x30\x07\x00\x01a\x02\x01\x01b") else { panic!() };
    assert_eq!((publish.packet_id_offset, publish.payload), (5, &b"b"[..]));
    assert!(publish.properties.forwardable());
}

#[test]
fn many_user_properties_are_read() {
    let section = b"\x26\x00\x00\x00\x00".repeat(100_000);
    // 500,000 bytes of section behind three of length, id and code.
    let mut bytes = vec![0x40, 0xa6, 0xc2, 0x1e, 0, 1, 0, 0xa0, 0xc2, 0x1e];
    bytes.extend_from_slice(&section);
    assert!(matches!(decode_whole(&bytes), Ok(Packet::PubAck(_))));
}

#[derive(Default)]
struct Accumulator {
    buf: Vec<u8>,
    packets: Vec<Vec<u8>>,
}

impl Accumulator {
    fn read(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.buf.extend_from_slice(bytes);
        let mut start = 0;
        while let Framed::Frame(frame) = frame(&self.buf[start..], MAX, V5)? {
            decode(&frame, V5)?;
            self.packets.push(frame.wire().to_vec());
            start += frame.total();
        }
        self.buf.drain(..start);
        Ok(())
    }
}

/// Whatever is said of a prefix must hold for everything longer.
fn check_stable(bytes: &[u8], packet_bytes_max: usize) -> Result<(), TestCaseError> {
    let mut before = frame(&[], packet_bytes_max, V5);
    for len in 1..=bytes.len() {
        let now = frame(&bytes[..len], packet_bytes_max, V5);
        match before {
            Err(_) | Ok(Framed::Frame(_)) => prop_assert_eq!(now, before),
            Ok(Framed::NeedMore { total: Some(total) }) if len < total => prop_assert_eq!(now, before),
            Ok(Framed::NeedMore { total: Some(total) }) => {
                prop_assert!(matches!(now, Ok(Framed::Frame(frame)) if frame.total() == total));
            }
            Ok(Framed::NeedMore { total: None }) => {}
        }
        before = now;
    }
    Ok(())
}

/// Anything accepted can be written again and is the same when it is read again; anything refused has an
/// error code.
fn check_accepted_or_refused(bytes: &[u8]) -> Result<(), TestCaseError> {
    let frame = match frame(bytes, MAX, V5) {
        Ok(Framed::Frame(frame)) => frame,
        Ok(Framed::NeedMore { .. }) => return Ok(()),
        Err(error) => {
            prop_assert!(error.reason_code().is_error());
            return Ok(());
        }
    };
    match decode(&frame, V5) {
        Ok(packet) => {
            // A CONNECT of another version is written in that version.
            let mut again = Vec::new();
            encode::packet(&mut again, V5, &packet);
            prop_assert!(again.len() <= frame.total(), "ours is the shortest form");
            prop_assert_eq!(decode_whole(&again), Ok(packet));
        }
        Err(error) => prop_assert!(error.reason_code().is_error()),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// The generator writes bytes of its own accord, so this does not rest on the encoders.
    #[test]
    fn valid_packets_are_read_and_written_the_same(generated in packet_bytes()) {
        let packet = match decode_whole(&generated.bytes) {
            Ok(packet) => packet,
            Err(error) => return Err(TestCaseError::fail(format!("{generated:?}: {error}"))),
        };
        let mut again = Vec::new();
        encode::packet(&mut again, V5, &packet);
        if generated.canonical {
            prop_assert_eq!(&again, &generated.bytes);
        }
        prop_assert_eq!(decode_whole(&again), Ok(packet));
    }

    #[test]
    fn every_strict_prefix_of_a_packet_needs_more(generated in packet_bytes()) {
        let bytes = generated.bytes;
        for len in 0..bytes.len() {
            match frame(&bytes[..len], MAX, V5) {
                Ok(Framed::NeedMore { total }) => {
                    prop_assert!(total.is_none_or(|total| total == bytes.len()));
                }
                other => prop_assert!(false, "{len} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }

    #[test]
    fn reads_may_be_cut_anywhere(
        generated in vec(packet_bytes(), 1..8),
        sizes in vec(1..40usize, 1..20),
    ) {
        let expected: Vec<_> = generated.into_iter().map(|packet| packet.bytes).collect();
        let stream = expected.concat();
        let mut accumulator = Accumulator::default();
        let mut rest = &stream[..];
        for &size in sizes.iter().cycle() {
            let (read, after) = rest.split_at(size.min(rest.len()));
            accumulator.read(read).unwrap();
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(accumulator.buf.is_empty());
        prop_assert_eq!(accumulator.packets, expected);
    }

    /// What is forwarded is the section without what is not to be, and nothing else changes.
    #[test]
    fn forwarding_leaves_out_alias_and_expiry_only(generated in packet_bytes()) {
        if let Ok(Packet::Publish(publish)) = decode_whole(&generated.bytes) {
            let properties = publish.properties;
            let mut forwarded = Vec::new();
            properties.write_forwardable(&mut forwarded);
            let again = ternmq::protocol::PublishProperties::parse(&forwarded).unwrap();
            prop_assert!(again.forwardable());
            prop_assert_eq!(again.raw() == properties.raw(), properties.forwardable());
            prop_assert_eq!(again.payload_format_indicator, properties.payload_format_indicator);
            prop_assert_eq!(again.response_topic(), properties.response_topic());
            prop_assert_eq!(again.correlation_data(), properties.correlation_data());
            prop_assert_eq!(again.content_type(), properties.content_type());
            prop_assert!(again.user_properties().eq(properties.user_properties()));
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..64), packet_bytes_max in 0..100usize) {
        check_stable(&bytes, packet_bytes_max)?;
        check_accepted_or_refused(&bytes)?;
    }

    /// Plausible header, random body: these get past the framing.
    #[test]
    fn random_bodies_do_no_harm(
        first_byte in proptest::sample::select(&[0x10u8, 0x30, 0x32, 0x40, 0x62, 0x82, 0xa2, 0xe0, 0xf0][..]),
        body in vec(prop_oneof![0..6u8, 0..0x30u8, any::<u8>()], 0..60),
    ) {
        let bytes = [&[first_byte, body.len() as u8][..], &body].concat();
        check_stable(&bytes, MAX)?;
        check_accepted_or_refused(&bytes)?;
    }

    #[test]
    fn damaged_packets_do_no_harm(bytes in damaged_packet(), packet_bytes_max in 0..400usize) {
        check_stable(&bytes, packet_bytes_max)?;
        check_accepted_or_refused(&bytes)?;
    }
}
