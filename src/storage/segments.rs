//! Which segments there are, for those who read and free them while the writer appends.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::files::{Files, LogFile};
use super::frame::{FILE_HEADER, FRAME_HEADER, FileHeader, Kind, is_intact, number};
use super::scan::{Found, Scan};
use crate::ledger::{Ledger, Position};

/// Files kept open for reading.
const OPEN_FILES: usize = 16;
/// Read first; a longer frame takes a second read.
const FIRST_READ: usize = 512;
/// Read where the last frame that was read stood close before.
const NEXT_READ: usize = 64 * 1024;

/// A segment that is no longer written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    /// Its number.
    pub(crate) id: u32,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Bytes of it that the ledger says are needed; what several hold counts several times.
    pub(crate) live: u64,
}

/// What [`Log::free`](super::Log::free) removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Freed {
    /// Segments.
    pub(crate) segments: usize,
    /// Bytes of their files.
    pub(crate) bytes: u64,
}

/// Why a frame could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is not in its file yet.
    #[error("not written yet")]
    NotWritten,
    /// Its segment was freed, or there never was one.
    #[error("its segment is not there")]
    Gone,
    /// There is no intact frame at this position.
    #[error("damaged")]
    Damaged,
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl ReadError {
    /// It may be read a little later: nothing is lost.
    pub(crate) fn is_passing(&self) -> bool {
        use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
        // Too many open files, in the process or in all: Rust has no kind for them.
        const FILES: [Option<i32>; 2] = [Some(23), Some(24)];
        match self {
            Self::NotWritten => true,
            Self::Gone | Self::Damaged => false,
            Self::Io(error) => {
                matches!(error.kind(), Interrupted | OutOfMemory | WouldBlock)
                    || FILES.contains(&error.raw_os_error())
            }
        }
    }
}

/// One file of a segment.
#[derive(Debug, Clone)]
pub(super) struct SegmentFile {
    pub(super) header: FileHeader,
    /// Bytes, the header included.
    pub(super) bytes: u64,
    /// Tells a file from one of the same name that was there before.
    pub(super) generation: u64,
}

/// A segment and its files, the smallest offset first.
#[derive(Debug, Default, Clone)]
pub(super) struct Segment {
    pub(super) files: Vec<SegmentFile>,
    /// The offset behind its last frame.
    pub(super) end: u32,
    /// Something in it is unreadable and could not be kept aside: it is kept whole.
    pub(super) keep: bool,
}

impl Segment {
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Each file, with the byte where what counts of it ends.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&SegmentFile, u64)> {
        let ends = self.files.iter().skip(1).map(|next| next.header.offset).chain([self.end]);
        self.files.iter().zip(ends).map(|(file, end)| {
            let frames = u64::from(end.saturating_sub(file.header.offset));
            (file, FILE_HEADER as u64 + frames)
        })
    }
}

/// Bytes of a file, from where a frame was read last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    file: Option<(FileHeader, u64)>,
    at: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// What it has of a file from a byte on.
    fn from(&self, file: &SegmentFile, at: u64) -> &[u8] {
        let is_it = self.file == Some((file.header, file.generation));
        let from = at.checked_sub(self.at).filter(|_| is_it);
        from.and_then(|from| self.bytes.get(usize::try_from(from).ok()?..)).unwrap_or_default()
    }

    /// Reads from a byte on: at least so many of the `left`, more if the last read was close before.
    fn fill(
        &mut self,
        handle: &dyn LogFile,
        file: &SegmentFile,
        at: u64,
        left: u64,
        least: usize,
    ) -> io::Result<()> {
        let of = Some((file.header, file.generation));
        let reached = self.at + (self.bytes.len() + NEXT_READ) as u64;
        let is_next = self.file == of && (self.at..reached).contains(&at);
        let wanted = if is_next { least.max(NEXT_READ) } else { least };
        (self.file, self.at) = (None, at);
        self.bytes.resize(left.min(wanted as u64) as usize, 0);
        let read = handle.read_at(&mut self.bytes, at)?;
        self.bytes.truncate(read);
        self.file = of;
        Ok(())
    }
}

/// Bytes of the whole frame that begins so.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    (bytes.len() >= FRAME_HEADER).then(|| number(bytes, 4) as usize + FRAME_HEADER)
}

type Opened = (FileHeader, u64, Arc<dyn LogFile>);

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Segments {
    files: Arc<dyn Files>,
    pub(super) ledger: Arc<Ledger>,
    map: RwLock<BTreeMap<u32, Segment>>,
    opened: Mutex<VecDeque<Opened>>,
}

impl Segments {
    pub(super) fn new(files: Arc<dyn Files>, ledger: Arc<Ledger>, map: BTreeMap<u32, Segment>) -> Self {
        Self { files, ledger, map: RwLock::new(map), opened: Mutex::default() }
    }

    /// A file was made for a segment; it replaces one of the same offset.
    pub(super) fn add_file(&self, header: FileHeader, bytes: u64) {
        let mut map = self.map.write();
        let segment = map.entry(header.segment).or_default();
        let generation = segment.files.iter().map(|file| file.generation + 1).max().unwrap_or(0);
        segment.files.retain(|file| file.header.offset != header.offset);
        segment.files.push(SegmentFile { header, bytes, generation });
    }

