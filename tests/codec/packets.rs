//! Valid packets of every type a client of MQTT 3.1.1 sends, as owned values, and damage done to their bytes.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use ternmq::protocol::ProtocolVersion::V311;
use ternmq::protocol::encode::{self, PublishHeader, PublishPropertiesOut};
use ternmq::protocol::{
    Ack, Connect, ConnectWill, Disconnect, Packet, PacketId, ProtocolVersion, PublishProperties, QoS,
    SessionExpiry, SubscribeOptions,
};

/// A packet that owns what a [`Packet`] borrows.
#[derive(Debug, Clone)]
pub(crate) enum OwnedPacket {
    Connect {
        version: ProtocolVersion,
        clean_session: bool,
        keep_alive: u16,
        client_id: String,
        will: Option<(String, Vec<u8>, QoS, bool)>,
        login: Option<(String, Option<Vec<u8>>)>,
    },
    Publish {
        dup: bool,
        qos: QoS,
        retain: bool,
        topic: String,
        packet_id: PacketId,
        payload: Vec<u8>,
    },
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, PINGREQ, DISCONNECT: nothing to borrow.
    Plain(Packet<'static>),
    Subscribe(PacketId, Vec<(String, QoS)>),
    Unsubscribe(PacketId, Vec<String>),
}

impl OwnedPacket {
    /// Appends the packet through the encoders.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Connect { .. } => encode::connect(out, &self.as_connect().unwrap()),
            Self::Publish { dup, qos, retain, topic, packet_id, payload } => {
                let header = PublishHeader {
                    dup: *dup,
                    qos: *qos,
                    retain: *retain,
                    topic,
                    packet_id: (*qos != QoS::AtMostOnce).then_some(*packet_id),
                };
                encode::publish(out, V311, &header, &PublishPropertiesOut::NONE, payload);
            }
            Self::Plain(packet) => encode::packet(out, V311, packet),
            Self::Subscribe(id, filters) => {
                let filters: Vec<_> = filters
                    .iter()
                    .map(|(filter, qos)| (filter.as_str(), SubscribeOptions::with_qos(*qos)))
                    .collect();
                encode::subscribe(out, V311, *id, None, &filters);
            }
            Self::Unsubscribe(id, filters) => {
                let filters: Vec<_> = filters.iter().map(String::as_str).collect();
                encode::unsubscribe(out, V311, *id, &filters);
            }
        }
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// The borrowed CONNECT this is, if it is one.
    pub(crate) fn as_connect(&self) -> Option<Connect<'_>> {
        let Self::Connect { version, clean_session, keep_alive, client_id, will, login } = self else {
            return None;
        };
        Some(Connect {
            clean_start: *clean_session,
            session_expiry: if *clean_session {
                SessionExpiry::AtDisconnect
            } else {
                SessionExpiry::ServerDefault
            },
            keep_alive: *keep_alive,
            will: will.as_ref().map(|(topic, payload, qos, retain)| ConnectWill {
                topic,
                payload,
                qos: *qos,
                retain: *retain,
                delay_seconds: 0,
                properties: PublishProperties::NONE,
            }),
            user_name: login.as_ref().map(|(user_name, _)| user_name.as_str()),
            password: login.as_ref().and_then(|(_, password)| password.as_deref()),
            ..Connect::new(*version, client_id)
        })
    }
}

pub(crate) fn qos() -> impl Strategy<Value = QoS> {
    select(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][..])
}

pub(crate) fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

/// Text without U+0000, now and then long, with characters of every length in UTF-8.
pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => "[a-z0-9/ ]{0,12}",
        4 => "[^\0]{0,8}",
        2 => "[a\u{e9}\u{feff}\u{10ffff}]{0,40}",
        1 => "[a-c]{100,300}",
    ]
}

pub(crate) fn topic_name() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let topic = text.replace(['+', '#'], "_");
        if topic.is_empty() { "/".to_owned() } else { topic }
    })
}

