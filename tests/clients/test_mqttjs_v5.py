"""MQTT.js with `protocolVersion: 5`."""

import signal

import pytest

from support.mosquitto import Message, Subscriber, pub
from support.mosquitto_v5 import Subscriber5, got, pub5

QOS = [0, 1, 2]
PROPERTIES = {
    "payloadFormatIndicator": True,
    "messageExpiryInterval": 600,
    "contentType": "text/plain",
    "responseTopic": "answers/here",
    "correlationData": "any-data",
    "userProperties": {"b": ["1", "2"], "a": "ü"},
}


@pytest.fixture
def js5(js):
    """Clients on MQTT 5; `properties` are those of CONNECT."""

    def make(port, **options):
        return js(port, protocolVersion=5, **options)

    return make


def payloads(messages):
    return [message.payload for message in messages]


@pytest.mark.parametrize("qos", QOS)
def test_properties_both_ways(broker, js5, qos):
    client = js5(broker.port)
    assert client.connected() is False
    assert client.subscribe(qos, "t/#", properties={"subscriptionIdentifier": 5}) == [qos]
    with Subscriber5(broker.port, "-t", "t/js", "-q", str(qos)) as subscriber:
        client.publish("t/js", "from js", qos, properties=PROPERTIES)
        message = subscriber.details(1)[0]
        assert 590 <= int(message.expiry) <= 600
        expected = ("text/plain", "any-data", message.expiry, "1", "b:1 b:2 a:ü", "answers/here", "", "from js")
        assert tuple(message) == expected
    pub5(broker.port, "-t", "t/js", "-q", str(qos), "-m", "to js", user_property=[("k", "1"), ("k", "2")])
    own, other = client.properties(2)
    assert 590 <= own["messageExpiryInterval"] <= 600
    assert own == {**PROPERTIES, "messageExpiryInterval": own["messageExpiryInterval"], "subscriptionIdentifier": 5}
    assert other == {"userProperties": {"k": ["1", "2"]}, "subscriptionIdentifier": 5}
    assert [message.qos for message in client.messages(2)] == [qos, qos]


def test_connack(broker, js5):
    client = js5(broker.port, clientId="", clean=True)
    client.connected()
    properties = client.wait("connect")[0]["properties"]
    assert properties["assignedClientIdentifier"]
    assert properties["topicAliasMaximum"] > 0


def test_reason_codes(broker, js5):
    client = js5(broker.port)
    client.connected()
    client.publish("nobody", "x", 1)
    client.subscribe(1, "somebody")
    client.publish("somebody", "x", 1)
    assert [event["reasonCode"] for event in client.wait("puback", 2)] == [0x10, 0]


@pytest.mark.ternmq_only("mosquitto 2.0.11 uses no aliases of its own")
# At QoS 2 MQTT.js itself forgets which topic the alias stood for.
@pytest.mark.parametrize("qos", [0, 1])
def test_topic_aliases_of_the_broker(broker, js5, qos):
    client = js5(broker.port, properties={"topicAliasMaximum": 3})
    client.connected()
    client.subscribe(qos, "alias/#")
    topics = [f"alias/{number % 5}/a/topic/long/enough/to/be/worth/a/number" for number in range(60)]
    for topic in topics:
        pub(broker.port, "-t", topic, "-q", str(qos), "-m", topic)
    assert client.messages(60) == [Message(topic, qos, False, topic) for topic in topics]
    wire = client.wait("wire", 60)
    aliases = [packet.get("alias") for packet in wire]
    assert set(filter(None, aliases)) <= {1, 2, 3}
    assert any(packet["topic"] == "" for packet in wire), "no alias was ever used in place of a topic"
    assert not [item for item in client.events.all() if item["event"] in ("error", "reconnect")]


def test_topic_aliases_of_the_client(broker, js5):
    client = js5(broker.port, autoAssignTopicAlias=True)
    client.connected()
    with Subscriber(broker.port, "-V", "5", "-t", "alias/#", "-q", "1") as subscriber:
        topics = [f"alias/{number % 40}" for number in range(120)]
        for topic in topics:
            client.publish(topic, topic, 1, wait=False)
        assert subscriber.messages.wait_count(120) == [Message(topic, 1, False, topic) for topic in topics]


def test_subscription_options(broker, js5):
    client = js5(broker.port)
    client.connected()
    pub(broker.port, "-t", "kept", "-q", "1", "-r", "-m", "kept")
    client.subscribe(1, "kept", rh=2)
    client.subscribe(1, "quiet", nl=True)
    client.subscribe(1, "published", rap=True)
    client.publish("quiet", "own", 1)
    pub(broker.port, "-t", "quiet", "-q", "1", "-m", "other")
    pub(broker.port, "-t", "published", "-q", "1", "-r", "-m", "retained")
    assert client.messages(2) == [Message("quiet", 1, False, "other"), Message("published", 1, True, "retained")]


