//! A blocking TCP connection with a deadline on every wait: what the clients of all versions stand on.

use super::server_packet::show;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long a test waits for something that must come. Generous: it is only ever used up by a failing test.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// The connection and what it brought that nobody has looked at.
#[derive(Debug)]
pub(super) struct Transport {
    stream: TcpStream,
    pub(super) received: Vec<u8>,
}

/// What waiting for bytes came to.
pub(super) enum Incoming {
    Bytes,
    Closed,
    Nothing,
}

impl Transport {
    #[track_caller]
    pub(super) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, DEADLINE).expect("TCP connection to the broker");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        Self { stream, received: Vec::new() }
    }

    /// The same from this address of the machine.
    #[track_caller]
    pub(super) fn connect_from(source: IpAddr, addr: SocketAddr) -> Self {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(source, 0).into()).expect("an address of this machine");
        socket.connect_timeout(&addr.into(), DEADLINE).expect("TCP connection to the broker");
        let stream = TcpStream::from(socket);
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(DEADLINE)).expect("write timeout");
        Self { stream, received: Vec::new() }
    }

    /// A broker that has already closed the connection is no failure here: what it has answered tells.
    #[track_caller]
    pub(super) fn send(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => {}
            Err(error) => panic!("sending {} failed: {error}", show(bytes)),
        }
    }

    /// Ends the sending half (FIN).
    pub(super) fn finish_sending(&mut self) {
        // The broker may have closed already: then there is nothing to end.
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// The bare socket.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Ends the connection by RST.
    pub(super) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
    }

    pub(super) fn read_until(&mut self, deadline: Instant) -> Incoming {
        let mut chunk = [0; 65536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Incoming::Nothing;
            }
            self.stream.set_read_timeout(Some(left)).expect("read timeout");
            match self.stream.read(&mut chunk) {
                Ok(0) => return Incoming::Closed,
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    return Incoming::Bytes;
                }
                Err(error) if is_closed(&error) => return Incoming::Closed,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("reading failed: {error}"),
            }
        }
    }
}

fn is_closed(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
