//! What all clients share: the history, the broker, and in which stage the run is.
//!
//! Everything runs on one thread, so cells do. No borrow lives across an `.await`.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::broker::Process;
use crate::history::{Event, What};
use crate::mqtt::Packet;

/// What the clients are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Traffic; the broker dies now and then.
    Traffic,
    /// Publishers finish what they began and end with sentinels; the broker stays alive from here on.
    Finish,
    /// Subscribers take what there is for them until the sentinels arrive.
    Drain,
    /// Nobody has anything to do but a few, who look whether messages come by themselves.
    Rest,
    /// The retained messages are read once more.
    Probe,
    /// Everybody disconnects.
    Part,
    /// The run is over.
    Stop,
}

/// How the traffic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Of all kinds.
    Usual,
    /// Megabytes within a second, so that checkpoints are due and segments are freed.
    Load,
    /// Sessions end, connections are lost and retained messages are replaced, and nobody else gives
    /// the broker a reason to write.
    Quiet,
}

/// What keeps the segments of a heavy cycle alive until it is quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// What members of groups hold.
    Groups,
    /// Retained messages.
    Retained,
    /// Both.
    Both,
}

/// The stage, and the broker.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The stage.
    pub stage: Stage,
    /// Where the broker listens or soon will; nothing while it is dead.
    pub addr: Option<SocketAddr>,
    /// How often it has been started.
    pub epoch: u32,
    /// How the traffic is.
    pub mood: Mood,
}

/// Packets that can be the last thing the broker says before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// PUBACK.
    PubAck,
    /// PUBREC to a publisher.
    PubRec,
    /// PUBCOMP to a publisher.
    PubComp,
    /// SUBACK.
    SubAck,
    /// UNSUBACK.
    UnsubAck,
    /// CONNACK.
    ConnAck,
    /// PUBLISH to a subscriber.
    Publish,
    /// PUBREL to a subscriber.
    PubRel,
    /// CONNACK to a member of a group, whose older session may have ended by this.
    MemberConnAck,
}

impl Aim {
    fn is_met_by(self, client: &str, packet: &Packet) -> bool {
        if self == Self::MemberConnAck {
            return matches!(packet, Packet::ConnAck { .. }) && client.starts_with(MEMBER);
        }
        matches!(
            (self, packet),
            (Self::PubAck, Packet::PubAck(_))
                | (Self::PubRec, Packet::PubRec(_))
                | (Self::PubComp, Packet::PubComp(_))
                | (Self::SubAck, Packet::SubAck { .. })
                | (Self::UnsubAck, Packet::UnsubAck(_))
                | (Self::ConnAck, Packet::ConnAck { .. })
                | (Self::Publish, Packet::Publish(_))
                | (Self::PubRel, Packet::PubRel(_))
        )
    }
}

/// How the names of members of groups begin.
pub const MEMBER: &str = "gm";

/// What the clients share.
#[derive(Debug)]
pub struct World {
    start: Instant,
    /// The seed of the run.
    pub seed: u64,
    /// Clients keep their connections, where ending them is not their very task.
    pub calm: bool,
    /// Everything that happened since the last check.
    pub history: RefCell<Vec<Event>>,
    /// The number of the cycle.
    pub cycle: Cell<u32>,
    /// The broker, while it lives.
    pub broker: RefCell<Option<Process>>,
    now: watch::Sender<Now>,
    trigger: Cell<Option<(Aim, u32)>>,
    struck: Cell<bool>,
    /// The time from the trigger to the kill.
    pub linger: Cell<Duration>,
    /// How long the last start took until the first CONNACK.
    pub start_time: Cell<Duration>,
    /// Rings when the trigger has gone off, and at the first CONNACK of an epoch.
    pub bell: Notify,
    acks: Cell<u32>,
    connacks: Cell<u32>,
    conns: Cell<u32>,
    done: Cell<usize>,
    /// Rings when a client has done its part of a stage.
    pub done_bell: Notify,
    /// What the subscribers wait for in [`Stage::Drain`]: topic and payload.
    pub sentinels: RefCell<Vec<(Rc<str>, Rc<str>)>>,
    /// The last epoch in which retained messages were probed.
    pub probed: Cell<u32>,
    /// Retained topics that have had a value since an acknowledgement, and always will have one.
    pub kept: RefCell<HashSet<Rc<str>>>,
    /// Messages to groups: acknowledged to their publishers, answered by a member.
    pub owed: RefCell<HashSet<Rc<str>>>,
    /// Bytes of load acknowledged in this heavy cycle.
    pub loaded: Cell<u64>,
    /// What the load of this heavy cycle is about.
    pub focus: Cell<Focus>,
    /// See [`owed`](Self::owed).
    pub answered: RefCell<HashSet<Rc<str>>>,
}

