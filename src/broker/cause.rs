//! Why a connection ended: one value that gives the log line, its level and the counter's label.

use std::fmt;
use std::io;

use crate::escape::escape;
use crate::protocol::{DecodeError, ReasonCode};

/// Why a connection ended, or did not come about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cause {
    /// DISCONNECT came: the only end that drops the will, unless the client asks for it.
    Disconnect {
        /// MQTT 5, reason code 0x04.
        with_will: bool,
    },
    /// The peer closed its socket without DISCONNECT.
    PeerClosed,
    /// The socket failed.
    Network(io::ErrorKind),
    /// Silence for one and a half times the keep alive ([MQTT-3.1.2-24]).
    KeepAliveExpired,
    /// Another connection came with the same client id ([MQTT-3.1.4-2]).
    TakenOver,
    /// A packet that is malformed or not allowed here ([MQTT-4.8.0-1]).
    Malformed(DecodeError),
    /// A second CONNECT ([MQTT-3.1.0-2]).
    SecondConnect,
    /// AUTH on a connection without enhanced authentication (MQTT 5 section 4.12).
    UnexpectedAuth,
    /// A method of enhanced authentication refused the client on its connection.
    ReauthenticationRefused(ReasonCode),
    /// A session expiry in DISCONNECT where CONNECT had none (MQTT 5 section 3.14.2.2.2).
    SessionExpiryFromNothing,
    /// More unreleased QoS 2 messages than the Receive Maximum the client was told ([MQTT-3.3.4-7]).
    ReceiveMaximumExceeded,
    /// A topic alias above the maximum, or one that stands for nothing ([MQTT-3.3.2-9]).
    TopicAliasInvalid,
    /// A publish that the rules of access forbid, where the listener's `refused_publish` is `disconnect`.
    PublishRefused,
    /// The token by which the client came in counts no longer.
    LoginExpired,
    /// The entry of the password file by which the client came in is gone, or another one.
    LoginRevoked,
    /// It held the most when the unfinished packets of all clients came to `limits.unfinished_bytes_max`.
    UnfinishedBytes,
    /// What it wants to be remembered has no room in `limits.memory_max`, or it held the most when
    /// there was no more room.
    MemoryMax,
    /// The answer would be larger than the client's own Maximum Packet Size ([MQTT-3.1.2-24]).
    AnswerTooLarge,
    /// The first packet was not CONNECT ([MQTT-3.1.0-1]).
    NotConnect {
        /// What the first bytes look like, if that is known.
        looks_like: Option<&'static str>,
    },
    /// No complete CONNECT within `limits.connect_timeout`.
    ConnectTimeout,
    /// The bytes of unfinished CONNECTs of all peers are at `limits.handshake_bytes_max`.
    HandshakeBudget,
    /// CONNECT was answered with this code.
    Refused(ReasonCode),
    /// A limit on connections, by its name in the configuration, and what the client is told if it gets that far.
    Limit {
        /// Such as `limits.connect_rate_max`.
        limit: &'static str,
        /// For CONNACK.
        code: ReasonCode,
    },
    /// What a proxy sent before the connection is no header of the PROXY protocol.
    ProxyHeader(&'static str),
    /// `limits.tls_handshakes_max` others were under way for all of `limits.connect_timeout`.
    TlsHandshakes,
    /// The TLS handshake failed.
    Tls(String),
    /// The broker is shutting down.
    Shutdown,
    /// A fault of ours: the connection's task did not end in order.
    Internal,
}

impl Cause {
    /// The label of the counter.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Disconnect { with_will: false } => "disconnect",
            Self::Disconnect { with_will: true } => "disconnect_with_will",
            Self::PeerClosed => "peer_closed",
            Self::Network(_) => "network_error",
            Self::KeepAliveExpired => "keep_alive",
            Self::TakenOver => "taken_over",
            Self::Malformed(error) => error.reason(),
            Self::SecondConnect => "second_connect",
            Self::UnexpectedAuth => "unexpected_auth",
            Self::ReauthenticationRefused(_) => "reauthentication_refused",
            Self::SessionExpiryFromNothing => "session_expiry_from_nothing",
            Self::ReceiveMaximumExceeded => "receive_maximum",
            Self::TopicAliasInvalid => "topic_alias_invalid",
            Self::PublishRefused => "acl_write",
            Self::LoginExpired => "login_expired",
            Self::LoginRevoked => "login_revoked",
            Self::UnfinishedBytes => "unfinished_bytes_max",
            Self::MemoryMax => "memory_max",
            Self::AnswerTooLarge => "answer_too_large",
            Self::NotConnect { .. } => "not_connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeBudget => "handshake_bytes_max",
            Self::Refused(code) => match code {
                ReasonCode::ClientIdentifierNotValid => "refused_client_id",
                ReasonCode::ServerUnavailable => "refused_service_unavailable",
                ReasonCode::BadUserNameOrPassword => "refused_bad_credentials",
                ReasonCode::NotAuthorized => "refused_not_authorized",
                ReasonCode::Banned => "refused_banned",
                ReasonCode::QuotaExceeded => "sessions_max",
                ReasonCode::BadAuthenticationMethod => "refused_authentication_method",
                _ => "refused",
            },
            Self::Limit { limit, .. } => limit.strip_prefix("limits.").unwrap_or(limit),
            Self::ProxyHeader(_) => "proxy_protocol",
            Self::TlsHandshakes => "tls_handshakes_max",
            Self::Tls(_) => "tls",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal_error",
        }
    }
}

