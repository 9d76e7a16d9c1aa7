//! The sources, one after the other, into one configuration: file, then environment, then flags.
//!
//! Each source is read to its end whatever is wrong in it, and a later value takes the place of an earlier one. A
//! value that is overridden is still judged: a fault in the file does not hide behind a flag. What needs all values
//! together is judged afterwards, in `check`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use config::{Environment, FileFormat, Map, Source, Value, ValueKind};

use super::Flags;
use super::acl::{ACL_SETTINGS, AclDraft};
use super::fault::{Fault, Origin};
use super::field::Written;
use super::nearest::nearest;
use super::schema::{ENVIRONMENT_PREFIX, SETTINGS, Setting, environment_name};
use super::schema_listener::{
    BIND_SETTINGS, BindOverride, CERTIFICATE_SETTINGS, CertificateDraft, LISTENER_SETTINGS, ListenerDraft,
};
use super::types::Config;

/// What reading all sources came to.
#[derive(Default)]
pub(crate) struct Reading {
    pub(crate) config: Config,
    /// The listeners of the file, `None` in the place of what is no table; `None` when it has no listeners.
    pub(crate) drafts: Option<Vec<Option<ListenerDraft>>>,
    /// The access rules of the file, `None` in the place of what is no table.
    pub(crate) acl: Vec<Option<AclDraft>>,
    pub(crate) bind: BindOverride,
    pub(crate) report: Report,
}

/// Where values came from and what is wrong, by path.
#[derive(Default)]
pub(crate) struct Report {
    /// The file, if there is one.
    pub(crate) file: Option<Origin>,
    pub(crate) origins: BTreeMap<String, Origin>,
    pub(crate) faults: Vec<Fault>,
    /// What is allowed but hardly meant, one sentence each.
    pub(crate) warnings: Vec<String>,
}

impl Report {
    pub(crate) fn fault(&mut self, path: &str, value: Option<String>, problem: String, origin: &Origin) {
        self.faults.push(Fault { path: path.to_owned(), value, problem, origin: origin.clone() });
    }

    pub(crate) fn origin(&self, path: &str) -> Origin {
        self.origins.get(path).cloned().unwrap_or(Origin::Default)
    }

    /// Reads one value; notes where it came from, or what is wrong with it.
    fn assign<T>(
        &mut self,
        setting: &Setting<T>,
        target: &mut T,
        path: &str,
        written: &Written<'_>,
        origin: &Origin,
    ) {
        // The origin is noted for a bad value too: a rule over several values must not call it missing.
        self.origins.insert(path.to_owned(), origin.clone());
        if setting.field.read(target, written).is_none() {
            let problem = format!("expected {}", setting.field.expects());
            self.fault(path, Some(written.show()), problem, origin);
        }
    }
}

