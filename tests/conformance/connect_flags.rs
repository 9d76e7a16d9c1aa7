//! The connect flags and the payload they announce (sections 3.1.2.3 to 3.1.2.9, 3.1.3).

use crate::support::wire::raw_connect;
use crate::support::{Connect, RawClient, TestBroker, broker};

const CLEAN: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;

#[track_caller]
fn refused(broker: &TestBroker, flags: u8, fields: &[&[u8]]) {
    let mut client = RawClient::connect(broker.addr());
    client.send(&raw_connect("MQTT", 4, flags, 0, fields));
    client.expect_closed();
}

#[track_caller]
fn accepted(broker: &TestBroker, flags: u8, fields: &[&[u8]]) -> RawClient {
    let mut client = RawClient::connect(broker.addr());
    client.send(&raw_connect("MQTT", 4, flags, 0, fields));
    client.expect(&[0x20, 0x02, 0x00, 0x00]);
    client
}

#[test]
fn mqtt_3_1_2_3_reserved_connect_flag_closes_the_connection() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | 0x01, &[b"reserved"]);
    refused(&broker, 0x01, &[b"reserved"]);
    refused(&broker, CLEAN | WILL | USER_NAME | PASSWORD | 0x01, &[b"reserved", b"w", b"x", b"u", b"p"]);
}

#[test]
fn mqtt_3_1_2_9_will_flag_needs_will_topic_and_will_message() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | WILL, &[b"id"]);
    refused(&broker, CLEAN | WILL, &[b"id", b"topic"]);
    accepted(&broker, CLEAN | WILL, &[b"id", b"topic", b""]);
}

#[test]
fn a_will_topic_is_a_topic_name() {
    let broker = TestBroker::start();
    for topic in ["", "will/+", "will/#", "#", "+", "wi+ll"] {
        refused(&broker, CLEAN | WILL, &[b"id", topic.as_bytes(), b"x"]);
    }
}

#[test]
fn mqtt_3_1_2_11_without_will_flag_no_will_fields_follow() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 0);
    // What would be a will is read as user name and password.
    accepted(&broker, CLEAN | USER_NAME | PASSWORD, &[b"no-will", b"topic", b"message"]).vanish();
    // And without these flags it is too much.
    if !broker::skipped_on_mosquitto("it takes a CONNECT with bytes behind the last field") {
        refused(&broker, CLEAN, &[b"no-will", b"topic", b"message"]);
    }
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_1_2_13_without_will_flag_will_qos_is_0() {
    let broker = TestBroker::start();
    for will_qos in 1..=3 {
        refused(&broker, CLEAN | will_qos << 3, &[b"id"]);
        refused(&broker, CLEAN | will_qos << 3, &[b"id", b"topic", b"message"]);
    }
}

#[test]
fn mqtt_3_1_2_14_will_qos_3_closes_the_connection() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | WILL | 0x18, &[b"id", b"topic", b"message"]);
    refused(&broker, CLEAN | WILL | 0x18 | WILL_RETAIN, &[b"id", b"topic", b"message"]);
}

#[test]
fn mqtt_3_1_2_15_without_will_flag_will_retain_is_0() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | WILL_RETAIN, &[b"id"]);
    refused(&broker, CLEAN | WILL_RETAIN, &[b"id", b"topic", b"message"]);
}

#[test]
fn mqtt_3_1_2_18_without_user_name_flag_no_user_name_is_read() {
    let broker = TestBroker::start();
    accepted(&broker, CLEAN, &[b"id"]);
    if broker::skipped_on_mosquitto("it takes a CONNECT with bytes behind the last field") {
        return;
    }
    refused(&broker, CLEAN, &[b"id", b"user"]);
    refused(&broker, CLEAN | WILL, &[b"id", b"topic", b"message", b"user"]);
}

#[test]
fn mqtt_3_1_2_19_user_name_flag_needs_a_user_name() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | USER_NAME, &[b"id"]);
    refused(&broker, CLEAN | WILL | USER_NAME, &[b"id", b"topic", b"message"]);
    accepted(&broker, CLEAN | USER_NAME, &[b"id", b"user"]);
}

#[test]
fn mqtt_3_1_2_20_without_password_flag_no_password_is_read() {
    let broker = TestBroker::start();
    accepted(&broker, CLEAN | USER_NAME, &[b"id", b"user"]);
    if broker::skipped_on_mosquitto("it takes a CONNECT with bytes behind the last field") {
        return;
    }
    refused(&broker, CLEAN | USER_NAME, &[b"id", b"user", b"password"]);
}

#[test]
fn mqtt_3_1_2_21_password_flag_needs_a_password() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | USER_NAME | PASSWORD, &[b"id", b"user"]);
    accepted(&broker, CLEAN | USER_NAME | PASSWORD, &[b"id", b"user", b""]);
    accepted(&broker, CLEAN | USER_NAME | PASSWORD, &[b"id", b"user", b"password"]);
}

#[test]
fn mqtt_3_1_2_22_password_without_user_name_closes_the_connection() {
    let broker = TestBroker::start();
    refused(&broker, CLEAN | PASSWORD, &[b"id", b"password"]);
    refused(&broker, CLEAN | PASSWORD, &[b"id", b"user", b"password"]);
    refused(&broker, CLEAN | WILL | PASSWORD, &[b"id", b"topic", b"message", b"password"]);
}

#[test]
fn passwords_and_will_messages_are_binary() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("binary", 0);
    let binary = [0x00, 0xFF, 0xC0, 0x80, 0xED, 0xA0, 0x80, 0x00];
    let connect = Connect::new("binary").will("binary", binary, 0, false).user_name("u").password(binary);
    RawClient::open(broker.addr(), &connect).0.vanish();
    watcher.expect_message("binary", binary);
}

#[test]
fn mqtt_3_1_3_1_fields_are_read_in_the_order_of_the_standard() {
    let broker = TestBroker::start();
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 1);
    let flags = WILL | 0x08 | USER_NAME | PASSWORD;
    let fields: [&[u8]; 5] = [b"one", b"two", b"three", b"four", b"five"];
    let mut client = accepted(&broker, flags, &fields);
    client.subscribe("one/topic", 1);
    client.vanish();
    watcher.expect_message_and_ack("two", "three");
    RawClient::resume(broker.addr(), "one");
}
