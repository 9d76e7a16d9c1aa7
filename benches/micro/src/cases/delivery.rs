//! A message into a session and its acknowledgement: without sockets, lock or router. A session that ends with its connection.

use std::hint::black_box;
use std::sync::Arc;

use super::{TOPIC, packet_id, publish_bytes};
use crate::protocol::ProtocolVersion::{self, V5, V311};
use crate::protocol::encode::AckKind::{self, PubAck, PubComp, PubRec};
use crate::protocol::{Framed, Packet, PacketId, QoS, ReasonCode, decode, frame};
use crate::session::{
    AckOutcome, Delivered, EncodeScratch, Granted, Outgoing, Session, SessionLimits, Terms, Timestamp,
};
use crate::{Case, Operation};

pub(crate) const CASES: &[Case] = &[
    Case::new("deliver_qos0_v311", 1_000, |_| delivering(V311, QoS::AtMostOnce, &[])),
    Case::new("deliver_and_ack_qos1_v311", 1_000, |_| delivering(V311, QoS::AtLeastOnce, &[PubAck])),
    Case::new("deliver_and_ack_qos2_v311", 1_000, |_| delivering(V311, QoS::ExactlyOnce, &[PubRec, PubComp])),
    Case::new("deliver_qos0_v5", 1_000, |_| delivering(V5, QoS::AtMostOnce, &[])),
    Case::new("deliver_and_ack_qos1_v5", 1_000, |_| delivering(V5, QoS::AtLeastOnce, &[PubAck])),
    Case::new("deliver_and_ack_qos2_v5", 1_000, |_| delivering(V5, QoS::ExactlyOnce, &[PubRec, PubComp])),
];

/// Messages between two writes of the output.
const RUN: u32 = 32;

/// The publisher's packet goes to one receiver; `acks` is what that answers, each at once.
fn delivering(version: ProtocolVersion, qos: QoS, acks: &'static [AckKind]) -> Box<dyn Operation> {
    let bytes = publish_bytes(version, qos, TOPIC, PacketId::MIN);
    let limits = Arc::new(SessionLimits {
        inflight_max: 64,
        queue_messages_max: 10_000,
        queue_bytes_max: 64_000_000,
        subscriptions_max: 1,
        subscription_bytes_max: 100,
    });
    let mut session = Session::new(limits, false);
    session.attach(Terms { version, ..Terms::V311 }, &[], None, false);
    let mut scratch = EncodeScratch::default();
    let mut spare = Vec::with_capacity(10_000);
    let mut count = 0;
    let now = Timestamp::from_millis(1_000);
    Box::new(move |times| {
        let Ok(Framed::Frame(frame)) = frame(&bytes, bytes.len(), version) else { panic!("no frame") };
        let Ok(Packet::Publish(publish)) = decode(&frame, version) else { panic!("no PUBLISH") };
        for _ in 0..times {
            let publish = black_box(&publish);
            let mut outgoing = Outgoing::from_publish(publish, publish.topic, version, 1, now, &mut scratch);
            session.out.lend(|| std::mem::take(&mut spare));
            let delivered = session.at(now).deliver(&mut outgoing, &Granted::with_qos(black_box(qos)));
            assert_eq!(delivered, Delivered::Sent);
            for kind in acks {
                let outcome = session.at(now).handle_ack(*kind, packet_id(count), ReasonCode::Success);
                assert_eq!(outcome, AckOutcome::Accepted);
            }
            count += 1;
            if count % RUN == 0 {
                let pending = session.out.pending();
                let output = session.out.take();
                black_box(output.first());
                spare = output.into_spare();
                session.output_written(pending);
            }
        }
    })
}
