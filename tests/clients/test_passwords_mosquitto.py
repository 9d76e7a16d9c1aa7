"""Password files: what mosquitto's tool writes, we read alike; and the question for a password on a terminal."""

import hashlib
import os
import pty
import shutil
import signal
import stat
import subprocess
import termios
from base64 import b64encode
from dataclasses import dataclass

import pytest

from support import brokers
from support.mosquitto import try_pub
from support.waiting import DEADLINE, eventually

# One pair of broker and program is compared whichever broker the rest of the suite runs against.
pytestmark = pytest.mark.ternmq_only("`ternmq passwd` is the other side of the comparison")

_TOOL = shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd"
_BROKER = shutil.which("mosquitto") or "/usr/sbin/mosquitto"

# User, password. What the command line cannot carry (NUL) and the file cannot hold (a colon in the name) is not here.
ACCOUNTS = [
    ("plain", "secret"),
    ("UPPER", "secret"),
    ("upper", "other secret"),
    ("empty-password", ""),
    ("one", "x"),
    ("space-password", " "),
    ("blank at the ends", " secret "),
    ("tab", "a\tb"),
    ("user with blanks", "pass with blanks"),
    ("kilobyte", "k" * 1024),
    ("block-127", "b" * 127),
    ("block-128", "b" * 128),
    ("block-129", "b" * 129),
    ("ümläut", "Größe 7!"),
    ("温度", "湿度"),
    ("😀", "👍🏽"),
    ("combining-e\u0301", "e\u0301"),
    ("a/b/+/#", "/+#"),
    ("$SYS", "$6$salt$hash"),
    ("%u", "%c"),
    ("user$7$", "$7$101$a$b"),
    ("quote\"'", "quote\"'`"),
    ("back\\slash", "\\n"),
    ("dash-", "-b"),
    ("a=b,c;d", "=,;"),
    ("hash#inside", "#"),
    ("long-" + "u" * 300, "long"),
    ("colon-password", "a:b:c"),
    ("device@example.net", "p@ss"),
    ("{json}", '{"a": 1}'),
    ("0", "0"),
    ("trailing-newline-like", "\\r\\n"),
]

# Wrong ones made of the right one.
WRONG = {
    "empty": lambda password: "",
    "shorter": lambda password: password[:-1],
    "longer": lambda password: password + "x",
    "blank": lambda password: password + " ",
    "other case": str.swapcase,
}


def passwd(*arguments, password=None):
    """Runs `ternmq passwd`, the password on its standard input."""
    done = subprocess.run(
        [brokers.selected(), "passwd", *map(str, arguments)],
        input=None if password is None else password.encode() + b"\n",
        stdin=subprocess.DEVNULL if password is None else None,
        capture_output=True,
        timeout=DEADLINE,
        env=brokers.environment(),
    )
    assert done.stdout == b""
    return done


def ternmq_accepts(file, user, password):
    done = passwd(file, user, "--check", password=password)
    assert done.returncode in (0, 1), done.stderr.decode()
    return done.returncode == 0


@dataclass
class Mosquitto:
    """A real mosquitto with a password file."""

    port: int
    process: subprocess.Popen

    def accepts(self, user, password):
        done = try_pub(self.port, "-t", "t", "-n", "-u", user, "-P", password)
        if done.returncode:
            assert b"not authorised" in done.stderr, done.stderr
        return done.returncode == 0


@pytest.fixture
def start_mosquitto(directory):
    """Starts mosquitto with a password file; ends it after the test."""
    started = []

    def start(passwords):
        for _ in range(5):
            port = brokers.free_port()
            configuration, log = directory / f"mosquitto-{port}.conf", directory / f"mosquitto-{port}.log"
            # Root's files are no use to the user that mosquitto would become.
            user = "user root\n" if os.geteuid() == 0 else ""
            configuration.write_text(
                f"{user}listener {port} {brokers.HOST}\nallow_anonymous false\npassword_file {passwords}\n"
                "log_dest stderr\npersistence false\n"
            )
            with open(log, "wb") as output:
                process = subprocess.Popen([_BROKER, "-c", configuration], stdin=subprocess.DEVNULL, stderr=output)
            started.append(process)
            eventually(
                lambda: process.poll() is not None or b" running" in log.read_bytes(), "mosquitto runs"
            )
            if process.poll() is None:
                return Mosquitto(port, process)
        raise AssertionError(log.read_text())

    yield start
    for process in started:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)


def write_with_mosquitto(file, accounts, method):
    file.touch(mode=0o600)
    for user, password in accounts:
        subprocess.run([_TOOL, "-H", method, "-b", file, user, password], check=True, timeout=DEADLINE)


@pytest.mark.parametrize("method", ["sha512", "sha512-pbkdf2"])
def test_files_of_mosquitto_passwd_are_read_alike(directory, start_mosquitto, method):
    file = directory / "passwords"
    write_with_mosquitto(file, ACCOUNTS, method)
    mosquitto = start_mosquitto(file)
    differences, cases = [], 0
    for user, password in ACCOUNTS:
        # mosquitto_pub drops an empty password from CONNECT, which is another question.
        attempts = {"right": password} | {name: make(password) for name, make in WRONG.items()}
        for name, attempt in attempts.items():
            if attempt == "" or (name != "right" and attempt == password):
                continue
            theirs, ours = mosquitto.accepts(user, attempt), ternmq_accepts(file, user, attempt)
            cases += 1
            if theirs != ours or ours != (name == "right"):
                differences.append((user, name, f"mosquitto {theirs}", f"ternmq {ours}"))
    assert not differences
    assert cases > 100


