"""`mosquitto_pub`, `mosquitto_sub` and `mosquitto_rr` with `-V 5`: properties as people give and print them."""

import subprocess
from collections import namedtuple

from .brokers import HOST
from .mosquitto import _ENVIRONMENT, Subscriber, pub, sub_output, try_pub
from .waiting import DEADLINE

MessageV5 = namedtuple(
    "MessageV5", "content_type correlation expiry format_indicator user response subscription_id payload"
)
"""A message with what `mosquitto_sub` prints of its properties: text, "" for what is not there."""

FORMAT = "%C|%D|%E|%F|%P|%R|%S|%p"


def defined(packet, **values):
    """`-D` options; a list gives the same property several times, a pair a name and a value."""
    arguments = []
    for name, value in values.items():
        for one in value if isinstance(value, list) else [value]:
            parts = one if isinstance(one, tuple) else (one,)
            arguments += ["-D", packet, name.replace("_", "-"), *map(str, parts)]
    return arguments


def pub5(port, *options, **properties):
    """Publishes with properties of PUBLISH."""
    return pub(port, "-V", "5", *options, *defined("publish", **properties))


def try_pub5(port, *options, **properties):
    return try_pub(port, "-V", "5", *options, *defined("publish", **properties))


class Subscriber5(Subscriber):
    """A running `mosquitto_sub -V 5`; `details` has the properties of what came."""

    def __init__(self, port, *options):
        super().__init__(port, "-V", "5", *options, "-F", f"=> %q %r %t {FORMAT}")

    def details(self, count):
        """Waits for `count` messages and returns all there are."""
        return [parsed(message.payload) for message in self.messages.wait_count(count)]


def parsed(line):
    """A line in `FORMAT`."""
    return MessageV5(*line.split("|", 7))


def got(port, *options):
    """Runs `mosquitto_sub -V 5` to its end and returns its messages."""
    output = sub_output(port, "-V", "5", "-F", FORMAT, *options)
    return [parsed(line) for line in output.decode().splitlines()]


def request(port, *options, **properties):
    """Runs `mosquitto_rr` until the answer is there and returns its output."""
    command = ["mosquitto_rr", "-h", HOST, "-p", str(port), "-W", str(int(DEADLINE)), *options]
    command += defined("publish", **properties)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=2 * DEADLINE, env=_ENVIRONMENT
    )
    assert done.returncode == 0, f"mosquitto_rr {options}: {done.returncode}, {done.stderr!r}"
    return done.stdout.decode()
