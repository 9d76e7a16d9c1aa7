//! A QoS 2 publisher that takes every freedom with DUP and repetition that section 4.3.3 leaves: the table of
//! invariant I11, across kills.
//!
//! It always uses the same id. A message is sent again before PUBREL, acknowledged or not, with DUP or without, on
//! this connection, on the next and after a kill: one message. After PUBCOMP the same id is a new message, though it
//! says DUP at its first sending. A PUBREL for an id that was never used gets its PUBCOMP.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use crate::conn::{Conn, Gone, PATIENCE};
use crate::history::Client;
use crate::mqtt::{Connect, Packet, Publish};
use crate::rng::Rng;
use crate::world::{Stage, World};

const ID: u16 = 7;
const TOPIC: &str = "t/q/a";

/// How far the message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Done,
    Published,
    Recorded,
    Released,
}

/// The publisher.
#[derive(Debug)]
pub(super) struct Twice {
    world: Rc<World>,
    name: Client,
    rng: Rng,
    conn: Option<Conn>,
    payload: Rc<str>,
    step: Step,
    sequence: u32,
}

impl Twice {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self {
            world: Rc::clone(world),
            name: name.into(),
            rng: Rng::new(world.seed, name),
            conn: None,
            payload: "".into(),
            step: Step::Done,
            sequence: 0,
        }
    }

    async fn exchange(&mut self, packet: Packet, expected: &Packet) -> Result<(), Gone> {
        let conn = self.conn.as_mut().ok_or(Gone)?;
        let mut result = conn.send(packet).await;
        let until = Instant::now() + PATIENCE;
        while result.is_ok() {
            match conn.recv_within(until.saturating_duration_since(Instant::now())).await {
                Ok(Some(packet)) if packet == *expected => return Ok(()),
                Ok(Some(_)) => {}
                Err(Gone) => result = Err(Gone),
                // No answer: a clean end lets the checker see that it is missing.
                Ok(None) => break,
            }
        }
        let conn = self.conn.take();
        if result.is_ok()
            && let Some(conn) = conn
        {
            conn.disconnect().await;
        }
        Err(Gone)
    }

    async fn connect(&mut self) -> Result<(), Gone> {
        if self.conn.is_none() {
            let connect =
                Connect { client_id: Rc::clone(&self.name), clean: false, will: None, expiry: None };
            self.conn = Some(Conn::open(&self.world, connect).await?.0);
            if self.step == Step::Released {
                self.release().await?;
            }
        }
        Ok(())
    }

    async fn publish(&mut self) -> Result<(), Gone> {
        let publish = Publish {
            qos: 2,
            dup: self.rng.percent(50),
            retain: false,
            id: ID,
            topic: TOPIC.into(),
            payload: Rc::clone(&self.payload),
        };
        self.exchange(Packet::Publish(publish), &Packet::PubRec(ID)).await?;
        self.step = Step::Recorded;
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Gone> {
        self.step = Step::Released;
        self.exchange(Packet::PubRel(ID), &Packet::PubComp(ID)).await?;
        self.step = Step::Done;
        Ok(())
    }

    /// From one state to the next, or once more to the same.
    async fn advance(&mut self) -> Result<(), Gone> {
        self.connect().await?;
        match self.step {
            Step::Done => {
                if self.rng.percent(20) {
                    self.exchange(Packet::PubRel(ID + 1), &Packet::PubComp(ID + 1)).await?;
                }
                self.sequence += 1;
                self.payload = format!("{}.{}", self.name, self.sequence).into();
                self.step = Step::Published;
                self.publish().await
            }
            Step::Published => self.publish().await,
            Step::Recorded if self.rng.percent(40) => self.publish().await,
            Step::Recorded | Step::Released => self.release().await,
        }
    }

    async fn complete(&mut self) {
        let until = Instant::now() + PATIENCE;
        while self.step != Step::Done && Instant::now() < until {
            let _ = self.advance().await;
        }
    }
}

impl Actor for Twice {
    async fn traffic(&mut self) {
        while self.world.is(Stage::Traffic) {
            self.world.noise().await;
            if self.advance().await.is_err() {
                continue;
            }
            // Most kills fall into a rest, so that each state meets some.
            let rest = if self.rng.percent(20) { self.rng.millis(10, 150) } else { Duration::ZERO };
            let until = Instant::now() + rest;
            while Instant::now() < until && self.world.is(Stage::Traffic) {
                let left = until.saturating_duration_since(Instant::now());
                let Some(conn) = self.conn.as_mut() else { break };
                if conn.recv_within(left).await.is_err() {
                    self.conn = None;
                }
            }
        }
    }

    async fn finish(&mut self) {
        self.complete().await;
        for _ in 0..20 {
            if self.step == Step::Done && self.advance().await.is_ok() {
                break;
            }
        }
        self.complete().await;
        let sentinel = (TOPIC.into(), Rc::clone(&self.payload));
        self.world.sentinels.borrow_mut().push(sentinel);
    }

    async fn part(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.disconnect().await;
        }
    }
}
