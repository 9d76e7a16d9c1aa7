//! Framing held against the tables of the standard.

use super::ProtocolVersion::{V5, V31, V311};
use super::*;

const MAX: usize = 1 << 20;

fn frame(buf: &[u8], packet_bytes_max: usize) -> Result<Framed<'_>, DecodeError> {
    super::frame(buf, packet_bytes_max, V311)
}

fn frame_from_server(buf: &[u8], packet_bytes_max: usize) -> Result<Framed<'_>, DecodeError> {
    super::frame_from_server(buf, packet_bytes_max, V311)
}

fn error(bytes: &[u8]) -> DecodeError {
    frame(bytes, MAX).expect_err("must be refused")
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    match frame(bytes, MAX) {
        Ok(Framed::Frame(frame)) => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_whole_packet_is_cut_off_from_what_follows() {
    let frame = whole(&[0x30, 3, 0, 1, b'a', 0xc0, 0]);
    assert_eq!((frame.first_byte(), frame.packet_type()), (0x30, 3));
    assert_eq!(frame.body(), [0, 1, b'a']);
    assert_eq!(frame.wire(), [0x30, 3, 0, 1, b'a']);
    assert_eq!((frame.header_len(), frame.total()), (2, 5));
}

#[test]
fn an_unfinished_packet_needs_more() {
    assert_eq!(frame(&[], MAX), Ok(Framed::NeedMore { total: None }));
    assert_eq!(frame(&[0x30], MAX), Ok(Framed::NeedMore { total: None }));
    assert_eq!(frame(&[0x30, 0x80], MAX), Ok(Framed::NeedMore { total: None }));
    assert_eq!(frame(&[0x30, 0x80, 0x80, 0x80], MAX), Ok(Framed::NeedMore { total: None }));
    assert_eq!(frame(&[0x30, 3], MAX), Ok(Framed::NeedMore { total: Some(5) }));
    assert_eq!(frame(&[0x30, 0x80, 1, 7], MAX), Ok(Framed::NeedMore { total: Some(131) }));
}

/// Every first byte, held against tables 2.1 and 2.2. [MQTT-2.2.2-1], [MQTT-2.2.2-2], [MQTT-3.6.1-1],
/// [MQTT-3.8.1-1], [MQTT-3.10.1-1], [MQTT-3.14.1-1], [MQTT-3.3.1-2], [MQTT-3.3.1-4]
#[test]
fn first_bytes_outside_the_tables_are_refused_alone() {
    let both = [0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3a, 0x3b, 0x3c, 0x3d, 0x40, 0x50, 0x62, 0x70];
    let client = [0x10, 0x82, 0xa2, 0xc0, 0xe0];
    let server = [0x20, 0x90, 0xb0, 0xd0];
    for byte in 0..=255 {
        let by_client = frame(&[byte], MAX).is_ok();
        let by_server = frame_from_server(&[byte], MAX).is_ok();
        assert_eq!(by_client, both.contains(&byte) || client.contains(&byte), "{byte:#04x} from a client");
        assert_eq!(by_server, both.contains(&byte) || server.contains(&byte), "{byte:#04x} from a server");
    }
}

#[test]
fn first_byte_faults_are_told_apart() {
    assert_eq!(error(&[0x00]), DecodeError::ReservedPacketType { packet_type: 0 });
    assert_eq!(error(&[0xff]), DecodeError::ReservedPacketType { packet_type: 15 });
    assert_eq!(error(&[0x20]), DecodeError::UnexpectedPacketType { packet_type: 2 });
    assert_eq!(error(&[0x60]), DecodeError::ReservedFlags { first_byte: 0x60 });
    assert_eq!(error(&[0x80]), DecodeError::ReservedFlags { first_byte: 0x80 });
    assert_eq!(error(&[0x36]), DecodeError::PublishQos3);
    assert_eq!(error(&[0x3e]), DecodeError::PublishQos3);
    assert_eq!(error(&[0x38]), DecodeError::DupOnQos0);
    assert_eq!(error(&[0x39]), DecodeError::DupOnQos0);
    // The first bytes of HTTP ("GET ") and of a TLS handshake.
    assert_eq!(error(b"G"), DecodeError::ReservedFlags { first_byte: b'G' });
    assert_eq!(error(&[0x16, 0x03, 0x01]), DecodeError::ReservedFlags { first_byte: 0x16 });
}

#[test]
fn remaining_length_of_five_bytes_is_refused_at_the_fourth() {
    assert_eq!(error(&[0x30, 0xff, 0xff, 0xff, 0xff]), DecodeError::RemainingLengthMalformed);
    assert_eq!(error(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x00]), DecodeError::RemainingLengthMalformed);
}

#[test]
fn remaining_length_covers_its_whole_range() {
    for (bytes, length) in [
        (&[0x7f][..], 127),
        (&[0x80, 0x01], 128),
        (&[0xff, 0x7f], 16_383),
        (&[0x80, 0x80, 0x01], 16_384),
        (&[0xff, 0xff, 0x7f], 2_097_151),
        (&[0x80, 0x80, 0x80, 0x01], 2_097_152),
        (&[0xff, 0xff, 0xff, 0x7f], REMAINING_LENGTH_MAX),
    ] {
        let mut packet = vec![0x30];
        packet.extend_from_slice(bytes);
        let total = Some(length + packet.len());
        assert_eq!(frame(&packet, usize::MAX), Ok(Framed::NeedMore { total }));
    }
}

#[test]
fn the_short_way_and_the_long_one_agree() {
    let mut buf = [7; 2 + 0x80];
    let mut usual = 0;
    for version in [V31, V311, V5] {
        for (first_byte, length) in (0..=255).flat_map(|first| (0..=255).map(move |length| (first, length))) {
            (buf[0], buf[1]) = (first_byte, length);
            for (bytes, max) in
                [(130, MAX), (129, MAX), (64, MAX), (4, MAX), (3, MAX), (2, MAX), (130, 4), (130, 3)]
            {
                let buf = &buf[..bytes];
                let judged = frame_from(Sender::Client, buf, max, version);
                assert_eq!(super::frame(buf, max, version), judged, "{first_byte:#04x} {length} {version:?}");
                if let Some(frame) = usual_frame(buf, max) {
                    assert_eq!(Ok(Framed::Frame(frame)), judged, "{first_byte:#04x} {length} {version:?}");
                    usual += 1;
                }
            }
        }
    }
    assert!(usual > 0);
}

#[test]
fn longer_forms_of_a_length_are_accepted() {
    let frame = whole(&[0xc0, 0x80, 0x80, 0x80, 0x00]);
    assert_eq!((frame.header_len(), frame.body().len()), (5, 0));
    let frame = whole(&[0x30, 0x83, 0x00, 0, 1, b'a']);
    assert_eq!((frame.header_len(), frame.body()), (3, &[0, 1, b'a'][..]));
}

#[test]
fn packet_too_large_is_refused_by_its_length() {
    assert_eq!(frame(&[0x30, 98], 100), Ok(Framed::NeedMore { total: Some(100) }));
    let error = Err(DecodeError::PacketTooLarge { total: 101, packet_bytes_max: 100 });
    assert_eq!(frame(&[0x30, 99], 100), error);
    assert_eq!(frame(&[[0x30, 99].as_slice(), &[0; 99]].concat(), 100), error);
}

#[test]
fn wrong_length_is_refused_before_the_body() {
    for (first_byte, right) in
        [(0x40, 2), (0x50, 2), (0x62, 2), (0x70, 2), (0xc0, 0), (0xe0, 0), (0x20, 2), (0xb0, 2), (0xd0, 0)]
    {
        let packet_type = first_byte >> 4;
        let side = if [2, 11, 13].contains(&packet_type) { frame_from_server } else { frame };
        for length in (0..10).filter(|&length| length != right) {
            let remaining_length = usize::from(length);
            let error = DecodeError::WrongLength { packet_type, remaining_length };
            assert_eq!(side(&[first_byte, length], MAX), Err(error));
        }
        assert!(side(&[first_byte, right], MAX).is_ok());
    }
}

/// MQTT 5, table 2-1 and 2-2; [MQTT-3.15.1-1]
#[test]
fn mqtt_5_adds_auth_and_nothing_else() {
    for byte in 0..=255 {
        for side in [super::frame, super::frame_from_server] {
            if byte == 0xf0 {
                assert!(side(&[byte], MAX, V5).is_ok());
            } else if byte >> 4 == 15 {
                let error = DecodeError::ReservedFlags { first_byte: byte };
                assert_eq!(side(&[byte], MAX, V5), Err(error));
            } else {
                assert_eq!(side(&[byte], MAX, V5), side(&[byte], MAX, V311));
            }
            if byte >> 4 == 15 {
                let error = DecodeError::ReservedPacketType { packet_type: 15 };
                assert_eq!(side(&[byte], MAX, V311), Err(error));
            }
        }
    }
}

/// MQTT 5, [MQTT-1.5.5-1]
#[test]
fn mqtt_5_asks_for_the_shortest_length() {
    let error = Err(DecodeError::RemainingLengthNotShortest);
    for bytes in [&[0xc0, 0x80, 0][..], &[0x30, 0x83, 0, 0, 1, b'a'], &[0x30, 0xff, 0xff, 0]] {
        assert_eq!(super::frame(bytes, MAX, V5), error);
        assert!(frame(bytes, MAX).is_ok());
    }
    for bytes in [&[0x30, 0x7f][..], &[0x30, 0x80, 1], &[0x30, 0xff, 0x7f], &[0x30, 0x80, 0x80, 1]] {
        assert!(matches!(super::frame(bytes, MAX, V5), Ok(Framed::NeedMore { total: Some(_) })));
    }
}

#[test]
fn mqtt_5_lets_acknowledgements_be_longer() {
    for first_byte in [0x40, 0x50, 0x62, 0x70] {
        for length in 0..10 {
            let fits = super::frame(&[first_byte, length], MAX, V5).is_ok();
            assert_eq!(fits, length >= 2, "{first_byte:#04x} {length}");
        }
    }
    for length in 0..10 {
        assert!(super::frame(&[0xe0, length], MAX, V5).is_ok());
        assert_eq!(super::frame(&[0xc0, length], MAX, V5).is_ok(), length == 0);
    }
}

#[test]
fn mqtt_3_1_may_repeat_with_dup() {
    for first_byte in [0x6a, 0x8a, 0xaa] {
        assert!(super::frame(&[first_byte], MAX, V31).is_ok());
        for version in [V311, V5] {
            let error = DecodeError::ReservedFlags { first_byte };
            assert_eq!(super::frame(&[first_byte], MAX, version), Err(error));
        }
    }
    for first_byte in [0x4a, 0x48, 0x68, 0xc8, 0x1a] {
        assert!(super::frame(&[first_byte], MAX, V31).is_err());
    }
}
