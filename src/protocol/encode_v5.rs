//! The server's packets that have properties: CONNACK, DISCONNECT, AUTH.
//!
//! A property section is gathered apart, so that a packet is either appended whole or not begun. Nothing is
//! written that would be larger than the client takes: first the reason string is left out
//! [MQTT-3.2.2-19], [MQTT-3.14.2-3], then the packet [MQTT-3.1.2-24].

use super::encode::{self, variable};
use super::frame::{REMAINING_LENGTH_MAX, fixed_header_len};
use super::properties::{Property, PropertyValue};
use super::{ProtocolVersion, QoS, ReasonCode};

const STRING_BYTES_MAX: usize = 65_535;

/// What a server tells an MQTT 5 client in CONNACK (section 3.2.2.3). The default tells nothing: everything
/// is available, nothing limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnackProperties<'a> {
    /// Seconds the session outlives the connection, if not as the client asked.
    pub session_expiry: Option<u32>,
    /// How many QoS 1 and 2 messages the server takes at once, at least 1; 65,535 is not told.
    pub receive_maximum: u16,
    /// The highest QoS the server takes; QoS 2 is not told.
    pub maximum_qos: QoS,
    /// Whether there are retained messages.
    pub retain_available: bool,
    /// The largest packet the server takes, in bytes, at least 1; `None`: no limit.
    pub maximum_packet_size: Option<u32>,
    /// The client identifier that the server made up.
    pub assigned_client_id: Option<&'a str>,
    /// The highest topic alias the server takes; 0: none.
    pub topic_alias_maximum: u16,
    /// What to tell people of the reason code.
    pub reason_string: Option<&'a str>,
    /// Whether filters may have wildcards.
    pub wildcard_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_ids_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_available: bool,
    /// Seconds of keep alive that hold in place of the client's.
    pub server_keep_alive: Option<u16>,
    /// What the client may build response topics from. Only if it asked [MQTT-3.1.2-28].
    pub response_information: Option<&'a str>,
    /// Method of enhanced authentication; only the one the client named [MQTT-4.12.0-6].
    pub auth_method: Option<&'a str>,
    /// What the method has to say; left out without one.
    pub auth_data: Option<&'a [u8]>,
    /// Not told, but kept to: the largest packet the client takes, in bytes.
    pub client_packet_bytes_max: Option<u32>,
}

impl Default for ConnackProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: None,
            receive_maximum: u16::MAX,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            wildcard_available: true,
            subscription_ids_available: true,
            shared_available: true,
            server_keep_alive: None,
            response_information: None,
            auth_method: None,
            auth_data: None,
            client_packet_bytes_max: None,
        }
    }
}

impl ConnackProperties<'_> {
    fn section(&self) -> Section {
        use Property as P;
        use PropertyValue as V;
        let mut section = Section::new();
        section.put_some(P::SessionExpiryInterval, self.session_expiry.map(V::FourBytes));
        if self.receive_maximum != u16::MAX {
            section.put(P::ReceiveMaximum, V::TwoBytes(self.receive_maximum));
        }
        if self.maximum_qos != QoS::ExactlyOnce {
            section.put(P::MaximumQos, V::Byte(self.maximum_qos as u8));
        }
        section.put_some(P::MaximumPacketSize, self.maximum_packet_size.map(V::FourBytes));
        section.put_some(P::AssignedClientIdentifier, self.assigned_client_id.map(V::String));
        if self.topic_alias_maximum != 0 {
            section.put(P::TopicAliasMaximum, V::TwoBytes(self.topic_alias_maximum));
        }
        for (property, available) in [
            (P::RetainAvailable, self.retain_available),
            (P::WildcardSubscriptionAvailable, self.wildcard_available),
            (P::SubscriptionIdentifierAvailable, self.subscription_ids_available),
            (P::SharedSubscriptionAvailable, self.shared_available),
        ] {
            if !available {
                section.put(property, V::Byte(0));
            }
        }
        section.put_some(P::ServerKeepAlive, self.server_keep_alive.map(V::TwoBytes));
        section.put_some(P::ResponseInformation, self.response_information.map(V::String));
        if let Some(method) = self.auth_method {
            section.put(P::AuthenticationMethod, V::String(method));
            section.put_some(P::AuthenticationData, self.auth_data.map(V::Binary));
        }
        section
    }
}

