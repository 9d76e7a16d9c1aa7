//! Builders for the packets of a client of MQTT 5, plain byte pushing like those of `wire`. They check nothing.

use super::wire::{field, packet, remaining_length};

/// Identifiers of properties (section 2.2.2.2).
pub mod id {
    #![allow(missing_docs)]
    pub const PAYLOAD_FORMAT: u8 = 0x01;
    pub const MESSAGE_EXPIRY: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_ID: u8 = 0x0B;
    pub const SESSION_EXPIRY: u8 = 0x11;
    pub const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTH_METHOD: u8 = 0x15;
    pub const AUTH_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFO: u8 = 0x17;
    pub const WILL_DELAY: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFO: u8 = 0x19;
    pub const RESPONSE_INFO: u8 = 0x1A;
    pub const SERVER_REFERENCE: u8 = 0x1C;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const RETAIN_AVAILABLE: u8 = 0x25;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_ID_AVAILABLE: u8 = 0x29;
    pub const SHARED_AVAILABLE: u8 = 0x2A;
}

/// No Local in the options of a subscription.
pub const NO_LOCAL: u8 = 0x04;
/// Retain As Published in the options of a subscription.
pub const RETAIN_AS_PUBLISHED: u8 = 0x08;
/// Retain Handling 1: retained messages only if the subscription is new.
pub const RETAIN_IF_NEW: u8 = 0x10;
/// Retain Handling 2: no retained messages.
pub const RETAIN_NEVER: u8 = 0x20;

/// A property of one byte.
pub fn byte(id: u8, value: u8) -> Vec<u8> {
    vec![id, value]
}

/// A property of two bytes.
pub fn two(id: u8, value: u16) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A property of four bytes.
pub fn four(id: u8, value: u32) -> Vec<u8> {
    [&[id][..], &value.to_be_bytes()].concat()
}

/// A property that is a variable byte integer.
pub fn variable(id: u8, value: usize) -> Vec<u8> {
    [vec![id], remaining_length(value)].concat()
}

/// A property that is a string or binary data.
pub fn text(id: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![id], field(value)].concat()
}

/// A user property.
pub fn user(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    [vec![id::USER_PROPERTY], field(name), field(value)].concat()
}

/// A property section: its length and the properties, given concatenated.
pub fn section(properties: &[u8]) -> Vec<u8> {
    [remaining_length(properties.len()), properties.to_vec()].concat()
}

/// A well-formed CONNECT of MQTT 5 unless a test asks for something else.
#[derive(Clone, Debug)]
pub struct Connect5 {
    client_id: Vec<u8>,
    clean_start: bool,
    keep_alive: u16,
    properties: Vec<u8>,
    will: Option<Will5>,
    user_name: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

/// The will of a [`Connect5`].
#[derive(Clone, Debug)]
struct Will5 {
    topic: Vec<u8>,
    payload: Vec<u8>,
    qos: u8,
    retain: bool,
    properties: Vec<u8>,
}

impl Connect5 {
    /// Clean Start 1, without properties.
    pub fn new(client_id: impl AsRef<[u8]>) -> Self {
        Self {
            client_id: client_id.as_ref().to_vec(),
            clean_start: true,
            keep_alive: 0,
            properties: Vec::new(),
            will: None,
            user_name: None,
            password: None,
        }
    }

    /// Clean Start 0, with a session expiry of an hour.
    pub fn persistent(client_id: impl AsRef<[u8]>) -> Self {
        Self { clean_start: false, ..Self::new(client_id) }.session_expiry(3_600)
    }

    /// Clean Start 0, without properties.
    pub fn resuming(client_id: impl AsRef<[u8]>) -> Self {
        Self { clean_start: false, ..Self::new(client_id) }
    }

    /// Keep alive in seconds.
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// Adds a property.
    pub fn with(mut self, property: impl AsRef<[u8]>) -> Self {
        self.properties.extend_from_slice(property.as_ref());
        self
    }

    /// Adds the session expiry interval, in seconds.
    pub fn session_expiry(self, seconds: u32) -> Self {
        self.with(four(id::SESSION_EXPIRY, seconds))
    }

