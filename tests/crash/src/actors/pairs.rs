//! Liveness of QoS 2: two publishers, a message each at the same time, and a receiver that must
//! have both without having to say anything but its answers.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::Receiver;
use crate::conn::{Conn, Gone, PATIENCE};
use crate::history::{Client, IDLE};
use crate::mqtt::{Connect, Packet, Publish};
use crate::payload::padded;
use crate::rng::Rng;
use crate::world::{Stage, World};

/// Exchanges in a rest.
const EXCHANGES: u32 = 80;
/// What both publish to.
const TOPICS: [&str; 2] = ["l/1", "l/2"];

/// The three of them.
#[derive(Debug)]
pub(super) struct Pairs {
    receiver: Receiver,
    publishers: [Option<Conn>; 2],
    name: Client,
    rng: Rng,
    sequence: u32,
}

impl Pairs {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            receiver: Receiver::new(world, name),
            publishers: [None, None],
            name: name.into(),
            rng: Rng::new(world.seed, name),
            sequence: 0,
        }
    }

    async fn connect(&mut self) -> Result<(), Gone> {
        self.receiver.connect(false).await?;
        let filter = "l/#".into();
        if !self.receiver.sure.contains_key(&filter) {
            self.receiver.subscribe(&filter, 2).await?;
        }
        for (place, publisher) in self.publishers.iter_mut().enumerate() {
            if publisher.is_none() {
                let client_id = format!("{}-p{place}", self.name).into();
                let connect = Connect { client_id, clean: true, will: None, expiry: None };
                *publisher = Some(Conn::open(&self.receiver.world, connect).await?.0);
            }
        }
        Ok(())
    }

    /// One message from each.
    async fn exchange(&mut self) -> Result<(), Gone> {
        self.connect().await?;
        let mut messages = Vec::new();
        for topic in TOPICS {
            self.sequence += 1;
            let size = if self.rng.percent(80) { 0 } else { self.rng.range(1, 100_000) };
            let payload = padded(&format!("{}.{}", self.name, self.sequence), size);
            let id = 1 + (self.sequence % 1000) as u16;
            let publish = Publish { qos: 2, dup: false, retain: false, id, topic: topic.into(), payload };
            messages.push(publish);
        }
        // Behind one of them stands much that nobody wants: its turn takes longer.
        let ballast = if self.rng.percent(80) { self.rng.range(200, 4_000) } else { 0 };
        let behind = usize::from(self.rng.percent(75));
        let expected: HashSet<Rc<str>> = messages.iter().map(|message| Rc::clone(&message.payload)).collect();
        let [first, second] = &mut self.publishers;
        let (Some(first), Some(second)) = (first, second) else { return Err(Gone) };
        let ballast = |place: usize| if place == behind { ballast } else { 0 };
        let (one, two, received) = tokio::join!(
            publish(first, &messages[0], ballast(0)),
            publish(second, &messages[1], ballast(1)),
            receive(&mut self.receiver, expected),
        );
        if one.is_err() || two.is_err() {
            self.publishers = [None, None];
        }
        received.and(one).and(two)
    }
}

/// The whole of one exchange.
async fn publish(conn: &mut Conn, message: &Publish, ballast: u32) -> Result<(), Gone> {
    let until = Instant::now() + PATIENCE;
    let topic = "nobody".into();
    let other = Publish { qos: 0, dup: false, retain: false, id: 0, topic, payload: "x".into() };
    conn.send_with(Packet::Publish(message.clone()), &Packet::Publish(other), ballast as usize).await?;
    while Instant::now() < until {
        match conn.recv_within(Duration::from_millis(100)).await? {
            Some(Packet::PubRec(id)) => conn.send(Packet::PubRel(id)).await?,
            Some(Packet::PubComp(_)) => return Ok(()),
            _ => {}
        }
    }
    Err(Gone)
}

/// Waits for all of it, and says nothing but what a receiver answers.
async fn receive(receiver: &mut Receiver, mut missing: HashSet<Rc<str>>) -> Result<(), Gone> {
    let mut last = Instant::now();
    let (mut released, expected) = (0, missing.len());
    while released < expected {
        match receiver.take(Duration::from_millis(50), 0).await? {
            Some(Packet::Publish(publish)) => {
                missing.remove(&publish.payload);
                last = Instant::now();
            }
            Some(Packet::PubRel(_)) => {
                released += 1;
                last = Instant::now();
            }
            Some(_) => {}
            None if last.elapsed() > IDLE => {
                receiver.note_idle().await;
                // What was missing has come with the answer, if it comes at all.
                let until = Instant::now() + Duration::from_millis(500);
                while Instant::now() < until {
                    receiver.take(Duration::from_millis(50), 0).await?;
                }
                return Ok(());
            }
            None => {}
        }
    }
    Ok(())
}

impl Actor for Pairs {
    async fn traffic(&mut self) {}

    /// What a round before has left.
    async fn drain(&mut self) {
        let _ = self.connect().await;
    }

    async fn rest(&mut self) {
        for _ in 0..EXCHANGES {
            if !self.receiver.world.is(Stage::Rest) || self.exchange().await.is_err() {
                break;
            }
        }
    }

    async fn part(&mut self) {
        for conn in self.publishers.iter_mut().filter_map(Option::take) {
            conn.disconnect().await;
        }
        self.receiver.part().await;
    }
}
