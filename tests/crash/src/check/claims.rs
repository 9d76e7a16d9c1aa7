//! What of a message may be asked of the broker, and what not.

use super::Analysis;
use super::facts::{Message, Receipt, Subscription};
use crate::history::{Client, Index};
use crate::mqtt::matches;

impl Analysis<'_> {
    /// The time in which this subscription stood, if it did so from the first sending of this
    /// message to its last acknowledgement: then the message belongs to it.
    pub fn must(&self, subscription: &Subscription, message: &Message) -> Option<(Index, Index)> {
        let done = message.done.filter(|_| !subscription.is_shared())?;
        let mut times =
            subscription.sure.iter().filter(|_| matches(&subscription.filter, &message.publish.topic));
        times.find(|(from, to)| *from <= message.sends[0] && done <= *to).copied()
    }

    /// Whether a subscription of this client surely stood from the message's first sending until then.
    pub fn is_covered(&self, client: &Client, message: &Message, until: Index) -> bool {
        let at = message.sends[0];
        self.subscriptions.iter().any(|subscription| {
            subscription.client == *client
                && subscription.sure.iter().any(|(from, to)| *from <= at && until <= *to)
                && matches(&subscription.filter, &message.publish.topic)
        })
    }

    /// Whether this message may have got to this client by this moment: by a subscription that can
    /// have stood when it was routed, in a session that has not been replaced since.
    pub fn may(&self, client: &Client, message: &Message, until: Index) -> bool {
        self.subscriptions.iter().any(|subscription| {
            subscription.client == *client
                && subscription.possible.0 <= until
                && message.sends[0] <= subscription.possible.1
                && matches(&subscription.filter, &message.publish.topic)
                && !self.connections.iter().any(|next| {
                    next.client == *client
                        && subscription.possible.0 <= next.connect
                        && next.connack.is_some_and(|(at, is_present)| !is_present && at <= until)
                })
        })
    }

    /// Whether the broker may have forgotten a delivery in the crash after it. At QoS 1 it may hand
    /// on what it has not stored yet: it has promised nothing to the publisher, who sends the
    /// message again, and nothing to the receiver, who may get it twice. At QoS 2 it must know what
    /// it has sent.
    pub fn is_forgettable(&self, receipt: &Receipt) -> bool {
        let is_last = receipt.epoch == self.starts.len();
        let Some(message) = receipt.message.map(|message| &self.messages[message]) else {
            // One without payload cannot be told from others.
            return receipt.publish.payload.is_empty() && receipt.publish.qos == 1 && !is_last;
        };
        let is_stored = if message.is_will {
            self.messages.iter().any(|later| {
                later.sends[0] > receipt.at
                    && later.acked_epoch == Some(receipt.epoch)
                    && later.publish.retain
            })
        } else {
            message.acked_epoch.is_some_and(|epoch| epoch <= receipt.epoch)
        };
        receipt.publish.qos == 1 && !is_last && !is_stored
    }
}
