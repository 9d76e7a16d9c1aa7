//! What a session gives up when memory is short.

use super::Session;

/// What was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shed {
    /// Messages that are lost to this client.
    pub messages: usize,
    /// Bytes of memory that they held.
    pub bytes: usize,
}

impl Session {
    /// Bytes that wait for the client in memory: unwritten output, and the messages of its queue that are not in the log only.
    pub fn memory_bytes(&self) -> usize {
        self.out.pending() + self.queue.loaded_bytes()
    }

    /// Leaves to the log what is written there. Nothing is lost by it.
    pub fn unload(&mut self) {
        self.queue.unload_all();
    }

    /// Gives up messages, QoS 0 first and each kind oldest first, until `bytes` are given back, as far as there are any. What is being
    /// written, what is under way and what is no message stays.
    pub fn shed(&mut self, bytes: usize) -> Shed {
        let (messages, freed) = self.out.shed(bytes);
        let mut shed = Shed { messages, bytes: freed };
        if shed.bytes < bytes {
            for queued in self.queue.shed(bytes - shed.bytes) {
                shed.messages += 1;
                shed.bytes += queued.cost as usize;
                self.finish(queued.sequence);
            }
        }
        shed
    }
}