pub(crate) fn topic_filter() -> impl Strategy<Value = String> {
    let level =
        prop_oneof![2 => Just("+".to_owned()), 5 => topic_name().prop_map(|name| name.replace('/', "-"))];
    (vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, multi)| {
        if multi || levels.is_empty() {
            levels.push("#".to_owned());
        }
        levels.join("/")
    })
}

pub(crate) fn owned_packet() -> impl Strategy<Value = OwnedPacket> {
    let bytes = || vec(any::<u8>(), 0..20);
    let versions = select(&[ProtocolVersion::V31, V311, V311][..]);
    let will = option::of((topic_name(), bytes(), qos(), any::<bool>()));
    let login = option::of((text(), option::of(prop_oneof![bytes(), text().prop_map(String::into_bytes)])));
    let connect = (versions, any::<bool>(), any::<u16>(), text(), will, login).prop_map(
        |(version, clean_session, keep_alive, client_id, will, login)| OwnedPacket::Connect {
            version,
            clean_session,
            keep_alive,
            client_id,
            will,
            login,
        },
    );
    let payload = prop_oneof![8 => bytes(), 1 => vec(any::<u8>(), 100..300)];
    let publish = (any::<bool>(), qos(), any::<bool>(), topic_name(), packet_id(), payload).prop_map(
        |(dup, qos, retain, topic, packet_id, payload)| OwnedPacket::Publish {
            dup: dup && qos != QoS::AtMostOnce,
            qos,
            retain,
            topic,
            packet_id,
            payload,
        },
    );
    prop_oneof![
        4 => connect,
        4 => publish,
        1 => packet_id().prop_map(|id| OwnedPacket::Plain(Packet::PubAck(Ack::success(id)))),
        1 => packet_id().prop_map(|id| OwnedPacket::Plain(Packet::PubRec(Ack::success(id)))),
        1 => packet_id().prop_map(|id| OwnedPacket::Plain(Packet::PubRel(Ack::success(id)))),
        1 => packet_id().prop_map(|id| OwnedPacket::Plain(Packet::PubComp(Ack::success(id)))),
        1 => Just(OwnedPacket::Plain(Packet::PingReq)),
        1 => Just(OwnedPacket::Plain(Packet::Disconnect(Disconnect::NORMAL))),
        2 => (packet_id(), vec((topic_filter(), qos()), 1..6))
            .prop_map(|(id, filters)| OwnedPacket::Subscribe(id, filters)),
        2 => (packet_id(), vec(topic_filter(), 1..6))
            .prop_map(|(id, filters)| OwnedPacket::Unsubscribe(id, filters)),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Replace(Index, u8),
    FlipBit(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Truncate(Index),
}

/// Bytes of a valid packet after up to three faults, with the length sometimes put right again so that the
/// faults get past the framing.
pub(crate) fn damaged_packet() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![select(&b"\0\x01\x02\x04+#/$\x7f\x80\xc3\xff"[..]), any::<u8>()];
    let damage = prop_oneof![
        (any::<Index>(), byte.clone()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::FlipBit(at, bit)),
        (any::<Index>(), byte).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        any::<Index>().prop_map(Damage::Remove),
        any::<Index>().prop_map(Damage::Truncate),
    ];
    (owned_packet(), vec(damage, 1..4), any::<bool>()).prop_map(|(packet, damages, mend_length)| {
        let mut bytes = packet.to_bytes();
        for damage in damages {
            match damage {
                _ if bytes.is_empty() => {}
                Damage::Replace(at, byte) => *at.get_mut(&mut bytes) = byte,
                Damage::FlipBit(at, bit) => *at.get_mut(&mut bytes) ^= 1 << bit,
                Damage::Insert(at, byte) => bytes.insert(at.index(bytes.len() + 1), byte),
                Damage::Remove(at) => drop(bytes.remove(at.index(bytes.len()))),
                Damage::Truncate(at) => bytes.truncate(at.index(bytes.len())),
            }
        }
        if mend_length && (2..130).contains(&bytes.len()) {
            bytes[1] = (bytes.len() - 2) as u8;
        }
        bytes
    })
}
