//! The time before CONNECT: a peer may make the broker hold little, and not for long.
//!
//! Up to [`FREE_BYTES`] of an unfinished CONNECT, or one that is not answered yet, are held for each peer; what is longer (a large will, say) counts
//! against `limits.handshake_bytes_max`, which all peers share. Nothing is ever reserved because a length was announced.

use super::proxy::looks_like_header;
use super::stream::Stream;
use crate::accounts::{Account, Charge};
use crate::broker::{Cause, Core};
use crate::protocol::{Framed, ProtocolVersion, frame};

/// Bytes of an unfinished CONNECT that are free to each peer.
const FREE_BYTES: usize = 4 * 1024;

/// The largest CONNECT there can be: fixed header, variable header and five fields of 65,535 bytes.
const CONNECT_BYTES_MAX: usize = 5 + 12 + 5 * (2 + 65_535);

/// CONNECT and what came in behind it.
pub(super) struct FirstPacket<'c> {
    pub(super) bytes: Vec<u8>,
    /// Length of the CONNECT.
    pub(super) total: usize,
    /// Until it is dropped: a login that has to wait for its turn holds them as well.
    _held: HeldBytes<'c>,
}

/// Reads until CONNECT is complete. It is framed, not decoded.
pub(super) async fn read_connect<'c>(core: &'c Core, stream: &mut Stream) -> Result<FirstPacket<'c>, Cause> {
    // A CONNECT is framed alike in every version.
    read_packet(core, stream, Vec::new(), ProtocolVersion::V311, Expected::Connect).await
}

/// Reads until the next packet is complete, which is to come before CONNACK as well; `bytes` are there already.
pub(super) async fn read_more<'c>(
    core: &'c Core,
    stream: &mut Stream,
    bytes: Vec<u8>,
    version: ProtocolVersion,
) -> Result<FirstPacket<'c>, Cause> {
    read_packet(core, stream, bytes, version, Expected::Any).await
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Connect,
    Any,
}

async fn read_packet<'c>(
    core: &'c Core,
    stream: &mut Stream,
    mut bytes: Vec<u8>,
    version: ProtocolVersion,
    expected: Expected,
) -> Result<FirstPacket<'c>, Cause> {
    let mut held = HeldBytes { core, charge: Charge::new(&core.accounts, Account::Handshakes, 0) };
    let packet_bytes_max = core.limits.now().packet_bytes_max.min(CONNECT_BYTES_MAX);
    loop {
        if expected == Expected::Connect && bytes.first().is_some_and(|byte| byte >> 4 != CONNECT_TYPE) {
            return Err(Cause::NotConnect { looks_like: looks_like(&bytes) });
        }
        match frame(&bytes, packet_bytes_max, version) {
            Ok(Framed::Frame(frame)) => {
                let total = frame.total();
                return Ok(FirstPacket { bytes, total, _held: held });
            }
            Ok(Framed::NeedMore { .. }) => held.charge(bytes.len().saturating_sub(FREE_BYTES))?,
            Err(_) if looks_like(&bytes).is_some() => {
                return Err(Cause::NotConnect { looks_like: looks_like(&bytes) });
            }
            Err(error) => return Err(error.into()),
        }
        let n = std::future::poll_fn(|cx| {
            super::worker::with(|worker| {
                // Small reads: what a peer sends behind its CONNECT stays in the kernel's buffer until we know the peer.
                let buffer = worker.buffer.get_mut(..FREE_BYTES).unwrap_or_default();
                let n = std::task::ready!(stream.poll_read(cx, buffer))?;
                bytes.extend_from_slice(buffer.get(..n).unwrap_or_default());
                std::task::Poll::Ready(std::io::Result::Ok(n))
            })
        })
        .await?;
        core.metrics.bytes_received.add(n as u64);
        if n == 0 {
            return Err(Cause::PeerClosed);
        }
    }
}

const CONNECT_TYPE: u8 = 1;

/// Peers that speak another protocol are told so in the log: it is the usual mistake of a configuration.
fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        _ if looks_like_header(bytes) => {
            Some("the PROXY protocol, from an address that is not in proxy_protocol_from")
        }
        [0x16, 0x03, ..] | [0x16] => Some("TLS on a plain port"),
        [b'G', b'E', ..] | [b'P', b'O' | b'U' | b'R', ..] | [b'H', b'E', ..] | [b'O', b'P', ..] => {
            Some("HTTP")
        }
        [b'S', b'S', b'H', ..] => Some("SSH"),
        _ => None,
    }
}

/// What a CONNECT is charged with; given back when it is answered, or the handshake ends otherwise.
struct HeldBytes<'c> {
    core: &'c Core,
    charge: Charge,
}

impl HeldBytes<'_> {
    fn charge(&mut self, wanted: usize) -> Result<(), Cause> {
        if wanted <= self.charge.bytes() {
            return Ok(());
        }
        self.charge.set(wanted);
        if self.core.accounts.of(Account::Handshakes) > self.core.limits.handshake_bytes_max() {
            return Err(Cause::HandshakeBudget);
        }
        Ok(())
    }
}