impl Reading {
    /// Reads the file at `path`.
    pub(crate) fn read_file(&mut self, path: &Path) {
        let origin = Origin::File(path.to_owned());
        self.report.file = Some(origin.clone());
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                self.report.fault("", None, format!("cannot read the configuration file: {error}"), &origin);
                return;
            }
        };
        let mut table = match config::File::from_str(&text, FileFormat::Toml).collect() {
            Ok(table) => table,
            Err(error) => {
                self.report.fault("", None, error.to_string().trim_end().to_owned(), &origin);
                return;
            }
        };
        let directory = path.parent().unwrap_or_else(|| Path::new(""));
        if let Some(listeners) = table.remove("listeners") {
            self.read_listeners(&listeners, directory, &origin);
        }
        if let Some(acl) = table.remove("acl") {
            self.read_acl(&acl, directory, &origin);
        }
        let walk = Walk { prefix: "", directory, origin: &origin };
        walk.table(SETTINGS, &table, "", &mut self.config, &mut self.report);
    }

    fn read_listeners(&mut self, listeners: &Value, directory: &Path, origin: &Origin) {
        const EXPECTED: &str = "expected tables, each under a line [[listeners]]";
        let drafts = self.drafts.insert(Vec::new());
        let ValueKind::Array(tables) = &listeners.kind else {
            self.report.fault("listeners", None, EXPECTED.to_owned(), origin);
            return;
        };
        if tables.is_empty() {
            let problem = "expected at least one listener: nobody could connect".to_owned();
            self.report.fault("listeners", Some("[]".to_owned()), problem, origin);
        }
        for (n, listener) in tables.iter().enumerate() {
            let ValueKind::Table(table) = &listener.kind else {
                self.report.fault(&format!("listeners[{n}]"), None, EXPECTED.to_owned(), origin);
                drafts.push(None);
                continue;
            };
            let prefix = format!("listeners[{n}].");
            if table.get("tls").is_some_and(|tls| matches!(tls.kind, ValueKind::Table(_))) {
                self.report.origins.insert(format!("{prefix}tls"), origin.clone());
            }
            let mut draft = ListenerDraft::default();
            let walk = Walk { prefix: &prefix, directory, origin };
            let mut table = table.clone();
            if let Some(certificates) = take_certificates(&mut table) {
                let prefix = format!("{prefix}tls.certificates");
                draft.certificates = walk.certificates(&certificates, &prefix, &mut self.report);
            }
            walk.table(LISTENER_SETTINGS, &table, "", &mut draft, &mut self.report);
            drafts.push(Some(draft));
        }
    }

    fn read_acl(&mut self, acl: &Value, directory: &Path, origin: &Origin) {
        const EXPECTED: &str = "expected tables, each under a line [[acl]]";
        let ValueKind::Array(tables) = &acl.kind else {
            self.report.fault("acl", None, EXPECTED.to_owned(), origin);
            return;
        };
        if tables.is_empty() {
            // Rules that allow nothing, or no rules, which allow everything? Better asked than guessed.
            let problem = "expected at least one rule".to_owned();
            self.report.fault("acl", Some("[]".to_owned()), problem, origin);
        }
        for (n, rule) in tables.iter().enumerate() {
            let ValueKind::Table(table) = &rule.kind else {
                self.report.fault(&format!("acl[{n}]"), None, EXPECTED.to_owned(), origin);
                self.acl.push(None);
                continue;
            };
            let mut draft = AclDraft::default();
            let walk = Walk { prefix: &format!("acl[{n}]."), directory, origin };
            walk.table(ACL_SETTINGS, table, "", &mut draft, &mut self.report);
            self.acl.push(Some(draft));
        }
    }

    /// Reads the variables among `environment` that are ours.
    pub(crate) fn read_environment(&mut self, environment: &[(OsString, OsString)]) {
        let mut ours = Map::new();
        for (name, value) in environment {
            let name = name.to_string_lossy();
            if !name.starts_with(ENVIRONMENT_PREFIX) {
                continue;
            }
            let origin = Origin::Environment(name.to_string());
            let Some(value) = value.to_str() else {
                self.report.fault(&name, None, "expected text in UTF-8".to_owned(), &origin);
                continue;
            };
            if is_service_link(&name, value) {
                continue;
            }
            // The reader below does not mind the case, and takes a dot for two underscores; then two variables
            // could be one setting, and which of them wins would be chance.
            if name.contains('.') || name.chars().any(|c| c.is_lowercase()) {
                self.unknown_variable(&name, &origin);
                continue;
            }
            ours.insert(name.into_owned(), value.to_owned());
        }
        let source = Environment::with_prefix(ENVIRONMENT_PREFIX.trim_end_matches('_'))
            .prefix_separator("_")
            .separator("__")
            .source(Some(ours));
        let values: BTreeMap<String, Value> = match source.collect() {
            Ok(values) => values.into_iter().collect(),
            Err(error) => {
                self.report.fault("", None, error.to_string(), &Origin::Environment("TERNMQ_…".to_owned()));
                return;
            }
        };
        for (path, value) in values {
            let name = environment_name(&path);
            let origin = Origin::Environment(name.clone());
            let written = Written { kind: &value.kind, untyped: true, directory: Path::new("") };
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.path == path) {
                self.report.assign(setting, &mut self.config, &path, &written, &origin);
            } else if let Some(setting) = BIND_SETTINGS.iter().find(|setting| setting.path == path) {
                self.report.assign(setting, &mut self.bind, &path, &written, &origin);
            } else {
                self.unknown_variable(&name, &origin);
            }
        }
    }

    /// A variable with our prefix that is no setting. One that is written as a setting of a table is a fault like an unknown key of the
    /// file; others may be somebody's own (`TERNMQ_VERSION` of an image, `TERNMQ_TEST_BROKER` of our tests) and are only told.
    fn unknown_variable(&mut self, name: &str, origin: &Origin) {
        let is_key = name.trim_start_matches(ENVIRONMENT_PREFIX).contains("__")
            || name.contains('.')
            || name.to_uppercase().starts_with("TERNMQ_LISTENERS");
        let problem = if name.to_uppercase().starts_with("TERNMQ_LISTENERS") {
            "listeners are set in a file, or one plain one by TERNMQ_BIND".to_owned()
        } else {
            let paths = SETTINGS.iter().map(|s| s.path).chain(BIND_SETTINGS.iter().map(|s| s.path));
            let known: Vec<String> = paths.map(environment_name).collect();
            unknown("variable", nearest(&name.to_uppercase(), known.iter().map(String::as_str)))
        };
        let name = name.escape_debug().to_string();
        if is_key {
            self.report.fault(&name, None, problem, origin);
        } else {
            self.report.warnings.push(format!("{name}: {problem} (in the environment; it has no effect)"));
        }
    }

    /// Reads the flags of the command line.
    pub(crate) fn read_flags(&mut self, flags: &Flags) {
        if let Some(path) = &flags.data_dir {
            // Not by way of text: a path need not be UTF-8.
            let origin = Origin::Flag("--data-dir");
            self.config.data_dir = Some(path.clone());
            self.report.origins.insert("data_dir".to_owned(), origin.clone());
            if path.as_os_str().is_empty() {
                self.report.fault("data_dir", Some("\"\"".to_owned()), "expected a path".to_owned(), &origin);
            }
        }
        let anonymous = flags.allow_anonymous.then(|| "true".to_owned());
        let values = [
            ("--storage", flags.storage.clone()),
            ("--log", flags.log.clone()),
            ("--log-format", flags.log_format.clone()),
            ("--bind", flags.bind.clone()),
            ("--allow-anonymous", anonymous),
        ];
        for (flag, text) in values {
            let Some(text) = text else { continue };
            let written = Written { kind: &ValueKind::String(text), untyped: true, directory: Path::new("") };
            let origin = Origin::Flag(flag);
            if let Some(setting) = SETTINGS.iter().find(|setting| setting.flag == Some(flag)) {
                self.report.assign(setting, &mut self.config, setting.path, &written, &origin);
            }
            if let Some(setting) = BIND_SETTINGS.iter().find(|setting| setting.flag == Some(flag)) {
                self.report.assign(setting, &mut self.bind, setting.path, &written, &origin);
            }
        }
    }
}

