//! Who comes in and what it may do: faults of other brokers at the door. `tests/FAULTS.md` names them.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64ct::{Base64UrlUnpadded, Encoding};
use ternmq::Broker;
use ternmq::config::{Config, JwtAlgorithm, ListenerConfig};

use crate::support::{Connect, Connect5, DEADLINE, RawClient, RawClient5, ServerPacket, TestBroker, wire};
use crate::{eventually, quiet};

/// The password of alice is "wonder".
const PASSWORDS: &str = "alice:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==\n";

fn plain_listener(allow_anonymous: bool) -> ListenerConfig {
    ListenerConfig { allow_anonymous, ..ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into()) }
}

/// A broker with `acl` as its file of rules.
fn with_rules(rules: &str, change: impl FnOnce(&mut Config)) -> TestBroker {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("acl");
    fs::write(&path, rules).expect("rules");
    TestBroker::with_config(|config| {
        config.auth.acl_file = Some(path);
        change(config);
    })
}

/// A fleet that comes back at one time waits in the kernel's queue, and does not run into the seconds of a SYN that is sent again.
#[test]
fn connections_that_come_at_once_wait_in_the_queue_of_the_listener() {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    let most = most.and_then(|most| most.trim().parse::<usize>().ok()).unwrap_or(128);
    rlimit::increase_nofile_limit(u64::MAX).expect("descriptors");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let broker = runtime.block_on(Broker::start(quiet())).expect("the broker starts");
    let addr = broker.local_addrs()[0];
    // The broker's tasks stand still meanwhile: nobody accepts.
    let wait = Duration::from_millis(900);
    let waiting: Vec<TcpStream> = (0..most.min(800))
        .map(|n| TcpStream::connect_timeout(&addr, wait).unwrap_or_else(|error| panic!("{n}: {error}")))
        .collect();
    crate::run_until(&runtime, &broker, &|metrics| metrics.sockets == waiting.len() as u64);
    runtime.block_on(broker.shutdown());
}

/// A bound on connections counts those of every listener.
#[test]
fn connections_max_counts_over_all_listeners() {
    let changes: [fn(&mut Config); 2] = [
        |config| config.limits.connections_max = 2,
        |config| config.limits.connections_per_address_max = Some(2),
    ];
    for change in changes {
        let broker = TestBroker::with_config(|config| {
            config.listeners = vec![plain_listener(true), plain_listener(true)];
            // What is closed is closed for the bound.
            config.limits.connect_timeout = DEADLINE * 2;
            change(config);
        });
        let _first = RawClient::clean(broker.addrs()[0], "first");
        let _second = RawClient::clean(broker.addrs()[1], "second");
        for addr in broker.addrs() {
            RawClient::connect(*addr).expect_closed();
        }
    }
}

/// Who is refused has not been there: no connection is taken over, no session resumed, cleared or made, no will published.
#[test]
fn a_refused_login_touches_no_session() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("passwords");
    fs::write(&path, PASSWORDS).expect("passwords");
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![plain_listener(false)];
        config.auth.password_file = Some(path);
    });
    let alice = |connect: Connect| connect.user_name("alice").password("wonder");
    let (mut owner, _) = RawClient::open(broker.addr(), &alice(Connect::persistent("meter")));
    owner.subscribe("t", 1);
    let (mut publisher, _) = RawClient::open(broker.addr(), &alice(Connect::new("publisher")));
    let strangers = || {
        let with_will = |connect: Connect| connect.will("t", "of a stranger", 1, true);
        for connect in [Connect::new("meter"), Connect::persistent("meter")] {
            for connect in [
                connect.clone(),
                connect.clone().user_name("alice"),
                connect.clone().user_name("alice").password("wrong"),
                connect.clone().user_name("mallory").password("wonder"),
                connect.user_name("").password("wonder"),
            ] {
                let mut client = RawClient::connect(broker.addr());
                // What comes behind is nobody's either.
                let bytes = [
                    with_will(connect).bytes(),
                    wire::publish_qos1(1, "t", "of a stranger"),
                    wire::subscribe(2, &[("#", 1)]),
                ];
                client.send(&bytes.concat());
                assert!(matches!(client.expect_packet(), ServerPacket::ConnAck(false, 4 | 5)));
                assert_eq!(client.packets_until_closed(), []);
            }
        }
    };
    strangers();
    owner.expect_nothing();
    owner.disconnect();
    publisher.publish("t", 1, "waits");
    strangers();
    let (mut owner, present) = RawClient::open(broker.addr(), &alice(Connect::persistent("meter")));
    assert!(present);
    owner.expect_message_and_ack("t", "waits");
    owner.expect_nothing();
    assert_eq!(broker.metrics().wills_published, 0);
}

/// An HTTP back end that tells of each question and answers when it is told to.
struct SlowBackEnd {
    addr: SocketAddr,
    asked: Receiver<Sender<()>>,
}

impl SlowBackEnd {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (tell, asked) = channel();
        // Ends with the test's process; each question comes on a connection of its own.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, may_answer) = channel();
                let tell: Sender<Sender<()>> = tell.clone();
                thread::spawn(move || {
                    let mut stream = stream;
                    let mut question = Vec::new();
                    // The body is one JSON object, without one inside of it.
                    while !question.ends_with(b"}") {
                        let mut buffer = [0; 1_024];
                        match stream.read(&mut buffer) {
                            Ok(n) if n > 0 => question.extend_from_slice(&buffer[..n]),
                            _ => return,
                        }
                    }
                    let _ = tell.send(answer);
                    let _ = may_answer.recv();
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                });
            }
        });
        Self { addr, asked }
    }

    /// Waits for the next question; whoever drops the result answers it.
    fn asked(&self) -> Sender<()> {
        self.asked.recv_timeout(DEADLINE).expect("a question")
    }
}

