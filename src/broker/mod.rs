//! The broker's engine: sessions, router and retained messages tied together, without knowledge of listeners or TLS.
//!
//! The path of a PUBLISH: `net::connection` decodes it and calls [`Core::publish`] (`publish.rs`), which asks the session (QoS 2), the retained
//! store and the router, and hands the message to each receiver's session (`deliver.rs`); at the end of the turn what was touched is written
//! (`turn.rs`, `flush.rs`).
//!
//! Lock order: registry shard → client → router shard, retained store, timers or the map of groups
//! → the members of a group. Never two clients, never across an `.await`.

mod access;
mod admission;
mod aliases;
mod attention;
mod background;
mod bucket;
mod budget;
mod cause;
mod client;
mod clock;
mod connect;
mod deferred;
mod deliver;
mod departed;
mod ended;
mod entrance;
mod fan_out;
mod filters;
mod flush;
mod full_disk;
mod gate;
mod group;
mod hand_over;
mod handle;
mod held;
mod keeper;
mod last_words;
mod lifecycle;
mod limits;
mod load;
mod local;
mod memory;
mod on_record;
mod promise;
mod publish;
mod recover;
mod refusal;
mod retain;
mod shared;
mod signals;
mod sources;
mod start;
mod subscribe;
mod superseded;
pub(crate) mod sys;
mod take_overs;
mod timers;
mod told;
mod topics;
mod turn;
mod turn_log;
mod unfinished;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ahash::RandomState;
use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore};

use access::AccessControl;
pub(crate) use access::{Security, Verdict};
use admission::Admission;
pub(crate) use admission::{AddressSlot, UserSlot};
use background::Background;
pub(crate) use bucket::Bucket;
pub(crate) use budget::{Budget, cost};
pub(crate) use cause::Cause;
pub(crate) use client::{Client, ClientState, KeepFor, signal};
use clock::Clock;
pub(crate) use clock::{WallClock, unix_millis};
pub(crate) use connect::{Attached, ConnectRequest};
pub(crate) use deferred::DeferredFlush;
use departed::Departed;
use ended::LetGo;
use entrance::Entrance;
pub(crate) use filters::LargePacket;
pub(crate) use flush::Flushed;
pub(crate) use handle::Handle;
pub(crate) use keeper::{run as keep_log, watch_disk};
pub(crate) use last_words::{LastWords, LastWordsCharge};
pub(crate) use lifecycle::Disconnected;
use limits::LiveLimits;
pub(crate) use load::ReadBack;
pub use local::ReceivedMessage;
use memory::Memory;
pub(crate) use promise::Promiser;
pub(crate) use publish::Publisher;
pub(crate) use refusal::Refusal;
pub(crate) use retain::Kept;
use sources::Sources;
pub(crate) use subscribe::Added;
use superseded::Superseded;
use take_overs::TakeOvers;
pub(crate) use timers::TICK_MS;
use timers::Timers;
use told::Told;
pub(crate) use topics::TopicLimit;
pub(crate) use turn::Turn;
use unfinished::Unfinished;
pub(crate) use unfinished::UnfinishedCharge;

use crate::accounts::{Account, Accounts};
use crate::authentication::AuthenticationMethods;
use crate::config::Limits;
use crate::escape::escape;
use crate::ledger::Ledger;
use crate::metrics::{Metrics, MetricsSnapshot, StorageSnapshot};
use crate::router::{RetainedStore, Router, ThreadRoutes};
use crate::storage::{Log, LogStatus};
use crate::turns::{BarrierSeat, TurnGuard};

/// Connections whose end is settled at the same time. More would only wait for a thread, in front
/// of those that have something to do.
const ENDINGS_MAX: usize = 4;

/// Connections that come into the runtime's queue with long turns at the same time: enough for every
/// thread to have the next one when one is over.
fn long_turns() -> usize {
    2 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Everything the connections of one broker share.
pub(crate) struct Core {
    pub(crate) limits: LiveLimits,
    pub(crate) authentication_methods: AuthenticationMethods,
    /// Sessions by client id: those with a connection, and those that outlived theirs.
    clients: DashMap<Arc<str>, Arc<Client>, RandomState>,
    /// Sessions by key that have left the registry and whose end is not on record yet.
    leaving: DashMap<u64, Arc<Client>, RandomState>,
    /// What sessions have left that are over and have given their client ids free.
    departed: Departed,
    /// What the broker goes on with by itself.
    background: Background,
    /// Groups of shared subscriptions by their whole filter, `$share/{name}/{filter}`.
    groups: DashMap<Arc<str>, Arc<Client>, RandomState>,
    pub(crate) router: Router<Arc<Client>>,
    /// Of publishers of many topics.
    thread_routes: ThreadRoutes<Arc<Client>, Verdict>,
    pub(crate) retained: RetainedStore<Kept>,
    /// Who stored them.
    sources: Sources,
    /// Those that were replaced or removed before they were on record.
    superseded: Superseded,
    /// A refused retained message was told to the log.
    retained_refusal_told: AtomicBool,
    pub(super) access: AccessControl,
    pub(crate) timers: Timers,
    pub(crate) metrics: Metrics,
    /// The durable log; `None`: everything is in memory only.
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) ledger: Arc<Ledger>,
    /// Checkpoints and freeing take turns by it.
    barrier_seat: tokio::sync::Mutex<BarrierSeat>,
    /// Counts the changes of retained messages, so that the log knows which is the later one.
    next_revision: AtomicU64,
    /// Connections by address and user, where that is bounded.
    admission: Admission,
    /// TLS handshakes that may begin.
    pub(crate) tls_handshakes: Semaphore,
    /// What clients make the broker hold in memory, by what it is for.
    pub(crate) accounts: Arc<Accounts>,
    /// What is done when that is too much.
    memory: Memory,
    /// When sessions that have ended were let go of.
    let_go: LetGo,
    /// Packets that have not come as a whole.
    unfinished: Unfinished,
    /// Permits for connections that have more to do than fits into a turn.
    pub(crate) long_turns: Arc<Semaphore>,
    /// Connections whose end is being settled.
    pub(crate) endings: Semaphore,
    /// Connections that come in.
    entrance: Entrance,
    take_overs: TakeOvers,
    /// When limits were told of that bite again and again.
    pub(crate) told: Told,
    next_key: AtomicU64,
    clock: Clock,
    shutting_down: AtomicBool,
    /// Wakes those before CONNECT, the accept loops and the timers when the broker shuts down.
    pub(crate) shutdown: Notify,
    /// Told when the last socket is closed.
    pub(crate) sockets_gone: Notify,
}

