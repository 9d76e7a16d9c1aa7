//! The PROXY protocol, versions 1 and 2: a header in front of the connection in which a proxy names the peer it speaks for.
//!
//! It is read where `proxy_protocol_from` of the listener names the one who connects, and nowhere else. Not a byte behind it is taken: TLS begins
//! there. Bounds: a line of version 1 has 107 bytes at most, a header of version 2 [`V2_BYTES_MAX`]. What follows the addresses in version 2
//! (TLVs) is passed over.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::broker::Cause;

/// The longest line of version 1, with its end.
const V1_BYTES_MAX: usize = 107;
/// The longest header of version 2 that is taken: proxies send some hundred bytes, with the name in a client certificate among them.
const V2_BYTES_MAX: usize = 16 + 2_048;
/// What version 2 begins with.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// What version 1 begins with.
const V1_PREFIX: &[u8] = b"PROXY ";
/// Bytes looked at in one go.
const CHUNK: usize = 256;

/// What the first bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    /// All of them belong to a header that is not complete.
    Incomplete,
    /// A header of so many bytes, and the peer it names; `None`: the proxy speaks for itself, or does not know.
    Complete(usize, Option<SocketAddr>),
}

/// Reads the header that must come first on a connection from a proxy. `None`: it names nobody, the proxy itself is the peer.
///
/// # Errors
/// There is no such header.
pub(super) async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, Cause> {
    let mut header = Vec::new();
    loop {
        let mut chunk = [0; CHUNK];
        let before = header.len();
        let n = stream.peek(&mut chunk).await?;
        if n == 0 {
            return Err(Cause::PeerClosed);
        }
        header.extend_from_slice(chunk.get(..n).unwrap_or_default());
        let (belong, source) = match parse(&header).map_err(Cause::ProxyHeader)? {
            Header::Incomplete => (n, None),
            Header::Complete(len, source) => (len.saturating_sub(before), Some(source)),
        };
        // They are there already.
        stream.read_exact(chunk.get_mut(..belong).unwrap_or_default()).await?;
        if let Some(source) = source {
            return Ok(source);
        }
    }
}

/// Whether the bytes begin as a header does: for a peer from which none is taken.
pub(super) fn looks_like_header(bytes: &[u8]) -> bool {
    bytes.starts_with(V1_PREFIX) || bytes.starts_with(&V2_SIGNATURE)
}

/// Judges the first bytes of a connection.
fn parse(bytes: &[u8]) -> Result<Header, &'static str> {
    if starts_alike(bytes, V1_PREFIX) {
        parse_v1(bytes)
    } else if starts_alike(bytes, &V2_SIGNATURE) {
        parse_v2(bytes)
    } else {
        Err("there is none")
    }
}

fn starts_alike(bytes: &[u8], with: &[u8]) -> bool {
    bytes.iter().zip(with).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Header, &'static str> {
    let within = bytes.get(..V1_BYTES_MAX).unwrap_or(bytes);
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() < V1_BYTES_MAX { Ok(Header::Incomplete) } else { Err("the line is too long") };
    };
    let line = bytes.get(V1_PREFIX.len()..end).unwrap_or_default();
    // Whatever stands behind it.
    if line == b"UNKNOWN" || line.starts_with(b"UNKNOWN ") {
        return Ok(Header::Complete(end + 2, None));
    }
    let line = std::str::from_utf8(line).map_err(|_| "the line is no text")?;
    let mut words = line.split(' ');
    let protocol = words.next().unwrap_or_default();
    let (Some(source), Some(target), Some(source_port), Some(target_port), None) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the line has not six words");
    };
    let is_v4 = match protocol {
        "TCP4" => true,
        "TCP6" => false,
        _ => return Err("neither TCP4, TCP6 nor UNKNOWN"),
    };
    let address = |text: &str| {
        let address: Option<IpAddr> =
            if is_v4 { text.parse().ok().map(IpAddr::V4) } else { text.parse().ok().map(IpAddr::V6) };
        address.ok_or("not an address of the version it names")
    };
    let (source, _) = (address(source)?, address(target)?);
    let (source_port, _) = (port(source_port)?, port(target_port)?);
    Ok(Header::Complete(end + 2, Some(SocketAddr::new(source.to_canonical(), source_port))))
}

fn port(text: &str) -> Result<u16, &'static str> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or("not a port")
}

fn parse_v2(bytes: &[u8]) -> Result<Header, &'static str> {
    let Some(&[command, family, high, low]) = bytes.get(12..16) else {
        return Ok(Header::Incomplete);
    };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let total = 16 + len;
    if total > V2_BYTES_MAX {
        return Err("it is too long");
    }
    // Local, the proxy's own connection, or one it passes on.
    let is_local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err("neither LOCAL nor PROXY of version 2"),
    };
    let Some(rest) = bytes.get(16..total) else { return Ok(Header::Incomplete) };
    if is_local {
        return Ok(Header::Complete(total, None));
    }
    let source = match family {
        // Not specified.
        0x00 => None,
        // TCP over IPv4: source, target, ports.
        0x11 => {
            let addresses: &[u8; 12] = rest.first_chunk().ok_or("too short for its addresses")?;
            let [a, b, c, d, .., high, low, _, _] = *addresses;
            Some((IpAddr::V4(Ipv4Addr::new(a, b, c, d)), u16::from_be_bytes([high, low])))
        }
        // TCP over IPv6.
        0x21 => {
            let addresses: &[u8; 36] = rest.first_chunk().ok_or("too short for its addresses")?;
            let [.., high, low, _, _] = *addresses;
            let source: &[u8; 16] = addresses.first_chunk().ok_or("too short for its addresses")?;
            Some((IpAddr::V6(Ipv6Addr::from(*source)), u16::from_be_bytes([high, low])))
        }
        _ => return Err("neither TCP over IPv4 nor TCP over IPv6"),
    };
    Ok(Header::Complete(total, source.map(|(address, port)| SocketAddr::new(address.to_canonical(), port))))
}

#[cfg(test)]
mod tests;
