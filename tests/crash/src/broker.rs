//! The broker under test: a program, a data directory, and SIGKILL.
//!
//! Each start gets a free port of its own. It lies below the ports that the system gives to clients: a client that
//! knocks at a port nobody listens on yet could otherwise be connected to itself.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Which broker, as the command line says it.
#[derive(Clone, Debug)]
pub enum Kind {
    /// TernMQ: path of the program.
    Ternmq(PathBuf),
    /// mosquitto with the strictest persistence it has.
    Mosquitto,
}

/// A broker that can be started again and again on the same data.
#[derive(Debug)]
pub struct Program {
    kind: Kind,
    directory: PathBuf,
    dies_with_us: bool,
}

/// A running broker; ends when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens, or will.
    pub addr: SocketAddr,
}

impl Program {
    /// A broker with its data below `directory`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new(kind: Kind, directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory.join("data"))?;
        // Kept to the end of ours if this is a system that can do it; otherwise only our own orderly end stops it.
        let dies_with_us = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        Ok(Self { kind, directory: directory.to_owned(), dies_with_us })
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where the broker's log lines go.
    pub fn log(&self) -> PathBuf {
        self.directory.join("broker.log")
    }

    /// Starts it. It does not listen yet when this returns.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(&self) -> io::Result<Process> {
        let addr = free_addr()?;
        let data = self.data();
        let (program, arguments) = match &self.kind {
            Kind::Ternmq(program) => {
                let bind = addr.to_string();
                let arguments = ["--bind".into(), bind.into(), "--data-dir".into(), data.into_os_string()];
                (program.clone(), arguments.to_vec())
            }
            Kind::Mosquitto => {
                let file = self.directory.join("mosquitto.conf");
                fs::write(&file, mosquitto_configuration(addr, &data))?;
                (mosquitto(), vec!["-c".into(), file.into_os_string()])
            }
        };
        let mut command = if self.dies_with_us {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let log: File = OpenOptions::new().create(true).append(true).open(self.log())?;
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Process { child: command.spawn()?, addr })
    }
}

impl Process {
    /// SIGKILL. The sockets of the process close at once.
    pub fn kill(&mut self) {
        // It fails only if the process has ended already, and then it is as dead as it should be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn mosquitto() -> PathBuf {
    let usual = PathBuf::from("/usr/sbin/mosquitto");
    if usual.exists() { usual } else { "mosquitto".into() }
}

/// Saves after every single change, looks every second; no limit drops anything. No window either: with one, it lets new
/// messages overtake those that wait for it. It would give up root and could then not write into our directory, hence
/// `user root`, which it ignores if we are somebody else.
fn mosquitto_configuration(addr: SocketAddr, data: &Path) -> String {
    format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\nsys_interval 0\n\
         persistence true\npersistence_location {}/\nautosave_interval 1\nautosave_on_changes true\n\
         max_queued_messages 0\nmax_queued_bytes 0\nmax_inflight_messages 0\nallow_duplicate_messages false\n\
         log_dest stderr\nlog_type error\nlog_type warning\nlog_type notice\n",
        addr.port(),
        data.display()
    )
}

fn free_addr() -> io::Result<SocketAddr> {
    let above = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse::<u64>().ok())
        .filter(|low| *low > 12_000)
        .unwrap_or(32_768);
    // Not from the seed: two runs of the same seed at the same time must not meet.
    let random = RandomState::new();
    for attempt in 0..1000u32 {
        let mut hasher = random.build_hasher();
        hasher.write_u32(attempt);
        let port = 10_240 + hasher.finish() % (above - 10_240);
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16));
        if TcpListener::bind(addr).is_ok() {
            return Ok(addr);
        }
    }
    Err(io::Error::other("no free port found"))
}
