//! A cursor over the body of one packet: fields in their order, never past the end.
//!
//! Every method takes the field it reads, so that an error says where the packet was cut or wrong.

use super::error::{DecodeError, Field, TopicError};
use super::properties::{Carrier, PropertyReader};
use super::topic::{forbidden_in_topic_name, validate_topic_name};
use super::{PacketId, topic};

/// The bytes of a body that have not been read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(body: &'a [u8]) -> Self {
        Self { rest: body }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) fn u8(&mut self, field: Field) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self, field: Field) -> Result<u16, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    pub(crate) fn u32(&mut self, field: Field) -> Result<u32, DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    /// A variable byte integer (MQTT 5, section 1.5.5) of at most four bytes, in its shortest form
    /// [MQTT-1.5.5-1].
    #[inline]
    pub(crate) fn variable(&mut self, field: Field) -> Result<u32, DecodeError> {
        let first = self.u8(field)?;
        let mut number = u32::from(first & 0x7f);
        let (mut byte, mut shift) = (first, 0);
        while byte & 0x80 != 0 {
            shift += 7;
            if shift > 21 {
                return Err(DecodeError::BadVariableByteInteger { field });
            }
            byte = self.u8(field)?;
            if byte == 0 {
                return Err(DecodeError::BadVariableByteInteger { field });
            }
            number |= u32::from(byte & 0x7f) << shift;
        }
        Ok(number)
    }

    /// A property section behind its length (MQTT 5, section 2.2.2).
    #[inline]
    pub(crate) fn properties(&mut self, carrier: Carrier) -> Result<PropertyReader<'a>, DecodeError> {
        let field = Field::Properties;
        let len = usize::try_from(self.variable(field)?).unwrap_or(usize::MAX);
        let (section, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(PropertyReader::new(section, carrier))
    }

    /// A packet id; 0 is a violation [MQTT-2.3.1-1].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        PacketId::new(self.u16(Field::PacketId)?).ok_or(DecodeError::PacketIdZero)
    }

    /// Bytes behind their two-byte length (section 1.5.3).
    #[inline]
    pub(crate) fn bytes(&mut self, field: Field) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(self.u16(field)?);
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated { field })?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A string: well-formed UTF-8 [MQTT-1.5.3-1] without U+0000 [MQTT-1.5.3-2].
    ///
    /// U+FEFF is kept as a character [MQTT-1.5.3-3]. Control characters and non-characters are let through:
    /// the standard only says that they SHOULD NOT be sent.
    pub(crate) fn string(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let text = utf8(self.bytes(field)?, field)?;
        if text.as_bytes().contains(&0) {
            return Err(DecodeError::NulInString { field });
        }
        Ok(text)
    }

    /// A topic name: a string without wildcards, of at least one character.
    ///
    /// This runs for every PUBLISH. `from_utf8` cannot be spared: without `unsafe` it is the only way to a
    /// `&str`, and it has a fast path for ASCII of its own. Looking for non-ASCII beside it would be work
    /// done twice, so the pass of our own looks for U+0000, `+` and `#` together, which never are part of a
    /// longer character. For 20 bytes `from_utf8` took 5-7 ns, that pass 4 ns, and the same search byte by
    /// byte 9 ns.
    #[inline]
    pub(crate) fn topic_name(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let text = self.topic_name_or_empty(field)?;
        if text.is_empty() {
            return Err(DecodeError::topic(field, TopicError::Empty));
        }
        Ok(text)
    }

    /// As [`topic_name`](Self::topic_name), but there may be no character: the topic of a PUBLISH of MQTT 5
    /// that has an alias.
    #[inline]
    pub(crate) fn topic_name_or_empty(&mut self, field: Field) -> Result<&'a str, DecodeError> {
        let text = utf8(self.bytes(field)?, field)?;
        if forbidden_in_topic_name(text.as_bytes()) {
            // Which rule it was is found out in the slow pass.
            validate_topic_name(text).map_err(|error| DecodeError::topic(field, error))?;
        }
        Ok(text)
    }

    /// A topic filter (section 4.7).
    pub(crate) fn topic_filter(&mut self) -> Result<&'a str, DecodeError> {
        let field = Field::TopicFilter;
        let text = utf8(self.bytes(field)?, field)?;
        topic::validate_topic_filter(text).map_err(|error| DecodeError::topic(field, error))?;
        Ok(text)
    }

    /// A string whose place has been checked before. `None` cannot come of that; it is what is left where
    /// neither `unsafe` nor a panic is wanted.
    pub(crate) fn checked_before(&mut self, field: Field) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(field).ok()?).ok()
    }

    /// Nothing may be left behind the last field.
    #[inline]
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            count => Err(DecodeError::TrailingBytes { count }),
        }
    }
}

#[inline]
fn utf8(bytes: &[u8], field: Field) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::BadUtf8 { field })
}
