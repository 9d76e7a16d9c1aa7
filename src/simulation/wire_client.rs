//! A connection of a client whose power may go at any time: nothing panics then, it is only [`Dead`].

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::broker::{Dead, Power};
use super::support::server_packet::{self, ServerPacket};
use super::support::wire::{Connect, PINGREQ};

/// What must come comes within this.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
    power: Power,
}

impl Wire {
    /// Connects; whether a session was present.
    pub(super) fn open(addr: SocketAddr, power: &Power, connect: &Connect) -> Result<(Self, bool), Dead> {
        let stream = match TcpStream::connect_timeout(&addr, DEADLINE) {
            Ok(stream) => stream,
            Err(_) if !power.is_on() => return Err(Dead),
            Err(error) => panic!("no connection: {error}"),
        };
        stream.set_nodelay(true).unwrap();
        power.plug_in(&stream)?;
        let mut wire = Self { stream, received: Vec::new(), power: power.clone() };
        wire.send(&connect.bytes())?;
        match wire.expect()? {
            ServerPacket::ConnAck(present, 0) => Ok((wire, present)),
            other => panic!("expected CONNACK, got {other:?}"),
        }
    }

    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Dead> {
        match self.stream.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) => self.died(&error),
        }
    }

    fn died<T>(&self, why: &dyn std::fmt::Debug) -> Result<T, Dead> {
        // The broker's end of a connection may go first; the power follows at once.
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.power.is_on() {
            assert!(Instant::now() < deadline, "the broker has closed a connection: {why:?}");
            std::thread::yield_now();
        }
        Err(Dead)
    }

    /// The next packet, which must come.
    pub(super) fn expect(&mut self) -> Result<ServerPacket, Dead> {
        match self.next(DEADLINE)? {
            Some(packet) => Ok(packet),
            None => panic!("nothing came in time"),
        }
    }

    /// The next packet; `None` if none comes within that time.
    pub(super) fn next(&mut self, time: Duration) -> Result<Option<ServerPacket>, Dead> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(packet) = server_packet::take(&mut self.received) {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.stream.set_read_timeout(Some(left)).unwrap();
            let mut chunk = [0; 16384];
            match self.stream.read(&mut chunk) {
                Ok(0) => return self.died(&"end of input"),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) => return self.died(&error),
            }
        }
    }

    /// Everything up to the answer to a PINGREQ.
    pub(super) fn until_ping(&mut self, mut each: impl FnMut(&mut Self, ServerPacket)) -> Result<(), Dead> {
        self.send(&PINGREQ)?;
        loop {
            match self.expect()? {
                ServerPacket::PingResp => return Ok(()),
                packet => each(self, packet),
            }
        }
    }

    /// Sends a last packet and waits for the broker to close.
    pub(super) fn leave(mut self, last: &[u8]) -> Result<(), Dead> {
        self.send(last)?;
        let mut chunk = [0; 4096];
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        loop {
            match self.stream.read(&mut chunk) {
                // Also when the power goes: the end is seen only where it did not.
                Ok(0) => return if self.power.is_on() { Ok(()) } else { Err(Dead) },
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset && self.power.is_on() => {
                    return Ok(());
                }
                Err(_) if !self.power.is_on() => return Err(Dead),
                Err(error) => panic!("the broker did not close: {error}"),
            }
        }
    }
}
