//! How often a message is delivered.

use std::collections::{BTreeSet, HashMap};

use super::{Analysis, Violation};
use crate::check::facts::{Message, Receipt};
use crate::history::{Index, What};
use crate::mqtt::{Packet, short};

/// I4, QoS 2 once ([MQTT-4.3.3-1], [MQTT-4.3.3-2]): a message of QoS 2 goes on to the application of a subscriber once. A
/// PUBLISH whose id the receiver has not seen released is a repetition and does not go on.
///
/// The filters of one session do not overlap here; copies for overlapping ones would be allowed (section 3.3.5).
pub(super) fn i4_qos2_once(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut copies: HashMap<_, Vec<Index>> = HashMap::new();
    for receipt in a.receipts.iter().filter(|r| r.publish.qos == 2 && r.is_onward && !r.publish.retain) {
        let payload = &receipt.publish.payload;
        if payload.is_empty() {
            continue;
        }
        let copies = copies.entry((&receipt.client, receipt.session, payload)).or_default();
        copies.push(receipt.at);
        let is_old = a.before.received.contains(&(receipt.client.clone(), payload.clone()));
        if copies.len() == 2 || is_old {
            let text = format!("\"{}\" of QoS 2 goes on to the application again", short(payload));
            let violation = Violation::new("I4", &receipt.client, text, copies);
            violations.push(violation.of_topic(&receipt.publish.topic));
        }
    }
    violations
}

/// I5, QoS 1 repeats justified ([MQTT-3.3.1-1], [MQTT-3.3.1-3], [MQTT-4.4.0-1]):
///
/// - on one connection a message comes once for every time it was published;
/// - what is sent again on a later connection says DUP and keeps its id, unless the broker may have forgotten it;
/// - it is not sent again once the broker has read the PUBACK, unless the broker died since;
/// - DUP at the first receipt only if it may have been sent on an earlier connection.
pub(super) fn i5_repeats_justified(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut receipts: HashMap<_, Vec<&Receipt>> = HashMap::new();
    let mut order = Vec::new();
    for (receipt, index, _) in a.deliveries().filter(|(receipt, ..)| !receipt.publish.payload.is_empty()) {
        let key = (&receipt.client, index, receipt.session);
        let entry = receipts.entry(key).or_default();
        if entry.is_empty() {
            order.push(key);
        }
        entry.push(receipt);
    }
    for key in order {
        let (receipts, message) = (&receipts[&key], &a.messages[key.1]);
        let mut complain = |text: &str, at: &[Index]| {
            let text = format!("\"{}\" {text}", short(&message.publish.payload));
            violations.push(Violation::new("I5", key.0, text, at).of_topic(&message.publish.topic));
        };
        let all: Vec<Index> = receipts.iter().map(|receipt| receipt.at).collect();
        if has_early_dup(a, receipts[0], message) {
            complain("says DUP though it cannot have been sent before", &all[..1]);
        }
        if receipts[0].publish.qos != 1 {
            continue;
        }
        if let Some(at) = repeat_on_connection(receipts, message) {
            complain("comes again on the same connection", &at);
        }
        let forgotten = receipts.iter().filter(|receipt| a.is_forgettable(receipt));
        let forgotten: BTreeSet<usize> = forgotten.map(|receipt| receipt.epoch).collect();
        let sends = instances(message, usize::MAX) + forgotten.len();
        if receipts.iter().filter(|receipt| !receipt.publish.dup).count() > sends {
            complain("is sent again without DUP", &all);
        }
        if receipts.iter().map(|receipt| receipt.publish.id).collect::<BTreeSet<_>>().len() > sends {
            complain("is sent again with another id", &all);
        }
        if sends == 1
            && let Some(at) = repeat_after_acknowledgement(a, receipts)
        {
            complain("is sent again though its PUBACK was read and the broker lived on", &at);
        }
    }
    for receipt in
        a.receipts.iter().filter(|r| r.publish.qos == 1 && !r.publish.retain && r.message.is_none())
    {
        if a.members.contains(&receipt.client) {
            continue;
        }
        let payload = &receipt.publish.payload;
        let is_old = a.before.received.contains(&(receipt.client.clone(), payload.clone()));
        let is_excused = receipt.publish.dup && a.kills.iter().any(|kill| *kill < receipt.at);
        if is_old && !is_excused && !payload.is_empty() {
            let text = format!("\"{}\" of an earlier round comes again", short(payload));
            let violation = Violation::new("I5", &receipt.client, text, &[receipt.at]);
            violations.push(violation.of_topic(&receipt.publish.topic));
        }
    }
    violations
}

/// How often the message was published until then: at QoS 2 a repetition is none.
fn instances(message: &Message, until: Index) -> usize {
    if message.publish.qos == 2 || message.is_will {
        1
    } else {
        message.sends.iter().filter(|at| **at < until).count().max(1)
    }
}

fn repeat_on_connection(receipts: &[&Receipt], message: &Message) -> Option<Vec<Index>> {
    receipts.iter().find_map(|last| {
        let same = receipts.iter().filter(|receipt| receipt.conn == last.conn && receipt.at <= last.at);
        let at: Vec<Index> = same.map(|receipt| receipt.at).collect();
        (at.len() > instances(message, last.at)).then_some(at)
    })
}

/// The broker must have had an earlier connection of the receiver when the message was first sent.
fn has_early_dup(a: &Analysis<'_>, first: &Receipt, message: &Message) -> bool {
    first.publish.dup
        && !a.connections.iter().any(|connection| {
            connection.client == first.client
                && connection.id < first.conn
                && a.broker_end(connection) > message.sends[0]
        })
}

fn repeat_after_acknowledgement(a: &Analysis<'_>, receipts: &[&Receipt]) -> Option<Vec<Index>> {
    receipts.windows(2).find_map(|pair| {
        let (first, again) = (pair[0], pair[1]);
        if a.kills.iter().any(|kill| first.at < *kill && *kill < again.at) {
            return None;
        }
        // PUBACK, then PINGREQ, then PINGRESP on the connection of the first receipt.
        let mut step = 0;
        let mut at = vec![first.at];
        for (offset, event) in a.events[first.at..again.at].iter().enumerate() {
            step = match (&event.what, step) {
                (What::Sent(_, conn, Packet::PubAck(id)), 0)
                    if *conn == first.conn && *id == first.publish.id =>
                {
                    at.push(first.at + offset);
                    1
                }
                (What::Sent(_, conn, Packet::PingReq), 1) if *conn == first.conn => 2,
                (What::Received(_, conn, Packet::PingResp), 2) if *conn == first.conn => {
                    at.push(first.at + offset);
                    at.push(again.at);
                    return Some(at);
                }
                _ => step,
            };
        }
        None
    })
}