@pytest.mark.parametrize("method", ["sha512", "sha512-pbkdf2"])
def test_the_empty_password(directory, method):
    file = directory / "passwords"
    write_with_mosquitto(file, [("empty", ""), ("full", "x")], method)
    assert ternmq_accepts(file, "empty", "")
    assert not ternmq_accepts(file, "empty", "x")
    assert not ternmq_accepts(file, "full", "")


@pytest.mark.parametrize(
    "text",
    [
        "{line}",
        "{line}\n",
        "{line}\r\n",
        "# comment\n{line}\n",
        "\n\n{line}\n\n",
        "{line}  \n",
        "  {line}\n",
        "#{line}\n",
        "{blank}\n",
    ],
)
@pytest.mark.parametrize("user", ["ada", " ada", "ada ", "#ada", "Ada"])
def test_lines_are_read_alike(directory, start_mosquitto, text, user):
    salt = b"twelve bytes"
    digest = hashlib.pbkdf2_hmac("sha512", b"secret", salt, 7)
    value = f"$7$7${b64encode(salt).decode()}${b64encode(digest).decode()}"
    file = directory / "passwords"
    file.write_text(text.format(line=f"ada:{value}", blank=f" ada : {value} "), newline="")
    assert start_mosquitto(file).accepts(user, "secret") == ternmq_accepts(file, user, "secret")


def test_we_edit_what_mosquitto_wrote_and_mosquitto_reads_the_rest(directory, start_mosquitto):
    file = directory / "passwords"
    write_with_mosquitto(file, ACCOUNTS, "sha512-pbkdf2")
    assert passwd(file, "plain", "--delete").returncode == 0
    assert passwd(file, "new", password="new secret").returncode == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ternmq_accepts(file, "new", "new secret") and not ternmq_accepts(file, "plain", "secret")
    # mosquitto 2.0 does not know our hashes; everybody else's are untouched.
    assert passwd(file, "new", "--delete").returncode == 0
    mosquitto = start_mosquitto(file)
    assert not mosquitto.accepts("plain", "secret")
    for user, password in ACCOUNTS[1:]:
        if password:
            assert mosquitto.accepts(user, password), user


class Terminal:
    """`ternmq passwd` on a terminal of its own."""

    def __init__(self, *arguments):
        self._ours, theirs = pty.openpty()
        self._theirs = theirs
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [brokers.selected(), "passwd", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env=brokers.environment(),
        )
        self.shown = b""

    def wait_for(self, text):
        """Reads until the screen has this text; what comes with it stays in `shown`."""
        while text not in self.shown:
            self.shown += os.read(self._ours, 1024)

    def type(self, keys):
        os.write(self._ours, keys)

    def end(self):
        """Waits for the program and gives its exit code; the terminal has to be as it was."""
        code = self.process.wait(DEADLINE)
        assert termios.tcgetattr(self._theirs) == self.before
        os.set_blocking(self._ours, False)
        try:
            self.shown += os.read(self._ours, 65536)
        except BlockingIOError:
            pass
        os.close(self._ours)
        os.close(self._theirs)
        return code


def test_the_terminal_is_asked_twice_and_shows_nothing(directory):
    file = directory / "passwords"
    terminal = Terminal(file, "ada")
    terminal.wait_for(b'Password for "ada": ')
    terminal.type("Größe 7!".encode() + b"x\x7f\r")
    terminal.wait_for(b"The same again: ")
    terminal.type("Größe 7!".encode() + b"\r")
    assert terminal.end() == 0
    assert terminal.shown.split() == b'Password for "ada": The same again:'.split()
    assert ternmq_accepts(file, "ada", "Größe 7!")


def test_two_different_answers_change_nothing(directory):
    file = directory / "passwords"
    terminal = Terminal(file, "ada")
    terminal.wait_for(b"Password")
    terminal.type(b"one\r")
    terminal.wait_for(b"again: ")
    terminal.type(b"two\r")
    assert terminal.end() == 1
    assert b"the two passwords differ" in terminal.shown
    assert not file.exists()


@pytest.mark.parametrize("keys, code", [(b"secret\x03", 130), (b"\x04", 1), (b"\r", 1)])
def test_the_question_can_be_left(directory, keys, code):
    file = directory / "passwords"
    terminal = Terminal(file, "ada")
    terminal.wait_for(b"Password")
    terminal.type(keys)
    assert terminal.end() == code
    assert b"secret" not in terminal.shown
    assert not file.exists()


def test_a_check_asks_once(directory):
    file = directory / "passwords"
    assert passwd(file, "ada", password="secret").returncode == 0
    for password, code in ((b"secret", 0), (b"wrong", 1)):
        terminal = Terminal(file, "ada", "--check")
        terminal.wait_for(b"Password")
        terminal.type(password + b"\r")
        assert terminal.end() == code
        assert password not in terminal.shown.replace(b"password is wrong", b"")
