//! The properties of a message: those of PUBLISH and of a will.
//!
//! What a broker acts on is read out once, when the packet is decoded; what it only passes on stays where it
//! is, as bytes, and is looked up when somebody asks. So a PUBLISH without properties carries a few zeros
//! and no more.

use std::num::NonZeroU16;

use super::error::{DecodeError, Field};
use super::properties::{Carrier, Property, PropertyReader, PropertyValue};
use super::topic::validate_topic_name;

/// The properties of a PUBLISH (section 3.3.2.3) or a will (section 3.1.3.2). In MQTT 3.1.1 there are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// 1 if the payload is UTF-8, 0 if it is of no told kind.
    pub payload_format_indicator: Option<u8>,
    /// How long the message is worth delivering, in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Number the sender lets stand for the topic. Whether it is within the announced maximum is not judged
    /// here. Never in a will.
    pub topic_alias: Option<NonZeroU16>,
    /// The whole section as it was sent, without its length; every property in it is valid.
    raw: &'a [u8],
    has_will_delay: bool,
}

impl<'a> PublishProperties<'a> {
    /// No properties.
    pub const NONE: Self = Self {
        payload_format_indicator: None,
        message_expiry_interval: None,
        topic_alias: None,
        raw: &[],
        has_will_delay: false,
    };

    /// Reads a section as a client's PUBLISH may have it, given without its length.
    ///
    /// # Errors
    /// The first property that breaks a rule.
    pub fn parse(section: &'a [u8]) -> Result<Self, DecodeError> {
        Self::read(PropertyReader::new(section, Carrier::Publish)).map(|(properties, _)| properties)
    }

    /// The properties and the will delay, which is 0 where there is none.
    pub(crate) fn read(mut reader: PropertyReader<'a>) -> Result<(Self, u32), DecodeError> {
        let mut properties = Self { raw: reader.rest(), ..Self::NONE };
        let mut will_delay = 0;
        while let Some(property) = reader.next()? {
            match property {
                (Property::PayloadFormatIndicator, PropertyValue::Byte(indicator)) => {
                    properties.payload_format_indicator = Some(indicator);
                }
                (Property::MessageExpiryInterval, PropertyValue::FourBytes(seconds)) => {
                    properties.message_expiry_interval = Some(seconds);
                }
                (Property::TopicAlias, PropertyValue::TwoBytes(alias)) => {
                    properties.topic_alias = NonZeroU16::new(alias);
                }
                (Property::WillDelayInterval, PropertyValue::FourBytes(seconds)) => {
                    properties.has_will_delay = true;
                    will_delay = seconds;
                }
                (Property::ResponseTopic, PropertyValue::String(topic)) => {
                    // Somebody is to publish to it [MQTT-3.3.2-14].
                    let field = Field::Property(Property::ResponseTopic);
                    validate_topic_name(topic).map_err(|error| DecodeError::topic(field, error))?;
                }
                (Property::SubscriptionIdentifier, _) => return Err(DecodeError::SubscriptionIdFromClient),
                _ => {}
            }
        }
        Ok((properties, will_delay))
    }

