//! What belongs to a worker thread and not to a connection: the read buffer and the turn.
//!
//! A thread runs one turn at a time and no turn awaits, so one large buffer per thread serves all its connections; an idle connection
//! holds none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::broker::Turn;

/// Bytes asked of a socket at once. Larger reads mean fewer system calls for a busy publisher.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// An unfinished packet up to this size is put before the bytes read next; a larger one stays where it is and grows there.
pub(super) const HEADROOM: usize = 16 * 1024;

/// How long a thread goes on before it lets others have its processor.
const YIELD_AFTER: Duration = Duration::from_millis(1);

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

/// Lets the other tasks of this thread have their turns before the one of `cx` goes on, and those
/// whose sockets have news: it is woken behind the runtime's next look at them. A plain wake would
/// put it before that look, again and again.
pub(super) fn let_others_first(cx: &mut Context<'_>) {
    let yielding = std::pin::pin!(tokio::task::yield_now());
    // It is not ready the first time: it has noted the waker.
    let _ = yielding.poll(cx);
}

/// Lets other threads have this one's processor, if it has been long enough since the last time.
///
/// Where all processors are busy, a thread woken for a quiet client would else wait for the end of this one's time slice, several milliseconds. Not
/// more often, for the system may charge the rest of the slice.
pub(super) fn let_others_run() {
    thread_local! {
        static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= YIELD_AFTER) {
        std::thread::yield_now();
        LAST.set(Some(Instant::now()));
    }
}

/// Connections that end at once on one thread within [`YIELD_AFTER`]. Further ones come behind
/// whoever is ready.
const ENDINGS_AT_ONCE: u32 = 8;

/// One more connection ends on this thread. `true`: it is more than may end at once.
pub(super) fn count_ending() -> bool {
    thread_local! {
        static SINCE: Cell<Option<(Instant, u32)>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let recent = SINCE.get().filter(|(since, _)| now.duration_since(*since) < YIELD_AFTER);
    let (since, count) = recent.unwrap_or((now, 0));
    SINCE.set(Some((since, count + 1)));
    count >= ENDINGS_AT_ONCE
}
