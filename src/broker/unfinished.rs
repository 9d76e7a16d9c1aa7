//! `Unfinished`: the bytes of packets that have not come as a whole, of all connections together, and who has to go when they are above
//! `limits.unfinished_bytes_max`.
//!
//! What each connection may hold anyway is not counted, so whoever sends small packets never comes here. A connection with more has an
//! [`UnfinishedCharge`], which gives everything back when it is dropped, however the connection ends.
//!
//! Above the bound the connection that holds most is closed, which may be the one that has crossed it; a client with one large message among
//! many who hold more is not touched. Until that is gone the others that hold something are not read ([`Core::is_too_much_unfinished`]), so the
//! total goes above the bound by one read of a thread, and by those who begin to hold something meanwhile: at 9/8 of the bound these are closed at
//! once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ahash::RandomState;
use parking_lot::Mutex;

use super::client::signal;
use super::memory::Closed;
use super::{Cause, Client, Core};
use crate::accounts::{Account, Accounts, signed};
use crate::escape::escape;

const LIMIT: &str = "limits.unfinished_bytes_max";

/// See the module's documentation.
pub(crate) struct Unfinished {
    /// `None`: there is no bound.
    max: Option<usize>,
    accounts: Arc<Accounts>,
    holders: Mutex<Holders>,
}

#[derive(Default)]
struct Holders {
    /// By the address of the holder.
    all: HashMap<usize, Arc<Holder>, RandomState>,
    /// Bytes of those that were told to close and have not given theirs back.
    leaving: usize,
}

/// A connection that holds something.
struct Holder {
    client: Arc<Client>,
    epoch: u64,
    bytes: AtomicUsize,
    /// What of [`Holders::leaving`] is its part; changed under that lock.
    leaving: AtomicUsize,
    /// What has come is being handled.
    is_worked_on: AtomicBool,
}

/// What a connection is charged with.
pub(crate) struct UnfinishedCharge {
    core: Arc<Core>,
    holder: Arc<Holder>,
}

impl Unfinished {
    pub(super) fn new(max: Option<usize>, accounts: &Arc<Accounts>) -> Self {
        Self { max, accounts: Arc::clone(accounts), holders: Mutex::default() }
    }

    pub(super) fn total(&self) -> usize {
        self.accounts.of(Account::Unfinished)
    }

    fn add(&self, bytes: i64) {
        self.accounts.add(Account::Unfinished, bytes);
    }

    fn over(&self) -> usize {
        self.max.map_or(0, |max| self.total().saturating_sub(max))
    }
}

impl Holders {
    /// The one who holds most of those who stay, and for whom this holds, is to leave; `None`: none of
    /// them holds anything.
    fn let_largest_leave(&mut self, may_leave: impl Fn(&Holder) -> bool) -> Option<Arc<Holder>> {
        let stays = |holder: &&Arc<Holder>| holder.leaving.load(Ordering::Relaxed) == 0 && may_leave(holder);
        let held = |holder: &&Arc<Holder>| holder.bytes.load(Ordering::Relaxed);
        let largest = self.all.values().filter(stays).max_by_key(held).cloned()?;
        let bytes = largest.bytes.load(Ordering::Relaxed);
        if bytes == 0 {
            return None;
        }
        largest.leaving.store(bytes, Ordering::Relaxed);
        self.leaving += bytes;
        Some(largest)
    }
}

impl Holder {
    /// Tells the connection to close. Not under its client's lock.
    fn close(&self, cause: Cause) {
        if let Some(link) = self.client.lock().link_of(self.epoch) {
            link.close_cause.get_or_insert(cause);
            link.signal(signal::CLOSE);
        }
    }
}

impl UnfinishedCharge {
    /// Nothing yet, for a connection of `client`.
    pub(crate) fn new(core: &Arc<Core>, client: &Arc<Client>, epoch: u64) -> Box<Self> {
        let holder = Arc::new(Holder {
            client: Arc::clone(client),
            epoch,
            bytes: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            is_worked_on: AtomicBool::new(false),
        });
        core.unfinished.holders.lock().all.insert(key(&holder), Arc::clone(&holder));
        Box::new(Self { core: Arc::clone(core), holder })
    }

