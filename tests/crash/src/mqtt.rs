//! The packets of MQTT 3.1.1 and, as far as sessions with an expiry need it, MQTT 5 as values,
//! written and read without the codec of the broker.
//!
//! It writes what a client sends and reads what a server sends, one filter per SUBSCRIBE and UNSUBSCRIBE. Payloads are
//! text: all of ours are, and one that is not comes out as another text than was sent, which the checker reports.
//! Properties and reasons of MQTT 5 are passed over: nobody here asks for any.

use std::fmt;
use std::rc::Rc;

use crate::payload;
pub use crate::payload::short;

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
    /// The clean end: no will. From a server: it closes (MQTT 5).
    Disconnect,
    /// The clean end with session expiry 0: the session ends as well (MQTT 5).
    DisconnectForGood,
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
    /// MQTT 5: how many seconds the session outlives the connection.
    pub expiry: Option<u32>,
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
    pub fn encode(&self, is_v5: bool) -> Vec<u8> {
        let mut body = Vec::new();
        let no_properties = |body: &mut Vec<u8>| body.extend([0].iter().take(usize::from(is_v5)));
        let first = match self {
            Self::Connect(connect) => {
                text(&mut body, "MQTT");
                let mut flags = u8::from(connect.clean) << 1;
                if let Some(will) = &connect.will {
                    flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
                }
                body.extend([4 + u8::from(connect.expiry.is_some()), flags, 0, 0]);
                if let Some(expiry) = connect.expiry {
                    body.extend([5, 0x11]);
                    body.extend(expiry.to_be_bytes());
                }
                text(&mut body, &connect.client_id);
                if let Some(will) = &connect.will {
                    no_properties(&mut body);
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
                no_properties(&mut body);
                payload::write(&publish.payload, &mut body);
                0x30 | u8::from(publish.dup) << 3 | publish.qos << 1 | u8::from(publish.retain)
            }
            Self::PubAck(id) => with_id(&mut body, 0x40, *id),
            Self::PubRec(id) => with_id(&mut body, 0x50, *id),
            Self::PubRel(id) => with_id(&mut body, 0x62, *id),
            Self::PubComp(id) => with_id(&mut body, 0x70, *id),
            Self::Subscribe { id, filter, qos } => {
                body.extend(id.to_be_bytes());
                no_properties(&mut body);
                text(&mut body, filter);
                body.push(*qos);
                0x82
            }
            Self::Unsubscribe { id, filter } => {
                body.extend(id.to_be_bytes());
                no_properties(&mut body);
                text(&mut body, filter);
                0xA2
            }
            Self::PingReq => 0xC0,
            Self::Disconnect => 0xE0,
            Self::DisconnectForGood => {
                body.extend([0, 5, 0x11, 0, 0, 0, 0]);
                0xE0
            }
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
    pub fn decode(bytes: &[u8], is_v5: bool) -> Result<Option<(Self, usize)>, String> {
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
        match decode_body(first, body, is_v5) {
            Some(packet) => Ok(Some((packet, header + length))),
            None => Err(format!(
                "a packet that cannot be read: first byte {first:#04x}, body {:?}",
                &body[..body.len().min(64)]
            )),
        }
    }
}

fn decode_body(first: u8, body: &[u8], is_v5: bool) -> Option<Packet> {
    let number = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    // What comes behind in MQTT 5 are reasons and properties.
    let has_length = |length: usize| (body.len() == length || is_v5 && body.len() > length).then_some(());
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
            let rest = body.get(if qos > 0 { end + 2 } else { end }..)?;
            let payload = payload::read(if is_v5 { behind_properties(rest)? } else { rest });
            Packet::Publish(Publish { qos, dup: first & 8 != 0, retain: first & 1 != 0, id, topic, payload })
        }
        0x90 => {
            has_length(3)?;
            Packet::SubAck { id: number(0)?, code: *body.last()? }
        }
        0xD0 => {
            has_length(0)?;
            Packet::PingResp
        }
        0xE0 if is_v5 => Packet::Disconnect,
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

/// What stands behind the properties.
fn behind_properties(bytes: &[u8]) -> Option<&[u8]> {
    let (mut length, mut at) = (0, 0);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            return bytes.get(at + length..);
        }
    }
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
            Self::Connect(Connect { clean, will, expiry, .. }) => {
                write!(f, "CONNECT{}", if *clean { " clean" } else { "" })?;
                if let Some(expiry) = expiry {
                    write!(f, " expiry {expiry}")?;
                }
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
            Self::DisconnectForGood => write!(f, "DISCONNECT, expiry 0"),
        }
    }
}

