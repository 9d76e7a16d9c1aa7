//! Configuration: defaults < TOML file < environment (`TERNMQ_…`) < flags, checked and typed.
//!
//! [`load`] reads every source to its end and either gives a configuration in which each value is within its bounds
//! and each file is readable, or every fault at once, with path, value, what is expected, and where it stands.
//! It reads nothing but what it is handed and the files named there: the environment is an argument.
//!
//! - `types`, `limits`, `network`: what the broker reads, and the defaults. `auth`: the same for `[auth]`.
//! - `schema`, `schema_listener`: the one table of settings. `field`: how one setting is read and written. `units`: sizes and times.
//! - `layers`: the sources. `check`, `check_auth`: rules over several settings. `nearest`: the key that was meant.
//! - `acl`: the tables of access rules.
//! - `default_dir`: the data directory of the program when nothing sets one. `machine`: how much memory there is.

mod acl;
mod auth;
mod check;
mod check_auth;
mod default_dir;
mod fault;
mod field;
mod layers;
mod limits;
mod machine;
mod nearest;
mod network;
mod schema;
mod schema_listener;
mod types;
mod units;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

pub use self::acl::{AclAccess, AclTable, AclTopics, AclWho};
pub use self::auth::{
    AclSubscribe, AuthConfig, AuthMethod, HttpConfig, HttpFormat, HttpHeaders, JwtAlgorithm, JwtConfig,
};
pub use self::fault::{ConfigFaults, Fault, Origin};
pub use self::limits::{Limits, MemoryBounds, MemoryMax, PayloadFormat};
pub use self::network::Network;
pub use self::types::{
    CertificateFiles, CertificateName, ClientCertificate, Config, ListenerConfig, LogConfig, LogFormat,
    RefusedPublish, StorageConfig, StorageKind, SyncMode, TlsConfig, Transport,
};

use self::acl::{ACL_SETTINGS, AclDraft};
use self::layers::{Reading, Report};
use self::schema::SETTINGS;
use self::schema_listener::{CERTIFICATE_SETTINGS, CertificateDraft, LISTENER_SETTINGS, ListenerDraft};

/// Where a configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The TOML file. Relative paths in it start from its directory.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not start with `TERNMQ_` are passed over. The program hands in
    /// `std::env::vars_os().collect()`.
    pub environment: Vec<(OsString, OsString)>,
    /// What the command line says.
    pub flags: Flags,
}

