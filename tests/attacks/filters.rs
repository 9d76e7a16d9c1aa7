//! Filters and topics chosen so that a rule overlooks them: wildcards, `$share`, `$SYS`, aliases.

use std::time::Duration;

use ternmq::config::AclSubscribe;

use crate::house::{House, topics, topics5};
use crate::support::{RawClient5, ServerPacket5, wire, wire5};
use crate::token::{login, login5};

/// mallory may read and write below `open`; reader reads everything that `#` is; alice may do everything.
const RULES: &str = "\
user mallory
topic readwrite open/#
user reader
topic read #
topic deny secret/#
user alice
topic readwrite #
topic readwrite $SYS/#
topic readwrite $share/#
topic readwrite $other/#
";

/// What somebody might subscribe to in order to get at `secret`, `secret/x`, `/secret` or `$SYS`. All of them are valid.
const FILTERS: [&str; 40] = [
    "#",
    "+",
    "/",
    "//",
    "+/+",
    "/#",
    "+/#",
    "/+",
    "+/",
    "+/x",
    "+/+/#",
    "secret",
    "secret/#",
    "secret/+",
    "secret/x",
    "/secret",
    "+/secret",
    "open/../secret",
    "open/#",
    "open/+",
    "$share/g/#",
    "$share/g/+",
    "$share/g/+/#",
    "$share/g/secret",
    "$share/g/secret/#",
    "$share/g/+/x",
    "$share/g//secret",
    "$share/g/$SYS/#",
    "$share/g/$SYS/broker/version",
    "$share/open/#",
    "$share/open/secret",
    "$share/g/$share/g/secret",
    "$share/$SYS/#",
    "$SYS/#",
    "$SYS/+/version",
    "$SYS/broker/version",
    "$other/#",
    "$other/+",
    "$share",
    "$/#",
];

const SECRETS: [&str; 7] = ["secret", "secret/x", "/secret", "x", "open", "$share/g/secret", "$other/secret"];

/// Nothing is below `$SYS` but what clients have forged.
fn house(subscribe: AclSubscribe) -> House {
    House::with_rules(RULES, |config, _| config.auth.subscribe = subscribe)
}

/// One that has told its counters, once.
fn house_with_sys() -> House {
    let house = House::with_rules(RULES, |config, _| config.sys_interval = Some(Duration::from_secs(3_600)));
    house.eventually("counters", |metrics| metrics.retained >= 10);
    house
}

/// Whether the rules let mallory read it.
fn is_open(topic: &str) -> bool {
    topic == "open" || topic.starts_with("open/")
}

#[test]
fn every_filter_that_could_match_a_secret() {
    let house = house_with_sys();
    let mut alice = house.open(&login("a", "alice"));
    for topic in SECRETS {
        alice.publish_retained(topic, 1, "kept");
    }
    let mut spies = Vec::new();
    for (n, filter) in FILTERS.iter().enumerate() {
        let mut spy = house.open(&login(&format!("spy-{n}"), "mallory"));
        spy.subscribe(filter, 1);
        let mut spy5 = house.open5(&login5(&format!("spy5-{n}"), "mallory"));
        spy5.subscribe(filter, 1 | wire5::RETAIN_AS_PUBLISHED);
        spies.push((spy, spy5, *filter));
    }
    for _ in 0..2 {
        for topic in SECRETS.iter().chain(&["open/x"]) {
            alice.publish_retained(topic, 1, "again");
            alice.publish(topic, 0, "and once more");
        }
    }
    let mut seen = 0;
    for (spy, spy5, filter) in &mut spies {
        for topics in [topics(spy), topics5(spy5)] {
            seen += topics.len();
            let secrets: Vec<&String> = topics.iter().filter(|topic| !is_open(topic)).collect();
            assert!(secrets.is_empty(), "{filter} gave {secrets:?}");
        }
    }
    // They would have seen what is theirs.
    assert!(seen > 100, "{seen}");
}

#[test]
fn a_wildcard_that_grants_everything_but_what_begins_with_a_dollar() {
    let house = house_with_sys();
    let mut alice = house.open(&login("a", "alice"));
    let mut reader = house.open(&login("r", "reader"));
    for filter in FILTERS {
        reader.subscribe(filter, 1);
    }
    for topic in SECRETS {
        alice.publish(topic, 1, "m");
    }
    // `#` is not `$SYS/#`; what `deny` names stays denied however it is asked for. What goes to a group goes to each group of it.
    let mut seen = topics(&mut reader);
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["/secret", "open", "x"]);
    // The same filters give alice all of it: they were no empty words.
    let mut other = house.open(&login("b", "alice"));
    for filter in FILTERS {
        other.subscribe(filter, 1);
    }
    for topic in SECRETS {
        alice.publish(topic, 1, "m");
    }
    let mut seen = topics(&mut other);
    seen.sort();
    seen.dedup();
    for topic in ["$SYS/broker/version", "$other/secret", "secret", "secret/x"] {
        assert!(seen.iter().any(|seen| seen == topic), "no {topic} in {seen:?}");
    }
}

