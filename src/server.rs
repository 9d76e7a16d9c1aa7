//! `Broker`: the whole broker, started inside a program; publish and subscribe in-process.

mod security;
mod start;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::auth::gate::Gate;
use crate::broker::{Added, Client, Core, ReceivedMessage, Refusal, TopicLimit, Turn};
use crate::config::Config;
use crate::metrics::MetricsSnapshot;
use crate::net::LiveListener;
use crate::protocol::{QoS, SharedFilter, TopicError, validate_topic_filter, validate_topic_name};
use crate::router::{ReplayCursor, SubscriptionOptions};
use crate::session::{Message, Session};
use start::Prepared;
pub use start::{Extensions, StartError};

/// A running broker. [`shutdown`](Self::shutdown) ends it in order.
///
/// Dropping it ends it as well, and waits for less: the wills of those connected are published,
/// what is to be stored is written and synced (for as long as the disk takes; at the first failure
/// it is given up), and when the drop is over the addresses and the data directory are free for the
/// next start. That blocks the thread. It does not wait for connections: they are told to close and
/// end by themselves, within `limits.shutdown_timeout`, as far as the runtime still runs.
pub struct Broker {
    core: Arc<Core>,
    local_addrs: Vec<SocketAddr>,
    gate: Arc<Gate>,
    listeners: Arc<[LiveListener]>,
    runtime: Handle,
}

/// The broker has been shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker has been shut down")]
#[non_exhaustive]
pub struct Closed;

/// Why a broker has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// [`Broker::shutdown`] was called.
    ShutDown,
    /// It could not go on storing what it has to store: a fault in the broker itself, told in its
    /// log. The program should end, or start another.
    StorageFault,
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
    /// The broker has been shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
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
    /// The broker has been shut down.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The filter is longer than `limits.topic_bytes_max`.
    #[error("the filter has more than {max} bytes (limits.topic_bytes_max)")]
    TooLong {
        /// The limit in bytes.
        max: usize,
    },
    /// The broker has no room for it: `limits.memory_max` is used up as far as it is meant for what
    /// lasts, or the filter alone is beyond `limits.subscription_bytes_max`.
    #[error("there is no room for the subscription ({limit})")]
    QuotaExceeded {
        /// The key of the limit.
        limit: &'static str,
    },
}

