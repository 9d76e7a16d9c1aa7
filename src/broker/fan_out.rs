//! `FanOut`: a message on its way to more receivers than fit into one turn.
//!
//! First its receivers are found, then it is delivered, both in slices, each in a turn of its own. What
//! goes on record of it is one frame all the same, with the message, every durable receiver and the
//! publisher's QoS 2 id, and that is submitted with the last slice: after a crash either all of it
//! happened or nothing, and the publisher has no answer before. Until then the fan-out holds a
//! [`TurnGuard`], for the receivers of earlier slices have something that is not on record yet.
//!
//! A fan-out that has begun is always brought to its end, also when its publisher leaves, and whatever the
//! state of the log: a checkpoint may be waiting for it.
//!
//! What a fan-out holds grows with its receivers, and is charged to [`Account::Waiting`]. Wills can
//! be due by the thousand, for their clients are gone, and thousands of connections can publish at
//! once: so only as many fan-outs as there are places
//! ([`FAN_OUTS_AT_ONCE`](super::background::FAN_OUTS_AT_ONCE)) have lists of receivers of their own.
//! The others know their message only, in line for a place: what they have found in their first turn
//! they let go of, and they begin to look once more when they have one. A connection waits for it as
//! it does for its next turn (`net/line.rs`). No place is needed where the list is shared with who
//! keeps it, which is charged for it, nor for a few routes that the first turn has left.
//!
//! Who has a place waits for a turn and for nothing else: not for the log, not for his client, not
//! for another fan-out. So places come back, and whoever waits for one gets it. He holds his turn
//! open all the while, and a checkpoint waits for that: longer than for one fan-out, but not for
//! ever. The order of one publisher's messages stays, for nothing of it is handled meanwhile.
//! Whoever can wait for nothing goes on without a place: a start, a shutdown, a program that
//! publishes, what is left after a panic.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use super::budget::cost;
use super::turn_log::{Retention, Target};
use super::{Client, Core, Publisher, Turn};
use crate::accounts::{Account, Charge};
use crate::router::{Route, RouteList, RouteMatch, Routes};
use crate::session::{Delivered, Message, Outgoing};
use crate::storage::Record;
use crate::turns::TurnGuard;

/// Receivers taken from a list at once.
const AT_ONCE: usize = 256;

/// How often a new connection looks whether what the one before it has published is delivered.
pub(super) const FAN_OUT_LOOK: Duration = Duration::from_millis(2);

/// See the module's documentation.
pub(crate) struct FanOut {
    message: Arc<Message>,
    retain: bool,
    /// The key of the session that publishes it, for No Local; 0: none.
    publisher: u64,
    stage: Stage,
    has_receivers: bool,
    /// Durable receivers so far.
    targets: Vec<Target>,
    /// Those that wait until this is committed.
    waiting: Vec<Arc<Client>>,
    effects: Effects,
    /// Of its lists and its message.
    charge: Charge,
    publishing: Option<Publishing>,
    /// It is one of those that may have a list of their own.
    place: Option<OwnedSemaphorePermit>,
    _guard: Option<TurnGuard>,
}

enum Stage {
    /// It has no place yet.
    InLine,
    /// Its receivers are being looked for.
    Matching(Box<RouteMatch<Arc<Client>>>),
    /// They are being served.
    Delivering(RouteList<Arc<Client>>),
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
    fn record(self) -> Option<Record<'static>> {
        match self {
            Self::Nothing => None,
            Self::Received { session, id } => Some(Record::Received { session, id }),
            Self::WillEnd(will) => Some(Record::WillEnd { will }),
        }
    }
}

/// What a publish does besides being delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effects {
    pub(super) retention: Retention,
    pub(super) also: Also,
    /// It is acknowledged only when it is on disk.
    pub(super) waited: bool,
}

/// Who is served, and in which way.
pub(super) enum Receivers<'a> {
    /// They are known.
    Known(Routes<'a, Arc<Client>>),
    /// They are still being looked for.
    Matching(Box<RouteMatch<Arc<Client>>>),
    /// They are looked for when the fan-out has a place.
    InLine,
}

