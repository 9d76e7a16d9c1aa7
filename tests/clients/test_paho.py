"""paho-mqtt, and packets by hand where paho takes a decision that the test wants to take itself."""

import paho.mqtt.client as mqtt
import pytest

from support import raw
from support.paho import PahoClient
from support.waiting import eventually

QOS = [0, 1, 2]


@pytest.fixture
def connect(broker):
    """Connected paho clients, disconnected after the test."""
    clients = []

    def make(client_id="", port=None, keep_alive=60, **options):
        client = PahoClient(client_id, **options)
        clients.append(client)
        return client.connect(port or broker.port, keep_alive)

    yield make
    for client in clients:
        client.disconnect()


@pytest.mark.parametrize("protocol", [mqtt.MQTTv31, mqtt.MQTTv311])
@pytest.mark.parametrize("qos", QOS)
def test_all_qos_in_order(connect, qos, protocol):
    subscriber, publisher = connect("sub", protocol=protocol), connect("pub", protocol=protocol)
    assert subscriber.subscribe(("t/+", qos)) == [qos]
    for number in range(200):
        publisher.client.publish(f"t/{number % 7}", str(number), qos)
    assert subscriber.payloads(200) == [str(number).encode() for number in range(200)]
    assert {message.qos for message in subscriber.messages.all()} == {qos}


def test_granted_qos_of_a_subscribe_with_several_filters(connect):
    client = connect("many")
    assert client.subscribe(("a", 2), ("b/#", 0), ("c/+/d", 1)) == [2, 0, 1]


def test_client_hears_its_own_messages(connect):
    client = connect("echo")
    client.subscribe(("echo", 2))
    client.publish("echo", b"\x00\xff binary", 2)
    assert client.payloads(1) == [b"\x00\xff binary"]


def test_session_present(connect):
    first = connect("keeper", clean=False)
    assert not first.session_present
    first.disconnect()
    second = connect("keeper", clean=False)
    assert second.session_present
    second.disconnect()
    clean = connect("keeper")
    assert not clean.session_present
    clean.disconnect()
    # The clean session has taken the stored one with it.
    assert not connect("keeper", clean=False).session_present


def test_persistent_session_after_a_lost_connection(connect):
    subscriber, publisher = connect("keeper", clean=False), connect("pub")
    subscriber.subscribe(("q/#", 2))
    subscriber.drop()
    for number in range(30):
        publisher.publish(f"q/{number % 3}", str(number), number % 3)
    again = connect("keeper", clean=False)
    assert again.session_present
    publisher.publish("q/end", "end", 2)
    again.messages.wait(lambda items: any(m.payload == b"end" for m in items), "the end")
    for qos in (1, 2):
        wanted = [str(number).encode() for number in range(30) if number % 3 == qos]
        assert [m.payload for m in again.messages.all() if m.qos == qos and m.payload != b"end"] == wanted
    assert not [m for m in again.messages.all() if m.qos == 0]


def test_take_over_of_a_client_id(connect):
    publisher = connect("pub")
    old = connect("same", clean=False)
    old.subscribe(("t", 1))
    new = connect("same", clean=False)
    old.disconnects.wait_count(1, "disconnects of the old connection")
    assert new.session_present
    publisher.publish("t", "for the new one", 1)
    assert new.payloads(1) == [b"for the new one"]
    assert not old.messages.all()


_CONTINUED = pytest.mark.ternmq_only("mosquitto 2.0 drops the will if the newcomer continues the session")


@pytest.mark.parametrize("clean", [True, pytest.param(False, marks=_CONTINUED)])
def test_take_over_sends_the_will(connect, clean):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    connect("same", clean=clean, will=("wills/same", "taken over", 1))
    connect("same", clean=clean)
    assert watcher.payloads(1) == [b"taken over"]


def test_take_over_twenty_times_in_a_row(connect):
    publisher = connect("pub")
    last = None
    for _ in range(20):
        previous, last = last, connect("same", clean=False)
        if previous:
            previous.disconnects.wait_count(1, "disconnects")
            assert last.session_present
    last.subscribe(("t", 1))
    publisher.publish("t", "x", 1)
    assert last.payloads(1) == [b"x"]


def test_keep_alive_pings_hold_the_connection(connect):
    client = connect("pinger", keep_alive=1)
    client.subscribe(("t", 0))
    # Three pings take longer than the second and a half after which silence would end the connection.
    client.pongs.wait_count(3, "PINGRESP")
    client.publish("t", "alive", 1)
    assert client.payloads(1) == [b"alive"]
    assert not client.disconnects.all()


