//! What the log calls.

use std::time::Duration;

use parking_lot::MutexGuard;

use super::*;
use crate::storage::files::{Files, LogFile};

/// A test that holds a sync for so long has failed, and its broker is to end.
const HELD_MAX: Duration = Duration::from_secs(20);

const EEXIST: i32 = 17;
const ENOENT: i32 = 2;

fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// What a step that was done returns.
fn done(power_cut: bool) -> io::Result<()> {
    if power_cut { Err(error(Fault::PowerCut)) } else { Ok(()) }
}

impl SimulatedFiles {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock()
    }

    fn file(&self, name: &str, id: u64) -> Arc<dyn LogFile> {
        Arc::new(SimulatedFile { files: self.clone(), name: name.to_owned(), id })
    }
}

impl State {
    fn id(&self, name: &str) -> io::Result<u64> {
        if !self.power {
            return Err(error(Fault::PowerCut));
        }
        self.names.get(name).copied().ok_or_else(|| os_error(ENOENT))
    }

    /// Whether files can be opened and read.
    fn read(&mut self) -> io::Result<()> {
        let Some(code) = self.refused_reads else { return Ok(()) };
        self.reads_refused += 1;
        Err(os_error(code))
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push((change, false));
    }

    fn contents(&mut self, id: u64) -> &mut Contents {
        self.contents.entry(id).or_default()
    }

    fn room(&self) -> usize {
        let used: usize = self
            .names
            .values()
            .filter_map(|id| self.contents.get(id))
            .map(|contents| contents.now.len())
            .sum();
        self.limit.map_or(usize::MAX, |limit| limit.saturating_sub(used))
    }
}

impl Files for SimulatedFiles {
    fn free_bytes(&self) -> Option<u64> {
        Some(self.lock().room() as u64)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let state = self.lock();
        done(!state.power)?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.lock();
        let cut = self.0.step(&mut state, StepKind::Create, name).map_err(error)?;
        if state.names.contains_key(name) {
            return Err(os_error(EEXIST));
        }
        let id = state.contents.keys().next_back().map_or(0, |id| id + 1);
        state.contents.insert(id, Contents::default());
        state.change(Change::Link(name.to_owned(), id));
        done(cut)?;
        Ok(self.file(name, id))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut state = self.lock();
        state.read()?;
        let id = state.id(name)?;
        Ok(self.file(name, id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.lock();
        let id = state.id(from)?;
        let cut = self.0.step(&mut state, StepKind::Rename, to).map_err(error)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned(), id));
        done(cut)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.lock();
        state.id(name)?;
        let cut = self.0.step(&mut state, StepKind::Remove, name).map_err(error)?;
        state.change(Change::Unlink(name.to_owned()));
        done(cut)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.lock();
        match self.0.step(&mut state, StepKind::SyncDir, "") {
            Ok(true) => done(true),
            Ok(false) => {
                for (change, lost) in std::mem::take(&mut state.changes) {
                    if !lost {
                        apply(&mut state.safe_names, &change);
                    }
                }
                Ok(())
            }
            Err(fault) => {
                for (_, lost) in &mut state.changes {
                    *lost = true;
                }
                Err(error(fault))
            }
        }
    }

    fn path(&self, name: &str) -> String {
        format!("simulated/{name}")
    }
}

#[derive(Debug)]
struct SimulatedFile {
    files: SimulatedFiles,
    name: String,
    id: u64,
}

impl LogFile for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.files.lock();
        done(!state.power)?;
        Ok(state.contents(self.id).now.len() as u64)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.files.lock();
        done(!state.power)?;
        state.read()?;
        let end = offset + into.len() as u64;
        let spoiled =
            |(name, at): &(String, u64)| *name == self.name && *at < end && offset < at + UNREADABLE;
        if state.unreadable.iter().any(spoiled) {
            return Err(error(Fault::Broken));
        }
        let now = &state.contents(self.id).now;
        let rest = now.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(into.len());
        into[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.files.lock();
        let at = offset as usize;
        let fault = self.files.0.step(&mut state, StepKind::Write, &self.name);
        let fits = (state.room().saturating_add(state.contents(self.id).now.len())).saturating_sub(at);
        let (len, result) = match fault {
            Ok(cut) if fits >= bytes.len() => (bytes.len(), done(cut)),
            Ok(_) => (fits, Err(error(Fault::Full))),
            Err(Fault::PowerCut) => (0, Err(error(Fault::PowerCut))),
            Err(fault) => (state.random.below(bytes.len() + 1).min(fits), Err(error(fault))),
        };
        state.contents(self.id).write(&bytes[..len], at);
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.files.lock();
        let is_held = |state: &State| state.syncs_held.is_some_and(|held| self.name.contains(held));
        if is_held(&state) {
            state.syncs_waiting += 1;
            self.files.0.gate.notify_all();
            while is_held(&state) && state.syncs_let_through == 0 && state.power {
                if self.files.0.gate.wait_for(&mut state, HELD_MAX).timed_out() {
                    state.syncs_held = None;
                }
            }
            state.syncs_waiting -= 1;
            state.syncs_let_through = state.syncs_let_through.saturating_sub(1);
        }
        match self.files.0.step(&mut state, StepKind::Sync, &self.name) {
            Ok(true) => done(true),
            Ok(false) => {
                state.contents(self.id).sync();
                Ok(())
            }
            Err(fault) => {
                let contents = state.contents(self.id);
                contents.lost.append(&mut contents.dirty);
                Err(error(fault))
            }
        }
    }
}
