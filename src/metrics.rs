//! What the broker counts. One list of numbers feeds `$SYS` and [`Broker::metrics`](crate::Broker::metrics).
//!
//! Counters on the path of a PUBLISH are gathered per turn of a connection and added here once (see `broker::turn`), so that cores do not
//! fight over these cache lines. Counters by reason are rare events and stand in a small ordered map.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Lines of the process's log that were lost: one log for all brokers of the process.
pub(crate) static LOG_LINES_LOST: Counter = Counter(AtomicU64::new(0));

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    /// Adds one and returns the new value.
    pub(crate) fn increment(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Takes one off and returns the new value.
    pub(crate) fn decrement(&self) -> u64 {
        self.0.fetch_sub(1, Ordering::AcqRel) - 1
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Counters by reason; the reasons are a fixed set of labels in the code.
#[derive(Debug, Default)]
pub(crate) struct ByReason(Mutex<BTreeMap<&'static str, u64>>);

impl ByReason {
    pub(crate) fn add(&self, reason: &'static str, n: u64) {
        if n > 0 {
            *self.0.lock().entry(reason).or_default() += n;
        }
    }

    fn snapshot(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }
}

/// The live counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Sockets accepted and not yet closed, those before CONNECT included.
    pub(crate) sockets: Gauge,
    /// Connections past CONNECT.
    pub(crate) clients_connected: Gauge,
    pub(crate) connections: Counter,
    pub(crate) refused: ByReason,
    pub(crate) closed: ByReason,
    pub(crate) held: ByReason,
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) packets_received: Counter,
    pub(crate) publish_received: Counter,
    pub(crate) publish_sent: Counter,
    pub(crate) publish_queued: Counter,
    pub(crate) dropped: ByReason,
    pub(crate) wills_published: Counter,
    pub(crate) sessions_expired: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) certificate_days_left: Days,
    pub(crate) crl_days_left: Days,
    pub(crate) quick_take_overs: Counter,
    pub(crate) sheddings: Counter,
    pub(crate) turns_long: Counter,
}

/// Days until something ends, once it is known.
#[derive(Debug)]
pub(crate) struct Days(AtomicI64);

impl Default for Days {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Days {
    /// Returns what was known before.
    pub(crate) fn set(&self, days: Option<i64>) -> Option<i64> {
        Some(self.0.swap(days.unwrap_or(i64::MIN), Ordering::Relaxed)).filter(|days| *days != i64::MIN)
    }

    fn get(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|days| *days != i64::MIN)
    }
}

/// The durable log at one moment. Counters start at 0 with the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StorageSnapshot {
    /// Gauge: 1 while the data directory cannot be written; nothing that must be stored is acknowledged then.
    pub failing: u64,
    /// Gauge: 1 while the disk is full: the reserve was given up, and nothing that makes the log grow is taken.
    pub full: u64,
    /// Gauge: bytes of the files in the data directory.
    pub files_bytes: u64,
    /// Bytes put on record.
    pub bytes_recorded: u64,
    /// Bytes written to files: those, checkpoints, and what was copied forward or had to be written again.
    pub bytes_written: u64,
    /// Times that a file or the directory was synced.
    pub syncs: u64,
    /// Writes that failed.
    pub write_failures: u64,
    /// Syncs that failed.
    pub sync_failures: u64,
}

