//! A message that is kept: owned, because it outlives its publisher's read buffer.

use std::sync::{Arc, OnceLock};

use super::Timestamp;
use crate::accounts::{Account, Accounts, Charge};
use crate::ledger::Stored;
use crate::protocol::QoS;
use crate::protocol::encode::PublishPropertiesOut;

/// An application message that is kept: queued, unfinished, or retained (MQTT 3.1.1 section 1.2).
#[derive(Debug)]
pub struct Message {
    /// QoS and length of the topic ([`HEAD`] bytes), for some who made it the retained one ([`SOURCE`] bytes), topic, payload: an allocation of its own
    /// for each would cost more than most topics, and the first as fields would cost eight bytes.
    body: Box<[u8]>,
    properties: Option<Box<MessageProperties>>,
    /// Its place in the log, once it has one.
    stored: OnceLock<Stored>,
}

/// What precedes the topic in a message's body.
const HEAD: usize = 3;
/// In the byte of the QoS: behind the head stands a number of these bytes.
const HAS_SOURCE: u8 = 0x80;
const SOURCE: usize = size_of::<u32>();

/// What few messages have: properties of MQTT 5 (section 3.3.2.3), and a place for the charge of a large one.
#[derive(Debug, Default)]
struct MessageProperties {
    /// Passed on unchanged and in order, as bytes of a property section.
    forwarded: Box<[u8]>,
    expires_at: Option<Timestamp>,
    /// Of a message that is charged once however many hold it.
    charge: Option<Box<OnceLock<Charge>>>,
}

/// A message of this many bytes or more is charged once for all that hold it. A smaller one costs
/// each of them little more than its place in a queue does, and is charged to each.
pub const SHARED_FROM: usize = 1_024;

/// What is left of a message's expiry interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// It has none.
    Never,
    /// Seconds it is still worth delivering.
    Left(u32),
    /// Its time is over ([MQTT-3.3.2-5]).
    Over,
}

impl Message {
    /// A message with the QoS its publisher gave it. The topic must be a valid topic name.
    pub fn new(topic: impl AsRef<str>, payload: impl AsRef<[u8]>, qos: QoS) -> Self {
        let (topic, payload) = (topic.as_ref().as_bytes(), payload.as_ref());
        // A topic name has at most 65,535 bytes.
        let topic_len = u16::try_from(topic.len()).unwrap_or(u16::MAX);
        let topic = topic.get(..topic_len.into()).unwrap_or_default();
        let [low, high] = topic_len.to_le_bytes();
        let body = [&[qos as u8, low, high], topic, payload].concat().into_boxed_slice();
        Self { body, properties: None, stored: OnceLock::new() }.with_charge()
    }

    /// In place of a message that is in the log only: nothing but where it is.
    pub(super) fn hollow(place: Stored) -> Self {
        Self { body: Box::default(), properties: None, stored: OnceLock::from(place) }
    }

    pub(super) fn is_hollow(&self) -> bool {
        self.body.is_empty()
    }

    /// The same with a place for its charge, if it is large enough to have one.
    fn with_charge(mut self) -> Self {
        if self.bytes() >= SHARED_FROM {
            self.properties.get_or_insert_default().charge.get_or_insert_default();
        }
        self
    }

