//! An HTTP server that is asked about logins and is down, slow, moved, or lies; and questions that would say something else than meant.
//! What is sent and which answers mean what is in `tests/auth_http.rs`; here it is what becomes of clients.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ternmq::config::{Config, HttpConfig, HttpFormat};

use parking_lot::RwLock;

use crate::house::{House, expect_refusal};
use crate::support::{Connect, Connect5, RawClient, RawClient5, ServerPacket};
use crate::token::{login, take_tokens};

type Answer = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A server that answers by what a question's body says; `None`: never.
struct Server {
    addr: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Server {
    fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (answer, asked): (Arc<Answer>, _) = (Arc::new(answer), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&asked);
        // Ends with the process: nobody connects any more when the test is over.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, count) = (Arc::clone(&answer), Arc::clone(&count));
                std::thread::spawn(move || serve(stream, &answer, &count));
            }
        });
        Server { addr, asked }
    }

    fn config(&self) -> HttpConfig {
        HttpConfig { url: Some(format!("http://{}/", self.addr)), ..HttpConfig::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Questions of one connection, one after the other.
fn serve(mut stream: TcpStream, answer: &Arc<Answer>, count: &AtomicUsize) -> Option<()> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().lines().find_map(|line| {
                line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
            })?;
            if body.len() >= length {
                bytes.clear();
                count.fetch_add(1, Ordering::SeqCst);
                match answer(body) {
                    Some(answer) => stream.write_all(answer.as_bytes()).ok()?,
                    // Until the broker has had enough of it.
                    None => while stream.read(&mut buffer).ok()? > 0 {},
                }
                continue;
            }
        }
        let n = stream.read(&mut buffer).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&buffer[..n]);
    }
}

