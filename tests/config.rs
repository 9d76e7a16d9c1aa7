//! Configuration as it is loaded: layers, units, faults, files, the sample.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use ternmq::config::{
    ClientCertificate, Config, ConfigFaults, Flags, Limits, ListenerConfig, Loaded, LogConfig, LogFormat,
    MemoryMax, Network, Origin, PayloadFormat, Sources, StorageConfig, StorageKind, SyncMode, TlsConfig,
    Transport, load,
};

/// A directory with a configuration file in it.
struct Written {
    directory: TempDir,
}

impl Written {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("ternmq.toml"), text).expect("a file");
        Written { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ternmq.toml")
    }

    fn with(self, name: &str) -> Self {
        fs::write(self.directory.path().join(name), "").expect("a file");
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn load(&self) -> Result<Loaded, ConfigFaults> {
        load(&Sources { file: Some(self.file()), ..Sources::default() })
    }

    fn load_with(&self, environment: &[(&str, &str)], flags: Flags) -> Result<Loaded, ConfigFaults> {
        load(&Sources { file: Some(self.file()), environment: environment_of(environment), flags })
    }
}

fn environment_of(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

fn environment(variables: &[(&str, &str)]) -> Result<Loaded, ConfigFaults> {
    load(&Sources { environment: environment_of(variables), ..Sources::default() })
}

fn flags(flags: Flags) -> Result<Loaded, ConfigFaults> {
    load(&Sources { flags, ..Sources::default() })
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn network(text: &str) -> Network {
    text.parse().expect(text)
}

fn origin(loaded: &Loaded, path: &str) -> Origin {
    loaded.settings.iter().find(|s| s.path == path).unwrap_or_else(|| panic!("no {path}")).origin.clone()
}

/// The faults of a file as (path, line) pairs.
fn faults(text: &str) -> Vec<(String, String)> {
    let found = Written::new(text).load().expect_err(text);
    found.0.iter().map(|fault| (fault.path.clone(), fault.to_string())).collect()
}

/// The one fault of a file, which must be at `path` and speak of each of `words`.
#[track_caller]
fn one_fault(text: &str, path: &str, words: &[&str]) {
    let found = faults(text);
    assert_eq!(found.len(), 1, "{text}: {found:#?}");
    let (at, line) = &found[0];
    assert_eq!(at, path, "{line}");
    for word in words.iter().chain(&["ternmq.toml"]) {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
}

#[test]
fn nothing_configured_is_the_default() {
    let loaded = load(&Sources::default()).expect("no sources, no faults");
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.settings.iter().all(|setting| setting.origin == Origin::Default));
    assert!(loaded.has_default_listener());
    let listener = &loaded.config.listeners[0];
    assert_eq!(listener.bind, address("127.0.0.1:1883"));
    assert!(listener.allow_anonymous);
    assert_eq!(listener.transport, Transport::Tcp);
    assert_eq!(loaded.config.data_dir, None);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_fixed_defaults_are_these() {
    let limits = Limits::default();
    assert_eq!(limits.packet_bytes_max, 16_000_000);
    assert_eq!(limits.inflight_max, 64);
    assert_eq!((limits.receive_maximum, limits.topic_alias_max), (1_024, 32));
    assert_eq!(limits.payload_format, PayloadFormat::Pass);
    assert_eq!(limits.queue_messages_max, 10_000);
    assert_eq!(limits.queue_bytes_max, 64_000_000);
    assert_eq!(limits.connect_timeout, Duration::from_secs(10));
    assert_eq!(limits.session_expiry, Some(Duration::from_secs(2_592_000)));
    assert_eq!((limits.topic_levels_max, limits.topic_bytes_max), (200, 65_535));
    // Ten thousand devices behind one address must all be served.
    let none = [limits.connections_per_address_max, limits.connections_per_user_max, limits.connect_rate_max];
    assert_eq!(none, [None; 3]);
    assert_eq!((limits.publish_rate_max, limits.publish_bytes_rate_max), (None, None));
    assert_eq!((limits.memory_max, limits.tls_handshakes_max), (MemoryMax::Auto, 1_000));
    let storage = StorageConfig::default();
    assert_eq!((storage.kind, storage.sync), (StorageKind::Disk, SyncMode::Always));
    assert_eq!(storage.sync_interval, Duration::from_secs(1));
}

#[test]
fn a_file_sets_everything() {
    let written = Written::new(
        r#"
        data_dir = "/srv/mqtt"
        sys_interval = "0s"
        [storage]
        kind = "disk"
        sync = "interval"
        sync_interval = "250ms"
        [limits]
        packet_bytes_max = 268435460
        connections_max = 7
        inflight_max = 65535
        receive_maximum = 65535
        topic_alias_max = 0
        payload_format = "check"
        queue_messages_max = 1
        queue_bytes_max = "1GiB"
        connect_timeout = "500ms"
        session_expiry = "never"
        sessions_max = 11
        retained_messages_max = 12
        retained_bytes_max = "13KB"
        subscription_bytes_max = "14KB"
        subscriptions_max = 5
        topic_levels_max = 9
        topic_bytes_max = 15
        connections_per_address_max = 16
        connections_per_user_max = 17
        connect_rate_max = 18
        publish_rate_max = 19
        publish_bytes_rate_max = "20KB"
        memory_max = "21MB"
        tls_handshakes_max = 22
        handshake_bytes_max = "64 KB"
        shutdown_timeout = "1m"
        [log]
        level = "warn,ternmq=debug"
        format = "json"
        [[listeners]]
        bind = "[::1]:1883"
        [[listeners]]
        bind = "0.0.0.0:8883"
        transport = "tls"
        allow_anonymous = true
        proxy_protocol_from = ["127.0.0.1", "fd00::/8"]
        [listeners.tls]
        certificate = "c.pem"
        private_key = "k.pem"
        client_ca = "ca.pem"
        client_certificate = "optional"
        "#,
    )
    .with("c.pem")
    .with("k.pem")
    .with("ca.pem");
    let loaded = written.load().expect("a good file");
    let expected = Config {
        data_dir: Some(PathBuf::from("/srv/mqtt")),
        sys_interval: None,
        storage: StorageConfig {
            kind: StorageKind::Disk,
            sync: SyncMode::Interval,
            sync_interval: Duration::from_millis(250),
        },
        limits: Limits {
            packet_bytes_max: 268_435_460,
            connections_max: 7,
            inflight_max: 65_535,
            receive_maximum: 65_535,
            topic_alias_max: 0,
            payload_format: PayloadFormat::Check,
            queue_messages_max: 1,
            queue_bytes_max: 1 << 30,
            connect_timeout: Duration::from_millis(500),
            session_expiry: None,
            sessions_max: 11,
            retained_messages_max: 12,
            retained_bytes_max: 13_000,
            subscription_bytes_max: 14_000,
            subscriptions_max: 5,
            topic_levels_max: 9,
            topic_bytes_max: 15,
            connections_per_address_max: Some(16),
            connections_per_user_max: Some(17),
            connect_rate_max: Some(18),
            publish_rate_max: Some(19),
            publish_bytes_rate_max: Some(20_000),
            memory_max: MemoryMax::Bytes(21_000_000),
            tls_handshakes_max: 22,
            handshake_bytes_max: 64_000,
            shutdown_timeout: Duration::from_secs(60),
        },
        log: LogConfig { level: "warn,ternmq=debug".to_owned(), format: LogFormat::Json },
        listeners: vec![
            ListenerConfig {
                bind: address("[::1]:1883"),
                transport: Transport::Tcp,
                allow_anonymous: true,
                proxy_protocol_from: Vec::new(),
            },
            ListenerConfig {
                bind: address("0.0.0.0:8883"),
                transport: Transport::Tls(TlsConfig {
                    certificate: written.path("c.pem"),
                    private_key: written.path("k.pem"),
                    client_ca: Some(written.path("ca.pem")),
                    client_certificate: ClientCertificate::Optional,
                }),
                allow_anonymous: true,
                proxy_protocol_from: vec![network("127.0.0.1/32"), network("fd00::/8")],
            },
        ],
    };
    assert_eq!(loaded.config, expected);
    assert!(!loaded.has_default_listener());
    for setting in &loaded.settings {
        let is_default = setting.origin == Origin::Default;
        let may_be =
            ["listeners[0].transport", "listeners[0].allow_anonymous", "listeners[0].proxy_protocol_from"];
        assert_eq!(is_default, may_be.contains(&setting.path.as_str()), "{setting}");
    }
}

#[test]
fn each_layer_overrides_the_one_below() {
    let written = Written::new("data_dir = \"/file\"\n[log]\nlevel = \"error\"\n[limits]\ninflight_max = 1");
    let file = Origin::File(written.file());
    let loaded = written.load().expect("a good file");
    assert_eq!(loaded.config.data_dir.as_deref(), Some(Path::new("/file")));
    assert_eq!(origin(&loaded, "data_dir"), file);

    let variables =
        [("TERNMQ_DATA_DIR", "/env"), ("TERNMQ_LOG__LEVEL", "debug"), ("PATH", "/bin"), ("TERN", "1")];
    let loaded = written.load_with(&variables, Flags::default()).expect("good sources");
    assert_eq!(loaded.config.data_dir.as_deref(), Some(Path::new("/env")));
    assert_eq!(loaded.config.log.level, "debug");
    assert_eq!(loaded.config.limits.inflight_max, 1);
    assert_eq!(origin(&loaded, "data_dir"), Origin::Environment("TERNMQ_DATA_DIR".to_owned()));
    assert_eq!(origin(&loaded, "log.level"), Origin::Environment("TERNMQ_LOG__LEVEL".to_owned()));
    assert_eq!(origin(&loaded, "limits.inflight_max"), file);
    assert_eq!(origin(&loaded, "log.format"), Origin::Default);

    let flags = Flags {
        data_dir: Some("/flag".into()),
        storage: Some("disk".to_owned()),
        log: Some("trace".to_owned()),
        log_format: Some("json".to_owned()),
        ..Flags::default()
    };
    let loaded = written.load_with(&variables, flags).expect("good sources");
    assert_eq!(loaded.config.data_dir.as_deref(), Some(Path::new("/flag")));
    assert_eq!(loaded.config.log, LogConfig { level: "trace".to_owned(), format: LogFormat::Json });
    assert_eq!(origin(&loaded, "data_dir"), Origin::Flag("--data-dir"));
    assert_eq!(origin(&loaded, "storage.kind"), Origin::Flag("--storage"));
    assert_eq!(origin(&loaded, "log.level"), Origin::Flag("--log"));
    assert_eq!(origin(&loaded, "log.format"), Origin::Flag("--log-format"));
}

#[test]
fn every_setting_outside_listeners_has_a_variable() {
    let loaded = environment(&[
        ("TERNMQ_DATA_DIR", "/d"),
        ("TERNMQ_STORAGE__KIND", "memory"),
        ("TERNMQ_STORAGE__SYNC", "never"),
        ("TERNMQ_STORAGE__SYNC_INTERVAL", "1h"),
        ("TERNMQ_SYS_INTERVAL", "1m"),
        ("TERNMQ_LIMITS__PACKET_BYTES_MAX", "1KB"),
        ("TERNMQ_LIMITS__CONNECTIONS_MAX", "2"),
        ("TERNMQ_LIMITS__INFLIGHT_MAX", "3"),
        ("TERNMQ_LIMITS__RECEIVE_MAXIMUM", "5"),
        ("TERNMQ_LIMITS__TOPIC_ALIAS_MAX", "6"),
        ("TERNMQ_LIMITS__PAYLOAD_FORMAT", "check"),
        ("TERNMQ_LIMITS__QUEUE_MESSAGES_MAX", "4"),
        ("TERNMQ_LIMITS__QUEUE_BYTES_MAX", "8MB"),
        ("TERNMQ_LIMITS__CONNECT_TIMEOUT", "6s"),
        ("TERNMQ_LIMITS__SESSION_EXPIRY", "0s"),
        ("TERNMQ_LIMITS__SUBSCRIPTIONS_MAX", "7"),
        ("TERNMQ_LIMITS__SESSIONS_MAX", "9"),
        ("TERNMQ_LIMITS__RETAINED_MESSAGES_MAX", "10"),
        ("TERNMQ_LIMITS__RETAINED_BYTES_MAX", "11KB"),
        ("TERNMQ_LIMITS__SUBSCRIPTION_BYTES_MAX", "12KB"),
        ("TERNMQ_LIMITS__TOPIC_LEVELS_MAX", "8"),
        ("TERNMQ_LIMITS__TOPIC_BYTES_MAX", "13"),
        ("TERNMQ_LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "14"),
        ("TERNMQ_LIMITS__CONNECTIONS_PER_USER_MAX", "none"),
        ("TERNMQ_LIMITS__CONNECT_RATE_MAX", "15"),
        ("TERNMQ_LIMITS__PUBLISH_RATE_MAX", "16"),
        ("TERNMQ_LIMITS__PUBLISH_BYTES_RATE_MAX", "17KiB"),
        ("TERNMQ_LIMITS__MEMORY_MAX", "none"),
        ("TERNMQ_LIMITS__TLS_HANDSHAKES_MAX", "18"),
        ("TERNMQ_LIMITS__HANDSHAKE_BYTES_MAX", "4096"),
        ("TERNMQ_LIMITS__SHUTDOWN_TIMEOUT", "0s"),
        ("TERNMQ_LOG__LEVEL", "off"),
        ("TERNMQ_LOG__FORMAT", "json"),
    ])
    .expect("good variables");
    let outside = loaded.settings.iter().filter(|setting| !setting.path.starts_with("listeners"));
    for setting in outside {
        assert!(matches!(setting.origin, Origin::Environment(_)), "{setting}");
    }
    let expected = StorageConfig {
        kind: StorageKind::Memory,
        sync: SyncMode::Never,
        sync_interval: Duration::from_secs(3_600),
    };
    assert_eq!(loaded.config.storage, expected);
    let limits = loaded.config.limits;
    assert_eq!((limits.receive_maximum, limits.topic_alias_max), (5, 6));
    assert_eq!((limits.connections_per_address_max, limits.connections_per_user_max), (Some(14), None));
    assert_eq!((limits.publish_rate_max, limits.publish_bytes_rate_max), (Some(16), Some(17 * 1_024)));
    assert_eq!(limits.memory_max, MemoryMax::Unbounded);
    assert_eq!(limits.payload_format, PayloadFormat::Check);
    assert_eq!(limits.queue_bytes_max, 8_000_000);
    assert_eq!(limits.session_expiry, Some(Duration::ZERO));
    assert_eq!(limits.shutdown_timeout, Duration::ZERO);
    assert_eq!(limits.handshake_bytes_max, 4096);
    assert_eq!(limits.inflight_max, 3);
}

#[test]
fn bad_values_are_named_with_what_is_expected() {
    for (text, path, words) in [
        ("[limits]\nqueue_bytes_max = \"8XB\"", "limits.queue_bytes_max", &["\"8XB\"", "a size"] as &[&str]),
        ("[limits]\nqueue_bytes_max = 0", "limits.queue_bytes_max", &["= 0:", "at least 1B"]),
        ("[limits]\nqueue_bytes_max = -1", "limits.queue_bytes_max", &["= -1:"]),
        ("[limits]\nqueue_bytes_max = 1.5", "limits.queue_bytes_max", &["= 1.5:"]),
        ("[limits]\npacket_bytes_max = 268435461", "limits.packet_bytes_max", &["268435460B"]),
        ("[limits]\npacket_bytes_max = 63", "limits.packet_bytes_max", &["64B"]),
        ("[limits]\nconnections_max = 0", "limits.connections_max", &["at least 1"]),
        ("[limits]\nconnections_max = \"7\"", "limits.connections_max", &["a whole number"]),
        ("[limits]\ninflight_max = 0", "limits.inflight_max", &["from 1 to 65535"]),
        ("[limits]\ninflight_max = 65536", "limits.inflight_max", &["from 1 to 65535"]),
        ("[limits]\nreceive_maximum = 0", "limits.receive_maximum", &["from 1 to 65535"]),
        ("[limits]\ntopic_alias_max = 65536", "limits.topic_alias_max", &["from 0 to 65535"]),
        ("[limits]\ntopic_alias_max = -1", "limits.topic_alias_max", &["= -1:"]),
        ("[limits]\npayload_format = \"refuse\"", "limits.payload_format", &["\"pass\" or \"check\""]),
        ("[limits]\nqueue_messages_max = 0", "limits.queue_messages_max", &["at least 1"]),
        ("[limits]\nsubscriptions_max = 0", "limits.subscriptions_max", &["at least 1"]),
        ("[limits]\ntopic_levels_max = 65537", "limits.topic_levels_max", &["from 1 to 65536"]),
        ("[limits]\ntopic_bytes_max = 65536", "limits.topic_bytes_max", &["from 1 to 65535"]),
        (
            "[limits]\nconnections_per_address_max = 0",
            "limits.connections_per_address_max",
            &["at least 1", "or \"none\""],
        ),
        ("[limits]\nconnections_per_user_max = \"7\"", "limits.connections_per_user_max", &["or \"none\""]),
        ("[limits]\nconnect_rate_max = -1", "limits.connect_rate_max", &["= -1:", "or \"none\""]),
        ("[limits]\npublish_rate_max = 1.5", "limits.publish_rate_max", &["= 1.5:"]),
        ("[limits]\npublish_bytes_rate_max = \"0B\"", "limits.publish_bytes_rate_max", &["or \"none\""]),
        ("[limits]\nmemory_max = \"half\"", "limits.memory_max", &["\"auto\" or \"none\""]),
        ("[limits]\nmemory_max = \"999KB\"", "limits.memory_max", &["at least 1MB"]),
        ("[limits]\ntls_handshakes_max = 0", "limits.tls_handshakes_max", &["= 0:"]),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\nproxy_protocol_from = \"127.0.0.1\"",
            "listeners[0].proxy_protocol_from",
            &["a list", "10.0.0.0/8"],
        ),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\nproxy_protocol_from = [\"10.0.0.1/8\"]",
            "listeners[0].proxy_protocol_from",
            &["a list"],
        ),
        ("[limits]\nconnect_timeout = 10", "limits.connect_timeout", &["= 10:", "with its unit"]),
        ("[limits]\nconnect_timeout = \"10\"", "limits.connect_timeout", &["with its unit"]),
        ("[limits]\nconnect_timeout = \"0s\"", "limits.connect_timeout", &["from 1ms to 1h"]),
        ("[limits]\nconnect_timeout = \"61m\"", "limits.connect_timeout", &["from 1ms to 1h"]),
        ("[limits]\nsession_expiry = \"ever\"", "limits.session_expiry", &["or \"never\""]),
        ("[limits]\nsession_expiry = \"36501d\"", "limits.session_expiry", &["36500d"]),
        ("[limits]\nshutdown_timeout = true", "limits.shutdown_timeout", &["= true:"]),
        ("sys_interval = \"never\"", "sys_interval", &["or \"0s\""]),
        ("[storage]\nkind = \"disc\"", "storage.kind", &["\"disc\"", "\"disk\" or \"memory\""]),
        ("[storage]\nkind = true", "storage.kind", &["= true:"]),
        (
            "[storage]\nsync = \"often\"",
            "storage.sync",
            &["\"often\"", "\"always\" or \"interval\" or \"never\""],
        ),
        ("[storage]\nsync = \"1s\"", "storage.sync", &["\"interval\""]),
        ("[storage]\nsync_interval = 1", "storage.sync_interval", &["= 1:", "with its unit"]),
        ("[storage]\nsync_interval = \"0s\"", "storage.sync_interval", &["from 1ms to 1h"]),
        ("[storage]\nsync_interval = \"3600001ms\"", "storage.sync_interval", &["from 1ms to 1h"]),
        ("storage = \"memory\"", "storage", &["a table", "[storage]"]),
        ("data_dir = \"\"", "data_dir", &["a path"]),
        ("data_dir = 5", "data_dir", &["a path"]),
        ("[log]\nlevel = \"verbose\"", "log.level", &["\"verbose\"", "trace"]),
        ("[log]\nlevel = \"info,\"", "log.level", &["trace"]),
        ("[log]\nlevel = \"ternmq=loud\"", "log.level", &["trace"]),
        ("[log]\nformat = \"xml\"", "log.format", &["\"text\" or \"json\""]),
        ("limits = 5", "limits", &["a table", "[limits]"]),
        ("[log.level]\nx = 1", "log.level", &["trace"]),
        ("listeners = 5", "listeners", &["[[listeners]]"]),
        ("[listeners]\nbind = \"127.0.0.1:1\"", "listeners", &["[[listeners]]"]),
        ("listeners = []", "listeners", &["at least one"]),
        ("listeners = [5]", "listeners[0]", &["[[listeners]]"]),
        (
            "[[listeners]]\nbind = \"localhost:1883\"",
            "listeners[0].bind",
            &["\"localhost:1883\"", "[::1]:1883"],
        ),
        ("[[listeners]]\nbind = 1883", "listeners[0].bind", &["= 1883:"]),
        ("[[listeners]]", "listeners[0].bind", &["missing"]),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\nallow_anonymous = \"true\"",
            "listeners[0].allow_anonymous",
            &["true or false"],
        ),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\ntransport = \"ws\"\n[listeners.tls]\ncertificate = \"c\"",
            "listeners[0].transport",
            &["\"tcp\" or \"tls\""],
        ),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\n[[listeners]]\nbind = \"[::1]:1\"",
            "listeners[1].bind",
            &["same address as listeners[0]"],
        ),
        ("[[listeners]]\nbind = \"[::1]:1\"\ntls = true", "listeners[0].tls", &["a table"]),
    ] {
        // What stands where a `tls` table should is one thing wrong; that it has no effect is not worth a second.
        one_fault(text, path, words);
    }
}

