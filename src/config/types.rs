//! The checked, typed configuration: what the broker reads.
//!
//! Units are in the types: sizes are bytes, times are [`Duration`]. A value of these types that came from
//! [`super::load`] is within its bounds; an embedder who builds one by hand is trusted. The defaults stand here and
//! nowhere else: `check`, the sample file and the documentation test derive theirs from these `Default`s.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::acl::AclTable;
use super::auth::{AuthConfig, AuthMethod};
use super::limits::Limits;
use super::network::Network;

/// Everything a broker is started with. `Config::default()` is the broker without any configuration: one plain
/// listener on 127.0.0.1:1883 that accepts anonymous clients; without a `data_dir` nothing is kept on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where durable state lives; `None` (the default): nothing is kept on disk, whatever `storage.kind` says. (The
    /// program has a default directory, see [`Loaded::use_default_data_dir`](super::Loaded::use_default_data_dir); a
    /// library does not write where it was not told to.) Created (mode 0700) and locked at start, so that two
    /// brokers cannot share it.
    pub data_dir: Option<PathBuf>,
    /// Whether durable state is kept in `data_dir`, and when it counts as kept.
    pub storage: StorageConfig,
    /// The listeners; an empty list makes sense for an embedded broker only.
    pub listeners: Vec<ListenerConfig>,
    /// The bounds on what clients can make the broker hold.
    pub limits: Limits,
    /// How clients prove who they are, and what they may do.
    pub auth: AuthConfig,
    /// The rules of access control that stand in the configuration itself; with those of `auth.acl_file` they are one list. Default: none.
    pub acl: Vec<AclTable>,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Interval at which the `$SYS` topics are published; `None` (written "0s") switches them off. Default: 10 s.
    pub sys_interval: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            data_dir: None,
            storage: StorageConfig::default(),
            listeners: vec![ListenerConfig::tcp(DEFAULT_BIND)],
            limits: Limits::default(),
            auth: AuthConfig::default(),
            acl: Vec::new(),
            log: LogConfig::default(),
            sys_interval: Some(Duration::from_secs(10)),
        }
    }
}

/// The listener of a broker that is told nothing.
pub(crate) const DEFAULT_BIND: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);

impl Config {
    /// The files that can change while the broker runs: users, rules, tokens, certificates, keys and lists of revoked certificates.
    pub fn files(&self) -> Vec<PathBuf> {
        let AuthConfig { password_file, acl_file, http, jwt, .. } = &self.auth;
        let mut files: Vec<PathBuf> = [password_file, acl_file, &http.token_file, &http.ca, &jwt.key_file]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        for listener in &self.listeners {
            let Transport::Tls(tls) = &listener.transport else { continue };
            files.extend([tls.certificate.clone(), tls.private_key.clone()]);
            files.extend(tls.client_ca.iter().chain(&tls.crl).cloned());
            files.extend(
                tls.certificates.iter().flat_map(|more| [more.certificate.clone(), more.private_key.clone()]),
            );
        }
        files
    }
}

/// One address the broker accepts connections on.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Address and port; port 0 lets the system choose.
    pub bind: SocketAddr,
    /// Plain TCP or TLS.
    pub transport: Transport,
    /// Whether clients that name no user are accepted. Default: on a loopback address yes, elsewhere no.
    pub allow_anonymous: bool,
    /// What a client of MQTT 3.1.1 gets for a publish that the rules of access forbid.
    pub refused_publish: RefusedPublish,
    /// Which of the methods in use ([`AuthConfig::methods`]) are asked here. Default `None`: all of them.
    pub auth: Option<Vec<AuthMethod>>,
    /// Proxies whose connections begin with a header of the PROXY protocol (version 1 or 2) that names the real peer. From these addresses it is
    /// required, from all others it is not understood. Default: none.
    pub proxy_protocol_from: Vec<Network>,
}

/// What a client of MQTT 3.1.1 gets for a publish that the rules of access forbid: its standard has no answer for that
/// ([MQTT-3.3.5-2]). MQTT 5 has one, reason code 0x87, which is always given there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RefusedPublish {
    /// It is acknowledged like any other, dropped and counted.
    #[default]
    AckAndCount,
    /// The connection is closed, and counted.
    Disconnect,
}

impl RefusedPublish {
    /// As the file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AckAndCount => "ack_and_count",
            Self::Disconnect => "disconnect",
        }
    }
}

impl ListenerConfig {
    /// A plain TCP listener with the default for anonymous clients (accepted on loopback, refused elsewhere).
    pub fn tcp(bind: SocketAddr) -> Self {
        ListenerConfig {
            bind,
            transport: Transport::Tcp,
            allow_anonymous: is_loopback(&bind),
            refused_publish: RefusedPublish::default(),
            auth: None,
            proxy_protocol_from: Vec::new(),
        }
    }
}

