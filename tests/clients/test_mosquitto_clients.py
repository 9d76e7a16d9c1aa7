"""`mosquitto_pub` and `mosquitto_sub` on plain TCP: the commands a mosquitto user has in the fingers."""

import pytest

from support.mosquitto import Message, Subscriber, pub, sub_output

QOS = [0, 1, 2]


@pytest.mark.parametrize("qos", QOS)
def test_publish_reaches_subscriber_at_each_qos(broker, qos):
    with Subscriber(broker.port, "-t", "rooms/kitchen", "-q", str(qos)) as subscriber:
        pub(broker.port, "-t", "rooms/kitchen", "-q", str(qos), "-m", "21.5")
        assert subscriber.messages.wait_count(1) == [Message("rooms/kitchen", qos, False, "21.5")]


@pytest.mark.parametrize("published", QOS)
@pytest.mark.parametrize("granted", QOS)
def test_delivery_is_at_the_lower_of_both_qos(broker, published, granted):
    with Subscriber(broker.port, "-t", "a/b", "-q", str(granted)) as subscriber:
        pub(broker.port, "-t", "a/b", "-q", str(published), "-m", "x")
        assert subscriber.messages.wait_count(1)[0].qos == min(published, granted)


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311"])
@pytest.mark.parametrize("qos", QOS)
def test_protocol_versions(broker, version, qos):
    with Subscriber(broker.port, "-V", version, "-t", "v/#", "-q", str(qos)) as subscriber:
        pub(broker.port, "-V", version, "-t", "v/1", "-q", str(qos), "-m", version)
        assert subscriber.messages.wait_count(1) == [Message("v/1", qos, False, version)]


@pytest.mark.parametrize("qos", QOS)
def test_retained_message_is_set_got_replaced_and_deleted(broker, qos):
    level = ["-q", str(qos)]
    pub(broker.port, "-t", "state/lamp", *level, "-r", "-m", "on")
    pub(broker.port, "-t", "state/door", *level, "-r", "-m", "shut")
    pub(broker.port, "-t", "state/lamp", *level, "-r", "-m", "off")
    assert sub_output(broker.port, "-t", "state/lamp", *level, "-C", "1") == b"off\n"
    with Subscriber(broker.port, "-t", "state/+", *level) as subscriber:
        expected = [Message("state/door", qos, True, "shut"), Message("state/lamp", qos, True, "off")]
        assert sorted(subscriber.messages.wait_count(2)) == expected
        # To somebody who is already there the same message is not a retained one.
        pub(broker.port, "-t", "state/lamp", *level, "-r", "-m", "on")
        assert subscriber.messages.wait_count(3)[2] == Message("state/lamp", qos, False, "on")

    pub(broker.port, "-t", "state/lamp", *level, "-r", "-n")
    pub(broker.port, "-t", "end", *level, "-r", "-m", "end")
    with Subscriber(broker.port, "-t", "state/#", "-t", "end", *level) as subscriber:
        assert {m.topic for m in subscriber.messages.wait_count(2)} == {"state/door", "end"}


def test_retained_messages_are_removed_by_mosquitto_sub(broker):
    topics = [f"old/{number}" for number in range(3)]
    for topic in topics:
        pub(broker.port, "-t", topic, "-q", "1", "-r", "-m", "x")
    with Subscriber(broker.port, "-t", "old/#", "-q", "1") as watcher:
        watcher.messages.wait_count(3, "retained messages")
        with Subscriber(broker.port, "-t", "old/#", "-q", "1", "--remove-retained"):
            removals = watcher.messages.wait_count(6, "retained messages and their removals")[3:]
        assert sorted(removals) == [Message(topic, 1, False, "") for topic in topics]
    with Subscriber(broker.port, "-t", "old/#", "-q", "1") as subscriber:
        pub(broker.port, "-t", "old/new", "-q", "1", "-m", "live")
        assert [(m.topic, m.retain) for m in subscriber.messages.wait_count(1)] == [("old/new", False)]


