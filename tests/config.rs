//! Configuration as it is loaded: layers, units, faults, files, the sample.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use ternmq::config::{
    AclAccess, AclSubscribe, AclTable, AclTopics, AclWho, AuthConfig, AuthMethod, CertificateFiles,
    CertificateName, ClientCertificate, Config, ConfigFaults, Flags, HttpConfig, HttpFormat, HttpHeaders,
    JwtAlgorithm, JwtConfig, Limits, ListenerConfig, Loaded, LogConfig, LogFormat, MemoryMax, Network,
    Origin, PayloadFormat, RefusedPublish, Sources, StorageConfig, StorageKind, SyncMode, TlsConfig,
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
    found.faults.iter().map(|fault| (fault.path.clone(), fault.to_string())).collect()
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

fn acl(who: AclWho, access: AclAccess, topics: AclTopics) -> AclTable {
    AclTable { who, access, topics }
}

#[test]
fn a_file_sets_everything() {
    let written = Written::new(
        r#"
        data_dir = "/srv/mqtt"
        sys_interval = "0s"
        [[acl]]
        user = "bob"
        access = "write"
        topics = ["a", "b/#"]
        [[acl]]
        anonymous = true
        access = "deny"
        topic = "a"
        [[acl]]
        access = "readwrite"
        patterns = ["%u", "%c"]
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
        memory_max = "2100MB"
        tls_handshakes_max = 22
        handshake_bytes_max = "64 KB"
        unfinished_bytes_max = "300MB"
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
        refused_publish = "disconnect"
        auth = ["password_file"]
        proxy_protocol_from = ["127.0.0.1", "fd00::/8"]
        [listeners.tls]
        certificate = "c.pem"
        private_key = "k.pem"
        client_ca = "ca.pem"
        client_certificate = "optional"
        crl = ["a.crl", "b.crl"]
        user_name = "san"
        [[listeners.tls.certificates]]
        certificate = "c2.pem"
        private_key = "k2.pem"
        [auth]
        methods = ["http", "certificate", "jwt", "password_file"]
        password_file = "passwords"
        acl_file = "acl.txt"
        subscribe = "refuse"
        failures_max = 1
        address_failures_max = 2
        user_failures_max = 3
        failures_time = "1h"
        delay_max = "0s"
        ban_time = "1s"
        [auth.http]
        url = "https://id.example/auth"
        format = "form"
        timeout = "1s"
        requests_max = 2
        waiting_max = 0
        cache_time = "0s"
        cache_time_denied = "1h"
        cache_entries_max = 3
        headers = { "X-B" = "2", "X-A" = "secret" }
        token_file = "token"
        token_header = "X-Token"
        ca = "ca.pem"
        [auth.jwt]
        algorithm = "EdDSA"
        key_file = "jwt.pem"
        issuer = "i"
        audience = "a"
        user_claim = "name"
        leeway = "5s"
        username_must_match = false
        "#,
    )
    .with("acl.txt")
    .with("c.pem")
    .with("k.pem")
    .with("ca.pem")
    .with("c2.pem")
    .with("k2.pem")
    .with("a.crl")
    .with("b.crl")
    .with("passwords")
    .with("token")
    .with("jwt.pem");
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
            retained_bytes_max: MemoryMax::Bytes(13_000),
            subscription_bytes_max: 14_000,
            subscriptions_max: 5,
            topic_levels_max: 9,
            topic_bytes_max: 15,
            connections_per_address_max: Some(16),
            connections_per_user_max: Some(17),
            connect_rate_max: Some(18),
            publish_rate_max: Some(19),
            publish_bytes_rate_max: Some(20_000),
            memory_max: MemoryMax::Bytes(2_100_000_000),
            tls_handshakes_max: 22,
            handshake_bytes_max: MemoryMax::Bytes(64_000),
            unfinished_bytes_max: MemoryMax::Bytes(300_000_000),
            shutdown_timeout: Duration::from_secs(60),
        },
        acl: vec![
            acl(
                AclWho::User("bob".to_owned()),
                AclAccess::Write,
                AclTopics::Topics(vec!["a".to_owned(), "b/#".to_owned()]),
            ),
            acl(AclWho::Anonymous, AclAccess::Deny, AclTopics::Topics(vec!["a".to_owned()])),
            acl(
                AclWho::Everyone,
                AclAccess::ReadWrite,
                AclTopics::Patterns(vec!["%u".to_owned(), "%c".to_owned()]),
            ),
        ],
        log: LogConfig { level: "warn,ternmq=debug".to_owned(), format: LogFormat::Json },
        auth: AuthConfig {
            methods: Some(vec![
                AuthMethod::Http,
                AuthMethod::Certificate,
                AuthMethod::Jwt,
                AuthMethod::PasswordFile,
            ]),
            password_file: Some(written.path("passwords")),
            acl_file: Some(written.path("acl.txt")),
            subscribe: AclSubscribe::Refuse,
            failures_max: 1,
            address_failures_max: 2,
            user_failures_max: 3,
            failures_time: Duration::from_secs(3_600),
            delay_max: Duration::ZERO,
            ban_time: Duration::from_secs(1),
            http: HttpConfig {
                url: Some("https://id.example/auth".to_owned()),
                format: HttpFormat::Form,
                timeout: Duration::from_secs(1),
                requests_max: 2,
                waiting_max: 0,
                cache_time: Duration::ZERO,
                cache_time_denied: Duration::from_secs(3_600),
                cache_entries_max: 3,
                headers: HttpHeaders(vec![
                    ("X-A".to_owned(), "secret".to_owned()),
                    ("X-B".to_owned(), "2".to_owned()),
                ]),
                token_file: Some(written.path("token")),
                token_header: "X-Token".to_owned(),
                ca: Some(written.path("ca.pem")),
            },
            jwt: JwtConfig {
                algorithm: Some(JwtAlgorithm::EdDsa),
                key_file: Some(written.path("jwt.pem")),
                issuer: Some("i".to_owned()),
                audience: Some("a".to_owned()),
                user_claim: "name".to_owned(),
                leeway: Duration::from_secs(5),
                username_must_match: false,
            },
        },
        listeners: vec![
            ListenerConfig { allow_anonymous: true, ..ListenerConfig::tcp(address("[::1]:1883")) },
            ListenerConfig {
                bind: address("0.0.0.0:8883"),
                transport: Transport::Tls(TlsConfig {
                    certificate: written.path("c.pem"),
                    private_key: written.path("k.pem"),
                    client_ca: Some(written.path("ca.pem")),
                    client_certificate: ClientCertificate::Optional,
                    crl: vec![written.path("a.crl"), written.path("b.crl")],
                    user_name: CertificateName::San,
                    certificates: vec![CertificateFiles {
                        certificate: written.path("c2.pem"),
                        private_key: written.path("k2.pem"),
                    }],
                }),
                allow_anonymous: true,
                refused_publish: RefusedPublish::Disconnect,
                auth: Some(vec![AuthMethod::PasswordFile]),
                proxy_protocol_from: vec![network("127.0.0.1/32"), network("fd00::/8")],
            },
        ],
    };
    assert_eq!(loaded.config, expected);
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(!loaded.has_default_listener());
    // What is secret is not shown.
    let shown = format!("{:?} {:?}", loaded.settings, loaded.config);
    assert!(shown.contains("X-A") && !shown.contains("secret"), "{shown}");
    for setting in &loaded.settings {
        let is_default = setting.origin == Origin::Default;
        let may_be = ["transport", "allow_anonymous", "refused_publish", "auth", "proxy_protocol_from"];
        let of_first = setting.path.strip_prefix("listeners[0].");
        assert_eq!(is_default, of_first.is_some_and(|key| may_be.contains(&key)), "{setting}");
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
    let files = Written::new("").with("file");
    let file = files.path("file");
    let file = file.to_str().expect("a path in UTF-8");
    let loaded = environment(&[
        ("TERNMQ_DATA_DIR", "/d"),
        ("TERNMQ_AUTH__ACL_FILE", file),
        ("TERNMQ_AUTH__SUBSCRIBE", "refuse"),
        ("TERNMQ_AUTH__FAILURES_MAX", "1"),
        ("TERNMQ_AUTH__ADDRESS_FAILURES_MAX", "2"),
        ("TERNMQ_AUTH__USER_FAILURES_MAX", "3"),
        ("TERNMQ_AUTH__FAILURES_TIME", "1m"),
        ("TERNMQ_AUTH__DELAY_MAX", "1s"),
        ("TERNMQ_AUTH__BAN_TIME", "1h"),
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
        ("TERNMQ_LIMITS__UNFINISHED_BYTES_MAX", "none"),
        ("TERNMQ_LIMITS__SHUTDOWN_TIMEOUT", "0s"),
        ("TERNMQ_LOG__LEVEL", "off"),
        ("TERNMQ_LOG__FORMAT", "json"),
        ("TERNMQ_AUTH__METHODS", "jwt, http"),
        ("TERNMQ_AUTH__PASSWORD_FILE", file),
        ("TERNMQ_AUTH__HTTP__URL", "http://localhost/"),
        ("TERNMQ_AUTH__HTTP__FORMAT", "form"),
        ("TERNMQ_AUTH__HTTP__TIMEOUT", "2s"),
        ("TERNMQ_AUTH__HTTP__REQUESTS_MAX", "2"),
        ("TERNMQ_AUTH__HTTP__WAITING_MAX", "2"),
        ("TERNMQ_AUTH__HTTP__CACHE_TIME", "2s"),
        ("TERNMQ_AUTH__HTTP__CACHE_TIME_DENIED", "2s"),
        ("TERNMQ_AUTH__HTTP__CACHE_ENTRIES_MAX", "2"),
        ("TERNMQ_AUTH__HTTP__HEADERS", "X-B: b: c\n X-A:a"),
        ("TERNMQ_AUTH__HTTP__TOKEN_FILE", file),
        ("TERNMQ_AUTH__HTTP__TOKEN_HEADER", "X-Token"),
        ("TERNMQ_AUTH__HTTP__CA", file),
        ("TERNMQ_AUTH__JWT__ALGORITHM", "RS256"),
        ("TERNMQ_AUTH__JWT__KEY_FILE", file),
        ("TERNMQ_AUTH__JWT__ISSUER", "i"),
        ("TERNMQ_AUTH__JWT__AUDIENCE", "a"),
        ("TERNMQ_AUTH__JWT__USER_CLAIM", "c"),
        ("TERNMQ_AUTH__JWT__LEEWAY", "2s"),
        ("TERNMQ_AUTH__JWT__USERNAME_MUST_MATCH", "false"),
    ])
    .expect("good variables");
    let auth = &loaded.config.auth;
    assert_eq!(auth.methods, Some(vec![AuthMethod::Jwt, AuthMethod::Http]));
    let headers = [("X-A", "a"), ("X-B", "b: c")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(auth.http.headers, HttpHeaders(headers.to_vec()));
    assert_eq!((auth.jwt.algorithm, auth.jwt.username_must_match), (Some(JwtAlgorithm::Rs256), false));
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
    assert_eq!(limits.handshake_bytes_max, MemoryMax::Bytes(4096));
    assert_eq!(limits.unfinished_bytes_max, MemoryMax::Unbounded);
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
        ("[limits]\nunfinished_bytes_max = -1", "limits.unfinished_bytes_max", &["\"auto\" or \"none\""]),
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
        ("[auth]\nmethods = \"http\"", "auth.methods", &["a list", "\"password_file\""]),
        ("[auth]\nmethods = [\"htpp\"]", "auth.methods", &["a list", "\"http\""]),
        ("[auth]\nmethods = [7]", "auth.methods", &["a list"]),
        ("[auth]\nmethods = [\"http\", \"http\"]", "auth.methods", &["once"]),
        ("[auth]\nmethods = [\"http\"]", "auth.methods", &["\"http\"", "needs auth.http.url"]),
        ("[auth]\nmethods = [\"jwt\"]", "auth.methods", &["needs auth.jwt.key_file"]),
        ("[auth]\nmethods = [\"password_file\"]", "auth.methods", &["needs auth.password_file"]),
        ("[auth]\nmethods = [\"certificate\"]", "auth.methods", &["needs tls.user_name"]),
        ("[auth]\npassword_file = \"nowhere\"", "auth.password_file", &["cannot read the file"]),
        ("[auth.http]\nurl = \"localhost\"", "auth.http.url", &["http:// or https://"]),
        ("[auth.http]\nurl = \"ftp://localhost/\"", "auth.http.url", &["http:// or https://"]),
        ("[auth.http]\nurl = \"http://u:p@localhost/\"", "auth.http.url", &["without a login"]),
        ("[auth]\nmethods = [\"http\"]\n[auth.http]\nurl = 7", "auth.http.url", &["http:// or https://"]),
        ("[auth.http]\nformat = \"xml\"", "auth.http.format", &["\"json\" or \"form\""]),
        ("[auth.http]\ntimeout = \"0s\"", "auth.http.timeout", &["from 1ms to 1h"]),
        ("[auth.http]\nrequests_max = 0", "auth.http.requests_max", &["from 1 to 10000"]),
        ("[auth.http]\nheaders = \"X: y\"", "auth.http.headers", &["a table of HTTP headers"]),
        ("[auth.http]\nheaders = { X = 1 }", "auth.http.headers", &["{…}", "a table of HTTP headers"]),
        ("[auth.http.headers]\n\"a b\" = \"1\"", "auth.http.headers", &["a table of HTTP headers"]),
        ("[auth.http.headers]\nX = \"a\\nb\"", "auth.http.headers", &["a table of HTTP headers"]),
        ("[auth.http]\ntoken_header = \"a b\"", "auth.http.token_header", &["name of an HTTP header"]),
        ("[auth.jwt]\nalgorithm = \"none\"", "auth.jwt.algorithm", &["\"HS256\" or \"RS256\""]),
        ("[auth.jwt]\nkey_file = \"ternmq.toml\"", "auth.jwt.algorithm", &["missing", "algorithm"]),
        ("[auth.jwt]\nuser_claim = \"\"", "auth.jwt.user_claim", &["not empty"]),
        ("[auth.jwt]\nusername_must_match = 1", "auth.jwt.username_must_match", &["true or false"]),
        ("[auth.jwt]\nleway = \"1s\"", "auth.jwt.leway", &["did you mean auth.jwt.leeway?"]),
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
    let lines: Vec<String> = found.faults.iter().map(ToString::to_string).collect();
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
    assert_eq!(found.faults.len(), 1);
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
    let mut paths: Vec<&str> = found.faults.iter().map(|fault| fault.path.as_str()).collect();
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
    let paths: Vec<&str> = found.faults.iter().map(|fault| fault.path.as_str()).collect();
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
        found.faults.iter().map(ToString::to_string).collect()
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
fn access_rules_have_to_be_whole() {
    let rule = |lines: &str| format!("[[acl]]\naccess = \"read\"\ntopic = \"a\"\n[[acl]]\n{lines}\n");
    for (lines, path, word) in [
        ("topic = \"a\"", "acl[1].access", "missing"),
        ("access = \"read\"", "acl[1]", "missing"),
        ("access = \"none\"\ntopic = \"a\"", "acl[1].access", "\"readwrite\""),
        ("access = \"read\"\ntopic = 1", "acl[1].topic", "text"),
        ("access = \"read\"\ntopics = \"a\"", "acl[1].topics", "list"),
        ("access = \"read\"\ntopics = [\"a\", 1]", "acl[1].topics", "list"),
        ("access = \"read\"\ntopics = []", "acl[1]", "at least one"),
        ("access = \"read\"\ntopic = \"a\"\npattern = \"b\"", "acl[1].pattern", "one of"),
        ("access = \"read\"\ntopic = \"a\"\nuser = \"\"", "acl[1].user", "anonymous"),
        ("access = \"read\"\ntopic = \"a\"\nanonymous = false", "acl[1].anonymous", "true"),
        ("access = \"read\"\ntopic = \"a\"\nuser = \"b\"\nanonymous = true", "acl[1].anonymous", "both"),
        ("access = \"read\"\npattern = \"a\"\nuser = \"b\"", "acl[1].user", "everyone"),
        ("access = \"read\"\npatterns = [\"a\"]\nanonymous = true", "acl[1].anonymous", "everyone"),
        ("access = \"read\"\ntopc = \"a\"\ntopic = \"a\"", "acl[1].topc", "acl[1].topic"),
    ] {
        one_fault(&rule(lines), path, &[word]);
    }
    one_fault("acl = []", "acl", &["at least one"]);
    one_fault("acl = 1", "acl", &["[[acl]]"]);
    one_fault("acl = [1]", "acl[0]", &["[[acl]]"]);
    one_fault("[auth]\nacl_file = \"none.txt\"", "auth.acl_file", &["cannot read"]);
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
fn a_program_says_how_much_memory_its_bounds_come_to() {
    let mut loaded = environment(&[]).expect("good");
    assert_eq!(loaded.config.limits.memory_max, MemoryMax::Auto);
    loaded.use_machine_memory();
    let MemoryMax::Bytes(bytes) = loaded.config.limits.memory_max else { panic!("Linux tells") };
    let shown = |path: &str| {
        let setting = loaded.settings.iter().find(|setting| setting.path == path).unwrap();
        (setting.to_string(), setting.value.clone().unwrap())
    };
    let (line, value) = shown("limits.memory_max");
    assert_eq!(line, format!("limits.memory_max = {value}  # default, from half of the memory"));
    assert!(bytes > 1_000_000 && loaded.warnings.is_empty(), "{bytes} {:?}", loaded.warnings);
    assert!(!loaded.has_default_data_dir());
    // The others are parts of it.
    let (line, value) = shown("limits.retained_bytes_max");
    assert_eq!(line, format!("limits.retained_bytes_max = {value}  # default, from limits.memory_max"));
    let limits = &loaded.config.limits;
    for (bound, most, least) in [
        (limits.retained_bytes_max, 1_000_000_000, bytes / 4),
        (limits.unfinished_bytes_max, 256_000_000, bytes / 4),
        (limits.handshake_bytes_max, 16_000_000, bytes / 16),
    ] {
        let MemoryMax::Bytes(bound) = bound else { panic!("{bound:?}") };
        // In whole megabytes.
        assert!(bound <= most && bound + 1_000_000 >= least.min(most), "{bound} of {bytes}");
    }
    // What is set stands.
    for (text, bound) in [("none", MemoryMax::Unbounded), ("5MB", MemoryMax::Bytes(5_000_000))] {
        let mut loaded = environment(&[("TERNMQ_LIMITS__MEMORY_MAX", text)]).expect("good");
        loaded.use_machine_memory();
        assert_eq!(loaded.config.limits.memory_max, bound);
    }
}

#[test]
fn a_packet_that_unfinished_would_be_too_much_is_warned_of() {
    for (text, expected) in [("15MB", 1), ("16MB", 0), ("none", 0), ("auto", 0)] {
        let text = format!("[limits]\nunfinished_bytes_max = \"{text}\"");
        let warnings = Written::new(&text).load().expect("allowed").warnings;
        assert_eq!(warnings.len(), expected, "{text}: {warnings:?}");
        assert!(warnings.iter().all(|warning| warning.starts_with("limits.unfinished_bytes_max")));
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

/// A listener with TLS and these lines in its table.
fn tls_listener(lines: &str) -> String {
    let files = "certificate = \"ternmq.toml\"\nprivate_key = \"ternmq.toml\"\nclient_ca = \"ternmq.toml\"";
    format!(
        "[[listeners]]\nbind = \"127.0.0.1:8883\"\ntransport = \"tls\"\n[listeners.tls]\n{files}\n{lines}"
    )
}

#[test]
fn what_a_tls_listener_asks_of_clients_must_fit_together() {
    let asks = "client_certificate = \"required\"\n";
    let table = "[[listeners.tls.certificates]]";
    for (lines, path, words) in [
        ("user_name = \"cn\"".to_owned(), "tls.user_name", &["needs client_certificate"] as &[&str]),
        ("crl = [\"ternmq.toml\"]".to_owned(), "tls.crl", &["needs client_certificate"]),
        (format!("{asks}crl = \"ternmq.toml\""), "tls.crl", &["a list of paths"]),
        (format!("{asks}crl = [7]"), "tls.crl", &["a list of paths"]),
        (format!("{asks}crl = [\"no.crl\"]"), "tls.crl", &["no.crl", "cannot read"]),
        (format!("{asks}user_name = \"dn\""), "tls.user_name", &["\"cn\" or \"san\""]),
        ("certificates = 7".to_owned(), "tls.certificates", &[table]),
        ("certificates = [7]".to_owned(), "tls.certificates[0]", &[table]),
        (format!("{table}\ncertificate = \"ternmq.toml\""), "tls.certificates[0].private_key", &["missing"]),
        (
            format!("{table}\ncertificate = \"ternmq.toml\"\nprivate_key = \"no.key\""),
            "tls.certificates[0].private_key",
            &["no.key", "cannot read"],
        ),
        (
            format!("{table}\ncertificate = \"ternmq.toml\"\nprivate_key = \"ternmq.toml\"\nkey = 1"),
            "tls.certificates[0].key",
            &["unknown key"],
        ),
    ] {
        one_fault(&tls_listener(&lines), &format!("listeners[0].{path}"), words);
    }
    let good = format!(
        "{asks}user_name = \"cn\"\n{table}\ncertificate = \"ternmq.toml\"\nprivate_key = \"ternmq.toml\"\n\
         [auth]\nmethods = [\"certificate\"]"
    );
    let loaded = Written::new(&tls_listener(&good)).load().expect("a good file");
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let shown: Vec<&str> = loaded.settings.iter().map(|setting| setting.path.as_str()).collect();
    assert!(shown.contains(&"listeners[0].tls.certificates[0].private_key"), "{shown:?}");
}

#[test]
fn settings_of_auth_without_effect_are_told() {
    for (text, warned) in [
        ("[auth.http]\ntimeout = \"1s\"", Some("auth.http has no effect without auth.http.url")),
        ("[auth.jwt]\nissuer = \"i\"", Some("auth.jwt has no effect without auth.jwt.key_file")),
        ("[auth.http]\nurl = \"http://localhost:8080/\"", None),
        ("[auth.http]\nurl = \"http://supervisor/auth\"", None),
        ("[auth.http]\nurl = \"http://[::1]/\"", None),
        ("[auth.http]\nurl = \"http://10.0.0.1/\"", Some("unencrypted")),
        ("[auth.http]\nurl = \"http://id.example/\"", Some("id.example unencrypted")),
        ("[auth.http]\nurl = \"https://id.example/\"", None),
        (
            "[auth.http]\nurl = \"http://localhost/\"\nca = \"ternmq.toml\"",
            Some("auth.http.ca has no effect"),
        ),
        ("[auth]\nmethods = []\n[auth.http]\nurl = \"http://localhost/\"", Some("\"http\" has no effect")),
        ("[auth]\nmethods = []", None),
    ] {
        let loaded = Written::new(text).load().expect(text);
        assert_eq!(loaded.warnings.len(), usize::from(warned.is_some()), "{text}: {:?}", loaded.warnings);
        if let Some(warned) = warned {
            assert!(loaded.warnings[0].contains(warned), "{text}: {:?}", loaded.warnings);
        }
    }
}

#[test]
fn methods_are_those_that_are_set_up_unless_listed() {
    let auth = AuthConfig::default();
    assert!(auth.configured(false).is_empty());
    assert_eq!(auth.configured(true), [AuthMethod::Certificate]);
    let text = "[auth]\npassword_file = \"ternmq.toml\"\n[auth.http]\nurl = \"http://localhost/\"";
    let auth = Written::new(text).load().expect("a good file").config.auth;
    assert_eq!(auth.methods, None);
    assert_eq!(auth.configured(false), [AuthMethod::PasswordFile, AuthMethod::Http]);
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
        // Those without a value by default.
        let off = ["data_dir", "methods", "password_file", "url", "headers", "token_file", "ca", "algorithm"];
        let off = off.iter().chain(&["key_file", "issuer", "audience", "acl_file", "auth"]);
        let is_off = off.into_iter().any(|key| setting.path.rsplit('.').next() == Some(key));
        assert_eq!(setting.origin == Origin::Default, is_off, "{setting}");
    }

    let loaded = Written::new(&all)
        .with("server.crt")
        .with("server.key")
        .with("ca.crt")
        .with("ca.crl")
        .with("other.crt")
        .with("other.key")
        .with("passwords")
        .with("http.token")
        .with("http-ca.crt")
        .with("jwt.pem")
        .with("acl.txt")
        .load()
        .expect(&all);
    assert_eq!(loaded.config.acl.len(), 4);
    for setting in &loaded.settings {
        assert!(matches!(setting.origin, Origin::File(_)), "not in the sample: {setting}");
    }
    let last = loaded.config.listeners.last().expect("a listener");
    assert!(matches!(last.transport, Transport::Tls(_)));
    assert!(!last.allow_anonymous);
}
