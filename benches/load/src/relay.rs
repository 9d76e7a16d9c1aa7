//! The floor: a process that passes packets on and knows no protocol, with what any broker has to do left in it: wait,
//! read, find the ends of the packets, write to each receiver.
//!
//! A connection begins with five bytes: what it is, and the number of its group. The answer is a CONNACK, for which the
//! load waits anyhow. Then whatever publishers of a group send goes to all subscribers of the group, once per turn of the loop and
//! subscriber. One thread, no bound on what waits for a subscriber: the load keeps few messages on their way.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::error::{Error, Result, fault};
use crate::mqtt::frame;

/// The first argument that makes this program a relay.
pub const COMMAND: &str = "relay-process";
/// The length of what a connection begins with.
pub const HELLO_BYTES: usize = 5;
const PUBLISHER: u8 = b'P';
const SUBSCRIBER: u8 = b'S';
const ANSWER: [u8; 4] = [0x20, 2, 0, 0];
const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 * 1024;
const EVENTS: usize = 1024;

/// What a connection begins with.
pub fn hello(is_publisher: bool, group: u32) -> [u8; HELLO_BYTES] {
    let [a, b, c, d] = group.to_be_bytes();
    [if is_publisher { PUBLISHER } else { SUBSCRIBER }, a, b, c, d]
}

/// A relay in a process of its own, so that its CPU time is read as a broker's is. It ends with this value.
#[derive(Debug)]
pub struct Relay {
    process: Child,
    /// Where it listens.
    pub address: SocketAddrV4,
}

impl Relay {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut process = command.arg(COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let Ok(address) = line.trim().parse() else {
            process.kill()?;
            process.wait()?;
            return fault("the relay did not say where it listens");
        };
        Ok(Self { process, address })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Listens on a free port, prints it, and passes packets on until standard input ends: whoever started it holds the
/// other end, and may be killed.
///
/// # Errors
/// Whatever keeps it from going on.
pub fn serve() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?);
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    run(&listener)
}

enum Role {
    Unknown,
    Publisher(u32),
    Subscriber,
}

struct Connection {
    stream: TcpStream,
    role: Role,
    /// From a publisher: the beginning of a packet. To a subscriber: what its socket did not take.
    waiting: Vec<u8>,
    is_blocked: bool,
}

#[derive(Default)]
struct Group {
    subscribers: Vec<usize>,
    /// What its publishers sent in this turn.
    input: Vec<u8>,
}

fn run(listener: &TcpListener) -> Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    listener.set_nonblocking(true)?;
    epoll::add(&epoll, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut groups: HashMap<u32, Group> = HashMap::new();
    let (mut buffer, mut events) = (vec![0; READ_BYTES], Vec::with_capacity(EVENTS));
    let mut dirty = Vec::new();
    loop {
        events.clear();
        match epoll::wait(&epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (data, flags): (u64, EventFlags) = (event.data.u64(), event.flags);
            if data == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true)?;
                    stream.set_nodelay(true)?;
                    let interest = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
                    epoll::add(&epoll, &stream, EventData::new_u64(connections.len() as u64), interest)?;
                    let (role, waiting) = (Role::Unknown, Vec::new());
                    connections.push(Some(Connection { stream, role, waiting, is_blocked: false }));
                }
                continue;
            }
            let place = data as usize;
            let Some(connection) = connections.get_mut(place).and_then(Option::as_mut) else { continue };
            if flags.contains(EventFlags::OUT) {
                connection.is_blocked = false;
                connection.write_waiting();
            }
            if !connection.read(place, &mut buffer, &mut groups, &mut dirty)? {
                // The end of a run; what subscribers of the group are left is nobody's concern.
                connections[place] = None;
            }
        }
        for number in dirty.drain(..) {
            let Some(group) = groups.get_mut(&number) else { continue };
            for place in &group.subscribers {
                if let Some(subscriber) = connections.get_mut(*place).and_then(Option::as_mut) {
                    subscriber.send(&group.input);
                }
            }
            group.input.clear();
        }
    }
}

