"""MQTT.js on MQTT 3.1.1 and 3.1."""

import pytest

from support.brokers import TlsListener
from support.mosquitto import Message, Subscriber, pub, sub_output

QOS = [0, 1, 2]


@pytest.mark.parametrize("qos", QOS)
def test_both_ways_at_each_qos(broker, js, qos):
    client = js(broker.port, clientId="js")
    assert client.connected() is False
    assert client.subscribe(qos, "to/js/#") == [qos]
    with Subscriber(broker.port, "-t", "from/js", "-q", str(qos)) as subscriber:
        for number in range(50):
            client.publish("from/js", str(number), qos, wait=False)
        assert subscriber.payloads(50) == [str(number) for number in range(50)]
        assert {message.qos for message in subscriber.messages.all()} == {qos}
    pub(broker.port, "-t", "to/js/ü", "-q", str(qos), "-l", stdin="".join(f"{n}\n" for n in range(50)).encode())
    assert client.messages(50) == [Message("to/js/ü", qos, False, str(number)) for number in range(50)]
    client.do("end")
    assert not [item for item in client.events.all() if item["event"] in ("error", "reconnect")]


def test_version_3_1(broker, js):
    client = js(broker.port, clientId="old-js", protocolId="MQIsdp", protocolVersion=3)
    client.connected()
    client.subscribe(2, "v31")
    client.publish("v31", "old", 2)
    assert client.messages(1) == [Message("v31", 2, False, "old")]


def test_retained(broker, js):
    client = js(broker.port)
    client.connected()
    client.publish("state/js", "on", 1, retain=True)
    assert sub_output(broker.port, "-t", "state/js", "-C", "1") == b"on\n"
    client.subscribe(1, "state/+")
    assert client.messages(1) == [Message("state/js", 1, True, "on")]
    client.publish("state/js", "", 1, retain=True)
    assert client.messages(2)[1] == Message("state/js", 1, False, "")
    client.do("unsubscribe", filters=["state/+"])
    client.subscribe(1, "state/+", "end")
    client.publish("end", "end", 1)
    assert client.messages(3)[2] == Message("end", 1, False, "end")


@pytest.mark.parametrize("qos", QOS)
def test_will_on_a_lost_connection_but_not_after_end(broker, js, qos):
    with Subscriber(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        for name, verb in [("polite", "end"), ("lost", "drop")]:
            will = {"topic": f"wills/{name}", "payload": name, "qos": qos, "retain": False}
            client = js(broker.port, clientId=name, will=will)
            client.connected()
            client.do(verb)
            client.wait("close")
        assert watcher.messages.wait_count(1) == [Message("wills/lost", qos, False, "lost")]


def test_will_of_a_killed_process(broker, js):
    with Subscriber(broker.port, "-t", "wills/#", "-q", "2") as watcher:
        client = js(broker.port, will={"topic": "wills/js", "payload": "killed", "qos": 1, "retain": True})
        client.connected()
        client.close()
        assert watcher.messages.wait_count(1) == [Message("wills/js", 1, False, "killed")]
    assert sub_output(broker.port, "-t", "wills/js", "-C", "1") == b"killed\n"


def test_persistent_session_with_a_queue(broker, js):
    first = js(broker.port, clientId="js-keeper", clean=False)
    assert first.connected() is False
    first.subscribe(2, "q/#")
    first.do("end")
    for number in range(12):
        pub(broker.port, "-t", f"q/{number % 3}", "-q", str(number % 3), "-m", str(number))
    second = js(broker.port, clientId="js-keeper", clean=False)
    assert second.connected() is True
    pub(broker.port, "-t", "q/2", "-q", "2", "-m", "end")
    messages = second.messages(9)
    for qos in (1, 2):
        wanted = [str(number) for number in range(12) if number % 3 == qos] + (["end"] if qos == 2 else [])
        assert [message.payload for message in messages if message.qos == qos] == wanted
    assert not [message for message in messages if message.qos == 0]


def test_reconnects_after_a_restart_of_the_broker_and_sends_what_it_had_queued(broker, js):
    client = js(broker.port, clientId="stubborn")
    client.connected()
    client.subscribe(1, "t/#")
    client.publish("t/before", "1", 1)
    client.messages(1)
    assert broker.stop() == 0
    client.wait("close")
    under_way = [client.publish("t/while-away", str(number), qos, wait=False) for number, qos in [(2, 1), (3, 2)]]
    client.wait("reconnect")
    broker.start_again()
    client.connected(times=2)
    for number in under_way:
        client.finish(number)
    # MQTT.js subscribes again by itself, before or after what it had queued.
    client.publish("t/after", "4", 1)
    client.events.wait(lambda items: any(i.get("topic") == "t/after" for i in items), "the message after the restart")


def test_tls_with_a_client_certificate(start_broker, certs, js):
    broker = start_broker(
        tls=TlsListener(certs.server.certificate, certs.server.private_key, certs.ca.certificate, "required")
    )
    pair = {"cert": str(certs.client.certificate), "key": str(certs.client.private_key)}
    client = js(broker.tls_port, protocol="mqtts", ca=str(certs.ca.certificate), **pair)
    client.connected()
    client.subscribe(2, "secret")
    client.publish("secret", "hidden", 2)
    assert client.messages(1) == [Message("secret", 2, False, "hidden")]

    refused = js(broker.tls_port, protocol="mqtts", ca=str(certs.ca.certificate), reconnectPeriod=0)
    refused.wait("close")
    assert not [item for item in refused.events.all() if item["event"] == "connect"]
    client.publish("secret", "still here", 2)
    client.messages(2)
