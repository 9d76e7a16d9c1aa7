//! A message on its way: owned where it must outlive its publisher's read buffer, borrowed where it need not.
//!
//! [`Outgoing`] is one PUBLISH during its fan-out. Each wire layout of it (protocol version, with or without packet id) is made at most once,
//! whatever the number of receivers: the publisher's own bytes are used again where the layout is the same, and an owned [`Message`] comes
//! into being only when a receiver must keep it (a queue, an unfinished delivery, the retained store).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Timestamp;
use crate::ledger::Stored;
use crate::protocol::encode::{self, PublishHeader, PublishPropertiesOut};
use crate::protocol::{PacketId, ProtocolVersion, Publish, QoS};

/// Payloads above this many bytes are shared between receivers instead of copied into each one's output.
pub const SHARE_PAYLOAD_ABOVE: usize = 8 * 1024;

/// An application message that is kept: queued, unfinished, or retained (MQTT 3.1.1 section 1.2).
#[derive(Debug)]
pub struct Message {
    /// Topic and payload in one: an allocation of its own for each would cost more than most topics.
    body: Box<[u8]>,
    topic_len: u16,
    qos: QoS,
    /// Who made it the retained message of its topic, as the broker numbers them. It takes no room of its own.
    source: AtomicU32,
    properties: Option<Box<MessageProperties>>,
    /// Its place in the log, once it has one.
    stored: OnceLock<Stored>,
}

/// What a message of MQTT 5 has besides (section 3.3.2.3).
#[derive(Debug)]
struct MessageProperties {
    /// Passed on unchanged and in order, as bytes of a property section.
    forwarded: Box<[u8]>,
    expires_at: Option<Timestamp>,
}

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
        let body = [topic, payload].concat().into_boxed_slice();
        Self { body, topic_len, qos, source: AtomicU32::new(0), properties: None, stored: OnceLock::new() }
    }

    /// The same with properties: `forwarded` is what is passed on unchanged, in wire form without length.
    #[must_use]
    pub fn with_properties(mut self, forwarded: &[u8], expires_at: Option<Timestamp>) -> Self {
        if !forwarded.is_empty() || expires_at.is_some() {
            self.properties =
                Some(Box::new(MessageProperties { forwarded: Box::from(forwarded), expires_at }));
        }
        self
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        // What went in as text comes out as text.
        std::str::from_utf8(self.parts().0).unwrap_or_default()
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        self.body.split_at_checked(self.topic_len.into()).unwrap_or_default()
    }

    /// The application payload.
    pub fn payload(&self) -> &[u8] {
        self.parts().1
    }

    /// The QoS of the publisher; a delivery may have a lower one.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// The number of who made it the retained message of its topic; 0: nobody.
    pub fn source(&self) -> u32 {
        self.source.load(Ordering::Relaxed)
    }

    /// Notes that number.
    pub fn set_source(&self, source: u32) {
        self.source.store(source, Ordering::Relaxed);
    }

    /// It has a place in the log. The first one counts.
    pub fn set_stored(&self, stored: Stored) {
        let _ = self.stored.set(stored);
    }

    /// Its place in the log, if it has one.
    pub fn stored(&self) -> Option<&Stored> {
        self.stored.get()
    }

    /// The same message as another one, which has no place in the log yet.
    #[must_use]
    pub fn without_place(&self) -> Self {
        Self::new(self.topic(), self.payload(), self.qos).with_properties(self.forwarded(), self.expires_at())
    }

    /// When its expiry interval passes.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.properties.as_ref()?.expires_at
    }

    /// What this message counts against a queue's bound in bytes: topic, payload, properties and a fixed overhead.
    pub fn cost(&self) -> usize {
        message_cost(self.body.len() + self.forwarded().len())
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
pub fn message_cost(bytes: usize) -> usize {
    const OVERHEAD: usize = 96;
    bytes + OVERHEAD
}

/// Buffers that outlive one [`Outgoing`], so that a fan-out allocates nothing.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    /// One for each layout.
    images: [Vec<u8>; LAYOUTS],
    forwarded: Vec<u8>,
}