/// Appends CONNACK. Session present is written as 0 with every code but success [MQTT-3.2.2-6]. MQTT 3.1.1
/// gets the return code that says the same, and no properties.
///
/// `false` if nothing was appended, and the connection is to be closed without: MQTT 3.1.1 has no such code
/// (3.1.1, [MQTT-3.2.2-6]), or the client's maximum packet size is too small for what must be told.
///
/// # Panics
/// If a string or the authentication data has more than 65,535 bytes; nothing has been appended then. A
/// reason string that long is left out.
#[must_use = "without CONNACK the connection must be closed"]
pub fn connack(
    out: &mut Vec<u8>,
    version: ProtocolVersion,
    session_present: bool,
    code: ReasonCode,
    properties: &ConnackProperties<'_>,
) -> bool {
    let session_present = u8::from(session_present && code == ReasonCode::Success);
    match version {
        ProtocolVersion::V31 | ProtocolVersion::V311 => {
            let Some(code) = code.for_v3_connack() else { return false };
            out.extend_from_slice(&[0x20, 2, session_present, code as u8]);
            true
        }
        ProtocolVersion::V5 => append(
            out,
            0x20,
            &[session_present, code.byte()],
            properties.section(),
            properties.reason_string,
            properties.client_packet_bytes_max,
        ),
    }
}

/// Appends the server's DISCONNECT of MQTT 5, unless it is larger than the client takes; `false` then. It
/// says no session expiry [MQTT-3.14.2-2]. MQTT 3.1.1 has none: do not call it there.
pub fn disconnect(
    out: &mut Vec<u8>,
    code: ReasonCode,
    reason_string: Option<&str>,
    client_packet_bytes_max: Option<u32>,
) -> bool {
    append(out, 0xe0, &[code.byte()], Section::new(), reason_string, client_packet_bytes_max)
}

/// Appends the server's AUTH of MQTT 5 (section 3.15), unless it is larger than the client takes; `false`
/// then, and authentication cannot go on.
///
/// # Panics
/// If method or data have more than 65,535 bytes; nothing has been appended then.
#[must_use = "without AUTH authentication cannot go on"]
pub fn auth(
    out: &mut Vec<u8>,
    code: ReasonCode,
    method: &str,
    data: Option<&[u8]>,
    reason_string: Option<&str>,
    client_packet_bytes_max: Option<u32>,
) -> bool {
    let mut section = Section::new();
    section.put(Property::AuthenticationMethod, PropertyValue::String(method));
    section.put_some(Property::AuthenticationData, data.map(PropertyValue::Binary));
    append(out, 0xf0, &[code.byte()], section, reason_string, client_packet_bytes_max)
}

/// Appends a packet of this beginning and these properties; with the reason string if there is room for it.
fn append(
    out: &mut Vec<u8>,
    first_byte: u8,
    start: &[u8],
    mut section: Section,
    reason_string: Option<&str>,
    packet_bytes_max: Option<u32>,
) -> bool {
    let packet_bytes_max =
        packet_bytes_max.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
    let fits = |section: &Section| {
        let remaining_length = start.len() + section.total();
        remaining_length <= REMAINING_LENGTH_MAX
            && fixed_header_len(remaining_length) + remaining_length <= packet_bytes_max
    };
    if let Some(text) = reason_string.filter(|text| text.len() <= STRING_BYTES_MAX) {
        let without = section.bytes.len();
        section.put(Property::ReasonString, PropertyValue::String(text));
        if !fits(&section) {
            section.bytes.truncate(without);
        }
    }
    if !fits(&section) {
        return false;
    }
    encode::fixed_header(out, first_byte, start.len() + section.total());
    out.extend_from_slice(start);
    section.write(out);
    true
}

/// A property section in the making.
#[derive(Debug, Default)]
pub(crate) struct Section {
    bytes: Vec<u8>,
}

