"""Peers that do not behave, against a live broker with a healthy client beside them that must not notice.

The packet-by-packet tests of bad input are in Rust; here the broker is a process and its peers are anything.
"""

import os
import random
import select
import signal
import socket
import ssl
import time

import pytest

from support import raw
from support.brokers import HOST, Limits
from support.bystander import Bystander
from support.mosquitto import Subscriber, pub
from support.waiting import DEADLINE, eventually

CONNECT_TIMEOUT = 1.0
IN_TIME = 8.0
"""Seconds: much for a `connect_timeout` of one, and less than its default of ten, so that the setting is seen to work."""


@pytest.fixture
def broker(start_broker):
    return start_broker(limits=Limits(connect_timeout=CONNECT_TIMEOUT))


@pytest.fixture
def bystander(broker):
    with Bystander(broker.port) as bystander:
        bystander.more_rounds(1)
        yield bystander
        bystander.more_rounds(5)


NOT_MQTT = {
    "http": b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a browser\r\nAccept: */*\r\n\r\n",
    "http post": b"POST /mqtt HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
    "websocket": b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.6\r\n",
    "proxy": b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 1883\r\n",
    "ones": b"\xff" * 4096,
    "publish first": raw.publish("bystander", b"intruder"),
    "subscribe first": raw.subscribe(1, ("#", 0)),
    "ping first": raw.packet(raw.PINGREQ, 0),
    "other protocol": raw.packet(raw.CONNECT, 0, raw.text("AMQP") + b"\x04\x02\x00\x3c" + raw.text("x")),
    "reserved flags": b"\x11" + raw.connect("x")[1:],
    "length of five bytes": b"\x10\xff\xff\xff\xff\x7f",
}


@pytest.mark.parametrize("data", NOT_MQTT.values(), ids=NOT_MQTT.keys())
def test_what_is_not_mqtt_is_closed(broker, bystander, data):
    for _ in range(10):
        with raw.RawClient(broker.port) as client:
            client.send(data)
            # No CONNACK with code 0 for it, whatever else a broker may say.
            assert not client.expect_closed().startswith(b"\x20\x02\x00\x00")


def test_tls_client_on_the_plain_port(broker, bystander):
    settings = ssl.create_default_context()
    for _ in range(5):
        with socket.create_connection((HOST, broker.port), timeout=DEADLINE) as plain:
            with pytest.raises((ssl.SSLError, OSError)):
                settings.wrap_socket(plain, server_hostname="localhost")


def test_tls_hello_on_the_plain_port_harms_nobody(broker, bystander):
    hello = bytes.fromhex("160301003c010000380303") + bytes(range(32)) + bytes.fromhex("000004130113020100000b") + bytes(9)
    clients = [raw.RawClient(broker.port) for _ in range(20)]
    for client in clients:
        client.send(hello)
    bystander.more_rounds(5)
    for client in clients:
        client.close()


def test_random_bytes_harm_nobody(broker, bystander):
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for number in range(300):
        with raw.RawClient(broker.port) as client:
            try:
                if number % 2:
                    client.connect(f"random-{number}")
                client.send(source.randbytes(source.randrange(1, 3000)))
                client.send(source.randbytes(source.randrange(1, 3000)))
            except raw.Closed:
                pass  # The broker was quicker than our second piece.
    assert broker.process.poll() is None


@pytest.mark.ternmq_only("mosquitto has no time limit for the first packet but the keep-alive")
def test_random_bytes_before_connect_are_closed_in_time(broker, bystander):
    source = random.Random(1883)
    for _ in range(30):
        client = raw.RawClient(broker.port)
        with client:
            try:
                client.send(source.randbytes(500))
            except raw.Closed:
                continue
            client.expect_closed(IN_TIME)


def test_connect_that_trickles_in_byte_by_byte(broker, bystander):
    with raw.RawClient(broker.port) as client:
        for byte in raw.connect("trickle", will=("w", b"x", 1, False)) + raw.subscribe(1, ("slow", 1)):
            client.send(bytes([byte]))
            # The pause makes each byte a read of its own; what comes back must not be the end.
            if select.select([client.socket], [], [], 0.002)[0]:
                assert client.socket.recv(1, socket.MSG_PEEK), "closed in the middle of a good packet"
        assert client.expect(raw.CONNACK).body == b"\x00\x00"
        assert list(client.expect(raw.SUBACK).body[2:]) == [1]
        pub(broker.port, "-t", "slow", "-q", "1", "-m", "arrives")
        assert client.expect(raw.PUBLISH).payload == b"arrives"


UNFINISHED = {
    "nothing": b"",
    "first byte": b"\x10",
    "half a length": b"\x10\xff",
    "half a connect": raw.connect("unfinished")[:-3],
    "announces 200 MB": b"\x10\x80\x84\xaf\x5f" + raw.connect("unfinished")[2:],
}


@pytest.mark.ternmq_only("mosquitto has no time limit for the first packet but the keep-alive")
@pytest.mark.parametrize("data", UNFINISHED.values(), ids=UNFINISHED.keys())
def test_connect_that_is_never_finished_is_closed(broker, bystander, data):
    with raw.RawClient(broker.port) as client:
        client.send(data)
        client.expect_closed(IN_TIME)


@pytest.mark.ternmq_only("mosquitto has no time limit for the first packet but the keep-alive")
def test_connect_timeout_is_not_cut_short(broker, bystander):
    start = time.monotonic()
    with raw.RawClient(broker.port) as client:
        client.send(b"\x10")
        client.expect_closed(IN_TIME)
    assert time.monotonic() - start >= 0.9 * CONNECT_TIMEOUT


@pytest.mark.ternmq_only("mosquitto has no time limit for the first packet but the keep-alive")
def test_trickling_does_not_stretch_the_connect_timeout(broker, bystander):
    with raw.RawClient(broker.port) as client:
        start = time.monotonic()
        try:
            for byte in raw.connect("x" * 60_000):
                client.send(bytes([byte]))
                if select.select([client.socket], [], [], 0.02)[0] and not client.socket.recv(1):
                    break
        except (raw.Closed, ConnectionResetError):
            pass
        # All its bytes would take twenty minutes.
        assert time.monotonic() - start < IN_TIME


def test_a_thousand_half_open_connections(broker, bystander):
    before = broker.peak_memory()
    half = raw.connect("half-open")[:-3]
    clients = []
    try:
        for _ in range(1000):
            clients.append(raw.RawClient(broker.port))
            clients[-1].send(half)
        bystander.more_rounds(20)
        pub(broker.port, "-t", "t", "-q", "1", "-m", "newcomers are served")
        # "A few KB" each, of which the program's own growth is a part.
        assert broker.peak_memory() - before < 16_000_000
    finally:
        for client in clients:
            client.close()
    bystander.more_rounds(20)


@pytest.mark.ternmq_only("mosquitto has no time limit for the first packet but the keep-alive")
def test_a_thousand_half_open_connections_are_closed_in_time(broker, bystander):
    clients = [raw.RawClient(broker.port) for _ in range(1000)]
    for client in clients:
        client.expect_closed(IN_TIME)
        client.close()


_UNBOUNDED = pytest.mark.ternmq_only("mosquitto 2.0.11 keeps all 200 MB for a QoS 0 subscriber, whatever max_queued_bytes")


@pytest.mark.parametrize("qos", [pytest.param(0, marks=_UNBOUNDED), 1])
def test_stopped_subscriber_while_a_publisher_floods(start_broker, qos):
    """200 MB for somebody who does not read: the memory stays bounded, the publisher and the others go on."""
    limit, size, count = 8_000_000, 64 * 1024, 3200
    broker = start_broker(limits=Limits(queue_bytes_max=limit))
    with Bystander(broker.port) as bystander, Subscriber(broker.port, "-t", "flood", "-q", str(qos)) as stopped:
        bystander.more_rounds(1)
        before = broker.peak_memory()
        os.kill(stopped.pid, signal.SIGSTOP)
        try:
            with raw.RawClient(broker.port) as publisher:
                publisher.connect("flooder")
                body = bytes(size)
                # At most 32 under way: the publisher behaves, there is only too much of it.
                for number in range(count + 32):
                    if number < count:
                        publisher.send(raw.publish("flood", body, 1, packet_id=number + 1))
                    if number >= 32:
                        assert publisher.expect(raw.PUBACK).packet_id == number - 31
            bystander.more_rounds(5)
            growth = broker.peak_memory() - before
        finally:
            os.kill(stopped.pid, signal.SIGCONT)
        print(f"grew by {growth / 1e6:.1f} MB")
        # The queue, and as much again for the in-flight window, read buffers and the allocator's waste.
        assert growth < 4 * limit
        bystander.more_rounds(5)
        with Subscriber(broker.port, "-t", "flood", "-q", str(qos)) as fresh:
            pub(broker.port, "-t", "flood", "-q", "1", "-m", "after")
            assert fresh.payloads(1) == ["after"]


def test_storm_of_connections_that_reset(broker, bystander):
    for number in range(500):
        with socket.create_connection((HOST, broker.port), timeout=DEADLINE) as client:
            # A reset in place of an orderly end.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            client.sendall(raw.connect(f"storm-{number % 5}"))
    eventually(lambda: broker.process.poll() is None, "the broker is there")
    pub(broker.port, "-t", "t", "-q", "1", "-m", "x")
