//! Packets to bytes, appended to a buffer.
//!
//! Each function checks its lengths first and then appends one whole packet: what is in the buffer stays a
//! stream of whole packets. Lengths are written in their shortest form.
//!
//! CONNACK and UNSUBACK are mqttbytes' work, by way of a temporary. Not so PINGRESP (two constant bytes), the
//! acknowledgements of PUBLISH and PUBLISH itself (the hot path, with no temporary in between and no owned
//! topic), and SUBACK (mqttbytes wants the codes twice more in memory). Tests hold all of them against
//! mqttbytes' decoder.

use bytes::BytesMut;
use mqttbytes::v4;

pub use super::encode_client::{connect, disconnect, packet, pingreq, subscribe, unsubscribe};
use super::frame::REMAINING_LENGTH_MAX;
use super::topic::TOPIC_BYTES_MAX;
use super::{ConnectReturnCode, PacketId, QoS, SubscribeReasonCode};

/// The four packets that carry a packet id and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// Answers PUBLISH with QoS 1 (section 3.4).
    PubAck,
    /// Answers PUBLISH with QoS 2 (section 3.5).
    PubRec,
    /// Answers PUBREC (section 3.6).
    PubRel,
    /// Answers PUBREL (section 3.7).
    PubComp,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[inline]
pub const fn ack(kind: AckKind, id: PacketId) -> [u8; 4] {
    let first_byte = match kind {
        AckKind::PubAck => 0x40,
        AckKind::PubRec => 0x50,
        AckKind::PubRel => 0x62,
        AckKind::PubComp => 0x70,
    };
    let [high, low] = id.get().to_be_bytes();
    [first_byte, 2, high, low]
}

/// A PUBLISH packet but for its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHeader<'a> {
    /// Whether the packet is sent again. With QoS 0 it is written as 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Whether the message was retained, or is to be.
    pub retain: bool,
    /// A valid topic name.
    pub topic: &'a str,
    /// Not written with QoS 0. With QoS 1 and 2 `None` leaves two zero bytes, to be patched before they are
    /// sent.
    pub packet_id: Option<PacketId>,
}

