//! `Listener`: binds, accepts, and starts a task for each connection.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use parking_lot::{Mutex, RwLock};
use rustls::pki_types::CertificateDer;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::connection;
use super::entry::Slots;
use super::tls::{TlsError, TlsServer, certificate_user};
use crate::auth::gate::{Certificate, Gate};
use crate::broker::Core;
use crate::config::{AuthMethod, CertificateName, ListenerConfig, Network, RefusedPublish, Transport};

/// Connections that the kernel completes before we accept them: a fleet that reconnects at once must not run into SYN retries.
const BACKLOG: i32 = 4_096;

/// Pauses after failed accepts, doubled from the first to the last.
const BACK_OFF_MIN: Duration = Duration::from_millis(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// A listener whose address is reserved. Who connects is refused by the system until it
/// [listens](Self::listen).
pub(crate) struct BoundListener {
    socket: Socket,
    /// The address with the real port.
    pub(crate) local_addr: SocketAddr,
    shared: Arc<ListenerShared>,
}

/// A listener that will accept.
pub(crate) struct Listener {
    local_addr: SocketAddr,
    shared: Arc<ListenerShared>,
}

/// What the connections of one listener share.
pub(super) struct ListenerShared {
    bind: SocketAddr,
    /// `None`: it does not listen yet, or not any more.
    accepting: Mutex<Option<TcpListener>>,
    pub(super) tls: Option<TlsServer>,
    pub(super) gate: Arc<Gate>,
    policy: RwLock<Arc<Policy>>,
}

/// What is asked of the clients of a listener, as it is now.
pub(super) struct Policy {
    /// Which name in a client's certificate is its user name.
    user_name: CertificateName,
    pub(super) allow_anonymous: bool,
    pub(super) refused_publish: RefusedPublish,
    pub(super) methods: Option<Vec<AuthMethod>>,
    /// Who names the real peer in a header of the PROXY protocol.
    pub(super) proxies: Vec<Network>,
}

impl Policy {
    fn new(config: &ListenerConfig) -> Self {
        let user_name = match &config.transport {
            Transport::Tls(tls) => tls.user_name,
            Transport::Tcp => CertificateName::None,
        };
        Self {
            user_name,
            allow_anonymous: config.allow_anonymous,
            refused_publish: config.refused_publish,
            methods: config.auth.clone(),
            proxies: config.proxy_protocol_from.clone(),
        }
    }

    /// What a certificate that the listener's CA has signed says of its client: a user, or, where it is asked for no name, that the
    /// client may come in. One that lacks the name says nothing.
    pub(super) fn credentials(&self, certificate: &CertificateDer<'_>) -> Certificate {
        match (self.user_name, certificate_user(certificate, self.user_name)) {
            (CertificateName::None, _) => Certificate::Good,
            (_, Some(user)) => Certificate::Names(user),
            (_, None) => Certificate::None,
        }
    }
}

impl ListenerShared {
    /// What counts for a client that comes now.
    pub(super) fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.read())
    }

    /// The next connection; `None` when it was closed. Only one may wait here.
    async fn accept(&self) -> Option<io::Result<(TcpStream, SocketAddr)>> {
        poll_fn(|context| match &*self.accepting.lock() {
            Some(listener) => listener.poll_accept(context).map(Some),
            None => Poll::Ready(None),
        })
        .await
    }

    /// The address is free when this returns.
    fn close(&self) {
        *self.accepting.lock() = None;
    }
}

/// What can change of a listener while it runs.
pub(crate) struct LiveListener {
    shared: Arc<ListenerShared>,
    /// Of the listeners with its address in the configuration (port 0 can be there twice) it is the one with this number.
    place: usize,
}

impl LiveListener {
    /// Accepts nobody any more. The address is free when this returns; who is connected stays.
    pub(crate) fn close(&self) {
        self.shared.close();
    }

    /// Reads the files that the configuration now names for the listener at this address. Connections that are there stay.
    ///
    /// # Errors
    /// What is wrong; everything is then as it was.
    pub(crate) fn reload_files(&self, listeners: &[ListenerConfig]) -> Result<(), String> {
        match (&self.shared.tls, self.find(listeners).map(|listener| &listener.transport)) {
            (Some(server), Some(Transport::Tls(tls))) => {
                server.reload(tls).map_err(|error| format!("listener {}: {error}", self.shared.bind))
            }
            _ => Ok(()),
        }
    }

    /// Asks of those who come from now on what the configuration says.
    pub(crate) fn set_policy(&self, listeners: &[ListenerConfig]) {
        if let Some(listener) = self.find(listeners) {
            *self.shared.policy.write() = Arc::new(Policy::new(listener));
        }
    }

    /// The listener in a configuration; `None` if it is not there, or is to be another kind of listener: that is told as a change that needs
    /// a restart.
    fn find<'a>(&self, listeners: &'a [ListenerConfig]) -> Option<&'a ListenerConfig> {
        let mut same = listeners.iter().filter(|listener| listener.bind == self.shared.bind);
        let is_tls = self.shared.tls.is_some();
        same.nth(self.place).filter(|listener| is_tls == matches!(listener.transport, Transport::Tls(_)))
    }

    /// Whole days until the first certificate ends; `None` without TLS.
    pub(crate) fn days_left(&self, now: SystemTime) -> Option<i64> {
        self.shared.tls.as_ref().map(|server| server.days_left(now))
    }

    /// Whole days until the first list of revoked certificates is over; `None` without such lists.
    pub(crate) fn crl_days_left(&self, now: SystemTime) -> Option<i64> {
        self.shared.tls.as_ref()?.crl_days_left(now)
    }
}

