//! `Bucket`: a token bucket on the broker's clock. It counts thousandths, so that a rate of one a second fills it every millisecond.

use std::time::Duration;

use crate::session::Timestamp;

/// See the module's documentation. The rate (per second) and the size of the bucket are given with each call: they are the limit's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    /// Thousandths; below zero is owed.
    level: i64,
    at: Timestamp,
}

impl Bucket {
    /// A full one.
    pub(crate) fn full(size: usize, now: Timestamp) -> Self {
        Self { level: thousandths(size), at: now }
    }

    /// Takes out `n`, which may be more than there is: the rest is owed.
    pub(crate) fn take(&mut self, n: usize, rate: usize, size: usize, now: Timestamp) {
        self.refill(rate, size, now);
        self.level = self.level.saturating_sub(thousandths(n));
    }

    /// Takes one out if there is one.
    pub(super) fn try_take(&mut self, rate: usize, size: usize, now: Timestamp) -> bool {
        self.refill(rate, size, now);
        let is_there = self.level >= thousandths(1);
        if is_there {
            self.level -= thousandths(1);
        }
        is_there
    }

    /// How long it takes until nothing is owed any more; `None` if nothing is.
    pub(crate) fn owes(&mut self, rate: usize, size: usize, now: Timestamp) -> Option<Duration> {
        self.refill(rate, size, now);
        let owed = u64::try_from(self.level.saturating_neg()).ok().filter(|owed| *owed > 0)?;
        // Thousandths by a number per second: milliseconds.
        Some(Duration::from_millis(owed.div_ceil((rate as u64).max(1))))
    }

    /// When it was used last.
    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    fn refill(&mut self, rate: usize, size: usize, now: Timestamp) {
        let elapsed = i64::try_from(now.since(self.at).as_millis()).unwrap_or(i64::MAX);
        let more = elapsed.saturating_mul(i64::try_from(rate).unwrap_or(i64::MAX));
        self.level = self.level.saturating_add(more).min(thousandths(size));
        self.at = now;
    }
}

fn thousandths(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_burst_is_given_at_once_and_then_the_rate() {
        let mut bucket = Bucket::full(6, at(0));
        assert_eq!((0..10).filter(|_| bucket.try_take(3, 6, at(0))).count(), 6);
        assert!(!bucket.try_take(3, 6, at(333)));
        assert!(bucket.try_take(3, 6, at(334)));
        // However long nothing comes: no more than a burst.
        assert_eq!((0..10).filter(|_| bucket.try_take(3, 6, at(1_000_000))).count(), 6);
    }

    #[test]
    fn what_is_owed_takes_its_time() {
        let mut bucket = Bucket::full(10, at(0));
        bucket.take(10, 10, 10, at(0));
        assert_eq!(bucket.owes(10, 10, at(0)), None);
        bucket.take(25, 10, 10, at(0));
        assert_eq!(bucket.owes(10, 10, at(0)), Some(Duration::from_millis(2_500)));
        assert_eq!(bucket.owes(10, 10, at(2_499)), Some(Duration::from_millis(1)));
        assert_eq!(bucket.owes(10, 10, at(2_500)), None);
    }

    #[test]
    fn no_numbers_overflow() {
        let mut bucket = Bucket::full(usize::MAX, at(0));
        bucket.take(usize::MAX, usize::MAX, usize::MAX, at(u64::MAX));
        bucket.take(usize::MAX, 1, 1, at(u64::MAX));
        bucket.take(usize::MAX, 1, 1, at(u64::MAX));
        assert!(bucket.owes(0, 1, at(0)).is_some());
    }
}
