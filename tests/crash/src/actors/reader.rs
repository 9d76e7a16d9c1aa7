//! Reads many and large retained messages: all of them have to come, by themselves.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::{Receiver, herald};
use crate::conn::Gone;
use crate::mqtt::{Packet, matches};
use crate::rng::Rng;
use crate::world::{Mood, Stage, World};

/// What it reads.
const FILTERS: [&str; 2] = ["rb/#", "rm/#"];
/// Nothing more comes if nothing has come for so long, though the broker takes connections.
const SILENCE: Duration = Duration::from_millis(2500);

/// The reader.
#[derive(Debug)]
pub(super) struct Reader {
    receiver: Receiver,
    name: Rc<str>,
    rng: Rng,
    met_epoch: u32,
}

impl Reader {
    pub(super) fn new(world: &Rc<World>, name: &str) -> Self {
        let rng = Rng::new(world.seed, name);
        Self { receiver: Receiver::new(world, name), name: name.into(), rng, met_epoch: 0 }
    }

    /// One reading, with a new session, of one filter.
    async fn read(&mut self, filter: &str, qos: u8) -> Result<(), Gone> {
        let world = Rc::clone(&self.receiver.world);
        let mut missing: HashSet<Rc<str>> =
            world.kept.borrow().iter().filter(|topic| matches(filter, topic)).cloned().collect();
        self.receiver.connect(true).await?;
        self.receiver.send(Packet::Subscribe { id: 1, filter: filter.into(), qos }).await?;
        let mut last = Instant::now();
        while !missing.is_empty() {
            match self.receiver.take(Duration::from_millis(50), 0).await? {
                Some(Packet::Publish(publish)) => {
                    last = Instant::now();
                    if publish.retain {
                        missing.remove(&publish.topic);
                    }
                }
                Some(_) => last = Instant::now(),
                None if last.elapsed() > SILENCE => {
                    if !herald(&world, &self.name).await {
                        return Err(Gone);
                    }
                    if self.receiver.take(SILENCE / 4, 0).await?.is_none() {
                        if let Some(conn) = &self.receiver.conn {
                            conn.record_quiet();
                        }
                        break;
                    }
                }
                None => {}
            }
        }
        self.receiver.part().await;
        Ok(())
    }
}

impl Actor for Reader {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            let now = self.receiver.world.now();
            if now.mood != Mood::Usual || now.epoch == self.met_epoch {
                self.receiver.world.change().await;
                continue;
            }
            self.met_epoch = now.epoch;
            for filter in FILTERS {
                let qos = *self.rng.pick(&[0, 1, 2]);
                if self.read(filter, qos).await.is_err() {
                    break;
                }
            }
        }
    }

    async fn probe(&mut self) {
        self.receiver.cut(false);
        for filter in FILTERS {
            for qos in [0, 1] {
                let _ = self.read(filter, qos).await;
            }
        }
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