/// A walk over a table of a file: what all levels of it share.
struct Walk<'a> {
    /// What paths are shown with in front, such as `listeners[1].`.
    prefix: &'a str,
    directory: &'a Path,
    origin: &'a Origin,
}

impl Walk<'_> {
    /// Reads the further certificates of a listener, which stand at `path`.
    fn certificates(&self, value: &Value, path: &str, report: &mut Report) -> Vec<Option<CertificateDraft>> {
        const EXPECTED: &str = "expected tables, each under a line [[listeners.tls.certificates]]";
        let ValueKind::Array(tables) = &value.kind else {
            report.fault(path, None, EXPECTED.to_owned(), self.origin);
            return Vec::new();
        };
        let mut drafts = Vec::new();
        for (n, value) in tables.iter().enumerate() {
            let ValueKind::Table(table) = &value.kind else {
                report.fault(&format!("{path}[{n}]"), None, EXPECTED.to_owned(), self.origin);
                drafts.push(None);
                continue;
            };
            let prefix = format!("{path}[{n}].");
            let walk = Walk { prefix: &prefix, ..*self };
            let mut draft = CertificateDraft::default();
            walk.table(CERTIFICATE_SETTINGS, table, "", &mut draft, report);
            drafts.push(Some(draft));
        }
        drafts
    }

    /// Reads `table`, whose keys stand below `level` (empty, or a path with a dot at its end). The settings bound the
    /// depth: a table is entered only if settings live in it.
    fn table<T>(
        &self,
        settings: &[Setting<T>],
        table: &Map<String, Value>,
        level: &str,
        target: &mut T,
        report: &mut Report,
    ) {
        let sorted: BTreeMap<&String, &Value> = table.iter().collect();
        for (key, value) in sorted {
            let path = format!("{level}{key}");
            let below = format!("{path}.");
            let shown = format!("{}{path}", self.prefix);
            // A quoted key may have a dot in it; it is not the same as a level.
            let known = settings.iter().find(|setting| setting.path == path && !key.contains('.'));
            if let Some(setting) = known {
                let written = Written { kind: &value.kind, untyped: false, directory: self.directory };
                report.assign(setting, target, &shown, &written, self.origin);
            } else if !key.contains('.') && settings.iter().any(|setting| setting.path.starts_with(&below)) {
                if let ValueKind::Table(inner) = &value.kind {
                    self.table(settings, inner, &below, target, report);
                } else {
                    let problem = format!("expected a table of settings, under a line [{path}]");
                    let written = Written { kind: &value.kind, untyped: false, directory: self.directory };
                    report.fault(&shown, Some(written.show()), problem, self.origin);
                }
            } else {
                let near = nearest(&path, settings.iter().map(|setting| setting.path));
                let near = near.map(|near| format!("{}{near}", self.prefix));
                let problem = unknown("key", near.as_deref());
                report.fault(&shown.escape_debug().to_string(), None, problem, self.origin);
            }
        }
    }
}

