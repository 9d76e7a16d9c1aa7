//! The system's allocator gives large blocks back to the system. This is the one place with
//! `unsafe`: two calls of the C library.
//!
//! glibc takes large blocks from mappings of their own, which go back when they are freed, but
//! raises the size from which it does so with each that is freed, up to 32 MB: from then on packets
//! and messages of that size come from heaps of which there is one for each thread or two, and
//! which give back only what is free at their end. After large messages hundreds of megabytes stay
//! with the process, with no client connected (benches/README.md, "Memory", has the figures). A
//! threshold that is set stands still. Environment variables that set it themselves come first.
//!
//! A program that embeds the library decides for itself; README.md, "Memory", says how it gets the same.

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
