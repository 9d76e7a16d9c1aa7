//! The packets of MQTT 3.1.1 as values, written and read without the codec of the broker.
//!
//! It writes what a client sends and reads what a server sends, one filter per SUBSCRIBE and UNSUBSCRIBE. Payloads are
//! text: all of ours are, and one that is not comes out as another text than was sent, which the checker reports.

use std::fmt;
use std::rc::Rc;

/// A control packet (section 2.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// To the server, first.
    Connect(Connect),
    /// The answer: session present, return code.
    ConnAck {
        /// Session present.
        present: bool,
        /// 0 is accepted.
        code: u8,
    },
    /// A message, either way.
    Publish(Publish),
    /// QoS 1: done.
    PubAck(u16),
    /// QoS 2: received.
    PubRec(u16),
    /// QoS 2: released.
    PubRel(u16),
    /// QoS 2: done.
    PubComp(u16),
    /// A subscription to one filter.
    Subscribe {
        /// Packet id.
        id: u16,
        /// Topic filter.
        filter: Rc<str>,
        /// QoS asked for.
        qos: u8,
    },
    /// The answer: QoS granted or 0x80.
    SubAck {
        /// Packet id.
        id: u16,
        /// QoS granted or 0x80.
        code: u8,
    },
    /// The end of a subscription.
    Unsubscribe {
        /// Packet id.
        id: u16,
        /// Topic filter.
        filter: Rc<str>,
    },
    /// The answer.
    UnsubAck(u16),
    /// A fence.
    PingReq,
    /// The answer.
    PingResp,
    /// The clean end: no will.
    Disconnect,
}

/// CONNECT without user name; keep alive is off, so that a busy machine ends no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Client identifier.
    pub client_id: Rc<str>,
    /// Clean session.
    pub clean: bool,
    /// What the broker is to publish if the connection ends otherwise than by DISCONNECT.
    pub will: Option<Will>,
}

/// The will of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Topic name.
    pub topic: Rc<str>,
    /// Message.
    pub payload: Rc<str>,
    /// 1 or 2.
    pub qos: u8,
    /// Whether it becomes the retained message of its topic.
    pub retain: bool,
}

/// PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// 0, 1 or 2.
    pub qos: u8,
    /// Perhaps sent before.
    pub dup: bool,
    /// Retain flag.
    pub retain: bool,
    /// Packet id; 0 at QoS 0.
    pub id: u16,
    /// Topic name.
    pub topic: Rc<str>,
    /// Message.
    pub payload: Rc<str>,
}

impl Packet {
    /// The bytes of a packet that a client sends; empty for one that only servers send.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        let first = match self {
            Self::Connect(connect) => {
                text(&mut body, "MQTT");
                let mut flags = u8::from(connect.clean) << 1;
                if let Some(will) = &connect.will {
                    flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
                }
                body.extend([4, flags, 0, 0]);
                text(&mut body, &connect.client_id);
                if let Some(will) = &connect.will {
                    text(&mut body, &will.topic);
                    text(&mut body, &will.payload);
                }
                0x10
            }
            Self::Publish(publish) => {
                text(&mut body, &publish.topic);
                if publish.qos > 0 {
                    body.extend(publish.id.to_be_bytes());
                }
                body.extend(publish.payload.as_bytes());
                0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
            }
            Self::PubAck(id) => with_id(&mut body, 0x40, *id),
            Self::PubRec(id) => with_id(&mut body, 0x50, *id),
            Self::PubRel(id) => with_id(&mut body, 0x62, *id),
            Self::PubComp(id) => with_id(&mut body, 0x70, *id),
            Self::Subscribe { id, filter, qos } => {
                body.extend(id.to_be_bytes());
                text(&mut body, filter);
                body.push(*qos);
                0x82
            }
            Self::Unsubscribe { id, filter } => {
                body.extend(id.to_be_bytes());
                text(&mut body, filter);
                0xA2
            }
            Self::PingReq => 0xC0,
            Self::Disconnect => 0xE0,
            Self::ConnAck { .. } | Self::SubAck { .. } | Self::UnsubAck(_) | Self::PingResp => return body,
        };
        let mut bytes = vec![first];
        let mut length = body.len();
        while length >= 0x80 {
            bytes.push((length & 0x7F) as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        bytes.append(&mut body);
        bytes
    }

    /// The first packet in `bytes` and its length; nothing while it is not complete.
    ///
    /// # Errors
    /// The bytes are no packet a server sends.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, String> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        let (mut length, mut header) = (0usize, 1);
        loop {
            let Some(&byte) = rest.get(header - 1) else { return Ok(None) };
            length |= usize::from(byte & 0x7F) << (7 * (header - 1));
            header += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if header > 4 {
                return Err("a remaining length of more than four bytes".to_owned());
            }
        }
        let Some(body) = bytes.get(header..header + length) else { return Ok(None) };
        match decode_body(first, body) {
            Some(packet) => Ok(Some((packet, header + length))),
            None => Err(format!("a packet that cannot be read: first byte {first:#04x}, body {body:?}")),
        }
    }
}

