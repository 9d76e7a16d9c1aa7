//! What comes before MQTT: the header of a proxy, the bounds for an address, TLS.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::TryAcquireError;
use tokio::time::Instant;

use super::listener::{ListenerShared, Policy};
use super::proxy;
use super::stream::Stream;
use super::tls_stream::TlsStream;
use super::worker;
use crate::broker::{AddressSlot, Cause, Core, UserSlot};

/// A handshake that waits gives up by so much before its time is over.
const MARGIN_MAX: Duration = Duration::from_millis(10);

/// The first byte of a record of TLS that belongs to a handshake.
const HANDSHAKE: u8 = 0x16;
/// The longest record there is.
const RECORD_BYTES_MAX: usize = 16_384;
/// Pauses before a record that is not whole is looked at again, doubled from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(2);
const PAUSE_MAX: Duration = Duration::from_millis(256);

/// What a connection is counted in; it gives its places back when its task ends.
#[derive(Default)]
pub(super) struct Slots {
    pub(super) address: Option<Box<AddressSlot>>,
    pub(super) user: Option<Box<UserSlot>>,
}

impl Policy {
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
    let deadline = Instant::now() + core.limits.now().connect_timeout;
    if shared.policy().is_proxy(peer.ip())
        && let Some(source) = proxy::read_header(&mut stream).await?
    {
        *peer = source;
        slots.address = core.admit_address(source.ip())?;
    }
    match &shared.tls {
        None => Ok(Stream::Tcp(Arc::new(stream))),
        Some(tls) => shake_hands(core, tls.config(), stream, deadline).await,
    }
}

/// The TLS handshake, when its turn has come. Who has not sent a whole ClientHello yet waits without a place among those under way, and without
/// TLS's memory.
async fn shake_hands(
    core: &Core,
    config: Arc<ServerConfig>,
    stream: TcpStream,
    deadline: Instant,
) -> Result<Stream, Cause> {
    client_hello(&stream).await?;
    let place = match core.tls_handshakes.try_acquire() {
        Ok(place) => Ok(place),
        Err(TryAcquireError::NoPermits) => {
            core.metrics.held.add("tls_handshakes_max", 1);
            if let Some(untold) = core.told.tell("limits.tls_handshakes_max", core.now()) {
                tracing::warn!(
                    limit = "limits.tls_handshakes_max",
                    value = core.limits.now().tls_handshakes_max,
                    untold,
                    "TLS handshakes have to wait; told every ten seconds at most"
                );
            }
            // A little less than the time for all of it, so that the reason is known.
            let until = deadline - MARGIN_MAX.min(core.limits.now().connect_timeout / 10);
            let waited = tokio::time::timeout_at(until, core.tls_handshakes.acquire()).await;
            waited.map_err(|_| Cause::TlsHandshakes)?
        }
        Err(TryAcquireError::Closed) => return Err(Cause::Shutdown),
    };
    let accepted = TlsStream::accept(config, stream).await;
    drop(place);
    accepted.map(Stream::Tls).map_err(|error| Cause::Tls(error.to_string()))
}

/// Waits until the first record of TLS is there as a whole. It stays where it is, in the kernel.
async fn client_hello(stream: &TcpStream) -> Result<(), Cause> {
    let mut pause = PAUSE_MIN;
    loop {
        let is_whole = poll_fn(|cx| {
            worker::with(|worker| {
                let mut seen = ReadBuf::new(&mut worker.buffer);
                let n = ready!(stream.poll_peek(cx, &mut seen))?;
                Poll::Ready(if n == 0 { Err(Cause::PeerClosed) } else { Ok(is_whole_record(seen.filled())) })
            })
        });
        if is_whole.await? {
            return Ok(());
        }
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Err(Cause::PeerClosed);
        }
        // A socket cannot say when there is more than there was; this is rare among those who mean it.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Whether the bytes are a record of a handshake as a whole, or nothing that could become one.
fn is_whole_record(bytes: &[u8]) -> bool {
    match bytes {
        [HANDSHAKE, 3, _, high, low, rest @ ..] => {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            rest.len() >= len || len > RECORD_BYTES_MAX
        }
        [HANDSHAKE] | [HANDSHAKE, 3, ..] => bytes.len() >= 5,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_waited_for_and_anything_else_is_not() {
        let record = [&[0x16, 3, 1, 0, 4][..], b"abcd"].concat();
        for n in 1..record.len() {
            assert!(!is_whole_record(&record[..n]), "{n}");
        }
        assert!(is_whole_record(&record) && is_whole_record(&[&record[..], b"more"].concat()));
        for other in [&b"\x10"[..], b"GET /", b"\x16\x02", b"\x16\x03\x01\xff\xff", b"\x15\x03\x01\x00\x02"] {
            assert!(is_whole_record(other), "{other:?}");
        }
    }
}
