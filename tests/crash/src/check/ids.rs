//! Packet ids, and what happens to them when a session goes on.

use std::collections::HashMap;
use std::rc::Rc;

use super::facts::Receipt;
use super::{Analysis, Violation};
use crate::history::{Client, ConnId, Index, What};
use crate::mqtt::{Packet, Publish, short};

/// I8, ids ([MQTT-2.3.1-1], [MQTT-2.3.1-2], [MQTT-2.3.1-4]): no packet id is 0, and no two unfinished messages of a
/// session share one, on whatever connections they came. A message is unfinished until its receiver sends PUBACK or PUBCOMP.
/// (What a member of a group has not answered may have gone to another one, and its id with it.)
pub(super) fn i8_ids(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut bound: HashMap<&Client, HashMap<u16, &Receipt>> = HashMap::new();
    let receipts: HashMap<Index, &Receipt> = a.receipts.iter().map(|receipt| (receipt.at, receipt)).collect();
    for (at, event) in a.events.iter().enumerate() {
        match &event.what {
            what if a.starts_anew(what) => {
                if let Some((client, _)) = what.client() {
                    bound.remove(client);
                }
            }
            What::Received(client, _, Packet::Publish(publish))
                if publish.qos > 0 && !a.members.contains(client) =>
            {
                let bound = bound.entry(client).or_default();
                if publish.id == 0 {
                    let violation = Violation::new("I8", client, "packet id 0".to_owned(), &[at]);
                    violations.push(violation.of_topic(&publish.topic));
                }
                let new = receipts[&at];
                if let Some(other) = bound.insert(publish.id, new)
                    && (&other.publish.payload, &other.publish.topic) != (&publish.payload, &publish.topic)
                    && !(other.epoch < new.epoch && a.is_forgettable(other))
                {
                    let (new, old) = (short(&publish.payload), short(&other.publish.payload));
                    let text =
                        format!("\"{new}\" has the id {} of \"{old}\", which is unfinished", publish.id);
                    let violation = Violation::new("I8", client, text, &[other.at, at]);
                    violations.push(violation.of_topic(&publish.topic));
                }
            }
            What::Sent(client, _, Packet::PubAck(id) | Packet::PubComp(id)) => {
                if let Some(bound) = bound.get_mut(client) {
                    bound.remove(id);
                }
            }
            _ => {}
        }
    }
    violations
}

/// How far the receiver is with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Received and not answered.
    Received,
    /// PUBREC sent.
    Recorded,
    /// PUBREL received.
    Released,
}

#[derive(Clone, Debug)]
struct Unfinished<'a> {
    publish: &'a Publish,
    /// The last receipt.
    receipt: &'a Receipt,
    since: Index,
    state: State,
    seen_on: ConnId,
}

/// I9, resume ([MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-4.3.3-1], [MQTT-2.3.1-3]): when a session goes on,
///
/// - what the receiver has not answered is sent again with DUP and its id, in the old order, before newer messages of its
///   topic and QoS;
/// - after PUBREL was received no PUBLISH has that id until PUBCOMP;
/// - at the end of the round nothing is left unfinished: every PUBLISH and every PUBREL was sent again in time.
pub(super) fn i9_resume(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut sessions: HashMap<&Client, Vec<Unfinished<'_>>> = HashMap::new();
    // When each delivery came first: an answer that was lost with its connection brings it back to its old place.
    // Payloads tell messages apart, but for empty ones, so a new session begins with none.
    let mut first: HashMap<&Client, HashMap<(u16, &str, &str), Index>> = HashMap::new();
    let receipts: HashMap<Index, &Receipt> = a.receipts.iter().map(|receipt| (receipt.at, receipt)).collect();
    for (at, event) in a.events.iter().enumerate() {
        let Some((client, conn)) = event.what.client() else { continue };
        match &event.what {
            what if a.starts_anew(what) => {
                sessions.remove(client);
                first.remove(client);
            }
            What::Received(_, _, Packet::ConnAck { present: true, .. }) => {
                let epoch =
                    a.connections.iter().find(|c| c.id == conn).map_or(0, |connection| connection.epoch);
                let session = sessions.entry(client).or_default();
                session.retain(|old| old.receipt.epoch == epoch || !a.is_forgettable(old.receipt));
            }
            What::Received(_, _, Packet::Publish(publish))
                if publish.qos > 0 && !a.members.contains(client) =>
            {
                let receipt = receipts[&at];
                let session = sessions.entry(client).or_default();
                let first = first.entry(client).or_default();
                let key = (publish.id, &*publish.topic, &*publish.payload);
                // One that the broker has forgotten may come anew and, by chance, with the same id.
                let known = first.get(&key).and_then(|first| receipts.get(first));
                if !publish.dup && known.is_some_and(|old| old.epoch < receipt.epoch && a.is_forgettable(old))
                {
                    first.remove(&key);
                }
                let is_first = !first.contains_key(&key);
                let message = receipt.message.filter(|_| is_first);
                for text in judge_publish(a, session, publish, message, conn) {
                    let since = session.iter().find(|u| u.publish.id == publish.id).map(|u| u.since);
                    let at = [since.unwrap_or(at), at];
                    violations.push(Violation::new("I9", client, text, &at).of_topic(&publish.topic));
                }
                match session.iter_mut().find(|u| u.publish.id == publish.id) {
                    Some(known) if known.publish.payload == publish.payload => {
                        (known.seen_on, known.receipt) = (conn, receipt);
                    }
                    _ => {
                        session.retain(|unfinished| unfinished.publish.id != publish.id);
                        let state = State::Received;
                        let since = *first.entry(key).or_insert(at);
                        let place = session.partition_point(|other| other.since < since);
                        session.insert(place, Unfinished { publish, receipt, since, state, seen_on: conn });
                    }
                }
            }
            What::Received(_, _, Packet::PubRel(id)) => advance(&mut sessions, client, *id, State::Released),
            What::Sent(_, _, Packet::PubRec(id)) => advance(&mut sessions, client, *id, State::Recorded),
            What::Sent(_, _, Packet::PubAck(id)) => finish(&mut sessions, client, *id, 1),
            What::Sent(_, _, Packet::PubComp(id)) => finish(&mut sessions, client, *id, 2),
            _ => {}
        }
    }
    let is_persistent = |client: &Client| {
        a.connections.iter().rfind(|connection| connection.client == *client).is_some_and(|c| !c.is_clean)
    };
    let mut sessions: Vec<_> = sessions.into_iter().filter(|(client, _)| is_persistent(client)).collect();
    sessions.sort_by_key(|(client, _)| Rc::clone(client));
    for (client, session) in sessions {
        for unfinished in session {
            let word = match unfinished.state {
                State::Received => "PUBLISH was never sent again",
                State::Recorded => "PUBREL never came",
                // It is the receiver that has not sent PUBCOMP, and PUBREL that has to come again.
                State::Released => "PUBREL was never sent again",
            };
            let publish = unfinished.publish;
            let text =
                format!("\"{}\", id {}, is left unfinished: {word}", short(&publish.payload), publish.id);
            let violation = Violation::new("I9", client, text, &[unfinished.since]);
            violations.push(violation.of_topic(&publish.topic));
        }
    }
    violations
}