fn decode_body(first: u8, body: &[u8]) -> Option<Packet> {
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let has_length = |length: usize| (body.len() == length).then_some(());
    let packet = match first {
        0x20 => {
            has_length(2)?;
            Packet::ConnAck { present: *body.first()? == 1, code: *body.get(1)? }
        }
        0x30..=0x3F => {
            let qos = first >> 1 & 3;
            let end = 2 + usize::from(number(0)?);
            let topic = Rc::from(std::str::from_utf8(body.get(2..end)?).ok()?);
            let id = if qos > 0 { number(end)? } else { 0 };
            let payload = body.get(if qos > 0 { end + 2 } else { end }..)?;
            let payload = Rc::from(String::from_utf8_lossy(payload));
            Packet::Publish(Publish { qos, dup: first & 8 != 0, retain: first & 1 != 0, id, topic, payload })
        }
        0x90 => {
            has_length(3)?;
            Packet::SubAck { id: number(0)?, code: *body.get(2)? }
        }
        0xD0 => {
            has_length(0)?;
            Packet::PingResp
        }
        _ => {
            has_length(2)?;
            let kind = match first {
                0x40 => Packet::PubAck,
                0x50 => Packet::PubRec,
                0x62 => Packet::PubRel,
                0x70 => Packet::PubComp,
                0xB0 => Packet::UnsubAck,
                _ => return None,
            };
            kind(number(0)?)
        }
    };
    Some(packet)
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn with_id(body: &mut Vec<u8>, first: u8, id: u16) -> u8 {
    body.extend(id.to_be_bytes());
    first
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(Connect { clean, will, .. }) => {
                write!(f, "CONNECT{}", if *clean { " clean" } else { "" })?;
                let Some(will) = will else { return Ok(()) };
                let retain = if will.retain { " retain" } else { "" };
                write!(f, " will {} q{}{retain} \"{}\"", will.topic, will.qos, short(&will.payload))
            }
            Self::ConnAck { present, code } => {
                write!(f, "CONNACK session-present={} code={code}", u8::from(*present))
            }
            Self::Publish(Publish { qos, dup, retain, id, topic, payload }) => {
                let dup = if *dup { " DUP" } else { "" };
                let retain = if *retain { " RETAIN" } else { "" };
                write!(f, "PUBLISH id={id} q{qos}{dup}{retain} {topic} \"{}\"", short(payload))
            }
            Self::PubAck(id) => write!(f, "PUBACK {id}"),
            Self::PubRec(id) => write!(f, "PUBREC {id}"),
            Self::PubRel(id) => write!(f, "PUBREL {id}"),
            Self::PubComp(id) => write!(f, "PUBCOMP {id}"),
            Self::Subscribe { id, filter, qos } => write!(f, "SUBSCRIBE id={id} {filter} q{qos}"),
            Self::SubAck { id, code } => write!(f, "SUBACK id={id} code={code:#04x}"),
            Self::Unsubscribe { id, filter } => write!(f, "UNSUBSCRIBE id={id} {filter}"),
            Self::UnsubAck(id) => write!(f, "UNSUBACK {id}"),
            Self::PingReq => write!(f, "PINGREQ"),
            Self::PingResp => write!(f, "PINGRESP"),
            Self::Disconnect => write!(f, "DISCONNECT"),
        }
    }
}

/// What tells a payload apart, without its padding.
pub fn short(payload: &str) -> &str {
    payload.split(' ').next().unwrap_or(payload)
}

/// Whether a filter matches a topic name (section 4.7); the names here do not begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_published_is_read_back_from_any_prefix() {
        for (qos, length) in [(0, 0), (1, 64), (2, 300), (1, 20_000)] {
            let publish = Packet::Publish(Publish {
                qos,
                dup: qos == 2,
                retain: qos == 1,
                id: if qos > 0 { 513 } else { 0 },
                topic: "a/b".into(),
                payload: "x".repeat(length).into(),
            });
            let mut wire = publish.encode();
            for end in 0..wire.len() {
                assert_eq!(Packet::decode(&wire[..end]), Ok(None));
            }
            wire.push(0xD0);
            assert_eq!(Packet::decode(&wire), Ok(Some((publish, wire.len() - 1))));
        }
    }

    #[test]
    fn connect_with_will_as_the_standard_draws_it() {
        let will = Will { topic: "w".into(), payload: "x".into(), qos: 2, retain: true };
        let connect = Packet::Connect(Connect { client_id: "c".into(), clean: true, will: Some(will) });
        let expected =
            [&[16, 19, 0, 4][..], b"MQTT", &[4, 0x36, 0, 0, 0, 1], b"c", &[0, 1], b"w", &[0, 1], b"x"];
        assert_eq!(connect.encode(), expected.concat());
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert!(Packet::decode(&[0x10, 0]).is_err());
        assert!(Packet::decode(&[0x40, 3, 0, 1, 0]).is_err());
        assert!(Packet::decode(&[0x60, 2, 0, 1]).is_err());
        assert!(Packet::decode(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]).is_err());
    }

    #[test]
    fn filters() {
        for (filter, topic) in [("a/b", "a/b"), ("a/+", "a/b"), ("a/#", "a/b/c"), ("a/#", "a"), ("#", "a")] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [("a/b", "a"), ("a/+", "a/b/c"), ("a/+", "a"), ("b/#", "a/b"), ("a", "a/b")] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
