//! What deliveries under way hold in memory: for counting it, for leaving it to the log, and for
//! reading it back.

use std::sync::Arc;

use super::{Awaiting, Delivery, DeliveryExtra, Inflight};
use crate::ledger::{Position, Stored};
use crate::protocol::PacketId;
use crate::session::kept::Kept;
use crate::session::message::Message;

/// Bytes of one that was put aside, in two trees.
const STRAGGLER: usize = 96;

impl Inflight {
    /// Bytes of the messages that are kept in memory for sending them again.
    pub(in crate::session) fn kept_bytes(&self) -> usize {
        self.kept_bytes
    }

    /// What is charged to this client: its own messages of those (the rest is charged once for all
    /// who hold it), the places of those in the log, and the entries of all.
    pub(in crate::session) fn own_bytes(&self) -> usize {
        self.own_bytes as usize
            + self.deliveries.capacity() * size_of::<Delivery>()
            + self.stragglers.len() * STRAGGLER
    }

    /// A delivery keeps this from now on. Most sessions keep nothing.
    #[inline]
    pub(super) fn hold(&mut self, kept: &Kept, extra: Option<&DeliveryExtra>) {
        if !kept.is_nothing() {
            let (bytes, own) = memory(kept, extra);
            self.kept_bytes += bytes;
            self.own_bytes = self.own_bytes.saturating_add(own);
        }
    }

    /// The message of the delivery with this id is needed no more, if that awaits `from`.
    #[inline(never)]
    pub(super) fn let_go(&mut self, id: PacketId, from: Awaiting) {
        let Some(delivery) = self.find_mut(id).filter(|delivery| delivery.awaiting == from) else { return };
        let kept = std::mem::take(&mut delivery.kept);
        let (bytes, own) = memory(&kept, delivery.extra.as_deref());
        self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
        self.own_bytes = self.own_bytes.saturating_sub(own);
    }

    /// Counts anew what is kept.
    pub(super) fn count_kept(&mut self) {
        let (mut bytes, mut own) = (0, 0_u32);
        let mut add = |delivery: &Delivery| {
            let memory = memory(&delivery.kept, delivery.extra.as_deref());
            bytes += memory.0;
            own = own.saturating_add(memory.1);
        };
        self.deliveries.iter().for_each(&mut add);
        self.stragglers.change_all(|_, _, delivery| add(delivery), |_| false);
        (self.kept_bytes, self.own_bytes) = (bytes, own);
    }

    /// Leaves to the log the messages for which `wanted` holds, as far as it has written them.
    pub(in crate::session) fn unload(&mut self, written: Position, wanted: impl Fn(&Message) -> bool) {
        if self.kept_bytes == 0 {
            return;
        }
        self.deliveries.iter_mut().for_each(|delivery| delivery.kept.unload(written, &wanted));
        self.stragglers.change_all(|_, _, delivery| delivery.kept.unload(written, &wanted), |_| false);
        self.count_kept();
    }

    /// Gives up messages, oldest first, until `bytes` are given back: these deliveries go on, and
    /// are not sent again. How many, and their bytes.
    pub(in crate::session) fn give_up(&mut self, bytes: usize) -> (usize, usize) {
        let (mut messages, mut freed) = (0, 0);
        let mut take = |delivery: &mut Delivery| {
            let held = delivery.kept.memory().0;
            if held > 0 && freed < bytes {
                delivery.kept = Kept::NOTHING;
                messages += 1;
                freed += held;
            }
        };
        self.stragglers.change_all(|_, _, delivery| take(delivery), |_| false);
        self.deliveries.iter_mut().for_each(take);
        self.count_kept();
        (messages, freed)
    }

    /// Deliveries whose messages are in the log only: position and place, oldest first, from a
    /// position to before another, with no more than `max` of them and no more than `bytes_max`,
    /// but for one that is larger. Ends where one is in memory.
    pub(in crate::session) fn wanted(
        &self,
        from: u64,
        to: u64,
        max: usize,
        bytes_max: usize,
    ) -> Vec<(u64, Position)> {
        let (mut wanted, mut bytes, mut next) = (Vec::new(), 0, from);
        while let Some((position, _, delivery)) = self.next_unfinished(next) {
            next = position + 1;
            if delivery.kept.is_nothing() {
                continue;
            }
            let Some(stored) = delivery.kept.stored().filter(|_| delivery.kept.is_stored()) else { break };
            bytes += stored.bytes() as usize;
            if position >= to || wanted.len() >= max || (!wanted.is_empty() && bytes > bytes_max) {
                break;
            }
            wanted.push((position, stored.position()));
        }
        wanted
    }

    /// The message of a delivery was read back. `Err`: it was not asked for.
    pub(in crate::session) fn provide(&mut self, position: u64, read: Message) -> Result<(), Message> {
        let Some(id) = self.stored_id(position) else { return Err(read) };
        let Some(delivery) = self.find_mut(id) else { return Err(read) };
        let Some(stored) = delivery.kept.stored() else { return Err(read) };
        read.set_stored(Stored::new(stored.ledger(), stored.position(), stored.bytes()));
        let kept = Kept::from(Some(Arc::new(read)));
        let (before, now) = (delivery.kept.memory(), kept.memory());
        delivery.kept = kept;
        self.kept_bytes += now.0;
        self.own_bytes = self.own_bytes.saturating_sub(before.1).saturating_add(now.1);
        Ok(())
    }

    /// The packet id of the delivery at a position, if its message is in the log only.
    pub(in crate::session) fn stored_id(&self, position: u64) -> Option<PacketId> {
        let (found, id, delivery) = self.next_unfinished(position)?;
        (found == position && delivery.kept.is_stored()).then_some(id)
    }
}

/// Bytes that a delivery holds in memory besides its entry: its message as a whole, and what is
/// charged to this client.
fn memory(kept: &Kept, extra: Option<&DeliveryExtra>) -> (usize, u32) {
    let (bytes, own) = kept.memory();
    let extra = extra.map_or(0, |extra| u32::try_from(extra.memory()).unwrap_or(u32::MAX));
    (bytes, own.saturating_add(extra))
}
