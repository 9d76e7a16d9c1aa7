//! `Session`: what MQTT asks a server to remember about one client, as a plain value.
//!
//! Sans-IO: no socket, no clock, no runtime, no storage, no lock and no other client in here. The broker hands events in
//! (`attach`, `accept_publish`, `handle_ack`, `deliver`, `output_written`, …); what the session wants sent stands in its
//! [`OutBuffer`], what it wants done comes back as a value. A connected and an offline session are the same value: an
//! offline one queues what a connected one sends.
//!
//! Bounds: unfinished deliveries by the in-flight window; waiting QoS 1 and 2 messages by `queue_messages_max` and
//! `queue_bytes_max`; unwritten output of QoS 0 by `queue_bytes_max`; QoS 2 ids of the client by the 65,535 that exist.
//! Order: messages of one QoS leave in the order in which they came in ([MQTT-4.6.0-6]).

mod drop_reason;
mod durable;
mod inflight;
mod kept;
mod message;
mod out_buffer;
mod outbound;
mod outgoing;
mod packet_ids;
mod pump;
mod queue;
mod shared;
mod shed;
mod stragglers;
mod subscriptions;
mod terms;
#[cfg(test)]
mod tests;
mod time;
mod will;

use std::sync::Arc;

pub use drop_reason::DropReason;
use durable::Durable;
pub use durable::{LogWork, RestoredMessage, Snapshot};
use inflight::Inflight;
pub use message::{Expiry, Message, SHARED_FROM, message_cost};
use out_buffer::Keep;
pub use out_buffer::{OutBuffer, Output};
pub use outbound::{AckOutcome, Delivered, Granted, Readiness};
pub use outgoing::{EncodeScratch, Outgoing, SHARE_PAYLOAD_ABOVE};
use packet_ids::PacketIdSet;
use queue::MessageQueue;
pub use shared::{GivenUp, SharedMessage};
pub use shed::{Charged, Shed, Sheddable};
pub use subscriptions::{FilterOptions, Subscriptions};
use terms::TopicAliases;
pub use terms::{ALIAS_COST, Terms};
pub use time::{KeepAlive, Timestamp};
pub use will::{Owner, Will};

use crate::accounts::Accounts;
use crate::protocol::PacketId;
use crate::protocol::encode;

/// Bounds that come from the broker's configuration; one value is shared by all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionLimits {
    /// Unfinished QoS 1 and 2 deliveries (`limits.inflight_max`).
    pub inflight_max: u16,
    /// Waiting QoS 1 and 2 messages (`limits.queue_messages_max`).
    pub queue_messages_max: usize,
    /// Bytes of waiting messages and unwritten output (`limits.queue_bytes_max`).
    pub queue_bytes_max: usize,
    /// Filters (`limits.subscriptions_max`).
    pub subscriptions_max: usize,
    /// Bytes of all filters (`limits.subscription_bytes_max`).
    pub subscription_bytes_max: usize,
}

/// What becomes of a QoS 2 PUBLISH from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// New: route it, then acknowledge.
    New,
    /// A repetition of one not released yet: acknowledge only ([MQTT-4.3.3-2]).
    Repeated,
    /// One more than the Receive Maximum the client was told (section 3.3.4).
    TooMany,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Session {
    limits: Arc<SessionLimits>,
    /// Output in the order in which it is to be written.
    pub out: OutBuffer,
    inflight: Inflight,
    queue: MessageQueue,
    subscriptions: Subscriptions,
    /// Bytes of all its filters.
    subscription_bytes: u32,
    received_qos2: PacketIdSet,
    will: Option<Box<Will>>,
    /// Set while the session is kept in the log.
    durable: Option<Box<Durable>>,
    /// In-flight positions still to be sent again after a reconnect.
    resend_next: u64,
    resend_end: u64,
    state: State,
    /// What the connection's client can take; the last one's while there is none.
    terms: Terms,
    /// Only while the client allows any.
    aliases: Option<Box<TopicAliases>>,
    /// The moment of the event under way.
    now: Timestamp,
    /// Messages that expired, or turned out too large for the client, when they came out of the queue; for the broker to count.
    expired: u32,
    too_large: u32,
    outlives_connection: bool,
    /// Drop reasons reported to the log since the connection began, one bit each.
    drops_reported: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Offline,
    Connected,
    /// The session is over; whoever still holds it finds nothing in it.
    Ended,
}

