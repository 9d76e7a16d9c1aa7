//! Order of messages and of acknowledgements.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::facts::NEVER;
use super::{Analysis, Violation};
use crate::history::{ConnId, Index, What};
use crate::mqtt::{Packet, matches, short};

/// I6, order ([MQTT-4.6.0-5], [MQTT-4.6.0-6]): messages of one publisher, topic and QoS come first in the order in which
/// they were published, and last as well.
///
/// A message that was sent first without the subscription has no place in its order, if it was sent again.
///
/// The order of last receipts is asked only of subscriptions that stand to the end, in their client's last session: of others the
/// end of a repetition may be missing.
pub(super) fn i6_order(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // Per stream and message: first and last receipt. Messages are numbered in the order of their first sending.
    let mut streams: BTreeMap<_, BTreeMap<usize, [Index; 2]>> = BTreeMap::new();
    for (receipt, index, message) in a.deliveries() {
        if message.is_will || message.publish.payload.is_empty() {
            continue;
        }
        // A new session owes nothing to the order of the one before.
        let key = (&receipt.client, &message.publish.topic, message.publish.qos, receipt.session);
        streams.entry(key).or_default().entry(index).or_insert([receipt.at; 2])[1] = receipt.at;
    }
    for ((client, topic, _, session), mut receipts) in streams {
        // What was sent before the subscription stood and again afterwards comes when it comes.
        receipts.retain(|index, [first, _]| {
            let message = &a.messages[*index];
            message.sends.len() == 1 || a.is_covered(client, message, *first)
        });
        let since = a.subscriptions.iter().filter_map(|subscription| {
            let (from, end) = *subscription.sure.last()?;
            let stands = !subscription.is_clean && end == NEVER;
            (stands && subscription.client == *client && matches(&subscription.filter, topic)).then_some(from)
        });
        // Of a session that was given up as well.
        let is_last = a.last_sessions.get(client).copied().unwrap_or(0) == session;
        let since = since.min().filter(|_| is_last);
        let receipts: Vec<_> = receipts.into_iter().collect();
        for (word, which) in [("first", 0), ("last", 1)] {
            for pair in receipts.windows(2) {
                let (earlier, later) = (&pair[0], &pair[1]);
                let stood = since.is_some_and(|since| since <= earlier.1[0].min(later.1[0]));
                if which == 1 && !stood {
                    continue;
                }
                if earlier.1[which] > later.1[which] {
                    let name = |index: usize| short(&a.messages[index].publish.payload);
                    let (one, other) = (name(earlier.0), name(later.0));
                    let text = format!("\"{one}\" comes {word} after \"{other}\", which was published later");
                    let violation = Violation::new("I6", client, text, &[later.1[which], earlier.1[which]]);
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
            What::Sent(_, conn, Packet::Publish(publish)) if publish.qos > 0 => {
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
                    let text =
                        format!("{kind} {id} comes before {kind} {}, which was due earlier", asked[0].0);
                    violations.push(Violation::new("I7", client, text, &[asked[0].1, asked[place].1, at]));
                }
                asked.drain(..=place);
            }
            _ => {}
        }
    }
    violations
}
