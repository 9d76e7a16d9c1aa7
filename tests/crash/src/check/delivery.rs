//! Loss, invention, strays.

use std::collections::HashSet;

use super::facts::{NEVER, Subscription};
use super::{Analysis, Violation};
use crate::history::{Index, What};
use crate::mqtt::{matches, short};

/// I1, no acknowledged loss (sections 4.3.2, 4.3.3, [MQTT-4.5.0-1]): a message that was acknowledged while a
/// subscription of a persistent session stood has been delivered to it by the end of the round.
///
/// A subscription that was given up, or ended with its connection, owes less: no gap before a later message of the same
/// publisher, topic and QoS ([MQTT-3.10.4-3] lets the broker drop what it has not begun to send).
pub(super) fn i1_no_acknowledged_loss(a: &Analysis<'_>) -> Vec<Violation> {
    lost(a)
        .into_iter()
        .map(|(subscription, message)| {
            let (subscription, message) = (&a.subscriptions[subscription], &a.messages[message]);
            let text = format!(
                "\"{}\" of {} was acknowledged and not delivered (subscription {})",
                short(&message.publish.payload),
                message.client,
                subscription.filter
            );
            let at = [message.sends[0], message.done.unwrap_or(message.sends[0])];
            Violation::new("I1", &subscription.client, text, &at).of_topic(&message.publish.topic)
        })
        .collect()
}

/// What I1 misses: subscription and message.
pub(super) fn lost(a: &Analysis<'_>) -> Vec<(usize, usize)> {
    let received: HashSet<_> =
        a.receipts.iter().filter_map(|receipt| Some((&receipt.client, receipt.message?))).collect();
    let mut lost = Vec::new();
    for (s, subscription) in a.subscriptions.iter().enumerate() {
        for (m, message) in a.messages.iter().enumerate() {
            // A deletion has no payload to be told apart by.
            if message.is_will || message.publish.payload.is_empty() {
                continue;
            }
            let Some(time) = a.must(subscription, message) else { continue };
            if received.contains(&(&subscription.client, m)) {
                continue;
            }
            if (!subscription.is_clean && time.1 == NEVER) || is_gap(a, subscription, time, m) {
                lost.push((s, m));
            }
        }
    }
    lost
}

/// Whether a later message of the stream came by this subscription in this time.
fn is_gap(a: &Analysis<'_>, subscription: &Subscription, time: (Index, Index), missing: usize) -> bool {
    let missing_message = &a.messages[missing];
    a.deliveries().any(|(receipt, index, message)| {
        receipt.client == subscription.client
            && index > missing
            && message.publish.topic == missing_message.publish.topic
            && message.publish.qos == missing_message.publish.qos
            && time.0 < receipt.at
            && receipt.at < time.1
    })
}

/// I2, no invention ([MQTT-3.3.2-2], [MQTT-3.8.4-6]): what is delivered was published, with this topic, every byte of this
/// payload, and the lower of the QoS published and granted. Payloads are all different, so a wrong byte is a payload nobody
/// published.
pub(super) fn i2_no_invention(a: &Analysis<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for receipt in a.receipts.iter().filter(|receipt| !receipt.publish.retain) {
        let publish = &receipt.publish;
        let wrong = match receipt.message {
            _ if publish.payload.is_empty() => continue,
            None => {
                let is_known = a.before.published.contains(&publish.payload);
                (!is_known).then(|| "nobody published it".to_owned())
            }
            Some(message) => {
                let message = &a.messages[message];
                let mut granted = a
                    .subscriptions
                    .iter()
                    .filter(|s| s.client == receipt.client && matches(&s.filter, &publish.topic))
                    .map(|s| s.qos.min(message.publish.qos))
                    .peekable();
                if message.sends[0] > receipt.at {
                    Some("it comes before it was published".to_owned())
                } else if message.publish.topic != publish.topic {
                    Some(format!("it was published to {}", message.publish.topic))
                } else if granted.peek().is_some() && !granted.any(|qos| qos == publish.qos) {
                    Some(format!(
                        "published at QoS {}, not the lower of that and what was granted",
                        message.publish.qos
                    ))
                } else {
                    None
                }
            }
        };
        if let Some(wrong) = wrong {
            let text = format!("\"{}\" is delivered to {}: {wrong}", short(&publish.payload), publish.topic);
            let violation = Violation::new("I2", &receipt.client, text, &[receipt.at]);
            violations.push(violation.of_topic(&publish.topic));
        }
    }
    for (at, event) in a.events.iter().enumerate() {
        if let What::Garbage(client, _, text) = &event.what {
            violations.push(Violation::new("I2", client, text.clone(), &[at]));
        }
    }
    violations
}

/// I3, no stray ([MQTT-3.10.4-2], [MQTT-3.10.4-3]): a delivery belongs to a subscription that can have stood at some moment
/// between the sending of the message and its delivery. What was sent after UNSUBACK had come does not arrive.
pub(super) fn i3_no_stray(a: &Analysis<'_>) -> Vec<Violation> {
    a.deliveries()
        .filter(|(receipt, _, message)| !a.may(&receipt.client, message, receipt.at))
        .map(|(receipt, _, message)| {
            let payload = short(&message.publish.payload);
            let text = format!("\"{payload}\" is delivered without a subscription");
            let at = [message.sends[0], receipt.at];
            Violation::new("I3", &receipt.client, text, &at).of_topic(&receipt.publish.topic)
        })
        .collect()
}