#[test]
fn unknown_keys_are_refused_and_the_nearest_named() {
    for (text, path, words) in [
        ("datadir = \"/d\"", "datadir", &["unknown key", "did you mean data_dir?"] as &[&str]),
        ("[storage]\nknd = \"disk\"", "storage.knd", &["did you mean storage.kind?"]),
        (
            "[storage]\nsync_interva = \"1s\"",
            "storage.sync_interva",
            &["did you mean storage.sync_interval?"],
        ),
        ("sync_interval = \"1s\"", "sync_interval", &["did you mean storage.sync_interval?"]),
        ("inflight_max = 5", "inflight_max", &["did you mean limits.inflight_max?"]),
        ("[limits]\nqueue_byte_max = 5", "limits.queue_byte_max", &["did you mean limits.queue_bytes_max?"]),
        ("[limit]\ninflight_max = 5", "limit", &["unknown key"]),
        ("\"limits.inflight_max\" = 5", "limits.inflight_max", &["unknown key"]),
        ("[persistence.backend]\nx = 1", "persistence", &["unknown key"]),
        ("[[listeners]]\nbind = \"[::1]:1\"\nbnid = 1", "listeners[0].bnid", &["mean listeners[0].bind?"]),
        (
            "[[listeners]]\nbind = \"[::1]:1\"\ncertificate = \"x\"",
            "listeners[0].certificate",
            &["mean listeners[0].tls.certificate?"],
        ),
        ("\"a\\nb\" = 1", "a\\nb", &["unknown key"]),
    ] {
        one_fault(text, path, words);
    }
    assert!(!faults("zzzzzzzz = 1")[0].1.contains("did you mean"));
}

