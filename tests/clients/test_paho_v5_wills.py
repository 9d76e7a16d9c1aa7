"""paho-mqtt on MQTT 5: wills with a delay and properties, and shared subscriptions."""

from collections import Counter

import pytest

from support.paho import PahoClient
from support.paho_v5 import PahoV5Client, user_properties
from support.waiting import eventually

QOS = [0, 1, 2]


@pytest.fixture
def connect(broker):
    """Connected clients, disconnected after the test."""
    clients = []

    def make(client_id="", kind=PahoV5Client, **settings):
        client = kind(client_id, **settings)
        clients.append(client)
        return client.connect(broker.port)

    yield make
    for client in clients:
        client.disconnect()


@pytest.mark.parametrize("qos", QOS)
def test_will_properties(connect, qos):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 2))
    order = [("b", "1"), ("a", "2"), ("b", "1")]
    properties = {
        "PayloadFormatIndicator": 1,
        "MessageExpiryInterval": 600,
        "ContentType": "text/plain",
        "ResponseTopic": "answers",
        "CorrelationData": b"\x00\x01",
        "UserProperty": order,
    }
    connect("lost", will=("wills/lost", "gone", qos), will_properties=properties).drop()
    message = watcher.messages.wait_count(1)[0]
    assert (message.payload, message.qos) == (b"gone", qos)
    assert user_properties(message) == order
    assert (message.properties.ContentType, message.properties.ResponseTopic) == ("text/plain", "answers")
    assert (message.properties.CorrelationData, message.properties.PayloadFormatIndicator) == (b"\x00\x01", 1)
    assert 590 <= message.properties.MessageExpiryInterval <= 600
    assert not hasattr(message.properties, "WillDelayInterval")


def test_will_delay_gives_the_client_time_to_come_back(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    session = {"SessionExpiryInterval": 600}

    def lose(name, delay):
        will = (f"wills/{name}", name, 1)
        connect(name, properties=session, will=will, will_properties={"WillDelayInterval": delay}).drop()

    # The second delay begins and ends after the first, so that what it brings shows what the first did not.
    lose("back in time", 4)
    assert connect("back in time", clean=False, properties=session).session_present
    lose("never back", 5)
    assert watcher.payloads(1) == [b"never back"]


def test_will_delay_of_zero_is_none(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    session = {"SessionExpiryInterval": 600}
    connect("zero", properties=session, will=("wills/zero", "zero", 1), will_properties={"WillDelayInterval": 0}).drop()
    assert watcher.payloads(1) == [b"zero"]


@pytest.mark.ternmq_only("mosquitto 2.0.11 forgets the will")
def test_clean_start_ends_a_will_delay(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    session = {"SessionExpiryInterval": 600}
    connect("fresh", properties=session, will=("wills/f", "fresh", 1), will_properties={"WillDelayInterval": 600}).drop()
    # The new session ends the old one, and the will does not outlive its session.
    assert not connect("fresh", clean=True).session_present
    assert watcher.payloads(1) == [b"fresh"]


def test_will_on_disconnect_only_if_it_asks_for_it(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    connect("polite", will=("wills/polite", "no", 1)).disconnect()
    connect("wanting", will=("wills/wanting", "yes", 1)).disconnect(0x04)
    assert watcher.payloads(1) == [b"yes"]


@pytest.mark.parametrize("qos", QOS)
def test_shared_subscription_gives_each_message_to_one_member(connect, qos):
    members = [connect(f"member-{number}") for number in range(3)]
    # 3.1.1 does not know shared subscriptions, brokers offer them to it all the same.
    members.append(connect("old-member", kind=PahoClient))
    outsider, publisher = connect("outsider"), connect("pub")
    for member in members:
        assert member.subscribe(("$share/group/jobs/+", qos)) == [qos]
    outsider.subscribe(("jobs/+", qos))
    for number in range(200):
        publisher.send(f"jobs/{number % 5}", str(number), qos)
    everything = [str(number).encode() for number in range(200)]
    assert outsider.payloads(200) == everything
    eventually(lambda: sum(len(m.messages.all()) for m in members) >= 200, "all delivered to the group")
    for member in members:
        if isinstance(member, PahoV5Client):
            member.round_trip()
    shares = [[message.payload for message in member.messages.all()] for member in members]
    assert Counter(payload for share in shares for payload in share) == Counter(everything)
    assert min(len(share) for share in shares) >= 25, [len(share) for share in shares]


def test_groups_are_independent_of_each_other(connect):
    one, two, publisher = connect("one"), connect("two"), connect("pub")
    one.subscribe(("$share/first/t", 1))
    two.subscribe(("$share/second/t", 1))
    for number in range(20):
        publisher.publish("t", str(number), 1)
    everything = [str(number).encode() for number in range(20)]
    assert one.payloads(20) == everything and two.payloads(20) == everything


@pytest.mark.ternmq_only("mosquitto 2.0.11 drops them with the session")
def test_what_a_leaving_member_had_not_acknowledged_goes_to_another(connect):
    publisher = connect("pub")
    stuck = connect("stuck", manual_ack=True)
    stuck.subscribe(("$share/g/work", 1))
    for number in range(10):
        publisher.publish("work", str(number), 1)
    stuck.messages.wait_count(10)
    helper = connect("helper")
    helper.subscribe(("$share/g/work", 1))
    # Clean Start and no expiry: its session ends with its connection.
    stuck.drop()
    assert sorted(helper.payloads(10)) == [str(number).encode() for number in range(10)]


@pytest.mark.ternmq_only("mosquitto 2.0.11 sends them")
def test_no_retained_messages_for_shared_subscriptions(connect):
    publisher, member = connect("pub"), connect("member")
    publisher.publish("state", "kept", 1, retain=True)
    member.subscribe(("$share/g/state", 1))
    publisher.publish("state", "live", 1)
    message = member.messages.wait_count(1)[0]
    assert (message.payload, message.retain) == (b"live", False)


def test_unsubscribing_leaves_the_group(connect):
    publisher, leaver, stayer = connect("pub"), connect("leaver"), connect("stayer")
    for member in (leaver, stayer):
        member.subscribe(("$share/g/t", 1))
    assert leaver.unsubscribe("$share/g/t") == [0]
    assert leaver.unsubscribe("$share/g/t") == [0x11]
    for number in range(10):
        publisher.publish("t", str(number), 1)
    assert stayer.payloads(10) == [str(number).encode() for number in range(10)]
    assert not leaver.messages.all()
