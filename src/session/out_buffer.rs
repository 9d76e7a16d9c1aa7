//! `OutBuffer`: the bytes a session wants sent, in order, and the account of what is not yet written.
//!
//! Small packets are appended to one growing tail; a large payload is referred to, not copied. The I/O shell takes the whole
//! content, writes it without holding the session's lock, and reports how much the socket accepted.

mod leave_out;
mod put_back;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

use super::message::Message;
use crate::accounts::Accounts;

/// A piece of output.
#[derive(Debug)]
enum Chunk {
    Bytes(Vec<u8>),
    /// So many QoS 0 messages, whole, and nothing else: they may be left out while none of it is written.
    Messages(Vec<u8>, u32),
    /// The rest of a packet that is written in part.
    Rest(Vec<u8>),
    /// What stands before the payload of a QoS 0 message, which is the next piece: the two may be left out together.
    Head(Vec<u8>),
    /// The payload of a message which is shared with other receivers.
    Payload(Arc<Message>),
}

impl Chunk {
    /// A tail that is closed.
    fn of_tail(bytes: Vec<u8>, messages: u32) -> Self {
        if messages == MIXED { Self::Bytes(bytes) } else { Self::Messages(bytes, messages) }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::Messages(bytes, _) | Self::Rest(bytes) | Self::Head(bytes) => bytes,
            Self::Payload(message) => message.payload(),
        }
    }
}

/// Pieces in their order.
#[derive(Debug, Default)]
struct Chunks {
    pieces: VecDeque<Chunk>,
    /// Of so many pieces from the front those that are shared are charged.
    charged: usize,
    /// Bytes of the first piece that are written already, while nobody writes. No packet is longer
    /// than 32 bits can count.
    front_written: u32,
}

impl Chunks {
    /// Bytes that the pieces take besides what is in them.
    fn overhead(&self) -> usize {
        /// What the allocator adds to each.
        const ALLOCATION: usize = 16;
        self.pieces.capacity() * size_of::<Chunk>() + self.pieces.len() * ALLOCATION
    }
}

/// Bytes of a shared payload in [`OutBuffer::shared`]: whole kilobytes, so that 32 bits are enough.
const SHARED_UNIT: usize = 1_024;

fn shared_units(payload: &[u8]) -> u32 {
    u32::try_from(payload.len() / SHARED_UNIT).unwrap_or(u32::MAX)
}

/// Output which the I/O shell took and is writing.
#[derive(Debug, Default)]
pub struct Output {
    /// Pieces before `last`; `None` in the common case of small packets only.
    chunks: Option<Box<Chunks>>,
    last: Vec<u8>,
    /// What `last` consists of, as in `OutBuffer::tail_messages`.
    last_messages: u32,
    /// Bytes of the first piece that are written already.
    written: usize,
    /// What of [`OutBuffer::shared`] is written and not reported yet.
    released: u32,
}

impl Output {
    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_none() && self.written >= self.last.len()
    }

    /// The unwritten bytes, for a vectored write. Fills at most `slices.len()` of them and returns how many.
    pub fn slices<'s>(&'s self, slices: &mut [IoSlice<'s>]) -> usize {
        let mut used = 0;
        let mut skip = self.written;
        let chunks = self.chunks.iter().flat_map(|chunks| chunks.pieces.iter().map(Chunk::as_slice));
        for piece in chunks.chain(std::iter::once(self.last.as_slice())) {
            let piece = piece.get(skip..).unwrap_or_default();
            skip = 0;
            if piece.is_empty() {
                continue;
            }
            let Some(slot) = slices.get_mut(used) else { break };
            *slot = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// The first unwritten piece.
    pub fn first(&self) -> &[u8] {
        let piece = match &self.chunks {
            Some(chunks) => chunks.pieces.front().map(Chunk::as_slice).unwrap_or_default(),
            None => &self.last,
        };
        piece.get(self.written..).unwrap_or_default()
    }

    /// Whether it is one piece, so that a plain write does.
    pub fn is_single(&self) -> bool {
        self.chunks.is_none()
    }

    /// The socket accepted `n` bytes.
    pub fn advance(&mut self, n: usize) {
        self.written += n;
        while let Some(chunks) = &mut self.chunks {
            let Some(front) = chunks.pieces.front() else {
                self.chunks = None;
                break;
            };
            let len = front.as_slice().len();
            if self.written < len {
                break;
            }
            self.written -= len;
            if let Chunk::Payload(message) = front {
                self.released += shared_units(message.payload());
            }
            chunks.pieces.pop_front();
            chunks.charged = chunks.charged.saturating_sub(1);
            if chunks.pieces.is_empty() {
                self.chunks = None;
            }
        }
    }

    /// What is to be reported by [`OutBuffer::released`].
    pub fn take_released(&mut self) -> u32 {
        std::mem::take(&mut self.released)
    }

    /// The buffer of the tail, emptied, for use elsewhere.
    pub fn into_spare(self) -> Vec<u8> {
        let mut spare = self.last;
        spare.clear();
        spare
    }
}

/// Whether a packet may be left out when memory is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// It must be sent.
    Always,
    /// It is a QoS 0 message that nothing later refers to.
    UnlessShort,
}

