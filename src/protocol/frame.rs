//! Where one packet ends and the next begins.
//!
//! [`frame()`] looks at the start of the bytes read so far. It needs no state between calls, and its verdict
//! on a prefix is the verdict on whatever follows: an error found early stays the same error however much
//! arrives later. Byte 1 is judged as soon as it is there (type, direction, flags), then the length; a packet
//! that is refused for either never has its body buffered.

use super::ProtocolVersion;
use super::error::DecodeError;

/// The largest remaining length that four bytes can say (section 2.2.3).
pub const REMAINING_LENGTH_MAX: usize = 268_435_455;

const REMAINING_LENGTH_BYTES_MAX: usize = 4;

/// The bytes of one whole packet, its fixed header judged. Only [`frame()`] and [`frame_from_server`] make
/// one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    first_byte: u8,
    wire: &'a [u8],
    body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Byte 1: packet type and flags.
    #[inline]
    pub const fn first_byte(&self) -> u8 {
        self.first_byte
    }

    /// The upper half of byte 1.
    #[inline]
    pub const fn packet_type(&self) -> u8 {
        self.first_byte >> 4
    }

    /// A SUBSCRIBE, or a PUBLISH that may have to be stored: above QoS 0, or retained.
    #[inline]
    pub const fn makes_log_grow(&self) -> bool {
        // DUP is never set without QoS, and in a SUBSCRIBE by old clients only.
        matches!(self.first_byte, 0x31..=0x3f | 0x82 | 0x8a)
    }

    /// What the remaining length counts: variable header and payload.
    #[inline]
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The whole packet with its fixed header.
    #[inline]
    pub const fn wire(&self) -> &'a [u8] {
        self.wire
    }

    /// Bytes of the fixed header, 2 to 5.
    #[inline]
    pub const fn header_len(&self) -> usize {
        self.wire.len() - self.body.len()
    }

    /// Bytes of the whole packet: the next one begins there.
    #[inline]
    pub const fn total(&self) -> usize {
        self.wire.len()
    }
}

/// What the bytes read so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole packet; more may follow behind its [`Frame::total`] bytes.
    Frame(Frame<'a>),
    /// Faultless so far, but not whole.
    NeedMore {
        /// Bytes of the whole packet, as soon as its length has arrived. Never above the limit that was
        /// given.
        total: Option<usize>,
    },
}

/// Finds the packet at the start of `buf`, which a client sent.
///
/// `packet_bytes_max` limits the whole packet with its fixed header. The remaining length has at most four
/// bytes. MQTT 3.1.1 does not demand its shortest form (MQTT 5 does), so there `0x80 0x00` is taken for 0;
/// [`Frame::header_len`] counts the bytes that came. As long as CONNECT has not told the version, ask for
/// MQTT 3.1.1: a CONNECT is framed alike in all of them, and its decoder asks for the shortest form if it is
/// one of MQTT 5.
///
/// # Errors
/// As soon as the bytes there are show it: a type that is reserved or only for a server to send, flags other
/// than table 2.2's, PUBLISH with QoS 3 or with QoS 0 and DUP, a remaining length of more than four bytes, a
/// packet above the limit, an acknowledgement, PINGREQ or DISCONNECT of a length it cannot have.
///
/// MQTT 3.1 lets a client repeat PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP set; 3.1.1 does not
/// [MQTT-2.2.2-2], [MQTT-3.6.1-1]. Client libraries up to 2018 which kept the habit under 3.1.1 for PUBREL
/// after a reconnect are closed: there the standard leaves no choice.
#[inline]
pub fn frame(
    buf: &[u8],
    packet_bytes_max: usize,
    version: ProtocolVersion,
) -> Result<Framed<'_>, DecodeError> {
    match usual_frame(buf, packet_bytes_max) {
        Some(frame) => Ok(Framed::Frame(frame)),
        None => frame_from(Sender::Client, buf, packet_bytes_max, version),
    }
}

/// A whole packet of a client that is small and that no version has anything against: nearly all of them. Whatever is not one is judged in
/// full; there is no difference but the time.
#[inline]
fn usual_frame(buf: &[u8], packet_bytes_max: usize) -> Option<Frame<'_>> {
    let &[first_byte, length, ..] = buf else { return None };
    let usual = USUAL_LENGTH[usize::from(first_byte)];
    let is_usual = usual == length || usual == ANY_LENGTH;
    if !is_usual || length >= 0x80 {
        return None;
    }
    let total = 2 + usize::from(length);
    if total > packet_bytes_max {
        return None;
    }
    let wire = buf.get(..total)?;
    Some(Frame { first_byte, wire, body: wire.get(2..)? })
}

/// Any remaining length of one byte.
const ANY_LENGTH: u8 = 0xff;
/// None is usual; above every length of one byte, too.
const NO_LENGTH: u8 = 0xfe;

/// For each first byte of a client the remaining length that all versions allow.
const USUAL_LENGTH: [u8; 256] = {
    let mut lengths = [NO_LENGTH; 256];
    let mut publish = 0x30;
    while publish < 0x40 {
        let (dup, qos) = (publish & 0b1000 != 0, (publish & 0b0110) >> 1);
        if qos == 1 || qos == 2 || qos == 0 && !dup {
            lengths[publish] = ANY_LENGTH;
        }
        publish += 1;
    }
    // CONNECT, SUBSCRIBE, UNSUBSCRIBE; PUBACK, PUBREC, PUBREL, PUBCOMP; PINGREQ, DISCONNECT.
    (lengths[0x10], lengths[0x82], lengths[0xa2]) = (ANY_LENGTH, ANY_LENGTH, ANY_LENGTH);
    (lengths[0x40], lengths[0x50], lengths[0x62], lengths[0x70]) = (2, 2, 2, 2);
    (lengths[0xc0], lengths[0xe0]) = (0, 0);
    lengths
};

