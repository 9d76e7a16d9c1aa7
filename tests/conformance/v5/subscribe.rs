//! SUBSCRIBE and UNSUBSCRIBE: options, reason codes, replacement (section 3.8 to 3.11).

use crate::support::wire::{field, packet};
use crate::support::wire5::{self, NO_LOCAL, RETAIN_AS_PUBLISHED, RETAIN_IF_NEW, RETAIN_NEVER};
use crate::support::{RawClient, RawClient5, ServerPacket5, TestBroker};

#[test]
fn mqtt5_3_3_4_2_overlapping_subscriptions_get_the_highest_qos() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for (filters, granted) in [
        (vec![("a/b", 0), ("a/+", 2), ("a/#", 1)], 2),
        (vec![("a/b", 1), ("#", 0)], 1),
        (vec![("+/b", 0), ("a/+", 0)], 0),
    ] {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.subscribe_all(&[], &filters);
        for qos in [0, 1, 2] {
            publisher.publish("a/b", qos, "x");
            let mut best = 0;
            // One copy or several; mosquitto sends several when so configured.
            let publishes = client.publishes_until_ping();
            assert!(!publishes.is_empty());
            for publish in publishes {
                best = best.max(publish.qos);
                client.ack(&publish);
            }
            assert_eq!(best, granted.min(qos));
        }
    }
}

#[test]
fn mqtt5_3_8_3_3_no_local_keeps_own_messages_away() {
    let broker = TestBroker::start();
    let mut client = RawClient5::persistent(broker.addr(), "client");
    client.subscribe("t", 1 | NO_LOCAL);
    for qos in [0, 1, 2] {
        client.publish("t", qos, "own");
    }
    client.expect_nothing();
    RawClient5::clean(broker.addr(), "other").publish("t", 1, "other's");
    client.expect_and_ack("t", "other's");
    // The client id counts, not the connection.
    client.disconnect();
    let mut client = RawClient5::resume(broker.addr(), "client");
    client.publish("t", 1, "own");
    client.expect_nothing();
    // Somebody else subscribes with No Local: that concerns the other's messages only.
    let mut other = RawClient5::clean(broker.addr(), "other");
    other.subscribe("t", 1 | NO_LOCAL);
    client.publish("t", 1, "own");
    other.expect_and_ack("t", "own");
}

#[test]
fn mqtt5_3_8_3_3_no_local_beside_an_overlapping_subscription() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe_with_id("t/#", 2 | NO_LOCAL, 1);
    client.subscribe_with_id("t/+", 1, 2);
    // The other subscription wants it: at its own QoS and with its own identifier.
    client.publish("t/a", 2, "own");
    let own = client.expect_and_ack("t/a", "own");
    assert_eq!((own.qos, own.subscription_ids()), (1, vec![2]));
    client.expect_nothing();
    RawClient5::clean(broker.addr(), "other").publish("t/a", 2, "other's");
    let theirs = client.expect_and_ack("t/a", "other's");
    assert_eq!((theirs.qos, theirs.subscription_ids()), (2, vec![1, 2]));
    client.expect_nothing();
    // Taken back by subscribing without it.
    client.subscribe_with_id("t/#", 2, 3);
    client.publish("t/a", 2, "own");
    let own = client.expect_and_ack("t/a", "own");
    assert_eq!((own.qos, own.subscription_ids()), (2, vec![2, 3]));
}

#[test]
fn mqtt5_3_8_3_4_no_local_on_a_shared_subscription_is_a_protocol_error() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&wire5::subscribe5(1, &[], &[("t", 0), ("$share/g/t", NO_LOCAL)]));
    client.expect_disconnect(0x82);
}