/// The broker's counters at one moment. Counters start at 0 with the broker; gauges are current values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSnapshot {
    /// Gauge: open sockets, those before CONNECT included.
    pub sockets: u64,
    /// Gauge: clients connected.
    pub clients_connected: u64,
    /// Gauge: sessions without a connection.
    pub sessions_offline: u64,
    /// Gauge: subscriptions of all sessions.
    pub subscriptions: u64,
    /// Gauge: topics with a retained message.
    pub retained: u64,
    /// Gauge: bytes that wait for clients in memory or are on their way to them; a large body
    /// counts once, however many clients it is for.
    pub waiting_bytes: u64,
    /// Gauge: bytes of all accounts of memory together; `limits.memory_max` bounds them.
    pub memory_bytes: u64,
    /// Gauge: the accounts of memory by name, in bytes: `waiting`, `bodies`, `in_flight`,
    /// `answers`, `wills`, `aliases`, `subscriptions`, `unfinished`, `handshakes`, `retained`.
    pub memory: BTreeMap<&'static str, u64>,
    /// Gauge: bytes of packets that have not come as a whole, above 16 KB of each client; `limits.unfinished_bytes_max` bounds them.
    pub unfinished_bytes: u64,
    /// Connections that got past CONNECT.
    pub connections: u64,
    /// Sockets and CONNECTs turned away, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Connections ended, by cause.
    pub closed: BTreeMap<&'static str, u64>,
    /// Times that a connection had to wait for a limit, by limit: it was not read for a while, or its TLS handshake did not begin at once.
    pub held: BTreeMap<&'static str, u64>,
    /// Bytes read from clients.
    pub bytes_received: u64,
    /// Bytes written to clients.
    pub bytes_sent: u64,
    /// MQTT packets from clients.
    pub packets_received: u64,
    /// PUBLISH packets from clients and in-process publishers.
    pub publish_received: u64,
    /// PUBLISH packets put into clients' output.
    pub publish_sent: u64,
    /// Messages that had to wait in a queue.
    pub publish_queued: u64,
    /// Messages that a client should have had and did not get, by reason; also publishes refused.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Wills published.
    pub wills_published: u64,
    /// Sessions ended because `limits.session_expiry` passed.
    pub sessions_expired: u64,
    /// Failed accepts, such as those for want of file descriptors.
    pub accept_errors: u64,
    /// Gauge: whole days until the first certificate of any TLS listener ends, negative when it has; `None` without TLS.
    pub certificate_days_left: Option<i64>,
    /// Gauge: whole days until the first list of revoked certificates of any TLS listener is over, negative when it is, and then its listener lets
    /// nobody in by a certificate; `None` without lists.
    pub crl_days_left: Option<i64>,
    /// Take-overs of a client id that came in quick succession, more than five in ten seconds.
    pub quick_take_overs: u64,
    /// Times that `limits.memory_max` was reached, and queues shortened.
    pub sheddings: u64,
    /// Turns that took 10 ms or more: each has held up the other clients of its thread.
    pub turns_long: u64,
    /// Lines of the process's log that were lost, for nobody read what was written before or writing failed; 0 if the
    /// program has a logger of its own. See [`logging::lines_lost`](crate::logging::lines_lost).
    pub log_lines_lost: u64,
    /// The durable log; `None`: everything is in memory only.
    pub storage: Option<StorageSnapshot>,
}

impl Metrics {
    /// All of them but those that others keep, which the caller reads after this.
    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        // Before the drops that an expiry brings, which are counted first.
        let sessions_expired = self.sessions_expired.get();
        MetricsSnapshot {
            sockets: self.sockets.get(),
            clients_connected: self.clients_connected.get(),
            sessions_offline: 0,
            subscriptions: 0,
            retained: 0,
            waiting_bytes: 0,
            memory_bytes: 0,
            memory: BTreeMap::new(),
            unfinished_bytes: 0,
            connections: self.connections.get(),
            refused: self.refused.snapshot(),
            closed: self.closed.snapshot(),
            held: self.held.snapshot(),
            bytes_received: self.bytes_received.get(),
            bytes_sent: self.bytes_sent.get(),
            packets_received: self.packets_received.get(),
            publish_received: self.publish_received.get(),
            publish_sent: self.publish_sent.get(),
            publish_queued: self.publish_queued.get(),
            dropped: self.dropped.snapshot(),
            wills_published: self.wills_published.get(),
            sessions_expired,
            accept_errors: self.accept_errors.get(),
            certificate_days_left: self.certificate_days_left.get(),
            crl_days_left: self.crl_days_left.get(),
            quick_take_overs: self.quick_take_overs.get(),
            sheddings: self.sheddings.get(),
            turns_long: self.turns_long.get(),
            log_lines_lost: LOG_LINES_LOST.get(),
            storage: None,
        }
    }
}
