//! Wills: how often, by how the connection ended.

use std::collections::BTreeSet;

use super::facts::Connection;
use super::{Analysis, Violation};
use crate::history::Index;
use crate::mqtt::{matches, short};

/// Whether the will of a connection is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Not at all.
    Never,
    /// Once or not at all, not before this.
    Perhaps(Index),
    /// Once.
    Surely {
        /// Not before this.
        from: Index,
        /// And by this, if the history says.
        by: Option<Index>,
    },
}

/// What becomes of the will of a connection (table 4.3).
///
/// - DISCONNECT, and the broker closed: never.
/// - DISCONNECT without seeing the end: perhaps.
/// - Cut, or taken over: surely; by the time the client id has its next CONNACK.
/// - The broker died: surely, before it listens again.
///
/// Where the broker dies, the will must have been stored: it is stored with the next batch of the log and holds no
/// CONNACK, so it is certain from the first acknowledgement on that the broker gave to a message which reached it after the
/// CONNACK. Otherwise: perhaps.
pub(super) fn fate(a: &Analysis<'_>, connection: &Connection) -> Fate {
    let Some((connack, _)) = connection.connack else { return Fate::Perhaps(connection.connect) };
    // What the broker said last is read after it has died.
    let killed = a.kills.iter().copied().find(|kill| *kill > connection.connect).unwrap_or(usize::MAX);
    let end = connection.end();
    if let Some(disconnect) = connection.disconnect {
        let has_closed = connection.closed.is_some_and(|closed| closed < killed);
        return if has_closed { Fate::Never } else { Fate::Perhaps(disconnect) };
    }
    let successor =
        a.connections.iter().find(|next| next.client == connection.client && next.connect > connack);
    let taken_over = successor.filter(|next| next.connect < end).map_or(usize::MAX, |next| next.connect);
    let from = end.min(killed).min(taken_over);
    if from == usize::MAX {
        // It stands at the end of the history.
        return Fate::Never;
    }
    let next_connack = successor.and_then(|next| next.connack).map(|(at, _)| at);
    if killed < usize::MAX && !is_stored(a, connack, killed) {
        return Fate::Perhaps(from);
    }
    let next_start = a.starts.iter().copied().find(|start| *start > killed);
    Fate::Surely { from, by: next_connack.filter(|at| *at < killed).or(next_start) }
}

/// Whether the broker has acknowledged, in this time, a message that had to be stored and was sent in this time.
fn is_stored(a: &Analysis<'_>, from: Index, to: Index) -> bool {
    a.messages.iter().any(|message| {
        let is_durable = message.publish.retain
            || a.subscriptions.iter().any(|s| {
                let is_sure = s.sure.iter().any(|(since, until)| *since < from && to < *until);
                is_sure && !s.is_clean && matches(&s.filter, &message.publish.topic)
            });
        message.sends[0] > from
            && message.acked.is_some_and(|acked| acked < to)
            && is_durable
            && !message.is_will
    })
}

/// I13, wills ([MQTT-3.1.2-8], [MQTT-3.1.2-10], [MQTT-3.1.2-12], [MQTT-3.14.4-3]): each will comes as often as the end of its
/// connection says, with its topic, payload and QoS. Repetitions to the watcher with the same id are the watcher's matter
/// (I5).
pub(super) fn i13_wills(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (index, message) in a.messages.iter().enumerate().filter(|(_, message)| message.is_will) {
        let Some(connection) = a.connections.iter().find(|connection| connection.connect == message.sends[0])
        else {
            continue;
        };
        let fate = fate(a, connection);
        let (least, most) = match fate {
            Fate::Never => (0, 0),
            Fate::Perhaps(_) => (0, 1),
            Fate::Surely { .. } => (1, 1),
        };
        let watchers = a.subscriptions.iter().filter(|subscription| {
            !subscription.is_clean
                && matches(&subscription.filter, &message.publish.topic)
                && subscription.sure.iter().any(|(from, to)| *from <= connection.connect && *to == usize::MAX)
        });
        for watcher in watchers {
            let receipts = a.receipts.iter().filter(|receipt| {
                receipt.client == watcher.client && receipt.message == Some(index) && !receipt.publish.retain
            });
            // Each publication comes with an id of its own. One that was forgotten in a crash is made up for.
            let certain = receipts.clone().filter(|receipt| !a.is_forgettable(receipt));
            let ids: BTreeSet<u16> = certain.map(|receipt| receipt.publish.id).collect();
            let onward = receipts.clone().filter(|receipt| receipt.is_onward).count();
            let is_qos2 = watcher.qos.min(message.publish.qos) == 2;
            let count = if is_qos2 { onward } else { ids.len().max(onward.min(1)) };
            if count < least || count > most {
                let name = short(&message.publish.payload);
                let text =
                    format!("the will \"{name}\" came {count} times; its connection ended so: {fate:?}");
                let mut at = vec![connection.connect];
                at.extend([connection.disconnect, connection.cut, connection.closed].iter().flatten());
                at.extend(receipts.map(|receipt| receipt.at));
                violations
                    .push(Violation::new("I13", &watcher.client, text, &at).of_topic(&message.publish.topic));
            }
        }
    }
    violations
}
