//! Clients with memories of their own, on a broker that comes and goes.
//!
//! One operation after the other; each ends with the answer it waits for, or with the power. What was under way then counts as done or not done,
//! until the client knows better.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::account::{Account, Register};
use super::broker::{Dead, Power, SMALL, TestBroker};
use super::publisher::Publisher;
use super::receiver::Receiver;
use super::support::server_packet::ServerPacket;
use super::support::wire::{Connect, subscribe};
use super::will::WillClient;
use super::wire_client::{DEADLINE, Wire};
use crate::config::Limits;
use crate::storage::simulated::{Fault, Random, SimulatedFiles, Step};

/// What a client knows of something that the broker keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    No,
    /// It was asked for and never answered.
    Maybe,
    Yes,
}

/// The broker's life between two crashes.
pub(super) struct Life {
    pub(super) broker: TestBroker,
    pub(super) power: Power,
}

impl Life {
    pub(super) fn open(&self, connect: &Connect) -> Result<(Wire, bool), Dead> {
        Wire::open(self.broker.addr, &self.power, connect)
    }
}

/// See the module's documentation.
pub(super) struct World {
    pub(super) random: Random,
    pub(super) account: Account,
    pub(super) retained: BTreeMap<String, Register>,
    receivers: Vec<Receiver>,
    publishers: Vec<Publisher>,
    will: WillClient,
    lives: u32,
}

/// So few that queues are longer than what is on its way.
fn limits() -> Limits {
    Limits { inflight_max: 5, ..Limits::default() }
}

