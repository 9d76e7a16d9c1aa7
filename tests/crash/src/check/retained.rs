//! Retained messages as a register per topic, with one writer each.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::wills::{self, Fate};
use super::{Analysis, Violation};
use crate::history::{Client, ConnId, Index, What};
use crate::mqtt::{Packet, matches, short};

/// A value a topic had, or may have had.
#[derive(Clone, Debug)]
struct Write {
    /// None: deleted.
    value: Option<Rc<str>>,
    /// It has not taken effect before this.
    sent: Index,
    /// It has taken effect by this, if ever.
    done: Option<Index>,
    /// Every sending: at QoS 1 each may take effect.
    sends: Vec<Index>,
    /// Which life of the broker acknowledged it first.
    acked_epoch: Option<usize>,
    /// A will: written by the broker itself.
    is_will: bool,
}

/// What a reader found.
#[derive(Debug)]
struct Read {
    client: Client,
    value: Option<Rc<str>>,
    /// SUBSCRIBE.
    from: Index,
    /// The message, or the moment when it was clear that none comes.
    to: Index,
    /// From which life of the broker.
    epoch: usize,
}

/// I12, the retained register ([MQTT-3.3.1-5] to [MQTT-3.3.1-12]): what a new subscription finds is explained by some
/// order of the writes. One writer per topic makes that a comparison of intervals: a write is hidden from the moment a later
/// one is acknowledged, an unacknowledged one may take effect at any moment or never, and once a write was seen no older
/// one comes back (unless it is sent again, or the one seen was unacknowledged when the broker died). An empty payload
/// deletes. Messages of new subscriptions carry RETAIN, live ones do not.
///
/// A topic to which wills are written counts here too; a will that is missing there is reported as I13.
pub(super) fn i12_retained_register(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = flags(a);
    let writes = writes(a);
    for (topic, reads) in reads(a) {
        let empty = Vec::new();
        let writes = writes.get(&topic).unwrap_or(&empty);
        let mut seen: Option<(usize, Index, usize)> = None;
        for read in reads {
            let name = |value: &Option<Rc<str>>| match value {
                Some(value) => format!("\"{}\"", short(value)),
                None => "nothing".to_owned(),
            };
            let hidden_by = writes.iter().rposition(|write| write.done.is_some_and(|done| done < read.from));
            let legal = (0..writes.len())
                .filter(|index| hidden_by.is_none_or(|hidden| hidden <= *index))
                .rfind(|index| writes[*index].value == read.value && writes[*index].sent < read.to);
            let Some(index) = legal else {
                let text = format!("a reader finds {} in {topic}", name(&read.value));
                let (invariant, text, mut at) = match hidden_by {
                    Some(hidden) => {
                        let write = &writes[hidden];
                        let invariant = if write.is_will { "I13" } else { "I12" };
                        let text = format!("{text}, but {} was acknowledged before", name(&write.value));
                        (invariant, text, vec![write.sent, write.done.unwrap_or(write.sent)])
                    }
                    None => ("I12", format!("{text}, which it cannot have"), Vec::new()),
                };
                at.extend([read.from, read.to]);
                violations.push(Violation::new(invariant, &read.client, text, &at).of_topic(&topic));
                continue;
            };
            // The newest write that explains the value is taken, so this only ever errs for the broker.
            if let Some((newer, when, epoch)) = seen
                && index < newer
                && when < read.from
                && !comes_back(&writes[index], &writes[newer], epoch, &read)
            {
                let (new, old) = (name(&writes[newer].value), name(&read.value));
                let text = format!("a reader finds {old} in {topic} after another one found {new}");
                let violation = Violation::new("I12", &read.client, text, &[when, read.from, read.to]);
                violations.push(violation.of_topic(&topic));
            }
            if seen.is_none_or(|(newer, ..)| newer <= index) {
                seen = Some((index, read.to, read.epoch));
            }
        }
    }
    violations
}

/// Whether an older value may be found after a newer one was, in this life of the broker.
fn comes_back(older: &Write, newer: &Write, epoch: usize, read: &Read) -> bool {
    let is_sent_again = older.sends.iter().skip(1).any(|at| *at < read.to);
    let is_acknowledged = newer.acked_epoch.is_some_and(|acked| acked <= epoch);
    let is_forgotten = epoch < read.epoch && !is_acknowledged;
    is_sent_again || is_forgotten || older.is_will
}

