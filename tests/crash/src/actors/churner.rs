//! A subscriber whose subscriptions come and go.

use std::rc::Rc;
use std::time::Duration;

use super::Actor;
use super::receiver::Receiver;
use crate::conn::Gone;
use crate::rng::Rng;
use crate::world::{Mood, Stage, World};

/// How many filters there are to subscribe to.
pub(super) const FILTERS: u32 = 8;

/// One of them; it matches one topic, of the same name.
pub(super) fn filter(number: u32) -> Rc<str> {
    format!("c/{number}").into()
}

/// The subscriber.
#[derive(Debug)]
pub(super) struct Churner {
    receiver: Receiver,
    rng: Rng,
}

impl Churner {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self { receiver: Receiver::new(world, name), rng: Rng::new(world.seed, name) }
    }

    async fn step(&mut self) -> Result<(), Gone> {
        self.receiver.connect(false).await?;
        while self.receiver.world.mood() == Mood::Quiet {
            self.receiver.take(Duration::from_millis(20), 0).await?;
        }
        let filter = filter(self.rng.range(0, FILTERS - 1));
        if self.receiver.sure.contains_key(&filter) {
            self.receiver.unsubscribe(&filter).await?;
        } else {
            self.receiver.subscribe(&filter, 2).await?;
        }
        for _ in 0..self.rng.range(1, 20) {
            if !self.receiver.world.is(Stage::Traffic) {
                break;
            }
            self.receiver.take(Duration::from_millis(5), 0).await?;
        }
        if !self.receiver.world.calm && self.rng.percent(5) {
            self.receiver.cut(false);
            let pause = self.rng.millis(0, 80);
            self.receiver.world.pause(pause).await;
        }
        Ok(())
    }
}

impl Actor for Churner {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            let _ = self.step().await;
        }
    }

    async fn drain(&mut self) {
        self.receiver.drain().await;
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