    /// A segment ends here now; its last file has so many bytes.
    pub(super) fn grown(&self, segment: u32, end: u32, bytes: u64) {
        if let Some(segment) = self.map.write().get_mut(&segment) {
            segment.end = end;
            if let Some(file) = segment.files.last_mut() {
                file.bytes = bytes;
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.read().values().map(Segment::bytes).sum()
    }

    /// See [`Log::sealed_segments`](super::Log::sealed_segments); `current` is being written.
    pub(super) fn sealed(&self, current: u32) -> Vec<SegmentInfo> {
        let map = self.map.read();
        let sealed = map.range(..current);
        sealed
            .map(|(id, segment)| SegmentInfo { id: *id, bytes: segment.bytes(), live: self.ledger.live(*id) })
            .collect()
    }

    /// See [`Log::read_with`](super::Log::read_with).
    pub(super) fn read(
        &self,
        position: Position,
        window: &mut Window,
        into: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        into.clear();
        let (file, end) = self.find(position)?;
        let at = FILE_HEADER as u64 + u64::from(position.offset() - file.header.offset);
        let left = end.saturating_sub(at);
        let mut found = window.from(&file, at);
        let mut len = frame_len(found);
        if len.is_none_or(|len| len > found.len()) {
            let handle = self.open(&file)?;
            window.fill(&*handle, &file, at, left, FIRST_READ)?;
            len = frame_len(window.from(&file, at));
            if let Some(len) = len.filter(|len| *len > window.bytes.len() && *len as u64 <= left) {
                window.fill(&*handle, &file, at, left, len)?;
            }
            found = window.from(&file, at);
        }
        let frame = len.and_then(|len| found.get(..len)).ok_or(ReadError::Damaged)?;
        let tag = number(frame, 0);
        let is_ours = tag == file.header.tag || tag == !file.header.tag;
        if !is_ours || frame.len() as u64 > left || !is_intact(frame, file.header.place(at)) {
            return Err(ReadError::Damaged);
        }
        into.extend_from_slice(frame.get(FRAME_HEADER..).unwrap_or_default());
        Ok(())
    }

    /// See [`Log::scan_segment`](super::Log::scan_segment).
    pub(super) fn scan(&self, id: u32, visit: &mut dyn FnMut(Position, u32, &[u8])) -> io::Result<()> {
        let segment = self.map.read().get(&id).cloned();
        let Some(segment) = segment else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment is not there"));
        };
        for (file, end) in segment.parts() {
            let handle = self.open(file)?;
            let mut scan = Scan::new(&*handle, file.header, end.min(handle.len()?));
            while let Some(found) = scan.next() {
                if let Found::Frame { at, len, .. } = found
                    && len > FRAME_HEADER as u32
                {
                    visit(Position::from_u64(file.header.place(at)), len, scan.body(at, len));
                }
            }
        }
        Ok(())
    }

    /// The segments before `current` that end at or before `checkpoint` and to which nothing refers.
    pub(super) fn dead(&self, current: u32, checkpoint: Position) -> Vec<u32> {
        let map = self.map.read();
        map.range(..current)
            .filter(|(id, segment)| Position::new(**id, segment.end) <= checkpoint)
            .filter(|(id, _)| self.ledger.live(**id) == 0)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Removes those of these segments to which nothing refers.
    pub(super) fn free(&self, dead: &[u32]) -> io::Result<Freed> {
        let dead: Vec<(u32, Segment)> = {
            let map = self.map.read();
            dead.iter()
                .filter(|id| self.ledger.live(**id) == 0)
                .filter_map(|id| Some((*id, map.get(id)?.clone())))
                .collect()
        };
        let mut freed = Freed::default();
        for (id, segment) in dead {
            for file in &segment.files {
                let name = file.header.name();
                let gone = if segment.keep {
                    self.files.rename(&name, &format!("{name}.bad"))
                } else {
                    self.files.remove(&name)
                };
                // A call before this one may have removed some of the files and failed then.
                match gone {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.opened.lock().retain(|(header, ..)| header.segment != id);
            self.map.write().remove(&id);
            self.ledger.forget(id);
            freed.segments += 1;
            freed.bytes += segment.bytes();
        }
        Ok(freed)
    }

    fn find(&self, position: Position) -> Result<(SegmentFile, u64), ReadError> {
        let map = self.map.read();
        let segment = map.get(&position.segment()).ok_or(ReadError::Gone)?;
        let within = segment.parts().filter(|(file, _)| file.header.offset <= position.offset());
        within.last().map(|(file, end)| (file.clone(), end)).ok_or(ReadError::Damaged)
    }

    fn open(&self, file: &SegmentFile) -> io::Result<Arc<dyn LogFile>> {
        let is_it =
            |(header, generation, _): &Opened| *header == file.header && *generation == file.generation;
        if let Some((.., handle)) = self.opened.lock().iter().find(|opened| is_it(opened)) {
            return Ok(Arc::clone(handle));
        }
        debug_assert_eq!(file.header.kind, Kind::Segment);
        let handle = self.files.open(&file.header.name())?;
        let mut opened = self.opened.lock();
        if opened.len() >= OPEN_FILES {
            opened.pop_front();
        }
        opened.push_back((file.header, file.generation, Arc::clone(&handle)));
        Ok(handle)
    }
}
