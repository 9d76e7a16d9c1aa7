//! One filter with its options as bytes: `length u16, flags u8, [identifier u32,] text`, little endian. Records stand in a row without gaps.

use std::num::NonZeroU32;

use super::FilterOptions;
use crate::protocol::QoS;

/// Length and flags.
const HEAD: usize = 3;
const ID: usize = 4;
const QOS: u8 = 3;
const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
const HAS_ID: u8 = 16;

/// A record in a buffer.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    bytes: &'a [u8],
    text: &'a [u8],
}

impl<'a> Record<'a> {
    /// The one at the beginning of these bytes.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let [low, high, flags] = *bytes.first_chunk()?;
        let start = HEAD + if flags & HAS_ID == 0 { 0 } else { ID };
        let end = start + usize::from(u16::from_le_bytes([low, high]));
        let bytes = bytes.get(..end)?;
        Some(Self { bytes, text: bytes.get(start..)? })
    }

    /// Bytes of the whole record.
    pub(super) fn len(self) -> usize {
        self.bytes.len()
    }

    /// Whether this is the filter, compared byte by byte.
    pub(super) fn is(self, filter: &str) -> bool {
        self.text == filter.as_bytes()
    }

    /// The filter's bytes, to be hashed.
    pub(super) fn text(self) -> &'a [u8] {
        self.text
    }

    pub(super) fn filter(self) -> &'a str {
        // What went in as text comes out as text.
        std::str::from_utf8(self.text).unwrap_or_default()
    }

    pub(super) fn options(self) -> FilterOptions {
        let flags = self.bytes.get(2).copied().unwrap_or_default();
        let id = self.bytes.get(HEAD..).and_then(|rest| rest.first_chunk()).filter(|_| flags & HAS_ID != 0);
        FilterOptions {
            qos: match flags & QOS {
                0 => QoS::AtMostOnce,
                1 => QoS::AtLeastOnce,
                _ => QoS::ExactlyOnce,
            },
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
            subscription_id: id.and_then(|id| NonZeroU32::new(u32::from_le_bytes(*id))),
        }
    }
}

/// All records of a buffer.
pub(super) fn all(bytes: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let record = Record::first(rest)?;
        rest = rest.get(record.len()..).unwrap_or_default();
        Some(record)
    })
}

/// Bytes of the record of this filter.
pub(super) fn size(filter: &str, options: FilterOptions) -> usize {
    HEAD + options.subscription_id.map_or(0, |_| ID) + text(filter).len()
}

/// Appends it.
pub(super) fn write(records: &mut Vec<u8>, filter: &str, options: FilterOptions) {
    let FilterOptions { qos, no_local, retain_as_published, subscription_id } = options;
    let mut flags = qos as u8;
    for (is_set, flag) in [
        (no_local, NO_LOCAL),
        (retain_as_published, RETAIN_AS_PUBLISHED),
        (subscription_id.is_some(), HAS_ID),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    let text = text(filter);
    records.extend_from_slice(&(text.len() as u16).to_le_bytes());
    records.push(flags);
    records.extend(subscription_id.into_iter().flat_map(|id| id.get().to_le_bytes()));
    records.extend_from_slice(text);
}

/// A text in MQTT has at most 65,535 bytes.
fn text(filter: &str) -> &[u8] {
    let text = filter.as_bytes();
    text.get(..usize::from(u16::MAX)).unwrap_or(text)
}
