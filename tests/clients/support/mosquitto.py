"""`mosquitto_pub` and `mosquitto_sub` as processes, the way people use them in a shell."""

import os
import re
import subprocess
import threading
from collections import namedtuple

from .brokers import HOST
from .waiting import DEADLINE, Recorder

Message = namedtuple("Message", "topic qos retain payload")
"""A line of `mosquitto_sub`; everything as text but `qos` and `retain`."""

# Topics and payloads are UTF-8 whatever the machine's locale is.
_ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}
_MARK = "=>"
_LINE = re.compile(rf"{_MARK} (\d) (\d) (\S+) (.*)", re.DOTALL)


def tls_options(authority, pair=None, version=None):
    """Options for TLS: which authority to trust, which client certificate to show."""
    options = ["--cafile", str(authority.certificate)]
    if pair:
        options += ["--cert", str(pair.certificate), "--key", str(pair.private_key)]
    if version:
        options += ["--tls-version", version]
    return options


def pub(port, *options, stdin=b"", timeout=DEADLINE):
    """Runs `mosquitto_pub` to its end, which has to be a good one."""
    done = try_pub(port, *options, stdin=stdin, timeout=timeout)
    assert done.returncode == 0, f"mosquitto_pub {options}: {done.returncode}, {done.stderr!r}"
    return done


def try_pub(port, *options, stdin=b"", timeout=DEADLINE):
    """Runs `mosquitto_pub` to its end, whatever it is."""
    command = ["mosquitto_pub", "-h", HOST, "-p", str(port), *options]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=timeout, env=_ENVIRONMENT)


def sub_output(port, *options, timeout=DEADLINE):
    """Runs `mosquitto_sub` until it ends by itself (-C, -E, -W) and returns its output as bytes."""
    command = ["mosquitto_sub", "-h", HOST, "-p", str(port), *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, env=_ENVIRONMENT)
    assert done.returncode == 0, f"mosquitto_sub {options}: {done.returncode}, {done.stderr!r}"
    return done.stdout


class Subscriber:
    """A running `mosquitto_sub`. The constructor returns once its subscriptions are acknowledged.

    Only for topics without white space and payloads without line ends.
    """

    def __init__(self, port, *options):
        self.messages = Recorder()
        self._lines = Recorder()
        # Line by line through the pipe, or the lines would wait in the program's buffer.
        command = ["stdbuf", "-oL", "mosquitto_sub", "-h", HOST, "-p", str(port), "-d"]
        command += ["-F", f"{_MARK} %q %r %t %p", *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=_ENVIRONMENT
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._lines.wait(lambda lines: any("Subscribed (mid" in line for line in lines), "mosquitto_sub subscribed")
        except AssertionError:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    @property
    def pid(self):
        return self.process.pid

    def payloads(self, count):
        """Waits for `count` messages and returns the payloads of all there are."""
        return [message.payload for message in self.messages.wait_count(count, "messages")]

    def terminate(self):
        """Ends the program as Ctrl-C does: it sends DISCONNECT."""
        self.process.terminate()
        self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)

    def kill(self):
        """Ends the program with no chance to say anything."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)

    def _read(self):
        with self.process.stdout as output:
            for line in output:
                line = line.decode().rstrip("\n")
                if match := _LINE.fullmatch(line):
                    qos, retain, topic, payload = match.groups()
                    self.messages.add(Message(topic, int(qos), retain == "1", payload))
                else:
                    self._lines.add(line)
