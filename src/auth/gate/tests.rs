//! In which order the methods are asked, what each answer leads to, and that whatever is missing or broken lets nobody in.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use base64ct::{Base64UrlUnpadded, Encoding};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::config::{HttpConfig, JwtAlgorithm, JwtConfig};

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(60);

/// The password of ada is "secret"; a hash that is quickly computed.
const PASSWORDS: &str = "ada:$7$7$dHdlbHZlIGJ5dGVz$FG0CV/07tGA1r/Q0CpOR6sSBWwF+GejhruvYJxnjoKWRDCaWZLQdoFQkMAKPhEg9oKOF6g2P3yfdP34768cHqA==\n";
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

const FILE: AuthMethod = AuthMethod::PasswordFile;
const JWT: AuthMethod = AuthMethod::Jwt;
const HTTP: AuthMethod = AuthMethod::Http;
const CERTIFICATE: AuthMethod = AuthMethod::Certificate;

/// Nothing is counted, so that no answer is late.
const NO_THROTTLE: ThrottleLimits = ThrottleLimits {
    failures_max: 0,
    address_failures_max: 0,
    user_failures_max: 0,
    window: Duration::from_secs(60),
    delay_min: Duration::from_millis(1),
    delay_max: Duration::from_millis(1),
    user_delay: Duration::from_millis(1),
    ban_time: Duration::from_secs(60),
    entries_max: 10,
};

