//! `Timers`: at most one entry per client, for the keep alive of a connection or the expiry of a session.
//!
//! Packets do not touch it: an entry that comes due is compared with when the client was last heard and set again if that is early. So the
//! cost is one entry per keep alive period, not one per packet.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::client::{Client, ClientState};
use crate::session::Timestamp;

/// How often due entries are looked for; an event is late by no more than two of these.
pub(crate) const TICK_MS: u64 = 200;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Timers {
    entries: Mutex<BTreeMap<(u64, u64), Weak<Client>>>,
}

impl Timers {
    /// Sets the client's entry, in place of the one it had.
    pub(crate) fn set(&self, client: &Arc<Client>, state: &mut ClientState, at: Timestamp) {
        // Rounded up: never early.
        let tick = at.as_millis().div_ceil(TICK_MS);
        let mut entries = self.entries.lock();
        if let Some(old) = state.timer.replace(tick) {
            entries.remove(&(old, client.key));
        }
        entries.insert((tick, client.key), Arc::downgrade(client));
    }

    /// Removes the client's entry.
    pub(crate) fn cancel(&self, client: &Client, state: &mut ClientState) {
        if let Some(old) = state.timer.take() {
            self.entries.lock().remove(&(old, client.key));
        }
    }

    /// Takes the clients whose entries are due. Their `timer` fields still name the taken entries: the caller sets or clears them.
    pub(crate) fn take_due(&self, now: Timestamp) -> Vec<Arc<Client>> {
        let mut entries = self.entries.lock();
        let later = entries.split_off(&(now.as_millis() / TICK_MS + 1, 0));
        let due = std::mem::replace(&mut *entries, later);
        drop(entries);
        due.into_values().filter_map(|client| client.upgrade()).collect()
    }
}
