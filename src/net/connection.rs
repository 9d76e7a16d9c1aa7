//! The task of one connection: handshake, CONNECT, then turns of reading, handling and writing until it ends.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::attend::FromLog;
use super::authenticate::Authentication;
use super::entry::Slots;
use super::hold::HOLD;
use super::line::Line;
use super::listener::ListenerShared;
use super::rate::PublishRate;
use super::set_up::set_up;
use super::stream::Stream;
use super::worker::{self, HEADROOM, Worker};
use crate::accounts::STEP;
use crate::broker::{
    Cause, Client, Core, DeferredFlush, Disconnected, Handle, LargePacket, Promiser, Publisher,
    UnfinishedCharge, signal,
};
use crate::escape::escape;
use crate::session::{Output, Terms};

/// Reads in one go before others on this thread get their turn.
const READS_PER_POLL: usize = 4;

/// Runs a connection from accept to close.
pub(super) async fn run(
    core: Arc<Core>,
    shared: Arc<ListenerShared>,
    stream: TcpStream,
    peer: SocketAddr,
    slots: Slots,
) {
    let _closed = SocketGuard(Arc::clone(&core));
    // Places are given back before the socket is counted off.
    let mut slots = slots;
    // The handshake needs much room on its way and none afterwards: it is boxed, so that an idle
    // connection does not keep it. The connection is boxed, for the task would hold it twice: as the
    // result of the handshake, and to work with it.
    let connected = Box::pin(set_up(&core, &shared, stream, peer, &mut slots)).await;
    drop(shared);
    let Some(mut connection) = connected else { return };
    let cause = poll_fn(|cx| connection.poll(cx)).await;
    Box::pin(connection.close(cause)).await;
}

/// Counts the socket off when its task ends, even by a panic.
struct SocketGuard(Arc<Core>);

impl Drop for SocketGuard {
    fn drop(&mut self) {
        socket_closed(&self.0);
    }
}

pub(super) fn socket_closed(core: &Core) {
    if core.metrics.sockets.decrement() == 0 {
        core.sockets_gone.notify_waiters();
    }
}

/// Tells a successor that this connection's task is gone, even by a panic.
pub(super) struct GoneGuard(pub(super) Arc<Handle>);

impl Drop for GoneGuard {
    fn drop(&mut self) {
        self.0.set_gone();
    }
}

/// A connection attached to its session.
pub(super) struct Connection {
    pub(super) core: Arc<Core>,
    pub(super) client: Arc<Client>,
    pub(super) epoch: u64,
    pub(super) stream: Stream,
    /// Bytes of a packet that is not complete. Empty and without memory while there is none.
    pub(super) partial: Vec<u8>,
    /// What they are charged with beyond [`HEADROOM`].
    pub(super) unfinished: Option<Box<UnfinishedCharge>>,
    /// `partial` begins with packets that are complete, or a publish is not done: the last turn's
    /// budget was spent.
    pub(super) backlog: bool,
    /// The packet at its beginning has many filters, and comes in slices.
    pub(super) large: Option<Box<LargePacket>>,
    /// What CONNECT settled.
    pub(super) terms: Terms,
    pub(super) publisher: Publisher,
    /// As who it promises writes.
    pub(super) promiser: Promiser,
    /// Receivers whose output is written in one of its next turns.
    pub(super) deferred: Option<Box<DeferredFlush>>,
    pub(super) line: Line,
    /// Another turn is needed for something else than a backlog.
    pub(super) wants_turn: bool,
    /// TLS only: output being written.
    pub(super) output: Option<Box<Output>>,
    pub(super) from_log: FromLog,
    /// How fast it may be read, if that is bounded.
    pub(super) rate: Option<Box<PublishRate>>,
    /// Set while the connection is held for a receiver's sake, or by its rate.
    pub(super) hold: Option<Pin<Box<Sleep>>>,
    pub(super) peer: SocketAddr,
    /// The method of enhanced authentication in use, if any.
    pub(super) authentication: Option<Box<Authentication>>,
    /// The end is settled with the broker.
    pub(super) finished: bool,
    /// Dropped last, with the socket closed: a successor waits for it.
    pub(super) gone: GoneGuard,
}

/// What a connection's task does next.
pub(super) enum Next {
    /// It has a backlog, and needs another turn.
    Turn,
    /// It waits.
    Wait,
}

/// What one read brought.
pub(super) enum Progress {
    Read,
    Waiting,
}

/// Whether the socket took all there was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Socket {
    Takes,
    Blocked,
}