impl World {
    /// A world without broker.
    pub fn new(seed: u64, calm: bool) -> Rc<Self> {
        let now = watch::Sender::new(Now { stage: Stage::Traffic, addr: None, epoch: 0, mood: Mood::Usual });
        Rc::new(Self {
            start: Instant::now(),
            seed,
            calm,
            history: RefCell::default(),
            cycle: Cell::new(0),
            broker: RefCell::new(None),
            now,
            trigger: Cell::new(None),
            struck: Cell::new(false),
            linger: Cell::new(Duration::ZERO),
            start_time: Cell::new(Duration::from_millis(50)),
            bell: Notify::new(),
            acks: Cell::new(0),
            connacks: Cell::new(0),
            conns: Cell::new(0),
            done: Cell::new(0),
            done_bell: Notify::new(),
            sentinels: RefCell::default(),
            probed: Cell::new(0),
            kept: RefCell::default(),
            loaded: Cell::new(0),
            focus: Cell::new(Focus::Both),
            owed: RefCell::default(),
            answered: RefCell::default(),
        })
    }

    /// Writes an event down. If it is what the trigger waits for, the broker dies now.
    pub fn record(&self, what: What) {
        let mut is_aimed_at = false;
        if let What::Received(client, _, packet) = &what {
            match packet {
                Packet::PubAck(_) | Packet::PubRec(_) => self.acks.set(self.acks.get() + 1),
                Packet::ConnAck { .. } => {
                    self.connacks.set(self.connacks.get() + 1);
                    self.bell.notify_one();
                }
                _ => {}
            }
            if let Some((aim, count)) = self.trigger.get()
                && aim.is_met_by(client, packet)
            {
                is_aimed_at = count <= 1;
                self.trigger.set(Some((aim, count.saturating_sub(1))));
            }
        }
        self.push(what);
        if is_aimed_at && self.linger.get().is_zero() {
            self.kill();
        } else if is_aimed_at {
            self.trigger.set(None);
            self.struck.set(true);
            self.bell.notify_one();
        }
    }

    fn push(&self, what: What) {
        let event = Event { at: self.start.elapsed(), cycle: self.cycle.get(), what };
        self.history.borrow_mut().push(event);
    }

    /// Lets the broker be killed at the `count`th packet of this kind.
    pub fn aim(&self, aim: Aim, count: u32) {
        self.trigger.set(Some((aim, count)));
    }

    /// Whether the trigger has gone off and the broker is to die after [`linger`](Self::linger).
    pub fn is_struck(&self) -> bool {
        self.struck.get()
    }

    /// How the traffic is from now on.
    pub fn set_mood(&self, mood: Mood) {
        if self.mood() != mood {
            self.now.send_modify(|now| now.mood = mood);
        }
    }

    /// How the traffic is.
    pub fn mood(&self) -> Mood {
        self.now().mood
    }

    /// Returns when the traffic is not quiet.
    pub async fn noise(&self) {
        while self.mood() == Mood::Quiet && self.is(Stage::Traffic) {
            self.change().await;
        }
    }

    /// Whether every message that was acknowledged to a publisher to a group has been answered by a member.
    pub fn is_group_served(&self) -> bool {
        self.owed.borrow().is_subset(&self.answered.borrow())
    }

    /// SIGKILL, if it lives.
    pub fn kill(&self) {
        self.trigger.set(None);
        self.struck.set(false);
        let Some(mut broker) = self.broker.borrow_mut().take() else { return };
        broker.kill();
        self.push(What::Killed);
        self.now.send_modify(|now| {
            now.addr = None;
            now.mood = Mood::Usual;
        });
        self.bell.notify_one();
    }

    /// A new broker; the clients begin to knock at its door.
    pub fn adopt(&self, broker: Process) {
        let addr = broker.addr;
        *self.broker.borrow_mut() = Some(broker);
        self.acks.set(0);
        self.connacks.set(0);
        self.push(What::Started);
        self.now.send_modify(|now| {
            now.addr = Some(addr);
            now.epoch += 1;
        });
    }

    /// Whether it has answered a CONNECT since its start.
    pub fn is_ready(&self) -> bool {
        self.connacks.get() > 0
    }

    /// Messages acknowledged to publishers since its start.
    pub fn acks(&self) -> u32 {
        self.acks.get()
    }

    /// A number for a connection.
    pub fn next_conn(&self) -> u32 {
        self.conns.set(self.conns.get() + 1);
        self.conns.get()
    }

    /// The stage and the broker.
    pub fn now(&self) -> Now {
        *self.now.borrow()
    }

    /// Whether the run is in this stage.
    pub fn is(&self, stage: Stage) -> bool {
        self.now().stage == stage
    }

    /// The next stage, which nobody has done yet.
    pub fn enter(&self, stage: Stage) {
        self.done.set(0);
        self.now.send_modify(|now| now.stage = stage);
    }

    /// One more client has done its part of the stage.
    pub fn report_done(&self) {
        self.done.set(self.done.get() + 1);
        self.done_bell.notify_one();
    }

    /// How many have.
    pub fn done(&self) -> usize {
        self.done.get()
    }

    /// Returns after this time, or earlier if the stage or the broker changes.
    pub async fn pause(&self, time: Duration) {
        let mut now = self.now.subscribe();
        let _ = tokio::time::timeout(time, now.changed()).await;
    }

    /// Returns when the stage or the broker changes.
    pub async fn change(&self) {
        let _ = self.now.subscribe().changed().await;
    }
}
