"""MQTT.js, in a Node process per client (see mqttjs_bridge.mjs)."""

import itertools
import json
import subprocess
import threading
from pathlib import Path

from .brokers import HOST
from .mosquitto import Message
from .waiting import DEADLINE, Recorder

BRIDGE = Path(__file__).parents[1] / "mqttjs_bridge.mjs"


class JsClient:
    """One MQTT.js client. Its events are recorded; commands wait for their end unless told otherwise."""

    def __init__(self, port, **options):
        self.events = Recorder()
        self._ids = itertools.count(1)
        self.process = subprocess.Popen(
            ["node", BRIDGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=BRIDGE.parent
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        defaults = {"host": HOST, "port": port, "protocol": "mqtt", "reconnectPeriod": 100}
        self._send({"do": "connect", "options": {**defaults, **options}})

    def connected(self, times=1):
        """Waits for the connection number `times` and returns its session present."""
        return self.wait("connect", times)[times - 1]["sessionPresent"]

    def wait(self, event, count=1):
        """Waits for `count` events of this kind and returns all of them."""
        self.events.wait(lambda items: sum(item["event"] == event for item in items) >= count, f"{count} × {event}")
        return [item for item in self.events.all() if item["event"] == event]

    def messages(self, count):
        return [
            Message(item["topic"], item["qos"], item["retain"], item["payload"])
            for item in self.wait("message", count)
        ]

    def properties(self, count):
        """Waits for `count` messages and returns the properties of each, empty for none."""
        return [item.get("properties") or {} for item in self.wait("message", count)]

    def subscribe(self, qos, *filters, properties=None, **options):
        """Subscribes and returns the QoS granted. `options` are `nl`, `rap` and `rh` of MQTT 5."""
        filters = {name: {"qos": qos, **options} for name in filters}
        granted = self.do("subscribe", filters=filters, properties=properties)
        return [entry["qos"] for entry in granted]

    def publish(self, topic, payload, qos=0, retain=False, wait=True, properties=None):
        options = {"qos": qos, "retain": retain}
        if properties:
            options["properties"] = properties
        return self.do("publish", wait=wait, topic=topic, payload=payload, options=options)

    def do(self, verb, wait=True, **arguments):
        """Sends a command; with `wait` returns its result, without it the id for `finish`."""
        number = next(self._ids)
        self._send({"do": verb, "id": number, **arguments})
        return self.finish(number) if wait else number

    def finish(self, number):
        done = self.events.wait(
            lambda items: next((i for i in items if i["event"] == "done" and i["id"] == number), None),
            f"the end of command {number}",
        )
        assert not done.get("error"), done["error"]
        return done.get("result")

    def close(self):
        """Ends the process without a word to the broker."""
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE)
        self.process.stdin.close()

    def _send(self, command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def _read(self):
        with self.process.stdout as output:
            for line in output:
                self.events.add(json.loads(line))