impl Session {
    /// A new session without a connection. `outlives_connection`: CleanSession was 0.
    pub fn new(limits: Arc<SessionLimits>, outlives_connection: bool) -> Self {
        Self {
            limits,
            out: OutBuffer::default(),
            inflight: Inflight::new(),
            queue: MessageQueue::default(),
            subscriptions: Subscriptions::default(),
            subscription_bytes: 0,
            received_qos2: PacketIdSet::default(),
            will: None,
            durable: None,
            resend_next: 0,
            resend_end: 0,
            state: State::Offline,
            terms: Terms::V311,
            aliases: None,
            now: Timestamp::default(),
            expired: 0,
            too_large: 0,
            outlives_connection,
            drops_reported: 0,
        }
    }

    /// The moment of the event that is handed in next.
    pub fn at(&mut self, now: Timestamp) -> &mut Self {
        self.now = now;
        self
    }

    /// A connection begins: CONNACK, given encoded, is the first packet ([MQTT-3.2.0-1]), then what is unfinished is sent again, oldest
    /// first ([MQTT-4.4.0-1]), then what waits. `outlives_connection`: the session is to stay when this connection ends.
    pub fn attach(&mut self, terms: Terms, connack: &[u8], will: Option<Will>, outlives_connection: bool) {
        if self.out.pending() > 0 {
            self.out.clear();
        }
        self.state = State::Connected;
        self.terms = terms;
        let aliases = terms.topic_alias_maximum;
        self.aliases = (aliases > 0).then(|| Box::new(TopicAliases::new(aliases)));
        self.outlives_connection = outlives_connection;
        self.will = will.map(Box::new);
        self.drops_reported = 0;
        self.resend_next = 0;
        self.resend_end = self.inflight.end();
        self.inflight.begin_again();
        self.out.append(connack);
        self.pump();
    }

    /// The topics that numbers stand for towards this connection's client are charged from now on.
    pub fn charge_aliases(&mut self, accounts: &Arc<Accounts>) {
        if let Some(aliases) = &mut self.aliases {
            aliases.charge_to(accounts);
        }
    }

    /// The connection is gone. The will stays until [`take_will`](Self::take_will).
    pub fn detach(&mut self) {
        // A buffer that was lent goes as well: there may be many offline sessions.
        self.out = OutBuffer::default();
        // Numbers for topics do not outlive the connection ([MQTT-3.3.2-7]).
        self.aliases = None;
        if self.state == State::Connected {
            self.state = State::Offline;
        }
        self.queue.unload_all();
        self.queue.rest();
        self.unload_kept(Message::is_shared);
    }

    /// The session is over: everything in it is given back, and the filters it held are returned for removal from the router.
    #[must_use]
    pub fn end(&mut self) -> Subscriptions {
        let filters = std::mem::take(&mut self.subscriptions);
        let will = self.will.take();
        *self = Self { state: State::Ended, will, ..Self::new(Arc::clone(&self.limits), false) };
        filters
    }

    /// Whether the session has ended.
    pub fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether a connection is attached.
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Whether it stays when its connection ends.
    pub fn outlives_connection(&self) -> bool {
        self.outlives_connection
    }

    /// The will of the connection.
    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    /// Takes the will out: the connection is ending, and the caller publishes it, or drops it after DISCONNECT
    /// ([MQTT-3.1.2-8], [MQTT-3.1.2-10]).
    pub fn take_will(&mut self) -> Option<Will> {
        self.will.take().map(|will| *will)
    }

    /// A QoS 2 PUBLISH with this id came in. The id counts, not the DUP flag: a first sighting with DUP set is new.
    pub fn accept_publish(&mut self, id: PacketId) -> Reception {
        if !self.received_qos2.insert(id) {
            Reception::Repeated
        } else if self.received_qos2.len() > usize::from(self.terms.receive_maximum_granted) {
            self.received_qos2.remove(id);
            Reception::TooMany
        } else {
            Reception::New
        }
    }

    /// PUBREL from the client: the id is free for a new message. PUBCOMP answers it whether the id was known or not
    /// (section 4.3.3: after a loss of state the exchange must still come to its end). `false` if it was not known.
    pub fn release(&mut self, id: PacketId) -> bool {
        self.received_qos2.remove(id)
    }

    /// A QoS 2 PUBLISH is refused with an error: its id is free at once ([MQTT-4.3.3-9]).
    pub fn refuse_publish(&mut self, id: PacketId) {
        self.received_qos2.remove(id);
    }

