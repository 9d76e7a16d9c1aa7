//! Settings that change while the broker runs: what counts from then on, for whom, and that who is connected stays. (Files that change, and the
//! rules of access, are in `access.rs` and `tls_certificates.rs`; signals and the log in `cli.rs`.)

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use support::broker::eventually;
use support::{Connect, Connect5, RawClient, RawClient5, ServerPacket, TestBroker, wire};
use ternmq::Extensions;
use ternmq::config::{AclSubscribe, Config, ListenerConfig, RefusedPublish};

/// alice: wonder.
const PASSWORDS: &str = "\
alice:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==
";

/// A broker, and the configuration that it is given anew.
struct House {
    config: Config,
    broker: TestBroker,
}

impl House {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = TestBroker::config();
        change(&mut config);
        let broker = TestBroker::of(config.clone(), Extensions::default());
        Self { config, broker }
    }

    fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    fn change(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        assert_eq!(self.broker.reload(&self.config), [] as [String; 0]);
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.broker.metrics().dropped.get(reason).copied().unwrap_or(0)
    }

    fn refused(&self, reason: &str) -> u64 {
        self.broker.metrics().refused.get(reason).copied().unwrap_or(0)
    }
}

fn code(addr: SocketAddr, connect: &Connect) -> u8 {
    let mut client = RawClient::connect(addr);
    client.send(&connect.bytes());
    let ServerPacket::ConnAck(_, code) = client.expect_packet() else { panic!("no CONNACK") };
    code
}

#[test]
fn limits_count_from_then_on_for_those_who_are_connected_too() {
    let mut house = House::new(|_| {});
    let mut client = RawClient::clean(house.addr(), "c");
    client.subscribe("a/#", 1);
    client.publish_retained("kept", 1, "x");
    house.change(|config| {
        config.limits.topic_bytes_max = 5;
        config.limits.topic_levels_max = 2;
        config.limits.retained_messages_max = 1;
        config.limits.subscriptions_max = 2;
    });
    client.publish("longer", 1, "x");
    client.publish("a/b/c", 1, "x");
    assert_eq!((house.dropped("topic_bytes_max"), house.dropped("topic_levels_max")), (1, 1));
    client.publish_retained("more", 1, "x");
    assert_eq!((house.dropped("retained_messages_max"), house.broker.metrics().retained), (1, 1));
    assert_eq!(client.subscribe_all(&[("b", 1), ("c", 1)]), [1, 0x80]);
    house.change(|config| config.limits.retained_bytes_max = ternmq::config::MemoryMax::Bytes(10));
    client.publish_retained("kept", 1, "x");
    assert_eq!((house.dropped("retained_bytes_max"), house.broker.metrics().retained), (1, 0));
    // Up again.
    house.change(|config| config.limits = TestBroker::config().limits);
    client.publish("longer", 1, "x");
    assert_eq!(client.subscribe_all(&[("c", 1)]), [1]);
    assert_eq!(house.dropped("topic_bytes_max"), 1);
}

#[test]
fn queues_of_those_who_are_away_have_the_new_bound() {
    let mut house = House::new(|_| {});
    let mut away = RawClient::persistent(house.addr(), "away");
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = RawClient::clean(house.addr(), "p");
    for n in 0..5 {
        publisher.publish("t", 1, n.to_string());
    }
    house.change(|config| config.limits.queue_messages_max = 3);
    publisher.publish("t", 1, "5");
    assert_eq!(house.dropped("queue_full"), 1);
    // What was there stays.
    let mut away = RawClient::resume(house.addr(), "away");
    for n in 0..5 {
        away.expect_message_and_ack("t", n.to_string());
    }
    away.expect_nothing();
}

#[test]
fn connections_are_counted_against_the_new_bounds() {
    let mut house = House::new(|_| {});
    let mut first = RawClient::clean(house.addr(), "first");
    house.change(|config| config.limits.connections_max = 1);
    RawClient::connect(house.addr()).expect_closed();
    assert_eq!(house.refused("connections_max"), 1);
    house.change(|config| {
        config.limits.connections_max = 100;
        config.limits.sessions_max = 1;
    });
    assert_eq!(code(house.addr(), &Connect::new("second")), 3);
    house.change(|config| {
        config.limits.sessions_max = 100;
        config.limits.connect_rate_max = Some(1);
    });
    let (mut second, mut third) =
        (RawClient::clean(house.addr(), "second"), RawClient::clean(house.addr(), "third"));
    RawClient::connect(house.addr()).expect_closed();
    assert_eq!(house.refused("connect_rate_max"), 1);
    house.change(|config| {
        config.limits.connect_rate_max = None;
        config.limits.connect_timeout = Duration::from_millis(50);
    });
    RawClient::connect(house.addr()).expect_closed();
    // The socket is closed first.
    eventually(&house.broker, "the client that says nothing is counted", |metrics| {
        metrics.refused.get("connect_timeout") == Some(&1)
    });
    for client in [&mut first, &mut second, &mut third] {
        client.publish("t", 1, "still here");
    }
}

