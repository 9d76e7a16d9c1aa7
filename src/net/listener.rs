//! `Listener`: binds, accepts, and starts a task for each connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

/// A listener that is bound and will accept.
pub(crate) struct BoundListener {
    listener: TcpListener,
    /// The address with the real port.
    pub(crate) local_addr: SocketAddr,
    shared: Arc<ListenerShared>,
}

/// What the connections of one listener share.
pub(super) struct ListenerShared {
    bind: SocketAddr,
    pub(super) tls: Option<TlsServer>,
    /// Which name in a client's certificate is its user name.
    user_name: CertificateName,
    pub(super) allow_anonymous: bool,
    pub(super) refused_publish: RefusedPublish,
    pub(super) methods: Option<Vec<AuthMethod>>,
    pub(super) gate: Arc<Gate>,
    /// Who names the real peer in a header of the PROXY protocol.
    pub(super) proxies: Vec<Network>,
}

impl ListenerShared {
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

/// The certificates of a listener, to be read again.
pub(crate) struct Certificates(Arc<ListenerShared>);

impl Certificates {
    /// Reads the files that the configuration now names for the listener at this address. Connections that are there stay.
    ///
    /// # Errors
    /// What is wrong; everything is then as it was.
    pub(crate) fn reload(&self, listeners: &[ListenerConfig]) -> Result<(), String> {
        let Some(server) = &self.0.tls else { return Ok(()) };
        let listener = listeners.iter().find(|listener| listener.bind == self.0.bind);
        match listener.map(|listener| &listener.transport) {
            Some(Transport::Tls(tls)) => {
                server.reload(tls).map_err(|error| format!("listener {}: {error}", self.0.bind))
            }
            // Told as a change that needs a restart.
            _ => Ok(()),
        }
    }

    /// Whole days until the first certificate ends; `None` without TLS.
    pub(crate) fn days_left(&self, now: SystemTime) -> Option<i64> {
        self.0.tls.as_ref().map(|server| server.days_left(now))
    }
}

/// Why a listener could not be set up.
#[derive(Debug)]
pub(crate) enum BindError {
    Io(io::Error),
    Tls(TlsError),
}

/// Binds the address and loads the certificates; nothing is accepted yet.
pub(crate) fn bind(config: &ListenerConfig, gate: Arc<Gate>) -> Result<BoundListener, BindError> {
    let tls = match &config.transport {
        Transport::Tcp => None,
        Transport::Tls(tls) => Some(TlsServer::load(tls).map_err(BindError::Tls)?),
    };
    let listener = listen(config.bind).map_err(BindError::Io)?;
    let local_addr = listener.local_addr().map_err(BindError::Io)?;
    let user_name = match &config.transport {
        Transport::Tls(tls) => tls.user_name,
        Transport::Tcp => CertificateName::None,
    };
    let shared = ListenerShared {
        bind: config.bind,
        tls,
        user_name,
        allow_anonymous: config.allow_anonymous,
        refused_publish: config.refused_publish,
        methods: config.auth.clone(),
        gate,
        proxies: config.proxy_protocol_from.clone(),
    };
    Ok(BoundListener { listener, local_addr, shared: Arc::new(shared) })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // "[::]:1883" and "0.0.0.0:1883" are two listeners, wherever the system's default stands.
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for the connections of the last run to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl BoundListener {
    /// What of it can be read again while it runs.
    pub(crate) fn certificates(&self) -> Certificates {
        Certificates(Arc::clone(&self.shared))
    }

    /// Accepts until the broker shuts down.
    pub(crate) async fn run(self, core: Arc<Core>) {
        let mut back_off = BackOff::default();
        let mut full = false;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = core.shut_down() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    back_off.succeeded(self.local_addr);
                    let sockets = core.metrics.sockets.increment();
                    let over = sockets > core.limits.connections_max as u64;
                    if over && !full {
                        tracing::warn!(
                            listener = %self.local_addr,
                            limit = "limits.connections_max",
                            value = core.limits.connections_max,
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
                    if !self.shared.is_proxy(peer.ip()) {
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
