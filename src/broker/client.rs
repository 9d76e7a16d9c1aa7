//! `Client`: one session behind its short lock, and the connection attached to it.
//!
//! Whoever has an event for the session takes the lock, hands it in, and leaves. The order of locks
//! stands in ARCHITECTURE.md, "Locks": never two clients at once, never across an `.await`.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::net::TcpStream;

use super::cause::Cause;
use super::gate::Gate;
use super::group::{self, FiledWorse, Fill, Group};
use super::hand_over::Leaving;
use super::handle::Handle;
use super::held::Held;
use super::local::LocalQueue;
use super::promise::FlushPromise;
use super::subscribe::subscriptions_cost;
use crate::accounts::{Account, Charge, STEP};
use crate::auth::entry::EntryId;
use crate::ledger::Position;
use crate::router::{ReplayCursor, Subscriber, SubscriptionOptions};
use crate::session::{KeepAlive, Owner, Readiness, Session, SessionLimits, Sheddable, Timestamp, Will};
use crate::storage::{Record, SessionRecord};

pub(crate) mod signal;

/// One session. It lives as long as the session: a clean start makes a new one.
pub(crate) struct Client {
    /// Unique in this broker's run; the identity of a subscriber.
    pub(crate) key: u64,
    pub(crate) id: Arc<str>,
    /// The user who made the session: nobody else gets it.
    pub(crate) user: Option<Arc<str>>,
    /// It belongs to the program that embeds the broker.
    pub(crate) in_process: bool,
    /// Set for what is no session but a shared subscription's group.
    pub(crate) group: Option<Arc<Group>>,
    /// Milliseconds of the broker's clock at the last packet.
    last_packet: AtomicU64,
    /// Bytes charged for its queue and output; changed under the lock only.
    charged: AtomicUsize,
    /// The same for messages on their way to it, in steps of [`STEP`]; [`KEEPS`]: they hold as much
    /// as a step, with what others may hold as well.
    charged_in_flight: AtomicU32,
    /// Its session gives messages away; changed under the lock only.
    gives_away: AtomicBool,
    /// Its session is kept on record. Once it is, it stays so until it ends.
    durable: AtomicBool,
    /// Its messages that are on their way to more receivers than fit into a turn.
    pub(super) fan_outs: AtomicU32,
    /// Its connection may keep routes, which hold their receivers.
    pub(super) keeps_routes: AtomicBool,
    /// What it takes by itself; `None`: the program that embeds the broker made it. Not under its
    /// lock: a group ends under that of a member.
    charge: Mutex<Option<Charge>>,
    state: Mutex<ClientState>,
}

/// Bytes that a session takes before it has anything: its `Client`, its places in the registry and
/// in the timers, what the log needs, and what the allocator adds. 60,000 kept sessions took 910 to
/// 980 bytes each by themselves, and 1,330 in a program whose connections had come and gone.
const SESSION_BYTES: usize = 1_200;

/// In [`Client::charged_in_flight`], above all steps.
const KEEPS: u32 = 1 << 31;

/// What the lock of a client guards.
pub(crate) struct ClientState {
    pub(crate) session: Session,
    pub(crate) link: Option<Link>,
    /// A connection that was told to end and whose socket may still be open: nobody attaches before it is gone ([MQTT-3.1.4-2]).
    pub(crate) closing: Option<Arc<Handle>>,
    /// Retained messages of new subscriptions that are still to be sent.
    pub(crate) replays: Option<Box<VecDeque<Replay>>>,
    /// The queue of an in-process subscriber, in place of output.
    pub(crate) local: Option<Box<LocalQueue>>,
    /// Place in the timers, to be cancelled.
    pub(crate) timer: Option<u64>,
    /// How long the session is to stay when its connection ends.
    pub(crate) keep_for: KeepFor,
    /// When the session ends if no connection comes.
    pub(crate) expires_at: Option<Timestamp>,
    /// The will of a connection that has ended, while its delay runs.
    pub(crate) delayed_will: Option<Box<(Timestamp, Will)>>,
    /// The will of a connection that was taken over, until it is published.
    pub(crate) leaving_will: Option<Box<Will>>,
    /// What it is giving away to other members of shared subscriptions.
    pub(super) leaving: Option<Box<Leaving>>,
    /// Raised by each connection that attaches.
    pub(crate) epoch: u64,
    /// Where the log has the last change of whether this session exists: CONNACK waits for it.
    pub(crate) on_record: Position,
    /// Groups of shared subscriptions that serve it later than a ready member.
    pub(super) filed_worse: Option<Box<FiledWorse>>,
}

