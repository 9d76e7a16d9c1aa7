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
use super::files::{Files, LogFile};
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
    files: &'a Arc<dyn Files>,
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
/// If the directory cannot be listed.
pub(super) fn recover(files: &Arc<dyn Files>, visitor: &mut dyn Visitor) -> io::Result<Recovered> {
    let names = files.list()?;
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
    // A process that was killed may have left names that are not safe yet; below, things are removed that these names replace.
    let names_safe = files.sync_dir();
    let (checkpoints, segments) = recovery.load(&names);
    let checkpoints = recovery.read_checkpoint(checkpoints, names_safe.is_ok());
    let segments = recovery.read_segments(segments);
    if let Err(error) = names_safe.and_then(|()| files.sync_dir()) {
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
            let read = file.read_at(&mut bytes, 0).unwrap_or(0);
            match FileHeader::decode(&bytes) {
                Ok(header) if header.name() == *name => {
                    self.tags.insert(header.tag);
                    loaded.push(Loaded { header, file, len });
                }
                Ok(header) => self.set_aside(name, len, format!("is in truth {}", header.name())),
                Err(HeaderFault::Version(version)) => {
                    self.set_aside(name, len, format!("is of format version {version}, not known here"));
                }
                Err(HeaderFault::Unreadable) => {
                    without_header.push((name, Loaded { header: named, file, len }, read));
                }
            }
        }
        for (name, file, read) in without_header {
            loaded.extend(self.guess_header(name, file, read));
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
    fn guess_header(&mut self, name: &str, mut loaded: Loaded, header_read: usize) -> Option<Loaded> {
        let Loaded { file, len, .. } = &loaded;
        let mut scan = Scan::new(&**file, loaded.header, *len);
        let nothing_in_it = scan.is_zero(0, *len) && !scan.unreadable();
        if nothing_in_it || (header_read as u64 == *len && *len < FILE_HEADER as u64) {
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
                let _ = self.keep(name, &loaded, 0, FILE_HEADER as u64, "its header is damaged");
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

    /// Shows the newest checkpoint, and removes the others.
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
        let mut files = Vec::new();
        for older in checkpoints {
            let name = older.header.name();
            if !names_safe || self.files.remove(&name).is_err() {
                files.push((name, older.len));
            }
        }
        files.push((name, newest.len));
        // If its name is not safe, nothing may be freed because of it.
        let position = if names_safe { self.checkpoint } else { Position::START };
        Checkpoints::found(position, files)
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
        while let Some(found) = scan.next() {
            match found {
                Found::Frame { at, len, .. } => {
                    let position = Position::from_u64(header.place(at));
                    if position >= self.checkpoint {
                        self.bytes_since += u64::from(len);
                    }
                    if len as usize > FRAME_HEADER {
                        self.visitor.frame(position, len, scan.body(at, len));
                        self.report.frames += 1;
                    }
                }
                Found::Damage { at, bytes } => {
                    let synced = *last_mark.get_or_insert_with(|| scan.last_mark()) > Some(at);
                    if may_be_torn && !synced && scan.may_be_torn(at, bytes) {
                        end = at;
                        if !self.cut(loaded, at, segment) {
                            return;
                        }
                        break;
                    }
                    segment.keep |= !self.keep(&name, loaded, at, bytes, "damaged");
                }
            }
        }
        if next.is_some() && end < most {
            self.damaged(&name, end, 0, format!("{} bytes are missing", most - end), None);
        }
        if let Err(error) = loaded.file.sync() {
            self.damaged(&name, 0, 0, format!("cannot be synced: {error}"), None);
        }
        segment.end = segment.end.max(header.offset + (end.saturating_sub(FILE_HEADER as u64)) as u32);
        segment.files.push(SegmentFile { header, bytes: loaded.len, generation: 0 });
    }

    /// Lets go of a torn tail: cuts it off when it is kept aside, else hides it. Whether the file is still there.
    fn cut(&mut self, loaded: &mut Loaded, at: u64, segment: &mut Segment) -> bool {
        let name = loaded.header.name();
        let bytes = loaded.len - at;
        let what = "the end was not written wholly";
        if self.keep(&name, loaded, at, bytes, what)
            && loaded.file.truncate(at).and_then(|()| loaded.file.sync()).is_ok()
        {
            loaded.len = at;
            return true;
        }
        segment.keep = true;
        let behind_header = (at - FILE_HEADER as u64) as u32;
        if behind_header > 0 {
            let header = FileHeader { offset: loaded.header.offset + behind_header, ..loaded.header };
            self.cuts.push(Cut { header });
            return true;
        }
        // Nothing else is in it; and no file of the segment must come to light by its going.
        !segment.files.is_empty() || self.aside.set_aside(&name).is_err()
    }
}
