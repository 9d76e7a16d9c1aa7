"""Waiting for conditions with a deadline, in place of sleeping and hoping.

The deadlines are generous: they only end a test which has already failed, on a machine which is busy with
other work. No test passes or fails by how quickly it runs unless its own text says so.
"""

import threading
import time

DEADLINE = 30.0
"""Seconds after which a condition that should hold soon is taken to hold never."""


def eventually(condition, what, timeout=DEADLINE, step=0.01):
    """Polls `condition` until it gives something true, and returns that; fails with `what` at the deadline."""
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout:.0f} s: {what}")
        time.sleep(step)


class Recorder:
    """A list which other threads append to and a test waits on."""

    def __init__(self):
        self._items = []
        self._changed = threading.Condition()

    def add(self, item):
        with self._changed:
            self._items.append(item)
            self._changed.notify_all()

    def all(self):
        with self._changed:
            return list(self._items)

    def clear(self):
        with self._changed:
            self._items.clear()

    def wait(self, condition, what, timeout=DEADLINE):
        """Waits until `condition(items)` is true and returns what it gave."""
        with self._changed:
            result = self._changed.wait_for(lambda: condition(self._items), timeout)
            if not result:
                shown = [_short(item) for item in self._items[-10:]]
                raise AssertionError(
                    f"not within {timeout:.0f} s: {what}; {len(self._items)} recorded, the last: {shown}"
                )
            return result

    def wait_count(self, count, what="", timeout=DEADLINE):
        """Waits for at least `count` items and returns them all."""
        self.wait(lambda items: len(items) >= count, f"{count} of {what or 'them'}", timeout)
        return self.all()


def _short(item):
    text = repr(item)
    return text if len(text) < 200 else text[:200] + "…"
