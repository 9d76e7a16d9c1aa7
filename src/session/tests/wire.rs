//! What the scripts share: sessions with small limits, messages, and the output taken apart into packets.

use std::io::IoSlice;
use std::sync::Arc;

use crate::protocol::encode::{self, AckKind, ConnackProperties};
use crate::protocol::{
    Framed, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, decode, frame_from_server,
};
use crate::session::{
    AckOutcome, Delivered, EncodeScratch, Granted, Message, Outgoing, Output, Session, SessionLimits, Terms,
    Timestamp, Will,
};

/// A packet from the session to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent {
    ConnAck { session_present: bool },
    Publish(SentPublish),
    Ack(AckKind, u16),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16),
    PingResp,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct SentPublish {
    pub(super) dup: bool,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// 0 with QoS 0.
    pub(super) id: u16,
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
}

impl std::fmt::Debug for SentPublish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (dup, retain) = (if self.dup { " dup" } else { "" }, if self.retain { " retain" } else { "" });
        let payload = String::from_utf8_lossy(&self.payload[..self.payload.len().min(12)]);
        write!(f, "publish q{} #{}{dup}{retain} {}={payload}", self.qos as u8, self.id, self.topic)
    }
}

/// Takes apart bytes which must be whole packets.
pub(super) fn packets(mut bytes: &[u8]) -> Vec<Sent> {
    let mut sent = Vec::new();
    while !bytes.is_empty() {
        let Ok(Framed::Frame(frame)) = frame_from_server(bytes, usize::MAX, ProtocolVersion::V311) else {
            panic!("not a whole packet: {:02x?}", &bytes[..bytes.len().min(32)]);
        };
        sent.push(match (frame.packet_type(), frame.body()) {
            (2, [flags, 0]) => Sent::ConnAck { session_present: *flags == 1 },
            (9, [high, low, codes @ ..]) => Sent::SubAck(u16::from_be_bytes([*high, *low]), codes.to_vec()),
            (11, [high, low]) => Sent::UnsubAck(u16::from_be_bytes([*high, *low])),
            (13, []) => Sent::PingResp,
            _ => match decode(&frame, ProtocolVersion::V311).expect("a packet that may be sent both ways") {
                Packet::Publish(publish) => Sent::Publish(SentPublish {
                    dup: publish.dup,
                    qos: publish.qos,
                    retain: publish.retain,
                    id: publish.packet_id.map_or(0, PacketId::get),
                    topic: publish.topic.to_owned(),
                    payload: publish.payload.to_vec(),
                }),
                Packet::PubAck(ack) => Sent::Ack(AckKind::PubAck, ack.packet_id.get()),
                Packet::PubRec(ack) => Sent::Ack(AckKind::PubRec, ack.packet_id.get()),
                Packet::PubRel(ack) => Sent::Ack(AckKind::PubRel, ack.packet_id.get()),
                Packet::PubComp(ack) => Sent::Ack(AckKind::PubComp, ack.packet_id.get()),
                other => panic!("not for a server to send: {other:?}"),
            },
        });
        bytes = &bytes[frame.total()..];
    }
    sent
}

/// The unwritten bytes of `output`.
pub(super) fn bytes_of(output: &Output) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); 64];
    let used = output.slices(&mut slices);
    assert!(used < slices.len(), "more pieces than this helper looks at");
    slices[..used].iter().flat_map(|slice| slice.iter().copied()).collect()
}

/// Writes one take of output: what stands there now, not what comes after it.
pub(super) fn write_once(session: &mut Session) -> Vec<Sent> {
    let bytes = bytes_of(&session.out.take());
    session.output_written(bytes.len());
    packets(&bytes)
}

/// Writes until nothing is left.
pub(super) fn write_all(session: &mut Session) -> Vec<Sent> {
    let mut sent = Vec::new();
    while session.out.has_output() {
        sent.extend(write_once(session));
    }
    assert_eq!(session.out.pending(), 0);
    sent
}

pub(super) fn limits() -> SessionLimits {
    SessionLimits {
        inflight_max: 4,
        queue_messages_max: 5,
        queue_bytes_max: 100_000,
        subscriptions_max: 3,
        subscription_bytes_max: 1_000,
    }
}

pub(super) fn offline(limits: SessionLimits) -> Session {
    Session::new(Arc::new(limits), true)
}

/// A session that outlives its connection, attached, CONNACK written.
pub(super) fn connected(limits: SessionLimits) -> Session {
    let mut session = offline(limits);
    attach(&mut session);
    session
}

pub(super) fn attach(session: &mut Session) -> Vec<Sent> {
    attach_with(session, true, None);
    let mut sent = write_all(session);
    assert_eq!(sent.remove(0), Sent::ConnAck { session_present: true });
    sent
}

/// CONNACK is encoded by the broker.
pub(super) fn connack(version: ProtocolVersion, session_present: bool) -> Vec<u8> {
    let mut connack = Vec::new();
    let properties = ConnackProperties::default();
    assert!(encode::connack(&mut connack, version, session_present, ReasonCode::Success, &properties));
    connack
}

/// A client of MQTT 3.1.1 connects; nothing is written yet. Whether the session outlives the connection stays as it is.
pub(super) fn attach_with(session: &mut Session, session_present: bool, will: Option<Will>) {
    let connack = connack(ProtocolVersion::V311, session_present);
    session.attach(Terms::V311, &connack, will, session.outlives_connection());
}

/// An acknowledgement that says success.
pub(super) fn acknowledge(session: &mut Session, kind: AckKind, n: u16) -> AckOutcome {
    session.handle_ack(kind, id(n), ReasonCode::Success)
}

pub(super) fn message(payload: &[u8], qos: QoS) -> Arc<Message> {
    Arc::new(Message::new(Arc::from("t"), Box::from(payload), qos))
}

/// Delivers on topic `t` under a subscription of QoS 2.
pub(super) fn deliver(session: &mut Session, payload: &[u8], qos: QoS) -> Delivered {
    deliver_message(session, &message(payload, qos), QoS::ExactlyOnce)
}

pub(super) fn deliver_message(session: &mut Session, message: &Arc<Message>, granted: QoS) -> Delivered {
    let mut scratch = EncodeScratch::default();
    let mut outgoing = Outgoing::from_message(message, Timestamp::default(), &mut scratch);
    session.deliver(&mut outgoing, &Granted::with_qos(granted))
}

pub(super) fn deliver_retained(session: &mut Session, payload: &[u8], qos: QoS) -> Delivered {
    let mut scratch = EncodeScratch::default();
    let message = message(payload, qos);
    let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
    session.deliver_retained(&mut outgoing, &Granted { retain: true, ..Granted::with_qos(QoS::ExactlyOnce) })
}

pub(super) fn id(id: u16) -> PacketId {
    PacketId::new(id).expect("not 0")
}

/// A PUBLISH on topic `t`, sent for the first time.
pub(super) fn publish(qos: QoS, id: u16, payload: &[u8]) -> Sent {
    let topic = "t".to_owned();
    Sent::Publish(SentPublish { dup: false, qos, retain: false, id, topic, payload: payload.to_vec() })
}

/// The same, sent again.
pub(super) fn again(qos: QoS, id: u16, payload: &[u8]) -> Sent {
    let Sent::Publish(first) = publish(qos, id, payload) else { unreachable!() };
    Sent::Publish(SentPublish { dup: true, ..first })
}