    /// Whether what has come is being handled, so that it is given back soon.
    pub(crate) fn work_on_it(&self, is_at_it: bool) {
        self.holder.is_worked_on.store(is_at_it, Ordering::Relaxed);
    }

    /// The connection holds so many bytes now. Not under a client's lock.
    ///
    /// # Errors
    /// It has to be closed.
    pub(crate) fn set(&self, bytes: usize) -> Result<(), Cause> {
        let unfinished = &self.core.unfinished;
        let before = self.holder.bytes.swap(bytes, Ordering::Relaxed);
        if bytes <= before {
            unfinished.add(-signed(before - bytes));
            return Ok(());
        }
        unfinished.add(signed(bytes - before));
        if unfinished.over() == 0 { Ok(()) } else { self.core.close_largest(&self.holder) }
    }
}

impl Drop for UnfinishedCharge {
    fn drop(&mut self) {
        let unfinished = &self.core.unfinished;
        let mut holders = unfinished.holders.lock();
        holders.all.remove(&key(&self.holder));
        holders.leaving = holders.leaving.saturating_sub(self.holder.leaving.load(Ordering::Relaxed));
        unfinished.add(-signed(self.holder.bytes.load(Ordering::Relaxed)));
    }
}

impl Core {
    /// Whether those who hold something have to wait, because one of them has to go first.
    pub(crate) fn is_too_much_unfinished(&self) -> bool {
        self.unfinished.over() > 0
    }

    /// Tells those who hold most to close, as many as it takes.
    ///
    /// # Errors
    /// `crossing`, which has asked, is to close itself.
    fn close_largest(&self, crossing: &Arc<Holder>) -> Result<(), Cause> {
        let Some(max) = self.unfinished.max else { return Ok(()) };
        let mut chosen = Vec::new();
        let mut is_crossing_chosen = self.unfinished.over() > max / 8;
        if !is_crossing_chosen {
            let mut holders = self.unfinished.holders.lock();
            while self.unfinished.over() > holders.leaving {
                let Some(largest) = holders.let_largest_leave(|_| true) else { break };
                is_crossing_chosen |= Arc::ptr_eq(&largest, crossing);
                chosen.push(largest);
            }
        }
        for holder in chosen.iter().filter(|holder| !Arc::ptr_eq(holder, crossing)) {
            self.tell_unfinished(holder, max);
            holder.close(Cause::UnfinishedBytes);
        }
        if is_crossing_chosen {
            self.tell_unfinished(crossing, max);
            return Err(Cause::UnfinishedBytes);
        }
        Ok(())
    }

    /// For want of memory those are closed who hold most and have not sent the rest, until so many
    /// bytes are given back.
    pub(super) fn close_unfinished(&self, bytes: usize) -> Closed {
        let waits_for_rest = |holder: &Holder| !holder.is_worked_on.load(Ordering::Relaxed);
        let mut chosen = Vec::new();
        let given_back = {
            let mut holders = self.unfinished.holders.lock();
            while holders.leaving < bytes
                && let Some(largest) = holders.let_largest_leave(waits_for_rest)
            {
                chosen.push(largest);
            }
            holders.leaving
        };
        for holder in &chosen {
            holder.close(Cause::MemoryMax);
        }
        Closed { connections: chosen.len(), given_back }
    }

    fn tell_unfinished(&self, holder: &Holder, max: usize) {
        let Some(untold) = self.told.tell(LIMIT, self.now()) else { return };
        tracing::warn!(
            limit = LIMIT,
            value = max,
            client_id = %escape(&holder.client.id),
            held = holder.bytes.load(Ordering::Relaxed),
            untold,
            "unfinished packets of all clients hold too much: the client that holds most is closed; told every ten seconds at most"
        );
    }
}

fn key(holder: &Arc<Holder>) -> usize {
    Arc::as_ptr(holder).addr()
}
