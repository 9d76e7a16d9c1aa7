//! The filters of shared subscriptions (section 4.8.2).

use crate::support::wire5;
use crate::support::{RawClient, RawClient5, TestBroker};

/// By the first and second statement of 4.8.2.
const NO_NAME_OR_NO_FILTER: [&str; 5] = ["$share/", "$share//t", "$share/g", "$share/g/", "$share//"];
const WILDCARD_IN_NAME: [&str; 5] = ["$share/+/t", "$share/#/t", "$share/a+/t", "$share/g#/t", "$share/#"];
const BAD_FILTER_BEHIND: [&str; 3] = ["$share/g/a#", "$share/g/#/a", "$share/g/a+/b"];

#[track_caller]
fn refused_in_5(filters: &[&str]) {
    let broker = TestBroker::start();
    let mut bystander = RawClient5::clean(broker.addr(), "bystander");
    for filter in filters {
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::subscribe5(1, &[], &[("fine", 0), (filter, 0)]));
        client.expect_disconnect(0x8F);
        let mut client = RawClient5::clean(broker.addr(), "client");
        client.send(&wire5::unsubscribe5(1, &[], &[filter]));
        client.expect_disconnect(0x8F);
    }
    bystander.expect_nothing();
}

#[test]
fn mqtt5_4_8_2_1_a_share_name_has_a_character_and_a_filter_follows() {
    refused_in_5(&NO_NAME_OR_NO_FILTER);
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    let good = ["$share/g/t", "$share/é/t", "$share/ /t", "$share/$share/t", "$share/g//", "$share/g/$SYS/#"];
    for filter in good {
        client.subscribe(filter, 1);
        assert_eq!(client.unsubscribe(&[filter]), [0]);
    }
}

#[test]
fn mqtt5_4_8_2_2_a_share_name_has_no_wildcards() {
    refused_in_5(&WILDCARD_IN_NAME);
}

#[test]
fn the_filter_behind_the_name_must_be_valid() {
    refused_in_5(&BAD_FILTER_BEHIND);
}

#[test]
fn clients_of_3_1_1_are_refused_in_suback() {
    let broker = TestBroker::start();
    let mut client = RawClient::clean(broker.addr(), "client");
    for filter in NO_NAME_OR_NO_FILTER {
        assert_eq!(client.subscribe_all(&[("fine", 1), (filter, 1)]), [1, 0x80], "{filter}");
    }
    // Those with a misplaced wildcard are no filters in 3.1.1 either, save where it stands alone in its level.
    for filter in ["$share/+/t", "$share/#"] {
        assert_eq!(client.subscribe_all(&[(filter, 1)]), [0x80], "{filter}");
    }
    client.unsubscribe("$share//t");
    client.expect_nothing();
}

#[test]
fn what_only_looks_like_a_shared_subscription_is_a_plain_one() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    let mut publisher = RawClient5::clean(broker.addr(), "publisher");
    for topic in ["$Share/g/t", "$shared/g/t", "share/g/t", "/$share/g/t", "$share"] {
        client.subscribe(topic, 0);
        publisher.publish(topic, 0, "x");
        client.expect_message(topic, "x");
    }
    client.expect_nothing();
}

#[test]
fn a_publish_to_the_name_of_a_shared_subscription_reaches_no_member() {
    let broker = TestBroker::start();
    let mut client = RawClient5::clean(broker.addr(), "client");
    client.subscribe("$share/g/t", 0);
    RawClient5::clean(broker.addr(), "publisher").publish("$share/g/t", 0, "x");
    client.expect_nothing();
}
