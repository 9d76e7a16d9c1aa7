//! `Signals`: bits that others leave for a connection's task.

use crate::sync::{AtomicU8, Ordering};

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Signals(AtomicU8);

impl Signals {
    /// Leaves signals; `true` if some are new, so that the task must be woken. Else whoever left
    /// them before wakes it, and it has not looked since.
    pub(crate) fn leave(&self, bits: u8) -> bool {
        self.0.fetch_or(bits, Ordering::AcqRel) & bits != bits
    }

    /// Takes the signals; called by the connection's task only, before it looks at what they are
    /// about.
    pub(crate) fn take(&self) -> u8 {
        if self.0.load(Ordering::Acquire) == 0 { 0 } else { self.0.swap(0, Ordering::AcqRel) }
    }
}
