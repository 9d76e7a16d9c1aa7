//! The HTTP back end of authentication, against a small server of the test: what is sent, what answers mean, time, bounds, memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ternmq::auth::http::{BODY_BYTES_MAX, HttpAnswer, HttpAuth, Question, Unavailable};
use ternmq::config::{HttpConfig, HttpFormat, HttpHeaders};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

const DEADLINE: Duration = Duration::from_secs(20);

/// A server that keeps what it was sent and answers with one text, each answer behind a gate.
struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<String>,
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    gate: Semaphore,
    arrived: Notify,
}

impl Server {
    async fn start(answer: &str) -> Self {
        Self::start_with(answer, None).await
    }

    async fn start_with(answer: &str, tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer.to_owned()),
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            gate: Semaphore::new(1_000_000),
            arrived: Notify::new(),
        });
        let server =
            Server { address: listener.local_addr().expect("an address"), shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &shared).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &shared).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        server
    }

    fn config(&self) -> HttpConfig {
        HttpConfig { url: Some(format!("http://{}/auth?x=1", self.address)), ..HttpConfig::default() }
    }

    fn answer(&self, answer: &str) {
        *self.shared.answer.lock() = answer.to_owned();
    }

    /// Answers wait from here on until [`open`](Self::open).
    fn shut(&self) {
        self.shared.gate.forget_permits(usize::MAX);
    }

    fn open(&self) {
        self.shared.gate.add_permits(1_000_000);
    }

    fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().clone()
    }

    async fn wait_for_requests(&self, count: usize) {
        let arrived = async {
            loop {
                let next = self.shared.arrived.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                if self.requests().len() >= count {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(DEADLINE, arrived).await.expect("requests");
    }
}

/// Requests of one connection, one after the other.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> Option<()> {
    let mut bytes = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
        };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok())?;
        while bytes.len() < head + length {
            stream.read_buf(&mut bytes).await.ok()?;
        }
        let rest = bytes.split_off(head + length);
        let request = String::from_utf8(std::mem::replace(&mut bytes, rest)).expect("text");
        shared.requests.lock().push(request);
        shared.arrived.notify_waiters();
        shared.gate.acquire().await.ok()?.forget();
        let answer = shared.answer.lock().clone();
        stream.write_all(answer.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
    }
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn ask<'a>(user: &'a str, password: &'a str) -> Question<'a> {
    Question { user, password: password.as_bytes(), client_id: "client" }
}

async fn check(auth: &HttpAuth, question: Question<'_>) -> HttpAnswer {
    tokio::time::timeout(DEADLINE, auth.check(question)).await.expect("an answer")
}

#[tokio::test]
async fn a_question_is_posted_as_json_or_form_with_headers_and_token() {
    let server = Server::start(&response(200, "")).await;
    let directory = tempfile::tempdir().expect("a directory");
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, "  abc123\n").expect("a file");
    let json = HttpConfig {
        headers: HttpHeaders(vec![("X-Broker".to_owned(), "tern".to_owned())]),
        token_file: Some(token_file),
        ..server.config()
    };
    let form = HttpConfig {
        format: HttpFormat::Form,
        token_header: "X-Supervisor-Token".to_owned(),
        ..json.clone()
    };
    for config in [json, form] {
        let auth = HttpAuth::new(&config).expect("a back end");
        assert_eq!(check(&auth, ask("us er", "p\"w&")).await, HttpAnswer::Allowed);
    }
    let requests = server.requests();
    let [json, form] = &requests[..] else { panic!("{requests:?}") };
    let has = |request: &str, line: &str| {
        assert!(request.lines().any(|l| l.eq_ignore_ascii_case(line)), "no {line} in {request}");
    };
    for request in [json, form] {
        assert!(request.starts_with("POST /auth?x=1 HTTP/1.1\r\n"), "{request}");
        has(request, "x-broker: tern");
        has(request, &format!("host: {}", server.address));
    }
    has(json, "content-type: application/json");
    has(json, "authorization: Bearer abc123");
    let body: serde_json::Value =
        serde_json::from_str(json.split("\r\n\r\n").nth(1).expect("a body")).expect("JSON");
    assert_eq!(body, serde_json::json!({"username": "us er", "password": "p\"w&", "clientid": "client"}));
    has(form, "content-type: application/x-www-form-urlencoded");
    has(form, "x-supervisor-token: abc123");
    assert!(!form.to_lowercase().contains("authorization:"), "{form}");
    assert!(form.ends_with("\r\n\r\nusername=us+er&password=p%22w%26&clientid=client"), "{form}");
}

