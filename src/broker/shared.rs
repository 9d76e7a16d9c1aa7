//! Shared subscriptions (MQTT 5 section 4.8.2): a group stands in the router as one subscriber and
//! hands each message to one of its members (`group.rs`).
//!
//! A message that a leaving member has not acknowledged at QoS 1, or not even begun, goes to
//! another member; one begun at QoS 2 stays with its session ([MQTT-4.8.2-4]) and ends with it
//! ([MQTT-4.8.2-5]).

use std::sync::Arc;

use dashmap::Entry;

use super::group::Group;
use super::{Client, ClientState, Core};
use crate::accounts::{Account, Charge, Room};
use crate::protocol::{QoS, SharedFilter};
use crate::router::SubscriptionOptions;

impl Core {
    /// Enters a session into a group, which comes into being with its first member; `false`, and
    /// nothing has changed, if it would be new and finds no room. Called under the client's lock.
    #[must_use]
    pub(super) fn join_group(
        &self,
        shared: &SharedFilter<'_>,
        filter: &str,
        client: &Arc<Client>,
        state: &mut ClientState,
        options: SubscriptionOptions,
        room: Room,
    ) -> bool {
        // Under the entry's lock, so that a group is in the router exactly while it has members.
        match self.groups.entry(Arc::from(filter)) {
            Entry::Occupied(entry) => {
                if let Some(group) = &entry.get().group {
                    group.join(client, state, options);
                }
            }
            Entry::Vacant(entry) => {
                let bytes = Client::group_bytes(filter);
                let charge = Charge::lasting_in(&self.accounts, Account::Subscriptions, bytes, room);
                let Some(charge) = charge else { return false };
                let group = Group::new(Arc::clone(entry.key()));
                let standing = Client::new_group(self.next_key(), group, self.limits.of_sessions(), charge);
                if let Some(group) = &standing.group {
                    group.join(client, state, options);
                }
                // Each member has its own QoS; the group takes what comes.
                let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
                self.router.subscribe(shared.filter, Arc::clone(&standing), options);
                entry.insert(standing);
            }
        }
        true
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
            entry.get().end_charge();
            entry.remove();
        }
    }
}