#[test]
fn every_filter_where_subscriptions_are_judged() {
    let house = house(AclSubscribe::Refuse);
    let mut spy = house.open(&login("spy", "mallory"));
    let mut spy5 = house.open5(&login5("spy5", "mallory"));
    for filter in FILTERS {
        let is_harmless = matches!(filter, "open/#" | "open/+" | "open/../secret");
        let codes = (spy.subscribe_all(&[(filter, 1)]), spy5.subscribe_all(&[], &[(filter, 1)]));
        let expected = if is_harmless { (vec![1], vec![1]) } else { (vec![0x80], vec![0x87]) };
        assert_eq!(codes, expected, "{filter}");
    }
    assert_eq!(house.broker.metrics().subscriptions, 6);
}

#[test]
fn shared_filters_that_are_none() {
    let house = house(AclSubscribe::Filter);
    let mut alice = house.open(&login("a", "alice"));
    for filter in ["$share/", "$share//secret", "$share/+/secret", "$share/#", "$share/g", "$share/g/"] {
        let mut spy = house.open(&login("spy", "mallory"));
        assert_eq!(spy.subscribe_all(&[(filter, 1)]), [0x80], "{filter}");
        alice.publish("secret", 1, "m");
        spy.expect_nothing();
        let mut spy5 = house.open5(&login5("spy5", "mallory"));
        spy5.send(&wire5::subscribe5(1, &[], &[(filter, 1)]));
        assert!(matches!(spy5.packets_until_closed()[..], [ServerPacket5::Disconnect(0x81..0xA3, _)]));
    }
}

#[test]
fn publishing_where_a_rule_does_not_look() {
    let house = house(AclSubscribe::Filter);
    let mut alice = house.open(&login("a", "alice"));
    for filter in ["#", "$SYS/#", "$share/g/#", "$share/h/secret", "$other/#"] {
        alice.subscribe(filter, 1);
    }
    topics(&mut alice);
    let mut mallory = house.open(&login("m", "mallory"));
    for topic in [
        "secret",
        "secret/x",
        "/open",
        "/open/x",
        "/",
        "//",
        "openx",
        "Open/x",
        "open\u{200b}/x",
        "\u{feff}open/x",
        "$SYS/broker/version",
        "$SYS/open/x",
        "$share/g/secret",
        "$share/h/secret",
        "$share/g/open/x",
        "$open/x",
        "%u/x",
        "%c",
    ] {
        for qos in 0..3 {
            mallory.publish(topic, qos, "forged");
            mallory.publish_retained(topic, qos, "forged");
            // Empty and retained would remove what others have left.
            mallory.publish_retained(topic, qos, "");
        }
        assert_eq!(topics(&mut alice), [] as [String; 0], "{topic}");
    }
    // What is hers arrives, once by `#` and once in the group.
    mallory.publish("open/x", 1, "m");
    assert_eq!(topics(&mut alice), ["open/x", "open/x"]);
}

#[test]
fn an_alias_that_stood_for_something_allowed() {
    let house = house(AclSubscribe::Filter);
    let mut alice = house.open(&login("a", "alice"));
    alice.subscribe("#", 1);
    let mut mallory = house.open5(&login5("m", "mallory"));
    let mut publish = |topic: &str, alias: u16, retain: u8| {
        let id = mallory.next_packet_id();
        let alias = wire5::two(wire5::id::TOPIC_ALIAS, alias);
        mallory.send(&wire5::publish5(2 | retain, topic, Some(id), &alias, "m"));
        let ServerPacket5::PubAck(_, code) = mallory.expect_packet() else { panic!("no PUBACK") };
        code
    };
    assert_eq!(publish("open/x", 1, 0), 0);
    assert_eq!(publish("", 1, 0), 0);
    // A refused packet has named the alias anew all the same (section 3.3.2.3.4), and that is what is judged from now on.
    assert_eq!(publish("secret", 1, 1), 0x87);
    assert_eq!(publish("", 1, 1), 0x87);
    assert_eq!(publish("open/y", 2, 0), 0);
    assert_eq!(publish("", 1, 0), 0x87);
    assert_eq!(publish("", 2, 0), 0);
    assert_eq!(topics(&mut alice), ["open/x", "open/x", "open/y", "open/y"]);
    // And nothing was kept.
    let mut later = house.open(&login("b", "alice"));
    later.subscribe("#", 1);
    assert_eq!(topics(&mut later), [] as [String; 0]);
}

