//! Every setting, once: its path, what it is, its bounds, what it is for.
//!
//! Reading the file, the environment and the flags, finding unknown keys, the output of `check` and the test of the
//! sample file all go through these tables. Defaults are not here: they are the `Default`s of the types, and
//! `Field::show` writes them. A setting that is missing here cannot be set, so the test below compares the tables
//! with the fields of the types.

use std::time::Duration;

use super::auth::{AclSubscribe, AuthMethod, HttpFormat, JwtAlgorithm};
use super::field::{Field, TextTest};
use super::limits::PayloadFormat;
use super::types::{Config, LogFormat, StorageKind, SyncMode};

/// One setting of a `T`.
pub(crate) struct Setting<T: 'static> {
    /// Its path in the file, with dots between levels.
    pub(crate) path: &'static str,
    /// Where it lives and how it is read.
    pub(crate) field: Field<T>,
    /// The flag that sets it, if one does.
    pub(crate) flag: Option<&'static str>,
}

pub(crate) const fn setting<T>(path: &'static str, field: Field<T>) -> Setting<T> {
    Setting { path, field, flag: None }
}

/// The upper bound of a size or count that needs none.
pub(crate) const UNBOUNDED: u64 = isize::MAX as u64;
const ANY: usize = isize::MAX as usize;
const ONE_HOUR: Duration = Duration::from_secs(3_600);
const ONE_DAY: Duration = Duration::from_secs(86_400);
/// A hundred years: far enough for every purpose, and no sum with it overflows a clock or MQTT's 32-bit seconds.
const CENTURY: Duration = Duration::from_secs(36_500 * 86_400);
/// The largest packet MQTT can describe: one byte of type, four of length, 268,435,455 that follow.
const PACKET_BYTES_CAP: usize = 268_435_460;
/// A packet size below this could not carry a CONNECT with a client id worth having.
const PACKET_BYTES_LEAST: usize = 64;
/// A filter of 65,535 bytes has one level more than it can have separators.
const TOPIC_LEVELS_CAP: usize = 65_536;
/// The longest string MQTT can carry.
const TOPIC_BYTES_CAP: usize = 65_535;
/// No rate is higher, and no sum of a rate and a time overflows.
const RATE_CAP: usize = 1_000_000_000_000;
/// More than a machine can have descriptors, and what a semaphore can count.
const HANDSHAKES_CAP: usize = 100_000_000;
/// Less memory than this for what waits could not keep one large message.
const MEMORY_LEAST: usize = 1_000_000;

