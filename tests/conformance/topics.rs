//! Topic names, topic filters and how they match (section 4.7).

use crate::support::wire;
use crate::support::{RawClient, ServerPacket, TestBroker, broker};

/// Filter, topics that match it, topics that do not.
type Row = (&'static str, &'static [&'static str], &'static [&'static str]);

/// The examples of the standard and their neighbours. `$own` stands for the `$SYS` of the standard, in which brokers let
/// nobody else publish.
const TABLE: [Row; 22] = [
    (
        "sport/tennis/player1/#",
        &["sport/tennis/player1", "sport/tennis/player1/ranking", "sport/tennis/player1/score/wimbledon"],
        &["sport/tennis/player2", "sport/tennis/player11", "sport/tennis", "sport/tennis/player1x/ranking"],
    ),
    ("sport/#", &["sport", "sport/", "sport/tennis"], &["sports", "/sport", "sport!", "Sport/tennis"]),
    ("#", &["sport", "/", "/a", "a/", "a//b", " "], &["$own", "$own/x", "$a"]),
    (
        "sport/tennis/+",
        &["sport/tennis/player1", "sport/tennis/"],
        &["sport/tennis/player1/ranking", "sport/tennis"],
    ),
    ("sport/+", &["sport/", "sport/tennis"], &["sport", "sport/a/b", "sports/"]),
    ("+", &["sport", " "], &["/finance", "sport/", "/", "$own", "$"]),
    ("+/+", &["/finance", "/", "a/b", "a/"], &["finance", "a/b/c", "//", "$own/x"]),
    ("/+", &["/finance", "/"], &["finance", "//", "/a/b"]),
    (
        "+/tennis/#",
        &["sport/tennis", "/tennis/x", "sport/tennis/a/b"],
        &["tennis", "a/b/tennis", "$own/tennis"],
    ),
    ("sport/+/player1", &["sport/tennis/player1", "sport//player1"], &["sport/player1", "sport/a/b/player1"]),
    ("$own/#", &["$own", "$own/x", "$own/x/y"], &["own/x", "a/$own/x", "$ownx"]),
    ("$own/monitor/+", &["$own/monitor/Clients"], &["$own/monitor", "$own/monitor/a/b"]),
    ("a/$b/+", &["a/$b/c"], &["a/b/c"]),
    ("a/+/c", &["a/$b/c", "a//c", "a/b/c"], &["a/c", "a/b/d"]),
    ("/", &["/"], &["//", "a", "/a", "a/"]),
    ("//", &["//"], &["/", "///", "a//"]),
    ("a//b", &["a//b"], &["a/b", "a///b"]),
    ("/#", &["/", "/a", "//", "/a/b"], &["a", "a/"]),
    ("a/b/#", &["a/b", "a/b/", "a/b/c", "a/b//"], &["a", "a/bc", "a/b!", "a/b-c/d", "ab/b"]),
    (
        "Accounts payable",
        &["Accounts payable"],
        &["accounts payable", "Accounts payable ", " Accounts payable"],
    ),
    ("+/b/+/d/#", &["a/b/c/d", "a/b/c/d/e", "/b//d"], &["a/b/c", "a/b/c/e/d", "$a/b/c/d"]),
    ("+/+/+/+", &["a/b/c/d", "///", "a///"], &["a/b/c", "a/b/c/d/e", "$a/b/c/d"]),
];

fn topics() -> Vec<&'static str> {
    let mut topics: Vec<&str> =
        TABLE.iter().flat_map(|(_, yes, no)| yes.iter().chain(no.iter())).copied().collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// The rule of section 4.7 written down a second time, level by level.
fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    let (fixed, open) = match filter.split_last() {
        Some((&"#", fixed)) => (fixed, true),
        _ => (&filter[..], false),
    };
    let long_enough = if open { topic.len() >= fixed.len() } else { topic.len() == fixed.len() };
    long_enough && fixed.iter().zip(&topic).all(|(level, name)| *level == "+" || level == name)
}

#[track_caller]
fn received(client: &mut RawClient) -> Vec<String> {
    let mut topics: Vec<String> = client
        .packets_until_ping()
        .into_iter()
        .map(|packet| match packet {
            ServerPacket::Publish(publish) => publish.topic,
            other => panic!("expected PUBLISH, got {other:?}"),
        })
        .collect();
    topics.sort();
    topics
}

#[track_caller]
fn judged(filter: &str, got: &[String], yes: &[&str], no: &[&str]) {
    for topic in yes {
        assert!(got.iter().any(|topic_got| topic_got == topic), "{filter} has to match {topic}");
    }
    for topic in no {
        assert!(!got.iter().any(|topic_got| topic_got == topic), "{filter} must not match {topic}");
    }
    let expected: Vec<&str> = topics().into_iter().filter(|topic| matches(filter, topic)).collect();
    assert_eq!(got, expected, "matches of {filter}");
}

#[test]
fn the_table_holds_for_live_messages() {
    let broker = TestBroker::start();
    let mut clients: Vec<RawClient> = TABLE
        .iter()
        .map(|(filter, ..)| {
            let mut client = RawClient::clean(broker.addr(), &format!("client of {filter}"));
            client.subscribe(filter, 0);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in topics() {
        publisher.publish(topic, 0, "x");
    }
    for (client, (filter, yes, no)) in clients.iter_mut().zip(TABLE) {
        judged(filter, &received(client), yes, no);
    }
}

#[test]
fn the_table_holds_for_retained_messages() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in topics() {
        publisher.publish_retained(topic, 0, "x");
    }
    for (filter, yes, no) in TABLE {
        let mut client = RawClient::clean(broker.addr(), "client");
        client.subscribe(filter, 0);
        judged(filter, &received(&mut client), yes, no);
        client.disconnect();
    }
}

#[test]
fn mqtt_4_7_1_1_wildcards_are_for_filters_only() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe_all(&[("a/+", 0), ("#", 0)]);
    for topic in ["a/+", "#", "a/b#", "+"] {
        let mut publisher = RawClient::clean(broker.addr(), "publisher");
        publisher.send(&wire::publish_qos0(topic, "x"));
        publisher.expect_closed();
    }
    client.expect_nothing();
}

#[track_caller]
fn filter_is_refused(broker: &TestBroker, filter: &str) {
    let mut client = RawClient::clean(broker.addr(), "client");
    client.send(&wire::subscribe(1, &[(filter, 0)]));
    client.expect_closed();
}

#[test]
fn mqtt_4_7_1_2_the_number_sign_stands_alone_in_the_last_level() {
    let broker = TestBroker::start();
    for filter in [
        "sport/tennis#",
        "sport/tennis/#/ranking",
        "#/",
        "#/a",
        "##",
        "a/##",
        "a#",
        "a/#b",
        "/#/",
        "+#",
        "#+",
    ] {
        filter_is_refused(&broker, filter);
    }
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe_all(&[("#", 0), ("/#", 0), ("a/#", 0), ("+/#", 0), ("//#", 0)]);
}

#[test]
fn mqtt_4_7_1_3_the_plus_sign_stands_alone_in_its_level() {
    let broker = TestBroker::start();
    for filter in ["sport+", "+sport", "a/b+/c", "a/+b", "++", "a/++/c", "+ ", " +", "a/+ /b"] {
        filter_is_refused(&broker, filter);
    }
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe_all(&[("+", 0), ("/+", 0), ("+/", 0), ("+/+", 0), ("a/+/b/+/c", 0)]);
}

#[test]
fn mqtt_4_7_2_1_a_leading_wildcard_does_not_match_a_leading_dollar_sign() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish_retained("$own/kept", 1, "retained");
    let mut client = RawClient::clean(broker.addr(), "client");
    client.subscribe_all(&[("#", 0), ("+/#", 0), ("+/kept", 0), ("+/live", 0), ("+", 0)]);
    client.expect_nothing();
    let mut named = RawClient::clean(broker.addr(), "named");
    named.subscribe("$own/+", 0);
    named.expect_message("$own/kept", "retained");
    publisher.publish("$own/live", 0, "x");
    publisher.publish("a$/live", 0, "the sign is not in front");
    client.expect_message("a$/live", "the sign is not in front");
    named.expect_message("$own/live", "x");
    client.expect_nothing();
}

#[test]
fn mqtt_4_7_3_1_names_and_filters_have_at_least_one_character() {
    let broker = TestBroker::start();
    let packets = [
        wire::publish_qos0("", "x"),
        wire::publish_qos1(1, "", "x"),
        wire::subscribe(1, &[("", 0)]),
        wire::subscribe(1, &[("a", 0), ("", 0)]),
        wire::unsubscribe(1, &[""]),
    ];
    for bytes in packets {
        let mut client = RawClient::clean(broker.addr(), "client");
        client.send(&bytes);
        client.expect_closed();
    }
    let mut client = RawClient::clean(broker.addr(), "client");
    for topic in ["a", "/", " "] {
        client.subscribe(topic, 0);
        client.send(&wire::publish_qos0(topic, "x"));
        client.expect_message(topic, "x");
    }
}

#[test]
fn mqtt_4_7_3_2_names_and_filters_have_no_nul() {
    let broker = TestBroker::start();
    for string in ["\0", "a\0", "a/\0/b", "a/b\0"] {
        for bytes in [
            wire::publish_qos0(string, "x"),
            wire::subscribe(1, &[(string, 0)]),
            wire::unsubscribe(1, &[string]),
        ] {
            let mut client = RawClient::clean(broker.addr(), "client");
            client.send(&bytes);
            client.expect_closed();
        }
    }
}

#[test]
fn mqtt_4_7_3_3_names_and_filters_up_to_65535_bytes() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    for topic in ["t".repeat(65_535), format!("{}/é", "t".repeat(65_532))] {
        assert_eq!(topic.len(), 65_535);
        client.subscribe(&topic, 0);
        client.send(&wire::publish_qos0(&topic, "x"));
        client.expect_message(&topic, "x");
        client.unsubscribe(&topic);
        client.send(&wire::publish_qos0(&topic, "x"));
        client.expect_nothing();
    }
}