/// The filter of a shared subscription without the name of its group (MQTT 5 section 4.8.2); none
/// of another one.
pub fn shared(filter: &str) -> Option<&str> {
    Some(filter.strip_prefix("$share/")?.split_once('/')?.1)
}

/// Whether a filter, of a shared subscription as well, matches a topic name (section 4.7); the
/// names here do not begin with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    let filter = shared(filter).unwrap_or(filter);
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
            let mut wire = publish.encode(false);
            for end in (0..wire.len()).step_by(1 + length / 100) {
                assert_eq!(Packet::decode(&wire[..end], false), Ok(None));
            }
            wire.push(0xD0);
            assert_eq!(Packet::decode(&wire, false), Ok(Some((publish, wire.len() - 1))));
        }
    }

    #[test]
    fn a_session_with_expiry_as_the_standard_draws_it() {
        let connect = Connect { client_id: "c".into(), clean: false, will: None, expiry: Some(258) };
        let expected = [&[16, 19, 0, 4][..], b"MQTT", &[5, 0, 0, 0, 5, 0x11, 0, 0, 1, 2, 0, 1], b"c"];
        assert_eq!(Packet::Connect(connect).encode(true), expected.concat());
        assert_eq!(Packet::DisconnectForGood.encode(true), [0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
        let subscribe = Packet::Subscribe { id: 1, filter: "f".into(), qos: 1 };
        assert_eq!(subscribe.encode(true), [0x82, 7, 0, 1, 0, 0, 1, b'f', 1]);
        let connack = Packet::ConnAck { present: true, code: 0 };
        assert_eq!(Packet::decode(&[0x20, 6, 1, 0, 3, 0x21, 0, 9], true), Ok(Some((connack, 8))));
        let publish =
            Publish { qos: 1, dup: false, retain: false, id: 7, topic: "t".into(), payload: "x".into() };
        let wire = [0x32, 12, 0, 1, b't', 0, 7, 5, 2, 0, 0, 0, 9, b'x'];
        assert_eq!(Packet::decode(&wire, true), Ok(Some((Packet::Publish(publish), 14))));
        assert_eq!(
            Packet::decode(&[0x90, 4, 0, 1, 0, 1], true),
            Ok(Some((Packet::SubAck { id: 1, code: 1 }, 6)))
        );
        assert_eq!(Packet::decode(&[0xE0, 2, 0x8E, 0], true), Ok(Some((Packet::Disconnect, 4))));
    }

    #[test]
    fn connect_with_will_as_the_standard_draws_it() {
        let will = Will { topic: "w".into(), payload: "x".into(), qos: 2, retain: true };
        let connect =
            Packet::Connect(Connect { client_id: "c".into(), clean: true, will: Some(will), expiry: None });
        let expected =
            [&[16, 19, 0, 4][..], b"MQTT", &[4, 0x36, 0, 0, 0, 1], b"c", &[0, 1], b"w", &[0, 1], b"x"];
        assert_eq!(connect.encode(false), expected.concat());
    }

    #[test]
    fn what_is_no_packet_is_refused() {
        assert!(Packet::decode(&[0x10, 0], false).is_err());
        assert!(Packet::decode(&[0x40, 3, 0, 1, 0], false).is_err());
        assert!(Packet::decode(&[0x60, 2, 0, 1], false).is_err());
        assert!(Packet::decode(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], false).is_err());
    }

    #[test]
    fn filters() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/#", "a/b/c"),
            ("a/#", "a"),
            ("#", "a"),
            ("$share/g/a/#", "a/b"),
        ] {
            assert!(matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a"),
            ("a/+", "a/b/c"),
            ("a/+", "a"),
            ("b/#", "a/b"),
            ("a", "a/b"),
            ("$share/g/a", "a/b"),
        ] {
            assert!(!matches(filter, topic), "{filter} {topic}");
        }
    }
}
