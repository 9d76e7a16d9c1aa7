//! Packets to bytes, appended to a buffer.
//!
//! Each function checks its lengths first and then appends one whole packet: what is in the buffer stays a
//! stream of whole packets. Lengths are written in their shortest form.
//!
//! What a packet of MQTT 5 can say and one of MQTT 3.1.1 cannot is left out of the latter, so the caller need
//! not ask for the version. Tests hold what is written for MQTT 3.1.1 against mqttbytes' decoder; the packets
//! that have properties but are no PUBLISH are in `encode_v5.rs`.

pub use super::encode_client::{client_disconnect, connect, packet, pingreq, subscribe, unsubscribe};
pub use super::encode_v5::{ConnackProperties, auth, connack, disconnect};
use super::frame::{REMAINING_LENGTH_MAX, fixed_header_len};
use super::properties::{Property, VARIABLE_BYTE_INTEGER_MAX};
use super::topic::TOPIC_BYTES_MAX;
use super::{PacketId, ProtocolVersion, QoS, ReasonCode};

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

/// PUBACK, PUBREC, PUBREL or PUBCOMP of MQTT 5 with its reason code, which takes a byte more unless it is
/// success. The code should be one of the packet's [`ReasonCode::allowed_in`].
#[inline]
pub const fn ack_v5(kind: AckKind, id: PacketId, reason_code: ReasonCode) -> AckBytes {
    let [first_byte, length, high, low] = ack(kind, id);
    match reason_code {
        ReasonCode::Success => AckBytes { bytes: [first_byte, length, high, low, 0], len: 4 },
        code => AckBytes { bytes: [first_byte, length + 1, high, low, code.byte()], len: 5 },
    }
}

/// Appends PUBACK, PUBREC, PUBREL or PUBCOMP as the version has it; MQTT 3.1.1 has no reason codes.
#[inline]
pub fn acknowledge(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    kind: AckKind,
    id: PacketId,
    code: ReasonCode,
) {
    if version.has_properties() {
        out.extend_from_slice(ack_v5(kind, id, code).as_ref());
    } else {
        out.extend_from_slice(&ack(kind, id));
    }
}

/// The bytes of an acknowledgement of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckBytes {
    bytes: [u8; 5],
    len: u8,
}

impl AsRef<[u8]> for AckBytes {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The properties of a PUBLISH on its way out. MQTT 3.1.1 gets none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishPropertiesOut<'a> {
    /// What is left of the message expiry interval, in seconds.
    pub expiry: Option<u32>,
    /// The number that is to stand, or stands, for the topic; not 0.
    pub topic_alias: Option<u16>,
    /// The identifiers of the subscriptions that matched, each 1 to [`VARIABLE_BYTE_INTEGER_MAX`].
    pub subscription_ids: &'a [u32],
    /// What is passed on as it came, as [`super::PublishProperties::write_forwardable`] writes it.
    pub forwarded: &'a [u8],
}

impl PublishPropertiesOut<'_> {
    /// No properties.
    pub const NONE: Self = Self { expiry: None, topic_alias: None, subscription_ids: &[], forwarded: &[] };

    /// Bytes of the section without its length.
    const fn len(&self) -> usize {
        let mut len = self.forwarded.len();
        if self.expiry.is_some() {
            len = len.saturating_add(1 + size_of::<u32>());
        }
        if self.topic_alias.is_some() {
            len = len.saturating_add(1 + size_of::<u16>());
        }
        let mut ids = self.subscription_ids;
        while let [id, rest @ ..] = ids {
            len = len.saturating_add(1 + variable_len(*id as usize));
            ids = rest;
        }
        len
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(seconds) = self.expiry {
            out.push(Property::MessageExpiryInterval as u8);
            out.extend_from_slice(&seconds.to_be_bytes());
        }
        if let Some(alias) = self.topic_alias {
            out.push(Property::TopicAlias as u8);
            out.extend_from_slice(&alias.to_be_bytes());
        }
        for &id in self.subscription_ids {
            out.push(Property::SubscriptionIdentifier as u8);
            variable(out, id as usize);
        }
        out.extend_from_slice(self.forwarded);
    }
}

/// A PUBLISH packet but for its properties and payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHeader<'a> {
    /// Whether the packet is sent again. With QoS 0 it is written as 0 [MQTT-3.3.1-2].
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Whether the message was retained, or is to be.
    pub retain: bool,
    /// A valid topic name; empty in MQTT 5 if an alias stands for it.
    pub topic: &'a str,
    /// Not written with QoS 0. With QoS 1 and 2 `None` leaves two zero bytes, to be patched before they are
    /// sent.
    pub packet_id: Option<PacketId>,
}

/// Appends a PUBLISH packet.
///
/// # Panics
/// As [`publish_header`].
pub fn publish(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    header: &PublishHeader<'_>,
    properties: &PublishPropertiesOut<'_>,
    payload: &[u8],
) {
    publish_header(out, version, header, properties, payload.len());
    out.extend_from_slice(payload);
}

