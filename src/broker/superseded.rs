//! `Superseded`: retained values that were replaced or removed before they were on record.
//!
//! A value is in the retained store at once, and its record follows at the end of its turn; with
//! many receivers, or for a will in line, that is some time later. Meanwhile another turn may
//! remove or replace the value and have that on record first. A checkpoint that begins between
//! the two records does not find the value, so to it the record that takes the value away is old,
//! and the record of the value itself, which follows, is new. After a crash the value would be
//! back.
//!
//! So whoever takes away a value that may not be on record yet notes it here, before it submits a
//! record of its own, and a checkpoint tells what it finds here as [`Record::Unretain`]: up to this
//! revision nothing is retained. A checkpoint is in force only when every turn has ended that was
//! open when it was gathered. So by then the values that it tells of are on record, the next
//! checkpoint has them before its position, and they are forgotten here.
//!
//! How much is here is bounded: each entry stands for a record that the log has had or will have
//! since the last checkpoint, and as the log grows the next checkpoint is due. It is charged to
//! [`Account::Retained`].

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

use super::Core;
use super::retain::Kept;
use super::turn_log::TurnLog;
use crate::accounts::{Account, Accounts, Charge};
use crate::storage::Record;

/// What an entry takes besides its topic.
const OVERHEAD: usize = 64;
/// Bytes of records that make a frame of a checkpoint.
const FRAME_BYTES: usize = 4 * 1024;

/// See the module's documentation.
pub(super) struct Superseded {
    /// Since the last checkpoint was gathered.
    noted: Mutex<Values>,
    /// Told by a checkpoint that is not in force yet. Locked before the other.
    told: Mutex<Values>,
}

struct Values {
    /// By topic: the newest revision.
    revisions: HashMap<Box<str>, u64, RandomState>,
    charge: Charge,
}

impl Values {
    fn note(&mut self, topic: Box<str>, revision: u64) {
        match self.revisions.entry(topic) {
            Entry::Occupied(mut known) => {
                let known = known.get_mut();
                *known = revision.max(*known);
            }
            Entry::Vacant(place) => {
                self.charge.set(self.charge.bytes() + place.key().len() + OVERHEAD);
                place.insert(revision);
            }
        }
    }

    fn take(&mut self) -> HashMap<Box<str>, u64, RandomState> {
        self.charge.set(0);
        std::mem::take(&mut self.revisions)
    }
}

impl Superseded {
    pub(super) fn new(accounts: &Arc<Accounts>) -> Self {
        let none = || {
            let charge = Charge::new(accounts, Account::Retained, 0);
            Mutex::new(Values { revisions: HashMap::default(), charge })
        };
        Self { noted: none(), told: none() }
    }

    /// Gives `write` the bodies of frames for a checkpoint: what is noted here, and what the
    /// checkpoint before it has told if it came to nothing. One checkpoint at a time.
    pub(super) fn tell<E>(&self, mut write: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut told = self.told.lock();
        let noted = self.noted.lock().take();
        noted.into_iter().for_each(|(topic, revision)| told.note(topic, revision));
        let mut body = Vec::new();
        for (topic, revision) in &told.revisions {
            Record::Unretain { revision: *revision, topic }.write(&mut body);
            if body.len() >= FRAME_BYTES {
                write(&body)?;
                body.clear();
            }
        }
        if body.is_empty() { Ok(()) } else { write(&body) }
    }

    /// The checkpoint that was told of them is in force.
    pub(super) fn settled(&self) {
        drop(self.told.lock().take());
    }
}

impl Core {
    /// A retained value is not one any more. To be called before the record of what takes its place
    /// is submitted. What this very turn has put down needs no note: the log gets it before or
    /// together with whatever takes its place.
    pub(super) fn note_superseded(&self, turn_log: &TurnLog, kept: &Kept) {
        let is_on_record = kept.revision == 0 || kept.message.stored().is_some();
        if !is_on_record && !turn_log.has_put_down(&kept.message) {
            self.superseded.noted.lock().note(Box::from(kept.message.topic()), kept.revision);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Records;

    #[test]
    fn what_is_noted_is_told_until_a_checkpoint_with_it_is_in_force() {
        let accounts = Arc::new(Accounts::new(None));
        let superseded = Superseded::new(&accounts);
        let note = |topic: &str, revision| superseded.noted.lock().note(Box::from(topic), revision);
        let tell = || {
            let mut told = Vec::new();
            let mut write = |body: &[u8]| {
                told.extend(Records::new(body).map(|record| match record {
                    Record::Unretain { revision, topic } => (topic.to_owned(), revision),
                    other => panic!("{other:?}"),
                }));
                Ok::<_, ()>(())
            };
            superseded.tell(&mut write).unwrap();
            told.sort();
            told
        };
        let charged = || accounts.of(Account::Retained);
        let [a, b] = ["a", "b"].map(str::to_owned);
        note("a", 5);
        note("a", 3);
        assert_eq!((tell(), charged()), (vec![(a.clone(), 5)], 1 + OVERHEAD));
        // That one came to nothing.
        note("a", 7);
        note("b", 6);
        assert_eq!((tell(), charged()), (vec![(a, 7), (b.clone(), 6)], 2 * (1 + OVERHEAD)));
        // Noted since it was gathered.
        note("b", 9);
        superseded.settled();
        assert_eq!((tell(), charged()), (vec![(b, 9)], 1 + OVERHEAD));
        superseded.settled();
        assert_eq!((tell(), charged()), (vec![], 0));
    }
}