@pytest.mark.parametrize("qos", QOS)
def test_will_of_a_killed_subscriber(broker, qos):
    will = ["--will-topic", "wills/a", "--will-payload", "gone", "--will-qos", str(qos)]
    with Subscriber(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        with Subscriber(broker.port, "-t", "nothing", "-i", "doomed", *will) as doomed:
            doomed.kill()
        assert watcher.messages.wait_count(1) == [Message("wills/a", qos, False, "gone")]


def test_retained_will_is_there_for_later_subscribers(broker):
    will = ["--will-topic", "wills/b", "--will-payload", "offline", "--will-qos", "1", "--will-retain"]
    with Subscriber(broker.port, "-t", "wills/b", "-q", "1") as watcher:
        with Subscriber(broker.port, "-t", "nothing", *will) as doomed:
            doomed.kill()
        assert watcher.messages.wait_count(1) == [Message("wills/b", 1, False, "offline")]
    with Subscriber(broker.port, "-t", "wills/b", "-q", "1") as later:
        assert later.messages.wait_count(1) == [Message("wills/b", 1, True, "offline")]


def test_empty_will(broker):
    with Subscriber(broker.port, "-t", "wills/empty", "-q", "1") as watcher:
        with Subscriber(broker.port, "-t", "nothing", "--will-topic", "wills/empty", "--will-qos", "1") as doomed:
            doomed.kill()
        assert watcher.messages.wait_count(1) == [Message("wills/empty", 1, False, "")]


def test_no_will_after_disconnect(broker):
    with Subscriber(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        for name, end in [("polite", Subscriber.terminate), ("doomed", Subscriber.kill)]:
            will = ["--will-topic", f"wills/{name}", "--will-payload", name, "--will-qos", "1"]
            with Subscriber(broker.port, "-t", "nothing", "-i", name, *will) as subscriber:
                end(subscriber)
        # The second will is sent after the first one would have been.
        assert watcher.payloads(1) == ["doomed"]


def test_will_of_a_publisher_only_when_it_is_killed(broker):
    will = ["--will-topic", "wills/pub", "--will-payload", "gone", "--will-qos", "1"]
    with Subscriber(broker.port, "-t", "wills/#", "-t", "data", "-q", "1") as watcher:
        pub(broker.port, "-t", "data", "-q", "1", "-m", "1", *will)
        pub(broker.port, "-t", "data", "-q", "1", "-m", "2")
        assert watcher.payloads(2) == ["1", "2"]


def test_persistent_session_keeps_qos_1_and_2_but_not_0(broker):
    session = ["-c", "-i", "sleeper", "-q", "2", "-t", "news/#"]
    sub_output(broker.port, *session, "-E")
    for number in range(10):
        pub(broker.port, "-t", f"news/{number}", "-q", str(number % 3), "-m", str(number))
    kept = [number for number in range(10) if number % 3]
    with Subscriber(broker.port, *session) as subscriber:
        # What comes after the queue shows that nothing else was in it.
        pub(broker.port, "-t", "news/end", "-q", "2", "-m", "end")
        subscriber.messages.wait_count(len(kept) + 1)
        # The client shows a QoS 2 message when its handshake is over, so order holds only within a QoS.
        for qos in (0, 1, 2):
            expected = [Message(f"news/{number}", qos, False, str(number)) for number in kept if number % 3 == qos]
            expected += [Message("news/end", 2, False, "end")] if qos == 2 else []
            assert [message for message in subscriber.messages.all() if message.qos == qos] == expected
        subscriber.terminate()
    # Delivered once: the next visit finds an empty queue.
    with Subscriber(broker.port, *session) as subscriber:
        pub(broker.port, "-t", "news/again", "-q", "1", "-m", "again")
        assert subscriber.payloads(1) == ["again"]


def test_clean_session_ends_a_persistent_one(broker):
    session = ["-i", "forgetful", "-q", "1", "-t", "news"]
    sub_output(broker.port, "-c", *session, "-E")
    pub(broker.port, "-t", "news", "-q", "1", "-m", "lost")
    sub_output(broker.port, *session, "-E")
    with Subscriber(broker.port, "-c", *session) as subscriber:
        pub(broker.port, "-t", "news", "-q", "1", "-m", "kept")
        assert subscriber.payloads(1) == ["kept"]


def test_killed_persistent_subscriber_misses_nothing(broker):
    session = ["-c", "-i", "phoenix", "-q", "1", "-t", "count"]
    seen = []
    for round_ in range(3):
        with Subscriber(broker.port, *session) as subscriber:
            pub(broker.port, "-t", "count", "-q", "1", "-m", f"here {round_}")
            subscriber.messages.wait(lambda items: items[-1:] and items[-1].payload == f"here {round_}", "the last")
            subscriber.kill()
            seen += [message.payload for message in subscriber.messages.all()]
        pub(broker.port, "-t", "count", "-q", "1", "-m", f"away {round_}")
    with Subscriber(broker.port, *session) as subscriber:
        subscriber.messages.wait(lambda items: items[-1:] and items[-1].payload == "away 2", "the last")
        seen += [message.payload for message in subscriber.messages.all()]
    # At least once: a message whose PUBACK was under way at the kill may come again, but none is missing.
    wanted = [f"{where} {round_}" for round_ in range(3) for where in ("here", "away")]
    assert list(dict.fromkeys(seen)) == wanted


WILDCARDS = [
    ("sport/#", ["sport", "sport/tennis", "sport/tennis/final", "sport/"], ["sports", "Sport/tennis"]),
    ("sport/+", ["sport/tennis", "sport/"], ["sport", "sport/tennis/final"]),
    ("+/+", ["/finance", "a/b"], ["finance", "a/b/c"]),
    ("/+", ["/finance"], ["finance", "a/finance"]),
    ("#", ["a", "/", "a/b/c"], ["$own/a"]),
    ("+/monitor", ["a/monitor"], ["$own/monitor", "monitor"]),
    ("$own/#", ["$own/a", "$own/monitor"], ["own/a"]),
    ("a/+/c/#", ["a/b/c", "a/b/c/d", "a//c/d/e"], ["a/b/b/c", "a/c"]),
]


@pytest.mark.parametrize("topic_filter, matching, others", WILDCARDS, ids=[case[0] for case in WILDCARDS])
def test_wildcard_subscription(broker, topic_filter, matching, others):
    with Subscriber(broker.port, "-t", topic_filter, "-t", "end/of/test", "-q", "1") as subscriber:
        for topic in [*others, *matching, "end/of/test"]:
            pub(broker.port, "-t", topic, "-q", "1", "-m", "x")
        subscriber.messages.wait(lambda items: any(m.topic == "end/of/test" for m in items), "the last message")
        seen = [m.topic for m in subscriber.messages.all() if m.topic != "end/of/test"]
    assert seen == matching


@pytest.mark.parametrize("qos", QOS)
def test_payload_of_a_megabyte(broker, directory, qos):
    payload = bytes(range(256)) * 4096
    file = directory / "payload"
    file.write_bytes(payload)
    level = ["-q", str(qos)]
    # Live: the length as it arrives (its bytes are compared below, where nothing else is in the output).
    with Subscriber(broker.port, "-t", "big", *level, "-F", "=> %q %r %t %l") as subscriber:
        pub(broker.port, "-t", "big", *level, "-r", "-f", str(file))
        assert subscriber.messages.wait_count(1) == [Message("big", qos, False, str(len(payload)))]
    assert sub_output(broker.port, "-t", "big", *level, "-C", "1", "-N") == payload


@pytest.mark.parametrize("qos", QOS)
def test_empty_payload(broker, qos):
    with Subscriber(broker.port, "-t", "empty", "-q", str(qos)) as subscriber:
        pub(broker.port, "-t", "empty", "-q", str(qos), "-n")
        assert subscriber.messages.wait_count(1) == [Message("empty", qos, False, "")]


@pytest.mark.parametrize("qos", [1, 2])
def test_ten_thousand_messages_in_order(broker, qos):
    count = 10_000
    lines = [f"line {number}" for number in range(count)]
    with Subscriber(broker.port, "-t", "log/lines", "-q", str(qos)) as subscriber:
        pub(broker.port, "-t", "log/lines", "-q", str(qos), "-l", stdin=("\n".join(lines) + "\n").encode(), timeout=90)
        subscriber.messages.wait_count(count, "lines", timeout=90)
        assert [message.payload for message in subscriber.messages.all()] == lines


def test_ten_thousand_messages_wait_for_a_sleeper_in_order(broker):
    # As many as queue_messages_max allows by default.
    count = 10_000
    session = ["-c", "-i", "long-sleeper", "-q", "1", "-t", "log/lines"]
    sub_output(broker.port, *session, "-E")
    lines = [f"line {number}" for number in range(count)]
    pub(broker.port, "-t", "log/lines", "-q", "1", "-l", stdin=("\n".join(lines) + "\n").encode(), timeout=90)
    with Subscriber(broker.port, *session) as subscriber:
        assert subscriber.payloads(count) == lines


@pytest.mark.parametrize("topic", ["grüße/世界", "температура/кухня", "emoji/🌡️/+0", "ﷺ/\u0301combining"])
def test_utf8_topics(broker, topic):
    filters = [topic, f"{topic.split('/')[0]}/#"]
    if "+" in topic:
        topic, filters = topic.replace("+0", "0"), [topic.replace("+0", "+")]
    for topic_filter in filters:
        with Subscriber(broker.port, "-t", topic_filter, "-q", "1") as subscriber:
            pub(broker.port, "-t", topic, "-q", "1", "-m", "ünïcode ✓")
            assert subscriber.messages.wait_count(1) == [Message(topic, 1, False, "ünïcode ✓")]


def test_several_subscriptions_of_one_client_and_unsubscribe_option(broker):
    session = ["-c", "-i", "chooser", "-q", "1"]
    sub_output(broker.port, *session, "-t", "keep", "-t", "drop", "-E")
    # -U sends UNSUBSCRIBE for a filter of the stored session.
    with Subscriber(broker.port, *session, "-t", "keep", "-U", "drop") as subscriber:
        pub(broker.port, "-t", "keep", "-q", "1", "-m", "sync")
        subscriber.messages.wait_count(1)
        pub(broker.port, "-t", "drop", "-q", "1", "-m", "no")
        pub(broker.port, "-t", "keep", "-q", "1", "-m", "yes")
        assert subscriber.payloads(2) == ["sync", "yes"]


def test_repeated_publish_arrives_as_often(broker):
    with Subscriber(broker.port, "-t", "again", "-q", "2") as subscriber:
        pub(broker.port, "-t", "again", "-q", "2", "-m", "x", "--repeat", "25")
        pub(broker.port, "-t", "again", "-q", "2", "-m", "end")
        assert subscriber.payloads(26) == ["x"] * 25 + ["end"]
