//! Clients with wills: every way to end a connection (table 4.3), and the availability topic that users build on it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use crate::conn::{Conn, Gone};
use crate::history::Client;
use crate::mqtt::{Connect, Packet, Publish, Will};
use crate::rng::Rng;
use crate::world::{Stage, World};

/// Reads for so long, or until the connection or the stage ends.
async fn linger(world: &World, conn: &mut Conn, time: Duration) -> Result<(), Gone> {
    let until = Instant::now() + time;
    while world.is(Stage::Traffic) && Instant::now() < until {
        let left = until.saturating_duration_since(Instant::now());
        conn.recv_within(left.min(Duration::from_millis(50))).await?;
    }
    Ok(())
}

/// A client with a will of its own on every connection.
#[derive(Debug)]
pub(super) struct Mortal {
    world: Rc<World>,
    name: Client,
    topic: Rc<str>,
    qos: u8,
    rng: Rng,
    conn: Option<(Conn, bool)>,
    sequence: u32,
}

impl Mortal {
    pub(super) fn new(world: &Rc<World>, name: &str, qos: u8) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            topic: format!("w/{name}").into(),
            qos,
            rng: Rng::new(world.seed, name),
            conn: None,
            sequence: 0,
        }
    }

    async fn open(&mut self, clean: bool) -> Result<Conn, Gone> {
        self.sequence += 1;
        let payload = self.payload();
        let will = Will { topic: Rc::clone(&self.topic), payload, qos: self.qos, retain: false };
        let connect = Connect { client_id: Rc::clone(&self.name), clean, will: Some(will), expiry: None };
        Ok(Conn::open(&self.world, connect).await?.0)
    }

    fn payload(&self) -> Rc<str> {
        format!("{}.{}", self.name, self.sequence).into()
    }

    /// A connection, and its end.
    async fn step(&mut self) -> Result<(), Gone> {
        let (mut conn, is_clean) = match self.conn.take() {
            Some(conn) => conn,
            None => {
                let is_clean = self.rng.percent(70);
                (self.open(is_clean).await?, is_clean)
            }
        };
        let time = self.rng.millis(1, 120);
        linger(&self.world, &mut conn, time).await?;
        match self.rng.range(0, 99) {
            0..=24 => conn.disconnect().await,
            25..=44 => conn.cut(false),
            45..=59 => conn.cut(true),
            // mosquitto forgets the will of a persistent session at take-over: known, and no matter of crashes.
            60..=74 if is_clean => match self.open(true).await {
                Ok(successor) => {
                    self.conn = Some((successor, true));
                    conn.bury().await;
                }
                Err(gone) => {
                    conn.cut(false);
                    return Err(gone);
                }
            },
            _ => self.conn = Some((conn, is_clean)),
        }
        Ok(())
    }
}

impl Actor for Mortal {
    async fn traffic(&mut self) {
        while self.world.is(Stage::Traffic) {
            self.world.noise().await;
            let _ = self.step().await;
        }
    }

    /// The last will is a sentinel.
    async fn finish(&mut self) {
        if let Some((conn, _)) = self.conn.take() {
            conn.disconnect().await;
        }
        if let Ok(conn) = self.open(true).await {
            conn.cut(false);
            let sentinel = (Rc::clone(&self.topic), self.payload());
            self.world.sentinels.borrow_mut().push(sentinel);
        }
    }

    async fn part(&mut self) {
        if let Some((conn, _)) = self.conn.take() {
            conn.disconnect().await;
        }
    }
}

/// A client that says in a retained topic that it is there, and in its will that it is not.
#[derive(Debug)]
pub(super) struct Available {
    world: Rc<World>,
    name: Client,
    topic: Rc<str>,
    rng: Rng,
    conn: Option<Conn>,
    sequence: u32,
    met_epoch: u32,
}

impl Available {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            topic: format!("av/{name}").into(),
            rng: Rng::new(world.seed, name),
            conn: None,
            sequence: 0,
            met_epoch: 0,
        }
    }

    /// Most times the reader of retained messages is to see what the broker itself made of the end of the connection.
    async fn let_the_reader_read(&mut self) {
        let epoch = self.world.now().epoch;
        if self.met_epoch == epoch {
            return;
        }
        self.met_epoch = epoch;
        if self.rng.percent(20) {
            return;
        }
        let until = Instant::now() + Duration::from_millis(250);
        while self.world.probed.get() < epoch && self.world.is(Stage::Traffic) && Instant::now() < until {
            self.world.pause(Duration::from_millis(5)).await;
        }
    }

    async fn step(&mut self) -> Result<(), Gone> {
        if self.conn.is_none() {
            self.let_the_reader_read().await;
            self.sequence += 1;
            let payload = format!("offline.{}.{}", self.name, self.sequence).into();
            let will = Will { topic: Rc::clone(&self.topic), payload, qos: 1, retain: true };
            let connect =
                Connect { client_id: Rc::clone(&self.name), clean: true, will: Some(will), expiry: None };
            let mut conn = Conn::open(&self.world, connect).await?.0;
            let payload = format!("online.{}.{}", self.name, self.sequence).into();
            let topic = Rc::clone(&self.topic);
            let publish = Publish { qos: 1, dup: false, retain: true, id: 1, topic, payload };
            conn.send(Packet::Publish(publish)).await?;
            self.conn = Some(conn);
        }
        let Some(mut conn) = self.conn.take() else { return Err(Gone) };
        let time = self.rng.millis(20, 400);
        linger(&self.world, &mut conn, time).await?;
        match self.rng.range(0, 9) {
            0 => conn.disconnect().await,
            1 => conn.cut(false),
            2 => conn.cut(true),
            _ => self.conn = Some(conn),
        }
        Ok(())
    }
}

impl Actor for Available {
    async fn traffic(&mut self) {
        while self.world.is(Stage::Traffic) {
            self.world.noise().await;
            let _ = self.step().await;
        }
    }

    async fn part(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await;
        }
    }
}
