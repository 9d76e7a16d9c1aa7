//! A connection of a client: packets out and in, each of them recorded.

use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::history::{Client, ConnId, What};
use crate::mqtt::{Connect, Packet, Publish};
use crate::world::World;

/// Longer than any answer may take; a broker that needs more is reported by invariant I16.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Between two knocks at a door that is not open yet.
const KNOCK: Duration = Duration::from_millis(1);

/// The connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// An open connection that has its CONNACK.
#[derive(Debug)]
pub struct Conn {
    world: Rc<World>,
    client: Client,
    id: ConnId,
    stream: TcpStream,
    is_v5: bool,
    buffer: Vec<u8>,
}

impl Conn {
    /// Connects and waits for CONNACK; second: session present. While there is no broker it waits for one, and returns
    /// when anything has changed.
    ///
    /// # Errors
    /// There is no broker, it has died meanwhile, or it refuses.
    pub async fn open(world: &Rc<World>, connect: Connect) -> Result<(Self, bool), Gone> {
        let now = world.now();
        let Some(addr) = now.addr else {
            world.change().await;
            return Err(Gone);
        };
        let stream = loop {
            match TcpStream::connect(addr).await {
                Ok(stream) => break stream,
                Err(_) if world.now().addr != Some(addr) => return Err(Gone),
                Err(_) => tokio::time::sleep(KNOCK).await,
            }
        };
        if world.now().addr != Some(addr) {
            // It has died between accepting and our being told.
            return Err(Gone);
        }
        let _ = stream.set_nodelay(true);
        let client = Rc::clone(&connect.client_id);
        let id = world.next_conn();
        let is_v5 = connect.expiry.is_some();
        let mut conn = Self { world: Rc::clone(world), client, id, stream, is_v5, buffer: Vec::new() };
        conn.send(Packet::Connect(connect)).await?;
        match conn.recv_within(PATIENCE).await? {
            Some(Packet::ConnAck { present, code: 0 }) => Ok((conn, present)),
            _ => {
                conn.cut(false);
                Err(Gone)
            }
        }
    }

    /// Sends a packet.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send(&mut self, packet: Packet) -> Result<(), Gone> {
        let bytes = packet.encode(self.is_v5);
        self.record(|client, id| What::Sent(client, id, packet));
        match timeout(PATIENCE, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.end()),
        }
    }

    /// Sends a packet, and behind it in one piece so many others that are no part of the history.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_with(&mut self, packet: Packet, other: &Packet, count: usize) -> Result<(), Gone> {
        let mut bytes = packet.encode(self.is_v5);
        bytes.extend(other.encode(self.is_v5).repeat(count));
        self.record(|client, id| What::Sent(client, id, packet));
        match timeout(PATIENCE, self.stream.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.end()),
        }
    }

    /// The next packet; nothing if none comes within this time.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn recv_within(&mut self, time: Duration) -> Result<Option<Packet>, Gone> {
        let until = Instant::now() + time;
        loop {
            if let Some(packet) = self.decode()? {
                let recorded = packet.clone();
                self.record(|client, id| What::Received(client, id, recorded));
                return Ok(Some(packet));
            }
            let left = until.saturating_duration_since(Instant::now());
            match timeout(left, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Ok(None),
                Ok(Ok(0) | Err(_)) => return Err(self.end()),
                Ok(Ok(_)) => {}
            }
        }
    }

    fn decode(&mut self) -> Result<Option<Packet>, Gone> {
        match Packet::decode(&self.buffer, self.is_v5) {
            Ok(None) => Ok(None),
            Ok(Some((packet, length))) => {
                self.buffer.drain(..length);
                Ok(Some(packet))
            }
            Err(text) => {
                self.record(|client, id| What::Garbage(client, id, text));
                Err(self.end())
            }
        }
    }

    /// Drops the connection without DISCONNECT, with a reset if `hard`.
    pub fn cut(self, hard: bool) {
        self.record(What::Cut);
        if hard {
            let _ = self.stream.set_zero_linger();
        }
    }

    /// DISCONNECT, and waits until the broker has closed.
    pub async fn disconnect(self) {
        self.end_by(Packet::Disconnect).await;
    }

    /// The same with this packet.
    pub async fn end_by(mut self, packet: Packet) {
        if self.send(packet).await.is_ok() {
            while let Ok(Some(_)) = self.recv_within(PATIENCE).await {}
        }
    }

    /// Watches an older connection after its successor has got CONNACK: the broker must have closed it and answer
    /// nothing any more. What it had sent before is lost on the way, as it were.
    pub async fn bury(mut self) {
        let bytes = Packet::PingReq.encode(self.is_v5);
        self.record(|client, id| What::Sent(client, id, Packet::PingReq));
        // That it cannot be written is as good as that it is not answered.
        let _ = self.stream.write_all(&bytes).await;
        loop {
            while let Ok(Some(packet)) = self.decode() {
                if packet == Packet::PingResp {
                    self.record(|client, id| What::Received(client, id, Packet::PingResp));
                }
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return,
                Ok(Ok(0) | Err(_)) => {
                    self.end();
                    return;
                }
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Notes that nothing more came.
    pub fn record_quiet(&self) {
        self.record(What::Quiet);
    }

    /// Notes that nothing has come for [`IDLE`](crate::history::IDLE), that nothing was sent, and
    /// that something is missing.
    pub fn record_idle(&self) {
        self.record(What::Idle);
    }

    fn end(&self) -> Gone {
        self.record(What::Closed);
        Gone
    }

    fn record(&self, what: impl FnOnce(Client, ConnId) -> What) {
        self.world.record(what(Rc::clone(&self.client), self.id));
    }
}

/// What a receiver answers to a packet at once, if anything.
pub fn answer(packet: &Packet) -> Option<Packet> {
    match packet {
        Packet::Publish(Publish { qos: 1, id, .. }) => Some(Packet::PubAck(*id)),
        Packet::Publish(Publish { qos: 2, id, .. }) => Some(Packet::PubRec(*id)),
        Packet::PubRel(id) => Some(Packet::PubComp(*id)),
        _ => None,
    }
}
