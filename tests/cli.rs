//! The program from outside: `check`, `--version`, faults, signals, the hold on the data directory.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

fn ternmq() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ternmq"));
    // What the machine that runs the tests has set is not for them.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERNMQ_")) {
        command.env_remove(name);
    }
    // Tests run side by side, and would meet in the default data directory.
    command.env("TERNMQ_STORAGE__KIND", "memory");
    command
}

/// The program with storage on disk, in an environment that names no directory but these.
fn on_disk(places: &[(&str, &Path)]) -> Command {
    let mut command = ternmq();
    for name in ["TERNMQ_STORAGE__KIND", "STATE_DIRECTORY", "XDG_DATA_HOME", "HOME"] {
        command.env_remove(name);
    }
    command.envs(places.iter().copied());
    command
}

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn file(directory: &Path, text: &str) -> String {
    let path = directory.join("ternmq.toml");
    fs::write(&path, text).expect("a file");
    path.to_str().expect("UTF-8").to_owned()
}

#[test]
fn version_is_printed() {
    let (code, stdout, _) = run(ternmq().arg("--version"));
    assert_eq!((code, stdout), (Some(0), format!("ternmq {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn check_prints_each_setting_with_its_origin() {
    let directory = tempfile::tempdir().expect("a directory");
    let path =
        file(directory.path(), "[limits]\nqueue_bytes_max = \"8MB\"\n[[listeners]]\nbind = \"[::1]:1\"");
    let (code, stdout, stderr) = run(ternmq()
        .args(["check", "--config", &path, "--log", "debug"])
        .env("TERNMQ_LIMITS__SESSION_EXPIRY", "never"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let lines: Vec<&str> = stdout.lines().collect();
    for line in [
        "data_dir = (not set)  # default".to_owned(),
        "limits.inflight_max = 64  # default".to_owned(),
        format!("limits.queue_bytes_max = \"8MB\"  # {path}"),
        "limits.session_expiry = \"never\"  # environment TERNMQ_LIMITS__SESSION_EXPIRY".to_owned(),
        "log.level = \"debug\"  # --log".to_owned(),
        format!("listeners[0].bind = \"[::1]:1\"  # {path}"),
        "listeners[0].allow_anonymous = true  # default".to_owned(),
    ] {
        assert!(lines.contains(&line.as_str()), "no {line:?} in {stdout}");
    }
}

#[test]
fn check_warns_without_failing() {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "[[listeners]]\nbind = \"[::1]:1\"\ntransport = \"tls\"\n[listeners.tls]\n\
                certificate = \"ternmq.toml\"\nprivate_key = \"ternmq.toml\"\nclient_ca = \"ternmq.toml\"";
    let (code, stdout, stderr) = run(ternmq().args(["check", "--config", &file(directory.path(), text)]));
    assert_eq!(code, Some(0));
    assert!(stdout.contains("listeners[0].tls.client_certificate = \"none\"  # default"), "{stdout}");
    assert!(stderr.starts_with("warning: listeners[0].tls.client_ca"), "{stderr}");
}

#[test]
fn faults_end_check_and_start_alike() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path(), "inflight_mx = 1\n[limits]\ninflight_max = 0");
    for arguments in [&["check", "--config", &path] as &[&str], &["--config", &path]] {
        let misspelt = "TERNMQ_ALLOW_ANONYMUS";
        let mut command = ternmq();
        let (code, stdout, stderr) =
            run(command.args(arguments).args(["--bind", "0.0.0.0:0"]).env(misspelt, "true"));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert_eq!(stderr.lines().count(), 4, "{stderr}");
        // It is no fault, but it explains one.
        assert!(
            stderr.contains(&format!("warning: {misspelt}: unknown variable, did you mean ")),
            "{stderr}"
        );
        assert!(stderr.contains(&format!(
            "limits.inflight_max = 0: expected a whole number from 1 to 65535 (in {path})"
        )));
        assert!(stderr.contains("inflight_mx: unknown key, did you mean limits.inflight_max?"), "{stderr}");
        assert!(stderr.contains("--allow-anonymous"), "{stderr}");
    }
}

#[test]
fn check_finds_faults_in_access_rules() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("acl.txt"), "topic read a\ntopic a#\nusr b\n").expect("a file");
    let path = file(
        directory.path(),
        "auth.acl_file = \"acl.txt\"\n[[acl]]\naccess = \"read\"\npattern = \"a/x%u\"\n",
    );
    for arguments in
        [&["check"] as &[&str], &["acl", "explain", "--client", "k", "--topic", "a", "--access", "read"]]
    {
        let (code, stdout, stderr) = run(ternmq().args(arguments).args(["--config", &path]));
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{stderr}");
        assert!(lines[0].contains("acl.txt:2: ") && lines[1].contains("acl.txt:3: "), "{stderr}");
        assert!(lines[2].starts_with("acl[0]: "), "{stderr}");
    }
}

#[test]
fn acl_explain_names_the_rule_that_decides() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules =
        "topic read public/#\nuser bob\ntopic readwrite a/#\ntopic deny a/secret\npattern write c/%c\n";
    fs::write(directory.path().join("acl.txt"), rules).expect("a file");
    let path = file(
        directory.path(),
        "auth.acl_file = \"acl.txt\"\n[[acl]]\nuser = \"al ice\"\naccess = \"read\"\ntopics = [\"x\", \"y\"]\n",
    );
    let ask = |config: &str, user: Option<&str>, client: &str, topic: &str, access: &str| {
        let mut command = ternmq();
        command.args(["acl", "explain", "--config", config]);
        command.args(["--client", client, "--topic", topic, "--access", access]);
        command.args(user.into_iter().flat_map(|user| ["--user", user]));
        run(&mut command)
    };
    let at = |line: &str| format!("{}/acl.txt:{line}\n", directory.path().to_str().expect("UTF-8"));
    for (user, client, topic, access, allowed, why) in [
        (None, "k", "public/x", "read", true, format!("by {}", at("1: topic read public/#"))),
        (None, "k", "public/x", "write", false, "because no rule grants it\n".to_owned()),
        (Some("bob"), "k", "a/b", "write", true, format!("by {}", at("3: topic readwrite a/#"))),
        (Some("bob"), "k", "a/secret", "read", false, format!("by {}", at("4: topic deny a/secret"))),
        (Some("bob"), "k", "c/k", "write", true, format!("by {}", at("5: pattern write c/%c"))),
        (Some("al ice"), "k", "y", "read", true, "by acl[0]: topic read y\n".to_owned()),
    ] {
        let (code, stdout, stderr) = ask(&path, user, client, topic, access);
        let (word, expected) = if allowed { ("allowed", 0) } else { ("denied", 1) };
        assert_eq!((code, stdout), (Some(expected), format!("{word} {why}")), "{topic}: {stderr}");
    }
    let (code, stdout, _) = ask(&path, Some("bob"), "k#", "c/k", "write");
    assert_eq!(code, Some(1));
    assert!(stdout.starts_with("denied because ") && stdout.contains("+ or #"), "{stdout}");
    // Not the topic of a message, and not an access.
    let (code, _, stderr) = ask(&path, None, "k", "public/#", "read");
    assert_eq!(code, Some(2));
    assert!(stderr.starts_with("--topic: "), "{stderr}");
    assert_eq!(ask(&path, None, "k", "a", "deny").0, Some(2));

    let (code, stdout, _) = ask(&file(directory.path(), ""), None, "k", "a", "write");
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("allowed because there are no rules"), "{stdout}");
}

