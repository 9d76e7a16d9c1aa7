//! Who may do what, over the wire: logins, the rules of access in every place where they count, whose a session is, and new rules while
//! the broker runs.

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use support::raw_client::topics;
use support::{
    Connect, Connect5, RawClient, RawClient5, ServerPacket, ServerPacket5, TestBroker, wire, wire5,
};
use tempfile::TempDir;
use ternmq::Extensions;
use ternmq::config::{AclSubscribe, Config, RefusedPublish};

/// alice: wonder, bob: builder.
const PASSWORDS: &str = "\
alice:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==
bob:$7$101$MDEyMzQ1Njc4OWFi$05MiFcfkZx1BSeHFobQxcPs5r2GPtqXYqFnS01wIvll4QsNqJSrMjq4yqTO2dSf7XDNnollOfkz1oXQPPGTN0w==
";

/// alice may do everything but on `secret`; bob reads `open/#` and writes `bob/#`.
const RULES: &str = "\
topic read public/#
user alice
topic readwrite #
topic deny secret/#
user bob
topic read open/#
topic readwrite bob/#
";

/// A broker with its files.
struct House {
    directory: TempDir,
    config: Config,
    broker: TestBroker,
}

impl House {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        Self::with(|config, _| change(config))
    }

    fn on_disk() -> Self {
        Self::with(|config, directory| config.data_dir = Some(directory.join("data")))
    }

    fn with(change: impl FnOnce(&mut Config, &Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("passwords"), PASSWORDS).expect("passwords");
        fs::write(directory.path().join("acl"), RULES).expect("rules");
        let mut config = TestBroker::config();
        config.auth.password_file = Some(directory.path().join("passwords"));
        config.auth.acl_file = Some(directory.path().join("acl"));
        change(&mut config, directory.path());
        let broker = TestBroker::of(config.clone(), Extensions::default());
        Self { directory, config, broker }
    }

    fn addr(&self) -> SocketAddr {
        self.broker.addr()
    }

    fn restart(self) -> Self {
        let Self { directory, config, broker } = self;
        drop(broker);
        let broker = TestBroker::of(config.clone(), Extensions::default());
        Self { directory, config, broker }
    }

    fn new_rules(&self, rules: &str) {
        fs::write(self.directory.path().join("acl"), rules).expect("rules");
        assert_eq!(self.broker.reload(&self.config), [] as [String; 0]);
    }

    fn dropped(&self, reason: &str) -> u64 {
        self.broker.metrics().dropped.get(reason).copied().unwrap_or(0)
    }
}

fn login(id: &str, user: &str) -> Connect {
    let password = if user == "alice" { "wonder" } else { "builder" };
    Connect::new(id).user_name(user).password(password)
}

fn stays(id: &str, user: &str) -> Connect {
    let password = if user == "alice" { "wonder" } else { "builder" };
    Connect::persistent(id).user_name(user).password(password)
}

fn open(house: &House, id: &str, user: &str) -> RawClient {
    RawClient::open(house.addr(), &login(id, user)).0
}

fn refused(addr: SocketAddr, connect: &Connect) -> u8 {
    let mut client = RawClient::connect(addr);
    client.send(&connect.bytes());
    let ServerPacket::ConnAck(false, code) = client.expect_packet() else { panic!("no CONNACK") };
    client.expect_closed();
    code
}

#[test]
fn who_logs_in_is_let_in_and_nobody_else() {
    let house = House::new(|config| config.listeners[0].allow_anonymous = false);
    open(&house, "a", "alice").disconnect();
    let addr = house.addr();
    assert_eq!(refused(addr, &Connect::new("x").user_name("alice").password("wrong")), 4);
    assert_eq!(refused(addr, &Connect::new("x").user_name("nobody").password("wonder")), 4);
    assert_eq!(refused(addr, &Connect::new("x").user_name("alice")), 4);
    assert_eq!(refused(addr, &Connect::new("x")), 5);
    let refused = house.broker.metrics().refused;
    assert_eq!(
        (refused.get("refused_bad_credentials"), refused.get("refused_not_authorized")),
        (Some(&3), Some(&1))
    );
}

#[test]
fn a_wrong_password_does_not_make_an_anonymous_client() {
    let house = House::new(|_| {});
    assert_eq!(refused(house.addr(), &Connect::new("x").user_name("alice").password("wrong")), 4);
    RawClient::clean(house.addr(), "without a name").disconnect();
}

