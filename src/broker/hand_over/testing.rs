//! What tests ask of a hand-over.

use std::sync::Arc;
use std::time::Duration;

use super::Progress;
use crate::broker::Core;
use crate::protocol::PacketId;
use crate::storage::HandOverRoom;

impl Core {
    /// Whether nobody has anything to give away.
    pub(crate) fn is_leaving_nobody(&self) -> bool {
        // A slice that is under way is in neither, and its session may go on.
        let registered: Vec<_> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        let mut clients = registered.iter();
        self.leaving.is_empty()
            && self.background.is_idle()
            && clients.all(|client| client.lock().leaving.is_none())
    }

    /// Whether a session has something waiting or not acknowledged.
    pub(crate) fn has_anything_for(&self, id: &str) -> bool {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.is_some_and(|client| {
            let state = client.lock();
            state.session.queued() + state.session.unfinished() > 0
        })
    }

    /// Whether a session without connection is there and stays at least so long.
    pub(crate) fn stays_for(&self, id: &str, time: Duration) -> bool {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.is_some_and(|client| client.lock().expires_at.is_none_or(|at| at > self.now().after(time)))
    }

    /// Whether a will waits for its delay or the end of this session.
    pub(crate) fn has_delayed_will(&self, id: &str) -> bool {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.is_some_and(|client| client.lock().delayed_will.is_some())
    }

    /// Whether a session knows the id of a QoS 2 PUBLISH.
    pub(crate) fn has_received(&self, id: &str, packet_id: PacketId) -> bool {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.is_some_and(|client| client.lock().session.snapshot().received.contains(&packet_id))
    }

    /// Ends a session as its expiry does.
    pub(crate) fn expire_now(&self, id: &str) {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.iter().for_each(|client| self.end_session(client));
    }

    /// Ends a session twice, as two that do not know of one another do.
    pub(crate) fn expire_twice(&self, id: &str) {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value()));
        client.iter().for_each(|client| {
            self.end_session(client);
            self.end_session(client);
        });
    }

    /// Everything that is to be given away, at once.
    pub(crate) fn hand_over_now(&self) {
        loop {
            if let Some(fan_out) = self.background.fan_outs.pop() {
                self.complete_fan_out_now(fan_out);
            } else if let Some(client) = self.background.sessions.pop() {
                let wanted = || client.lock().leaving.as_ref().map(|leaving| leaving.wanted());
                while self.hand_over_loaded(
                    &client,
                    self.load(wanted().unwrap_or_default()),
                    HandOverRoom::ALL,
                ) != Progress::Done
                {}
            } else {
                return;
            }
        }
    }
}
