//! `FlushPromise`: who writes what was added to a client's output.
//!
//! A turn that adds to it notes the client once and writes at its end; others that add meanwhile
//! leave it to that turn. A connection may also put the write off to one of its next turns
//! ([`deferred`](super::deferred)), but only what nobody else relies on: their messages do not wait
//! for its next turns.
//!
//! Under the client's lock. What it assumes: a connection runs one turn at a time, and whoever
//! promises keeps it, or wakes the client's own task.

/// See the module's documentation. By default nobody has promised anything.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlushPromise {
    /// Who: 0 is nobody.
    by: u32,
    when: When,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum When {
    /// At the end of the turn.
    #[default]
    Now,
    /// The same, and others have added something.
    ReliedOn,
    /// In one of the connection's next turns; the client is on its list. Others that add something
    /// had better promise anew.
    Later,
    /// At the end of this turn, unless it is put off again. The client is on the list already, or
    /// its task was woken from there and has not written yet.
    Listed,
}

/// Who promises: a connection, or one turn of nobody's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promiser(u32);

/// What it means for the one who adds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promised {
    /// Somebody has promised before: there is nothing to do.
    Before,
    /// He has to note the client.
    Now,
    /// The same; it is one that he has put off, so it costs no further write.
    Again,
}

/// What becomes of a promise that is to be put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// It is put off; the client has to come on the list.
    Deferred,
    /// It is put off again: the client is on the list.
    Listed,
    /// Others rely on it.
    Refused,
    /// It is kept already, or another's by now.
    Kept,
}

impl Promiser {
    /// A new one, unlike all others but for one in two billion.
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed) | 1 << 31)
    }
}

impl FlushPromise {
    /// Something was added by him.
    #[must_use = "the promise has to be kept"]
    #[inline]
    pub(crate) fn promise(&mut self, by: Promiser) -> Promised {
        let is_his = self.by == by.0;
        if self.when == When::Later {
            if is_his {
                self.when = When::Listed;
                return Promised::Again;
            }
        } else if is_his {
            return Promised::Before;
        } else if self.by != 0 {
            self.when = When::ReliedOn;
            return Promised::Before;
        }
        *self = Self { by: by.0, when: When::Now };
        Promised::Now
    }

    /// He would like to keep it later.
    pub(crate) fn defer(&mut self, by: Promiser) -> Deferral {
        if self.by != by.0 {
            return Deferral::Kept;
        }
        match std::mem::replace(&mut self.when, When::Later) {
            When::Now => Deferral::Deferred,
            When::Listed | When::Later => Deferral::Listed,
            When::ReliedOn => {
                self.when = When::ReliedOn;
                Deferral::Refused
            }
        }
    }

    /// It is put off though others rely on it; the client comes on the list.
    pub(crate) fn put_off(&mut self) {
        self.when = When::Later;
    }

    /// The output is being written.
    pub(crate) fn keep(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_promises_and_others_leave_it_to_him() {
        let (a, b) = (Promiser::new(), Promiser::new());
        assert_ne!(a, b);
        let mut promise = FlushPromise::default();
        assert_eq!(promise.promise(a), Promised::Now);
        assert_eq!([promise.promise(a), promise.promise(b)], [Promised::Before; 2]);
        promise.keep();
        assert_eq!(promise.promise(b), Promised::Now);
    }

    #[test]
    fn what_others_rely_on_is_not_put_off() {
        let (a, b) = (Promiser::new(), Promiser::new());
        // Also where it was put off before.
        for is_listed in [false, true] {
            let mut promise = FlushPromise::default();
            assert_eq!(promise.promise(a), Promised::Now);
            if is_listed {
                assert_eq!(promise.defer(a), Deferral::Deferred);
                assert_eq!(promise.promise(a), Promised::Again);
            }
            assert_eq!([promise.promise(b), promise.promise(a)], [Promised::Before; 2]);
            assert_eq!(promise.defer(a), Deferral::Refused);
            promise.keep();
            assert_eq!(promise.promise(a), Promised::Now);
            assert_eq!(promise.defer(a), Deferral::Deferred, "it is not on the list as far as one knows");
        }
    }

    #[test]
    fn he_who_has_put_it_off_goes_on_with_it() {
        let a = Promiser::new();
        let mut promise = FlushPromise::default();
        assert_eq!(promise.promise(a), Promised::Now);
        assert_eq!(promise.defer(a), Deferral::Deferred);
        for _ in 0..3 {
            assert_eq!([promise.promise(a), promise.promise(a)], [Promised::Again, Promised::Before]);
            assert_eq!(promise.defer(a), Deferral::Listed);
        }
    }

    #[test]
    fn what_was_put_off_is_promised_anew_by_others() {
        let (a, b) = (Promiser::new(), Promiser::new());
        let mut promise = FlushPromise::default();
        assert_eq!(promise.promise(a), Promised::Now);
        assert_eq!(promise.defer(a), Deferral::Deferred);
        assert_eq!([promise.promise(b), promise.promise(b)], [Promised::Now, Promised::Before]);
        assert_eq!(promise.defer(a), Deferral::Kept, "it is not his any more");
        assert_eq!(promise.defer(b), Deferral::Deferred);
    }
}