#[test]
fn who_fails_again_and_again_is_banned() {
    let house = House::new(|config| {
        config.auth.failures_max = 3;
        config.auth.delay_max = std::time::Duration::ZERO;
    });
    let wrong = Connect::new("x").user_name("alice").password("guess");
    let codes: Vec<u8> = (0..6).map(|_| refused(house.addr(), &wrong)).collect();
    assert_eq!(codes[..3], [4, 4, 4]);
    assert_eq!(codes[5], 5, "{codes:?}");
    assert_eq!(refused(house.addr(), &login("x", "alice")), 5, "the right one as well");
    // Others at the address are not touched.
    open(&house, "b", "bob").disconnect();
    assert!(house.broker.metrics().refused["refused_banned"] >= 2);
}

#[test]
fn a_refused_publish_is_acknowledged_dropped_and_counted() {
    let house = House::new(|_| {});
    let mut reader = open(&house, "r", "alice");
    reader.subscribe("#", 1);
    let mut bob = open(&house, "b", "bob");
    for qos in [0, 1, 2] {
        bob.publish("open/x", qos, "no");
        bob.publish("bob/x", qos, "yes");
        // Once more, from the cache of routes.
        bob.publish("open/x", qos, "no");
    }
    bob.publish_retained("open/x", 1, "no");
    assert_eq!(topics(&mut reader), ["bob/x", "bob/x", "bob/x"]);
    assert_eq!((house.dropped("acl_write"), house.broker.metrics().retained), (7, 0));
}

#[test]
fn a_refused_publish_ends_the_connection_where_the_listener_says_so() {
    let house = House::new(|config| config.listeners[0].refused_publish = RefusedPublish::Disconnect);
    let mut bob = open(&house, "b", "bob");
    bob.publish("bob/x", 1, "yes");
    bob.send(&wire::publish_qos0("open/x", "no"));
    bob.expect_closed();
    assert_eq!(house.broker.metrics().closed.get("acl_write"), Some(&1));
}

#[test]
fn mqtt_5_has_a_code_for_a_refused_publish() {
    for refused_publish in [RefusedPublish::AckAndCount, RefusedPublish::Disconnect] {
        let house = House::new(|config| config.listeners[0].refused_publish = refused_publish);
        let connect = Connect5::new("b").user_name("bob").password("builder");
        let (mut bob, ..) = RawClient5::open(house.addr(), &connect);
        bob.send(&wire5::publish5(2, "open/x", Some(7), &[], "no"));
        let ServerPacket5::PubAck(7, 0x87) = bob.expect_packet() else { panic!("not 0x87") };
        bob.send(&wire5::publish5(4, "open/x", Some(8), &[], "no"));
        let ServerPacket5::PubRec(8, 0x87) = bob.expect_packet() else { panic!("not 0x87") };
        bob.publish("bob/x", 1, "yes");
    }
}

#[test]
fn a_subscription_gives_what_may_be_read() {
    let house = House::new(|_| {});
    let mut alice = open(&house, "a", "alice");
    alice.publish_retained("open/kept", 1, "x");
    alice.publish_retained("private/kept", 1, "x");
    alice.publish_retained("public/kept", 1, "x");
    let mut bob = open(&house, "b", "bob");
    bob.subscribe_all(&[("#", 1)]);
    assert_eq!(topics(&mut bob), ["open/kept"]);
    let mut anonymous = RawClient::clean(house.addr(), "n");
    anonymous.subscribe("#", 1);
    assert_eq!(topics(&mut anonymous), ["public/kept"]);
    for topic in ["open/1", "private/1", "public/1", "bob/1", "open/2"] {
        alice.publish(topic, 1, "x");
    }
    assert_eq!(topics(&mut bob), ["open/1", "bob/1", "open/2"]);
    assert_eq!(topics(&mut anonymous), ["public/1"]);
    assert!(house.dropped("acl_read") >= 9);
}

#[test]
fn subscriptions_are_refused_where_the_configuration_says_so() {
    let house = House::new(|config| config.auth.subscribe = AclSubscribe::Refuse);
    let mut bob = open(&house, "b", "bob");
    let filters = [
        ("open/#", 1),
        ("#", 1),
        ("secret/x", 0),
        ("$share/g/open/+", 1),
        ("$share/g/#", 1),
        ("open/+/x", 2),
    ];
    assert_eq!(bob.subscribe_all(&filters), [1, 0x80, 0x80, 1, 0x80, 2]);
    let connect = Connect5::new("b5").user_name("bob").password("builder");
    let (mut bob, ..) = RawClient5::open(house.addr(), &connect);
    assert_eq!(bob.subscribe_all(&[], &[("#", 1), ("open/x", 1)]), [0x87, 1]);
    assert_eq!(house.dropped("acl_subscribe"), 4);
}

