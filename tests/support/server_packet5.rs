//! The packets a server may send under MQTT 5, read strictly: what `server_packet` asks for, and every rule for
//! properties and reason codes. Independent of the codec of the crate, on purpose.

use super::server_packet::{show, take_frame};
use super::wire5::id;
use std::fmt;

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of any width.
    Number(u32),
    /// A string.
    Text(String),
    /// Binary data.
    Binary(Vec<u8>),
    /// A user property.
    Pair(String, String),
}

/// Properties in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Identifier and value.
    pub list: Vec<(u8, Value)>,
    /// The section without its length.
    pub raw: Vec<u8>,
}

impl Properties {
    /// The number of a property, if it is there.
    pub fn number(&self, id: u8) -> Option<u32> {
        self.numbers(id).first().copied()
    }

    /// The numbers of a property that may come several times.
    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let values = self.list.iter().filter(|(known, _)| *known == id);
        values
            .filter_map(|(_, value)| if let Value::Number(number) = value { Some(*number) } else { None })
            .collect()
    }

    /// The string of a property, if it is there.
    pub fn text(&self, id: u8) -> Option<&str> {
        self.list.iter().find_map(|(known, value)| match value {
            Value::Text(text) if *known == id => Some(text.as_str()),
            _ => None,
        })
    }

    /// Whether it is there.
    pub fn has(&self, id: u8) -> bool {
        self.list.iter().any(|(known, _)| *known == id)
    }
}

/// A PUBLISH from the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Publish5 {
    /// DUP flag.
    pub dup: bool,
    /// QoS 0, 1 or 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name; empty on the wire if an alias stands for it, filled in by the client.
    pub topic: String,
    /// Packet id; present exactly for QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// All properties.
    pub properties: Properties,
    /// Application message.
    pub payload: Vec<u8>,
    /// Bytes of the whole packet.
    pub wire_len: usize,
    /// Whether the topic name itself was sent.
    pub named: bool,
}

impl fmt::Debug for Publish5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dup, qos, retain, topic, packet_id, properties, payload, .. } = self;
        let list = &properties.list;
        let payload = show(payload);
        write!(f, "PUBLISH dup {dup} qos {qos} retain {retain} {topic:?} id {packet_id:?} {list:?} {payload}")
    }
}

impl Publish5 {
    /// The packet id of a PUBLISH that must have one.
    #[track_caller]
    pub fn id(&self) -> u16 {
        self.packet_id.unwrap_or_else(|| panic!("no packet id in {self:?}"))
    }

    /// The identifiers of subscriptions, sorted: their order means nothing.
    pub fn subscription_ids(&self) -> Vec<u32> {
        let mut ids = self.properties.numbers(id::SUBSCRIPTION_ID);
        ids.sort_unstable();
        ids
    }

    /// The topic alias, if there is one.
    pub fn alias(&self) -> Option<u32> {
        self.properties.number(id::TOPIC_ALIAS)
    }