fn response(status: &str, body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A broker that asks the server, and takes anonymous clients: a login that fails must not make one of those.
fn house(http: HttpConfig, change: impl FnOnce(&mut Config)) -> House {
    House::with(|config, _| {
        config.auth.http = http;
        config.listeners[0].allow_anonymous = true;
        change(config);
    })
}

fn alice(password: &str) -> Connect {
    Connect::new("client").user_name("alice").password(password)
}

fn alice5() -> Vec<u8> {
    Connect5::new("five").user_name("alice").password("wonder").bytes()
}

/// Lets alice in with her password, and nobody else.
fn honest() -> Server {
    Server::start(|question| {
        let is_right =
            question.contains("\"username\":\"alice\"") && question.contains("\"password\":\"wonder\"");
        if is_right { response("200 OK", "{\"result\":\"ok\"}") } else { response("401 Unauthorized", "") }
    })
}

const UNAVAILABLE: u8 = 3;
const BAD_CREDENTIALS: u8 = 4;

#[test]
fn four_hundred_guesses_at_the_same_time() {
    // Nothing is answered before all guesses are sent.
    let sending = Arc::new(RwLock::new(()));
    let sent = Arc::clone(&sending);
    let all_sent = sending.write();
    let server = Server::start(move |_| {
        drop(sent.read());
        response("401 Unauthorized", "")
    });
    let house = house(server.config(), |config| {
        config.auth.failures_max = 5;
        config.auth.delay_max = Duration::ZERO;
    });
    let mut clients: Vec<RawClient> = (0..400).map(|_| RawClient::connect(house.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&alice(&format!("guess {n}")).bytes());
    }
    drop(all_sent);
    let codes: Vec<u8> = clients.iter_mut().map(expect_refusal).collect();
    // The sixth failure brings the ban; no more than four, or as many as may still fail, are under way at one time.
    assert!((6..=9).contains(&server.asked()), "{}", server.asked());
    assert_eq!(codes.iter().filter(|code| **code == BAD_CREDENTIALS).count(), server.asked());
    assert_eq!(codes.iter().filter(|code| **code == 5).count(), 400 - server.asked());
}

#[test]
fn a_login_that_the_server_refuses() {
    let server = honest();
    let house = house(server.config(), |_| {});
    house.open(&alice("wonder")).disconnect();
    assert_eq!(house.refusal(&alice("guess")), BAD_CREDENTIALS);
    assert_eq!(
        house.refusal(&Connect::new("client").user_name("mallory").password("wonder")),
        BAD_CREDENTIALS
    );
    assert_eq!(house.refusal(&Connect::new("client").user_name("alice")), BAD_CREDENTIALS);
    assert_eq!(house.refusal(&Connect::new("client").user_name("").password("")), BAD_CREDENTIALS);
    // What is remembered of alice opens nothing to another password, user or client id.
    let asked = server.asked();
    house.open(&alice("wonder")).disconnect();
    assert_eq!(server.asked(), asked, "from memory");
    for password in ["wonde", "wonder ", "wonder\0", "", "WONDER"] {
        assert_eq!(house.refusal(&alice(password)), BAD_CREDENTIALS, "{password:?}");
    }
    // Nobody who shows nothing is asked about.
    let asked = server.asked();
    RawClient::clean(house.addr(), "anonymous").disconnect();
    assert_eq!(server.asked(), asked);
}

#[test]
fn a_server_that_is_down_slow_or_beside_itself() {
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let down = HttpConfig { url: Some(format!("http://{closed}/")), ..HttpConfig::default() };
    let of = |answer: fn(&str) -> Option<String>| Server::start(answer).config();
    let impatient = |http: HttpConfig| HttpConfig { timeout: Duration::from_millis(100), ..http };
    let elsewhere = Server::start(|_| response("200 OK", ""));
    let location = format!("Location: http://{}/\r\n", elsewhere.addr);
    let moved = Server::start(move |_| {
        Some(format!("HTTP/1.1 307 Temporary Redirect\r\n{location}Content-Length: 0\r\n\r\n"))
    });
    for (what, http) in [
        ("down", down),
        ("silent", impatient(of(|_| None))),
        ("500", of(|_| response("500 Internal Server Error", "{\"result\":\"ok\"}"))),
        ("404", of(|_| response("404 Not Found", ""))),
        ("moved", moved.config()),
        ("no HTTP", of(|_| Some("SSH-2.0-OpenSSH\r\n\r\n".to_owned()))),
        ("cut off", impatient(of(|_| Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".to_owned())))),
        ("without end", of(|_| response("200 OK", &"x".repeat(1_000_000)))),
    ] {
        let house = house(http, |_| {});
        let mut connected = RawClient::clean(house.addr(), "connected");
        assert_eq!(house.refusal(&alice("wonder")), UNAVAILABLE, "{what}");
        RawClient5::refused(house.addr(), &alice5(), 0x88);
        assert_eq!(house.refused("refused_service_unavailable"), 2, "{what}");
        connected.expect_nothing();
        // It is the server that failed, and not the client: nobody is banned for it.
        for _ in 0..12 {
            assert_eq!(house.refusal(&alice("wonder")), UNAVAILABLE, "{what}");
        }
    }
    assert_eq!(elsewhere.asked(), 0, "passwords went where a redirection led");
}

#[test]
fn a_server_that_says_no_in_a_friendly_voice() {
    for body in
        ["{\"result\":\"deny\"}", "{\"result\":\"error\"}", "{\"ok\":false}", "{\"result\":\"ignore\"}"]
    {
        let server = Server::start(move |_| response("200 OK", body));
        let house = house(server.config(), |_| {});
        assert_eq!(house.refusal(&alice("wonder")), BAD_CREDENTIALS, "{body}");
    }
}

#[test]
fn other_methods_while_the_server_is_down() {
    let server = Server::start(|_| None);
    let house = House::with(|config, directory| {
        take_tokens(config, directory);
        config.auth.http = HttpConfig { timeout: Duration::from_millis(100), ..server.config() };
    });
    // Who has a token needs no server; who has none is not let in for want of one.
    house.open(&login("client", "alice")).disconnect();
    assert_eq!(house.refusal(&alice("no token")), UNAVAILABLE);
}

#[test]
fn flooding_a_server_that_is_slow() {
    let server = Server::start(|_| None);
    let http =
        HttpConfig { requests_max: 4, waiting_max: 10, timeout: Duration::from_secs(2), ..server.config() };
    let house = house(http, |_| {});
    let mut attackers: Vec<RawClient> = (0..300).map(|_| RawClient::connect(house.addr())).collect();
    for (n, attacker) in attackers.iter_mut().enumerate() {
        attacker.send(&Connect::new(format!("a-{n}")).user_name(format!("u-{n}")).password("x").bytes());
    }
    // At once, and without a question: all but those that ask and those that wait.
    house.eventually("refusals", |metrics| {
        metrics.refused.get("refused_service_unavailable").is_some_and(|refused| *refused >= 300 - 14)
    });
    assert!(server.asked() <= 4, "{} questions at one time", server.asked());
    RawClient::clean(house.addr(), "healthy").disconnect();
    for attacker in &mut attackers {
        assert_eq!(attacker.expect_packet(), ServerPacket::ConnAck(false, UNAVAILABLE));
    }
}

#[test]
fn names_that_would_be_other_questions() {
    // Takes whoever calls himself admin, as a careless reader of the question would.
    let names = |question: &str| -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(question).unwrap_or_default();
        let of_json = value.get("username").and_then(|name| name.as_str()).map(str::to_owned);
        let of_form =
            question.split('&').filter_map(|pair| pair.strip_prefix("username=")).map(str::to_owned);
        if value.is_object() { of_json.into_iter().collect() } else { of_form.collect() }
    };
    for format in [HttpFormat::Json, HttpFormat::Form] {
        let server = Server::start(move |question| {
            let [name] = &names(question)[..] else { return response("500 Ambiguous", "") };
            if name == "admin" { response("200 OK", "") } else { response("401 Unauthorized", "") }
        });
        let house = house(HttpConfig { format, ..server.config() }, |config| {
            (config.auth.failures_max, config.auth.address_failures_max) = (0, 0);
        });
        for name in [
            "mallory&username=admin",
            "mallory\",\"username\":\"admin",
            "admin\0",
            "admin%00",
            "admin\r\n\r\n",
            "admin\r\nContent-Length: 0\r\n\r\nPOST / HTTP/1.1\r\n\r\n",
            "admin&",
            "admin\u{0}x",
            "\u{feff}admin",
            "admin+",
            "%61dmin",
            "admin#",
            "admin;",
        ] {
            let fields = [
                Connect::new("c").user_name(name).password("x"),
                Connect::new(name).user_name("m").password(name),
            ];
            for connect in fields {
                if name.contains('\0') {
                    let mut client = RawClient::connect(house.addr());
                    client.send(&connect.bytes());
                    client.expect_closed();
                } else {
                    assert_eq!(house.refusal(&connect), BAD_CREDENTIALS, "{name:?}");
                }
            }
        }
        house.open(&Connect::new("c").user_name("admin").password("x")).disconnect();
    }
}
