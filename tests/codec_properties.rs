//! Properties of the codec over packets and bytes at random: encoding and decoding are inverse, reads may be
//! cut anywhere, nothing panics, an error is final.

#[path = "codec/packets.rs"]
mod packets;

use packets::{OwnedPacket, damaged_packet, owned_packet, packet_id, text, topic_filter, topic_name};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use ternmq::protocol::ProtocolVersion::V311;
use ternmq::protocol::{
    DecodeError, Framed, Packet, QoS, decode, encode, frame, levels_count, matches, validate_topic_filter,
    validate_topic_name,
};

const MAX: usize = 1 << 20;

/// The packet of bytes that hold exactly one.
fn decode_whole(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, MAX, V311)? {
        Framed::Frame(frame) if frame.total() == bytes.len() => decode(&frame, V311),
        other => panic!("not one whole packet: {other:?}"),
    }
}

/// Field by field, so that the comparison does not rest on the codec's own notion of equality.
fn check_same(owned: &OwnedPacket, decoded: &Packet<'_>) -> Result<(), TestCaseError> {
    match (owned, decoded) {
        (OwnedPacket::Connect { .. }, Packet::Connect(decoded)) => {
            let owned = owned.as_connect();
            prop_assert_eq!(owned.as_ref(), Some(decoded));
        }
        (OwnedPacket::Publish { dup, qos, retain, topic, packet_id, payload }, Packet::Publish(decoded)) => {
            prop_assert_eq!((*dup, *qos, *retain), (decoded.dup, decoded.qos, decoded.retain));
            prop_assert_eq!(topic, decoded.topic);
            prop_assert_eq!((*qos != QoS::AtMostOnce).then_some(*packet_id), decoded.packet_id);
            prop_assert_eq!(&payload[..], decoded.payload);
        }
        (OwnedPacket::Plain(owned), decoded) => prop_assert_eq!(owned, decoded),
        (OwnedPacket::Subscribe(id, filters), Packet::Subscribe(decoded)) => {
            prop_assert_eq!(*id, decoded.packet_id);
            prop_assert_eq!(filters.len(), decoded.count());
            let decoded: Vec<_> =
                decoded.filters().map(|(filter, options)| (filter.to_owned(), options.qos)).collect();
            prop_assert_eq!(filters, &decoded);
        }
        (OwnedPacket::Unsubscribe(id, filters), Packet::Unsubscribe(decoded)) => {
            prop_assert_eq!(*id, decoded.packet_id);
            prop_assert_eq!(filters.len(), decoded.count());
            prop_assert!(decoded.filters().eq(filters.iter().map(String::as_str)));
        }
        other => prop_assert!(false, "{other:?}"),
    }
    Ok(())
}

/// What a connection does with its reads: collects bytes, takes every whole packet out.
#[derive(Default)]
struct Accumulator {
    buf: Vec<u8>,
    packets: Vec<Vec<u8>>,
}

impl Accumulator {
    fn read(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.buf.extend_from_slice(bytes);
        let mut start = 0;
        while let Framed::Frame(frame) = frame(&self.buf[start..], MAX, V311)? {
            decode(&frame, V311)?;
            self.packets.push(frame.wire().to_vec());
            start += frame.total();
        }
        self.buf.drain(..start);
        Ok(())
    }
}

/// Whatever is said of a prefix must hold for everything longer.
fn check_stable(bytes: &[u8], packet_bytes_max: usize) -> Result<(), TestCaseError> {
    let mut before = frame(&[], packet_bytes_max, V311);
    prop_assert_eq!(before, Ok(Framed::NeedMore { total: None }));
    for len in 1..=bytes.len() {
        let now = frame(&bytes[..len], packet_bytes_max, V311);
        match before {
            Err(_) | Ok(Framed::Frame(_)) => prop_assert_eq!(now, before),
            Ok(Framed::NeedMore { total: Some(total) }) => {
                prop_assert!(total <= packet_bytes_max);
                if len < total {
                    prop_assert_eq!(now, before);
                } else {
                    prop_assert!(matches!(now, Ok(Framed::Frame(frame)) if frame.total() == total));
                }
            }
            Ok(Framed::NeedMore { total: None }) => {}
        }
        before = now;
    }
    Ok(())
}

