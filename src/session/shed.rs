//! What a session gives up when memory is short.

use std::ops::AddAssign;
use std::sync::Arc;

use super::{Message, Session};
use crate::accounts::Accounts;

/// What may be given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sheddable {
    /// Messages of QoS 0, for which nobody was promised anything.
    AtMostOnce,
    /// Those of QoS 1 and 2 as well, which were acknowledged.
    Any,
}

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    /// Messages that are lost to this client.
    pub messages: usize,
    /// Bytes of memory that they held.
    pub bytes: usize,
}

impl AddAssign for Shed {
    fn add_assign(&mut self, more: Self) {
        self.messages += more.messages;
        self.bytes += more.bytes;
    }
}

/// Bytes of memory that are charged for a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Charged {
    /// Unwritten output, and the messages of its queue that are not in the log only.
    pub waiting: usize,
    /// Messages on their way that may have to be sent again.
    pub in_flight: usize,
    /// The same with bodies that others may hold as well, which are charged once.
    pub kept: usize,
}

impl Session {
    /// Bytes that are held for this client in memory and charged to it. Bodies that may have
    /// several holders are not in it: they are charged once.
    pub fn charged(&self) -> Charged {
        let waiting = self.out.own_bytes() + self.queue.own_bytes();
        Charged { waiting, in_flight: self.inflight.own_bytes(), kept: self.inflight.kept_bytes() }
    }

    /// Bytes that this client holds in memory, whoever else holds them as well: by this those are
    /// found who hold most.
    pub fn holds(&self) -> usize {
        self.out.memory() + self.queue.loaded_bytes() + self.inflight.kept_bytes()
    }

    /// Bytes that this client holds in memory where such messages stand, by which those are found who
    /// are to give them up. QoS 0 messages stand in the output only.
    pub fn holds_of(&self, what: Sheddable) -> usize {
        match what {
            Sheddable::AtMostOnce => self.out.droppable(),
            Sheddable::Any => self.holds(),
        }
    }

    /// Bytes of the entries of its queue, which are in memory also for what is on disk.
    pub fn entry_bytes(&self) -> usize {
        self.queue.entry_bytes()
    }

    /// Charges the bodies in its output that may have several holders: they outlive the turn in
    /// which they came.
    pub fn charge_output(&mut self, accounts: &Arc<Accounts>) {
        self.out.charge_to(accounts);
    }

    /// Gives back what is not used, and leaves to the log what is written there. Nothing is lost by it.
    pub fn unload(&mut self) {
        self.out.give_room_back();
        self.queue.unload_all();
        self.unload_kept(|_| true);
    }

    pub(super) fn unload_kept(&mut self, wanted: impl Fn(&Message) -> bool) {
        if let Some(durable) = &self.durable {
            self.inflight.unload(durable.ledger.written(), wanted);
        }
    }

    /// Gives up messages, QoS 0 first and each kind oldest first, until `bytes` are given back, as
    /// far as there are any that `what` allows; last those that are kept for sending them again.
    /// What is being written, what is no message, and what is under way in a durable session stays.
    pub fn shed(&mut self, bytes: usize, what: Sheddable) -> Shed {
        let (messages, freed) = self.out.shed(bytes);
        let mut shed = Shed { messages, bytes: freed };
        if what == Sheddable::AtMostOnce {
            return shed;
        }
        if shed.bytes < bytes {
            for queued in self.queue.shed(bytes - shed.bytes) {
                shed.messages += 1;
                shed.bytes += queued.cost as usize;
                self.finish(queued.sequence);
            }
        }
        if shed.bytes < bytes && self.durable.is_none() {
            let (messages, freed) = self.inflight.give_up(bytes - shed.bytes);
            shed.messages += messages;
            shed.bytes += freed;
        }
        shed
    }

    /// Gives up the oldest messages of its queue, whether they are in memory or on disk, until their
    /// entries take no more than `bytes`.
    pub fn shed_entries(&mut self, bytes: usize) -> Shed {
        let before = self.queue.entry_bytes();
        let taken = self.queue.shed_entries(bytes);
        for queued in &taken {
            self.queue.release(&queued.body);
            self.finish(queued.sequence);
        }
        Shed { messages: taken.len(), bytes: before.saturating_sub(self.queue.entry_bytes()) }
    }
}