impl Section {
    pub(crate) const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// Appends a property. The value must be of the property's type.
    ///
    /// # Panics
    /// If it is too long or too large for that.
    pub(crate) fn put(&mut self, property: Property, value: PropertyValue<'_>) {
        let out = &mut self.bytes;
        out.push(property as u8);
        match value {
            PropertyValue::Byte(byte) => out.push(byte),
            PropertyValue::TwoBytes(number) => out.extend_from_slice(&number.to_be_bytes()),
            PropertyValue::FourBytes(number) => out.extend_from_slice(&number.to_be_bytes()),
            PropertyValue::Variable(number) => {
                assert!(number as usize <= REMAINING_LENGTH_MAX, "{} {number}", property.name());
                variable(out, number as usize);
            }
            PropertyValue::String(text) => put_bytes(out, property, text.as_bytes()),
            PropertyValue::Binary(data) => put_bytes(out, property, data),
            PropertyValue::StringPair(name, value) => {
                put_bytes(out, property, name.as_bytes());
                put_bytes(out, property, value.as_bytes());
            }
        }
    }

    pub(crate) fn put_some(&mut self, property: Property, value: Option<PropertyValue<'_>>) {
        if let Some(value) = value {
            self.put(property, value);
        }
    }

    /// Appends properties that are written already.
    pub(crate) fn put_raw(&mut self, section: &[u8]) {
        self.bytes.extend_from_slice(section);
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of the section with its length.
    fn total(&self) -> usize {
        encode::variable_len(self.bytes.len()) + self.bytes.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        variable(out, self.bytes.len());
        out.extend_from_slice(&self.bytes);
    }

    /// The section behind its length.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        assert!(self.bytes.len() <= REMAINING_LENGTH_MAX, "properties of {} bytes", self.bytes.len());
        let mut out = Vec::with_capacity(self.total());
        self.write(&mut out);
        out
    }
}

fn put_bytes(out: &mut Vec<u8>, property: Property, bytes: &[u8]) {
    assert!(bytes.len() <= STRING_BYTES_MAX, "{} of {} bytes", property.name(), bytes.len());
    encode::bytes(out, bytes);
}

#[cfg(test)]
mod tests {
    use super::super::ProtocolVersion::{V5, V31, V311};
    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Vec<u8>> {
        let mut out = vec![1, 2, 3];
        let written = encode(&mut out);
        let packet = out.split_off(3);
        assert_eq!((out, written), (vec![1, 2, 3], !packet.is_empty()));
        written.then_some(packet)
    }

    #[test]
    fn connack_of_3_1_1_has_its_return_codes() {
        let properties = ConnackProperties {
            reason_string: Some("nobody sees this"),
            client_packet_bytes_max: Some(1),
            ..ConnackProperties::default()
        };
        let connack =
            |version, present, code| encoded(|out| connack(out, version, present, code, &properties));
        for version in [V31, V311] {
            assert_eq!(connack(version, false, ReasonCode::Success).unwrap(), [0x20, 2, 0, 0]);
            assert_eq!(connack(version, true, ReasonCode::Success).unwrap(), [0x20, 2, 1, 0]);
            for (code, byte) in [
                (ReasonCode::UnsupportedProtocolVersion, 1),
                (ReasonCode::ClientIdentifierNotValid, 2),
                (ReasonCode::ServerUnavailable, 3),
                (ReasonCode::BadUserNameOrPassword, 4),
                (ReasonCode::NotAuthorized, 5),
            ] {
                // 3.1.1, [MQTT-3.2.2-4]
                assert_eq!(connack(version, true, code).unwrap(), [0x20, 2, 0, byte]);
            }
            // 3.1.1, [MQTT-3.2.2-6]
            assert_eq!(connack(version, true, ReasonCode::MalformedPacket), None);
        }
    }

    /// [MQTT-2.2.2-1], [MQTT-3.2.2-6]
    #[test]
    fn connack_without_anything_to_tell_has_an_empty_section() {
        let none = ConnackProperties::default();
        let connack = |present, code| encoded(|out| connack(out, V5, present, code, &none)).unwrap();
        assert_eq!(connack(true, ReasonCode::Success), [0x20, 3, 1, 0, 0]);
        assert_eq!(connack(false, ReasonCode::Success), [0x20, 3, 0, 0, 0]);
        assert_eq!(connack(true, ReasonCode::ServerBusy), [0x20, 3, 0, 0x89, 0]);
    }

