//! `LiveLimits`: the bounds of `[limits]` as they are now, for they can change while the broker runs.
//!
//! What is asked now and then (a connection, a SUBSCRIBE) reads all of them as one value, [`LiveLimits::now`]; what is asked for each message
//! stands beside it as plain numbers. A connection keeps what its client was told in CONNACK. Not live: `tls_handshakes_max`, whose places are
//! handed out, and `inflight_max`, by which a start after a crash tells what may have been sent; for them the value of the start goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;

use super::{Client, Core, KeepFor};
use crate::config::{Limits, PayloadFormat};
use crate::protocol::SessionExpiry;
use crate::session::SessionLimits;

/// See the module's documentation.
pub(crate) struct LiveLimits {
    all: RwLock<Arc<Limits>>,
    of_sessions: RwLock<Arc<SessionLimits>>,
    topic_bytes_max: AtomicUsize,
    topic_levels_max: AtomicUsize,
    retained_bytes_max: AtomicUsize,
    handshake_bytes_max: AtomicUsize,
    retained_messages_max: AtomicUsize,
    checks_payload_format: AtomicBool,
}

impl LiveLimits {
    pub(super) fn new(limits: Limits) -> Self {
        let live = Self {
            of_sessions: RwLock::new(Arc::new(of_sessions(&limits))),
            all: RwLock::new(Arc::new(limits.clone())),
            topic_bytes_max: AtomicUsize::default(),
            topic_levels_max: AtomicUsize::default(),
            retained_bytes_max: AtomicUsize::default(),
            handshake_bytes_max: AtomicUsize::default(),
            retained_messages_max: AtomicUsize::default(),
            checks_payload_format: AtomicBool::default(),
        };
        live.set_numbers(&limits);
        live
    }

    /// All of them at this moment.
    pub(crate) fn now(&self) -> Arc<Limits> {
        Arc::clone(&self.all.read())
    }

    pub(crate) fn topic_bytes_max(&self) -> usize {
        self.topic_bytes_max.load(Ordering::Relaxed)
    }

    pub(crate) fn topic_levels_max(&self) -> usize {
        self.topic_levels_max.load(Ordering::Relaxed)
    }

    pub(super) fn retained_bytes_max(&self) -> usize {
        self.retained_bytes_max.load(Ordering::Relaxed)
    }

    pub(crate) fn handshake_bytes_max(&self) -> usize {
        self.handshake_bytes_max.load(Ordering::Relaxed)
    }

    pub(super) fn retained_messages_max(&self) -> usize {
        self.retained_messages_max.load(Ordering::Relaxed)
    }

    pub(super) fn checks_payload_format(&self) -> bool {
        self.checks_payload_format.load(Ordering::Relaxed)
    }

    /// Those of a session that begins.
    pub(crate) fn of_sessions(&self) -> Arc<SessionLimits> {
        Arc::clone(&self.of_sessions.read())
    }

    fn set_numbers(&self, limits: &Limits) {
        self.topic_bytes_max.store(limits.topic_bytes_max, Ordering::Relaxed);
        self.topic_levels_max.store(limits.topic_levels_max, Ordering::Relaxed);
        let bounds = limits.bounds();
        self.retained_bytes_max.store(bounds.retained.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.handshake_bytes_max.store(bounds.handshakes.unwrap_or(usize::MAX), Ordering::Relaxed);
        self.retained_messages_max.store(limits.retained_messages_max, Ordering::Relaxed);
        self.checks_payload_format.store(limits.payload_format == PayloadFormat::Check, Ordering::Relaxed);
    }
}

fn of_sessions(limits: &Limits) -> SessionLimits {
    SessionLimits {
        inflight_max: limits.inflight_max,
        queue_messages_max: limits.queue_messages_max,
        queue_bytes_max: limits.queue_bytes_max,
        subscriptions_max: limits.subscriptions_max,
        subscription_bytes_max: limits.subscription_bytes_max,
    }
}

impl Core {
    /// Puts new bounds in force for every later decision. What is there above a lower one stays: connections, subscriptions, queues, retained
    /// messages.
    pub(crate) fn set_limits(&self, limits: &Limits) {
        let before = self.limits.now();
        let new = Limits {
            tls_handshakes_max: before.tls_handshakes_max,
            inflight_max: before.inflight_max,
            ..limits.clone()
        };
        if new == *before {
            return;
        }
        let sessions = of_sessions(&new);
        self.limits.set_numbers(&new);
        self.memory.set_max(new.bounds().memory);
        *self.limits.all.write() = Arc::new(new);
        if *self.limits.of_sessions() == sessions {
            return;
        }
        let sessions = Arc::new(sessions);
        *self.limits.of_sessions.write() = Arc::clone(&sessions);
        // Collected first: no guard of the registry lives while a client is locked.
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            let mut state = client.lock();
            state.session.set_limits(Arc::clone(&sessions));
            state.bounds_changed();
        }
    }

    /// How long the session is to outlive its connection, and what the client is to be told if that is not what it asked for.
    pub(super) fn keep_for(&self, asked: SessionExpiry) -> (KeepFor, Option<u32>) {
        let session_expiry = self.limits.now().session_expiry;
        let bounded = |asked: Option<Duration>| match (asked, session_expiry) {
            (Some(asked), Some(max)) => KeepFor::Time(asked.min(max)),
            (Some(time), None) | (None, Some(time)) => KeepFor::Time(time),
            (None, None) => KeepFor::Ever,
        };
        let (keep_for, seconds) = match asked {
            SessionExpiry::AtDisconnect => return (KeepFor::Nothing, None),
            SessionExpiry::ServerDefault => return (bounded(None), None),
            SessionExpiry::AfterSeconds(seconds) => {
                (bounded(Some(Duration::from_secs(seconds.into()))), Some(seconds))
            }
            SessionExpiry::Never => (bounded(None), None),
        };
        let told = match keep_for {
            KeepFor::Time(time) => {
                let granted = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
                (seconds != Some(granted)).then_some(granted)
            }
            KeepFor::Ever | KeepFor::Nothing => None,
        };
        (keep_for, told)
    }

    /// The same for a client that names a session expiry in DISCONNECT.
    pub(crate) fn keep_for_seconds(&self, seconds: u32) -> KeepFor {
        self.keep_for(SessionExpiry::from_interval(Some(seconds))).0
    }
}
