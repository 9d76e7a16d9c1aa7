//! New settings and new files while the broker runs: after SIGHUP, and when a file has changed.
//!
//! Files are looked at every second: their length, times and number. One that is being written is left alone until it has stayed
//! as it is for a second, so that no half of it is read. What a reload finds wrong leaves everything as it was.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use ternmq::Broker;
use ternmq::config::{self, Loaded, Sources};
use ternmq::logging::LogControl;
use tracing::{error, info, warn};

use crate::process;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another; `None`: it cannot be looked at.
type Stamp = Option<(u64, i64, i64, u64)>;
type Stamps = BTreeMap<PathBuf, Stamp>;
/// Settings by their paths.
type Shown = BTreeMap<String, String>;

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
        for (path, value, is_live) in differences(&shown(&self.loaded), &shown(&new)) {
            if is_live {
                info!(setting = %path, value, "changed");
            } else {
                warn!(setting = %path, value, "changed in the configuration; takes effect after a restart");
            }
        }
        if new.config.limits.connections_max != self.loaded.config.limits.connections_max {
            process::raise_descriptor_limit(&new.config.limits);
        }
        if let Err(error) = self.log.set_level(&new.config.log) {
            error!(%error, "log.level stays as it is");
        }
        let Ok(failures) = broker.reload(&new.config) else { return };
        for failure in &failures {
            error!(%failure, "stays as it was");
        }
        if !failures.is_empty() {
            error!("the settings of listeners, limits and logins stay as well, until that is in order");
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

    fn stamps(&self) -> Stamps {
        let file = self.sources.file.iter().cloned();
        file.chain(self.loaded.config.files()).map(|path| (path.clone(), stamp(&path))).collect()
    }
}

fn stamp(path: &PathBuf) -> Stamp {
    let data = fs::metadata(path).ok()?;
    Some((data.len(), data.mtime(), data.mtime_nsec(), data.ino()))
}

/// The settings whose value is another one, that value, and whether it counts from now on.
fn differences(old: &Shown, new: &Shown) -> Vec<(String, String, bool)> {
    let stays = |listener: &str| {
        let transport = format!("{listener}.transport");
        old.contains_key(&transport) && old.get(&transport) == new.get(&transport)
    };
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let differ = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    differ
        .map(|path| (path.clone(), new.get(path).cloned().unwrap_or_default(), is_live(path, stays)))
        .collect()
}

/// Every setting with its value. What belongs to a listener is under `listeners[ADDRESS]`: its number may be another one tomorrow.
fn shown(loaded: &Loaded) -> Shown {
    let names = listeners(loaded);
    let path = |path: &str| {
        let of_listener = path.strip_prefix("listeners[").and_then(|rest| rest.split_once(']'));
        match of_listener.and_then(|(n, rest)| Some((names.get(n.parse::<usize>().ok()?)?, rest))) {
            Some((name, rest)) => format!("{name}{rest}"),
            None => path.to_owned(),
        }
    };
    let value = |setting: &config::EffectiveSetting| setting.value.clone().unwrap_or_default();
    loaded.settings.iter().map(|setting| (path(&setting.path), value(setting))).collect()
}

/// The listeners by their addresses, in the order of the configuration. Of those with one address (port 0) the second has a number too.
fn listeners(loaded: &Loaded) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for listener in &loaded.config.listeners {
        let bind = listener.bind.to_string();
        let mut same = (1..)
            .map(|n| if n == 1 { format!("listeners[{bind}]") } else { format!("listeners[{bind} {n}]") });
        names.extend(same.find(|name| !names.contains(name)));
    }
    names
}

/// Whether a setting takes effect while the broker runs; `stays` says of a listener whether it goes on.
fn is_live(path: &str, stays: impl Fn(&str) -> bool) -> bool {
    if let Some(end) = path.find("].").filter(|_| path.starts_with("listeners[")) {
        let (listener, _) = path.split_at(end + 1);
        return stays(listener);
    }
    if path.starts_with("limits.") {
        return !["limits.tls_handshakes_max", "limits.inflight_max"].contains(&path);
    }
    path.starts_with("auth.") || path.starts_with("acl") || path == "log.level"
}
