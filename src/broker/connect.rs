//! CONNECT: which session a connection gets, and taking a session over from an older connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::Entry;
use tokio::net::TcpStream;

use super::client::{Link, signal};
use super::{Cause, Client, Core, Handle, Turn, flush};
use crate::escape::escape;
use crate::protocol::{Connect, ConnectReturnCode};
use crate::session::{KeepAlive, Message, Session, Will};

/// How long a new connection waits for the task of the one it replaces to close its socket. That task only has to run once.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(2);

/// A CONNECT on its way in, with what the connection brings along.
pub(crate) struct ConnectRequest<'a> {
    pub(crate) connect: &'a Connect<'a>,
    pub(crate) peer: SocketAddr,
    pub(crate) socket: Option<Arc<TcpStream>>,
    /// What the connection's task shares; it must say there when it is gone.
    pub(crate) handle: Arc<Handle>,
}

/// The session a connection is attached to.
pub(crate) struct Attached {
    pub(crate) client: Arc<Client>,
    pub(crate) epoch: u64,
    pub(crate) session_present: bool,
}

impl Core {
    /// Attaches a connection to its session. CONNACK is then the first packet in the session's output.
    ///
    /// # Errors
    /// The return code to refuse with.
    pub(crate) async fn connect(&self, request: ConnectRequest<'_>) -> Result<Attached, ConnectReturnCode> {
        let connect = request.connect;
        let clean = connect.clean_session;
        let id: Arc<str> = if connect.client_id.is_empty() {
            if !clean {
                return Err(ConnectReturnCode::BadClientId);
            }
            self.make_client_id()
        } else {
            Arc::from(connect.client_id)
        };
        let will = connect.will.as_ref().map(|will| Will {
            message: Arc::new(Message::new(Arc::from(will.topic), Box::from(will.payload), will.qos)),
            retain: will.retain,
        });
        let mut link = Some(Link {
            epoch: 0,
            peer: request.peer,
            socket: request.socket,
            keep_alive: KeepAlive::from_seconds(connect.keep_alive),
            waker: None,
            flush_promised: false,
            writing: false,
            blocked: false,
            progress: self.now(),
            close_cause: None,
            handle: request.handle,
        });
        let mut replaced = None;
        loop {
            let client = self.find_session(&id, clean, &mut replaced);
            while let Some(old) = &replaced {
                self.take_over(old, Some(request.peer)).await;
                // A CONNECT that found this session before it was replaced may have attached to it meanwhile.
                if self.end_session_unless_attached(old) {
                    replaced = None;
                }
            }
            self.take_over(&client, Some(request.peer)).await;
            let mut guard = client.lock();
            let state = &mut *guard;
            // While this waited, another connection may have taken the session or ended it: begin again.
            if state.link.is_some() || state.closing.is_some() || state.session.is_ended() {
                continue;
            }
            let Some(mut link) = link.take() else { return Err(ConnectReturnCode::ServiceUnavailable) };
            let now = self.now();
            client.heard(now);
            // A session that never had a connection is new, whoever made it.
            let session_present = state.epoch > 0;
            state.epoch += 1;
            link.epoch = state.epoch;
            link.progress = now;
            state.expires_at = None;
            match link.keep_alive {
                Some(keep_alive) => self.timers.set(&client, state, keep_alive.deadline(now)),
                None => self.timers.cancel(&client, state),
            }
            state.link = Some(link);
            state.session.out.lend(flush::take_spare);
            state.session.attach(session_present, will);
            let epoch = state.epoch;
            // Under the lock: whoever ends this connection counts it off.
            self.metrics.clients_connected.increment();
            drop(guard);
            self.metrics.connections.add(1);
            return Ok(Attached { client, epoch, session_present });
        }
    }

    /// The session for this client id: the stored one, or a new one that takes its place in the registry. The one replaced is handed
    /// out for its end; it must not be ended under the registry's lock.
    fn find_session(&self, id: &Arc<str>, clean: bool, replaced: &mut Option<Arc<Client>>) -> Arc<Client> {
        let make = |id: Arc<str>| {
            let session = Session::new(Arc::clone(self.session_limits()), !clean);
            Client::new(self.next_key(), id, session, None)
        };
        match self.clients.entry(Arc::clone(id)) {
            Entry::Vacant(entry) => {
                let client = make(Arc::clone(id));
                entry.insert(Arc::clone(&client));
                client
            }
            Entry::Occupied(mut entry) => {
                let state = entry.get().lock();
                if !clean && !state.session.is_ended() && state.session.outlives_connection() {
                    drop(state);
                    return Arc::clone(entry.get());
                }
                // Another CONNECT that finds the new session must wait for the old connection as well.
                let closing = state.link.as_ref().map(|link| Arc::clone(&link.handle));
                let closing = closing.or_else(|| state.closing.clone());
                drop(state);
                let client = make(Arc::clone(id));
                client.lock().closing = closing;
                *replaced = Some(entry.insert(Arc::clone(&client)));
                client
            }
        }
    }

    /// Ends the connection that a session has, if any, and waits until its socket is closed ([MQTT-3.1.4-2]). Its will is published:
    /// a take-over is not a DISCONNECT.
    async fn take_over(&self, client: &Arc<Client>, new_peer: Option<SocketAddr>) {
        let (taken, closing) = {
            let mut guard = client.lock();
            let state = &mut *guard;
            let taken = state.link.take().map(|mut link| {
                link.close_cause = Some(Cause::TakenOver);
                link.socket = None;
                link.signal(signal::CLOSE);
                state.closing = Some(Arc::clone(&link.handle));
                state.session.detach();
                state.replays = None;
                self.timers.cancel(client, state);
                self.metrics.clients_connected.decrement();
                (link.peer, state.session.take_will())
            });
            (taken, state.closing.clone())
        };
        if let Some((old_peer, _)) = &taken {
            tracing::info!(
                client_id = %escape(&client.id),
                %old_peer,
                new_peer = new_peer.map(tracing::field::display),
                "client id in use: the older connection is closed"
            );
        }
        // Also whoever finds that another has told it to end waits for that end.
        if let Some(closing) = closing {
            if tokio::time::timeout(TAKE_OVER_WAIT, closing.gone()).await.is_err() {
                tracing::error!(client_id = %escape(&client.id), "the replaced connection did not close in time");
            }
            let mut state = client.lock();
            if state.closing.as_ref().is_some_and(|handle| Arc::ptr_eq(handle, &closing)) {
                state.closing = None;
            }
        }
        if let Some((_, Some(will))) = taken {
            let mut turn = Turn::new();
            turn.begin(self.now());
            self.publish_will(&mut turn, &will);
            turn.finish(self);
        }
    }

    /// A client id that no client has ([MQTT-3.1.3-6]): unique in this run by its count, and hard to guess.
    fn make_client_id(&self) -> Arc<str> {
        static MADE: AtomicU64 = AtomicU64::new(0);
        use std::hash::{BuildHasher, RandomState};
        loop {
            let n = MADE.fetch_add(1, Ordering::Relaxed);
            let id: Arc<str> = Arc::from(format!("auto-{:016x}-{n:x}", RandomState::new().hash_one(n)));
            if !self.clients.contains_key(&id) {
                return id;
            }
        }
    }
}
