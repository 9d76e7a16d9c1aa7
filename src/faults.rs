//! Faults that the crash checker must find (`tests/crash`). Only with the feature `planted-faults`, which no build for use has: without it
//! every question here is answered `false` at compile time.
//!
//! `TERNMQ_FAULT` names the fault.

/// A fault, by what is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "planted-faults"), allow(dead_code))]
pub(crate) enum Fault {
    /// Acknowledgements do not wait for the log.
    AckBeforeWrite,
    /// The log is written and not synced. Only the file layer of `TERNMQ_POWER_CUT` knows the difference. To be seen with `TERNMQ_POWER_CUT=1` only.
    WriteWithoutSync,
    /// The id of an inbound QoS 2 message is not put on record.
    Qos2IdNotStored,
    /// Its release is not put on record.
    IdNotReleased,
    /// DUP is taken as proof that a message came before.
    DupIsDuplicate,
    /// PUBREL is not sent again after a reconnect.
    PubrelNotResent,
    /// Packet ids are reused while they are in use.
    PacketIdReused,
    /// What waits for a client is dropped when another connection takes its session over.
    QueueDroppedAtTakeover,
    /// Subscriptions of the last run come back some time after the listeners are open.
    RoutesAfterListen,
    /// A will is published although DISCONNECT came.
    WillOnDisconnect,
    /// The end of a retained message is not put on record.
    StaleRetained,
    /// What is sent again after a reconnect comes in the opposite order.
    OrderSwappedOnRetry,
    /// Subscriptions are not put on record.
    SubscriptionLost,
    /// The end of a session is not put on record.
    CleanSessionResurrected,
}

/// Whether the fault is planted.
#[cfg(not(feature = "planted-faults"))]
pub(crate) const fn planted(_: Fault) -> bool {
    false
}

/// Whether the fault is planted.
#[cfg(feature = "planted-faults")]
pub(crate) fn planted(fault: Fault) -> bool {
    use std::sync::OnceLock;
    static PLANTED: OnceLock<Option<Fault>> = OnceLock::new();
    *PLANTED.get_or_init(|| {
        let name = std::env::var("TERNMQ_FAULT").ok()?;
        let fault = NAMES.iter().find(|(known, _)| *known == name).map(|(_, fault)| *fault);
        assert!(fault.is_some(), "TERNMQ_FAULT={name} is none of the faults");
        tracing::warn!(?fault, "this broker is wrong on purpose");
        fault
    }) == Some(fault)
}

/// Whether the end of the process is to lose what was not synced, as a power cut does.
#[cfg(feature = "planted-faults")]
pub(crate) fn power_cut() -> bool {
    std::env::var_os("TERNMQ_POWER_CUT").is_some_and(|value| value == "1")
}

#[cfg(feature = "planted-faults")]
const NAMES: [(&str, Fault); 14] = [
    ("ack-before-write", Fault::AckBeforeWrite),
    ("write-without-sync", Fault::WriteWithoutSync),
    ("qos2-id-not-stored", Fault::Qos2IdNotStored),
    ("id-not-released", Fault::IdNotReleased),
    ("dup-is-duplicate", Fault::DupIsDuplicate),
    ("pubrel-not-resent", Fault::PubrelNotResent),
    ("packet-id-reused", Fault::PacketIdReused),
    ("queue-dropped-at-takeover", Fault::QueueDroppedAtTakeover),
    ("routes-after-listen", Fault::RoutesAfterListen),
    ("will-on-disconnect", Fault::WillOnDisconnect),
    ("stale-retained", Fault::StaleRetained),
    ("order-swapped-on-retry", Fault::OrderSwappedOnRetry),
    ("subscription-lost", Fault::SubscriptionLost),
    ("clean-session-resurrected", Fault::CleanSessionResurrected),
];