#[test]
fn unknown_flags_are_refused() {
    let (code, _, stderr) = run(ternmq().arg("--prot"));
    assert_eq!(code, Some(2));
    assert!(stderr.contains("--prot"), "{stderr}");
}

#[test]
fn flags_of_the_broker_are_for_commands_that_know_settings() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = file(directory.path(), "[limits]\ninflight_max = 7\n");
    for arguments in [["--config", &path, "check"], ["check", "--config", &path]] {
        let (code, stdout, stderr) = run(ternmq().args(arguments));
        assert!(code == Some(0) && stdout.contains("limits.inflight_max = 7"), "{stderr}");
    }
    // What stands behind the command counts.
    let (_, stdout, _) =
        run(ternmq().args(["--log", "warn", "--bind", "127.0.0.1:7", "check", "--log", "debug"]));
    assert!(stdout.contains("log.level = \"debug\"") && stdout.contains("127.0.0.1:7"), "{stdout}");
    let (code, help, _) = run(ternmq().args(["passwd", "--help"]));
    assert_eq!(code, Some(0));
    let flags =
        ["--config", "--bind", "--allow-anonymous", "--data-dir", "--storage", "--log", "--log-format"];
    assert!(help.contains("--delete") && !flags.iter().any(|flag| help.contains(flag)), "{help}");
    let passwords = directory.path().join("passwords");
    for before in [true, false] {
        let mut command = ternmq();
        let (config, passwd) = (["--config", &path], ["passwd", passwords.to_str().expect("UTF-8"), "alice"]);
        if before {
            command.args(config).args(passwd)
        } else {
            command.args(passwd).args(config)
        };
        let (code, _, stderr) = run(command.stdin(Stdio::null()));
        assert!(code == Some(2) && !passwords.exists(), "{stderr}");
    }
}

