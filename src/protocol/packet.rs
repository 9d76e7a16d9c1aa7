//! Whole packets as values.
//!
//! [`decode()`] takes apart the body of a frame whose header [`super::frame()`] has judged. Every byte must
//! be accounted for: a field that is cut, or a byte behind the last field, is an error.

use super::PacketId;
use super::connect::{self, Connect};
use super::error::DecodeError;
use super::frame::Frame;
use super::publish::{self, Publish};
use super::read::Reader;
use super::subscribe::{self, Subscribe, Unsubscribe};

/// A packet that a client may send, borrowed from the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT (section 3.1).
    Connect(Connect<'a>),
    /// PUBLISH (section 3.3).
    Publish(Publish<'a>),
    /// PUBACK (section 3.4).
    PubAck(PacketId),
    /// PUBREC (section 3.5).
    PubRec(PacketId),
    /// PUBREL (section 3.6).
    PubRel(PacketId),
    /// PUBCOMP (section 3.7).
    PubComp(PacketId),
    /// SUBSCRIBE (section 3.8).
    Subscribe(Subscribe<'a>),
    /// UNSUBSCRIBE (section 3.10).
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ (section 3.12).
    PingReq,
    /// DISCONNECT (section 3.14).
    Disconnect,
}

/// Takes apart a packet that a client may send.
///
/// # Errors
/// The first fault, in the order of the bytes; a packet type that only a server sends is one too.
pub fn decode<'a>(frame: &Frame<'a>) -> Result<Packet<'a>, DecodeError> {
    match frame.packet_type() {
        1 => connect::decode(frame).map(Packet::Connect),
        3 => publish::decode(frame).map(Packet::Publish),
        4 => packet_id_alone(frame).map(Packet::PubAck),
        5 => packet_id_alone(frame).map(Packet::PubRec),
        6 => packet_id_alone(frame).map(Packet::PubRel),
        7 => packet_id_alone(frame).map(Packet::PubComp),
        8 => subscribe::decode_subscribe(frame).map(Packet::Subscribe),
        10 => subscribe::decode_unsubscribe(frame).map(Packet::Unsubscribe),
        12 => Reader::new(frame.body()).end().map(|()| Packet::PingReq),
        14 => Reader::new(frame.body()).end().map(|()| Packet::Disconnect),
        packet_type => Err(DecodeError::UnexpectedPacketType { packet_type }),
    }
}

fn packet_id_alone(frame: &Frame<'_>) -> Result<PacketId, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    reader.end()?;
    Ok(packet_id)
}

/// Helpers of the unit tests beside the packets.
#[cfg(test)]
pub(super) mod testing {
    use super::super::{DecodeError, Framed, Packet, decode, frame};

    /// The packet of these bytes, which must hold exactly one.
    pub(crate) fn decode_whole(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
        match frame(bytes, usize::MAX)? {
            Framed::Frame(frame) if frame.total() == bytes.len() => decode(&frame),
            other => panic!("not one whole packet: {other:?}"),
        }
    }

    /// A packet of this first byte around this body of less than 16 KiB.
    pub(crate) fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first_byte];
        if body.len() < 128 {
            bytes.push(body.len() as u8);
        } else {
            assert!(body.len() < 128 * 128);
            bytes.extend_from_slice(&[0x80 | (body.len() % 128) as u8, (body.len() / 128) as u8]);
        }
        bytes.extend_from_slice(body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Framed, frame_from_server};
    use super::testing::decode_whole;
    use super::*;

    #[test]
    fn acknowledgements_carry_their_packet_id() {
        let id = PacketId::new(0x1234).unwrap();
        assert_eq!(decode_whole(&[0x40, 2, 0x12, 0x34]), Ok(Packet::PubAck(id)));
        assert_eq!(decode_whole(&[0x50, 2, 0x12, 0x34]), Ok(Packet::PubRec(id)));
        assert_eq!(decode_whole(&[0x62, 2, 0x12, 0x34]), Ok(Packet::PubRel(id)));
        assert_eq!(decode_whole(&[0x70, 2, 0x12, 0x34]), Ok(Packet::PubComp(id)));
    }

    /// [MQTT-2.3.1-1]
    #[test]
    fn packet_id_zero_in_an_acknowledgement_is_refused() {
        for first_byte in [0x40, 0x50, 0x62, 0x70] {
            assert_eq!(decode_whole(&[first_byte, 2, 0, 0]), Err(DecodeError::PacketIdZero));
        }
    }

    #[test]
    fn packets_without_a_body_are_known() {
        assert_eq!(decode_whole(&[0xc0, 0]), Ok(Packet::PingReq));
        assert_eq!(decode_whole(&[0xe0, 0]), Ok(Packet::Disconnect));
    }

    #[test]
    fn a_packet_of_the_server_is_refused() {
        for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &[0xb0, 2, 0, 1], &[0xd0, 0]] {
            let Ok(Framed::Frame(frame)) = frame_from_server(bytes, usize::MAX) else { panic!("{bytes:?}") };
            let packet_type = frame.packet_type();
            assert_eq!(decode(&frame), Err(DecodeError::UnexpectedPacketType { packet_type }));
        }
    }
}