/// Finds the packet at the start of `buf`, which a server sent: the counterpart of [`frame()`] for the
/// client's side of a connection.
///
/// # Errors
/// As [`frame()`], except that the packet types are those a server may send.
pub fn frame_from_server(
    buf: &[u8],
    packet_bytes_max: usize,
    version: ProtocolVersion,
) -> Result<Framed<'_>, DecodeError> {
    frame_from(Sender::Server, buf, packet_bytes_max, version)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
}

/// Not inlined, so that the usual way past it needs no registers saved for it.
#[inline(never)]
fn frame_from(
    sender: Sender,
    buf: &[u8],
    packet_bytes_max: usize,
    version: ProtocolVersion,
) -> Result<Framed<'_>, DecodeError> {
    let Some((&first_byte, after)) = buf.split_first() else {
        return Ok(Framed::NeedMore { total: None });
    };
    judge_first_byte(sender, first_byte, version)?;
    let Some((remaining_length, length_bytes)) = remaining_length(after)? else {
        return Ok(Framed::NeedMore { total: None });
    };
    let header_len = 1 + length_bytes;
    let total = header_len + remaining_length;
    // Only what is longer than its neighbours can be too long, so the usual packet does not ask.
    if length_bytes > 1 && version == ProtocolVersion::V5 && header_len != fixed_header_len(remaining_length)
    {
        return Err(DecodeError::RemainingLengthNotShortest);
    }
    judge_length(first_byte >> 4, remaining_length, version)?;
    if total > packet_bytes_max {
        return Err(DecodeError::PacketTooLarge { total, packet_bytes_max });
    }
    match (buf.get(..total), buf.get(header_len..total)) {
        (Some(wire), Some(body)) => Ok(Framed::Frame(Frame { first_byte, wire, body })),
        _ => Ok(Framed::NeedMore { total: Some(total) }),
    }
}

#[inline]
fn judge_first_byte(sender: Sender, first_byte: u8, version: ProtocolVersion) -> Result<(), DecodeError> {
    const DUP: u8 = 0b1000;
    const QOS: u8 = 0b0110;

    let packet_type = first_byte >> 4;
    let flags = first_byte & 0x0f;
    // Table 2.1: who sends it; table 2.2: its flags.
    let (right_sender, right_flags) = match packet_type {
        3 if flags & QOS == QOS => return Err(DecodeError::PublishQos3),
        // [MQTT-3.3.1-2] binds the sender; it is held to it as to every other flag.
        3 if flags & (QOS | DUP) == DUP => return Err(DecodeError::DupOnQos0),
        3 => return Ok(()),
        4 | 5 | 7 => (true, 0),
        6 => (true, 0b0010),
        1 | 12 | 14 => (sender == Sender::Client, 0),
        8 | 10 => (sender == Sender::Client, 0b0010),
        2 | 9 | 11 | 13 => (sender == Sender::Server, 0),
        15 if version == ProtocolVersion::V5 => (true, 0),
        _ => return Err(DecodeError::ReservedPacketType { packet_type }),
    };
    if !right_sender {
        return Err(DecodeError::UnexpectedPacketType { packet_type });
    }
    if flags != right_flags {
        if version == ProtocolVersion::V31 && right_flags == 0b0010 && flags == right_flags | DUP {
            return Ok(());
        }
        return Err(DecodeError::ReservedFlags { first_byte });
    }
    Ok(())
}

/// The remaining length and how many bytes said it, or `None` if it has not arrived whole.
#[inline]
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut length = 0;
    for (index, &byte) in bytes.iter().take(REMAINING_LENGTH_BYTES_MAX).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((length, index + 1)));
        }
    }
    if bytes.len() < REMAINING_LENGTH_BYTES_MAX {
        Ok(None)
    } else {
        Err(DecodeError::RemainingLengthMalformed)
    }
}

/// Bytes of a fixed header with the shortest form of this remaining length.
pub(crate) const fn fixed_header_len(remaining_length: usize) -> usize {
    match remaining_length {
        0..0x80 => 2,
        0x80..0x4000 => 3,
        0x4000..0x20_0000 => 4,
        _ => 5,
    }
}

/// The packets that have one length only, or a least one, are refused for any other before their body
/// arrives.
#[inline]
fn judge_length(
    packet_type: u8,
    remaining_length: usize,
    version: ProtocolVersion,
) -> Result<(), DecodeError> {
    let right = match packet_type {
        1 | 3 | 8..=10 => return Ok(()),
        12 | 13 => remaining_length == 0,
        4..=7 if version == ProtocolVersion::V5 => remaining_length >= 2,
        _ if version == ProtocolVersion::V5 => return Ok(()),
        14 => remaining_length == 0,
        _ => remaining_length == 2,
    };
    if right { Ok(()) } else { Err(DecodeError::WrongLength { packet_type, remaining_length }) }
}

#[cfg(test)]
mod tests;