/// A session whose message is on its way, from it or to it: nobody attaches to it, for what the next
/// connection sends or gets comes behind.
pub(super) struct Publishing(Arc<Client>);

impl Drop for Publishing {
    fn drop(&mut self) {
        self.0.fan_outs.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Client {
    /// Whether something it has published is still on its way to receivers.
    pub(super) fn is_publishing(&self) -> bool {
        self.fan_outs.load(Ordering::Acquire) > 0
    }

    /// Waits until it is not. That ends by itself: a fan-out waits for its place and its turns, and for
    /// no client. `false`: the broker shuts down, and wills that were on their way stay there.
    pub(super) async fn until_published(&self, core: &Core) -> bool {
        while self.is_publishing() {
            if core.is_shutting_down() {
                return false;
            }
            tokio::time::sleep(FAN_OUT_LOOK).await;
        }
        true
    }
}

impl Core {
    /// A message of the broker's own that does not fit into its turn, as `$SYS` may have them.
    #[cfg(test)]
    pub(crate) fn publish_later(&self, topic: &str, payload: &str) {
        let mut turn = Turn::new();
        turn.begin(self);
        turn.budget.keep(0);
        let message = Arc::new(Message::new(topic, payload, crate::protocol::QoS::AtMostOnce));
        let fan_out = self.publish_message(&mut turn, &message, false);
        turn.finish(self);
        self.complete_later(fan_out.expect("it has several receivers"));
    }

    /// Whether something that this client has published is still on its way.
    #[cfg(test)]
    pub(crate) fn is_publishing(&self, id: &str) -> bool {
        self.clients.get(id).is_some_and(|entry| entry.value().is_publishing())
    }

    /// As if a message of this session were on its way.
    #[cfg(test)]
    pub(crate) fn publishing(&self, id: &str) -> impl Drop {
        let client = self.clients.get(id).map(|entry| Arc::clone(entry.value())).expect("it has a session");
        Publishing::of(&client)
    }
}

impl Publishing {
    pub(super) fn of(client: &Arc<Client>) -> Self {
        client.fan_outs.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(client))
    }
}

impl FanOut {
    /// It is this session's message.
    pub(super) fn hold_back_successors(&mut self, client: &Arc<Client>) {
        self.publishing = Some(Publishing::of(client));
    }

    /// It has this place until it is done.
    pub(super) fn keep_place(&mut self, place: OwnedSemaphorePermit) {
        self.place = Some(place);
    }

    /// Whether it needs a place before it goes on.
    pub(super) fn needs_place(&self) -> bool {
        matches!(self.stage, Stage::InLine) && self.place.is_none()
    }

    /// Its place is for others now. It goes on without one, should anybody go on with it.
    pub(super) fn give_place_back(&mut self) {
        self.place = None;
    }

    /// Charges what it has in memory: its lists and its message.
    fn settle(&mut self) {
        let routes = match &self.stage {
            Stage::InLine => 0,
            Stage::Matching(found) => found.found(),
            Stage::Delivering(list) => list.own(),
        };
        let bytes = routes * size_of::<Route<Arc<Client>>>()
            + self.targets.capacity() * size_of::<Target>()
            + self.waiting.capacity() * size_of::<Arc<Client>>()
            + size_of::<Self>()
            + self.message.memory_of_holder();
        self.charge.set(bytes);
    }

