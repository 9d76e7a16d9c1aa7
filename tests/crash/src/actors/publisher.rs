//! A publisher with a persistent session: a window of unacknowledged messages, sent again after a reconnect with DUP, the
//! same ids, in order; then new ones.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use crate::conn::{Conn, Gone, PATIENCE};
use crate::history::Client;
use crate::mqtt::{Connect, Packet, Publish};
use crate::payload::{padded, size};
use crate::rng::Rng;
use crate::world::{Focus, Mood, Stage, World};

/// How the topics of groups begin.
pub(super) const GROUP: &str = "gs/";
/// Retained messages of more bytes than this are large.
const LARGE: u32 = 100_000;

/// What a publisher publishes.
#[derive(Debug)]
pub(super) enum Work {
    /// Messages to these topics at these QoS.
    Messages(Vec<(Rc<str>, u8)>),
    /// Retained messages to these topics, set, overwritten and deleted.
    Retained(Vec<(Rc<str>, u8)>),
    /// Retained messages that are never deleted, of up to so many bytes under load; overwritten at
    /// QoS 0 as well.
    Kept(Vec<(Rc<str>, u8)>, u32),
    /// Messages to a group, or others of which there are many under load: of these sizes, and so
    /// many bytes at most.
    Bulk(Vec<(Rc<str>, u8)>, (u32, u32), u32),
}

impl Work {
    /// Three retained topics below `r/NAME`.
    pub(super) fn retained(name: &str, qos: u8) -> Self {
        Self::Retained((0..3).map(|n| (Rc::from(format!("r/{name}/{n}")), qos)).collect())
    }

    /// So many retained topics below `NAME/`, with values of up to so many bytes.
    pub(super) fn kept(name: &str, count: u32, bytes: u32) -> Self {
        Self::Kept((0..count).map(|n| (Rc::from(format!("{name}/{n}")), 1)).collect(), bytes)
    }

    fn topics(&self) -> &[(Rc<str>, u8)] {
        let (Self::Messages(topics)
        | Self::Retained(topics)
        | Self::Kept(topics, _)
        | Self::Bulk(topics, ..)) = self;
        topics
    }

    fn is_retained(&self) -> bool {
        matches!(self, Self::Retained(_) | Self::Kept(..))
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
    /// Of the load of this epoch: how many messages and bytes were sent.
    load: (u32, u32, u32),
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
            load: (0, 0, 0),
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
        let connect = Connect { client_id: Rc::clone(&self.name), clean: false, will: None, expiry: None };
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
        let retain = self.work.is_retained();
        let id = if qos > 0 { self.free_id() } else { 0 };
        let publish = Publish { qos, dup: false, retain, id, topic, payload };
        if qos > 0 {
            self.unfinished.push_back(Unfinished { publish: publish.clone(), is_received: false });
        }
        self.send(Packet::Publish(publish)).await
    }

    fn payload(&mut self) -> Rc<str> {
        let padding = match self.rng.range(0, 199) {
            0..=94 => 0,
            95..=184 => self.rng.range(1, 300),
            185..=197 => self.rng.range(2_000, 20_000),
            _ => self.rng.range(20_000, 100_000),
        };
        self.payload_of(padding)
    }

    fn payload_of(&mut self, padding: u32) -> Rc<str> {
        self.sequence += 1;
        padded(&format!("{}.{}", self.name, self.sequence), padding)
    }

    async fn publish_something(&mut self) -> Result<(), Gone> {
        let (topic, qos) = self.rng.pick(self.work.topics()).clone();
        let payload = match self.work {
            Work::Retained(_) if self.rng.percent(35) => "".into(),
            // Cannot be told apart, and has to be survived.
            Work::Messages(_) if self.rng.percent(1) => "".into(),
            Work::Kept(_, most) if most <= LARGE => {
                let size = self.rng.range(most / 3, most);
                self.payload_of(size)
            }
            _ => self.payload(),
        };
        let qos = if matches!(self.work, Work::Kept(..)) && self.rng.percent(40) { 0 } else { qos };
        self.publish(topic, qos, payload).await
    }

