"""The brokers that `versus` starts: how each is configured so that it does not drop, and what it cannot do.

A peer's `prepare` writes its configuration into the run's directory and returns the command. It gets a `Run`: the
directory, the port to listen on, the directory with certificates (for scenarios with TLS) and the scenario.
"""

import os
import shlex
import socket
import subprocess
from pathlib import Path
from typing import NamedTuple

TERNMQ_RAISED = """[limits]
queue_messages_max = 10000000
queue_bytes_max = "4GB"
connections_max = 100000
"""
TERNMQ_TLS = """[[listeners]]
bind = "127.0.0.1:{port}"
transport = "tls"
allow_anonymous = true
[listeners.tls]
certificate = "{certificates}/server.crt"
private_key = "{certificates}/server.key"
"""
# 64 is TernMQ's window; mosquitto's list of messages in flight is searched from its head, so that unlimited would
# cost it more.
MOSQUITTO_RAISED = """max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 64
"""
MOSQUITTO = """listener {port} 127.0.0.1
allow_anonymous true
set_tcp_nodelay true
log_type none
"""
MOSQUITTO_TLS = """certfile {certificates}/server.crt
keyfile {certificates}/server.key
"""
# Segments of its logs are thrown away when there are more than so many: these hold what a run has on its way. The
# delay is a pause between two accepts.
RUMQTTD = """id = 0
[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[{version}.1]
name = "versus"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 0
{tls}
[{version}.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
"""
RUMQTTD_TLS = """[v4.1.tls]
certpath = "{certificates}/server.crt"
keypath = "{certificates}/server.key"
"""
NATS = """server_name: versus
listen: "127.0.0.1:{other_port}"
max_connections: 200000
max_pending: 4GB
max_subscriptions: 0
jetstream {{ store_dir: "{directory}/jetstream", max_memory_store: 4GB, max_file_store: 40GB }}
mqtt {{
  listen: "127.0.0.1:{port}"
  max_ack_pending: 65535
  {tls}
}}
"""
NATS_TLS = 'tls {{ cert_file: "{certificates}/server.crt", key_file: "{certificates}/server.key" }}'
FLOWS = ("fan-in", "fan-out", "pairs")


class Run(NamedTuple):
    """What a peer needs to know to be started."""

    directory: Path
    port: int
    certificates: Path
    scenario: object


class Peer:
    """A broker that can be started: `command` gets {port} and {dir}."""

    load_arguments = ()

    def __init__(self, name, command, version=None):
        self.name, self.command, self.version = name, command, version or command

    def cannot(self, scenario):
        """Why it cannot run this scenario, if that is known beforehand."""
        if scenario.alone:
            return "a question about the broker measured alone"
        if scenario.tls:
            return "its command knows no certificates"
        return None

    def prepare(self, run):
        return shlex.split(self.command.format(port=run.port, dir=run.directory))


class Ternmq(Peer):
    """As its users run it: default configuration, storage on disk, every acknowledgement synced; queue limits raised."""

    def __init__(self, path):
        super().__init__("ternmq", path, first_line([path, "--version"]))

    def cannot(self, scenario):
        return None

    def prepare(self, run):
        file = run.directory / "ternmq.toml"
        text = f'data_dir = "{run.directory}/data"\n' + (TERNMQ_RAISED if run.scenario.raised else "")
        bind = ["--bind", f"127.0.0.1:{run.port}"]
        if run.scenario.tls:
            text, bind = text + TERNMQ_TLS.format(**run._asdict()), []
        file.write_text(text)
        return [self.command, "--config", str(file), *bind, "--log", "warn"]

    def settings(self):
        """What the table's heading says of how it stores."""
        text = subprocess.run([self.command, "check"], capture_output=True, text=True, check=False).stdout
        lines = [line.split("  #")[0] for line in text.splitlines()]
        return ", ".join(line for line in lines if line.startswith(("storage.kind", "storage.sync =")))


class Mosquitto(Peer):
    def __init__(self, path):
        super().__init__("mosquitto", path, first_line([path, "-h"]))

    def cannot(self, scenario):
        return super().cannot(scenario) if scenario.alone else None

    def prepare(self, run):
        file = run.directory / "mosquitto.conf"
        text = MOSQUITTO.format(port=run.port) + (MOSQUITTO_RAISED if run.scenario.raised else "")
        if run.scenario.tls:
            text += MOSQUITTO_TLS.format(**run._asdict())
            # It gives root up before it reads the key.
            text += "user root\n" if os.geteuid() == 0 else ""
        file.write_text(text)
        return [self.command, "-c", str(file)]


class Rumqttd(Peer):
    def __init__(self, path):
        super().__init__("rumqttd", path, first_line([path, "--version"]))

    def cannot(self, scenario):
        return super().cannot(scenario) if scenario.alone else None

    def prepare(self, run):
        file = run.directory / "rumqttd.toml"
        tls = RUMQTTD_TLS.format(**run._asdict()) if run.scenario.tls else ""
        version = "v5" if run.scenario.v5 else "v4"
        file.write_text(RUMQTTD.format(version=version, port=run.port, tls=tls))
        return [self.command, "-q", "-c", str(file)]


class Nats(Peer):
    def __init__(self, path):
        super().__init__("nats", path, first_line([path, "--version"]))

    def cannot(self, scenario):
        if scenario.v5:
            return "speaks MQTT 3.1.1 only"
        return super().cannot(scenario) if scenario.alone else None

    def prepare(self, run):
        file = run.directory / "nats.conf"
        tls = NATS_TLS.format(**run._asdict()) if run.scenario.tls else ""
        file.write_text(NATS.format(**run._asdict(), other_port=free_port(), tls=tls))
        return [self.command, "-c", str(file)]


class Relay(Peer):
    """The floor: no broker, but a second process of the load generator that passes packets on."""

    load_arguments = ("--relay",)

    def __init__(self):
        super().__init__("relay", "", "no broker: packets passed on without protocol")

    def cannot(self, scenario):
        is_plain = scenario.args[0] in FLOWS and not scenario.tls and not scenario.v5 and "--qos" not in scenario.args
        return None if is_plain and not scenario.alone else "the relay knows QoS 0 in plain TCP only"

    def prepare(self, run):
        return None


def first_line(command):
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0].strip() if output else "version unknown"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