    /// Whether anybody gets the message. Known when it is done.
    pub(super) fn has_receivers(&self) -> bool {
        self.has_receivers
    }
}

impl Core {
    /// Delivers a message, as far as the turn's budget goes. `Some`: the rest, which has to be continued.
    #[inline]
    pub(super) fn fan_out(
        &self,
        turn: &mut Turn,
        receivers: Receivers<'_>,
        outgoing: &mut Outgoing<'_>,
        effects: Effects,
    ) -> Option<Box<FanOut>> {
        let stage = match receivers {
            Receivers::Known(routes) => {
                let all = routes.as_slice();
                outgoing.meant_for(all.len());
                let done = self.deliver_all(turn, all, outgoing);
                if done == all.len() {
                    let also = effects.also.record();
                    turn.log.publish(self, outgoing, effects.retention, also.as_slice(), effects.waited);
                    return None;
                }
                let mut list = routes.to_list();
                list.next(done);
                Stage::Delivering(list)
            }
            Receivers::Matching(begun) => {
                let place = self.background.take_place();
                return Some(self.begin_match(turn, begun, place, outgoing, effects));
            }
            Receivers::InLine => Stage::InLine,
        };
        Some(self.begin_fan_out(turn, stage, outgoing, effects))
    }

    /// A fan-out whose receivers are still being looked for, in its place. Without one it will begin
    /// to look once more when it has one.
    #[cold]
    pub(super) fn begin_match(
        &self,
        turn: &mut Turn,
        begun: Box<RouteMatch<Arc<Client>>>,
        place: Option<OwnedSemaphorePermit>,
        outgoing: &mut Outgoing<'_>,
        effects: Effects,
    ) -> Box<FanOut> {
        // What the first slice has left of the turn is for others.
        turn.budget.keep(0);
        outgoing.meant_for(usize::MAX);
        let stage = if place.is_some() { Stage::Matching(begun) } else { Stage::InLine };
        let mut fan_out = self.begin_fan_out(turn, stage, outgoing, effects);
        fan_out.place = place;
        fan_out
    }

    #[cold]
    fn begin_fan_out(
        &self,
        turn: &mut Turn,
        stage: Stage,
        outgoing: &mut Outgoing<'_>,
        effects: Effects,
    ) -> Box<FanOut> {
        let mut fan_out = Box::new(FanOut {
            message: outgoing.message(),
            retain: outgoing.retain(),
            publisher: outgoing.publisher(),
            has_receivers: matches!(stage, Stage::Delivering(_)),
            stage,
            targets: turn.log.take_targets(),
            // Some of them wait for something else that this turn puts on record: they are woken
            // once more than they have to be.
            waiting: turn.log.waiting().to_vec(),
            effects,
            charge: Charge::new(&self.accounts, Account::Waiting, 0),
            publishing: None,
            place: None,
            _guard: self.enter_turn(),
        });
        // Also a will's, which is charged as such no more.
        fan_out.message.charge_to(&self.accounts);
        fan_out.settle();
        fan_out
    }

    /// One more slice, in a turn that has begun; `true`: it was the last. `by`: who publishes it,
    /// if it is a client.
    pub(super) fn continue_fan_out(
        &self,
        turn: &mut Turn,
        fan_out: &mut FanOut,
        by: Option<(&Client, &mut Publisher)>,
    ) -> bool {
        if let Stage::InLine = fan_out.stage {
            let found = RouteMatch::begin(&self.router, fan_out.message.topic());
            fan_out.stage = Stage::Matching(Box::new(found));
        }
        if let Stage::Matching(begun) = &mut fan_out.stage {
            let mut steps = turn.budget.left() as usize;
            let is_whole = begun.go_on(&self.router, fan_out.message.topic(), &mut steps);
            turn.budget.keep(steps);
            if !is_whole {
                fan_out.settle();
                return false;
            }
            let found = std::mem::replace(&mut fan_out.stage, Stage::Delivering(Vec::new().into()));
            if let Stage::Matching(found) = found {
                let routes = self.judge_found(by, fan_out.message.topic(), *found);
                fan_out.has_receivers = routes.left() > 0;
                fan_out.stage = Stage::Delivering(routes);
            }
        }
        let mut scratch = std::mem::take(&mut turn.scratch);
        let message = Arc::clone(&fan_out.message);
        let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch)
            .with_retain(fan_out.retain)
            .with_publisher(fan_out.publisher);
        turn.log.put_targets(&mut fan_out.targets);
        let mut earlier = turn.log.take_waiting();
        let is_done = self.serve_slice(turn, fan_out, &mut outgoing);
        if is_done {
            let Effects { retention, also, waited } = fan_out.effects;
            turn.log.put_waiting(&mut earlier);
            turn.log.put_waiting(&mut fan_out.waiting);
            // A successor may come when it is handed to the log.
            turn.published.extend(fan_out.publishing.take());
            turn.log.publish(self, &mut outgoing, retention, also.record().as_slice(), waited);
        } else {
            fan_out.targets = turn.log.take_targets();
            fan_out.waiting.append(&mut turn.log.take_waiting());
            turn.log.put_waiting(&mut earlier);
            fan_out.settle();
        }
        turn.scratch = scratch;
        is_done
    }

