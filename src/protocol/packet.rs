//! Whole packets as values.
//!
//! [`decode()`] takes apart the body of a frame whose header [`super::frame()`] has judged. Every byte must
//! be accounted for: a field that is cut, or a byte behind the last field, is an error.

use std::fmt;

use super::connect::{self, Connect};
use super::error::{DecodeError, Field};
use super::frame::Frame;
use super::properties::{Carrier, Property, PropertyValue};
use super::publish::{self, Publish};
use super::read::Reader;
use super::reason::ReasonCode;
use super::subscribe::{self, Subscribe, Unsubscribe};
use super::{PacketId, ProtocolVersion};

/// A packet that a client may send, borrowed from the bytes it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNECT (section 3.1).
    Connect(Connect<'a>),
    /// PUBLISH (section 3.3).
    Publish(Publish<'a>),
    /// PUBACK (section 3.4).
    PubAck(Ack),
    /// PUBREC (section 3.5).
    PubRec(Ack),
    /// PUBREL (section 3.6).
    PubRel(Ack),
    /// PUBCOMP (section 3.7).
    PubComp(Ack),
    /// SUBSCRIBE (section 3.8).
    Subscribe(Subscribe<'a>),
    /// UNSUBSCRIBE (section 3.10).
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ (section 3.12).
    PingReq,
    /// DISCONNECT (section 3.14).
    Disconnect(Disconnect),
    /// AUTH (MQTT 5, section 3.15).
    Auth(Auth<'a>),
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP. Reason string and user properties are checked and left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The id of the message it is about.
    pub packet_id: PacketId,
    /// One of the packet's codes; in MQTT 3.1.1 always success.
    pub reason_code: ReasonCode,
}

impl Ack {
    /// Success, which is all that MQTT 3.1.1 can say.
    pub const fn success(packet_id: PacketId) -> Self {
        Self { packet_id, reason_code: ReasonCode::Success }
    }
}

/// DISCONNECT of a client. Reason string, server reference and user properties are checked and left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Why the client goes: one of the codes of section 3.14.2.1 that are a client's. In MQTT 3.1.1 always
    /// the normal one.
    pub reason_code: ReasonCode,
    /// Seconds the session is to outlive the connection from now on, `u32::MAX` for ever; `None` leaves it at
    /// what CONNECT said. Whether CONNECT had 0, after which only 0 is allowed, is not judged here.
    pub session_expiry: Option<u32>,
}

impl Disconnect {
    /// The normal end, which is all that MQTT 3.1.1 can say.
    pub const NORMAL: Self = Self { reason_code: ReasonCode::NORMAL_DISCONNECTION, session_expiry: None };
}

/// AUTH of a client (MQTT 5, section 3.15). Reason string and user properties are checked and left behind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Continue or re-authenticate.
    pub reason_code: ReasonCode,
    /// The name of the method.
    pub method: &'a str,
    /// What the method has to say.
    pub data: Option<&'a [u8]>,
}

impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("reason_code", &self.reason_code)
            .field("method", &self.method)
            .field("has_data", &self.data.is_some())
            .finish()
    }
}

/// Takes apart a packet that a client may send on a connection of this version. CONNECT says its own version
/// and is read by that, whatever `version` is.
///
/// # Errors
/// The first fault, in the order of the bytes; a packet type that only a server sends is one too.
#[inline]
pub fn decode<'a>(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Packet<'a>, DecodeError> {
    if version == ProtocolVersion::V5 {
        return decode_v5(frame);
    }
    match frame.packet_type() {
        3 => publish::decode(frame).map(Packet::Publish),
        4 => packet_id_alone(frame).map(Packet::PubAck),
        5 => packet_id_alone(frame).map(Packet::PubRec),
        6 => packet_id_alone(frame).map(Packet::PubRel),
        7 => packet_id_alone(frame).map(Packet::PubComp),
        _ => decode_rare(frame, version),
    }
}

/// Apart from the above, so that MQTT 3.1.1 pays one comparison for it.
#[inline(never)]
fn decode_v5<'a>(frame: &Frame<'a>) -> Result<Packet<'a>, DecodeError> {
    match frame.packet_type() {
        3 => publish::decode_v5(frame).map(Packet::Publish),
        4 => ack(frame, Carrier::PubAck).map(Packet::PubAck),
        5 => ack(frame, Carrier::PubRec).map(Packet::PubRec),
        6 => ack(frame, Carrier::PubRel).map(Packet::PubRel),
        7 => ack(frame, Carrier::PubComp).map(Packet::PubComp),
        _ => decode_rare(frame, ProtocolVersion::V5),
    }
}