#[test]
fn mqtt5_3_8_3_5_reserved_option_bits_are_malformed() {
    let broker = TestBroker::start();
    for (options, code) in
        [(0x40, 0x81), (0x80, 0x81), (0xC1, 0x81), (0x03, 0x82), (0x30, 0x82), (0x0F, 0x82)]
    {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::subscribe5(1, &[], &[("fine", 0), ("t", options)]));
        client.expect_disconnect(code);
    }
}

#[test]
fn mqtt5_3_8_4_3_the_same_filter_again_replaces_the_subscription() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for filter in ["t", "+"] {
        // Between the changes the publisher's connection has been there before: nothing old may stick to it.
        client.subscribe_with_id(filter, 0, 1);
        publisher.publish_with("t", 0x05, &[], "a");
        let publish = client.expect_and_ack("t", "a");
        assert_eq!((publish.qos, publish.retain, publish.subscription_ids()), (0, false, vec![1]));
        client.subscribe_with_id(filter, 2 | RETAIN_AS_PUBLISHED | RETAIN_NEVER, 2);
        publisher.publish_with("t", 0x05, &[], "b");
        let publish = client.expect_and_ack("t", "b");
        assert_eq!((publish.qos, publish.retain, publish.subscription_ids()), (2, true, vec![2]));
        client.subscribe(filter, 1 | RETAIN_NEVER);
        publisher.publish_with("t", 0x05, &[], "c");
        let publish = client.expect_and_ack("t", "c");
        assert_eq!((publish.qos, publish.retain, publish.subscription_ids()), (1, false, vec![]));
        client.expect_nothing();
        assert_eq!(client.unsubscribe(&[filter]), [0]);
        publisher.publish_with("t", 0x01, &[], "");
        client.expect_nothing();
    }
}

#[test]
fn mqtt5_3_8_4_4_retained_messages_follow_retain_handling_on_replacement() {
    let broker = TestBroker::start();
    RawClient5::clean(broker.addr(), "publisher").publish_retained("t", 0, "kept");
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", RETAIN_NEVER);
    client.expect_nothing();
    client.subscribe("t", RETAIN_IF_NEW);
    client.expect_nothing();
    client.subscribe("t", 0);
    client.expect_message("t", "kept");
    client.subscribe("t", RETAIN_NEVER);
    client.expect_nothing();
}

#[test]
fn mqtt5_3_8_4_6_suback_has_one_code_per_filter() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    let names: Vec<String> = (0..300).map(|number| format!("f/{number}")).collect();
    let filters: Vec<(&str, u8)> =
        names.iter().enumerate().map(|(number, name)| (name.as_str(), (number % 3) as u8)).collect();
    let granted: Vec<u8> = filters.iter().map(|(_, qos)| *qos).collect();
    assert_eq!(client.subscribe_all(&wire5::user("a", "b"), &filters), granted);
}

#[test]
fn mqtt5_3_8_4_7_suback_says_the_granted_qos_or_an_error() {
    let broker = TestBroker::with_config(|config| {
        config.limits.subscriptions_max = 2;
        config.limits.topic_levels_max = 3;
    });
    let mut client = RawClient5::clean(broker.addr(), "client");
    let filters = [("a", 1), ("+/b/c/d", 0), ("b", 2), ("c", 0), ("a", 2)];
    assert_eq!(client.subscribe_all(&[], &filters), [1, 0x8F, 2, 0x97, 2]);
    RawClient5::clean(broker.addr(), "publisher").publish("a", 2, "x");
    client.expect_and_ack("a", "x");
}

#[test]
fn mqtt5_3_8_4_8_the_lower_of_published_and_granted_qos_is_delivered() {
    let broker = TestBroker::start();
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for granted in 0..=2 {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.subscribe("t", granted);
        for published in 0..=2 {
            publisher.publish("t", published, "x");
            assert_eq!(client.expect_and_ack("t", "x").qos, published.min(granted));
        }
    }
}

