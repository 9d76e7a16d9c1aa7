//! Asks an HTTP server whether a client may come in: `HttpAuth`.
//!
//! A question is a POST with `username`, `password` and `clientid`, as JSON or as a form. 2xx lets the client in, unless the body is
//! JSON that says otherwise; 401, 403, and 400 with such a body refuse it. Everything else, redirects included, and silence, are no
//! answer: [`HttpAnswer::Unavailable`], which lets nobody in either, but says that the server failed and not the client.
//!
//! - `question`: how a question is written and an answer is read.
//! - `answers`: answers that are remembered, and questions that several clients wait for.
//!
//! Bounds: `requests_max` questions at one time, `waiting_max` more that wait, each for `timeout` at most, `cache_entries_max` answers
//! of a few dozen bytes, [`BODY_BYTES_MAX`] of a body. Passwords are not kept, and nothing here logs.

mod answers;
mod question;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::{error::Unspecified, hmac};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Semaphore;

use self::answers::{Answers, Asking, Lookup};
pub use self::question::Question;
use crate::config::{HttpConfig, HttpFormat};

/// Most bytes of an answer's body that are read. A longer body of a 2xx is no answer.
pub const BODY_BYTES_MAX: usize = 16_384;

/// How long a connection is kept for the next question: less than any server that is in use waits before it closes one, so
/// that a question does not meet its end.
const IDLE_TIME: Duration = Duration::from_secs(4);

/// Headers that belong to the message itself, and cannot be configured.
const OWN_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAnswer {
    /// The client may come in.
    Allowed,
    /// It may not.
    Denied,
    /// Not known; the client may not come in.
    Unavailable(Unavailable),
}

/// Why there is no answer. Nothing of the question is in it, so that it can be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// No answer within `auth.http.timeout`.
    #[error("no answer within auth.http.timeout")]
    TimedOut,
    /// `auth.http.requests_max` and `auth.http.waiting_max` are reached.
    #[error("too many questions are waiting (auth.http.requests_max, auth.http.waiting_max)")]
    Busy,
    /// A status that says neither yes nor no.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// The connection or the answer failed.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The question was given up, because the runtime ended.
    #[error("the question was given up")]
    GivenUp,
}

/// Why the back end cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpAuthError {
    /// `auth.http.url` is not set, or is no `http://` or `https://` URL.
    #[error("auth.http.url is not set to an http:// or https:// URL")]
    Url,
    /// A header cannot be sent.
    #[error("auth.http: the header {0:?} cannot be set")]
    Header(String),
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path}: {why}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// There is no CA certificate that an https server could be judged by.
    #[error("the system has no CA certificates: {0}; auth.http.ca names others")]
    NoRoots(String),
    /// rustls or the source of random numbers fails.
    #[error("cannot set up cryptography: {0}")]
    Crypto(String),
}

impl From<Unspecified> for HttpAuthError {
    fn from(error: Unspecified) -> Self {
        HttpAuthError::Crypto(error.to_string())
    }
}

/// The HTTP back end. Cheap to clone; clones share connections, bounds and answers.
#[derive(Clone)]
pub struct HttpAuth(Arc<Shared>);

struct Shared {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    format: HttpFormat,
    headers: HeaderMap,
    timeout: Duration,
    permits: Semaphore,
    /// Of this value alone: what is remembered cannot be compared with guesses elsewhere.
    key: hmac::Key,
    answers: Arc<Answers>,
}

