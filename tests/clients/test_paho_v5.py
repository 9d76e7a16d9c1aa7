"""paho-mqtt on MQTT 5: properties, reason codes, sessions with an expiry, and subscription options."""

import signal

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.packettypes import PacketTypes

from support.brokers import Limits
from support.paho import PahoClient
from support.paho_v5 import PahoV5Client, made, options, user_properties
from support.waiting import eventually

QOS = [0, 1, 2]
IN_THIS_ORDER = [("name", "ü"), ("b", "2"), ("a", "1"), ("b", "2"), ("", "")]
"""User properties whose order, doubles and empty strings would not survive a dictionary."""


@pytest.fixture
def connect(broker):
    """Connected clients, disconnected after the test."""
    clients = []

    def make(client_id="", port=None, keep_alive=60, kind=PahoV5Client, **settings):
        client = kind(client_id, **settings)
        clients.append(client)
        return client.connect(port or broker.port, keep_alive)

    yield make
    for client in clients:
        client.disconnect()


@pytest.mark.parametrize("qos", QOS)
def test_properties_of_a_message_are_passed_on(connect, qos):
    subscriber, publisher = connect("sub"), connect("pub")
    assert subscriber.subscribe(("t/#", qos)) == [qos]
    publisher.publish(
        "t/all",
        "payload",
        qos,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=600,
        ContentType="text/plain",
        ResponseTopic="answers/here",
        CorrelationData=b"\x00\xff\x01",
        UserProperty=IN_THIS_ORDER,
    )
    publisher.publish("t/none", "payload", qos)
    full, bare = subscriber.messages.wait_count(2)
    properties = full.properties.json()
    assert 590 <= properties.pop("MessageExpiryInterval") <= 600
    assert user_properties(full) == IN_THIS_ORDER
    del properties["UserProperty"]
    assert properties == {
        "PayloadFormatIndicator": 1,
        "ContentType": "text/plain",
        "ResponseTopic": "answers/here",
        "CorrelationData": "00ff01",
    }
    assert (full.payload, full.qos, bare.qos) == (b"payload", qos, qos)
    assert bare.properties.isEmpty()


@pytest.mark.parametrize("qos", QOS)
def test_many_messages_keep_order_and_properties(connect, qos):
    subscriber, publisher = connect("sub"), connect("pub")
    subscriber.subscribe(("t/+", qos))
    for number in range(200):
        publisher.send(f"t/{number % 7}", str(number), qos, UserProperty=[("number", str(number))])
    messages = subscriber.messages.wait_count(200)
    assert [int(message.payload) for message in messages] == list(range(200))
    assert [user_properties(message) for message in messages] == [[("number", str(n))] for n in range(200)]


def test_assigned_client_identifier(connect):
    first, second = connect(properties={"SessionExpiryInterval": 600}), connect()
    assigned = first.connack.AssignedClientIdentifier
    assert assigned and assigned != second.connack.AssignedClientIdentifier
    first.subscribe(("mine", 1))
    first.drop()
    again = connect(assigned, clean=False)
    assert again.session_present
    assert not hasattr(again.connack, "AssignedClientIdentifier")
    assert again.publish("mine", "x", 1) == 0
    assert again.payloads(1) == [b"x"]


@pytest.mark.ternmq_only("the limits are ours")
def test_what_connack_says_of_the_limits(start_broker, connect):
    broker = start_broker(limits=Limits(receive_maximum=17, topic_alias_max=5))
    connack = connect("asks", port=broker.port, properties={"RequestResponseInformation": 1}).connack
    assert (connack.ReceiveMaximum, connack.TopicAliasMaximum) == (17, 5)
    assert connack.MaximumPacketSize == 16_000_000
    # What is not said is available (3.2.2.3).
    for name in ("RetainAvailable", "WildcardSubscriptionAvailable", "SharedSubscriptionAvailable"):
        assert getattr(connack, name, 1) == 1
    assert getattr(connack, "SubscriptionIdentifierAvailable", 1) == 1
    assert not hasattr(connack, "MaximumQoS")


@pytest.mark.parametrize("expiry, kept", [(None, False), (0, False), (600, True), (0xFFFF_FFFF, True)])
def test_session_expiry_decides_whether_a_session_outlives_its_connection(connect, expiry, kept):
    settings = {} if expiry is None else {"SessionExpiryInterval": expiry}
    client = connect("keeper", clean=False, properties=settings)
    assert not client.session_present
    client.subscribe(("mail", 2))
    client.disconnect()
    publisher = connect("pub")
    for qos in QOS:
        publisher.publish("mail", str(qos), qos)
    again = connect("keeper", clean=False, properties=settings)
    assert bool(again.session_present) == kept
    if kept:
        assert again.payloads(2) == [b"1", b"2"]
    again.disconnect()
    assert not connect("keeper", clean=True, properties=settings).session_present


