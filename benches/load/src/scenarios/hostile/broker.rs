//! A broker of this program's own: started on a free port with its data in a directory that goes with it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Result, fault};

/// How long it may take until it listens.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(20);

/// A running broker; ends when dropped.
pub(super) struct Broker {
    child: Child,
    directory: PathBuf,
    pub(super) address: SocketAddrV4,
}

impl Broker {
    /// Starts the program with its own defaults and waits until it listens.
    pub(super) fn start(program: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let directory = std::env::temp_dir().join(format!("load-hostile-{}-{port}", std::process::id()));
        fs::create_dir_all(directory.join("data"))?;
        let log = fs::File::create(directory.join("log"))?;
        let mut command = if dies_with_us() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        if program.file_name().is_some_and(|name| name.to_string_lossy().contains("mosquitto")) {
            let file = directory.join("mosquitto.conf");
            fs::write(&file, mosquitto(port, &directory.join("data")))?;
            command.arg("-c").arg(file);
        } else {
            command.arg("--bind").arg(address.to_string());
            command.arg("--data-dir").arg(directory.join("data")).args(["--log", "warn"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut broker = Self { child: command.spawn()?, directory, address };
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = broker.child.try_wait()? {
                return fault(format!("the broker ended at once: {status}"));
            }
            if begun.elapsed() > PATIENCE {
                return fault("the broker does not listen");
            }
            std::thread::sleep(GLANCE);
        }
        Ok(broker)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Whether this system can end the broker when this program is ended from outside.
fn dies_with_us() -> bool {
    let tried = Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// The bounds that TernMQ has by default.
fn mosquitto(port: u16, data: &Path) -> String {
    format!(
        "listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nset_tcp_nodelay true\nlog_type none\n\
         persistence true\npersistence_location {}/\nmax_queued_messages 10000\nmax_inflight_messages 64\n",
        data.display()
    )
}
