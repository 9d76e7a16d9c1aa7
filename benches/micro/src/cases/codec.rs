//! Bytes to packets and back: one packet with what its framing costs.

use std::hint::black_box;

use super::{PAYLOAD, TOPIC, publish_bytes};
use crate::protocol::ProtocolVersion::{self, V5, V311};
use crate::protocol::encode::{self, AckKind, PublishHeader, PublishPropertiesOut};
use crate::protocol::{Framed, PacketId, QoS, ReasonCode, SubscribeOptions, decode, frame};
use crate::{Case, Operation};

const PACKET_BYTES_MAX: usize = 16_000_000;
const ID: PacketId = PacketId::MIN;

pub(crate) const CASES: &[Case] = &[
    Case::new("decode_publish_qos0_v311", 1_000, |_| decoding(V311, publish(V311, QoS::AtMostOnce))),
    Case::new("decode_publish_qos1_v311", 1_000, |_| decoding(V311, publish(V311, QoS::AtLeastOnce))),
    Case::new("decode_publish_qos2_v311", 1_000, |_| decoding(V311, publish(V311, QoS::ExactlyOnce))),
    Case::new("decode_puback_v311", 1_000, |_| decoding(V311, ack(V311, AckKind::PubAck))),
    Case::new("decode_pubrec_v311", 1_000, |_| decoding(V311, ack(V311, AckKind::PubRec))),
    Case::new("decode_pubrel_v311", 1_000, |_| decoding(V311, ack(V311, AckKind::PubRel))),
    Case::new("decode_pubcomp_v311", 1_000, |_| decoding(V311, ack(V311, AckKind::PubComp))),
    Case::new("decode_subscribe_v311", 1_000, |_| decoding(V311, made(|out| subscribe(out, V311)))),
    Case::new("decode_pingreq_v311", 1_000, |_| decoding(V311, made(encode::pingreq))),
    Case::new("decode_publish_qos0_v5", 1_000, |_| decoding(V5, publish(V5, QoS::AtMostOnce))),
    Case::new("decode_publish_qos1_v5", 1_000, |_| decoding(V5, publish(V5, QoS::AtLeastOnce))),
    Case::new("decode_publish_qos2_v5", 1_000, |_| decoding(V5, publish(V5, QoS::ExactlyOnce))),
    Case::new("decode_puback_v5", 1_000, |_| decoding(V5, ack(V5, AckKind::PubAck))),
    Case::new("decode_pubrec_v5", 1_000, |_| decoding(V5, ack(V5, AckKind::PubRec))),
    Case::new("decode_pubrel_v5", 1_000, |_| decoding(V5, ack(V5, AckKind::PubRel))),
    Case::new("decode_pubcomp_v5", 1_000, |_| decoding(V5, ack(V5, AckKind::PubComp))),
    Case::new("decode_subscribe_v5", 1_000, |_| decoding(V5, made(|out| subscribe(out, V5)))),
    Case::new("decode_pingreq_v5", 1_000, |_| decoding(V5, made(encode::pingreq))),
    Case::new("encode_publish_qos0_v311", 1_000, |_| {
        encoding(V311, |out, v| put_publish(out, v, QoS::AtMostOnce))
    }),
    Case::new("encode_publish_qos1_v311", 1_000, |_| {
        encoding(V311, |out, v| put_publish(out, v, QoS::AtLeastOnce))
    }),
    Case::new("encode_publish_qos2_v311", 1_000, |_| {
        encoding(V311, |out, v| put_publish(out, v, QoS::ExactlyOnce))
    }),
    Case::new("encode_puback_v311", 1_000, |_| encoding(V311, |out, v| put_ack(out, v, AckKind::PubAck))),
    Case::new("encode_pubrec_v311", 1_000, |_| encoding(V311, |out, v| put_ack(out, v, AckKind::PubRec))),
    Case::new("encode_pubrel_v311", 1_000, |_| encoding(V311, |out, v| put_ack(out, v, AckKind::PubRel))),
    Case::new("encode_pubcomp_v311", 1_000, |_| encoding(V311, |out, v| put_ack(out, v, AckKind::PubComp))),
    Case::new("encode_subscribe_v311", 1_000, |_| encoding(V311, subscribe)),
    Case::new("encode_suback_v311", 1_000, |_| encoding(V311, put_suback)),
    Case::new("encode_pingreq", 1_000, |_| encoding(V311, |out, _| encode::pingreq(out))),
    Case::new("encode_pingresp", 1_000, |_| encoding(V311, |out, _| encode::pingresp(out))),
    Case::new("encode_publish_qos0_v5", 1_000, |_| {
        encoding(V5, |out, v| put_publish(out, v, QoS::AtMostOnce))
    }),
    Case::new("encode_publish_qos1_v5", 1_000, |_| {
        encoding(V5, |out, v| put_publish(out, v, QoS::AtLeastOnce))
    }),
    Case::new("encode_publish_qos2_v5", 1_000, |_| {
        encoding(V5, |out, v| put_publish(out, v, QoS::ExactlyOnce))
    }),
    Case::new("encode_puback_v5", 1_000, |_| encoding(V5, |out, v| put_ack(out, v, AckKind::PubAck))),
    Case::new("encode_pubrec_v5", 1_000, |_| encoding(V5, |out, v| put_ack(out, v, AckKind::PubRec))),
    Case::new("encode_pubrel_v5", 1_000, |_| encoding(V5, |out, v| put_ack(out, v, AckKind::PubRel))),
    Case::new("encode_pubcomp_v5", 1_000, |_| encoding(V5, |out, v| put_ack(out, v, AckKind::PubComp))),
    Case::new("encode_subscribe_v5", 1_000, |_| encoding(V5, subscribe)),
    Case::new("encode_suback_v5", 1_000, |_| encoding(V5, put_suback)),
];

