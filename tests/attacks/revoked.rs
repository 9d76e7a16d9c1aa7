//! Going on with rights that were taken away: what was sent, queued, kept or left as a will before counts by the rules of the moment
//! in which it would have its effect.
//!
//! As built, and said in README: who came in by an entry of the password file that is gone or has another hash is disconnected; who came in
//! otherwise stays connected, and only its rules count from then on. So to revoke such a user means to take its rules away.

use std::fs;
use std::path::Path;

use crate::house::{House, topics, topics_until, topics5};
use crate::program::Program;
use crate::support::{Connect, Connect5, RawClient, ServerPacket, ServerPacket5, wire, wire5};
use crate::token::{self, login, login5, stays, stays5};

const BEFORE: &str = "\
user alice
topic readwrite #
user mallory
topic readwrite plant/#
topic read end
";

const AFTER: &str = "\
user alice
topic readwrite #
user mallory
topic read end
";

fn house() -> House {
    House::with_rules(BEFORE, |_, _| {})
}

fn house_on_disk() -> House {
    House::with_rules(BEFORE, |config, directory| config.data_dir = Some(directory.join("data")))
}

#[test]
fn publishing_and_subscribing_on_a_connection_that_is_open() {
    let house = house();
    let mut alice = house.open(&login("alice", "alice"));
    alice.subscribe("#", 1);
    let mut mallory = house.open(&login("m", "mallory"));
    let mut mallory5 = house.open5(&login5("m5", "mallory"));
    let mut reader = house.open(&login("r", "mallory"));
    let mut reader5 = house.open5(&login5("r5", "mallory"));
    reader.subscribe("plant/#", 1);
    reader5.subscribe("$share/g/plant/#", 1);
    // With a route that is kept, an alias that is known, and a QoS 2 message under way.
    mallory.publish("plant/x", 1, "m");
    let alias = wire5::two(wire5::id::TOPIC_ALIAS, 1);
    assert_eq!(mallory5.publish_with("plant/alias", 4, &alias, "m"), 0);
    mallory.send(&wire::publish_qos2(500, "plant/two", "m"));
    mallory.expect(&wire::pubrec(500));
    let all = ["plant/x", "plant/alias", "plant/two"];
    assert_eq!(
        (topics(&mut alice), topics(&mut reader)),
        (all.map(String::from).into(), all.map(String::from).into())
    );
    assert_eq!(topics5(&mut reader5), all);
    house.new_rules(AFTER);
    mallory.publish("plant/x", 1, "m");
    mallory.publish_retained("plant/y", 2, "m");
    // The message was taken before; its release ends it, and is no second one.
    mallory.send(&wire::pubrel(500));
    mallory.expect(&wire::pubcomp(500));
    mallory5.send(&wire5::publish5(2, "", Some(77), &alias, "m"));
    assert_eq!(mallory5.expect_packet(), ServerPacket5::PubAck(77, 0x87));
    assert_eq!(topics(&mut alice), [] as [String; 0]);
    // To one side as to the other, by the subscriptions of before and by new ones.
    reader.subscribe("plant/y", 1);
    let mut publisher = house.open(&login("p", "alice"));
    for topic in ["plant/x", "plant/y", "plant/new"] {
        publisher.publish_retained(topic, 1, "m");
    }
    reader.subscribe("plant/+", 1);
    assert_eq!((topics(&mut reader), topics5(&mut reader5)), (Vec::new(), Vec::new()));
}

#[test]
fn a_will_that_was_left_before() {
    let house = house();
    let mut alice = house.open(&login("alice", "alice"));
    alice.subscribe("#", 1);
    let will = |id: &str| login(id, "mallory").will("plant/will", "gone", 1, true);
    let [first, second] = ["one", "two"].map(|id| house.open(&will(id)));
    first.vanish();
    alice.expect_message_and_ack("plant/will", "gone");
    // One whose delay is over only after the rules have changed.
    let delayed = stays5("three", "mallory").will("plant/will", "gone", 1, true);
    let delayed = delayed.will_with(wire5::four(wire5::id::WILL_DELAY, 1));
    house.open5(&delayed).vanish();
    house.eventually("one offline", |metrics| metrics.sessions_offline == 1);
    house.new_rules(AFTER);
    second.vanish();
    house.eventually("two wills dropped", |metrics| metrics.dropped.get("acl_write") == Some(&2));
    alice.expect_nothing();
    assert_eq!(house.broker.metrics().wills_published, 1);
}