impl Core {
    pub(crate) fn new(limits: Limits, security: Security) -> Arc<Self> {
        let (ledger, seat) = Ledger::new();
        let clock = Clock::new(WallClock::system());
        Arc::new(Self::with_log(limits, security, None, (Arc::new(ledger), seat), clock))
    }

    /// A core whose durable sessions and retained messages are kept in `log`.
    fn with_log(
        limits: Limits,
        security: Security,
        log: Option<Arc<Log>>,
        (ledger, seat): (Arc<Ledger>, BarrierSeat),
        clock: Clock,
    ) -> Self {
        let bounds = limits.bounds();
        let accounts = Arc::new(Accounts::new(bounds.memory));
        let memory = Memory::new(&accounts);
        let unfinished = Unfinished::new(bounds.unfinished, &accounts);
        Self {
            tls_handshakes: Semaphore::new(limits.tls_handshakes_max.min(Semaphore::MAX_PERMITS)),
            limits: LiveLimits::new(limits),
            authentication_methods: security.methods,
            clients: DashMap::default(),
            leaving: DashMap::default(),
            departed: Departed::default(),
            background: Background::default(),
            groups: DashMap::default(),
            router: Router::new(),
            thread_routes: ThreadRoutes::new(
                std::thread::available_parallelism().map_or(1, usize::from),
                &accounts,
            ),
            retained: RetainedStore::new(),
            sources: Sources::default(),
            superseded: Superseded::new(&accounts),
            retained_refusal_told: AtomicBool::new(false),
            access: AccessControl::new(security.rules, security.refuses_subscriptions),
            timers: Timers::default(),
            metrics: Metrics::default(),
            log,
            ledger,
            barrier_seat: tokio::sync::Mutex::new(seat),
            next_revision: AtomicU64::new(1),
            admission: Admission::default(),
            accounts,
            memory,
            let_go: LetGo::default(),
            unfinished,
            long_turns: Arc::new(Semaphore::new(long_turns())),
            endings: Semaphore::new(ENDINGS_MAX),
            entrance: Entrance::default(),
            take_overs: TakeOvers::default(),
            told: Told::default(),
            next_key: AtomicU64::new(1),
            clock,
            shutting_down: AtomicBool::new(false),
            shutdown: Notify::new(),
            sockets_gone: Notify::new(),
        }
    }

    /// Logs a turn that took too long: it should not happen, and says where to look.
    pub(crate) fn tell_long_turn(&self, took: Duration, client_id: &str, packet_type: u8) {
        if let Some(untold) = self.told.tell("turn", self.now()) {
            tracing::warn!(
                client_id = %escape(client_id),
                packet_type,
                millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                untold,
                "handling packets of a client took long and has held up others; told every ten seconds at most"
            );
        }
    }

    /// Begins a turn: what is taken out of sessions and the retained store until the guard is dropped
    /// is still looked after by checkpoints and by the freeing of segments.
    pub(crate) fn enter_turn(&self) -> Option<TurnGuard> {
        self.log.is_some().then(|| self.ledger.turns().enter())
    }

    pub(crate) fn next_key(&self) -> u64 {
        self.next_key.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Acquire)
    }

    /// Waits until the broker shuts down.
    pub(crate) async fn shut_down(&self) {
        let notified = self.shutdown.notified();
        tokio::pin!(notified);
        // Registered before the flag is read, so that a shutdown between the two is not missed.
        notified.as_mut().enable();
        if !self.is_shutting_down() {
            notified.await;
        }
    }

    pub(crate) fn metrics(&self) -> MetricsSnapshot {
        // Counters first: what they tell of has happened by the time the gauges are read.
        let counters = self.metrics.snapshot();
        let connected = self.metrics.clients_connected.get();
        MetricsSnapshot {
            sessions_offline: (self.clients.len() as u64).saturating_sub(connected),
            subscriptions: self.router.subscriptions() as u64,
            retained: self.retained.len() as u64,
            waiting_bytes: self.memory.waiting() as u64,
            memory_bytes: self.accounts.total() as u64,
            memory: Account::ALL
                .into_iter()
                .map(|account| (account.label(), self.accounts.of(account) as u64))
                .collect(),
            unfinished_bytes: self.unfinished.total() as u64,
            storage: self.log.as_ref().map(|log| storage_snapshot(log.status())),
            ..counters
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.ledger.unwatch();
    }
}

fn storage_snapshot(status: LogStatus) -> StorageSnapshot {
    StorageSnapshot {
        failing: status.failing.into(),
        full: status.full.into(),
        files_bytes: status.files_bytes,
        bytes_recorded: status.bytes_submitted,
        bytes_written: status.bytes_written,
        syncs: status.syncs,
        write_failures: status.write_failures,
        sync_failures: status.sync_failures,
    }
}