/// Far longer than anything here takes; what has not happened by then will not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker that runs, and the lines it logs.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        // Ends with the broker, which `Drop` sees to.
        thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Running { child, lines }
    }

    /// Waits for the line with `word` in it; gives all that was logged since the last call.
    #[track_caller]
    fn until(&mut self, word: &str) -> String {
        let mut read = String::new();
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no {word:?}: {e}: {read}"));
            read = read + &line + "\n";
            if line.contains(word) {
                return read;
            }
        }
    }

    fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end; gives exit code and the rest of its log.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest = rest + &line + "\n",
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("still runs: {rest}"),
            }
        }
        (self.child.wait().expect("it was started").code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed must not leave its broker behind; one that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill").args(["-s", name, &child.id().to_string()]).status().expect("kill").success()
    );
}

#[test]
fn a_signal_stops_it_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0"]));
        broker.until("started");
        broker.signal(signal);
        let (code, log) = broker.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains(&format!("signal=SIG{signal}")), "{log}");
    }
}

#[test]
fn hangup_takes_up_what_can_change_and_tells_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl.txt");
    fs::write(&rules, "topic read a\n").expect("rules");
    let text = "[storage]\nkind = \"memory\"\n[auth]\nacl_file = \"acl.txt\"\n";
    let path = file(directory.path(), text);
    let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0", "--config"]).arg(&path));
    let address = address_in(&broker.until("started"));
    let mut first = connect(&address, "first").expect("let in");
    // Nothing has changed.
    broker.signal("HUP");
    let log = broker.until("reloaded");
    assert!(log.contains("failures=0") && !log.contains("changed"), "{log}");

    file(
        directory.path(),
        &format!(
            "{text}ban_time = \"1m\"\n[limits]\ninflight_max = 7\nsessions_max = 1\n[log]\nlevel = \"debug\"\n"
        ),
    );
    broker.signal("HUP");
    let log = broker.until("reloaded");
    let told = |setting: &str| {
        log.lines().find(|line| line.contains(setting)).unwrap_or_else(|| panic!("{setting}: {log}"))
    };
    assert!(told("limits.inflight_max").contains("after a restart"), "{log}");
    for setting in ["log.level", "auth.ban_time", "limits.sessions_max"] {
        assert!(told(setting).contains("changed") && !told(setting).contains("after a restart"), "{log}");
    }
    // It is so, and who is there stays.
    assert!(connect(&address, "second").is_none());
    first.write_all(&[0xC0, 0]).expect("sent");
    let mut answer = [0; 2];
    first.read_exact(&mut answer).expect("PINGRESP");
    assert_eq!(answer, [0xD0, 0]);
    file(directory.path(), "[limits]\ninflight_max = \"many\"\n");
    broker.signal("HUP");
    let log = broker.until("everything stays as it is");
    assert!(log.contains("limits.inflight_max"), "{log}");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}