/// Takes `tls.certificates` out of a listener's table: tables of their own, which the settings of a listener do not know.
fn take_certificates(listener: &mut Map<String, Value>) -> Option<Value> {
    match listener.get_mut("tls").map(|tls| &mut tls.kind) {
        Some(ValueKind::Table(tls)) => tls.remove("certificates"),
        _ => None,
    }
}

fn unknown(what: &str, near: Option<&str>) -> String {
    match near {
        Some(near) => format!("unknown {what}, did you mean {near}?"),
        None => format!("unknown {what}"),
    }
}

/// Whether a variable is one that Kubernetes puts into every container next to a Service called `ternmq` or
/// `ternmq-…`: `TERNMQ_SERVICE_HOST`, `TERNMQ_PORT=tcp://…`, `TERNMQ_PORT_1883_TCP_ADDR` and so on. They are not
/// meant for us, and refusing them would refuse to start there.
fn is_service_link(name: &str, value: &str) -> bool {
    let rest = name.strip_prefix("TERNMQ").unwrap_or_default();
    if rest.ends_with("_SERVICE_HOST") || rest.ends_with("_SERVICE_PORT") || rest.contains("_SERVICE_PORT_") {
        return true;
    }
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    if is_url && rest.ends_with("_PORT") {
        return true;
    }
    // From the first `_PORT_` that a number follows: number, protocol, and perhaps which part of the URL it is.
    rest.match_indices("_PORT_").any(|(at, found)| {
        let parts: Vec<&str> = rest.get(at + found.len()..).unwrap_or_default().split('_').collect();
        matches!(
            parts.as_slice(),
            [number, "TCP" | "UDP" | "SCTP"] | [number, "TCP" | "UDP" | "SCTP", "PROTO" | "PORT" | "ADDR"]
                if number.parse::<u16>().is_ok()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_services_are_told_from_settings() {
        for (name, value) in [
            ("TERNMQ_SERVICE_HOST", "10.0.0.1"),
            ("TERNMQ_SERVICE_PORT", "1883"),
            ("TERNMQ_SERVICE_PORT_MQTT", "1883"),
            ("TERNMQ_PORT", "tcp://10.0.0.1:1883"),
            ("TERNMQ_PORT_1883_TCP", "tcp://10.0.0.1:1883"),
            ("TERNMQ_PORT_1883_TCP_PROTO", "tcp"),
            ("TERNMQ_PORT_1883_TCP_PORT", "1883"),
            ("TERNMQ_PORT_1883_TCP_ADDR", "10.0.0.1"),
            ("TERNMQ_HEADLESS_SERVICE_HOST", "10.0.0.1"),
            ("TERNMQ_HEADLESS_PORT_8883_TCP_ADDR", "10.0.0.1"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [
            ("TERNMQ_PORT", "1883"),
            ("TERNMQ_BIND", "tcp://127.0.0.1:1883"),
            ("TERNMQ_DATA_DIR", "/data"),
            ("TERNMQ_PORT_MQTT", "1883"),
            ("TERNMQ_PORT_1883", "1883"),
            ("TERNMQ_PORT_1883_TCP_X", "1883"),
        ] {
            assert!(!is_service_link(name, value), "{name}");
        }
        let ours = SETTINGS.iter().map(|s| s.path).chain(BIND_SETTINGS.iter().map(|s| s.path));
        for name in ours.map(environment_name) {
            assert!(!is_service_link(&name, ""), "{name}");
        }
    }
}
