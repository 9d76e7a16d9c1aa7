//! Shared subscriptions (MQTT 5 section 4.8.2): a group stands in the router as one subscriber and hands each message to one of its members.
//!
//! Members that are connected and have room come first, in turn; then those that are connected; then, for QoS 1 and 2, the sessions of those that
//! are away. A message that a leaving member has not acknowledged at QoS 1, or not even begun, goes to another member; one begun at QoS 2 stays with
//! its session ([MQTT-4.8.2-4]) and ends with it ([MQTT-4.8.2-5]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::Entry;
use parking_lot::Mutex;

use super::{Client, Core, Turn};
use crate::protocol::{QoS, SharedFilter};
use crate::router::{Route, SubscriptionOptions};
use crate::session::{Delivered, DropReason, Outgoing, Readiness};

/// What makes a [`Client`] of the router a group: it has members instead of a session of its own.
pub(crate) struct Group {
    /// The whole filter, `$share/{name}/{filter}`: what a session knows its subscription by.
    filter: Arc<str>,
    /// Replaced as a whole, so that a delivery reads it without holding the lock.
    members: Mutex<Members>,
    next: AtomicUsize,
}

type Members = Arc<[Route<Arc<Client>>]>;

impl Group {
    fn members(&self) -> Members {
        Arc::clone(&self.members.lock())
    }

    /// Adds a member or replaces its options.
    fn join(&self, client: &Arc<Client>, options: SubscriptionOptions) {
        let mut members = self.members.lock();
        let mut list = members.to_vec();
        let member = Route { subscriber: Arc::clone(client), options };
        match list.iter_mut().find(|member| member.subscriber.key == client.key) {
            Some(known) => *known = member,
            None => list.push(member),
        }
        *members = list.into();
    }

    /// Removes a member; `true` if none is left.
    fn leave(&self, key: u64) -> bool {
        let mut members = self.members.lock();
        *members = members.iter().filter(|member| member.subscriber.key != key).cloned().collect();
        members.is_empty()
    }
}

impl Core {
    /// Enters a session into a group, which comes into being with its first member. Called under the client's lock.
    pub(super) fn join_group(
        &self,
        shared: &SharedFilter<'_>,
        filter: &str,
        client: &Arc<Client>,
        options: SubscriptionOptions,
    ) {
        // Under the entry's lock, so that a group is in the router exactly while it has members.
        match self.groups.entry(Arc::from(filter)) {
            Entry::Occupied(entry) => {
                if let Some(group) = &entry.get().group {
                    group.join(client, options);
                }
            }
            Entry::Vacant(entry) => {
                let group = Group {
                    filter: Arc::clone(entry.key()),
                    members: Mutex::new(Arc::from([Route { subscriber: Arc::clone(client), options }])),
                    next: AtomicUsize::new(0),
                };
                let group = Client::new_group(self.next_key(), group, self.limits.of_sessions());
                // Each member has its own QoS; the group takes what comes.
                let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
                self.router.subscribe(shared.filter, Arc::clone(&group), options);
                entry.insert(group);
            }
        }
    }

    /// Takes a session out of a group. Called under the client's lock.
    pub(super) fn leave_group(&self, shared: &SharedFilter<'_>, filter: &str, key: u64) {
        if let Entry::Occupied(entry) = self.groups.entry(Arc::from(filter))
            && let Some(group) = &entry.get().group
            && group.leave(key)
        {
            self.router.unsubscribe(shared.filter, entry.get().key);
            entry.remove();
        }
    }

    /// Hands a message to one member of the group.
    pub(super) fn deliver_shared(&self, turn: &mut Turn, group: &Group, outgoing: &mut Outgoing<'_>) {
        let members = group.members();
        if members.is_empty() {
            return;
        }
        let first = group.next.fetch_add(1, Ordering::Relaxed) % members.len();
        let in_turn = || members.iter().cycle().skip(first).take(members.len());
        let mut others = Vec::new();
        for member in in_turn() {
            let client = &member.subscriber;
            if !self.may_receive(client, outgoing.topic()) {
                continue;
            }
            let mut state = client.lock();
            match state.session.readiness() {
                Readiness::Ready => {
                    let routes = std::slice::from_ref(member);
                    let delivered =
                        self.deliver_locked(turn, client, &mut state, outgoing, routes, Some(&group.filter));
                    // Queued: at QoS 2 it waits for the log.
                    if matches!(delivered, Delivered::Sent | Delivered::Queued) {
                        return;
                    }
                }
                Readiness::Busy => others.insert(0, member),
                Readiness::Away => others.push(member),
                Readiness::Ended => {}
            }
        }
        let mut why = None;
        for member in others {
            let client = &member.subscriber;
            let mut state = client.lock();
            let routes = std::slice::from_ref(member);
            match self.deliver_locked(turn, client, &mut state, outgoing, routes, Some(&group.filter)) {
                Delivered::Sent | Delivered::Queued => return,
                Delivered::Dropped(reason) => why = why.or(Some(reason)),
                Delivered::Ended => {}
            }
        }
        turn.count_drop(why.unwrap_or(DropReason::OfflineQos0), 1);
    }

    /// Whether a group has a connected member other than `key`.
    pub(super) fn has_connected_member(&self, filter: &str, key: u64) -> bool {
        let group = self.groups.get(filter).map(|entry| Arc::clone(entry.value()));
        group.and_then(|group| group.group.as_ref().map(|group| group.members())).is_some_and(|members| {
            members
                .iter()
                .any(|member| member.subscriber.key != key && member.subscriber.lock().session.is_connected())
        })
    }
}
