//! `Limits`: the bounds on what clients can make the broker hold, wait for, or do.

use std::time::Duration;

/// Bounds on everything a client can make the broker hold or wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet accepted, in bytes, fixed header included. Default 16,000,000 ("16MB"), at most 268,435,460
    /// (the protocol's own limit). A larger one closes its connection as soon as its length is read.
    pub packet_bytes_max: usize,
    /// Client connections at one time. Default 100,000. One above it is closed right after it is accepted.
    pub connections_max: usize,
    /// Connections at one time from one address; for IPv6 from one network of 64 bits. Default `None`: no bound. One above it is closed right
    /// after it is accepted.
    pub connections_per_address_max: Option<usize>,
    /// Connections at one time of one authenticated user. Default `None`: no bound. A further one is refused with 0x97 (MQTT 3.1.1: 3).
    pub connections_per_user_max: Option<usize>,
    /// Connections accepted in one second from one address (IPv6: network of 64 bits), twice as many at once. Default `None`: no bound. One
    /// above it is closed right after it is accepted.
    pub connect_rate_max: Option<usize>,
    /// PUBLISH packets that are read from one client in a second, as many at once. Default `None`: no bound. A client above it is not read for as
    /// long as it takes; nothing is lost.
    pub publish_rate_max: Option<usize>,
    /// Bytes that are read from one client in a second, as many at once. Default `None`: no bound. As with `publish_rate_max`.
    pub publish_bytes_rate_max: Option<usize>,
    /// Bytes that wait for all clients together in memory. Default [`MemoryMax::Auto`]. Above it the longest queues are shortened until 7/8 of it:
    /// what is on disk as well leaves memory, then messages are dropped, QoS 0 first, oldest first; they are counted and logged.
    pub memory_max: MemoryMax,
    /// TLS handshakes under way at one time. Default 1,000. Further ones wait in their order, within `connect_timeout`.
    pub tls_handshakes_max: usize,
    /// QoS 1 and 2 messages on their way to one client and not yet acknowledged. Default 64, at most 65,535. Further
    /// ones wait in the client's queue.
    pub inflight_max: u16,
    /// QoS 2 messages a client of MQTT 5 may send without having released one (Receive Maximum). Default 1,024. A client that goes beyond it
    /// is closed with reason code 0x93.
    pub receive_maximum: u16,
    /// Topics a client of MQTT 5 may let numbers stand for (Topic Alias Maximum). Default 32; 0: none. A number above it closes the connection
    /// with reason code 0x94. Each costs up to 64 KiB of memory.
    pub topic_alias_max: u16,
    /// Messages waiting for one client. Default 10,000. Further ones are dropped for that client, counted and logged.
    pub queue_messages_max: usize,
    /// Bytes of messages waiting for one client. Default 64,000,000 ("64MB"). Further messages are dropped for that
    /// client, counted and logged.
    pub queue_bytes_max: usize,
    /// Time from accepting a connection to its complete CONNECT, TLS handshake included. Default 10 s. A connection
    /// that needs longer is closed.
    pub connect_timeout: Duration,
    /// How long the session of a client that is away is kept; `None`: for ever. Default 30 days. After it
    /// subscriptions and queued messages of the session are gone.
    pub session_expiry: Option<Duration>,
    /// Sessions, with and without connection. Default 1,000,000. A client that would need a new one above it is refused.
    pub sessions_max: usize,
    /// Topics with a retained message. Default 1,000,000. A message for a further topic is delivered but not kept, and counted.
    pub retained_messages_max: usize,
    /// Bytes of all retained messages. Default 1,000,000,000 ("1GB"). A message that does not fit is delivered but not kept, the one that it
    /// would have replaced is removed, and it is counted.
    pub retained_bytes_max: usize,
    /// Bytes of all filters of one client. Default 64,000,000 ("64MB"). Further ones are refused in SUBACK.
    pub subscription_bytes_max: usize,
    /// Subscriptions of one client. Default 1,000,000. Further ones are refused in SUBACK.
    pub subscriptions_max: usize,
    /// Levels of a topic name or filter. Default 200. A deeper filter is refused in SUBACK, a deeper topic name of a PUBLISH with reason code
    /// 0x90 (MQTT 3.1.1: acknowledged, dropped and counted), a CONNECT whose will has one with 0x90 (5).
    pub topic_levels_max: usize,
    /// Bytes of a topic name or filter. Default 65,535, which is MQTT's own bound. Beyond it: as with `topic_levels_max`.
    pub topic_bytes_max: usize,
    /// Whether a payload that its publisher calls UTF-8 (Payload Format Indicator of MQTT 5) is passed on unseen or checked. Default
    /// pass. One that is not UTF-8 is then refused with reason code 0x99.
    pub payload_format: PayloadFormat,
    /// Bytes that all connections together may hold, above 4,096 each, before their CONNECT is complete. Default
    /// 16,000,000 ("16MB"). A connection that would go beyond it is closed.
    pub handshake_bytes_max: usize,
    /// Bytes of packets that have not come as a whole, of all connected clients together, above 16,384 of each. Default [`MemoryMax::Auto`]:
    /// 256,000,000 ("256MB"), or a quarter of the memory if that is less. Above it the client that holds most is closed, with reason code 0x97.
    pub unfinished_bytes_max: MemoryMax,
    /// Time given to clients at shutdown to take what is already on its way to them. Default 5 s. Then they are
    /// closed all the same.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            packet_bytes_max: 16_000_000,
            connections_max: 100_000,
            connections_per_address_max: None,
            connections_per_user_max: None,
            connect_rate_max: None,
            publish_rate_max: None,
            publish_bytes_rate_max: None,
            memory_max: MemoryMax::Auto,
            tls_handshakes_max: 1_000,
            inflight_max: 64,
            receive_maximum: 1_024,
            topic_alias_max: 32,
            queue_messages_max: 10_000,
            queue_bytes_max: 64_000_000,
            connect_timeout: Duration::from_secs(10),
            session_expiry: Some(Duration::from_secs(30 * 24 * 60 * 60)),
            sessions_max: 1_000_000,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1_000_000_000,
            subscription_bytes_max: 64_000_000,
            subscriptions_max: 1_000_000,
            topic_levels_max: 200,
            topic_bytes_max: 65_535,
            payload_format: PayloadFormat::Pass,
            handshake_bytes_max: 16_000_000,
            unfinished_bytes_max: MemoryMax::Auto,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// What [`MemoryMax::Auto`] is for unfinished packets, where there is memory enough.
