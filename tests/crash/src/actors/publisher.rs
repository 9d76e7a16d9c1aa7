//! A publisher with a persistent session: a window of unacknowledged messages, sent again after a reconnect with DUP, the
//! same ids, in order; then new ones.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use crate::conn::{Conn, Gone, PATIENCE};
use crate::history::Client;
use crate::mqtt::{Connect, Packet, Publish};
use crate::rng::Rng;
use crate::world::{Stage, World};

/// What a publisher publishes.
#[derive(Debug)]
pub(super) enum Work {
    /// Messages to these topics at these QoS.
    Messages(Vec<(Rc<str>, u8)>),
    /// Retained messages to these topics, set, overwritten and deleted.
    Retained(Vec<(Rc<str>, u8)>),
}

impl Work {
    /// Three retained topics below `r/NAME`.
    pub(super) fn retained(name: &str, qos: u8) -> Self {
        Self::Retained((0..3).map(|n| (Rc::from(format!("r/{name}/{n}")), qos)).collect())
    }

    fn topics(&self) -> &[(Rc<str>, u8)] {
        let (Self::Messages(topics) | Self::Retained(topics)) = self;
        topics
    }
}

/// A message that is not finished.
#[derive(Debug)]
struct Unfinished {
    publish: Publish,
    /// PUBREC has come: PUBREL is what is sent again.
    is_received: bool,
}

/// The publisher.
#[derive(Debug)]
pub(super) struct Publisher {
    world: Rc<World>,
    name: Client,
    rng: Rng,
    work: Work,
    window: usize,
    conn: Option<Conn>,
    unfinished: VecDeque<Unfinished>,
    sequence: u32,
}

impl Publisher {
    pub(super) fn new(world: &Rc<World>, name: &str, window: usize, work: Work) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            rng: Rng::new(world.seed, name),
            work,
            window,
            conn: None,
            unfinished: VecDeque::new(),
            sequence: 0,
        }
    }

    /// The lowest id that is free: ids are used again as soon as they may be.
    fn free_id(&self) -> u16 {
        (1..=u16::MAX).find(|id| self.unfinished.iter().all(|message| message.publish.id != *id)).unwrap_or(1)
    }

    async fn connect(&mut self) -> Result<(), Gone> {
        if self.conn.is_some() {
            return Ok(());
        }
        let connect = Connect { client_id: Rc::clone(&self.name), clean: false, will: None };
        let (conn, _) = Conn::open(&self.world, connect).await?;
        self.conn = Some(conn);
        let again: Vec<Packet> = self
            .unfinished
            .iter()
            .map(|message| match message.is_received {
                true => Packet::PubRel(message.publish.id),
                false => Packet::Publish(Publish { dup: true, ..message.publish.clone() }),
            })
            .collect();
        for packet in again {
            self.send(packet).await?;
        }
        Ok(())
    }

    async fn send(&mut self, packet: Packet) -> Result<(), Gone> {
        let conn = self.conn.as_mut().ok_or(Gone)?;
        let sent = conn.send(packet).await;
        if sent.is_err() {
            self.conn = None;
        }
        sent
    }

    async fn publish(&mut self, topic: Rc<str>, qos: u8, payload: Rc<str>) -> Result<(), Gone> {
        let retain = matches!(self.work, Work::Retained(_));
        let publish = Publish { qos, dup: false, retain, id: self.free_id(), topic, payload };
        self.unfinished.push_back(Unfinished { publish: publish.clone(), is_received: false });
        self.send(Packet::Publish(publish)).await
    }

    fn payload(&mut self) -> Rc<str> {
        self.sequence += 1;
        let padding = match self.rng.range(0, 99) {
            0..=49 => 0,
            50..=97 => self.rng.range(1, 300),
            _ => self.rng.range(2_000, 20_000),
        };
        format!("{}.{} {}", self.name, self.sequence, "x".repeat(padding as usize)).into()
    }

    async fn publish_something(&mut self) -> Result<(), Gone> {
        let (topic, qos) = self.rng.pick(self.work.topics()).clone();
        let is_deletion = matches!(self.work, Work::Retained(_)) && self.rng.percent(35);
        let payload = if is_deletion { "".into() } else { self.payload() };
        self.publish(topic, qos, payload).await
    }

    /// Takes one packet, waiting so long for it at most.
    async fn take(&mut self, time: Duration) -> Result<(), Gone> {
        let conn = self.conn.as_mut().ok_or(Gone)?;
        match conn.recv_within(time).await {
            Ok(Some(packet)) => self.handle(&packet).await,
            Ok(None) => Ok(()),
            Err(gone) => {
                self.conn = None;
                Err(gone)
            }
        }
    }

    async fn handle(&mut self, packet: &Packet) -> Result<(), Gone> {
        match *packet {
            Packet::PubAck(id) => {
                self.unfinished.retain(|message| message.publish.id != id || message.publish.qos != 1);
            }
            Packet::PubRec(id) => {
                let found = self.unfinished.iter_mut().find(|message| message.publish.id == id);
                let Some(message) = found.filter(|message| message.publish.qos == 2) else { return Ok(()) };
                message.is_received = true;
                return self.send(Packet::PubRel(id)).await;
            }
            Packet::PubComp(id) => {
                self.unfinished.retain(|message| message.publish.id != id || !message.is_received);
            }
            _ => {}
        }
        Ok(())
    }

    /// A burst within the window, then a while for the answers.
    async fn step(&mut self) -> Result<(), Gone> {
        self.connect().await?;
        let room = self.window.saturating_sub(self.unfinished.len());
        if room > 0 {
            for _ in 0..self.rng.range(1, room as u32) {
                self.publish_something().await?;
            }
        }
        if !self.world.calm
            && self.rng.percent(1)
            && let Some(conn) = self.conn.take()
        {
            conn.cut(self.rng.percent(50));
            return Err(Gone);
        }
        let most = if self.window == 1 { 5 } else { 3 * self.window as u32 };
        let until = Instant::now() + self.rng.millis(1, most);
        while self.world.is(Stage::Traffic) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.take(left).await?;
        }
        Ok(())
    }

    /// Everything acknowledged, or patience is at an end.
    async fn complete(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.unfinished.is_empty() && Instant::now() < until {
            if self.connect().await.is_ok() {
                let _ = self.take(Duration::from_millis(20)).await;
            }
        }
    }
}

impl Actor for Publisher {
    async fn traffic(&mut self) {
        while self.world.is(Stage::Traffic) {
            let _ = self.step().await;
        }
    }

    /// What is unfinished, then a whole window at once, of which the last to each topic are sentinels.
    async fn finish(&mut self) {
        self.complete().await;
        let topics = self.work.topics().to_vec();
        for n in 0..self.window.max(topics.len()) {
            let (topic, qos) = topics[n % topics.len()].clone();
            let payload = self.payload();
            if n + topics.len() >= self.window {
                self.world.sentinels.borrow_mut().push((Rc::clone(&topic), Rc::clone(&payload)));
            }
            // If the connection ends here, `complete` sends it again.
            let _ = self.publish(Rc::clone(&topic), qos, payload).await;
            if matches!(self.work, Work::Retained(_)) && self.rng.percent(40) {
                let _ = self.publish(topic, qos, "".into()).await;
            }
        }
        self.complete().await;
    }

    async fn part(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await;
        }
    }
}
