//! What comes before MQTT: the header of a proxy, the bounds for an address, TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::TryAcquireError;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::listener::ListenerShared;
use super::proxy;
use super::stream::Stream;
use crate::broker::{AddressSlot, Cause, Core, UserSlot};

/// A handshake that waits gives up by so much before its time is over.
const MARGIN_MAX: Duration = Duration::from_millis(10);

/// What a connection is counted in; it gives its places back when its task ends.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) address: Option<Box<AddressSlot>>,
    pub(super) user: Option<Box<UserSlot>>,
}

impl ListenerShared {
    /// Whether a header of the PROXY protocol comes from there.
    pub(super) fn is_proxy(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(address))
    }
}

/// A plain or TLS stream to the peer, which is the one that a proxy names.
///
/// # Errors
/// Why the connection does not come about.
pub(super) async fn open(
    core: &Arc<Core>,
    shared: &ListenerShared,
    mut stream: TcpStream,
    peer: &mut SocketAddr,
    slots: &mut Slots,
) -> Result<Stream, Cause> {
    let deadline = Instant::now() + core.limits.connect_timeout;
    if shared.is_proxy(peer.ip())
        && let Some(source) = proxy::read_header(&mut stream).await?
    {
        *peer = source;
        slots.address = core.admit_address(source.ip())?;
    }
    match &shared.tls {
        None => Ok(Stream::Tcp(Arc::new(stream))),
        Some(tls) => shake_hands(core, &tls.acceptor(), stream, deadline).await,
    }
}

/// The TLS handshake, when its turn has come. Who has sent nothing yet waits without a place among those under way, and without TLS's memory.
async fn shake_hands(
    core: &Core,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    deadline: Instant,
) -> Result<Stream, Cause> {
    if stream.peek(&mut [0]).await? == 0 {
        return Err(Cause::PeerClosed);
    }
    let place = match core.tls_handshakes.try_acquire() {
        Ok(place) => Ok(place),
        Err(TryAcquireError::NoPermits) => {
            core.metrics.held.add("tls_handshakes_max", 1);
            if let Some(untold) = core.told.tell("limits.tls_handshakes_max", core.now()) {
                tracing::warn!(
                    limit = "limits.tls_handshakes_max",
                    value = core.limits.tls_handshakes_max,
                    untold,
                    "TLS handshakes have to wait; told every ten seconds at most"
                );
            }
            // A little less than the time for all of it, so that the reason is known.
            let until = deadline - MARGIN_MAX.min(core.limits.connect_timeout / 10);
            let waited = tokio::time::timeout_at(until, core.tls_handshakes.acquire()).await;
            waited.map_err(|_| Cause::TlsHandshakes)?
        }
        Err(TryAcquireError::Closed) => return Err(Cause::Shutdown),
    };
    let accepted = acceptor.accept(stream).await;
    drop(place);
    Ok(Stream::Tls(Box::new(accepted.map_err(|error| Cause::Tls(error.to_string()))?)))
}