/// A client that leaves, or is put out by a newer one, while somebody else thinks about its login, is nowhere registered when the answer comes.
#[test]
fn who_leaves_while_its_login_is_judged_is_not_registered() {
    let back_end = SlowBackEnd::start();
    let url = format!("http://{}/", back_end.addr);
    let broker = TestBroker::with_config(|config| {
        config.listeners = vec![plain_listener(false)];
        config.auth.http.url = Some(url);
        config.auth.http.timeout = DEADLINE * 2;
        config.limits.connect_timeout = DEADLINE * 2;
    });
    // Each with a password of its own: no answer serves two.
    let connect = |n: u32| Connect::persistent("one").user_name("alice").password(n.to_string()).bytes();
    let begin = |n: u32| {
        let mut client = RawClient::connect(broker.addr());
        client.send(&connect(n));
        (client, back_end.asked())
    };
    let (mut owner, answer) = begin(0);
    drop(answer);
    assert_eq!(owner.expect_packet(), ServerPacket::ConnAck(false, 0));
    let mut answers = Vec::new();
    for n in 1..=6 {
        let (client, answer) = begin(n);
        answers.push(answer);
        if n % 2 == 0 { client.reset() } else { drop(client) }
    }
    let (mut successor, answer) = begin(7);
    // Nobody is disturbed as long as nothing is decided.
    owner.expect_nothing();
    drop(answer);
    assert_eq!(successor.expect_packet(), ServerPacket::ConnAck(true, 0));
    owner.expect_closed();
    drop(answers);
    // Those that are gone may be let in for a moment, as the last to come; they are no more, and the session is whoever's comes now.
    // The successor may have been put out by one of them while another is still on its way in: each socket there is must be a client's.
    eventually(&broker, "nobody on the way in", |metrics| {
        metrics.sockets <= 1 && metrics.sockets == metrics.clients_connected
    });
    let (mut last, answer) = begin(8);
    drop(answer);
    assert_eq!(last.expect_packet(), ServerPacket::ConnAck(true, 0));
    last.expect_nothing();
    let metrics = eventually(&broker, "one client", |metrics| metrics.sockets == 1);
    assert_eq!((metrics.clients_connected, metrics.sessions_offline), (1, 0), "{metrics:#?}");
    last.disconnect();
    eventually(&broker, "nobody", |metrics| (metrics.clients_connected, metrics.sessions_offline) == (0, 1));
}

/// A file of rules that grants nothing is one that grants nothing; and it holds wherever a client comes in, from this machine too.
#[test]
fn an_empty_file_of_rules_denies_everything_on_every_listener() {
    for rules in ["", "\n", "# nothing yet\n", "user alice\n"] {
        let broker = with_rules(rules, |config| {
            config.listeners = vec![plain_listener(true), plain_listener(true)];
            config.sys_interval = Some(Duration::from_secs(3_600));
        });
        let mut clients: Vec<RawClient5> =
            broker.addrs().iter().map(|addr| RawClient5::clean(*addr, "")).collect();
        for n in [0, 1] {
            clients[n].subscribe_all(&[], &[("#", 1), ("$SYS/#", 1), ("$share/g/#", 1)]);
            assert_eq!(clients[1 - n].publish_with("a/b", 2, &[], "x"), 0x87, "{rules:?}");
            assert_eq!(clients[1 - n].publish_with("a/b", 3, &[], "x"), 0x87, "{rules:?}");
        }
        clients.iter_mut().for_each(RawClient5::expect_nothing);
        assert_eq!(broker.metrics().dropped.get("acl_write"), Some(&4), "{rules:?}");
    }
}

#[allow(clippy::disallowed_methods, reason = "tokens name times of the wall clock")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

/// A token for `user` that ends in this many seconds (RFC 7519, HS256).
fn token(secret: &[u8], user: &str, seconds: u64) -> String {
    let now = wall_clock().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let claims = format!("{{\"sub\":\"{user}\",\"exp\":{}}}", now + seconds);
    let signed = format!("{}.{}", encode(b"{\"alg\":\"HS256\"}"), encode(claims.as_bytes()));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

/// The end of a token ends the connection, and that is an end like others: the will is published by the rights of the user.
#[test]
fn the_will_of_a_client_whose_token_ends_is_published() {
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    let directory = tempfile::tempdir().expect("a directory");
    let key = directory.path().join("key");
    fs::write(&key, SECRET).expect("a key");
    let broker = with_rules("topic read #\nuser device\ntopic write state/device\n", |config| {
        config.auth.jwt.algorithm = Some(JwtAlgorithm::Hs256);
        config.auth.jwt.key_file = Some(key);
    });
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 1);
    let login = |topic: &str| {
        let connect = Connect5::new("").user_name("device").password(token(SECRET, "device", 2));
        RawClient5::open(broker.addr(), &connect.will(topic, "gone", 1, false)).0
    };
    let mut device = login("state/device");
    let mut forger = login("state/another");
    device.expect_disconnect(0xA0);
    forger.expect_disconnect(0xA0);
    watcher.expect_message_and_ack("state/device", "gone");
    watcher.expect_nothing();
    eventually(&broker, "the other will is refused", |metrics| metrics.dropped.get("acl_write") == Some(&1));
}