/// The flags of the command line that are settings, as they were typed.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--storage`
    pub storage: Option<String>,
    /// `--bind`: one plain TCP listener in the place of the configured ones.
    pub bind: Option<String>,
    /// `--allow-anonymous`: clients without login may use the listener of `--bind` even beyond loopback.
    pub allow_anonymous: bool,
    /// `--log`
    pub log: Option<String>,
    /// `--log-format`
    pub log_format: Option<String>,
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the broker is started with.
    pub config: Config,
    /// Every setting with its value and origin, listeners and access rules last.
    pub settings: Vec<EffectiveSetting>,
    /// What is allowed but hardly meant; the program logs these.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// Whether nothing names a listener, so that the broker listens on 127.0.0.1:1883 by default.
    pub fn has_default_listener(&self) -> bool {
        let mut binds = self.settings.iter().filter(|setting| setting.path.ends_with("].bind"));
        binds.any(|setting| setting.origin == Origin::Default)
    }

    /// Gives a broker that is to keep its state on disk, and was not told where, the default directory:
    /// `$STATE_DIRECTORY` (the first of a list), else `$XDG_DATA_HOME/ternmq`, else `$HOME/.local/share/ternmq`, each
    /// only if the variable in `environment` is an absolute path. With none of them the broker keeps its state in
    /// memory, and a warning says so.
    ///
    /// For programs that are brokers: [`load`] leaves a `data_dir` that nothing sets at `None`.
    pub fn use_default_data_dir(&mut self, environment: &[(OsString, OsString)]) {
        if self.config.data_dir.is_some() || self.config.storage.kind == StorageKind::Memory {
            return;
        }
        if let Some((path, variable)) = default_dir::default_data_dir(environment) {
            self.config.data_dir = Some(path);
            self.show_again("data_dir", Origin::DefaultFrom(variable));
            return;
        }
        self.config.storage.kind = StorageKind::Memory;
        self.show_again("storage.kind", Origin::Default);
        self.warnings.push(
            "nothing says where to keep data: neither data_dir (--data-dir) nor STATE_DIRECTORY, XDG_DATA_HOME or HOME \
             in the environment. Sessions, queues and retained messages are kept in memory and end with the process; \
             set data_dir, or storage.kind = \"memory\" (--storage memory) if that is meant"
                .to_owned(),
        );
    }

    /// Settles the bounds that are left to the machine ([`MemoryMax::Auto`]), so that it is seen what they come to.
    pub fn use_machine_memory(&mut self) {
        let rounded = |bytes: usize| if bytes > 10_000_000 { bytes / 1_000_000 * 1_000_000 } else { bytes };
        let limits = &mut self.config.limits;
        if limits.memory_max == MemoryMax::Auto {
            // Whole megabytes are easier to read.
            match limits.bounds().memory {
                Some(bytes) => {
                    limits.memory_max = MemoryMax::Bytes(rounded(bytes));
                    self.show_again("limits.memory_max", Origin::DefaultFrom("half of the memory"));
                }
                None => self.warnings.push(
                    "nothing tells how much memory this machine has: limits.memory_max = \"auto\" has no effect; set it to a \
                     size, or to \"none\""
                        .to_owned(),
                ),
            }
        }
        let bounds = self.config.limits.bounds();
        for (path, bytes) in [
            ("limits.retained_bytes_max", bounds.retained),
            ("limits.unfinished_bytes_max", bounds.unfinished),
            ("limits.handshake_bytes_max", bounds.handshakes),
        ] {
            let limits = &mut self.config.limits;
            let bound = match path {
                "limits.retained_bytes_max" => &mut limits.retained_bytes_max,
                "limits.unfinished_bytes_max" => &mut limits.unfinished_bytes_max,
                _ => &mut limits.handshake_bytes_max,
            };
            if *bound == MemoryMax::Auto
                && let Some(bytes) = bytes
            {
                *bound = MemoryMax::Bytes(rounded(bytes));
                self.show_again(path, Origin::DefaultFrom("limits.memory_max"));
            }
        }
    }

    /// Whether the data directory is the one of [`use_default_data_dir`](Self::use_default_data_dir).
    pub fn has_default_data_dir(&self) -> bool {
        let mut settings = self.settings.iter();
        settings.any(|s| s.path == "data_dir" && matches!(s.origin, Origin::DefaultFrom(_)))
    }

    /// Writes the line of a setting anew after its value has changed.
    fn show_again(&mut self, path: &str, origin: Origin) {
        let known = SETTINGS.iter().find(|setting| setting.path == path);
        let shown = self.settings.iter_mut().find(|setting| setting.path == path);
        if let (Some(known), Some(shown)) = (known, shown) {
            shown.value = known.field.show(&mut self.config);
            shown.origin = origin;
        }
    }
}

/// One line of the effective configuration: `limits.inflight_max = 64  # default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EffectiveSetting {
    /// The setting's path, such as `log.level` or `listeners[0].bind`.
    pub path: String,
    /// The value as a file would have it; `None` if it is not set.
    pub value: Option<String>,
    /// Where the value was set.
    pub origin: Origin,
}

impl fmt::Display for EffectiveSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value.as_deref().unwrap_or("(not set)");
        write!(f, "{} = {value}  # {}", self.path, self.origin)
    }
}

