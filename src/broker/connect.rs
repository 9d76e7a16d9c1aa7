//! CONNECT: which session a connection gets, and taking a session over from an older connection.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use dashmap::Entry;
use tokio::net::TcpStream;

use super::client::{KeepFor, Link, signal};
use super::gate::Gate;
use super::promise::FlushPromise;
use super::take_overs::say_taken_over;
use super::turn_log::TurnLog;
use super::{Cause, Client, Core, Handle, Turn, flush};
use crate::accounts::{Account, Charge, Room};
use crate::auth::entry::EntryId;
use crate::config::Limits;
use crate::escape::escape;
use crate::ledger::Position;
use crate::protocol::encode::{self, ConnackProperties};
use crate::protocol::{Connect, ConnectWill, ReasonCode, SessionExpiry};
use crate::session::{KeepAlive, Owner, Session, Terms, Will};

/// How long a new connection waits for the task of the one it replaces to close its socket. That task only has to run once.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(2);
/// How long it waits for that task to read what came before: a DISCONNECT that lies there counts.
const TAKE_OVER_READ: Duration = Duration::from_millis(100);

/// What is to last for this client has no room.
const NO_ROOM: Cause = Cause::Limit { limit: "limits.memory_max", code: ReasonCode::QuotaExceeded };

/// A CONNECT on its way in, with what the connection brings along.
pub(crate) struct ConnectRequest<'a> {
    pub(crate) connect: &'a Connect<'a>,
    /// The bounds by which it is judged, and of which it is told.
    pub(crate) limits: &'a Limits,
    pub(crate) peer: SocketAddr,
    /// The user that the client has proved to be; `None`: anonymous.
    pub(crate) user: Option<Arc<str>>,
    /// Until when its login holds, in milliseconds of the Unix epoch.
    pub(crate) login_until: Option<u64>,
    pub(crate) login_entry: Option<EntryId>,
    pub(crate) socket: Option<Arc<TcpStream>>,
    /// Name and last data of the method of enhanced authentication that let the client in.
    pub(crate) authentication: Option<(&'a str, Option<&'a [u8]>)>,
    /// What the connection's task shares; it must say there when it is gone.
    pub(crate) handle: Arc<Handle>,
    /// Wakes that task, from the moment of attaching on.
    pub(crate) waker: Waker,
}

/// The session a connection is attached to.
pub(crate) struct Attached {
    pub(crate) client: Arc<Client>,
    pub(crate) epoch: u64,
    pub(crate) session_present: bool,
    pub(crate) terms: Terms,
}

