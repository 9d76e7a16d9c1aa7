//! `Watermark`: how far the log has come, and who is to be woken when it has come further.
//!
//! Nobody is woken in vain for long and nobody is forgotten: who finds the mark too low registers
//! under the lock which the writer takes after it has moved the mark, and looks at the mark again
//! there. `tests/models` has the proof, on this very code.

use std::collections::BTreeMap;
use std::task::Waker;

use crate::ledger::Position;
use crate::sync::{AtomicU64, Mutex, Ordering};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Watermark {
    reached: AtomicU64,
    /// By position and identity: who asks again before it is woken stands here once.
    waiters: Mutex<BTreeMap<(u64, Identity), Waker>>,
}

impl Watermark {
    pub(super) fn at(position: Position) -> Self {
        Self { reached: AtomicU64::new(position.as_u64()), waiters: Mutex::new(BTreeMap::new()) }
    }

    pub(super) fn position(&self) -> Position {
        Position::from_u64(self.reached.load(Ordering::Acquire))
    }

    /// Moves it, and wakes those who wait for no more than that.
    pub(super) fn advance(&self, position: Position) {
        self.reached.store(position.as_u64(), Ordering::Release);
        let due = {
            let mut waiters = self.waiters.lock();
            let later = waiters.split_off(&(position.as_u64() + 1, (0, 0)));
            std::mem::replace(&mut *waiters, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    /// Wakes once when it has come to `end`; at once if it is there.
    pub(super) fn wake_at(&self, end: Position, waker: &Waker) {
        {
            let mut waiters = self.waiters.lock();
            // Under the lock: the mark is moved before it is taken.
            if self.position() < end {
                waiters.entry((end.as_u64(), identity(waker))).or_insert_with(|| waker.clone());
                return;
            }
        }
        waker.wake_by_ref();
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiters(&self) -> usize {
        self.waiters.lock().len()
    }

    /// Something else has changed that those who wait may want to see. They go on waiting.
    pub(super) fn wake_all(&self) {
        let waiting: Vec<Waker> = self.waiters.lock().values().cloned().collect();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// It will not move any more: everybody is woken and nobody waits.
    pub(super) fn close(&self) {
        let waiters = std::mem::take(&mut *self.waiters.lock());
        waiters.into_values().for_each(Waker::wake);
    }
}

/// Wakers that are equal in this wake the same task.
pub(super) type Identity = (usize, usize);

pub(super) fn identity(waker: &Waker) -> Identity {
    (waker.data() as usize, std::ptr::from_ref(waker.vtable()) as usize)
}
