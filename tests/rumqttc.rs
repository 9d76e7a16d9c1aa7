//! rumqttc, a client of its own make, against the broker.

use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, Event, EventLoop, LastWill, MqttOptions, Packet, Publish, QoS,
};
use ternmq::Broker;
use ternmq::config::{Config, Limits, ListenerConfig};

const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

async fn start() -> Broker {
    let listener = ListenerConfig::tcp(([127, 0, 0, 1], 0).into());
    let limits = Limits { queue_messages_max: 20_000, ..Limits::default() };
    let config = Config { listeners: vec![listener], limits, sys_interval: None, ..Config::default() };
    Broker::start(config).await.expect("a broker")
}

/// A client with the events it has yet to take.
struct TestClient {
    client: AsyncClient,
    events: EventLoop,
}

impl TestClient {
    fn options(broker: &Broker, id: &str) -> MqttOptions {
        let address = broker.local_addrs()[0];
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        options.set_keep_alive(Duration::from_secs(30)).set_max_packet_size(1 << 20, 1 << 20);
        options
    }

    /// Connects; also says whether a session was there.
    async fn connect(options: MqttOptions) -> (Self, bool) {
        let (client, events) = AsyncClient::new(options, 20_000);
        let mut client = Self { client, events };
        match client.next(|packet| matches!(packet, Packet::ConnAck(_))).await {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => (client, ack.session_present),
            other => panic!("{other:?}"),
        }
    }

    async fn clean(broker: &Broker, id: &str) -> Self {
        Self::connect(Self::options(broker, id)).await.0
    }

