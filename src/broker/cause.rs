//! Why a connection ended: one value that gives the log line, its level and the counter's label.

use std::fmt;
use std::io;

use crate::protocol::{ConnectReturnCode, DecodeError};

/// Why a connection ended, or did not come about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cause {
    /// DISCONNECT came: the only end that drops the will.
    Disconnect,
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
    Refused(ConnectReturnCode),
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
            Self::Disconnect => "disconnect",
            Self::PeerClosed => "peer_closed",
            Self::Network(_) => "network_error",
            Self::KeepAliveExpired => "keep_alive",
            Self::TakenOver => "taken_over",
            Self::Malformed(error) => error.reason(),
            Self::SecondConnect => "second_connect",
            Self::NotConnect { .. } => "not_connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeBudget => "handshake_bytes_max",
            Self::Refused(code) => match code {
                ConnectReturnCode::RefusedProtocolVersion => "refused_protocol_version",
                ConnectReturnCode::BadClientId => "refused_client_id",
                ConnectReturnCode::ServiceUnavailable => "refused_service_unavailable",
                ConnectReturnCode::BadUserNamePassword => "refused_bad_credentials",
                ConnectReturnCode::NotAuthorized => "refused_not_authorized",
                ConnectReturnCode::Success => "refused",
            },
            Self::Tls(_) => "tls",
            Self::Shutdown => "shutdown",
            Self::Internal => "internal_error",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disconnect => f.write_str("DISCONNECT"),
            Self::PeerClosed => f.write_str("peer closed the connection without DISCONNECT"),
            Self::Network(kind) => write!(f, "network: {kind}"),
            Self::KeepAliveExpired => f.write_str("keep alive expired"),
            Self::TakenOver => f.write_str("client id taken over by a new connection"),
            Self::Malformed(error) => write!(f, "{error}"),
            Self::SecondConnect => f.write_str("second CONNECT on one connection"),
            Self::NotConnect { looks_like: Some(what) } => {
                write!(f, "first packet is not CONNECT; it looks like {what}")
            }
            Self::NotConnect { looks_like: None } => f.write_str("first packet is not CONNECT"),
            Self::ConnectTimeout => f.write_str("no complete CONNECT within limits.connect_timeout"),
            Self::HandshakeBudget => {
                f.write_str("unfinished CONNECTs of all peers hold limits.handshake_bytes_max")
            }
            Self::Refused(code) => write!(f, "CONNECT refused: {code:?}"),
            Self::Tls(error) => write!(f, "TLS handshake: {error}"),
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
