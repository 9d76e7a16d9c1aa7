//! Reason codes (MQTT 5, section 2.4): what an acknowledgement or the end of a connection says.
//!
//! The broker thinks in these codes whatever version a client speaks; MQTT 3.1.1 hears of them what its
//! return codes can say, see [`ReasonCode::for_v3_connack`] and [`ReasonCode::for_v3_suback`]. Which packet
//! may carry which code is data beside the code.

use std::fmt;

use super::properties::{Carrier, Carriers};
use super::{ConnectReturnCode, QoS};

macro_rules! reason_codes {
    ($($variant:ident = $byte:literal, $name:literal, $description:literal, [$($carrier:ident),+];)+) => {
        /// A reason code (section 2.4).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = concat!($name, ": ", $description, ".")] $variant = $byte,)+
        }

        impl ReasonCode {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The code of this byte, or `None` if the standard knows none.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($byte => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The standard's name. For code 0 it is that of most packets.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in a few words without a full stop: for logs and reason strings.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => $description,)+
                }
            }

            const fn carriers(self) -> Carriers {
                match self {
                    $(Self::$variant => Carriers::of(&[$(Carrier::$carrier),+]),)+
                }
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "Success", "done as asked",
        [ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth];
    GrantedQos1 = 0x01, "Granted QoS 1", "subscribed with QoS 1 at most", [SubAck];
    GrantedQos2 = 0x02, "Granted QoS 2", "subscribed with QoS 2 at most", [SubAck];
    DisconnectWithWill = 0x04, "Disconnect with Will Message", "the client goes and wants its will published",
        [Disconnect];
    NoMatchingSubscribers = 0x10, "No matching subscribers", "the message is taken but nobody subscribes to it",
        [PubAck, PubRec];
    NoSubscriptionExisted = 0x11, "No subscription existed", "there was no such subscription", [UnsubAck];
    ContinueAuthentication = 0x18, "Continue authentication", "the next step of authentication", [Auth];
    ReAuthenticate = 0x19, "Re-authenticate", "the client begins to authenticate once more", [Auth];
    UnspecifiedError = 0x80, "Unspecified error", "an error that has no code of its own, or is not told",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    MalformedPacket = 0x81, "Malformed Packet", "the packet cannot be parsed", [ConnAck, Disconnect];
    ProtocolError = 0x82, "Protocol Error", "the packet breaks a rule or came at the wrong time",
        [ConnAck, Disconnect];
    ImplementationSpecificError = 0x83, "Implementation specific error", "valid, but not accepted here",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version", "this version of MQTT is not spoken here",
        [ConnAck];
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid", "the client identifier is not allowed",
        [ConnAck];
    BadUserNameOrPassword = 0x86, "Bad User Name or Password", "user name or password are not accepted",
        [ConnAck];
    NotAuthorized = 0x87, "Not authorized", "the client is not allowed to do this",
        [ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
    ServerUnavailable = 0x88, "Server unavailable", "the service is not available", [ConnAck];
    ServerBusy = 0x89, "Server busy", "too much to do, try again later", [ConnAck, Disconnect];
    Banned = 0x8a, "Banned", "the client is locked out", [ConnAck];
    ServerShuttingDown = 0x8b, "Server shutting down", "the server is going down", [Disconnect];
    BadAuthenticationMethod = 0x8c, "Bad authentication method",
        "the authentication method is unknown or not the one in use", [ConnAck, Disconnect];
    KeepAliveTimeout = 0x8d, "Keep Alive timeout", "nothing was heard for one and a half keep alive times",
        [Disconnect];
    SessionTakenOver = 0x8e, "Session taken over", "a newer connection has the same client identifier",
        [Disconnect];
    TopicFilterInvalid = 0x8f, "Topic Filter invalid", "the topic filter is not accepted",
        [SubAck, UnsubAck, Disconnect];
    TopicNameInvalid = 0x90, "Topic Name invalid", "the topic name is not accepted",
        [ConnAck, PubAck, PubRec, Disconnect];
    PacketIdentifierInUse = 0x91, "Packet Identifier in use", "the packet identifier is in use",
        [PubAck, PubRec, SubAck, UnsubAck];
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found", "the packet identifier is not known",
        [PubRel, PubComp];
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", "more unacknowledged messages than allowed",
        [Disconnect];
    TopicAliasInvalid = 0x94, "Topic Alias invalid", "the topic alias is 0, too large, or stands for no topic",
        [Disconnect];
    PacketTooLarge = 0x95, "Packet too large", "the packet is larger than is taken", [ConnAck, Disconnect];
    MessageRateTooHigh = 0x96, "Message rate too high", "more messages in a time than are taken", [Disconnect];
    QuotaExceeded = 0x97, "Quota exceeded", "a limit of this server or account is reached",
        [ConnAck, PubAck, PubRec, SubAck, Disconnect];
    AdministrativeAction = 0x98, "Administrative action", "closed by an administrator", [Disconnect];
    PayloadFormatInvalid = 0x99, "Payload format invalid", "the payload is not what its format indicator says",
        [ConnAck, PubAck, PubRec, Disconnect];
    RetainNotSupported = 0x9a, "Retain not supported", "retained messages are not offered",
        [ConnAck, Disconnect];
    QosNotSupported = 0x9b, "QoS not supported", "this quality of service is not offered",
        [ConnAck, Disconnect];
    UseAnotherServer = 0x9c, "Use another server", "use another server for now", [ConnAck, Disconnect];
    ServerMoved = 0x9d, "Server moved", "use another server from now on", [ConnAck, Disconnect];
    SharedSubscriptionsNotSupported = 0x9e, "Shared Subscriptions not supported",
        "shared subscriptions are not offered", [SubAck, Disconnect];
    ConnectionRateExceeded = 0x9f, "Connection rate exceeded", "more connections in a time than are taken",
        [ConnAck, Disconnect];
    MaximumConnectTime = 0xa0, "Maximum connect time", "the time allowed for this connection is over",
        [Disconnect];
    SubscriptionIdentifiersNotSupported = 0xa1, "Subscription Identifiers not supported",
        "subscription identifiers are not offered", [SubAck, Disconnect];
    WildcardSubscriptionsNotSupported = 0xa2, "Wildcard Subscriptions not supported",
        "wildcard subscriptions are not offered", [SubAck, Disconnect];
}

impl ReasonCode {
    /// Code 0 as SUBACK names it.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// Code 0 as DISCONNECT names it.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;

    /// The byte on the wire.
    pub const fn byte(self) -> u8 {
        self as u8
    }

    /// Whether it says that something failed: 0x80 and up.
    pub const fn is_error(self) -> bool {
        self.byte() >= 0x80
    }

    /// The SUBACK code that grants this QoS.
    pub const fn granted(qos: QoS) -> Self {
        match qos {
            QoS::AtMostOnce => Self::GRANTED_QOS_0,
            QoS::AtLeastOnce => Self::GrantedQos1,
            QoS::ExactlyOnce => Self::GrantedQos2,
        }
    }

    /// Whether a packet of this kind may carry the code, whoever sends it (table in section 2.4).
    pub const fn allowed_in(self, carrier: Carrier) -> bool {
        self.carriers().contains(carrier)
    }

    /// Whether a client may send it in a packet of this kind: of DISCONNECT and AUTH some codes are the
    /// server's alone (sections 3.14.2.1 and 3.15.2.1).
    pub const fn allowed_from_client(self, carrier: Carrier) -> bool {
        self.allowed_in(carrier)
            && match carrier {
                Carrier::Disconnect => matches!(
                    self,
                    Self::Success
                        | Self::DisconnectWithWill
                        | Self::UnspecifiedError
                        | Self::MalformedPacket
                        | Self::ProtocolError
                        | Self::ImplementationSpecificError
                        | Self::TopicNameInvalid
                        | Self::ReceiveMaximumExceeded
                        | Self::TopicAliasInvalid
                        | Self::PacketTooLarge
                        | Self::MessageRateTooHigh
                        | Self::QuotaExceeded
                        | Self::AdministrativeAction
                        | Self::PayloadFormatInvalid
                ),
                Carrier::Auth => matches!(self, Self::ContinueAuthentication | Self::ReAuthenticate),
                _ => true,
            }
    }

    /// The return code that tells an MQTT 3.1.1 client the same in CONNACK (3.1.1, section 3.2.2.3), or `None`
    /// where there is none: the connection is then closed without CONNACK (3.1.1, [MQTT-3.2.2-6]).
    pub const fn for_v3_connack(self) -> Option<ConnectReturnCode> {
        match self {
            Self::Success => Some(ConnectReturnCode::Success),
            Self::UnsupportedProtocolVersion => Some(ConnectReturnCode::RefusedProtocolVersion),
            Self::ClientIdentifierNotValid => Some(ConnectReturnCode::BadClientId),
            Self::BadUserNameOrPassword => Some(ConnectReturnCode::BadUserNamePassword),
            // The topic of its will is one that the client may not use here.
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod | Self::TopicNameInvalid => {
                Some(ConnectReturnCode::NotAuthorized)
            }
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved
            | Self::ConnectionRateExceeded => Some(ConnectReturnCode::ServiceUnavailable),
            _ => None,
        }
    }

    /// The byte that tells an MQTT 3.1.1 client the same in SUBACK: the granted QoS, or 0x80 for every
    /// failure (3.1.1, section 3.9.3).
    pub const fn for_v3_suback(self) -> u8 {
        if self.is_error() { Self::UnspecifiedError.byte() } else { self.byte() }
    }
}

impl From<ConnectReturnCode> for ReasonCode {
    /// The code that says the same; [`ReasonCode::for_v3_connack`] leads back.
    fn from(code: ConnectReturnCode) -> Self {
        match code {
            ConnectReturnCode::Success => Self::Success,
            ConnectReturnCode::RefusedProtocolVersion => Self::UnsupportedProtocolVersion,
            ConnectReturnCode::BadClientId => Self::ClientIdentifierNotValid,
            ConnectReturnCode::ServiceUnavailable => Self::ServerUnavailable,
            ConnectReturnCode::BadUserNamePassword => Self::BadUserNameOrPassword,
            ConnectReturnCode::NotAuthorized => Self::NotAuthorized,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.byte(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 2-6 as it stands in the standard, written down by hand: code and the packets that have it.
    #[test]
    fn codes_stand_where_the_standard_has_them() {
        use Carrier::*;
        const ACKS: &[Carrier] = &[ConnAck, PubAck, PubRec, SubAck, UnsubAck, Disconnect];
        let table: &[(u8, &[Carrier])] = &[
            (0x00, &[ConnAck, PubAck, PubRec, PubRel, PubComp, SubAck, UnsubAck, Disconnect, Auth]),
            (0x01, &[SubAck]),
            (0x02, &[SubAck]),
            (0x04, &[Disconnect]),
            (0x10, &[PubAck, PubRec]),
            (0x11, &[UnsubAck]),
            (0x18, &[Auth]),
            (0x19, &[Auth]),
            (0x80, ACKS),
            (0x81, &[ConnAck, Disconnect]),
            (0x82, &[ConnAck, Disconnect]),
            (0x83, ACKS),
            (0x84, &[ConnAck]),
            (0x85, &[ConnAck]),
            (0x86, &[ConnAck]),
            (0x87, ACKS),
            (0x88, &[ConnAck]),
            (0x89, &[ConnAck, Disconnect]),
            (0x8a, &[ConnAck]),
            (0x8b, &[Disconnect]),
            (0x8c, &[ConnAck, Disconnect]),
            (0x8d, &[Disconnect]),
            (0x8e, &[Disconnect]),
            (0x8f, &[SubAck, UnsubAck, Disconnect]),
            (0x90, &[ConnAck, PubAck, PubRec, Disconnect]),
            (0x91, &[PubAck, PubRec, SubAck, UnsubAck]),
            (0x92, &[PubRel, PubComp]),
            (0x93, &[Disconnect]),
            (0x94, &[Disconnect]),
            (0x95, &[ConnAck, Disconnect]),
            (0x96, &[Disconnect]),
            (0x97, &[ConnAck, PubAck, PubRec, SubAck, Disconnect]),
            (0x98, &[Disconnect]),
            (0x99, &[ConnAck, PubAck, PubRec, Disconnect]),
            (0x9a, &[ConnAck, Disconnect]),
            (0x9b, &[ConnAck, Disconnect]),
            (0x9c, &[ConnAck, Disconnect]),
            (0x9d, &[ConnAck, Disconnect]),
            (0x9e, &[SubAck, Disconnect]),
            (0x9f, &[ConnAck, Disconnect]),
            (0xa0, &[Disconnect]),
            (0xa1, &[SubAck, Disconnect]),
            (0xa2, &[SubAck, Disconnect]),
        ];
        assert!(ReasonCode::ALL.iter().map(|code| code.byte()).eq(table.iter().map(|(byte, _)| *byte)));
        for byte in 0..=255 {
            let carriers = table.iter().find(|(known, _)| *known == byte).map_or(&[][..], |(_, list)| list);
            let code = ReasonCode::from_byte(byte);
            assert_eq!(code.is_some(), !carriers.is_empty(), "{byte:#04x}");
            let Some(code) = code else { continue };
            assert_eq!((code.byte(), code.is_error()), (byte, byte >= 0x80));
            for &carrier in Carrier::ALL {
                assert_eq!(code.allowed_in(carrier), carriers.contains(&carrier), "{code} in {carrier:?}");
            }
        }
    }

    /// Sections 3.14.2.1 and 3.15.2.1 say who may send which.
    #[test]
    fn clients_send_fewer_codes_than_servers() {
        let from_client = |carrier| -> Vec<u8> {
            let codes = ReasonCode::ALL.iter().filter(|code| code.allowed_from_client(carrier));
            codes.map(|code| code.byte()).collect()
        };
        let expected = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
        assert_eq!(from_client(Carrier::Disconnect), expected);
        assert_eq!(from_client(Carrier::Auth), [0x18, 0x19]);
        assert_eq!(from_client(Carrier::PubAck), [0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
        assert_eq!(from_client(Carrier::PubRel), [0, 0x92]);
    }

    #[test]
    fn mqtt_3_1_1_hears_what_its_codes_can_say() {
        for byte in 0..=5 {
            let code = [
                ConnectReturnCode::Success,
                ConnectReturnCode::RefusedProtocolVersion,
                ConnectReturnCode::BadClientId,
                ConnectReturnCode::ServiceUnavailable,
                ConnectReturnCode::BadUserNamePassword,
                ConnectReturnCode::NotAuthorized,
            ][byte];
            assert_eq!(code as usize, byte);
            assert_eq!(ReasonCode::from(code).for_v3_connack(), Some(code));
        }
        for (code, expected) in [
            (ReasonCode::Banned, Some(ConnectReturnCode::NotAuthorized)),
            (ReasonCode::ServerBusy, Some(ConnectReturnCode::ServiceUnavailable)),
            (ReasonCode::MalformedPacket, None),
            (ReasonCode::ProtocolError, None),
            (ReasonCode::UnspecifiedError, None),
        ] {
            assert_eq!(code.for_v3_connack(), expected, "{code}");
        }
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            assert_eq!(ReasonCode::granted(qos).for_v3_suback(), qos as u8);
        }
        assert_eq!(ReasonCode::NotAuthorized.for_v3_suback(), 0x80);
    }

    #[test]
    fn codes_are_shown_with_their_name() {
        assert_eq!(ReasonCode::SessionTakenOver.to_string(), "0x8e Session taken over");
        for code in ReasonCode::ALL {
            assert!(!code.name().is_empty() && !code.description().ends_with('.'), "{code}");
        }
    }
}
