"""Examples of README.md, typed as they stand there: what a comment behind a command says has to come out of it."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.brokers import HOST, environment, free_port, selected
from support.waiting import DEADLINE, eventually

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PASSWORD = "her password"

pytestmark = pytest.mark.ternmq_only("it is TernMQ's README")


class Example:
    """The block of commands that starts a broker with this file of configuration."""

    def __init__(self, directory, config):
        start = f"ternmq --config {config}"
        block = next(text for text in re.findall(r"```sh\n(.*?)```", README.read_text(), re.DOTALL) if start in text)
        # In the place of the pause the test waits for the log.
        self.before, after = block.split(f"{start} 2>ternmq.log &\nsleep 1\n")
        self.after = after.splitlines()
        assert self.after.pop() == "kill %ternmq; wait"
        self.start = start.split()
        self.directory = directory
        self.log = directory / "ternmq.log"
        # Where `ternmq` is found; data is kept where the example says.
        (directory / "bin").mkdir()
        (directory / "bin" / "ternmq").symlink_to(selected())
        path = f"{directory}/bin:{os.environ['PATH']}"
        self.env = environment() | {"HOME": str(directory / "nowhere"), "PATH": path, "LC_ALL": "C"}
        for name in ("XDG_DATA_HOME", "STATE_DIRECTORY"):
            self.env.pop(name, None)

    def typed(self, text, stdin=""):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.directory, env=self.env, input=stdin, capture_output=True, text=True, timeout=DEADLINE,
        )

    def prepare(self, bind, here, stdin=""):
        """What stands before the broker is started; it listens at `here` in the place of `bind`."""
        assert self.before.count(f'bind = "{bind}"\n') == 1
        made = self.typed(self.before.replace(bind, here), stdin)
        assert made.returncode == 0, made.stderr

    def run(self, change):
        """Starts the broker, types the rest, and gives the broker's log. `change` brings a command to the broker's port."""
        with self.log.open("w") as lines:
            broker = subprocess.Popen(self.start, cwd=self.directory, env=self.env, stderr=lines, executable=selected())
        try:
            eventually(lambda: " started " in self.log.read_text() or broker.poll() is not None, "the broker starts")
            for line in self.after:
                command, _, expected = line.partition(" # ")
                ran = self.typed(change(command))
                output = ran.stdout + ran.stderr
                if expected:
                    assert expected.strip() in output, f"{line}: {output}"
                else:
                    assert (ran.returncode, output) == (0, ""), line
        finally:
            broker.terminate()
            broker.wait(DEADLINE)
        assert not (self.directory / "nowhere").exists(), "the example has a data directory of its own"
        return self.log.read_text()


def test_who_may_do_what(directory):
    example = Example(directory, "ternmq.toml")
    port = free_port()
    assert f"type `{PASSWORD}`" in README.read_text()
    example.prepare("127.0.0.1:1883", f"{HOST}:{port}", stdin=f"{PASSWORD}\n")
    text = example.run(lambda command: command.replace("mosquitto_pub ", f"mosquitto_pub -h {HOST} -p {port} "))
    # One refusal by the rules, one wrong password, one without a name: and what was allowed is not among them.
    assert len(example.after) == 6 and text.count("refused by the rules of access") == 1, text
    assert text.count("login failed") == 1, text


def test_tls(directory):
    example = Example(directory, "tls.toml")
    port = free_port()
    shutil.copytree(ROOT / "certs", directory / "certs", ignore=shutil.ignore_patterns("out"))
    # Only this machine is to see the listener of a test.
    example.prepare("0.0.0.0:8883", f"{HOST}:{port}")
    text = example.run(lambda command: command.replace("-p 8883", f"-p {port}"))
    assert len(example.after) == 1 and text.count(": connected ") == 1, text