/// A broker that has no descriptor left to read its files with goes on with what it has read; it does not fall back to what it would be
/// without them.
#[test]
fn hangup_without_free_descriptors_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("acl.txt"), "topic read a\n").expect("rules");
    let listener = "[[listeners]]\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n";
    let path = file(directory.path(), &format!("{listener}[auth]\nacl_file = \"acl.txt\"\n"));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 40 && exec \"$0\" --config \"$1\" --storage memory"]);
    let mut broker = Running::start(limited.arg(env!("CARGO_BIN_EXE_ternmq")).arg(&path));
    let log = broker.until("listening");
    let addr =
        log.split(" address=").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("an address");
    let addr: std::net::SocketAddr = addr.parse().expect("an address");
    let mut idle: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(addr).expect("in the backlog at least")).collect();
    broker.until("cannot accept connections");
    broker.signal("HUP");
    let log = broker.until("everything stays as it is");
    assert!(log.contains("ternmq.toml"), "{log}");
    idle.clear();
    // Room again, and the rules are what they were: nobody may publish.
    let mut client = TcpStream::connect(addr).expect("a connection");
    let mut packet = |bytes: &[u8]| {
        client.write_all(bytes).expect("a packet");
        let mut header = [0; 2];
        client.read_exact(&mut header).expect("an answer");
        let mut body = vec![0; usize::from(header[1])];
        client.read_exact(&mut body).expect("an answer");
        (header[0], body)
    };
    let (first, connack) = packet(b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01x");
    assert_eq!((first, connack[1]), (0x20, 0));
    let (first, puback) = packet(b"\x32\x06\x00\x01b\x00\x01\x00");
    assert_eq!((first, puback[2]), (0x40, 0x87));
    broker.signal("HUP");
    let log = broker.until("reloaded");
    assert!(log.contains("failures=0"), "{log}");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn a_file_that_has_changed_is_read_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl.txt");
    fs::write(&rules, "topic read a\n").expect("rules");
    let path = file(directory.path(), "[storage]\nkind = \"memory\"\n[auth]\nacl_file = \"acl.txt\"\n");
    let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0", "--config"]).arg(&path));
    let log = broker.until("started");
    assert!(log.contains("rules=\"1 (users: 0"), "{log}");
    fs::write(&rules, "topic read a\ntopic read b\n").expect("rules");
    let log = broker.until("reloaded");
    assert!(log.contains("a file has changed") && log.contains("rules=\"2 (users: 0"), "{log}");
    fs::write(&rules, "topics read a\n").expect("rules");
    let log = broker.until("reloaded");
    assert!(
        log.contains("acl.txt:1") && log.contains("stays as it was") && log.contains("failures=1"),
        "{log}"
    );
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn what_a_bad_file_holds_up_is_called_changed_only_when_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let rules = directory.path().join("acl.txt");
    fs::write(&rules, "topic read a\n").expect("rules");
    let text = "[storage]\nkind = \"memory\"\n[auth]\nacl_file = \"acl.txt\"\n";
    let path = file(directory.path(), text);
    let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0", "--config"]).arg(&path));
    broker.until("started");
    let with_more = format!("{text}[limits]\nsessions_max = 7\ninflight_max = 7\n[log]\nlevel = \"debug\"\n");
    file(directory.path(), &with_more);
    fs::write(&rules, "topics read a\n").expect("rules");
    broker.signal("HUP");
    let log = broker.until("reloaded in part");
    assert!(log.contains("failures=1") && !log.contains("limits.sessions_max"), "{log}");
    assert!(log.contains("setting=log.level") && log.contains("setting=limits.inflight_max"), "{log}");
    fs::write(&rules, "topic read b\n").expect("rules");
    broker.signal("HUP");
    let log = broker.until("failures=0");
    assert!(log.contains("setting=limits.sessions_max") && log.contains("value=7"), "{log}");
    assert!(!log.contains("setting=log.level") && !log.contains("setting=limits.inflight_max"), "{log}");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn a_log_that_nobody_reads_does_no_harm() {
    let mut command = ternmq();
    command.args(["--bind", "127.0.0.1:0", "--log", "trace"]).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let log = BufReader::new(child.stderr.take().expect("piped"));
    // The iterator closes our end of the pipe.
    assert!(log.lines().map_while(Result::ok).any(|line| line.contains("started")));
    signal(&child, "HUP");
    signal(&child, "TERM");
    assert_eq!(child.wait().expect("it was started").code(), Some(0));
}

#[test]
fn json_lines_are_json_and_text_has_no_colours_in_a_pipe() {
    for (format, start) in [("json", "{\"timestamp\":"), ("text", "2")] {
        let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0", "--log-format", format]));
        let log = broker.until("started");
        broker.signal("TERM");
        for line in log.lines() {
            assert!(line.starts_with(start), "{format}: {line}");
        }
        assert!(!log.contains('\u{1b}'), "{log}");
        assert_eq!(broker.end().0, Some(0));
    }
}

#[test]
fn too_few_descriptors_are_said() {
    let limit = |max: &str| {
        let arguments = ["--bind", "127.0.0.1:0"];
        let mut broker = Running::start(ternmq().args(arguments).env("TERNMQ_LIMITS__CONNECTIONS_MAX", max));
        let log = broker.until("started");
        broker.signal("TERM");
        assert_eq!(broker.end().0, Some(0));
        log
    };
    let log = limit("1000000000");
    assert!(log.contains("connections_max=1000000000") && log.contains("nofile="), "{log}");
    let log = limit("1");
    assert!(!log.contains("NOFILE"), "{log}");
}

#[test]
fn a_data_directory_of_a_later_version_is_left_alone_with_exit_code_2() {
    let directory = tempfile::tempdir().expect("a directory");
    let start = || {
        let mut command = on_disk(&[]);
        command.args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(directory.path());
        command
    };
    let mut broker = Running::start(&mut start());
    broker.until("started");
    stop(broker);
    let segment = directory.path().join("segment-00000001-00000000.log");
    let mut bytes = fs::read(&segment).expect("a segment");
    bytes[8] = 2;
    let check = crc32fast::hash(&bytes[..28]);
    bytes[28..32].copy_from_slice(&check.to_le_bytes());
    fs::write(&segment, &bytes).expect("written");
    let (code, _, log) = run(&mut start());
    assert_eq!(code, Some(2), "{log}");
    for word in [segment.to_str().expect("UTF-8"), "format version 2", "format 1"] {
        assert!(log.contains(word), "{log}");
    }
    assert_eq!(fs::read(&segment).expect("it has its name"), bytes);
    let logs = fs::read_dir(directory.path()).expect("a list").flatten();
    let logs = logs.filter(|file| file.file_name().to_string_lossy().ends_with(".log"));
    assert_eq!(logs.count(), 1, "nothing is begun beside it");
}

#[test]
fn a_data_directory_is_held_by_one_broker() {
    let directory = tempfile::tempdir().expect("a directory");
    let data_dir = directory.path().join("data");
    let command = || {
        let mut command = on_disk(&[]);
        command.args(["--bind", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
        command
    };
    let mut first = Running::start(&mut command());
    first.until("started");
    let (code, log) = Running::start(command().args(["--log", "error"])).end();
    assert_eq!(code, Some(1), "{log}");
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(
        log.contains("in use by another broker") && log.contains(data_dir.to_str().expect("UTF-8")),
        "{log}"
    );
    // Whoever named the directory is not told how to name one.
    assert!(!log.contains("--storage"), "{log}");
    // One that keeps nothing has no need of it, and says that it was named in vain.
    let mut other = Running::start(command().args(["--storage", "memory"]));
    let log = other.until("started");
    assert!(log.contains("data_dir has no effect"), "{log}");
    stop(other);
    // However the holder ends, the next one starts.
    first.signal("KILL");
    first.end();
    let mut next = Running::start(&mut command());
    next.until("started");
    next.signal("TERM");
    assert_eq!(next.end().0, Some(0));
}

fn stop(mut broker: Running) {
    broker.signal("TERM");
    broker.until("stopped");
    assert_eq!(broker.end().0, Some(0));
}

#[test]
fn without_a_data_directory_the_users_own_is_taken_and_held() {
    let home = tempfile::tempdir().expect("a directory");
    let elsewhere = tempfile::tempdir().expect("a directory");
    let below_home = home.path().join(".local/share/ternmq");
    let command = || {
        let mut command = on_disk(&[("HOME", home.path())]);
        command.args(["--bind", "127.0.0.1:0"]);
        command
    };
    let mut first = Running::start(&mut command());
    first.until("started");
    assert!(below_home.join("lock").is_file());

    // A second one is told why, and the ways out; each of them is one.
    let (code, log) = Running::start(command().args(["--log", "error"])).end();
    assert_eq!((code, log.lines().count()), (Some(1), 1), "{log}");
    for word in [
        "in use by another broker",
        below_home.to_str().expect("UTF-8"),
        "--data-dir DIR",
        "--storage memory",
    ] {
        assert!(log.contains(word), "no {word} in {log}");
    }
    for way_out in [["--storage", "memory"], ["--data-dir", elsewhere.path().to_str().expect("UTF-8")]] {
        let mut second = Running::start(command().args(way_out));
        second.until("started");
        stop(second);
    }
    let mut second = Running::start(command().env("XDG_DATA_HOME", elsewhere.path().join("xdg")));
    second.until("started");
    assert!(elsewhere.path().join("xdg/ternmq/lock").is_file());
    stop(second);
    let mut second = Running::start(command().env("STATE_DIRECTORY", elsewhere.path().join("state")));
    second.until("started");
    assert!(elsewhere.path().join("state/lock").is_file());
    stop(second);
    stop(first);
}

#[test]
fn a_default_directory_that_cannot_be_made_is_an_error_with_the_ways_out() {
    let home = tempfile::tempdir().expect("a directory");
    fs::write(home.path().join(".local"), "in the way").expect("a file");
    let (code, _, stderr) = run(on_disk(&[("HOME", home.path())]).args(["--bind", "127.0.0.1:0"]));
    assert_eq!(code, Some(1), "{stderr}");
    let last = stderr.lines().last().expect("a line");
    for word in ["cannot use the data directory", ".local/share/ternmq", "--data-dir DIR", "--storage memory"]
    {
        assert!(last.contains(word), "no {word} in {last}");
    }
}

#[test]
fn a_broker_without_a_place_for_data_starts_and_warns() {
    let mut broker = Running::start(on_disk(&[]).args(["--bind", "127.0.0.1:0"]));
    let log = broker.until("started");
    let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("data_dir")).count();
    assert_eq!(warned, 1, "{log}");
    stop(broker);

    let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0"]));
    let log = broker.until("started");
    assert!(!log.contains("WARN"), "{log}");
    stop(broker);
}

#[test]
fn check_shows_the_directory_that_would_be_used() {
    let home = tempfile::tempdir().expect("a directory");
    let (code, stdout, stderr) = run(on_disk(&[("HOME", home.path())]).arg("check"));
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let path = home.path().join(".local/share/ternmq");
    for line in [
        format!("data_dir = {path:?}  # default, from HOME"),
        "storage.kind = \"disk\"  # default".to_owned(),
        "storage.sync = \"always\"  # default".to_owned(),
        "storage.sync_interval = \"1s\"  # default".to_owned(),
    ] {
        assert!(stdout.lines().any(|shown| shown == line), "no {line:?} in {stdout}");
    }
    assert!(!path.exists(), "check makes nothing");
    let (_, stdout, stderr) = run(on_disk(&[]).arg("check"));
    assert!(stdout.contains("data_dir = (not set)  # default"), "{stdout}");
    assert!(stderr.starts_with("warning: nothing says where to keep data"), "{stderr}");
}

/// The address after `address=` in the line that says where it listens.
fn address_in(log: &str) -> String {
    let line = log.lines().find(|line| line.contains("listening")).expect("it listens");
    line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).expect("an address").to_owned()
}

/// Connects as `client_id`; `None` if the connection is closed instead.
fn connect(address: &str, client_id: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let len = client_id.len() as u8;
    let mut connect = vec![0x10, 12 + len, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, len];
    connect.extend(client_id.as_bytes());
    stream.write_all(&connect).ok()?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).ok()?;
    (connack == [0x20, 2, 0, 0]).then_some(stream)
}

