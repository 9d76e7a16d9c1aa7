//! `Broker`: the whole broker, started inside a program; publish and subscribe in-process.

mod security;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::auth::gate::Gate;
use crate::authentication::{AuthenticationMethod, AuthenticationMethods};
use crate::broker::{
    Added, Client, Core, LocalQueue, ReceivedMessage, Security, TopicLimit, Turn, keep_log, sys,
};
use crate::config::{AclSubscribe, ClientCertificate, Config, ListenerConfig, StorageKind, Transport};
use crate::data_dir::{DataDir, DataDirError};
use crate::metrics::MetricsSnapshot;
use crate::net::{self, BindError, LiveListener, TlsError};
use crate::protocol::{QoS, TopicError, validate_topic_filter, validate_topic_name};
use crate::router::{ReplayCursor, SubscriptionOptions};
use crate::session::{Message, Owner, Session};

/// A running broker. Dropping it does not stop it; call [`shutdown`](Self::shutdown).
pub struct Broker {
    core: Arc<Core>,
    local_addrs: Vec<SocketAddr>,
    gate: Arc<Gate>,
    listeners: Arc<[LiveListener]>,
    /// Holds the lock on the data directory for as long as the broker runs.
    _data_dir: Option<DataDir>,
}

/// What a program adds to the broker it starts.
#[derive(Default)]
#[non_exhaustive]
pub struct Extensions {
    /// Methods of enhanced authentication that clients of MQTT 5 may ask for.
    pub authentication_methods: Vec<Arc<dyn AuthenticationMethod>>,
}

