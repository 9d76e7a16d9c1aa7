"""Fixtures: brokers that end with their test, and certificates made once per run."""

import resource
import tempfile
from pathlib import Path

import pytest

from support import brokers, certificates
from support.mqttjs import JsClient


def pytest_configure(config):
    # A thousand half-open connections need descriptors on our side; the broker inherits the limit.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        brokers.selected()
    except RuntimeError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_report_header():
    return f"broker under test: {brokers.selected()}"


def pytest_collection_modifyitems(items):
    for item in items:
        mark = item.get_closest_marker("ternmq_only")
        if mark and brokers.selected() == "mosquitto":
            item.add_marker(pytest.mark.skip(reason=f"TernMQ only: {mark.args[0]}"))


@pytest.fixture
def directory():
    """A directory of this test, gone after it. Short, because some of its paths go into sockets and logs."""
    with tempfile.TemporaryDirectory(prefix="ternmq-") as path:
        yield Path(path)


@pytest.fixture
def start_broker(directory, request):
    """Starts brokers as `start_broker(limits=…, tls=…)`; ends them after the test and shows the log if it failed."""
    started = []

    def start(**options):
        broker = brokers.Broker(directory / f"broker-{len(started)}", **options)
        started.append(broker)
        broker.start()
        return broker

    yield start
    for broker in started:
        ended_early = broker.process is not None and broker.process.poll()
        broker.close()
        print(f"--- log of the broker in {broker.directory.name}, exit code before the end: {ended_early}")
        print(broker.log()[-20_000:])


@pytest.fixture
def broker(start_broker):
    """A broker with its defaults."""
    return start_broker()


@pytest.fixture(scope="session")
def certs():
    """The certificates of this run."""
    with tempfile.TemporaryDirectory(prefix="ternmq-certs-") as path:
        yield certificates.make(path)


@pytest.fixture
def js():
    """Makes clients that end with the test."""
    clients = []

    def make(port, **options):
        clients.append(JsClient(port, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
