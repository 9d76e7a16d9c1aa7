//! The durable log: opaque frames, appended, synced in groups, found again after any crash.
//!
//! Files ([`files`]) hold frames ([`frame`], the format byte by byte). [`Log`] takes batches of frames and gives each its
//! [`Position`](crate::ledger::Position) at once; one thread ([`writer`]) writes and syncs what came meanwhile and moves a
//! watermark, for which acknowledgements wait. [`open`] reads everything back at start, [`checkpoint`] writes what replaces the
//! log's older part.
//! Not here: what the bodies mean, which segments are needed (the ledger's account), when to write a checkpoint.
//!
//! Invariants:
//! - what [`Log::committed`] covers is found again at its position after a crash (after a power cut: with [`Sync::Always`]);
//! - after a crash, what is found of the log is a beginning of what was submitted: nothing behind a hole, unless bytes rotted;
//! - bytes that could not be read are never deleted, and never keep the log from opening;
//! - a directory of a later format is not opened and not changed (`format.rs`);
//! - nothing is written after [`Log::close`], which the end of the last handle implies.

mod aside;
mod checkpoint;
mod directory;
mod files;
mod format;
mod frame;
mod log;
mod open;
mod record;
mod recovered;
mod reserve;
mod scan;
mod segments;
mod shared;
#[cfg(test)]
pub(crate) mod simulated;
mod tail;
#[cfg(test)]
mod tests;
mod waits;
mod watched;
mod watermark;
mod writer;

pub(crate) use checkpoint::CheckpointWriter;
pub(crate) use files::{DirFiles, Files};
pub(crate) use format::UnknownFormat;
pub(crate) use frame::{Batch, FrameAt};
pub(crate) use log::{Log, LogOptions, LogStatus, Sync, Urgency};
pub(crate) use open::Damage;
pub(crate) use record::{
    Begun, ClockRecord, DeliverRecord, MessageRecord, Numbers, Record, Records, SessionRecord, SourceRecord,
    SubscribeRecord, WillRecord,
};
pub(crate) use recovered::{OwnedMessage, Recovered, RecoveredMessage, RecoveredSession, RecoveredWill};
pub(crate) use reserve::{HandOverRoom, LetIn};
pub(crate) use segments::{Freed, ReadError, SegmentInfo, Window};
