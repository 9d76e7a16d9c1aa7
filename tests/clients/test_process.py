"""The life of the process: its end, its ports, and too few file descriptors."""

import signal
import ssl
import subprocess
import time

import pytest

from support import raw
from support.brokers import Broker, TlsListener, environment
from support.bystander import Bystander
from support.mosquitto import Subscriber, pub
from support.paho import PahoClient
from support.waiting import DEADLINE, eventually

QUICKLY = 10.0
"""Seconds for what should take a fraction of one, on a machine that is busy."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_broker_with_clients_connected(broker, number):
    clients = [PahoClient(f"client-{index}").connect(broker.port) for index in range(10)]
    half_open = raw.RawClient(broker.port)
    broker.process.send_signal(number)
    assert broker.process.wait(QUICKLY) == 0
    for client in clients:
        client.disconnects.wait_count(1, "disconnects")
        client.disconnect()
    half_open.expect_closed()
    half_open.close()


def test_sigterm_with_tls_clients_connected(start_broker, certs):
    broker = start_broker(tls=TlsListener(certs.server.certificate, certs.server.private_key))
    settings = ssl.create_default_context(cafile=certs.ca.certificate)
    with raw.RawClient(
        broker.tls_port, wrap=lambda plain: settings.wrap_socket(plain, server_hostname="127.0.0.1")
    ) as client:
        client.connect("tls")
        assert broker.stop(QUICKLY) == 0
        client.expect_closed()


def test_what_was_acknowledged_is_delivered_before_the_end(broker):
    with Subscriber(broker.port, "-t", "last/words", "-q", "1") as subscriber:
        pub(broker.port, "-t", "last/words", "-q", "1", "-l", stdin="".join(f"{n}\n" for n in range(50)).encode())
        assert broker.stop(QUICKLY) == 0
        assert subscriber.payloads(50) == [str(number) for number in range(50)]


def test_same_port_again_at_once(broker):
    for _ in range(3):
        # The connections that the broker itself closes leave the port in TIME_WAIT.
        clients = [PahoClient(f"client-{index}").connect(broker.port) for index in range(5)]
        assert broker.stop(QUICKLY) == 0
        for client in clients:
            client.disconnect()
        broker.start_again()
    pub(broker.port, "-t", "t", "-q", "1", "-m", "x")


@pytest.mark.ternmq_only("exit code and text are ours")
def test_port_in_use(broker):
    command = Broker(broker.directory / "second", port=broker.port).command()
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment())
    assert done.returncode == 1
    said = done.stdout + done.stderr
    line = next((line for line in said.splitlines() if "in use" in line), None)
    assert line and f"127.0.0.1:{broker.port}" in line, said
    assert "panicked" not in said
    pub(broker.port, "-t", "t", "-q", "1", "-m", "the first one is unharmed")


@pytest.mark.ternmq_only("mosquitto is not asked to live through this")
def test_too_few_file_descriptors(start_broker):
    broker = start_broker(nofile=64)
    clients = []
    with Bystander(broker.port) as bystander:
        try:
            bystander.more_rounds(5)
            # Twice as many as it can have; those beyond wait in the kernel's backlog.
            for _ in range(128):
                clients.append(raw.RawClient(broker.port))
                clients[-1].send(raw.connect(f"client-{len(clients)}"))
            bystander.more_rounds(20)

            lines = len(broker.log().splitlines())
            # Idle for the most part, so that a busy accept loop would show.
            bystander.pace = 0.1
            start, used = time.monotonic(), broker.cpu_seconds()
            while time.monotonic() - start < 2:
                bystander.more_rounds(1)
            share = (broker.cpu_seconds() - used) / (time.monotonic() - start)
            assert share < 0.3, f"{share:.0%} of a processor while out of descriptors"
            assert len(broker.log().splitlines()) - lines < 10, "it says so again and again"
        finally:
            for client in clients:
                client.close()
        pub(broker.port, "-t", "t", "-q", "1", "-m", "room again")

        def room():
            with raw.RawClient(broker.port) as client:
                return client.connect("late") == (False, 0)

        eventually(room, "newcomers are served again")
        bystander.more_rounds(5)
