//! A message on its way: owned where it must outlive its publisher's read buffer, borrowed where it need not.
//!
//! [`Outgoing`] is one PUBLISH during its fan-out. Each wire layout of it is made at most once, whatever the number
//! of receivers: the publisher's own bytes are used again where the layout is the same, and an owned [`Message`] comes into
//! being only when a receiver must keep it (a queue, an unfinished delivery, the retained store).

use std::sync::Arc;

use crate::protocol::encode::{self, PublishHeader};
use crate::protocol::{PacketId, Publish, QoS};

/// Payloads above this many bytes are shared between receivers instead of copied into each one's output.
pub const SHARE_PAYLOAD_ABOVE: usize = 8 * 1024;

/// An application message that is kept: queued, unfinished, or retained (MQTT 3.1.1 section 1.2).
#[derive(Debug)]
pub struct Message {
    topic: Arc<str>,
    payload: Box<[u8]>,
    qos: QoS,
}

impl Message {
    /// A message with the QoS its publisher gave it. The topic must be a valid topic name.
    pub fn new(topic: Arc<str>, payload: Box<[u8]>, qos: QoS) -> Self {
        Self { topic, payload, qos }
    }

    /// The topic name.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The application payload.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The QoS of the publisher; a delivery may have a lower one.
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// What this message counts against a queue's bound in bytes: topic, payload and a fixed overhead.
    pub fn cost(&self) -> usize {
        message_cost(self.topic.len(), self.payload.len())
    }
}

/// Bytes a waiting message is charged with: its text and body, and what the broker spends on holding it.
pub(crate) fn message_cost(topic_len: usize, payload_len: usize) -> usize {
    const OVERHEAD: usize = 96;
    topic_len + payload_len + OVERHEAD
}

/// Buffers that outlive one [`Outgoing`], so that a fan-out allocates nothing.
#[derive(Debug, Default)]
pub struct EncodeScratch {
    with_id: Vec<u8>,
    without_id: Vec<u8>,
}

impl EncodeScratch {
    /// Gives memory back after an unusually large message.
    pub fn shrink(&mut self) {
        self.with_id.shrink_to(4 * SHARE_PAYLOAD_ABOVE);
        self.without_id.shrink_to(4 * SHARE_PAYLOAD_ABOVE);
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
    /// The publisher's packet, if its bytes may be sent on as they are.
    source: Option<WireImage<'a>>,
    source_has_id: bool,
    scratch: &'a mut EncodeScratch,
    with_id_offset: Option<usize>,
    without_id_ready: bool,
    message: Option<Arc<Message>>,
}

impl<'a> Outgoing<'a> {
    /// A PUBLISH as its publisher sent it.
    pub fn from_publish(publish: &Publish<'a>, scratch: &'a mut EncodeScratch) -> Self {
        let has_id = publish.qos != QoS::AtMostOnce;
        // 3.1.1 lets a client write the remaining length with more bytes than needed; we pass on only the shortest form.
        let shortest = encode::publish_len(publish.topic.len(), has_id, publish.payload.len());
        let source = (publish.wire.len() == shortest)
            .then_some(WireImage { bytes: publish.wire, packet_id_offset: publish.packet_id_offset });
        Self {
            topic: publish.topic,
            payload: publish.payload,
            qos: publish.qos,
            source,
            source_has_id: has_id,
            scratch,
            with_id_offset: None,
            without_id_ready: false,
            message: None,
        }
    }

    /// A message the broker holds already: a will, a retained message, one published in-process.
    pub fn from_message(message: &'a Arc<Message>, scratch: &'a mut EncodeScratch) -> Self {
        Self {
            topic: &message.topic,
            payload: &message.payload,
            qos: message.qos,
            source: None,
            source_has_id: false,
            scratch,
            with_id_offset: None,
            without_id_ready: false,
            message: Some(Arc::clone(message)),
        }
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

    /// Bytes charged for it in a queue.
    pub fn cost(&self) -> usize {
        message_cost(self.topic.len(), self.payload.len())
    }

    /// The owned message, made when first asked for.
    pub fn message(&mut self) -> Arc<Message> {
        let (topic, payload, qos) = (self.topic, self.payload, self.qos);
        Arc::clone(
            self.message
                .get_or_insert_with(|| Arc::new(Message::new(Arc::from(topic), Box::from(payload), qos))),
        )
    }

    /// The wire image with or without room for a packet id, encoded when first asked for.
    pub(super) fn image(&mut self, has_id: bool) -> WireImage<'_> {
        if let Some(source) = self.source
            && self.source_has_id == has_id
        {
            return source;
        }
        if has_id {
            let packet_id_offset = match self.with_id_offset {
                Some(offset) => offset,
                None => {
                    self.scratch.with_id.clear();
                    let header = self.header(QoS::AtLeastOnce);
                    let offset =
                        encode::publish_header(&mut self.scratch.with_id, &header, self.payload.len());
                    self.scratch.with_id.extend_from_slice(self.payload);
                    *self.with_id_offset.insert(offset)
                }
            };
            WireImage { bytes: &self.scratch.with_id, packet_id_offset }
        } else {
            if !self.without_id_ready {
                self.scratch.without_id.clear();
                let header = self.header(QoS::AtMostOnce);
                encode::publish_header(&mut self.scratch.without_id, &header, self.payload.len());
                self.scratch.without_id.extend_from_slice(self.payload);
                self.without_id_ready = true;
            }
            WireImage { bytes: &self.scratch.without_id, packet_id_offset: 0 }
        }
    }

    fn header(&self, qos: QoS) -> PublishHeader<'a> {
        PublishHeader {
            dup: false,
            qos,
            retain: false,
            topic: self.topic,
            // Patched for each receiver.
            packet_id: (qos != QoS::AtMostOnce).then_some(PacketId::MIN),
        }
    }
}