#[test]
fn a_retained_message_that_was_left_before() {
    let house = house();
    let mut alice = house.open(&login("alice", "alice"));
    let mut mallory = house.open(&login("m", "mallory"));
    mallory.publish_retained("plant/state", 1, "fine");
    alice.publish_retained("plant/other", 1, "fine");
    house.new_rules(AFTER);
    // Neither what it has left nor what others have can be replaced, removed or read back.
    for topic in ["plant/state", "plant/other"] {
        mallory.publish_retained(topic, 1, "broken");
        mallory.publish_retained(topic, 1, "");
        mallory.publish_retained(topic, 2, "");
    }
    mallory.subscribe("#", 1);
    mallory.expect_nothing();
    alice.subscribe("plant/other", 1);
    alice.expect_message_and_ack("plant/other", "fine");
    alice.unsubscribe("plant/other");
    alice.subscribe("plant/state", 1);
    let left: Vec<ServerPacket> = alice.packets_until_ping();
    assert!(!format!("{left:?}").contains("broken"), "{left:?}");
    // Who may, removes it.
    alice.unsubscribe("plant/state");
    alice.publish_retained("plant/state", 1, "");
    alice.subscribe("plant/state", 1);
    alice.expect_nothing();
}

#[test]
fn what_waits_for_a_session_that_is_away() {
    for mut house in [house(), house_on_disk()] {
        let connects = [stays("away", "mallory"), stays("under-way", "mallory")];
        let mut alice = house.open(&login("alice", "alice"));
        let mut sent = house.open(&connects[1]);
        sent.subscribe("plant/#", 1);
        let mut away = house.open(&connects[0]);
        away.subscribe("plant/#", 1);
        away.subscribe("end", 1);
        away.disconnect();
        sent.subscribe("end", 1);
        alice.publish("plant/1", 1, "m");
        // This one has been sent it, and has not acknowledged it.
        sent.expect_message("plant/1", "m");
        sent.vanish();
        house.eventually("both gone", |metrics| metrics.sessions_offline == 2);
        alice.publish("plant/2", 1, "m");
        house.new_rules(AFTER);
        alice.publish("plant/3", 1, "m");
        alice.disconnect();
        if house.config.data_dir.is_some() {
            house = house.restart();
        }
        house.open(&login("alice", "alice")).publish("end", 1, "m");
        let mut away = house.open(&connects[0]);
        assert_eq!(topics_until(&mut away, "end"), [] as [String; 0]);
        // What the client has seen already may be finished; nothing else comes.
        let seen = topics_until(&mut house.open(&connects[1]), "end");
        assert!(seen.iter().all(|topic| topic == "plant/1"), "{seen:?}");
    }
}