#[test]
fn a_file_that_cannot_be_read_or_parsed_is_a_fault() {
    one_fault("[limits\n", "", &["line 1", "TOML parse error"]);
    one_fault("data_dir = \"a\"\ndata_dir = \"b\"", "", &["line 2", "duplicate key"]);

    let missing = PathBuf::from("/nowhere/ternmq.toml");
    let found =
        load(&Sources { file: Some(missing), ..Sources::default() }).expect_err("no file").to_string();
    assert!(found.contains("cannot read the configuration file"), "{found}");
    assert!(found.contains("/nowhere/ternmq.toml"), "{found}");
}

#[test]
fn variables_are_judged_like_keys() {
    let found = environment(&[
        ("TERNMQ_LIMITS__INFLIGHT_MAX", "+5"),
        ("TERNMQ_LIMITS__QUEUE_BYTES_MAX", ""),
        ("TERNMQ_LISTENERS__0__BIND", "[::1]:1"),
        ("TERNMQ_LIMITS.INFLIGHT_MAX", "5"),
        ("TERNMQ_BIND", "1883"),
    ])
    .expect_err("faults");
    let lines: Vec<String> = found.0.iter().map(ToString::to_string).collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for words in [
        &["limits.inflight_max = \"+5\"", "(in environment TERNMQ_LIMITS__INFLIGHT_MAX)"] as &[&str],
        &["limits.queue_bytes_max = \"\"", "a size"],
        &["TERNMQ_LISTENERS__0__BIND: listeners are set in a file"],
        &["TERNMQ_LIMITS.INFLIGHT_MAX: unknown variable, did you mean TERNMQ_LIMITS__INFLIGHT_MAX?"],
        &["bind = \"1883\": expected an IP address and a port"],
    ] {
        assert!(
            lines.iter().any(|line| words.iter().all(|word| line.contains(word))),
            "{words:?}: {lines:#?}"
        );
    }
}

