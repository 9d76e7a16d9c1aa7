//! Writing a client's output to its plain TCP socket, by whoever has just added to it.
//!
//! The output is taken under the lock and written without it: others go on adding meanwhile, and the writer comes back for that. When the
//! socket takes no more, the rest goes back and the connection's own task waits for the socket.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;

use tokio::net::TcpStream;

use super::client::{ClientState, signal};
pub(crate) use super::gate::By;
use super::{Cause, Client, Core};
use crate::session::{Output, Timestamp};

/// Rounds in which a writer comes back for what was added meanwhile, before it leaves that to the client's task.
const ROUNDS_MAX: usize = 8;

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left, or somebody else sees to it.
    Done,
    /// The socket takes no more; the client's task must wait for it.
    Blocked,
}

impl Core {
    /// [`flush`] by the client's own task. `is_ready`: a socket that took no more takes more again.
    pub(crate) fn flush_own(&self, client: &Client, is_ready: bool) -> Flushed {
        flush(self, client, self.now(), By::OwnTask, is_ready)
    }

    /// Before the end of a connection: nobody but its own task writes any more. `false`: somebody
    /// is writing, and the task is woken when he is done.
    pub(crate) fn reserve_output(&self, client: &Client, epoch: u64) -> bool {
        client.lock().link_of(epoch).is_none_or(|link| link.gate.reserve())
    }
}

/// Writes what the client has for its socket.
pub(crate) fn flush(core: &Core, client: &Client, now: Timestamp, by: By, is_ready: bool) -> Flushed {
    for _ in 0..ROUNDS_MAX {
        let (socket, mut output, is_durable) = {
            let mut state = client.lock();
            let state = &mut *state;
            let Some(link) = &mut state.link else { return Flushed::Done };
            link.flush.keep();
            let Some(socket) = &link.socket else {
                // TLS: only the client's task can write.
                if by == By::Publisher {
                    link.signal(signal::FLUSH);
                }
                core.settle(client, state);
                return Flushed::Done;
            };
            if is_ready {
                link.gate.open();
            } else if by == By::OwnTask && link.gate.is_blocked() {
                // Not taken in vain: what is taken cannot be left out when memory is short, and what
                // comes meanwhile, which is newer, would be.
                core.settle(client, state);
                return Flushed::Blocked;
            }
            if !state.session.out.has_output() || !link.gate.enter(by) {
                core.settle(client, state);
                return Flushed::Done;
            }
            (Arc::clone(socket), state.session.out.take(), state.session.is_durable())
        };
        // A body that has left memory but for this output gives its place in the log up with it.
        let _turn = is_durable.then(|| core.enter_turn());
        let result = write(&socket, &mut output);
        let written = match &result {
            Ok(n) | Err((n, _)) => *n,
        };
        core.metrics.bytes_sent.add(written as u64);
        let mut state = client.lock();
        let state = &mut *state;
        let Some(link) =
            state.link.as_mut().filter(|link| link.socket.as_ref().is_some_and(|s| Arc::ptr_eq(s, &socket)))
        else {
            // Another connection took the session over while we wrote to the old one. In the turn.
            drop(output);
            return Flushed::Done;
        };
        if written > 0 {
            link.progress = now;
        }
        let blocked = matches!(&result, Err((_, error)) if error.kind() == io::ErrorKind::WouldBlock);
        if link.gate.leave(by, blocked) {
            // Not by a signal: one may lie there that the task, which is about to end, does not
            // look at any more.
            link.waker.wake_by_ref();
        }
        state.session.out.released(output.take_released());
        match result {
            Ok(_) => {
                give_spare(output.into_spare());
                state.session.at(now).output_written(written);
                let (expired, too_large) = state.session.take_dropped_late();
                core.count_late(expired, too_large);
                core.record_work_now(client, &mut state.session);
            }
            Err((_, error)) => {
                state.session.out.put_back(output);
                state.session.out.written(written);
                core.settle(client, state);
                core.cut_as_promised(client, state);
                if blocked {
                    return Flushed::Blocked;
                }
                let Some(link) = &mut state.link else { return Flushed::Done };
                link.close_cause.get_or_insert_with(|| Cause::from(error));
                link.signal(signal::CLOSE);
                return Flushed::Done;
            }
        }
        if by == By::Publisher {
            leave_to_task(core, state);
        }
        core.settle(client, state);
        if state.link.as_ref().is_some_and(|link| link.cut_to.is_some()) {
            core.cut_as_promised(client, state);
        }
        if !state.session.out.has_output() {
            return Flushed::Done;
        }
    }
    // Much is coming in for this client: its own task goes on, this thread serves others.
    let state = client.lock();
    if let Some(link) = &state.link {
        link.signal(signal::FLUSH);
    }
    Flushed::Done
}

/// What was written has made room, and what came out of the queue for it is in the output. The rest
/// is the client's task's: it goes on with a replay, which may have found the output full, reads
/// back what is in the log, and waits for the log.
fn leave_to_task(core: &Core, state: &ClientState) {
    let Some(link) = &state.link else { return };
    if state.may_replay() || core.wants_messages(&state.session) {
        link.signal(signal::FLUSH);
    }
    if let Some(log) = &core.log
        && let Some(position) = state.session.awaits_log()
    {
        log.wake_at(position, &link.waker);
    }
}

/// Writes until all is written or the socket takes no more; in both cases with the number of bytes written.
fn write(socket: &TcpStream, output: &mut Output) -> Result<usize, (usize, io::Error)> {
    let mut total = 0;
    while !output.is_empty() {
        let result = if output.is_single() {
            socket.try_write(output.first())
        } else {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = output.slices(&mut slices);
            socket.try_write_vectored(slices.get(..used).unwrap_or_default())
        };
        match result {
            Ok(0) => return Err((total, io::ErrorKind::WriteZero.into())),
            Ok(n) => {
                total += n;
                output.advance(n);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((total, error)),
        }
    }
    Ok(total)
}

/// Buffers a thread keeps for the next output, so that idle clients hold none and busy ones need not allocate.
const SPARES_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    static SPARES: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer, with capacity if one lies ready.
pub(crate) fn take_spare() -> Vec<u8> {
    SPARES.with_borrow_mut(|spares| spares.pop().unwrap_or_default())
}

pub(crate) fn give_spare(spare: Vec<u8>) {
    if spare.capacity() > 0 && spare.capacity() <= SPARE_BYTES_MAX {
        SPARES.with_borrow_mut(|spares| {
            if spares.len() < SPARES_MAX {
                spares.push(spare);
            }
        });
    }
}
