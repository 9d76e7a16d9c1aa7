//! The part of MQTT 3.1.1 and 5 a measuring client needs: it writes what clients send and reads what servers send.
//!
//! Not a validator: it reads what it needs and trusts the rest, so that it stays cheap. A packet that cannot be read
//! ends the run, and so does a reason code of MQTT 5 that stands for a failure. Of version 5 it writes no property
//! but the expiry of a session that has to outlive its connection.

use crate::error::{Result, fault};

/// Which MQTT is spoken; the same on all connections of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// 3.1.1.
    #[default]
    V3,
    /// 5.
    V5,
}

/// Packets on their way to the server.
#[derive(Debug, Default)]
pub struct Output {
    /// What is to be sent.
    pub bytes: Vec<u8>,
    version: Version,
}

impl Output {
    /// Nothing yet, of this version.
    pub fn new(version: Version) -> Self {
        Self { bytes: Vec::new(), version }
    }

    fn is_v5(&self) -> bool {
        self.version == Version::V5
    }

    fn header(&mut self, first: u8, mut length: usize) {
        self.bytes.push(first);
        while length >= 0x80 {
            self.bytes.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        self.bytes.push(length as u8);
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// The length of an empty list of properties, which only version 5 has.
    fn no_properties(&mut self) {
        if self.is_v5() {
            self.bytes.push(0);
        }
    }
}

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
    /// UNSUBACK.
    Unsuback,
    /// PINGRESP.
    Pingresp,
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

/// Seconds that a session of version 5 outlives its connection, where it has to.
const SESSION_EXPIRY: u32 = 86_400;
const SESSION_EXPIRY_ID: u8 = 0x11;
const RECEIVE_MAXIMUM_ID: u8 = 0x21;
const MESSAGE_EXPIRY_ID: u8 = 0x02;
/// Reason codes from here on are failures.
const FAILURE: u8 = 0x80;

/// The length of the first packet in `buffer` and where its body begins; nothing while the header is not whole.
///
/// # Errors
/// A length of more than four bytes.
pub fn frame(buffer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(rest) = buffer.get(1..) else { return Ok(None) };
    match variable_integer(rest)? {
        Some((length, bytes)) => Ok(Some((1 + bytes + length, 1 + bytes))),
        None => Ok(None),
    }
}

/// A number of one to four bytes, and how many they are.
fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let mut number = 0usize;
    for (place, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some((number, place + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { fault("a length of more than four bytes") }
}

/// The first whole packet in `buffer` and its length, or nothing while there is none.
pub fn decode(buffer: &[u8], version: Version) -> Result<Option<(Packet<'_>, usize)>> {
    let Some((total, start)) = frame(buffer)? else { return Ok(None) };
    let Some(body) = buffer.get(start..total) else { return Ok(None) };
    let Some(&first) = buffer.first() else { return Ok(None) };
    if first == DISCONNECT {
        return fault(format!("DISCONNECT from the broker, reason {:#04x}", body.first().unwrap_or(&0)));
    }
    match packet(first, body, version) {
        Some(packet) => Ok(Some((packet, total))),
        None => fault(format!(
            "a packet that cannot be read or says failure, first byte {first:#04x}, {} bytes, begins {:02x?}",
            body.len(),
            &body[..body.len().min(4)]
        )),
    }
}

fn packet(first: u8, body: &[u8], version: Version) -> Option<Packet<'_>> {
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    // Only version 5 has a third byte here.
    let acknowledged = || number(0).filter(|_| body.get(2).is_none_or(|reason| *reason < FAILURE));
    let after_properties = |at: usize| match version {
        Version::V3 => Some(at),
        Version::V5 => {
            let (length, bytes) = variable_integer(body.get(at..)?).ok()??;
            Some(at + bytes + length)
        }
    };
    Some(match first >> 4 {
        2 => Packet::Connack { present: body.first()? & 1 == 1, code: *body.get(1)? },
        3 => {
            let qos = first >> 1 & 3;
            let end = 2 + usize::from(number(0)?);
            let topic = body.get(2..end)?;
            let packet_id = if qos > 0 { number(end)? } else { 0 };
            let payload = body.get(after_properties(end + if qos > 0 { 2 } else { 0 })?..)?;
            Packet::Publish(Publish {
                qos,
                dup: first & 8 != 0,
                retain: first & 1 != 0,
                topic,
                packet_id,
                payload,
            })
        }
        4 => Packet::Puback(acknowledged()?),
        5 => Packet::Pubrec(acknowledged()?),
        6 => Packet::Pubrel(acknowledged()?),
        7 => Packet::Pubcomp(acknowledged()?),
        9 => Packet::Suback(body.get(after_properties(2)?..)?.iter().all(|code| *code <= 2)),
        11 => Packet::Unsuback,
        13 => Packet::Pingresp,
        _ => return None,
    })
}

const DISCONNECT: u8 = 0xe0;

/// Seconds: longer than any run, so that nobody has to ping, and not zero, which some brokers refuse.
const KEEP_ALIVE: u16 = 3_600;

/// What a CONNECT of version 5 asks for beside an identifier.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes {
    /// No session from before.
    pub clean_start: bool,
    /// Seconds the session outlives its connection.
    pub expiry: u32,
    /// Unacknowledged deliveries, if not as many as the broker likes.
    pub receive_maximum: Option<u16>,
}

/// CONNECT of version 5 without login.
pub fn connect_v5(out: &mut Output, client_id: &str, wishes: Wishes) {
    let mut properties = vec![SESSION_EXPIRY_ID];
    properties.extend(wishes.expiry.to_be_bytes());
    if let Some(receive_maximum) = wishes.receive_maximum {
        properties.push(RECEIVE_MAXIMUM_ID);
        properties.extend(receive_maximum.to_be_bytes());
    }
    out.header(0x10, 13 + properties.len() + client_id.len());
    out.text("MQTT");
    out.bytes.extend_from_slice(&[5, u8::from(wishes.clean_start) << 1]);
    out.bytes.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    out.bytes.push(properties.len() as u8);
    out.bytes.extend(properties);
    out.text(client_id);
}

/// UNSUBSCRIBE from all of `filters`.
pub fn unsubscribe(out: &mut Output, packet_id: u16, filters: &[String]) {
    let fixed = 2 + usize::from(out.is_v5());
    out.header(0xa2, fixed + filters.iter().map(|filter| filter.len() + 2).sum::<usize>());
    out.bytes.extend_from_slice(&packet_id.to_be_bytes());
    out.no_properties();
    for filter in filters {
        out.text(filter);
    }
}

/// PUBLISH of version 5 at QoS 1 that is to be forgotten after so many seconds.
pub fn publish_expiring(out: &mut Output, topic: &str, packet_id: u16, seconds: u32, payload: &[u8]) {
    out.header(0x32, 2 + topic.len() + 2 + 6 + payload.len());
    out.text(topic);
    out.bytes.extend_from_slice(&packet_id.to_be_bytes());
    out.bytes.extend_from_slice(&[5, MESSAGE_EXPIRY_ID]);
    out.bytes.extend_from_slice(&seconds.to_be_bytes());
    out.bytes.extend_from_slice(payload);
}

/// PINGREQ.
pub fn ping(out: &mut Output) {
    out.bytes.extend_from_slice(&[0xc0, 0]);
}

/// CONNECT without login.
pub fn connect(out: &mut Output, client_id: &str, clean_session: bool) {
    let (level, properties) = match out.version {
        Version::V3 => (4, 0),
        Version::V5 => (5, if clean_session { 1 } else { 6 }),
    };
    out.header(0x10, 12 + properties + client_id.len());
    out.text("MQTT");
    out.bytes.extend_from_slice(&[level, u8::from(clean_session) << 1]);
    out.bytes.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    if out.is_v5() && !clean_session {
        out.bytes.extend_from_slice(&[5, SESSION_EXPIRY_ID]);
        out.bytes.extend_from_slice(&SESSION_EXPIRY.to_be_bytes());
    } else {
        out.no_properties();
    }
    out.text(client_id);
}

/// SUBSCRIBE to all of `filters`.
pub fn subscribe(out: &mut Output, packet_id: u16, filters: &[String], qos: u8) {
    let fixed = 2 + usize::from(out.is_v5());
    out.header(0x82, fixed + filters.iter().map(|filter| filter.len() + 3).sum::<usize>());
    out.bytes.extend_from_slice(&packet_id.to_be_bytes());
    out.no_properties();
    for filter in filters {
        out.text(filter);
        out.bytes.push(qos);
    }
}

/// PUBLISH; `packet_id` is not written at QoS 0.
pub fn publish(out: &mut Output, topic: &str, qos: u8, retain: bool, packet_id: u16, payload: &[u8]) {
    let fixed = 2 + if qos > 0 { 2 } else { 0 } + usize::from(out.is_v5());
    out.header(0x30 | qos << 1 | u8::from(retain), fixed + topic.len() + payload.len());
    out.text(topic);
    if qos > 0 {
        out.bytes.extend_from_slice(&packet_id.to_be_bytes());
    }
    out.no_properties();
    out.bytes.extend_from_slice(payload);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP by its first byte.
fn acknowledge(out: &mut Output, first: u8, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.bytes.extend_from_slice(&[first, 2, high, low]);
}

/// PUBREL.
pub fn pubrel(out: &mut Output, packet_id: u16) {
    acknowledge(out, 0x62, packet_id);
}

/// What a subscriber has to answer to `packet`, if anything.
pub fn answer(out: &mut Output, packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) if publish.qos == 1 => acknowledge(out, 0x40, publish.packet_id),
        Packet::Publish(publish) if publish.qos == 2 => acknowledge(out, 0x50, publish.packet_id),
        Packet::Pubrel(packet_id) => acknowledge(out, 0x70, *packet_id),
        _ => {}
    }
}

/// DISCONNECT.
pub fn disconnect(out: &mut Output) {
    out.bytes.extend_from_slice(&[DISCONNECT, 0]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_from_any_prefix() {
        for version in [Version::V3, Version::V5] {
            for (qos, length) in [(0, 0), (1, 64), (2, 300), (0, 20_000)] {
                let payload = vec![7; length];
                let mut out = Output::new(version);
                publish(&mut out, "a/b", qos, true, 513, &payload);
                let mut wire = out.bytes;
                for end in 0..wire.len() {
                    assert!(decode(&wire[..end], version).unwrap().is_none(), "{end} of {}", wire.len());
                }
                wire.push(0xd0);
                let (packet, total) = decode(&wire, version).unwrap().unwrap();
                assert_eq!(total, wire.len() - 1);
                let packet_id = if qos > 0 { 513 } else { 0 };
                let expected =
                    Publish { qos, dup: false, retain: true, topic: b"a/b", packet_id, payload: &payload };
                assert_eq!(packet, Packet::Publish(expected));
            }
        }
    }

    #[test]
    fn clients_of_version_5_say_what_the_standard_asks_for() {
        let mut out = Output::new(Version::V5);
        connect(&mut out, "c", true);
        connect(&mut out, "c", false);
        subscribe(&mut out, 7, &["t".to_owned()], 1);
        let clean = b"\x10\x0e\0\x04MQTT\x05\x02\x0e\x10\0\0\x01c";
        let kept = b"\x10\x13\0\x04MQTT\x05\0\x0e\x10\x05\x11\0\x01\x51\x80\0\x01c";
        let subscribe = b"\x82\x07\0\x07\0\0\x01t\x01";
        assert_eq!(out.bytes, [clean.as_slice(), kept, subscribe].concat());
    }

    #[test]
    fn wishes_are_written_as_properties() {
        let mut out = Output::new(Version::V5);
        connect_v5(&mut out, "c", Wishes { clean_start: true, expiry: 2, receive_maximum: Some(1) });
        publish_expiring(&mut out, "t", 7, 1, b"x");
        unsubscribe(&mut out, 8, &["a".to_owned()]);
        let connect = b"\x10\x16\0\x04MQTT\x05\x02\x0e\x10\x08\x11\0\0\0\x02\x21\0\x01\0\x01c";
        let publish = b"\x32\x0c\0\x01t\0\x07\x05\x02\0\0\0\x01x";
        assert_eq!(out.bytes, [connect.as_slice(), publish, b"\xa2\x06\0\x08\0\0\x01a"].concat());
    }

    #[test]
    fn properties_are_passed_over_and_failures_are_seen() {
        let delivery = b"\x30\x0a\0\x01t\x05\x02\0\0\0\x02x";
        let (Packet::Publish(publish), 12) = decode(delivery, Version::V5).unwrap().unwrap() else {
            panic!("not the delivery");
        };
        assert_eq!((publish.topic, publish.payload), (b"t".as_slice(), b"x".as_slice()));
        let granted = decode(&[0x90, 4, 0, 1, 0, 2], Version::V5).unwrap().unwrap().0;
        assert_eq!(granted, Packet::Suback(true));
        let refused = decode(&[0x90, 4, 0, 1, 0, 0x97], Version::V5).unwrap().unwrap().0;
        assert_eq!(refused, Packet::Suback(false));
        assert_eq!(decode(&[0x40, 3, 0, 9, 0x10], Version::V5).unwrap().unwrap().0, Packet::Puback(9));
        assert!(decode(&[0x40, 3, 0, 9, 0x97], Version::V5).is_err(), "quota exceeded");
        assert!(decode(&[0xe0, 1, 0x8e], Version::V5).is_err(), "taken over");
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
        let mut out = Output::default();
        for packet in [delivery(0), delivery(1), delivery(2), Packet::Pubrel(258), Packet::Puback(9)] {
            answer(&mut out, &packet);
        }
        assert_eq!(out.bytes, [0x40, 2, 1, 2, 0x50, 2, 1, 2, 0x70, 2, 1, 2]);
    }

    #[test]
    fn a_refused_filter_and_an_unreadable_packet_are_seen() {
        let decode = |bytes: &'static [u8]| decode(bytes, Version::V3);
        assert_eq!(decode(&[0x90, 4, 0, 1, 0, 0x80]).unwrap().unwrap().0, Packet::Suback(false));
        assert_eq!(decode(&[0x90, 4, 0, 1, 0, 2]).unwrap().unwrap().0, Packet::Suback(true));
        assert!(decode(&[0x10, 0]).is_err());
        assert!(decode(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).is_err());
    }
}
