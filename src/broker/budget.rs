//! `Budget`: how much work one turn may do.
//!
//! A turn runs on a thread that serves others as well, so it must be short. Its length in time is not
//! known beforehand and differs between machines; its work is. So work is counted, in units of about a
//! quarter of a microsecond on the machine of benches/README.md, and a turn stops when its units are
//! spent: between packets, between the filters of a packet, between the receivers of a message. What
//! is left goes on in the connection's next turn, behind those of others.
//!
//! What counts once it has begun is not cut: one packet that is decoded, one receiver, one filter. The
//! most that one of these can cost is bounded by `limits.packet_bytes_max` and by the session's own
//! bounds. The broker's watchdog counts turns that took longer than they should
//! (`turns_long`, [`Turn::finish`](super::Turn)).

/// Units of one turn: about a millisecond.
const TURN: u32 = 4_096;

/// See the module's documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    left: u32,
}

/// What things cost.
pub(crate) mod cost {
    /// A packet: framing, decoding, one lock of its client.
    pub(crate) const PACKET: u32 = 2;
    /// A session that gets a message, or is asked whether it takes it; with the lock by which its
    /// write is put off.
    pub(crate) const RECEIVER: u32 = 1;
    /// A client whose output is to be written: a system call, here or by its own task.
    pub(crate) const WRITE: u32 = 20;
    /// A filter that is added or removed.
    pub(crate) const FILTER: u32 = 8;
    /// A look whether retained messages match a filter with wildcards: some steps through their topics.
    pub(crate) const LOOK: u32 = 32;
    /// Messages of a queue that are looked through for one unit.
    pub(crate) const MESSAGES_PER_UNIT: usize = 2;
    /// Bytes that are copied for one unit.
    pub(crate) const BYTES_PER_UNIT: usize = 4_096;
}

impl Budget {
    /// All of a turn.
    pub(crate) const fn of_turn() -> Self {
        Self { left: TURN }
    }

    /// Some of it is spent. What costs more than is left spends all of it.
    pub(crate) fn spend(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// No more than so many units are left.
    pub(crate) fn keep(&mut self, units: usize) {
        self.left = self.left.min(u32::try_from(units).unwrap_or(u32::MAX));
    }

    /// Bytes were copied.
    pub(crate) fn spend_bytes(&mut self, bytes: usize) {
        self.spend(u32::try_from(bytes / cost::BYTES_PER_UNIT).unwrap_or(u32::MAX));
    }

    /// Whether the turn has to end.
    pub(crate) fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Units that are left.
    pub(crate) fn left(&self) -> u32 {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spent_is_gone() {
        let mut budget = Budget::of_turn();
        budget.spend(TURN - 1);
        assert!(!budget.is_spent() && budget.left() == 1);
        budget.spend_bytes(cost::BYTES_PER_UNIT - 1);
        assert!(!budget.is_spent());
        budget.spend(cost::RECEIVER);
        assert!(budget.is_spent() && budget.left() == 0);
    }
}