#[test]
fn variables_that_are_no_keys_are_told_and_passed_over() {
    let loaded = environment(&[
        ("TERNMQ_LIMITS_CONNECTIONS_MAX", "5"),
        ("TERNMQ_LOG", "debug"),
        ("TERNMQ_data_dir", "/d"),
        ("TERNMQ_", "5"),
    ])
    .expect("somebody else's variables are no faults");
    assert_eq!(loaded.config, Config::default());
    assert_eq!(loaded.warnings.len(), 4, "{:#?}", loaded.warnings);
    for words in [
        "TERNMQ_LIMITS_CONNECTIONS_MAX: unknown variable, did you mean TERNMQ_LIMITS__CONNECTIONS_MAX?",
        "TERNMQ_LOG: unknown variable",
        "TERNMQ_data_dir: unknown variable, did you mean TERNMQ_DATA_DIR?",
        "TERNMQ_: unknown variable",
    ] {
        assert!(
            loaded.warnings.iter().any(|warning| warning.contains(words)),
            "{words}: {:#?}",
            loaded.warnings
        );
    }
}

#[cfg(unix)]
#[test]
fn text_that_is_not_utf8_is_a_fault_of_its_variable() {
    use std::os::unix::ffi::OsStringExt;
    let bad = OsString::from_vec(vec![b'/', 0xff]);
    let environment = vec![("TERNMQ_DATA_DIR".into(), bad.clone()), ("OTHER".into(), bad)];
    let found = load(&Sources { environment, ..Sources::default() }).expect_err("a fault");
    assert_eq!(found.0.len(), 1);
    assert!(found.to_string().contains("UTF-8") && found.to_string().contains("TERNMQ_DATA_DIR"), "{found}");
}

