//! A disk in memory which can fail, fill up, stall and lose power: for tests of everything that stores.
//!
//! It keeps apart what the process sees and what is safe, for contents and for names. [`SimulatedFiles::after_power_cut`] gives the
//! disk that is found afterwards: what is safe, and a random choice of what is not: nothing, all, a beginning, some sectors of 512
//! bytes with zeros between them, one of them written in part; and likewise some of the names. The same seed gives the same disk.
//!
//! A failed sync behaves as on Linux: what it was to make safe is neither safe then nor after the next sync, unless it is written
//! again; reading shows it nevertheless.
//!
//! Steps are the calls that change something, numbered from 1: create, write, sync, rename, remove, sync of the directory.
//! [`SimulatedFiles::on_step`] sets what goes wrong at which.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Formatter};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

mod calls;

const SECTOR: usize = 512;
/// A bad place of the disk spoils so many bytes.
const UNREADABLE: u64 = 4096;
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Reproducible random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Yes or no.
    pub(crate) fn coin(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StepKind {
    Create,
    Write,
    Sync,
    Rename,
    Remove,
    SyncDir,
}

/// A call that changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) kind: StepKind,
    /// Of the file; the new name of a renaming; empty for the directory.
    pub(crate) name: String,
}

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// EIO. A write has written some of its bytes.
    Broken,
    /// ENOSPC. A write has written some of its bytes.
    Full,
    /// The step begins and never ends; this call and all later ones fail.
    PowerCut,
}

type OnStep = Box<dyn FnMut(&Step) -> Option<Fault> + Send>;

#[derive(Debug, Clone)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

#[derive(Debug, Default, Clone)]
struct Contents {
    now: Vec<u8>,
    safe: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// Sectors that a failed sync was to make safe.
    lost: BTreeSet<usize>,
}

struct State {
    names: BTreeMap<String, u64>,
    safe_names: BTreeMap<String, u64>,
    /// Not synced; `true` when a failed sync has lost it.
    changes: Vec<(Change, bool)>,
    contents: BTreeMap<u64, Contents>,
    steps: Vec<Step>,
    on_step: OnStep,
    power: bool,
    limit: Option<usize>,
    unreadable: BTreeSet<(String, u64)>,
    /// What every read says instead of reading.
    refused_reads: Option<i32>,
    /// How often.
    reads_refused: usize,
    random: Random,
    /// Of files whose names contain this.
    syncs_held: Option<&'static str>,
    syncs_waiting: usize,
    syncs_let_through: usize,
}

struct Disk {
    state: Mutex<State>,
    gate: Condvar,
}

/// See the module's documentation. Clones are the same disk.
#[derive(Clone)]
pub(crate) struct SimulatedFiles(Arc<Disk>);

impl Debug for SimulatedFiles {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.0.state.lock().names.keys()).finish()
    }
}

impl SimulatedFiles {
    /// An empty disk. The seed decides how much of a failing write is written.
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            names: BTreeMap::new(),
            safe_names: BTreeMap::new(),
            changes: Vec::new(),
            contents: BTreeMap::new(),
            steps: Vec::new(),
            on_step: Box::new(|_| None),
            power: true,
            limit: None,
            unreadable: BTreeSet::new(),
            refused_reads: None,
            reads_refused: 0,
            random: Random(seed),
            syncs_held: None,
            syncs_waiting: 0,
            syncs_let_through: 0,
        };
        Self(Arc::new(Disk { state: Mutex::new(state), gate: Condvar::new() }))
    }

    /// From now on this is asked before each step.
    pub(crate) fn on_step(&self, on_step: impl FnMut(&Step) -> Option<Fault> + Send + 'static) {
        self.0.state.lock().on_step = Box::new(on_step);
    }

    /// Nothing goes wrong any more (but power that is lost stays lost).
    pub(crate) fn heal(&self) {
        self.on_step(|_| None);
    }

    /// Every step so far.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.0.state.lock().steps.clone()
    }

    /// How many steps of a kind there were.
    pub(crate) fn count(&self, kind: StepKind) -> usize {
        self.0.state.lock().steps.iter().filter(|step| step.kind == kind).count()
    }

    /// Whether a step had [`Fault::PowerCut`].
    pub(crate) fn has_power(&self) -> bool {
        self.0.state.lock().power
    }

    /// All files together have at most so many bytes; `None`: no limit.
    pub(crate) fn set_limit(&self, bytes: Option<usize>) {
        self.0.state.lock().limit = bytes;
    }

    /// What [`set_limit`](Self::set_limit) has set.
    pub(crate) fn limit(&self) -> Option<usize> {
        self.0.state.lock().limit
    }

    /// From now on [`LogFile::sync`] waits until it is let through.
    pub(crate) fn hold_syncs(&self) {
        self.hold_syncs_of("");
    }

    /// The same for files whose names contain this.
    pub(crate) fn hold_syncs_of(&self, name: &'static str) {
        self.0.state.lock().syncs_held = Some(name);
    }

    /// Waits until a sync waits.
    pub(crate) fn wait_for_held_sync(&self) {
        let mut state = self.0.state.lock();
        while state.syncs_waiting == 0 {
            self.0.gate.wait(&mut state);
        }
    }

    /// Lets one sync through if one waits, unless such a step has been; whether it has.
    pub(crate) fn let_sync_through_before(&self, is_it: impl Fn(&Step) -> bool) -> bool {
        let mut state = self.0.state.lock();
        if state.steps.iter().any(is_it) {
            return true;
        }
        if state.syncs_waiting > state.syncs_let_through {
            state.syncs_let_through += 1;
            self.0.gate.notify_all();
        }
        false
    }

    /// Lets one sync through, which waits or comes.
    pub(crate) fn let_one_sync_through(&self) {
        self.0.state.lock().syncs_let_through += 1;
        self.0.gate.notify_all();
    }

    /// Syncs wait no longer.
    pub(crate) fn release_syncs(&self) {
        self.0.state.lock().syncs_held = None;
        self.0.gate.notify_all();
    }

    /// The bytes of a file, as the process sees them.
    pub(crate) fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.state.lock();
        let id = state.names.get(name)?;
        state.contents.get(id).map(|contents| contents.now.clone())
    }

    /// Gives a file these bytes, safely; makes it if need be. For damage.
    pub(crate) fn set_contents(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.state.lock();
        let id = state.contents.keys().next_back().map_or(0, |id| id + 1);
        state.contents.insert(id, Contents { now: bytes.clone(), safe: bytes, ..Contents::default() });
        state.names.insert(name.to_owned(), id);
        state.safe_names.insert(name.to_owned(), id);
    }

    /// Reading this piece of 4096 bytes of a file fails from now on (EIO).
    pub(crate) fn spoil(&self, name: &str, piece: u64) {
        self.0.state.lock().unreadable.insert((name.to_owned(), piece * UNREADABLE));
    }

    /// Every read says this from now on, until it is `None` again.
    pub(crate) fn refuse_reads(&self, code: Option<i32>) {
        self.0.state.lock().refused_reads = code;
    }

    /// Reads that said so.
    pub(crate) fn reads_refused(&self) -> usize {
        self.0.state.lock().reads_refused
    }

    /// A disk with the same files, all of them safe.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self::new(0);
        let state = self.0.state.lock();
        for (name, id) in &state.names {
            let contents = state.contents.get(id).map(|contents| contents.now.clone());
            copy.set_contents(name, contents.unwrap_or_default());
        }
        drop(state);
        copy
    }

    /// The disk as it may be found when the power is lost now.
    pub(crate) fn after_power_cut(&self, seed: u64) -> Self {
        let state = self.0.state.lock();
        let mut random = Random(seed);
        let mut names = state.safe_names.clone();
        let style = random.below(4);
        let some = random.below(state.changes.len() + 1);
        for (index, (change, _)) in state.changes.iter().enumerate() {
            let happened = match style {
                0 => false,
                1 => true,
                2 => index < some,
                _ => random.coin(),
            };
            if happened {
                apply(&mut names, change);
            }
        }
        let found = Self::new(random.next());
        for (name, id) in names {
            let contents = state.contents.get(&id).map(|contents| contents.found(&mut random));
            found.set_contents(&name, contents.unwrap_or_default());
        }
        found
    }
}

