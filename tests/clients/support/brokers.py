"""The broker under test: TernMQ, or mosquitto as the control.

`TERNMQ_TEST_BROKER` names it: the path of a `ternmq` binary, or `mosquitto`. A suite that passes on both asks
only what a mosquitto user expects; what TernMQ promises beyond that is marked `ternmq_only` with its reason.

Every broker listens on free ports of 127.0.0.1, lives in a directory of its own, and is ended by its pid.
"""

import os
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import raw
from .waiting import DEADLINE, eventually

HOST = "127.0.0.1"
_ROOT = Path(__file__).resolve().parents[3]


@dataclass
class TlsListener:
    """A TLS listener beside the plain one. `client_certificate` is "none", "optional" or "required"."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None
    client_certificate: str = "none"


@dataclass
class Limits:
    """Settings which a test changes; None leaves the broker's default. Sizes in bytes, times in seconds."""

    queue_messages_max: int | None = None
    queue_bytes_max: int | None = None
    inflight_max: int | None = None
    receive_maximum: int | None = None
    topic_alias_max: int | None = None
    payload_format: str | None = None
    connect_timeout: float | None = None


def selected():
    """What `TERNMQ_TEST_BROKER` chooses: "mosquitto", or the path of the `ternmq` binary."""
    chosen = os.environ.get("TERNMQ_TEST_BROKER")
    if chosen == "mosquitto":
        return chosen
    if chosen:
        path = Path(chosen)
    else:
        path = Path(os.environ.get("CARGO_TARGET_DIR", _ROOT / "target")) / "debug" / "ternmq"
    if not path.is_file():
        raise RuntimeError(
            f"no broker to test at {path}: run `cargo build`, or set TERNMQ_TEST_BROKER to a binary or `mosquitto`"
        )
    return str(path.resolve())


def environment():
    """The environment of a broker: ours without `TERNMQ_…`, which would be settings to it, and unknown ones faults."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TERNMQ_")}


def free_port():
    """A port that was free a moment ago. Whoever uses it tries again with another one if it is gone."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class Broker:
    """One broker process. `port` is plain TCP, `tls_port` is there if a `TlsListener` was asked for."""

    def __init__(self, directory, tls=None, limits=None, nofile=None, port=None):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.tls = tls
        self.limits = limits or Limits()
        self.nofile = nofile
        self.kind = "mosquitto" if selected() == "mosquitto" else "ternmq"
        self.process = None
        self.port = port
        self.tls_port = None

    def start(self):
        """Starts on fresh ports and returns once a CONNECT is answered."""
        for attempt in range(5):
            self.port = free_port()
            self.tls_port = free_port() if self.tls else None
            try:
                return self.start_again()
            except _Exited:
                # Somebody may have taken a port between our look and the broker's bind.
                if attempt == 4:
                    raise

    def start_again(self):
        """Starts on the ports of the last start."""
        log = open(self.log_path, "ab")
        with log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env=environment(),
            )
        eventually(self._answers, f"{self.kind} answers on port {self.port}: {self.log()[-2000:]}")
        return self

    def command(self):
        """The command line, with its configuration file written."""
        limited = ["prlimit", f"--nofile={self.nofile}"] if self.nofile else []
        if self.kind == "mosquitto":
            path = self.directory / "mosquitto.conf"
            path.write_text(self._mosquitto_configuration())
            program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
            return [*limited, program, "-c", str(path)]
        data = ["--data-dir", str(self.directory / "data")]
        if self.tls is None and self.limits == Limits():
            return [*limited, selected(), "--bind", f"{HOST}:{self.port}", *data]
        path = self.directory / "ternmq.toml"
        path.write_text(self._ternmq_configuration())
        return [*limited, selected(), "--config", str(path), *data]

    @property
    def pid(self):
        return self.process.pid

    @property
    def log_path(self):
        return self.directory / "broker.log"

    def log(self):
        """What the broker has written so far, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self, timeout=DEADLINE):
        """Ends the broker with SIGTERM and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.kind} was still there {timeout:.0f} s after SIGTERM") from None

    def close(self):
        """Ends the broker however it can be ended; for the clean-up after a test."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def peak_memory(self):
        """The largest resident size so far, in bytes."""
        return self._status_kib("VmHWM") * 1024

    def cpu_seconds(self):
        """Processor time used so far, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _status_kib(self, key):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {key} for pid {self.pid}")

    def _answers(self):
        if self.process.poll() is not None:
            raise _Exited(f"{self.kind} ended with {self.process.returncode}: {self.log()[-2000:]}")
        for port in filter(None, (self.port, self.tls_port)):
            try:
                socket.create_connection((HOST, port), timeout=1).close()
            except OSError:
                return False
        try:
            with raw.RawClient(self.port, timeout=5) as client:
                return client.connect("readiness") == (False, 0)
        except (OSError, raw.Closed):
            return False

    def _ternmq_configuration(self):
        lines = ["[[listeners]]", f'bind = "{HOST}:{self.port}"', 'transport = "tcp"', "allow_anonymous = true"]
        if self.tls:
            lines += ["[[listeners]]", f'bind = "{HOST}:{self.tls_port}"', 'transport = "tls"']
            lines += ["allow_anonymous = true", "[listeners.tls]"]
            lines += [f'certificate = "{self.tls.certificate}"', f'private_key = "{self.tls.private_key}"']
            if self.tls.client_ca:
                lines.append(f'client_ca = "{self.tls.client_ca}"')
            lines.append(f'client_certificate = "{self.tls.client_certificate}"')
        lines.append("[limits]")
        for key in ("queue_messages_max", "inflight_max", "receive_maximum", "topic_alias_max"):
            if getattr(self.limits, key) is not None:
                lines.append(f"{key} = {getattr(self.limits, key)}")
        if self.limits.queue_bytes_max is not None:
            lines.append(f'queue_bytes_max = "{self.limits.queue_bytes_max // 1_000_000}MB"')
        if self.limits.payload_format is not None:
            lines.append(f'payload_format = "{self.limits.payload_format}"')
        if self.limits.connect_timeout is not None:
            lines.append(f'connect_timeout = "{round(self.limits.connect_timeout * 1000)}ms"')
        return "\n".join(lines) + "\n"

    def _mosquitto_configuration(self):
        # The limits which TernMQ has by default, so that both are asked the same.
        limits = self.limits
        lines = ["user root", "persistence false", "log_dest stderr", "allow_anonymous true", "set_tcp_nodelay true"]
        lines.append(f"max_inflight_messages {limits.inflight_max or 64}")
        lines.append(f"max_queued_messages {limits.queue_messages_max or 10_000}")
        lines.append(f"max_queued_bytes {limits.queue_bytes_max or 64_000_000}")
        lines.append(f"listener {self.port} {HOST}")
        if self.tls:
            lines.append(f"listener {self.tls_port} {HOST}")
            lines += [f"certfile {self.tls.certificate}", f"keyfile {self.tls.private_key}"]
            if self.tls.client_ca:
                lines.append(f"cafile {self.tls.client_ca}")
            if self.tls.client_certificate == "required":
                lines.append("require_certificate true")
        return "\n".join(lines) + "\n"


class _Exited(Exception):
    """The broker ended before it answered."""