    #[test]
    fn connack_tells_every_property() {
        let properties = ConnackProperties {
            session_expiry: Some(0x0102_0304),
            receive_maximum: 20,
            maximum_qos: QoS::AtLeastOnce,
            retain_available: false,
            maximum_packet_size: Some(1 << 20),
            assigned_client_id: Some("id"),
            topic_alias_maximum: 10,
            reason_string: Some("why"),
            wildcard_available: false,
            subscription_ids_available: false,
            shared_available: false,
            server_keep_alive: Some(60),
            response_information: Some("r/"),
            auth_method: Some("m"),
            auth_data: Some(b"\xff"),
            client_packet_bytes_max: None,
        };
        let packet = encoded(|out| connack(out, V5, false, ReasonCode::Success, &properties)).unwrap();
        let pieces: [&[u8]; 16] = [
            b"\x11\x01\x02\x03\x04",
            b"\x21\x00\x14",
            b"\x24\x01",
            b"\x25\x00",
            b"\x27\x00\x10\x00\x00",
            b"\x12\x00\x02id",
            b"\x22\x00\x0a",
            b"\x1f\x00\x03why",
            b"\x28\x00",
            b"\x29\x00",
            b"\x2a\x00",
            b"\x13\x00\x3c",
            b"\x1a\x00\x02r/",
            b"\x15\x00\x01m",
            b"\x16\x00\x01\xff",
            b"",
        ];
        let len: usize = pieces.iter().map(|piece| piece.len()).sum();
        assert_eq!(packet[..5], [0x20, (len + 3) as u8, 0, 0, len as u8]);
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            assert!(packet.windows(piece.len()).any(|window| window == *piece), "{piece:?} in {packet:?}");
        }
        assert_eq!(packet.len(), 5 + len);
        let reader =
            super::super::properties::PropertyReader::new(&packet[5..], super::super::Carrier::ConnAck);
        assert_eq!(reader.check(), Ok(()));
    }

    /// [MQTT-3.1.2-24], [MQTT-3.2.2-19]
    #[test]
    fn reason_strings_go_before_the_limit_is_passed() {
        // Fixed header 2, flags and code 2, section length 1, reason string 3 + 3.
        for (max, expected) in [(11, Some(11)), (10, Some(5)), (5, Some(5)), (4, None), (1, None)] {
            let properties = ConnackProperties {
                reason_string: Some("why"),
                client_packet_bytes_max: Some(max),
                ..ConnackProperties::default()
            };
            let packet = encoded(|out| connack(out, V5, false, ReasonCode::ServerBusy, &properties));
            assert_eq!(packet.map(|packet| packet.len()), expected, "{max}");
        }
        // The section's length takes a second byte at 128, the packet's too.
        let text = "x".repeat(125);
        for (max, expected) in [(134, Some(134)), (133, Some(4)), (4, Some(4)), (3, None)] {
            let packet = encoded(|out| disconnect(out, ReasonCode::ServerBusy, Some(&text), Some(max)));
            assert_eq!(packet.map(|packet| packet.len()), expected, "{max}");
        }
        let long = "x".repeat(STRING_BYTES_MAX + 1);
        let packet = encoded(|out| disconnect(out, ReasonCode::ServerBusy, Some(&long), None)).unwrap();
        assert_eq!(packet, [0xe0, 2, 0x89, 0]);
    }

    #[test]
    fn disconnect_and_auth_are_written() {
        let code = ReasonCode::SessionTakenOver;
        assert_eq!(encoded(|out| disconnect(out, code, None, None)).unwrap(), [0xe0, 2, 0x8e, 0]);
        let packet = encoded(|out| disconnect(out, code, Some("no"), None)).unwrap();
        assert_eq!(packet, b"\xe0\x07\x8e\x05\x1f\x00\x02no");
        let code = ReasonCode::ContinueAuthentication;
        let packet = encoded(|out| auth(out, code, "m", Some(b"\xff"), None, None)).unwrap();
        assert_eq!(packet, b"\xf0\x0a\x18\x08\x15\x00\x01m\x16\x00\x01\xff");
        let packet = encoded(|out| auth(out, code, "m", None, Some("no"), Some(8))).unwrap();
        assert_eq!(packet, b"\xf0\x06\x18\x04\x15\x00\x01m");
        assert_eq!(encoded(|out| auth(out, code, "m", None, None, Some(7))), None);
    }

    #[test]
    fn what_no_property_can_hold_is_not_begun() {
        let long = "x".repeat(STRING_BYTES_MAX + 1);
        let properties =
            ConnackProperties { assigned_client_id: Some(&long), ..ConnackProperties::default() };
        let mut out = Vec::new();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            connack(&mut out, V5, false, ReasonCode::Success, &properties)
        }));
        assert!(result.is_err() && out.is_empty());
    }
}