/// Why a listener could not be set up.
#[derive(Debug)]
pub(crate) enum BindError {
    Io(io::Error),
    Tls(TlsError),
}

/// Loads the certificates and reserves the address; nobody can connect yet.
pub(crate) fn bind(config: &ListenerConfig, gate: Arc<Gate>) -> Result<BoundListener, BindError> {
    let tls = match &config.transport {
        Transport::Tcp => None,
        Transport::Tls(tls) => Some(TlsServer::load(tls).map_err(BindError::Tls)?),
    };
    let socket = reserve(config.bind).map_err(BindError::Io)?;
    let local_addr = local_addr(&socket).map_err(BindError::Io)?;
    let policy = RwLock::new(Arc::new(Policy::new(config)));
    let shared = ListenerShared { bind: config.bind, accepting: Mutex::default(), tls, gate, policy };
    Ok(BoundListener { socket, local_addr, shared: Arc::new(shared) })
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no address"))
}

/// A socket of this address. As long as it does not listen, another that asks for the address in
/// the same way may get it as well; of the two, the first one listens.
fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // "[::]:1883" and "0.0.0.0:1883" are two listeners, wherever the system's default stands.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

impl BoundListener {
    /// What of it can change while it runs. `place`: how many listeners before it in the configuration have its address.
    pub(crate) fn live(&self, place: usize) -> LiveListener {
        LiveListener { shared: Arc::clone(&self.shared), place }
    }

    /// From now on clients can connect.
    ///
    /// # Errors
    /// If somebody else listens on the address by now.
    pub(crate) fn listen(self) -> io::Result<Listener> {
        self.socket.listen(BACKLOG)?;
        *self.shared.accepting.lock() = Some(TcpListener::from_std(self.socket.into())?);
        Ok(Listener { local_addr: self.local_addr, shared: self.shared })
    }
}

impl Listener {
    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Accepts until the broker shuts down.
    pub(crate) async fn run(self, core: Arc<Core>) {
        self.accept_all(core).await;
        self.shared.close();
    }

    async fn accept_all(&self, core: Arc<Core>) {
        let mut back_off = BackOff::default();
        let mut full = false;
        loop {
            let accepted = tokio::select! {
                accepted = self.shared.accept() => accepted,
                () = core.shut_down() => return,
            };
            let Some(accepted) = accepted else { return };
            match accepted {
                Ok((stream, peer)) => {
                    back_off.succeeded(self.local_addr);
                    let sockets = core.metrics.sockets.increment();
                    let connections_max = core.limits.now().connections_max;
                    let over = sockets > connections_max as u64;
                    if over && !full {
                        tracing::warn!(
                            listener = %self.local_addr,
                            limit = "limits.connections_max",
                            value = connections_max,
                            "connections turned away; said once until there is room again"
                        );
                    }
                    full = over;
                    if over {
                        core.metrics.refused.add("connections_max", 1);
                        drop(stream);
                        connection::socket_closed(&core);
                        continue;
                    }
                    let mut slots = Slots::default();
                    // Of a proxy's connection the real address is known later.
                    if !self.shared.policy().is_proxy(peer.ip()) {
                        match core.admit_address(peer.ip()) {
                            Ok(slot) => slots.address = slot,
                            Err(cause) => {
                                core.metrics.refused.add(cause.label(), 1);
                                drop(stream);
                                connection::socket_closed(&core);
                                continue;
                            }
                        }
                    }
                    start(Arc::clone(&core), Arc::clone(&self.shared), stream, peer, slots);
                }
                Err(error) => {
                    core.metrics.accept_errors.add(1);
                    let pause = back_off.failed(self.local_addr, &error);
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        () = core.shut_down() => return,
                    }
                }
            }
        }
    }
}

fn start(core: Arc<Core>, shared: Arc<ListenerShared>, stream: TcpStream, peer: SocketAddr, slots: Slots) {
    // Packets are coalesced by us; waiting for more in the kernel only adds latency.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    tokio::spawn(connection::run(core, shared, stream, peer, slots));
}

/// Pauses between failed accepts, and one log line for a row of them.
#[derive(Default)]
struct BackOff {
    failures: u32,
}

impl BackOff {
    fn failed(&mut self, listener: SocketAddr, error: &io::Error) -> Duration {
        if self.failures == 0 {
            tracing::error!(
                %listener,
                %error,
                "cannot accept connections; trying again, those connected are served (for want of file descriptors raise \
                 the limit, `ulimit -n` or LimitNOFILE)"
            );
        }
        let pause = BACK_OFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    fn succeeded(&mut self, listener: SocketAddr) {
        if self.failures > 0 {
            tracing::info!(%listener, failures = self.failures, "accepting connections again");
            self.failures = 0;
        }
    }
}
