//! rumqttc's client of MQTT 5 against the broker: its own codec at the other end, on both versions at once.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    ConnAck, ConnectProperties, DisconnectReasonCode, Filter, LastWill, LastWillProperties, Packet,
    PubAckReason, Publish, PublishProperties, RetainForwardRule, SubscribeProperties, UnsubAckReason,
};
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use ternmq::Broker;
use ternmq::config::{Config, Limits, ListenerConfig};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn start() -> Broker {
    let listener = ListenerConfig::tcp(([127, 0, 0, 1], 0).into());
    let limits = Limits { queue_messages_max: 20_000, ..Limits::default() };
    let config = Config { listeners: vec![listener], limits, sys_interval: None, ..Config::default() };
    Broker::start(config).await.expect("a broker")
}

/// What has to come, comes within a minute.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future).await.expect("in time")
}

/// A client with the events it has yet to take.
struct TestClient {
    client: AsyncClient,
    events: EventLoop,
    /// Messages that came while something else was waited for.
    received: VecDeque<Publish>,
}

impl TestClient {
    fn options(broker: &Broker, id: &str) -> MqttOptions {
        let address = broker.local_addrs()[0];
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(30)).set_clean_start(true);
        options
    }

    async fn connect(options: MqttOptions) -> (Self, ConnAck) {
        let (client, events) = AsyncClient::new(options, 20_000);
        let mut client = Self { client, events, received: VecDeque::new() };
        match client.next(|packet| matches!(packet, Packet::ConnAck(_))).await {
            Packet::ConnAck(ack) => (client, ack),
            other => panic!("{other:?}"),
        }
    }

    async fn clean(broker: &Broker, id: &str) -> Self {
        Self::connect(Self::options(broker, id)).await.0
    }

    /// The next packet from the broker that is `wanted`; messages before it are kept, other packets passed over.
    async fn next(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        in_time(async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) if wanted(&packet) => return packet,
                    Ok(Event::Incoming(Packet::Publish(publish))) => self.received.push_back(publish),
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
        .await
    }

    async fn next_publish(&mut self) -> Publish {
        if let Some(publish) = self.received.pop_front() {
            return publish;
        }
        match self.next(|packet| matches!(packet, Packet::Publish(_))).await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    /// How the connection ends.
    async fn end(&mut self) -> ConnectionError {
        in_time(async {
            loop {
                if let Err(error) = self.events.poll().await {
                    return error;
                }
            }
        })
        .await
    }

    async fn subscribe(&mut self, filter: Filter, id: Option<usize>) {
        let properties = SubscribeProperties { id, user_properties: Vec::new() };
        self.client.subscribe_many_with_properties([filter], properties).await.expect("taken");
        self.next(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// Publishes and waits until the broker has answered.
    async fn publish(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
        retain: bool,
        properties: PublishProperties,
    ) {
        let payload = payload.to_owned();
        self.client.publish_with_properties(topic, qos, retain, payload, properties).await.expect("taken");
        match qos {
            QoS::AtMostOnce => {
                // Everything sent before has been handled when this is answered.
                self.client.unsubscribe("fence").await.expect("taken");
                drop(self.next(|packet| matches!(packet, Packet::UnsubAck(_))).await);
            }
            QoS::AtLeastOnce => drop(self.next(|packet| matches!(packet, Packet::PubAck(_))).await),
            QoS::ExactlyOnce => drop(self.next(|packet| matches!(packet, Packet::PubComp(_))).await),
        }
    }

    async fn disconnect(mut self) {
        self.client.disconnect().await.expect("taken");
        while self.events.poll().await.is_ok() {}
    }
}

fn text(publish: &Publish) -> String {
    format!("{}={}", String::from_utf8_lossy(&publish.topic), String::from_utf8_lossy(&publish.payload))
}

fn user_properties() -> Vec<(String, String)> {
    [("b", "1"), ("a", "ü"), ("b", "1"), ("", "")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn some_properties() -> PublishProperties {
    PublishProperties {
        payload_format_indicator: Some(1),
        message_expiry_interval: Some(600),
        response_topic: Some("answers/here".to_owned()),
        correlation_data: Some(vec![0, 255, 1].into()),
        user_properties: user_properties(),
        content_type: Some("text/plain".to_owned()),
        ..PublishProperties::default()
    }
}

#[tokio::test]
async fn properties_are_passed_on_at_every_qos() {
    let broker = start().await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    for granted in ALL_QOS {
        subscriber.subscribe(Filter::new(format!("{}/#", granted as u8), granted), Some(7)).await;
        for published in ALL_QOS {
            let topic = format!("{}/{}", granted as u8, published as u8);
            publisher.publish(&topic, "x", published, false, some_properties()).await;
            let publish = subscriber.next_publish().await;
            assert_eq!(text(&publish), format!("{topic}=x"));
            assert_eq!(publish.qos as u8, (granted as u8).min(published as u8), "{topic}");
            let properties = publish.properties.expect("properties");
            let left = properties.message_expiry_interval.expect("an expiry");
            assert!((590..=600).contains(&left), "{left}");
            let sent = PublishProperties {
                message_expiry_interval: Some(left),
                subscription_identifiers: vec![7],
                ..some_properties()
            };
            assert_eq!(properties, sent);
        }
    }
}

#[tokio::test]
async fn overlapping_subscriptions_give_one_message_with_every_identifier() {
    let broker = start().await;
    let mut client = TestClient::clean(&broker, "both").await;
    client.subscribe(Filter::new("o/#", QoS::AtMostOnce), Some(1)).await;
    client.subscribe(Filter::new("o/+", QoS::ExactlyOnce), Some(268_435_455)).await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    publisher.publish("o/a", "x", QoS::ExactlyOnce, false, PublishProperties::default()).await;
    publisher.publish("o/a/b", "y", QoS::ExactlyOnce, false, PublishProperties::default()).await;
    let both = client.next_publish().await;
    let mut ids = both.properties.expect("identifiers").subscription_identifiers;
    ids.sort_unstable();
    assert_eq!((ids, both.qos), (vec![1, 268_435_455], QoS::ExactlyOnce));
    let one = client.next_publish().await;
    assert_eq!(String::from_utf8_lossy(&one.payload), "y");
    assert_eq!(one.properties.expect("an identifier").subscription_identifiers, [1]);
}

#[tokio::test]
async fn subscription_options() {
    let broker = start().await;
    let mut client = TestClient::clean(&broker, "client").await;
    let mut other = TestClient::clean(&broker, "other").await;
    other.publish("kept", "kept", QoS::AtLeastOnce, true, PublishProperties::default()).await;
    let mut never = Filter::new("kept", QoS::AtLeastOnce);
    never.retain_forward_rule = RetainForwardRule::Never;
    let mut deaf_to_itself = Filter::new("quiet", QoS::AtLeastOnce);
    deaf_to_itself.nolocal = true;
    let mut as_published = Filter::new("published", QoS::AtLeastOnce);
    as_published.preserve_retain = true;
    for filter in [never, deaf_to_itself, as_published] {
        client.subscribe(filter, None).await;
    }
    client.publish("quiet", "own", QoS::AtLeastOnce, false, PublishProperties::default()).await;
    other.publish("quiet", "other", QoS::AtLeastOnce, false, PublishProperties::default()).await;
    other.publish("published", "x", QoS::AtLeastOnce, true, PublishProperties::default()).await;
    let publish = client.next_publish().await;
    assert_eq!((text(&publish).as_str(), publish.retain), ("quiet=other", false));
    let publish = client.next_publish().await;
    assert_eq!((text(&publish).as_str(), publish.retain), ("published=x", true));
}

#[tokio::test]
async fn reason_codes() {
    let broker = start().await;
    let mut client = TestClient::clean(&broker, "client").await;
    client.client.publish("nobody", QoS::AtLeastOnce, false, "x").await.expect("taken");
    match client.next(|packet| matches!(packet, Packet::PubAck(_))).await {
        Packet::PubAck(ack) => assert_eq!(ack.reason, PubAckReason::NoMatchingSubscribers),
        other => panic!("{other:?}"),
    }
    client.client.unsubscribe("never").await.expect("taken");
    match client.next(|packet| matches!(packet, Packet::UnsubAck(_))).await {
        Packet::UnsubAck(ack) => assert_eq!(ack.reasons, [UnsubAckReason::NoSubscriptionExisted]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn topic_aliases_both_ways_at_every_qos() {
    let broker = start().await;
    let mut options = TestClient::options(&broker, "subscriber");
    options.set_topic_alias_max(Some(2));
    let (mut subscriber, ack) = TestClient::connect(options).await;
    assert!(ack.properties.and_then(|properties| properties.topic_alias_max).is_some_and(|max| max >= 3));
    subscriber.subscribe(Filter::new("alias/#", QoS::ExactlyOnce), None).await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    let mut known: HashMap<u16, String> = HashMap::new();
    let mut used = 0;
    for round in 0..3 {
        for qos in ALL_QOS {
            for number in 1..=3 {
                // rumqttc does not publish to an empty topic: each round says again what the alias stands for.
                let properties =
                    PublishProperties { topic_alias: Some(number), ..PublishProperties::default() };
                let topic = format!("alias/{}", (number + round) % 4);
                publisher.publish(&topic, &topic, qos, false, properties).await;
                // rumqttc hands over what was on the wire, alias and all.
                let publish = subscriber.next_publish().await;
                let name = String::from_utf8(publish.topic.to_vec()).expect("a topic");
                let resolved = match publish.properties.and_then(|properties| properties.topic_alias) {
                    Some(alias) if name.is_empty() => {
                        used += 1;
                        known.get(&alias).expect("introduced before").clone()
                    }
                    Some(alias) => {
                        assert!((1..=2).contains(&alias), "{alias}");
                        known.insert(alias, name.clone());
                        name
                    }
                    None => name,
                };
                assert_eq!(resolved, topic);
            }
        }
    }
    assert!(used > 0, "no alias was ever sent in place of a topic");
}

#[tokio::test]
async fn a_session_is_kept_for_its_expiry_and_comes_back_with_properties() {
    let broker = start().await;
    let session = |clean: bool, expiry: Option<u32>| {
        let mut options = TestClient::options(&broker, "sleeper");
        let properties = ConnectProperties { session_expiry_interval: expiry, ..ConnectProperties::new() };
        options.set_clean_start(clean).set_connect_properties(properties);
        options
    };
    let (mut sleeper, ack) = TestClient::connect(session(true, Some(600))).await;
    assert!(!ack.session_present);
    sleeper.subscribe(Filter::new("mail/#", QoS::ExactlyOnce), Some(5)).await;
    sleeper.disconnect().await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    for n in 0..60 {
        let qos = ALL_QOS[n % 3];
        publisher
            .publish(&format!("mail/{}", qos as u8), &n.to_string(), qos, false, some_properties())
            .await;
    }
    let (mut sleeper, ack) = TestClient::connect(session(false, None)).await;
    assert!(ack.session_present);
    for n in (0..60).filter(|n| n % 3 != 0) {
        let publish = sleeper.next_publish().await;
        assert_eq!(text(&publish), format!("mail/{}={n}", n % 3));
        let properties = publish.properties.expect("properties");
        assert_eq!(
            (properties.user_properties, properties.subscription_identifiers),
            (user_properties(), vec![5])
        );
    }
    sleeper.disconnect().await;
    let (_, ack) = TestClient::connect(session(false, None)).await;
    assert!(!ack.session_present, "without an expiry the session ended with its connection");
}

#[tokio::test]
async fn a_will_carries_its_properties_and_waits_for_its_delay() {
    let broker = start().await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    subscriber.subscribe(Filter::new("will/#", QoS::AtLeastOnce), None).await;
    let properties = LastWillProperties {
        delay_interval: Some(1),
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".to_owned()),
        response_topic: None,
        correlation_data: None,
        user_properties: user_properties(),
    };
    let start = Instant::now();
    for (id, orderly) in [("orderly", true), ("lost", false)] {
        let mut options = TestClient::options(&broker, id);
        options.set_session_expiry_interval(Some(600));
        options.set_last_will(LastWill::new(
            format!("will/{id}"),
            "gone",
            QoS::AtLeastOnce,
            false,
            Some(properties.clone()),
        ));
        let (client, _) = TestClient::connect(options).await;
        if orderly { client.disconnect().await } else { drop(client) }
    }
    let publish = subscriber.next_publish().await;
    assert_eq!(text(&publish), "will/lost=gone");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
    let properties = publish.properties.expect("properties");
    assert_eq!(
        (properties.user_properties, properties.content_type.as_deref()),
        (user_properties(), Some("text/plain"))
    );
}

#[tokio::test]
async fn taking_over_and_shutting_down_are_announced() {
    let broker = start().await;
    let mut old = TestClient::clean(&broker, "same").await;
    let mut new = TestClient::clean(&broker, "same").await;
    let reason = |error: ConnectionError| match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, .. }) => reason_code,
        other => panic!("{other}"),
    };
    assert_eq!(reason(old.end().await), DisconnectReasonCode::SessionTakenOver);
    let (end, _) = tokio::join!(new.end(), broker.shutdown());
    assert_eq!(reason(end), DisconnectReasonCode::ServerShuttingDown);
}

#[tokio::test]
async fn ten_thousand_messages_arrive_in_order_through_a_small_window() {
    const COUNT: u32 = 10_000;
    let broker = start().await;
    let mut options = TestClient::options(&broker, "subscriber");
    options.set_receive_maximum(Some(10));
    let mut subscriber = TestClient::connect(options).await.0;
    subscriber.subscribe(Filter::new("many", QoS::ExactlyOnce), None).await;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let TestClient { client, mut events, .. } = TestClient::clean(&broker, "publisher").await;
        // Ends when the client has said goodbye after all it was given.
        let driver = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let send = async {
            for n in 0..COUNT {
                client.publish("many", qos, false, n.to_string()).await.expect("taken");
            }
        };
        let receive = async {
            for n in 0..COUNT {
                let publish = subscriber.next_publish().await;
                assert_eq!((publish.qos, text(&publish)), (qos, format!("many={n}")));
                assert!(!publish.dup);
            }
        };
        tokio::join!(send, receive);
        client.disconnect().await.expect("taken");
        driver.await.expect("no panic");
    }
    assert_eq!(broker.metrics().dropped.values().sum::<u64>(), 0);
}