/// The settings outside of listeners.
pub(crate) const SETTINGS: &[Setting<Config>] = &[
    Setting {
        path: "data_dir",
        field: Field::Path(|c: &mut Config| &mut c.data_dir),
        flag: Some("--data-dir"),
    },
    Setting {
        path: "storage.kind",
        field: Field::Choice(
            &["disk", "memory"],
            |c, n| c.storage.kind = if n == 0 { StorageKind::Disk } else { StorageKind::Memory },
            |c| match c.storage.kind {
                StorageKind::Disk => 0,
                StorageKind::Memory => 1,
            },
        ),
        flag: Some("--storage"),
    },
    setting(
        "storage.sync",
        Field::Choice(
            &["always", "interval", "never"],
            |c, n| {
                c.storage.sync = match n {
                    0 => SyncMode::Always,
                    1 => SyncMode::Interval,
                    _ => SyncMode::Never,
                }
            },
            |c| match c.storage.sync {
                SyncMode::Always => 0,
                SyncMode::Interval => 1,
                SyncMode::Never => 2,
            },
        ),
    ),
    setting(
        "storage.sync_interval",
        Field::Time(|c| &mut c.storage.sync_interval, (Duration::from_millis(1), ONE_HOUR)),
    ),
    setting(
        "sys_interval",
        Field::OptionalTime(|c| &mut c.sys_interval, (Duration::from_millis(100), CENTURY), "0s"),
    ),
    setting(
        "limits.packet_bytes_max",
        Field::Size(|c| &mut c.limits.packet_bytes_max, (PACKET_BYTES_LEAST, PACKET_BYTES_CAP)),
    ),
    setting("limits.connections_max", Field::Count(|c| &mut c.limits.connections_max, (1, ANY))),
    setting(
        "limits.connections_per_address_max",
        Field::OptionalCount(|c| &mut c.limits.connections_per_address_max, (1, ANY)),
    ),
    setting(
        "limits.connections_per_user_max",
        Field::OptionalCount(|c| &mut c.limits.connections_per_user_max, (1, ANY)),
    ),
    setting(
        "limits.connect_rate_max",
        Field::OptionalCount(|c| &mut c.limits.connect_rate_max, (1, RATE_CAP)),
    ),
    setting(
        "limits.publish_rate_max",
        Field::OptionalCount(|c| &mut c.limits.publish_rate_max, (1, RATE_CAP)),
    ),
    setting(
        "limits.publish_bytes_rate_max",
        Field::OptionalSize(|c| &mut c.limits.publish_bytes_rate_max, (1, RATE_CAP)),
    ),
    setting("limits.memory_max", Field::Memory(|c| &mut c.limits.memory_max, (MEMORY_LEAST, ANY))),
    setting(
        "limits.tls_handshakes_max",
        Field::Count(|c| &mut c.limits.tls_handshakes_max, (1, HANDSHAKES_CAP)),
    ),
    setting("limits.inflight_max", Field::SmallCount(|c| &mut c.limits.inflight_max, (1, u16::MAX))),
    setting("limits.receive_maximum", Field::SmallCount(|c| &mut c.limits.receive_maximum, (1, u16::MAX))),
    setting("limits.topic_alias_max", Field::SmallCount(|c| &mut c.limits.topic_alias_max, (0, u16::MAX))),
    setting("limits.queue_messages_max", Field::Count(|c| &mut c.limits.queue_messages_max, (1, ANY))),
    setting("limits.queue_bytes_max", Field::Size(|c| &mut c.limits.queue_bytes_max, (1, ANY))),
    setting(
        "limits.connect_timeout",
        Field::Time(|c| &mut c.limits.connect_timeout, (Duration::from_millis(1), ONE_HOUR)),
    ),
    setting(
        "limits.session_expiry",
        Field::OptionalTime(|c| &mut c.limits.session_expiry, (Duration::ZERO, CENTURY), "never"),
    ),
    setting("limits.sessions_max", Field::Count(|c| &mut c.limits.sessions_max, (1, ANY))),
    setting("limits.retained_messages_max", Field::Count(|c| &mut c.limits.retained_messages_max, (0, ANY))),
    setting("limits.retained_bytes_max", Field::Memory(|c| &mut c.limits.retained_bytes_max, (0, ANY))),
    setting("limits.subscription_bytes_max", Field::Size(|c| &mut c.limits.subscription_bytes_max, (1, ANY))),
    setting("limits.subscriptions_max", Field::Count(|c| &mut c.limits.subscriptions_max, (1, ANY))),
    setting(
        "limits.topic_levels_max",
        Field::Count(|c| &mut c.limits.topic_levels_max, (1, TOPIC_LEVELS_CAP)),
    ),
    setting("limits.topic_bytes_max", Field::Count(|c| &mut c.limits.topic_bytes_max, (1, TOPIC_BYTES_CAP))),
    setting(
        "limits.payload_format",
        Field::Choice(
            &["pass", "check"],
            |c, choice| {
                c.limits.payload_format =
                    if choice == 0 { PayloadFormat::Pass } else { PayloadFormat::Check };
            },
            |c| usize::from(c.limits.payload_format == PayloadFormat::Check),
        ),
    ),
    setting("limits.handshake_bytes_max", Field::Memory(|c| &mut c.limits.handshake_bytes_max, (0, ANY))),
    setting("limits.unfinished_bytes_max", Field::Memory(|c| &mut c.limits.unfinished_bytes_max, (0, ANY))),
    setting(
        "limits.shutdown_timeout",
        Field::Time(|c| &mut c.limits.shutdown_timeout, (Duration::ZERO, ONE_HOUR)),
    ),
    setting("auth.acl_file", Field::Path(|c| &mut c.auth.acl_file)),
    Setting { path: "log.level", field: Field::Level(|c| &mut c.log), flag: Some("--log") },
    Setting {
        path: "log.format",
        field: Field::Choice(
            &["text", "json"],
            |c, n| c.log.format = if n == 0 { LogFormat::Text } else { LogFormat::Json },
            |c| match c.log.format {
                LogFormat::Text => 0,
                LogFormat::Json => 1,
            },
        ),
        flag: Some("--log-format"),
    },
    setting(
        "auth.methods",
        Field::Words(
            METHOD_NAMES,
            |c, chosen| {
                c.auth.methods = Some(chosen.iter().filter_map(|n| METHODS.get(*n).copied()).collect());
            },
            |c| {
                let place = |method| METHODS.iter().position(|m| m == method);
                Some(c.auth.methods.as_ref()?.iter().filter_map(place).collect())
            },
        ),
    ),
    setting(
        "auth.subscribe",
        Field::Choice(
            &["filter", "refuse"],
            |c, n| c.auth.subscribe = if n == 0 { AclSubscribe::Filter } else { AclSubscribe::Refuse },
            |c| usize::from(c.auth.subscribe == AclSubscribe::Refuse),
        ),
    ),
    setting("auth.failures_max", Field::Count(|c| &mut c.auth.failures_max, (0, FAILURES_CAP))),
    setting(
        "auth.address_failures_max",
        Field::Count(|c| &mut c.auth.address_failures_max, (0, FAILURES_CAP)),
    ),
    setting("auth.user_failures_max", Field::Count(|c| &mut c.auth.user_failures_max, (0, FAILURES_CAP))),
    setting(
        "auth.failures_time",
        Field::Time(|c| &mut c.auth.failures_time, (Duration::from_secs(1), ONE_DAY)),
    ),
    setting("auth.delay_max", Field::Time(|c| &mut c.auth.delay_max, (Duration::ZERO, ONE_HOUR))),
    setting("auth.ban_time", Field::Time(|c| &mut c.auth.ban_time, (Duration::from_secs(1), ONE_DAY))),
    setting("auth.password_file", Field::Path(|c| &mut c.auth.password_file)),
    setting(
        "auth.http.url",
        Field::OptionalText(
            |c| &mut c.auth.http.url,
            (is_url, "an http:// or https:// URL without a login in it"),
        ),
    ),
    setting(
        "auth.http.format",
        Field::Choice(
            &["json", "form"],
            |c, n| c.auth.http.format = if n == 0 { HttpFormat::Json } else { HttpFormat::Form },
            |c| usize::from(c.auth.http.format == HttpFormat::Form),
        ),
    ),
    setting(
        "auth.http.timeout",
        Field::Time(|c| &mut c.auth.http.timeout, (Duration::from_millis(1), ONE_HOUR)),
    ),
    setting("auth.http.requests_max", Field::Count(|c| &mut c.auth.http.requests_max, (1, 10_000))),
    setting("auth.http.waiting_max", Field::Count(|c| &mut c.auth.http.waiting_max, (0, 1_000_000))),
    setting("auth.http.cache_time", Field::Time(|c| &mut c.auth.http.cache_time, (Duration::ZERO, ONE_DAY))),
    setting(
        "auth.http.cache_time_denied",
        Field::Time(|c| &mut c.auth.http.cache_time_denied, (Duration::ZERO, ONE_DAY)),
    ),
    setting(
        "auth.http.cache_entries_max",
        Field::Count(|c| &mut c.auth.http.cache_entries_max, (0, 10_000_000)),
    ),
    setting("auth.http.headers", Field::Headers(|c| &mut c.auth.http.headers)),
    setting("auth.http.token_file", Field::Path(|c| &mut c.auth.http.token_file)),
    setting(
        "auth.http.token_header",
        Field::Text(|c| &mut c.auth.http.token_header, (is_header_name, "the name of an HTTP header")),
    ),
    setting("auth.http.ca", Field::Path(|c| &mut c.auth.http.ca)),
    setting(
        "auth.jwt.algorithm",
        Field::Choice(
            &["HS256", "RS256", "ES256", "EdDSA"],
            |c, n| c.auth.jwt.algorithm = ALGORITHMS.get(n).copied(),
            // Beyond the list when it is not set, which shows it so.
            |c| ALGORITHMS.iter().position(|a| c.auth.jwt.algorithm == Some(*a)).unwrap_or(usize::MAX),
        ),
    ),
    setting("auth.jwt.key_file", Field::Path(|c| &mut c.auth.jwt.key_file)),
    setting("auth.jwt.issuer", Field::OptionalText(|c| &mut c.auth.jwt.issuer, SOME_TEXT)),
    setting("auth.jwt.audience", Field::OptionalText(|c| &mut c.auth.jwt.audience, SOME_TEXT)),
    setting("auth.jwt.user_claim", Field::Text(|c| &mut c.auth.jwt.user_claim, SOME_TEXT)),
    setting("auth.jwt.leeway", Field::Time(|c| &mut c.auth.jwt.leeway, (Duration::ZERO, ONE_HOUR))),
    setting("auth.jwt.username_must_match", Field::OnOff(|c| &mut c.auth.jwt.username_must_match)),
];