#[test]
fn a_will_is_published_where_its_client_may() {
    let house = House::new(|_| {});
    let mut alice = open(&house, "a", "alice");
    alice.subscribe("#", 1);
    for (id, topic) in [("1", "open/will"), ("2", "bob/will")] {
        RawClient::open(house.addr(), &login(id, "bob").will(topic, "gone", 1, true)).0.vanish();
    }
    while house.broker.metrics().wills_published + house.dropped("acl_write") < 2 {
        std::thread::yield_now();
    }
    assert_eq!(topics(&mut alice), ["bob/will"]);
    assert_eq!((house.dropped("acl_write"), house.broker.metrics().retained), (1, 1));
}

#[test]
fn a_member_of_a_group_gets_what_it_may_read() {
    let house = House::new(|_| {});
    let mut bob = open(&house, "b", "bob");
    let mut alice = open(&house, "a", "alice");
    for member in [&mut bob, &mut alice] {
        member.subscribe("$share/g/#", 1);
    }
    let mut publisher = open(&house, "p", "alice");
    for topic in ["private/x", "open/x"] {
        for _ in 0..6 {
            publisher.publish(topic, 1, "x");
        }
    }
    let (of_bob, of_alice) = (topics(&mut bob), topics(&mut alice));
    assert!(of_bob.iter().all(|topic| topic == "open/x") && !of_bob.is_empty(), "{of_bob:?}");
    assert_eq!(of_bob.len() + of_alice.len(), 12);
}

/// What bob has in his queue, in memory or on disk, and what he is sent when he comes back after the rules have changed.
fn queued_under_new_rules(house: House, count: usize) {
    let mut bob = RawClient::open(house.addr(), &stays("b", "bob")).0;
    bob.subscribe("#", 1);
    bob.disconnect();
    let mut alice = open(&house, "a", "alice");
    for n in 0..count {
        alice.publish(&format!("open/{n}"), 1, "x");
        alice.publish(&format!("bob/{n}"), 1, "x");
    }
    house.new_rules("user bob\ntopic read bob/#\nuser alice\ntopic write #\n");
    let mut bob = RawClient::open(house.addr(), &stays("b", "bob")).0;
    let mut seen = Vec::new();
    while seen.len() < count {
        seen.extend(topics(&mut bob));
    }
    assert_eq!(seen, (0..count).map(|n| format!("bob/{n}")).collect::<Vec<_>>());
    assert_eq!(house.dropped("acl_read"), count as u64);
    // And it is not there after a restart either.
    bob.disconnect();
    let house = house.restart();
    house.new_rules(RULES);
    let mut bob = RawClient::open(house.addr(), &stays("b", "bob")).0;
    assert_eq!(topics(&mut bob), [] as [String; 0]);
}

#[test]
fn new_rules_hold_for_what_waits_in_memory() {
    queued_under_new_rules(House::new(|_| {}), 20);
}

#[test]
fn new_rules_hold_for_what_waits_on_disk() {
    queued_under_new_rules(House::on_disk(), 1_500);
}

#[test]
fn new_rules_hold_for_living_sessions_and_retained_messages() {
    let house = House::new(|_| {});
    let (mut alice, mut bob) = (open(&house, "a", "alice"), open(&house, "b", "bob"));
    let mut writer = open(&house, "w", "bob");
    bob.subscribe("#", 1);
    alice.publish_retained("open/kept", 1, "x");
    writer.publish("bob/x", 1, "x");
    assert_eq!(topics(&mut bob), ["open/kept", "bob/x"]);
    house.new_rules("user bob\ntopic read bob/#\nuser alice\ntopic readwrite #\n");
    alice.publish("open/kept", 1, "x");
    alice.publish("bob/y", 1, "x");
    // bob may not write any more, though the route was kept.
    writer.publish("bob/x", 1, "x");
    bob.subscribe_all(&[("open/+", 1)]);
    assert_eq!(topics(&mut bob), ["bob/y"]);
    assert_eq!(house.dropped("acl_write"), 1);
    // And back.
    house.new_rules(RULES);
    alice.publish("open/kept", 1, "x");
    writer.publish("bob/x", 1, "x");
    assert_eq!(topics(&mut bob), ["open/kept", "bob/x"]);
}