impl EncodeScratch {
    /// Gives memory back after an unusually large message.
    pub fn shrink(&mut self) {
        for image in &mut self.images {
            image.shrink_to(4 * SHARE_PAYLOAD_ABOVE);
        }
        self.forwarded.shrink_to(SHARE_PAYLOAD_ABOVE);
    }
}

/// How the bytes of a PUBLISH are laid out: with properties (MQTT 5) or without, with packet id or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) version: ProtocolVersion,
    pub(super) has_id: bool,
}

const LAYOUTS: usize = 4;

impl Layout {
    fn index(self) -> usize {
        usize::from(self.version.has_properties()) * 2 + usize::from(self.has_id)
    }
}

/// A wire image: the bytes of a PUBLISH whose first byte and packet id are still to be patched.
#[derive(Clone, Copy)]
pub(super) struct WireImage<'w> {
    pub(super) bytes: &'w [u8],
    /// Where the packet id stands; meaningless for QoS 0.
    pub(super) packet_id_offset: usize,
}

/// One PUBLISH during its fan-out (see the module's documentation).
pub struct Outgoing<'a> {
    topic: &'a str,
    payload: &'a [u8],
    qos: QoS,
    retain: bool,
    /// Whose publication it is: the key of the publisher's session, 0 if it has none.
    publisher: u64,
    expiry: Option<u32>,
    expires_at: Option<Timestamp>,
    /// The publisher's packet, if its bytes may be sent on as they are.
    source: Option<(usize, WireImage<'a>)>,
    scratch: &'a mut EncodeScratch,
    /// Where the packet id stands in the images that are ready.
    ready: [Option<usize>; LAYOUTS],
    message: Option<Arc<Message>>,
}

impl<'a> Outgoing<'a> {
    /// A PUBLISH as its publisher sent it, at `now`. `topic` is the one its alias stands for, if it has one.
    pub fn from_publish(
        publish: &Publish<'a>,
        topic: &'a str,
        version: ProtocolVersion,
        publisher: u64,
        now: Timestamp,
        scratch: &'a mut EncodeScratch,
    ) -> Self {
        let properties = &publish.properties;
        let layout = Layout { version, has_id: publish.qos != QoS::AtMostOnce };
        // Bytes are used again only if they are what we would write: no alias or expiry of the publisher's in them, and the shortest form
        // of the remaining length, which 3.1.1 does not ask of clients.
        let same = properties.forwardable() && publish.is_shortest();
        let image = WireImage { bytes: publish.wire, packet_id_offset: publish.packet_id_offset };
        scratch.forwarded.clear();
        properties.write_forwardable(&mut scratch.forwarded);
        let expiry = properties.message_expiry_interval;
        Self {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            publisher,
            expiry,
            expires_at: expiry.map(|seconds| now.after(Duration::from_secs(seconds.into()))),
            source: same.then_some((layout.index(), image)),
            scratch,
            ready: [None; LAYOUTS],
            message: None,
        }
    }

    /// A message the broker holds already: a will, a retained message, one published in-process.
    pub fn from_message(message: &'a Arc<Message>, now: Timestamp, scratch: &'a mut EncodeScratch) -> Self {
        let PublishPropertiesOut { expiry, forwarded, .. } = message.properties_out(now);
        scratch.forwarded.clear();
        scratch.forwarded.extend_from_slice(forwarded);
        Self {
            topic: message.topic(),
            payload: message.payload(),
            qos: message.qos,
            retain: false,
            publisher: 0,
            expiry,
            expires_at: message.expires_at(),
            source: None,
            scratch,
            ready: [None; LAYOUTS],
            message: Some(Arc::clone(message)),
        }
    }

    /// The same as the publication of a session, by its key: its own No Local subscriptions do not get it.
    #[must_use]
    pub fn with_publisher(mut self, publisher: u64) -> Self {
        self.publisher = publisher;
        self
    }

    /// The same with the RETAIN flag it was published with, for subscribers that asked to see it.
    #[must_use]
    pub fn with_retain(mut self, retain: bool) -> Self {
        self.retain = retain;
        self
    }