pub(super) const METHOD_NAMES: &[&str] = &["certificate", "password_file", "jwt", "http"];
pub(super) const METHODS: [AuthMethod; 4] =
    [AuthMethod::Certificate, AuthMethod::PasswordFile, AuthMethod::Jwt, AuthMethod::Http];
const ALGORITHMS: [JwtAlgorithm; 4] =
    [JwtAlgorithm::Hs256, JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa];
/// Failures above this count as this many.
const FAILURES_CAP: usize = 1_000_000_000;
const SOME_TEXT: TextTest = (|text| !text.is_empty(), "text that is not empty");

fn is_url(text: &str) -> bool {
    text.parse::<hyper::Uri>().is_ok_and(|uri| {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        // A login in a URL would be shown by `check`, and is not sent.
        is_http && uri.authority().is_some_and(|a| !a.host().is_empty() && !a.as_str().contains('@'))
    })
}

fn is_header_name(text: &str) -> bool {
    hyper::header::HeaderName::try_from(text).is_ok()
}

/// What the names of our environment variables start with.
pub(crate) const ENVIRONMENT_PREFIX: &str = "TERNMQ_";

/// The environment variable that sets `path`.
pub(crate) fn environment_name(path: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", path.replace('.', "__").to_uppercase())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::schema_listener::{LISTENER_SETTINGS, ListenerDraft};
    use super::*;

    /// The field names in the `Debug` form of a value, in braces of any depth: `{:#?}` puts each on its own line.
    fn field_names(debug: &str) -> BTreeSet<String> {
        let names = debug.lines().filter_map(|line| line.trim().split_once(": "));
        names.map(|(name, _)| name.to_owned()).collect()
    }

    #[test]
    fn every_field_of_the_types_is_a_setting() {
        let mut fields =
            field_names(&format!("{:#?}", Config { listeners: Vec::new(), ..Config::default() }));
        for group in ["acl", "limits", "log", "listeners", "storage", "auth", "http", "jwt"] {
            assert!(fields.remove(group), "{group}");
        }
        let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_owned();
        let known: BTreeSet<String> = SETTINGS.iter().map(|s| last(s.path)).collect();
        assert_eq!(fields, known);

        let mut fields = field_names(&format!("{:#?}", ListenerDraft::default()));
        assert!(fields.remove("is_tls"));
        fields.insert("transport".to_owned());
        // Tables of their own, in a table of settings of their own.
        assert!(fields.remove("certificates"));
        assert_eq!(fields, LISTENER_SETTINGS.iter().map(|s| last(s.path)).collect());
    }

    #[test]
    fn every_default_can_be_written_in_a_file() {
        let mut defaults = Config::default();
        for setting in SETTINGS {
            let Some(text) = setting.field.show(&mut defaults) else { continue };
            let kind = match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                Some(inner) => config::ValueKind::from(inner),
                None => match text.parse() {
                    Ok(switch) => config::ValueKind::Boolean(switch),
                    Err(_) => {
                        config::ValueKind::I64(text.parse().unwrap_or_else(|_| panic!("{text}: a number")))
                    }
                },
            };
            let written =
                super::super::field::Written { kind: &kind, untyped: false, directory: "".as_ref() };
            let mut read = Config::default();
            assert!(setting.field.read(&mut read, &written).is_some(), "{} = {text}", setting.path);
            assert_eq!(read, Config::default(), "{} = {text}", setting.path);
        }
    }
}