#[test]
fn mqtt5_3_9_3_2_only_codes_of_the_table_are_in_suback() {
    // The parser of the tests knows the table; all kinds of filters.
    let broker = TestBroker::with_config(|config| config.limits.subscriptions_max = 4);
    let mut client = RawClient5::clean(broker.addr(), "client");
    let deep = "+/".repeat(300);
    let filters = [("$SYS/#", 0), ("$share/g/t", 1), ("#", 2), (deep.as_str(), 0), ("a", 0), ("b", 0)];
    let codes = client.subscribe_all(&[], &filters);
    assert_eq!(codes.len(), filters.len());
    assert_eq!(codes[5], 0x97);
}

#[test]
fn mqtt5_3_10_4_4_unsubscribe_is_answered() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("t", 1);
    client.send(&wire5::unsubscribe5(0xFFFF, &wire5::user("a", "b"), &["t"]));
    assert_eq!(client.expect_packet(), ServerPacket5::UnsubAck(0xFFFF, vec![0]));
    RawClient5::clean(broker.addr(), "publisher").publish("t", 1, "x");
    client.expect_nothing();
}

#[test]
fn mqtt5_3_11_3_1_unsuback_codes_are_in_the_order_of_the_filters() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    for filter in ["a", "b/+", "$share/g/c"] {
        client.subscribe(filter, 1);
    }
    let filters = ["x", "a", "a", "b/+", "b/x", "$share/other/c", "$share/g/c", "c"];
    assert_eq!(client.unsubscribe(&filters), [0x11, 0, 0x11, 0, 0x11, 0x11, 0, 0x11]);
}

#[test]
fn mqtt5_3_11_3_2_unsuback_says_0x11_when_there_was_nothing() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    assert_eq!(client.unsubscribe(&["t"]), [0x11]);
    client.subscribe("t", 0);
    assert_eq!(client.unsubscribe(&["T", "t/", "+"]), [0x11, 0x11, 0x11]);
    assert_eq!(client.unsubscribe(&["t"]), [0]);
    assert_eq!(client.unsubscribe(&["t"]), [0x11]);
}

#[test]
fn mqtt5_4_7_2_1_a_wildcard_at_the_front_does_not_match_dollar_topics() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    for filter in ["#", "+/x", "+/#", "$share/g/#", "$share/g/+/x"] {
        client.subscribe(filter, 0);
    }
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    publisher.publish("$other/x", 0, "hidden");
    client.expect_nothing();
    client.subscribe("$other/#", 0);
    publisher.publish("$other/x", 0, "seen");
    client.expect_message("$other/x", "seen");
    client.expect_nothing();
}

#[test]
fn bad_filters_close_the_connection() {
    let broker = TestBroker::start();
    for filter in ["", "a#", "#/a", "a/#/b", "a+", "+a/b"] {
        for unsubscribe in [false, true] {
            let mut client = RawClient5::clean(broker.addr(), "client");
            if unsubscribe {
                client.send(&wire5::unsubscribe5(1, &[], &[filter]));
            } else {
                client.send(&wire5::subscribe5(1, &[], &[(filter, 0)]));
            }
            client.expect_disconnect(0x8F);
        }
    }
}

#[test]
fn packets_without_filters_are_a_protocol_error() {
    let broker = TestBroker::start();
    for first_byte in [0x82, 0xA2] {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&packet(first_byte, &[0, 1, 0]));
        client.expect_disconnect(0x82);
    }
    // A filter without its options byte.
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.send(&packet(0x82, &[vec![0, 1, 0], field("t")].concat()));
    client.expect_disconnect(0x81);
}

#[test]
fn a_3_1_1_client_keeps_its_own_rules_for_options() {
    let broker = TestBroker::start();
    for options in [NO_LOCAL, RETAIN_AS_PUBLISHED, RETAIN_IF_NEW] {
        let mut client = RawClient::clean(broker.addr(), "client");
        client.send(&crate::support::wire::subscribe(1, &[("t", options)]));
        client.expect_closed();
    }
}
