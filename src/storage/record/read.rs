//! Reading records back: whatever the bytes are, it ends with records or with nothing, never with a panic.

use std::time::Duration;

use super::{
    Begun, ClockRecord, DeliverRecord, Keep, MessageRecord, NO_LOCAL, Numbers, RETAIN, RETAIN_AS_PUBLISHED,
    Record, SHARED, SessionRecord, SourceRecord, SubscribeRecord, WillRecord,
};
use crate::protocol::QoS;

/// The records of a frame's body, in their order; ends early where they cannot be read, with `false` from
/// [`is_whole`](Self::is_whole).
pub(crate) struct Records<'a> {
    rest: Reader<'a>,
    whole: bool,
}

impl<'a> Records<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { rest: Reader(body), whole: true }
    }

    /// Whether every record so far could be read.
    pub(crate) fn is_whole(&self) -> bool {
        self.whole
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        while !self.rest.0.is_empty() {
            let read = self.rest.byte().and_then(|kind| {
                let length = self.rest.take(4)?;
                let length = u32::from_le_bytes(length.try_into().ok()?);
                Some((kind, self.rest.take(length as usize)?))
            });
            let Some((kind, fields)) = read else {
                self.rest = Reader(&[]);
                self.whole = false;
                return None;
            };
            if !(1..=20).contains(&kind) {
                continue;
            }
            match read_record(kind, Reader(fields)) {
                Some(record) => return Some(record),
                None => self.whole = false,
            }
        }
        None
    }
}

fn read_record<'a>(kind: u8, mut r: Reader<'a>) -> Option<Record<'a>> {
    Some(match kind {
        1 => Record::Message(MessageRecord {
            qos: qos(r.byte()?)?,
            expires_at: Some(r.number()?).filter(|at| *at > 0),
            topic: r.text()?,
            properties: r.bytes()?,
            payload: r.bytes()?,
        }),
        2 => {
            let (session, sequence, flags) = (r.number()?, r.number()?, r.byte()?);
            Record::Deliver(DeliverRecord {
                session,
                sequence,
                qos: qos(flags)?,
                retain: flags & RETAIN != 0,
                subscription_ids: r.numbers()?,
                shared: if flags & SHARED != 0 { Some(r.text()?) } else { None },
            })
        }
        3 => {
            let revision = r.number()?;
            let client_id = r.text().filter(|client_id| !client_id.is_empty());
            let source = client_id.map(|client_id| SourceRecord { client_id, user: r.user_name() });
            Record::Retain { revision, source }
        }
        4 => Record::Unretain { revision: r.number()?, topic: r.text()? },
        5 => Record::Received { session: r.number()?, id: r.id()? },
        6 => Record::Released { session: r.number()?, id: r.id()? },
        7 => Record::Finished { session: r.number()?, sequences: r.numbers()? },
        8 => Record::Completing { session: r.number()?, sequence: r.number()?, id: r.id()? },
        9 => {
            let (session, keep, client_id) = (r.number()?, r.keep()?, r.text()?);
            let epoch = r.number().unwrap_or(0);
            Record::Session(SessionRecord { session, keep, client_id, epoch, user: r.user_name() })
        }
        10 => Record::SessionEnd { session: r.number()? },
        11 => {
            let (session, flags) = (r.number()?, r.byte()?);
            Record::Subscribe(SubscribeRecord {
                session,
                qos: qos(flags)?,
                no_local: flags & NO_LOCAL != 0,
                retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
                subscription_id: u32::try_from(r.number()?).ok()?,
                filter: r.text()?,
            })
        }
        12 => Record::Unsubscribe { session: r.number()?, filter: r.text()? },
        13 => {
            let (session, since, keep, at_least_once) = (r.number()?, r.number()?, r.keep()?, r.number()?);
            let exactly_once = r.number().unwrap_or(at_least_once);
            Record::Detached { session, since, keep, begun: Begun { at_least_once, exactly_once } }
        }
        14 => {
            let (will, session, flags) = (r.number()?, r.number()?, r.byte()?);
            Record::Will(WillRecord {
                will,
                session,
                qos: qos(flags)?,
                retain: flags & RETAIN != 0,
                delay: Duration::from_secs(r.number()?),
                expiry_seconds: r.number()?.checked_sub(1).and_then(|seconds| u32::try_from(seconds).ok()),
                topic: r.text()?,
                properties: r.bytes()?,
                payload: r.bytes()?,
                client_id: r.text().unwrap_or_default(),
                user: r.user_name(),
            })
        }
        15 => Record::WillEnd { will: r.number()? },
        16 => Record::Snapshot {
            session: r.number()?,
            next_sequence: r.number()?,
            live: r.numbers()?,
            received: r.numbers()?,
        },
        17 => Record::Revisions { differences: r.numbers()? },
        18 => Record::Counters { next_key: r.number()?, next_revision: r.number()? },
        19 => Record::Clock(ClockRecord { log_time: r.number()?, wall: r.number()? }),
        20 => Record::GivenUp { session: r.number()?, runs: r.numbers()? },
        _ => return None,
    })
}

fn qos(flags: u8) -> Option<QoS> {
    match flags & 3 {
        0 => Some(QoS::AtMostOnce),
        1 => Some(QoS::AtLeastOnce),
        2 => Some(QoS::ExactlyOnce),
        _ => None,
    }
}

#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn id(&mut self) -> Option<u16> {
        u16::try_from(self.number()?).ok().filter(|id| *id > 0)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// None if it is missing.
    fn user_name(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?.checked_sub(1)?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn keep(&mut self) -> Option<Keep> {
        Some(self.number()?.checked_sub(1).map(Duration::from_secs))
    }

    /// The numbers are looked through once, so that what follows them can be read.
    fn numbers<T>(&mut self) -> Option<Numbers<'a, T>> {
        let count = usize::try_from(self.number()?).ok()?;
        let start = self.0;
        for _ in 0..count {
            self.number()?;
        }
        let bytes = start.get(..start.len() - self.0.len())?;
        Some(Numbers::Encoded { count, bytes })
    }
}