#[test]
fn links_to_kubernetes_services_are_passed_over() {
    let linked = environment(&[
        ("TERNMQ_SERVICE_HOST", "10.0.0.1"),
        ("TERNMQ_PORT", "tcp://10.0.0.1:1883"),
        ("TERNMQ_PORT_1883_TCP_ADDR", "10.0.0.1"),
    ])
    .expect("not ours");
    assert_eq!(linked.warnings, [""; 0]);
    let meant = environment(&[("TERNMQ_PORT", "1883")]).expect("no key of a table");
    assert_eq!(meant.warnings.len(), 1, "somebody meant TERNMQ_BIND");
}

#[test]
fn all_faults_are_reported_at_once() {
    let written = Written::new(
        "datadir = 1\n[limits]\ninflight_max = 0\nconnect_timeout = 10\n[[listeners]]\ntransport = \"tls\"\n\
         [[listeners]]\nbind = \"x\"",
    );
    let flags = Flags { log: Some("loud".to_owned()), ..Flags::default() };
    let found = written.load_with(&[("TERNMQ_LOG__FORMAT", "xml")], flags).expect_err("faults");
    let mut paths: Vec<&str> = found.0.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort_unstable();
    let expected = [
        "datadir",
        "limits.connect_timeout",
        "limits.inflight_max",
        "listeners[0].bind",
        "listeners[0].tls.certificate",
        "listeners[0].tls.private_key",
        "listeners[1].bind",
        "log.format",
        "log.level",
    ];
    assert_eq!(paths, expected);
    assert_eq!(found.to_string().lines().count(), expected.len());
}

