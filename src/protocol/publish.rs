//! PUBLISH as a view on the bytes it came in.
//!
//! The view keeps the whole packet at hand, so that whoever forwards it may copy the bytes and patch the
//! packet id in place of encoding afresh. The payload is never looked at, and never printed.

use std::fmt;

use super::error::{DecodeError, Field};
use super::frame::Frame;
use super::properties::Carrier;
use super::publish_properties::PublishProperties;
use super::read::Reader;
use super::{PacketId, QoS};

/// A PUBLISH packet (section 3.3).
///
/// Two are equal when they say the same; [`wire`](Self::wire) and
/// [`packet_id_offset`](Self::packet_id_offset) do not count, for one packet can be written with lengths of
/// several forms.
#[derive(Clone, Copy)]
pub struct Publish<'a> {
    /// Set by a sender that sends the packet again. Never set with QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Whether the message is to be kept for later subscribers.
    pub retain: bool,
    /// Topic name: 1 to 65,535 bytes, no U+0000, no wildcard. Empty only in MQTT 5, if a topic alias stands
    /// for it.
    pub topic: &'a str,
    /// There is one if, and only if, the QoS is above 0.
    pub packet_id: Option<PacketId>,
    /// What MQTT 5 has to say of the message; nothing in MQTT 3.1.1.
    pub properties: PublishProperties<'a>,
    /// Application message; may be empty.
    pub payload: &'a [u8],
    /// The whole packet with its fixed header. From MQTT 5 to MQTT 5 it may be forwarded as it is if
    /// [`PublishProperties::forwardable`].
    pub wire: &'a [u8],
    /// Where in [`wire`](Self::wire) the packet id is; with QoS 0, where it would stand (the start of the
    /// payload, in MQTT 5 of the properties).
    pub packet_id_offset: usize,
}

impl Publish<'_> {
    /// Whether the remaining length is written with the fewest bytes. MQTT 3.1.1 does not ask that of clients; we ask it of ourselves.
    pub fn is_shortest(&self) -> bool {
        // Two bytes at least: type and flags, and the first of the length. The last byte of a longer length must not be 0.
        match self.wire.get(1..5) {
            Some([first, ..]) if *first < 0x80 => true,
            Some([_, second, ..]) if *second < 0x80 => *second != 0,
            Some([_, _, third, _]) if *third < 0x80 => *third != 0,
            Some([.., fourth]) => *fourth != 0,
            // Shorter than five bytes: the length has one byte, or was padded.
            _ => self.wire.get(1).is_some_and(|first| *first < 0x80),
        }
    }
}

impl PartialEq for Publish<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.dup == other.dup
            && self.qos == other.qos
            && self.retain == other.retain
            && self.topic == other.topic
            && self.packet_id == other.packet_id
            && self.properties == other.properties
            && self.payload == other.payload
    }
}

impl Eq for Publish<'_> {}

impl fmt::Debug for Publish<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("topic", &self.topic)
            .field("packet_id", &self.packet_id)
            .field("properties_len", &self.properties.raw().len())
            .field("payload_len", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// PUBLISH of MQTT 3.1 and 3.1.1.
#[inline]
pub(crate) fn decode<'a>(frame: &Frame<'a>) -> Result<Publish<'a>, DecodeError> {
    let first_byte = frame.first_byte();
    let qos = qos(first_byte)?;
    let mut reader = Reader::new(frame.body());
    let topic = reader.topic_name(Field::TopicName)?;
    let packet_id_offset = frame.header_len() + size_of::<u16>() + topic.len();
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    Ok(Publish {
        dup: first_byte & 0b1000 != 0,
        qos,
        retain: first_byte & 0b0001 != 0,
        topic,
        packet_id,
        properties: PublishProperties::NONE,
        payload: reader.rest(),
        wire: frame.wire(),
        packet_id_offset,
    })
}

/// PUBLISH of MQTT 5. Apart from the above, so that what has no properties pays nothing for them.
pub(crate) fn decode_v5<'a>(frame: &Frame<'a>) -> Result<Publish<'a>, DecodeError> {
    let first_byte = frame.first_byte();
    let qos = qos(first_byte)?;
    let mut reader = Reader::new(frame.body());
    let topic = reader.topic_name_or_empty(Field::TopicName)?;
    let packet_id_offset = frame.header_len() + size_of::<u16>() + topic.len();
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let section = reader.properties(Carrier::Publish)?;
    let properties =
        if section.rest().is_empty() { PublishProperties::NONE } else { PublishProperties::read(section)?.0 };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(DecodeError::NoTopic);
    }
    Ok(Publish {
        dup: first_byte & 0b1000 != 0,
        qos,
        retain: first_byte & 0b0001 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
        wire: frame.wire(),
        packet_id_offset,
    })
}

