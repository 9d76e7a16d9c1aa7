//! `DeferredFlush`: receivers whose output is written in one of the connection's next turns.
//!
//! One read may bring hundreds of packets, more than fit into one turn. To write the output of
//! every receiver at the end of each of these turns would be a system call for a few messages. So
//! while packets of a read are left, the writes of its turns are put off, [`TURNS_MAX`] turns at
//! most. Then they are done, in turns of their own, before the next packet: [`SLICE`] receivers in
//! each, for it wakes the tasks of those that it does not write to itself, and others are to get
//! their turns in between.
//!
//! What it assumes: the connection has a next turn, of itself, and soon. The connection sees to
//! that while it has such a list. Where others are before it in the line for long turns, which may
//! take long, it gives the list to a task of the broker (`Core::write_later`). If it ends out of
//! order the list is dropped; then the receivers' own tasks are woken and write.

use std::collections::VecDeque;
use std::sync::Arc;

use super::client::{Link, signal};
use super::promise::{Deferral, Promised};
use super::{Client, ClientState, Core, Turn, cost};

/// Turns of a connection after which its receivers' output is written.
const TURNS_MAX: u32 = 32;
/// Receivers on the list of one connection from which on they are written to.
const CLIENTS_MAX: usize = 4_096;
/// Receivers that are written to, or told to write, in one turn.
const SLICE: usize = 256;

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct DeferredFlush {
    /// Those that have waited longest come first.
    clients: VecDeque<Arc<Client>>,
    turns: u32,
}

impl Turn {
    /// Something was added to the client's output, which is written at the end of the turn, by this
    /// one or another that has promised it before. Under the client's lock.
    pub(crate) fn promise_flush(&mut self, client: &Arc<Client>, state: &mut ClientState) {
        if let Some(link) = &mut state.link {
            self.promise_flush_of(client, link);
        }
    }

    /// The same with its link.
    #[inline]
    pub(super) fn promise_flush_of(&mut self, client: &Arc<Client>, link: &mut Link) {
        match link.flush.promise(self.promiser) {
            Promised::Before => return,
            // A connection writes in slices (`defer_flush`).
            Promised::Now if !self.is_connections => self.budget.spend(cost::WRITE),
            Promised::Now | Promised::Again => {}
        }
        self.touched.push(Arc::clone(client));
    }

    /// Decides what of the writes is done at the end of this turn; what is left stays in
    /// `deferred`, and one of the next turns has to [go on](Self::write_deferred) with it.
    /// `goes_on`: the connection has more to do, and adds to the same outputs perhaps.
    pub(crate) fn defer_flush(
        &mut self,
        core: &Core,
        deferred: &mut Option<Box<DeferredFlush>>,
        goes_on: bool,
    ) {
        let goes_on = goes_on && !self.congested;
        if deferred.is_none() && (!goes_on && self.touched.len() <= SLICE || self.touched.is_empty()) {
            return;
        }
        let list = deferred.get_or_insert_default();
        list.turns += 1;
        let promiser = self.promiser;
        let mut refused = 0;
        self.touched.retain(|client| {
            let mut guard = client.lock();
            let state = &mut *guard;
            let Some(link) = &mut state.link else { return false };
            let deferral = link.flush.defer(promiser);
            match deferral {
                Deferral::Refused if refused < SLICE => {
                    refused += 1;
                    return true;
                }
                Deferral::Refused => link.flush.put_off(),
                Deferral::Kept => return false,
                Deferral::Deferred | Deferral::Listed => {}
            }
            core.settle(client, state);
            drop(guard);
            if deferral != Deferral::Listed {
                list.clients.push_back(Arc::clone(client));
            }
            false
        });
        if !goes_on || list.is_due() {
            self.write_deferred(deferred);
        }
    }

    /// Has one slice of the writes that were put off done at the end of this turn.
    pub(crate) fn write_deferred(&mut self, deferred: &mut Option<Box<DeferredFlush>>) {
        if let Some(list) = deferred {
            // Once it has begun it is brought to its end.
            list.turns = TURNS_MAX;
            let count = list.clients.len().min(SLICE);
            self.touched.extend(list.clients.drain(..count));
            if list.clients.is_empty() {
                *deferred = None;
            }
        }
    }
}

impl DeferredFlush {
    /// Whether all of it is to be written before anything is added.
    pub(crate) fn is_due(&self) -> bool {
        self.turns >= TURNS_MAX || self.clients.len() > CLIENTS_MAX
    }
}

impl Drop for DeferredFlush {
    fn drop(&mut self) {
        for client in &self.clients {
            if let Some(link) = &mut client.lock().link {
                // Who adds something now does not find it on a list.
                link.flush.keep();
                link.signal(signal::FLUSH);
            }
        }
    }
}