impl Default for ListenerConfig {
    fn default() -> Self {
        ListenerConfig::tcp(DEFAULT_BIND)
    }
}

/// Whether only this machine can reach the address (an IPv4 address mapped into IPv6 counts as what it is).
pub(crate) fn is_loopback(bind: &SocketAddr) -> bool {
    bind.ip().to_canonical().is_loopback()
}

/// What carries MQTT on a listener.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Transport {
    /// Plain TCP.
    #[default]
    Tcp,
    /// TLS 1.2 or 1.3 over TCP.
    Tls(TlsConfig),
}

/// The files of a TLS listener, all PEM, and what is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TlsConfig {
    /// The server's certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The private key of `certificate`.
    pub private_key: PathBuf,
    /// The CA certificates that client certificates must lead to.
    pub client_ca: Option<PathBuf>,
    /// Whether clients show a certificate; anything but `None` needs `client_ca`.
    pub client_certificate: ClientCertificate,
    /// Revocation lists (PEM). If there are any, each certificate that a client shows, below the CA, must have been issued by
    /// somebody whose list is among them, is in force, and does not name it.
    pub crl: Vec<PathBuf>,
    /// Which name of a client's certificate is its user name. Anything but `None` needs `client_certificate`.
    pub user_name: CertificateName,
    /// Further certificates, for clients that ask (SNI) for one of the DNS names in them. All others get `certificate`.
    pub certificates: Vec<CertificateFiles>,
}

/// A server's certificate and its key, both PEM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateFiles {
    /// The certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// The private key of `certificate`.
    pub private_key: PathBuf,
}

/// Which name of a client's certificate is its user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CertificateName {
    /// None: a certificate says that a client may come in, and not who it is.
    #[default]
    None,
    /// The Common Name of the subject, if there is exactly one.
    Cn,
    /// The Subject Alternative Name that is a DNS name, an email address or a URI, if there is exactly one.
    San,
}

/// Whether a TLS listener asks clients for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientCertificate {
    /// Not asked for.
    #[default]
    None,
    /// Asked for; a client may come without, but one that is shown must be valid.
    Optional,
    /// The handshake fails without a valid one.
    Required,
}

/// Durable state: whether there is any, and when it counts as kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageConfig {
    /// On disk or in memory. Default disk; without a [`Config::data_dir`] it is memory all the same.
    pub kind: StorageKind,
    /// When what is on disk counts as kept, so that it may be acknowledged. Default always. Without effect in memory.
    pub sync: SyncMode,
    /// Time from one sync to the next with [`SyncMode::Interval`], without effect with the others. Default 1 s.
    pub sync_interval: Duration,
}

impl Default for StorageConfig {
    fn default() -> Self {
        StorageConfig {
            kind: StorageKind::Disk,
            sync: SyncMode::Always,
            sync_interval: Duration::from_secs(1),
        }
    }
}

/// Where sessions, queues and retained messages live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StorageKind {
    /// In [`Config::data_dir`]: they survive the process, as far as [`SyncMode`] says.
    #[default]
    Disk,
    /// In memory: they end with the process. For tests and throw-away brokers.
    Memory,
}

/// What must have happened to a message on its way to the disk before it is acknowledged, and so what may be lost of
/// what was acknowledged. Nothing is lost by an orderly stop in any of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncMode {
    /// Written and synced to stable storage, together with what else waits at that moment. Nothing acknowledged is
    /// lost by a crash of the process or of the system, nor by a power cut.
    #[default]
    Always,
    /// Written; synced every [`StorageConfig::sync_interval`]. Nothing is lost by a crash of the process; by a crash
    /// of the system or a power cut, what was acknowledged since the last sync.
    Interval,
    /// Written; the system decides when it reaches the disk. Nothing is lost by a crash of the process; by a crash of
    /// the system or a power cut, whatever the system had not written yet.
    Never,
}

impl SyncMode {
    /// As the file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Interval => "interval",
            Self::Never => "never",
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or directives such as `info,ternmq=debug`.
    /// Default `info`.
    pub level: String,
    /// Text or JSON. Default text.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl LogConfig {
    /// The filter that `level` stands for; `None` if it is neither a level nor a list of directives.
    ///
    /// A lone word that is no level would be taken by the filter as the name of a module, and silence all others:
    /// a misspelt level must not do that.
    pub(crate) fn filter(&self) -> Option<EnvFilter> {
        let is_directive = |part: &str| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok();
        if !self.level.split(',').all(|part| !part.trim().is_empty() && is_directive(part)) {
            return None;
        }
        EnvFilter::builder().parse(&self.level).ok()
    }
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object per line for machines.
    Json,
}
