"""MQTT 3.1, 3.1.1 and 5 in one topic space: messages, retained messages, wills and sessions across versions."""

import paho.mqtt.client as mqtt
import pytest

from support.paho import PahoClient
from support.paho_v5 import PahoV5Client, user_properties

QOS = [0, 1, 2]
VERSIONS = {"3.1": mqtt.MQTTv31, "3.1.1": mqtt.MQTTv311, "5": None}
ORDER = [("b", "1"), ("a", "2"), ("b", "1")]
ACROSS = [("3.1", "5"), ("3.1.1", "5"), ("5", "3.1"), ("5", "3.1.1")]


@pytest.fixture
def connect(broker):
    """Connected clients of a version, disconnected after the test."""
    clients = []

    def make(version, client_id, **settings):
        if version == "5":
            client = PahoV5Client(client_id, **settings)
        else:
            client = PahoClient(client_id, protocol=VERSIONS[version], **settings)
        clients.append(client)
        return client.connect(broker.port)

    yield make
    for client in clients:
        client.disconnect()


def said(client, topic, payload, qos, **options):
    """Publishes, with properties if the version has them."""
    if isinstance(client, PahoV5Client):
        options |= {"UserProperty": ORDER, "ContentType": "text/plain", "MessageExpiryInterval": 600}
    client.publish(topic, payload, qos, **options)


def check_properties(message, source, target):
    """What has properties at both ends keeps them; 3.1.1 knows of none."""
    properties = getattr(message, "properties", None)
    if source == target == "5":
        assert (user_properties(message), properties.ContentType) == (ORDER, "text/plain")
        assert 590 <= properties.MessageExpiryInterval <= 600
    elif target == "5":
        assert properties.isEmpty()
    else:
        assert properties is None


@pytest.mark.parametrize("qos", QOS)
def test_everybody_hears_everybody(connect, qos):
    clients = {version: connect(version, f"client-{version}") for version in VERSIONS}
    for client in clients.values():
        client.subscribe(("all/+", qos))
    for round_number in range(20):
        for version, client in clients.items():
            said(client, f"all/{version}", f"{round_number}", qos)
    for target, client in clients.items():
        messages = client.messages.wait_count(60)
        assert len(messages) == 60
        for source in VERSIONS:
            own = [message for message in messages if message.topic == f"all/{source}"]
            assert [message.payload for message in own] == [str(number).encode() for number in range(20)]
            for message in own:
                assert (message.qos, bool(message.retain)) == (qos, False)
                check_properties(message, source, target)


@pytest.mark.parametrize("source, target", ACROSS)
@pytest.mark.parametrize("published", QOS)
@pytest.mark.parametrize("granted", QOS)
def test_the_lower_qos_of_both(connect, source, target, published, granted):
    publisher, subscriber = connect(source, "pub"), connect(target, "sub")
    assert subscriber.subscribe(("t", granted)) == [granted]
    said(publisher, "t", "x", published)
    message = subscriber.messages.wait_count(1)[0]
    assert (message.payload, message.qos) == (b"x", min(published, granted))


@pytest.mark.parametrize("source, target", [*ACROSS, ("5", "5")])
def test_retained(connect, source, target):
    publisher = connect(source, "pub")
    for qos in QOS:
        said(publisher, f"state/{qos}", f"on {qos}", qos, retain=True)
    # At QoS 0 nothing says that it has arrived; what comes behind it does.
    said(publisher, "fence", "", 1)
    first = connect(target, "first")
    first.subscribe(("state/#", 2))
    messages = sorted(first.messages.wait_count(3), key=lambda message: message.topic)
    assert [(m.payload, m.qos, bool(m.retain)) for m in messages] == [(b"on %d" % qos, qos, True) for qos in QOS]
    for message in messages:
        check_properties(message, source, target)
    # What the one version has set the other one takes away.
    for qos in QOS:
        first.publish(f"state/{qos}", "", 1, retain=True)
    again = connect(source, "again")
    again.subscribe(("state/#", 2))
    said(publisher, "state/live", "live", 1)
    assert again.payloads(1) == [b"live"]


@pytest.mark.parametrize("source, target", [*ACROSS, ("5", "5")])
def test_will(connect, source, target):
    watcher = connect(target, "watcher")
    watcher.subscribe(("wills/#", 2))
    settings = {"will_properties": {"UserProperty": ORDER, "ContentType": "text/plain"}} if source == "5" else {}
    connect(source, "lost", will=("wills/lost", "gone", 2, True), **settings).drop()
    later = connect(target, "later")
    message = watcher.messages.wait_count(1)[0]
    later.subscribe(("wills/#", 1))
    retained = later.messages.wait_count(1)[0]
    assert (message.payload, message.qos, bool(message.retain)) == (b"gone", 2, False)
    assert (retained.payload, retained.qos, bool(retained.retain)) == (b"gone", 1, True)
    for seen in (message, retained):
        if source == target:
            assert (user_properties(seen), seen.properties.ContentType) == (ORDER, "text/plain")
        else:
            check_properties(seen, source, target)


@pytest.mark.parametrize("source, target", ACROSS)
def test_what_was_queued_for_a_session(connect, source, target):
    def settings(version):
        return {"clean": False, **({"properties": {"SessionExpiryInterval": 600}} if version == "5" else {})}

    sleeper = connect(target, "sleeper", **settings(target))
    sleeper.subscribe(("mail/#", 2))
    sleeper.disconnect()
    publisher = connect(source, "pub")
    for number in range(30):
        said(publisher, f"mail/{number % 3}", str(number), number % 3)
    # The client has become one of the other version meanwhile; its session is the same.
    for version in (target, source):
        again = connect(version, "sleeper", manual_ack=version == target, **settings(version))
        if version == "3.1":
            assert again.return_code == 0
        else:
            assert again.session_present
        if version == target:
            # paho answers QoS 2 by itself; at QoS 1 nothing is acknowledged, so that it comes again.
            assert [m.payload for m in again.messages.wait_count(20) if m.qos == 1] == payloads(1)
            again.round_trip() if version == "5" else again.subscribe(("round/trip", 0))
            again.drop()
        else:
            messages = [message for message in again.messages.wait_count(10) if message.qos == 1]
            assert [message.payload for message in messages] == payloads(1)
            assert all(message.dup for message in messages)


def payloads(qos):
    return [str(number).encode() for number in range(30) if number % 3 == qos]