/// The packets that do not come with every message, apart from those that do: what is ready for these costs the others nothing.
#[inline(never)]
fn decode_rare<'a>(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Packet<'a>, DecodeError> {
    match frame.packet_type() {
        1 => connect::decode(frame).map(Packet::Connect),
        8 => subscribe::decode_subscribe(frame, version).map(Packet::Subscribe),
        10 => subscribe::decode_unsubscribe(frame, version).map(Packet::Unsubscribe),
        12 => Reader::new(frame.body()).end().map(|()| Packet::PingReq),
        14 if version == ProtocolVersion::V5 => disconnect(frame).map(Packet::Disconnect),
        14 => Reader::new(frame.body()).end().map(|()| Packet::Disconnect(Disconnect::NORMAL)),
        15 if version == ProtocolVersion::V5 => auth(frame).map(Packet::Auth),
        packet_type => Err(DecodeError::UnexpectedPacketType { packet_type }),
    }
}

#[inline]
fn packet_id_alone(frame: &Frame<'_>) -> Result<Ack, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    reader.end()?;
    Ok(Ack::success(packet_id))
}

fn ack(frame: &Frame<'_>, carrier: Carrier) -> Result<Ack, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    // The short form says success.
    if reader.is_empty() {
        return Ok(Ack::success(packet_id));
    }
    let reason_code = reason_code(&mut reader, carrier)?;
    if !reader.is_empty() {
        reader.properties(carrier)?.check()?;
    }
    reader.end()?;
    Ok(Ack { packet_id, reason_code })
}

fn disconnect(frame: &Frame<'_>) -> Result<Disconnect, DecodeError> {
    let carrier = Carrier::Disconnect;
    let mut disconnect = Disconnect::NORMAL;
    let mut reader = Reader::new(frame.body());
    if !reader.is_empty() {
        disconnect.reason_code = reason_code(&mut reader, carrier)?;
    }
    if !reader.is_empty() {
        let mut properties = reader.properties(carrier)?;
        while let Some(property) = properties.next()? {
            if let (Property::SessionExpiryInterval, PropertyValue::FourBytes(seconds)) = property {
                disconnect.session_expiry = Some(seconds);
            }
        }
    }
    reader.end()?;
    Ok(disconnect)
}

/// The form without any byte means success (section 3.15.2.1), which a client cannot say.
fn auth<'a>(frame: &Frame<'a>) -> Result<Auth<'a>, DecodeError> {
    let carrier = Carrier::Auth;
    let mut reader = Reader::new(frame.body());
    if reader.is_empty() {
        return Err(DecodeError::BadReasonCode { carrier, code: ReasonCode::Success.byte() });
    }
    let reason_code = reason_code(&mut reader, carrier)?;
    let (mut method, mut data) = (None, None);
    let mut properties = reader.properties(carrier)?;
    while let Some(property) = properties.next()? {
        match property {
            (Property::AuthenticationMethod, PropertyValue::String(text)) => method = Some(text),
            (Property::AuthenticationData, PropertyValue::Binary(bytes)) => data = Some(bytes),
            _ => {}
        }
    }
    reader.end()?;
    let method = method.ok_or(DecodeError::NoAuthenticationMethod)?;
    Ok(Auth { reason_code, method, data })
}

/// A reason code that a client may send in this packet [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1],
/// [MQTT-3.7.2-1], [MQTT-3.14.2-1], [MQTT-3.15.2-1]. Any other can be parsed but is not allowed: by section
/// 1.2 a protocol error.
fn reason_code(reader: &mut Reader<'_>, carrier: Carrier) -> Result<ReasonCode, DecodeError> {
    let code = reader.u8(Field::ReasonCode)?;
    ReasonCode::from_byte(code)
        .filter(|known| known.allowed_from_client(carrier))
        .ok_or(DecodeError::BadReasonCode { carrier, code })
}

/// Helpers of the unit tests beside the packets.
#[cfg(test)]
pub(super) mod testing {
    use super::super::{DecodeError, Framed, Packet, ProtocolVersion, decode, frame};

