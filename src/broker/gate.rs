//! `Gate`: who writes a client's output to its socket; one at a time, and nobody is left to wait
//! for a writer that does not come.
//!
//! Under the client's lock, and nothing but a few flags: what is said here is model-checked in
//! `tests/models`.

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Another client's turn.
    Publisher,
    /// The client's own task.
    OwnTask,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Somebody is writing now, without holding the lock.
    writing: bool,
    /// The socket took no more; the connection's own task waits for it and writes.
    blocked: bool,
    /// The connection is about to end: only its own task begins to write.
    reserved: bool,
}

impl Gate {
    /// Whether the output may be taken and written now; [`leave`](Self::leave) must follow. If not,
    /// somebody else sees to it: the one who is writing looks for more when he is done, and the
    /// task waits for the socket.
    pub(crate) fn enter(&mut self, by: By) -> bool {
        if self.writing || by == By::Publisher && (self.blocked || self.reserved) {
            return false;
        }
        self.writing = true;
        true
    }

    /// The write is over, because all is written or (`blocked`) the socket takes no more. Whether
    /// the connection's task has to be woken.
    #[must_use]
    pub(crate) fn leave(&mut self, by: By, blocked: bool) -> bool {
        self.writing = false;
        self.blocked = blocked;
        by == By::Publisher && (blocked || self.reserved)
    }

    /// From now on nobody but the own task begins to write. `false`: somebody is at it, and the
    /// task is woken when he is done.
    pub(crate) fn reserve(&mut self) -> bool {
        self.reserved = true;
        !self.writing
    }

    /// The socket that took no more takes more again. Nobody may have anything left to write: what
    /// waited for it can be left out meanwhile, when memory is short.
    pub(crate) fn open(&mut self) {
        self.blocked = false;
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }
}