/// Appends a PUBLISH packet.
///
/// # Panics
/// As [`publish_header`].
pub fn publish(out: &mut Vec<u8>, header: &PublishHeader<'_>, payload: &[u8]) {
    publish_header(out, header, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a PUBLISH packet but for its payload, of which `payload_len` bytes are to follow; there is room
/// for them afterwards. Returns where the packet id is, counted from the start of this packet, or 0 with QoS
/// 0.
///
/// # Panics
/// If the topic has more than [`TOPIC_BYTES_MAX`] bytes or the packet would have a remaining length above
/// [`REMAINING_LENGTH_MAX`]; nothing has been appended then. Neither comes of a packet that was decoded;
/// whoever makes messages of their own has to check.
pub fn publish_header(out: &mut Vec<u8>, header: &PublishHeader<'_>, payload_len: usize) -> usize {
    let has_packet_id = header.qos != QoS::AtMostOnce;
    let remaining_length = publish_remaining_length(header.topic.len(), has_packet_id, payload_len);
    assert!(header.topic.len() <= TOPIC_BYTES_MAX, "topic of {} bytes", header.topic.len());
    let start = out.len();
    let dup = header.dup && has_packet_id;
    let flags = u8::from(dup) << 3 | (header.qos as u8) << 1 | u8::from(header.retain);
    fixed_header(out, 0x30 | flags, remaining_length);
    bytes(out, header.topic.as_bytes());
    if !has_packet_id {
        return 0;
    }
    let packet_id_offset = out.len() - start;
    out.extend_from_slice(&header.packet_id.map_or(0, PacketId::get).to_be_bytes());
    packet_id_offset
}

/// Bytes of a PUBLISH packet with its fixed header, for topic and payload of these lengths in bytes.
pub const fn publish_len(topic_len: usize, has_packet_id: bool, payload_len: usize) -> usize {
    let remaining_length = publish_remaining_length(topic_len, has_packet_id, payload_len);
    fixed_header_len(remaining_length).saturating_add(remaining_length)
}

/// Appends CONNACK. Session present is written as 0 with every code but success [MQTT-3.2.2-4].
pub fn connack(out: &mut Vec<u8>, session_present: bool, code: ConnectReturnCode) {
    let session_present = session_present && code == ConnectReturnCode::Success;
    through_temporary(out, |temporary| v4::ConnAck::new(code, session_present).write(temporary));
}

/// Appends SUBACK with one code for each filter of the SUBSCRIBE, in its order.
///
/// # Panics
/// If the codes are more than fit into a packet, which takes a SUBSCRIBE four times as large as a packet can
/// be.
pub fn suback(out: &mut Vec<u8>, id: PacketId, codes: &[SubscribeReasonCode]) {
    fixed_header(out, 0x90, size_of::<u16>() + codes.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend(codes.iter().map(|code| match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::Failure => 0x80,
    }));
}

/// Appends UNSUBACK.
pub fn unsuback(out: &mut Vec<u8>, id: PacketId) {
    through_temporary(out, |temporary| v4::UnsubAck::new(id.get()).write(temporary));
}

/// Appends PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends the fixed header and makes room for the rest of the packet.
pub(crate) fn fixed_header(out: &mut Vec<u8>, first_byte: u8, remaining_length: usize) {
    assert!(remaining_length <= REMAINING_LENGTH_MAX, "remaining length of {remaining_length}");
    out.reserve(fixed_header_len(remaining_length) + remaining_length);
    out.push(first_byte);
    let mut rest = remaining_length;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Appends bytes behind their two-byte length (section 1.5.3). The caller has checked the length, before the
/// packet was begun.
pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

const fn publish_remaining_length(topic_len: usize, has_packet_id: bool, payload_len: usize) -> usize {
    let packet_id_len = if has_packet_id { size_of::<u16>() } else { 0 };
    // Saturating, so that lengths no packet can have fail at the limit and do not wrap round below it.
    size_of::<u16>().saturating_add(topic_len).saturating_add(packet_id_len).saturating_add(payload_len)
}

const fn fixed_header_len(remaining_length: usize) -> usize {
    match remaining_length {
        0..0x80 => 2,
        0x80..0x4000 => 3,
        0x4000..0x20_0000 => 4,
        _ => 5,
    }
}

/// mqttbytes' writers can fail when half a packet is written, hence not into `out`. These two do not fail:
/// they do so only for a remaining length above the limit, and theirs is 2.
fn through_temporary(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut BytesMut) -> Result<usize, mqttbytes::Error>,
) {
    let mut temporary = BytesMut::with_capacity(4);
    let written = write(&mut temporary);
    debug_assert!(written.is_ok(), "{written:?}");
    out.extend_from_slice(&temporary);
}

#[cfg(test)]
mod tests {
    use super::super::packet::testing::decode_whole;
    use super::super::{Framed, Packet, frame_from_server};
    use super::*;

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

    #[test]
    fn connack_is_written() {
        use ConnectReturnCode::*;
        assert_eq!(encoded(|out| connack(out, false, Success)), [0x20, 2, 0, 0]);
        assert_eq!(encoded(|out| connack(out, true, Success)), [0x20, 2, 1, 0]);
        for (code, byte) in [
            (RefusedProtocolVersion, 1),
            (BadClientId, 2),
            (ServiceUnavailable, 3),
            (BadUserNamePassword, 4),
            (NotAuthorized, 5),
        ] {
            // [MQTT-3.2.2-4]
            assert_eq!(encoded(|out| connack(out, true, code)), [0x20, 2, 0, byte]);
        }
    }

    /// [MQTT-2.3.1-7], [MQTT-3.9.3-1], [MQTT-3.9.3-2]
    #[test]
    fn suback_and_unsuback_are_written() {
        let codes = [
            SubscribeReasonCode::Success(QoS::ExactlyOnce),
            SubscribeReasonCode::Failure,
            SubscribeReasonCode::Success(QoS::AtMostOnce),
            SubscribeReasonCode::Success(QoS::AtLeastOnce),
        ];
        assert_eq!(encoded(|out| suback(out, id(7), &codes)), [0x90, 6, 0, 7, 2, 0x80, 0, 1]);
        let many = encoded(|out| suback(out, id(7), &[SubscribeReasonCode::Failure; 1000]));
        assert_eq!((&many[..5], many.len()), (&[0x90, 0xea, 0x07, 0, 7][..], 1005));
        assert_eq!(encoded(|out| unsuback(out, id(0x0102))), [0xb0, 2, 1, 2]);
        assert_eq!(encoded(pingresp), [0xd0, 0]);
    }

    #[test]
    fn publish_is_written() {
        let header =
            PublishHeader { dup: false, qos: QoS::AtMostOnce, retain: true, topic: "ab", packet_id: None };
        assert_eq!(encoded(|out| publish(out, &header, b"xyz")), b"\x31\x07\x00\x02abxyz");
        let header =
            PublishHeader { dup: true, qos: QoS::ExactlyOnce, packet_id: Some(id(0x0102)), ..header };
        assert_eq!(encoded(|out| publish(out, &header, b"xyz")), b"\x3d\x09\x00\x02ab\x01\x02xyz");
        let header = PublishHeader { qos: QoS::AtLeastOnce, retain: false, packet_id: None, ..header };
        assert_eq!(encoded(|out| publish(out, &header, b"")), b"\x3a\x06\x00\x02ab\x00\x00");
    }

    /// [MQTT-2.3.1-5], [MQTT-3.3.1-2]
    #[test]
    fn qos_0_is_written_without_packet_id_and_dup() {
        let header = PublishHeader {
            dup: true,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "a",
            packet_id: Some(id(1)),
        };
        assert_eq!(encoded(|out| publish(out, &header, b"")), b"\x30\x03\x00\x01a");
    }

    #[test]
    fn packet_id_offset_and_length_are_right_at_every_length_of_the_header() {
        for payload_len in [0, 122, 123, 124, 125, 126, 16_378, 16_379, 16_380, 16_381, 2_097_147, 2_097_148]
        {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
                let has_packet_id = qos != QoS::AtMostOnce;
                let header =
                    PublishHeader { dup: false, qos, retain: false, topic: "a", packet_id: Some(id(0x1234)) };
                let payload = vec![b'x'; payload_len];
                let mut offset = usize::MAX;
                let mut packet = encoded(|out| offset = publish_header(out, &header, payload_len));
                packet.extend_from_slice(&payload);
                assert_eq!(packet.len(), publish_len(1, has_packet_id, payload_len));
                let Ok(Packet::Publish(decoded)) = decode_whole(&packet) else { panic!() };
                assert_eq!((decoded.topic, decoded.payload), ("a", &payload[..]));
                assert_eq!(offset, if has_packet_id { decoded.packet_id_offset } else { 0 });
                assert_eq!(decoded.packet_id, has_packet_id.then_some(id(0x1234)));
            }
        }
        assert_eq!(publish_len(65_535, true, REMAINING_LENGTH_MAX - 65_539), REMAINING_LENGTH_MAX + 5);
        assert_eq!(publish_len(usize::MAX, true, usize::MAX), usize::MAX);
    }

    #[test]
    fn what_no_packet_can_hold_is_not_begun() {
        let long = "a".repeat(TOPIC_BYTES_MAX + 1);
        for (topic, payload_len) in [(&long[..], 0), ("a", REMAINING_LENGTH_MAX), ("a", usize::MAX)] {
            let header =
                PublishHeader { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None };
            let mut out = Vec::new();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                publish_header(&mut out, &header, payload_len);
            }));
            assert!(result.is_err() && out.is_empty());
        }
    }

    #[test]
    fn packets_of_the_server_can_be_told_apart_again() {
        let mut out = Vec::new();
        connack(&mut out, true, ConnectReturnCode::Success);
        suback(&mut out, id(1), &[SubscribeReasonCode::Failure]);
        unsuback(&mut out, id(2));
        pingresp(&mut out);
        out.extend_from_slice(&ack(AckKind::PubRel, id(3)));
        let mut types = Vec::new();
        let mut rest = &out[..];
        while let Ok(Framed::Frame(frame)) = frame_from_server(rest, usize::MAX) {
            types.push(frame.packet_type());
            rest = &rest[frame.total()..];
        }
        assert_eq!((types, rest.len()), (vec![2, 9, 11, 13, 6], 0));
    }
}
