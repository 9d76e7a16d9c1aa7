"""`mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr` on MQTT 5."""

import os
import signal
import threading
import time

import pytest

from support.mosquitto import Message, Subscriber, pub
from support.mosquitto_v5 import Subscriber5, defined, got, pub5, request, try_pub5
from support.waiting import eventually

QOS = [0, 1, 2]


@pytest.mark.parametrize("qos", QOS)
def test_properties_of_a_message(broker, qos):
    with Subscriber5(broker.port, "-t", "t/#", "-q", str(qos), *defined("subscribe", subscription_identifier=7)) as sub:
        pub5(
            broker.port, "-t", "t/all", "-q", str(qos), "-m", "payload",
            content_type="text/plain",
            correlation_data="any-data",
            message_expiry_interval=600,
            payload_format_indicator=1,
            response_topic="answers/here",
            user_property=[("b", "1"), ("a", "ü"), ("b", "1"), ("c", "2")],
        )
        pub5(broker.port, "-t", "t/none", "-q", str(qos), "-m", "bare")
        full, bare = sub.details(2)
        assert 590 <= int(full.expiry) <= 600
        expected = ("text/plain", "any-data", full.expiry, "1", "b:1 a:ü b:1 c:2", "answers/here", "7", "payload")
        assert tuple(full) == expected
        # mosquitto_sub prints an absent Payload Format Indicator as 0 or as nothing.
        assert tuple(bare._replace(format_indicator="")) == ("", "", "", "", "", "", "7", "bare")
        assert {message.qos for message in sub.messages.all()} == {qos}


def test_topic_alias_of_the_publisher_stays_between_it_and_the_broker(broker):
    lines = "".join(f"{number}\n" for number in range(50)).encode()
    with Subscriber(broker.port, "-V", "5", "-t", "alias/#", "-q", "1") as subscriber:
        pub(broker.port, "-V", "5", "-t", "alias/t", "-q", "1", "-l", *defined("publish", topic_alias=3), stdin=lines)
        expected = [Message("alias/t", 1, False, str(number)) for number in range(50)]
        assert subscriber.messages.wait_count(50) == expected


def test_topic_alias_above_the_maximum_is_refused(broker):
    done = try_pub5(broker.port, "-t", "t", "-q", "1", "-m", "x", topic_alias=65_535)
    # The client itself keeps to the maximum that CONNACK told it.
    assert done.returncode != 0
    pub5(broker.port, "-t", "t", "-q", "1", "-m", "x", topic_alias=1)


@pytest.mark.parametrize("options, kept", [(["-c"], True), (["-c", "-x", "600"], True), (["-c", "-x", "0"], False)])
def test_session_expiry(broker, options, kept):
    session = ["-i", "keeper", "-t", "mail/#", "-q", "2", *options]
    assert got(broker.port, *session, "-E") == []
    for qos in QOS:
        pub5(broker.port, "-t", f"mail/{qos}", "-q", str(qos), "-m", str(qos), user_property=[("q", str(qos))])
    with Subscriber5(broker.port, *session) as again:
        pub5(broker.port, "-t", "mail/end", "-q", "2", "-m", "end")
        expected = [("1", "q:1"), ("2", "q:2"), ("end", "")] if kept else [("end", "")]
        assert [(message.payload, message.user) for message in again.details(len(expected))] == expected


def test_retained_with_properties(broker):
    pub5(
        broker.port, "-t", "state", "-q", "1", "-r", "-m", "on",
        content_type="text/plain", user_property=[("z", "1"), ("a", "2")], message_expiry_interval=600,
    )
    message = got(broker.port, "-t", "state", "-q", "1", "-C", "1")[0]
    assert (message.payload, message.content_type, message.user) == ("on", "text/plain", "z:1 a:2")
    assert 590 <= int(message.expiry) <= 600
    pub5(broker.port, "-t", "brief", "-q", "1", "-r", "-m", "soon gone", message_expiry_interval=1)

    def expired():
        messages = got(broker.port, "-t", "brief", "-t", "state", "-q", "1", "-W", "1", "--retained-only", "-C", "1")
        return [message.payload for message in messages] == ["on"]

    eventually(expired, "the retained message expires")


def test_retain_as_published(broker):
    with (
        Subscriber(broker.port, "-V", "5", "-t", "t", "-q", "1", "--retain-as-published") as published,
        Subscriber(broker.port, "-V", "5", "-t", "t", "-q", "1") as plain,
    ):
        pub5(broker.port, "-t", "t", "-q", "1", "-r", "-m", "retained")
        pub5(broker.port, "-t", "t", "-q", "1", "-m", "live")
        assert [message.retain for message in published.messages.wait_count(2)] == [True, False]
        assert [message.retain for message in plain.messages.wait_count(2)] == [False, False]


