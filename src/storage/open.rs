//! Finds again what the files hold: the checkpoint, then the segments in order, past any damage.
//!
//! What is damaged is kept aside (`*.bad`) and reported. In the last segment, damage may be a write that a power cut undid in part:
//! what follows it is then no more than was submitted later and never committed, so it goes with it; unless a mark behind it says
//! that all of this had been synced, so that its bytes rotted. Everywhere else, only the damaged frames are lost.
//!
//! Everything found is synced before the log is used: it counts as committed from then on, and who wrote it may not have synced it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::aside::Aside;
use super::checkpoint::Checkpoints;
use super::directory::Directory;
use super::files::LogFile;
use super::format;
use super::frame::{FILE_HEADER, FRAME_HEADER, FileHeader, HeaderFault, Kind, new_tag, number};
use super::scan::{Found, Scan};
use super::segments::{Segment, SegmentFile};
use crate::ledger::Position;

/// Gets what is found. Each frame once.
pub(crate) trait Visitor {
    /// Called first: the position that the checkpoint replaces what precedes, [`Position::START`] if there is no checkpoint.
    fn checkpoint_position(&mut self, position: Position);
    /// A frame of the checkpoint, in order.
    fn checkpoint_frame(&mut self, body: &[u8]);
    /// A frame of the log, in order; also those before the checkpoint, as long as their segment is there. `frame_len` counts the
    /// whole frame.
    fn frame(&mut self, position: Position, frame_len: u32, body: &[u8]);
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Report {
    /// Segments.
    pub(crate) segments: usize,
    /// Bytes of all files read.
    pub(crate) bytes: u64,
    /// Frames shown to the visitor, the checkpoint's too.
    pub(crate) frames: u64,
    /// What was not as it should be.
    pub(crate) damage: Vec<Damage>,
}

/// Something that could not be read or used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Name of the file.
    pub(crate) file: String,
    /// Where in it.
    pub(crate) offset: u64,
    /// How many bytes; 0 if something is missing.
    pub(crate) bytes: u64,
    /// What is wrong, for people.
    pub(crate) what: String,
    /// The file that keeps these bytes, if it is not the file itself and they are not all zero.
    pub(crate) kept_as: Option<String>,
}

/// A tail that could not be cut off: a new file with this header, and nothing behind it, hides it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    pub(super) header: FileHeader,
}

/// What the log begins with.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) tag: u32,
    pub(super) next_segment: u32,
    pub(super) segments: BTreeMap<u32, Segment>,
    pub(super) checkpoints: Checkpoints,
    pub(super) cuts: Vec<Cut>,
    pub(super) report: Report,
}

/// A file whose header is known.
#[derive(Debug)]
struct Loaded {
    header: FileHeader,
    file: Arc<dyn LogFile>,
    len: u64,
}

struct Recovery<'a> {
    files: &'a Directory,
    aside: Aside<'a>,
    visitor: &'a mut dyn Visitor,
    tags: BTreeSet<u32>,
    cuts: Vec<Cut>,
    report: Report,
    checkpoint: Position,
    bytes_since: u64,
}

/// See the module's documentation.
///
/// # Errors
/// If the directory cannot be listed, or is not for this version: see `format.rs`.
pub(super) fn recover(files: &Directory, visitor: &mut dyn Visitor) -> io::Result<Recovered> {
    let names = files.list()?;
    format::check(files, &names)?;
    let next_segment =
        names.iter().filter_map(|name| segment_in(name)).max().map_or(1, |id| id.saturating_add(1));
    let mut recovery = Recovery {
        files,
        aside: Aside::new(files, &names),
        visitor,
        tags: BTreeSet::new(),
        cuts: Vec::new(),
        report: Report::default(),
        checkpoint: Position::START,
        bytes_since: 0,
    };
    for name in names.iter().filter(|name| name.ends_with(".tmp") && segment_in(name).is_some()) {
        // Unfinished when the process ended: what it was to hold is elsewhere.
        let _ = files.remove(name);
    }
    // A process that was killed may have left names that are not safe yet; what they replace may be removed after this.
    let names_safe = files.sync_names(files.failures());
    let (checkpoints, segments) = recovery.load(&names);
    let checkpoints = recovery.read_checkpoint(checkpoints, names_safe.is_ok());
    let segments = recovery.read_segments(segments);
    if let Err(error) = names_safe.and_then(|()| files.sync_names(files.failures())) {
        recovery.damaged("", 0, 0, format!("the directory cannot be synced: {error}"), None);
    }
    let tag = recovery.tags.first().copied().unwrap_or_else(new_tag);
    checkpoints.found_bytes_since(recovery.bytes_since);
    let Recovery { cuts, report, .. } = recovery;
    Ok(Recovered { tag, next_segment, segments, checkpoints, cuts, report })
}

