//! What stands in the log's frames: records, and how their bytes are laid out (format version 1).
//!
//! A frame's body is a row of records, and takes effect as a whole. Each record is `kind u8, length u32, fields`; numbers are little
//! endian. `n` below is a variable number (seven bits a byte, lowest first, the top bit says that more follow); `text` and `bytes`
//! are `n` and so many bytes; a user name is 0, or `n` = its bytes + 1 and they. A reader passes over kinds it does not know and over what stands behind the fields it knows, so that
//! later versions can add both.
//!
//! | kind | record | fields |
//! |---|---|---|
//! | 1 | Message | QoS u8, expiry n (log time, 0: never), topic text, properties bytes (wire form), payload bytes |
//! | 2 | Deliver | session n, sequence n, flags u8 (bits 0-1 QoS, 2 RETAIN, 3 shared), ids: count n and each n, [filter text] |
//! | 3 | Retain | revision n, client id text (empty: nobody's, also if it is missing), user name (none if it is missing): the frame's Message is its topic's retained message, and was stored by them |
//! | 4 | Unretain | revision n, topic text: up to this revision nothing is retained there |
//! | 5 | Received | session n, packet id n: a QoS 2 PUBLISH of this client |
//! | 6 | Released | session n, packet id n: its PUBREL |
//! | 7 | Finished | session n, count n, sequences n each: deliveries that are over |
//! | 8 | Completing | session n, sequence n, packet id n: PUBREC came, PUBREL goes |
//! | 9 | Session | session n, keep n (0: for ever, else seconds + 1), client id text, epoch n (0 if it is missing), user name (none if it is missing): it exists, and has the connection that is counted so |
//! | 10 | SessionEnd | session n |
//! | 11 | Subscribe | session n, flags u8 (bits 0-1 QoS, 2 No Local, 3 Retain As Published), identifier n (0: none), filter text |
//! | 12 | Unsubscribe | session n, filter text |
//! | 13 | Detached | session n, since n (log time), keep n, begun n, begun2 n (`begun` if it is missing): its connection ended; sequences below `begun`, at QoS 2 below `begun2`, were sent |
//! | 14 | Will | will n, session n (0: none that lasts), flags u8 (bits 0-1 QoS, 2 RETAIN), delay n (s), expiry n (s + 1, 0: none), topic text, properties bytes, payload bytes, client id text (empty if it is missing), user name (none if it is missing) |
//! | 15 | WillEnd | will n: published, or not to be |
//! | 16 | Snapshot | session n, next sequence n, live: count n and pairs (first n, length n), received: count n and ids n each |
//! | 17 | Revisions | count n, retained revisions n each, every one as the difference to the one before |
//! | 18 | Counters | next session or will n, next retained revision n |
//! | 19 | Clock | log time n (ms), wall clock n (Unix ms) at that moment |
//! | 20 | GivenUp | session n, count n and pairs (first n, length n): these go to other members of their groups, and were not sent at QoS 2 whatever `begun2` says |
//!
//! Kinds 16 to 18 stand in checkpoints only, with 9, 11, 13, 8, 14 and 20 for the rest of what a checkpoint tells. Bodies of messages
//! never do: a Deliver or Retain in an older segment counts while the checkpoint says that its sequence is live, or its revision.
//! Kind 4 stands in checkpoints for values that were over when it was gathered and whose records may
//! stand behind its position (`broker/superseded.rs`). Format 1 had none there at first. Versions of
//! that time pass over them, and may bring such a value back, as they did with their own checkpoints:
//! no reason for a new number.
//!
//! A sequence is never used twice in a session, a revision never in a broker, so records say the same in whatever order they are read,
//! but for those of one filter and of one packet id, which the log has in their order.
//!
//! Times of kinds 1 and 13 are *log time*: milliseconds that never jump while the broker runs,
//! begun with the wall clock of the first start. Kind 19 says what the wall clock showed then
//! (`broker/clock.rs` has the reasons). It was added to format 1 without a new number: versions
//! that do not know it pass over it and take log time for the wall clock, which is what they wrote
//! themselves; a new number would have them refuse the whole directory for that. Kind 20 was added in
//! the same way: who does not know it has the session keep what it was about to give away.

mod read;
#[cfg(test)]
mod tests;

use std::time::Duration;

use read::Reader;
pub(crate) use read::Records;

use crate::protocol::QoS;

/// A message as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageRecord<'a> {
    pub(crate) qos: QoS,
    /// Log time.
    pub(crate) expires_at: Option<u64>,
    pub(crate) topic: &'a str,
    /// Properties passed on unchanged, in wire form.
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A message stands in a session's queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliverRecord<'a> {
    pub(crate) session: u64,
    pub(crate) sequence: u64,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Numbers<'a, u32>,
    pub(crate) shared: Option<&'a str>,
}

