//! The packets only a client sends, and any [`Packet`] as it is: for tests, for embedders, later for bridges.
//!
//! Values that [`super::decode()`] gave are always encodable. Values made by hand must keep the documented
//! bounds of their fields; lengths are checked, before anything is appended.

use std::num::NonZeroU32;

use super::connect::flag;
use super::encode::{self, AckKind, PublishHeader, PublishPropertiesOut};
use super::encode_v5::Section;
use super::{
    Ack, Auth, Connect, ConnectWill, Disconnect, Packet, PacketId, Property, PropertyValue, ProtocolVersion,
    ReasonCode, SubscribeOptions,
};

const STRING_BYTES_MAX: usize = 65_535;

/// Appends any packet a client may send; CONNECT in its own version. What the version cannot say is left out.
///
/// # Panics
/// If a hand-made CONNECT or PUBLISH is too long, as [`connect`] and [`encode::publish`] say.
pub fn packet(out: &mut Vec<u8>, version: ProtocolVersion, packet: &Packet<'_>) {
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
            // As it came, expiry and alias included.
            let properties =
                PublishPropertiesOut { forwarded: packet.properties.raw(), ..PublishPropertiesOut::NONE };
            encode::publish(out, version, &header, &properties, packet.payload);
        }
        Packet::PubAck(packet) => ack(out, version, AckKind::PubAck, packet),
        Packet::PubRec(packet) => ack(out, version, AckKind::PubRec, packet),
        Packet::PubRel(packet) => ack(out, version, AckKind::PubRel, packet),
        Packet::PubComp(packet) => ack(out, version, AckKind::PubComp, packet),
        Packet::Subscribe(packet) => {
            let properties = subscribe_properties(version, packet.subscription_id);
            list(out, 0x82, packet.packet_id, properties, packet.payload());
        }
        Packet::Unsubscribe(packet) => {
            list(out, 0xa2, packet.packet_id, no_properties(version), packet.payload());
        }
        Packet::PingReq => pingreq(out),
        Packet::Disconnect(packet) => client_disconnect(out, version, packet),
        Packet::Auth(packet) => auth(out, packet),
    }
}

fn ack(out: &mut Vec<u8>, version: ProtocolVersion, kind: AckKind, ack: &Ack) {
    match version {
        ProtocolVersion::V5 => {
            out.extend_from_slice(encode::ack_v5(kind, ack.packet_id, ack.reason_code).as_ref());
        }
        ProtocolVersion::V31 | ProtocolVersion::V311 => {
            out.extend_from_slice(&encode::ack(kind, ack.packet_id));
        }
    }
}

/// Appends CONNECT.
///
/// # Panics
/// If a field has more than 65,535 bytes, or before MQTT 5 there is a password without a user name; nothing
/// has been appended then.
pub fn connect(out: &mut Vec<u8>, connect: &Connect<'_>) {
    let (name, level): (&[u8], u8) = match connect.version {
        ProtocolVersion::V31 => (b"MQIsdp", 3),
        ProtocolVersion::V311 => (b"MQTT", 4),
        ProtocolVersion::V5 => (b"MQTT", 5),
    };
    let v5 = connect.version == ProtocolVersion::V5;
    assert!(v5 || connect.user_name.is_some() || connect.password.is_none(), "password without a user name");

    let mut flags = if connect.clean_start { flag::CLEAN_SESSION } else { 0 };
    let mut fields: [Option<&[u8]>; 5] = [Some(connect.client_id.as_bytes()), None, None, None, None];
    let properties = if v5 { connect_properties(connect).into_bytes() } else { Vec::new() };
    let will_properties = match &connect.will {
        Some(will) if v5 => will_properties(will).into_bytes(),
        _ => Vec::new(),
    };
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
    let sections_len = properties.len() + will_properties.len();
    encode::fixed_header(out, 0x10, header_len + sections_len + strings_len(fields.into_iter().flatten()));
    encode::bytes(out, name);
    out.extend_from_slice(&[level, flags]);
    out.extend_from_slice(&connect.keep_alive.to_be_bytes());
    out.extend_from_slice(&properties);
    for (index, field) in fields.into_iter().enumerate() {
        if index == 1 {
            out.extend_from_slice(&will_properties);
        }
        if let Some(field) = field {
            encode::bytes(out, field);
        }
    }
}

