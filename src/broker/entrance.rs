//! `Entrance`: connections with one client id come in one after the other.
//!
//! A CONNECT may have to wait: for the connection it takes over, for the log, for a will. If all
//! that come meanwhile waited for the same, each one that comes in would wake all others, and they
//! would take it over at once. A thousand of them would cost a million looks, on the threads that
//! serve everybody. So they stand in line: one looks, the others wait for their place.

use std::sync::Arc;

use ahash::RandomState;
use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Entrance(DashMap<Arc<str>, Arc<Mutex<()>>, RandomState>);

/// A place in the line of a client id; the next one's turn comes when it is dropped.
pub(super) struct Place<'a> {
    entrance: &'a Entrance,
    client_id: Arc<str>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Entrance {
    /// Waits until it is this one's turn. Cancel safe: who no longer waits is left out.
    pub(super) async fn enter(&self, client_id: &Arc<str>) -> Place<'_> {
        let mut place = Place { entrance: self, client_id: Arc::clone(client_id), turn: None };
        let line = Arc::clone(&self.0.entry(Arc::clone(client_id)).or_default());
        place.turn = Some(line.lock_owned().await);
        place
    }

    /// Client ids for which somebody is coming in.
    #[cfg(test)]
    pub(super) fn lines(&self) -> usize {
        self.0.len()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turn = None;
        // Whoever stands in line has a reference of his own, taken under the same lock of the map.
        self.entrance.0.remove_if(&self.client_id, |_, line| Arc::strong_count(line) == 1);
    }
}