@pytest.mark.parametrize("qos", QOS)
def test_silence_beyond_keep_alive_ends_the_connection_with_its_will(broker, connect, qos):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 2))
    with raw.RawClient(broker.port) as silent:
        assert silent.connect("silent", keep_alive=1, will=("wills/silent", b"silent", qos, False)) == (False, 0)
        silent.expect_closed()
    message = watcher.messages.wait_count(1)[0]
    assert (message.payload, message.qos, message.retain) == (b"silent", qos, False)


def test_no_will_after_disconnect(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 2))
    connect("polite", will=("wills/polite", "no", 2)).disconnect()
    connect("lost", will=("wills/lost", "yes", 2)).drop()
    assert watcher.payloads(1) == [b"yes"]


def test_retained_will(connect):
    watcher = connect("watcher")
    watcher.subscribe(("wills/#", 1))
    connect("lost", will=("wills/lost", "offline", 1, True)).drop()
    watcher.messages.wait_count(1)
    later = connect("later")
    later.subscribe(("wills/#", 2))
    message = later.messages.wait_count(1)[0]
    assert (message.payload, message.retain, message.qos) == (b"offline", True, 1)


@pytest.mark.ternmq_only("mosquitto sends a copy per matching subscription by default (allow_duplicate_messages)")
def test_overlapping_subscriptions_give_one_copy_at_the_highest_qos(connect):
    client = connect("overlap")
    client.subscribe(("o/#", 0), ("o/+", 2), ("o/a", 1))
    for number in range(20):
        client.publish("o/a", str(number), 2)
    client.publish("o/end", "end", 2)
    client.messages.wait(lambda items: any(m.topic == "o/end" for m in items), "the end")
    seen = [(m.payload, m.qos) for m in client.messages.all() if m.topic == "o/a"]
    assert seen == [(str(number).encode(), 2) for number in range(20)]


def test_overlapping_subscriptions_miss_nothing(connect):
    client = connect("overlap")
    client.subscribe(("o/#", 1), ("o/+", 1), ("o/a", 1))
    for number in range(20):
        client.publish("o/a", str(number), 1)
    client.publish("end", "end", 1)
    client.messages.wait(lambda items: any(m.payload == b"19" for m in items), "the last")
    seen = list(dict.fromkeys(m.payload for m in client.messages.all()))
    assert seen == [str(number).encode() for number in range(20)]


def test_unsubscribe(connect):
    client = connect("unsubscriber")
    client.subscribe(("u/#", 1), ("v", 1))
    client.publish("u/1", "first", 1)
    client.messages.wait_count(1)
    client.unsubscribe("u/#", "never/subscribed")
    client.publish("u/2", "not this", 1)
    client.publish("v", "last", 1)
    assert client.payloads(2) == [b"first", b"last"]


def test_subscribing_again_replaces_the_qos_and_sends_retained_again(connect):
    publisher, client = connect("pub"), connect("again")
    publisher.publish("r", "kept", 1, retain=True)
    assert client.subscribe(("r", 0)) == [0]
    client.messages.wait_count(1)
    assert client.subscribe(("r", 1)) == [1]
    client.messages.wait_count(2)
    publisher.publish("r", "live", 1)
    seen = [(m.payload, m.qos, m.retain) for m in client.messages.wait_count(3)]
    assert seen == [(b"kept", 0, True), (b"kept", 1, True), (b"live", 1, False)]


def test_unacknowledged_qos_1_comes_again_with_dup(connect):
    publisher = connect("pub")
    slow = connect("slow", clean=False, manual_ack=True)
    slow.subscribe(("work", 1))
    for number in range(5):
        publisher.publish("work", str(number), 1)
    first = slow.messages.wait_count(5)
    assert not any(message.dup for message in first)
    slow.client.ack(first[0].mid, 1)
    # QoS 0 to itself is a round trip: the PUBACK before it has been read.
    slow.subscribe(("sync", 0))
    slow.drop()

    again = connect("slow", clean=False, manual_ack=True)
    second = again.messages.wait_count(4, "unacknowledged messages")
    assert [(m.payload, m.mid) for m in second] == [(m.payload, m.mid) for m in first[1:]]
    assert all(message.dup for message in second)
    for message in second:
        again.client.ack(message.mid, 1)
    again.subscribe(("sync", 0))
    again.drop()

    last = connect("slow", clean=False)
    publisher.publish("work", "new", 1)
    assert [(m.payload, m.dup) for m in last.messages.wait_count(1)] == [(b"new", False)]


