"""A healthy client beside the abuse: it sends itself a message after another and must not notice anything."""

import itertools
import threading
import time

from .paho import PahoClient
from .waiting import DEADLINE, eventually

NOTICED = 5.0
"""Seconds for one QoS 1 round trip that nobody could overlook, even on a machine busy with other tests."""


class Bystander:
    """Runs from `with` to its end, where it fails if it was disconnected, lost a message or had to wait.

    `pace` is the pause in seconds between two round trips.
    """

    def __init__(self, port, pace=0.001):
        self.pace = pace
        self.rounds = 0
        self.slowest = 0.0
        self._client = PahoClient("bystander").connect(port)
        self._client.subscribe(("bystander", 1))
        self._stop = threading.Event()
        self._failure = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, trace):
        self._stop.set()
        self._thread.join(2 * DEADLINE)
        self._client.disconnect()
        if kind is None:
            assert self._failure is None, f"the bystander noticed: {self._failure}"
            assert self.rounds > 0
            assert self.slowest < NOTICED, f"the bystander waited {self.slowest:.1f} s for a message"

    def more_rounds(self, count):
        """Waits until the bystander has made `count` more round trips."""
        target = self.rounds + count
        eventually(lambda: self.rounds >= target or self._failure, f"{count} round trips of the bystander")
        assert self._failure is None, f"the bystander noticed: {self._failure}"

    def _run(self):
        for number in itertools.count():
            # Waiting for the end is also the pace.
            if self._stop.wait(self.pace):
                return
            try:
                start = time.monotonic()
                self._client.publish("bystander", str(number), 1)
                messages = self._client.messages.wait_count(1, f"message {number}")
                assert [message.payload for message in messages] == [str(number).encode()]
                self._client.messages.clear()
                assert not self._client.disconnects.all(), "disconnected"
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.rounds += 1
            except Exception as error:  # Whatever it is belongs into the test's thread.
                self._failure = repr(error)
                return