/// The writes of each topic in the order of the writer.
fn writes(a: &Analysis<'_>) -> HashMap<Rc<str>, Vec<Write>> {
    let mut writes: HashMap<Rc<str>, Vec<Write>> = HashMap::new();
    for (topic, values) in &a.before.retained {
        let initial = values.iter().map(|value| Write {
            value: value.clone(),
            sent: 0,
            done: None,
            sends: vec![0],
            acked_epoch: Some(0),
            is_will: false,
        });
        writes.insert(Rc::clone(topic), initial.collect());
    }
    for message in a.messages.iter().filter(|message| message.publish.retain && !message.is_will) {
        let payload = &message.publish.payload;
        let topic = writes.entry(Rc::clone(&message.publish.topic)).or_insert_with(initially_nothing);
        topic.push(Write {
            value: (!payload.is_empty()).then(|| Rc::clone(payload)),
            sent: message.sends[0],
            done: message.done,
            sends: message.sends.clone(),
            acked_epoch: message.acked_epoch,
            is_will: false,
        });
    }
    for connection in &a.connections {
        let Some(will) = connection.will.as_ref().filter(|will| will.retain) else { continue };
        let (sent, done) = match wills::fate(a, connection) {
            Fate::Never => continue,
            Fate::Perhaps(from) => (from, None),
            Fate::Surely { from, by } => (from, by),
        };
        let topic = writes.entry(Rc::clone(&will.topic)).or_insert_with(initially_nothing);
        let value = (!will.payload.is_empty()).then(|| Rc::clone(&will.payload));
        topic.push(Write { value, sent, done, sends: vec![sent], acked_epoch: None, is_will: true });
    }
    for topic in writes.values_mut() {
        topic.sort_by_key(|write| write.sent);
    }
    writes
}

fn initially_nothing() -> Vec<Write> {
    vec![Write { value: None, sent: 0, done: None, sends: vec![0], acked_epoch: Some(0), is_will: false }]
}

/// What was found in each topic that is read or written, in the order of reading.
fn reads(a: &Analysis<'_>) -> BTreeMap<Rc<str>, Vec<Read>> {
    let mut topics: Vec<Rc<str>> = writes(a).into_keys().collect();
    let retained = a.receipts.iter().filter(|receipt| receipt.publish.retain);
    topics.extend(retained.clone().map(|receipt| Rc::clone(&receipt.publish.topic)));
    let mut reads: BTreeMap<Rc<str>, Vec<Read>> = BTreeMap::new();
    let mut asked: HashMap<ConnId, Vec<(Rc<str>, Index)>> = HashMap::new();
    let epochs: HashMap<ConnId, usize> = a.connections.iter().map(|c| (c.id, c.epoch)).collect();
    let epoch = |conn| epochs.get(&conn).copied().unwrap_or(0);
    for (at, event) in a.events.iter().enumerate() {
        match &event.what {
            What::Sent(_, conn, Packet::Subscribe { filter, .. }) => {
                asked.entry(*conn).or_default().push((Rc::clone(filter), at));
            }
            What::Received(client, conn, Packet::Publish(publish)) if publish.retain && !publish.dup => {
                let filters = asked.get(conn).map(Vec::as_slice).unwrap_or_default().iter();
                let mut asked_for = filters.rev().filter(|(f, _)| matches(f, &publish.topic));
                let Some((_, from)) = asked_for.next() else { continue };
                let value = (!publish.payload.is_empty()).then(|| Rc::clone(&publish.payload));
                let read =
                    Read { client: Rc::clone(client), value, from: *from, to: at, epoch: epoch(*conn) };
                reads.entry(Rc::clone(&publish.topic)).or_default().push(read);
            }
            What::Quiet(client, conn) => {
                for (filter, from) in asked.get(conn).into_iter().flatten() {
                    for topic in topics.iter().filter(|topic| matches(filter, topic)) {
                        let is_found = retained.clone().any(|receipt| {
                            receipt.conn == *conn && receipt.publish.topic == *topic && receipt.at > *from
                        });
                        let reads = reads.entry(Rc::clone(topic)).or_default();
                        let is_new = reads.last().is_none_or(|read| read.to != at);
                        if !is_found && is_new {
                            let (client, epoch) = (Rc::clone(client), epoch(*conn));
                            reads.push(Read { client, value: None, from: *from, to: at, epoch });
                        }
                    }
                }
            }
            _ => {}
        }
    }
    reads
}

/// RETAIN only on what a new subscription brings, and no empty payload among it.
fn flags(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let asked = a.events.iter().enumerate().filter_map(|(at, event)| match &event.what {
        What::Sent(client, _, Packet::Subscribe { filter, .. }) => Some((at, client, filter)),
        _ => None,
    });
    let asked = asked.collect::<Vec<_>>();
    for receipt in a.receipts.iter().filter(|receipt| receipt.publish.retain && !receipt.publish.dup) {
        let topic = &receipt.publish.topic;
        let is_asked_for = asked.iter().any(|(at, client, filter)| {
            *at < receipt.at && **client == receipt.client && matches(filter, topic)
        });
        let mut complain = |text: String| {
            violations.push(Violation::new("I12", &receipt.client, text, &[receipt.at]).of_topic(topic));
        };
        if !is_asked_for {
            complain(format!("a message to {topic} carries RETAIN, and there is no new subscription"));
        }
        if receipt.publish.payload.is_empty() {
            complain(format!("the deletion in {topic} is kept as a retained message"));
        }
    }
    violations
}

/// What each topic may have at the end of the round.
pub(super) fn values(a: &Analysis<'_>) -> HashMap<Rc<str>, Vec<Option<Rc<str>>>> {
    let values = |writes: Vec<Write>| {
        let last = writes.iter().rposition(|write| write.done.is_some()).unwrap_or(0);
        writes[last..].iter().map(|write| write.value.clone()).collect()
    };
    writes(a).into_iter().map(|(topic, writes)| (topic, values(writes))).collect()
}
