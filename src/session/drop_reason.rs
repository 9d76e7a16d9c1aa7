//! Why a message did not reach a client, and which option moves the bound.

/// Why a message did not reach a client that should have had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// QoS 0, and the client's unwritten output is at `limits.queue_bytes_max`.
    QueueFullQos0,
    /// QoS 1 or 2, and `limits.queue_messages_max` messages wait already.
    QueueFull,
    /// QoS 1 or 2, and the waiting messages are at `limits.queue_bytes_max`.
    QueueFullBytes,
    /// The message alone is larger than `limits.queue_bytes_max`.
    TooLarge,
    /// QoS 0 for a session without a connection: QoS 0 is not kept (MQTT 3.1.1 section 3.1.2.4).
    OfflineQos0,
    /// Larger than the client's own Maximum Packet Size ([MQTT-3.1.2-25]).
    ClientPacketMax,
    /// Its expiry interval passed while it waited ([MQTT-3.3.2-5]).
    Expired,
    /// The last member of a shared subscription left, and nobody takes its unfinished messages.
    SharedGroupGone,
}

impl DropReason {
    /// All reasons, for the list of counters.
    pub const ALL: [Self; 8] = [
        Self::QueueFullQos0,
        Self::QueueFull,
        Self::QueueFullBytes,
        Self::TooLarge,
        Self::OfflineQos0,
        Self::ClientPacketMax,
        Self::Expired,
        Self::SharedGroupGone,
    ];

    /// The label of the counter.
    pub fn label(self) -> &'static str {
        match self {
            Self::QueueFullQos0 => "queue_full_qos0",
            Self::QueueFull => "queue_full",
            Self::QueueFullBytes => "queue_full_bytes",
            Self::TooLarge => "too_large",
            Self::OfflineQos0 => "offline_qos0",
            Self::ClientPacketMax => "client_packet_max",
            Self::Expired => "expired",
            Self::SharedGroupGone => "shared_group_gone",
        }
    }

    /// The configuration key that moves the bound; `None` where the standard decides.
    pub fn limit_key(self) -> Option<&'static str> {
        match self {
            Self::QueueFullQos0 | Self::QueueFullBytes | Self::TooLarge => Some("limits.queue_bytes_max"),
            Self::QueueFull => Some("limits.queue_messages_max"),
            Self::OfflineQos0 | Self::ClientPacketMax | Self::Expired | Self::SharedGroupGone => None,
        }
    }
}
