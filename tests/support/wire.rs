//! Builders for the packets of a client, written without the codec of the crate: plain byte pushing.
//!
//! They check nothing: most tests of bad input are a builder with a wrong argument. Strings are byte slices, so that
//! ill-formed UTF-8 can be written. Section numbers are those of MQTT 3.1.1.

/// PINGREQ (section 3.12).
pub const PINGREQ: [u8; 2] = [0xC0, 0x00];
/// DISCONNECT (section 3.14).
pub const DISCONNECT: [u8; 2] = [0xE0, 0x00];

/// The remaining length in its shortest form (section 2.2.3).
pub fn remaining_length(mut length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            bytes.push(digit);
            return bytes;
        }
        bytes.push(digit | 0x80);
    }
}

/// A packet: first byte, remaining length, body.
pub fn packet(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte];
    bytes.extend(remaining_length(body.len()));
    bytes.extend_from_slice(body);
    bytes
}

/// A length-prefixed string or binary field (section 1.5.3).
pub fn field(content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let length = u16::try_from(content.len()).expect("a field has at most 65,535 bytes");
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

/// CONNECT from its parts; `fields` are length-prefixed in the order given (section 3.1).
pub fn raw_connect(
    name: impl AsRef<[u8]>,
    level: u8,
    flags: u8,
    keep_alive: u16,
    fields: &[&[u8]],
) -> Vec<u8> {
    let mut body = field(name);
    body.push(level);
    body.push(flags);
    body.extend(keep_alive.to_be_bytes());
    for content in fields {
        body.extend(field(content));
    }
    packet(0x10, &body)
}

/// A well-formed CONNECT unless a test asks for something else. Keep alive is off by default.
#[derive(Clone, Debug)]
pub struct Connect {
    client_id: Vec<u8>,
    clean_session: bool,
    keep_alive: u16,
    will: Option<(Vec<u8>, Vec<u8>, u8, bool)>,
    user_name: Option<Vec<u8>>,
    password: Option<Vec<u8>>,
}

impl Connect {
    /// CONNECT with CleanSession 1.
    pub fn new(client_id: impl AsRef<[u8]>) -> Self {
        let client_id = client_id.as_ref().to_vec();
        Self { client_id, clean_session: true, keep_alive: 0, will: None, user_name: None, password: None }
    }

    /// CONNECT with CleanSession 0.
    pub fn persistent(client_id: impl AsRef<[u8]>) -> Self {
        Self { clean_session: false, ..Self::new(client_id) }
    }

    /// True with CleanSession 0.
    pub fn is_persistent(&self) -> bool {
        !self.clean_session
    }

    /// Keep alive in seconds.
    pub fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive = seconds;
        self
    }

    /// The will: topic, payload, QoS, retain.
    pub fn will(mut self, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>, qos: u8, retain: bool) -> Self {
        self.will = Some((topic.as_ref().to_vec(), payload.as_ref().to_vec(), qos, retain));
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

    /// The bytes on the wire, as MQTT 3.1.1.
    pub fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean_session) << 1;
        let mut fields: Vec<&[u8]> = vec![&self.client_id];
        if let Some((topic, payload, qos, retain)) = &self.will {
            flags |= 0x04 | (qos << 3) | (u8::from(*retain) << 5);
            fields.push(topic);
            fields.push(payload);
        }
        if let Some(user_name) = &self.user_name {
            flags |= 0x80;
            fields.push(user_name);
        }
        if let Some(password) = &self.password {
            flags |= 0x40;
            fields.push(password);
        }
        raw_connect("MQTT", 4, flags, self.keep_alive, &fields)
    }
}

/// PUBLISH with flags as given (DUP 8, QoS 6, RETAIN 1); the packet id is written when there is one (section 3.3).
pub fn raw_publish(
    flags: u8,
    topic: impl AsRef<[u8]>,
    packet_id: Option<u16>,
    payload: impl AsRef<[u8]>,
) -> Vec<u8> {
    let mut body = field(topic);
    if let Some(packet_id) = packet_id {
        body.extend(packet_id.to_be_bytes());
    }
    body.extend_from_slice(payload.as_ref());
    packet(0x30 | flags, &body)
}

/// PUBLISH at QoS 0.
pub fn publish_qos0(topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_publish(0, topic, None, payload)
}

/// PUBLISH at QoS 1, first sending.
pub fn publish_qos1(packet_id: u16, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_publish(0x02, topic, Some(packet_id), payload)
}

/// PUBLISH at QoS 2, first sending.
pub fn publish_qos2(packet_id: u16, topic: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> Vec<u8> {
    raw_publish(0x04, topic, Some(packet_id), payload)
}

fn with_id(first_byte: u8, packet_id: u16) -> Vec<u8> {
    packet(first_byte, &packet_id.to_be_bytes())
}

/// PUBACK (section 3.4).
pub fn puback(packet_id: u16) -> Vec<u8> {
    with_id(0x40, packet_id)
}

/// PUBREC (section 3.5).
pub fn pubrec(packet_id: u16) -> Vec<u8> {
    with_id(0x50, packet_id)
}

/// PUBREL (section 3.6).
pub fn pubrel(packet_id: u16) -> Vec<u8> {
    with_id(0x62, packet_id)
}

/// PUBCOMP (section 3.7).
pub fn pubcomp(packet_id: u16) -> Vec<u8> {
    with_id(0x70, packet_id)
}

/// The body of SUBSCRIBE: packet id, then each filter with its QoS byte (section 3.8).
pub fn subscribe_body<F: AsRef<[u8]>>(packet_id: u16, filters: &[(F, u8)]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for (filter, qos) in filters {
        body.extend(field(filter));
        body.push(*qos);
    }
    body
}

/// SUBSCRIBE (section 3.8).
pub fn subscribe<F: AsRef<[u8]>>(packet_id: u16, filters: &[(F, u8)]) -> Vec<u8> {
    packet(0x82, &subscribe_body(packet_id, filters))
}

/// UNSUBSCRIBE (section 3.10).
pub fn unsubscribe<F: AsRef<[u8]>>(packet_id: u16, filters: &[F]) -> Vec<u8> {
    let mut body = packet_id.to_be_bytes().to_vec();
    for filter in filters {
        body.extend(field(filter));
    }
    packet(0xA2, &body)
}