#[test]
fn a_will_where_one_may_not_publish() {
    let house = house(AclSubscribe::Filter);
    let mut alice = house.open(&login("a", "alice"));
    for filter in ["#", "$SYS/#", "$share/g/#"] {
        alice.subscribe(filter, 1);
    }
    topics(&mut alice);
    let topics_of_wills = ["secret", "/open", "$SYS/broker/version", "$share/g/secret", "open\u{200b}"];
    for (n, topic) in topics_of_wills.iter().enumerate() {
        let connect = login("w", "mallory").will(topic, "forged", 1, true);
        house.open(&connect).vanish();
        let connect = login5("w5", "mallory").will(topic, "forged", 1, true);
        house.open5(&connect).vanish();
        let dropped = 2 * (n as u64 + 1);
        house.eventually("both wills dropped", |metrics| {
            let count = |reason| metrics.dropped.get(reason).copied().unwrap_or_default();
            count("acl_write") + count("sys_topic") == dropped
        });
        alice.expect_nothing();
    }
    // Not even who may write to `$SYS` by the rules speaks for the broker.
    house.open(&login("w", "alice").will("$SYS/broker/version", "forged", 1, true)).vanish();
    house.eventually("one more dropped", |metrics| metrics.dropped.get("sys_topic") >= Some(&3));
    alice.expect_nothing();
    // A taken-over connection leaves a will as well.
    let connect = login("w", "mallory").will("secret", "forged", 1, true);
    let _first = house.open(&connect);
    let _second = house.open(&login("w", "mallory").will("open/w", "gone", 1, false));
    house.open(&login("w", "mallory")).disconnect();
    assert_eq!(alice.expect_publish().topic, "open/w");
    house.eventually("one more dropped", |metrics| metrics.dropped.get("acl_write") >= Some(&9));
}

#[test]
fn what_a_member_of_a_group_leaves_goes_to_no_member_that_may_not_read_it() {
    let house = house(AclSubscribe::Filter);
    let mut spy = house.open(&login("spy", "mallory"));
    spy.subscribe("$share/g/#", 1);
    let mut worker = house.open5(&login5("worker", "alice"));
    worker.subscribe("$share/g/#", 1);
    let mut alice = house.open(&login("a", "alice"));
    for n in 0..10 {
        alice.publish(&format!("secret/{n}"), 1, "m");
    }
    // Unacknowledged, all of them; its end gives them back to the group, in which there is only the spy now.
    for n in 0..10 {
        worker.expect_message(&format!("secret/{n}"), "m");
    }
    worker.vanish();
    house.eventually("the end", |metrics| metrics.clients_connected == 2);
    assert_eq!(topics(&mut spy), [] as [String; 0]);
    alice.publish("open/x", 1, "m");
    assert_eq!(topics(&mut spy), ["open/x"]);
}

#[test]
fn ill_formed_names_of_topics() {
    let house = house(AclSubscribe::Filter);
    let mut alice = house.open(&login("a", "alice"));
    alice.subscribe("#", 0);
    for topic in [
        &b"open/\0"[..],
        // An overlong slash and an overlong NUL, a surrogate, what ends in the midst, what is above U+10FFFF.
        b"open\xC0\xAFx",
        b"open/\xC0\x80",
        b"open/\xED\xA0\x80",
        b"open/\xE2\x82",
        b"open/\xF4\x90\x80\x80",
        b"open/#",
        b"open/+",
        b"",
    ] {
        let mut mallory = house.open(&login("m", "mallory"));
        mallory.send(&wire::publish_qos0(topic, "m"));
        mallory.expect_closed();
        let mut mallory = house.open5(&login5("m", "mallory"));
        mallory.send(&wire5::publish5(0, topic, None, &[], "m"));
        assert!(
            matches!(mallory.packets_until_closed()[..], [ServerPacket5::Disconnect(_, _)]),
            "{topic:x?}"
        );
        if !topic.ends_with(b"#") && !topic.ends_with(b"+") {
            let mut mallory = house.open(&login("m", "mallory"));
            mallory.send(&wire::subscribe(1, &[(topic, 0)]));
            mallory.expect_closed();
        }
        let mut mallory = RawClient5::connect(house.addr());
        mallory.send(&login5("m", "mallory").will(topic, "m", 0, false).bytes());
        assert!(matches!(mallory.expect_packet(), ServerPacket5::ConnAck(false, 0x80.., _)), "{topic:x?}");
    }
    alice.expect_nothing();
    // Odd, and well-formed: a name like any other, equal to itself alone.
    let mut mallory = house.open(&login("m", "mallory"));
    for topic in ["open/\u{ffff}", "open/\u{202e}x", "open/\u{1b}[2K", "open/\u{7f}"] {
        mallory.publish(topic, 1, "m");
        alice.expect_message(topic, "m");
    }
}
