//! Groups: shared subscriptions whose members come, go and do not answer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;

use super::facts::{NEVER, Receipt};
use super::{Analysis, Violation};
use crate::history::{ConnId, What};
use crate::mqtt::{Packet, matches, short};

/// I20, groups (MQTT 5 section 4.8.2, [MQTT-4.8.2-6]): a message that was acknowledged while a
/// group had a member that stays is answered by some member by the end of the round, whatever
/// became of those it went to first: at QoS 1 what a member has not answered when its session ends,
/// or has not even been sent, goes to another one. And a member gets what its filter matches.
///
/// The members here subscribe at QoS 1. At which of them a message arrives, how often and in which
/// order is not asked.
pub(super) fn i20_groups(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let answered = answered(a);
    let mut receipts: HashMap<usize, Vec<&Receipt>> = HashMap::new();
    for receipt in a.receipts.iter().filter(|receipt| a.members.contains(&receipt.client)) {
        if let Some(message) = receipt.message {
            receipts.entry(message).or_default().push(receipt);
        }
    }
    let filters: BTreeSet<&Rc<str>> =
        a.subscriptions.iter().filter(|s| s.is_shared()).map(|subscription| &subscription.filter).collect();
    for filter in filters {
        let stays = a.subscriptions.iter().filter(|s| s.filter == *filter && !s.is_clean);
        let since = stays.filter_map(|subscription| match subscription.sure.last() {
            Some((since, NEVER)) => Some(*since),
            _ => None,
        });
        let Some(since) = since.min() else { continue };
        for (index, message) in a.messages.iter().enumerate() {
            let publish = &message.publish;
            let is_owed = message.done.is_some()
                && message.sends[0] >= since
                && !message.is_will
                && !publish.payload.is_empty()
                && matches(filter, &publish.topic);
            if !is_owed || answered.contains(&index) {
                continue;
            }
            let came = receipts.get(&index).map(Vec::as_slice).unwrap_or_default();
            let fate = match came.last() {
                Some(last) => format!("it came to {} last, who did not answer it", last.client),
                None => "it came to none of them".to_owned(),
            };
            let text = format!("\"{}\" was acknowledged for {filter}, and {fate}", short(&publish.payload));
            let mut at = vec![message.sends[0], message.done.unwrap_or(message.sends[0])];
            at.extend(came.iter().map(|receipt| receipt.at));
            violations.push(Violation::new("I20", &message.client, text, &at).of_topic(&publish.topic));
        }
    }
    for receipt in a.receipts.iter().filter(|receipt| a.members.contains(&receipt.client)) {
        let Some(message) = receipt.message.map(|message| &a.messages[message]) else { continue };
        if !a.may(&receipt.client, message, receipt.at) {
            let text =
                format!("\"{}\" is delivered to a client that is no member", short(&message.publish.payload));
            let at = [message.sends[0], receipt.at];
            violations
                .push(Violation::new("I20", &receipt.client, text, &at).of_topic(&receipt.publish.topic));
        }
    }
    violations
}

/// The messages that a member has answered.
fn answered(a: &Analysis<'_>) -> HashSet<usize> {
    let by_receipt: HashMap<usize, usize> =
        a.receipts.iter().filter_map(|receipt| Some((receipt.at, receipt.message?))).collect();
    let mut held: HashMap<(ConnId, u16), usize> = HashMap::new();
    let mut answered = HashSet::new();
    for (at, event) in a.events.iter().enumerate() {
        match &event.what {
            What::Received(client, conn, Packet::Publish(publish)) if a.members.contains(client) => {
                match by_receipt.get(&at) {
                    Some(message) => held.insert((*conn, publish.id), *message),
                    None => held.remove(&(*conn, publish.id)),
                };
            }
            What::Sent(client, conn, Packet::PubAck(id) | Packet::PubRec(id))
                if a.members.contains(client) =>
            {
                answered.extend(held.remove(&(*conn, *id)));
            }
            _ => {}
        }
    }
    answered
}
