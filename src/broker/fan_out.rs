//! `FanOut`: a message on its way to more receivers than fit into one turn.
//!
//! It is delivered in slices, each in a turn of its own, in the order of its routes. What goes on
//! record of it is one frame all the same, with the message, every durable receiver and the
//! publisher's QoS 2 id, and that is submitted with the last slice: after a crash either all of it
//! happened or nothing, and the publisher has no answer before. Until then the fan-out holds a
//! [`TurnGuard`], for the receivers of earlier slices have something that is not on record yet.
//!
//! A fan-out that has begun is always brought to its end, also when its publisher leaves.

use std::sync::Arc;
use std::task::Waker;

use super::budget::cost;
use super::turn_log::{Retention, Target};
use super::{Client, Core, Turn};
use crate::router::Route;
use crate::session::{Message, Outgoing};
use crate::storage::Record;
use crate::turns::TurnGuard;

/// See the module's documentation.
pub(crate) struct FanOut {
    message: Arc<Message>,
    retain: bool,
    /// The key of the session that publishes it, for No Local; 0: none.
    publisher: u64,
    routes: Vec<Route<Arc<Client>>>,
    next: usize,
    /// Durable receivers so far.
    targets: Vec<Target>,
    /// Durable receivers that wait until this is committed.
    waiting: Vec<Waker>,
    retention: Retention,
    also: Also,
    /// It is acknowledged only when it is on disk.
    waited: bool,
    _guard: Option<TurnGuard>,
}

/// What goes on record in the same frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Also {
    Nothing,
    /// A QoS 2 PUBLISH of this session and packet id.
    Received {
        session: u64,
        id: u16,
    },
    /// The will with this key is published.
    WillEnd(u64),
}

impl Also {
    pub(super) fn record(self) -> Option<Record<'static>> {
        match self {
            Self::Nothing => None,
            Self::Received { session, id } => Some(Record::Received { session, id }),
            Self::WillEnd(will) => Some(Record::WillEnd { will }),
        }
    }
}

/// What a publish does besides being delivered.
pub(super) struct Effects {
    pub(super) retention: Retention,
    pub(super) also: Also,
    pub(super) waited: bool,
}

impl Core {
    /// Delivers a message, as far as the turn's budget goes. `Some`: the rest, which has to be
    /// [continued](Self::continue_fan_out).
    pub(super) fn fan_out(
        &self,
        turn: &mut Turn,
        routes: &[Route<Arc<Client>>],
        outgoing: &mut Outgoing<'_>,
        effects: Effects,
    ) -> Option<Box<FanOut>> {
        let Effects { retention, also, waited } = effects;
        let done = self.deliver_all(turn, routes, outgoing);
        match routes.get(done..) {
            None | Some([]) => {
                turn.log.publish(self, outgoing, retention, also.record().as_slice(), waited);
                None
            }
            Some(rest) => {
                let (targets, waiting) = turn.log.take_receivers();
                Some(Box::new(FanOut {
                    message: outgoing.message(),
                    retain: outgoing.retain(),
                    publisher: outgoing.publisher(),
                    routes: rest.to_vec(),
                    next: 0,
                    targets,
                    waiting,
                    retention,
                    also,
                    waited,
                    _guard: self.enter_turn(),
                }))
            }
        }
    }

    /// One more slice, in a turn that has begun; `true`: it was the last.
    pub(crate) fn continue_fan_out(&self, turn: &mut Turn, fan_out: &mut FanOut) -> bool {
        let mut scratch = std::mem::take(&mut turn.scratch);
        let message = Arc::clone(&fan_out.message);
        let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch)
            .with_retain(fan_out.retain)
            .with_publisher(fan_out.publisher);
        turn.log.put_receivers(&mut fan_out.targets, &mut fan_out.waiting);
        let rest = fan_out.routes.get(fan_out.next..).unwrap_or_default();
        fan_out.next += self.deliver_all(turn, rest, &mut outgoing);
        let is_done = fan_out.next >= fan_out.routes.len();
        if is_done {
            let also = fan_out.also.record();
            turn.log.publish(self, &mut outgoing, fan_out.retention, also.as_slice(), fan_out.waited);
        } else {
            (fan_out.targets, fan_out.waiting) = turn.log.take_receivers();
        }
        turn.scratch = scratch;
        is_done
    }

    /// All that is left of it, in turns between which others get theirs.
    pub(crate) async fn complete_fan_out(&self, mut fan_out: Box<FanOut>) {
        loop {
            if self.run_fan_out_slice(&mut fan_out) {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    /// All that is left of it at once, where nobody can wait: at the start, and after a panic.
    pub(crate) fn complete_fan_out_now(&self, mut fan_out: Box<FanOut>) {
        while !self.run_fan_out_slice(&mut fan_out) {}
    }

    fn run_fan_out_slice(&self, fan_out: &mut FanOut) -> bool {
        let mut turn = Turn::new();
        turn.begin(self);
        let is_done = self.continue_fan_out(&mut turn, fan_out);
        turn.finish(self);
        is_done
    }

    /// Delivers to everybody in `routes`, which are sorted by session, until the turn's budget is spent. Returns how many of the routes
    /// are done: at least those of one session.
    pub(crate) fn deliver_all(
        &self,
        turn: &mut Turn,
        routes: &[Route<Arc<Client>>],
        outgoing: &mut Outgoing<'_>,
    ) -> usize {
        let mut done = 0;
        // A session has one route, or several in a row where they must be told apart.
        for routes in routes.chunk_by(|a, b| Arc::ptr_eq(&a.subscriber, &b.subscriber)) {
            if done > 0 && turn.budget.is_spent() {
                break;
            }
            done += routes.len();
            turn.budget.spend(cost::RECEIVER + (routes.len() / 16) as u32);
            let Some(Route { subscriber: client, .. }) = routes.first() else { continue };
            self.deliver_to(turn, client, routes, outgoing);
        }
        done
    }
}
