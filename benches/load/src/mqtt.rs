//! The part of MQTT 3.1.1 a measuring client needs: it writes what clients send and reads what servers send.
//!
//! Not a validator: it reads what it needs and trusts the rest, so that it stays cheap. A packet that cannot be read
//! ends the run.

use crate::error::{Result, fault};

/// A packet from the server; topic and payload lie in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// CONNACK: whether a session was there, and the return code.
    Connack {
        /// Session present.
        present: bool,
        /// Zero is accepted.
        code: u8,
    },
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK.
    Puback(u16),
    /// PUBREC.
    Pubrec(u16),
    /// PUBREL.
    Pubrel(u16),
    /// PUBCOMP.
    Pubcomp(u16),
    /// SUBACK, true if no filter was refused.
    Suback(bool),
}

/// A message from the server.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Publish<'a> {
    /// 0, 1 or 2.
    pub qos: u8,
    /// Delivered before, perhaps.
    pub dup: bool,
    /// Stored earlier and sent because of a subscription.
    pub retain: bool,
    /// The topic name.
    pub topic: &'a [u8],
    /// Zero at QoS 0.
    pub packet_id: u16,
    /// The application's bytes.
    pub payload: &'a [u8],
}

/// The first whole packet in `buffer` and its length, or nothing while there is none.
pub fn decode(buffer: &[u8]) -> Result<Option<(Packet<'_>, usize)>> {
    let Some((&first, rest)) = buffer.split_first() else { return Ok(None) };
    let mut length = 0usize;
    let mut header = 1;
    loop {
        let Some(&byte) = rest.get(header - 1) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if header > 4 {
            return fault("a remaining length of more than four bytes");
        }
    }
    let total = header + length;
    let Some(body) = buffer.get(header..total) else { return Ok(None) };
    match packet(first, body) {
        Some(packet) => Ok(Some((packet, total))),
        None => fault(format!("a packet that cannot be read, first byte {first:#04x}, {length} bytes")),
    }
}

fn packet(first: u8, body: &[u8]) -> Option<Packet<'_>> {
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    Some(match first >> 4 {
        2 => Packet::Connack { present: body.first()? & 1 == 1, code: *body.get(1)? },
        3 => {
            let qos = first >> 1 & 3;
            let end = 2 + usize::from(number(0)?);
            let topic = body.get(2..end)?;
            let packet_id = if qos > 0 { number(end)? } else { 0 };
            let payload = body.get(end + if qos > 0 { 2 } else { 0 }..)?;
            Packet::Publish(Publish {
                qos,
                dup: first & 8 != 0,
                retain: first & 1 != 0,
                topic,
                packet_id,
                payload,
            })
        }
        4 => Packet::Puback(number(0)?),
        5 => Packet::Pubrec(number(0)?),
        6 => Packet::Pubrel(number(0)?),
        7 => Packet::Pubcomp(number(0)?),
        9 => Packet::Suback(body.get(2..)?.iter().all(|code| *code <= 2)),
        _ => return None,
    })
}

fn header(out: &mut Vec<u8>, first: u8, mut length: usize) {
    out.push(first);
    while length >= 0x80 {
        out.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// CONNECT without login and without keep-alive, so that long runs need no timers.
pub fn connect(out: &mut Vec<u8>, client_id: &str, clean_session: bool) {
    header(out, 0x10, 12 + client_id.len());
    text(out, "MQTT");
    out.extend_from_slice(&[4, u8::from(clean_session) << 1, 0, 0]);
    text(out, client_id);
}

/// SUBSCRIBE to all of `filters`.
pub fn subscribe(out: &mut Vec<u8>, packet_id: u16, filters: &[String], qos: u8) {
    header(out, 0x82, 2 + filters.iter().map(|filter| filter.len() + 3).sum::<usize>());
    out.extend_from_slice(&packet_id.to_be_bytes());
    for filter in filters {
        text(out, filter);
        out.push(qos);
    }
}

/// PUBLISH; `packet_id` is not written at QoS 0.
pub fn publish(out: &mut Vec<u8>, topic: &str, qos: u8, retain: bool, packet_id: u16, payload: &[u8]) {
    let id_bytes = if qos > 0 { 2 } else { 0 };
    header(out, 0x30 | qos << 1 | u8::from(retain), 2 + topic.len() + id_bytes + payload.len());
    text(out, topic);
    if qos > 0 {
        out.extend_from_slice(&packet_id.to_be_bytes());
    }
    out.extend_from_slice(payload);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte.
fn acknowledge(out: &mut Vec<u8>, first: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// PUBREL.
pub fn pubrel(out: &mut Vec<u8>, packet_id: u16) {
    acknowledge(out, 0x62, packet_id);
}

/// What a subscriber has to answer to `packet`, if anything.
pub fn answer(out: &mut Vec<u8>, packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) if publish.qos == 1 => acknowledge(out, 0x40, publish.packet_id),
        Packet::Publish(publish) if publish.qos == 2 => acknowledge(out, 0x50, publish.packet_id),
        Packet::Pubrel(packet_id) => acknowledge(out, 0x70, *packet_id),
        _ => {}
    }
}

/// DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_from_any_prefix() {
        for (qos, length) in [(0, 0), (1, 64), (2, 300), (0, 20_000)] {
            let payload = vec![7; length];
            let mut wire = Vec::new();
            publish(&mut wire, "a/b", qos, true, 513, &payload);
            for end in 0..wire.len() {
                assert!(decode(&wire[..end]).unwrap().is_none(), "{end} of {}", wire.len());
            }
            wire.push(0xd0);
            let (packet, total) = decode(&wire).unwrap().unwrap();
            assert_eq!(total, wire.len() - 1);
            let packet_id = if qos > 0 { 513 } else { 0 };
            let expected =
                Publish { qos, dup: false, retain: true, topic: b"a/b", packet_id, payload: &payload };
            assert_eq!(packet, Packet::Publish(expected));
        }
    }

    #[test]
    fn acknowledgements_answer_deliveries() {
        let delivery = |qos| {
            Packet::Publish(Publish {
                qos,
                dup: false,
                retain: false,
                topic: b"t",
                packet_id: 258,
                payload: b"",
            })
        };
        let mut out = Vec::new();
        for packet in [delivery(0), delivery(1), delivery(2), Packet::Pubrel(258), Packet::Puback(9)] {
            answer(&mut out, &packet);
        }
        assert_eq!(out, [0x40, 2, 1, 2, 0x50, 2, 1, 2, 0x70, 2, 1, 2]);
    }

    #[test]
    fn a_refused_filter_and_an_unreadable_packet_are_seen() {
        assert_eq!(decode(&[0x90, 4, 0, 1, 0, 0x80]).unwrap().unwrap().0, Packet::Suback(false));
        assert_eq!(decode(&[0x90, 4, 0, 1, 0, 2]).unwrap().unwrap().0, Packet::Suback(true));
        assert!(decode(&[0x10, 0]).is_err());
        assert!(decode(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