/// The segment that a name of ours speaks of, whatever its ending.
fn segment_in(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("segment-").or_else(|| name.strip_prefix("checkpoint-"))?;
    u32::from_str_radix(rest.get(..8)?, 16).ok()
}

impl Recovery<'_> {
    fn damaged(&mut self, file: &str, offset: u64, bytes: u64, what: String, kept_as: Option<String>) {
        self.report.damage.push(Damage { file: file.to_owned(), offset, bytes, what, kept_as });
    }

    /// Opens the checkpoints (the newest first) and the segments' files, as far as their headers are known or can be guessed.
    fn load(&mut self, names: &[String]) -> (Vec<Loaded>, BTreeMap<u32, Vec<Loaded>>) {
        let mut loaded = Vec::new();
        let mut without_header = Vec::new();
        for name in names {
            let Some(named) = FileHeader::from_name(name) else { continue };
            let opened = self.files.open(name).and_then(|file| Ok((file.len()?, file)));
            let (len, file) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.damaged(name, 0, 0, format!("cannot be opened: {error}"), None);
                    continue;
                }
            };
            let mut bytes = [0; FILE_HEADER];
            let _ = file.read_at(&mut bytes, 0);
            match FileHeader::decode(&bytes) {
                Ok(header) if header.name() == *name => {
                    self.tags.insert(header.tag);
                    loaded.push(Loaded { header, file, len });
                }
                Ok(header) => self.set_aside(name, len, format!("is in truth {}", header.name())),
                // It could not be read a moment ago. It is not damaged, so it keeps its name.
                Err(fault @ (HeaderFault::Version(_) | HeaderFault::Kind(_))) => {
                    self.damaged(name, 0, len, fault.to_string(), None);
                }
                Err(HeaderFault::Unreadable) => {
                    without_header.push((name, Loaded { header: named, file, len }));
                }
            }
        }
        for (name, file) in without_header {
            loaded.extend(self.guess_header(name, file));
        }
        let (mut checkpoints, segments): (Vec<_>, Vec<_>) =
            loaded.into_iter().partition(|file| file.header.kind == Kind::Checkpoint);
        checkpoints.sort_by_key(|file| std::cmp::Reverse(file.header.position()));
        let mut by_id: BTreeMap<u32, Vec<Loaded>> = BTreeMap::new();
        for file in segments {
            by_id.entry(file.header.segment).or_default().push(file);
        }
        for files in by_id.values_mut() {
            files.sort_by_key(|file| file.header.offset);
        }
        (checkpoints, by_id)
    }

    fn set_aside(&mut self, name: &str, len: u64, what: String) {
        match self.aside.set_aside(name) {
            Ok(kept_as) => self.damaged(name, 0, len, what, Some(kept_as)),
            Err(error) => self.damaged(name, 0, len, format!("{what}; and cannot be renamed: {error}"), None),
        }
    }

    /// A file whose header is damaged: its name says all but the tag, which other files have, or its own first frame.
    fn guess_header(&mut self, name: &str, mut loaded: Loaded) -> Option<Loaded> {
        let Loaded { file, len, .. } = &loaded;
        let mut scan = Scan::new(&**file, loaded.header, *len);
        if scan.is_zero(0, *len) && !scan.unreadable() {
            // Made, and the power was cut before the first frame was written.
            let _ = self.files.remove(name);
            return None;
        }
        let mut first = [0; 4];
        let _ = file.read_at(&mut first, FILE_HEADER as u64);
        let own = number(&first, 0);
        // The highest bit tells a mark.
        let own = if own >> 31 == 1 { !own } else { own };
        let mut candidates = self.tags.clone();
        candidates.insert(own);
        candidates.remove(&0);
        for tag in candidates {
            loaded.header.tag = tag;
            let mut scan = Scan::new(&*loaded.file, loaded.header, loaded.len);
            if std::iter::from_fn(|| scan.next()).any(|found| matches!(found, Found::Frame { .. })) {
                self.tags.insert(tag);
                let kept = self.keep(name, &loaded, 0, FILE_HEADER as u64, "its header is damaged");
                // The file that has told the tag may go one day.
                if kept && self.aside.rewrite(loaded.header, &*loaded.file, loaded.len).is_ok() {
                    loaded.file = self.files.open(name).unwrap_or(loaded.file);
                }
                return Some(loaded);
            }
        }
        self.set_aside(name, loaded.len, "its header is damaged, and no frame in it is intact".to_owned());
        None
    }

    /// Keeps damaged bytes aside and reports them; whether they are safe.
    fn keep(&mut self, name: &str, loaded: &Loaded, at: u64, bytes: u64, what: &str) -> bool {
        let mut scan = Scan::new(&*loaded.file, loaded.header, loaded.len);
        if scan.is_zero(at, bytes) {
            let readable = !scan.unreadable();
            self.damaged(name, at, bytes, format!("{what} (zeros)"), None);
            return readable;
        }
        match self.aside.keep(name, &*loaded.file, at, bytes) {
            Ok(kept_as) => {
                self.damaged(name, at, bytes, what.to_owned(), Some(kept_as));
                !scan.unreadable()
            }
            Err(error) => {
                self.damaged(name, at, bytes, format!("{what}; and cannot be copied: {error}"), None);
                false
            }
        }
    }

    /// Shows the newest checkpoint.
    fn read_checkpoint(&mut self, checkpoints: Vec<Loaded>, names_safe: bool) -> Checkpoints {
        let mut checkpoints = checkpoints.into_iter();
        let Some(newest) = checkpoints.next() else {
            self.visitor.checkpoint_position(Position::START);
            return Checkpoints::default();
        };
        self.checkpoint = newest.header.position();
        self.visitor.checkpoint_position(self.checkpoint);
        let name = newest.header.name();
        let mut ended = false;
        let mut scan = Scan::new(&*newest.file, newest.header, newest.len);
        while let Some(found) = scan.next() {
            match found {
                Found::Frame { len, .. } if len as usize <= FRAME_HEADER => ended = true,
                Found::Frame { at, len, .. } => {
                    self.visitor.checkpoint_frame(scan.body(at, len));
                    self.report.frames += 1;
                }
                Found::Damage { at, bytes } => {
                    let _ = self.keep(&name, &newest, at, bytes, "part of the checkpoint is damaged");
                }
            }
        }
        if !ended {
            self.damaged(&name, newest.len, 0, "the end of the checkpoint is missing".to_owned(), None);
        }
        self.report.bytes += newest.len;
        // If there are more, the process ended while it finished this one, and nothing says that its name is safe, whatever a sync
        // says now. The others stay, and nothing is freed because of it, until the next one is finished.
        let mut files: Vec<_> = checkpoints.map(|older| (older.header.name(), older.len)).collect();
        let safe = names_safe && files.is_empty();
        files.push((name, newest.len));
        Checkpoints::found(self.checkpoint, safe, files)
    }

    fn read_segments(&mut self, segments: BTreeMap<u32, Vec<Loaded>>) -> BTreeMap<u32, Segment> {
        let last = segments.keys().next_back().copied();
        let mut read = BTreeMap::new();
        for (id, mut files) in segments {
            let mut segment = Segment::default();
            for index in 0..files.len() {
                let next = files.get(index + 1).map(|file| file.header.offset);
                let may_be_torn = Some(id) == last && next.is_none();
                if let Some(file) = files.get_mut(index) {
                    self.read_file(file, next, may_be_torn, &mut segment);
                }
            }
            if !segment.files.is_empty() {
                self.report.segments += 1;
                self.report.bytes += segment.bytes();
                read.insert(id, segment);
            }
        }
        read
    }

    /// Shows the frames of one file of a segment; `next` is where the following file takes over.
    fn read_file(
        &mut self,
        loaded: &mut Loaded,
        next: Option<u32>,
        may_be_torn: bool,
        segment: &mut Segment,
    ) {
        let header = loaded.header;
        let name = header.name();
        let behind_header = |offset: u32| FILE_HEADER as u64 + u64::from(offset - header.offset);
        let most = behind_header(next.unwrap_or(u32::MAX));
        let mut end = loaded.len.min(most);
        let handle = Arc::clone(&loaded.file);
        let mut scan = Scan::new(&*handle, header, end);
        let mut last_mark = None;
        let (mut torn, mut ended) = (false, false);
        while let Some(found) = scan.next() {
            match found {
                Found::Frame { at, len, .. } => {
                    let position = Position::from_u64(header.place(at));
                    if position >= self.checkpoint {
                        self.bytes_since += u64::from(len);
                    }
                    ended = len as usize <= FRAME_HEADER;
                    if !ended {
                        let frames_end = position.offset() + len;
                        segment.end = segment.end.max(frames_end);
                        self.visitor.frame(position, len, scan.body(at, len));
                        self.report.frames += 1;
                    }
                }
                Found::Damage { at, bytes } if at + bytes == loaded.len && scan.is_room(at, bytes) => {
                    end = at;
                    break;
                }
                Found::Damage { at, bytes } => {
                    let synced = *last_mark.get_or_insert_with(|| scan.last_mark()) > Some(at);
                    if may_be_torn && !synced && scan.may_be_torn(at, bytes) {
                        (torn, end) = (true, at);
                        break;
                    }
                    segment.keep |= !self.keep(&name, loaded, at, bytes, "damaged");
                }
            }
        }
        if next.is_some() && end < most {
            self.damaged(&name, end, 0, format!("{} bytes are missing", most - end), None);
        }
        let unreadable = scan.unreadable();
        if torn {
            segment.keep |=
                !self.keep(&name, loaded, end, loaded.len - end, "the end was not written wholly");
        }
        // A sync that failed before the process ended may be why this one succeeds: it is no proof for the end of the log.
        let again = may_be_torn && (torn || !ended) && !unreadable && !segment.keep;
        let written_again = again.then(|| self.aside.rewrite(header, &*loaded.file, end));
        if let Some(Ok(())) = written_again {
            loaded.len = end;
        } else {
            if let Some(Err(error)) = written_again {
                let what =
                    format!("the end may not survive a power cut, for it cannot be written again: {error}");
                self.damaged(&name, 0, 0, what, None);
            }
            if torn && !self.hide(header, end, segment) {
                return;
            }
            if let Err(error) = loaded.file.sync() {
                self.damaged(&name, 0, 0, format!("cannot be synced: {error}"), None);
            }
        }
        segment.files.push(SegmentFile { header, bytes: loaded.len, generation: 0 });
    }

    /// A tail that could not be cut off stays where it is, and is hidden before anything is written. Whether the file keeps its name:
    /// one with nothing else in it loses it.
    fn hide(&mut self, header: FileHeader, end: u64, segment: &mut Segment) -> bool {
        segment.keep = true;
        let behind_header = (end - FILE_HEADER as u64) as u32;
        if behind_header > 0 {
            self.cuts.push(Cut { header: FileHeader { offset: header.offset + behind_header, ..header } });
            return true;
        }
        // No file of the segment may come to light by the going of another.
        !segment.files.is_empty() || self.aside.set_aside(&header.name()).is_err()
    }
}
