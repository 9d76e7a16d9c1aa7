//! All connections on one thread: an edge-triggered epoll, one large read buffer, one write per connection and turn.
//!
//! A turn writes what has been appended since the last one, waits, reads, and hands over each packet. What the
//! receiver of a packet appends in return leaves at the start of the next turn, all of it together: the generator
//! must cost little itself, as it shares the cores with the broker. Sockets are bound to many loopback addresses, so
//! that tens of thousands of short connections do not run out of ports.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use crate::error::{Result, fault};
use crate::mqtt::{Output, Packet, Version, decode};
use crate::tls::Tls;

/// Large enough that a saturated subscriber is read in few calls.
const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// Source addresses 127.0.1.1 and following.
const SOURCES: u64 = 200;
const TIMER: u64 = u64::MAX;

/// A connection. Numbers are used again after `close`.
pub type Id = usize;

/// What a turn hands over.
#[derive(Debug)]
pub enum Event<'a> {
    /// A whole packet arrived.
    Packet(Packet<'a>),
    /// The broker closed the connection; its number is free.
    Closed,
}

/// What is at the other end, and how to speak with it.
#[derive(Debug, Clone)]
pub struct Link {
    /// Where it listens.
    pub address: SocketAddrV4,
    /// The version of MQTT.
    pub version: Version,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

struct Connection {
    stream: TcpStream,
    tls: Option<Box<Tls>>,
    /// Tells events of this connection from those of the previous one with the same number.
    generation: u32,
    out: Output,
    /// The beginning of a packet whose rest has not arrived.
    partial: Vec<u8>,
    is_dirty: bool,
    is_blocked: bool,
    is_paused: bool,
}

/// See the module's documentation.
pub struct Net {
    link: Link,
    epoll: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Option<Connection>>,
    free: Vec<Id>,
    dirty: Vec<Id>,
    buffer: Vec<u8>,
    /// What came out of TLS.
    plain: Vec<u8>,
    events: Vec<epoll::Event>,
    opened: u64,
    writes: u64,
}

impl Net {
    /// Nothing is opened yet.
    pub fn new(link: Link) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        epoll::add(&epoll, &timer, EventData::new_u64(TIMER), EventFlags::IN | EventFlags::ET)?;
        Ok(Self {
            link,
            epoll,
            timer,
            connections: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ_BYTES],
            plain: Vec::new(),
            events: Vec::with_capacity(EVENTS),
            opened: 0,
            writes: 0,
        })
    }

    /// Starts to connect; bytes may be appended at once.
    pub fn open(&mut self) -> Result<Id> {
        self.open_to(self.link.address)
    }

    /// The same to somebody else who sends what a broker could.
    pub fn open_to(&mut self, address: SocketAddrV4) -> Result<Id> {
        let tls = self.link.tls.as_ref().map(Tls::new).transpose()?.map(Box::new);
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if address.ip().is_loopback() {
            let last = 1 + (self.opened % SOURCES) as u8;
            bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, last), 0))?;
        }
        match connect(&socket, &address) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        self.opened += 1;
        let generation = self.opened as u32;
        let id = self.free.pop().unwrap_or(self.connections.len());
        if id == self.connections.len() {
            self.connections.push(None);
        }
        let data = EventData::new_u64(u64::from(generation) << 32 | id as u64);
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.epoll, &socket, data, interest)?;
        self.connections[id] = Some(Connection {
            stream: TcpStream::from(socket),
            // The client speaks first.
            is_dirty: tls.is_some(),
            tls,
            generation,
            out: Output::new(self.link.version),
            partial: Vec::new(),
            // Until the first event says that the connection stands.
            is_blocked: true,
            is_paused: false,
        });
        if self.link.tls.is_some() {
            self.dirty.push(id);
        }
        Ok(id)
    }

    /// Where to append what is to be sent; it leaves at the start of the next turn.
    ///
    /// # Panics
    /// If the connection has been closed: the caller is wrong.
    pub fn out(&mut self, id: Id) -> &mut Output {
        let connection = self.connections[id].as_mut().expect("an open connection");
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
        &mut connection.out
    }

    /// Calls that wrote something so far: with the number of messages it tells how batched the load is.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Never reads from this connection again.
    pub fn pause(&mut self, id: Id) {
        if let Some(connection) = &mut self.connections[id] {
            connection.is_paused = true;
        }
    }

    /// Closes without a word.
    pub fn close(&mut self, id: Id) {
        if let Some(connection) = self.connections[id].take() {
            // Errors say that the peer was faster.
            let _ = connection.stream.shutdown(Shutdown::Both);
            self.free.push(id);
        }
    }

    /// Wakes the turns at `when`, to microseconds, unless called again before.
    pub fn wake_at(&mut self, when: Instant) -> Result<()> {
        let wait = when.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval, it_value })?;
        Ok(())
    }

    /// Writes, waits at most `patience` for something to happen, reads.
    pub fn turn(
        &mut self,
        patience: Duration,
        mut receive: impl FnMut(&mut Self, Id, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        while let Some(id) = self.dirty.pop() {
            self.write(id);
        }
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let timeout =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: i64::from(patience.subsec_nanos()) };
        match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            let id = data as u32 as Id;
            let connection = self.connections.get_mut(id).and_then(Option::as_mut);
            let Some(connection) = connection.filter(|c| u64::from(c.generation) == data >> 32) else {
                continue;
            };
            if flags.intersects(EventFlags::OUT | EventFlags::ERR | EventFlags::HUP) {
                connection.is_blocked = false;
                self.write(id);
            }
            let is_ending = flags.intersects(EventFlags::RDHUP | EventFlags::ERR | EventFlags::HUP);
            if is_ending || flags.contains(EventFlags::IN) {
                result = self.read(id, is_ending, &mut buffer, &mut receive);
            }
            if result.is_err() {
                break;
            }
        }
        self.buffer = buffer;
        self.events = events;
        result
    }

    fn write(&mut self, id: Id) {
        let Some(connection) = &mut self.connections[id] else { return };
        connection.is_dirty = false;
        let Connection { stream, tls, out, is_blocked, .. } = connection;
        let mut written = 0;
        if let Some(tls) = tls {
            // A failure is a broken session; the read that follows tells the caller.
            let _ = tls.encrypt(&out.bytes);
            written = out.bytes.len();
        }
        while !*is_blocked {
            let result = match tls {
                Some(tls) if tls.has_output() => tls.write(stream),
                None if written < out.bytes.len() => stream.write(&out.bytes[written..]),
                _ => break,
            };
            match result {
                Ok(length) => {
                    self.writes += 1;
                    written += if tls.is_none() { length } else { 0 };
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => *is_blocked = true,
                // The read that follows tells the caller.
                Err(_) => {
                    written = out.bytes.len();
                    break;
                }
            }
        }
        out.bytes.drain(..written);
    }

    fn read(
        &mut self,
        id: Id,
        is_ending: bool,
        buffer: &mut [u8],
        receive: &mut impl FnMut(&mut Self, Id, Event<'_>) -> Result<()>,
    ) -> Result<()> {
        loop {
            let Some(connection) = self.connections[id].as_mut().filter(|c| !c.is_paused) else {
                return Ok(());
            };
            let generation = connection.generation;
            let length = match connection.stream.read(buffer) {
                Ok(0) => 0,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => 0,
            };
            if length == 0 {
                self.close(id);
                return receive(self, id, Event::Closed);
            }
            let mut partial = std::mem::take(&mut connection.partial);
            let mut plain = std::mem::take(&mut self.plain);
            let bytes = if let Some(tls) = &mut connection.tls {
                plain.clear();
                tls.decrypt(&buffer[..length], &mut plain)?;
                if tls.has_output() && !connection.is_dirty {
                    connection.is_dirty = true;
                    self.dirty.push(id);
                }
                plain.as_slice()
            } else {
                &buffer[..length]
            };
            let used = if partial.is_empty() {
                let used = self.hand_over(id, bytes, receive)?;
                partial.extend_from_slice(&bytes[used..]);
                0
            } else {
                partial.extend_from_slice(bytes);
                self.hand_over(id, &partial, receive)?
            };
            partial.drain(..used);
            self.plain = plain;
            match self.connections[id].as_mut().filter(|c| c.generation == generation) {
                Some(connection) => connection.partial = partial,
                None => return Ok(()),
            }
            // A short read has emptied the socket; the next bytes make a new event. The end that came with the last
            // bytes makes none.
            if length < buffer.len() && !is_ending {
                return Ok(());
            }
        }
    }

    /// How many bytes were whole packets.
    fn hand_over(
        &mut self,
        id: Id,
        bytes: &[u8],
        receive: &mut impl FnMut(&mut Self, Id, Event<'_>) -> Result<()>,
    ) -> Result<usize> {
        let mut used = 0;
        while let Some((packet, total)) = decode(&bytes[used..], self.link.version)? {
            used += total;
            receive(self, id, Event::Packet(packet))?;
        }
        Ok(used)
    }
}

/// For connections that have to stay: their end is the end of the run.
pub fn expect_packet<'a>(id: Id, event: Event<'a>) -> Result<Packet<'a>> {
    match event {
        Event::Packet(packet) => Ok(packet),
        Event::Closed => fault(format!("the broker closed connection {id}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_end_that_comes_with_the_last_bytes_is_seen() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        let mut net = Net::new(Link { address, version: Version::V3, tls: None }).unwrap();
        let id = net.open().unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(&[0x20, 2, 0, 0]).unwrap();
        drop(peer);
        let (mut packets, mut is_closed) = (0, false);
        let began = Instant::now();
        while !is_closed && began.elapsed() < Duration::from_secs(5) {
            net.turn(Duration::from_millis(10), |_, from, event| {
                assert_eq!(from, id);
                match event {
                    Event::Packet(_) => packets += 1,
                    Event::Closed => is_closed = true,
                }
                Ok(())
            })
            .unwrap();
        }
        assert!(is_closed && packets == 1, "{packets} packets");
    }
}