const UNFINISHED_AUTO: usize = 256_000_000;

/// What is done about the Payload Format Indicator of MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadFormat {
    /// It is passed on to the subscribers.
    #[default]
    Pass,
    /// A payload that is not what it says is refused.
    Check,
}

/// How much memory clients may make the broker hold, in one respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemoryMax {
    /// A quarter of this machine's memory, or of what the control group of the process may use if that is less; for
    /// [`Limits::unfinished_bytes_max`] no more than 256 MB.
    #[default]
    Auto,
    /// No bound.
    Unbounded,
    /// This many bytes.
    Bytes(usize),
}

impl MemoryMax {
    /// The bound in bytes on this machine; `None`: there is none, or nothing tells how much memory there is.
    pub fn bytes(self) -> Option<usize> {
        match self {
            Self::Auto => super::machine::memory().map(|bytes| bytes / 4),
            Self::Unbounded => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// The same as a bound on unfinished packets: there [`Auto`](Self::Auto) is never more than 256,000,000 bytes.
    pub fn unfinished_bytes(self) -> Option<usize> {
        match self {
            Self::Auto => Some(self.bytes().map_or(UNFINISHED_AUTO, |bytes| bytes.min(UNFINISHED_AUTO))),
            Self::Unbounded | Self::Bytes(_) => self.bytes(),
        }
    }
}
