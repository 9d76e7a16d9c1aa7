//! The broker's engine: sessions, router and retained messages tied together, without knowledge of listeners or TLS.
//!
//! The path of a PUBLISH: `net::connection` decodes it and calls [`Core::publish`] (`publish.rs`), which asks the session (QoS 2), the retained
//! store and the router, and hands the message to each receiver's session (`deliver.rs`); at the end of the turn what was touched is written
//! (`turn.rs`, `flush.rs`).
//!
//! Lock order: registry shard → client → router shard, retained store or timers. Never two clients, never across an `.await`.

mod access;
mod admission;
mod bucket;
mod cause;
mod client;
mod connect;
mod deliver;
mod flush;
mod handle;
mod held;
mod keeper;
mod lifecycle;
mod limits;
mod load;
mod local;
mod memory;
mod publish;
mod recover;
mod retain;
mod shared;
mod sources;
mod start;
mod subscribe;
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
use std::time::{Instant, SystemTime};

use ahash::RandomState;
use dashmap::DashMap;
use tokio::sync::{Notify, Semaphore};

use access::AccessControl;
pub(crate) use access::{Security, Verdict};
use admission::Admission;
pub(crate) use admission::{AddressSlot, UserSlot};
pub(crate) use bucket::Bucket;
pub(crate) use cause::Cause;
pub(crate) use client::{Client, ClientState, KeepFor, signal};
pub(crate) use connect::{Attached, ConnectRequest};
pub(crate) use flush::Flushed;
pub(crate) use handle::Handle;
pub(crate) use keeper::run as keep_log;
use limits::LiveLimits;
pub(crate) use load::Loaded;
pub(crate) use local::LocalQueue;
pub use local::ReceivedMessage;
use memory::Memory;
pub(crate) use publish::Publisher;
pub(crate) use retain::Kept;
use sources::Sources;
pub(crate) use subscribe::Added;
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
use crate::ledger::Ledger;
use crate::metrics::{Metrics, MetricsSnapshot, StorageSnapshot};
use crate::router::{RetainedStore, Router, ThreadRoutes};
use crate::session::Timestamp;
use crate::storage::{Log, LogStatus};

/// Everything the connections of one broker share.
pub(crate) struct Core {
    pub(crate) limits: LiveLimits,
    pub(crate) authentication_methods: AuthenticationMethods,
    /// Sessions by client id: those with a connection, and those that outlived theirs.
    clients: DashMap<Arc<str>, Arc<Client>, RandomState>,
    /// Groups of shared subscriptions by their whole filter, `$share/{name}/{filter}`.
    groups: DashMap<Arc<str>, Arc<Client>, RandomState>,
    pub(crate) router: Router<Arc<Client>>,
    /// Of publishers of many topics.
    thread_routes: ThreadRoutes<Arc<Client>, Verdict>,
    pub(crate) retained: RetainedStore<Kept>,
    /// Who stored them.
    sources: Sources,
    /// A refused retained message was told to the log.
    retained_refusal_told: AtomicBool,
    pub(super) access: AccessControl,
    pub(crate) timers: Timers,
    pub(crate) metrics: Metrics,
    /// The durable log; `None`: everything is in memory only.
    pub(crate) log: Option<Arc<Log>>,
    pub(crate) ledger: Arc<Ledger>,
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
    /// Packets that have not come as a whole.
    unfinished: Unfinished,
    take_overs: TakeOvers,
    /// When limits were told of that bite again and again.
    pub(crate) told: Told,
    next_key: AtomicU64,
    started: Instant,
    /// The wall clock at that moment, in milliseconds of the Unix epoch.
    started_wall: u64,
    shutting_down: AtomicBool,
    /// Wakes those before CONNECT, the accept loops and the timers when the broker shuts down.
    pub(crate) shutdown: Notify,
    /// Told when the last socket is closed.
    pub(crate) sockets_gone: Notify,
}

impl Core {
    pub(crate) fn new(limits: Limits, security: Security) -> Arc<Self> {
        Arc::new(Self::with_log(limits, security, None, Arc::default()))
    }

    /// A core whose durable sessions and retained messages are kept in `log`.
    pub(crate) fn with_log(
        limits: Limits,
        security: Security,
        log: Option<Arc<Log>>,
        ledger: Arc<Ledger>,
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
            groups: DashMap::default(),
            router: Router::new(),
            thread_routes: ThreadRoutes::new(std::thread::available_parallelism().map_or(1, usize::from)),
            retained: RetainedStore::new(),
            sources: Sources::default(),
            retained_refusal_told: AtomicBool::new(false),
            access: AccessControl::new(security.rules, security.refuses_subscriptions),
            timers: Timers::default(),
            metrics: Metrics::default(),
            log,
            ledger,
            next_revision: AtomicU64::new(1),
            admission: Admission::default(),
            accounts,
            memory,
            unfinished,
            take_overs: TakeOvers::default(),
            told: Told::default(),
            next_key: AtomicU64::new(1),
            started: Instant::now(),
            started_wall: unix_millis(),
            shutting_down: AtomicBool::new(false),
            shutdown: Notify::new(),
            sockets_gone: Notify::new(),
        }
    }

    /// A moment of the broker's clock as milliseconds of the Unix epoch. What is stored must make sense in the next run; jumps of the wall
    /// clock during this one do not move it.
    pub(crate) fn wall_clock(&self, at: Timestamp) -> u64 {
        self.started_wall.saturating_add(at.as_millis())
    }

    /// The opposite: a moment before this run is its beginning.
    pub(crate) fn moment(&self, unix_millis: u64) -> Timestamp {
        Timestamp::from_millis(unix_millis.saturating_sub(self.started_wall))
    }

    /// Now, on the broker's monotonic clock.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
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

fn storage_snapshot(status: LogStatus) -> StorageSnapshot {
    StorageSnapshot {
        failing: status.failing.into(),
        files_bytes: status.files_bytes,
        bytes_recorded: status.bytes_submitted,
        bytes_written: status.bytes_written,
        syncs: status.syncs,
        write_failures: status.write_failures,
        sync_failures: status.sync_failures,
    }
}

/// Read once, at start: what is stored must make sense in the next run.
#[allow(clippy::disallowed_methods, reason = "the one place where the wall clock is right")]
fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