#[test]
fn what_a_client_was_told_holds_for_its_connection() {
    let mut house = House::new(|_| {});
    let (mut before, ..) = RawClient5::open(house.addr(), &Connect5::new("before"));
    house.change(|config| {
        config.limits.packet_bytes_max = 100;
        config.limits.topic_alias_max = 0;
        config.limits.publish_rate_max = Some(1);
    });
    before.publish("t", 1, "x".repeat(1_000));
    assert!(before.publish_with("t", 2, &[0x23, 0, 1], "alias") < 0x80);
    let (mut after, _, told) = RawClient5::open(house.addr(), &Connect5::new("after"));
    assert!(told.raw.windows(5).any(|bytes| bytes == [0x27, 0, 0, 0, 100]), "{told:?}");
    for _ in 0..5 {
        before.publish("t", 1, "x");
    }
    assert_eq!(house.broker.metrics().held.get("publish_rate_max"), None);
    after.send(&support::wire5::publish5(2, "t", Some(1), &[], "x".repeat(1_000)));
    after.expect_disconnect(0x95);
    let mut slow = RawClient::clean(house.addr(), "slow");
    slow.send(&[wire::publish_qos0("t", "1"), wire::publish_qos0("t", "2")].concat());
    let deadline = Instant::now() + support::DEADLINE;
    while house.broker.metrics().held.get("publish_rate_max") != Some(&1) {
        assert!(Instant::now() < deadline, "{:#?}", house.broker.metrics());
        std::thread::yield_now();
    }
}

#[test]
fn the_memory_of_all_queues_has_the_new_bound() {
    let mut house = House::new(|_| {});
    let mut away = RawClient::persistent(house.addr(), "away");
    away.subscribe("t", 1);
    away.disconnect();
    let mut publisher = RawClient::clean(house.addr(), "p");
    for _ in 0..30 {
        publisher.publish("t", 1, "x".repeat(100_000));
    }
    assert!(house.broker.metrics().waiting_bytes > 2_900_000);
    house.change(|config| config.limits.memory_max = ternmq::config::MemoryMax::Bytes(1_000_000));
    publisher.publish("t", 1, "x");
    assert!(house.broker.metrics().waiting_bytes <= 1_000_000);
    assert!(house.dropped("memory_max") > 15 || house.broker.metrics().storage.is_some());
}

#[test]
fn failed_logins_are_counted_by_the_new_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let passwords = directory.path().join("passwords");
    fs::write(&passwords, PASSWORDS).expect("passwords");
    let mut house = House::new(|config| {
        config.auth.password_file = Some(passwords.clone());
        config.auth.delay_max = Duration::ZERO;
    });
    let guess = Connect::new("x").user_name("nobody").password("guess");
    for _ in 0..5 {
        assert_eq!(code(house.addr(), &guess), 4);
    }
    house.change(|config| config.auth.failures_max = 5);
    // The first above it brings the ban.
    assert_eq!(code(house.addr(), &guess), 4);
    assert_eq!(code(house.addr(), &guess), 5);
    assert_eq!(house.refused("refused_banned"), 1);
}

#[test]
fn subscriptions_are_refused_from_then_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl");
    fs::write(&rules, "topic read open/#\n").expect("rules");
    let mut house = House::new(|config| config.auth.acl_file = Some(rules.clone()));
    let mut client = RawClient::clean(house.addr(), "c");
    assert_eq!(client.subscribe_all(&[("#", 1)]), [1]);
    house.change(|config| config.auth.subscribe = AclSubscribe::Refuse);
    assert_eq!(client.subscribe_all(&[("+/x", 1), ("open/x", 1)]), [0x80, 1]);
    house.change(|config| config.auth.subscribe = AclSubscribe::Filter);
    assert_eq!(client.subscribe_all(&[("+/x", 1)]), [1]);
}

#[test]
fn a_listener_asks_those_who_come_what_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl");
    fs::write(&rules, "topic read open/#\n").expect("rules");
    let mut house = House::new(|config| {
        // Both on a free port: told apart by their order.
        config.listeners.push(ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into()));
        config.auth.acl_file = Some(rules.clone());
    });
    let (open, other) = (house.broker.addrs()[0], house.broker.addrs()[1]);
    let mut client = RawClient::clean(other, "c");
    house.change(|config| {
        config.listeners[1].allow_anonymous = false;
        config.listeners[1].refused_publish = RefusedPublish::Disconnect;
    });
    assert_eq!(code(open, &Connect::new("x")), 0);
    assert_eq!(code(other, &Connect::new("x")), 5);
    // As when it came.
    client.publish("open/x", 1, "x");
    house.change(|config| {
        config.listeners[1].allow_anonymous = true;
        config.listeners[0].allow_anonymous = false;
    });
    assert_eq!(code(open, &Connect::new("x")), 5);
    let mut later = RawClient::clean(other, "later");
    later.send(&wire::publish_qos1(1, "open/x", "x"));
    later.expect_closed();
    client.publish("open/x", 1, "x");
    assert_eq!(house.dropped("acl_write"), 3);
    // A listener that is not in the configuration any more goes on as it was, until a restart.
    house.change(|config| config.listeners.truncate(1));
    assert_eq!(code(other, &Connect::new("x")), 0);
}

#[test]
fn nothing_is_opened_that_a_broken_file_was_to_guard() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl");
    fs::write(&rules, "topics read #\n").expect("rules");
    let mut house = House::new(|config| {
        config.listeners[0].allow_anonymous = false;
        config.limits.sessions_max = 7;
    });
    house.config.listeners[0].allow_anonymous = true;
    house.config.auth.acl_file = Some(rules.clone());
    house.config.limits.topic_bytes_max = 3;
    assert_eq!(house.broker.reload(&house.config).len(), 1);
    assert_eq!(code(house.addr(), &Connect::new("x")), 5);
    fs::write(&rules, "topic read #\n").expect("rules");
    house.change(|_| {});
    let mut client = RawClient::clean(house.addr(), "x");
    client.publish("long", 1, "x");
    assert_eq!((house.dropped("topic_bytes_max"), house.dropped("acl_write")), (1, 0));
    client.publish("t", 1, "x");
    assert_eq!(house.dropped("acl_write"), 1);
}
