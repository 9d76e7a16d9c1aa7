//! QoS 2 from publishers to the broker.

use std::collections::HashMap;

use super::{Analysis, Violation, delivery};
use crate::history::{ConnId, Index, What};
use crate::mqtt::{Packet, short};

/// I11, the table of inbound QoS 2 ([MQTT-4.3.3-2]), on one connection, across connections and across kills:
///
/// - (a) the same id again before PUBREL is answered and is no second message, whatever DUP says;
/// - (b) the same id after PUBCOMP is a new message and delivered;
/// - (c) a message first seen with DUP is delivered;
/// - (d) PUBREL for an unknown id is answered with PUBCOMP.
pub(super) fn i11_inbound_qos2(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = twice(a);
    for (subscription, message) in delivery::lost(a) {
        let (subscription, message) = (&a.subscriptions[subscription], &a.messages[message]);
        if message.publish.qos != 2 {
            continue;
        }
        let name = short(&message.publish.payload);
        let text = if message.publish.dup {
            format!("(c) \"{name}\" is lost: its first PUBLISH said DUP")
        } else if message.is_id_reused {
            format!("(b) \"{name}\" is lost: its id {} had been used before", message.publish.id)
        } else {
            continue;
        };
        let at = [message.sends[0], message.done.unwrap_or(message.sends[0])];
        violations
            .push(Violation::new("I11", &subscription.client, text, &at).of_topic(&message.publish.topic));
    }
    violations.extend(unanswered(a));
    violations
}

/// (a): the copies of a message that was sent more than once.
fn twice(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut copies: HashMap<_, Vec<Index>> = HashMap::new();
    for (receipt, index, message) in a.deliveries() {
        if message.publish.qos != 2 || message.sends.len() < 2 || !receipt.is_onward {
            continue;
        }
        // At QoS 1 a repetition to the subscriber is right, and says DUP if the broker knows of the first.
        if receipt.publish.qos == 1 && receipt.publish.dup || a.is_forgettable(receipt) {
            continue;
        }
        let copies = copies.entry((&receipt.client, index, receipt.session)).or_default();
        copies.push(receipt.at);
        if copies.len() == 2 {
            let name = short(&message.publish.payload);
            let text = format!("(a) \"{name}\" was sent {} times and came twice", message.sends.len());
            let mut at = message.sends.clone();
            at.extend(copies.iter());
            violations
                .push(Violation::new("I11", &receipt.client, text, &at).of_topic(&message.publish.topic));
        }
    }
    violations
}

/// PUBLISHes of QoS 2 and PUBRELs without answer, though the broker has answered a later one of the same kind.
fn unanswered(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut asked: HashMap<(ConnId, bool), Vec<(u16, Index)>> = HashMap::new();
    for (at, event) in a.events.iter().enumerate() {
        match &event.what {
            What::Sent(_, conn, Packet::Publish(publish)) if publish.qos == 2 => {
                asked.entry((*conn, false)).or_default().push((publish.id, at));
            }
            What::Sent(_, conn, Packet::PubRel(id)) => {
                asked.entry((*conn, true)).or_default().push((*id, at));
            }
            What::Received(_, conn, Packet::PubRec(id)) => {
                answer(asked.entry((*conn, false)).or_default(), *id);
            }
            What::Received(_, conn, Packet::PubComp(id)) => {
                answer(asked.entry((*conn, true)).or_default(), *id);
            }
            // A clean end: whatever was asked had time for its answer.
            What::Sent(client, conn, Packet::Disconnect) => {
                for (is_release, letter, name) in [(false, "a", "PUBLISH"), (true, "d", "PUBREL")] {
                    for (id, asked_at) in asked.remove(&(*conn, is_release)).unwrap_or_default() {
                        let text = format!("({letter}) {name} {id} got no answer");
                        violations.push(Violation::new("I11", client, text, &[asked_at, at]));
                    }
                }
            }
            _ => {}
        }
    }
    violations
}

fn answer(asked: &mut Vec<(u16, Index)>, id: u16) {
    if let Some(place) = asked.iter().position(|(waiting, _)| *waiting == id) {
        asked.remove(place);
    }
}
