//! New settings and new files while the broker runs: after SIGHUP, and when a file has changed.
//!
//! Files are looked at every second: their length, times and number. One that is being written is left alone until it has stayed
//! as it is for a second, so that no half of it is read. What a reload finds wrong leaves everything as it was.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use ternmq::Broker;
use ternmq::config::{self, Loaded, Sources};
use ternmq::logging::LogControl;
use tracing::{error, info, warn};

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None`: it cannot be looked at.
type Stamp = Option<(u64, i64, i64, u64)>;
type Stamps = BTreeMap<PathBuf, Stamp>;

/// Keeps a broker to its files.
pub(crate) struct Reloader {
    sources: Sources,
    loaded: Loaded,
    log: LogControl,
    seen: Stamps,
}

impl Reloader {
    /// To be made before the broker reads its files, so that no change after that is missed.
    pub(crate) fn new(sources: Sources, loaded: Loaded, log: LogControl) -> Self {
        let mut reloader = Self { sources, loaded, log, seen: Stamps::new() };
        reloader.seen = reloader.stamps();
        reloader
    }

    /// Waits until a file has changed and come to rest. Loses nothing if it is cancelled.
    pub(crate) async fn changed(&mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let now = self.stamps();
            if now != self.seen && last.as_ref() == Some(&now) {
                return;
            }
            last = Some(now);
        }
    }

    /// Reads everything again and has the broker take it up.
    pub(crate) fn reload(&mut self, broker: &Broker, why: &str) {
        // Before anything is read: what changes meanwhile is read again.
        self.seen = self.stamps();
        let new = match config::load(&self.sources) {
            Ok(mut new) => {
                new.use_default_data_dir(&self.sources.environment);
                new.use_machine_memory();
                new
            }
            Err(faults) => {
                error!(why, %faults, "not reloaded: the configuration has faults, everything stays as it is");
                return;
            }
        };
        new.warnings.iter().for_each(|warning| warn!("{warning}"));
        for (path, value) in self.differences(&new) {
            if is_live(&path) {
                info!(setting = %path, value, "changed");
            } else {
                warn!(setting = %path, value, "changed in the configuration; takes effect after a restart");
            }
        }
        if let Err(error) = self.log.set_level(&new.config.log) {
            error!(%error, "log.level stays as it is");
        }
        let failures = broker.reload(&new.config);
        for failure in &failures {
            error!(%failure, "stays as it was");
        }
        info!(why, failures = failures.len(), "reloaded");
        self.loaded = new;
        let mut seen = std::mem::take(&mut self.seen);
        self.seen = self.stamps();
        self.seen.iter_mut().for_each(|(path, stamp)| {
            if let Some(before) = seen.remove(path) {
                *stamp = before;
            }
        });
    }

    /// The settings whose value is another one, and that.
    fn differences(&self, new: &Loaded) -> Vec<(String, String)> {
        let shown = |loaded: &Loaded| -> BTreeMap<String, String> {
            let of = |setting: &config::EffectiveSetting| setting.value.clone().unwrap_or_default();
            loaded.settings.iter().map(|setting| (setting.path.clone(), of(setting))).collect()
        };
        let (old, new) = (shown(&self.loaded), shown(new));
        let paths: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
        let differ = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
        differ.map(|path| (path.clone(), new.get(path).cloned().unwrap_or_default())).collect()
    }

    fn stamps(&self) -> Stamps {
        let file = self.sources.file.iter().cloned();
        file.chain(self.loaded.config.files()).map(|path| (path.clone(), stamp(&path))).collect()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let data = fs::metadata(path).ok()?;
    Some((data.len(), data.mtime(), data.mtime_nsec(), data.ino()))
}

/// Whether a setting takes effect while the broker runs.
fn is_live(path: &str) -> bool {
    let of_tls = path.starts_with("listeners[") && path.contains("].tls.") && !path.ends_with(".user_name");
    let of_auth = ["auth.methods", "auth.password_file", "auth.acl_file"].contains(&path);
    let of_method = path.starts_with("auth.http.") || path.starts_with("auth.jwt.");
    of_tls || of_auth || of_method || path == "log.level" || path.starts_with("acl")
}