/// Stands for a tail that does not consist of QoS 0 messages alone.
const MIXED: u32 = u32::MAX;

/// A tail of this many bytes is closed and another one begun: what is written is freed piece by piece, and what a slow receiver leaves
/// is not moved as a whole each time it takes a little.
const TAIL_BYTES_MAX: usize = 128 * 1024;

/// What is not written at once may stay for long: it takes no more room than it needs, within a
/// quarter.
fn give_room_back(bytes: &mut Vec<u8>) {
    if bytes.capacity() - bytes.len() > bytes.len() / 4 {
        bytes.shrink_to_fit();
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct OutBuffer {
    chunks: Option<Box<Chunks>>,
    tail: Vec<u8>,
    /// How many QoS 0 messages the tail consists of; [`MIXED`]: there is something else in it.
    tail_messages: u32,
    /// What of `pending` is payloads that are referred to, in [`SHARED_UNIT`]s; one that is written
    /// in part counts as a whole.
    shared: u32,
    /// Bytes appended and not yet reported as written, those under way included.
    pending: usize,
}

impl OutBuffer {
    /// Bytes appended and not yet reported as written.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// The same as it is in memory: with the room that is taken and not used, and without payloads
    /// that are shared with other receivers, which are charged once for all of them.
    pub fn own_bytes(&self) -> usize {
        let room = self.tail.capacity() - self.tail.len();
        let overhead = self.chunks.as_ref().map_or(0, |chunks| chunks.overhead());
        self.pending.saturating_sub(self.shared as usize * SHARED_UNIT) + room + overhead
    }

    /// The same with shared payloads as a whole.
    pub fn memory(&self) -> usize {
        self.own_bytes() + self.shared as usize * SHARED_UNIT
    }

    /// Gives back the room that is not used.
    pub(super) fn give_room_back(&mut self) {
        give_room_back(&mut self.tail);
    }

    /// Charges the payloads that are referred to: they are not written in the turn in which they came.
    pub fn charge_to(&mut self, accounts: &Arc<Accounts>) {
        let Some(chunks) = &mut self.chunks else { return };
        for piece in chunks.pieces.iter().skip(chunks.charged) {
            if let Chunk::Payload(message) = piece {
                message.charge_to(accounts);
            }
        }
        chunks.charged = chunks.pieces.len();
    }

    /// Whether there is something to take.
    pub fn has_output(&self) -> bool {
        !self.tail.is_empty() || self.chunks.is_some()
    }

    /// Lends an empty buffer with capacity if there is none, so that appending need not allocate.
    pub fn lend(&mut self, spare: impl FnOnce() -> Vec<u8>) {
        if self.tail.capacity() == 0 {
            self.tail = spare();
        }
    }

    /// Takes the buffer back that was lent, if nothing came into it: a session holds none while it has nothing to send.
    pub fn reclaim(&mut self) -> Vec<u8> {
        if self.tail.is_empty() { std::mem::take(&mut self.tail) } else { Vec::new() }
    }

    /// Appends the bytes of a packet that must not be left out.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.begin(Keep::Always);
        self.push(bytes);
    }

    /// Appends a PUBLISH image with its first byte and packet id patched in.
    pub(super) fn append_patched(&mut self, image: &[u8], first_byte: u8, packet_id: Option<(usize, u16)>) {
        // Only QoS 0 has no packet id.
        self.begin(if packet_id.is_none() { Keep::UnlessShort } else { Keep::Always });
        let start = self.tail.len();
        self.push(image);
        if let Some(byte) = self.tail.get_mut(start) {
            *byte = first_byte;
        }
        if let Some((offset, id)) = packet_id
            && let Some(place) = self.tail.get_mut(start + offset..start + offset + 2)
        {
            place.copy_from_slice(&id.to_be_bytes());
        }
    }

    /// Appends the packet that `encode` writes into the tail. `encode` must not fail half-way.
    pub(super) fn append_with(&mut self, keep: Keep, encode: impl FnOnce(&mut Vec<u8>)) {
        self.begin(keep);
        let before = self.tail.len();
        encode(&mut self.tail);
        self.pending += self.tail.len() - before;
    }

    /// Appends a PUBLISH whose payload is not copied; `encode` writes what stands before it.
    pub(super) fn append_large(
        &mut self,
        keep: Keep,
        message: Arc<Message>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        if keep == Keep::UnlessShort {
            // Its head is a piece of its own, so that it can be left out.
            self.close_tail();
        }
        self.append_with(keep, encode);
        self.pending += message.payload().len();
        self.shared += shared_units(message.payload());
        let head = if self.tail.len() < self.tail.capacity() / 2 {
            // The buffer itself, which may have been lent and be large, stays for what follows.
            let head = self.tail.as_slice().to_vec();
            self.tail.clear();
            head
        } else {
            std::mem::take(&mut self.tail)
        };
        self.tail_messages = 0;
        let chunks = &mut self.chunks.get_or_insert_default().pieces;
        chunks.push_back(if keep == Keep::UnlessShort { Chunk::Head(head) } else { Chunk::Bytes(head) });
        chunks.push_back(Chunk::Payload(message));
    }

    /// A packet is about to be appended.
    fn begin(&mut self, keep: Keep) {
        if self.tail.len() >= TAIL_BYTES_MAX {
            self.close_tail();
        }
        self.tail_messages = match keep {
            // A tail has no room for as many as would make it MIXED.
            Keep::UnlessShort => self.tail_messages.saturating_add(1),
            Keep::Always => MIXED,
        };
    }

    fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        self.pending += bytes.len();
    }

    fn close_tail(&mut self) {
        if !self.tail.is_empty() {
            let mut tail = std::mem::take(&mut self.tail);
            give_room_back(&mut tail);
            let tail = Chunk::of_tail(tail, self.tail_messages);
            self.chunks.get_or_insert_default().pieces.push_back(tail);
        }
        self.tail_messages = 0;
    }

    /// Takes all output for writing; what is appended meanwhile is taken the next time.
    pub fn take(&mut self) -> Output {
        let written = self.chunks.as_ref().map_or(0, |chunks| chunks.front_written as usize);
        let last_messages = std::mem::take(&mut self.tail_messages);
        let (chunks, last) = (self.chunks.take(), std::mem::take(&mut self.tail));
        Output { chunks, last, last_messages, written, released: 0 }
    }

    /// `n` bytes of what was taken are written.
    pub fn written(&mut self, n: usize) {
        self.pending = self.pending.saturating_sub(n);
        if self.pending == 0 {
            self.shared = 0;
        }
    }

    /// Shared payloads of what was taken are written as a whole: what [`Output::take_released`] says.
    pub fn released(&mut self, units: u32) {
        self.shared = self.shared.saturating_sub(units);
    }

    /// Bytes of memory held for small packets.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.tail.capacity()
    }

    /// The connection is gone: nothing of this will be written, and no buffer is kept.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests;
