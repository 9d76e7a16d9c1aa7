//! `Turns`: which pieces of work are under way that may hold something in their hands.
//!
//! A *turn* is one run through some state of the broker: it may take a message out of a session and
//! put its successor on record a little later. In between, the message is neither in the session nor
//! in the log. Two things must not happen in that time: a checkpoint must not take effect without
//! it, and the file it is in must not be removed.
//!
//! So each turn holds a [`TurnGuard`] from before it takes something out until its records are
//! submitted. [`Turns::barrier`] waits until every turn that had begun when it was asked has ended.
//! It gives back what it was given as [`Ended`], and the log asks for that type where it frees a
//! segment or puts a checkpoint in force. No clock is involved: a turn may last as long as it likes.
//!
//! What it assumes: a guard is dropped at last (also by a panic: it is dropped while unwinding), and
//! one barrier is under way at a time ([`BarrierSeat`]).
//!
//! How it works: turns count themselves in one of two phases. The barrier turns the phase, waits
//! until the old one has nobody in it, and does so once more. Both phases have then been empty at a
//! moment after the barrier began. A turn that read the phase before it was turned and counts itself
//! only now has taken nothing out yet, so it does not matter. Counters are spread over shards, so
//! that threads do not fight for one cache line; each guard leaves where it entered.

use std::task::{Poll, Waker};

use crate::sync::{Arc, AtomicU64, AtomicUsize, Mutex, Ordering, shard_of_this_thread};

/// Counters of their own for so many threads.
const SHARDS: usize = 16;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Turns {
    common: Arc<Common>,
    shards: Box<[Arc<Shard>]>,
}

#[derive(Debug)]
struct Common {
    /// Its lowest bit says in which phase a turn counts itself.
    phase: AtomicUsize,
    waiter: Mutex<Option<Waker>>,
}

#[derive(Debug)]
#[repr(align(128))]
struct Shard {
    /// Turns under way in each phase, and whether a barrier waits for the last of them ([`WAITED_FOR`]).
    open: [AtomicU64; 2],
    common: Arc<Common>,
}

/// Set in a counter of turns: who ends the last one wakes the barrier. One atomic with the count, so that
/// neither of the two can be seen without the other.
const WAITED_FOR: u64 = 1 << 63;

/// A turn that is under way; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the turn ends when its guard is dropped"]
pub(crate) struct TurnGuard {
    shard: Arc<Shard>,
    phase: usize,
}

/// The right to wait for turns. There is one for each [`Turns`].
#[derive(Debug)]
pub(crate) struct BarrierSeat(());

/// Something from before a barrier: every turn that had begun by then has ended.
#[derive(Debug)]
pub(crate) struct Ended<T>(T);

impl<T> Ended<T> {
    /// What was given to the barrier.
    pub(crate) fn into_inner(self) -> T {
        self.0
    }
}

impl Turns {
    /// No turn yet, and the seat of the one who may wait.
    pub(crate) fn new() -> (Self, BarrierSeat) {
        let common = Arc::new(Common { phase: AtomicUsize::new(0), waiter: Mutex::new(None) });
        let shard =
            |_| Arc::new(Shard { open: [AtomicU64::new(0), AtomicU64::new(0)], common: Arc::clone(&common) });
        let shards = (0..SHARDS).map(shard).collect();
        (Self { common, shards }, BarrierSeat(()))
    }

    /// Begins a turn. Turns may lie within one another.
    pub(crate) fn enter(&self) -> TurnGuard {
        let shard = Arc::clone(&self.shards[shard_of_this_thread() % SHARDS]);
        let phase = self.common.phase.load(Ordering::SeqCst) & 1;
        shard.open[phase].fetch_add(1, Ordering::SeqCst);
        TurnGuard { shard, phase }
    }

    /// Whether any turn is under way. For checks: it may have changed by the time one looks.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn is_any_open(&self) -> bool {
        let is_open =
            |shard: &Arc<Shard>| shard.open.iter().any(|open| open.load(Ordering::SeqCst) & !WAITED_FOR > 0);
        self.shards.iter().any(is_open)
    }

    /// Another one with each barrier that begins.
    #[cfg(test)]
    pub(crate) fn phase(&self) -> usize {
        self.common.phase.load(Ordering::SeqCst)
    }

    /// Panics outside of every turn, in a build that checks.
    #[cfg(any(test, debug_assertions))]
    pub(crate) fn check_open(&self, what: &str) {
        assert!(self.is_any_open() || std::thread::panicking(), "{what} outside of a turn");
    }

    /// Waits until every turn that has begun by now has ended. Cancel safe.
    pub(crate) async fn barrier<T>(&self, _seat: &mut BarrierSeat, before: T) -> Ended<T> {
        for _ in 0..2 {
            let old = self.common.phase.fetch_add(1, Ordering::SeqCst) & 1;
            for shard in &self.shards {
                std::future::poll_fn(|cx| self.poll_empty(shard, old, cx.waker())).await;
            }
        }
        *self.common.waiter.lock() = None;
        Ended(before)
    }

    fn poll_empty(&self, shard: &Shard, phase: usize, waker: &Waker) -> Poll<()> {
        let open = &shard.open[phase];
        *self.common.waiter.lock() = Some(waker.clone());
        if open.fetch_or(WAITED_FOR, Ordering::SeqCst) & !WAITED_FOR > 0 {
            return Poll::Pending;
        }
        open.fetch_and(!WAITED_FOR, Ordering::SeqCst);
        Poll::Ready(())
    }
}

impl Drop for TurnGuard {
    fn drop(&mut self) {
        if self.shard.open[self.phase].fetch_sub(1, Ordering::SeqCst) == WAITED_FOR + 1 {
            let waiter = self.shard.common.waiter.lock().take();
            if let Some(waiter) = waiter {
                waiter.wake();
            }
        }
    }
}
