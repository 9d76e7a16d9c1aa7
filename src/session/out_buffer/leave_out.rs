//! What is left out of output when memory is short: whole packets, of which nothing is written.

use std::collections::VecDeque;

use super::put_back::{packet_end, packet_len};
use super::{Chunk, MIXED, OutBuffer, Output, give_room_back, shared_units};

/// Leaves out messages at the beginning until `bytes` are given back; how many, and their bytes.
fn leave_out(messages: &mut Vec<u8>, bytes: usize) -> (u32, usize) {
    let (mut count, mut freed) = (0, 0);
    while freed < bytes
        && let Some(len) = messages.get(freed..).and_then(packet_len)
    {
        count += 1;
        freed += len;
    }
    freed = freed.min(messages.len());
    messages.drain(..freed);
    give_room_back(messages);
    (count, freed)
}

impl OutBuffer {
    /// Bytes of QoS 0 messages that [`shed`](Self::shed) would leave out at most.
    pub(in crate::session) fn droppable(&self) -> usize {
        let mut bytes = if self.tail_messages == MIXED { 0 } else { self.tail.len() };
        let Some(chunks) = &self.chunks else { return bytes };
        let (mut has_payload, mut is_begun) = (false, chunks.front_written > 0);
        for chunk in &chunks.pieces {
            let may_drop = !std::mem::take(&mut is_begun);
            let is_dropped = match chunk {
                Chunk::Messages(..) | Chunk::Head(_) => may_drop,
                Chunk::Payload(_) => has_payload,
                Chunk::Bytes(_) | Chunk::Rest(_) => false,
            };
            bytes += if is_dropped { chunk.as_slice().len() } else { 0 };
            has_payload = is_dropped && matches!(chunk, Chunk::Head(_));
        }
        bytes
    }

    /// Leaves out QoS 0 messages of which nothing is written, oldest first, until `bytes` are given
    /// back, as far as there are any that do not stand between other packets; returns how many
    /// messages, and their bytes.
    pub(in crate::session) fn shed(&mut self, bytes: usize) -> (usize, usize) {
        let (mut messages, mut freed) = (0, 0);
        if let Some(chunks) = &mut self.chunks {
            let mut kept: VecDeque<Chunk> = VecDeque::with_capacity(chunks.pieces.len());
            let (mut drops_payload, mut is_begun) = (false, chunks.front_written > 0);
            for mut chunk in chunks.pieces.drain(..) {
                let len = chunk.as_slice().len();
                let may_drop = freed < bytes && !std::mem::take(&mut is_begun);
                let is_dropped = match &mut chunk {
                    Chunk::Messages(some, count) if may_drop => {
                        let (left_out, len) = leave_out(some, bytes - freed);
                        *count = count.saturating_sub(left_out);
                        messages += left_out as usize;
                        freed += len;
                        some.is_empty()
                    }
                    Chunk::Head(_) if may_drop => {
                        messages += 1;
                        freed += len;
                        true
                    }
                    Chunk::Payload(message) if drops_payload => {
                        self.shared -= shared_units(message.payload());
                        freed += len;
                        true
                    }
                    _ => false,
                };
                drops_payload = is_dropped && matches!(chunk, Chunk::Head(_));
                if !is_dropped {
                    kept.push_back(chunk);
                }
            }
            chunks.pieces = kept;
            chunks.charged = 0;
            if chunks.pieces.is_empty() {
                self.chunks = None;
            }
        }
        if freed < bytes && self.tail_messages != MIXED && !self.tail.is_empty() {
            let (left_out, len) = leave_out(&mut self.tail, bytes - freed);
            self.tail_messages = self.tail_messages.saturating_sub(left_out);
            messages += left_out as usize;
            freed += len;
        }
        self.pending -= freed;
        (messages, freed)
    }
}

impl Output {
    /// Leaves out everything but the rest of a packet that is written in part: the connection is
    /// about to be closed because memory is short.
    pub fn keep_begun(&mut self) {
        let Some(chunks) = &mut self.chunks else {
            let end = packet_end(&self.last, self.written).unwrap_or(self.last.len());
            self.last.truncate(end);
            return;
        };
        let kept = match chunks.pieces.front_mut() {
            Some(Chunk::Payload(_)) => 1,
            // Its payload may be the next piece.
            Some(Chunk::Rest(_)) => 1 + usize::from(matches!(chunks.pieces.get(1), Some(Chunk::Payload(_)))),
            Some(Chunk::Head(_)) if self.written > 0 => 2,
            Some(Chunk::Bytes(bytes) | Chunk::Messages(bytes, _)) if self.written > 0 => {
                match packet_end(bytes, self.written) {
                    Some(end) => {
                        bytes.truncate(end);
                        usize::from(end > self.written)
                    }
                    // Its payload is the next piece.
                    None => 2,
                }
            }
            Some(_) | None => 0,
        };
        chunks.pieces.truncate(kept);
        self.last.clear();
        if kept == 0 {
            (self.chunks, self.written) = (None, 0);
        }
    }

    /// Bytes that are not written yet.
    pub fn bytes(&self) -> usize {
        let chunks = self.chunks.iter().flat_map(|chunks| chunks.pieces.iter().map(Chunk::as_slice));
        let bytes: usize = chunks.map(<[u8]>::len).sum();
        (bytes + self.last.len()).saturating_sub(self.written)
    }
}