/// A will as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WillRecord<'a> {
    pub(crate) will: u64,
    /// The client's session, if it outlives the connection; else 0.
    pub(crate) session: u64,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) delay: Duration,
    pub(crate) expiry_seconds: Option<u32>,
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// Whose it is.
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
}

/// Who stored a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourceRecord<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: Option<&'a str>,
}

/// A session as it is stored, without what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionRecord<'a> {
    pub(crate) session: u64,
    pub(crate) keep: Keep,
    pub(crate) client_id: &'a str,
    /// How many connections it has had.
    pub(crate) epoch: u64,
    /// The user it belongs to.
    pub(crate) user: Option<&'a str>,
}

/// A subscription as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SubscribeRecord<'a> {
    pub(crate) session: u64,
    pub(crate) qos: QoS,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0: none.
    pub(crate) subscription_id: u32,
    pub(crate) filter: &'a str,
}

/// What the wall clock showed at a moment of log time, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClockRecord {
    pub(crate) log_time: u64,
    /// Of the Unix epoch.
    pub(crate) wall: u64,
}

/// Below which positions deliveries may have been sent, at QoS 1 and at QoS 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) at_least_once: u64,
    pub(crate) exactly_once: u64,
}

/// How long a session stays without a connection; `None`: until a client begins anew.
pub(crate) type Keep = Option<Duration>;