    /// What is left of the message expiry interval.
    pub fn expiry(&self) -> Option<u32> {
        self.properties.number(id::MESSAGE_EXPIRY)
    }

    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Any packet that a server may send under MQTT 5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPacket5 {
    /// Session present, reason code, properties.
    ConnAck(bool, u8, Properties),
    /// An application message.
    Publish(Publish5),
    /// Packet id and reason code.
    PubAck(u16, u8),
    /// Packet id and reason code.
    PubRec(u16, u8),
    /// Packet id and reason code.
    PubRel(u16, u8),
    /// Packet id and reason code.
    PubComp(u16, u8),
    /// Packet id and one reason code per filter.
    SubAck(u16, Vec<u8>),
    /// Packet id and one reason code per filter.
    UnsubAck(u16, Vec<u8>),
    /// Answers PINGREQ.
    PingResp,
    /// Reason code and properties.
    Disconnect(u8, Properties),
}

const CONNACK_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
const PUBACK_CODES: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const PUBREL_CODES: &[u8] = &[0x00, 0x92];
const SUBACK_CODES: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK_CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
/// Those of a server only: 0x04 is the client's.
const DISCONNECT_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
    0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

const CONNACK_PROPERTIES: &[u8] =
    &[0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2A];
const PUBLISH_PROPERTIES: &[u8] = &[0x01, 0x02, 0x03, 0x08, 0x09, 0x0B, 0x23, 0x26];
const ACK_PROPERTIES: &[u8] = &[0x1F, 0x26];
/// A server names no session expiry here [MQTT-3.14.2-2].
const DISCONNECT_PROPERTIES: &[u8] = &[0x1C, 0x1F, 0x26];

/// Takes the first whole packet off `received`; `None` when it is not complete yet.
#[track_caller]
pub fn take(received: &mut Vec<u8>) -> Option<(ServerPacket5, usize)> {
    let (bytes, header) = take_frame(received)?;
    let mut reader = Reader { rest: &bytes[header..], whole: &bytes };
    let packet = parse(bytes[0], &mut reader);
    assert!(reader.rest.is_empty(), "bytes left over: {}", show(&bytes));
    Some((packet, bytes.len()))
}

#[track_caller]
fn parse(first_byte: u8, reader: &mut Reader<'_>) -> ServerPacket5 {
    match first_byte {
        0x20 => {
            let flags = reader.byte();
            assert!(flags <= 1, "acknowledge flags: {}", show(reader.whole));
            let code = reader.code(CONNACK_CODES);
            assert!(flags == 0 || code == 0, "session present with an error: {}", show(reader.whole));
            ServerPacket5::ConnAck(flags == 1, code, reader.properties(CONNACK_PROPERTIES))
        }
        0x30..=0x3F => ServerPacket5::Publish(publish(first_byte, reader)),
        0x40 => reader.ack(PUBACK_CODES, ServerPacket5::PubAck),
        0x50 => reader.ack(PUBACK_CODES, ServerPacket5::PubRec),
        0x62 => reader.ack(PUBREL_CODES, ServerPacket5::PubRel),
        0x70 => reader.ack(PUBREL_CODES, ServerPacket5::PubComp),
        0x90 => {
            let id = reader.packet_id();
            reader.properties(ACK_PROPERTIES);
            ServerPacket5::SubAck(id, reader.codes(SUBACK_CODES))
        }
        0xB0 => {
            let id = reader.packet_id();
            reader.properties(ACK_PROPERTIES);
            ServerPacket5::UnsubAck(id, reader.codes(UNSUBACK_CODES))
        }
        0xD0 => ServerPacket5::PingResp,
        0xE0 => {
            // The short forms: no properties; nothing at all means 0x00.
            let code = if reader.rest.is_empty() { 0 } else { reader.code(DISCONNECT_CODES) };
            let empty = reader.rest.is_empty();
            let properties =
                if empty { Properties::default() } else { reader.properties(DISCONNECT_PROPERTIES) };
            ServerPacket5::Disconnect(code, properties)
        }
        _ => panic!("not a packet that this server may send: {}", show(reader.whole)),
    }
}

#[track_caller]
fn publish(first_byte: u8, reader: &mut Reader<'_>) -> Publish5 {
    let whole = reader.whole;
    let dup = first_byte & 0x08 != 0;
    let qos = (first_byte >> 1) & 3;
    assert!(qos < 3, "QoS 3: {}", show(whole));
    assert!(!(dup && qos == 0), "DUP at QoS 0: {}", show(whole));
    let topic = reader.string();
    assert!(!topic.contains(['+', '#', '\0']), "character not allowed in a topic name: {topic:?}");
    let packet_id = (qos > 0).then(|| reader.packet_id());
    let properties = reader.properties(PUBLISH_PROPERTIES);
    assert!(!topic.is_empty() || properties.has(id::TOPIC_ALIAS), "neither topic nor alias: {}", show(whole));
    let payload = std::mem::take(&mut reader.rest).to_vec();
    let (retain, named) = (first_byte & 1 != 0, !topic.is_empty());
    Publish5 { dup, qos, retain, topic, packet_id, properties, payload, wire_len: whole.len(), named }
}

struct Reader<'a> {
    rest: &'a [u8],
    whole: &'a [u8],
}

