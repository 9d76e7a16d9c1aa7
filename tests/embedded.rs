//! The broker inside a program: publish and subscribe in-process, beside clients over TCP.

#[path = "embedded/client.rs"]
mod client;

use std::collections::BTreeSet;
use std::time::Duration;

use client::TestClient;
use ternmq::config::{Config, Limits, ListenerConfig, MemoryMax};
use ternmq::{Broker, PublishError, QoS, StartError, SubscribeError, Subscription, TopicError};

async fn start(limits: Limits) -> Broker {
    let listener = ListenerConfig::tcp(([127, 0, 0, 1], 0).into());
    let config = Config { listeners: vec![listener], limits, sys_interval: None, ..Config::default() };
    Broker::start(config).await.expect("a broker")
}

/// The next message as `topic=payload`, `None` at the end. Fails the test if nothing comes.
async fn next(subscription: &mut Subscription) -> Option<String> {
    let received = within(subscription.recv()).await?;
    Some(format!("{}={}", received.topic(), String::from_utf8_lossy(received.payload())))
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("in time")
}

#[tokio::test]
async fn messages_go_between_the_program_and_clients_both_ways() {
    let broker = start(Limits::default()).await;
    let mut subscription = broker.subscribe("up/+", QoS::AtLeastOnce).expect("valid");
    let mut client = TestClient::connect(&broker, "device", true).await;
    client.subscribe("down/#", QoS::ExactlyOnce).await;
    for n in 0..50 {
        client.publish("up/1", &n.to_string(), QoS::AtLeastOnce).await;
        broker.publish("down/1", n.to_string().as_bytes(), QoS::AtMostOnce, false).expect("valid");
    }
    for n in 0..50 {
        assert_eq!(next(&mut subscription).await, Some(format!("up/1={n}")));
        assert_eq!(client.next_publish().await, format!("down/1={n}"));
    }
}

#[tokio::test]
async fn the_lower_qos_is_told_and_live_messages_are_not_retained_ones() {
    let broker = start(Limits::default()).await;
    let mut subscription = broker.subscribe("t", QoS::AtLeastOnce).expect("valid");
    // So that there is nothing retained when the subscription looks.
    broker.publish("t", b"first", QoS::AtMostOnce, false).expect("valid");
    assert_eq!(next(&mut subscription).await.as_deref(), Some("t=first"));
    let mut seen = Vec::new();
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        broker.publish("t", b"x", qos, true).expect("valid");
        let received = within(subscription.recv()).await.expect("a message");
        assert!(!received.retain());
        seen.push(received.qos());
    }
    assert_eq!(seen, [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::AtLeastOnce]);
}

#[tokio::test]
async fn retained_messages_come_first_each_topic_once_and_as_last_set() {
    let broker = start(Limits::default()).await;
    for n in 0..300 {
        for payload in [b"old ", b"kept"] {
            broker.publish(&format!("r/{n}"), payload, QoS::AtLeastOnce, true).expect("valid");
        }
    }
    broker.publish("r/7", b"", QoS::AtLeastOnce, true).expect("valid");
    assert_eq!(broker.metrics().retained, 299);
    let mut subscription = broker.subscribe("r/#", QoS::AtMostOnce).expect("valid");
    broker.publish("r/live", b"new", QoS::AtMostOnce, false).expect("valid");
    let mut topics = BTreeSet::new();
    for _ in 0..299 {
        let received = within(subscription.recv()).await.expect("a message");
        assert!(received.retain() && received.payload() == b"kept", "{received:?}");
        assert_eq!(received.qos(), QoS::AtMostOnce);
        assert!(topics.insert(received.topic().to_owned()), "{} twice", received.topic());
    }
    assert!(!topics.contains("r/7"));
    assert_eq!(next(&mut subscription).await.as_deref(), Some("r/live=new"));
}

#[tokio::test]
async fn what_does_not_fit_is_dropped_and_counted_by_reason() {
    let broker = start(Limits { queue_messages_max: 3, queue_bytes_max: 1_000, ..Limits::default() }).await;
    let mut subscription = broker.subscribe("t", QoS::AtLeastOnce).expect("valid");
    broker.publish("t", &[0; 1_000], QoS::AtLeastOnce, false).expect("valid");
    for n in 0..5 {
        broker.publish("t", n.to_string().as_bytes(), QoS::AtLeastOnce, false).expect("valid");
    }
    for n in 0..3 {
        assert_eq!(next(&mut subscription).await, Some(format!("t={n}")));
    }
    for _ in 0..2 {
        broker.publish("t", &[0; 600], QoS::AtLeastOnce, false).expect("valid");
    }
    let dropped: Vec<_> = broker.metrics().dropped.into_iter().collect();
    assert_eq!(dropped, [("queue_full", 2), ("queue_full_bytes", 1), ("too_large", 1)]);
    assert_eq!(within(subscription.recv()).await.map(|received| received.payload().len()), Some(600));
    broker.publish("t", b"room again", QoS::AtLeastOnce, false).expect("valid");
    assert_eq!(next(&mut subscription).await.as_deref(), Some("t=room again"));
}