#[test]
fn limits_that_bite_are_named_in_the_log() {
    let mut command = ternmq();
    command.args(["--bind", "127.0.0.1:0"]);
    for (name, value) in [
        ("CONNECTIONS_PER_ADDRESS_MAX", "2"),
        ("TOPIC_LEVELS_MAX", "2"),
        ("PUBLISH_RATE_MAX", "3"),
        ("MEMORY_MAX", "1MB"),
    ] {
        command.env(format!("TERNMQ_LIMITS__{name}"), value);
    }
    let mut broker = Running::start(&mut command);
    let address = address_in(&broker.until("started"));
    let mut first = connect(&address, "first").expect("within the limits");
    // PUBLISH at QoS 0 to a/b/c.
    first.write_all(&[0x30, 7, 0, 5, b'a', b'/', b'b', b'/', b'c'].repeat(9)).expect("sent");
    let log = broker.until("limits.publish_rate_max");
    let topics: Vec<&str> = log.lines().filter(|line| line.contains("limits.topic_levels_max")).collect();
    assert!(topics.len() == 1 && topics[0].contains("a/b/c") && topics[0].contains("value=2"), "{log}");
    let _second = connect(&address, "second").expect("within the limits");
    for _ in 0..3 {
        assert!(connect(&address, "third").is_none());
    }
    let log = broker.until("limits.connections_per_address_max");
    assert!(log.contains("127.0.0.1") && log.contains("value=2"), "{log}");
    broker.signal("TERM");
    let (_, rest) = broker.end();
    assert!(!rest.contains("limits."), "told again and again: {rest}");
}