    /// The same as one that is charged once for all who hold it, however small.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.properties.get_or_insert_default().charge.get_or_insert_default();
        self
    }

    /// The same with properties: `forwarded` is what is passed on unchanged, in wire form without length.
    #[must_use]
    pub fn with_properties(mut self, forwarded: &[u8], expires_at: Option<Timestamp>) -> Self {
        if !forwarded.is_empty() || expires_at.is_some() {
            let properties = self.properties.get_or_insert_default();
            properties.forwarded = Box::from(forwarded);
            properties.expires_at = expires_at;
        }
        self.with_charge()
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        // What went in as text comes out as text.
        std::str::from_utf8(self.parts().0).unwrap_or_default()
    }

    /// The topic name's bytes.
    pub fn topic_bytes(&self) -> &[u8] {
        self.parts().0
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let Some(([flags, low, high], text)) = self.body.split_first_chunk::<HEAD>() else {
            return Default::default();
        };
        let text = if flags & HAS_SOURCE == 0 { text } else { text.get(SOURCE..).unwrap_or_default() };
        text.split_at_checked(u16::from_le_bytes([*low, *high]).into()).unwrap_or_default()
    }

    /// The application payload.
    pub fn payload(&self) -> &[u8] {
        self.parts().1
    }

    /// The QoS of the publisher; a delivery may have a lower one.
    pub fn qos(&self) -> QoS {
        match self.body.first().map(|flags| flags & !HAS_SOURCE) {
            Some(0) | None => QoS::AtMostOnce,
            Some(1) => QoS::AtLeastOnce,
            Some(_) => QoS::ExactlyOnce,
        }
    }

    /// The number of who made it the retained message of its topic, as the broker numbers them; 0: nobody.
    pub fn source(&self) -> u32 {
        self.source_bytes().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn source_bytes(&self) -> Option<&[u8; SOURCE]> {
        let (flags, rest) = self.body.split_first()?;
        if flags & HAS_SOURCE == 0 { None } else { rest.get(HEAD - 1..)?.first_chunk() }
    }

    /// The same with that number.
    #[must_use]
    pub fn with_source(mut self, source: u32) -> Self {
        if source != 0 && self.source_bytes().is_none() {
            let (head, text) = self.body.split_at_checked(HEAD).unwrap_or_default();
            let mut body = [head, &source.to_le_bytes(), text].concat();
            if let Some(flags) = body.first_mut() {
                *flags |= HAS_SOURCE;
            }
            self.body = body.into_boxed_slice();
        }
        self
    }

    /// Bytes of topic, payload and properties.
    fn bytes(&self) -> usize {
        self.body.len().saturating_sub(HEAD) + self.forwarded().len()
    }

    /// Bytes that it takes in memory.
    pub fn memory(&self) -> usize {
        message_cost(self.bytes())
    }

    /// Whether it is charged once, and not to each of its holders.
    pub fn is_shared(&self) -> bool {
        self.properties.as_ref().is_some_and(|properties| properties.charge.is_some())
    }

    /// What one of its holders is charged with for it, besides the entry where it stands.
    pub fn memory_of_holder(&self) -> usize {
        if self.is_shared() { 0 } else { self.memory() }
    }

    /// It is going to outlive the turn in which it came: it is charged from now on until the last
    /// of its holders lets it go.
    pub fn charge_to(&self, accounts: &Arc<Accounts>) {
        if let Some(charge) = self.properties.as_ref().and_then(|properties| properties.charge.as_ref()) {
            charge.get_or_init(|| Charge::new(accounts, Account::Bodies, self.memory()));
        }
    }

    /// It has a place in the log. The first one counts.
    pub fn set_stored(&self, stored: Stored) {
        let is_first = self.stored.set(stored).is_ok();
        debug_assert!(is_first, "a message that is on record is put on record once more");
    }

    /// Its place in the log, if it has one.
    pub fn stored(&self) -> Option<&Stored> {
        self.stored.get()
    }

    /// The same message as another one, which has no place in the log yet.
    #[must_use]
    pub fn without_place(&self) -> Self {
        Self::new(self.topic(), self.payload(), self.qos())
            .with_properties(self.forwarded(), self.expires_at())
    }

    /// When its expiry interval passes.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.properties.as_ref()?.expires_at
    }

    /// What this message counts against a queue's bound in bytes: topic, payload, properties and a fixed overhead.
    pub fn cost(&self) -> usize {
        let (topic, payload) = self.parts();
        message_cost(topic.len() + payload.len() + self.forwarded().len())
    }

    /// What is left of its expiry interval at `now`.
    pub fn expiry(&self, now: Timestamp) -> Expiry {
        let Some(at) = self.expires_at() else {
            return Expiry::Never;
        };
        let left = at.since(now);
        if left.is_zero() {
            return Expiry::Over;
        }
        // Waiting time counts in whole seconds: half a second waited is none.
        Expiry::Left(u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX))
    }

    /// Properties passed on unchanged and in order, as bytes of a property section.
    pub fn forwarded(&self) -> &[u8] {
        self.properties.as_ref().map_or(&[], |properties| &properties.forwarded)
    }

    /// The properties of a PUBLISH of this message, without those that belong to the receiver.
    pub(super) fn properties_out(&self, now: Timestamp) -> PublishPropertiesOut<'_> {
        let expiry = match self.expiry(now) {
            Expiry::Never => None,
            Expiry::Left(seconds) => Some(seconds),
            // Sent again after it was sent once: it does not expire any more ([MQTT-4.3.3-7]).
            Expiry::Over => Some(1),
        };
        PublishPropertiesOut { expiry, forwarded: self.forwarded(), ..PublishPropertiesOut::NONE }
    }
}

/// Bytes a waiting message is charged with: its text and body, and what the broker spends on holding it.
pub const fn message_cost(bytes: usize) -> usize {
    const OVERHEAD: usize = 96;
    bytes + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_message_is_charged_once_and_a_small_one_to_each() {
        let accounts = Arc::new(Accounts::default());
        let small = Message::new("t", [0; 1_022], QoS::AtLeastOnce);
        small.charge_to(&accounts);
        assert!(!small.is_shared() && small.memory_of_holder() == small.memory());
        assert_eq!(accounts.total(), 0);
        let forwarded = [0; 1_023];
        let properties = Message::new("t", b"", QoS::AtLeastOnce).with_properties(&forwarded, None);
        let large = Message::new("t", [0; 1_023], QoS::AtLeastOnce);
        for message in [properties, large] {
            let message = Arc::new(message);
            let holders: Vec<_> = (0..3).map(|_| Arc::clone(&message)).collect();
            holders.iter().for_each(|holder| holder.charge_to(&accounts));
            assert_eq!((accounts.of(Account::Bodies), message.memory_of_holder()), (1_024 + 96, 0));
            drop(message);
            assert_eq!(accounts.of(Account::Bodies), 1_024 + 96);
            drop(holders);
            assert_eq!(accounts.total(), 0);
        }
    }

    #[test]
    fn a_message_has_the_size_the_memory_target_counts_on() {
        // With the counters of its `Arc` 72 bytes.
        assert_eq!(size_of::<Message>(), 56);
        // A step of the system's allocator.
        assert_eq!(size_of::<MessageProperties>(), 40);
        let message = Message::new("a/\u{e4}", b"body", QoS::AtMostOnce);
        assert_eq!((message.qos(), message.source()), (QoS::AtMostOnce, 0));
        let of = Message::new("a/\u{e4}", b"body", QoS::ExactlyOnce).with_source(0x1234_5678);
        assert_eq!((of.qos(), of.source()), (QoS::ExactlyOnce, 0x1234_5678));
        assert_eq!(
            (of.topic(), of.payload(), of.cost()),
            (message.topic(), message.payload(), message.cost())
        );
        assert_eq!((message.topic(), message.payload(), message.cost()), ("a/\u{e4}", &b"body"[..], 8 + 96));
    }
}
