//! CONNACK: what comes first, what it says of session, limits and assigned id (section 3.2).

use crate::support::wire5::{self, id};
use crate::support::{Connect5, RawClient5, ServerPacket5, TestBroker, broker};
use std::collections::HashSet;
use std::time::Duration;

#[test]
fn mqtt5_3_2_0_1_connack_comes_before_any_other_packet() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 1);
    client.disconnect();
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "queued");
    let mut client = RawClient5::connect(broker.addr());
    client.send_connect(&Connect5::persistent("client"));
    assert!(matches!(client.expect_packet(), ServerPacket5::ConnAck(true, 0, _)));
    client.expect_and_ack("t", "queued");
    // Without CONNECT nothing at all is sent.
    let mut silent = RawClient5::connect(broker.addr());
    silent.stays_silent_and_open(Duration::from_millis(100));
}

#[test]
fn mqtt5_3_2_0_2_there_is_one_connack_per_connection() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&Connect5::new("client").bytes());
    client.expect_disconnect(0x82);
}

#[test]
fn mqtt5_3_2_2_2_clean_start_means_no_session_present() {
    let broker = TestBroker::start();
    RawClient5::persistent(broker.addr(), "client").disconnect();
    for _ in 0..2 {
        let connect = Connect5::new("client").session_expiry(3_600);
        let (client, session_present, _) = RawClient5::open(broker.addr(), &connect);
        assert!(!session_present);
        client.disconnect();
    }
}

#[test]
fn mqtt5_3_2_2_3_session_present_says_whether_there_is_a_session() {
    let broker = TestBroker::start();
    let open = |connect: &Connect5| {
        let (client, session_present, _) = RawClient5::open(broker.addr(), connect);
        (client, session_present)
    };
    let (client, present) = open(&Connect5::persistent("client"));
    assert!(!present);
    client.disconnect();
    let (client, present) = open(&Connect5::resuming("client"));
    assert!(present);
    // This connection had no session expiry: the session ends with it.
    client.disconnect();
    let (_client, present) = open(&Connect5::resuming("client"));
    assert!(!present);
}

#[test]
fn mqtt5_3_2_2_6_a_refusal_says_no_session_present() {
    let broker = TestBroker::start();
    RawClient5::persistent(broker.addr(), "client").disconnect();
    let connect = Connect5::persistent("client").with(wire5::text(id::AUTH_METHOD, "m"));
    // The parser of the test refuses session present beside an error code.
    RawClient5::refused(broker.addr(), &connect.bytes(), 0x8C);
    RawClient5::resume(broker.addr(), "client");
}

#[test]
fn mqtt5_3_2_2_7_after_an_error_code_the_connection_is_closed() {
    let broker = TestBroker::start();
    let connect = Connect5::new("client").with(wire5::text(id::AUTH_METHOD, "m"));
    let mut client = RawClient5::connect(broker.addr());
    client.send(&connect.bytes());
    assert!(matches!(client.expect_packet(), ServerPacket5::ConnAck(false, 0x8C, _)));
    client.expect_closed();
}

#[test]
fn mqtt5_3_2_2_8_only_codes_of_the_table_are_used() {
    // The parser of the tests knows the table; here every kind of refusal there is, and the success.
    let broker = TestBroker::start();
    RawClient5::clean(broker.addr(), "client").disconnect();
    RawClient5::refused(broker.addr(), &Connect5::new([0xFF]).bytes(), 0x81);
    RawClient5::refused(
        broker.addr(),
        &Connect5::new("c").with(wire5::two(id::RECEIVE_MAXIMUM, 0)).bytes(),
        0x82,
    );
    RawClient5::refused(
        broker.addr(),
        &Connect5::new("c").with(wire5::text(id::AUTH_METHOD, "m")).bytes(),
        0x8C,
    );
    RawClient5::refused(broker.addr(), &Connect5::new("c").will("#", "x", 0, false).bytes(), 0x90);
    let strict = TestBroker::with_config(|config| config.listeners[0].allow_anonymous = false);
    RawClient5::refused(strict.addr(), &Connect5::new("c").bytes(), 0x87);
    RawClient5::refused(strict.addr(), &Connect5::new("c").user_name("u").password("p").bytes(), 0x86);
}

#[test]
fn mqtt5_3_2_2_9_no_maximum_qos_is_announced_where_qos_2_is_offered() {
    let broker = TestBroker::start();
    let (mut client, _, properties) = RawClient5::open(broker.addr(), &Connect5::new("client"));
    assert_eq!(properties.number(id::MAXIMUM_QOS), None);
    client.subscribe("t", 2);
    client.publish("t", 2, "x");
    let publish = client.expect_message("t", "x");
    assert_eq!(publish.qos, 2);
    client.ack(&publish);
}

#[test]
fn mqtt5_3_2_2_10_subscriptions_of_every_qos_are_accepted() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    assert_eq!(client.subscribe_all(&[], &[("a", 0), ("b", 1), ("c", 2)]), [0, 1, 2]);
}

