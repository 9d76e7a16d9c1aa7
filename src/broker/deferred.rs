//! `DeferredFlush`: receivers whose output is written some turns later.
//!
//! One read may bring hundreds of packets, more than fit into one turn. To write the output of
//! every receiver at the end of each of these turns would be a system call for a few messages. So
//! while packets of a read are left, the writes of its turns are put off, [`TURNS_MAX`] turns at
//! most, and for [`CLIENTS_MAX`] receivers at most.
//!
//! What it assumes: the connection's next turn comes by itself. Where it does not, because the
//! connection waits for something or ends, this is dropped; then the receivers' own tasks are woken
//! and write.

use std::sync::Arc;

use super::client::signal;
use super::promise::Deferral;
use super::{Client, Core, Turn};

/// Turns of a connection after which its receivers' output is written.
const TURNS_MAX: u32 = 16;
/// Receivers of which one connection keeps a list.
const CLIENTS_MAX: usize = 1_024;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct DeferredFlush {
    clients: Vec<Arc<Client>>,
    turns: u32,
}

impl Turn {
    /// Puts off the writes of this turn, with those of earlier ones, if that has not been done too
    /// often. Before [`finish`](Self::finish).
    pub(crate) fn defer_flush(&mut self, core: &Core, deferred: &mut Option<Box<DeferredFlush>>) {
        if self.touched.is_empty() && deferred.is_none() {
            return;
        }
        let list = deferred.get_or_insert_default();
        list.turns += 1;
        if list.turns > TURNS_MAX || list.clients.len() + self.touched.len() > CLIENTS_MAX {
            self.flush_deferred(deferred);
            return;
        }
        let promiser = self.promiser;
        self.touched.retain(|client| {
            let mut guard = client.lock();
            let state = &mut *guard;
            let Some(link) = &mut state.link else { return false };
            match link.flush.defer(promiser) {
                Deferral::Refused => return true,
                Deferral::Kept => return false,
                Deferral::Deferred => {}
            }
            core.settle(client, state);
            drop(guard);
            list.clients.push(Arc::clone(client));
            false
        });
        each_once(&mut list.clients);
    }

    /// Has the writes that were put off done at the end of this turn.
    pub(crate) fn flush_deferred(&mut self, deferred: &mut Option<Box<DeferredFlush>>) {
        if let Some(mut list) = deferred.take() {
            self.touched.append(&mut list.clients);
            each_once(&mut self.touched);
        }
    }
}

fn each_once(clients: &mut Vec<Arc<Client>>) {
    clients.sort_unstable_by_key(Arc::as_ptr);
    clients.dedup_by(|a, b| Arc::ptr_eq(a, b));
}

impl Drop for DeferredFlush {
    fn drop(&mut self) {
        for client in &self.clients {
            let state = client.lock();
            if let Some(link) = &state.link
                && state.session.out.has_output()
            {
                link.signal(signal::FLUSH);
            }
        }
    }
}
