//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! The payload is checked as a whole when the packet is decoded and then only iterated over: a packet of 16
//! MB with four million filters costs the bytes it came in and no list beside them. Behind the check
//! iterating cannot fail. The filters of shared subscriptions are checked too in MQTT 5; in MQTT 3.1.1 they
//! are filters like any other, see [`SharedFilter::parse`].

use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroU32;

use super::error::{DecodeError, Field};
use super::frame::Frame;
use super::properties::{Carrier, Property, PropertyValue};
use super::read::Reader;
use super::shared::SharedFilter;
use super::{PacketId, ProtocolVersion, QoS};

mod cursor;

pub use cursor::{SubscribeCursor, UnsubscribeCursor};

/// When a new subscription is sent retained messages (MQTT 5, section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Always [MQTT-3.3.1-9]; so it is in MQTT 3.1.1.
    #[default]
    SendAtSubscribe = 0,
    /// If there was no subscription with this filter before [MQTT-3.3.1-10].
    SendIfNew = 1,
    /// Never [MQTT-3.3.1-11].
    DoNotSend = 2,
}

/// What a client asks for together with a filter (MQTT 5, section 3.8.3.1). MQTT 3.1.1 knows the QoS only;
/// the rest is as [`SubscribeOptions::with_qos`] has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// The highest QoS the client wants messages with.
    pub qos: QoS,
    /// Whether the client's own messages stay away. Never on a shared subscription [MQTT-3.8.3-4].
    pub no_local: bool,
    /// Whether RETAIN is forwarded as it was published [MQTT-3.3.1-12], [MQTT-3.3.1-13].
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

impl SubscribeOptions {
    /// What MQTT 3.1.1 means by a QoS.
    pub const fn with_qos(qos: QoS) -> Self {
        Self {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }

    /// The byte behind the filter.
    pub(crate) const fn byte(self) -> u8 {
        self.qos as u8
            | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }

    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        if byte & 0b1100_0000 != 0 {
            return Err(DecodeError::SubscriptionOptionsReserved { byte });
        }
        let qos = match byte & 0b11 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(DecodeError::SubscriptionQos3),
        };
        let retain_handling = match byte >> 4 & 0b11 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::RetainHandling3),
        };
        let (no_local, retain_as_published) = (byte & 0b100 != 0, byte & 0b1000 != 0);
        Ok(Self { qos, no_local, retain_as_published, retain_handling })
    }
}

/// A SUBSCRIBE packet (section 3.8) with at least one filter, all of them valid.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The id its SUBACK must carry.
    pub packet_id: PacketId,
    /// What to send along with the messages of these subscriptions: at most 268,435,455. Only in MQTT 5.
    pub subscription_id: Option<NonZeroU32>,
    payload: &'a [u8],
    count: usize,
}

impl<'a> Subscribe<'a> {
    /// The filters with what is asked for, in the order of the packet.
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

/// The filters of a [`Subscribe`] with what is asked for.
#[derive(Debug, Clone)]
pub struct SubscribeFilters<'a> {
    reader: Reader<'a>,
    left: usize,
}

impl<'a> Iterator for SubscribeFilters<'a> {
    type Item = (&'a str, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        read_subscribed(&mut self.reader)
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

/// What has been checked before.
fn read_subscribed<'a>(reader: &mut Reader<'a>) -> Option<(&'a str, SubscribeOptions)> {
    let filter = reader.checked_before(Field::TopicFilter)?;
    // What MQTT 3.1.1 allows of this byte means the same in MQTT 5.
    let options = SubscribeOptions::from_byte(reader.u8(Field::RequestedQos).ok()?).ok()?;
    Some((filter, options))
}

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

pub(crate) fn decode_subscribe<'a>(
    frame: &Frame<'a>,
    version: ProtocolVersion,
) -> Result<Subscribe<'a>, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    let mut subscription_id = None;
    if version == ProtocolVersion::V5 {
        let mut properties = reader.properties(Carrier::Subscribe)?;
        while let Some(property) = properties.next()? {
            if let (Property::SubscriptionIdentifier, PropertyValue::Variable(id)) = property {
                subscription_id = NonZeroU32::new(id);
            }
        }
    }
    let payload = reader.rest();
    let count = count_entries(reader, |reader| check_subscribed(reader, version))?;
    Ok(Subscribe { packet_id, subscription_id, payload, count })
}

pub(crate) fn decode_unsubscribe<'a>(
    frame: &Frame<'a>,
    version: ProtocolVersion,
) -> Result<Unsubscribe<'a>, DecodeError> {
    let mut reader = Reader::new(frame.body());
    let packet_id = reader.packet_id()?;
    if version == ProtocolVersion::V5 {
        reader.properties(Carrier::Unsubscribe)?.check()?;
    }
    let payload = reader.rest();
    let count = count_entries(reader, |reader| check_unsubscribed(reader, version))?;
    Ok(Unsubscribe { packet_id, payload, count })
}

/// Checks a filter and what is asked for.
fn check_subscribed(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<(), DecodeError> {
    let filter = reader.topic_filter()?;
    let byte = reader.u8(Field::RequestedQos)?;
    if version == ProtocolVersion::V5 {
        let options = SubscribeOptions::from_byte(byte)?;
        if shared(filter)?.is_some() && options.no_local {
            return Err(DecodeError::NoLocalOnShared);
        }
        Ok(())
    } else {
        requested_qos(byte)
    }
}

/// Checks a filter that is given up.
fn check_unsubscribed(reader: &mut Reader<'_>, version: ProtocolVersion) -> Result<(), DecodeError> {
    let filter = reader.topic_filter()?;
    if version == ProtocolVersion::V5 {
        shared(filter)?;
    }
    Ok(())
}

fn shared(filter: &str) -> Result<Option<SharedFilter<'_>>, DecodeError> {
    SharedFilter::parse(filter).map_err(|error| DecodeError::topic(Field::TopicFilter, error))
}

/// Checks all entries up to the end of the packet; there must be at least one.
fn count_entries<'a>(
    mut reader: Reader<'a>,
    check_entry: impl Fn(&mut Reader<'a>) -> Result<(), DecodeError>,
) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !reader.is_empty() {
        check_entry(&mut reader)?;
        count += 1;
    }
    if count == 0 {
        return Err(DecodeError::NoTopicFilter);
    }
    Ok(count)
}

/// In MQTT 3.1.1 the upper six bits are reserved and QoS 3 does not exist [MQTT-3.8.3-4].
const fn requested_qos(byte: u8) -> Result<(), DecodeError> {
    match byte {
        0..=2 => Ok(()),
        byte => Err(DecodeError::RequestedQosMalformed { byte }),
    }
}

#[cfg(test)]
mod tests;
