//! Order of messages and of acknowledgements.

use std::collections::{HashMap, VecDeque};

use super::{Analysis, Violation};
use crate::history::{ConnId, Index, What};
use crate::mqtt::{Packet, short};

/// I6, order ([MQTT-4.6.0-5], [MQTT-4.6.0-6]): messages of one publisher, topic and QoS come first in the order in which
/// they were published, and last as well.
pub(super) fn i6_order(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // Per stream and message: first and last receipt. Messages are numbered in the order of their first sending.
    let mut streams: HashMap<_, HashMap<usize, (Index, Index)>> = HashMap::new();
    for (receipt, index, message) in a.deliveries() {
        if message.is_will || message.publish.payload.is_empty() {
            continue;
        }
        // A new session owes nothing to the order of the one before.
        let session = a.connections.iter().filter(|c| {
            c.client == receipt.client && c.id <= receipt.conn && c.connack.is_some_and(|(_, is_present)| !is_present)
        });
        let key = (&receipt.client, &message.publish.topic, message.publish.qos, session.count());
        let (_, last) = streams.entry(key).or_default().entry(index).or_insert((receipt.at, receipt.at));
        *last = receipt.at;
    }
    let mut streams: Vec<_> = streams.into_iter().collect();
    streams.sort_by(|one, other| one.0.cmp(&other.0));
    for ((client, topic, ..), receipts) in streams {
        let mut receipts: Vec<_> = receipts.into_iter().collect();
        receipts.sort_unstable();
        for (word, at) in [("first", 0), ("last", 1)] {
            let when = |receipt: &(usize, (Index, Index))| if at == 0 { receipt.1.0 } else { receipt.1.1 };
            for pair in receipts.windows(2) {
                if when(&pair[0]) > when(&pair[1]) {
                    let name = |index: usize| short(&a.messages[index].publish.payload);
                    let (earlier, later) = (name(pair[0].0), name(pair[1].0));
                    let text = format!("\"{earlier}\" comes {word} after \"{later}\", which was published later");
                    let violation = Violation::new("I6", client, text, &[when(&pair[1]), when(&pair[0])]);
                    violations.push(violation.of_topic(topic));
                }
            }
        }
    }
    violations
}

/// I7, order of acknowledgements ([MQTT-4.6.0-2] to [MQTT-4.6.0-4]): on one connection PUBACKs and PUBRECs come in the order
/// of their PUBLISHes, and PUBRELs in the order of the PUBRECs.
pub(super) fn i7_acknowledgement_order(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut asked: HashMap<(ConnId, &'static str), VecDeque<(u16, Index)>> = HashMap::new();
    for (at, event) in a.events.iter().enumerate() {
        match &event.what {
            What::Sent(_, conn, Packet::Publish(publish)) => {
                let kind = if publish.qos == 1 { "PUBACK" } else { "PUBREC" };
                asked.entry((*conn, kind)).or_default().push_back((publish.id, at));
            }
            What::Sent(_, conn, Packet::PubRec(id)) => {
                asked.entry((*conn, "PUBREL")).or_default().push_back((*id, at));
            }
            What::Received(client, conn, packet) => {
                let (kind, id) = match packet {
                    Packet::PubAck(id) => ("PUBACK", id),
                    Packet::PubRec(id) => ("PUBREC", id),
                    Packet::PubRel(id) => ("PUBREL", id),
                    _ => continue,
                };
                let Some(asked) = asked.get_mut(&(*conn, kind)) else { continue };
                let Some(place) = asked.iter().position(|(waiting, _)| waiting == id) else { continue };
                if place > 0 {
                    let text = format!("{kind} {id} comes before {kind} {}, which was due earlier", asked[0].0);
                    violations.push(Violation::new("I7", client, text, &[asked[0].1, asked[place].1, at]));
                }
                asked.drain(..=place);
            }
            _ => {}
        }
    }
    violations
}
