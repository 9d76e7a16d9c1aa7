//! Standard error that nobody reads: the program serves everybody nevertheless, tells what was
//! lost, and ends.
//!
//! (What lines look like and the queue itself are tested beside their sources.)

mod support;

use std::io::{BufRead, BufReader, PipeReader, Write, pipe};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use support::{RawClient, ServerPacket};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections whose lines are more than a pipe (64 KiB) and the queue can take: two lines each, of
/// which one alone has these characters of the client id.
const CONNECTIONS: usize = 4_000;
const ID_CHARS: usize = 240;

/// A broker whose log is read when a test asks for a line, and not before.
struct Unread {
    child: Child,
    log: BufReader<PipeReader>,
    addr: std::net::SocketAddr,
}

impl Unread {
    fn start() -> Self {
        let (reader, writer) = pipe().expect("a pipe");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ternmq"));
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERNMQ_"))
        {
            command.env_remove(name);
        }
        command.env("TERNMQ_STORAGE__KIND", "memory").env("TERNMQ_SYS_INTERVAL", "1s");
        command.args(["--bind", "127.0.0.1:0"]);
        let child = command.stderr(writer).stdout(Stdio::null()).spawn().expect("the program starts");
        // Its writing end is the child's alone, so that the log ends with the child.
        drop(command);
        let mut log = BufReader::new(reader);
        let mut addr = None;
        loop {
            let line = next_line(&mut log).expect("it starts");
            if let Some((_, rest)) = line.split_once("address=") {
                addr = rest.split_whitespace().next().and_then(|addr| addr.parse().ok());
            }
            if line.contains(" started") {
                break;
            }
        }
        Self { child, log, addr: addr.expect("it says where it listens") }
    }

    fn fill(&self) {
        for n in 0..CONNECTIONS {
            let mut client = RawClient::clean(self.addr, &format!("{n:0>ID_CHARS$}"));
            client.send(&[0xe0, 0]);
            client.expect_closed();
        }
    }

    /// Exit code, and how long it took from the signal on.
    fn stop(&mut self) -> (Option<i32>, Duration) {
        let killed = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        assert!(killed.expect("kill").success());
        let began = Instant::now();
        (exit_code(&mut self.child), began.elapsed())
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// With which code it ends; `None`: it had to be killed, for it must not keep the test.
fn exit_code(child: &mut Child) -> Option<i32> {
    let pid = child.id().to_string();
    let (sender, ended) = channel::<()>();
    thread::spawn(move || {
        if ended.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
        }
    });
    let status = child.wait().expect("it was started");
    drop(sender);
    status.code()
}

fn next_line(log: &mut BufReader<PipeReader>) -> Option<String> {
    let mut line = String::new();
    (log.read_line(&mut line).expect("UTF-8") > 0).then_some(line)
}

/// The client that a line is about.
fn number(line: &str) -> Option<usize> {
    line.split_once("client_id=")?.1.get(..ID_CHARS)?.parse().ok()
}

#[test]
fn nobody_waits_for_the_reader_of_the_log_and_he_is_told_what_was_lost() {
    let mut broker = Unread::start();
    let mut quiet = RawClient::clean(broker.addr, "quiet");
    broker.fill();
    quiet.send(&[0xc0, 0]);
    quiet.expect(&[0xd0, 0]);
    quiet.subscribe("$SYS/broker/log/lines lost", 0);
    while matches!(quiet.expect_packet(), ServerPacket::Publish(lost) if lost.payload == b"0") {}
    let mut connected = Vec::new();
    let lost = loop {
        let line = next_line(&mut broker.log).expect("it runs");
        if let Some((_, lost)) = line.split_once("lines of the log were lost: ") {
            assert!(line.contains("  WARN ternmq::logging: "), "{line}");
            break lost.split_once("lines=").and_then(|(_, n)| n.trim_end().parse::<usize>().ok());
        }
        assert!(line.contains(" INFO ") && line.ends_with('\n'), "{line}");
        if line.contains(" connected ") {
            connected.extend(number(&line));
        }
    };
    let told = connected.len();
    assert!(connected.into_iter().eq(0..told), "the order of lines has changed");
    let lost = lost.expect("a number");
    let all = 2 * CONNECTIONS;
    // Of one client the first line may be told and the second lost.
    assert!((2 * told + lost).abs_diff(all) <= 1, "{told} clients told, {lost} of {all} lines lost");
    // From then on it is complete again, to the last line.
    drop(RawClient::clean(broker.addr, "again"));
    assert!(next_line(&mut broker.log).is_some_and(|line| line.contains(" connected client_id=again")));
    assert_eq!(broker.stop().0, Some(0));
    let mut last = String::new();
    while let Some(line) = next_line(&mut broker.log) {
        last = line;
    }
    assert!(last.ends_with(" stopped\n"), "{last}");
}

#[test]
fn the_end_does_not_wait_for_a_log_that_nobody_reads() {
    let mut broker = Unread::start();
    broker.fill();
    let (code, took) = broker.stop();
    assert_eq!(code, Some(0));
    assert!(took >= Duration::from_secs(1), "the reader had no time: {took:?}");
}

#[test]
fn a_reader_that_has_not_begun_gets_all_there_is_of_a_failed_start() {
    let mut broker = Unread::start();
    let taken = broker.addr.to_string();
    let (reader, writer) = pipe().expect("a pipe");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ternmq"));
    command.env("TERNMQ_STORAGE__KIND", "memory").args(["--bind", &taken, "--log", "trace"]);
    let mut child = command.stderr(writer).stdout(Stdio::null()).spawn().expect("the program starts");
    drop(command);
    assert_eq!(child.wait().expect("it was started").code(), Some(1));
    let lines: Vec<String> = BufReader::new(reader).lines().map_while(Result::ok).collect();
    assert!(
        lines.last().is_some_and(|line| line.starts_with("ternmq: ") && line.contains(&taken)),
        "{lines:?}"
    );
    assert_eq!(broker.stop().0, Some(0));
}

/// Reported: it went on for ever, because what is wrong with a configuration is said before the log
/// is set up.
#[test]
fn a_wrong_configuration_ends_it_also_if_nobody_reads_why() {
    let (_unread, mut writer) = pipe().expect("a pipe");
    // All that it holds.
    writer.write_all(&[b'x'; 64 * 1024]).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ternmq"));
    command.args(["--config", "/there/is/none.toml"]).stdout(Stdio::null()).stderr(writer);
    let mut child = command.spawn().expect("the program starts");
    assert_eq!(exit_code(&mut child), Some(2));
}