impl Disk {
    /// Whether the power goes in this step: what it does may be found afterwards or not. An error if it does nothing.
    fn step(&self, state: &mut State, kind: StepKind, name: &str) -> Result<bool, Fault> {
        if !state.power {
            return Err(Fault::PowerCut);
        }
        let number = state.steps.len() as u64 + 1;
        let step = Step { number, kind, name: name.to_owned() };
        let fault = (state.on_step)(&step);
        state.steps.push(step);
        match fault {
            None => Ok(false),
            Some(Fault::PowerCut) => {
                state.power = false;
                self.gate.notify_all();
                Ok(true)
            }
            Some(fault) => Err(fault),
        }
    }
}

fn error(fault: Fault) -> io::Error {
    match fault {
        Fault::Full => io::Error::from_raw_os_error(ENOSPC),
        Fault::Broken => io::Error::from_raw_os_error(EIO),
        Fault::PowerCut => io::Error::other("no power"),
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Link(name, id) => {
            names.insert(name.clone(), *id);
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
        Change::Rename(from, to, id) => {
            if names.get(from) == Some(id) {
                names.remove(from);
            }
            names.insert(to.clone(), *id);
        }
    }
}

fn sectors(at: usize, len: usize) -> std::ops::Range<usize> {
    at / SECTOR..(at + len).div_ceil(SECTOR)
}

impl Contents {
    fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        if self.now.len() < at + bytes.len() {
            self.now.resize(at + bytes.len(), 0);
        }
        self.now[at..at + bytes.len()].copy_from_slice(bytes);
        for sector in sectors(at, bytes.len()) {
            self.dirty.insert(sector);
            self.lost.remove(&sector);
        }
    }

    fn sync(&mut self) {
        self.safe.resize(self.now.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            put_sector(&mut self.safe, &self.now, sector, SECTOR);
        }
    }

    fn found(&self, random: &mut Random) -> Vec<u8> {
        let mut found = self.safe.clone();
        let style = random.below(6);
        let pool: Vec<usize> = self.dirty.union(&self.lost).copied().collect();
        let some = random.below(pool.len() + 1);
        let torn = random.below(pool.len() + 1);
        if style != 0 && random.coin() {
            // Its length is there before its bytes are.
            found.resize(self.now.len().max(found.len()), 0);
        }
        for (index, sector) in pool.into_iter().enumerate() {
            let written = match style {
                0 => false,
                1 => true,
                2 | 3 => index < some,
                _ => random.coin(),
            };
            let is_torn = match style {
                3 => index + 1 == some,
                5 => index == torn,
                _ => false,
            };
            if written {
                let bytes = if is_torn { random.below(SECTOR) } else { SECTOR };
                put_sector(&mut found, &self.now, sector, bytes);
            }
        }
        found
    }
}

/// The first bytes of a sector, from one file's contents to another's.
fn put_sector(to: &mut Vec<u8>, from: &[u8], sector: usize, bytes: usize) {
    let start = sector * SECTOR;
    let end = (start + bytes).min(from.len());
    if start < end {
        if to.len() < end {
            to.resize(end, 0);
        }
        to[start..end].copy_from_slice(&from[start..end]);
    }
}
