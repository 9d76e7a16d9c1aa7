//! The typed settings of `[auth]`: by which methods a client proves who it is, and what each of them needs.
//!
//! Nothing here reads the files or asks anybody; that is the work of `crate::auth`. Secrets (values of headers) are kept
//! out of `Debug`, so that no log line shows them by accident.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// The methods in the order in which they are asked. `None` (the default): those that are configured, in the order of
    /// [`AuthMethod`]. An empty list: none, whatever is configured.
    pub methods: Option<Vec<AuthMethod>>,
    /// The file of users and the hashes of their passwords.
    pub password_file: Option<PathBuf>,
    /// A file of access rules as mosquitto has them. Default: none. Without it and without `[[acl]]` everything is allowed; with one of
    /// them, what no rule grants is denied.
    pub acl_file: Option<PathBuf>,
    /// What becomes of a SUBSCRIBE that asks for more than its client may read. Default [`AclSubscribe::Filter`].
    pub subscribe: AclSubscribe,
    /// Failed logins of a user at an address that have no consequence; further ones are answered later and later, then the user
    /// is banned at that address. Default 10; 0: never.
    pub failures_max: usize,
    /// The same for an address, whoever fails there; it is banned as a whole. Default 50; 0: never.
    pub address_failures_max: usize,
    /// Failed logins of a user at all addresses, above which every attempt at an address where the user is not known waits for 4 s. Default 100;
    /// 0: never.
    pub user_failures_max: usize,
    /// How long failures are counted, from the first one on. Default 10 min.
    pub failures_time: Duration,
    /// The longest delay of an answer, which begins with 1 s and doubles; the next failure brings the ban. Default 16 s.
    pub delay_max: Duration,
    /// How long a ban lasts. Default 10 min.
    pub ban_time: Duration,
    /// The HTTP back end.
    pub http: HttpConfig,
    /// JSON Web Tokens in the place of the password.
    pub jwt: JwtConfig,
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            methods: None,
            password_file: None,
            acl_file: None,
            subscribe: AclSubscribe::default(),
            failures_max: 10,
            address_failures_max: 50,
            user_failures_max: 100,
            failures_time: Duration::from_secs(600),
            delay_max: Duration::from_secs(16),
            ban_time: Duration::from_secs(600),
            http: HttpConfig::default(),
            jwt: JwtConfig::default(),
        }
    }
}

/// What becomes of a SUBSCRIBE that asks for more than its client may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AclSubscribe {
    /// It is granted, and messages that the client may not read are left out. So it is in mosquitto.
    #[default]
    Filter,
    /// It is refused, with 0x80 (3.1.1) or 0x87 (5).
    Refuse,
}

impl AclSubscribe {
    /// As the file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Refuse => "refuse",
        }
    }
}

/// A way to prove who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMethod {
    /// The certificate shown in the TLS handshake, on listeners whose `tls.user_name` says which of its names counts.
    Certificate,
    /// User and password, as in [`AuthConfig::password_file`].
    PasswordFile,
    /// A signed token as password, see [`JwtConfig`].
    Jwt,
    /// User and password, judged by a server, see [`HttpConfig`].
    Http,
}

impl AuthMethod {
    /// As the file has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PasswordFile => "password_file",
            Self::Jwt => "jwt",
            Self::Http => "http",
        }
    }
}

impl AuthConfig {
    /// The methods that have what they need, in the order in which they are asked when [`methods`](Self::methods) says
    /// nothing. `has_certificate_users`: whether a listener takes user names from certificates.
    pub fn configured(&self, has_certificate_users: bool) -> Vec<AuthMethod> {
        let all = [
            (AuthMethod::Certificate, has_certificate_users),
            (AuthMethod::PasswordFile, self.password_file.is_some()),
            (AuthMethod::Jwt, self.jwt.key_file.is_some()),
            (AuthMethod::Http, self.http.url.is_some()),
        ];
        all.into_iter().filter(|(_, is_configured)| *is_configured).map(|(method, _)| method).collect()
    }
}

/// An HTTP server that is asked whether a client may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where questions are POSTed to, `http://` or `https://`; `None` (the default): nobody is asked.
    pub url: Option<String>,
    /// How a question is written. Default JSON.
    pub format: HttpFormat,
    /// Time for one question, waiting for its turn included. Default 5 s. Then it counts as unanswered.
    pub timeout: Duration,
    /// Questions with the server at one time. Default 16.
    pub requests_max: usize,
    /// Further questions that wait for their turn. Default 1,000. One above it counts as unanswered at once.
    pub waiting_max: usize,
    /// How long a client that was let in comes in again without a question. Default 60 s; zero: always ask.
    pub cache_time: Duration,
    /// How long a client that was refused is refused again without a question. Default 5 s; zero: always ask.
    pub cache_time_denied: Duration,
    /// Answers kept. Default 10,000. Those that would end soonest make room.
    pub cache_entries_max: usize,
    /// Headers that go with every question.
    pub headers: HttpHeaders,
    /// A file with a token that goes with every question, in `token_header`.
    pub token_file: Option<PathBuf>,
    /// The header of the token. Default `Authorization`, where it is written as `Bearer TOKEN`; in any other it stands alone.
    pub token_header: String,
    /// The CA certificates (PEM) that the server's must lead to; `None` (the default): those of the system.
    pub ca: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        HttpConfig {
            url: None,
            format: HttpFormat::Json,
            timeout: Duration::from_secs(5),
            requests_max: 16,
            waiting_max: 1_000,
            cache_time: Duration::from_secs(60),
            cache_time_denied: Duration::from_secs(5),
            cache_entries_max: 10_000,
            headers: HttpHeaders::default(),
            token_file: None,
            token_header: "Authorization".to_owned(),
            ca: None,
        }
    }
}

/// How a question to the HTTP back end is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HttpFormat {
    /// `application/json`.
    #[default]
    Json,
    /// `application/x-www-form-urlencoded`.
    Form,
}

/// Names and values of headers. `Debug` shows the names only.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct HttpHeaders(pub Vec<(String, String)>);

impl fmt::Debug for HttpHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Tokens (RFC 7519) that clients send in the place of a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtConfig {
    /// The one algorithm that signatures are made with. It has to be set; what a token says of itself changes nothing.
    pub algorithm: Option<JwtAlgorithm>,
    /// The public key (PEM), or the secret of HS256; `None` (the default): passwords are not read as tokens.
    pub key_file: Option<PathBuf>,
    /// What `iss` has to be. Default `None`: not looked at.
    pub issuer: Option<String>,
    /// What `aud` has to be or contain. Default `None`: tokens that name an audience are meant for somebody else, and
    /// refused.
    pub audience: Option<String>,
    /// The claim that is the user name. Default `sub`.
    pub user_claim: String,
    /// By how much clocks may differ when `exp` and `nbf` are judged. Default 0 s.
    pub leeway: Duration,
    /// Whether a user name in CONNECT has to be that of the token. Default true; otherwise it is not looked at.
    pub username_must_match: bool,
}

impl Default for JwtConfig {
    fn default() -> Self {
        JwtConfig {
            algorithm: None,
            key_file: None,
            issuer: None,
            audience: None,
            user_claim: "sub".to_owned(),
            leeway: Duration::ZERO,
            username_must_match: true,
        }
    }
}

/// How tokens are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a secret of at least 32 bytes.
    Hs256,
    /// RSA (PKCS #1 v1.5, 2,048 bits and more) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}