#[tokio::test]
async fn dropping_a_subscription_unsubscribes() {
    let broker = start(Limits::default()).await;
    let first = broker.subscribe("t", QoS::AtMostOnce).expect("valid");
    let mut second = broker.subscribe("t", QoS::AtMostOnce).expect("valid");
    assert_eq!(broker.metrics().subscriptions, 2);
    drop(first);
    assert_eq!(broker.metrics().subscriptions, 1);
    broker.publish("t", b"x", QoS::AtMostOnce, false).expect("valid");
    assert_eq!(next(&mut second).await.as_deref(), Some("t=x"));
    assert_eq!(broker.metrics().publish_sent, 1);
}

#[tokio::test]
async fn recv_wakes_for_a_message_that_comes_later_and_survives_being_cancelled() {
    let broker = start(Limits::default()).await;
    let mut subscription = broker.subscribe("t", QoS::AtMostOnce).expect("valid");
    // Polled once and given up.
    tokio::select! {
        biased;
        received = subscription.recv() => panic!("nothing was published: {received:?}"),
        () = std::future::ready(()) => {}
    }
    let receiver = tokio::spawn(async move { next(&mut subscription).await });
    tokio::task::yield_now().await;
    broker.publish("t", b"later", QoS::AtMostOnce, false).expect("valid");
    assert_eq!(within(receiver).await.expect("no panic").as_deref(), Some("t=later"));
}

#[tokio::test]
async fn after_shutdown_what_waits_is_received_and_then_the_end() {
    let broker = start(Limits::default()).await;
    let mut subscription = broker.subscribe("t", QoS::AtMostOnce).expect("valid");
    let mut idle = broker.subscribe("idle", QoS::AtMostOnce).expect("valid");
    let waiting = tokio::spawn(async move { next(&mut idle).await });
    tokio::task::yield_now().await;
    broker.publish("t", b"last", QoS::AtMostOnce, false).expect("valid");
    within(broker.shutdown()).await;
    assert_eq!(next(&mut subscription).await.as_deref(), Some("t=last"));
    assert_eq!(next(&mut subscription).await, None);
    assert_eq!(within(waiting).await.expect("no panic"), None);
}

#[tokio::test]
async fn shutdown_writes_what_clients_are_owed_and_closes() {
    let broker = start(Limits::default()).await;
    let mut client = TestClient::connect(&broker, "slow", true).await;
    client.subscribe("t", QoS::AtMostOnce).await;
    // More than the sockets take before somebody reads.
    let body = "x".repeat(100_000);
    for n in 0..200 {
        broker.publish("t", format!("{n} {body}").as_bytes(), QoS::AtMostOnce, false).expect("valid");
    }
    let read = async {
        for n in 0..200 {
            assert_eq!(client.next_publish().await, format!("t={n} {body}"));
        }
        client.expect_end().await;
    };
    let shutdown = async {
        broker.shutdown().await;
        broker.metrics()
    };
    let ((), metrics) = within(async { tokio::join!(read, shutdown) }).await;
    assert_eq!((metrics.sockets, metrics.clients_connected), (0, 0), "when shutdown returns");
    assert_eq!(metrics.dropped.values().sum::<u64>(), 0);
}

#[tokio::test]
async fn two_brokers_in_one_process_share_nothing() {
    let (one, two) = (start(Limits::default()).await, start(Limits::default()).await);
    let mut on_one = one.subscribe("#", QoS::AtMostOnce).expect("valid");
    let mut on_two = two.subscribe("#", QoS::AtMostOnce).expect("valid");
    // The same client id on both: no take-over.
    let mut client_one = TestClient::connect(&one, "same", true).await;
    let mut client_two = TestClient::connect(&two, "same", true).await;
    one.publish("live", b"1", QoS::AtMostOnce, false).expect("valid");
    client_two.publish("t", "2", QoS::AtLeastOnce).await;
    client_one.publish("t", "1", QoS::AtLeastOnce).await;
    assert_eq!(next(&mut on_one).await.as_deref(), Some("live=1"));
    assert_eq!(next(&mut on_one).await.as_deref(), Some("t=1"));
    assert_eq!(next(&mut on_two).await.as_deref(), Some("t=2"));
    one.publish("kept", b"1", QoS::AtMostOnce, true).expect("valid");
    assert_eq!((one.metrics().retained, two.metrics().retained), (1, 0));
    assert_eq!(next(&mut on_one).await.as_deref(), Some("kept=1"));
    within(one.shutdown()).await;
    assert_eq!(next(&mut on_one).await, None);
    client_two.publish("t", "still here", QoS::AtLeastOnce).await;
    assert_eq!(next(&mut on_two).await.as_deref(), Some("t=still here"));
}

