"""The example of README.md, "Who may do what", typed as it stands there: what a comment behind a command says has to come out of it."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from support.brokers import HOST, environment, free_port, selected
from support.waiting import DEADLINE, eventually

README = Path(__file__).resolve().parents[2] / "README.md"
START = "ternmq --config ternmq.toml &"
PASSWORD = "her password"

pytestmark = pytest.mark.ternmq_only("it is TernMQ's README")


def example():
    """The commands before the broker is started, and those after it."""
    section = README.read_text().split("\n## Who may do what\n")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL).group(1)
    before, after = block.split(START + "\n")
    return before, [line for line in after.splitlines() if line]


def test_who_may_do_what(directory):
    before, after = example()
    # Only this machine is to see the listener of a test; that clients without a name are refused goes without saying beyond loopback.
    everywhere = 'bind = "0.0.0.0:1883"\n'
    assert before.count(everywhere) == 1
    # Where `ternmq` is found, and where data is kept.
    (directory / "bin").mkdir()
    (directory / "bin" / "ternmq").symlink_to(selected())
    env = environment() | {"HOME": str(directory), "PATH": f"{directory}/bin:{os.environ['PATH']}", "LC_ALL": "C"}
    for name in ("XDG_DATA_HOME", "STATE_DIRECTORY"):
        env.pop(name, None)
    port = free_port()

    def typed(text, stdin=""):
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=directory, env=env, input=stdin, capture_output=True, text=True, timeout=DEADLINE,
        )

    here = f'bind = "{HOST}:{port}"\nallow_anonymous = false\n'
    made = typed(before.replace(everywhere, here), stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    log = directory / "log"
    with log.open("w") as lines:
        broker = subprocess.Popen(START.removesuffix(" &").split(), cwd=directory, env=env, stderr=lines,
                                  executable=selected())
    try:
        eventually(lambda: " started " in log.read_text() or broker.poll() is not None, "the broker starts")
        for line in after:
            command, _, expected = line.partition(" # ")
            ran = typed(command.replace("mosquitto_pub ", f"mosquitto_pub -h {HOST} -p {port} "))
            output = ran.stdout + ran.stderr
            if expected:
                assert expected.strip() in output, f"{line}: {output}"
            else:
                assert (ran.returncode, output) == (0, ""), line
    finally:
        broker.terminate()
        broker.wait(DEADLINE)
    # One refusal by the rules, one wrong password, one without a name: and what was allowed is not among them.
    text = log.read_text()
    assert len(after) == 6 and text.count("refused by the rules of access") == 1, text
    assert text.count("login failed") == 1, text