#[tokio::test]
async fn yes_no_and_no_answer_are_told_apart() {
    let server = Server::start("").await;
    let config = HttpConfig { cache_entries_max: 0, timeout: DEADLINE, ..server.config() };
    let auth = HttpAuth::new(&config).expect("a back end");
    let status = |status| HttpAnswer::Unavailable(Unavailable::Status(status));
    let error = r#"{"result":"error","message":"Unknown error, see supervisor"}"#;
    for (answer, expected) in [
        (response(200, r#"{"result":"ok","data":{}}"#), HttpAnswer::Allowed),
        (response(204, ""), HttpAnswer::Allowed),
        (response(200, r#"{"result":"deny"}"#), HttpAnswer::Denied),
        (response(401, "401: Unauthorized"), HttpAnswer::Denied),
        (response(403, ""), HttpAnswer::Denied),
        (response(400, error), HttpAnswer::Denied),
        (response(400, "no such thing"), status(400)),
        (response(500, ""), status(500)),
        ("HTTP/1.1 302 Found\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n".to_owned(), status(302)),
    ] {
        server.answer(&answer);
        assert_eq!(check(&auth, ask("u", "p")).await, expected, "{answer}");
    }
    // Many answers, one connection.
    assert_eq!(server.shared.connections.load(Ordering::SeqCst), 1);
    for answer in [response(200, &"x".repeat(BODY_BYTES_MAX + 1)), "no HTTP\r\n\r\n".to_owned()] {
        server.answer(&answer);
        let got = check(&auth, ask("u", "p")).await;
        assert!(matches!(got, HttpAnswer::Unavailable(Unavailable::Failed(_))), "{got:?}");
    }
    // A refusal stays one, however long its body.
    server.answer(&response(401, &"x".repeat(BODY_BYTES_MAX + 1)));
    assert_eq!(check(&auth, ask("u", "p")).await, HttpAnswer::Denied);
}

#[tokio::test]
async fn nobody_listening_and_silence_are_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let config = HttpConfig { url: Some(format!("http://{address}/")), ..HttpConfig::default() };
    let answer = check(&HttpAuth::new(&config).expect("a back end"), ask("u", "secret-word")).await;
    assert!(matches!(answer, HttpAnswer::Unavailable(Unavailable::Failed(_))), "{answer:?}");
    assert!(!format!("{answer:?}").contains("secret-word"));

    let server = Server::start(&response(200, "")).await;
    server.shut();
    let config = HttpConfig { timeout: Duration::from_millis(50), ..server.config() };
    let auth = HttpAuth::new(&config).expect("a back end");
    let answer = check(&auth, ask("u", "p")).await;
    assert_eq!(answer, HttpAnswer::Unavailable(Unavailable::TimedOut));
    // It is not remembered: the server may be back.
    server.open();
    let auth = HttpAuth::new(&HttpConfig { timeout: DEADLINE, ..server.config() }).expect("a back end");
    assert_eq!(check(&auth, ask("u", "p")).await, HttpAnswer::Allowed);
}

#[tokio::test]
async fn answers_are_remembered_for_the_same_question_only() {
    let server = Server::start(&response(200, "")).await;
    let auth = HttpAuth::new(&server.config()).expect("a back end");
    for _ in 0..3 {
        assert_eq!(check(&auth, ask("u", "p")).await, HttpAnswer::Allowed);
    }
    assert_eq!(server.requests().len(), 1);
    server.answer(&response(401, ""));
    for _ in 0..3 {
        assert_eq!(check(&auth, ask("u", "wrong")).await, HttpAnswer::Denied);
        assert_eq!(check(&auth, Question { client_id: "other", ..ask("u", "p") }).await, HttpAnswer::Denied);
        assert_eq!(check(&auth, ask("u", "p")).await, HttpAnswer::Allowed);
    }
    assert_eq!(server.requests().len(), 3);
    // What a reload makes remembers nothing.
    let anew = HttpAuth::new(&server.config()).expect("a back end");
    assert_eq!(check(&anew, ask("u", "p")).await, HttpAnswer::Denied);
}

#[tokio::test]
async fn the_same_question_is_asked_once_even_if_who_asked_first_is_gone() {
    let server = Server::start(&response(200, "")).await;
    server.shut();
    let auth = HttpAuth::new(&HttpConfig { timeout: DEADLINE, ..server.config() }).expect("a back end");
    let first = tokio::spawn({
        let auth = auth.clone();
        async move { auth.check(ask("u", "p")).await }
    });
    server.wait_for_requests(1).await;
    let others: Vec<_> = (0..50)
        .map(|_| {
            let auth = auth.clone();
            tokio::spawn(async move { auth.check(ask("u", "p")).await })
        })
        .collect();
    first.abort();
    let _ = first.await;
    server.open();
    for other in others {
        let answer = tokio::time::timeout(DEADLINE, other).await.expect("in time").expect("a task");
        assert_eq!(answer, HttpAnswer::Allowed);
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn questions_at_one_time_and_waiting_are_bounded() {
    let server = Server::start(&response(200, "")).await;
    server.shut();
    let config = HttpConfig { requests_max: 2, waiting_max: 3, timeout: DEADLINE, ..server.config() };
    let auth = HttpAuth::new(&config).expect("a back end");
    let asking: Vec<_> = (0..5)
        .map(|n| {
            let auth = auth.clone();
            tokio::spawn(async move { auth.check(ask(&n.to_string(), "p")).await })
        })
        .collect();
    server.wait_for_requests(2).await;
    // All five have asked or wait: they were started before, on this thread.
    assert_eq!(check(&auth, ask("6", "p")).await, HttpAnswer::Unavailable(Unavailable::Busy));
    assert_eq!(server.requests().len(), 2, "more than requests_max at one time");
    server.open();
    for answer in asking {
        let answer = tokio::time::timeout(DEADLINE, answer).await.expect("in time").expect("a task");
        assert_eq!(answer, HttpAnswer::Allowed);
    }
    assert_eq!(check(&auth, ask("6", "p")).await, HttpAnswer::Allowed);
    assert!(server.shared.connections.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn a_password_that_json_cannot_carry_is_refused_unasked() {
    let server = Server::start(&response(200, "")).await;
    let question = Question { password: b"\xff", ..ask("u", "") };
    let auth = HttpAuth::new(&server.config()).expect("a back end");
    assert_eq!(check(&auth, question).await, HttpAnswer::Denied);
    assert!(server.requests().is_empty());
    let config = HttpConfig { format: HttpFormat::Form, ..server.config() };
    assert_eq!(check(&HttpAuth::new(&config).expect("a back end"), question).await, HttpAnswer::Allowed);
}

#[tokio::test]
async fn an_https_server_is_judged_by_the_configured_ca() {
    let make_ca = || {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        (certificate.pem(), Issuer::new(params, key))
    };
    let ((ca, issuer), (other_ca, _)) = (make_ca(), make_ca());
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, &issuer).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .expect("a certificate");
    let server =
        Server::start_with(&response(200, ""), Some(tokio_rustls::TlsAcceptor::from(Arc::new(tls)))).await;
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        Some(path)
    };
    let url = |host: &str| Some(format!("https://{host}:{}/", server.address.port()));
    let good = HttpConfig { url: url("localhost"), ca: file("ca.pem", &ca), ..HttpConfig::default() };
    let auth = HttpAuth::new(&good).expect("a back end");
    assert_eq!(check(&auth, ask("u", "p")).await, HttpAnswer::Allowed);
    let other = HttpConfig { ca: file("other.pem", &other_ca), ..good.clone() };
    let name = HttpConfig { url: url("127.0.0.1"), ..good.clone() };
    for config in [other, name] {
        let answer = check(&HttpAuth::new(&config).expect("a back end"), ask("u", "p")).await;
        let HttpAnswer::Unavailable(Unavailable::Failed(why)) = answer else { panic!("{answer:?}") };
        assert!(why.contains("certificate"), "{why}");
    }
    let empty = HttpConfig { ca: file("empty.pem", ""), ..good.clone() };
    let missing = HttpConfig { ca: Some("/nonexistent/ca.pem".into()), ..good };
    for (config, word) in [(empty, "empty.pem"), (missing, "ca.pem")] {
        let error = HttpAuth::new(&config).err().expect("an error").to_string();
        assert!(error.contains(word), "{error}");
    }
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn what_cannot_be_sent_is_refused_at_once() {
    let good = HttpConfig { url: Some("http://localhost/".to_owned()), ..HttpConfig::default() };
    assert!(HttpAuth::new(&good).is_ok());
    let header = |name: &str, value: &str| HttpConfig {
        headers: HttpHeaders(vec![(name.into(), value.into())]),
        ..good.clone()
    };
    let token = HttpConfig { token_file: Some("/nonexistent/token".into()), ..good.clone() };
    let url = |url: Option<&str>| HttpConfig { url: url.map(str::to_owned), ..good.clone() };
    for (config, word) in [
        (url(None), "auth.http.url"),
        (url(Some("ftp://x/")), "auth.http.url"),
        (url(Some("/auth")), "auth.http.url"),
        (header("Content-Length", "5"), "Content-Length"),
        (header("a b", "5"), "a b"),
        (header("X", "a\nb"), "\"X\""),
        (token, "token"),
    ] {
        let error = HttpAuth::new(&config).err().expect("an error").to_string();
        assert!(error.contains(word), "{error}");
    }
}