def test_shared_subscription(broker):
    group = ["-V", "5", "-t", "$share/group/jobs/#", "-q", "1"]
    with (
        Subscriber(broker.port, *group) as one,
        Subscriber(broker.port, *group) as two,
        Subscriber(broker.port, "-V", "mqttv311", "-t", "$share/group/jobs/#", "-q", "1") as three,
        Subscriber(broker.port, "-V", "5", "-t", "jobs/#", "-q", "1") as outsider,
    ):
        lines = "".join(f"{number}\n" for number in range(90)).encode()
        pub(broker.port, "-V", "5", "-t", "jobs/a", "-q", "1", "-l", stdin=lines)
        everything = [str(number) for number in range(90)]
        assert outsider.payloads(90) == everything
        members = [one, two, three]
        eventually(lambda: sum(len(m.messages.all()) for m in members) >= 90, "all delivered to the group")
        shares = [[message.payload for message in member.messages.all()] for member in members]
        assert sorted(sum(shares, []), key=int) == everything
        assert min(map(len, shares)) >= 10, [len(share) for share in shares]


@pytest.mark.parametrize("qos", QOS)
def test_will_with_delay_and_properties(broker, qos):
    will = ["--will-topic", "wills/a", "--will-payload", "gone", "--will-qos", str(qos)]
    will += defined(
        "will",
        will_delay_interval=2,
        content_type="text/plain",
        response_topic="answers",
        correlation_data="data",
        message_expiry_interval=600,
        payload_format_indicator=1,
        user_property=[("b", "1"), ("a", "2")],
    )
    with Subscriber5(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        with Subscriber(broker.port, "-V", "5", "-x", "600", "-c", "-i", "doomed", "-t", "n", *will) as doomed:
            start = time.monotonic()
            doomed.kill()
        message = watcher.details(1)[0]
        # Two seconds, less what counting in whole ones may take off.
        assert time.monotonic() - start >= 1
        expected = ("text/plain", "data", message.expiry, "1", "b:1 a:2", "answers", "", "gone")
        assert tuple(message) == expected
        assert 590 <= int(message.expiry) <= 600
        assert watcher.messages.all()[0].qos == qos


def test_receive_maximum_of_the_client(broker):
    with Subscriber(broker.port, "-V", "5", *defined("connect", receive_maximum=1), "-t", "t", "-q", "2") as subscriber:
        lines = "".join(f"{number}\n" for number in range(200)).encode()
        pub(broker.port, "-V", "5", "-t", "t", "-q", "2", "-l", stdin=lines)
        assert subscriber.payloads(200) == [str(number) for number in range(200)]


@pytest.mark.parametrize("qos", QOS)
def test_request_and_response(broker, qos):
    """A responder that answers to the response topic of what it got, with its correlation data."""
    level = ["-q", str(qos)]
    with Subscriber5(broker.port, "-t", "service/add", "-q", "2") as service:

        def answer():
            asked = service.details(1)[0]
            pub5(
                broker.port, "-t", asked.response, *level, "-m", f"answer-to-{asked.payload}",
                correlation_data=asked.correlation,
            )

        responder = threading.Thread(target=answer)
        responder.start()
        options = ["-t", "service/add", "-e", "answers/me", *level, "-m", "1+1", "-F", "%t %D %p"]
        output = request(broker.port, *options, correlation_data="call-17")
        responder.join()
        asked = service.details(1)[0]
        assert (asked.response, asked.correlation) == ("answers/me", "call-17")
        assert output == "answers/me call-17 answer-to-1+1\n"


def test_request_and_response_of_3_1_1(broker):
    with Subscriber(broker.port, "-t", "service", "-q", "1") as service:

        def answer():
            service.payloads(1)
            pub(broker.port, "-t", "answers", "-q", "1", "-m", "42")

        responder = threading.Thread(target=answer)
        responder.start()
        output = request(broker.port, "-V", "mqttv311", "-t", "service", "-e", "answers", "-q", "1", "-m", "?")
        responder.join()
        assert output == "42\n"


_STALLS = pytest.mark.ternmq_only("mosquitto 2.0.11 stops at the client's Receive Maximum")


@pytest.mark.parametrize("qos", [1, pytest.param(2, marks=_STALLS)])
def test_ten_thousand_messages_in_order(broker, qos):
    count = 10_000
    lines = "".join(f"{number}\n" for number in range(count)).encode()
    with Subscriber(broker.port, "-V", "5", "-t", "many", "-q", str(qos)) as subscriber:
        pub(broker.port, "-V", "5", "-t", "many", "-q", str(qos), "-l", stdin=lines, timeout=90)
        assert subscriber.payloads(count) == [str(number) for number in range(count)]


def test_a_stopped_subscriber_gets_what_fits_its_session(broker):
    """A client that comes back within its session's expiry after it was killed misses nothing."""
    session = ["-V", "5", "-i", "back", "-c", "-x", "600", "-t", "t", "-q", "1"]
    with Subscriber(broker.port, *session) as first:
        os.kill(first.pid, signal.SIGKILL)
    pub5(broker.port, "-t", "t", "-q", "1", "-m", "while-away")
    with Subscriber(broker.port, *session) as second:
        pub5(broker.port, "-t", "t", "-q", "1", "-m", "back")
        assert second.payloads(2) == ["while-away", "back"]