#[inline]
fn qos(first_byte: u8) -> Result<QoS, DecodeError> {
    match first_byte & 0b0110 {
        0b0000 => Ok(QoS::AtMostOnce),
        0b0010 => Ok(QoS::AtLeastOnce),
        0b0100 => Ok(QoS::ExactlyOnce),
        _ => Err(DecodeError::PublishQos3),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::testing::{decode_whole, packet};
    use super::super::{Packet, TopicError};
    use super::*;

    fn publish(bytes: &[u8]) -> Publish<'_> {
        match decode_whole(bytes) {
            Ok(Packet::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    fn topic_error(topic: &[u8]) -> DecodeError {
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend_from_slice(topic);
        body.extend_from_slice(b"payload");
        decode_whole(&packet(0x30, &body)).expect_err("must be refused")
    }

    #[test]
    fn qos_0_has_no_packet_id() {
        // [MQTT-2.3.1-5]
        let bytes = [0x31, 6, 0, 2, b'a', b'b', 0, 0];
        let publish = publish(&bytes);
        assert_eq!((publish.dup, publish.qos, publish.retain), (false, QoS::AtMostOnce, true));
        assert_eq!((publish.topic, publish.packet_id), ("ab", None));
        assert_eq!((publish.payload, publish.packet_id_offset), (&[0, 0][..], 6));
        assert_eq!(publish.wire, bytes);
    }

    #[test]
    fn qos_1_and_2_have_a_packet_id_where_the_offset_says() {
        for (first_byte, qos, dup) in [(0x32, QoS::AtLeastOnce, false), (0x3c, QoS::ExactlyOnce, true)] {
            let bytes = [first_byte, 0x86, 0, 0, 1, b'a', 0x12, 0x34, 9];
            let publish = publish(&bytes);
            assert_eq!((publish.dup, publish.qos, publish.retain), (dup, qos, false));
            assert_eq!(publish.packet_id, PacketId::new(0x1234));
            assert_eq!(publish.payload, [9]);
            assert_eq!(publish.wire[publish.packet_id_offset..][..2], [0x12, 0x34]);
        }
    }

    #[test]
    fn an_empty_payload_is_legal() {
        assert_eq!(publish(&[0x31, 3, 0, 1, b'a']).payload, b"");
    }

    /// [MQTT-2.3.1-1]
    #[test]
    fn packet_id_zero_is_refused() {
        assert_eq!(decode_whole(&[0x32, 5, 0, 1, b'a', 0, 0]), Err(DecodeError::PacketIdZero));
    }

    #[test]
    fn a_cut_packet_is_refused() {
        let in_topic = Err(DecodeError::Truncated { field: Field::TopicName });
        assert_eq!(decode_whole(&[0x30, 0]), in_topic);
        assert_eq!(decode_whole(&[0x30, 1, 0]), in_topic);
        assert_eq!(decode_whole(&[0x30, 3, 0, 2, b'a']), in_topic);
        let in_id = Err(DecodeError::Truncated { field: Field::PacketId });
        assert_eq!(decode_whole(&[0x32, 3, 0, 1, b'a']), in_id);
        assert_eq!(decode_whole(&[0x32, 4, 0, 1, b'a', 1]), in_id);
    }

    /// [MQTT-4.7.3-1]
    #[test]
    fn an_empty_topic_is_refused() {
        let field = Field::TopicName;
        assert_eq!(topic_error(b""), DecodeError::BadTopic { field, error: TopicError::Empty });
    }

    /// [MQTT-3.3.2-2], wherever in the eight bytes of a word and whatever stands around it.
    #[test]
    fn wildcards_and_nul_are_found_at_every_place() {
        let field = Field::TopicName;
        let wildcard = DecodeError::BadTopic { field, error: TopicError::WildcardInName };
        for filler in ["a", "\u{e9}", "\u{1}", "\"", "$", "*", ",", "\u{7f}", "\u{10ffff}"] {
            for before in 0..20 {
                for after in 0..20 {
                    for (bad, error) in
                        [("+", wildcard), ("#", wildcard), ("\0", DecodeError::NulInString { field })]
                    {
                        let topic = [&filler.repeat(before), bad, &filler.repeat(after)].concat();
                        assert_eq!(topic_error(topic.as_bytes()), error, "{topic:?}");
                    }
                }
                let topic = filler.repeat(before + 1);
                let body = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes()].concat();
                assert_eq!(publish(&packet(0x30, &body)).topic, topic);
            }
        }
    }

    /// [MQTT-1.5.3-1], [MQTT-3.3.2-1]
    #[test]
    fn ill_formed_utf8_is_refused() {
        let bad = DecodeError::BadUtf8 { field: Field::TopicName };
        let ill_formed: [&[u8]; 7] = [
            b"\xff",
            b"\xc3",             // cut
            b"\x80",             // continuation alone
            b"\xc0\x80",         // U+0000 in two bytes
            b"\xed\xa0\x80",     // surrogate
            b"\xf4\x90\x80\x80", // above U+10FFFF
            b"\xe0\x80\xaf",     // '/' in three bytes
        ];
        for bytes in ill_formed {
            assert_eq!(topic_error(bytes), bad);
            assert_eq!(topic_error(&[b"long enough ", bytes].concat()), bad);
            assert_eq!(topic_error(&[bytes, b" long enough"].concat()), bad);
        }
    }

    /// [MQTT-1.5.3-3]; control and non-characters are SHOULD NOT only.
    #[test]
    fn byte_order_mark_and_odd_characters_are_kept() {
        for topic in ["\u{feff}", "\u{feff}a\u{feff}", "\u{1}\u{1f}\u{7f}\u{9f}", "\u{ffff}\u{fdd0}"] {
            let body = [&(topic.len() as u16).to_be_bytes()[..], topic.as_bytes()].concat();
            assert_eq!(publish(&packet(0x30, &body)).topic, topic);
        }
    }

    #[test]
    fn debug_shows_no_payload() {
        let text = format!("{:?}", publish(b"\x30\x09\x00\x01aSECRET"));
        assert!(text.contains("payload_len: 6") && text.contains("\"a\""), "{text}");
        assert!(!text.contains("SECRET") && !text.contains("83, 69"), "{text}");
    }
}