impl Extensions {
    /// With a method of enhanced authentication more.
    #[must_use]
    pub fn with_authentication_method(mut self, method: Arc<dyn AuthenticationMethod>) -> Self {
        self.authentication_methods.push(method);
        self
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The TLS files of a listener cannot be used.
    #[error("TLS for the listener on {address}: {source}")]
    Tls {
        /// The listener's address.
        address: SocketAddr,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Users, rules or another part of what makes the broker safe cannot be had as configured.
    #[error("{0}")]
    Security(String),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Bytes of a PUBLISH besides topic and payload: fixed header, lengths, packet id, no properties.
const PUBLISH_OVERHEAD: usize = 5 + 2 + 2 + 1;

/// Why an in-process message was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The topic is not a valid topic name.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The topic has more levels than `limits.topic_levels_max`.
    #[error("the topic has more than {max} levels (limits.topic_levels_max)")]
    TooManyLevels {
        /// The limit.
        max: usize,
    },
    /// The topic is longer than `limits.topic_bytes_max`.
    #[error("the topic has more than {max} bytes (limits.topic_bytes_max)")]
    TopicTooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The durable log cannot be written, and what waits for it is at its bound: see the log for the reason.
    #[error("the data directory cannot be written at present")]
    StorageFull,
    /// The packet would be larger than clients' may be.
    #[error("the packet would have more than {max} bytes (limits.packet_bytes_max)")]
    TooLarge {
        /// The limit in bytes.
        max: usize,
    },
}

/// Why an in-process subscription was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubscribeError {
    /// The filter is not a valid topic filter.
    #[error(transparent)]
    Filter(#[from] TopicError),
    /// The filter has more levels than `limits.topic_levels_max`.
    #[error("the filter has more than {max} levels (limits.topic_levels_max)")]
    TooManyLevels {
        /// The limit.
        max: usize,
    },
    /// The filter is longer than `limits.topic_bytes_max`.
    #[error("the filter has more than {max} bytes (limits.topic_bytes_max)")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
}

impl Broker {
    /// Binds every listener and starts. All addresses are bound when this returns.
    ///
    /// Must be called within a tokio runtime with I/O and time enabled.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_with(config, Extensions::default()).await
    }

    /// The same with what a program adds to the broker.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is left running.
    pub async fn start_with(config: Config, extensions: Extensions) -> Result<Self, StartError> {
        let path = config.data_dir.as_deref().filter(|_| config.storage.kind == StorageKind::Disk);
        let data_dir = path.map(DataDir::open).transpose()?;
        let security::Loaded { gate, rules } = security::load(&config)?;
        security::announce_policy(&config, &gate, rules.as_deref());
        let security = Security {
            methods: AuthenticationMethods(extensions.authentication_methods),
            rules,
            refuses_subscriptions: config.auth.subscribe == AclSubscribe::Refuse,
        };
        let core = match path {
            None => {
                tracing::info!("sessions, queues and retained messages are kept in memory only");
                Core::new(config.limits, security)
            }
            Some(path) => {
                tracing::info!(data_dir = %path.display(), sync = config.storage.sync.name(), "durable log");
                let (directory, storage, limits) = (path.to_owned(), config.storage, config.limits);
                let opened =
                    tokio::task::spawn_blocking(move || Core::open(&directory, &storage, limits, security));
                let opened = opened.await.map_err(io::Error::other).and_then(|opened| opened);
                opened.map_err(|error| DataDirError::Io { path: path.to_owned(), error })?
            }
        };
        // Only now: whoever connects finds the state of the last run in place.
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for listener in &config.listeners {
            listeners
                .push(net::bind(listener, Arc::clone(&gate)).map_err(|error| start_error(listener, error))?);
        }
        let local_addrs = listeners.iter().map(|listener| listener.local_addr).collect();
        let same_before =
            |n: usize, bind| config.listeners.iter().take(n).filter(|listener| listener.bind == bind).count();
        let live: Arc<[LiveListener]> = listeners
            .iter()
            .zip(&config.listeners)
            .enumerate()
            .map(|(n, (listener, config))| listener.live(same_before(n, config.bind)))
            .collect();
        tokio::spawn(security::watch_certificates(Arc::clone(&core), Arc::clone(&live)));
        for (listener, config) in listeners.into_iter().zip(&config.listeners) {
            announce(config, listener.local_addr, &gate);
            tokio::spawn(listener.run(Arc::clone(&core)));
        }
        tokio::spawn(Arc::clone(&core).run_timers());
        tokio::spawn(Arc::clone(&core).run_hand_overs());
        tokio::spawn(keep_log(Arc::clone(&core)));
        if let Some(interval) = config.sys_interval {
            tokio::spawn(sys::run(Arc::clone(&core), interval));
        }
        Ok(Self { core, local_addrs, gate, listeners: live, _data_dir: data_dir })
    }

    /// The addresses listened on, in the order of the configuration, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Publishes a message as a client would. It returns when the message is routed; [`stored`](Self::stored) waits for the disk.
    ///
    /// # Errors
    /// The topic is not a valid topic name (MQTT 3.1.1 section 4.7) or beyond a limit, the packet would exceed `limits.packet_bytes_max`, or the data directory
    /// cannot be written and too much waits for it.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Result<(), PublishError> {
        validate_topic_name(topic)?;
        match self.core.topic_limit(topic) {
            Some(TopicLimit::Levels) => {
                return Err(PublishError::TooManyLevels { max: self.core.limits.topic_levels_max() });
            }
            Some(TopicLimit::Bytes) => {
                return Err(PublishError::TopicTooLong { max: self.core.limits.topic_bytes_max() });
            }
            None => {}
        }
        let max = self.core.limits.now().packet_bytes_max;
        if topic.len() + payload.len() + PUBLISH_OVERHEAD > max {
            return Err(PublishError::TooLarge { max });
        }
        if self.core.log.as_ref().is_some_and(|log| log.is_full()) {
            return Err(PublishError::StorageFull);
        }
        let message = Arc::new(Message::new(topic, payload, qos));
        let mut turn = Turn::new();
        turn.begin(&self.core);
        self.core.metrics.publish_received.add(1);
        let fan_out = self.core.publish_message(&mut turn, &message, retain);
        turn.finish(&self.core);
        if let Some(fan_out) = fan_out {
            self.core.complete_fan_out_now(fan_out);
        }
        Ok(())
    }

    /// Waits until everything published so far that is to outlive the process is where `storage.sync` says: what a client is told by PUBACK.
    /// Returns at once without a data directory. While the disk fails it waits.
    pub async fn stored(&self) {
        if let Some(log) = &self.core.log {
            log.wait(log.submitted()).await;
        }
    }