impl HttpAuth {
    /// Reads the files and prepares to ask; nobody is asked yet. Answers remembered by another value are not carried over.
    ///
    /// # Errors
    /// The URL, a header, or a file cannot be used.
    pub fn new(config: &HttpConfig) -> Result<Self, HttpAuthError> {
        let uri: Uri = config.url.as_deref().and_then(|url| url.parse().ok()).ok_or(HttpAuthError::Url)?;
        let is_https = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(HttpAuthError::Url),
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config, is_https)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(config.requests_max)
            .build(connector);
        Ok(HttpAuth(Arc::new(Shared {
            client,
            uri,
            format: config.format,
            headers: headers(config)?,
            timeout: config.timeout,
            permits: Semaphore::new(config.requests_max),
            key: hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?,
            answers: Arc::new(Answers::new(config)),
        })))
    }

    /// Asks, or remembers. Who asks what another asks at that moment gets the same answer. The question goes on when this future is
    /// dropped, and its answer is remembered. Has to be called within a tokio runtime.
    pub async fn check(&self, question: Question<'_>) -> HttpAnswer {
        let shared = &self.0;
        let mut receiver = match shared.answers.look_up(question.digest(&shared.key), Instant::now()) {
            Lookup::Known(answer) => return answer,
            Lookup::Full => return HttpAnswer::Unavailable(Unavailable::Busy),
            Lookup::Wait(receiver) => receiver,
            Lookup::Ask(asking, receiver) => {
                let Some(body) = question.body(shared.format) else {
                    // What cannot be asked is nobody's password.
                    return asking.finish(HttpAnswer::Denied, Instant::now());
                };
                tokio::spawn(Arc::clone(shared).ask(body, asking));
                receiver
            }
        };
        match receiver.wait_for(Option::is_some).await {
            Ok(answer) => answer.clone().unwrap_or(HttpAnswer::Unavailable(Unavailable::GivenUp)),
            Err(_) => HttpAnswer::Unavailable(Unavailable::GivenUp),
        }
    }
}

impl Shared {
    async fn ask(self: Arc<Self>, body: Vec<u8>, asking: Asking) {
        let answer = tokio::time::timeout(self.timeout, async {
            // Nobody closes the semaphore.
            let _permit = self.permits.acquire().await;
            self.request(body).await
        });
        let answer = answer.await.unwrap_or(HttpAnswer::Unavailable(Unavailable::TimedOut));
        asking.finish(answer, Instant::now());
    }

    async fn request(&self, body: Vec<u8>) -> HttpAnswer {
        let failed = |error: &dyn std::error::Error| {
            // The outermost error alone says little ("client error").
            let mut words = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                words = format!("{words}: {error}");
                cause = error.source();
            }
            HttpAnswer::Unavailable(Unavailable::Failed(words.into()))
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(&self.uri);
        request.headers_mut().clone_from(&self.headers);
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return failed(&error),
        };
        let status = response.status();
        match Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await {
            Ok(body) => question::judge(status, &body.to_bytes()),
            // A refusal is one without its body, too.
            Err(error) => match question::judge(status, b"") {
                HttpAnswer::Allowed => failed(&*error),
                answer => answer,
            },
        }
    }
}

/// The headers of every question.
fn headers(config: &HttpConfig) -> Result<HeaderMap, HttpAuthError> {
    let mut headers = HeaderMap::new();
    let agent = concat!("ternmq/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let mut set = |name: &str, value: &str| -> Option<()> {
        let name = HeaderName::try_from(name).ok().filter(|name| !OWN_HEADERS.contains(name))?;
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
        Some(())
    };
    for (name, value) in &config.headers.0 {
        set(name, value).ok_or_else(|| HttpAuthError::Header(name.clone()))?;
    }
    if let Some(path) = &config.token_file {
        let token = fs::read_to_string(path).map_err(|source| read_error(path, source))?;
        let token = token.trim();
        if token.is_empty() {
            return Err(HttpAuthError::Content { path: path.clone(), why: "expected a token".to_owned() });
        }
        let name = &config.token_header;
        let is_bearer = name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str());
        let value = if is_bearer { format!("Bearer {token}") } else { token.to_owned() };
        set(name, &value).ok_or_else(|| HttpAuthError::Header(name.clone()))?;
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(question::content_type(config.format)));
    Ok(headers)
}

fn tls(config: &HttpConfig, is_https: bool) -> Result<ClientConfig, HttpAuthError> {
    let roots = if is_https { roots(config.ca.as_deref())? } else { RootCertStore::empty() };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpAuthError::Crypto(error.to_string()))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, HttpAuthError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        let bytes = fs::read(path).map_err(|source| read_error(path, source))?;
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let why = match certificate {
                Ok(certificate) => roots.add(certificate).err().map(|error| error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(why) = why {
                return Err(HttpAuthError::Content { path: path.to_owned(), why });
            }
        }
        if roots.is_empty() {
            let why = "expected CA certificates in PEM".to_owned();
            return Err(HttpAuthError::Content { path: path.to_owned(), why });
        }
        return Ok(roots);
    }
    let found = rustls_native_certs::load_native_certs();
    // Among those of a system there may be some that rustls does not take.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(HttpAuthError::NoRoots(why.join("; ")));
    }
    Ok(roots)
}

fn read_error(path: &Path, source: io::Error) -> HttpAuthError {
    HttpAuthError::Read { path: path.to_owned(), source }
}