impl Core {
    /// Attaches a connection to its session. CONNACK is then the first packet in the session's output.
    ///
    /// # Errors
    /// Why it is refused: [`Cause::connack_code`] says it to the client.
    pub(crate) async fn connect(self: &Arc<Self>, request: ConnectRequest<'_>) -> Result<Attached, Cause> {
        let ConnectRequest { connect, limits, .. } = request;
        let made_id = connect.client_id.is_empty();
        if made_id && connect.needs_client_id() {
            return Err(Cause::Refused(ReasonCode::ClientIdentifierNotValid));
        }
        if let Some(will) = &connect.will
            && self.refuses_payload(&will.properties, will.payload)
        {
            return Err(Cause::Refused(ReasonCode::PayloadFormatInvalid));
        }
        let is_stored = connect.will.is_some() || connect.session_expiry != SessionExpiry::AtDisconnect;
        if is_stored
            && let Some(log) = &self.log
            && log.is_full()
            && !self.comes_in(log, connect, limits.connect_timeout).await
        {
            return Err(Cause::Refused(ReasonCode::ServerUnavailable));
        }
        let id = if made_id { self.make_client_id() } else { Arc::from(connect.client_id) };
        let owner = Owner { client_id: id, user: request.user };
        let mut will = match &connect.will {
            Some(will) => {
                let will = self.own_will(will, &owner).charged_within(&self.accounts);
                Some(will.ok_or(NO_ROOM)?)
            }
            None => None,
        };
        let (keep_for, told_expiry) = self.keep_for(connect.session_expiry);
        let terms = Terms {
            version: connect.version,
            receive_maximum: connect.receive_maximum,
            packet_bytes_max: connect.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
            topic_alias_maximum: connect.topic_alias_maximum,
            says_goodbye: connect.hears_disconnect(),
            // 3.1.1 has no way to tell a client, so it cannot be held to it.
            receive_maximum_granted: connect.receive_maximum_told(limits.receive_maximum),
        };
        let properties = ConnackProperties {
            session_expiry: told_expiry,
            receive_maximum: limits.receive_maximum,
            maximum_packet_size: u32::try_from(limits.packet_bytes_max).ok(),
            assigned_client_id: made_id.then_some(&owner.client_id),
            topic_alias_maximum: limits.topic_alias_max,
            auth_method: request.authentication.map(|(method, _)| method),
            auth_data: request.authentication.and_then(|(_, data)| data),
            client_packet_bytes_max: connect.maximum_packet_size,
            ..ConnackProperties::default()
        };
        let connack = |session_present| {
            let mut connack = Vec::new();
            encode::connack(&mut connack, connect.version, session_present, ReasonCode::Success, &properties)
                .then_some(connack)
                .ok_or(Cause::Refused(ReasonCode::PacketTooLarge))
        };
        // One that does not fit is refused before it takes anything from anybody. Whether a session
        // is present makes CONNACK no longer.
        if connect.maximum_packet_size.is_some() {
            connack(false)?;
        }
        let mut link = Some(Link {
            epoch: 0,
            peer: request.peer,
            socket: request.socket,
            keep_alive: KeepAlive::from_seconds(connect.keep_alive),
            login_ends: request.login_until.map(|until| self.clock.moment_of_wall(until)),
            login_until: request.login_until,
            login_entry: request.login_entry,
            waker: request.waker,
            held: None,
            flush: FlushPromise::default(),
            charged_steps: 0,
            cut_to: None,
            gate: Gate::default(),
            wakes_at: Position::START,
            progress: self.now(),
            close_cause: None,
            handle: request.handle,
        });
        let mut replaced = None;
        let outlives = keep_for != KeepFor::Nothing;
        let place = self.entrance.enter(&owner.client_id);
        let Ok(_place) = tokio::time::timeout(limits.connect_timeout, place).await else {
            return Err(Cause::Refused(ReasonCode::ServerUnavailable));
        };
        loop {
            if self.clients.len() >= limits.sessions_max && !self.clients.contains_key(&owner.client_id) {
                return Err(Cause::Refused(ReasonCode::QuotaExceeded));
            }
            let client = self.find_session(&owner, connect.clean_start, &mut replaced)?;
            while let Some(old) = &replaced {
                self.take_over(old, request.peer, Continues::No).await;
                // A CONNECT that found this session before it was replaced may have attached to it meanwhile.
                if self.end_session_unless_attached(old).await {
                    replaced = None;
                }
            }
            self.take_over(&client, request.peer, Continues::Yes).await;
            if !self.until_departed(&client).await {
                return Err(Cause::Shutdown);
            }
            // What CONNACK says must be true after a crash as well: that the old session is gone, that
            // this one exists, and how long.
            if let Some(log) = &self.log
                && let Some(recorded) =
                    self.record_before_connack(log, &client, outlives, keep_for, limits.connect_timeout)
                && tokio::time::timeout(limits.connect_timeout, log.wait(recorded)).await.is_err()
            {
                let is_new = client.lock().epoch == 0;
                if is_new {
                    self.end_session_unless_attached(&client).await;
                } else {
                    self.stay_without_connection(&client);
                }
                return Err(Cause::Refused(ReasonCode::ServerUnavailable));
            }
            self.load_first(&client).await;
            // What the connection before it has published is delivered and on record first.
            if !client.until_published(self).await {
                return Err(Cause::Shutdown);
            }
            let _turn = self.enter_turn();
            let mut guard = client.lock();
            let state = &mut *guard;
            // While this waited, another connection may have taken the session or ended it: begin again.
            if state.link.is_some()
                || state.closing.is_some()
                || state.session.is_ended()
                || client.is_publishing()
            {
                continue;
            }
            // A session that never had a connection is new, whoever made it.
            let session_present = state.epoch > 0;
            // It fits: the other one did.
            let connack = connack(session_present)?;
            let Some(mut link) = link.take() else {
                return Err(Cause::Refused(ReasonCode::ServerUnavailable));
            };
            let now = self.now();
            client.heard(now);
            // They may have changed while it was on its way into the registry.
            state.session.set_limits(self.limits.of_sessions());
            state.epoch += 1;
            link.epoch = state.epoch;
            link.progress = now;
            state.expires_at = None;
            self.take_back(&client, state);
            let mut turn_log = TurnLog::default();
            // Back in time: the will of the last connection is not sent (MQTT 5 [MQTT-3.1.3-9]).
            if let Some(delayed) = state.delayed_will.take() {
                turn_log.end_will(&delayed.1, false);
            }
            state.keep_for = keep_for;
            if state.session.is_durable() {
                let keep = keep_for.time();
                // On a full disk it is the client that makes room, by acknowledging: it must get what waits.
                let waits = state.session.queued() > 0 && !self.ledger.is_failing();
                let acknowledged = self.log.as_ref().map_or(Position::START, |log| log.submitted());
                turn_log.record(&client.record(state, keep), waits);
                // What is in its queue goes when that is on record, CONNACK at once.
                let recorded = turn_log.commit(self).unwrap_or(Position::START);
                state.session.attached_at(recorded, acknowledged);
            }
            // It does not hold up CONNACK, but nothing is waited for either before it is written.
            if let Some(will) = &mut will {
                // What names the client is charged to the session.
                will.owner = client.owner();
                turn_log.begin_will(will, if outlives { client.key } else { 0 });
            }
            match link.deadline(now) {
                Some(deadline) => self.timers.set(&client, state, deadline),
                None => self.timers.cancel(&client, state),
            }
            state.link = Some(link);
            state.session.out.lend(flush::take_spare);
            state.session.at(now).attach(terms, &connack, will, outlives);
            state.session.charge_aliases(&self.accounts);
            self.count_late_drops(state);
            if let Some(work) = state.session.log_work() {
                turn_log.work(client.key, work, &mut Vec::new());
            }
            turn_log.commit(self);
            let epoch = state.epoch;
            // Under the lock: whoever ends this connection counts it off.
            self.metrics.clients_connected.increment();
            drop(guard);
            self.metrics.connections.add(1);
            return Ok(Attached { client, epoch, session_present, terms });
        }
    }

