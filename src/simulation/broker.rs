//! A whole broker on files of the test's choice, and the power that it runs on.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::auth::gate::{Gate, Methods};
use crate::auth::throttle::ThrottleLimits;
use crate::broker::{Core, Security, WallClock};
use crate::config::{AuthConfig, Limits, ListenerConfig};
use crate::ledger::Position;
use crate::net;
use crate::storage::simulated::{Fault, SimulatedFiles, Step};
use crate::storage::{Files, Log, LogOptions};

/// Segments so small that a workload fills many.
pub(super) const SMALL: LogOptions = LogOptions {
    sync: crate::storage::Sync::Always,
    segment_bytes: 2 * 1024,
    pending_bytes_max: 64 * 1024,
    reserve_bytes: 0,
};

/// Time in which a broker that acknowledges too early does so, before the power goes in the step that would have allowed it.
const RASH: Duration = Duration::from_millis(2);

/// A running broker.
pub(super) struct TestBroker {
    pub(super) core: Arc<Core>,
    pub(super) addr: SocketAddr,
    runtime: Runtime,
    tending: Option<JoinHandle<()>>,
}

impl TestBroker {
    /// Opens what is there, then listens.
    pub(super) fn start(files: Arc<dyn Files>, options: LogOptions, limits: Limits) -> io::Result<Self> {
        Self::start_at(files, options, limits, WallClock::system())
    }

    /// The same at any time of day.
    pub(super) fn start_at(
        files: Arc<dyn Files>,
        options: LogOptions,
        limits: Limits,
        wall: WallClock,
    ) -> io::Result<Self> {
        let broker = Self::start_idle(files, options, limits, wall)?;
        broker.run_background();
        Ok(broker)
    }

    /// What the broker goes on with by itself begins.
    pub(super) fn run_background(&self) {
        self.runtime.spawn(Arc::clone(&self.core).run_background());
    }

    /// One in which nothing changes its owner, so that a crash finds it as it was given away.
    pub(super) fn start_without_hand_over(files: Arc<dyn Files>) -> io::Result<Self> {
        Self::start_idle(files, SMALL, Limits::default(), WallClock::system())
    }

    fn start_idle(
        files: Arc<dyn Files>,
        options: LogOptions,
        limits: Limits,
        wall: WallClock,
    ) -> io::Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let core = Core::open_with(files, options, limits, Security::default(), wall)?;
        let config = ListenerConfig::tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let gate = Methods::load(&AuthConfig::default(), false)
            .and_then(|methods| Gate::new(methods, ThrottleLimits::default()));
        let gate = Arc::new(gate.map_err(io::Error::other)?);
        let listener = net::bind(&config, gate).map_err(|error| io::Error::other(format!("{error:?}")))?;
        let addr = listener.local_addr;
        runtime.spawn(listener.listen()?.run(Arc::clone(&core)));
        runtime.spawn(Arc::clone(&core).run_timers());
        drop(inside);
        Ok(Self { core, addr, runtime, tending: None })
    }

    pub(super) fn log(&self) -> Arc<Log> {
        Arc::clone(self.core.log.as_ref().unwrap())
    }

    /// What the keeper does, now; whatever comes of it.
    pub(super) fn tend(&mut self) {
        self.finish_tending();
        let (core, log) = (Arc::clone(&self.core), self.log());
        self.tending = Some(self.runtime.spawn(async move {
            let _ = core.tend(&log).await;
        }));
    }

    /// The same, up to the moment from which the checkpoint waits for the turns that have begun.
    pub(super) fn tend_until_gathered(&mut self) {
        self.finish_tending();
        let before = self.core.ledger.turns().phase();
        self.tend();
        while self.core.ledger.turns().phase() == before {
            std::thread::yield_now();
        }
    }

    /// Waits for the end of [`tend`](Self::tend), but not for ever: without power there is none.
    pub(super) fn finish_tending(&mut self) {
        if let Some(tending) = self.tending.take() {
            let _ =
                self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), tending).await });
        }
    }

    /// What the keeper does, which must succeed.
    pub(super) fn tend_now(&self) {
        let log = self.log();
        self.runtime.block_on(self.core.tend(&log)).unwrap();
    }

    /// What the keeper does between checkpoints. Waits for its end, but not for ever: without power
    /// there is none.
    pub(super) fn free(&self) {
        let log = self.log();
        let freeing = self.core.try_to_free(&log);
        let _ = self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), freeing).await });
    }

    /// Until the log has come to there.
    pub(super) fn wait_for_log(&self, end: Position) {
        self.runtime.block_on(self.log().wait(end));
    }

    /// The end, in order: everything is written.
    pub(super) fn shut_down(self) {
        self.core.begin_shutdown();
        let gone = std::time::Instant::now() + Duration::from_secs(10);
        while self.core.metrics.sockets.get() > 0 && std::time::Instant::now() < gone {
            std::thread::yield_now();
        }
        self.runtime.block_on(self.core.finish_hand_overs());
        self.kill();
    }

    /// The end, in whatever order. Take the disk's image before.
    pub(super) fn kill(self) {
        let log = self.log();
        self.runtime.shutdown_timeout(Duration::from_secs(1));
        log.close();
    }
}

/// The power of a disk, the broker on it, and its clients: all fail at once.
#[derive(Clone)]
pub(super) struct Power(Arc<Mutex<Wires>>);

struct Wires {
    on: bool,
    sockets: Vec<TcpStream>,
}

/// The power is gone, or the connection with it.
#[derive(Debug)]
pub(super) struct Dead;

impl Power {
    /// Power that goes when this says so, which may say other faults as well.
    pub(super) fn with(
        files: &SimulatedFiles,
        mut plan: impl FnMut(&Step) -> Option<Fault> + Send + 'static,
    ) -> Self {
        let power = Self(Arc::new(Mutex::new(Wires { on: true, sockets: Vec::new() })));
        let wires = Arc::clone(&power.0);
        files.on_step(move |step| {
            let fault = plan(step);
            if fault == Some(Fault::PowerCut) {
                // What leaves now leaves too early: the step has not ended.
                std::thread::sleep(RASH);
                cut(&mut wires.lock());
            }
            fault
        });
        power
    }

    pub(super) fn is_on(&self) -> bool {
        self.0.lock().on
    }

    /// The power goes between two steps. The disk's image is to be taken after that.
    pub(super) fn cut(&self, files: &SimulatedFiles) {
        files.on_step(|_| Some(Fault::PowerCut));
        cut(&mut self.0.lock());
    }

    /// Ends with the power.
    pub(super) fn plug_in(&self, socket: &TcpStream) -> Result<(), Dead> {
        let mut wires = self.0.lock();
        if !wires.on {
            return Err(Dead);
        }
        wires.sockets.push(socket.try_clone().map_err(|_| Dead)?);
        Ok(())
    }
}

fn cut(wires: &mut Wires) {
    wires.on = false;
    for socket in wires.sockets.drain(..) {
        let _ = socket.shutdown(Shutdown::Both);
    }
}