/// Anything accepted can be written again and is the same when it is read again.
fn check_accepted_or_refused(bytes: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Framed::Frame(frame)) = frame(bytes, MAX, V311) else { return Ok(()) };
    let Ok(packet) = decode(&frame, V311) else { return Ok(()) };
    let mut again = Vec::new();
    encode::packet(&mut again, V311, &packet);
    prop_assert!(again.len() <= frame.total(), "ours is the shortest form");
    prop_assert_eq!(decode_whole(&again), Ok(packet));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn decoding_is_the_inverse_of_encoding(owned in owned_packet()) {
        let bytes = owned.to_bytes();
        let packet = decode_whole(&bytes).unwrap();
        check_same(&owned, &packet)?;
        let mut again = Vec::new();
        encode::packet(&mut again, V311, &packet);
        prop_assert_eq!(again, bytes);
    }

    #[test]
    fn every_strict_prefix_of_a_packet_needs_more(owned in owned_packet()) {
        let bytes = owned.to_bytes();
        for len in 0..bytes.len() {
            match frame(&bytes[..len], MAX, V311) {
                Ok(Framed::NeedMore { total }) => {
                    prop_assert!(total.is_none_or(|total| total == bytes.len()));
                }
                other => prop_assert!(false, "{len} of {} bytes: {other:?}", bytes.len()),
            }
        }
    }

    #[test]
    fn reads_may_be_cut_anywhere(owned in vec(owned_packet(), 1..8), sizes in vec(1..40usize, 1..20)) {
        let mut stream = Vec::new();
        for packet in &owned {
            packet.encode(&mut stream);
        }
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
        let expected: Vec<_> = owned.iter().map(OwnedPacket::to_bytes).collect();
        prop_assert_eq!(accumulator.packets, expected);
    }

    #[test]
    fn the_packet_id_of_a_publish_can_be_patched(owned in owned_packet(), id in packet_id()) {
        let bytes = owned.to_bytes();
        if let Ok(Packet::Publish(publish)) = decode_whole(&bytes) {
            prop_assert_eq!(publish.wire, &bytes[..]);
            let at = publish.packet_id_offset;
            if publish.packet_id.is_some() {
                let mut patched = bytes.clone();
                patched[at..at + 2].copy_from_slice(&id.get().to_be_bytes());
                let Ok(Packet::Publish(patched)) = decode_whole(&patched) else { panic!() };
                prop_assert_eq!(patched.packet_id, Some(id));
                prop_assert_eq!((patched.topic, patched.payload), (publish.topic, publish.payload));
            } else {
                prop_assert_eq!(publish.payload, &bytes[at..]);
            }
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
        first_byte in proptest::sample::select(&[0x10u8, 0x30, 0x32, 0x35, 0x82, 0xa2][..]),
        body in vec(prop_oneof![0..6u8, any::<u8>()], 0..60),
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

    #[test]
    fn matching_agrees_with_its_definition(topic in "[ab$/]{0,8}", filter in "[ab$/+#]{0,8}") {
        if validate_topic_name(&topic).is_ok() && validate_topic_filter(&filter).is_ok() {
            let topic_levels: Vec<_> = topic.split('/').collect();
            let filter_levels: Vec<_> = filter.split('/').collect();
            let hidden = topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
            let expected = !hidden && matches_by_definition(&topic_levels, &filter_levels);
            prop_assert_eq!(matches(&topic, &filter), expected);
            prop_assert_eq!(levels_count(&topic), topic_levels.len());
        }
    }

    #[test]
    fn matching_takes_any_strings(topic in any::<String>(), filter in any::<String>()) {
        matches(&topic, &filter);
        matches(&filter, &topic);
        matches(&topic, &topic);
    }

    #[test]
    fn filters_are_valid_by_level(filter in "[a/+#\0\u{e9}]{0,6}") {
        let levels: Vec<_> = filter.split('/').collect();
        let multi_levels = levels.iter().filter(|level| level.contains('#')).count();
        let valid = !filter.is_empty()
            && !filter.contains('\0')
            && levels.iter().all(|level| !level.contains('+') || *level == "+")
            && (multi_levels == 0 || multi_levels == 1 && levels.last() == Some(&"#"));
        prop_assert_eq!(validate_topic_filter(&filter).is_ok(), valid);
    }

    #[test]
    fn names_are_valid_by_character(name in prop_oneof![text(), any::<String>(), "[a+#\0]{0,4}"]) {
        let valid = !name.is_empty() && !name.contains(['\0', '+', '#']);
        prop_assert_eq!(validate_topic_name(&name).is_ok(), valid);
    }

    #[test]
    fn generated_topics_are_valid(name in topic_name(), filter in topic_filter()) {
        prop_assert_eq!(validate_topic_name(&name), Ok(()));
        prop_assert_eq!(validate_topic_filter(&filter), Ok(()));
    }
}

/// Section 4.7.1, level by level from the front.
fn matches_by_definition(topic: &[&str], filter: &[&str]) -> bool {
    match (topic, filter) {
        (_, ["#"]) => true,
        ([], []) => true,
        ([topic_level, topic @ ..], [filter_level, filter @ ..]) => {
            (*filter_level == "+" || filter_level == topic_level) && matches_by_definition(topic, filter)
        }
        _ => false,
    }
}