#[test]
fn two_devices_with_one_client_id_are_told_with_both_addresses() {
    let mut broker = Running::start(ternmq().args(["--bind", "127.0.0.1:0"]));
    let address = address_in(&broker.until("started"));
    let twins: Vec<TcpStream> = (0..9).filter_map(|_| connect(&address, "twin")).collect();
    let log = broker.until("again and again");
    let warning = log.lines().last().expect("a line");
    let peers: Vec<String> =
        twins.iter().map(|twin| twin.local_addr().expect("its own").to_string()).collect();
    // The sixth take-over: the seventh connection puts the sixth out.
    for word in [&format!("old_peer={}", peers[5]), &format!("new_peer={}", peers[6])] {
        assert!(warning.contains(word.as_str()), "no {word} in {warning}");
    }
    assert!(warning.contains("WARN") && warning.contains("twin") && warning.contains("count=6"), "{warning}");
    broker.signal("TERM");
    let (_, rest) = broker.end();
    assert!(!rest.contains("again and again"), "{rest}");
}

#[test]
fn check_says_how_much_memory_may_wait_for_clients() {
    let (_, stdout, _) = run(ternmq().arg("check"));
    let line = stdout.lines().find(|line| line.starts_with("limits.memory_max = ")).expect("shown");
    assert!(line.ends_with("B\"  # default, from half of the memory"), "{line}");
    let (_, stdout, _) = run(ternmq().arg("check").env("TERNMQ_LIMITS__MEMORY_MAX", "none"));
    assert!(stdout.contains("limits.memory_max = \"none\""), "{stdout}");
}