/// One record of a frame. See the module's documentation for what each says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[rustfmt::skip]
pub(crate) enum Record<'a> {
    Message(MessageRecord<'a>),
    Deliver(DeliverRecord<'a>),
    Retain { revision: u64, source: Option<SourceRecord<'a>> },
    Unretain { revision: u64, topic: &'a str },
    Received { session: u64, id: u16 },
    Released { session: u64, id: u16 },
    Finished { session: u64, sequences: Numbers<'a, u64> },
    Completing { session: u64, sequence: u64, id: u16 },
    Session(SessionRecord<'a>),
    SessionEnd { session: u64 },
    Subscribe(SubscribeRecord<'a>),
    Unsubscribe { session: u64, filter: &'a str },
    Detached { session: u64, since: u64, keep: Keep, begun: Begun },
    Will(WillRecord<'a>),
    WillEnd { will: u64 },
    /// `live` are pairs: first, length.
    Snapshot { session: u64, next_sequence: u64, live: Numbers<'a, u64>, received: Numbers<'a, u16> },
    /// Each as the difference to the one before.
    Revisions { differences: Numbers<'a, u64> },
    Counters { next_key: u64, next_revision: u64 },
    Clock(ClockRecord),
    /// `runs` are pairs: first, length.
    GivenUp { session: u64, runs: Numbers<'a, u64> },
}

/// Numbers of a record: to be written from a slice, or read where they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'a, T> {
    /// To be written.
    Slice(&'a [T]),
    /// As read; `count` of them.
    Encoded { count: usize, bytes: &'a [u8] },
}

impl<'a, T: Copy + TryFrom<u64>> Numbers<'a, T> {
    pub(crate) fn iter(self) -> impl Iterator<Item = T> + 'a {
        let (slice, mut reader, count) = match self {
            Self::Slice(slice) => (slice, Reader(&[]), 0),
            Self::Encoded { count, bytes } => (&[][..], Reader(bytes), count),
        };
        let encoded = (0..count).map_while(move |_| reader.number().and_then(|n| T::try_from(n).ok()));
        slice.iter().copied().chain(encoded)
    }
}

impl<T: Copy + TryFrom<u64> + PartialEq> PartialEq for Numbers<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Copy + TryFrom<u64> + Eq> Eq for Numbers<'_, T> {}

const RETAIN: u8 = 4;
const SHARED: u8 = 8;
const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;

impl Record<'_> {
    fn kind(&self) -> u8 {
        match self {
            Self::Message(_) => 1,
            Self::Deliver(_) => 2,
            Self::Retain { .. } => 3,
            Self::Unretain { .. } => 4,
            Self::Received { .. } => 5,
            Self::Released { .. } => 6,
            Self::Finished { .. } => 7,
            Self::Completing { .. } => 8,
            Self::Session(_) => 9,
            Self::SessionEnd { .. } => 10,
            Self::Subscribe(_) => 11,
            Self::Unsubscribe { .. } => 12,
            Self::Detached { .. } => 13,
            Self::Will(_) => 14,
            Self::WillEnd { .. } => 15,
            Self::Snapshot { .. } => 16,
            Self::Revisions { .. } => 17,
            Self::Counters { .. } => 18,
            Self::Clock(_) => 19,
            Self::GivenUp { .. } => 20,
        }
    }

    /// Appends the record.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.push(self.kind());
        let length_at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.write_fields(out);
        // A packet has less than 268 MB: no frame comes near 4 GiB.
        let length = u32::try_from(out.len() - length_at - 4).unwrap_or(u32::MAX);
        if let Some(place) = out.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn write_fields(&self, out: &mut Vec<u8>) {
        match *self {
            Self::Message(MessageRecord { qos, expires_at, topic, properties, payload }) => {
                out.push(qos as u8);
                number(out, expires_at.unwrap_or(0));
                bytes(out, topic.as_bytes());
                bytes(out, properties);
                bytes(out, payload);
            }
            Self::Deliver(DeliverRecord { session, sequence, qos, retain, subscription_ids, shared }) => {
                number(out, session);
                number(out, sequence);
                out.push(qos as u8 | flag(retain, RETAIN) | flag(shared.is_some(), SHARED));
                numbers(out, subscription_ids);
                if let Some(shared) = shared {
                    bytes(out, shared.as_bytes());
                }
            }
            Self::Retain { revision, source } => {
                number(out, revision);
                if let Some(SourceRecord { client_id, user }) = source {
                    bytes(out, client_id.as_bytes());
                    user_name(out, user);
                }
            }
            Self::Unretain { revision, topic } => {
                number(out, revision);
                bytes(out, topic.as_bytes());
            }
            Self::Received { session, id } | Self::Released { session, id } => {
                number(out, session);
                number(out, id.into());
            }
            Self::Finished { session, sequences } => {
                number(out, session);
                numbers(out, sequences);
            }
            Self::Completing { session, sequence, id } => {
                number(out, session);
                number(out, sequence);
                number(out, id.into());
            }
            Self::Session(SessionRecord { session, keep: kept, client_id, epoch, user }) => {
                number(out, session);
                keep(out, kept);
                bytes(out, client_id.as_bytes());
                number(out, epoch);
                user_name(out, user);
            }
            Self::SessionEnd { session } => number(out, session),
            Self::Subscribe(subscribe) => {
                number(out, subscribe.session);
                out.push(
                    subscribe.qos as u8
                        | flag(subscribe.no_local, NO_LOCAL)
                        | flag(subscribe.retain_as_published, RETAIN_AS_PUBLISHED),
                );
                number(out, subscribe.subscription_id.into());
                bytes(out, subscribe.filter.as_bytes());
            }
            Self::Unsubscribe { session, filter } => {
                number(out, session);
                bytes(out, filter.as_bytes());
            }
            Self::Detached { session, since, keep: kept, begun } => {
                number(out, session);
                number(out, since);
                keep(out, kept);
                number(out, begun.at_least_once);
                number(out, begun.exactly_once);
            }
            Self::Will(will) => {
                number(out, will.will);
                number(out, will.session);
                out.push(will.qos as u8 | flag(will.retain, RETAIN));
                number(out, will.delay.as_secs());
                number(out, will.expiry_seconds.map_or(0, |seconds| u64::from(seconds) + 1));
                bytes(out, will.topic.as_bytes());
                bytes(out, will.properties);
                bytes(out, will.payload);
                bytes(out, will.client_id.as_bytes());
                user_name(out, will.user);
            }
            Self::WillEnd { will } => number(out, will),
            Self::Snapshot { session, next_sequence, live, received } => {
                number(out, session);
                number(out, next_sequence);
                numbers(out, live);
                numbers(out, received);
            }
            Self::Revisions { differences } => numbers(out, differences),
            Self::GivenUp { session, runs } => {
                number(out, session);
                numbers(out, runs);
            }
            Self::Counters { next_key, next_revision } => {
                number(out, next_key);
                number(out, next_revision);
            }
            Self::Clock(ClockRecord { log_time, wall }) => {
                number(out, log_time);
                number(out, wall);
            }
        }
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn user_name(out: &mut Vec<u8>, name: Option<&str>) {
    number(out, name.map_or(0, |name| name.len() as u64 + 1));
    out.extend_from_slice(name.unwrap_or_default().as_bytes());
}

fn keep(out: &mut Vec<u8>, keep: Keep) {
    number(out, keep.map_or(0, |time| time.as_secs().saturating_add(1)));
}

fn numbers<T: Copy + TryFrom<u64> + Into<u64>>(out: &mut Vec<u8>, list: Numbers<'_, T>) {
    let count = match list {
        Numbers::Slice(slice) => slice.len(),
        Numbers::Encoded { count, .. } => count,
    };
    number(out, count as u64);
    for n in list.iter() {
        number(out, n.into());
    }
}
