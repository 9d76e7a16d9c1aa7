"""TLS with real clients: server certificate, client certificates, and peers that do not belong on the port."""

import ssl

import pytest

from support import raw
from support.brokers import TlsListener
from support.mosquitto import Message, Subscriber, pub, sub_output, tls_options, try_pub


@pytest.fixture
def tls_broker(start_broker, certs):
    """Encrypted, but no client certificate asked for."""
    return start_broker(tls=TlsListener(certs.server.certificate, certs.server.private_key))


@pytest.fixture
def mutual_broker(start_broker, certs):
    """A client certificate of our authority is required."""
    return start_broker(
        tls=TlsListener(certs.server.certificate, certs.server.private_key, certs.ca.certificate, "required")
    )


def assert_refused(port, *options):
    """A publisher with these options does not get its message through, and says so."""
    done = try_pub(port, "-t", "t", "-q", "1", "-m", "must not arrive", "-i", "refused", *options)
    assert done.returncode != 0, f"mosquitto_pub {options} was accepted: {done.stdout!r}"


def context(certs, pair=None, version=None):
    """A Python TLS client that trusts our authority."""
    settings = ssl.create_default_context(cafile=certs.ca.certificate)
    if pair:
        settings.load_cert_chain(pair.certificate, pair.private_key)
    if version:
        settings.minimum_version = settings.maximum_version = version
    return lambda plain: settings.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_publish_and_subscribe_with_an_authority(tls_broker, certs, qos):
    options = [*tls_options(certs.ca), "-t", "secret", "-q", str(qos)]
    with Subscriber(tls_broker.tls_port, *options) as subscriber:
        pub(tls_broker.tls_port, *options, "-m", "hidden")
        assert subscriber.messages.wait_count(1) == [Message("secret", qos, False, "hidden")]


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_both_versions_of_tls(tls_broker, certs, version):
    options = [*tls_options(certs.ca, version=version), "-t", "v"]
    with Subscriber(tls_broker.tls_port, *options) as subscriber:
        pub(tls_broker.tls_port, *options, "-m", version)
        assert subscriber.payloads(1) == [version]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_negotiated_version_is_the_one_asked_for(tls_broker, certs, version):
    with raw.RawClient(tls_broker.tls_port, wrap=context(certs, version=version)) as client:
        assert client.connect("versioned") == (False, 0)
        assert client.socket.version() == version.name.replace("_", ".")


def test_plain_and_encrypted_clients_meet(tls_broker, certs):
    with Subscriber(tls_broker.port, "-t", "meet", "-q", "1") as plain:
        with Subscriber(tls_broker.tls_port, *tls_options(certs.ca), "-t", "meet", "-q", "1") as encrypted:
            pub(tls_broker.tls_port, *tls_options(certs.ca), "-t", "meet", "-q", "1", "-m", "from tls")
            pub(tls_broker.port, "-t", "meet", "-q", "1", "-m", "from tcp")
            assert plain.payloads(2) == encrypted.payloads(2) == ["from tls", "from tcp"]


@pytest.mark.parametrize("qos", [0, 1])
def test_megabyte_over_tls(tls_broker, certs, directory, qos):
    payload = bytes(range(256)) * 4096
    file = directory / "payload"
    file.write_bytes(payload)
    options = [*tls_options(certs.ca), "-t", "big", "-q", str(qos)]
    pub(tls_broker.tls_port, *options, "-r", "-f", str(file))
    assert sub_output(tls_broker.tls_port, *options, "-C", "1", "-N") == payload


def test_many_messages_over_tls_in_order(tls_broker, certs):
    lines = [f"line {number}" for number in range(3000)]
    options = [*tls_options(certs.ca), "-t", "lines", "-q", "1"]
    with Subscriber(tls_broker.tls_port, *options) as subscriber:
        pub(tls_broker.tls_port, *options, "-l", stdin=("\n".join(lines) + "\n").encode(), timeout=60)
        assert subscriber.payloads(len(lines)) == lines