def test_disconnect_changes_the_session_expiry(connect):
    client = connect("changer", properties={"SessionExpiryInterval": 600})
    client.disconnect(properties={"SessionExpiryInterval": 0})
    longer = connect("changer", clean=False, properties={"SessionExpiryInterval": 1})
    assert not longer.session_present
    longer.disconnect(properties={"SessionExpiryInterval": 600})
    assert connect("changer", clean=False).session_present


def test_session_ends_at_its_expiry_and_takes_its_will_along(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    will = ("wills/short", "session over", 1)
    settings = {"SessionExpiryInterval": 1}
    connect("short", properties=settings, will=will, will_properties={"WillDelayInterval": 600}).drop()
    # The will is published at the end of the session at the latest (3.1.3.2.2), which makes that end visible.
    assert watcher.payloads(1) == [b"session over"]
    assert not connect("short", clean=False).session_present


def test_reason_codes_of_acknowledgements(connect):
    client = connect("codes")
    # At QoS 2 it is PUBREC that says so, and paho keeps it to itself.
    assert client.publish("nobody/listens", "x", 1) == 0x10
    assert client.publish("nobody/listens", "x", 2) == 0
    assert client.subscribe(("a", 2), ("b/#", 0), ("c/+/d", 1)) == [2, 0, 1]
    for qos in (1, 2):
        assert client.publish("a", "x", qos) == 0
    assert client.unsubscribe("a", "never/subscribed") == [0, 0x11]


def test_subscription_identifiers(connect):
    client = connect("ids")
    client.subscribe(("i/a", 1), ("i/b", 1), SubscriptionIdentifier=7)
    client.subscribe(("i/c", 1), SubscriptionIdentifier=268_435_455)
    client.subscribe(("i/d", 1))
    for topic in ("i/a", "i/b", "i/c", "i/d"):
        client.publish(topic, topic, 1)
    seen = [getattr(m.properties, "SubscriptionIdentifier", None) for m in client.messages.wait_count(4)]
    assert seen == [[7], [7], [268_435_455], None]
    # Subscribing again replaces the identifier.
    client.subscribe(("i/a", 1), SubscriptionIdentifier=8)
    client.publish("i/a", "again", 1)
    assert client.messages.wait_count(5)[4].properties.SubscriptionIdentifier == [8]


@pytest.mark.ternmq_only("mosquitto sends a copy per matching subscription")
def test_one_message_carries_every_matching_identifier(connect):
    client = connect("ids")
    client.subscribe(("o/#", 0), SubscriptionIdentifier=1)
    client.subscribe(("o/+", 2), SubscriptionIdentifier=300)
    client.subscribe(("o/a", 1))
    client.publish("o/a", "x", 2)
    client.publish("o/a/b", "y", 2)
    both, one = client.messages.wait_count(2)
    assert (sorted(both.properties.SubscriptionIdentifier), both.qos) == ([1, 300], 2)
    assert (one.properties.SubscriptionIdentifier, one.qos) == ([1], 0)


def test_no_local(connect):
    client, other = connect("local"), connect("other")
    client.subscribe(("n/quiet", options(1, no_local=True)), ("n/loud", options(1)))
    for publisher, name in [(client, "own"), (other, "other")]:
        publisher.publish("n/quiet", f"{name} quiet", 1)
        publisher.publish("n/loud", f"{name} loud", 1)
    assert client.payloads(3) == [b"own loud", b"other quiet", b"other loud"]


def test_retain_as_published(connect):
    client, publisher = connect("rap"), connect("pub")
    client.subscribe(("as/published", options(1, as_published=True)), ("as/ever", options(1)))
    for retain in (True, False):
        for topic in ("as/published", "as/ever"):
            publisher.publish(topic, "x", 1, retain=retain)
    seen = [(message.topic, bool(message.retain)) for message in client.messages.wait_count(4)]
    assert seen == [("as/published", True), ("as/ever", False), ("as/published", False), ("as/ever", False)]


@pytest.mark.parametrize("handling, first, second", [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
def test_retain_handling(connect, handling, first, second):
    client, publisher = connect("handling"), connect("pub")
    publisher.publish("kept", "x", 1, retain=True, UserProperty=[("k", "v")])
    seen = 0
    for expected in (first, second):
        client.subscribe(("kept", options(1, handling=handling)))
        seen += expected
        client.messages.wait_count(seen)
        # Retained messages may come after the SUBACK, but not after a message published later.
        client.subscribe(("end", 1))
        publisher.publish("end", "end", 1)
        seen += 1
        messages = client.messages.wait_count(seen)
        assert len(messages) == seen and messages[-1].topic == "end"
    kept = [message for message in client.messages.all() if message.topic == "kept"]
    assert len(kept) == first + second
    assert all(message.retain and user_properties(message) == [("k", "v")] for message in kept)


@pytest.mark.ternmq_only("mosquitto 2.0.11 sends more than the window allows once something is acknowledged")
@pytest.mark.parametrize("qos", [1, 2])
def test_receive_maximum_of_the_client_is_a_window(connect, qos):
    publisher = connect("pub")
    client = connect("window", properties={"ReceiveMaximum": 3}, manual_ack=True)
    client.subscribe(("w", 2))
    for number in range(20):
        publisher.publish("w", str(number), qos)
    client.round_trip()
    for acknowledged in range(17):
        messages = client.messages.wait_count(acknowledged + 3)
        client.round_trip()
        assert len(client.messages.all()) == acknowledged + 3
        client.client.ack(messages[acknowledged].mid, messages[acknowledged].qos)
    assert client.payloads(20) == [str(number).encode() for number in range(20)]


@pytest.mark.ternmq_only("mosquitto 2.0.11 has one window for all")
def test_receive_maximum_of_the_broker_closes_with_0x93(start_broker):
    broker = start_broker(limits=Limits(receive_maximum=2))
    client = PahoV5Client("greedy").connect(broker.port)
    # paho keeps to what it was told, so it has to be told something else.
    client.client._send_pubrel = lambda mid: mqtt.MQTT_ERR_SUCCESS
    client.client._max_inflight_messages = 3
    for number in range(3):
        client.send("t", str(number), 2)
    ended = client.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x93)
    client.disconnect()


def test_maximum_packet_size_of_the_client(connect):
    publisher = connect("pub")
    client = connect("small", properties={"MaximumPacketSize": 200})
    client.subscribe(("s", 1))
    publisher.publish("s", "before", 1)
    publisher.publish("s", "x" * 200, 1)
    publisher.publish("s", "after", 1)
    assert client.payloads(2) == [b"before", b"after"]
    assert not client.disconnects.all()


def test_topic_aliases_of_the_client(connect):
    publisher, subscriber = connect("pub"), connect("sub")
    assert publisher.connack.TopicAliasMaximum >= 2
    subscriber.subscribe(("alias/#", 2))
    publisher.publish("alias/one", "1", 1, TopicAlias=1)
    publisher.publish("alias/two", "2", 2, TopicAlias=2)
    publisher.publish("", "1 again", 0, TopicAlias=1)
    publisher.publish("", "2 again", 2, TopicAlias=2)
    publisher.publish("alias/three", "3", 1, TopicAlias=1)
    publisher.publish("", "3 again", 1, TopicAlias=1)
    seen = [(m.topic, m.payload.decode()) for m in subscriber.messages.wait_count(6)]
    # Messages of different QoS may pass one another: paho hands QoS 2 on when it is released.
    assert sorted(seen) == sorted(
        (f"alias/{name}", text)
        for name, text in [
            ("one", "1"), ("two", "2"), ("one", "1 again"), ("two", "2 again"), ("three", "3"), ("three", "3 again"),
        ]
    )
    assert not any(hasattr(message.properties, "TopicAlias") for message in subscriber.messages.all())


def test_a_topic_alias_above_the_maximum_closes_with_0x94(connect):
    client = connect("alias")
    client.send("t", "x", 1, TopicAlias=client.connack.TopicAliasMaximum + 1)
    ended = client.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x94)


def test_a_topic_alias_of_zero_closes(connect):
    client = connect("alias")
    properties = made(PacketTypes.PUBLISH, {"TopicAlias": 1})
    # Past paho's own check.
    object.__setattr__(properties, "TopicAlias", 0)
    client.client.publish("t", "x", 1, properties=properties)
    ended = client.disconnected()
    # Not permitted (3.3.2.3.4), with no reason code named for it: these three describe it.
    assert ended.from_broker and ended.code in (0x81, 0x82, 0x94)


@pytest.mark.ternmq_only("mosquitto 2.0.11 closes without a word")
def test_take_over_tells_the_old_connection_0x8e(connect):
    old = connect("same", properties={"SessionExpiryInterval": 600})
    old.subscribe(("t", 1))
    new = connect("same", clean=False)
    ended = old.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x8E)
    assert new.session_present
    # A client of 3.1.1 takes over as well as one of MQTT 5.
    third = connect("same", kind=PahoClient, clean=False)
    ended = new.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x8E)
    third.disconnect()