/// A replay of retained messages for one new subscription.
pub(crate) struct Replay {
    pub(crate) filter: Arc<str>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) cursor: ReplayCursor,
    /// It outlives the connection.
    pub(crate) _charge: Charge,
}

/// How long a session outlives its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeepFor {
    /// Not at all.
    Nothing,
    /// This long.
    Time(Duration),
    /// Until a client asks for a clean start.
    Ever,
}

impl KeepFor {
    /// As the log has it: how long, or for ever.
    pub(crate) fn time(self) -> Option<Duration> {
        match self {
            Self::Nothing => Some(Duration::ZERO),
            Self::Time(time) => Some(time),
            Self::Ever => None,
        }
    }
}

/// The attached connection as others see it.
pub(crate) struct Link {
    /// Which attachment this is; an ended connection must not touch its successor.
    pub(crate) epoch: u64,
    pub(crate) peer: SocketAddr,
    /// For plain TCP: whoever has output for this client may write it. `None`: only its own task can.
    pub(crate) socket: Option<Arc<TcpStream>>,
    pub(crate) keep_alive: Option<KeepAlive>,
    /// When the client has to leave, whatever it does.
    pub(crate) login_ends: Option<Timestamp>,
    /// The same as a time of day, in milliseconds of the Unix epoch: the moment changes when the
    /// clock is set.
    pub(crate) login_until: Option<u64>,
    /// The entry of the password file that let it in.
    pub(crate) login_entry: Option<EntryId>,
    /// Wakes the connection's task.
    pub(crate) waker: Waker,
    /// Where the log wakes it for a turn that had messages for it; [`Position::START`]: nowhere.
    pub(super) wakes_at: Position,
    /// Who has promised to write the output.
    pub(crate) flush: FlushPromise,
    /// The length of the output when it was charged in the midst of a turn, in steps of [`STEP`]; 0
    /// since it was settled.
    pub(super) charged_steps: u32,
    /// Set while somebody writes the output: when he is back such messages are given up until no more
    /// than so many bytes are left, because memory is short.
    pub(super) cut_to: Option<(Sheddable, u32)>,
    /// Answers that wait for the log.
    pub(crate) held: Option<Box<Held>>,
    /// Who writes the output.
    pub(crate) gate: Gate,
    /// When the socket last accepted bytes.
    pub(crate) progress: Timestamp,
    pub(crate) close_cause: Option<Cause>,
    /// What is shared with the connection's task.
    pub(crate) handle: Arc<Handle>,
}

impl Client {
    /// Bytes of a session whose owner is this, without what it is subscribed to and what waits for
    /// it. The client id is there once: it is its key in the registry as well.
    pub(super) fn bytes(owner: &Owner) -> usize {
        SESSION_BYTES + owner.client_id.len() + owner.user.as_ref().map_or(0, |user| user.len())
    }

    /// Bytes of a group with this filter, which stands in the router like a session.
    pub(super) fn group_bytes(filter: &str) -> usize {
        SESSION_BYTES + filter.len()
    }

    /// A session of a client, charged with its [`bytes`](Self::bytes).
    pub(crate) fn new(key: u64, owner: Owner, session: Session, charge: Option<Charge>) -> Arc<Self> {
        Self::make(key, owner, session, None, charge)
    }

    /// One of the program that embeds the broker.
    pub(crate) fn in_process(key: u64, session: Session) -> Arc<Self> {
        let owner = Owner { client_id: Arc::from("in-process"), user: None };
        Self::make(key, owner, session, Some(Box::default()), None)
    }