    /// Appends the acknowledgements of one run of packets, in the order of those packets ([MQTT-4.6.0-2], [MQTT-4.6.0-3]).
    pub fn send_acks(&mut self, acks: &[u8]) {
        self.answer(|out| out.extend_from_slice(acks));
    }

    /// Adds or replaces a subscription; says whether it is new. `Err` if the session is over or holds `subscriptions_max`
    /// filters.
    pub fn subscribe(
        &mut self,
        filter: &str,
        options: impl Into<FilterOptions>,
    ) -> Result<bool, SubscribeError> {
        if self.is_ended() {
            return Err(SubscribeError::Ended);
        }
        let new = match self.subscriptions.get(filter) {
            Some(_) => false,
            None if self.subscriptions.len() >= self.limits.subscriptions_max => {
                return Err(SubscribeError::TooMany);
            }
            None if self.subscription_bytes as usize + filter.len() > self.limits.subscription_bytes_max
                || self.subscription_bytes > u32::MAX - u32::from(u16::MAX)
                || !self.subscriptions.has_room() =>
            {
                return Err(SubscribeError::TooManyBytes);
            }
            None => true,
        };
        if new {
            self.subscription_bytes += filter.len() as u32;
        }
        self.subscriptions.set(filter, options.into());
        Ok(new)
    }

    /// Removes a subscription; `false` if there was none. Deliveries begun or queued stay ([MQTT-3.10.4-3]).
    pub fn unsubscribe(&mut self, filter: &str) -> bool {
        let removed = self.subscriptions.remove(filter);
        if removed {
            self.subscription_bytes -= filter.len() as u32;
        }
        removed
    }

    /// What was asked for with this very filter; `None`: it is not subscribed to.
    pub fn options_of(&self, filter: &str) -> Option<FilterOptions> {
        self.subscriptions.get(filter)
    }

    /// Whether this very filter is subscribed to.
    pub fn is_subscribed(&self, filter: &str) -> bool {
        self.subscriptions.get(filter).is_some()
    }

    /// Its filters with their options, in no order.
    pub fn filters(&self) -> impl Iterator<Item = (&str, FilterOptions)> {
        self.subscriptions.iter()
    }

    /// Changes whether the session stays when its connection ends (DISCONNECT of MQTT 5 can).
    pub fn set_outlives_connection(&mut self, outlives: bool) {
        self.outlives_connection = outlives;
    }

    /// Filters the session is subscribed to.
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Bytes of all of them.
    pub fn subscription_bytes(&self) -> usize {
        self.subscription_bytes as usize
    }

    /// Appends PINGRESP.
    pub fn send_pingresp(&mut self) {
        self.answer(encode::pingresp);
    }

    /// Appends the last packet of the connection.
    pub fn send_farewell(&mut self, disconnect: &[u8]) {
        self.answer(|out| out.extend_from_slice(disconnect));
    }

    /// Appends an answer to a packet of the client. A connection that was taken over may still be at work on one: it has nobody
    /// to answer.
    fn answer(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.state == State::Connected {
            self.out.append_with(Keep::Always, encode);
        }
    }

    /// What the connection's client can take.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Messages dropped on their way out of the queue since this was asked last: expired ones, and those too large for the client.
    pub fn take_dropped_late(&mut self) -> (u32, u32) {
        (std::mem::take(&mut self.expired), std::mem::take(&mut self.too_large))
    }

    /// Messages waiting, without those in flight.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Deliveries begun and not finished.
    pub fn unfinished(&self) -> usize {
        self.inflight.unfinished()
    }

    /// The packet id of the oldest delivery that is not finished.
    #[cfg(test)]
    pub(crate) fn first_unfinished_id(&self) -> Option<PacketId> {
        self.inflight.next_unfinished(0).map(|(_, id, _)| id)
    }

    /// Whether this drop should be told to the log: the first of its kind on this connection.
    pub fn report_drop(&mut self, reason: DropReason) -> bool {
        let bit = 1 << reason as u8;
        let first = self.drops_reported & bit == 0;
        self.drops_reported |= bit;
        first
    }

    /// The bounds of this session.
    pub fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// Other bounds for what comes. What is there stays, also above them.
    pub fn set_limits(&mut self, limits: Arc<SessionLimits>) {
        self.limits = limits;
    }
}

/// Why a filter was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// The session holds `limits.subscriptions_max` filters.
    TooMany,
    /// Its filters are at `limits.subscription_bytes_max`.
    TooManyBytes,
    /// The session ended while the packet was on its way.
    Ended,
}
