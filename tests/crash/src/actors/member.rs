//! Members of a group (shared subscription): they come and go, hold what they got without an
//! answer, and their sessions end in every way a session can end. What one of them leaves belongs
//! to the others.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::Receiver;
use crate::conn::Gone;
use crate::mqtt::Packet;
use crate::rng::Rng;
use crate::world::{Focus, Mood, Stage, World};

/// What they subscribe to. At QoS 1: a message that was begun at QoS 2 ends with its member ([MQTT-4.8.2-5]).
const FILTER: &str = "$share/g/gs/#";
/// Never answers.
const ALL: usize = usize::MAX;

/// How a member lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Comes and goes, and never answers.
    Silent,
    /// Its sessions end by a connection with clean session.
    Clean,
    /// MQTT 5: its sessions end by DISCONNECT with expiry 0, or a second after its connection.
    Expires,
    /// Answers; its session never ends, so the group is never without a member.
    Takes,
}

/// A member.
#[derive(Debug)]
pub(super) struct Member {
    receiver: Receiver,
    rng: Rng,
    life: Life,
    /// The epoch in which it has done its part of a heavy cycle.
    left_in: u32,
}

impl Member {
    pub(super) fn new(world: &Rc<World>, name: &str, life: Life) -> Self {
        let mut receiver = Receiver::new(world, name);
        receiver.is_member = true;
        receiver.expiry = (life == Life::Expires).then_some(1);
        Self { receiver, rng: Rng::new(world.seed, name), life, left_in: 0 }
    }

    async fn come(&mut self) -> Result<(), Gone> {
        self.receiver.connect(false).await?;
        let filter = FILTER.into();
        if !self.receiver.sure.contains_key(&filter) {
            self.receiver.subscribe_keeping(&filter, 1, ALL).await?;
        }
        Ok(())
    }

    /// Takes messages and answers all but the last `keep`, for so long or until the traffic changes.
    async fn take(&mut self, keep: usize, time: Duration) -> Result<(), Gone> {
        let world = Rc::clone(&self.receiver.world);
        let (until, mood) = (Instant::now() + time, world.mood());
        while Instant::now() < until && world.is(Stage::Traffic) && world.mood() == mood {
            self.receiver.take(Duration::from_millis(10), keep).await?;
        }
        Ok(())
    }

    /// Leaves, and what it has not answered with it.
    async fn leave(&mut self) -> Result<(), Gone> {
        let n = self.rng.range(0, 99);
        match self.life {
            Life::Silent | Life::Takes if n < 80 => self.receiver.cut(n < 40),
            Life::Silent | Life::Takes => self.receiver.part().await,
            Life::Clean => {
                self.receiver.cut(n < 50);
                let pause = self.rng.millis(0, 80);
                self.receiver.world.pause(pause).await;
                self.receiver.connect(true).await?;
                self.receiver.part().await;
                self.receiver.forget();
            }
            Life::Expires if n < 60 => {
                if let Some(conn) = self.receiver.conn.take() {
                    conn.end_by(Packet::DisconnectForGood).await;
                }
                self.receiver.lost();
            }
            Life::Expires => self.receiver.cut(n < 80),
        }
        Ok(())
    }

    async fn usual(&mut self) -> Result<(), Gone> {
        self.come().await?;
        let keep = match self.life {
            Life::Silent => ALL,
            Life::Clean | Life::Expires => *self.rng.pick(&[ALL, ALL, 5]),
            Life::Takes => 0,
        };
        let time = self.rng.millis(5, 150);
        self.take(keep, time).await?;
        if !self.receiver.world.calm && self.rng.percent(if self.life == Life::Takes { 15 } else { 45 }) {
            self.leave().await?;
            let pause = if self.rng.percent(40) { self.rng.millis(100, 400) } else { self.rng.millis(0, 60) };
            self.receiver.world.pause(pause).await;
        }
        Ok(())
    }

    /// Load: everybody holds what comes, and the one that answers is away.
    async fn load(&mut self) -> Result<(), Gone> {
        if self.life == Life::Takes {
            self.receiver.cut(false);
            self.receiver.world.change().await;
            return Ok(());
        }
        self.come().await?;
        self.take(ALL, Duration::from_secs(5)).await
    }

    /// Quiet: one after the other leaves. In half of the cycles there is one that takes what they leave.
    async fn quiet(&mut self) -> Result<(), Gone> {
        let world = Rc::clone(&self.receiver.world);
        if world.focus.get() == Focus::Retained {
            // The end of a session makes the broker write, and what waited for that with it.
            world.noise().await;
            return Ok(());
        }
        let epoch = world.now().epoch;
        let is_first = self.left_in != epoch;
        self.left_in = epoch;
        if self.life == Life::Takes {
            if is_first && self.rng.percent(40) {
                world.noise().await;
                return Ok(());
            }
            self.come().await?;
            return self.take(0, Duration::from_secs(5)).await;
        }
        if is_first {
            let pause = self.rng.millis(0, 1200);
            self.take(ALL, pause).await?;
            self.leave().await?;
        }
        world.noise().await;
        Ok(())
    }
}

impl Actor for Member {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            let _ = match self.receiver.world.mood() {
                Mood::Usual => self.usual().await,
                Mood::Load => self.load().await,
                Mood::Quiet => self.quiet().await,
            };
        }
    }

    /// Some sessions end now.
    async fn finish(&mut self) {
        if self.life != Life::Takes && self.rng.percent(60) {
            let _ = self.leave().await;
        }
    }

    async fn drain(&mut self) {
        if self.come().await.is_ok() {
            self.receiver.drain().await;
        }
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
