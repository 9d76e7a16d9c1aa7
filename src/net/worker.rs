//! What belongs to a worker thread and not to a connection: the read buffer and the turn.
//!
//! A thread runs one turn at a time and no turn awaits, so one large buffer per thread serves all its connections; an idle connection
//! holds none.

use std::cell::RefCell;

use crate::broker::Turn;

/// Bytes asked of a socket at once. Larger reads mean fewer system calls for a busy publisher.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// An unfinished packet up to this size is put before the bytes read next; a larger one stays where it is and grows there.
pub(super) const HEADROOM: usize = 16 * 1024;

/// See the module's documentation.
pub(super) struct Worker {
    pub(super) buffer: Box<[u8]>,
    pub(super) turn: Turn,
}

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::new(Worker {
        buffer: vec![0; HEADROOM + READ_BYTES].into_boxed_slice(),
        turn: Turn::new(),
    });
}

/// Lends the thread's worker to `f`, which must not call this again.
pub(super) fn with<R>(f: impl FnOnce(&mut Worker) -> R) -> R {
    WORKER.with_borrow_mut(f)
}