    /// The whole section as it was sent, without its length.
    #[inline]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Where an answer is to be published: a valid topic name.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.string(Property::ResponseTopic)
    }

    /// What the answer is to be told apart by.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.iter().find_map(|(property, value)| match value {
            PropertyValue::Binary(data) if property == Property::CorrelationData => Some(data),
            _ => None,
        })
    }

    /// What the payload is, in the sender's words.
    pub fn content_type(&self) -> Option<&'a str> {
        self.string(Property::ContentType)
    }

    /// Names and values of the user properties, in their order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.iter().filter_map(|(_, value)| match value {
            PropertyValue::StringPair(name, value) => Some((name, value)),
            _ => None,
        })
    }

    /// Whether [`raw`](Self::raw) may be sent on as it is: it holds nothing that is for the receiver of this
    /// very packet (topic alias, will delay) or changes with time (message expiry).
    #[inline]
    pub const fn forwardable(&self) -> bool {
        self.topic_alias.is_none() && self.message_expiry_interval.is_none() && !self.has_will_delay
    }

    /// Appends what a server passes on unchanged, in its order: payload format indicator, content type,
    /// response topic, correlation data and user properties [MQTT-3.3.2-4], [MQTT-3.3.2-15] to
    /// [MQTT-3.3.2-18], [MQTT-3.3.2-20].
    pub fn write_forwardable(&self, out: &mut Vec<u8>) {
        if self.forwardable() {
            out.extend_from_slice(self.raw);
            return;
        }
        out.reserve(self.raw.len());
        let mut reader = self.reader();
        let mut before = reader.rest();
        while let Ok(Some((property, _))) = reader.next() {
            let rest = reader.rest();
            if !matches!(
                property,
                Property::TopicAlias | Property::MessageExpiryInterval | Property::WillDelayInterval
            ) {
                out.extend_from_slice(before.get(..before.len() - rest.len()).unwrap_or_default());
            }
            before = rest;
        }
    }

    /// Whether the will delay is in the section.
    pub(crate) const fn has_will_delay(&self) -> bool {
        self.has_will_delay
    }

    fn string(&self, wanted: Property) -> Option<&'a str> {
        self.iter().find_map(|(property, value)| match value {
            PropertyValue::String(text) if property == wanted => Some(text),
            _ => None,
        })
    }

    fn iter(&self) -> impl Iterator<Item = (Property, PropertyValue<'a>)> + use<'a> {
        let mut reader = self.reader();
        // Checked when it was read: there is no error.
        std::iter::from_fn(move || reader.next().ok().flatten())
    }

    fn reader(&self) -> PropertyReader<'a> {
        let carrier = if self.has_will_delay { Carrier::Will } else { Carrier::Publish };
        PropertyReader::new(self.raw, carrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: &[u8] = &[1, 1];
    const EXPIRY: &[u8] = &[2, 0, 0, 0, 60];
    const CONTENT_TYPE: &[u8] = b"\x03\x00\x04text";
    const RESPONSE_TOPIC: &[u8] = b"\x08\x00\x03a/b";
    const CORRELATION: &[u8] = b"\x09\x00\x02\xff\x00";
    const ALIAS: &[u8] = &[0x23, 0, 7];
    const DELAY: &[u8] = &[0x18, 0, 0, 0, 9];
    const USER_1: &[u8] = b"\x26\x00\x01k\x00\x011";
    const USER_2: &[u8] = b"\x26\x00\x01k\x00\x012";

    fn forwarded(properties: &PublishProperties<'_>) -> Vec<u8> {
        let mut out = vec![0xee];
        properties.write_forwardable(&mut out);
        assert_eq!(out.remove(0), 0xee);
        out
    }

    #[test]
    fn nothing_is_forwardable() {
        let none = PublishProperties::parse(&[]).unwrap();
        assert_eq!(none, PublishProperties::NONE);
        assert!(none.forwardable() && forwarded(&none).is_empty());
        assert_eq!((none.response_topic(), none.correlation_data(), none.content_type()), (None, None, None));
        assert_eq!(none.user_properties().count(), 0);
    }

    /// [MQTT-3.3.2-4], [MQTT-3.3.2-15] to [MQTT-3.3.2-18], [MQTT-3.3.2-20]
    #[test]
    fn what_is_passed_on_keeps_bytes_and_order() {
        let raw = [USER_1, EXPIRY, CORRELATION, FORMAT, ALIAS, USER_2, RESPONSE_TOPIC, CONTENT_TYPE, USER_1]
            .concat();
        let properties = PublishProperties::parse(&raw).unwrap();
        assert_eq!(properties.raw(), raw);
        assert_eq!(properties.payload_format_indicator, Some(1));
        assert_eq!(properties.message_expiry_interval, Some(60));
        assert_eq!(properties.topic_alias, NonZeroU16::new(7));
        assert_eq!(properties.response_topic(), Some("a/b"));
        assert_eq!(properties.correlation_data(), Some(&b"\xff\x00"[..]));
        assert_eq!(properties.content_type(), Some("text"));
        assert!(properties.user_properties().eq([("k", "1"), ("k", "2"), ("k", "1")]));
        assert!(!properties.forwardable());
        let expected = [USER_1, CORRELATION, FORMAT, USER_2, RESPONSE_TOPIC, CONTENT_TYPE, USER_1].concat();
        assert_eq!(forwarded(&properties), expected);
        let again = PublishProperties::parse(&expected).unwrap();
        assert!(again.forwardable());
        assert_eq!(forwarded(&again), expected);
    }

    #[test]
    fn alias_and_expiry_each_prevent_forwarding_as_is() {
        for (raw, left) in [(EXPIRY, &[][..]), (ALIAS, &[]), (FORMAT, FORMAT)] {
            let properties = PublishProperties::parse(raw).unwrap();
            assert_eq!(properties.forwardable(), raw == left);
            assert_eq!(forwarded(&properties), left);
        }
    }

    #[test]
    fn a_will_is_forwarded_without_its_delay() {
        let raw = [USER_1, DELAY, CONTENT_TYPE].concat();
        let (properties, delay) = PublishProperties::read(PropertyReader::new(&raw, Carrier::Will)).unwrap();
        assert_eq!((delay, properties.forwardable(), properties.content_type()), (9, false, Some("text")));
        assert_eq!(forwarded(&properties), [USER_1, CONTENT_TYPE].concat());
    }

    /// [MQTT-3.3.2-14]
    #[test]
    fn response_topics_are_topic_names() {
        for topic in [&b"\x00\x00"[..], b"\x00\x01+", b"\x00\x03a/#"] {
            let error = PublishProperties::parse(&[&[8], topic].concat()).expect_err("must be refused");
            assert_eq!(error.reason_code().byte(), 0x82, "{error}");
        }
    }

    /// [MQTT-3.3.4-6]
    #[test]
    fn subscription_identifiers_are_the_servers() {
        let error = PublishProperties::parse(&[11, 1]).expect_err("must be refused");
        assert_eq!(error, DecodeError::SubscriptionIdFromClient);
    }
}