impl Cause {
    /// What CONNACK says when this is why CONNECT is refused; `None`: it is not for such a reason.
    pub(crate) fn connack_code(&self) -> Option<ReasonCode> {
        match self {
            Self::Refused(code) | Self::Limit { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// What an MQTT 5 client is told in DISCONNECT (section 3.14.2.1); `None` where the end is its own.
    pub(crate) fn disconnect_code(&self) -> Option<ReasonCode> {
        match self {
            Self::Malformed(error) => Some(error.reason_code()),
            Self::SecondConnect | Self::UnexpectedAuth | Self::SessionExpiryFromNothing => {
                Some(ReasonCode::ProtocolError)
            }
            Self::ReauthenticationRefused(code) => Some(*code),
            Self::ReceiveMaximumExceeded => Some(ReasonCode::ReceiveMaximumExceeded),
            Self::TopicAliasInvalid => Some(ReasonCode::TopicAliasInvalid),
            Self::PublishRefused | Self::LoginRevoked => Some(ReasonCode::NotAuthorized),
            Self::LoginExpired => Some(ReasonCode::MaximumConnectTime),
            Self::UnfinishedBytes | Self::MemoryMax => Some(ReasonCode::QuotaExceeded),
            Self::AnswerTooLarge => Some(ReasonCode::PacketTooLarge),
            Self::KeepAliveExpired => Some(ReasonCode::KeepAliveTimeout),
            Self::TakenOver => Some(ReasonCode::SessionTakenOver),
            Self::Shutdown => Some(ReasonCode::ServerShuttingDown),
            Self::Internal => Some(ReasonCode::UnspecifiedError),
            Self::Disconnect { .. }
            | Self::PeerClosed
            | Self::Network(_)
            | Self::NotConnect { .. }
            | Self::ConnectTimeout
            | Self::HandshakeBudget
            | Self::Refused(_)
            | Self::Limit { .. }
            | Self::ProxyHeader(_)
            | Self::TlsHandshakes
            | Self::Tls(_) => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnect { with_will: false } => f.write_str("DISCONNECT"),
            Self::Disconnect { with_will: true } => f.write_str("DISCONNECT that asks for the will"),
            Self::PeerClosed => f.write_str("peer closed the connection without DISCONNECT"),
            Self::Network(kind) => write!(f, "network: {kind}"),
            Self::KeepAliveExpired => f.write_str("keep alive expired"),
            Self::TakenOver => f.write_str("client id taken over by a new connection"),
            Self::Malformed(error) => write!(f, "{error}"),
            Self::SecondConnect => f.write_str("second CONNECT on one connection"),
            Self::UnexpectedAuth => f.write_str("AUTH on a connection without enhanced authentication"),
            Self::ReauthenticationRefused(code) => write!(f, "re-authentication refused: {}", code.name()),
            Self::SessionExpiryFromNothing => {
                f.write_str("session expiry in DISCONNECT where CONNECT had none")
            }
            Self::ReceiveMaximumExceeded => {
                f.write_str("more unreleased QoS 2 messages than limits.receive_maximum")
            }
            Self::TopicAliasInvalid => f.write_str("topic alias above limits.topic_alias_max or unknown"),
            Self::PublishRefused => {
                f.write_str("publish refused by the rules of access, and refused_publish = \"disconnect\"")
            }
            Self::LoginExpired => f.write_str("the token by which the client came in has expired"),
            Self::LoginRevoked => f.write_str(
                "the entry of auth.password_file by which the client came in is gone, or another one",
            ),
            Self::UnfinishedBytes => {
                f.write_str("unfinished packets of all clients hold limits.unfinished_bytes_max")
            }
            Self::MemoryMax => f.write_str("what all clients hold in memory is at limits.memory_max"),
            Self::AnswerTooLarge => f.write_str("answer larger than the client's Maximum Packet Size"),
            Self::NotConnect { looks_like: Some(what) } => {
                write!(f, "first packet is not CONNECT; it looks like {what}")
            }
            Self::NotConnect { looks_like: None } => f.write_str("first packet is not CONNECT"),
            Self::ConnectTimeout => f.write_str("no complete CONNECT within limits.connect_timeout"),
            Self::HandshakeBudget => {
                f.write_str("unfinished CONNECTs of all peers hold limits.handshake_bytes_max")
            }
            Self::Refused(ReasonCode::QuotaExceeded) => f.write_str("CONNECT refused: limits.sessions_max"),
            Self::Refused(code) => write!(f, "CONNECT refused: {}", code.name()),
            Self::Limit { limit, code } => write!(f, "{limit}: {}", code.name()),
            Self::ProxyHeader(what) => write!(f, "header of the PROXY protocol: {what}"),
            Self::TlsHandshakes => {
                f.write_str("limits.tls_handshakes_max others were under way within limits.connect_timeout")
            }
            Self::Tls(error) => write!(f, "TLS handshake: {}", escape(error)),
            Self::Shutdown => f.write_str("broker is shutting down"),
            Self::Internal => f.write_str("internal error"),
        }
    }
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::PeerClosed,
            kind => Self::Network(kind),
        }
    }
}

impl From<DecodeError> for Cause {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}
