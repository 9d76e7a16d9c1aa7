//! A client id that is now persistent and now clean: what was before a clean session must not come back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::Receiver;
use crate::conn::Gone;
use crate::rng::Rng;
use crate::world::{Mood, Stage, World};

/// The client.
#[derive(Debug)]
pub(super) struct Alternator {
    receiver: Receiver,
    rng: Rng,
}

impl Alternator {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self { receiver: Receiver::new(world, name), rng: Rng::new(world.seed, name) }
    }

    /// One connection.
    async fn step(&mut self) -> Result<(), Gone> {
        while self.receiver.world.mood() == Mood::Quiet && self.receiver.conn.is_some() {
            self.receiver.take(Duration::from_millis(20), 0).await?;
        }
        self.receiver.world.noise().await;
        let is_clean = self.rng.percent(50);
        if self.receiver.conn.is_some() {
            self.receiver.take_over(is_clean).await?;
        } else {
            self.receiver.connect(is_clean).await?;
        }
        if is_clean {
            // At times with a subscription of its own, which has to go as well.
            if self.rng.percent(40) {
                self.receiver.subscribe(&"t/1/#".into(), 2).await?;
            }
        } else if self.receiver.sure.is_empty() {
            self.receiver.subscribe(&"t/0/#".into(), 1).await?;
            self.receiver.subscribe(&"t/4/#".into(), 2).await?;
        }
        let keep = *self.rng.pick(&[0, 5, 100]);
        let until = Instant::now() + self.rng.millis(5, 120);
        while Instant::now() < until && self.receiver.world.is(Stage::Traffic) {
            self.receiver.take(Duration::from_millis(10), keep).await?;
        }
        match self.rng.range(0, 3) {
            0 => self.receiver.cut(false),
            1 => self.receiver.cut(true),
            2 => {
                if let Some(conn) = self.receiver.conn.take() {
                    conn.disconnect().await;
                }
            }
            _ => return Ok(()),
        }
        let pause = self.rng.millis(0, 60);
        self.receiver.world.pause(pause).await;
        Ok(())
    }
}

impl Actor for Alternator {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            let _ = self.step().await;
        }
    }

    /// A clean connection ends here: what is drained is a persistent session.
    async fn finish(&mut self) {
        self.receiver.cut(false);
    }

    async fn drain(&mut self) {
        self.receiver.drain().await;
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