#[tokio::test]
async fn a_data_directory_serves_one_broker_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = Some(directory.path().join("data"));
    let config = Config { data_dir, listeners: Vec::new(), ..Config::default() };
    let first = Broker::start(config.clone()).await.expect("the first");
    match Broker::start(config.clone()).await {
        Err(StartError::DataDir(error)) => assert!(error.to_string().contains("in use"), "{error}"),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a second broker on the same directory"),
    }
    within(first.shutdown()).await;
    drop(first);
    Broker::start(config).await.expect("free again");
}

#[tokio::test]
async fn an_address_in_use_is_an_error_that_names_it() {
    let broker = start(Limits::default()).await;
    let taken = broker.local_addrs()[0];
    let config = Config { listeners: vec![ListenerConfig::tcp(taken)], ..Config::default() };
    match Broker::start(config).await {
        Err(StartError::Listen { address, .. }) => assert_eq!(address, taken),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("two listeners on {taken}"),
    }
}

#[tokio::test]
async fn bad_topics_and_filters_are_errors() {
    let broker = start(Limits { topic_levels_max: 3, topic_bytes_max: 10, ..Limits::default() }).await;
    for topic in ["", "a/#", "a/+", "a\0b"] {
        assert!(broker.publish(topic, b"", QoS::AtMostOnce, false).is_err(), "{topic:?}");
    }
    assert_eq!(broker.publish("", b"", QoS::AtMostOnce, false), Err(PublishError::Topic(TopicError::Empty)));
    for filter in ["", "a/#/b", "a+", "a#"] {
        let result = broker.subscribe(filter, QoS::AtMostOnce).map(drop);
        assert!(matches!(result, Err(SubscribeError::Filter(_))), "{filter:?}: {result:?}");
    }
    let result = broker.subscribe("$share/g", QoS::AtMostOnce).map(drop);
    assert_eq!(result, Err(SubscribeError::Filter(TopicError::NoSharedFilter)));
    let result = broker.subscribe("a/b/c/#", QoS::AtMostOnce).map(drop);
    assert_eq!(result, Err(SubscribeError::TooManyLevels { max: 3 }));
    let result = broker.subscribe("12345678/90", QoS::AtMostOnce).map(drop);
    assert_eq!(result, Err(SubscribeError::TooLong { max: 10 }));
    let publish = |topic| broker.publish(topic, b"", QoS::AtMostOnce, false);
    assert_eq!(publish("a/b/c/d"), Err(PublishError::TooManyLevels { max: 3 }));
    assert_eq!(publish("12345678/90"), Err(PublishError::TopicTooLong { max: 10 }));
    assert_eq!(publish("1234/67/90"), Ok(()));
    assert_eq!(broker.metrics().subscriptions, 0);
}

#[tokio::test]
async fn a_subscription_for_which_there_is_no_memory_is_refused_with_its_limit() {
    let memory_max = MemoryMax::Bytes(1_000_000);
    let broker = start(Limits { memory_max, ..Limits::default() }).await;
    // A quarter of the bound is for what lasts: five filters of this length are more than that.
    let filter = |n: usize| format!("{n}/{}", "x".repeat(60_000));
    let mut held = Vec::new();
    let refusal = (0..5)
        .find_map(|n| match broker.subscribe(&filter(n), QoS::AtMostOnce) {
            Ok(subscription) => {
                held.push(subscription);
                None
            }
            Err(refusal) => Some(refusal),
        })
        .expect("one is too many");
    assert_eq!(refusal, SubscribeError::QuotaExceeded { limit: "limits.memory_max" });
    held.pop();
    broker.subscribe(&filter(9), QoS::AtMostOnce).expect("its room is free again");
    let config = Limits { subscription_bytes_max: 10, ..Limits::default() };
    let broker = start(config).await;
    let refusal = broker.subscribe("12345678/90", QoS::AtMostOnce).map(drop);
    assert_eq!(refusal, Err(SubscribeError::QuotaExceeded { limit: "limits.subscription_bytes_max" }));
}

#[tokio::test]
async fn the_will_of_a_client_reaches_the_program() {
    let broker = start(Limits::default()).await;
    let mut subscription = broker.subscribe("will", QoS::AtLeastOnce).expect("valid");
    let client = TestClient::connect_with_will(&broker, "mortal", "will", "gone").await;
    drop(client);
    assert_eq!(next(&mut subscription).await.as_deref(), Some("will=gone"));
    assert_eq!(broker.metrics().wills_published, 1);
}