def test_shared_subscription(broker, js5):
    members = [js5(broker.port, clientId=f"member-{number}") for number in range(2)]
    for member in members:
        member.connected()
        member.subscribe(1, "$share/group/jobs/+")
    lines = "".join(f"{number}\n" for number in range(60)).encode()
    with Subscriber(broker.port, "-V", "5", "-t", "$share/group/jobs/+", "-t", "jobs/+", "-q", "1") as third:
        pub(broker.port, "-t", "jobs/1", "-q", "1", "-l", stdin=lines)
        third.messages.wait_count(60)
    # The third left with what it had; a last word to each of the two shows that all before it has come.
    for number, member in enumerate(members):
        member.subscribe(1, f"end/{number}")
        pub(broker.port, "-t", f"end/{number}", "-q", "1", "-m", "end")
    shares = []
    for member in members:
        member.events.wait(lambda items: any(i.get("payload") == "end" for i in items), "the end")
        shares.append([m.payload for m in member.messages(1) if m.payload != "end"])
    assert not set(shares[0]) & set(shares[1])
    assert min(map(len, shares)) >= 10, [len(share) for share in shares]


def test_session_resumes_within_its_expiry(broker, js5):
    session = {"clientId": "js-keeper", "clean": False, "properties": {"sessionExpiryInterval": 600}}
    first = js5(broker.port, **session)
    assert first.connected() is False
    first.subscribe(2, "q/#", properties={"subscriptionIdentifier": 3})
    first.do("end")
    for number in range(12):
        qos = number % 3
        pub5(broker.port, "-t", f"q/{qos}", "-q", str(qos), "-m", str(number), user_property=[("n", str(number))])
    second = js5(broker.port, **session)
    assert second.connected() is True
    messages = second.messages(8)
    # MQTT.js hands over a QoS 2 message when it is released, so there is an order at each QoS only.
    for qos in (1, 2):
        expected = [str(number) for number in range(12) if number % 3 == qos]
        assert [message.payload for message in messages if message.qos == qos] == expected
    for message, properties in zip(messages, second.properties(8)):
        assert properties == {"userProperties": {"n": message.payload}, "subscriptionIdentifier": 3}
    second.do("end")

    brief = {**session, "properties": {"sessionExpiryInterval": 0}}
    third = js5(broker.port, **brief)
    assert third.connected() is True
    third.do("end")
    assert js5(broker.port, **brief).connected() is False


def test_will_with_properties(broker, js5):
    will = {
        "topic": "wills/js", "payload": "gone", "qos": 1, "retain": True,
        "properties": {"willDelayInterval": 1, "contentType": "text/plain", "correlationData": "data",
                       "userProperties": {"b": "1", "a": "2"}},
    }
    with Subscriber5(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        polite = js5(broker.port, clientId="polite", will={**will, "topic": "wills/polite"})
        polite.connected()
        polite.do("end")
        lost = js5(broker.port, will=will, properties={"sessionExpiryInterval": 600}, clientId="lost")
        lost.connected()
        lost.close()
        message = watcher.details(1)[0]
        expected = ("gone", "text/plain", "data", "b:1 a:2")
        assert (message.payload, message.content_type, message.correlation, message.user) == expected
        assert watcher.messages.all()[0].topic == "wills/js"
    assert got(broker.port, "-t", "wills/js", "-C", "1")[0].user == "b:1 a:2"


@pytest.mark.ternmq_only("mosquitto 2.0.11 closes without a word")
def test_take_over(broker, js5):
    old = js5(broker.port, clientId="same", reconnectPeriod=0)
    old.connected()
    new = js5(broker.port, clientId="same")
    new.connected()
    assert old.wait("disconnect")[0]["reasonCode"] == 0x8E
    old.wait("close")
    new.subscribe(1, "t")
    new.publish("t", "x", 1)
    assert payloads(new.messages(1)) == ["x"]


def test_reconnects_after_a_restart_of_the_broker(broker, js5):
    client = js5(broker.port, clientId="stubborn", properties={"sessionExpiryInterval": 600, "topicAliasMaximum": 5})
    client.connected()
    client.subscribe(1, "t/#", properties={"subscriptionIdentifier": 4})
    for _ in range(3):
        client.publish("t/before", "1", 1, properties={"userProperties": {"k": "v"}})
    client.messages(3)
    assert broker.stop() == 0
    client.wait("close")
    under_way = [client.publish("t/while-away", str(number), qos, wait=False) for number, qos in [(2, 1), (3, 2)]]
    client.wait("reconnect")
    broker.start_again()
    client.connected(times=2)
    for number in under_way:
        client.finish(number)
    client.publish("t/after", "4", 1, properties={"userProperties": {"k": "v"}})
    client.events.wait(lambda items: any(i.get("topic") == "t/after" for i in items), "the message after the restart")
    properties = client.properties(1)[-1]
    assert (properties["userProperties"], properties["subscriptionIdentifier"]) == ({"k": "v"}, 4)
    assert not [item for item in client.events.all() if item["event"] == "error" and "ECONN" not in item["text"]]


@pytest.mark.ternmq_only("mosquitto 2.0.11 closes without a word")
def test_the_end_of_the_broker_is_announced(broker, js5):
    client = js5(broker.port, reconnectPeriod=0)
    client.connected()
    broker.process.send_signal(signal.SIGTERM)
    assert client.wait("disconnect")[0]["reasonCode"] == 0x8B
    assert broker.process.wait(10) == 0