#[test]
fn a_listener_that_changes_is_told_by_its_address() {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = |bind: &str, more: &str| format!("[[listeners]]\nbind = \"{bind}\"\n{more}\n");
    let (one, two) = ("127.0.0.1:0", "[::1]:0");
    let path = file(directory.path(), &(listener(one, "") + &listener(two, "")));
    let mut broker = Running::start(ternmq().args(["--config", &path]));
    broker.until("started");
    // Their order is of no account, the address and the transport are what a listener is.
    let refuses = "allow_anonymous = false";
    file(directory.path(), &(listener(two, refuses) + &listener(one, "") + &listener("127.0.0.2:0", "")));
    broker.signal("HUP");
    let log = broker.until("reloaded");
    let told: Vec<&str> = log.lines().filter(|line| line.contains("changed")).collect();
    let (live, later): (Vec<&str>, Vec<&str>) = told.iter().partition(|line| !line.contains("restart"));
    assert_eq!(live.len(), 1, "{log}");
    assert!(live[0].contains("setting=listeners[[::1]:0].allow_anonymous value=false"), "{log}");
    assert!(later.iter().all(|line| line.contains("listeners[127.0.0.2:0]")) && !later.is_empty(), "{log}");
    broker.signal("TERM");
    assert_eq!(broker.end().0, Some(0));
}
