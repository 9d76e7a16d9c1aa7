"""Node-RED as a hub: one headless process with a flow of MQTT nodes on 3.1.1 and on 5.

The flow, for each version V of the two: what comes to `to/V` goes to `from/V` as "seen …", what comes to
`cross/V` goes to `crossed/W` over the other version's connection, and what comes to `keep/V` is retained on
`kept/V`. The connection's state is retained on `status/V`: "online", "closed" by an orderly end, "offline" by will.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

from .brokers import HOST
from .waiting import DEADLINE

VERSIONS = {"4": "5", "5": "4"}
"""The versions of the two connections as Node-RED counts them; 4 is 3.1.1. Each with the other one."""

STARTED = 3 * DEADLINE
"""Seconds for Node-RED to start on a machine that is busy."""

_RED = Path(__file__).parents[1] / "node_modules" / "node-red" / "red.js"

# No listener, no editor, nothing that goes out into the world.
_SETTINGS = """module.exports = {
  httpAdminRoot: false,
  httpNodeRoot: false,
  disableEditor: true,
  telemetry: { enabled: false, updateNotification: false },
  credentialSecret: false,
  mqttReconnectTime: 200,
  externalModules: { autoInstall: false, palette: { allowInstall: false }, modules: { allowInstall: false } },
  logging: { console: { level: "info" } },
};
"""


def _broker(version, port, persistent):
    states = {}
    for kind, payload in [("birth", "online"), ("close", "closed"), ("will", "offline")]:
        states |= {f"{kind}Topic": f"status/{version}", f"{kind}Qos": "1", f"{kind}Retain": "true"}
        states |= {f"{kind}Payload": payload, f"{kind}Msg": {"userProps": json.dumps({"state": payload})}}
    return {
        "id": f"broker{version}", "type": "mqtt-broker", "name": "", "broker": HOST, "port": str(port),
        "clientid": f"hub-{version}", "autoConnect": True, "usetls": False, "protocolVersion": version,
        "keepalive": "60", "cleansession": not persistent, "autoUnsubscribe": True,
        "sessionExpiry": "600" if persistent else "", **states,
    }  # fmt: skip


def _line(name, source, target, topic, expression="payload", retain="false", subscribe=None):
    """in → change → out."""
    common = {"z": "flow", "x": 0, "y": 0}
    subscription = {"nl": False, "rap": False, "rh": 0, **(subscribe or {})}
    change = [
        {"t": "set", "p": "payload", "pt": "msg", "to": expression, "tot": "jsonata"},
        {"t": "set", "p": "topic", "pt": "msg", "to": topic, "tot": "str"},
    ]
    return [
        {
            "id": f"{name}-in", "type": "mqtt in", "topic": source[1], "qos": "2", "datatype": "utf8", **subscription,
            "broker": f"broker{source[0]}", "inputs": 0, "wires": [[f"{name}-change"]], **common,
        },
        {"id": f"{name}-change", "type": "change", "rules": change, "wires": [[f"{name}-out"]], **common},
        {
            "id": f"{name}-out", "type": "mqtt out", "topic": "", "qos": "", "retain": retain,
            "broker": f"broker{target}", "wires": [], **common,
        },
    ]  # fmt: skip


def _flow(port, persistent):
    nodes = [{"id": "flow", "type": "tab", "label": "hub", "disabled": False}]
    for version, other in VERSIONS.items():
        nodes.append(_broker(version, port, persistent))
        nodes += _line(f"echo{version}", (version, f"to/{version}"), version, f"from/{version}", "'seen ' & payload")
        nodes += _line(f"cross{version}", (version, f"cross/{version}"), other, f"crossed/{other}")
        nodes += _line(f"keep{version}", (version, f"keep/{version}"), version, f"kept/{version}", retain="true")
    # Of MQTT 5 alone: a shared subscription, and a hub that does not hear itself.
    nodes += _line("shared", ("5", "$share/hub/shared/+"), "5", "from/shared")
    nodes += _line("local", ("5", "loop"), "5", "loop", "payload & '+'", subscribe={"nl": True})
    return nodes


class NodeRed:
    """A Node-RED on this flow, not yet started. `persistent`: its sessions outlive its connections."""

    def __init__(self, directory, port, persistent=False):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "settings.js").write_text(_SETTINGS)
        (self.directory / "flows.json").write_text(json.dumps(_flow(port, persistent)))
        self.process = None

    def start(self):
        """Starts the process; its birth messages say when it is there."""
        command = ["node", _RED, "--userDir", self.directory, "--settings", self.directory / "settings.js"]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*command, self.directory / "flows.json"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, "HOME": str(self.directory), "NODE_RED_HOME": str(_RED.parent)},
            )
        return self

    @property
    def log_path(self):
        return self.directory / "node-red.log"

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self):
        """An orderly end."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(DEADLINE)

    def kill(self):
        """The end of a process that had no chance to say anything."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
