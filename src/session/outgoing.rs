//! One PUBLISH during its fan-out: borrowed where nobody has to keep it.
//!
//! Each wire layout of an [`Outgoing`] (protocol version, with or without packet id) is made at most once,
//! whatever the number of receivers: the publisher's own bytes are used again where the layout is the same, and an owned [`Message`] comes
//! into being only when a receiver must keep it (a queue, an unfinished delivery, the retained store).

use std::sync::Arc;
use std::time::Duration;

use super::Timestamp;
use super::message::{Message, message_cost};
use crate::accounts::Accounts;
use crate::protocol::encode::{self, PublishHeader, PublishPropertiesOut};
use crate::protocol::{PacketId, ProtocolVersion, Publish, QoS};

/// Payloads above this many bytes are shared between receivers instead of copied into each one's output.
pub const SHARE_PAYLOAD_ABOVE: usize = 8 * 1024;

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
    /// Somebody keeps it beyond the turn.
    kept: bool,
    /// It has many receivers: it is charged once for all of them, however small it is.
    for_many: bool,
}

/// From so many receivers on a small message is charged once too.
const MANY: usize = 16;

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
            kept: false,
            for_many: false,
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
            qos: message.qos(),
            retain: false,
            publisher: 0,
            expiry,
            expires_at: message.expires_at(),
            source: None,
            scratch,
            ready: [None; LAYOUTS],
            message: Some(Arc::clone(message)),
            kept: false,
            for_many: false,
        }
    }

    /// It is about to be handed to so many receivers.
    pub fn meant_for(&mut self, receivers: usize) {
        self.for_many = receivers >= MANY;
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
        let for_many = self.for_many;
        let make = || {
            let message = Message::new(topic, payload, qos).with_properties(forwarded, expires_at);
            Arc::new(if for_many { message.shared() } else { message })
        };
        Arc::clone(self.message.get_or_insert_with(make))
    }

    /// The same for somebody who keeps it beyond the turn.
    pub fn keep(&mut self) -> Arc<Message> {
        self.kept = true;
        self.message()
    }

    /// Whether somebody keeps it beyond the turn.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// It is charged, if somebody keeps it beyond the turn.
    pub fn charge_to(&self, accounts: &Arc<Accounts>) {
        if self.kept
            && let Some(message) = &self.message
        {
            message.charge_to(accounts);
        }
    }

    /// The message that becomes the retained one: its receivers keep the same. With `source` 0 it is [`message`](Self::message).
    pub fn message_of(&mut self, source: u32) -> Arc<Message> {
        if source != 0 {
            let message = Message::new(self.topic, self.payload, self.qos).with_source(source);
            let message = message.with_properties(&self.scratch.forwarded, self.expires_at);
            self.message = Some(Arc::new(message));
        }
        self.message()
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
