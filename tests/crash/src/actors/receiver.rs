//! What every subscribing client does: connect, subscribe, take messages, answer them in order, now or later.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::conn::{self, Conn, Gone, PATIENCE};
use crate::history::Client;
use crate::mqtt::{Connect, Packet, Publish, matches};
use crate::world::{Stage, World};

/// After so long without a packet the broker is asked whether it has read everything.
const SILENCE: Duration = Duration::from_millis(500);
/// It has, and nothing came so often: nothing will come.
const SILENCES_MAX: u32 = 4;

/// A subscribing client.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) world: Rc<World>,
    name: Client,
    pub(super) conn: Option<Conn>,
    /// What is still to be answered, in order.
    answers: VecDeque<Packet>,
    /// QoS 2 messages received and not released.
    open: BTreeSet<u16>,
    /// Payloads received since the last clean part.
    seen: HashSet<Rc<str>>,
    /// Filters whose SUBSCRIBE has been acknowledged, and that nobody has begun to give up.
    pub(super) sure: BTreeMap<Rc<str>, u8>,
    packet_id: u16,
    /// Packets received.
    received: u64,
}

impl Receiver {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            conn: None,
            answers: VecDeque::new(),
            open: BTreeSet::new(),
            seen: HashSet::new(),
            sure: BTreeMap::new(),
            packet_id: 0,
            received: 0,
        }
    }

    /// Connects, unless it is connected.
    ///
    /// # Errors
    /// No connection came about; returns not before something has changed.
    pub(super) async fn connect(&mut self, clean: bool) -> Result<(), Gone> {
        if self.conn.is_none() {
            self.attach(clean).await?;
        }
        Ok(())
    }

    /// Connects, though it may be connected: take-over.
    async fn attach(&mut self, clean: bool) -> Result<(), Gone> {
        if clean {
            // From here on nothing of what was before may be relied upon.
            self.forget();
        }
        self.answers.clear();
        let connect = Connect { client_id: Rc::clone(&self.name), clean, will: None };
        let (conn, is_present) = Conn::open(&self.world, connect).await?;
        if !is_present {
            self.forget();
        }
        if let Some(old) = self.conn.replace(conn) {
            old.bury().await;
        }
        Ok(())
    }

    /// A second connection with the same id takes the place of the first.
    ///
    /// # Errors
    /// It did not come about; then there is none at all.
    pub(super) async fn take_over(&mut self, clean: bool) -> Result<(), Gone> {
        let result = self.attach(clean).await;
        if result.is_err()
            && let Some(old) = self.conn.take()
        {
            old.cut(false);
        }
        result
    }

    fn forget(&mut self) {
        self.sure.clear();
        self.open.clear();
    }

    fn lose<T>(&mut self, result: Result<T, Gone>) -> Result<T, Gone> {
        if result.is_err() {
            self.conn = None;
            self.answers.clear();
        }
        result
    }

    pub(super) async fn send(&mut self, packet: Packet) -> Result<(), Gone> {
        let result = self.conn.as_mut().ok_or(Gone)?.send(packet).await;
        self.lose(result)
    }

    /// Takes one packet, waiting so long at most, and answers all but the last `keep` that wait for an answer.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn take(&mut self, time: Duration, keep: usize) -> Result<Option<Packet>, Gone> {
        let result = self.conn.as_mut().ok_or(Gone)?.recv_within(time).await;
        let packet = self.lose(result)?;
        self.received += u64::from(packet.is_some());
        match &packet {
            Some(Packet::Publish(Publish { qos, id, payload, .. })) => {
                self.seen.insert(Rc::clone(payload));
                if *qos == 2 {
                    self.open.insert(*id);
                }
            }
            Some(Packet::PubRel(id)) => {
                self.open.remove(id);
            }
            _ => {}
        }
        self.answers.extend(packet.as_ref().and_then(conn::answer));
        self.answer(keep).await?;
        Ok(packet)
    }

    /// Sends all answers but the last `keep`.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn answer(&mut self, keep: usize) -> Result<(), Gone> {
        while self.answers.len() > keep
            && let Some(answer) = self.answers.pop_front()
        {
            self.send(answer).await?;
        }
        Ok(())
    }

    /// How many answers are kept back.
    pub(super) fn waiting(&self) -> usize {
        self.answers.len()
    }

    async fn await_packet(&mut self, expected: impl Fn(&Packet) -> bool) -> Result<Packet, Gone> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(packet) = self.take(Duration::from_millis(50), 0).await?
                && expected(&packet)
            {
                return Ok(packet);
            }
        }
        if let Some(conn) = self.conn.take() {
            conn.cut(true);
        }
        self.lose(Err(Gone))
    }

    fn next_packet_id(&mut self) -> u16 {
        self.packet_id = self.packet_id % 60_000 + 1;
        self.packet_id
    }

    /// SUBSCRIBE, and waits for SUBACK.
    ///
    /// # Errors
    /// The connection has ended: nobody knows whether there is a subscription.
    pub(super) async fn subscribe(&mut self, filter: &Rc<str>, qos: u8) -> Result<(), Gone> {
        let id = self.next_packet_id();
        self.send(Packet::Subscribe { id, filter: Rc::clone(filter), qos }).await?;
        self.await_packet(|packet| matches!(packet, Packet::SubAck { id: got, .. } if *got == id)).await?;
        self.sure.insert(Rc::clone(filter), qos);
        Ok(())
    }

    /// UNSUBSCRIBE, and waits for UNSUBACK.
    ///
    /// # Errors
    /// The connection has ended: nobody knows whether there still is a subscription.
    pub(super) async fn unsubscribe(&mut self, filter: &Rc<str>) -> Result<(), Gone> {
        let id = self.next_packet_id();
        self.sure.remove(filter);
        self.send(Packet::Unsubscribe { id, filter: Rc::clone(filter) }).await?;
        self.await_packet(|packet| *packet == Packet::UnsubAck(id)).await?;
        Ok(())
    }

    /// PINGREQ and PINGRESP: the broker has read what was sent before.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        self.send(Packet::PingReq).await?;
        self.await_packet(|packet| *packet == Packet::PingResp).await?;
        Ok(())
    }

    fn is_complete(&self) -> bool {
        let sentinels = self.world.sentinels.borrow();
        let mut awaited =
            sentinels.iter().filter(|(topic, _)| self.sure.keys().any(|filter| matches(filter, topic)));
        self.open.is_empty()
            && self.answers.is_empty()
            && awaited.all(|(_, payload)| self.seen.contains(payload))
    }

    /// Takes everything that is there for a persistent session, until the sentinels of its subscriptions have come, or
    /// nothing comes any more.
    pub(super) async fn drain(&mut self) {
        let (mut silences, mut last, mut received) = (0, Instant::now(), self.received);
        while silences < SILENCES_MAX && self.world.is(Stage::Drain) {
            if self.connect(false).await.is_err() || self.take(Duration::from_millis(20), 0).await.is_err() {
                continue;
            }
            if self.is_complete() && self.ping().await.is_ok() && self.is_complete() {
                return;
            }
            if last.elapsed() > SILENCE {
                // The answer itself is one packet.
                let _ = self.ping().await;
                silences = if self.received > received + 1 { 0 } else { silences + 1 };
                (last, received) = (Instant::now(), self.received);
            }
        }
    }

    /// DISCONNECT.
    pub(super) async fn part(&mut self) {
        self.answers.clear();
        self.seen.clear();
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await;
        }
    }

    /// Drops the connection.
    pub(super) fn cut(&mut self, hard: bool) {
        self.answers.clear();
        if let Some(conn) = self.conn.take() {
            conn.cut(hard);
        }
    }
}