/// Reads and checks the configuration.
///
/// # Errors
/// Every fault of every source. Faults are found in values that are overridden, too; only files that a replaced
/// listener names are not looked for.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigFaults> {
    let mut reading = Reading::default();
    if let Some(path) = &sources.file {
        reading.read_file(path);
    }
    reading.read_environment(&sources.environment);
    reading.read_flags(&sources.flags);
    check::data_dir(&mut reading);
    let acl = acl::tables(&mut reading);
    let listeners = check::listeners(&mut reading);
    check_auth::auth(&mut reading, &listeners);
    let Report { faults, warnings, .. } = &mut reading.report;
    if !faults.is_empty() {
        return Err(ConfigFaults { faults: std::mem::take(faults), warnings: std::mem::take(warnings) });
    }
    let config = Config { listeners, acl, ..reading.config };
    let settings = effective(&config, &reading.report);
    let mut warnings = reading.report.warnings;
    warnings.extend(check::warnings(&config));
    warnings.extend(check_auth::warnings(&config));
    Ok(Loaded { config, settings, warnings })
}

fn effective(config: &Config, report: &Report) -> Vec<EffectiveSetting> {
    let mut shown = config.clone();
    let mut settings: Vec<EffectiveSetting> = SETTINGS
        .iter()
        .map(|setting| EffectiveSetting {
            path: setting.path.to_owned(),
            value: setting.field.show(&mut shown),
            origin: report.origin(setting.path),
        })
        .collect();
    for (n, listener) in config.listeners.iter().enumerate() {
        let mut draft = ListenerDraft::from(listener);
        let is_tls = draft.is_tls;
        for setting in LISTENER_SETTINGS.iter().filter(|s| is_tls || !s.path.starts_with("tls.")) {
            let path = format!("listeners[{n}].{}", setting.path);
            let origin = report.origin(&path);
            settings.push(EffectiveSetting { path, value: setting.field.show(&mut draft), origin });
        }
        for (m, certificate) in draft.certificates.iter_mut().flatten().enumerate() {
            for setting in CERTIFICATE_SETTINGS {
                let path = format!("listeners[{n}].tls.certificates[{m}].{}", setting.path);
                let origin = report.origin(&path);
                settings.push(EffectiveSetting { path, value: setting.field.show(certificate), origin });
            }
        }
    }
    for (n, table) in config.acl.iter().enumerate() {
        let mut draft = AclDraft::from(table);
        for setting in ACL_SETTINGS {
            let path = format!("acl[{n}].{}", setting.path);
            // A key that a rule does not have is no default: it would be another rule.
            let Some(value) = setting.field.show(&mut draft) else { continue };
            let origin = report.origin(&path);
            settings.push(EffectiveSetting { path, value: Some(value), origin });
        }
    }
    settings
}

impl From<&ListenerConfig> for ListenerDraft {
    fn from(listener: &ListenerConfig) -> Self {
        let draft = ListenerDraft {
            bind: Some(listener.bind),
            allow_anonymous: Some(listener.allow_anonymous),
            refused_publish: listener.refused_publish,
            auth: listener.auth.clone(),
            proxy_protocol_from: listener.proxy_protocol_from.clone(),
            ..ListenerDraft::default()
        };
        match &listener.transport {
            Transport::Tcp => draft,
            Transport::Tls(tls) => ListenerDraft {
                is_tls: true,
                certificate: Some(tls.certificate.clone()),
                private_key: Some(tls.private_key.clone()),
                client_ca: tls.client_ca.clone(),
                client_certificate: tls.client_certificate,
                crl: tls.crl.clone(),
                user_name: tls.user_name,
                certificates: tls.certificates.iter().map(|files| Some(files.into())).collect(),
                ..draft
            },
        }
    }
}

impl From<&CertificateFiles> for CertificateDraft {
    fn from(files: &CertificateFiles) -> Self {
        CertificateDraft {
            certificate: Some(files.certificate.clone()),
            private_key: Some(files.private_key.clone()),
        }
    }
}
