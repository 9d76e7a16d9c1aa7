//! `Reserve`: room on the disk that is kept for the time when the disk is full.
//!
//! On a full disk nothing can be freed without writing: the end of a delivery has to be on record
//! before its message is removed, a checkpoint has to be written before old segments go. So the log
//! keeps a file of zeros, written and not sparse. When the system says that there is no room, the
//! writer removes it and goes on. From then on the log is *short of room*: it takes what ends
//! things and what reads need, and nothing that makes it grow ([`Shared::is_full`]). The
//! housekeeper writes checkpoints, copies forward and frees with what the reserve had, and makes
//! the reserve anew when there is room for it again; only then the log goes on growing.
//!
//! What is in between takes a part of it, and then waits like all that grows: messages that change
//! their owner down to the half ([`Shared::room_to_hand_over`]), what comes of letting clients in that are
//! known already down to an eighth ([`Shared::may_let_in`]). The rest, and what is for checkpoints, is
//! for ends alone: who has been let in can acknowledge.
//!
//! Its size is what that takes: everything that may be waiting in memory to be written, two checkpoints as
//! large as the last one, and a segment to copy into. On a small disk it is a quarter of what the log could
//! have at all, and no more waits in memory than half of it can take.

use std::io;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;

use super::directory::Directory;
use super::shared::Shared;

/// The name of its file in the data directory.
const NAME: &str = "reserve";
/// Written at once.
const PIECE: usize = 256 * 1024;
static ZEROS: [u8; PIECE] = [0; PIECE];
/// Of all that the log could have on its disk, this part at most.
const PART_OF_DISK: u64 = 4;

/// Why a client that is known is to be let in, though that is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LetIn {
    /// Something waits for it: it makes room.
    ToDrain,
    /// Only because it is known.
    AsKnown,
}

/// How much may go from one session to another. By default nothing.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct HandOverRoom {
    pub(crate) bytes: usize,
    /// A message that is larger goes by itself.
    pub(crate) at_least_one: bool,
}

impl HandOverRoom {
    /// Without a log.
    pub(crate) const ALL: Self = Self { bytes: usize::MAX, at_least_one: true };

    pub(crate) fn is_none(self) -> bool {
        self.bytes == 0 && !self.at_least_one
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    state: Mutex<State>,
    /// While the log is short of room: bytes that may still be taken for letting clients in. Counted
    /// down by those who take some, and set by what is free on the disk whenever that is looked at.
    for_clients: AtomicI64,
    /// What of that is for those who make room.
    for_drains: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of it that are there for certain.
    bytes: u64,
    /// How often it was given up: who makes it grow sees that it was taken away meanwhile.
    given_up: u64,
}

impl Reserve {
    /// What the last run has left of it.
    pub(super) fn found(files: &Directory) -> Self {
        let len = files.open(NAME).and_then(|file| file.len());
        let state = Mutex::new(State { bytes: len.unwrap_or(0), given_up: 0 });
        Self { state, ..Self::default() }
    }

    /// Bytes in reserve.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// How often it was given up so far.
    fn given_up(&self) -> u64 {
        self.state.lock().given_up
    }

    /// Does this, unless it was given up since that count; who gives it up comes before or behind.
    fn unless_given_up(&self, since: u64, act: impl FnOnce()) {
        let state = self.state.lock();
        if state.given_up == since {
            act();
        }
    }

    /// Removes it, so that there is room to write; `true` if there was any.
    pub(super) fn give_up(&self, files: &Directory) -> bool {
        let mut state = self.state.lock();
        state.given_up += 1;
        let had = std::mem::take(&mut state.bytes) > 0;
        files.remove(NAME).is_ok() || had
    }

    /// Writes it up to this size. Blocks.
    ///
    /// # Errors
    /// If that cannot be written, or it was given up meanwhile: it then does not grow.
    pub(super) fn grow(&self, files: &Directory, target: u64) -> io::Result<()> {
        let (mut at, given_up) = {
            let state = self.state.lock();
            (state.bytes, state.given_up)
        };
        let file = match files.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                at = 0;
                files.create(NAME)?
            }
            opened => opened?,
        };
        while at < target {
            let len = (target - at).min(PIECE as u64);
            if let Err(error) = file.write_at(ZEROS.get(..len as usize).unwrap_or_default(), at) {
                self.give_up(files);
                return Err(error);
            }
            at += len;
            if self.state.lock().given_up != given_up {
                return Err(io::Error::other("the reserve was needed while it was made"));
            }
        }
        file.sync()?;
        let mut state = self.state.lock();
        if state.given_up != given_up {
            return Err(io::Error::other("the reserve was needed while it was made"));
        }
        state.bytes = at;
        Ok(())
    }
}

