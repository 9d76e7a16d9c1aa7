//! The broker under test, on a free port of the loopback interface: TernMQ in this process, or mosquitto, the control,
//! when `TERNMQ_TEST_BROKER=mosquitto`.
//!
//! TernMQ runs on a thread and a runtime of its own, so that blocking tests and asynchronous ones can use it alike, and
//! so that its tasks go on while a test blocks.

use super::mosquitto::Mosquitto;
use super::raw_client::DEADLINE;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use ternmq::config::{Config, ListenerConfig};
use ternmq::{Broker, Extensions, MetricsSnapshot};
use tokio::sync::oneshot;

/// What a test may set, in words every broker under test understands. Defaults are those of TernMQ.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Largest packet taken, in bytes, fixed header included.
    pub packet_bytes_max: usize,
    /// Unacknowledged QoS 1 and 2 messages per client.
    pub inflight_max: u16,
    /// A connection without complete CONNECT is closed after this time.
    pub connect_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let limits = Config::default().limits;
        Self {
            packet_bytes_max: limits.packet_bytes_max,
            inflight_max: limits.inflight_max,
            connect_timeout: limits.connect_timeout,
        }
    }
}

/// A broker of its own for one test; ends when dropped.
pub struct TestBroker {
    addrs: Vec<SocketAddr>,
    process: Process,
}

enum Process {
    Inside { broker: Arc<Broker>, stop: Option<oneshot::Sender<()>>, thread: Option<JoinHandle<()>> },
    Mosquitto(#[allow(dead_code)] Mosquitto),
}

impl TestBroker {
    /// A broker with default settings.
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// A broker with changed settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        if control_is_mosquitto() {
            let mosquitto = Mosquitto::start(&settings);
            return Self { addrs: vec![mosquitto.addr], process: Process::Mosquitto(mosquitto) };
        }
        Self::with_config(|config| {
            config.limits.packet_bytes_max = settings.packet_bytes_max;
            config.limits.inflight_max = settings.inflight_max;
            config.limits.connect_timeout = settings.connect_timeout;
        })
    }

    /// TernMQ with its durable state in `data_dir`, which outlives it: a later one started there finds it again. The
    /// others keep their state in memory.
    pub fn on_disk(data_dir: &Path, change: impl FnOnce(&mut Config)) -> Self {
        Self::with_config(|config| {
            config.data_dir = Some(data_dir.to_owned());
            change(config);
        })
    }

    /// TernMQ, whatever the environment says, with a changed configuration.
    pub fn with_config(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_extensions(change, Extensions::default())
    }

    /// The same with what a program adds to it.
    pub fn with_extensions(change: impl FnOnce(&mut Config), extensions: Extensions) -> Self {
        let mut config = Self::config();
        change(&mut config);
        Self::of(config, extensions)
    }

    /// The configuration that tests begin with: one listener on a free port.
    pub fn config() -> Config {
        let mut config = Config {
            listeners: vec![ListenerConfig::tcp((Ipv4Addr::LOCALHOST, 0).into())],
            sys_interval: None,
            ..Config::default()
        };
        config.limits.shutdown_timeout = Duration::from_millis(200);
        config
    }

    /// TernMQ with this configuration.
    pub fn of(mut config: Config, extensions: Extensions) -> Self {
        // The same tests with everything on record that can be.
        let on_disk = config.data_dir.is_none()
            && std::env::var_os("TERNMQ_TEST_STORAGE").is_some_and(|kind| kind == "disk");
        let scratch = on_disk.then(|| tempfile::tempdir().expect("a directory"));
        if let Some(scratch) = &scratch {
            config.data_dir = Some(scratch.path().to_owned());
        }
        let (stop, stopped) = oneshot::channel();
        let (started, start) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let broker =
                    Arc::new(Broker::start_with(config, extensions).await.expect("the broker starts"));
                started.send(Arc::clone(&broker)).expect("the test waits");
                // An error means that the test is gone, which is a reason to stop as well.
                let _ = stopped.await;
                broker.shutdown().await;
                drop(scratch);
            });
        });
        let broker = start.recv().expect("the broker starts");
        Self {
            addrs: broker.local_addrs().to_vec(),
            process: Process::Inside { broker, stop: Some(stop), thread: Some(thread) },
        }
    }

    /// Where it listens, or its first listener does.
    pub fn addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Where its listeners listen, in the order of the configuration.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Has TernMQ take up what has changed; returns what it could not.
    pub fn reload(&self, config: &Config) -> Vec<String> {
        match &self.process {
            Process::Inside { broker, .. } => broker.reload(config).expect("it runs"),
            Process::Mosquitto(_) => panic!("only TernMQ is asked to reload"),
        }
    }

    /// TernMQ's counters.
    pub fn metrics(&self) -> MetricsSnapshot {
        match &self.process {
            Process::Inside { broker, .. } => broker.metrics(),
            Process::Mosquitto(_) => panic!("counters are asked of TernMQ only"),
        }
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        let Process::Inside { stop, thread, .. } = &mut self.process else { return };
        drop(stop.take());
        let ended = thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the broker came to a bad end");
        }
    }
}

/// True when the broker under test is mosquitto, the control.
pub fn control_is_mosquitto() -> bool {
    std::env::var_os("TERNMQ_TEST_BROKER").is_some_and(|broker| broker == "mosquitto")
}

/// True, and says why, when the control runs and does not do what the calling test asks for.
pub fn skipped_on_mosquitto(why: &str) -> bool {
    if control_is_mosquitto() {
        println!("not asked of mosquitto: {why}");
    }
    control_is_mosquitto()
}

/// Waits until the broker's counters say what the test waits for.
#[track_caller]
pub fn eventually(
    broker: &TestBroker,
    what: &str,
    holds: impl Fn(&MetricsSnapshot) -> bool,
) -> MetricsSnapshot {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let metrics = broker.metrics();
        if holds(&metrics) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "{what} did not come about: {metrics:#?}");
        std::thread::yield_now();
    }
}
