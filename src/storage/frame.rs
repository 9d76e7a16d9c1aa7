//! The format of the log's files, version 1. Numbers are little-endian, crc32 is that of IEEE 802.3 (zlib's).
//!
//! A file begins with 32 bytes:
//!
//! | bytes | |
//! |---|---|
//! | 0–7 | `TernMQ` CR LF |
//! | 8–9 | format version: 1 |
//! | 10 | kind: 1 segment, 2 checkpoint |
//! | 11 | 0 |
//! | 12–15 | segment |
//! | 16–19 | offset: in a segment's file that of the first frame, in a checkpoint's that of the position the checkpoint replaces |
//! | 20–23 | tag: a random number that all files of a directory share; highest bit 0, not 0 |
//! | 24–27 | 0 |
//! | 28–31 | crc32 of bytes 0–27 |
//!
//! Every later version keeps these 32 bytes as they are, so that it is known for what it is.
//!
//! Frames follow, without gaps, up to the file's end, or in a segment to zeros there, at most 64 KiB: room made for frames to come:
//!
//! | bytes | |
//! |---|---|
//! | 0–3 | tag, or its complement: a *mark*, which says that everything before this frame was synced when it was written |
//! | 4–7 | n, length of the body; 0 in a mark only, which is the log's own then: a clean end |
//! | 8–11 | crc32 of bytes 4–7 and the body, xor `mix(place)` |
//! | 12–(11 + n) | body: what it means is not the log's affair |
//!
//! `place` is a 64-bit number: segment · 2³² + offset in a segment; in a checkpoint the complement of that number of the header, plus
//! the bytes from the end of the header to the frame. `mix` is written out below. So a frame is known only where it was written, and
//! what peers send cannot look like one: they do not know the tag. Offsets do not count the file's header: the first frame of a
//! segment has offset 0, the first of a file has the offset in its header.
//!
//! Names: `segment-SSSSSSSS-OOOOOOOO.log` and `checkpoint-SSSSSSSS-OOOOOOOO.log`, segment and offset of the header in hexadecimal.
//! A segment has a second file if a sync of the first failed: it replaces what the first has from that offset on. `*.tmp` are
//! unfinished; `*.bad` are kept for people and never read: `NAME.OFFSET.bad` is the unreadable part of file NAME from byte OFFSET on.

use crc32fast::Hasher;

use crate::ledger::Position;

/// Bytes before a file's first frame.
pub(super) const FILE_HEADER: usize = 32;
/// Bytes before a frame's body.
pub(super) const FRAME_HEADER: usize = 12;
/// Bytes of zeros that may follow the last frame of a segment.
pub(super) const ROOM: usize = 64 * 1024;
const MAGIC: [u8; 8] = *b"TernMQ\r\n";
pub(super) const FORMAT_VERSION: u16 = 1;
/// A batch that held one large message gives the memory back.
const BATCH_CAPACITY_KEPT: usize = 64 * 1024;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Segment,
    Checkpoint,
}

/// What stands at a file's beginning, and, but for the tag, in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileHeader {
    pub(super) kind: Kind,
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) tag: u32,
}

/// Why a file's first bytes are no header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    /// Damaged or not there.
    #[error("its header is damaged")]
    Unreadable,
    /// Whole, of another version of the format.
    #[error("it is of format version {0}")]
    Version(u16),
    /// Whole, of this version, and a kind of file that is not known here.
    #[error("it is a file of kind {0}")]
    Kind(u8),
}

impl FileHeader {
    pub(super) fn encode(&self) -> [u8; FILE_HEADER] {
        let mut bytes = [0; FILE_HEADER];
        let kind = match self.kind {
            Kind::Segment => 1,
            Kind::Checkpoint => 2,
        };
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[10] = kind;
        bytes[12..16].copy_from_slice(&self.segment.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.offset.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.tag.to_le_bytes());
        let check = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8; FILE_HEADER]) -> Result<Self, HeaderFault> {
        if bytes[..8] != MAGIC || number(bytes, 28) != crc32fast::hash(&bytes[..28]) {
            return Err(HeaderFault::Unreadable);
        }
        let format = u16::from_le_bytes([bytes[8], bytes[9]]);
        if format != FORMAT_VERSION {
            return Err(HeaderFault::Version(format));
        }
        let kind = match bytes[10] {
            1 => Kind::Segment,
            2 => Kind::Checkpoint,
            kind => return Err(HeaderFault::Kind(kind)),
        };
        let (segment, offset, tag) = (number(bytes, 12), number(bytes, 16), number(bytes, 20));
        Ok(Self { kind, segment, offset, tag })
    }

    /// The name of the file that begins so.
    pub(super) fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Segment => "segment",
            Kind::Checkpoint => "checkpoint",
        };
        format!("{kind}-{:08x}-{:08x}.log", self.segment, self.offset)
    }

    /// What a name says; the tag is not in it.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let mut header = Self { kind: Kind::Segment, segment: 0, offset: 0, tag: 0 };
        let (kind, rest) = name.split_once('-')?;
        header.kind = match kind {
            "segment" => Kind::Segment,
            "checkpoint" => Kind::Checkpoint,
            _ => return None,
        };
        let (segment, offset) = rest.strip_suffix(".log")?.split_once('-')?;
        header.segment = u32::from_str_radix(segment, 16).ok()?;
        header.offset = u32::from_str_radix(offset, 16).ok()?;
        (header.name() == name).then_some(header)
    }

    /// The position of the first frame, or the one that the checkpoint replaces.
    pub(super) fn position(&self) -> Position {
        Position::new(self.segment, self.offset)
    }

    /// What `mix` gets for the frame at this byte of the file.
    pub(super) fn place(&self, at: u64) -> u64 {
        let behind_header = at.wrapping_sub(FILE_HEADER as u64);
        match self.kind {
            Kind::Segment => self.position().as_u64().wrapping_add(behind_header),
            Kind::Checkpoint => (!self.position().as_u64()).wrapping_add(behind_header),
        }
    }
}