/// Who gets a message on this topic: those who are sure to, and those who may.
pub(super) fn receivers_of(receivers: &[Receiver], topic: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
    for receiver in receivers {
        match receiver.wants(topic) {
            Known::No => {}
            Known::Maybe => _ = may.insert(receiver.account_name().to_owned()),
            Known::Yes => {
                must.insert(receiver.account_name().to_owned());
                may.insert(receiver.account_name().to_owned());
            }
        }
    }
    (must, may)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            account: Account::default(),
            retained: BTreeMap::new(),
            receivers: vec![
                Receiver::new("R1", &[("one/#", 1), ("two/#", 2), ("will/#", 2)]),
                Receiver::new("R2", &[("one/+", 2), ("two/+", 1)]),
                Receiver::new("C", &[("one/#", 1), ("two/#", 2)]),
                Receiver::member("M1"),
                Receiver::member("M2"),
            ],
            publishers: vec![Publisher::new("P1"), Publisher::new("P2")],
            will: WillClient::default(),
            lives: 0,
        }
    }

    /// A broker starts on this disk and loses its power at that step, or after so many operations.
    pub(super) fn live(&mut self, files: &SimulatedFiles, cut_at: Option<u64>, operations: usize) {
        self.account.note(format!("power until {cut_at:?}"));
        let plan = move |step: &Step| (Some(step.number) == cut_at).then_some(Fault::PowerCut);
        self.live_with(files, plan, operations);
    }

    /// The same with other things that go wrong.
    pub(super) fn live_with(
        &mut self,
        files: &SimulatedFiles,
        plan: impl FnMut(&Step) -> Option<Fault> + Send + 'static,
        operations: usize,
    ) {
        self.lives += 1;
        self.account.note(format!("life {}", self.lives));
        let Some(mut life) = self.start(files, plan) else { return };
        let result = self.work(&mut life, operations);
        self.account.note(format!("the end: {result:?}"));
        if result.is_ok() && self.random.below(3) == 0 {
            // In order, while a checkpoint is being written; the power may go in the midst of it.
            self.account.note("shutdown".to_owned());
            let Life { mut broker, power } = life;
            broker.tend();
            broker.shut_down();
            if power.is_on() {
                power.cut(files);
            }
            self.everybody_dies();
            return;
        }
        if life.power.is_on() {
            life.power.cut(files);
        }
        self.everybody_dies();
        life.broker.kill();
    }

    fn start(
        &mut self,
        files: &SimulatedFiles,
        plan: impl FnMut(&Step) -> Option<Fault> + Send + 'static,
    ) -> Option<Life> {
        let power = Power::with(files, plan);
        match TestBroker::start(Arc::new(files.clone()), SMALL, limits()) {
            Ok(broker) => Some(Life { broker, power }),
            Err(_) if !power.is_on() => None,
            Err(error) => panic!("the broker does not start: {error}"),
        }
    }

    fn everybody_dies(&mut self) {
        self.receivers.iter_mut().for_each(Receiver::dies);
        self.publishers.iter_mut().for_each(Publisher::dies);
        self.will.dies(&mut self.account);
    }

    fn work(&mut self, life: &mut Life, operations: usize) -> Result<(), Dead> {
        if self.lives > 1 {
            self.probe(life)?;
        }
        if self.lives == 1 {
            for receiver in &mut self.receivers {
                receiver.connect(life, &mut self.account, true)?;
            }
        }
        for _ in 0..operations {
            self.operate(life)?;
        }
        Ok(())
    }

    fn operate(&mut self, life: &mut Life) -> Result<(), Dead> {
        let Self { random, account, receivers, publishers, will, .. } = self;
        let who = random.below(receivers.len());
        let what = random.below(27);
        match what {
            0..=6 => {
                let publisher = &mut publishers[who % 2];
                if publisher.publish(life, account, &mut self.retained, receivers, random)? {
                    will.something_is_durable(account);
                }
            }
            7 => publishers[who % 2].leave(account, random.coin())?,
            8..=10 => receivers[who].connect(life, account, random.coin())?,
            11..=14 => receivers[who].drain(account, random.below(3) == 0)?,
            15 => receivers[who].leave(account, random.coin())?,
            16..=17 => receivers[1 + who % 2].unsubscribe(account, random)?,
            18 if who == 2 => receivers[who].begin_anew(life, account)?,
            // What it leaves is the other member's.
            24..=26 if who >= 3 && receivers[7 - who].is_sure() => {
                receivers[who].begin_anew(life, account)?
            }
            19 => will.connect(life, account, receivers)?,
            20 => will.leave(account, random.coin())?,
            21 => self.probe(life)?,
            22 | 23 => {
                account.note("checkpoint".to_owned());
                life.broker.tend();
                if random.coin() {
                    life.broker.finish_tending();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Retained messages are what they may be.
    fn probe(&mut self, life: &Life) -> Result<(), Dead> {
        let (mut wire, _) = life.open(&Connect::new("probe"))?;
        wire.send(&subscribe(1, &[("ret/#", 1)]))?;
        let mut found = BTreeMap::new();
        // What is asked behind SUBACK is answered behind the retained messages.
        assert!(matches!(wire.expect()?, ServerPacket::SubAck(..)));
        wire.until_ping(|_, packet| {
            if let ServerPacket::Publish(publish) = packet {
                // Without RETAIN: one at QoS 0, for which nobody has waited, comes only now.
                assert!(publish.retain || publish.qos == 0, "{publish:?}");
                found.insert(publish.topic, publish.payload);
            }
        })?;
        for (topic, register) in &self.retained {
            let value = found.remove(topic).unwrap_or_default();
            if !register.may_be(&value) {
                let value = String::from_utf8_lossy(&value).into_owned();
                self.account.fail(&format!("{topic} is {value:?}, and is {register:?}"));
            }
        }
        if let Some(more) = found.keys().next() {
            self.account.fail(&format!("a retained message of {more}, which nobody sent"));
        }
        Ok(())
    }

    /// The last life: everybody takes what is there, then there is nothing missing and nothing too much.
    pub(super) fn settle(&mut self, files: &SimulatedFiles) {
        self.lives += 1;
        self.account.note("the last life".to_owned());
        let Some(life) = self.start(files, |_| None) else { self.account.fail("no start") };
        self.work_at_end(&life).unwrap();
        self.everybody_dies();
        life.broker.kill();
    }

    fn work_at_end(&mut self, life: &Life) -> Result<(), Dead> {
        self.probe(life)?;
        let Self { random, account, receivers, publishers, .. } = self;
        // For those who are away: their subscriptions are live, and those that are over are not.
        for publisher in publishers.iter_mut() {
            publisher.publish(life, account, &mut self.retained, receivers, random)?;
        }
        for receiver in receivers.iter_mut() {
            receiver.connect(life, account, true)?;
        }
        for _ in 0..2 {
            for publisher in publishers.iter_mut() {
                publisher.publish(life, account, &mut self.retained, receivers, random)?;
                publisher.finish(account, &mut self.retained)?;
            }
        }
        let deadline = Instant::now() + DEADLINE;
        while !account.missing().is_empty() {
            if Instant::now() > deadline {
                account.fail(&format!("lost: {:?}", account.missing()));
            }
            for receiver in receivers.iter_mut() {
                receiver.take(account, Duration::from_millis(1))?;
            }
        }
        for receiver in receivers.iter_mut() {
            receiver.drain(account, false)?;
        }
        // What was acknowledged now is over: it does not come again.
        for receiver in receivers.iter_mut() {
            receiver.connect(life, account, true)?;
            receiver.drain(account, false)?;
        }
        self.probe(life)
    }
}
