//! The will: its flags and its contents (sections 3.1.2.5 to 3.1.2.7).

use crate::support::{Connect, RawClient, TestBroker};

fn watcher(broker: &TestBroker) -> RawClient {
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("#", 2);
    watcher
}

#[track_caller]
fn dies(broker: &TestBroker, connect: &Connect) {
    RawClient::open(broker.addr(), connect).0.vanish();
}

#[test]
fn mqtt_3_1_2_8_the_will_is_published_when_the_connection_ends() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let connect = Connect::new("mortal").will("wills/mortal", "gone", 0, false);
    let (mut client, _) = RawClient::open(broker.addr(), &connect);
    client.expect_nothing();
    // Not before the end.
    watcher.expect_nothing();
    client.vanish();
    watcher.expect_message("wills/mortal", "gone");
    watcher.expect_nothing();
    // And not after DISCONNECT: the next thing the watcher sees is the will of the client after this one.
    RawClient::open(broker.addr(), &connect).0.disconnect();
    dies(&broker, &Connect::new("mortal").will("wills/mortal", "second", 0, false));
    watcher.expect_message("wills/mortal", "second");
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_1_2_9_will_qos_retain_topic_and_payload_are_used_as_given() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    for qos in 0..=2 {
        for retain in [false, true] {
            let topic = format!("wills/{qos}/{retain}");
            dies(&broker, &Connect::new("mortal").will(&topic, [0, 0xFF, qos], qos, retain));
            let publish = watcher.expect_message(&topic, [0, 0xFF, qos]);
            assert_eq!((publish.qos, publish.retain, publish.dup), (qos, false, false));
        }
    }
}

#[test]
fn mqtt_3_1_2_10_a_will_is_published_once_and_forgotten() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    // The session stays, its will does not: it belongs to one connection.
    dies(&broker, &Connect::persistent("stored").will("wills/stored", "first", 0, false));
    watcher.expect_message("wills/stored", "first");
    RawClient::resume(broker.addr(), "stored").vanish();
    let (client, _) =
        RawClient::open(broker.addr(), &Connect::persistent("stored").will("w", "dropped", 0, false));
    client.disconnect();
    RawClient::resume(broker.addr(), "stored").vanish();
    dies(&broker, &Connect::persistent("stored").will("wills/stored", "last", 0, false));
    watcher.expect_message("wills/stored", "last");
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_1_2_12_without_will_flag_nothing_is_published() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    dies(&broker, &Connect::new("plain"));
    dies(&broker, &Connect::persistent("plain"));
    dies(&broker, &Connect::new("plain").user_name("wills/x").password("gone"));
    dies(&broker, &Connect::new("plain").will("wills/fence", "x", 0, false));
    watcher.expect_message("wills/fence", "x");
    watcher.expect_nothing();
}

#[test]
fn mqtt_3_1_2_16_without_will_retain_it_is_an_ordinary_message() {
    let broker = TestBroker::start();
    let mut publisher = RawClient::clean(broker.addr(), "publisher");
    publisher.publish_retained("wills/kept", 1, "before");
    let mut early = watcher(&broker);
    early.expect_message("wills/kept", "before");
    dies(&broker, &Connect::new("mortal").will("wills/kept", "will", 1, false));
    assert!(!early.expect_message("wills/kept", "will").retain);
    dies(&broker, &Connect::new("mortal").will("wills/other", "will", 1, false));
    early.expect_message("wills/other", "will");
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("#", 1);
    late.expect_message_and_ack("wills/kept", "before");
    late.expect_nothing();
}

#[test]
fn mqtt_3_1_2_17_with_will_retain_it_is_kept_for_later_subscribers() {
    let broker = TestBroker::start();
    let mut early = watcher(&broker);
    for qos in 0..=2 {
        let topic = format!("wills/{qos}");
        dies(&broker, &Connect::new("mortal").will(&topic, "kept", qos, true));
        assert!(!early.expect_message(&topic, "kept").retain);
        let mut late = RawClient::clean(broker.addr(), "late");
        late.subscribe(&topic, 2);
        let publish = late.expect_message(&topic, "kept");
        assert!(publish.retain && publish.qos == qos, "{publish:?}");
        late.disconnect();
    }
}

#[test]
fn an_empty_retained_will_removes_what_was_kept() {
    let broker = TestBroker::start();
    RawClient::clean(broker.addr(), "publisher").publish_retained("status", 1, "online");
    let mut watcher = RawClient::clean(broker.addr(), "watcher");
    watcher.subscribe("status", 0);
    watcher.expect_message("status", "online");
    dies(&broker, &Connect::new("mortal").will("status", "", 1, true));
    watcher.expect_message("status", "");
    let mut late = RawClient::clean(broker.addr(), "late");
    late.subscribe("status", 0);
    late.expect_nothing();
}

#[test]
fn a_client_that_is_away_gets_the_will_when_it_comes_back() {
    let broker = TestBroker::start();
    let mut absent = RawClient::persistent(broker.addr(), "absent");
    absent.subscribe("wills/+", 1);
    absent.disconnect();
    let mut fence = watcher(&broker);
    dies(&broker, &Connect::new("mortal").will("wills/x", "gone", 1, false));
    fence.expect_message("wills/x", "gone");
    RawClient::resume(broker.addr(), "absent").expect_message_and_ack("wills/x", "gone");
}

#[test]
fn a_client_gets_its_own_will_when_it_comes_back() {
    let broker = TestBroker::start();
    let connect = Connect::persistent("own").will("wills/own", "mine", 1, false);
    let (mut client, _) = RawClient::open(broker.addr(), &connect);
    client.subscribe("wills/own", 1);
    let mut fence = watcher(&broker);
    client.vanish();
    fence.expect_message("wills/own", "mine");
    RawClient::resume(broker.addr(), "own").expect_message_and_ack("wills/own", "mine");
}

#[test]
fn a_will_of_65535_bytes_is_published_whole() {
    let broker = TestBroker::start();
    let mut watcher = watcher(&broker);
    let payload = vec![0x5A; 65_535];
    dies(&broker, &Connect::new("mortal").will("wills/large", &payload, 1, false));
    assert!(watcher.expect_publish().payload == payload);
}