    /// The will: topic, payload, QoS, retain.
    pub fn will(mut self, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, qos: u8, retain: bool) -> Self {
        let (topic, payload) = (topic.as_ref().to_vec(), payload.as_ref().to_vec());
        self.will = Some(Will5 { topic, payload, qos, retain, properties: Vec::new() });
        self
    }

    /// Adds a property to the will, which must have been given.
    pub fn will_with(mut self, property: impl AsRef<[u8]>) -> Self {
        self.will.as_mut().expect("a will").properties.extend_from_slice(property.as_ref());
        self
    }

    /// The user name.
    pub fn user_name(mut self, user_name: impl AsRef<[u8]>) -> Self {
        self.user_name = Some(user_name.as_ref().to_vec());
        self
    }

    /// The password.
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.password = Some(password.as_ref().to_vec());
        self
    }

    /// The number of a property that was added, for those of two or four bytes in a well-formed section.
    pub fn announced(&self, wanted: u8) -> Option<u32> {
        let mut rest = self.properties.as_slice();
        while let [id, tail @ ..] = rest {
            let width = match *id {
                0x17 | 0x19 => 1,
                0x21 | 0x22 => 2,
                0x11 | 0x27 => 4,
                // Others come last in our tests, or do not matter.
                _ => return None,
            };
            let (value, tail) = tail.split_at_checked(width)?;
            if *id == wanted {
                return Some(value.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)));
            }
            rest = tail;
        }
        None
    }

    /// The bytes on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean_start) << 1;
        let mut payload = field(&self.client_id);
        if let Some(will) = &self.will {
            flags |= 0x04 | will.qos << 3 | u8::from(will.retain) << 5;
            payload.extend(section(&will.properties));
            payload.extend(field(&will.topic));
            payload.extend(field(&will.payload));
        }
        if let Some(user_name) = &self.user_name {
            flags |= 0x80;
            payload.extend(field(user_name));
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            payload.extend(field(password));
        }
        raw_connect5(flags, self.keep_alive, &section(&self.properties), &payload)
    }
}

/// CONNECT from its parts; `section` has its length in front.
pub fn raw_connect5(flags: u8, keep_alive: u16, section: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut body = field("MQTT");
    body.extend([5, flags]);
    body.extend(keep_alive.to_be_bytes());
    body.extend_from_slice(section);
    body.extend_from_slice(payload);
    packet(0x10, &body)
}

/// PUBLISH with flags as given (DUP 8, QoS 6, RETAIN 1); the packet id is written when there is one.
pub fn publish5(
    flags: u8,
    topic: impl AsRef<[u8]>,
    packet_id: Option<u16>,
    properties: &[u8],
    payload: impl AsRef<[u8]>,
) -> Vec<u8> {
    let mut body = field(topic);
    if let Some(packet_id) = packet_id {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend(section(properties));
    body.extend_from_slice(payload.as_ref());
    packet(0x30 | flags, &body)
}

/// SUBSCRIBE: each filter with its options byte.
pub fn subscribe5<F: AsRef<[u8]>>(packet_id: u16, properties: &[u8], filters: &[(F, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.extend(section(properties));
    for (filter, options) in filters {
        body.extend(field(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

/// UNSUBSCRIBE.
pub fn unsubscribe5<F: AsRef<[u8]>>(packet_id: u16, properties: &[u8], filters: &[F]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.extend(section(properties));
    for filter in filters {
        body.extend(field(filter));
    }
    packet(0xA2, &body)
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) in the long form.
pub fn ack5(first_byte: u8, packet_id: u16, code: u8, properties: &[u8]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    body.push(code);
    body.extend(section(properties));
    packet(first_byte, &body)
}

/// DISCONNECT in the long form.
pub fn disconnect5(code: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xE0, &[vec![code], section(properties)].concat())
}

/// AUTH in the long form.
pub fn auth5(code: u8, properties: &[u8]) -> Vec<u8> {
    packet(0xF0, &[vec![code], section(properties)].concat())
}