#[test]
fn a_fault_that_is_overridden_is_still_one() {
    let written = Written::new("[log]\nlevel = \"loud\"\n[[listeners]]\nbind = \"x\"");
    let flags =
        Flags { log: Some("info".to_owned()), bind: Some("127.0.0.1:0".to_owned()), ..Flags::default() };
    let found = written.load_with(&[], flags).expect_err("faults");
    let paths: Vec<&str> = found.0.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["listeners[0].bind", "log.level"]);
}

#[test]
fn bind_replaces_the_listeners() {
    let written = Written::new(
        "[[listeners]]\nbind = \"0.0.0.0:1\"\nallow_anonymous = false\n[[listeners]]\nbind = \"0.0.0.0:2\"\ntransport = \"tls\"\n\
         [listeners.tls]\ncertificate = \"not-there\"\nprivate_key = \"not-there\"",
    );
    let flags = |bind: &str, allow_anonymous| Flags {
        bind: Some(bind.to_owned()),
        allow_anonymous,
        ..Flags::default()
    };
    let loaded = written.load_with(&[], flags("127.0.0.1:1999", false)).expect("loopback");
    assert_eq!(loaded.config.listeners, [ListenerConfig::tcp(address("127.0.0.1:1999"))]);
    assert!(loaded.config.listeners[0].allow_anonymous);
    assert_eq!(origin(&loaded, "listeners[0].bind"), Origin::Flag("--bind"));
    assert_eq!(origin(&loaded, "listeners[0].allow_anonymous"), Origin::Default);
    assert!(!loaded.settings.iter().any(|setting| setting.path.starts_with("listeners[1]")));

    let found =
        written.load_with(&[], flags("0.0.0.0:1999", false)).expect_err("beyond loopback").to_string();
    assert!(found.contains("--allow-anonymous") && found.contains("0.0.0.0:1999"), "{found}");
    let loaded = written.load_with(&[], flags("0.0.0.0:1999", true)).expect("meant");
    assert!(loaded.config.listeners[0].allow_anonymous);
    assert_eq!(origin(&loaded, "listeners[0].allow_anonymous"), Origin::Flag("--allow-anonymous"));

    let variables = [("TERNMQ_BIND", "[::]:1999"), ("TERNMQ_ALLOW_ANONYMOUS", "true")];
    let loaded = written.load_with(&variables, Flags::default()).expect("by the environment");
    assert_eq!(loaded.config.listeners[0].bind, address("[::]:1999"));
    assert!(loaded.config.listeners[0].allow_anonymous);
    let loaded = written.load_with(&variables, flags("[::1]:7", false)).expect("the flag wins");
    assert_eq!(loaded.config.listeners[0].bind, address("[::1]:7"));
    written.load_with(&variables[..1], Flags::default()).expect_err("beyond loopback");
}

#[test]
fn allow_anonymous_without_bind_is_refused() {
    let found =
        flags(Flags { allow_anonymous: true, ..Flags::default() }).expect_err("no effect").to_string();
    assert!(found.contains("--bind") && found.contains("(in --allow-anonymous)"), "{found}");
    environment(&[("TERNMQ_ALLOW_ANONYMOUS", "true")]).expect_err("no effect");
    let off = environment(&[("TERNMQ_BIND", "127.0.0.1:0"), ("TERNMQ_ALLOW_ANONYMOUS", "false")]);
    assert!(!off.expect("stricter than the default").config.listeners[0].allow_anonymous);
}

#[test]
fn anonymous_clients_are_for_loopback_by_default() {
    for (bind, anonymous) in [
        ("127.0.0.1:1", true),
        ("127.8.8.8:1", true),
        ("[::1]:1", true),
        ("[::ffff:127.0.0.1]:1", true),
        ("0.0.0.0:1", false),
        ("[::]:1", false),
        ("192.168.1.1:1", false),
    ] {
        let loaded = Written::new(&format!("[[listeners]]\nbind = \"{bind}\"")).load().expect(bind);
        assert_eq!(loaded.config.listeners[0].allow_anonymous, anonymous, "{bind}");
        assert_eq!(ListenerConfig::tcp(address(bind)).allow_anonymous, anonymous, "{bind}");
    }
    let text =
        "[[listeners]]\nbind = \"0.0.0.0:0\"\nallow_anonymous = true\n[[listeners]]\nbind = \"0.0.0.0:0\"";
    let listeners = Written::new(text).load().expect("port 0 twice").config.listeners;
    assert!(listeners[0].allow_anonymous && !listeners[1].allow_anonymous);
}