impl<'a> Reader<'a> {
    #[track_caller]
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        assert!(count <= self.rest.len(), "the packet ends too early: {}", show(self.whole));
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        bytes
    }

    #[track_caller]
    fn byte(&mut self) -> u8 {
        self.bytes(1)[0]
    }

    #[track_caller]
    fn number(&mut self, width: usize) -> u32 {
        self.bytes(width).iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
    }

    #[track_caller]
    fn variable(&mut self) -> u32 {
        let mut number = 0;
        for place in 0..4 {
            let digit = self.byte();
            number |= u32::from(digit & 0x7F) << (7 * place);
            if digit & 0x80 == 0 {
                assert!(digit != 0 || place == 0, "not in its shortest form: {}", show(self.whole));
                return number;
            }
        }
        panic!("variable byte integer of more than four bytes: {}", show(self.whole));
    }

    #[track_caller]
    fn binary(&mut self) -> Vec<u8> {
        let length = self.number(2) as usize;
        self.bytes(length).to_vec()
    }

    #[track_caller]
    fn string(&mut self) -> String {
        let text =
            String::from_utf8(self.binary()).unwrap_or_else(|_| panic!("not UTF-8: {}", show(self.whole)));
        assert!(!text.contains('\0'), "U+0000: {}", show(self.whole));
        text
    }

    #[track_caller]
    fn packet_id(&mut self) -> u16 {
        let id = self.number(2) as u16;
        assert!(id != 0, "packet id 0: {}", show(self.whole));
        id
    }

    #[track_caller]
    fn code(&mut self, allowed: &[u8]) -> u8 {
        let code = self.byte();
        assert!(allowed.contains(&code), "reason code {code:#04x} in {}", show(self.whole));
        code
    }

    #[track_caller]
    fn codes(&mut self, allowed: &[u8]) -> Vec<u8> {
        assert!(!self.rest.is_empty(), "no reason code: {}", show(self.whole));
        (0..self.rest.len()).map(|_| self.code(allowed)).collect()
    }

    #[track_caller]
    fn ack(&mut self, codes: &[u8], make: impl Fn(u16, u8) -> ServerPacket5) -> ServerPacket5 {
        let id = self.packet_id();
        let code = if self.rest.is_empty() { 0 } else { self.code(codes) };
        if !self.rest.is_empty() {
            self.properties(ACK_PROPERTIES);
        }
        make(id, code)
    }

    /// A section with its length: each property known, allowed here, within its range, and once unless it may repeat.
    #[track_caller]
    fn properties(&mut self, allowed: &[u8]) -> Properties {
        let length = self.variable() as usize;
        let raw = self.bytes(length);
        let mut reader = Reader { rest: raw, whole: self.whole };
        let mut list: Vec<(u8, Value)> = Vec::new();
        while !reader.rest.is_empty() {
            let property = reader.byte();
            assert!(allowed.contains(&property), "property {property:#04x} in {}", show(self.whole));
            let repeats = matches!(property, id::USER_PROPERTY | id::SUBSCRIPTION_ID);
            let known = list.iter().any(|(known, _)| *known == property);
            assert!(repeats || !known, "property {property:#04x} twice: {}", show(self.whole));
            let value = match property {
                0x01 | 0x24 | 0x25 | 0x28..=0x2A => Value::Number(reader.number(1)),
                0x13 | 0x21..=0x23 => Value::Number(reader.number(2)),
                0x02 | 0x11 | 0x27 => Value::Number(reader.number(4)),
                0x0B => Value::Number(reader.variable()),
                0x09 | 0x16 => Value::Binary(reader.binary()),
                0x26 => Value::Pair(reader.string(), reader.string()),
                _ => Value::Text(reader.string()),
            };
            if let Value::Number(number) = value {
                let in_range = match property {
                    0x01 | 0x24 | 0x25 | 0x28..=0x2A => number <= 1,
                    0x0B | 0x21 | 0x23 | 0x27 => number != 0,
                    _ => true,
                };
                assert!(in_range, "property {property:#04x} is {number}: {}", show(self.whole));
            }
            list.push((property, value));
        }
        Properties { list, raw: raw.to_vec() }
    }
}