    /// The next packet from the broker that is `wanted`; others are passed over.
    async fn next(&mut self, wanted: impl Fn(&Packet) -> bool) -> Packet {
        let search = async {
            loop {
                match self.events.poll().await {
                    Ok(Event::Incoming(packet)) if wanted(&packet) => return packet,
                    Ok(_) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), search).await.expect("in time")
    }

    async fn next_publish(&mut self) -> Publish {
        match self.next(|packet| matches!(packet, Packet::Publish(_))).await {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }

    async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.client.subscribe(filter, qos).await.expect("taken");
        self.next(|packet| matches!(packet, Packet::SubAck(_))).await;
    }

    /// Publishes and waits until the broker has answered.
    async fn publish(&mut self, topic: &str, payload: &str, qos: QoS, retain: bool) {
        self.client.publish(topic, qos, retain, payload).await.expect("taken");
        match qos {
            QoS::AtMostOnce => self.fence().await,
            QoS::AtLeastOnce => drop(self.next(|packet| matches!(packet, Packet::PubAck(_))).await),
            QoS::ExactlyOnce => drop(self.next(|packet| matches!(packet, Packet::PubComp(_))).await),
        }
    }

    /// Everything sent before has been handled when this returns.
    async fn fence(&mut self) {
        self.client.unsubscribe("fence").await.expect("taken");
        self.next(|packet| matches!(packet, Packet::UnsubAck(_))).await;
    }

    async fn disconnect(mut self) {
        self.client.disconnect().await.expect("taken");
        while self.events.poll().await.is_ok() {}
    }
}

fn text(publish: &Publish) -> String {
    format!("{}={}", publish.topic, String::from_utf8_lossy(&publish.payload))
}

#[tokio::test]
async fn every_qos_both_ways() {
    let broker = start().await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    for granted in ALL_QOS {
        subscriber.subscribe(&format!("{}/#", granted as u8), granted).await;
        for published in ALL_QOS {
            let topic = format!("{}/{}", granted as u8, published as u8);
            publisher.publish(&topic, "x", published, false).await;
            let publish = subscriber.next_publish().await;
            assert_eq!(text(&publish), format!("{topic}=x"));
            assert_eq!(publish.qos as u8, (granted as u8).min(published as u8), "{topic}");
            assert!(!publish.dup && !publish.retain);
        }
    }
}

#[tokio::test]
async fn a_retained_message_waits_for_subscribers_and_an_empty_one_removes_it() {
    let broker = start().await;
    let mut publisher = TestClient::clean(&broker, "publisher").await;
    publisher.publish("state/1", "on", QoS::AtLeastOnce, true).await;
    publisher.publish("state/2", "off", QoS::ExactlyOnce, true).await;
    publisher.publish("state/2", "", QoS::AtLeastOnce, true).await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    subscriber.subscribe("state/+", QoS::AtLeastOnce).await;
    let publish = subscriber.next_publish().await;
    assert!(publish.retain);
    assert_eq!(text(&publish), "state/1=on");
    publisher.publish("state/3", "live", QoS::AtLeastOnce, true).await;
    let publish = subscriber.next_publish().await;
    assert!(!publish.retain, "[MQTT-3.3.1-9]");
    assert_eq!(text(&publish), "state/3=live");
}

#[tokio::test]
async fn a_will_is_published_on_loss_and_not_on_disconnect() {
    let broker = start().await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    subscriber.subscribe("will/#", QoS::AtLeastOnce).await;
    for (id, orderly) in [("orderly", true), ("lost", false)] {
        let mut options = TestClient::options(&broker, id);
        options.set_last_will(LastWill::new(format!("will/{id}"), "gone", QoS::AtLeastOnce, false));
        let (client, _) = TestClient::connect(options).await;
        if orderly {
            client.disconnect().await;
        } else {
            drop(client);
        }
    }
    assert_eq!(text(&subscriber.next_publish().await), "will/lost=gone");
}

#[tokio::test]
async fn a_persistent_session_is_resumed_with_what_came_meanwhile() {
    let broker = start().await;
    let persistent = |clean: bool| {
        let mut options = TestClient::options(&broker, "sleeper");
        options.set_clean_session(clean);
        options
    };
    let (mut sleeper, present) = TestClient::connect(persistent(false)).await;
    assert!(!present);
    sleeper.subscribe("mail/#", QoS::ExactlyOnce).await;
    sleeper.disconnect().await;

    let mut publisher = TestClient::clean(&broker, "publisher").await;
    for n in 0..200 {
        let qos = ALL_QOS[n % 3];
        publisher.publish(&format!("mail/{}", qos as u8), &n.to_string(), qos, false).await;
    }
    let (mut sleeper, present) = TestClient::connect(persistent(false)).await;
    assert!(present);
    // QoS 0 is not kept; the others come in their order.
    for n in (0..200).filter(|n| n % 3 != 0) {
        let publish = sleeper.next_publish().await;
        assert_eq!(text(&publish), format!("mail/{}={n}", n % 3));
        assert!(!publish.dup);
    }
    sleeper.disconnect().await;

    let (mut sleeper, present) = TestClient::connect(persistent(true)).await;
    assert!(!present, "a clean session throws the old one away");
    publisher.publish("mail/1", "nobody", QoS::AtLeastOnce, false).await;
    sleeper.subscribe("other", QoS::AtMostOnce).await;
    publisher.publish("other", "only this", QoS::AtLeastOnce, false).await;
    assert_eq!(text(&sleeper.next_publish().await), "other=only this");
}

#[tokio::test]
async fn ten_thousand_messages_arrive_in_order() {
    const COUNT: u32 = 10_000;
    let broker = start().await;
    let mut subscriber = TestClient::clean(&broker, "subscriber").await;
    subscriber.subscribe("many", QoS::ExactlyOnce).await;
    for qos in ALL_QOS {
        let TestClient { client, mut events } = TestClient::clean(&broker, "publisher").await;
        // Ends when the client is dropped and all it was given is sent.
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
    let metrics = broker.metrics();
    assert_eq!(metrics.dropped.values().sum::<u64>(), 0, "{:?}", metrics.dropped);
    assert_eq!(metrics.publish_received, u64::from(3 * COUNT));
}
