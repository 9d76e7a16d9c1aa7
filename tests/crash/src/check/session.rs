//! Sessions: whether they are there, whether they are gone, who has them.

use std::collections::HashMap;

use super::facts::Presence;
use super::{Analysis, Violation, delivery};
use crate::history::{Index, What};
use crate::mqtt::{Packet, matches, short};

/// I10, session present ([MQTT-3.2.2-1] to [MQTT-3.2.2-3], [MQTT-3.1.2-4]): CONNACK says 1 exactly if a session was
/// acknowledged before and not ended since, whatever happened to the broker. And its subscriptions stand from the first
/// connection on that the broker accepts: what is acknowledged before the session's owner is back is queued for it.
pub(super) fn i10_session_present(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for connection in &a.connections {
        let Some((at, is_present)) = connection.connack else { continue };
        let expected = match connection.expected {
            _ if connection.is_clean => false,
            Presence::Present => true,
            Presence::Absent => false,
            Presence::Unknown => continue,
        };
        if is_present != expected {
            let wrong =
                if expected { "a session that was acknowledged is gone" } else { "there can be no session" };
            let text = format!("session present is {}: {wrong}", u8::from(is_present));
            violations.push(Violation::new("I10", &connection.client, text, &[connection.connect, at]));
        }
    }
    for (s, m) in delivery::lost(a) {
        let (subscription, message) = (&a.subscriptions[s], &a.messages[m]);
        let (sent, done) = (message.sends[0], message.done.unwrap_or(usize::MAX));
        let Some(start) = a.starts.iter().rfind(|start| **start < sent) else { continue };
        let was_there = a.connections.iter().any(|connection| {
            connection.client == subscription.client
                && connection.connack.is_some_and(|(at, _)| *start < at && at < done)
        });
        if !subscription.is_clean && !was_there {
            let text = format!(
                "\"{}\" was acknowledged after a restart and before the client was back, and is not queued for it",
                short(&message.publish.payload)
            );
            let violation = Violation::new("I10", &subscription.client, text, &[*start, sent, done]);
            violations.push(violation.of_topic(&message.publish.topic));
        }
    }
    violations
}

/// I15, clean session ([MQTT-3.1.2-6]): after CONNACK to a CONNECT with clean session nothing of the session before comes
/// back: no message of its subscriptions, not the session itself, not after a crash either.
pub(super) fn i15_clean_session(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    // The last clean CONNACK of each client.
    let mut cleaned: HashMap<_, Index> = HashMap::new();
    for connection in &a.connections {
        let Some((at, is_present)) = connection.connack else { continue };
        if connection.is_clean {
            cleaned.insert(&connection.client, at);
        }
        if is_present
            && connection.expected == Presence::Absent
            && let Some(since) = cleaned.get(&connection.client)
        {
            let text = "a session is back that a clean one had ended".to_owned();
            violations.push(Violation::new(
                "I15",
                &connection.client,
                text,
                &[*since, connection.connect, at],
            ));
        }
    }
    for (receipt, _, message) in a.deliveries() {
        let clean = a.connections.iter().rfind(|connection| {
            connection.client == receipt.client
                && connection.is_clean
                && connection.connack.is_some_and(|(at, _)| at < receipt.at)
        });
        let Some((since, _)) = clean.and_then(|connection| connection.connack) else { continue };
        let was_subscribed = a.subscriptions.iter().any(|subscription| {
            subscription.client == receipt.client
                && subscription.possible.1 <= since
                && matches(&subscription.filter, &message.publish.topic)
        });
        if was_subscribed && !a.may(&receipt.client, message, receipt.at) {
            let payload = short(&message.publish.payload);
            let text =
                format!("\"{payload}\" comes by a subscription of a session that a clean one had ended");
            let violation = Violation::new("I15", &receipt.client, text, &[since, receipt.at]);
            violations.push(violation.of_topic(&receipt.publish.topic));
        }
    }
    violations
}

/// I18, take-over ([MQTT-3.1.4-2]): when a client id has got CONNACK on a new connection, its older one is closed, and the
/// broker answers nothing on it.
pub(super) fn i18_take_over(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (place, new) in a.connections.iter().enumerate() {
        let Some((connack, _)) = new.connack else { continue };
        let older =
            a.connections[..place].iter().filter(|old| old.client == new.client && old.connack.is_some());
        for old in older {
            if old.end() == usize::MAX {
                let text = format!("connection {} is left open beside its successor {}", old.id, new.id);
                violations.push(Violation::new("I18", &new.client, text, &[old.connect, connack]));
            }
            if old.end() < connack {
                continue;
            }
            // Answers to what was asked before may still come.
            let mut due = 0;
            let answered = a.events.iter().enumerate().skip(old.connect).find(|(at, event)| {
                match &event.what {
                    What::Sent(_, conn, Packet::PingReq) if *conn == old.id && *at < connack => due += 1,
                    What::Received(_, conn, Packet::PingResp) if *conn == old.id => due -= 1,
                    _ => {}
                }
                due < 0
            });
            if let Some((at, _)) = answered {
                let text =
                    format!("connection {} is answered after its successor {} was accepted", old.id, new.id);
                violations.push(Violation::new("I18", &new.client, text, &[old.connect, connack, at]));
            }
        }
    }
    violations
}
