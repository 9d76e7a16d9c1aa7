//! Why a filter of a SUBSCRIBE is not taken.

use super::topics::TopicLimit;
use crate::protocol::ReasonCode;

/// Why a filter was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Topic(TopicLimit),
    TooMany,
    TooManyBytes,
    BadSharedFilter,
    SessionEnded,
    /// What lasts is at its part of `limits.memory_max`.
    Memory,
}

impl Refusal {
    pub(super) fn reason_code(self) -> ReasonCode {
        match self {
            Self::TooMany | Self::TooManyBytes | Self::Memory => ReasonCode::QuotaExceeded,
            Self::Topic(_) | Self::BadSharedFilter => ReasonCode::TopicFilterInvalid,
            Self::SessionEnded => ReasonCode::UnspecifiedError,
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Topic(limit) => limit.label(),
            Self::TooMany => "subscriptions_max",
            Self::TooManyBytes => "subscription_bytes_max",
            Self::BadSharedFilter => "bad_shared_filter",
            Self::SessionEnded => "session_ended",
            Self::Memory => "memory_max",
        }
    }
}
