//! The cases, by the part of the broker that does the work.

mod codec;
mod delivery;
mod log;
mod retained;
mod routing;
mod turn;

use crate::Case;
use crate::protocol::{PacketId, ProtocolVersion, QoS};

/// Of each file its cases.
pub(crate) const ALL: [&[Case]; 6] =
    [codec::CASES, routing::CASES, retained::CASES, delivery::CASES, turn::CASES, log::CASES];

/// Of a usual length: 28 bytes in five levels.
const TOPIC: &str = "site/7/device/23/temperature";
const PAYLOAD: [u8; 64] = [b'x'; 64];

/// The packet id of the delivery or publication that is counted so: 1 to 65,535 and again from 1.
fn packet_id(count: u32) -> PacketId {
    PacketId::new((count % 65_535 + 1) as u16).expect("not 0")
}

/// PUBLISH of [`TOPIC`] and [`PAYLOAD`].
fn publish_bytes(version: ProtocolVersion, qos: QoS, topic: &str, id: PacketId) -> Vec<u8> {
    use crate::protocol::encode::{self, PublishHeader, PublishPropertiesOut};
    let packet_id = (qos != QoS::AtMostOnce).then_some(id);
    let header = PublishHeader { dup: false, qos, retain: false, topic, packet_id };
    let mut out = Vec::new();
    encode::publish(&mut out, version, &header, &PublishPropertiesOut::NONE, &PAYLOAD);
    out
}

/// Numbers in no order, the same in every run.
struct Shuffled(u64);

impl Shuffled {
    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end as u64) as usize
    }
}