fn connect_properties(connect: &Connect<'_>) -> Section {
    use Property as P;
    use PropertyValue as V;
    let mut section = Section::new();
    section.put_some(P::SessionExpiryInterval, connect.session_expiry.interval().map(V::FourBytes));
    if connect.receive_maximum != u16::MAX {
        section.put(P::ReceiveMaximum, V::TwoBytes(connect.receive_maximum));
    }
    section.put_some(P::MaximumPacketSize, connect.maximum_packet_size.map(V::FourBytes));
    if connect.topic_alias_maximum != 0 {
        section.put(P::TopicAliasMaximum, V::TwoBytes(connect.topic_alias_maximum));
    }
    if connect.request_response_information {
        section.put(P::RequestResponseInformation, V::Byte(1));
    }
    if !connect.request_problem_information {
        section.put(P::RequestProblemInformation, V::Byte(0));
    }
    if let Some((method, data)) = connect.authentication {
        section.put(P::AuthenticationMethod, V::String(method));
        section.put_some(P::AuthenticationData, data.map(V::Binary));
    }
    section
}

fn will_properties(will: &ConnectWill<'_>) -> Section {
    let mut section = Section::new();
    // One that was decoded holds its delay already.
    if will.delay_seconds != 0 && !will.properties.has_will_delay() {
        section.put(Property::WillDelayInterval, PropertyValue::FourBytes(will.delay_seconds));
    }
    section.put_raw(will.properties.raw());
    section
}

/// The section that stands in every packet of MQTT 5, and in none before.
fn no_properties(version: ProtocolVersion) -> Vec<u8> {
    match version {
        ProtocolVersion::V5 => Section::new().into_bytes(),
        ProtocolVersion::V31 | ProtocolVersion::V311 => Vec::new(),
    }
}

fn subscribe_properties(version: ProtocolVersion, subscription_id: Option<NonZeroU32>) -> Vec<u8> {
    if version != ProtocolVersion::V5 {
        return Vec::new();
    }
    let mut section = Section::new();
    let id = subscription_id.map(|id| PropertyValue::Variable(id.get()));
    section.put_some(Property::SubscriptionIdentifier, id);
    section.into_bytes()
}

/// Appends SUBSCRIBE. Before MQTT 5 there is no subscription identifier, and of the options only the QoS.
///
/// # Panics
/// If a filter has more than 65,535 bytes, all of them are more than fit into a packet, or the subscription
/// identifier is above 268,435,455; nothing has been appended then. Filters are not validated.
pub fn subscribe(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    id: PacketId,
    subscription_id: Option<NonZeroU32>,
    filters: &[(&str, SubscribeOptions)],
) {
    let properties = subscribe_properties(version, subscription_id);
    let strings_len = strings_len(filters.iter().map(|(filter, _)| filter.as_bytes()));
    encode::fixed_header(out, 0x82, size_of::<u16>() + properties.len() + strings_len + filters.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend_from_slice(&properties);
    for (filter, options) in filters {
        encode::bytes(out, filter.as_bytes());
        let options = match version {
            ProtocolVersion::V5 => *options,
            ProtocolVersion::V31 | ProtocolVersion::V311 => SubscribeOptions::with_qos(options.qos),
        };
        out.push(options.byte());
    }
}

/// Appends UNSUBSCRIBE.
///
/// # Panics
/// As [`subscribe`].
pub fn unsubscribe(out: &mut Vec<u8>, version: ProtocolVersion, id: PacketId, filters: &[&str]) {
    let properties = no_properties(version);
    let strings_len = strings_len(filters.iter().map(|filter| filter.as_bytes()));
    encode::fixed_header(out, 0xa2, size_of::<u16>() + properties.len() + strings_len);
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend_from_slice(&properties);
    for filter in filters {
        encode::bytes(out, filter.as_bytes());
    }
}

/// Appends PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc0, 0]);
}

