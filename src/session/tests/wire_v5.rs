//! The same for MQTT 5: output taken apart by hand, so that not the codec judges itself.

use std::sync::Arc;

use super::wire::{bytes_of, connack};
use crate::protocol::{ProtocolVersion, QoS};
use crate::session::{Message, Session, Terms, Timestamp};

/// Of a client of MQTT 5 which sets no bound.
pub(super) const V5: Terms = Terms { version: ProtocolVersion::V5, ..Terms::V311 };

/// A PUBLISH of MQTT 5.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Publish5 {
    pub(super) first_byte: u8,
    pub(super) topic: String,
    /// 0 with QoS 0.
    pub(super) id: u16,
    pub(super) expiry: Option<u32>,
    pub(super) alias: Option<u16>,
    pub(super) subscription_ids: Vec<u32>,
    /// The other properties as they stand there.
    pub(super) others: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sent5 {
    Publish(Publish5),
    Other(Vec<u8>),
}

/// A PUBLISH on topic `t` without properties, sent for the first time.
pub(super) fn plain(qos: QoS, id: u16, payload: &[u8]) -> Sent5 {
    Sent5::Publish(Publish5 {
        first_byte: 0x30 | (qos as u8) << 1,
        topic: "t".to_owned(),
        id,
        payload: payload.to_vec(),
        ..Publish5::default()
    })
}

/// The same with DUP.
pub(super) fn plain_again(qos: QoS, id: u16, payload: &[u8]) -> Sent5 {
    let Sent5::Publish(first) = plain(qos, id, payload) else { unreachable!() };
    Sent5::Publish(Publish5 { first_byte: first.first_byte | 8, ..first })
}

pub(super) fn attach_v5(session: &mut Session, terms: Terms) -> Vec<Sent5> {
    attach_v5_at(session, terms, Timestamp::default())
}

/// What comes behind CONNACK.
pub(super) fn attach_v5_at(session: &mut Session, terms: Terms, now: Timestamp) -> Vec<Sent5> {
    let connack = connack(ProtocolVersion::V5, true);
    let outlives = session.outlives_connection();
    session.at(now).attach(terms, &connack, None, outlives);
    let mut sent = write_v5(session);
    assert_eq!(sent.remove(0), Sent5::Other(connack));
    sent
}

/// Writes until nothing is left.
pub(super) fn write_v5(session: &mut Session) -> Vec<Sent5> {
    let mut sent = Vec::new();
    while session.out.has_output() {
        let bytes = bytes_of(&session.out.take());
        session.output_written(bytes.len());
        sent.extend(packets_v5(&bytes));
    }
    sent
}

/// The PUBLISH packets among `sent`.
pub(super) fn publishes(sent: &[Sent5]) -> Vec<&Publish5> {
    sent.iter()
        .filter_map(|sent| if let Sent5::Publish(publish) = sent { Some(publish) } else { None })
        .collect()
}

fn variable(bytes: &[u8]) -> (usize, &[u8]) {
    let len = bytes.iter().position(|byte| *byte < 0x80).expect("an end") + 1;
    let value = bytes[..len].iter().rev().fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f));
    assert!(len == 1 || bytes[len - 1] != 0, "not the shortest form: {:02x?}", &bytes[..len]);
    (value, &bytes[len..])
}

fn two_bytes(bytes: &[u8]) -> (u16, &[u8]) {
    (u16::from_be_bytes([bytes[0], bytes[1]]), &bytes[2..])
}

pub(super) fn packets_v5(mut bytes: &[u8]) -> Vec<Sent5> {
    let mut sent = Vec::new();
    while !bytes.is_empty() {
        let (remaining, rest) = variable(&bytes[1..]);
        let (body, next) = rest.split_at(remaining);
        let packet = &bytes[..bytes.len() - next.len()];
        sent.push(match packet[0] >> 4 {
            3 => Sent5::Publish(publish(packet[0], body)),
            _ => Sent5::Other(packet.to_vec()),
        });
        bytes = next;
    }
    sent
}

fn publish(first_byte: u8, body: &[u8]) -> Publish5 {
    let (len, rest) = two_bytes(body);
    let (topic, mut rest) = rest.split_at(len.into());
    let mut id = 0;
    if first_byte & 6 != 0 {
        (id, rest) = two_bytes(rest);
        assert_ne!(id, 0);
    }
    let (len, rest) = variable(rest);
    let (mut section, payload) = rest.split_at(len);
    let topic = String::from_utf8(topic.to_vec()).expect("UTF-8");
    let mut publish = Publish5 { first_byte, topic, id, payload: payload.to_vec(), ..Publish5::default() };
    while let [property, rest @ ..] = section {
        section = match property {
            0x02 => {
                let (high, rest) = two_bytes(rest);
                let (low, rest) = two_bytes(rest);
                assert_eq!(publish.expiry.replace(u32::from(high) << 16 | u32::from(low)), None);
                rest
            }
            0x23 => {
                let (alias, rest) = two_bytes(rest);
                assert_eq!(publish.alias.replace(alias), None);
                rest
            }
            0x0b => {
                let (id, rest) = variable(rest);
                publish.subscription_ids.push(id as u32);
                rest
            }
            _ => {
                publish.others = section.to_vec();
                break;
            }
        };
    }
    publish
}

/// A content type, "x", and a user property: what is passed on.
pub(super) const FORWARDED: [u8; 11] = [0x03, 0, 1, b'x', 0x26, 0, 1, b'k', 0, 1, b'v'];

/// A message on topic `t` with properties.
pub(super) fn message_v5(payload: &[u8], qos: QoS, expires_at: Option<Timestamp>) -> Arc<Message> {
    let message = Message::new(Arc::from("t"), Box::from(payload), qos);
    Arc::new(message.with_properties(&FORWARDED, expires_at))
}