#[test]
fn a_topic_of_65535_slashes_does_no_harm() {
    if broker::skipped_on_mosquitto("it closes above 200 levels") {
        return;
    }
    let slashes = "/".repeat(65_535);
    // 32,768 levels with a wildcard each.
    let plus = vec!["+"; 32_768].join("/");
    let open = format!("{}/#", "/".repeat(65_533));
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    let filters = [(&*slashes, 0), (&*plus, 0), (&*open, 1), ("/#", 1)];
    assert_eq!(client.subscribe_all(&filters), [0x80, 0x80, 0x80, 1], "above the limit of levels");
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish_retained(&slashes, 1, "too deep");
    client.expect_nothing();

    // Nor if the limit is as high as it can be.
    let broker = TestBroker::with_config(|config| config.limits.topic_levels_max = 65_536);
    let mut bystander = RawClient::clean(broker.addr(), "bystander");
    bystander.subscribe("/#", 0);
    let mut client = RawClient::clean(broker.addr(), "client");
    assert_eq!(client.subscribe_all(&[(&slashes, 0), (&plus, 0), (&open, 1)]), [0, 0, 1]);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish_retained(&slashes, 1, "deep");
    bystander.expect_message(&slashes, "deep");
    let _ = client.packets_until_ping();
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("#", 0);
    late.expect_message(&slashes, "deep");
    for filter in [&slashes, &plus, &open] {
        client.unsubscribe(filter);
    }
    publisher.publish(&slashes, 1, "gone");
    client.expect_nothing();
}

#[test]
fn mqtt_4_7_3_4_nothing_is_normalised_or_replaced() {
    let broker = TestBroker::start();
    let topics = [
        "n/é",
        "n/e\u{301}",
        "n/É",
        "n/E",
        "n/e",
        "n/%C3%A9",
        "n/ e",
        "n/e ",
        "n//e",
        "n/./e",
        "n/../e",
        "n/\\e",
        "n/\u{FB01}",
        "n/fi",
        "n/\u{C5}",
        "n/\u{212B}",
        "n/\u{FEFF}e",
        "n/\u{200D}e",
        "n/e/",
    ];
    let mut clients: Vec<RawClient> = topics
        .iter()
        .enumerate()
        .map(|(number, topic)| {
            let mut client = RawClient::clean(broker.addr(), &format!("client-{number}"));
            client.subscribe(topic, 0);
            client
        })
        .collect();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in topics {
        publisher.publish(topic, 0, topic);
    }
    for (client, topic) in clients.iter_mut().zip(topics) {
        client.expect_message(topic, topic);
        client.expect_nothing();
    }
}