@pytest.mark.ternmq_only("mosquitto 2.0.11 closes without a word")
def test_the_end_of_the_broker_is_announced_with_0x8b(broker, connect):
    client = connect("last")
    broker.process.send_signal(signal.SIGTERM)
    ended = client.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x8B)
    assert broker.process.wait(10) == 0


@pytest.mark.ternmq_only("mosquitto 2.0.11 accepts it")
def test_a_protocol_error_closes_with_0x82(connect):
    client, bystander = connect("wrong"), connect("bystander")
    # No Local on a shared subscription [MQTT-3.8.3-4]. Not through `subscribe`, for no SUBACK comes.
    client.client.subscribe([("$share/g/t", options(1, no_local=True))])
    ended = client.disconnected()
    assert (ended.from_broker, ended.code) == (True, 0x82)
    assert bystander.publish("t", "unharmed", 1) == 0x10


@pytest.mark.ternmq_only("mosquitto does not check payloads")
def test_payload_format_is_checked_where_configured(start_broker, connect):
    broker = start_broker(limits=Limits(payload_format="check"))
    subscriber, publisher = connect("sub", port=broker.port), connect("pub", port=broker.port)
    subscriber.subscribe(("t", 1))
    assert publisher.publish("t", b"\xff\xfe", 1, PayloadFormatIndicator=1) == 0x99
    assert publisher.publish("t", b"\xff\xfe", 1, PayloadFormatIndicator=0) == 0
    assert publisher.publish("t", "ü", 1, PayloadFormatIndicator=1) == 0
    assert subscriber.payloads(2) == [b"\xff\xfe", "ü".encode()]