    /// The packet of these bytes of MQTT 3.1.1, which must hold exactly one.
    pub(crate) fn decode_whole(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
        decode_as(ProtocolVersion::V311, bytes)
    }

    /// The same in MQTT 5.
    pub(crate) fn decode_v5(bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
        decode_as(ProtocolVersion::V5, bytes)
    }

    fn decode_as(version: ProtocolVersion, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
        match frame(bytes, usize::MAX, version)? {
            Framed::Frame(frame) if frame.total() == bytes.len() => decode(&frame, version),
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
    use super::testing::{decode_v5, decode_whole};
    use super::*;

    #[test]
    fn acknowledgements_carry_their_packet_id() {
        let id = Ack::success(PacketId::new(0x1234).unwrap());
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
        assert_eq!(decode_whole(&[0xe0, 0]), Ok(Packet::Disconnect(Disconnect::NORMAL)));
    }

    #[test]
    fn a_packet_of_the_server_is_refused() {
        for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &[0xb0, 2, 0, 1], &[0xd0, 0]] {
            let Ok(Framed::Frame(frame)) = frame_from_server(bytes, usize::MAX, ProtocolVersion::V311) else {
                panic!("{bytes:?}")
            };
            let packet_type = frame.packet_type();
            assert_eq!(
                decode(&frame, ProtocolVersion::V311),
                Err(DecodeError::UnexpectedPacketType { packet_type })
            );
        }
    }

    #[test]
    fn acknowledgements_of_mqtt_5_come_in_three_lengths() {
        let packet_id = PacketId::new(0x1234).unwrap();
        let ack = |reason_code| Ok(Packet::PubAck(Ack { packet_id, reason_code }));
        assert_eq!(decode_v5(&[0x40, 2, 0x12, 0x34]), ack(ReasonCode::Success));
        let none = ReasonCode::NoMatchingSubscribers;
        assert_eq!(decode_v5(&[0x40, 3, 0x12, 0x34, 0x10]), ack(none));
        assert_eq!(decode_v5(&[0x40, 4, 0x12, 0x34, 0x10, 0]), ack(none));
        assert_eq!(decode_v5(b"\x40\x08\x12\x34\x10\x04\x1f\x00\x01a"), ack(none));
        let gone = Ack { packet_id, reason_code: ReasonCode::PacketIdentifierNotFound };
        assert_eq!(decode_v5(&[0x62, 3, 0x12, 0x34, 0x92]), Ok(Packet::PubRel(gone)));
        assert_eq!(decode_v5(&[0x70, 3, 0x12, 0x34, 0x92]), Ok(Packet::PubComp(gone)));
        let over = Ack { packet_id, reason_code: ReasonCode::QuotaExceeded };
        assert_eq!(decode_v5(&[0x50, 3, 0x12, 0x34, 0x97]), Ok(Packet::PubRec(over)));
    }

    #[test]
    fn disconnect_of_mqtt_5_comes_in_three_lengths() {
        let disconnect =
            |reason_code, session_expiry| Ok(Packet::Disconnect(Disconnect { reason_code, session_expiry }));
        assert_eq!(decode_v5(&[0xe0, 0]), disconnect(ReasonCode::NORMAL_DISCONNECTION, None));
        let with_will = ReasonCode::DisconnectWithWill;
        assert_eq!(decode_v5(&[0xe0, 1, 4]), disconnect(with_will, None));
        assert_eq!(decode_v5(&[0xe0, 2, 4, 0]), disconnect(with_will, None));
        let bytes = b"\xe0\x0b\x04\x09\x11\x00\x00\x01\x00\x1f\x00\x01a";
        assert_eq!(decode_v5(bytes), disconnect(with_will, Some(256)));
    }

    #[test]
    fn auth_is_read_and_its_data_not_shown() {
        let bytes = b"\xf0\x10\x18\x0e\x15\x00\x02me\x16\x00\x06SECRET";
        let data = Some(&b"SECRET"[..]);
        let auth = Auth { reason_code: ReasonCode::ContinueAuthentication, method: "me", data };
        let packet = decode_v5(bytes);
        assert_eq!(packet, Ok(Packet::Auth(auth)));
        let text = format!("{packet:?}");
        assert!(text.contains("\"me\"") && !text.contains("SECRET") && !text.contains("83, 69"), "{text}");
    }
}
