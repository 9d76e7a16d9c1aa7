//! `PublishRate`: how fast one client is read (`limits.publish_rate_max`, `limits.publish_bytes_rate_max`).
//!
//! What a read brought is taken from a bucket that holds one second's worth; a client that owes is not read until it owes nothing, so nothing is
//! lost. As its packets wait behind one another, so do its acknowledgements and PINGREQ: while it is held its keep alive is not judged.

use std::time::Duration;

use super::worker::READ_BYTES;
use crate::broker::Bucket;
use crate::config::Limits;
use crate::session::Timestamp;

/// See the module's documentation.
pub(super) struct PublishRate {
    messages: Option<(usize, Bucket)>,
    bytes: Option<(usize, Bucket)>,
    read_max: usize,
    is_told: bool,
}

/// The least that is read at once from a client whose rate is bounded.
const READ_LEAST: usize = 1_024;

impl PublishRate {
    /// `None` without bounds, which is the default.
    pub(super) fn new(limits: &Limits, now: Timestamp) -> Option<Box<Self>> {
        let bucket = |max: Option<usize>| max.map(|max| (max, Bucket::full(max, now)));
        let (messages, bytes) = (bucket(limits.publish_rate_max), bucket(limits.publish_bytes_rate_max));
        if messages.is_none() && bytes.is_none() {
            return None;
        }
        // One read is not to bring what then takes minutes: the shortest PUBLISH has five bytes.
        let by_messages = limits.publish_rate_max.map_or(READ_BYTES, |max| max.saturating_mul(4));
        let by_bytes = limits.publish_bytes_rate_max.unwrap_or(READ_BYTES);
        let read_max = by_messages.min(by_bytes).clamp(READ_LEAST, READ_BYTES);
        Some(Box::new(Self { messages, bytes, read_max, is_told: false }))
    }

    /// How many bytes are to be read at once.
    pub(super) fn read_max(&self) -> usize {
        self.read_max
    }

    /// A read brought so many bytes.
    pub(super) fn took_bytes(&mut self, n: usize, now: Timestamp) {
        if let Some((max, bucket)) = &mut self.bytes {
            bucket.take(n, *max, *max, now);
        }
    }

    /// So many PUBLISH packets were in it.
    pub(super) fn took_messages(&mut self, n: usize, now: Timestamp) {
        if let Some((max, bucket)) = &mut self.messages {
            bucket.take(n, *max, *max, now);
        }
    }

    /// For how long the client is not to be read, and which limit it is.
    pub(super) fn owes(&mut self, now: Timestamp) -> Option<(Duration, &'static str)> {
        let owes = |bound: &mut Option<(usize, Bucket)>, limit| {
            let (max, bucket) = bound.as_mut()?;
            Some((bucket.owes(*max, *max, now)?, limit))
        };
        let messages = owes(&mut self.messages, "publish_rate_max");
        let bytes = owes(&mut self.bytes, "publish_bytes_rate_max");
        messages.max(bytes)
    }

    /// Whether this is the first time that the connection is held.
    pub(super) fn tell_once(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn without_bounds_there_is_nothing_to_ask() {
        assert!(PublishRate::new(&Limits::default(), at(0)).is_none());
    }

    #[test]
    fn the_longer_wait_counts() {
        let limits =
            Limits { publish_rate_max: Some(10), publish_bytes_rate_max: Some(10_000), ..Limits::default() };
        let mut rate = PublishRate::new(&limits, at(0)).expect("bounds");
        assert_eq!(rate.read_max(), READ_LEAST);
        rate.took_bytes(10_000, at(0));
        rate.took_messages(10, at(0));
        assert_eq!(rate.owes(at(0)), None);
        rate.took_messages(5, at(0));
        assert_eq!(rate.owes(at(0)), Some((Duration::from_millis(500), "publish_rate_max")));
        rate.took_bytes(20_000, at(0));
        assert_eq!(rate.owes(at(0)), Some((Duration::from_secs(2), "publish_bytes_rate_max")));
        assert_eq!(rate.owes(at(2_000)), None);
    }
}
