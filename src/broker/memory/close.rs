//! Connections that are closed because memory is short.

use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::accounts::STEP;
use crate::broker::client::signal;
use crate::broker::{Cause, Client, Core};

/// Connections that were told to close.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Closed {
    pub(in crate::broker) connections: usize,
    /// Bytes that are as good as given back: what they hold, and what those hold who were told before
    /// and are not gone yet.
    pub(in crate::broker) given_back: usize,
}

impl AddAssign for Closed {
    fn add_assign(&mut self, more: Self) {
        self.connections += more.connections;
        self.given_back += more.given_back;
    }
}

impl Core {
    /// Whether a connection that ends is closed because memory is short at this moment: what it
    /// holds is given back at once, and not written for a second more.
    pub(crate) fn is_closed_for_memory(&self, cause: &Cause) -> bool {
        *cause == Cause::MemoryMax && self.accounts.is_over()
    }

    /// Closes those who hold most unwritten output and waiting answers, until so many bytes are given
    /// back. What those hold who were told to close before, and are still being sent their last
    /// words, is as good as given back.
    pub(super) fn close_largest_holders(&self, bytes: usize) -> Closed {
        let mut leaving = self.memory.last_words.load(Ordering::Relaxed);
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        let mut holders: Vec<(usize, Arc<Client>)> = clients
            .into_iter()
            .filter_map(|client| {
                let state = client.lock();
                let link = state.link.as_ref()?;
                let held = state.session.out.pending() + link.held.as_ref().map_or(0, |held| held.bytes());
                let is_closing = link.close_cause.is_some();
                leaving += if is_closing { held } else { 0 };
                drop(state);
                (held >= STEP && !is_closing).then_some((held, client))
            })
            .collect();
        holders.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        let mut closed = Closed { connections: 0, given_back: leaving };
        for (held, client) in holders {
            if closed.given_back >= bytes {
                break;
            }
            if let Some(link) = &mut client.lock().link {
                link.close_cause.get_or_insert(Cause::MemoryMax);
                link.signal(signal::CLOSE);
                closed += Closed { connections: 1, given_back: held };
            }
        }
        closed
    }
}