/// A TLS listener with these lines in its table.
fn tls(lines: &str) -> String {
    format!("[[listeners]]\nbind = \"[::1]:8883\"\ntransport = \"tls\"\n[listeners.tls]\n{lines}")
}

#[test]
fn tls_needs_its_files() {
    let pair = "certificate = \"c\"\nprivate_key = \"k\"\n";
    let found = |text: &str| -> Vec<String> {
        let found = Written::new(text).with("c").with("k").load().expect_err(text);
        found.0.iter().map(ToString::to_string).collect()
    };
    let no_table = found("[[listeners]]\nbind = \"[::1]:8883\"\ntransport = \"tls\"");
    assert_eq!(no_table.len(), 2, "{no_table:#?}");
    assert!(no_table[0].starts_with("listeners[0].tls.certificate: missing"), "{no_table:#?}");
    assert!(no_table[1].starts_with("listeners[0].tls.private_key: missing"), "{no_table:#?}");

    let on_tcp = found("[[listeners]]\nbind = \"[::1]:8883\"\n[listeners.tls]\ncertificate = \"c\"");
    assert_eq!(on_tcp.len(), 1, "{on_tcp:#?}");
    assert!(on_tcp[0].starts_with("listeners[0].tls: has no effect"), "{on_tcp:#?}");

    for kind in ["optional", "required"] {
        let no_ca = found(&tls(&format!("{pair}client_certificate = \"{kind}\"")));
        assert_eq!(no_ca.len(), 1, "{no_ca:#?}");
        assert!(no_ca[0].starts_with("listeners[0].tls.client_ca: missing"), "{no_ca:#?}");
    }
    let absent = found(&tls(&format!("{pair}client_ca = \"not-there\"")));
    assert_eq!(absent.len(), 1, "{absent:#?}");
    assert!(absent[0].starts_with("listeners[0].tls.client_ca = "), "{absent:#?}");
    assert!(absent[0].contains("not-there") && absent[0].contains("cannot read the file"), "{absent:#?}");

    let directory = found(&tls("certificate = \".\"\nprivate_key = \"k\""));
    assert_eq!(directory.len(), 1, "{directory:#?}");
    assert!(directory[0].contains("tls.certificate") && directory[0].contains("expected a file"));

    // A bad value is one fault, not two.
    let number = found(&tls("certificate = 5\nprivate_key = \"k\""));
    assert_eq!(number.len(), 1, "{number:#?}");
}

#[test]
fn a_client_ca_that_nobody_is_asked_for_is_warned_of() {
    let text = tls("certificate = \"c\"\nprivate_key = \"c\"\nclient_ca = \"c\"");
    let loaded = Written::new(&text).with("c").load().expect("allowed");
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("listeners[0].tls.client_ca"), "{:?}", loaded.warnings);
    let loaded =
        Written::new(&(text + "\nclient_certificate = \"required\"")).with("c").load().expect("good");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn paths_in_a_file_start_from_its_directory() {
    let written = Written::new("data_dir = \"state\"");
    assert_eq!(written.load().expect("good").config.data_dir, Some(written.path("state")));
    let loaded = environment(&[("TERNMQ_DATA_DIR", "state")]).expect("good");
    assert_eq!(loaded.config.data_dir, Some(PathBuf::from("state")));
}

#[test]
fn a_data_directory_must_not_be_a_file() {
    let written = Written::new("data_dir = \"ternmq.toml\"");
    let found = written.load().expect_err("a file").to_string();
    assert!(found.starts_with("data_dir = ") && found.contains("expected a directory"), "{found}");
    flags(Flags { data_dir: Some(PathBuf::new()), ..Flags::default() }).expect_err("an empty path");
}

#[test]
fn storage_by_a_flag_wins_over_the_file() {
    let written = Written::new("[storage]\nkind = \"disk\"\nsync = \"never\"");
    let loaded = written.load_with(
        &[("TERNMQ_STORAGE__KIND", "disk"), ("TERNMQ_STORAGE__SYNC", "interval")],
        Flags { storage: Some("memory".to_owned()), ..Flags::default() },
    );
    let storage = loaded.expect("good sources").config.storage;
    assert_eq!((storage.kind, storage.sync), (StorageKind::Memory, SyncMode::Interval));
    let found = flags(Flags { storage: Some("ram".to_owned()), ..Flags::default() }).expect_err("no kind");
    assert_eq!(found.to_string(), "storage.kind = \"ram\": expected \"disk\" or \"memory\" (in --storage)");
}

#[test]
fn settings_of_storage_without_effect_are_warned_of() {
    for (text, warned) in [
        ("[storage]\nkind = \"disk\"\nsync = \"always\"\nsync_interval = \"1s\"", &[] as &[&str]),
        ("[storage]\nsync = \"interval\"\nsync_interval = \"1ms\"", &[]),
        ("[storage]\nsync_interval = \"1h\"", &["storage.sync_interval"]),
        ("[storage]\nsync = \"never\"\nsync_interval = \"2s\"", &["storage.sync_interval"]),
        ("[storage]\nkind = \"memory\"", &[]),
        ("data_dir = \"d\"\n[storage]\nkind = \"memory\"", &["data_dir"]),
        (
            "[storage]\nkind = \"memory\"\nsync = \"interval\"\nsync_interval = \"2s\"",
            &["storage.sync", "storage.sync_interval"],
        ),
    ] {
        let warnings = Written::new(text).load().expect(text).warnings;
        let paths: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(' ').next()).collect();
        assert_eq!(paths, warned, "{text}");
        assert!(warnings.iter().all(|warning| warning.contains("no effect")), "{warnings:?}");
    }
}

