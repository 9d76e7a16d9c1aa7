//! What is read in slices against what the decoder of whole packets says.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::super::packet::testing::packet;
use super::super::super::{Framed, Packet, decode, frame};
use super::*;

const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];

/// What a packet says: its id, that of its subscriptions, and its filters, with options if it has them.
type Said = (PacketId, Option<NonZeroU32>, Vec<(String, Option<SubscribeOptions>)>);

fn whole(frame: &Frame<'_>, version: ProtocolVersion) -> Result<Said, DecodeError> {
    match decode(frame, version)? {
        Packet::Subscribe(it) => {
            let filters = it.filters().map(|(filter, options)| (filter.to_owned(), Some(options))).collect();
            Ok((it.packet_id, it.subscription_id, filters))
        }
        Packet::Unsubscribe(it) => {
            Ok((it.packet_id, None, it.filters().map(|filter| (filter.to_owned(), None)).collect()))
        }
        other => panic!("{other:?}"),
    }
}

/// The same in slices of so many steps, each with another copy of the body.
fn sliced(frame: &Frame<'_>, version: ProtocolVersion, steps: usize) -> Result<Said, DecodeError> {
    let body = || frame.body().to_vec();
    let mut filters = Vec::new();
    if frame.packet_type() == 8 {
        let mut cursor = Subscribe::begin(frame, version)?;
        while !cursor.check(&body(), steps)? {
            assert!(cursor.next(&body()).is_none(), "not before the end of the check");
        }
        while let Some((filter, options)) = cursor.next(&body()) {
            filters.push((filter.to_owned(), Some(options)));
        }
        assert_eq!(cursor.count(), filters.len());
        Ok((cursor.packet_id, cursor.subscription_id, filters))
    } else {
        let mut cursor = Unsubscribe::begin(frame, version)?;
        while !cursor.check(&body(), steps)? {}
        while let Some(filter) = cursor.next(&body()) {
            filters.push((filter.to_owned(), None));
        }
        assert_eq!(cursor.count(), filters.len());
        Ok((cursor.packet_id, None, filters))
    }
}

/// Compares both in all versions; how many of them took the packet.
fn compare(bytes: &[u8]) -> usize {
    let compared = VERSIONS.into_iter().filter(|version| match frame(bytes, usize::MAX, *version) {
        Ok(Framed::Frame(frame)) if matches!(frame.packet_type(), 8 | 10) => {
            let expected = whole(&frame, *version);
            for steps in [1, 2, 3, 100] {
                assert_eq!(sliced(&frame, *version, steps), expected, "{bytes:?} as {version:?}");
            }
            expected.is_ok()
        }
        _ => false,
    });
    compared.count()
}

fn entry(first_byte: u8) -> impl Strategy<Value = Vec<u8>> {
    let filter = select(vec!["a", "a/+", "#", "$share/g/a", "$share/g", "a/#/b", "", "a\0", "long/long"]);
    (filter, 0u8..64).prop_map(move |(filter, options)| {
        let mut bytes = (filter.len() as u16).to_be_bytes().to_vec();
        bytes.extend(filter.bytes());
        bytes.extend((first_byte == 0x82).then_some(options & 0x2f));
        bytes
    })
}

/// Bodies of which some are right, in one version or the other, and some have a fault somewhere.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let properties = select(vec![
        &b"\x00"[..],
        b"",
        b"\x02\x0b\x05",
        b"\x07\x26\x00\x01k\x00\x01v",
        b"\x10\x26\x00\x01k\x00\x01v\x0b\x81\x01\x26\x00\x00\x00\x00",
        b"\x04\x0b\x05\x0b\x05",
        b"\x02\x0b\x00",
        b"\x02\x23\x01",
        b"\x7f",
    ]);
    select(vec![0x82u8, 0xa2]).prop_flat_map(move |first_byte| {
        let entries = prop::collection::vec(entry(first_byte), 0..6);
        (properties.clone(), entries, any::<Index>(), any::<Option<u8>>(), 0u8..8).prop_map(
            move |(properties, entries, index, byte, damage)| {
                let mut body = [b"\x00\x07", properties, &entries.concat()].concat();
                let at = index.index(body.len());
                match (damage, byte) {
                    (0, _) => body.truncate(at),
                    (1, Some(byte)) => body[at] = byte,
                    (2, Some(byte)) => body.push(byte),
                    _ => {}
                }
                packet(first_byte, &body)
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]
    #[test]
    fn slices_say_what_the_whole_says(bytes in bodies()) {
        compare(&bytes);
    }
}

#[test]
fn packets_that_are_right_are_among_them() {
    let right = b"\x00\x07\x02\x0b\x05\x00\x01a\x02\x00\x0a$share/g/a\x01";
    assert_eq!(compare(&packet(0x82, right)), 1, "with properties");
    assert_eq!(compare(&packet(0x82, b"\x00\x07\x00\x01a\x02")), 2, "without");
    assert_eq!(compare(&packet(0xa2, b"\x00\x07\x00\x00\x01a")), 1);
}

#[test]
fn so_do_the_seeds_of_the_fuzzer() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds/decode");
    let mut packets = 0;
    for seed in fs::read_dir(seeds).unwrap() {
        let bytes = fs::read(seed.unwrap().path()).unwrap();
        // Wherever in it a packet may begin.
        for at in 0..bytes.len() {
            if matches!(bytes[at], 0x82 | 0xa2) {
                packets += 1;
                compare(&bytes[at..]);
            }
        }
    }
    assert!(packets >= 5, "{packets}");
}

/// A filter of 64 KB is more work than one of a byte.
#[test]
fn a_slice_is_bounded_in_bytes_too() {
    let long = [&u16::MAX.to_be_bytes()[..], &[b'a'; 65_535], &[0]].concat();
    let body = [&b"\x00\x01"[..], &long.repeat(64)].concat();
    let length = [0, 7, 14].map(|bits| (body.len() >> bits) as u8 | 0x80);
    let bytes = [&[0x82][..], &length, &[(body.len() >> 21) as u8], &body].concat();
    let Ok(Framed::Frame(frame)) = frame(&bytes, usize::MAX, ProtocolVersion::V311) else { panic!() };
    let mut cursor = Subscribe::begin(&frame, ProtocolVersion::V311).unwrap();
    let calls = 1 + std::iter::repeat_with(|| cursor.check(frame.body(), 512).unwrap())
        .take_while(|is_end| !is_end)
        .count();
    assert!((32..40).contains(&calls), "{calls}");
}