def test_will_of_a_killed_client_over_tls(tls_broker, certs):
    will = ["--will-topic", "wills/tls", "--will-payload", "gone", "--will-qos", "1"]
    with Subscriber(tls_broker.port, "-t", "wills/#", "-q", "1") as watcher:
        with Subscriber(tls_broker.tls_port, *tls_options(certs.ca), "-t", "nothing", *will) as doomed:
            doomed.kill()
        assert watcher.messages.wait_count(1) == [Message("wills/tls", 1, False, "gone")]


def test_client_refuses_a_server_of_another_authority(tls_broker, certs):
    assert_refused(tls_broker.tls_port, *tls_options(certs.other_ca))
    with pytest.raises(ssl.SSLCertVerificationError):
        stranger = ssl.create_default_context(cafile=certs.other_ca.certificate)
        raw.RawClient(
            tls_broker.tls_port, wrap=lambda plain: stranger.wrap_socket(plain, server_hostname="127.0.0.1")
        )
    pub(tls_broker.tls_port, *tls_options(certs.ca), "-t", "t", "-q", "1", "-m", "still serving")


def test_required_client_certificate_is_accepted(mutual_broker, certs):
    options = [*tls_options(certs.ca, certs.client), "-t", "t", "-q", "2"]
    with Subscriber(mutual_broker.tls_port, *options) as subscriber:
        pub(mutual_broker.tls_port, *options, "-m", "known")
        assert subscriber.payloads(1) == ["known"]


@pytest.mark.parametrize("version", ["tlsv1.2", "tlsv1.3"])
def test_without_the_right_client_certificate_nothing_gets_through(mutual_broker, certs, version):
    good = tls_options(certs.ca, certs.client, version)
    with Subscriber(mutual_broker.tls_port, *good, "-t", "t", "-q", "1") as subscriber:
        assert_refused(mutual_broker.tls_port, *tls_options(certs.ca, version=version))
        assert_refused(mutual_broker.tls_port, *tls_options(certs.ca, certs.stranger, version))
        pub(mutual_broker.tls_port, *good, "-t", "t", "-q", "1", "-m", "mine")
        assert subscriber.payloads(1) == ["mine"]


@pytest.mark.parametrize("pair", ["none", "stranger"])
def test_refused_certificate_gets_no_connack(mutual_broker, certs, pair):
    # With TLS 1.3 the client's side of the handshake is over before the server has judged the certificate.
    wrap = context(certs, certs.stranger if pair == "stranger" else None, ssl.TLSVersion.TLSv1_3)
    with pytest.raises((ssl.SSLError, raw.Closed, ConnectionError)):
        with raw.RawClient(mutual_broker.tls_port, wrap=wrap) as client:
            client.connect("stranger")


def test_plain_client_on_the_tls_port_is_harmless(mutual_broker, certs):
    good = [*tls_options(certs.ca, certs.client), "-t", "t", "-q", "1"]
    with Subscriber(mutual_broker.tls_port, *good) as subscriber:
        for _ in range(20):
            with raw.RawClient(mutual_broker.tls_port) as client:
                client.send(raw.connect("plain"))
                # At most a TLS alert comes back, never a CONNACK.
                assert not client.expect_closed().startswith(b"\x20")
        assert_refused(mutual_broker.tls_port)
        pub(mutual_broker.tls_port, *good, "-m", "undisturbed")
        assert subscriber.payloads(1) == ["undisturbed"]


def test_optional_client_certificate(start_broker, certs):
    broker = start_broker(
        tls=TlsListener(certs.server.certificate, certs.server.private_key, certs.ca.certificate, "optional")
    )
    with Subscriber(broker.tls_port, *tls_options(certs.ca), "-t", "t", "-q", "1") as subscriber:
        pub(broker.tls_port, *tls_options(certs.ca, certs.client), "-t", "t", "-q", "1", "-m", "shown")
        pub(broker.tls_port, *tls_options(certs.ca), "-t", "t", "-q", "1", "-m", "not shown")
        assert subscriber.payloads(2) == ["shown", "not shown"]