#[test]
fn staying_connected_when_the_password_is_taken_away() {
    const MALLORY: &str = "mallory:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==\n";
    let house = House::with_rules(BEFORE, |config, directory| {
        fs::write(directory.join("passwords"), MALLORY).expect("a file");
        config.auth.password_file = Some(directory.join("passwords"));
    });
    let mallory = |id: &str| Connect::persistent(id).user_name("mallory").password("wonder");
    let mut watcher = house.open(&login("watcher", "alice"));
    watcher.subscribe("#", 1);
    let mut connected = house.open(&mallory("connected").will("end", "gone", 1, false));
    connected.subscribe("plant/#", 1);
    let connect5 = Connect5::new("connected5").user_name("mallory").password("wonder").will(
        "plant/will",
        "gone",
        1,
        false,
    );
    let mut connected5 = house.open5(&connect5);
    // The same user by another method.
    let mut by_token = house.open(&login("token", "mallory"));
    let mut away = house.open(&mallory("away"));
    away.subscribe("plant/#", 1);
    away.disconnect();
    house.write("passwords", "# nobody\n");
    house.new_rules(AFTER);
    connected5.expect_disconnect(0x87);
    connected.expect_closed();
    house.eventually("two closed", |metrics| metrics.closed.get("login_revoked") == Some(&2));
    // Their wills are under the rules of now, by which neither may be published.
    house.eventually("two wills dropped", |metrics| metrics.dropped.get("acl_write") == Some(&2));
    assert_eq!(topics(&mut watcher), [] as [String; 0]);
    by_token.expect_nothing();
    // Nobody comes in by it, to the sessions that wait or to any other, and nobody else gets these.
    for id in ["away", "connected", "new"] {
        assert_eq!(house.refusal(&mallory(id)), 4, "{id}");
    }
    let mut alice = house.open(&login("alice", "alice"));
    alice.publish("plant/x", 1, "m");
    for id in ["connected", "away"] {
        assert_eq!(house.refusal(&login(id, "alice")), 5, "{id}");
    }
    // A user who is made anew under the old name is the old one: what was queued for it is under today's rules.
    house.write("passwords", MALLORY);
    house.reload();
    for id in ["away", "connected"] {
        let (mut back, present) = RawClient::open(house.addr(), &mallory(id));
        assert!(present, "{id}");
        assert_eq!(topics(&mut back), [] as [String; 0]);
    }
}

fn configuration(directory: &Path) -> String {
    fs::write(directory.join("secret"), token::SECRET).expect("a file");
    "data_dir = \"data\"\n[auth]\nacl_file = \"acl\"\n[auth.jwt]\nalgorithm = \"HS256\"\nkey_file = \"secret\"\n\
     [[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = false\n"
        .to_owned()
}

#[test]
fn a_will_that_is_left_by_a_crash_of_the_broker() {
    // The first time the rules stay: what the second one does not see would have come.
    for (rules_after, expected) in [(BEFORE, vec!["plant/kept", "plant/will"]), (AFTER, vec!["plant/kept"])] {
        let directory = tempfile::tempdir().expect("a directory");
        let configuration = configuration(directory.path());
        fs::write(directory.path().join("acl"), BEFORE).expect("a file");
        let program = Program::start(directory.path(), &configuration);
        let mut alice = RawClient::open(program.addr(), &stays("alice", "alice")).0;
        alice.subscribe("#", 1);
        let mut mallory =
            RawClient::open(program.addr(), &stays("m", "mallory").will("plant/will", "gone", 1, true)).0;
        mallory.expect_nothing();
        RawClient::open(program.addr(), &login("p", "alice")).0.publish_retained("plant/kept", 1, "m");
        alice.expect_message_and_ack("plant/kept", "m");
        program.kill();
        fs::write(directory.path().join("acl"), rules_after).expect("a file");
        let mut program = Program::start(directory.path(), &configuration);
        let mut reader = RawClient::open(program.addr(), &login("reader", "alice")).0;
        reader.subscribe("#", 1);
        let mut seen = topics(&mut reader);
        seen.sort();
        assert_eq!(seen, expected);
        // Nor later, when the rules are as they were: it is off the record.
        fs::write(directory.path().join("acl"), BEFORE).expect("a file");
        program.reload();
        program.kill();
        let program = Program::start(directory.path(), &configuration);
        let (mut alice, present) = RawClient::open(program.addr(), &stays("alice", "alice"));
        assert!(present);
        RawClient::open(program.addr(), &login("p", "alice")).0.publish("end", 1, "m");
        let wills = topics_until(&mut alice, "end").into_iter().filter(|topic| topic == "plant/will");
        assert_eq!(wills.count(), expected.len() - 1);
        program.end();
    }
}