/// A random number for a new directory.
pub(super) fn new_tag() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's keys come from the system's random numbers.
    let tag = RandomState::new().hash_one("tag") as u32 & 0x7fff_ffff;
    tag.max(1)
}

/// The 32-bit number at this offset; 0 beyond the end.
pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Spreads a place over 32 bits.
fn mix(place: u64) -> u32 {
    let mut x = place;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as u32
}

fn crc(len: [u8; 4], body: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&len);
    hasher.update(body);
    hasher.finalize()
}

/// Whether these bytes (header and body) are an intact frame of this place. The tag was looked at before.
pub(super) fn is_intact(frame: &[u8], place: u64) -> bool {
    match frame.split_at_checked(FRAME_HEADER) {
        Some((header, body)) => {
            let len = number(header, 4);
            len as usize == body.len() && number(header, 8) == crc(len.to_le_bytes(), body) ^ mix(place)
        }
        None => false,
    }
}

/// The log's own mark: a frame without a body.
pub(super) fn own_mark(tag: u32, place: u64) -> [u8; FRAME_HEADER] {
    let mut frame = [0; FRAME_HEADER];
    frame[..4].copy_from_slice(&(!tag).to_le_bytes());
    frame[8..].copy_from_slice(&(crc([0; 4], &[]) ^ mix(place)).to_le_bytes());
    frame
}

/// Gives frames as a [`Batch`] made them their tag and place. `place` is that of the first.
pub(super) fn settle(frames: &mut [u8], tag: u32, mut place: u64) {
    let mut rest = frames;
    while rest.len() >= FRAME_HEADER {
        let len = number(rest, 4) as usize + FRAME_HEADER;
        let check = number(rest, 8) ^ mix(place);
        rest[..4].copy_from_slice(&tag.to_le_bytes());
        rest[8..12].copy_from_slice(&check.to_le_bytes());
        place += len as u64;
        rest = rest.get_mut(len..).unwrap_or_default();
    }
}

/// Makes the first of these frames a mark.
pub(super) fn mark(frames: &mut [u8], tag: u32) {
    if let Some(first) = frames.get_mut(..4) {
        first.copy_from_slice(&(!tag).to_le_bytes());
    }
}

/// Frames gathered by one turn of a connection, submitted together: they stand side by side in one segment, in this order. At most
/// 4 GiB.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    start: usize,
    is_open: bool,
}

/// Where a frame stands in its batch. Its position is the batch's [`first`](super::log::Submitted::first) plus `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameAt {
    /// Bytes from the batch's beginning.
    pub(crate) offset: u32,
    /// Bytes of the whole frame, its header included.
    pub(crate) len: u32,
}

impl Batch {
    /// Begins a frame.
    pub(crate) fn begin(&mut self) {
        self.start = self.bytes.len();
        self.is_open = true;
        self.bytes.extend_from_slice(&[0; FRAME_HEADER]);
    }

    /// Where the body of the frame begun is appended; nothing else may be done with it.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The frame is finished. A frame without a body is none: it is left out.
    pub(crate) fn end(&mut self) -> FrameAt {
        self.is_open = false;
        let start = self.start;
        let offset = start as u32;
        let frame = self.bytes.get_mut(start..).unwrap_or_default();
        if frame.len() <= FRAME_HEADER {
            self.bytes.truncate(start);
            return FrameAt { offset, len: 0 };
        }
        let (header, body) = frame.split_at_mut(FRAME_HEADER);
        let len = (body.len() as u32).to_le_bytes();
        header[4..8].copy_from_slice(&len);
        header[8..].copy_from_slice(&crc(len, body).to_le_bytes());
        FrameAt { offset, len: frame.len() as u32 }
    }

    /// A frame that was begun and not ended, by a panic in between, is left out.
    pub(crate) fn drop_unfinished(&mut self) {
        if std::mem::take(&mut self.is_open) {
            self.bytes.truncate(self.start);
        }
    }

    /// No frame in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Bytes of its frames, their headers included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn frames(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(BATCH_CAPACITY_KEPT);
        self.start = 0;
    }
}
