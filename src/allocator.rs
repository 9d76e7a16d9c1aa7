//! The system's allocator gives memory back to the system. This is the one place with `unsafe`:
//! three calls of the C library.
//!
//! glibc takes large blocks from mappings of their own, which go back when they are freed, but
//! raises the size from which it does so with each that is freed, up to 32 MB: from then on packets
//! and messages of that size come from heaps of which there is one for each thread or two, and
//! which give back only what is free at their end. After large messages hundreds of megabytes stay
//! with the process, with no client connected (benches/README.md, "Memory", has the figures). A
//! threshold that is set stands still. Environment variables that set it themselves come first.
//!
//! Small blocks leave holes between others that are still held. When much was given back the whole
//! of it is gone through once ([`Trimming`]), and pages that are free go back.
//!
//! A program that embeds the library decides for itself; README.md, "Memory", says how it gets the same.

use std::time::{Duration, Instant};

use ternmq::MetricsSnapshot;

/// A block of this many bytes or more is a mapping of its own: reads are of 64 KB and never as
/// large, so this concerns large packets only.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: i32 = 128 * 1024;

/// Free memory at the end of a heap goes back from this many bytes on.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const TRIMMED_FROM: i32 = 128 * 1024;

/// What says that the person who starts the program has chosen.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const CHOSEN_BY: [&str; 3] = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"];

/// To be called before the first large block is taken.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the standard library has no way to set this")]
pub(crate) fn give_large_blocks_back() {
    if CHOSEN_BY.iter().any(|name| std::env::var_os(name).is_some()) {
        return;
    }
    // SAFETY: `mallopt` takes two numbers, may be called at any time, and by its manual from any
    // thread; no pointer is passed.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM);
        libc::mallopt(libc::M_TRIM_THRESHOLD, TRIMMED_FROM);
    }
}

/// Other C libraries (musl) map large blocks always.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_large_blocks_back() {}

/// Has free pages given back when clients have given back much.
#[derive(Debug, Default)]
pub(crate) struct Trimming {
    /// The most that was held since the last time.
    most: u64,
    /// How often messages were dropped for want of memory by then.
    sheddings: u64,
    /// Looks since then.
    looks: u32,
}

impl Trimming {
    /// How often to look.
    pub(crate) const EVERY: Duration = Duration::from_secs(1);
    /// Looks between one time and the next: it takes some milliseconds for a hundred megabytes.
    const LOOKS_MIN: u32 = 5;
    /// What must have been given back, and the part of what was held that it must be.
    const FALL: u64 = 8 * 1024 * 1024;
    const FALL_PART: u64 = 4;
    /// What a connection holds that no account of memory has, about: its task, and TLS.
    const CONNECTION: u64 = 8 * 1024;

    /// Looks at what clients hold; whether it is time.
    pub(crate) fn is_due(&mut self, metrics: &MetricsSnapshot) -> bool {
        let held = metrics.memory_bytes + metrics.clients_connected * Self::CONNECTION;
        self.is_due_at(held, metrics.sheddings)
    }

    fn is_due_at(&mut self, held: u64, sheddings: u64) -> bool {
        self.most = self.most.max(held);
        self.looks = self.looks.saturating_add(1);
        let has_fallen =
            self.most - held > Self::FALL.max(self.most / Self::FALL_PART) || sheddings != self.sheddings;
        let is_due = has_fallen && self.looks >= Self::LOOKS_MIN;
        if is_due {
            *self = Self { most: held, sheddings, looks: 0 };
        }
        is_due
    }
}

/// Gives the pages back that are free. Blocks: others wait who need memory of the same heap.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "the standard library has no way to do this")]
pub(crate) fn give_free_pages_back() {
    let began = Instant::now();
    // SAFETY: `malloc_trim` takes a number, no pointer, and by its manual may be called at any time
    // from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    tracing::debug!(millis = began.elapsed().as_millis() as u64, "free pages of memory given back");
}

/// Other C libraries have no such call.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_free_pages_back() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_pages_are_given_back_after_much_was_and_not_at_once_again() {
        const MB: u64 = 1024 * 1024;
        let mut trimming = Trimming::default();
        let mut dues = |megabytes: &[u64], sheddings| -> Vec<bool> {
            megabytes.iter().map(|held| trimming.is_due_at(held * MB, sheddings)).collect()
        };
        assert_eq!(
            dues(&[0, 50, 100, 95, 93, 80, 74, 74], 0),
            [[false; 6].as_slice(), &[true, false]].concat()
        );
        assert_eq!(dues(&[0, 0, 0, 0, 0, 0], 0), [false, false, false, true, false, false]);
        assert_eq!(dues(&[8, 0, 0, 0], 0), [false; 4]);
        assert_eq!(dues(&[60], 1), [true]);
    }
}