    /// The session for this client id: the stored one, or a new one that takes its place in the registry. The one replaced is handed
    /// out for its end; it must not be ended under the registry's lock.
    /// A session belongs to the user who made it. One that an anonymous client made belongs to nobody: a user gets the client id, and not
    /// what the session holds.
    ///
    /// # Errors
    /// Another user has a session of this client id, or there is no room for a new one. A session
    /// that was to be replaced is as it was then.
    fn find_session(
        &self,
        owner: &Owner,
        clean: bool,
        replaced: &mut Option<Arc<Client>>,
    ) -> Result<Arc<Client>, Cause> {
        let make = |room| {
            let charge = self.charge_session(owner, room).ok_or(NO_ROOM)?;
            // Whether it stays is settled when the connection attaches. Until then nobody else joins one that is to begin anew.
            let session = Session::new(self.limits.of_sessions(), !clean);
            Ok::<_, Cause>(Client::new(self.next_key(), owner.clone(), session, Some(charge)))
        };
        match self.clients.entry(Arc::clone(&owner.client_id)) {
            Entry::Vacant(entry) => {
                let client = make(Room::Needed)?;
                entry.insert(Arc::clone(&client));
                Ok(client)
            }
            Entry::Occupied(entry) => {
                let is_same_user = entry.get().user == owner.user;
                if !is_same_user && entry.get().user.is_some() {
                    tracing::warn!(
                        client_id = %escape(&owner.client_id),
                        user_name = owner.user.as_deref().map(|name| tracing::field::display(escape(name))),
                        "refused: the session of this client id belongs to another user"
                    );
                    return Err(Cause::Refused(ReasonCode::NotAuthorized));
                }
                let state = entry.get().lock();
                if is_same_user && !clean && !state.session.is_ended() && state.session.outlives_connection()
                {
                    drop(state);
                    return Ok(Arc::clone(entry.get()));
                }
                // Another CONNECT that finds the new session must wait for the old connection as well.
                let closing = state.link.as_ref().map(|link| Arc::clone(&link.handle));
                let closing = closing.or_else(|| state.closing.clone());
                let gives_back = entry.get().lasting_bytes(&state);
                drop(state);
                let client = make(Room::InPlaceOf(gives_back))?;
                client.lock().closing = closing;
                // Until its end is on record a checkpoint finds it there.
                self.leaving.insert(entry.get().key, Arc::clone(entry.get()));
                // The key as well: the text is there once.
                *replaced = Some(entry.replace_entry(Arc::clone(&client)).1);
                Ok(client)
            }
        }
    }