fn advance(sessions: &mut HashMap<&Client, Vec<Unfinished<'_>>>, client: &Client, id: u16, state: State) {
    let session = sessions.get_mut(client).into_iter().flatten();
    for unfinished in session.filter(|u| u.publish.id == id && u.publish.qos == 2) {
        if unfinished.state != State::Released {
            unfinished.state = state;
        }
    }
}

fn finish(sessions: &mut HashMap<&Client, Vec<Unfinished<'_>>>, client: &Client, id: u16, qos: u8) {
    if let Some(session) = sessions.get_mut(client) {
        session.retain(|unfinished| unfinished.publish.id != id || unfinished.publish.qos != qos);
    }
}

/// What is wrong with this PUBLISH, seen from what is unfinished. `message` is none if it came before: then it is no newer
/// than anything.
fn judge_publish(
    a: &Analysis<'_>,
    session: &[Unfinished<'_>],
    publish: &Publish,
    message: Option<usize>,
    conn: ConnId,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let name = short(&publish.payload);
    let is_sent_again = |old: &Unfinished<'_>| {
        old.receipt.message.is_some_and(|m| a.messages[m].sends.len() > 1 && publish.qos == 1)
    };
    for (place, old) in session.iter().enumerate() {
        // Deletions of retained messages are told apart by their ids alone.
        let is_told_apart = !publish.payload.is_empty() || old.publish.id == publish.id;
        // What a subscription brings because it is retained is another delivery than the live one.
        let is_same = is_told_apart
            && old.publish.retain == publish.retain
            && old.publish.payload == publish.payload
            && old.publish.topic == publish.topic;
        let is_waiting = old.state == State::Received && old.seen_on != conn;
        if is_same && old.publish.id == publish.id {
            if old.state == State::Released {
                wrong.push(format!("\"{name}\" is sent again after PUBREL {}", publish.id));
            }
            if old.seen_on != conn && !publish.dup {
                wrong.push(format!("\"{name}\" is sent again without DUP"));
            }
            let overtaken = session[..place].iter().find(|older| {
                older.state == State::Received && older.seen_on != conn && old.state == State::Received
            });
            if is_waiting && let Some(overtaken) = overtaken {
                let other = short(&overtaken.publish.payload);
                wrong.push(format!("\"{name}\" is sent again before \"{other}\", which was sent earlier"));
            }
        } else if is_same && !is_sent_again(old) {
            let (new, old) = (publish.id, old.publish.id);
            wrong.push(format!("\"{name}\" is sent again with id {new} instead of {old}"));
        } else if !is_same && old.publish.id == publish.id && old.state == State::Released {
            let other = short(&old.publish.payload);
            wrong.push(format!(
                "\"{name}\" has id {} of \"{other}\", of which PUBCOMP is not sent",
                publish.id
            ));
        } else if !is_same && is_waiting && is_newer(a, message, old) && old.publish.qos == publish.qos {
            let other = short(&old.publish.payload);
            wrong.push(format!("\"{name}\" comes before \"{other}\", which is older, is sent again"));
        }
    }
    wrong
}

/// Both of one publisher and topic, and `message` published later than `old` was published last.
fn is_newer(a: &Analysis<'_>, message: Option<usize>, old: &Unfinished<'_>) -> bool {
    let (Some(message), Some(old)) = (message, old.receipt.message) else { return false };
    let (new, old) = (&a.messages[message], &a.messages[old]);
    new.client == old.client
        && new.publish.topic == old.publish.topic
        && new.publish.qos == old.publish.qos
        && new.sends[0] > old.sends[0]
}
