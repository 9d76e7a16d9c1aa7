//! `Will`: what a client asked to be published if it goes without a DISCONNECT (MQTT 3.1.1 section 3.1.2.5).

use std::sync::Arc;

use super::message::Message;

/// A will. Whoever ends the connection takes it out of the session and publishes or drops it.
#[derive(Debug, Clone)]
pub struct Will {
    /// Topic, payload and QoS.
    pub message: Arc<Message>,
    /// Whether it becomes the topic's retained message.
    pub retain: bool,
}