    /// The topic name.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// The application payload.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The QoS of the publisher.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// The RETAIN flag it was published with.
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// Whose publication it is: the key of the publisher's session, 0 if it has none.
    pub fn publisher(&self) -> u64 {
        self.publisher
    }

    /// Bytes charged for it in a queue.
    pub fn cost(&self) -> usize {
        message_cost(self.topic.len() + self.payload.len() + self.scratch.forwarded.len())
    }

    /// The owned message, made when first asked for.
    pub fn message(&mut self) -> Arc<Message> {
        let (topic, payload, qos, expires_at) = (self.topic, self.payload, self.qos, self.expires_at);
        let forwarded = &self.scratch.forwarded;
        let make = || {
            let message = Message::new(topic, payload, qos);
            Arc::new(message.with_properties(forwarded, expires_at))
        };
        Arc::clone(self.message.get_or_insert_with(make))
    }

    /// Its properties, without those that belong to the receiver.
    pub(super) fn properties_out(&self) -> PublishPropertiesOut<'_> {
        PublishPropertiesOut {
            expiry: self.expiry,
            forwarded: &self.scratch.forwarded,
            ..PublishPropertiesOut::NONE
        }
    }

    /// The wire image of a layout, encoded when first asked for.
    pub(super) fn image(&mut self, layout: Layout) -> WireImage<'_> {
        let index = layout.index();
        if let Some((source, image)) = self.source
            && source == index
        {
            return image;
        }
        let packet_id_offset = match self.ready.get(index).copied().flatten() {
            Some(offset) => offset,
            None => {
                let qos = if layout.has_id { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                let header = PublishHeader {
                    dup: false,
                    qos,
                    retain: false,
                    topic: self.topic,
                    // Patched for each receiver.
                    packet_id: layout.has_id.then_some(PacketId::MIN),
                };
                let properties = PublishPropertiesOut {
                    expiry: self.expiry,
                    forwarded: &self.scratch.forwarded,
                    ..PublishPropertiesOut::NONE
                };
                let mut image = self.scratch.images.get_mut(index).map(std::mem::take).unwrap_or_default();
                image.clear();
                let offset = encode::publish_header(
                    &mut image,
                    layout.version,
                    &header,
                    &properties,
                    self.payload.len(),
                );
                image.extend_from_slice(self.payload);
                if let Some(slot) = self.scratch.images.get_mut(index) {
                    *slot = image;
                }
                if let Some(ready) = self.ready.get_mut(index) {
                    *ready = Some(offset);
                }
                offset
            }
        };
        let bytes = self.scratch.images.get(index).map_or(&[][..], |image| image);
        WireImage { bytes, packet_id_offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_size_the_memory_target_counts_on() {
        // With the counters of its `Arc` 80 bytes.
        assert_eq!(size_of::<Message>(), 64);
        let message = Message::new("a/\u{e4}", b"body", QoS::AtMostOnce);
        assert_eq!((message.topic(), message.payload(), message.cost()), ("a/\u{e4}", &b"body"[..], 8 + 96));
    }

    #[test]
    fn each_image_is_made_once_for_all_receivers() {
        let mut scratch = EncodeScratch::default();
        let message = Message::new(Arc::from("t"), Box::from(&b"body"[..]), QoS::ExactlyOnce);
        let message = Arc::new(message);
        let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
        for (n, (version, has_id)) in [
            (ProtocolVersion::V311, false),
            (ProtocolVersion::V311, true),
            (ProtocolVersion::V5, false),
            (ProtocolVersion::V5, true),
        ]
        .into_iter()
        .enumerate()
        {
            let layout = Layout { version, has_id };
            assert_eq!(layout.index(), n);
            let made = outgoing.image(layout);
            let (offset, bytes) = (made.packet_id_offset, made.bytes.to_vec());
            // Marked, to see that it is this very one that comes back, whatever others are made in between.
            outgoing.scratch.images[n][0] = 0xff;
            for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
                outgoing.image(Layout { version, has_id: true });
            }
            let again = outgoing.image(layout);
            assert_eq!((again.packet_id_offset, again.bytes[0]), (offset, 0xff));
            assert_eq!(again.bytes[1..], bytes[1..]);
        }
    }
}
