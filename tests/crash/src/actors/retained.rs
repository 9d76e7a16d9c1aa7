//! Reads the retained messages again and again, each time with a new clean session.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::Receiver;
use crate::conn::Gone;
use crate::rng::Rng;
use crate::world::{Stage, World};

/// What is retained comes before the answer to a later request, or at least before that and this much more.
const SILENCE: Duration = Duration::from_millis(40);

/// The reader.
#[derive(Debug)]
pub(super) struct Prober {
    receiver: Receiver,
    rng: Rng,
}

impl Prober {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        Self { receiver: Receiver::new(world, name), rng: Rng::new(world.seed, name) }
    }

    async fn read(&mut self) -> Result<(), Gone> {
        self.receiver.connect(true).await?;
        let epoch = self.receiver.world.now().epoch;
        for filter in ["r/#", "av/#"] {
            self.receiver.subscribe(&filter.into(), 2).await?;
        }
        self.receiver.ping().await?;
        let until = Instant::now() + SILENCE;
        while Instant::now() < until {
            self.receiver.take(until.saturating_duration_since(Instant::now()), 0).await?;
        }
        self.receiver.ping().await?;
        if let Some(conn) = &self.receiver.conn {
            conn.record_quiet();
        }
        self.receiver.world.probed.set(epoch);
        self.receiver.part().await;
        Ok(())
    }
}

impl Actor for Prober {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            if self.read().await.is_ok() {
                let pause = self.rng.millis(1, 80);
                self.receiver.world.pause(pause).await;
            }
        }
    }

    async fn probe(&mut self) {
        self.receiver.cut(false);
        for _ in 0..3 {
            if self.read().await.is_ok() {
                break;
            }
        }
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