def test_message_expiry_of_queued_and_retained_messages(connect):
    away = {"SessionExpiryInterval": 600}
    client = connect("away", properties=away)
    client.subscribe(("e/#", 1))
    client.disconnect()
    publisher = connect("pub")
    publisher.publish("e/long", "long", 1, retain=True, MessageExpiryInterval=600)
    publisher.publish("e/short", "short", 1, MessageExpiryInterval=1)
    publisher.publish("e/plain", "plain", 1)
    publisher.publish("kept/short", "short", 1, retain=True, MessageExpiryInterval=3)

    def expired():
        looking = connect()
        looking.subscribe(("kept/short", 1), ("e/long", 1))
        looking.messages.wait(lambda items: any(m.payload == b"long" for m in items), "the long-lived one")
        # Both were retained when the SUBSCRIBE came, so both are there by the time a later message is.
        looking.subscribe(("end", 1))
        looking.publish("end", "end", 1)
        looking.messages.wait(lambda items: any(m.payload == b"end" for m in items), "the end")
        looking.disconnect()
        return not any(m.payload == b"short" for m in looking.messages.all())

    # When the one that lives longer has expired, so has the other.
    eventually(expired, "the retained message expires", step=0.2)
    again = connect("away", clean=False, properties=away)
    assert again.payloads(2) == [b"long", b"plain"]
    assert 1 <= again.messages.all()[0].properties.MessageExpiryInterval < 600
    later = connect("later")
    later.subscribe(("e/long", 1))
    assert later.messages.wait_count(1)[0].properties.MessageExpiryInterval < 600


def test_unacknowledged_messages_come_again_with_their_properties(connect):
    publisher = connect("pub")
    session = {"SessionExpiryInterval": 600}
    slow = connect("slow", properties=session, manual_ack=True)
    slow.subscribe(("work", 2), SubscriptionIdentifier=9)
    for number in range(2):
        publisher.publish("work", str(number), 1, UserProperty=IN_THIS_ORDER, ContentType="text/plain")
    first = slow.messages.wait_count(2)
    slow.drop()
    again = connect("slow", clean=False, properties=session)
    assert again.session_present
    second = again.messages.wait_count(2)
    assert [m.mid for m in second] == [m.mid for m in first] and all(m.dup for m in second)
    for message in second:
        assert user_properties(message) == IN_THIS_ORDER
        assert (message.properties.ContentType, message.properties.SubscriptionIdentifier) == ("text/plain", [9])
