//! `FlushPromise`: who writes what was added to a client's output.
//!
//! A turn that adds to it notes the client once and writes at its end; others that add meanwhile
//! leave it to that turn. A turn may also put the write off for a few turns
//! ([`deferred`](super::deferred)), but only what nobody else relies on: their messages do not wait
//! for its next turns.
//!
//! Under the client's lock. What it assumes: one thread runs one turn at a time, and whoever
//! promises keeps it, or wakes the client's own task.

/// See the module's documentation. By default nobody has promised anything.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlushPromise {
    /// Who: 0 is nobody.
    by: u32,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the end of the turn.
    #[default]
    Now,
    /// The same, and others have added something.
    ReliedOn,
    /// Some turns later. Whoever adds something had better promise anew.
    Deferred,
}

/// Who promises: a thread, for its turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Promiser(u32);

/// What becomes of a promise that is to be put off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deferral {
    /// It is put off.
    Deferred,
    /// Others rely on it.
    Refused,
    /// It is kept already.
    Kept,
}

impl Promiser {
    /// A new one, unlike all others but for one in four billion.
    pub(crate) fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed) | 1 << 31)
    }
}

impl FlushPromise {
    /// Something was added. `true`: it is the caller who has promised, just now, and has to note it.
    #[must_use = "the promise has to be kept"]
    pub(crate) fn promise(&mut self, by: Promiser) -> bool {
        if self.by == 0 || self.state == State::Deferred {
            *self = Self { by: by.0, state: State::Now };
            return true;
        }
        if self.by != by.0 {
            self.state = State::ReliedOn;
        }
        false
    }

    /// The caller would like to keep it later.
    pub(crate) fn defer(&mut self, by: Promiser) -> Deferral {
        if self.by != by.0 {
            return Deferral::Kept;
        }
        match self.state {
            State::ReliedOn => Deferral::Refused,
            State::Now | State::Deferred => {
                self.state = State::Deferred;
                Deferral::Deferred
            }
        }
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
        assert!(promise.promise(a));
        assert!(!promise.promise(a) && !promise.promise(b));
        promise.keep();
        assert!(promise.promise(b));
    }

    #[test]
    fn what_others_rely_on_is_not_put_off() {
        let (a, b) = (Promiser::new(), Promiser::new());
        let mut promise = FlushPromise::default();
        assert!(promise.promise(a) && !promise.promise(b) && !promise.promise(a));
        assert_eq!(promise.defer(a), Deferral::Refused);
    }

    #[test]
    fn what_was_put_off_is_promised_anew_by_whoever_adds_something() {
        let (a, b) = (Promiser::new(), Promiser::new());
        for (next, other) in [(a, b), (b, a)] {
            let mut promise = FlushPromise::default();
            assert!(promise.promise(a) && !promise.promise(a));
            assert_eq!(promise.defer(a), Deferral::Deferred);
            assert!(promise.promise(next) && !promise.promise(next));
            assert_eq!(promise.defer(other), Deferral::Kept, "it is not this one's any more");
            assert_eq!(promise.defer(next), Deferral::Deferred);
            promise.keep();
            assert_eq!(promise.defer(next), Deferral::Kept);
        }
    }
}
