//! The program itself as a child of the test: its address, its log, its memory, and its end by any signal.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Far longer than anything here takes; what has not happened by then will not.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker that runs.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    addr: SocketAddr,
}

impl Program {
    /// Starts it with this file as its configuration, and waits until it listens.
    pub(crate) fn start(directory: &Path, configuration: &str) -> Self {
        let file = directory.join("ternmq.toml");
        fs::write(&file, configuration).expect("a file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ternmq"));
        // What the machine that runs the tests has set is not for them.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("TERNMQ_"))
        {
            command.env_remove(name);
        }
        command.arg("--config").arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = channel();
        // Ends with the broker, which `Drop` sees to. Cut at line feeds only: a line is what a tool would take for one.
        std::thread::spawn(move || {
            let text = |line: Vec<u8>| String::from_utf8(line).unwrap_or_else(|e| panic!("not UTF-8: {e}"));
            log.split(b'\n').map_while(Result::ok).try_for_each(|line| sender.send(text(line)))
        });
        let addr = (std::net::Ipv4Addr::LOCALHOST, 0).into();
        let mut program = Program { child, lines, addr };
        let log = program.until("started").join("\n");
        let address = log.split("address").nth(1).expect("it says where it listens");
        let end = |c: char| !(c.is_ascii_digit() || c == '.' || c == ':');
        let address = address.trim_start_matches(|c: char| !c.is_ascii_digit()).split(end).next();
        program.addr = address.and_then(|address| address.parse().ok()).expect("an address");
        program
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the line with `word` in it; gives all that was logged since the last call.
    #[track_caller]
    pub(crate) fn until(&mut self, word: &str) -> Vec<String> {
        let mut read = Vec::new();
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("no {word:?}: {e}: {read:#?}"));
            let found = line.contains(word);
            read.push(line);
            if found {
                return read;
            }
        }
    }

    /// Has it read its files again; gives all that was logged meanwhile.
    pub(crate) fn reload(&mut self) -> Vec<String> {
        self.signal("HUP");
        self.until("reloaded")
    }

    /// Bytes of memory that it holds.
    pub(crate) fn resident(&self) -> usize {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("Linux");
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("the second number of statm") * 4096
    }

    /// SIGKILL: no time for anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was started");
    }

    /// Stops it; gives the rest of its log.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.signal("TERM");
        let mut rest = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            rest.push(line);
        }
        assert_eq!(self.child.wait().expect("it was started").code(), Some(0), "{rest:#?}");
        rest
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().expect("kill").success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that failed must not leave its broker behind; one that has ended is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
