//! New settings and new files while the broker runs: after SIGHUP, and when a file has changed.
//!
//! Files are looked at every second: their length, times and number. One that is being written is
//! left alone until it has stayed as it is for a second, so that no half of it is read: what has
//! changed is taken up by the second look after it. A file that cannot be used leaves in force
//! what the broker has read before.

#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use ternmq::Broker;
use ternmq::config::{self, Loaded, Sources};
use ternmq::logging::LogControl;
use tokio::time::{Interval, MissedTickBehavior};
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
    /// The settings as the log has told of them: in force, or waiting for a restart.
    told: Shown,
    log: LogControl,
    watch: Watch,
}

impl Reloader {
    /// To be made before the broker reads its files, so that no change after that is missed.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(crate) fn new(sources: Sources, loaded: Loaded, log: LogControl) -> Self {
        let told = shown(&loaded);
        let watch = Watch::new(LOOK_EVERY, stamps(&sources, &loaded));
        Self { sources, loaded, told, log, watch }
    }

    /// Waits until a file has changed and come to rest. Loses nothing if it is cancelled.
    pub(crate) async fn changed(&mut self) {
        let Self { sources, loaded, watch, .. } = self;
        watch.changed(|| stamps(sources, loaded)).await;
    }

    /// Reads everything again and has the broker take it up.
    pub(crate) fn reload(&mut self, broker: &Broker, why: &str) {
        // Before anything is read: what changes meanwhile is read again.
        self.watch.seen = stamps(&self.sources, &self.loaded);
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
        if new.config.limits.connections_max != self.loaded.config.limits.connections_max {
            process::raise_descriptor_limit(&new.config.limits);
        }
        let level = self.log.set_level(&new.config.log);
        if let Err(error) = &level {
            error!(%error, "log.level stays as it is");
        }
        let Ok(failures) = broker.reload(&new.config) else { return };
        for failure in &failures {
            error!(%failure, "stays as it was");
        }
        // With a failure the settings of listeners, limits and logins stay. Rules and certificates
        // may have been taken up; they are told of when everything is in order.
        let is_whole = failures.is_empty();
        self.tell(&shown(&new), |path| if path == "log.level" { level.is_ok() } else { is_whole });
        if is_whole {
            info!(why, failures = 0, "reloaded");
        } else {
            warn!(
                why,
                failures = failures.len(),
                "reloaded in part: the settings of listeners, limits and logins stay as well, until that is in order"
            );
        }
        self.loaded = new;
        let mut seen = std::mem::take(&mut self.watch.seen);
        self.watch.seen = stamps(&self.sources, &self.loaded);
        self.watch.seen.iter_mut().for_each(|(path, stamp)| {
            if let Some(before) = seen.remove(path) {
                *stamp = before;
            }
        });
    }

    /// Tells of settings that differ from those told of: of those that need a restart, and of
    /// others once they are in force.
    fn tell(&mut self, new: &Shown, is_in_force: impl Fn(&str) -> bool) {
        for (path, value, is_live) in differences(&self.told, new) {
            if is_live && !is_in_force(&path) {
                continue;
            }
            if is_live {
                info!(setting = %path, value, "changed");
            } else {
                warn!(setting = %path, value, "changed in the configuration; takes effect after a restart");
            }
            if new.contains_key(&path) {
                self.told.insert(path, value);
            } else {
                self.told.remove(&path);
            }
        }
    }
}

/// Looks at files again and again.
struct Watch {
    ticks: Interval,
    /// What has been read.
    seen: Stamps,
    /// The look before.
    last: Option<Stamps>,
}

impl Watch {
    fn new(every: Duration, seen: Stamps) -> Self {
        let mut ticks = tokio::time::interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, seen, last: None }
    }

    /// Waits for two looks in a row that see the same, and not what has been read. All that it
    /// knows is in `self`: whoever drops it and calls it again waits no longer.
    async fn changed(&mut self, look: impl Fn() -> Stamps) {
        loop {
            self.ticks.tick().await;
            let now = look();
            let rests = self.last.as_ref() == Some(&now);
            let is_new = now != self.seen;
            self.last = Some(now);
            if rests && is_new {
                return;
            }
        }
    }
}

fn stamps(sources: &Sources, loaded: &Loaded) -> Stamps {
    let file = sources.file.iter().cloned();
    file.chain(loaded.config.files()).map(|path| (path.clone(), stamp(&path))).collect()
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const EVERY: Duration = Duration::from_millis(20);

    fn length(bytes: u64) -> Stamps {
        Stamps::from([(PathBuf::from("acl.txt"), Some((bytes, 0, 0, 0)))])
    }

    /// What `main` does: its loop has other things to do, more often than files are looked at.
    #[tokio::test]
    async fn a_change_is_seen_by_the_second_look_however_often_the_wait_is_cancelled() {
        let mut watch = Watch::new(EVERY, length(1));
        let looks = Cell::new(0);
        let seen = async {
            loop {
                let look = || {
                    looks.set(looks.get() + 1);
                    length(2)
                };
                tokio::select! {
                    () = watch.changed(look) => return,
                    () = tokio::time::sleep(EVERY / 4) => {}
                }
            }
        };
        let seen = tokio::time::timeout(Duration::from_secs(10), seen).await;
        assert_eq!((seen, looks.get()), (Ok(()), 2));
    }

    /// Each time it is another one: it is being written.
    #[tokio::test]
    async fn a_file_is_left_alone_until_it_rests() {
        let mut watch = Watch::new(Duration::from_millis(1), length(1));
        let looks = Cell::new(1);
        watch
            .changed(|| {
                looks.set(looks.get() + 1);
                length(looks.get().min(5))
            })
            .await;
        assert_eq!(looks.get(), 6);
    }
}
