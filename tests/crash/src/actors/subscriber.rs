//! A subscriber with a character: away, late, cutting its connection, taking it over, holding answers back.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Actor;
use super::receiver::Receiver;
use crate::conn::Gone;
use crate::mqtt::Packet;
use crate::rng::Rng;
use crate::world::{Mood, Stage, World};

/// What it does in so many of a hundred cases.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    /// Stays away for a cycle.
    pub(super) away: u32,
    /// Comes only after publishers have had acknowledgements from this broker.
    pub(super) late: u32,
    /// Cuts a connection after some messages.
    pub(super) cut: u32,
    /// Takes a connection over after some messages.
    pub(super) takeover: u32,
    /// Holds answers back on a connection.
    pub(super) lag: u32,
}

impl Profile {
    /// Is always there.
    pub(super) const CALM: Self = Self { away: 0, late: 0, cut: 0, takeover: 0, lag: 0 };
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stays,
    Cut,
    TakeOver,
    Disconnect,
}

/// The subscriber.
#[derive(Debug)]
pub(super) struct Subscriber {
    receiver: Receiver,
    rng: Rng,
    filters: Vec<(Rc<str>, u8)>,
    profile: Profile,
    is_clean: bool,
    met_cycle: u32,
}

impl Subscriber {
    /// With a persistent session.
    pub(super) fn persistent(
        world: &Rc<World>,
        name: &str,
        filters: &[(&str, u8)],
        profile: Profile,
    ) -> Self {
        Self {
            receiver: Receiver::new(world, name),
            rng: Rng::new(world.seed, name),
            filters: filters.iter().map(|(filter, qos)| (Rc::from(*filter), *qos)).collect(),
            profile: if world.calm { Profile::CALM } else { profile },
            is_clean: false,
            met_cycle: 0,
        }
    }

    /// With a session per connection.
    pub(super) fn clean(world: &Rc<World>, name: &str, filters: &[(&str, u8)], profile: Profile) -> Self {
        Self { is_clean: true, ..Self::persistent(world, name, filters, profile) }
    }

    /// Decides whether to meet this broker, and when.
    async fn wait_for_its_time(&mut self) {
        let world = Rc::clone(&self.receiver.world);
        let (epoch, cycle) = (world.now().epoch, world.cycle.get());
        if self.met_cycle == cycle || self.receiver.conn.is_some() || world.mood() != Mood::Usual {
            return;
        }
        self.met_cycle = cycle;
        let is_over =
            || !world.is(Stage::Traffic) || world.now().epoch != epoch || world.mood() != Mood::Usual;
        // Whoever has not subscribed yet has nothing to be late for.
        if self.receiver.sure.is_empty() {
            return;
        }
        if self.rng.percent(self.profile.away) {
            let until = Instant::now() + Duration::from_millis(500);
            while !is_over() && Instant::now() < until {
                world.pause(Duration::from_millis(50)).await;
            }
        } else if self.rng.percent(self.profile.late) {
            let acks = self.rng.range(1, 60);
            let until = Instant::now() + Duration::from_millis(300);
            while !is_over() && world.acks() < acks && Instant::now() < until {
                world.pause(Duration::from_millis(2)).await;
            }
        }
    }

    /// One connection, or a part of it.
    async fn step(&mut self) -> Result<(), Gone> {
        self.wait_for_its_time().await;
        self.receiver.connect(self.is_clean).await?;
        for (filter, qos) in self.filters.clone() {
            if !self.receiver.sure.contains_key(&filter) {
                self.receiver.subscribe(&filter, qos).await?;
            }
        }
        if self.receiver.world.mood() != Mood::Usual {
            // What it has not taken would keep every segment of the log alive.
            return self.take_messages(0, 50).await;
        }
        let keep = match self.rng.percent(self.profile.lag) {
            true => *self.rng.pick(&[1, 3, 10, 19, 100]),
            false => 0,
        };
        let end = match self.rng.range(0, 99) {
            n if n < self.profile.cut => End::Cut,
            n if n < self.profile.cut + self.profile.takeover => End::TakeOver,
            n if n < self.profile.cut + self.profile.takeover + 3 => End::Disconnect,
            _ => End::Stays,
        };
        let count = self.rng.range(20, 200);
        self.take_messages(keep, count).await?;
        match end {
            End::Stays => self.receiver.answer(0).await?,
            End::Cut => {
                // The broker then knows what was received and its next word is lost, or knows nothing.
                if self.rng.percent(50) {
                    self.receiver.answer(0).await?;
                }
                self.receiver.cut(self.rng.percent(30));
                let pause = self.rng.millis(0, 60);
                self.receiver.world.pause(pause).await;
            }
            End::TakeOver => self.receiver.take_over(self.is_clean).await?,
            End::Disconnect => {
                if let Some(conn) = self.receiver.conn.take() {
                    conn.disconnect().await;
                }
            }
        }
        Ok(())
    }

    /// So many packets at most. When nothing comes for a while, some of what is held back is answered: behind a full
    /// window nothing more would come.
    async fn take_messages(&mut self, keep: usize, count: u32) -> Result<(), Gone> {
        let mut silences = 0;
        let mut taken = 0;
        while taken < count && silences < 4 && self.receiver.world.is(Stage::Traffic) {
            if self.receiver.take(Duration::from_millis(15), keep).await?.is_some() {
                taken += 1;
                continue;
            }
            silences += 1;
            if self.receiver.waiting() > 1 && self.rng.percent(40) {
                self.receiver.answer(self.receiver.waiting() / 2).await?;
            } else if self.rng.percent(20) {
                self.receiver.send(Packet::PingReq).await?;
            }
        }
        Ok(())
    }
}

impl Actor for Subscriber {
    async fn traffic(&mut self) {
        while self.receiver.world.is(Stage::Traffic) {
            let _ = self.step().await;
        }
    }

    async fn drain(&mut self) {
        if !self.is_clean {
            self.receiver.drain().await;
        }
    }

    async fn part(&mut self) {
        self.receiver.part().await;
    }
}
