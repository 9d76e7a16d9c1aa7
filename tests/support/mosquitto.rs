//! mosquitto as the control: the same tests against a broker that thousands use show that they ask the right thing.
//!
//! The process lives no longer than the test process: a small shell holds a pipe from us and ends mosquitto when the
//! pipe closes, however we ended.

use super::broker::Settings;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const SUPERVISOR: &str = r#"mosquitto=$(command -v mosquitto || echo /usr/sbin/mosquitto)
"$mosquitto" -c "$0" & broker=$!
( read -r _; kill "$broker" ) <&3 & watcher=$!
wait "$broker"; kill "$watcher" 2>/dev/null"#;

/// A running mosquitto; ends when dropped.
#[derive(Debug)]
pub(super) struct Mosquitto {
    pub(super) addr: SocketAddr,
    supervisor: Child,
    _directory: TempDir,
}

impl Mosquitto {
    /// Starts mosquitto on a free port. Another process may grab the port in between: then another one is tried.
    pub(super) fn start(settings: &Settings) -> Self {
        (0..5).find_map(|_| Self::try_start(settings)).expect("mosquitto starts")
    }

    fn try_start(settings: &Settings) -> Option<Self> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = free.local_addr().expect("address of the free port");
        drop(free);
        let directory = tempfile::tempdir().expect("temporary directory");
        let file = directory.path().join("mosquitto.conf");
        let text = format!(
            "listener {} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n\
             set_tcp_nodelay true\nsys_interval 0\nallow_duplicate_messages false\nmax_queued_messages 10000\n\
             max_inflight_messages {}\nmax_packet_size {}\n",
            addr.port(),
            settings.inflight_max,
            settings.packet_bytes_max
        );
        std::fs::write(&file, text).expect("configuration of mosquitto");
        let mut supervisor = Command::new("sh")
            .args(["-c", &format!("exec 3<&0; {SUPERVISOR}")])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut log = BufReader::new(supervisor.stderr.take().expect("log of mosquitto"));
        let mut line = String::new();
        loop {
            line.clear();
            if log.read_line(&mut line).unwrap_or(0) == 0 {
                // It ended: the port was taken.
                let _ = supervisor.wait();
                return None;
            }
            if line.trim_end().ends_with("running") {
                break;
            }
        }
        // Somebody has to empty the pipe, else mosquitto would come to a stop when it is full.
        std::thread::spawn(move || std::io::copy(&mut log.by_ref(), &mut std::io::sink()));
        Some(Self { addr, supervisor, _directory: directory })
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