/// Appends DISCONNECT of a client. (The server's is [`encode::disconnect`].)
pub fn client_disconnect(out: &mut Vec<u8>, version: ProtocolVersion, disconnect: &Disconnect) {
    if version != ProtocolVersion::V5 || *disconnect == Disconnect::NORMAL {
        out.extend_from_slice(&[0xe0, 0]);
        return;
    }
    let mut section = Section::new();
    let interval = disconnect.session_expiry.map(PropertyValue::FourBytes);
    section.put_some(Property::SessionExpiryInterval, interval);
    code_and_section(out, 0xe0, disconnect.reason_code, section);
}

/// AUTH, which only MQTT 5 has.
fn auth(out: &mut Vec<u8>, auth: &Auth<'_>) {
    let mut section = Section::new();
    section.put(Property::AuthenticationMethod, PropertyValue::String(auth.method));
    section.put_some(Property::AuthenticationData, auth.data.map(PropertyValue::Binary));
    code_and_section(out, 0xf0, auth.reason_code, section);
}

fn code_and_section(out: &mut Vec<u8>, first_byte: u8, code: ReasonCode, section: Section) {
    // Without properties their length may be left out.
    let section = if section.is_empty() { Vec::new() } else { section.into_bytes() };
    encode::fixed_header(out, first_byte, 1 + section.len());
    out.push(code.byte());
    out.extend_from_slice(&section);
}

fn list(out: &mut Vec<u8>, first_byte: u8, id: PacketId, properties: Vec<u8>, payload: &[u8]) {
    encode::fixed_header(out, first_byte, size_of::<u16>() + properties.len() + payload.len());
    out.extend_from_slice(&id.get().to_be_bytes());
    out.extend_from_slice(&properties);
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
    use super::super::ProtocolVersion::{V31, V311};
    use super::super::packet::testing::decode_whole;
    use super::super::{PublishProperties, QoS, SessionExpiry};
    use super::*;

    const CONNECT: Connect<'_> = Connect {
        clean_start: false,
        session_expiry: SessionExpiry::ServerDefault,
        keep_alive: 0x0102,
        ..Connect::new(V311, "id")
    };

    const fn qos(qos: QoS) -> SubscribeOptions {
        SubscribeOptions::with_qos(qos)
    }

    #[test]
    fn connect_is_written() {
        let mut out = Vec::new();
        connect(&mut out, &CONNECT);
        assert_eq!(out, b"\x10\x0e\x00\x04MQTT\x04\x00\x01\x02\x00\x02id");
        out.clear();
        let will = ConnectWill {
            topic: "w",
            payload: b"p",
            qos: QoS::AtLeastOnce,
            retain: true,
            delay_seconds: 0,
            properties: PublishProperties::NONE,
        };
        let full = Connect {
            version: V31,
            clean_start: true,
            session_expiry: SessionExpiry::AtDisconnect,
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
        let filters = [("a", qos(QoS::ExactlyOnce)), ("b/#", qos(QoS::AtMostOnce))];
        subscribe(&mut out, V311, id, None, &filters);
        assert_eq!(out, b"\x82\x0c\x01\x02\x00\x01a\x02\x00\x03b/#\x00");
        out.clear();
        unsubscribe(&mut out, V311, id, &["a", "b/#"]);
        assert_eq!(out, b"\xa2\x0a\x01\x02\x00\x01a\x00\x03b/#");
    }

    #[test]
    fn packets_without_a_body_are_written() {
        let mut out = Vec::new();
        pingreq(&mut out);
        client_disconnect(&mut out, V311, &Disconnect::NORMAL);
        assert_eq!(out, [0xc0, 0, 0xe0, 0]);
    }

    #[test]
    fn a_field_too_long_is_not_begun() {
        const ID: PacketId = PacketId::new(1).unwrap();
        let long = "a".repeat(STRING_BYTES_MAX + 1);
        let attempts: [fn(&mut Vec<u8>, &str); 4] = [
            |out, long| connect(out, &Connect { client_id: long, ..CONNECT }),
            |out, _| connect(out, &Connect { password: Some(b"p"), ..CONNECT }),
            |out, long| {
                let filters = [("a", qos(QoS::AtMostOnce)), (long, qos(QoS::AtMostOnce))];
                subscribe(out, V311, ID, None, &filters);
            },
            |out, long| unsubscribe(out, V311, ID, &["a", long]),
        ];
        for attempt in attempts {
            let mut out = Vec::new();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| attempt(&mut out, &long)));
            assert!(result.is_err() && out.is_empty());
        }
    }
}
