//! `Will`: what a client asked to be published if it goes without a DISCONNECT (MQTT 3.1.1 section 3.1.2.5, MQTT 5 section 3.1.3.2).

use std::sync::Arc;
use std::time::Duration;

use super::message::{Message, message_cost};
use super::time::Timestamp;
use crate::accounts::{Account, Accounts, Charge};
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
#[derive(Debug)]
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
    /// What it is charged with for as long as it is held.
    pub charge: Option<Charge>,
}

impl Will {
    /// Bytes that it takes in memory.
    pub fn memory(&self) -> usize {
        message_cost(self.topic.len() + self.payload.len() + self.forwarded.len()) + size_of::<Self>()
    }

    /// The same, charged whatever the bound.
    #[must_use]
    pub fn charged(mut self, accounts: &Arc<Accounts>) -> Self {
        self.charge = Some(Charge::new(accounts, Account::Wills, self.memory()));
        self
    }

    /// The same, charged; `None` if the part of the bound for what lasts has no room.
    #[must_use]
    pub fn charged_within(mut self, accounts: &Arc<Accounts>) -> Option<Self> {
        self.charge = Some(Charge::lasting(accounts, Account::Wills, self.memory())?);
        Some(self)
    }

    /// The message to publish at `now`: its expiry runs from then on.
    pub fn message(&self, now: Timestamp) -> Arc<Message> {
        let expires_at = self.expiry_seconds.map(|seconds| now.after(Duration::from_secs(seconds.into())));
        let message = Message::new(&self.topic, &self.payload, self.qos);
        Arc::new(message.with_properties(&self.forwarded, expires_at))
    }
}
