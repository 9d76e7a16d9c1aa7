//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! The payload is checked as a whole when the packet is decoded and then only iterated over: a packet of 16
//! MB with four million filters costs the bytes it came in and no list beside them. Behind the check
//! iterating cannot fail.

use std::fmt;
use std::iter::FusedIterator;

use super::error::{DecodeError, Field};
use super::frame::Frame;
use super::read::Reader;
use super::{PacketId, QoS};

/// A SUBSCRIBE packet (section 3.8) with at least one filter, all of them valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The id its SUBACK must carry.
    pub packet_id: PacketId,
    payload: &'a [u8],
    count: usize,
}

impl<'a> Subscribe<'a> {
    /// The filters with the QoS asked for, in the order of the packet.
    pub const fn filters(&self) -> SubscribeFilters<'a> {
        SubscribeFilters { reader: Reader::new(self.payload), left: self.count }
    }

    /// How many filters there are, at least 1: as many codes the SUBACK must have.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The filters as they are on the wire.
    pub(crate) const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// An UNSUBSCRIBE packet (section 3.10) with at least one filter, all of them valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The id its UNSUBACK must carry.
    pub packet_id: PacketId,
    payload: &'a [u8],
    count: usize,
}

impl<'a> Unsubscribe<'a> {
    /// The filters, in the order of the packet.
    pub const fn filters(&self) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters { reader: Reader::new(self.payload), left: self.count }
    }

    /// How many filters there are, at least 1.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The filters as they are on the wire.
    pub(crate) const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// The filters of a [`Subscribe`] with the QoS asked for.
#[derive(Debug, Clone)]
pub struct SubscribeFilters<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for SubscribeFilters<'a> {
    type Item = (&'a str, QoS);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let filter = self.reader.checked_before(Field::TopicFilter)?;
        let qos = requested_qos(self.reader.u8(Field::RequestedQos).ok()?).ok()?;
        Some((filter, qos))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for SubscribeFilters<'_> {}
impl FusedIterator for SubscribeFilters<'_> {}

/// The filters of an [`Unsubscribe`].
#[derive(Debug, Clone)]
pub struct UnsubscribeFilters<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for UnsubscribeFilters<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        self.reader.checked_before(Field::TopicFilter)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for UnsubscribeFilters<'_> {}
impl FusedIterator for UnsubscribeFilters<'_> {}

/// Filters are not listed: there may be millions.
impl fmt::Debug for Subscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Subscribe", self.packet_id, self.count, self.filters().next().map(|(filter, _)| filter))
    }
}

/// Filters are not listed: there may be millions.
impl fmt::Debug for Unsubscribe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(f, "Unsubscribe", self.packet_id, self.count, self.filters().next())
    }
}

fn debug(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    packet_id: PacketId,
    count: usize,
    first: Option<&str>,
) -> fmt::Result {
    f.debug_struct(name)
        .field("packet_id", &packet_id)
        .field("count", &count)
        .field("first", &first)
        .finish_non_exhaustive()
}

pub(crate) fn decode_subscribe<'a>(frame: &Frame<'a>) -> Result<Subscribe<'a>, DecodeError> {
    let (packet_id, payload, count) = decode_list(frame, |reader| {
        reader.topic_filter()?;
        requested_qos(reader.u8(Field::RequestedQos)?).map(drop)
    })?;
    Ok(Subscribe { packet_id, payload, count })
}

pub(crate) fn decode_unsubscribe<'a>(frame: &Frame<'a>) -> Result<Unsubscribe<'a>, DecodeError> {
    let (packet_id, payload, count) = decode_list(frame, |reader| reader.topic_filter().map(drop))?;
    Ok(Unsubscribe { packet_id, payload, count })
}

/// Packet id, then entries up to the end of the packet, at least one of them.
fn decode_list<'a>(
    frame: &Frame<'a>,
    check_entry: impl Fn(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<(PacketId, &'a [u8], usize), DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    let payload = reader.rest();
    let mut count = 0;
    while !reader.is_empty() {
        check_entry(&mut reader)?;
        count += 1;
    }
    if count == 0 {
        return Err(DecodeError::NoTopicFilter);
    }
    Ok((packet_id, payload, count))
}

/// The upper six bits are reserved and QoS 3 does not exist [MQTT-3.8.3-4].
fn requested_qos(byte: u8) -> Result<QoS, DecodeError> {
    match byte {
        0 => Ok(QoS::AtMostOnce),
        1 => Ok(QoS::AtLeastOnce),
        2 => Ok(QoS::ExactlyOnce),
        byte => Err(DecodeError::RequestedQosMalformed { byte }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::packet::testing::{decode_whole, packet};
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
        let expected = [("a", QoS::ExactlyOnce), ("+/#", QoS::AtMostOnce), ("/", QoS::AtLeastOnce)];
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
}
