//! UTF-8 strings on the wire (section 1.5.3): ill-formed ones and U+0000 end the connection wherever they stand.

use crate::support::wire::{self, raw_connect};
use crate::support::{Connect, RawClient, TestBroker, broker};

/// Ill-formed UTF-8, each with its fault.
const ILL_FORMED: [(&[u8], &str); 14] = [
    (b"a\x80", "continuation byte alone"),
    (b"\xBFa", "continuation byte first"),
    (b"a\xC3", "two-byte sequence cut off"),
    (b"a\xE2\x82", "three-byte sequence cut off"),
    (b"a\xF0\x9F\x98", "four-byte sequence cut off"),
    (b"a\xC3/b", "ASCII inside a sequence"),
    (b"\xC0\x80", "overlong U+0000"),
    (b"\xC1\xBF", "overlong two-byte sequence"),
    (b"\xE0\x9F\xBF", "overlong three-byte sequence"),
    (b"\xF0\x8F\xBF\xBF", "overlong four-byte sequence"),
    (b"a\xED\xA0\x80b", "high surrogate U+D800"),
    (b"a\xED\xBF\xBFb", "low surrogate U+DFFF"),
    (b"\xF4\x90\x80\x80", "above U+10FFFF"),
    (b"plain ascii, long enough for a word-wise check\xFF", "byte FF behind 46 good ones"),
];

const NUL: [&[u8]; 4] = [b"\0", b"a\0", b"\0a", b"a string with the fault far behind\0its beginning"];

/// Puts a string into every field that is one, and expects the end of the connection each time.
#[track_caller]
fn refused_everywhere(broker: &TestBroker, string: &[u8], what: &str) {
    let connects = [
        ("client id", raw_connect("MQTT", 4, 0x02, 0, &[string])),
        ("will topic", raw_connect("MQTT", 4, 0x06, 0, &[b"id", string, b"x"])),
        ("user name", raw_connect("MQTT", 4, 0x82, 0, &[b"id", string])),
        ("protocol name", raw_connect([b"MQTT", string].concat(), 4, 0x02, 0, &[b"id"])),
    ];
    for (place, connect) in connects {
        println!("{what} in {place}");
        if place == "protocol name" && broker::skipped_on_mosquitto("it reads the name up to U+0000") {
            continue;
        }
        let mut client = RawClient::connect(broker.addr());
        client.send(&connect);
        client.expect_closed();
    }
    let packets = [
        ("topic at QoS 0", wire::publish_qos0(string, "x")),
        ("topic at QoS 1", wire::publish_qos1(1, string, "x")),
        ("topic at QoS 2", wire::publish_qos2(1, string, "x")),
        ("filter", wire::subscribe(1, &[(string, 0)])),
        ("second filter", wire::subscribe(1, &[(&b"good"[..], 0), (string, 0)])),
        ("filter to remove", wire::unsubscribe(1, &[string])),
        ("second filter to remove", wire::unsubscribe(1, &[&b"good"[..], string])),
    ];
    for (place, bytes) in packets {
        println!("{what} in {place}");
        let mut client = RawClient::clean(broker.addr(), "strings");
        client.send(&bytes);
        client.expect_closed();
    }
}

#[test]
fn mqtt_1_5_3_1_ill_formed_utf_8_closes_the_connection() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    for (string, what) in ILL_FORMED {
        refused_everywhere(&broker, string, what);
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt_1_5_3_2_nul_character_closes_the_connection() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    for string in NUL {
        refused_everywhere(&broker, string, "U+0000");
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt_1_5_3_3_the_byte_order_mark_is_kept() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("bom/#", 0);
    let mut with = RawClient::clean(broker.addr(), "with");
    with.subscribe("bom/\u{FEFF}x", 0);
    let mut without = RawClient::clean(broker.addr(), "without");
    without.subscribe("bom/x", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish("bom/\u{FEFF}x", 0, "\u{FEFF}payload");
    watcher.expect_message("bom/\u{FEFF}x", "\u{FEFF}payload");
    with.expect_message("bom/\u{FEFF}x", "\u{FEFF}payload");
    without.expect_nothing();
    publisher.publish("bom/x", 0, "");
    watcher.expect_message("bom/x", "");
    without.expect_message("bom/x", "");
    with.expect_nothing();
    // In client ids too: these are two clients.
    let mut marked = RawClient::clean(broker.addr(), "\u{FEFF}with");
    with.expect_nothing();
    marked.expect_nothing();
}

#[test]
fn every_kind_of_well_formed_character_passes_unchanged() {
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("chars/#", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in
        ["chars/é", "chars/e\u{301}", "chars/€", "chars/\u{D7FF}\u{E000}", "chars/😀", "chars/\u{10FFFD}"]
    {
        publisher.publish(topic, 0, topic);
        subscriber.expect_message(topic, topic);
    }
}

#[test]
fn mqtt_3_1_3_4_client_id_is_valid_utf_8() {
    let broker = TestBroker::start();
    for (string, what) in ILL_FORMED {
        println!("{what}");
        let mut client = RawClient::connect(broker.addr());
        client.send(&Connect::new(string).bytes());
        client.expect_closed();
    }
    RawClient::clean(broker.addr(), "größe-€-😀").expect_nothing();
}

#[test]
fn mqtt_3_1_3_10_will_topic_is_valid_utf_8() {
    let broker = TestBroker::start();
    for (string, what) in ILL_FORMED {
        println!("{what}");
        let mut client = RawClient::connect(broker.addr());
        client.send(&Connect::new("id").will(string, "x", 0, false).bytes());
        client.expect_closed();
    }
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("wille/größe", 0);
    RawClient::open(broker.addr(), &Connect::new("id").will("wille/größe", "x", 0, false)).0.vanish();
    watcher.expect_message("wille/größe", "x");
}

#[test]
fn mqtt_3_1_3_11_user_name_is_valid_utf_8() {
    let broker = TestBroker::start();
    for (string, what) in ILL_FORMED {
        println!("{what}");
        let mut client = RawClient::connect(broker.addr());
        client.send(&Connect::new("id").user_name(string).bytes());
        client.expect_closed();
    }
    RawClient::open(broker.addr(), &Connect::new("id").user_name("größe-€-😀"));
}

#[test]
fn characters_that_should_not_be_used_are_let_through() {
    if broker::skipped_on_mosquitto("it closes on control characters and non-characters") {
        return;
    }
    let broker = TestBroker::start();
    let mut subscriber = RawClient::clean(broker.addr(), "subscriber");
    subscriber.subscribe("odd/#", 0);
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    for topic in [
        "odd/\u{1}",
        "odd/\u{1F}",
        "odd/\u{7F}",
        "odd/\u{9F}",
        "odd/\u{FFFE}",
        "odd/\u{FFFF}",
        "odd/\u{FDD0}",
    ] {
        publisher.publish(topic, 0, "x");
        subscriber.expect_message(topic, "x");
    }
}