/// What the program would start with, were this its environment.
fn program(variables: &[(&str, &str)]) -> Loaded {
    let mut loaded = environment(variables).expect("good variables");
    loaded.use_default_data_dir(&environment_of(variables));
    loaded
}

#[test]
fn a_program_has_a_default_data_directory() {
    let loaded = program(&[("HOME", "/h"), ("XDG_DATA_HOME", "/x")]);
    assert_eq!(loaded.config.data_dir, Some(PathBuf::from("/x/ternmq")));
    assert_eq!(loaded.config.storage, StorageConfig::default());
    assert!(loaded.has_default_data_dir() && loaded.warnings.is_empty());
    let shown = loaded.settings.iter().find(|setting| setting.path == "data_dir").map(ToString::to_string);
    assert_eq!(shown.as_deref(), Some("data_dir = \"/x/ternmq\"  # default, from XDG_DATA_HOME"));

    // What is set is not replaced, and no directory is looked for that is not needed.
    let loaded = program(&[("HOME", "/h"), ("TERNMQ_DATA_DIR", "/d")]);
    assert_eq!(loaded.config.data_dir, Some(PathBuf::from("/d")));
    assert!(!loaded.has_default_data_dir());
    for variables in
        [&[("TERNMQ_STORAGE__KIND", "memory"), ("HOME", "/h")][..], &[("TERNMQ_STORAGE__KIND", "memory")]]
    {
        let loaded = program(variables);
        assert_eq!(loaded.config.data_dir, None);
        assert!(!loaded.has_default_data_dir() && loaded.warnings.is_empty());
    }
}

#[test]
fn a_program_says_how_much_memory_a_quarter_is() {
    let mut loaded = environment(&[]).expect("good");
    assert_eq!(loaded.config.limits.memory_max, MemoryMax::Auto);
    loaded.use_machine_memory();
    let MemoryMax::Bytes(bytes) = loaded.config.limits.memory_max else { panic!("Linux tells") };
    let shown = loaded.settings.iter().find(|setting| setting.path == "limits.memory_max").unwrap();
    assert_eq!(
        shown.to_string(),
        format!(
            "limits.memory_max = {}  # default, from a quarter of the memory",
            shown.value.as_ref().unwrap()
        )
    );
    assert!(bytes > 1_000_000 && loaded.warnings.is_empty(), "{bytes} {:?}", loaded.warnings);
    assert!(!loaded.has_default_data_dir());
    // What is set stands.
    for (text, bound) in [("none", MemoryMax::Unbounded), ("5MB", MemoryMax::Bytes(5_000_000))] {
        let mut loaded = environment(&[("TERNMQ_LIMITS__MEMORY_MAX", text)]).expect("good");
        loaded.use_machine_memory();
        assert_eq!(loaded.config.limits.memory_max, bound);
    }
}

#[test]
fn a_proxy_that_may_be_anybody_is_warned_of() {
    let text = "[[listeners]]\nbind = \"[::1]:1\"\nproxy_protocol_from = [\"10.0.0.0/8\", \"::/0\"]";
    let warnings = Written::new(text).load().expect("allowed").warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("::/0"), "{warnings:?}");
}

#[test]
fn a_program_without_a_place_for_data_keeps_it_in_memory_and_says_so() {
    for variables in [&[("HOME", "not/absolute")][..], &[("TERNMQ_STORAGE__KIND", "disk")]] {
        let loaded = program(variables);
        assert_eq!(
            (loaded.config.data_dir.as_ref(), loaded.config.storage.kind),
            (None, StorageKind::Memory)
        );
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        for word in ["data_dir", "--data-dir", "memory", "--storage memory"] {
            assert!(loaded.warnings[0].contains(word), "no {word} in {:?}", loaded.warnings);
        }
        let shown = loaded.settings.iter().find(|setting| setting.path == "storage.kind");
        assert_eq!(shown.map(ToString::to_string).as_deref(), Some("storage.kind = \"memory\"  # default"));
    }
}

/// The sample file, and the same with the settings that are off by default switched on.
fn sample() -> (String, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ternmq.toml");
    let text = fs::read_to_string(path).expect("the sample");
    let is_off = |line: &str| line.starts_with('#') && line.len() > 1 && !line.starts_with("# ");
    let all: Vec<&str> = text.lines().map(|line| if is_off(line) { &line[1..] } else { line }).collect();
    (text.clone(), all.join("\n"))
}

#[test]
fn the_sample_is_the_default_and_names_every_setting() {
    let (text, all) = sample();
    let loaded = Written::new(&text).load().expect("the sample is good");
    assert_eq!(loaded.config, Config::default());
    for setting in &loaded.settings {
        let is_off = setting.path == "data_dir";
        assert_eq!(setting.origin == Origin::Default, is_off, "{setting}");
    }

    let loaded = Written::new(&all).with("server.crt").with("server.key").with("ca.crt").load().expect(&all);
    for setting in &loaded.settings {
        assert!(matches!(setting.origin, Origin::File(_)), "not in the sample: {setting}");
    }
    let last = loaded.config.listeners.last().expect("a listener");
    assert!(matches!(last.transport, Transport::Tls(_)));
    assert!(!last.allow_anonymous);
}