    /// Charges a session with what it takes by itself; `None`: there is no room for it.
    pub(super) fn charge_session(&self, owner: &Owner, room: Room) -> Option<Charge> {
        Charge::lasting_in(&self.accounts, Account::Sessions, Client::bytes(owner), room)
    }

    /// Ends the connection that a session has, if any, and waits until its socket is closed ([MQTT-3.1.4-2]). Its will is published:
    /// a take-over is not a DISCONNECT.
    async fn take_over(&self, client: &Arc<Client>, new_peer: SocketAddr, continues: Continues) {
        let reading = client.lock().link.as_ref().map(|link| {
            link.signal(signal::READ);
            Arc::clone(&link.handle)
        });
        if let Some(reading) = reading {
            let _ = tokio::time::timeout(TAKE_OVER_READ, reading.read()).await;
        }
        let (taken, closing) = {
            let _turn = self.enter_turn();
            let mut guard = client.lock();
            let state = &mut *guard;
            let taken = state.link.take().map(|mut link| {
                link.close_cause = Some(Cause::TakenOver);
                say_taken_over(&link, state);
                link.socket = None;
                link.signal(signal::CLOSE);
                state.closing = Some(Arc::clone(&link.handle));
                state.session.detach();
                self.settle(client, state);
                self.timers.cancel(client, state);
                self.metrics.clients_connected.decrement();
                // Either stays in the client's state, where a checkpoint finds it, while this waits.
                match state.session.take_will() {
                    Some(will) if continues == Continues::Yes && !will.delay.is_zero() => {
                        // As if the client had gone: it is back before it is due.
                        let at = self.now().after(will.delay);
                        state.delayed_will = Some(Box::new((at, will)));
                        self.timers.set(client, state, at);
                    }
                    will => state.leaving_will = will.map(Box::new),
                }
                link.peer
            });
            (taken, state.closing.clone())
        };
        if let Some(old_peer) = &taken {
            self.note_take_over(&client.id, *old_peer, new_peer);
        }
        // Also whoever finds that another has told it to end waits for that end.
        if let Some(closing) = closing {
            while tokio::time::timeout(TAKE_OVER_WAIT, closing.gone()).await.is_err() {
                // What it has published is delivered first, which may have to wait for a place.
                if !client.is_publishing() {
                    tracing::error!(client_id = %escape(&client.id), "the replaced connection did not close in time");
                    break;
                }
            }
            let mut state = client.lock();
            if state.closing.as_ref().is_some_and(|handle| Arc::ptr_eq(handle, &closing)) {
                state.closing = None;
            }
        }
        if taken.is_none() {
            return;
        }
        let mut turn = Turn::new();
        turn.begin(self);
        let will = client.lock().leaving_will.take();
        let fan_out = will.and_then(|will| self.publish_will(&mut turn, client, &will));
        turn.finish(self);
        drop(turn);
        if let Some(fan_out) = fan_out {
            self.complete_fan_out(fan_out).await;
        }
    }

    fn own_will(&self, will: &ConnectWill<'_>, owner: &Owner) -> Will {
        own_will(will, owner, if self.log.is_some() { self.next_key() } else { 0 })
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

/// Whether the session goes on under the new connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Continues {
    Yes,
    No,
}

fn own_will(will: &ConnectWill<'_>, owner: &Owner, key: u64) -> Will {
    let mut forwarded = Vec::new();
    will.properties.write_forwardable(&mut forwarded);
    Will {
        key,
        owner: owner.clone(),
        topic: Arc::from(will.topic),
        payload: Box::from(will.payload),
        qos: will.qos,
        retain: will.retain,
        delay: Duration::from_secs(will.delay_seconds.into()),
        forwarded: forwarded.into(),
        expiry_seconds: will.properties.message_expiry_interval,
        charge: None,
    }
}