    /// Subscribes within the program. Messages wait for [`Subscription::recv`] within the bounds of a client's queue
    /// (`limits.queue_messages_max`, `limits.queue_bytes_max`); retained messages come first.
    ///
    /// # Errors
    /// The filter is not a valid topic filter (MQTT 3.1.1 section 4.7), or beyond `limits.topic_levels_max` or `limits.topic_bytes_max`.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Subscription, SubscribeError> {
        validate_topic_filter(filter)?;
        let core = Arc::clone(&self.core);
        let session = Session::new(core.limits.of_sessions(), false);
        let client = Client::new(
            core.next_key(),
            Owner { client_id: Arc::from("in-process"), user: None },
            session,
            Some(Box::new(LocalQueue::default())),
        );
        let added = {
            let mut guard = client.lock();
            core.add_subscription(&client, &mut guard, filter, SubscriptionOptions::with_qos(qos))
        };
        match added {
            Ok(Added { .. }) => {
                let filter = Arc::from(filter);
                Ok(Subscription { core, client, filter, qos, replay: Some(ReplayCursor::default()) })
            }
            Err(_) if core.topic_limit(filter) == Some(TopicLimit::Bytes) => {
                Err(SubscribeError::TooLong { max: core.limits.topic_bytes_max() })
            }
            Err(_) => Err(SubscribeError::TooManyLevels { max: core.limits.topic_levels_max() }),
        }
    }

    /// The broker's counters at this moment.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.core.metrics()
    }

    /// Stops accepting, publishes the wills of those connected, closes every connection after its output is written (for at most
    /// `limits.shutdown_timeout`), and returns when all are closed.
    pub async fn shutdown(&self) {
        let gone = self.core.sockets_gone.notified();
        tokio::pin!(gone);
        gone.as_mut().enable();
        self.core.begin_shutdown();
        self.core.end_clients();
        if self.core.metrics.sockets.get() > 0 {
            self.wait_for_sockets(gone).await;
        }
        if let Some(log) = self.core.log.clone() {
            // What was put on record lazily is written as well.
            let closed = tokio::task::spawn_blocking(move || log.close());
            if closed.await.is_err() {
                tracing::error!("the durable log was not closed in order");
            }
        }
    }

    async fn wait_for_sockets(&self, gone: impl Future<Output = ()>) {
        // Each connection bounds its own farewell; the second more is for the run through the tasks.
        let patience = self.core.limits.now().shutdown_timeout + std::time::Duration::from_secs(1);
        if tokio::time::timeout(patience, gone).await.is_err() {
            tracing::warn!(
                sockets = self.core.metrics.sockets.get(),
                limit = "limits.shutdown_timeout",
                "connections did not take their output in time and are cut"
            );
        }
    }
}

fn start_error(listener: &ListenerConfig, error: BindError) -> StartError {
    let address = listener.bind;
    match error {
        BindError::Io(source) => StartError::Listen { address, source },
        BindError::Tls(source) => StartError::Tls { address, source: Box::new(source) },
    }
}

fn announce(config: &ListenerConfig, address: SocketAddr, gate: &Gate) {
    let (tls, certificates) = match &config.transport {
        Transport::Tcp => (false, false),
        Transport::Tls(tls) => (true, tls.client_certificate != ClientCertificate::None),
    };
    tracing::info!(%address, tls, allow_anonymous = config.allow_anonymous, "listening");
    if !config.allow_anonymous && !certificates && !gate.methods().asks(config.auth.as_deref()) {
        tracing::warn!(
            %address,
            "this listener refuses everybody: it has neither allow_anonymous = true, nor client certificates, nor a method of \
             [auth] to tell who may come in"
        );
    }
}

/// A subscription within the program. Dropping it unsubscribes.
pub struct Subscription {
    core: Arc<Core>,
    client: Arc<Client>,
    filter: Arc<str>,
    qos: QoS,
    /// Retained messages still to be fetched.
    replay: Option<ReplayCursor>,
}

/// Retained topics looked at in one slice.
const REPLAY_STEPS: usize = 128;

impl Subscription {
    /// The next message; `None` when the broker has shut down. Cancel safe.
    pub async fn recv(&mut self) -> Option<ReceivedMessage> {
        let core = Arc::clone(&self.core);
        let shut_down = core.shut_down();
        tokio::pin!(shut_down);
        std::future::poll_fn(|cx| match self.poll_recv(cx) {
            Poll::Ready(message) => Poll::Ready(Some(message)),
            Poll::Pending => Pin::new(&mut shut_down).poll(cx).map(|()| None),
        })
        .await
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<ReceivedMessage> {
        let mut guard = self.client.lock();
        let Some(queue) = &mut guard.local else { return Poll::Pending };
        while !queue.starts_with_retained()
            && let Some(cursor) = &mut self.replay
        {
            // Under the lock, as for a connection: an older message must not come after a newer one.
            let mut found = Vec::new();
            if self.core.retained.replay(&self.filter, cursor, REPLAY_STEPS, &mut found) {
                self.replay = None;
            }
            if !found.is_empty() {
                queue.push_retained(found.into_iter().map(|kept| kept.message).collect(), self.qos);
            }
        }
        match queue.pop() {
            Some(message) => Poll::Ready(message),
            None => {
                queue.wake_on_message(cx.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.core.end_session(&self.client);
    }
}
