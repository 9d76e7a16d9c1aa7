//! CONNECT: which session a connection gets, and taking a session over from an older connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dashmap::Entry;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::client::{Link, signal};
use super::{Cause, Client, Core, Turn, flush};
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
    /// Resolves when the connection's task is gone.
    pub(crate) closed: oneshot::Receiver<()>,
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
            closed: request.closed,
        });
        let mut replaced = None;
        loop {
            let (client, session_present) = self.find_session(&id, clean, &mut replaced);
            if let Some(old) = replaced.take() {
                self.take_over(&old, Some(request.peer)).await;
                self.end_session(&old);
            }
            self.take_over(&client, Some(request.peer)).await;
            let mut guard = client.lock();
            let state = &mut *guard;
            // While this waited, another connection may have taken the session or ended it: begin again.
            if state.link.is_some() || state.session.is_ended() {
                continue;
            }
            let Some(mut link) = link.take() else { return Err(ConnectReturnCode::ServiceUnavailable) };
            let now = self.now();
            client.heard(now);
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
            drop(guard);
            self.metrics.clients_connected.increment();
            self.metrics.connections.add(1);
            return Ok(Attached { client, epoch, session_present });
        }
    }

    /// The session for this client id: the stored one, or a new one that takes its place in the registry. The one replaced is handed
    /// out for its end; it must not be ended under the registry's lock.
    fn find_session(
        &self,
        id: &Arc<str>,
        clean: bool,
        replaced: &mut Option<Arc<Client>>,
    ) -> (Arc<Client>, bool) {
        let make = |id: Arc<str>| {
            let session = Session::new(Arc::clone(self.session_limits()), !clean);
            Client::new(self.next_key(), id, session, None)
        };
        match self.clients.entry(Arc::clone(id)) {
            Entry::Vacant(entry) => {
                let client = make(Arc::clone(id));
                entry.insert(Arc::clone(&client));
                (client, false)
            }
            Entry::Occupied(mut entry) => {
                let resumable = !clean && {
                    let state = entry.get().lock();
                    !state.session.is_ended() && state.session.outlives_connection()
                };
                if resumable {
                    // A session that never had a connection was made by a CONNECT that is still on its way.
                    let present = entry.get().lock().epoch > 0;
                    return (Arc::clone(entry.get()), present);
                }
                let client = make(Arc::clone(id));
                *replaced = Some(entry.insert(Arc::clone(&client)));
                (client, false)
            }
        }
    }

    /// Ends the connection that a session has, if any, and waits until its socket is closed ([MQTT-3.1.4-2]). Its will is published:
    /// a take-over is not a DISCONNECT.
    async fn take_over(&self, client: &Arc<Client>, new_peer: Option<SocketAddr>) {
        let (mut link, will) = {
            let mut guard = client.lock();
            let state = &mut *guard;
            let Some(mut link) = state.link.take() else { return };
            link.close_cause = Some(Cause::TakenOver);
            link.socket = None;
            client.signal(&link, signal::CLOSE);
            state.session.detach();
            state.replays = None;
            self.timers.cancel(client, state);
            (link, state.session.take_will())
        };
        self.metrics.clients_connected.decrement();
        tracing::info!(
            client_id = %escape(&client.id),
            old_peer = %link.peer,
            new_peer = new_peer.map(tracing::field::display),
            "client id in use: the older connection is closed"
        );
        if tokio::time::timeout(TAKE_OVER_WAIT, &mut link.closed).await.is_err() {
            tracing::error!(client_id = %escape(&client.id), "the replaced connection did not close in time");
        }
        if let Some(will) = will {
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
