"""Node-RED as a real hub, connected with MQTT 3.1.1 and MQTT 5 at once (see support/nodered.py for its flow)."""

import pytest

from support.nodered import STARTED, VERSIONS, NodeRed
from support.paho_v5 import PahoV5Client, user_properties


@pytest.fixture
def hub(directory):
    """Makes Node-REDs that end with the test, which shows their log if it failed."""
    made = []

    def make(port, **options):
        made.append(NodeRed(directory / f"node-red-{len(made)}", port, **options))
        return made[-1].start()

    yield make
    for node_red in made:
        node_red.kill()
        print(f"--- log of Node-RED\n{node_red.log()[-10_000:]}")


class House:
    """The devices around the hub: one client that publishes and listens."""

    def __init__(self, port, client_id="house"):
        self.client = PahoV5Client(client_id).connect(port)
        self.client.subscribe(("from/#", 2), ("crossed/#", 2), ("kept/#", 2), ("status/#", 2))

    def on(self, topic):
        return [message for message in self.client.messages.all() if message.topic == topic]

    def wait(self, topic, count, timeout=STARTED):
        """Waits for `count` messages on a topic and returns the payloads of all there are."""
        self.client.messages.wait(
            lambda items: sum(m.topic == topic for m in items) >= count, f"{count} messages on {topic}", timeout
        )
        return [message.payload.decode() for message in self.on(topic)]

    def hub_online(self, times=1):
        """Waits until both of the hub's connections have said so for the `times`th time."""
        for version in VERSIONS:
            self.client.messages.wait(
                lambda items: sum(m.topic == f"status/{version}" and m.payload == b"online" for m in items) >= times,
                f"status/{version} online × {times}",
                STARTED,
            )


@pytest.fixture
def house():
    made = []

    def make(*arguments):
        made.append(House(*arguments))
        return made[-1]

    yield make
    for one in made:
        one.client.disconnect()


def test_hub_hears_and_says(broker, hub, house):
    device = house(broker.port)
    for version in VERSIONS:
        # Before the hub is there: it hears the retained message when it comes.
        device.client.publish(f"to/{version}", "kept for you", 1, retain=True)
    hub(broker.port)
    device.hub_online()
    for version in VERSIONS:
        assert device.wait(f"from/{version}", 1) == ["seen kept for you"]
    for version, other in VERSIONS.items():
        for qos in (0, 1, 2):
            device.client.messages.clear()
            for number in range(30):
                device.client.publish(f"to/{version}", str(number), qos)
            assert device.wait(f"from/{version}", 30) == [f"seen {number}" for number in range(30)]
            # The out node publishes at the QoS of the message it was given.
            assert {message.qos for message in device.on(f"from/{version}")} == {qos}
            device.client.publish(f"cross/{version}", f"over {qos}", qos)
            assert device.wait(f"crossed/{other}", 1) == [f"over {qos}"]

        device.client.publish(f"keep/{version}", "state", 1)
        assert device.wait(f"kept/{version}", 1) == ["state"]
        assert not device.on(f"kept/{version}")[0].retain
    later = house(broker.port, "later")
    for version in VERSIONS:
        assert later.wait(f"kept/{version}", 1) == ["state"]
        assert later.on(f"kept/{version}")[0].retain


def test_what_only_mqtt_5_has(broker, hub, house):
    device = house(broker.port)
    hub(broker.port)
    device.hub_online()
    assert user_properties(device.on("status/5")[0]) == [("state", "online")]
    assert user_properties(device.on("status/4")[0]) == []
    properties = {
        "UserProperty": [("b", "1"), ("a", "2")],
        "ContentType": "text/plain",
        "ResponseTopic": "answers",
        "CorrelationData": b"\x00\xff",
        "MessageExpiryInterval": 600,
    }
    for version in VERSIONS:
        device.client.publish(f"to/{version}", "x", 1, **properties)
        device.wait(f"from/{version}", 1)
    passed = device.on("from/5")[0]
    assert user_properties(passed) == [("b", "1"), ("a", "2")]
    assert (passed.properties.ContentType, passed.properties.ResponseTopic) == ("text/plain", "answers")
    assert passed.properties.CorrelationData == b"\x00\xff"
    assert 590 <= passed.properties.MessageExpiryInterval <= 600
    assert device.on("from/4")[0].properties.isEmpty()

    for number in range(20):
        device.client.publish("shared/jobs", str(number), 1)
    assert device.wait("from/shared", 20) == [str(number) for number in range(20)]

    device.client.subscribe(("loop", 1))
    device.client.publish("loop", "x", 1)
    assert device.wait("loop", 2) == ["x", "x+"]
    # Had it heard itself there would be a third one before this.
    device.client.publish("to/5", "last", 1)
    assert device.wait("from/5", 2)[-1] == "seen last"
    assert len(device.on("loop")) == 2


def test_will_of_a_killed_hub_and_none_of_one_that_ends_in_order(broker, hub, house):
    device = house(broker.port)
    killed = hub(broker.port)
    device.hub_online()
    killed.kill()
    for version in VERSIONS:
        assert device.wait(f"status/{version}", 2) == ["online", "offline"]
        assert user_properties(device.on(f"status/{version}")[1]) == ([("state", "offline")] if version == "5" else [])
    later = house(broker.port, "later")
    for version in VERSIONS:
        assert later.wait(f"status/{version}", 1) == ["offline"]
        assert later.on(f"status/{version}")[0].retain
    orderly = hub(broker.port)
    device.hub_online(times=2)
    orderly.stop()
    third = hub(broker.port)
    # A will of the second one would stand between "closed" and the third one's birth.
    device.hub_online(times=3)
    for version in VERSIONS:
        assert device.wait(f"status/{version}", 5) == ["online", "offline", "online", "closed", "online"]
    third.kill()


def test_hub_comes_back_after_a_restart_of_the_broker(broker, hub, house):
    device = house(broker.port)
    hub(broker.port)
    device.hub_online()
    for _ in range(2):
        assert broker.stop() == 0
        broker.start_again()
        device = house(broker.port)
        # The birth messages may have come before us, then they are retained.
        device.hub_online()
        for version, other in VERSIONS.items():
            device.client.publish(f"to/{version}", "again", 2)
            assert device.wait(f"from/{version}", 1) == ["seen again"]
            device.client.publish(f"cross/{version}", "over", 1)
            assert device.wait(f"crossed/{other}", 1) == ["over"]


def test_sessions_of_the_hub_keep_what_comes_while_it_is_away(broker, hub, house):
    device = house(broker.port)
    first = hub(broker.port, persistent=True)
    device.hub_online()
    first.kill()
    for version in VERSIONS:
        assert device.wait(f"status/{version}", 2)[-1] == "offline"
        for number in range(20):
            device.client.publish(f"to/{version}", str(number), 1)
    hub(broker.port, persistent=True)
    device.hub_online(times=2)
    for version in VERSIONS:
        assert device.wait(f"from/{version}", 20) == [f"seen {number}" for number in range(20)]
