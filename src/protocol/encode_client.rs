//! The packets only a client sends, and any [`Packet`] as it is: for tests, for embedders, later for bridges.
//!
//! Values that [`super::decode()`] gave are always encodable. Values made by hand must keep the documented
//! bounds of their fields; lengths are checked, before anything is appended.

use super::connect::flag;
use super::encode::{self, AckKind, PublishHeader};
use super::{Connect, Packet, PacketId, ProtocolVersion, QoS};

const STRING_BYTES_MAX: usize = 65_535;

/// Appends any packet a client may send.
///
/// # Panics
/// If a hand-made CONNECT or PUBLISH is too long, as [`connect`] and [`encode::publish`] say.
pub fn packet(out: &mut Vec<u8>, packet: &Packet<'_>) {
    match packet {
        Packet::Connect(packet) => connect(out, packet),
        Packet::Publish(packet) => {
            let header = PublishHeader {
                dup: packet.dup,
                qos: packet.qos,
                retain: packet.retain,
                topic: packet.topic,
                packet_id: packet.packet_id,
            };
            encode::publish(out, &header, packet.payload);
        }
        Packet::PubAck(id) => out.extend_from_slice(&encode::ack(AckKind::PubAck, *id)),
        Packet::PubRec(id) => out.extend_from_slice(&encode::ack(AckKind::PubRec, *id)),
        Packet::PubRel(id) => out.extend_from_slice(&encode::ack(AckKind::PubRel, *id)),
        Packet::PubComp(id) => out.extend_from_slice(&encode::ack(AckKind::PubComp, *id)),
        Packet::Subscribe(packet) => list(out, 0x82, packet.packet_id, packet.payload()),
        Packet::Unsubscribe(packet) => list(out, 0xa2, packet.packet_id, packet.payload()),
        Packet::PingReq => pingreq(out),
        Packet::Disconnect => disconnect(out),
    }
}

/// Appends CONNECT.
///
/// # Panics
/// If a field has more than 65,535 bytes, or there is a password without a user name; nothing has been
/// appended then.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let (name, level): (&[u8], u8) = match connect.version {
        ProtocolVersion::V31 => (b"MQIsdp", 3),
        ProtocolVersion::V311 => (b"MQTT", 4),
    };
    assert!(connect.user_name.is_some() || connect.password.is_none(), "password without a user name");

    let mut flags = if connect.clean_session { flag::CLEAN_SESSION } else { 0 };
    let mut fields: [Option<&[u8]>; 5] = [Some(connect.client_id.as_bytes()), None, None, None, None];
    if let Some(will) = &connect.will {
        flags |= flag::WILL | (will.qos as u8) << flag::WILL_QOS_SHIFT;
        if will.retain {
            flags |= flag::WILL_RETAIN;
        }
        fields[1] = Some(will.topic.as_bytes());
        fields[2] = Some(will.payload);
    }
    if let Some(user_name) = connect.user_name {
        flags |= flag::USER_NAME;
        fields[3] = Some(user_name.as_bytes());
    }
    if let Some(password) = connect.password {
        flags |= flag::PASSWORD;
        fields[4] = Some(password);
    }

    // Protocol name, level, flags, keep alive; then the payload.
    let header_len = 2 + name.len() + 1 + 1 + 2;
    encode::fixed_header(out, 0x10, header_len + strings_len(fields.into_iter().flatten()));
    encode::bytes(out, name);
    out.extend_from_slice(&[level, flags]);
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    for field in fields.into_iter().flatten() {
        encode::bytes(out, field);
    }
}