impl Broker {
    /// Reserves every address, takes up what the data directory remembers, and listens. All
    /// listeners accept when this returns; until then who connects is refused.
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
        Prepared::new(config, extensions)?.start().await
    }

    /// The addresses listened on, in the order of the configuration, with the real ports.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.local_addrs
    }

    /// Publishes a message as a client would. It returns when the message is routed; [`stored`](Self::stored) waits for the disk.
    ///
    /// # Errors
    /// The topic is not a valid topic name (MQTT 3.1.1 section 4.7) or beyond a limit, the packet
    /// would exceed `limits.packet_bytes_max`, the data directory cannot be written and too much
    /// waits for it, or the broker has been shut down.
    pub fn publish(&self, topic: &str, payload: &[u8], qos: QoS, retain: bool) -> Result<(), PublishError> {
        self.is_open()?;
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
    ///
    /// # Errors
    /// The broker has been shut down, before the call or before everything was stored.
    pub async fn stored(&self) -> Result<(), Closed> {
        self.is_open()?;
        match &self.core.log {
            Some(log) if !log.wait_unless_closed(log.submitted()).await => Err(Closed),
            _ => Ok(()),
        }
    }

    /// Waits until the broker has been told to shut down, or has ended by itself because it cannot
    /// go on. [`shutdown`](Self::shutdown) then waits for the rest.
    pub async fn ended(&self) -> Ended {
        self.core.shut_down().await;
        match &self.core.log {
            Some(log) if log.has_panicked() => Ended::StorageFault,
            _ => Ended::ShutDown,
        }
    }

    fn is_open(&self) -> Result<(), Closed> {
        if self.core.is_shutting_down() { Err(Closed) } else { Ok(()) }
    }

    /// Subscribes within the program. Messages wait for [`Subscription::recv`] within the bounds of a client's queue
    /// (`limits.queue_messages_max`, `limits.queue_bytes_max`); retained messages come first.
    ///
    /// # Errors
    /// The filter is not a valid topic filter (MQTT 3.1.1 section 4.7, MQTT 5 section 4.8.2), or
    /// beyond `limits.topic_levels_max` or `limits.topic_bytes_max`; there is no room for it
    /// (`limits.memory_max`); or the broker has been shut down.
    pub fn subscribe(&self, filter: &str, qos: QoS) -> Result<Subscription, SubscribeError> {
        self.is_open()?;
        validate_topic_filter(filter)?;
        SharedFilter::parse(filter)?;
        let core = Arc::clone(&self.core);
        let session = Session::new(core.limits.of_sessions(), false);
        let client = Client::in_process(core.next_key(), session);
        let added = {
            let mut guard = client.lock();
            core.add_subscription(&client, &mut guard, filter, SubscriptionOptions::with_qos(qos))
        };
        match added {
            Ok(Added { .. }) => {
                let filter = Arc::from(filter);
                Ok(Subscription { core, client, filter, qos, replay: Some(ReplayCursor::default()) })
            }
            Err(refusal) => Err(self.subscribe_error(refusal)),
        }
    }

    fn subscribe_error(&self, refusal: Refusal) -> SubscribeError {
        let limits = &self.core.limits;
        match refusal {
            Refusal::Topic(TopicLimit::Levels) => {
                SubscribeError::TooManyLevels { max: limits.topic_levels_max() }
            }
            Refusal::Topic(TopicLimit::Bytes) => SubscribeError::TooLong { max: limits.topic_bytes_max() },
            Refusal::TooMany => SubscribeError::QuotaExceeded { limit: "limits.subscriptions_max" },
            Refusal::TooManyBytes => SubscribeError::QuotaExceeded { limit: "limits.subscription_bytes_max" },
            Refusal::Memory => SubscribeError::QuotaExceeded { limit: "limits.memory_max" },
            Refusal::BadSharedFilter => SubscribeError::Filter(TopicError::NoSharedFilter),
            Refusal::SessionEnded => SubscribeError::Closed(Closed),
        }
    }

    /// The broker's counters at this moment.
    pub fn metrics(&self) -> MetricsSnapshot {
        self.core.metrics()
    }

    /// Stops accepting, publishes the wills of those connected, closes every connection after its
    /// output is written (for at most `limits.shutdown_timeout`), writes what is to be stored, and
    /// returns when all of that is done. The addresses and the data directory are free then; every
    /// call that would change something gives [`Closed`].
    pub async fn shutdown(&self) {
        self.stop_listening();
        let gone = self.core.sockets_gone.notified();
        tokio::pin!(gone);
        gone.as_mut().enable();
        self.core.begin_shutdown();
        if self.core.metrics.sockets.get() > 0 {
            self.wait_for_sockets(gone).await;
        }
        let handed_over =
            tokio::time::timeout(self.core.limits.now().shutdown_timeout, self.core.finish_hand_overs());
        if handed_over.await.is_err() {
            tracing::warn!(
                limit = "limits.shutdown_timeout",
                "messages of shared subscriptions that clean sessions had are lost: the disk did not take them in time"
            );
        }
        // What was put on record lazily is written as well.
        let core = Arc::clone(&self.core);
        if tokio::task::spawn_blocking(move || core.close_log()).await.is_err() {
            tracing::error!("the durable log was not closed in order");
        }
    }

    fn stop_listening(&self) {
        self.listeners.iter().for_each(LiveListener::close);
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

impl Drop for Broker {
    fn drop(&mut self) {
        let _inside = self.runtime.enter();
        self.stop_listening();
        if !self.core.is_shutting_down() {
            self.core.begin_shutdown();
        }
        self.core.close_log();
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