    /// What this publisher has to do with a heavy cycle, if anything is left to do; `false` if it
    /// goes on as usual.
    async fn heave(&mut self) -> Result<bool, Gone> {
        let now = self.world.now();
        if self.load.0 != now.epoch {
            self.load = (now.epoch, 0, 0);
        }
        let (_, count, bytes) = self.load;
        let has_part = match (&self.work, self.world.focus.get()) {
            (Work::Kept(_, most), Focus::Groups) => *most <= LARGE,
            (Work::Bulk(topics, ..), Focus::Retained) => !topics[0].0.starts_with(GROUP),
            _ => true,
        };
        let room = self.unfinished.len() < self.window && has_part;
        match (&self.work, now.mood) {
            (_, Mood::Usual) | (Work::Messages(_) | Work::Retained(_), Mood::Load) => return Ok(false),
            (Work::Kept(topics, most), Mood::Load) if room && (count as usize) < topics.len() => {
                let (topic, qos) = topics[count as usize].clone();
                let size = self.rng.range(if *most > LARGE { most / 30 } else { most / 3 }, *most);
                self.load.1 += 1;
                let payload = self.payload_of(size);
                self.publish(topic, qos, payload).await?;
            }
            // Now none of them has a value that can be found anywhere but in its old segment or in
            // this message.
            (Work::Kept(topics, most), Mood::Quiet)
                if has_part && *most > LARGE && (count as usize) < 2 * topics.len() =>
            {
                let topic = Rc::clone(&topics[count as usize % topics.len()].0);
                self.load.1 += 1;
                let payload = self.payload_of(0);
                self.publish(topic, 0, payload).await?;
                let pause = self.rng.millis(20, 220);
                self.take(pause).await?;
            }
            (Work::Bulk(topics, (least, most), budget), Mood::Load) if room && bytes < *budget => {
                let (topic, qos) = self.rng.pick(topics).clone();
                let size = self.rng.range(*least, *most);
                self.load.2 += size;
                let payload = self.payload_of(size);
                self.publish(topic, qos, payload).await?;
                if self.unfinished.len() < self.window {
                    return Ok(true);
                }
            }
            _ => {}
        }
        self.take(Duration::from_millis(5)).await?;
        Ok(true)
    }

    /// It is acknowledged for good.
    fn done(&mut self, publish: &Publish) {
        if self.world.mood() != Mood::Usual {
            self.world.loaded.set(self.world.loaded.get() + size(&publish.payload));
        }
        match self.work {
            Work::Kept(..) => {
                self.world.kept.borrow_mut().insert(Rc::clone(&publish.topic));
            }
            Work::Bulk(..) if publish.topic.starts_with(GROUP) => {
                self.world.owed.borrow_mut().insert(Rc::clone(&publish.payload));
            }
            _ => {}
        }
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
                self.end(|message| message.publish.id == id && message.publish.qos == 1);
            }
            Packet::PubRec(id) => {
                let found = self.unfinished.iter_mut().find(|message| message.publish.id == id);
                let Some(message) = found.filter(|message| message.publish.qos == 2) else { return Ok(()) };
                message.is_received = true;
                return self.send(Packet::PubRel(id)).await;
            }
            Packet::PubComp(id) => {
                self.end(|message| message.publish.id == id && message.is_received);
            }
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, is_it: impl Fn(&Unfinished) -> bool) {
        if let Some(place) = self.unfinished.iter().position(is_it)
            && let Some(message) = self.unfinished.remove(place)
        {
            self.done(&message.publish);
        }
    }

    /// A burst within the window, then a while for the answers.
    async fn step(&mut self) -> Result<(), Gone> {
        self.connect().await?;
        if self.heave().await? {
            return Ok(());
        }
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
        let (until, mood) = (Instant::now() + self.rng.millis(1, most), self.world.mood());
        while self.world.is(Stage::Traffic) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.world.mood() != mood {
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
