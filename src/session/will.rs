//! `Will`: what a client asked to be published if it goes without a DISCONNECT (MQTT 3.1.1 section 3.1.2.5, MQTT 5 section 3.1.3.2).

use std::sync::Arc;
use std::time::Duration;

use super::message::Message;
use super::time::Timestamp;
use crate::protocol::QoS;

/// Who has done something: the rules of access are about this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The client's.
    pub client_id: Arc<str>,
    /// The user it has proved to be, if any.
    pub user: Option<Arc<str>>,
}

/// A will. Whoever ends the connection takes it out of the session and publishes, keeps or drops it.
#[derive(Debug, Clone)]
pub struct Will {
    /// Its name in the durable log; 0: it is not stored.
    pub key: u64,
    /// Whose it is.
    pub owner: Owner,
    /// Where it is published.
    pub topic: Arc<str>,
    /// What is published.
    pub payload: Box<[u8]>,
    /// At which QoS.
    pub qos: QoS,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
    /// How long after the end of the connection, unless the session ends before.
    pub delay: Duration,
    /// Properties passed on unchanged, in wire form.
    pub forwarded: Box<[u8]>,
    /// How long the message is worth delivering once it is published.
    pub expiry_seconds: Option<u32>,
}

impl Will {
    /// The message to publish at `now`: its expiry runs from then on.
    pub fn message(&self, now: Timestamp) -> Arc<Message> {
        let expires_at = self.expiry_seconds.map(|seconds| now.after(Duration::from_secs(seconds.into())));
        let message = Message::new(&self.topic, &self.payload, self.qos);
        Arc::new(message.with_properties(&self.forwarded, expires_at))
    }
}
