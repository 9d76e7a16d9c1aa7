//! Whether the broker keeps going.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::facts::Message;
use super::{Analysis, Violation};
use crate::history::{IDLE, What};
use crate::mqtt::short;

/// From CONNECT to CONNACK at most.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// I16, liveness (sections 4.1, 4.8): CONNECT is answered within 5 s; at the end of the round, when every publisher has sent
/// a whole window once more, every message is acknowledged; and the broker never ends by itself.
pub(super) fn i16_liveness(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for connection in &a.connections {
        let at = |index: usize| a.events[index].at;
        let late = match connection.connack {
            Some((connack, _)) => at(connack) - at(connection.connect) > CONNECT_MAX,
            None => {
                let killed = a.kills.iter().any(|kill| *kill > connection.connect);
                let given_up = connection.end().min(a.events.len() - 1);
                !killed && at(given_up) - at(connection.connect) > CONNECT_MAX
            }
        };
        if late {
            let text = "CONNECT is not answered within 5 s".to_owned();
            violations.push(Violation::new("I16", &connection.client, text, &[connection.connect]));
        }
        if connection.connack.is_none()
            && connection.closed.is_some_and(|end| !dies_around(a, connection.connect, end))
        {
            let text = "the broker closed instead of answering CONNECT".to_owned();
            violations.push(Violation::new("I16", &connection.client, text, &[connection.connect]));
        }
    }
    let unfinished = |m: &&Message| !m.is_will && m.publish.qos > 0 && !m.is_abandoned && m.done.is_none();
    for message in a.messages.iter().filter(unfinished) {
        let name = short(&message.publish.payload);
        let text = format!("\"{name}\", id {}, never got its last acknowledgement", message.publish.id);
        let violation = Violation::new("I16", &message.client, text, &message.sends);
        violations.push(violation.of_topic(&message.publish.topic));
    }
    for (at, event) in a.events.iter().enumerate() {
        if let What::Died(text) = &event.what {
            violations.push(Violation::new("I16", &"broker".into(), text.clone(), &[at]));
        }
    }
    violations
}

/// I19, what is owed comes by itself (section 4.4): a message that was acknowledged does not wait
/// until its receiver says something. A receiver that misses something is silent for a long time
/// ([`IDLE`]) and then sends PINGREQ; what comes only after that, and had been acknowledged in the
/// first half of the silence, was held up by nothing but a wake-up that was lost.
pub(super) fn i19_by_itself(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut spoke = HashSet::new();
    let idles = a.events.iter().enumerate().filter_map(|(at, event)| match &event.what {
        What::Idle(client, conn) if spoke.insert(*conn) => Some((at, client, *conn)),
        _ => None,
    });
    let idles: Vec<_> = idles.collect();
    if idles.is_empty() {
        return violations;
    }
    // Of each message: first by one client, and first by anybody, if it is for a group.
    let mut firsts = HashMap::new();
    for receipt in &a.receipts {
        let Some(message) = receipt.message else { continue };
        let client = Some(&receipt.client).filter(|client| !a.members.contains(*client));
        firsts.entry((message, client)).or_insert(receipt);
    }
    for (idle, client, conn) in idles {
        let key = Some(client).filter(|client| !a.members.contains(*client));
        for (index, message) in a.messages.iter().enumerate() {
            let Some(acked) = message.acked else { continue };
            let is_due = a.events[acked].at + IDLE / 2 <= a.events[idle].at;
            let Some(first) = firsts.get(&(index, key)) else { continue };
            if is_due && first.at > idle && first.conn == conn {
                let name = short(&message.publish.payload);
                let text =
                    format!("\"{name}\" had been acknowledged, and came only after the receiver had spoken");
                let at = [message.sends[0], acked, idle, first.at];
                let violation = Violation::new("I19", client, text, &at);
                violations.push(violation.of_topic(&message.publish.topic));
            }
        }
    }
    violations
}

/// Whether the broker died between CONNECT and what the client saw of it, or just before.
fn dies_around(a: &Analysis<'_>, connect: usize, end: usize) -> bool {
    let alive_since = a.starts.iter().rfind(|start| **start < connect).copied().unwrap_or(0);
    a.kills.iter().any(|kill| alive_since < *kill && *kill < end)
}
