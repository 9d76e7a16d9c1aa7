//! Shared subscriptions (MQTT 5 section 4.8.2): a group stands in the router as one subscriber and hands each message to one of its members
//! (`group.rs`).
//!
//! A message that a leaving member has not acknowledged at QoS 1, or not even begun, goes to another member; one begun at QoS 2 stays with
//! its session ([MQTT-4.8.2-4]) and ends with it ([MQTT-4.8.2-5]).

use std::sync::Arc;

use dashmap::Entry;

use super::group::Group;
use super::turn_log::Retention;
use super::{Client, ClientState, Core, Turn};
use crate::protocol::{QoS, SharedFilter};
use crate::router::SubscriptionOptions;
use crate::session::{DropReason, Expiry, Outgoing, SharedMessage};
use crate::storage::{Numbers, Record};

impl Core {
    /// Enters a session into a group, which comes into being with its first member. Called under the client's lock.
    pub(super) fn join_group(
        &self,
        shared: &SharedFilter<'_>,
        filter: &str,
        client: &Arc<Client>,
        state: &mut ClientState,
        options: SubscriptionOptions,
    ) {
        // Under the entry's lock, so that a group is in the router exactly while it has members.
        match self.groups.entry(Arc::from(filter)) {
            Entry::Occupied(entry) => {
                if let Some(group) = &entry.get().group {
                    group.join(client, state, options);
                }
            }
            Entry::Vacant(entry) => {
                let group = Group::new(Arc::clone(entry.key()));
                let standing = Client::new_group(self.next_key(), group, self.limits.of_sessions());
                if let Some(group) = &standing.group {
                    group.join(client, state, options);
                }
                // Each member has its own QoS; the group takes what comes.
                let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
                self.router.subscribe(shared.filter, Arc::clone(&standing), options);
                entry.insert(standing);
            }
        }
    }

    /// Takes a session out of a group. Called under the client's lock.
    pub(super) fn leave_group(
        &self,
        shared: &SharedFilter<'_>,
        filter: &str,
        key: u64,
        state: &mut ClientState,
    ) {
        if let Entry::Occupied(entry) = self.groups.entry(Arc::from(filter))
            && let Some(group) = &entry.get().group
            && group.leave(key, state)
        {
            self.router.unsubscribe(shared.filter, entry.get().key);
            entry.remove();
        }
    }

    /// Hands what a member has not acknowledged to others: when it leaves, in any case; when only its connection is gone, if another member is
    /// connected.
    ///
    /// `from` is the session that gives them up, if it is durable and goes on: on record, each message leaves it and enters the other at once.
    pub(super) fn hand_over(&self, turn: &mut Turn, from: Option<u64>, messages: Vec<SharedMessage>) {
        for SharedMessage { filter, message, sequence } in messages {
            let group = self.groups.get(&filter).map(|entry| Arc::clone(entry.value()));
            let finished = [sequence];
            let finished =
                from.map(|session| Record::Finished { session, sequences: Numbers::Slice(&finished) });
            // Its place in the log is that of the session it leaves, and is held until this is done.
            let message = match &message {
                Ok(message) if message.stored().is_none() => Arc::clone(message),
                Ok(message) => Arc::new(message.without_place()),
                Err(stored) => match self.read_message(stored.position()) {
                    Some(message) => Arc::new(message),
                    None => continue,
                },
            };
            // To the next member it has not begun ([MQTT-3.3.2-5]).
            if message.expiry(turn.now) == Expiry::Over {
                turn.count_drop(DropReason::Expired, 1);
                finished.iter().for_each(|finished| turn.log.record(finished, false));
                continue;
            }
            let mut scratch = std::mem::take(&mut turn.scratch);
            let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch);
            match group.as_ref().and_then(|group| group.group.as_ref()) {
                Some(group) => self.deliver_shared(turn, group, &mut outgoing),
                None => turn.count_drop(DropReason::SharedGroupGone, 1),
            }
            turn.log.publish(self, &mut outgoing, Retention::None, finished.as_slice(), false);
            turn.scratch = scratch;
        }
    }
}
