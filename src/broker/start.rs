//! Opening the durable log and making a core of it; what was found, and what was lost, goes to the operator's log.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{Clock, Core, Security, WallClock};
use crate::config::{Limits, StorageConfig, SyncMode};
use crate::ledger::Ledger;
use crate::storage::{Damage, DirFiles, Files, Log, LogOptions, Recovered, Sync};

impl Core {
    /// A core with everything that the directory remembers. The lock is held for as long as
    /// anything can be written there. Blocks while it reads.
    ///
    /// # Errors
    /// If the directory cannot be used; because of what is in it only if that is [of a later
    /// format](crate::storage::UnknownFormat).
    pub(crate) fn open(
        directory: &Path,
        lock: File,
        storage: &StorageConfig,
        limits: Limits,
        security: Security,
    ) -> io::Result<Arc<Self>> {
        let files: Arc<dyn Files> = Arc::new(DirFiles::new(directory)?.with_lock(lock));
        Self::open_on(files, storage, limits, security)
    }

    /// The same on any kind of files.
    pub(crate) fn open_on(
        files: Arc<dyn Files>,
        storage: &StorageConfig,
        limits: Limits,
        security: Security,
    ) -> io::Result<Arc<Self>> {
        let sync = match storage.sync {
            SyncMode::Always => Sync::Always,
            SyncMode::Interval => Sync::Interval(storage.sync_interval),
            SyncMode::Never => Sync::Never,
        };
        let options = LogOptions { sync, ..LogOptions::default() };
        Self::open_with(files, options, limits, security, WallClock::system())
    }

    /// The same with a log of any measures and any time of day.
    pub(crate) fn open_with(
        files: Arc<dyn Files>,
        options: LogOptions,
        limits: Limits,
        security: Security,
        wall: WallClock,
    ) -> io::Result<Arc<Self>> {
        let (ledger, seat) = Ledger::new();
        let ledger = Arc::new(ledger);
        let mut recovered = Recovered::default();
        let (log, report) = Log::open(files, options, Arc::clone(&ledger), &mut recovered)?;
        report.damage.iter().for_each(tell_damage);
        if recovered.unreadable_frames > 0 {
            tracing::error!(
                frames = recovered.unreadable_frames,
                "frames of the durable log are intact and not understood: were they written by a later version?"
            );
        }
        recovered.finish();
        let clock = Clock::after(&recovered, wall);
        let core = Arc::new(Self::with_log(limits, security, Some(Arc::clone(&log)), (ledger, seat), clock));
        core.record_clock_now(&log);
        let restored = core.restore(recovered);
        tracing::info!(
            sessions = restored.sessions,
            queued = restored.queued,
            retained = restored.retained,
            wills = restored.wills,
            segments = report.segments,
            bytes = report.bytes,
            "state of the last run taken up"
        );
        Ok(core)
    }
}

fn tell_damage(damage: &Damage) {
    tracing::warn!(
        file = %damage.file,
        offset = damage.offset,
        bytes = damage.bytes,
        what = %damage.what,
        kept_as = damage.kept_as.as_deref().unwrap_or("nothing: there was nothing to keep"),
        "part of the durable log cannot be read; what was recorded there is lost"
    );
}