fn made(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out);
    out
}

fn publish(version: ProtocolVersion, qos: QoS) -> Vec<u8> {
    publish_bytes(version, qos, TOPIC, ID)
}

fn ack(version: ProtocolVersion, kind: AckKind) -> Vec<u8> {
    made(|out| put_ack(out, version, kind))
}

fn put_ack(out: &mut Vec<u8>, version: ProtocolVersion, kind: AckKind) {
    encode::acknowledge(out, version, black_box(kind), black_box(ID), ReasonCode::Success);
}

fn put_publish(out: &mut Vec<u8>, version: ProtocolVersion, qos: QoS) {
    let packet_id = (qos != QoS::AtMostOnce).then_some(ID);
    let header = PublishHeader { dup: false, qos, retain: false, topic: black_box(TOPIC), packet_id };
    encode::publish(out, version, black_box(&header), &PublishPropertiesOut::NONE, black_box(&PAYLOAD));
}

fn subscribe(out: &mut Vec<u8>, version: ProtocolVersion) {
    let options = SubscribeOptions::with_qos(QoS::AtLeastOnce);
    encode::subscribe(
        out,
        version,
        ID,
        None,
        &[(black_box(TOPIC), options), ("site/7/device/+/alarm", options)],
    );
}

fn put_suback(out: &mut Vec<u8>, version: ProtocolVersion) {
    let codes = [ReasonCode::granted(QoS::AtLeastOnce), ReasonCode::granted(QoS::AtMostOnce)];
    encode::suback(out, version, black_box(ID), black_box(&codes));
}

/// Frame and packet of these bytes, which are one packet.
fn decoding(version: ProtocolVersion, bytes: Vec<u8>) -> Box<dyn Operation> {
    Box::new(move |times| {
        for _ in 0..times {
            let version = black_box(version);
            let Ok(Framed::Frame(frame)) = frame(black_box(&bytes), PACKET_BYTES_MAX, version) else {
                panic!("no frame")
            };
            let decoded = decode(&frame, version);
            assert!(black_box(&decoded).is_ok());
        }
    })
}

/// What `put` appends, into a buffer that has the room.
fn encoding(
    version: ProtocolVersion,
    put: impl Fn(&mut Vec<u8>, ProtocolVersion) + 'static,
) -> Box<dyn Operation> {
    let mut out = Vec::with_capacity(1_000);
    Box::new(move |times| {
        for _ in 0..times {
            out.clear();
            put(&mut out, black_box(version));
            black_box(&out);
        }
    })
}