/// Appends a PUBLISH packet but for its payload, of which `payload_len` bytes are to follow; there is room
/// for them afterwards. Returns where the packet id is, counted from the start of this packet, or 0 with QoS
/// 0.
///
/// # Panics
/// If the topic has more than [`TOPIC_BYTES_MAX`] bytes, a subscription identifier is above
/// [`VARIABLE_BYTE_INTEGER_MAX`], or the packet would have a remaining length above
/// [`REMAINING_LENGTH_MAX`]; nothing has been appended then. Neither comes of a packet that was decoded;
/// whoever makes messages of their own has to check.
pub fn publish_header(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    header: &PublishHeader<'_>,
    properties: &PublishPropertiesOut<'_>,
    payload_len: usize,
) -> usize {
    let has_packet_id = header.qos != QoS::AtMostOnce;
    let section_len = section_len(version, properties);
    let remaining_length =
        publish_remaining_length(header.topic.len(), has_packet_id, section_len, payload_len);
    assert!(header.topic.len() <= TOPIC_BYTES_MAX, "topic of {} bytes", header.topic.len());
    assert!(
        properties.subscription_ids.iter().all(|&id| id <= VARIABLE_BYTE_INTEGER_MAX),
        "subscription identifiers {:?}",
        properties.subscription_ids
    );
    let start = out.len();
    let dup = header.dup && has_packet_id;
    let flags = u8::from(dup) << 3 | (header.qos as u8) << 1 | u8::from(header.retain);
    fixed_header(out, 0x30 | flags, remaining_length);
    bytes(out, header.topic.as_bytes());
    let mut packet_id_offset = 0;
    if has_packet_id {
        packet_id_offset = out.len() - start;
        out.extend_from_slice(&header.packet_id.map_or(0, PacketId::get).to_be_bytes());
    }
    if let Some(section_len) = section_len {
        variable(out, section_len);
        properties.write(out);
    }
    packet_id_offset
}

/// Bytes of a PUBLISH packet with its fixed header, for topic and payload of these lengths in bytes.
pub const fn publish_len(
    version: ProtocolVersion,
    topic_len: usize,
    has_packet_id: bool,
    properties: &PublishPropertiesOut<'_>,
    payload_len: usize,
) -> usize {
    let section_len = section_len(version, properties);
    let remaining_length = publish_remaining_length(topic_len, has_packet_id, section_len, payload_len);
    fixed_header_len(remaining_length).saturating_add(remaining_length)
}

/// Bytes of a SUBACK or UNSUBACK of MQTT 5 with this many codes, with its fixed header.
pub(crate) const fn codes_len(count: usize) -> usize {
    let remaining_length = size_of::<u16>() + 1 + count;
    fixed_header_len(remaining_length) + remaining_length
}

/// Appends SUBACK with one code for each filter of the SUBSCRIBE, in its order; MQTT 3.1.1 gets 0x80 for
/// every failure.
///
/// # Panics
/// If the codes are more than fit into a packet, which takes a SUBSCRIBE four times as large as a packet can
/// be.
pub fn suback(out: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, codes: &[ReasonCode]) {
    let v5 = version == ProtocolVersion::V5;
    fixed_header(out, 0x90, size_of::<u16>() + usize::from(v5) + codes.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    if v5 {
        out.push(NO_PROPERTIES);
        out.extend(codes.iter().map(|code| code.byte()));
    } else {
        out.extend(codes.iter().map(|code| code.for_v3_suback()));
    }
}

/// Appends UNSUBACK, with one code for each filter of the UNSUBSCRIBE, in its order; MQTT 3.1.1 gets no codes.
///
/// # Panics
/// As [`suback`].
pub fn unsuback(out: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, codes: &[ReasonCode]) {
    if version != ProtocolVersion::V5 {
        fixed_header(out, 0xb0, size_of::<u16>());
        out.extend_from_slice(&id.get().to_be_bytes());
        return;
    }
    fixed_header(out, 0xb0, size_of::<u16>() + 1 + codes.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    out.push(NO_PROPERTIES);
    out.extend(codes.iter().map(|code| code.byte()));
}

/// Appends PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Room is made for the whole of a packet up to this size. The payload of a larger one is not copied
/// behind its header as a rule: the room would stay empty.
const RESERVED_MAX: usize = 8 * 1024;

/// Appends the fixed header and makes room for the rest of the packet.
pub(crate) fn fixed_header(out: &mut Vec<u8>, first_byte: u8, remaining_length: usize) {
    assert!(remaining_length <= REMAINING_LENGTH_MAX, "remaining length of {remaining_length}");
    let len = fixed_header_len(remaining_length) + remaining_length;
    if len <= RESERVED_MAX {
        out.reserve(len);
    }
    out.push(first_byte);
    variable(out, remaining_length);
}

/// The length of a section without properties [MQTT-2.2.2-1].
pub(crate) const NO_PROPERTIES: u8 = 0;

/// Appends a variable byte integer in its shortest form. The caller has checked that it is at most
/// [`VARIABLE_BYTE_INTEGER_MAX`].
pub(crate) fn variable(out: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Bytes of a variable byte integer.
pub(crate) const fn variable_len(number: usize) -> usize {
    fixed_header_len(number) - 1
}

/// Appends bytes behind their two-byte length (section 1.5.3). The caller has checked the length, before the
/// packet was begun.
pub(crate) fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Bytes of the property section without its length; `None` where the version has no sections.
const fn section_len(version: ProtocolVersion, properties: &PublishPropertiesOut<'_>) -> Option<usize> {
    match version {
        ProtocolVersion::V5 => Some(properties.len()),
        ProtocolVersion::V31 | ProtocolVersion::V311 => None,
    }
}

const fn publish_remaining_length(
    topic_len: usize,
    has_packet_id: bool,
    section_len: Option<usize>,
    payload_len: usize,
) -> usize {
    let packet_id_len = if has_packet_id { size_of::<u16>() } else { 0 };
    let section_len = match section_len {
        Some(len) => len.saturating_add(variable_len(len)),
        None => 0,
    };
    // Saturating, so that lengths no packet can have fail at the limit and do not wrap round below it.
    size_of::<u16>()
        .saturating_add(topic_len)
        .saturating_add(packet_id_len)
        .saturating_add(section_len)
        .saturating_add(payload_len)
}

#[cfg(test)]
mod tests;