#[test]
fn mqtt5_3_2_2_16_assigned_ids_are_new_and_unique() {
    let broker = TestBroker::start();
    let mut assigned = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..50 {
        let (client, session_present, properties) =
            RawClient5::open(broker.addr(), &Connect5::persistent(""));
        assert!(!session_present);
        let id = properties.text(id::ASSIGNED_CLIENT_ID).expect("an assigned client identifier");
        assert!(assigned.insert(id.to_owned()), "{id} is given out twice");
        clients.push(client);
    }
    for mut client in clients {
        client.expect_nothing();
    }
}

#[test]
fn mqtt5_3_2_2_19_no_reason_string_makes_connack_too_large() {
    let broker = TestBroker::start();
    for size in 5..40 {
        let connect = Connect5::new("client")
            .with(wire5::four(id::MAXIMUM_PACKET_SIZE, size))
            .with(wire5::text(id::AUTH_METHOD, "m"));
        let mut client = RawClient5::connect(broker.addr());
        // The client of the tests refuses what is larger than it announced.
        client.send_connect(&connect);
        client.expect_refused(0x8C);
    }
}

#[test]
fn mqtt5_3_2_2_20_no_user_property_makes_connack_too_large() {
    let broker = TestBroker::start();
    for size in 1..60 {
        let mut client = RawClient5::connect(broker.addr());
        client.send_connect(&Connect5::new("client").with(wire5::four(id::MAXIMUM_PACKET_SIZE, size)));
        client.send(&crate::support::wire::DISCONNECT);
        client.packets_until_closed();
    }
}

#[test]
fn mqtt5_3_1_2_28_response_information_comes_only_if_asked_for() {
    let broker = TestBroker::start();
    let not_asked =
        [Connect5::new("client"), Connect5::new("client").with(wire5::byte(id::REQUEST_RESPONSE_INFO, 0))];
    for connect in not_asked {
        let (client, _, properties) = RawClient5::open(broker.addr(), &connect);
        assert!(!properties.has(id::RESPONSE_INFO), "{properties:?}");
        client.disconnect();
    }
    // Who asks may get it or not.
    RawClient5::open(broker.addr(), &Connect5::new("client").with(wire5::byte(id::REQUEST_RESPONSE_INFO, 1)));
}

#[test]
fn the_limits_of_the_broker_are_told() {
    if broker::skipped_on_mosquitto("the limits are TernMQ's") {
        return;
    }
    let broker = TestBroker::start();
    let (_client, _, properties) = RawClient5::open(broker.addr(), &Connect5::new("client"));
    let told = |id| properties.number(id);
    assert_eq!(told(id::RECEIVE_MAXIMUM), Some(1_024));
    assert_eq!(told(id::MAXIMUM_PACKET_SIZE), Some(16_000_000));
    assert_eq!(told(id::TOPIC_ALIAS_MAXIMUM), Some(32));
    assert_eq!(told(id::SESSION_EXPIRY), None);
    assert!(!properties.has(id::ASSIGNED_CLIENT_ID) && !properties.has(id::SERVER_KEEP_ALIVE));
    for id in
        [id::RETAIN_AVAILABLE, id::WILDCARD_AVAILABLE, id::SUBSCRIPTION_ID_AVAILABLE, id::SHARED_AVAILABLE]
    {
        assert_ne!(told(id), Some(0), "{id:#04x} is available");
    }
}

#[test]
fn changed_limits_are_told() {
    let broker = TestBroker::with_config(|config| {
        config.limits.receive_maximum = 7;
        config.limits.packet_bytes_max = 1_234;
        config.limits.topic_alias_max = 0;
    });
    let (_client, _, properties) = RawClient5::open(broker.addr(), &Connect5::new("client"));
    assert_eq!(properties.number(id::RECEIVE_MAXIMUM), Some(7));
    assert_eq!(properties.number(id::MAXIMUM_PACKET_SIZE), Some(1_234));
    assert_eq!(properties.number(id::TOPIC_ALIAS_MAXIMUM).unwrap_or(0), 0);
}

#[test]
fn a_session_expiry_that_is_cut_is_told() {
    if broker::skipped_on_mosquitto("it has no such limit by default") {
        return;
    }
    let broker = TestBroker::start();
    let month = 30 * 86_400;
    for (asked, told) in
        [(0, None), (1, None), (month, None), (month + 1, Some(month)), (u32::MAX, Some(month))]
    {
        let connect = Connect5::new("client").session_expiry(asked);
        let (client, _, properties) = RawClient5::open(broker.addr(), &connect);
        assert_eq!(properties.number(id::SESSION_EXPIRY), told, "asked for {asked}");
        client.disconnect();
    }
    let unlimited = TestBroker::with_config(|config| config.limits.session_expiry = None);
    let connect = Connect5::new("client").session_expiry(u32::MAX);
    let (_client, _, properties) = RawClient5::open(unlimited.addr(), &connect);
    assert_eq!(properties.number(id::SESSION_EXPIRY), None);
}
