//! Large SUBSCRIBE and UNSUBSCRIBE packets in slices: checked first, then read.
//!
//! A cursor holds offsets into the body of its packet, which the caller keeps and hands in each time. What it
//! finds is what the decoder of whole packets finds, the first fault included. A filter or a property is a
//! step, and each [`BYTES_PER_STEP`] bytes of it one more.

use std::num::NonZeroU32;

use super::super::error::DecodeError;
use super::super::frame::Frame;
use super::super::properties::{Carrier, Property, PropertyReader, PropertyValue};
use super::super::read::Reader;
use super::super::{PacketId, ProtocolVersion};
use super::{
    Subscribe, SubscribeOptions, Unsubscribe, check_subscribed, check_unsubscribed, read_subscribed,
};
use crate::protocol::Field;

/// See the module's documentation.
const BYTES_PER_STEP: usize = 256;

/// How far a [`Subscribe`] packet has been checked and read.
#[derive(Debug, Clone)]
pub struct SubscribeCursor {
    /// The id its SUBACK must carry.
    pub packet_id: PacketId,
    /// As that of [`Subscribe`]; known when the packet has been checked.
    pub subscription_id: Option<NonZeroU32>,
    entries: Entries,
}

/// How far an [`Unsubscribe`] packet has been checked and read.
#[derive(Debug, Clone)]
pub struct UnsubscribeCursor {
    /// The id its UNSUBACK must carry.
    pub packet_id: PacketId,
    entries: Entries,
}

/// Offsets count from the beginning of the body.
#[derive(Debug, Clone)]
struct Entries {
    version: ProtocolVersion,
    /// The first byte that has not been checked, or, when all have been, not been read.
    at: usize,
    /// Where the filters begin: in front of it are properties.
    payload: usize,
    /// Properties met so far.
    seen: u64,
    /// Filters that have been checked, and of those the ones that have not been read.
    count: usize,
    left: usize,
    is_checked: bool,
}

impl Subscribe<'_> {
    /// Begins to read a packet in slices; its body is what the cursor's methods are to be given.
    ///
    /// # Errors
    /// A fault in front of the first property and the first filter.
    pub fn begin(frame: &Frame<'_>, version: ProtocolVersion) -> Result<SubscribeCursor, DecodeError> {
        let (packet_id, entries) = Entries::begin(frame, version, Carrier::Subscribe)?;
        Ok(SubscribeCursor { packet_id, subscription_id: None, entries })
    }
}

impl Unsubscribe<'_> {
    /// Begins to read a packet in slices; its body is what the cursor's methods are to be given.
    ///
    /// # Errors
    /// A fault in front of the first property and the first filter.
    pub fn begin(frame: &Frame<'_>, version: ProtocolVersion) -> Result<UnsubscribeCursor, DecodeError> {
        let (packet_id, entries) = Entries::begin(frame, version, Carrier::Unsubscribe)?;
        Ok(UnsubscribeCursor { packet_id, entries })
    }
}

impl SubscribeCursor {
    /// Checks about so many filters; `true` if these were the last, and all are right.
    ///
    /// # Errors
    /// The first fault of the packet.
    pub fn check(&mut self, body: &[u8], steps: usize) -> Result<bool, DecodeError> {
        let id = &mut self.subscription_id;
        let property = |property, value: PropertyValue<'_>| {
            if let (Property::SubscriptionIdentifier, PropertyValue::Variable(told)) = (property, value) {
                *id = NonZeroU32::new(told);
            }
        };
        self.entries.check(body, steps, Carrier::Subscribe, property, check_subscribed)
    }

    /// How many filters there are: as many codes the SUBACK must have. Known when all have been checked.
    pub fn count(&self) -> usize {
        self.entries.count
    }

    /// The next filter with what is asked for; none before all have been checked.
    pub fn next<'a>(&mut self, body: &'a [u8]) -> Option<(&'a str, SubscribeOptions)> {
        self.entries.next(body, read_subscribed)
    }
}

impl UnsubscribeCursor {
    /// Checks about so many filters; `true` if these were the last, and all are right.
    ///
    /// # Errors
    /// The first fault of the packet.
    pub fn check(&mut self, body: &[u8], steps: usize) -> Result<bool, DecodeError> {
        self.entries.check(body, steps, Carrier::Unsubscribe, |_, _| {}, check_unsubscribed)
    }

    /// How many filters there are. Known when all have been checked.
    pub fn count(&self) -> usize {
        self.entries.count
    }

    /// The next filter; none before all have been checked.
    pub fn next<'a>(&mut self, body: &'a [u8]) -> Option<&'a str> {
        self.entries.next(body, |reader| reader.checked_before(Field::TopicFilter))
    }
}

impl Entries {
    fn begin(
        frame: &Frame<'_>,
        version: ProtocolVersion,
        carrier: Carrier,
    ) -> Result<(PacketId, Self), DecodeError> {
        let mut reader = Reader::new(frame.body());
        let offset = |rest: &[u8]| frame.body().len() - rest.len();
        let packet_id = reader.packet_id()?;
        let mut at = offset(reader.rest());
        if version == ProtocolVersion::V5 {
            let properties = reader.properties(carrier)?;
            at = offset(reader.rest()) - properties.rest().len();
        }
        let payload = offset(reader.rest());
        Ok((packet_id, Self { version, at, payload, seen: 0, count: 0, left: 0, is_checked: false }))
    }

    fn check(
        &mut self,
        body: &[u8],
        steps: usize,
        carrier: Carrier,
        mut property: impl FnMut(Property, PropertyValue<'_>),
        check_entry: impl Fn(&mut Reader<'_>, ProtocolVersion) -> Result<(), DecodeError>,
    ) -> Result<bool, DecodeError> {
        let mut left = steps.max(1);
        while !self.is_checked && left > 0 {
            let before = self.at;
            if self.at < self.payload {
                let section = body.get(self.at..self.payload).unwrap_or_default();
                let mut properties = PropertyReader::resume(section, carrier, self.seen);
                if let Some((name, value)) = properties.next()? {
                    property(name, value);
                }
                (self.at, self.seen) = (self.payload - properties.rest().len(), properties.seen());
            } else {
                let mut reader = Reader::new(body.get(self.at..).unwrap_or_default());
                if reader.is_empty() {
                    if self.count == 0 {
                        return Err(DecodeError::NoTopicFilter);
                    }
                    (self.at, self.left, self.is_checked) = (self.payload, self.count, true);
                    break;
                }
                check_entry(&mut reader, self.version)?;
                self.at = body.len() - reader.rest().len();
                self.count += 1;
            }
            left = left.saturating_sub(1 + (self.at - before) / BYTES_PER_STEP);
        }
        Ok(self.is_checked)
    }

    fn next<'a, T>(&mut self, body: &'a [u8], read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        let mut reader = Reader::new(body.get(self.at..)?);
        let entry = read(&mut reader)?;
        self.at = body.len() - reader.rest().len();
        Some(entry)
    }
}

#[cfg(test)]
mod tests;