/// An HTTP back end that always answers the same, and how often it was asked.
struct BackEnd {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl BackEnd {
    async fn start(status: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut question = Vec::new();
                // The body is one JSON object, without one inside of it.
                while !question.ends_with(b"}") {
                    if stream.read_buf(&mut question).await.is_ok_and(|n| n > 0) {
                        continue;
                    }
                    break;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// What methods are read from.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a directory"));
        fs::write(files.path("passwords"), PASSWORDS).expect("passwords");
        fs::write(files.path("key"), SECRET).expect("a key");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, methods: Option<&[AuthMethod]>, back_end: Option<&BackEnd>) -> AuthConfig {
        AuthConfig {
            methods: methods.map(<[_]>::to_vec),
            password_file: Some(self.path("passwords")),
            jwt: JwtConfig {
                algorithm: Some(JwtAlgorithm::Hs256),
                key_file: Some(self.path("key")),
                ..JwtConfig::default()
            },
            http: HttpConfig {
                url: back_end.map(|back_end| back_end.url.clone()),
                cache_time: Duration::ZERO,
                cache_time_denied: Duration::ZERO,
                ..HttpConfig::default()
            },
            ..AuthConfig::default()
        }
    }

    fn methods(&self, order: &[AuthMethod], back_end: Option<&BackEnd>) -> Methods {
        Methods::load(&self.config(Some(order), back_end), true).expect("good files")
    }

    fn gate(&self, order: &[AuthMethod], back_end: Option<&BackEnd>) -> Gate {
        Gate::new(self.methods(order, back_end), NO_THROTTLE).expect("threads")
    }
}

/// A token for `user` that ends in an hour.
fn token(user: &str) -> String {
    let exp = wall_clock().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() + 3_600;
    let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let claims = format!("{{\"sub\":\"{user}\",\"exp\":{exp}}}");
    let signed = format!("{}.{}", encode(b"{\"alg\":\"HS256\"}"), encode(claims.as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

fn login<'a>(user: Option<&'a str>, password: Option<&'a str>) -> Login<'a> {
    Login {
        peer: (Ipv4Addr::LOCALHOST, 4_711).into(),
        client_id: "c",
        user,
        password: password.map(str::as_bytes),
        certificate: Certificate::None,
        allow_anonymous: false,
        methods: None,
    }
}

fn named(user: &str) -> Result<Admitted, Refused> {
    Ok(Admitted { user: Some(Arc::from(user)), until: None, entry: None })
}

/// Let in by its entry of the password file, which counts as long as it is the same.
fn by_file(user: &str) -> Result<Admitted, Refused> {
    let file = PasswordFile::parse(Path::new("passwords"), PASSWORDS.as_bytes()).expect("a good file");
    Ok(Admitted { entry: Some(file.entry(user).expect("a user")), ..named(user)? })
}

const ANONYMOUS: Result<Admitted, Refused> = Ok(Admitted { user: None, until: None, entry: None });

#[tokio::test]
async fn methods_are_asked_in_their_order_until_one_knows_the_client() {
    let (files, yes, no) = (Files::new(), BackEnd::start("200 OK").await, BackEnd::start("401 No").await);
    // The file knows ada, and nobody else is asked.
    let gate = files.gate(&[FILE, HTTP], Some(&yes));
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
    assert_eq!(yes.asked(), 0);
    // It does not know the others, which leaves the word to the server.
    for (n, (user, password)) in [("ada", "wrong"), ("bob", "secret")].into_iter().enumerate() {
        assert_eq!(gate.admit(&login(Some(user), Some(password)), PATIENCE).await, named(user));
        assert_eq!(yes.asked(), n + 1);
    }
    // The other way round the server is asked about everybody, and its no leaves the word to the file.
    let gate = files.gate(&[HTTP, FILE], Some(&no));
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
    assert_eq!(no.asked(), 1);
    assert_eq!(gate.admit(&login(Some("ada"), Some("wrong")), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(no.asked(), 2);
    // A token is asked for its user and its end.
    let gate = files.gate(&[FILE, JWT, HTTP], Some(&yes));
    let token = token("device");
    for user in [Some("device"), None] {
        let admitted = gate.admit(&login(user, Some(&token)), PATIENCE).await.expect("a good token");
        assert_eq!(admitted.user.as_deref(), Some("device"));
        assert!(admitted.until.is_some_and(|until| until > wall_clock() + Duration::from_secs(3_000)));
    }
    assert_eq!(yes.asked(), 2);
    // With the name of another it is no token of theirs, and to the server it is a password like any.
    assert_eq!(gate.admit(&login(Some("ada"), Some(&token)), PATIENCE).await, named("ada"));
    assert_eq!(yes.asked(), 3);
}

#[tokio::test]
async fn a_listener_chooses_among_the_methods_and_in_its_order() {
    let (files, yes) = (Files::new(), BackEnd::start("200 OK").await);
    let gate = files.gate(&[FILE, JWT, HTTP], Some(&yes));
    let ask = async |methods: &[AuthMethod], user, password| {
        gate.admit(&Login { methods: Some(methods), ..login(Some(user), Some(password)) }, PATIENCE).await
    };
    assert_eq!(ask(&[FILE], "ada", "secret").await, by_file("ada"));
    assert_eq!(ask(&[FILE], "bob", "x").await, Err(Refused::Unknown));
    assert_eq!(ask(&[JWT], "ada", "secret").await, Err(Refused::Unknown));
    assert_eq!(yes.asked(), 0);
    assert_eq!(ask(&[HTTP, FILE], "ada", "secret").await, named("ada"));
    assert_eq!(yes.asked(), 1);
    // What it chooses and nobody has set up is not asked.
    let gate = files.gate(&[FILE], None);
    let http = Login { methods: Some(&[HTTP]), ..login(Some("ada"), Some("secret")) };
    assert_eq!(gate.admit(&http, PATIENCE).await, Err(Refused::Unknown));
    assert!(!gate.methods().asks(Some(&[HTTP])) && gate.methods().asks(Some(&[HTTP, FILE])));
    assert_eq!(gate.methods().names(Some(&[HTTP])), "none");
    assert_eq!(gate.methods().names(None), "password_file");
    // Without a choice all that is set up is asked.
    let all = Methods::load(&files.config(None, Some(&yes)), true).expect("good files");
    assert_eq!(all.names(None), "certificate, password_file, jwt, http");
}

#[tokio::test]
async fn who_shows_nothing_is_anonymous_and_who_shows_something_is_not() {
    let files = Files::new();
    let gate = files.gate(&[FILE], None);
    let admit = async |allow_anonymous, user, password| {
        gate.admit(&Login { allow_anonymous, ..login(user, password) }, PATIENCE).await
    };
    assert_eq!(admit(true, None, None).await, ANONYMOUS);
    assert_eq!(admit(false, None, None).await, Err(Refused::Anonymous));
    for allow_anonymous in [true, false] {
        for (user, password) in [
            (Some("ada"), Some("wrong")),
            (Some("bob"), Some("secret")),
            (Some(""), Some("secret")),
            (Some(""), Some("")),
            (Some("ada"), Some("")),
            (Some("ada"), None),
            (Some(""), None),
            (None, Some("secret")),
        ] {
            let got = admit(allow_anonymous, user, password).await;
            assert_eq!(got, Err(Refused::Unknown), "{user:?} {password:?} {allow_anonymous}");
        }
    }
    // A listener that asks nobody takes a name for nothing.
    let nobody =
        |allow_anonymous| Login { methods: Some(&[]), allow_anonymous, ..login(Some("ada"), Some("secret")) };
    assert_eq!(gate.admit(&nobody(true), PATIENCE).await, ANONYMOUS);
    assert_eq!(gate.admit(&nobody(false), PATIENCE).await, Err(Refused::Unknown));
}

/// A password that is not there is none: not even that of somebody whose password is empty, nor one for a server that might take it for a
/// question without a password.
#[tokio::test]
async fn a_password_that_is_omitted_is_no_empty_one() {
    let (files, yes) = (Files::new(), BackEnd::start("200 OK").await);
    let empty = "eve:$7$7$dHdlbHZlIGJ5dGVz$2PSMifGFJwRVL+39yyXX5h2jZId0SDmdl+sKC4/wpoWqW8sBMYEI8AcWICcXsR8XrFfc/FZJdQz2wqcxgtgLeg==\n";
    fs::write(files.path("passwords"), format!("{PASSWORDS}{empty}")).expect("passwords");
    let gate = files.gate(&[FILE], None);
    let eve = gate.admit(&login(Some("eve"), Some("")), PATIENCE).await.expect("her own");
    assert!(eve.entry.is_some_and(|entry| gate.counts("eve", entry) && !gate.counts("ada", entry)));
    assert_eq!(gate.admit(&login(Some("eve"), None), PATIENCE).await, Err(Refused::Unknown));
    let gate = files.gate(&[HTTP], Some(&yes));
    assert_eq!(gate.admit(&login(Some("eve"), None), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(yes.asked(), 0);
    assert_eq!(gate.admit(&login(Some("eve"), Some("")), PATIENCE).await, named("eve"));
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_no_method() {
    type Change<'a> = &'a dyn Fn(&mut AuthConfig);
    let files = Files::new();
    let back_end = BackEnd { url: "ftp://localhost/".to_owned(), asked: Arc::default() };
    let error = |methods: &[AuthMethod], change: Change<'_>| {
        let mut config = files.config(Some(methods), Some(&back_end));
        change(&mut config);
        Methods::load(&config, true).err().map(|error| error.to_string())
    };
    let gone = |path: &Path| Some(path.with_file_name("gone"));
    let cases: [(&[AuthMethod], Change<'_>, &str); 5] = [
        (&[FILE], &|config| config.password_file = gone(&files.path("")), "auth.password_file: "),
        (&[FILE], &|config| config.password_file = Some(files.path("key")), "auth.password_file: "),
        (&[JWT], &|config| config.jwt.key_file = gone(&files.path("")), "auth.jwt: "),
        (&[JWT], &|config| config.jwt.algorithm = Some(JwtAlgorithm::Rs256), "auth.jwt: "),
        (&[HTTP], &|_| {}, "auth.http: "),
    ];
    for (methods, change, words) in cases {
        let found = error(methods, change);
        assert!(found.as_deref().is_some_and(|found| found.starts_with(words)), "{words}{found:?}");
        // Behind one that is good it is an error all the same.
        let behind = [&[CERTIFICATE], methods].concat();
        assert_eq!(error(&behind, change), found);
    }
    // What is not in use is not read.
    assert_eq!(error(&[JWT], &|config| config.password_file = gone(&files.path(""))), None);
    // Should there ever be a method without what it asks, it knows nobody.
    let empty =
        |order: &[AuthMethod]| Methods { order: order.to_vec(), password_file: None, jwt: None, http: None };
    for methods in [&[FILE] as &[AuthMethod], &[JWT], &[HTTP], &[FILE, JWT, HTTP]] {
        let gate = Gate::new(empty(methods), NO_THROTTLE).expect("threads");
        for password in ["secret", &token("ada")] {
            assert_eq!(
                gate.admit(&login(Some("ada"), Some(password)), PATIENCE).await,
                Err(Refused::Unknown)
            );
        }
        assert_eq!(gate.admit(&login(None, None), PATIENCE).await, Err(Refused::Anonymous));
    }
}

#[tokio::test]
async fn a_method_that_cannot_be_asked_lets_nobody_in_and_is_not_the_clients_fault() {
    let files = Files::new();
    let broken = BackEnd::start("500 Broken").await;
    let limits = ThrottleLimits { failures_max: 1, address_failures_max: 1, ..NO_THROTTLE };
    for order in [[FILE, HTTP], [HTTP, FILE]] {
        let gate = Gate::new(files.methods(&order, Some(&broken)), limits).expect("threads");
        for _ in 0..5 {
            assert_eq!(gate.admit(&login(Some("bob"), Some("x")), PATIENCE).await, Err(Refused::Unavailable));
        }
        // Whom another method knows comes in all the same.
        assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
    }
}

#[tokio::test]
async fn failures_end_in_a_ban_and_who_is_banned_is_asked_about_no_more() {
    let (files, no) = (Files::new(), BackEnd::start("401 No").await);
    let limits = ThrottleLimits { failures_max: 2, ..NO_THROTTLE };
    let gate = Gate::new(files.methods(&[FILE, HTTP], Some(&no)), limits).expect("threads");
    let mut refusals = Vec::new();
    while refusals.last() != Some(&Refused::Banned) {
        assert!(refusals.len() < 10, "no ban");
        refusals.push(
            gate.admit(&login(Some("ada"), Some("wrong")), PATIENCE).await.expect_err("a wrong password"),
        );
    }
    assert!(refusals.len() > 2, "{refusals:?}");
    let asked = no.asked();
    assert_eq!(asked, refusals.len() - 1);
    // The right password is not looked at either, or the ban would tell which it is.
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, Err(Refused::Banned));
    assert_eq!(no.asked(), asked);
    // Others there are served, and ada elsewhere.
    assert_eq!(gate.admit(&login(Some("bob"), Some("x")), PATIENCE).await, Err(Refused::Unknown));
    let elsewhere = Login { peer: ([192, 0, 2, 7], 1).into(), ..login(Some("ada"), Some("secret")) };
    assert_eq!(gate.admit(&elsewhere, PATIENCE).await, by_file("ada"));
    // New files do not make a clean slate.
    gate.replace(files.methods(&[FILE], None)).expect("threads");
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, Err(Refused::Banned));
}

#[tokio::test]
async fn a_certificate_names_its_user_where_it_is_a_method() {
    let (files, yes) = (Files::new(), BackEnd::start("200 OK").await);
    let gate = files.gate(&[FILE, HTTP, CERTIFICATE], Some(&yes));
    let names = || Certificate::Names("meter-7".to_owned());
    // Whatever the client says besides, and wherever the method stands: it has proved who it is.
    for (user, password) in [(None, None), (Some("ada"), Some("secret")), (Some("ada"), Some("wrong"))] {
        let shown = Login { certificate: names(), ..login(user, password) };
        assert_eq!(gate.admit(&shown, PATIENCE).await, named("meter-7"));
    }
    assert_eq!(yes.asked(), 0);
    // One that lacks the name says nothing.
    assert_eq!(gate.admit(&login(None, None), PATIENCE).await, Err(Refused::Anonymous));
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
    // Where the listener asks others, it stands for nobody: their word is needed.
    let by_file =
        |user, password| Login { certificate: names(), methods: Some(&[FILE]), ..login(user, password) };
    assert_eq!(gate.admit(&by_file(Some("ada"), Some("secret")), PATIENCE).await, self::by_file("ada"));
    assert_eq!(gate.admit(&by_file(Some("ada"), Some("wrong")), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(gate.admit(&by_file(None, None), PATIENCE).await, Err(Refused::Anonymous));
    let anonymous = Login { allow_anonymous: true, ..by_file(None, None) };
    assert_eq!(gate.admit(&anonymous, PATIENCE).await, ANONYMOUS);
    // Where it asks nobody, what its CA has signed comes in, and is nobody by name.
    let unasked = Login { certificate: names(), methods: Some(&[]), ..login(None, None) };
    assert_eq!(gate.admit(&unasked, PATIENCE).await, ANONYMOUS);
}

#[tokio::test]
async fn a_certificate_without_a_name_is_enough_where_nothing_else_is_asked() {
    let files = Files::new();
    let gate = files.gate(&[FILE], None);
    let shown =
        |methods, user, password| Login { certificate: Certificate::Good, methods, ..login(user, password) };
    assert_eq!(gate.admit(&shown(Some(&[]), None, None), PATIENCE).await, ANONYMOUS);
    assert_eq!(gate.admit(&shown(Some(&[]), Some("ada"), Some("wrong")), PATIENCE).await, ANONYMOUS);
    // Both, where a method is asked as well.
    assert_eq!(gate.admit(&shown(None, None, None), PATIENCE).await, Err(Refused::Anonymous));
    assert_eq!(gate.admit(&shown(None, Some("ada"), Some("wrong")), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(gate.admit(&shown(None, Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
}

#[tokio::test]
async fn new_methods_are_asked_at_once_and_a_first_file_brings_its_threads() {
    let (files, yes) = (Files::new(), BackEnd::start("200 OK").await);
    let gate = files.gate(&[HTTP], Some(&yes));
    assert_eq!(gate.admit(&login(Some("ada"), Some("any")), PATIENCE).await, named("ada"));
    gate.replace(files.methods(&[FILE], None)).expect("threads");
    assert_eq!(gate.admit(&login(Some("ada"), Some("any")), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, by_file("ada"));
    fs::write(files.path("passwords"), "").expect("passwords");
    gate.replace(files.methods(&[FILE], None)).expect("threads");
    assert_eq!(gate.admit(&login(Some("ada"), Some("secret")), PATIENCE).await, Err(Refused::Unknown));
    assert_eq!(yes.asked(), 1);
}