    fn make(
        key: u64,
        owner: Owner,
        session: Session,
        local: Option<Box<LocalQueue>>,
        charge: Option<Charge>,
    ) -> Arc<Self> {
        let Owner { client_id: id, user } = owner;
        let in_process = local.is_some();
        let state = ClientState {
            session,
            link: None,
            closing: None,
            replays: None,
            local,
            timer: None,
            keep_for: KeepFor::Nothing,
            expires_at: None,
            delayed_will: None,
            leaving_will: None,
            leaving: None,
            epoch: 0,
            on_record: Position::START,
            filed_worse: None,
        };
        Arc::new(Self {
            key,
            id,
            user,
            in_process,
            group: None,
            last_packet: AtomicU64::new(0),
            charged: AtomicUsize::new(0),
            charged_in_flight: AtomicU32::new(0),
            gives_away: AtomicBool::new(false),
            durable: AtomicBool::new(false),
            fan_outs: AtomicU32::new(0),
            keeps_routes: AtomicBool::new(false),
            charge: Mutex::new(charge),
            state: Mutex::new(state),
        })
    }

    /// A group of members, which stands in the router like a session.
    pub(crate) fn new_group(key: u64, group: Group, limits: Arc<SessionLimits>, charge: Charge) -> Arc<Self> {
        let owner = Owner { client_id: Arc::from("shared subscription"), user: None };
        let mut client = Self::new(key, owner, Session::new(limits, false), Some(charge));
        if let Some(client) = Arc::get_mut(&mut client) {
            client.group = Some(Arc::new(group));
        }
        client
    }

    /// Whose session it is. What else names its owner is to share the texts.
    pub(super) fn owner(&self) -> Owner {
        Owner { client_id: Arc::clone(&self.id), user: self.user.clone() }
    }

    /// The short lock. Not to be held while another client's is taken.
    pub(crate) fn lock(&self) -> Locked<'_> {
        #[cfg(test)]
        LOCKS.set(LOCKS.get() + 1);
        Locked { key: self.key, state: self.state.lock() }
    }

    /// What the log has of it: that it exists.
    pub(super) fn record<'a>(&'a self, state: &ClientState, keep: Option<Duration>) -> Record<'a> {
        let (client_id, user) = (&*self.id, self.user.as_deref());
        Record::Session(SessionRecord { session: self.key, keep, client_id, epoch: state.epoch, user })
    }

    /// What it gives back of what lasts when it ends.
    pub(super) fn lasting_bytes(&self, state: &ClientState) -> usize {
        let (filters, bytes) = (state.session.subscriptions(), state.session.subscription_bytes());
        Self::bytes(&self.owner()) + subscriptions_cost(filters, bytes)
    }

    /// Its session or group has ended, and makes room for another one: whoever still keeps it among
    /// the receivers of a topic lets it go when he is asked to ([`Core::let_go_if_due`]).
    ///
    /// [`Core::let_go_if_due`]: super::Core::let_go_if_due
    pub(super) fn end_charge(&self) {
        if let Some(charge) = &mut *self.charge.lock() {
            charge.move_to(Account::Ended);
        }
    }

    /// Whether anything is charged for it, or for what its session gives away.
    pub(super) fn is_charged(&self) -> bool {
        self.charged.load(Ordering::Relaxed) > 0
            || self.has_charged_in_flight()
            || self.gives_away.load(Ordering::Relaxed)
    }

    /// Its session gives messages away from now on, or has none left. Under its lock.
    pub(super) fn set_giving_away(&self, gives_away: bool) {
        self.gives_away.store(gives_away, Ordering::Relaxed);
    }

    /// Its session is on record from now on. Under its lock.
    pub(super) fn set_durable(&self) {
        self.durable.store(true, Ordering::Relaxed);
    }

    /// Whether its session is kept on record.
    pub(super) fn is_durable(&self) -> bool {
        self.durable.load(Ordering::Relaxed)
    }

    /// Whether messages on their way to it hold enough to be looked at.
    pub(crate) fn has_charged_in_flight(&self) -> bool {
        self.charged_in_flight.load(Ordering::Relaxed) > 0
    }

    /// It holds so many bytes now; returns what that is more than before. Under its lock.
    pub(super) fn charge(&self, bytes: usize) -> i64 {
        let before = self.charged.load(Ordering::Relaxed);
        if before != bytes {
            self.charged.store(bytes, Ordering::Relaxed);
        }
        (bytes as i64).wrapping_sub(before as i64)
    }

    /// Messages on their way to it hold so many bytes now that are its own, and `kept` with those
    /// that others may hold as well; returns what is charged more than before. Who holds less than
    /// a step of either is charged nothing, and no counter is touched.
    pub(super) fn charge_in_flight(&self, bytes: usize, kept: usize) -> i64 {
        let steps = u32::try_from(bytes / STEP).unwrap_or(KEEPS) & !KEEPS;
        let now = steps | if kept >= STEP { KEEPS } else { 0 };
        let before = self.charged_in_flight.load(Ordering::Relaxed);
        if before != now {
            self.charged_in_flight.store(now, Ordering::Relaxed);
        }
        (i64::from(steps) - i64::from(before & !KEEPS)) * STEP as i64
    }

    /// A complete packet came in.
    pub(crate) fn heard(&self, now: Timestamp) {
        self.last_packet.store(now.as_millis(), Ordering::Relaxed);
    }

    pub(crate) fn last_heard(&self) -> Timestamp {
        Timestamp::from_millis(self.last_packet.load(Ordering::Relaxed))
    }
}