def test_qos_2_to_a_client_which_reconnects_at_every_step(broker, connect):
    publisher = connect("pub")
    with raw.RawClient(broker.port) as client:
        assert client.connect("steps", clean=False) == (False, 0)
        assert client.subscribe(("work", 2)) == [2]
        publisher.publish("work", "once", 2)
        first = client.expect(raw.PUBLISH)
        assert (first.payload, first.qos, first.dup) == (b"once", 2, False)
    with raw.RawClient(broker.port) as client:
        assert client.connect("steps", clean=False) == (True, 0)
        second = client.expect(raw.PUBLISH)
        assert (second.payload, second.dup, second.packet_id) == (b"once", True, first.packet_id)
        client.send(raw.acknowledgement(raw.PUBREC, second.packet_id))
        assert client.expect(raw.PUBREL).packet_id == first.packet_id
    with raw.RawClient(broker.port) as client:
        assert client.connect("steps", clean=False) == (True, 0)
        # From PUBREC on the message itself must not come again.
        assert client.expect(raw.PUBREL).packet_id == first.packet_id
        client.send(raw.acknowledgement(raw.PUBCOMP, first.packet_id))
        client.ping()
    with raw.RawClient(broker.port) as client:
        assert client.connect("steps", clean=False) == (True, 0)
        client.ping()


def test_qos_2_from_a_client_which_repeats_itself_is_delivered_once(broker, connect):
    subscriber = connect("sub")
    subscriber.subscribe(("work", 2))
    with raw.RawClient(broker.port) as client:
        client.connect("repeater", clean=False)
        client.send(raw.publish("work", b"once", 2, packet_id=7))
        assert client.expect(raw.PUBREC).packet_id == 7
    with raw.RawClient(broker.port) as client:
        assert client.connect("repeater", clean=False) == (True, 0)
        client.send(raw.publish("work", b"once", 2, packet_id=7, dup=True))
        assert client.expect(raw.PUBREC).packet_id == 7
        for _ in range(2):
            client.send(raw.acknowledgement(raw.PUBREL, 7))
            assert client.expect(raw.PUBCOMP).packet_id == 7
        # The same packet id now stands for another message.
        client.send(raw.publish("work", b"next", 2, packet_id=7))
        assert client.expect(raw.PUBREC).packet_id == 7
        client.send(raw.acknowledgement(raw.PUBREL, 7))
        assert client.expect(raw.PUBCOMP).packet_id == 7
    assert subscriber.payloads(2) == [b"once", b"next"]


def test_empty_client_ids_are_clients_of_their_own(connect):
    clients = [connect() for _ in range(3)]
    for client in clients:
        client.subscribe(("all", 1))
    clients[0].publish("all", "x", 1)
    for client in clients:
        assert client.payloads(1) == [b"x"]
        assert not client.disconnects.all()


def test_empty_client_id_without_clean_session_is_refused(broker):
    with raw.RawClient(broker.port) as client:
        assert client.connect("", clean=False) == (False, 2)
        client.expect_closed()


def test_inflight_window_holds_back_and_then_lets_through(broker, connect):
    publisher = connect("pub")
    with raw.RawClient(broker.port) as client:
        client.connect("window")
        client.subscribe(("w", 1))
        for number in range(300):
            publisher.client.publish("w", str(number), 1)
        received = [client.expect(raw.PUBLISH) for _ in range(64)]
        # Nothing more comes until something is acknowledged: the answer to a ping is the next packet.
        client.ping()
        for _ in range(300 - 64):
            client.send(raw.acknowledgement(raw.PUBACK, received[len(received) - 64].packet_id))
            received.append(client.expect(raw.PUBLISH))
        assert [int(m.payload) for m in received] == list(range(300))
        for message in received[-64:]:
            client.send(raw.acknowledgement(raw.PUBACK, message.packet_id))
        client.ping()


def test_two_publishers_keep_their_own_order(connect):
    subscriber = connect("sub")
    subscriber.subscribe(("order/#", 2))
    publishers = [connect(f"pub-{number}") for number in range(2)]
    for number in range(300):
        for index, publisher in enumerate(publishers):
            publisher.client.publish("order/all", f"{index} {number}", 2)
    seen = [payload.decode().split() for payload in subscriber.payloads(600)]
    for index in ("0", "1"):
        assert [int(number) for who, number in seen if who == index] == list(range(300))


def test_messages_to_nobody_are_acknowledged(connect):
    client = connect("alone")
    for qos in QOS:
        client.publish("nobody/listens", "x", qos)
    eventually(client.client.is_connected, "still connected")
