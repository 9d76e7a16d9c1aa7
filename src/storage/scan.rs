//! Reads the frames of one file, in a buffer of bounded size, past any damage.
//!
//! Errors of reading are damage too: what cannot be read counts as zeros, and [`Scan::unreadable`] says so.

use super::files::LogFile;
use super::frame::{FILE_HEADER, FRAME_HEADER, FileHeader, ROOM, is_intact, number};

/// Bytes read at once. A longer frame needs its own length, which is checked against the file's first.
const BUFFER: usize = 1024 * 1024;
/// After an error of reading, what is around it is read in pieces of this size.
const PIECE: usize = 4096;
/// Sectors are written whole or not at all, or up to some byte of them.
const SECTOR: u64 = 512;

/// What is next in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A frame: where in the file, bytes of the whole frame, whether it is a mark.
    Frame { at: u64, len: u32, marked: bool },
    /// Bytes that are no frame, up to the next intact one or the end.
    Damage { at: u64, bytes: u64 },
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Scan<'f> {
    file: &'f dyn LogFile,
    header: FileHeader,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
    unreadable: bool,
}

impl<'f> Scan<'f> {
    /// The frames behind the header, up to byte `end` of the file (not more than its length).
    pub(super) fn new(file: &'f dyn LogFile, header: FileHeader, end: u64) -> Self {
        let at = FILE_HEADER as u64;
        Self { file, header, at, end, buffer: Vec::new(), buffer_at: 0, unreadable: false }
    }

    /// Some of the file could not be read at all.
    pub(super) fn unreadable(&self) -> bool {
        self.unreadable
    }

    pub(super) fn next(&mut self) -> Option<Found> {
        if self.at >= self.end {
            return None;
        }
        let at = self.at;
        let found = match self.examine(at) {
            Some((len, marked)) => {
                self.at += u64::from(len);
                Found::Frame { at, len, marked }
            }
            None => {
                self.at = self.search(at + 1);
                Found::Damage { at, bytes: self.at - at }
            }
        };
        Some(found)
    }

    /// The body of a frame that was found.
    pub(super) fn body(&mut self, at: u64, len: u32) -> &[u8] {
        self.bytes(at, len as usize).get(FRAME_HEADER..).unwrap_or_default()
    }

    /// Whether these bytes may be writes that a power cut undid: some sector of them ends in zeros, or they reach the file's end.
    pub(super) fn may_be_torn(&mut self, at: u64, bytes: u64) -> bool {
        let damage_end = at + bytes;
        if damage_end >= self.end {
            return true;
        }
        let mut sector_end = (at / SECTOR + 1) * SECTOR;
        while sector_end <= damage_end {
            if self.bytes(sector_end - 1, 1) == [0] {
                return true;
            }
            sector_end += SECTOR;
        }
        false
    }

    /// Where the last mark is that is still to come.
    pub(super) fn last_mark(&self) -> Option<u64> {
        let mut ahead = Scan::new(self.file, self.header, self.end);
        ahead.at = self.at;
        let mut last = None;
        while let Some(found) = ahead.next() {
            if let Found::Frame { at, marked: true, .. } = found {
                last = Some(at);
            }
        }
        last
    }

    /// Whether these bytes, up to the file's end, are no more than room that was made for frames which never came.
    pub(super) fn is_room(&mut self, at: u64, bytes: u64) -> bool {
        bytes <= ROOM as u64 && self.is_zero(at, bytes) && !self.unreadable
    }

    /// Whether these bytes are all zero.
    pub(super) fn is_zero(&mut self, mut at: u64, bytes: u64) -> bool {
        let end = at + bytes;
        while at < end {
            let len = (end - at).min(BUFFER as u64) as usize;
            if self.bytes(at, len).iter().any(|byte| *byte != 0) {
                return false;
            }
            at += len as u64;
        }
        true
    }

    /// The whole length of the intact frame here, and whether it is a mark.
    fn examine(&mut self, at: u64) -> Option<(u32, bool)> {
        let left = self.end.checked_sub(at).filter(|left| *left >= FRAME_HEADER as u64)?;
        let (tag, place) = (self.header.tag, self.header.place(at));
        let header = self.bytes(at, FRAME_HEADER);
        let found = number(header, 0);
        let marked = found == !tag;
        let len = number(header, 4).checked_add(FRAME_HEADER as u32)?;
        let plausible = marked || (found == tag && len > FRAME_HEADER as u32);
        if !plausible || u64::from(len) > left || !is_intact(self.bytes(at, len as usize), place) {
            return None;
        }
        Some((len, marked))
    }

    /// Where the next intact frame is, from here on; or the end.
    fn search(&mut self, mut at: u64) -> u64 {
        let tags = [self.header.tag.to_le_bytes(), (!self.header.tag).to_le_bytes()];
        while at + FRAME_HEADER as u64 <= self.end {
            let len = (self.end - at).min(BUFFER as u64 / 2) as usize;
            let window = self.bytes(at, len);
            let candidate = window.windows(4).position(|four| tags.iter().any(|tag| tag == four));
            match candidate {
                Some(distance) => {
                    at += distance as u64;
                    if self.examine(at).is_some() {
                        return at;
                    }
                    at += 1;
                }
                // A tag may lie across the end of the window.
                None => at += (len - 3) as u64,
            }
        }
        self.end
    }

    /// So many bytes from here; the caller has looked that the file has them.
    fn bytes(&mut self, at: u64, len: usize) -> &[u8] {
        let buffered = self.buffer_at + self.buffer.len() as u64;
        if at < self.buffer_at || at + len as u64 > buffered {
            let wanted = len.max(BUFFER).min(self.end.saturating_sub(at) as usize).max(len);
            if self.buffer.len() > BUFFER && wanted <= BUFFER {
                self.buffer = Vec::new();
            }
            // The beginning may be there already: what precedes it is let go.
            let kept = if (self.buffer_at..buffered).contains(&at) {
                self.buffer.drain(..(at - self.buffer_at) as usize);
                self.buffer.len()
            } else {
                self.buffer.clear();
                0
            };
            self.buffer_at = at;
            self.buffer.resize(wanted, 0);
            let rest = self.buffer.get_mut(kept..).unwrap_or_default();
            self.unreadable |= !read_what_can_be_read(self.file, rest, at + kept as u64);
        }
        let from = (at - self.buffer_at) as usize;
        self.buffer.get(from..from + len).unwrap_or_default()
    }
}

/// Zeros where reading fails; whether it did not.
fn read_what_can_be_read(file: &dyn LogFile, into: &mut [u8], offset: u64) -> bool {
    if matches!(file.read_at(into, offset), Ok(bytes) if bytes == into.len()) {
        return true;
    }
    let mut all = true;
    let mut done = 0;
    while done < into.len() {
        let at = offset + done as u64;
        // As blocks lie, so that a bad one spoils no others.
        let len = (PIECE - (at % PIECE as u64) as usize).min(into.len() - done);
        let piece = into.get_mut(done..done + len).unwrap_or_default();
        let read = file.read_at(piece, at).unwrap_or(0);
        if let Some(missing) = piece.get_mut(read..).filter(|missing| !missing.is_empty()) {
            missing.fill(0);
            all = false;
        }
        done += len;
    }
    all
}