impl Connection {
    /// Runs until the connection ends, and says why.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        let result = if self.line.is_waiting(cx) {
            self.poll_in_line(cx)
        } else {
            let next = self.poll_turns(cx);
            self.line.leave();
            next.map(|next| self.queue_up(next, cx))
        };
        match result {
            Ok(()) => Poll::Pending,
            Err(cause) => {
                self.line.leave();
                Poll::Ready(cause)
            }
        }
    }

    /// Reads what is left after the socket has failed, which a write may tell first: acknowledgements count that lie there, and so does a
    /// DISCONNECT ([MQTT-3.1.2-10]). Ready at the end of the input, which a failed socket always has, or when a successor waits.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        // Else a successor, who leaves one that lies there already, would wake nobody.
        self.gone.0.take_signals();
        loop {
            if self.client.lock().link_of(self.epoch).is_none() {
                return Poll::Ready(Cause::TakenOver);
            }
            ready!(self.poll_place(cx));
            match self.poll_input(cx) {
                Ok(Progress::Read) if self.backlog => {
                    // A full log wakes this task when it has room. What has begun does not wait for it.
                    if self.publisher.is_pending() || !self.log_is_full(cx) || self.goes_on_beside() {
                        worker::let_others_first(cx);
                    }
                    return Poll::Pending;
                }
                Ok(Progress::Read) => {}
                Ok(Progress::Waiting) => {
                    self.gone.0.set_read();
                    return Poll::Pending;
                }
                Err(cause) => return Poll::Ready(cause),
            }
        }
    }

    /// A client that has sent DISCONNECT and connects anew is not to be told by its own successor that it was taken over.
    pub(super) fn read_before_take_over(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        for _ in 0..READS_PER_POLL {
            if let Progress::Waiting = self.poll_input(cx)? {
                break;
            }
        }
        // Else it goes on in further turns, as long as the successor has patience.
        if !self.backlog {
            self.gone.0.set_read();
        }
        Ok(())
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Result<Next, Cause> {
        let signals = self.gone.0.take_signals();
        if signals & signal::CLOSE != 0 {
            return Err(self.close_cause());
        }
        self.let_go_of_routes(signals);
        if signals & signal::READ != 0 {
            self.read_before_take_over(cx)?;
        }
        if self.publisher.is_pending() {
            // Whatever else is to wait: what has begun is brought to its end.
            self.handle_backlog()?;
            if self.publisher.is_pending() {
                return Ok(Next::Turn);
            }
        }
        let socket = self.poll_work(cx, true)?;
        if self.has_no_room_for_answers(socket) {
            // A peer that asks and does not read its answers is not asked for more. If they wait
            // for the log, it wakes this task.
            if socket == Socket::Blocked && signals & signal::KEEP_ALIVE != 0 {
                self.judge_unread()?;
            }
            return Ok(Next::Wait);
        }
        if let Some(hold) = &mut self.hold {
            if hold.as_mut().poll(cx).is_pending() {
                return Ok(Next::Wait);
            }
            self.hold = None;
        }
        for _ in 0..READS_PER_POLL {
            let congested;
            if self.log_is_full(cx) && !self.goes_on_beside()
                || self.hold_if_too_fast(cx)
                || self.hold_if_too_much_is_unfinished(cx)
            {
                return Ok(Next::Wait);
            }
            match self.poll_input(cx)? {
                Progress::Waiting => {
                    if signals & signal::KEEP_ALIVE != 0 {
                        self.judge_keep_alive()?;
                    }
                    return Ok(Next::Wait);
                }
                Progress::Read => {
                    congested = worker::with(|worker| std::mem::take(&mut worker.turn.congested));
                    let socket = self.poll_work(cx, true)?;
                    if self.has_no_room_for_answers(socket) {
                        return Ok(Next::Wait);
                    }
                    if self.backlog {
                        // Its turn is over. Others first, and what has come for them meanwhile.
                        if signals & signal::KEEP_ALIVE != 0 {
                            self.judge_keep_alive()?;
                        }
                        return Ok(Next::Turn);
                    }
                }
            }
            if congested && self.hold_for(HOLD, cx) {
                return Ok(Next::Wait);
            }
        }
        // There is more; others first.
        if signals & signal::KEEP_ALIVE != 0 {
            self.judge_keep_alive()?;
        }
        worker::let_others_run();
        cx.waker().wake_by_ref();
        Ok(Next::Wait)
    }

    /// Sessions that have ended are among the receivers of topics to which this client has not
    /// published since, if it was told so.
    pub(super) fn let_go_of_routes(&mut self, signals: u8) {
        if signals & signal::ROUTES != 0 {
            self.core.let_go_of_routes(&self.client, &mut self.publisher);
        }
    }

    /// Handles what the last turn has left.
    fn handle_backlog(&mut self) -> Result<(), Cause> {
        if self.deferred.as_ref().is_some_and(|deferred| deferred.is_due()) {
            self.write_deferred();
            return Ok(());
        }
        self.work_on_unfinished(true);
        let bytes = std::mem::take(&mut self.partial);
        let consumed = worker::with(|worker| self.handle_bytes(&mut worker.turn, &bytes))?;
        if consumed == 0 {
            self.partial = bytes;
        } else {
            self.keep(bytes.get(consumed..).unwrap_or_default());
        }
        self.charge_unfinished()
    }

    /// Whether the client's unwritten output is at its bound, so that answers to further requests
    /// have no room. It waits for the socket then, or, as far as answers wait for the log, for
    /// that; each wakes this task.
    fn has_no_room_for_answers(&self, socket: Socket) -> bool {
        if socket == Socket::Takes && !self.from_log.has_grown {
            return false;
        }
        let state = self.client.lock();
        let held = state.link.as_ref().and_then(|link| link.held.as_ref()).map_or(0, |held| held.bytes());
        if socket == Socket::Takes && held == 0 {
            return false;
        }
        state.session.out.pending() + held >= state.session.limits().queue_bytes_max
            // Answers that wait for the log, and there is no room for more: the log makes some.
            || held >= STEP && self.core.accounts.is_over()
    }

    pub(super) fn close_cause(&mut self) -> Cause {
        let mut state = self.client.lock();
        // No link of ours: a successor has taken it.
        state
            .link_of(self.epoch)
            // It stays there: by it is seen that the connection is closing.
            .map_or(Cause::TakenOver, |link| link.close_cause.clone().unwrap_or(Cause::Shutdown))
    }

    pub(super) fn judge_keep_alive(&self) -> Result<(), Cause> {
        let mut state = self.client.lock();
        let Some(link) = state.link_of(self.epoch) else { return Err(Cause::TakenOver) };
        match link.keep_alive {
            Some(keep_alive) if self.core.now() >= keep_alive.deadline(self.client.last_heard()) => {
                Err(Cause::KeepAliveExpired)
            }
            _ => Ok(()),
        }
    }

    /// Keep alive of a peer we do not read, because its output is full: if its socket took nothing for that long, it has gone, or will
    /// not come to its senses.
    fn judge_unread(&self) -> Result<(), Cause> {
        let mut state = self.client.lock();
        let Some(link) = state.link_of(self.epoch) else { return Err(Cause::TakenOver) };
        let last = self.client.last_heard().max(link.progress);
        match link.keep_alive {
            Some(keep_alive) if self.core.now() >= keep_alive.deadline(last) => Err(Cause::KeepAliveExpired),
            _ => Ok(()),
        }
    }

    /// Reads once and handles every complete packet.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<Progress, Cause> {
        if self.from_log.stalled.is_some() {
            return self.poll_input_beside(cx);
        }
        if self.backlog {
            return self.handle_backlog().map(|()| Progress::Read);
        }
        worker::with(|worker| {
            let Worker { buffer, turn } = worker;
            let carried = self.partial.len();
            let offset = if carried <= HEADROOM { carried } else { 0 };
            let space = buffer.get_mut(offset..).unwrap_or_default();
            let read_max = self.rate.as_ref().map_or(space.len(), |rate| rate.read_max().min(space.len()));
            let space = space.get_mut(..read_max).unwrap_or_default();
            let n = match self.stream.poll_read(cx, space) {
                Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(result) => result?,
            };
            if n == 0 {
                return Err(Cause::PeerClosed);
            }
            self.core.metrics.bytes_received.add(n as u64);
            if let Some(rate) = &mut self.rate {
                rate.took_bytes(n, self.core.now());
            }
            if carried <= HEADROOM {
                // The unfinished packet stands before the new bytes, and all is handled in place.
                if let Some(place) = buffer.get_mut(..carried) {
                    place.copy_from_slice(&self.partial);
                }
                let bytes = buffer.get(..carried + n).unwrap_or_default();
                let consumed = self.handle_bytes(turn, bytes)?;
                self.keep(bytes.get(consumed..).unwrap_or_default());
            } else {
                // A large packet on its way: it grows where it is.
                self.partial.extend_from_slice(buffer.get(..n).unwrap_or_default());
                self.work_on_unfinished(true);
                let mut bytes = std::mem::take(&mut self.partial);
                let consumed = self.handle_bytes(turn, &bytes)?;
                if consumed > 0 {
                    self.keep(bytes.get(consumed..).unwrap_or_default());
                } else {
                    std::mem::swap(&mut self.partial, &mut bytes);
                }
            }
            self.charge_unfinished()?;
            Ok(Progress::Read)
        })
    }

    /// Settles the end with the broker and logs it. What is left of it goes to `Core::settle_end`.
    pub(super) fn finish(&mut self, cause: &Cause) -> Disconnected {
        self.finished = true;
        let end = self.core.disconnected(&self.client, self.epoch, cause);
        tracing::info!(client_id = %escape(&self.client.id), peer = %self.peer, %cause, "disconnected");
        end
    }

    /// The same at once, where nobody can wait.
    pub(super) fn finish_now(&mut self, cause: &Cause) {
        if let Some(fan_out) = self.publisher.take_fan_out() {
            self.core.complete_fan_out_now(fan_out);
        }
        let end = self.finish(cause);
        self.core.settle_end_now(&self.client, end);
    }
}

impl Drop for Connection {
    /// After a panic in this task the session must not believe that it still has a connection.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // This may run while a panic unwinds: a second one that got out of here would end the process.
        let settled = catch_unwind(AssertUnwindSafe(|| {
            tracing::error!(client_id = %escape(&self.client.id), "a connection's task ended out of order");
            // The receivers of the turn that was broken off were promised a write.
            worker::with(|worker| worker.turn.finish(&self.core));
            self.finish_now(&Cause::Internal);
        }));
        if settled.is_err() {
            tracing::error!("the end of a connection could not be settled");
        }
    }
}
