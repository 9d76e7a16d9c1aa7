//! The packets a server may send, read strictly: reserved flags, exact lengths, shortest form of the remaining length,
//! packet ids other than 0. A packet that a strict client would refuse fails the test with the bytes it had.
//!
//! Independent of the codec of the crate, on purpose.

/// A PUBLISH from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// DUP flag.
    pub dup: bool,
    /// QoS 0, 1 or 2.
    pub qos: u8,
    /// RETAIN flag.
    pub retain: bool,
    /// Topic name, well-formed UTF-8 without wildcards or U+0000.
    pub topic: String,
    /// Packet id; present exactly for QoS 1 and 2.
    pub packet_id: Option<u16>,
    /// Application message.
    pub payload: Vec<u8>,
}

impl Publish {
    /// The packet id of a PUBLISH that must have one.
    #[track_caller]
    pub fn id(&self) -> u16 {
        self.packet_id.unwrap_or_else(|| panic!("no packet id in {self:?}"))
    }

    /// The payload as text, for messages of failed assertions.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

/// Any packet that a server may send under MQTT 3.1.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerPacket {
    /// Session present and return code.
    ConnAck(bool, u8),
    /// An application message.
    Publish(Publish),
    /// Acknowledges a QoS 1 PUBLISH.
    PubAck(u16),
    /// First answer to a QoS 2 PUBLISH.
    PubRec(u16),
    /// Release of a QoS 2 PUBLISH the server sent.
    PubRel(u16),
    /// Last answer to a QoS 2 PUBLISH.
    PubComp(u16),
    /// Packet id and one return code per filter.
    SubAck(u16, Vec<u8>),
    /// Answers UNSUBSCRIBE.
    UnsubAck(u16),
    /// Answers PINGREQ.
    PingResp,
}

/// Takes the first whole packet off `received`; `None` when it is not complete yet.
#[track_caller]
pub fn take(received: &mut Vec<u8>) -> Option<ServerPacket> {
    let (bytes, header) = take_frame(received)?;
    Some(parse(bytes[0], &bytes[header..], &bytes))
}

/// Takes the bytes of the first whole packet, and the length of its fixed header; that is alike in all versions.
#[track_caller]
pub(super) fn take_frame(received: &mut Vec<u8>) -> Option<(Vec<u8>, usize)> {
    let mut length = 0usize;
    let mut header = 1;
    loop {
        let digit = *received.get(header)?;
        length |= usize::from(digit & 0x7F) << (7 * (header - 1));
        header += 1;
        if digit & 0x80 == 0 {
            assert!(
                digit != 0 || header == 2,
                "remaining length not in its shortest form: {}",
                show(received)
            );
            break;
        }
        assert!(header < 5, "remaining length of more than four bytes: {}", show(received));
    }
    if received.len() < header + length {
        return None;
    }
    Some((received.drain(..header + length).collect(), header))
}

#[track_caller]
fn parse(first_byte: u8, body: &[u8], whole: &[u8]) -> ServerPacket {
    match (first_byte, body) {
        (0x20, &[acknowledge_flags @ (0 | 1), code @ 0..=5]) => {
            ServerPacket::ConnAck(acknowledge_flags == 1, code)
        }
        (0x30..=0x3F, _) => ServerPacket::Publish(publish(first_byte, body, whole)),
        (0x40, &[high, low]) => ServerPacket::PubAck(id(high, low, whole)),
        (0x50, &[high, low]) => ServerPacket::PubRec(id(high, low, whole)),
        (0x62, &[high, low]) => ServerPacket::PubRel(id(high, low, whole)),
        (0x70, &[high, low]) => ServerPacket::PubComp(id(high, low, whole)),
        (0x90, [high, low, codes @ ..]) if !codes.is_empty() => {
            assert!(codes.iter().all(|code| matches!(code, 0..=2 | 0x80)), "return codes: {}", show(whole));
            ServerPacket::SubAck(id(*high, *low, whole), codes.to_vec())
        }
        (0xB0, &[high, low]) => ServerPacket::UnsubAck(id(high, low, whole)),
        (0xD0, []) => ServerPacket::PingResp,
        _ => panic!("not a packet that a server may send: {}", show(whole)),
    }
}

#[track_caller]
fn publish(first_byte: u8, body: &[u8], whole: &[u8]) -> Publish {
    let dup = first_byte & 0x08 != 0;
    let qos = (first_byte >> 1) & 3;
    assert!(qos < 3, "QoS 3: {}", show(whole));
    assert!(!(dup && qos == 0), "DUP at QoS 0: {}", show(whole));
    let [high, low, rest @ ..] = body else { panic!("no topic: {}", show(whole)) };
    let topic_len = usize::from(u16::from_be_bytes([*high, *low]));
    assert!(topic_len > 0 && topic_len <= rest.len(), "length of the topic: {}", show(whole));
    let (topic, rest) = rest.split_at(topic_len);
    let topic = std::str::from_utf8(topic).unwrap_or_else(|_| panic!("topic not UTF-8: {}", show(whole)));
    assert!(!topic.contains(['+', '#', '\0']), "character not allowed in a topic name: {topic:?}");
    let (packet_id, payload) = match (qos, rest) {
        (0, payload) => (None, payload),
        (_, [high, low, payload @ ..]) => (Some(id(*high, *low, whole)), payload),
        _ => panic!("no packet id: {}", show(whole)),
    };
    let retain = first_byte & 1 != 0;
    Publish { dup, qos, retain, topic: topic.to_owned(), packet_id, payload: payload.to_vec() }
}

#[track_caller]
fn id(high: u8, low: u8, whole: &[u8]) -> u16 {
    let packet_id = u16::from_be_bytes([high, low]);
    assert!(packet_id != 0, "packet id 0: {}", show(whole));
    packet_id
}

/// At most 48 bytes in hexadecimal.
pub fn show(bytes: &[u8]) -> String {
    let head: Vec<String> = bytes.iter().take(48).map(|byte| format!("{byte:02X}")).collect();
    let more = if bytes.len() > 48 { format!(" … ({} bytes)", bytes.len()) } else { String::new() };
    format!("[{}{more}]", head.join(" "))
}