#[test]
fn a_session_is_its_users() {
    let mut house = House::on_disk();
    for _ in 0..2 {
        let mut alice = RawClient::open(house.addr(), &stays("device", "alice")).0;
        alice.subscribe("t", 1);
        assert_eq!(refused(house.addr(), &stays("device", "bob")), 5);
        assert_eq!(refused(house.addr(), &login("device", "bob")), 5);
        assert_eq!(refused(house.addr(), &Connect::persistent("device")), 5);
        alice.disconnect();
        // Nor when she is away, nor after a restart.
        assert_eq!(refused(house.addr(), &stays("device", "bob")), 5);
        house = house.restart();
        assert_eq!(refused(house.addr(), &stays("device", "bob")), 5);
    }
    let (_, present) = RawClient::open(house.addr(), &stays("device", "alice"));
    assert!(present);
}

#[test]
fn a_user_gets_the_client_id_of_an_anonymous_session_and_nothing_else_of_it() {
    let house = House::on_disk();
    let mut anonymous = RawClient::persistent(house.addr(), "device");
    anonymous.subscribe("public/#", 1);
    let (mut alice, present) = RawClient::open(house.addr(), &stays("device", "alice"));
    anonymous.expect_closed();
    assert!(!present);
    open(&house, "p", "alice").publish("public/x", 1, "x");
    assert_eq!(topics(&mut alice), [] as [String; 0]);
    assert_eq!(house.broker.metrics().subscriptions, 0);
}

#[test]
fn who_came_in_by_an_entry_that_is_gone_or_another_one_is_disconnected() {
    let house = House::on_disk();
    let new_passwords = |text: &str| {
        fs::write(house.directory.path().join("passwords"), text).expect("written");
        house.broker.reload(&house.config)
    };
    let bob5 = Connect5::new("b5").user_name("bob").password("builder").will("bob/five", "gone", 1, false);
    let connect_all = || {
        let bob = RawClient::open(house.addr(), &stays("b", "bob").will("bob/will", "gone", 1, false)).0;
        (bob, RawClient5::open(house.addr(), &bob5).0)
    };
    let mut alice = open(&house, "a", "alice");
    alice.subscribe("#", 1);
    let mut anonymous = RawClient::clean(house.addr(), "n");
    let (of_alice, of_bob) = PASSWORDS.split_once('\n').expect("two lines");
    // Gone; with the hash of another password; and back. Alice's entry is the same all the while, wherever it stands.
    let other_hash = of_alice.replacen("alice:", "bob:", 1);
    let mut count = 0;
    for text in [format!("# bob is gone\n\n{of_alice}\n"), format!("{other_hash}\n{of_alice}\n")] {
        assert_eq!(new_passwords(&format!("{of_bob}# in another order\n{of_alice}\n")), [] as [String; 0]);
        let (mut bob, mut bob5) = connect_all();
        bob.subscribe("open/#", 1);
        // Read anew, and the same.
        assert_eq!(new_passwords(PASSWORDS), [] as [String; 0]);
        // A fault leaves what was, and everybody where he is.
        assert_eq!(new_passwords("alice:plain\n").len(), 1);
        bob.expect_nothing();
        bob5.expect_nothing();
        assert_eq!(new_passwords(&text), [] as [String; 0]);
        bob5.expect_disconnect(0x87);
        bob.expect_closed();
        count += 2;
        let mut wills = [alice.expect_publish(), alice.expect_publish()].map(|will| {
            alice.send(&wire::puback(will.id()));
            will.topic
        });
        wills.sort();
        assert_eq!(wills, ["bob/five", "bob/will"]);
        assert_eq!(house.broker.metrics().closed.get("login_revoked"), Some(&count));
        assert_eq!(refused(house.addr(), &stays("b", "bob")), 4);
        // The session is there, and it is bob's.
        assert_eq!(refused(house.addr(), &stays("b", "alice")), 5);
        open(&house, "w", "alice").publish("open/while-away", 1, "x");
        assert_eq!(topics(&mut alice), ["open/while-away"]);
        assert_eq!(new_passwords(PASSWORDS), [] as [String; 0]);
        let (mut bob, present) = RawClient::open(house.addr(), &stays("b", "bob"));
        assert!(present);
        assert_eq!(bob.expect_message_and_ack("open/while-away", "x").topic, "open/while-away");
        bob.disconnect();
    }
    anonymous.expect_nothing();
}