impl Connection {
    /// Reads until the socket is empty; false at the end of the stream.
    fn read(
        &mut self,
        place: usize,
        buffer: &mut [u8],
        groups: &mut HashMap<u32, Group>,
        dirty: &mut Vec<u32>,
    ) -> Result<bool> {
        loop {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Ok(false),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            let bytes = &buffer[..length];
            match self.role {
                Role::Unknown => self.begin(place, bytes, groups)?,
                Role::Publisher(number) => {
                    let Some(group) = groups.get_mut(&number) else { return Ok(false) };
                    let was_empty = group.input.is_empty();
                    // Packets of several publishers meet in one stream: only whole ones may.
                    if self.waiting.is_empty() {
                        let whole = whole_packets(bytes)?;
                        group.input.extend_from_slice(&bytes[..whole]);
                        self.waiting.extend_from_slice(&bytes[whole..]);
                    } else {
                        self.waiting.extend_from_slice(bytes);
                        let whole = whole_packets(&self.waiting)?;
                        group.input.extend(self.waiting.drain(..whole));
                    }
                    if was_empty && !group.input.is_empty() {
                        dirty.push(number);
                    }
                }
                // Acknowledgements, which nobody asked for.
                Role::Subscriber => {}
            }
            if length < buffer.len() {
                return Ok(true);
            }
        }
    }
    /// The first bytes say what the connection is; nothing else comes before the answer to them.
    fn begin(&mut self, place: usize, bytes: &[u8], groups: &mut HashMap<u32, Group>) -> Result<()> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() < HELLO_BYTES {
            return Ok(());
        }
        let said = std::mem::take(&mut self.waiting);
        let [kind, a, b, c, d] = said.as_slice() else { return fault("more than a hello") };
        let number = u32::from_be_bytes([*a, *b, *c, *d]);
        let group = groups.entry(number).or_default();
        self.role = match *kind {
            PUBLISHER => Role::Publisher(number),
            SUBSCRIBER => {
                group.subscribers.push(place);
                Role::Subscriber
            }
            other => return fault(format!("a hello that begins with {other:#04x}")),
        };
        // An empty socket takes four bytes.
        self.stream.write_all(&ANSWER).map_err(Error::from)
    }

    fn send(&mut self, bytes: &[u8]) {
        if !self.waiting.is_empty() {
            self.waiting.extend_from_slice(bytes);
            return;
        }
        let written = self.write(bytes);
        self.waiting.extend_from_slice(&bytes[written..]);
    }

    fn write_waiting(&mut self) {
        if matches!(self.role, Role::Subscriber) && !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let written = self.write(&waiting);
            self.waiting.extend_from_slice(&waiting[written..]);
        }
    }

    /// How much the socket took; all of it if the connection is broken.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while !self.is_blocked && written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(length) => written += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(_) => return bytes.len(),
            }
        }
        written
    }
}

/// How many bytes at the beginning are whole packets.
fn whole_packets(bytes: &[u8]) -> Result<usize> {
    let mut whole = 0;
    while let Some((total, _)) = frame(&bytes[whole..])? {
        if bytes.len() - whole < total {
            break;
        }
        whole += total;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::{Output, publish};

    fn connect(address: SocketAddrV4, is_publisher: bool, group: u32) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&hello(is_publisher, group)).unwrap();
        let mut answer = [0; ANSWER.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, ANSWER);
        stream
    }

    #[test]
    fn whole_packets_reach_the_subscribers_of_the_group_alone() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("IPv4") };
        std::thread::spawn(move || run(&listener).map_err(|error| error.to_string()));
        let mut mine = [connect(address, false, 7), connect(address, false, 7)];
        let mut other = connect(address, false, 8);
        let mut publishers = [connect(address, true, 7), connect(address, true, 7)];
        let mut wire = Output::default();
        publish(&mut wire, "t", 0, false, 0, &[9; 200]);
        let (head, tail) = wire.bytes.split_at(100);
        publishers[0].write_all(head).unwrap();
        publishers[1].write_all(&wire.bytes).unwrap();
        let mut got = vec![0; wire.bytes.len()];
        for subscriber in &mut mine {
            subscriber.read_exact(&mut got).unwrap();
            assert_eq!(got, wire.bytes, "the one that was whole");
        }
        publishers[0].write_all(tail).unwrap();
        for subscriber in &mut mine {
            subscriber.read_exact(&mut got).unwrap();
            assert_eq!(got, wire.bytes, "the one that came in parts");
        }
        other.set_nonblocking(true).unwrap();
        assert_eq!(other.read(&mut got).unwrap_err().kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn parts_of_packets_are_told_from_whole_ones() {
        let mut wire = Output::default();
        publish(&mut wire, "t", 0, false, 0, &[9; 200]);
        let one = wire.bytes.len();
        publish(&mut wire, "t", 0, false, 0, b"");
        for end in 0..wire.bytes.len() {
            let expected = if end < one { 0 } else { one };
            assert_eq!(whole_packets(&wire.bytes[..end]).unwrap(), expected, "{end}");
        }
        assert_eq!(whole_packets(&wire.bytes).unwrap(), wire.bytes.len());
    }
}
