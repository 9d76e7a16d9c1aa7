//! The task of one connection: handshake, CONNECT, then turns of reading, handling and writing until it ends.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::handshake::read_connect;
use super::listener::ListenerShared;
use super::stream::Stream;
use super::worker::{self, HEADROOM, Worker};
use crate::broker::{
    Attached, Cause, Client, ConnectRequest, Core, Flushed, Handle, Publisher, Turn, signal,
};
use crate::escape::escape;
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{Connect, ConnectReturnCode, DecodeError, Framed, Packet, decode, frame};
use crate::session::{Output, ack};

/// Reads in one go before others on this thread get their turn.
const READS_PER_POLL: usize = 4;

/// How long the end of a failed socket's input is waited for. The system has it at once.
const REST_TIME_MAX: Duration = Duration::from_millis(500);

/// How long a publisher is held when a receiver that keeps reading is close to its bound.
const HOLD: Duration = Duration::from_millis(2);

/// Runs a connection from accept to close.
pub(super) async fn run(core: Arc<Core>, shared: Arc<ListenerShared>, stream: TcpStream, peer: SocketAddr) {
    let _closed = SocketGuard(Arc::clone(&core));
    // The handshake needs much room on its way and none afterwards: it is boxed, so that an idle connection does not keep it.
    let connected = Box::pin(set_up(&core, &shared, stream, peer)).await;
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

/// TLS and CONNECT, within `limits.connect_timeout` together.
async fn set_up(
    core: &Arc<Core>,
    shared: &ListenerShared,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<Connection> {
    let first = async {
        let mut stream = match &shared.tls {
            None => Stream::Tcp(Arc::new(stream)),
            Some(acceptor) => {
                let accepted = acceptor.accept(stream).await;
                Stream::Tls(Box::new(accepted.map_err(|error| Cause::Tls(error.to_string()))?))
            }
        };
        let first = read_connect(core, &mut stream).await?;
        Ok((stream, first))
    };
    let result = tokio::select! {
        result = tokio::time::timeout(core.limits.connect_timeout, first) => {
            result.unwrap_or(Err(Cause::ConnectTimeout))
        }
        () = core.shut_down() => Err(Cause::Shutdown),
    };
    let (stream, first) = match result {
        Ok(ok) => ok,
        Err(cause) => {
            refused(core, peer, None, &cause);
            return None;
        }
    };
    let connect = match decode_connect(&first.bytes) {
        Ok(connect) => connect,
        Err(cause) => {
            refused(core, peer, None, &cause);
            // The one fault of a CONNECT that the standard has an answer for ([MQTT-3.1.2-2]).
            if let Cause::Malformed(DecodeError::UnsupportedLevel { .. }) = cause {
                refuse(stream, ConnectReturnCode::RefusedProtocolVersion).await;
            }
            return None;
        }
    };
    if let Err(code) = admit(shared, &stream, &connect) {
        refused(core, peer, Some(connect.client_id), &Cause::Refused(code));
        refuse(stream, code).await;
        return None;
    }
    let gone = GoneGuard(Arc::new(Handle::default()));
    let request = ConnectRequest {
        connect: &connect,
        peer,
        socket: stream.shared_socket(),
        handle: Arc::clone(&gone.0),
    };
    let Attached { client, epoch, session_present } = match core.connect(request).await {
        Ok(attached) => attached,
        Err(code) => {
            refused(core, peer, Some(connect.client_id), &Cause::Refused(code));
            refuse(stream, code).await;
            return None;
        }
    };
    // At once: from here on the end of the connection is settled however this task ends.
    let behind = first.bytes.get(first.total..).unwrap_or_default().to_vec();
    let mut connection = Connection {
        core: Arc::clone(core),
        client,
        epoch,
        stream,
        partial: behind,
        started: false,
        replaying: false,
        publisher: Publisher::default(),
        output: None,
        hold: None,
        peer,
        finished: false,
        gone,
    };
    core.metrics.packets_received.add(1);
    tracing::info!(
        client_id = %escape(&connection.client.id),
        %peer,
        version = connect.version.name(),
        clean_session = connect.clean_session,
        session_present,
        keep_alive = connect.keep_alive,
        user_name = connect.user_name.map(|name| tracing::field::display(escape(name))),
        "connected"
    );
    if core.is_shutting_down() {
        connection.finish(&Cause::Shutdown);
        return None;
    }
    Some(connection)
}

fn decode_connect(bytes: &[u8]) -> Result<Connect<'_>, Cause> {
    if let Framed::Frame(frame) = frame(bytes, usize::MAX)?
        && let Packet::Connect(connect) = decode(&frame)?
    {
        return Ok(connect);
    }
    Err(Cause::NotConnect { looks_like: None })
}

/// Whether this listener lets the client in. A client is anonymous if it shows neither a user name nor a certificate.
fn admit(shared: &ListenerShared, stream: &Stream, connect: &Connect<'_>) -> Result<(), ConnectReturnCode> {
    let certified = match stream {
        Stream::Tcp(_) => false,
        Stream::Tls(stream) => stream.get_ref().1.peer_certificates().is_some(),
    };
    if shared.allow_anonymous || certified {
        Ok(())
    } else if connect.user_name.is_some() {
        // No method of authentication is configured that could confirm it.
        Err(ConnectReturnCode::BadUserNamePassword)
    } else {
        Err(ConnectReturnCode::NotAuthorized)
    }
}

async fn refuse(stream: Stream, code: ConnectReturnCode) {
    let mut connack = Vec::new();
    encode::connack(&mut connack, false, code);
    stream.finish_with(&connack).await;
}

fn refused(core: &Core, peer: SocketAddr, client_id: Option<&str>, cause: &Cause) {
    core.metrics.refused.add(cause.label(), 1);
    if *cause == Cause::PeerClosed {
        // Port probes and health checks.
        tracing::debug!(%peer, %cause, "closed before CONNECT");
        return;
    }
    tracing::info!(%peer, client_id = client_id.map(|id| tracing::field::display(escape(id))), %cause, "refused");
}

/// Tells a successor that this connection's task is gone, even by a panic.
struct GoneGuard(Arc<Handle>);

impl Drop for GoneGuard {
    fn drop(&mut self) {
        self.0.set_gone();
    }
}

/// A connection attached to its session.
struct Connection {
    core: Arc<Core>,
    client: Arc<Client>,
    epoch: u64,
    stream: Stream,
    /// Bytes of a packet that is not complete. Empty and without memory while there is none.
    partial: Vec<u8>,
    started: bool,
    /// Retained messages may still be owed.
    replaying: bool,
    publisher: Publisher,
    /// TLS only: output being written.
    output: Option<Box<Output>>,
    /// Set while the connection is held for a receiver's sake.
    hold: Option<Pin<Box<Sleep>>>,
    peer: SocketAddr,
    /// The end is settled with the broker.
    finished: bool,
    /// Dropped last, with the socket closed: a successor waits for it.
    gone: GoneGuard,
}

/// What one read brought.
enum Progress {
    Read,
    Waiting,
}

/// Whether the socket took all there was.
#[derive(PartialEq, Eq)]
enum Socket {
    Takes,
    Blocked,
}

impl Connection {
    /// Runs until the connection ends, and says why.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        match self.poll_turns(cx) {
            Ok(()) => Poll::Pending,
            Err(cause) => Poll::Ready(cause),
        }
    }

    /// Reads what is left after the socket has failed, which a write may tell first: acknowledgements count that lie there, and so does a
    /// DISCONNECT ([MQTT-3.1.2-10]). Ready at the end of the input, which a failed socket always has, or when a successor waits.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        loop {
            if self.client.lock().link_of(self.epoch).is_none() {
                return Poll::Ready(Cause::TakenOver);
            }
            match self.poll_input(cx) {
                Ok(Progress::Read) => {}
                Ok(Progress::Waiting) => return Poll::Pending,
                Err(cause) => return Poll::Ready(cause),
            }
        }
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        if !self.started {
            self.started = true;
            self.start(cx)?;
        }
        let signals = self.gone.0.take_signals();
        if signals & signal::CLOSE != 0 {
            return Err(self.close_cause());
        }
        if self.poll_output(cx)? == Socket::Blocked && self.output_is_full() {
            // A peer that asks and does not read its answers is not asked for more.
            if signals & signal::KEEP_ALIVE != 0 {
                self.judge_unread()?;
            }
            return Ok(());
        }
        if let Some(hold) = &mut self.hold {
            if hold.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            self.hold = None;
        }
        for _ in 0..READS_PER_POLL {
            match self.poll_input(cx)? {
                Progress::Waiting => {
                    if signals & signal::KEEP_ALIVE != 0 {
                        self.judge_keep_alive()?;
                    }
                    return Ok(());
                }
                Progress::Read => {
                    if self.poll_output(cx)? == Socket::Blocked && self.output_is_full() {
                        return Ok(());
                    }
                }
            }
            if self.hold_if_congested(cx) {
                return Ok(());
            }
        }
        // There is more; others first.
        if signals & signal::KEEP_ALIVE != 0 {
            self.judge_keep_alive()?;
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    /// The first poll: from now on others can wake this task; what came in behind CONNECT is handled.
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        let epoch = self.epoch;
        match self.client.lock().link_of(epoch) {
            Some(link) => link.waker = Some(cx.waker().clone()),
            None => return Err(Cause::TakenOver),
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
            return Ok(());
        }
        let behind = std::mem::take(&mut self.partial);
        let consumed = worker::with(|worker| self.handle_bytes(&mut worker.turn, &behind))?;
        self.keep(behind.get(consumed..).unwrap_or_default());
        Ok(())
    }

    /// Whether the client's unwritten output is at its bound, so that answers to further requests have no room.
    fn output_is_full(&self) -> bool {
        self.client.lock().session.out.pending() >= self.core.limits.queue_bytes_max
    }

    fn close_cause(&mut self) -> Cause {
        let mut state = self.client.lock();
        // No link of ours: a successor has taken it.
        state
            .link_of(self.epoch)
            .map_or(Cause::TakenOver, |link| link.close_cause.take().unwrap_or(Cause::Shutdown))
    }

    fn judge_keep_alive(&self) -> Result<(), Cause> {
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

    fn hold_if_congested(&mut self, cx: &mut Context<'_>) -> bool {
        let congested = worker::with(|worker| std::mem::take(&mut worker.turn.congested));
        if !congested {
            return false;
        }
        let mut hold = Box::pin(tokio::time::sleep(HOLD));
        let pending = hold.as_mut().poll(cx).is_pending();
        if pending {
            self.hold = Some(hold);
        }
        pending
    }

    /// Reads once and handles every complete packet.
    fn poll_input(&mut self, cx: &mut Context<'_>) -> Result<Progress, Cause> {
        worker::with(|worker| {
            let Worker { buffer, turn } = worker;
            let carried = self.partial.len();
            let offset = if carried <= HEADROOM { carried } else { 0 };
            let space = buffer.get_mut(offset..).unwrap_or_default();
            let n = match self.stream.poll_read(cx, space) {
                Poll::Pending => return Ok(Progress::Waiting),
                Poll::Ready(result) => result?,
            };
            if n == 0 {
                return Err(Cause::PeerClosed);
            }
            self.core.metrics.bytes_received.add(n as u64);
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
                let mut bytes = std::mem::take(&mut self.partial);
                let consumed = self.handle_bytes(turn, &bytes)?;
                if consumed > 0 {
                    self.keep(bytes.get(consumed..).unwrap_or_default());
                } else {
                    std::mem::swap(&mut self.partial, &mut bytes);
                }
            }
            Ok(Progress::Read)
        })
    }

    /// Keeps the bytes of an unfinished packet; no memory if there are none.
    fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Handles the complete packets in `bytes` as one turn; returns how many bytes they took.
    fn handle_bytes(&mut self, turn: &mut Turn, bytes: &[u8]) -> Result<usize, Cause> {
        let core = Arc::clone(&self.core);
        turn.begin(core.now());
        let mut consumed = 0;
        let mut packets = 0;
        let mut published = 0;
        let mut result = Ok(());
        while let Some(rest) = bytes.get(consumed..)
            && !rest.is_empty()
        {
            match frame(rest, core.limits.packet_bytes_max) {
                Ok(Framed::NeedMore { .. }) => break,
                Ok(Framed::Frame(frame)) => {
                    consumed += frame.total();
                    packets += 1;
                    let handled = decode(&frame).map_err(Cause::from).and_then(|packet| {
                        published += u64::from(matches!(packet, Packet::Publish(_)));
                        self.handle_packet(turn, packet)
                    });
                    if let Err(cause) = handled {
                        result = Err(cause);
                        break;
                    }
                }
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            }
        }
        if packets > 0 {
            self.client.heard(turn.now);
            core.metrics.packets_received.add(packets);
            core.metrics.publish_received.add(published);
        }
        self.send_acks(turn);
        if self.replaying {
            self.replaying = core.replay(turn, &self.client);
        }
        turn.finish(&core);
        result.map(|()| consumed)
    }

    /// The acknowledgements of this turn's packets go out together, in their order.
    fn send_acks(&mut self, turn: &mut Turn) {
        if self.publisher.acks.is_empty() {
            return;
        }
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if let Some(link) = state.link.as_mut().filter(|link| link.epoch == self.epoch) {
            state.session.send_acks(&self.publisher.acks);
            if !link.flush_promised {
                link.flush_promised = true;
                turn.touch(&self.client);
            }
        }
        drop(guard);
        self.publisher.acks.clear();
        self.publisher.acks.shrink_to(1_024);
    }

    fn handle_packet(&mut self, turn: &mut Turn, packet: Packet<'_>) -> Result<(), Cause> {
        if !matches!(packet, Packet::Publish(_) | Packet::PubRel(_)) {
            // Answers leave in the order of what they answer.
            self.send_acks(turn);
        }
        match packet {
            Packet::Publish(publish) => {
                self.core.publish(turn, &self.client, &mut self.publisher, &publish);
            }
            Packet::PubAck(id) => self.handle_ack(turn, AckKind::PubAck, id),
            Packet::PubRec(id) => self.handle_ack(turn, AckKind::PubRec, id),
            Packet::PubComp(id) => self.handle_ack(turn, AckKind::PubComp, id),
            Packet::PubRel(id) => {
                self.client.lock().session.release(id);
                self.publisher.acks.extend_from_slice(&ack(AckKind::PubComp, id));
            }
            Packet::Subscribe(subscribe) => {
                self.core.subscribe(turn, &self.client, &subscribe);
                self.replaying = true;
            }
            Packet::Unsubscribe(unsubscribe) => self.core.unsubscribe(turn, &self.client, &unsubscribe),
            Packet::PingReq => {
                let mut guard = self.client.lock();
                guard.session.send_pingresp();
                self.core.promise_flush(turn, &self.client, &mut guard);
            }
            Packet::Disconnect => return Err(Cause::Disconnect),
            Packet::Connect(_) => return Err(Cause::SecondConnect),
        }
        Ok(())
    }

    fn handle_ack(&mut self, turn: &mut Turn, kind: AckKind, id: crate::protocol::PacketId) {
        let mut guard = self.client.lock();
        guard.session.handle_ack(kind, id);
        if guard.session.out.has_output() {
            self.core.promise_flush(turn, &self.client, &mut guard);
        }
        if guard.replays.is_some() {
            self.replaying = true;
        }
    }

    /// Writes what the session wants sent, as far as the socket takes it.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<Socket, Cause> {
        loop {
            match &self.stream {
                Stream::Tcp(_) => loop {
                    match self.core.flush_own(&self.client) {
                        Flushed::Done => break,
                        Flushed::Blocked => match self.stream.poll_write_ready(cx) {
                            Poll::Ready(result) => result?,
                            Poll::Pending => return Ok(Socket::Blocked),
                        },
                    }
                },
                Stream::Tls(_) => {
                    if self.poll_tls_output(cx)?.is_pending() {
                        return Ok(Socket::Blocked);
                    }
                }
            }
            if !self.replaying {
                return Ok(Socket::Takes);
            }
            let more = worker::with(|worker| {
                worker.turn.begin(self.core.now());
                let more = self.core.replay(&mut worker.turn, &self.client);
                worker.turn.finish(&self.core);
                more
            });
            let guard = self.client.lock();
            self.replaying = guard.replays.is_some();
            if more {
                // Slices of a long replay: others on this thread get their turn in between.
                cx.waker().wake_by_ref();
                return Ok(Socket::Takes);
            }
            if !guard.session.out.has_output() {
                return Ok(Socket::Takes);
            }
        }
    }

    fn poll_tls_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Cause> {
        loop {
            if self.output.is_none() {
                let mut guard = self.client.lock();
                let state = &mut *guard;
                let Some(link) = state.link.as_mut().filter(|link| link.epoch == self.epoch) else {
                    return Err(Cause::TakenOver);
                };
                link.flush_promised = false;
                if !state.session.out.has_output() {
                    link.blocked = false;
                    drop(guard);
                    return match self.stream.poll_flush(cx) {
                        Poll::Ready(result) => result.map(Poll::Ready).map_err(Cause::from),
                        Poll::Pending => Ok(Poll::Pending),
                    };
                }
                self.output = Some(Box::new(state.session.out.take()));
            }
            let Some(output) = &mut self.output else { continue };
            match self.stream.poll_write(cx, output.first()) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => {
                    let n = result?;
                    if n == 0 {
                        return Err(Cause::PeerClosed);
                    }
                    output.advance(n);
                    let done = output.is_empty();
                    self.core.metrics.bytes_sent.add(n as u64);
                    let now = self.core.now();
                    let mut guard = self.client.lock();
                    if let Some(link) = guard.link_of(self.epoch) {
                        link.progress = now;
                        guard.session.output_written(n);
                    }
                    if done {
                        self.output = None;
                    }
                }
            }
        }
    }

    /// Ends the connection: what stands in the output is still written where the end is ours.
    async fn close(mut self, mut cause: Cause) {
        if let Cause::Network(_) = cause
            && let Ok(Cause::Disconnect) =
                tokio::time::timeout(REST_TIME_MAX, poll_fn(|cx| self.poll_rest(cx))).await
        {
            cause = Cause::Disconnect;
        }
        if cause == Cause::Shutdown {
            let patience = self.core.limits.shutdown_timeout;
            let _ = tokio::time::timeout(patience, poll_fn(|cx| self.poll_drained(cx))).await;
        }
        self.finish(&cause);
        // At once, even if another thread still holds the socket for a write.
        self.stream.close();
    }

    /// Ready when the output is written.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_output(cx).is_err() {
            return Poll::Ready(());
        }
        let guard = self.client.lock();
        if self.output.is_none() && guard.session.out.pending() == 0 {
            return Poll::Ready(());
        }
        if guard.link.as_ref().is_some_and(|link| link.writing) {
            // Another thread is writing right now and will not tell.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Settles the end with the broker and the log.
    fn finish(&mut self, cause: &Cause) {
        self.finished = true;
        self.core.disconnected(&self.client, self.epoch, cause);
        tracing::info!(client_id = %escape(&self.client.id), peer = %self.peer, %cause, "disconnected");
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
            self.finish(&Cause::Internal);
        }));
        if settled.is_err() {
            tracing::error!("the end of a connection could not be settled");
        }
    }
}