    /// Serves receivers until the turn's budget is spent; `true`: there are no more.
    fn serve_slice(&self, turn: &mut Turn, fan_out: &mut FanOut, outgoing: &mut Outgoing<'_>) -> bool {
        let Stage::Delivering(routes) = &mut fan_out.stage else { return false };
        while !turn.budget.is_spent() {
            let next = routes.next(AT_ONCE);
            if next.is_empty() {
                return true;
            }
            let done = self.deliver_all(turn, next, outgoing);
            let not_served = next.len() - done;
            routes.give_back(not_served);
        }
        routes.left() == 0
    }

    /// All that is left of it, in turns between which others get theirs. To be called with no place
    /// but its own: it may wait for one.
    pub(crate) async fn complete_fan_out(&self, mut fan_out: Box<FanOut>) {
        if fan_out.needs_place() {
            fan_out.place = self.background.wait_for_place().await;
        }
        while !self.run_fan_out_slice(&mut fan_out) {
            tokio::task::yield_now().await;
        }
    }

    /// The same of two of one client. One that has a place goes before one that waits for a place:
    /// else all places could be with those who wait.
    pub(super) async fn complete_fan_outs(&self, mut fan_outs: [Option<Box<FanOut>>; 2]) {
        fan_outs.sort_by_key(|fan_out| fan_out.as_ref().is_some_and(|fan_out| fan_out.needs_place()));
        for fan_out in fan_outs.into_iter().flatten() {
            self.complete_fan_out(fan_out).await;
        }
    }

    /// All that is left of it at once, where nobody can wait: at the start, and after a panic.
    pub(crate) fn complete_fan_out_now(&self, mut fan_out: Box<FanOut>) {
        while !self.run_fan_out_slice(&mut fan_out) {}
    }

    pub(super) fn run_fan_out_slice(&self, fan_out: &mut FanOut) -> bool {
        let mut turn = Turn::new();
        turn.begin(self);
        let is_done = self.continue_fan_out(&mut turn, fan_out, None);
        turn.finish(self);
        is_done
    }

    /// Delivers to everybody in `routes`, which are sorted by session, until the turn's budget is
    /// spent. Returns how many of the routes are done: at least those of one session.
    pub(crate) fn deliver_all(
        &self,
        turn: &mut Turn,
        routes: &[Route<Arc<Client>>],
        outgoing: &mut Outgoing<'_>,
    ) -> usize {
        let mut done = 0;
        // A session has one route, or several in a row where they must be told apart.
        for routes in routes.chunk_by(|a, b| Arc::ptr_eq(&a.subscriber, &b.subscriber)) {
            let Some(Route { subscriber: client, .. }) = routes.first() else { continue };
            match &client.group {
                Some(group) => self.deliver_shared(turn, group, outgoing),
                None => {
                    let mut state = client.lock();
                    let delivered = self.deliver_locked(turn, client, &mut state, outgoing, routes, None);
                    drop(state);
                    if let Delivered::Dropped(reason) = delivered {
                        turn.count_drop(reason, 1);
                    }
                }
            }
            done += routes.len();
            turn.budget.spend(u32::try_from(routes.len()).unwrap_or(u32::MAX).saturating_mul(cost::RECEIVER));
            if turn.budget.is_spent() {
                break;
            }
        }
        done
    }
}

#[cfg(test)]
mod tests;
