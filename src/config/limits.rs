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
    /// Bytes that all clients together make the broker hold in memory. Default [`MemoryMax::Auto`]:
    /// half of the memory. Above it the longest queues are shortened until 7/8 of it: what is on
    /// disk as well leaves memory, then messages are dropped, QoS 0 first, oldest first; they are
    /// counted and logged. Wills, topic aliases, subscriptions and sessions together have a quarter
    /// of it; what goes beyond that is refused.
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
    /// Bytes of all retained messages. Default [`MemoryMax::Auto`]: a quarter of `memory_max`, and
    /// no more than 1,000,000,000 ("1GB"). A message that does not fit is delivered but not kept,
    /// the one that it would have replaced is removed, and it is counted.
    pub retained_bytes_max: MemoryMax,
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
    /// Bytes that all connections together may hold, above 4,096 each, before their CONNECT is
    /// complete. Default [`MemoryMax::Auto`]: a sixteenth of `memory_max`, and no more than
    /// 16,000,000 ("16MB"). A connection that would go beyond it is closed.
    pub handshake_bytes_max: MemoryMax,
    /// Bytes of packets that have not come as a whole, of all connected clients together, above
    /// 16,384 of each. Default [`MemoryMax::Auto`]: a quarter of `memory_max`, no less than one
    /// packet of `packet_bytes_max` and no more than 256,000,000 ("256MB"). Above it the client
    /// that holds most is closed, with reason code 0x97.
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
            retained_bytes_max: MemoryMax::Auto,
            subscription_bytes_max: 64_000_000,
            subscriptions_max: 1_000_000,
            topic_levels_max: 200,
            topic_bytes_max: 65_535,
            payload_format: PayloadFormat::Pass,
            handshake_bytes_max: MemoryMax::Auto,
            unfinished_bytes_max: MemoryMax::Auto,
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

/// How [`MemoryMax::Auto`] comes from the memory there is: `memory_max` is this part of it,
const MEMORY_PART: usize = 2;
/// the others are these parts of `memory_max`, and no more than this.
const RETAINED_PART: usize = 4;
const RETAINED_AUTO_MAX: usize = 1_000_000_000;
const UNFINISHED_PART: usize = 4;
const UNFINISHED_AUTO_MAX: usize = 256_000_000;
const HANDSHAKES_PART: usize = 16;
const HANDSHAKES_AUTO_MAX: usize = 16_000_000;

/// The bounds on memory in bytes on one machine; `None`: there is no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryBounds {
    /// `memory_max`, within which the others are.
    pub memory: Option<usize>,
    /// `retained_bytes_max`.
    pub retained: Option<usize>,
    /// `unfinished_bytes_max`.
    pub unfinished: Option<usize>,
    /// `handshake_bytes_max`.
    pub handshakes: Option<usize>,
}

impl Limits {
    /// What the bounds on memory come to on this machine: [`MemoryMax::Auto`] depends on it.
    pub fn bounds(&self) -> MemoryBounds {
        self.bounds_with(super::machine::memory())
    }

    /// The same where there are so many bytes of memory; `None`: nothing tells how many.
    pub(super) fn bounds_with(&self, machine: Option<usize>) -> MemoryBounds {
        let memory = match self.memory_max {
            MemoryMax::Auto => machine.map(|bytes| bytes / MEMORY_PART),
            MemoryMax::Unbounded => None,
            MemoryMax::Bytes(bytes) => Some(bytes),
        };
        let within = |bound: MemoryMax, part: usize, least: usize, most: usize| match bound {
            MemoryMax::Auto => Some(memory.map_or(most, |memory| {
                // Never so much that nothing is left for the others.
                (memory / part).max(least.min(memory / MEMORY_PART)).min(most)
            })),
            MemoryMax::Unbounded => None,
            MemoryMax::Bytes(bytes) => Some(bytes),
        };
        let one = self.packet_bytes_max;
        MemoryBounds {
            memory,
            retained: within(self.retained_bytes_max, RETAINED_PART, 0, RETAINED_AUTO_MAX),
            unfinished: within(self.unfinished_bytes_max, UNFINISHED_PART, one, UNFINISHED_AUTO_MAX.max(one)),
            handshakes: within(self.handshake_bytes_max, HANDSHAKES_PART, 0, HANDSHAKES_AUTO_MAX),
        }
    }
}

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
    /// For [`Limits::memory_max`] half of this machine's memory, or of what the control group of
    /// the process may use if that is less; for the others a part of `memory_max`
    /// ([`Limits::bounds`]).
    #[default]
    Auto,
    /// No bound.
    Unbounded,
    /// This many bytes.
    Bytes(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1_000_000;

    #[test]
    fn the_defaults_leave_a_machine_of_512_mb_its_share() {
        let machine = 512 * MB;
        let limits = Limits::default();
        let bounds = limits.bounds_with(Some(machine));
        assert_eq!(bounds.memory, Some(256 * MB));
        // All others are within that one, and all together leave room for what waits.
        let parts = [bounds.retained, bounds.unfinished, bounds.handshakes].map(Option::unwrap);
        assert_eq!(parts, [64 * MB, 64 * MB, 16 * MB]);
        let lasting = 256 * MB / 4;
        assert!(parts.iter().sum::<usize>() + lasting < 256 * MB * 9 / 10, "{bounds:?}");
        // What may be held besides: a step for each client, and what is under way in each thread.
        assert!(bounds.memory.unwrap() < machine * 6 / 10);
        assert!(parts.iter().all(|part| *part >= limits.packet_bytes_max));
    }

    #[test]
    fn each_default_follows_the_memory_and_has_an_end() {
        let limits = Limits::default();
        let bytes = |machine| {
            let MemoryBounds { memory, retained, unfinished, handshakes } = limits.bounds_with(machine);
            [memory, retained, unfinished, handshakes]
        };
        assert_eq!(bytes(Some(64 * MB)), [32, 8, 16, 2].map(|mb| Some(mb * MB)));
        assert_eq!(bytes(Some(64_000 * MB)), [32_000, 1_000, 256, 16].map(|mb| Some(mb * MB)));
        assert_eq!(bytes(None), [None, Some(1_000 * MB), Some(256 * MB), Some(16 * MB)]);
        let set = Limits {
            memory_max: MemoryMax::Bytes(10 * MB),
            retained_bytes_max: MemoryMax::Bytes(20 * MB),
            handshake_bytes_max: MemoryMax::Unbounded,
            ..Limits::default()
        };
        let bounds = set.bounds_with(Some(512 * MB));
        assert_eq!((bounds.memory, bounds.retained), (Some(10 * MB), Some(20 * MB)));
        assert_eq!((bounds.unfinished, bounds.handshakes), (Some(5 * MB), None));
    }
}