/// A client's state, as long as its lock is held. When it is let go, groups that have the session
/// filed worse than it is by then are told: so nobody who makes room in it has to think of that.
pub(crate) struct Locked<'a> {
    key: u64,
    state: MutexGuard<'a, ClientState>,
}

impl Deref for Locked<'_> {
    type Target = ClientState;

    fn deref(&self) -> &ClientState {
        &self.state
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut ClientState {
        &mut self.state
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.state.filed_worse.as_ref().is_some_and(|worse| !worse.is_empty()) {
            group::file_better(self.key, &mut self.state);
        }
    }
}

impl Link {
    /// When the timers have to look at it next, if its client was last heard then.
    pub(super) fn deadline(&self, last_heard: Timestamp) -> Option<Timestamp> {
        let silence = self.keep_alive.map(|keep_alive| keep_alive.deadline(last_heard));
        [silence, self.login_ends].into_iter().flatten().min()
    }

    /// Leaves a signal for the connection's task and wakes it.
    pub(crate) fn signal(&self, bits: u8) {
        if self.handle.leave(bits) {
            self.waker.wake_by_ref();
        }
    }
}

impl ClientState {
    /// How ready it is to take a message of a group. A program that embeds the broker is always
    /// there.
    pub(super) fn readiness(&self) -> Readiness {
        match self.session.readiness() {
            Readiness::Away if self.local.is_some() => Readiness::Ready,
            readiness => readiness,
        }
    }

    /// Whether what it gives away is on record as its own, or on its way there.
    pub(super) fn gives_from_log(&self) -> bool {
        self.session.is_durable() || self.leaving.as_ref().is_some_and(|leaving| leaving.ends_on_record())
    }

    /// What counts against the bounds of its queue.
    pub(super) fn fill(&self) -> Fill {
        match &self.local {
            Some(local) => Fill { messages: local.len(), bytes: local.bytes() },
            None => Fill { messages: self.session.queued(), bytes: self.session.held_bytes() },
        }
    }

    /// Other bounds hold for it: where it took no more it is asked again.
    pub(super) fn bounds_changed(&mut self) {
        if let Some(worse) = &mut self.filed_worse {
            worse.ask_again();
        }
    }

    /// When the timers have to look at an offline session next.
    pub(crate) fn offline_deadline(&self) -> Option<Timestamp> {
        let will_at = self.delayed_will.as_ref().map(|will| will.0);
        [self.expires_at, will_at].into_iter().flatten().min()
    }

    /// The attached connection, if it is the one with this epoch.
    pub(crate) fn link_of(&mut self, epoch: u64) -> Option<&mut Link> {
        self.link.as_mut().filter(|link| link.epoch == epoch)
    }
}

impl Subscriber for Arc<Client> {
    fn key(&self) -> u64 {
        self.key
    }
}

#[cfg(test)]
thread_local! {
    static LOCKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Locks of clients that this thread has taken.
#[cfg(test)]
pub(super) fn locks_taken() -> usize {
    LOCKS.get()
}
