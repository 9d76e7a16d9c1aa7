//! What every subscribing client does: connect, subscribe, take messages, answer them in order, now or later.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::conn::{self, Conn, Gone, PATIENCE};
use crate::history::{Client, IDLE};
use crate::mqtt::{Connect, Packet, Publish, matches};
use crate::world::{Stage, World};

/// It has been idle so often, and nothing came when it spoke: nothing will come.
const IDLES_MAX: u32 = 2;
/// A broker that has answered somebody else has had so much time more.
const GRACE: Duration = Duration::from_millis(500);

/// A subscribing client.
#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) world: Rc<World>,
    name: Client,
    pub(super) conn: Option<Conn>,
    /// What is still to be answered, in order.
    answers: VecDeque<Packet>,
    /// Payloads of what is still to be answered.
    unanswered: BTreeMap<u16, Rc<str>>,
    /// QoS 2 messages received and not released.
    open: BTreeSet<u16>,
    /// Payloads received since the last clean part.
    seen: HashSet<Rc<str>>,
    /// Filters whose SUBSCRIBE has been acknowledged, and that nobody has begun to give up.
    pub(super) sure: BTreeMap<Rc<str>, u8>,
    packet_id: u16,
    /// Packets received.
    received: u64,
    /// How long the session outlives the connection: of MQTT 5 clients.
    pub(super) expiry: Option<u32>,
    /// A member of a group: what it answers is served.
    pub(super) is_member: bool,
}

impl Receiver {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            conn: None,
            answers: VecDeque::new(),
            unanswered: BTreeMap::new(),
            open: BTreeSet::new(),
            seen: HashSet::new(),
            sure: BTreeMap::new(),
            packet_id: 0,
            received: 0,
            expiry: None,
            is_member: false,
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
        let connect = Connect { client_id: Rc::clone(&self.name), clean, will: None, expiry: self.expiry };
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

    /// Its session is gone, or may be.
    pub(super) fn forget(&mut self) {
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
                if self.is_member && *qos > 0 {
                    self.unanswered.insert(*id, Rc::clone(payload));
                }
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
            if let Packet::PubAck(id) | Packet::PubRec(id) = answer
                && let Some(payload) = self.unanswered.remove(&id)
            {
                self.world.answered.borrow_mut().insert(payload);
            }
            self.send(answer).await?;
        }
        Ok(())
    }

    /// How many answers are kept back.
    pub(super) fn waiting(&self) -> usize {
        self.answers.len()
    }

    async fn await_packet(
        &mut self,
        expected: impl Fn(&Packet) -> bool,
        keep: usize,
    ) -> Result<Packet, Gone> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Some(packet) = self.take(Duration::from_millis(50), keep).await?
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
        self.subscribe_keeping(filter, qos, 0).await
    }

    /// The same, while answers are held back.
    ///
    /// # Errors
    /// The connection has ended: nobody knows whether there is a subscription.
    pub(super) async fn subscribe_keeping(
        &mut self,
        filter: &Rc<str>,
        qos: u8,
        keep: usize,
    ) -> Result<(), Gone> {
        let id = self.next_packet_id();
        self.send(Packet::Subscribe { id, filter: Rc::clone(filter), qos }).await?;
        let is_answer = |packet: &Packet| matches!(packet, Packet::SubAck { id: got, .. } if *got == id);
        self.await_packet(is_answer, keep).await?;
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
        self.await_packet(|packet| *packet == Packet::UnsubAck(id), 0).await?;
        Ok(())
    }

    /// PINGREQ and PINGRESP: the broker has read what was sent before.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) async fn ping(&mut self) -> Result<(), Gone> {
        self.send(Packet::PingReq).await?;
        self.await_packet(|packet| *packet == Packet::PingResp, 0).await?;
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

    /// Takes everything that is there for a persistent session, until the sentinels of its
    /// subscriptions have come. It says nothing but its answers: what it is owed has to come by
    /// itself.
    pub(super) async fn drain(&mut self) {
        let (mut idles, mut last) = (0, Instant::now());
        while idles < IDLES_MAX && self.world.is(Stage::Drain) {
            if self.connect(false).await.is_err() {
                continue;
            }
            match self.take(Duration::from_millis(20), 0).await {
                Err(Gone) => continue,
                Ok(Some(_)) => last = Instant::now(),
                Ok(None) => {}
            }
            if self.is_served(last) {
                // Nothing comes behind.
                if self.ping().await.is_ok() && self.is_served(last) {
                    return;
                }
            } else if last.elapsed() > IDLE {
                self.note_idle().await;
                idles += 1;
                last = Instant::now();
            }
        }
    }

    /// Whether all that is owed has come. Of a group that is asked in silence only: it takes longer.
    fn is_served(&self, last: Instant) -> bool {
        match self.is_member {
            true => {
                self.answers.is_empty()
                    && last.elapsed() > Duration::from_millis(20)
                    && self.world.is_group_served()
            }
            false => self.is_complete(),
        }
    }

    /// After a long silence: sees that the broker answers others, waits once more, notes that
    /// something is missing, and speaks.
    pub(super) async fn note_idle(&mut self) {
        if !herald(&self.world, &self.name).await || !matches!(self.take(GRACE, 0).await, Ok(None)) {
            return;
        }
        if let Some(conn) = &self.conn {
            conn.record_idle();
        }
        let _ = self.ping().await;
    }

    /// DISCONNECT.
    pub(super) async fn part(&mut self) {
        self.answers.clear();
        self.seen.clear();
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await;
        }
    }

    /// The connection was ended by somebody else.
    pub(super) fn lost(&mut self) {
        self.answers.clear();
        self.unanswered.clear();
        self.forget();
    }

    /// Drops the connection.
    pub(super) fn cut(&mut self, hard: bool) {
        self.answers.clear();
        if let Some(conn) = self.conn.take() {
            conn.cut(hard);
        }
    }
}

/// Whether the broker takes a new connection. On a busy machine it may be that nothing comes
/// because nothing goes on.
pub(super) async fn herald(world: &Rc<World>, name: &str) -> bool {
    let client_id = format!("herald-{name}").into();
    let connect = Connect { client_id, clean: true, will: None, expiry: None };
    let Ok((conn, _)) = Conn::open(world, connect).await else { return false };
    conn.disconnect().await;
    true
}