/// Appends SUBSCRIBE.
///
/// # Panics
/// If a filter has more than 65,535 bytes or all of them are more than fit into a packet; nothing has been
/// appended then. Filters are not validated.
pub fn subscribe(out: &mut Vec<u8>, id: PacketId, filters: &[(&str, QoS)]) {
    let strings_len = strings_len(filters.iter().map(|(filter, _)| filter.as_bytes()));
    encode::fixed_header(out, 0x82, size_of::<u16>() + strings_len + filters.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    for (filter, qos) in filters {
        encode::bytes(out, filter.as_bytes());
        out.push(*qos as u8);
    }
}

/// Appends UNSUBSCRIBE.
///
/// # Panics
/// As [`subscribe`].
pub fn unsubscribe(out: &mut Vec<u8>, id: PacketId, filters: &[&str]) {
    let strings_len = strings_len(filters.iter().map(|filter| filter.as_bytes()));
    encode::fixed_header(out, 0xa2, size_of::<u16>() + strings_len);
    out.extend_from_slice(&id.get().to_be_bytes());
    for filter in filters {
        encode::bytes(out, filter.as_bytes());
    }
}

/// Appends PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT.
pub fn disconnect(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xe0, 0]);
}

fn list(out: &mut Vec<u8>, first_byte: u8, id: PacketId, payload: &[u8]) {
    encode::fixed_header(out, first_byte, size_of::<u16>() + payload.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend_from_slice(payload);
}

/// Bytes that these strings take with their lengths.
fn strings_len<'a>(strings: impl Iterator<Item = &'a [u8]>) -> usize {
    strings
        .map(|string| {
            assert!(string.len() <= STRING_BYTES_MAX, "field of {} bytes", string.len());
            size_of::<u16>() + string.len()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::super::ConnectWill;
    use super::super::packet::testing::decode_whole;
    use super::*;

    const CONNECT: Connect<'_> = Connect {
        version: ProtocolVersion::V311,
        clean_session: false,
        keep_alive: 0x0102,
        client_id: "id",
        will: None,
        user_name: None,
        password: None,
    };

    #[test]
    fn connect_is_written() {
        let mut out = Vec::new();
        connect(&mut out, &CONNECT);
        assert_eq!(out, b"\x10\x0e\x00\x04MQTT\x04\x00\x01\x02\x00\x02id");
        out.clear();
        let will = ConnectWill { topic: "w", payload: b"p", qos: QoS::AtLeastOnce, retain: true };
        let full = Connect {
            version: ProtocolVersion::V31,
            clean_session: true,
            will: Some(will),
            user_name: Some("u"),
            password: Some(b"\xff"),
            ..CONNECT
        };
        connect(&mut out, &full);
        let expected =
            b"\x10\x1c\x00\x06MQIsdp\x03\xee\x01\x02\x00\x02id\x00\x01w\x00\x01p\x00\x01u\x00\x01\xff";
        assert_eq!(out, expected);
        assert_eq!(decode_whole(&out), Ok(Packet::Connect(full)));
    }

    #[test]
    fn lists_of_filters_are_written() {
        let id = PacketId::new(0x0102).unwrap();
        let mut out = Vec::new();
        subscribe(&mut out, id, &[("a", QoS::ExactlyOnce), ("b/#", QoS::AtMostOnce)]);
        assert_eq!(out, b"\x82\x0c\x01\x02\x00\x01a\x02\x00\x03b/#\x00");
        out.clear();
        unsubscribe(&mut out, id, &["a", "b/#"]);
        assert_eq!(out, b"\xa2\x0a\x01\x02\x00\x01a\x00\x03b/#");
    }

    #[test]
    fn packets_without_a_body_are_written() {
        let mut out = Vec::new();
        pingreq(&mut out);
        disconnect(&mut out);
        assert_eq!(out, [0xc0, 0, 0xe0, 0]);
    }

    #[test]
    fn a_field_too_long_is_not_begun() {
        const ID: PacketId = PacketId::new(1).unwrap();
        let long = "a".repeat(STRING_BYTES_MAX + 1);
        let attempts: [fn(&mut Vec<u8>, &str); 4] = [
            |out, long| connect(out, &Connect { client_id: long, ..CONNECT }),
            |out, _| connect(out, &Connect { password: Some(b"p"), ..CONNECT }),
            |out, long| subscribe(out, ID, &[("a", QoS::AtMostOnce), (long, QoS::AtMostOnce)]),
            |out, long| unsubscribe(out, ID, &["a", long]),
        ];
        for attempt in attempts {
            let mut out = Vec::new();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(&mut out, &long)));
            assert!(result.is_err() && out.is_empty());
        }
    }
}
