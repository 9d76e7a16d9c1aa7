"""Access rules against a real mosquitto 2.0.11: the same files, the same questions.

The questions are those of `src/auth/acl/tests/table.txt`, whose head says how it is read. mosquitto is asked by clients that publish and
subscribe, TernMQ by `ternmq acl explain`; both have to answer as the table says. Where the table says "NO" TernMQ is stricter on purpose,
and mosquitto has to say yes: should another version not, the row is to be looked at again.

Known differences of later versions: 2.0.12 fixed that rights which a reload takes away stayed with durable subscriptions
(CVE-2021-34434); no row reloads, so none depends on it.
"""

import os
import shutil
import subprocess
from collections import defaultdict, namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import raw
from support.brokers import HOST, environment, free_port, selected
from support.paho import PahoClient
from support.waiting import eventually

TABLE = Path(__file__).resolve().parents[2] / "src/auth/acl/tests/table.txt"
MOSQUITTO = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
HELPER = "the helper of the test"
HELPER_RULES = f"\nuser {HELPER}\ntopic readwrite #\n" + "".join(f"topic readwrite ${name}/#\n" for name in "xy")

Row = namedtuple("Row", "user client topic read write")


def blocks():
    """The table as (rules, rows) pairs."""
    found, rules = [], None
    for line in TABLE.read_text().splitlines():
        if line == "rules":
            rules = []
        elif line == "asked" and rules is not None:
            found.append(("\n".join(rules), []))
            rules = None
        elif rules is not None:
            rules.append(line)
        elif "|" in line and not line.startswith("#"):
            user, *rest = [cell.strip() for cell in line.split("|")]
            found[-1][1].append(Row({"-": None, "''": ""}.get(user, user), *rest))
    return found


BLOCKS = blocks()


def with_name(client, user):
    if user is not None:
        client.client.username_pw_set(user, "any")
    return client


class Mosquitto:
    """A mosquitto that believes every user name and has these rules."""

    def __init__(self, directory, rules):
        directory.mkdir()
        (directory / "acl").write_text(rules)
        for attempt in range(5):
            self.port = free_port()
            lines = ["user root", f"listener {self.port} {HOST}", "allow_anonymous true", "persistence false"]
            lines += [f"acl_file {directory}/acl", "log_dest stderr", "set_tcp_nodelay true"]
            (directory / "conf").write_text("\n".join(lines) + "\n")
            self.log = directory / "log"
            with open(self.log, "wb") as log:
                command = [MOSQUITTO, "-c", str(directory / "conf")]
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            try:
                eventually(self._answers, "mosquitto answers")
                return
            except RuntimeError:
                # Somebody may have taken the port between our look and the bind.
                if attempt == 4:
                    raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError(self.log.read_text())
        try:
            with raw.RawClient(self.port, timeout=5) as client:
                return client.connect("readiness") == (False, 0)
        except (OSError, raw.Closed):
            return False


def ask_mosquitto(directory, rules, rows):
    """What a real client could do: {(row, access): bool}."""
    answers = {}
    by_client = defaultdict(list)
    for row in rows:
        by_client[row.user, row.client].append(row)
    with Mosquitto(directory, rules + HELPER_RULES) as broker:
        helper = with_name(PahoClient("helper"), HELPER).connect(broker.port)
        for (user, client_id), asked in by_client.items():
            topics = [(topic, 1) for topic in sorted({row.topic for row in asked})]
            client = with_name(PahoClient(client_id), user).connect(broker.port)
            assert client.return_code == 0, (user, client_id)
            # Written: what reaches the helper, who may read everything. mosquitto acknowledges what it refuses, too.
            helper.messages.clear()
            assert set(helper.subscribe(*topics)) == {1}
            for topic, _ in topics:
                client.publish(topic, b"written", 1)
            helper.subscribe(("round/trip", 0))
            written = {message.topic for message in helper.messages.all()}
            helper.unsubscribe(*[topic for topic, _ in topics])
            # Read: what reaches the client. mosquitto grants every subscription.
            assert set(client.subscribe(*topics)) == {1}
            client.messages.clear()
            for topic, _ in topics:
                helper.publish(topic, b"read", 1)
            client.subscribe(("round/trip", 0))
            read = {message.topic for message in client.messages.all()}
            client.disconnect()
            for row in asked:
                answers[row, "read"] = row.topic in read
                answers[row, "write"] = row.topic in written
        helper.disconnect()
    return answers


def ask_ternmq(directory, rules, rows):
    """What `ternmq acl explain` prints and how it ends: {(row, access): (exit code, text)}."""
    directory.mkdir()
    (directory / "acl").write_text(rules)
    (directory / "ternmq.toml").write_text('auth.acl_file = "acl"\n')

    def ask(question):
        row, access = question
        command = [selected(), "acl", "explain", "--config", str(directory / "ternmq.toml")]
        command += [f"--client={row.client}", f"--topic={row.topic}", f"--access={access}"]
        command += [] if row.user is None else [f"--user={row.user}"]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment(), timeout=30)
        assert done.returncode in (0, 1), done.stderr
        return question, (done.returncode, done.stdout.removesuffix("\n"))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(pool.map(ask, [(row, access) for row in rows for access in ("read", "write")]))


def test_the_table_is_large_enough():
    assert sum(2 * len(rows) for _, rows in BLOCKS) >= 250


@pytest.mark.ternmq_only("asks both brokers itself")
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_ternmq_and_mosquitto_decide_alike(directory, number):
    rules, rows = BLOCKS[number]
    of_mosquitto = ask_mosquitto(directory / "mosquitto", rules, rows)
    of_ternmq = ask_ternmq(directory / "ternmq", rules, rows)
    wrong = []
    for (row, access), (code, text) in of_ternmq.items():
        answer, why = getattr(row, access).split()
        line = why if why.isdecimal() else None
        expected = (0, "allowed") if answer == "yes" else (1, "denied")
        if (code, text.split()[0]) != expected or (line is not None) != (f"/acl:{line}: " in text):
            wrong.append(f"ternmq {access} {row}: {text}")
        if of_mosquitto[row, access] != (answer in ("yes", "NO")):
            wrong.append(f"mosquitto {access} {row}: {of_mosquitto[row, access]}")
    assert not wrong, rules + "\n" + "\n".join(wrong)


REFUSED = ["topic", "topic foo bar", "topic READ a", "\ttopic read a", " # x", "user", "user\ta", "topic\tread\ta"]
REFUSED += ["topix read a", "topic read a#", "topic #/a", "topic read a # comment", "pattern read x+%c", "\ufefftopic a"]


@pytest.mark.ternmq_only("asks both brokers itself")
def test_what_mosquitto_refuses_to_read_ternmq_refuses(directory):
    for number, line in enumerate(REFUSED):
        with pytest.raises(RuntimeError), Mosquitto(directory / f"mosquitto-{number}", line + "\n"):
            pass
        (directory / "acl").write_text(line + "\n")
        (directory / "ternmq.toml").write_text('auth.acl_file = "acl"\n')
        command = [selected(), "check", "--config", str(directory / "ternmq.toml")]
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment(), timeout=30)
        assert done.returncode == 2 and "/acl:1: " in done.stderr, (line, done.stderr)
