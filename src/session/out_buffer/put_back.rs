//! What a socket did not take comes back into the output, cut where a packet ends: so what follows
//! is whole packets, which can be left out when memory is short.

use super::{Chunk, MIXED, OutBuffer, Output, give_room_back};

/// The length of the packet that begins here; `None`: its fixed header is not whole.
pub(super) fn packet_len(bytes: &[u8]) -> Option<usize> {
    let mut len = 0;
    for (n, byte) in bytes.iter().skip(1).take(4).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * n);
        if byte & 0x80 == 0 {
            return Some(2 + n + len);
        }
    }
    None
}

/// Where the packet ends that is written up to `written`. `None`: behind these bytes, which begin
/// with a packet.
pub(super) fn packet_end(bytes: &[u8], written: usize) -> Option<usize> {
    let mut end = 0;
    while end < written {
        end += packet_len(bytes.get(end..)?)?;
    }
    (end <= bytes.len()).then_some(end)
}

/// How many packets these bytes are.
fn count(mut bytes: &[u8]) -> u32 {
    let mut packets = 0;
    while let Some(len) = packet_len(bytes) {
        packets += 1;
        bytes = bytes.get(len..).unwrap_or_default();
    }
    packets
}

/// Cuts what is written off, and returns the rest of the packet that is written in part.
fn cut(bytes: &mut Vec<u8>, messages: &mut u32, written: usize) -> Vec<u8> {
    let end = packet_end(bytes, written).unwrap_or(bytes.len());
    let begun = bytes.get(written..end).unwrap_or_default().to_vec();
    bytes.drain(..end);
    if *messages != MIXED {
        *messages = count(bytes);
    }
    begun
}

impl OutBuffer {
    /// Puts back what the socket did not take, before what was appended meanwhile.
    pub fn put_back(&mut self, output: Output) {
        let Output { chunks, mut last, mut last_messages, mut written, released } = output;
        self.released(released);
        let mut begun = Vec::new();
        let mut all = chunks.unwrap_or_default();
        if written > 0 && all.pieces.is_empty() {
            begun = cut(&mut last, &mut last_messages, written);
            written = 0;
        } else if written > 0 {
            match all.pieces.front_mut() {
                Some(Chunk::Rest(bytes)) => {
                    bytes.drain(..written.min(bytes.len()));
                    written = 0;
                }
                Some(Chunk::Bytes(bytes)) => {
                    let mut mixed = MIXED;
                    begun = cut(bytes, &mut mixed, written);
                    written = 0;
                }
                Some(Chunk::Messages(bytes, messages)) => {
                    begun = cut(bytes, messages, written);
                    written = 0;
                }
                Some(Chunk::Head(_) | Chunk::Payload(_)) | None => {}
            }
            if all.pieces.front().is_some_and(|piece| piece.as_slice().is_empty()) {
                all.pieces.pop_front();
                all.charged = all.charged.saturating_sub(1);
            }
        }
        if !begun.is_empty() {
            all.pieces.push_front(Chunk::Rest(begun));
            all.charged += 1;
        }
        give_room_back(&mut last);
        if self.chunks.is_none() && self.tail.is_empty() {
            (self.tail, self.tail_messages) = (last, last_messages);
        } else if !last.is_empty() {
            all.pieces.push_back(Chunk::of_tail(last, last_messages));
        }
        if let Some(later) = self.chunks.take() {
            all.pieces.extend(later.pieces);
        }
        if self.tail.is_empty() {
            self.tail_messages = 0;
        }
        all.front_written = u32::try_from(written).unwrap_or(u32::MAX);
        self.chunks = (!all.pieces.is_empty()).then_some(all);
    }
}