/// Whether the system has no room for what was to be written: a full disk, a quota, a limit of file sizes.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl Shared {
    /// The disk is full: `true` if the reserve makes room for another attempt.
    pub(super) fn give_up_reserve(&self) -> bool {
        if self.options.reserve_bytes == 0 || !self.reserve.give_up(&self.files) {
            return false;
        }
        self.count_room_for_clients();
        self.set_short_of_room(true);
        tracing::error!(
            path = %self.files.path(NAME),
            "the disk is full: the reserve is used to write ends of deliveries and checkpoints; clients whose messages must be stored \
             wait until there is room again; see that data_dir has free space"
        );
        true
    }

    /// Bytes of messages that may go from one session to another, each of which is written anew. While
    /// the log takes what makes it grow: what may wait in memory, and one message in any case. On a
    /// full disk: what is free, and nobody waits to write, down to half of what the reserve had
    /// besides two checkpoints, as long as nothing much waits to be written. Whoever gets them
    /// acknowledges them, and that makes room. May block.
    pub(super) fn room_to_hand_over(&self) -> HandOverRoom {
        let held = self.held();
        if !self.is_full() {
            let bytes = self.pending_max().saturating_sub(held);
            return HandOverRoom { bytes, at_least_one: true };
        }
        if !self.is_short_of_room() || held >= self.options.pending_bytes_max / 8 {
            return HandOverRoom::default();
        }
        let size = self.reserve_size();
        let kept = size - size.min(self.options.reserve_bytes) / 2 + held as u64;
        let left = self.files.free_bytes().map_or(0, |free| free.saturating_sub(kept));
        HandOverRoom { bytes: usize::try_from(left).unwrap_or(usize::MAX), at_least_one: false }
    }

    /// Whether a client may be let in, of which so many bytes will go on record that are no ends:
    /// always while the log takes what makes it grow. On a full disk they are taken from the reserve;
    /// the last quarter of it that is not for ends only for those who make room. While the disk fails
    /// a little more may wait in memory than otherwise.
    pub(super) fn may_let_in(&self, bytes: usize, why: LetIn) -> bool {
        if !self.is_full() {
            return true;
        }
        if !self.is_short_of_room() {
            let max = self.pending_max();
            return self.held().saturating_add(bytes) <= max + max / 8;
        }
        let kept = match why {
            LetIn::ToDrain => 0,
            LetIn::AsKnown => self.reserve.for_drains.load(Ordering::Acquire),
        };
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let take = |left: i64| Some(left.saturating_sub(bytes)).filter(|left| *left >= kept);
        self.reserve.for_clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Looks how much there is for [`may_let_in`](Self::may_let_in): what is free and nobody waits to
    /// write, without two checkpoints and an eighth of the reserve. May block.
    fn count_room_for_clients(&self) {
        let size = self.reserve_size();
        let part = size.min(self.options.reserve_bytes);
        let kept = size - part / 8 * 7 + self.held() as u64;
        let left = match self.files.free_bytes() {
            Some(free) => signed(free).saturating_sub(signed(kept)),
            // Nobody knows; a part of what there was cannot be too much.
            None => signed(part / 8),
        };
        self.reserve.for_drains.store(signed(part / 4), Ordering::Release);
        self.reserve.for_clients.store(left, Ordering::Release);
    }

    /// Bytes that the reserve should have: see the module's documentation.
    fn reserve_size(&self) -> u64 {
        let used = self.reserve.bytes() + self.segments.bytes() + self.checkpoints.bytes();
        let all = self.files.free_bytes().map_or(u64::MAX, |free| free + used);
        let wanted = self.options.reserve_bytes + 2 * self.checkpoints.bytes();
        wanted.min(all / PART_OF_DISK)
    }

    /// Brings the reserve to the size it should have, if there is room for it, and ends the
    /// shortage if so. Blocks.
    pub(super) fn tend_reserve(&self) {
        if self.options.reserve_bytes == 0 {
            return;
        }
        let given_up = self.reserve.given_up();
        let have = self.reserve.bytes();
        let target = self.reserve_size();
        self.set_pending_max(usize::try_from(target / 2).unwrap_or(usize::MAX));
        if have < target {
            let missing = target - have;
            let margin = u64::from(self.options.segment_bytes).min(target / 2);
            let has_room = self.files.free_bytes().is_none_or(|free| free >= missing + margin);
            if !has_room || self.reserve.grow(&self.files, target).is_err() {
                self.count_room_for_clients();
                // It goes when it cannot grow.
                if self.reserve.bytes() < target / 2 {
                    // Also at the start after a run that had to give it up.
                    self.set_short_of_room(true);
                }
                return;
            }
        }
        // The writer may have needed it since it was looked at: without a reserve the log would take
        // what grows until nothing can be written any more, not even what makes room.
        self.reserve.unless_given_up(given_up, || self.set_short_of_room(false));
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::storage::simulated::SimulatedFiles;

    /// The housekeeper found it whole; before he said so, the writer had used it.
    #[test]
    fn what_was_given_up_meanwhile_does_not_count_as_there() {
        let files = Directory::new(Arc::new(SimulatedFiles::new(1)));
        let reserve = Reserve::found(&files);
        reserve.grow(&files, 1_000).expect("there is room");
        let (seen, mut is_there) = (reserve.given_up(), 0);
        reserve.unless_given_up(seen, || is_there += 1);
        assert!(reserve.give_up(&files));
        reserve.unless_given_up(seen, || is_there += 1);
        assert_eq!(is_there, 1);
    }
}