#[test]
fn files_that_cannot_be_read_let_nobody_in_and_leave_what_was() {
    let house = House::new(|_| {});
    fs::write(house.directory.path().join("acl"), "topic everything #\n").expect("written");
    fs::write(house.directory.path().join("passwords"), "alice:plain\n").expect("written");
    let failures = house.broker.reload(&house.config);
    assert_eq!(failures.len(), 2, "{failures:?}");
    assert!(failures.iter().any(|failure| failure.contains("acl:1")), "{failures:?}");
    assert!(failures.iter().any(|failure| failure.contains("passwords:1")), "{failures:?}");
    let mut bob = open(&house, "b", "bob");
    bob.publish("open/x", 1, "x");
    assert_eq!(house.dropped("acl_write"), 1);
    // A broker that begins so does not begin.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let error =
        runtime.block_on(ternmq::Broker::start(house.config.clone())).err().expect("it does not start");
    assert!(error.to_string().contains("acl:1"), "{error}");
    let missing = Config { acl: Vec::new(), ..house.config.clone() };
    fs::remove_file(house.directory.path().join("acl")).expect("removed");
    assert!(runtime.block_on(ternmq::Broker::start(missing)).is_err());
}

#[test]
fn connections_per_user_max_counts_a_users_connections_until_they_end_however_they_do() {
    let house = House::new(|config| config.limits.connections_per_user_max = Some(2));
    let gone = |left| {
        let deadline = Instant::now() + support::DEADLINE;
        while house.broker.metrics().sockets != left {
            assert!(Instant::now() < deadline, "{:#?}", house.broker.metrics());
            std::thread::yield_now();
        }
    };
    let one = open(&house, "one", "alice");
    let two = open(&house, "two", "alice");
    assert_eq!(refused(house.addr(), &login("three", "alice")), 3);
    let connect = Connect5::new("three").user_name("alice").password("wonder");
    RawClient5::refused(house.addr(), &connect.bytes(), 0x97);
    assert_eq!(house.broker.metrics().refused.get("connections_per_user_max"), Some(&2));
    // Others have their own, and who takes over its own connection is no further one.
    let _bob = open(&house, "bob", "bob");
    let two_again = open(&house, "two", "alice");
    drop(two);
    assert_eq!(refused(house.addr(), &login("three", "alice")), 3);
    gone(3);
    one.disconnect();
    two_again.reset();
    gone(1);
    let _both = [open(&house, "three", "alice"), open(&house, "four", "alice")];
    assert_eq!(refused(house.addr(), &login("five", "alice")), 3);
}

#[test]
fn a_retained_message_is_replayed_while_who_stored_it_may_write_there() {
    const BOTH_READ: &str = "topic read #\nuser alice\ntopic readwrite #\nuser bob\ntopic read #\n";
    for on_disk in [false, true] {
        let mut house = if on_disk { House::on_disk() } else { House::new(|_| {}) };
        house.new_rules("topic readwrite #\nuser alice\ntopic readwrite #\nuser bob\ntopic readwrite #\n");
        let mut alice = open(&house, "a", "alice");
        alice.publish_retained("x/alice", 1, "x");
        alice.publish_retained("x/both", 1, "x");
        open(&house, "b", "bob").publish_retained("x/bob", 1, "x");
        open(&house, "b", "bob").publish_retained("x/both", 1, "x");
        RawClient::clean(house.addr(), "n").publish_retained("x/nobody", 1, "x");
        let will = login("w", "bob").will("x/will", "gone", 1, true);
        RawClient::open(house.addr(), &will).0.vanish();
        while house.broker.metrics().retained < 5 {
            std::thread::yield_now();
        }
        let kept = |house: &House, client: &mut RawClient| {
            client.subscribe("x/#", 1);
            assert_eq!(house.broker.metrics().retained, 5);
            topics(client)
        };
        let all = ["x/alice", "x/bob", "x/both", "x/nobody", "x/will"];
        assert_eq!(kept(&house, &mut alice), all);
        house.new_rules(BOTH_READ);
        assert_eq!(kept(&house, &mut alice), ["x/alice"]);
        assert_eq!(house.dropped("acl_source"), 4);
        // Rights of the client id count as those of the user do, and what comes back is there again.
        house.new_rules(&format!("{BOTH_READ}pattern write x/will\npattern readwrite +/%c\n"));
        assert_eq!(kept(&house, &mut alice), ["x/alice", "x/will"]);
        house = house.restart();
        let mut alice = open(&house, "a", "alice");
        if on_disk {
            house.new_rules(BOTH_READ);
            assert_eq!(kept(&house, &mut alice), ["x/alice"]);
            house.new_rules(&format!("{BOTH_READ}topic readwrite x/both\n"));
            assert_eq!(kept(&house, &mut alice), ["x/alice", "x/both"]);
            // Whoever writes it next is the source.
            open(&house, "b", "alice").publish_retained("x/bob", 1, "x");
            house = house.restart();
            house.new_rules(BOTH_READ);
            let mut alice = open(&house, "a", "alice");
            assert_eq!(kept(&house, &mut alice), ["x/alice", "x/bob"]);
        }
    }
}
