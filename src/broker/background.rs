//! What the broker goes on with by itself: sessions that give their messages away
//! ([`hand_over`](super::hand_over)), and messages of nobody's connection that did not fit into
//! their turn ([`fan_out`](super::fan_out)).
//!
//! Places for fan-outs are given out here as well, and the lists of receivers that are to be woken.
//!
//! The two do not wait for one another. A hand-over may have to wait until the log has room. A fan-out never
//! waits: it holds a turn open, and the checkpoint that makes the room waits for that turn.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::fan_out::FanOut;
use super::hand_over::Progress;
use super::turn_log::{self, WAKES_AT_ONCE};
use super::{Client, Core, DeferredFlush, Turn};
use crate::ledger::Position;

/// Fan-outs that may have lists of receivers of their own, whoever publishes. One more is that of the
/// queue below. Enough for every thread to have some; with 100,000 durable receivers each the lists
/// take about 10 MB for one.
pub(super) const FAN_OUTS_AT_ONCE: usize = 8;

/// How long hand-overs rest when none of them can go on.
const STUCK_PAUSE: Duration = Duration::from_millis(10);

/// What there is to do.
pub(super) struct Background {
    /// Sessions that have something to give away, in turn.
    pub(super) sessions: Waiting<Arc<Client>>,
    /// Messages of the broker's own, and wills.
    pub(super) fan_outs: Waiting<Box<FanOut>>,
    /// Receivers that are to be written to while their publisher waits for its next turn.
    flushes: Waiting<Box<DeferredFlush>>,
    /// Receivers that are to be woken when the log has come to a place.
    wakes: Waiting<(Vec<Arc<Client>>, Position)>,
    places: Arc<Semaphore>,
}

impl Default for Background {
    fn default() -> Self {
        Self {
            flushes: Waiting::default(),
            sessions: Waiting::default(),
            fan_outs: Waiting::default(),
            wakes: Waiting::default(),
            places: Arc::new(Semaphore::new(FAN_OUTS_AT_ONCE)),
        }
    }
}

/// A queue with one reader, who waits for news.
pub(super) struct Waiting<T> {
    queue: Mutex<VecDeque<T>>,
    news: Notify,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { queue: Mutex::default(), news: Notify::new() }
    }
}

impl<T> Waiting<T> {
    pub(super) fn push(&self, task: T) {
        self.queue.lock().push_back(task);
        self.news.notify_one();
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.queue.lock().pop_front()
    }

    fn len(&self) -> usize {
        self.queue.lock().len()
    }

    /// Cancel safe.
    async fn next(&self) -> T {
        loop {
            if let Some(task) = self.pop() {
                return task;
            }
            self.news.notified().await;
        }
    }
}

impl Background {
    /// A place for a fan-out, if there is one.
    pub(super) fn take_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// The same for one that waits in line.
    pub(super) async fn wait_for_place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Nobody goes on with the queue any more: connections that are closing need its places.
    fn give_places_back(&self) {
        self.fan_outs.queue.lock().iter_mut().for_each(|fan_out| fan_out.give_place_back());
    }

    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.sessions.queue.lock().is_empty() && self.fan_outs.queue.lock().is_empty()
    }
}

impl Core {
    /// Does it until the broker shuts down. What is left then is on record as it was, and the next start goes
    /// on with it.
    pub(crate) async fn run_background(self: Arc<Self>) {
        tokio::select! {
            () = self.run_hand_overs() => {}
            () = self.run_fan_outs() => {}
            () = self.run_wakes() => {}
            () = self.run_flushes() => {}
            () = self.shut_down() => {}
        }
        self.background.give_places_back();
    }

    async fn run_hand_overs(self: &Arc<Self>) {
        // How many in a row could not go on.
        let mut stuck = 0;
        loop {
            let client = self.background.sessions.next().await;
            let progress = self.hand_over_slice(&client).await;
            if progress != Progress::Done {
                // Behind the others: a long hand-over does not hold up the short ones.
                self.background.sessions.push(client);
            }
            stuck = if progress == Progress::None { stuck + 1 } else { 0 };
            if stuck > 0 && stuck >= self.background.sessions.len() {
                // Nobody tells when a disk can be read again.
                tokio::time::sleep(STUCK_PAUSE).await;
                stuck = 0;
            }
            tokio::task::yield_now().await;
        }
    }

    /// At the end of an orderly shutdown, when all connections are gone: what is in memory only, because
    /// clean sessions gave it away, goes to members of its groups whose sessions are kept. What other
    /// sessions give away is on record, and the next start goes on with it.
    pub(crate) async fn finish_hand_overs(self: &Arc<Self>) {
        let mut leaving: Vec<Arc<Client>> =
            self.leaving.iter().map(|entry| Arc::clone(entry.value())).collect();
        leaving.retain(|client| !client.lock().gives_from_log());
        while !leaving.is_empty() {
            let mut is_stuck = true;
            // In turn: one whose next message finds no room holds up nobody else's.
            for client in std::mem::take(&mut leaving) {
                let progress = self.hand_over_slice(&client).await;
                is_stuck &= progress == Progress::None;
                if progress != Progress::Done {
                    leaving.push(client);
                }
                tokio::task::yield_now().await;
            }
            if is_stuck {
                tokio::time::sleep(STUCK_PAUSE).await;
            }
        }
    }

    async fn run_fan_outs(&self) {
        loop {
            // Without a place: others of this queue may have them.
            let mut fan_out = self.background.fan_outs.next().await;
            // One message's fault must not end the deliveries of all others.
            let slice =
                |fan_out: &mut FanOut| catch_unwind(AssertUnwindSafe(|| self.run_fan_out_slice(fan_out)));
            while !slice(&mut fan_out).unwrap_or_else(|_| {
                tracing::error!("a delivery panicked: some do not get the message");
                true
            }) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn run_wakes(&self) {
        loop {
            let (mut clients, end) = self.background.wakes.next().await;
            let Some(log) = &self.log else { continue };
            while !clients.is_empty() {
                let next = clients.len().saturating_sub(WAKES_AT_ONCE);
                turn_log::wake_at(log, clients.drain(next..), end);
                tokio::task::yield_now().await;
            }
        }
    }

    async fn run_flushes(&self) {
        loop {
            let mut deferred = Some(self.background.flushes.next().await);
            while deferred.is_some() {
                let mut turn = Turn::new();
                turn.begin(self);
                turn.write_deferred(&mut deferred);
                turn.finish(self);
                tokio::task::yield_now().await;
            }
        }
    }

    /// Has the receivers written to whose publisher has to wait for its next turn.
    pub(crate) fn write_later(&self, deferred: Box<DeferredFlush>) {
        self.background.flushes.push(deferred);
    }

    /// Has receivers woken that are too many for one turn.
    pub(super) fn wake_later(&self, clients: Vec<Arc<Client>>, end: Position) {
        self.background.wakes.push((clients, end));
    }

    /// Whether messages of the broker's own are on their way still.
    pub(super) fn is_behind(&self) -> bool {
        self.background.fan_outs.len() > 0
    }

    /// Has a message that did not fit into its turn delivered, by and by.
    pub(super) fn complete_later(&self, fan_out: Box<FanOut>) {
        self.background.fan_outs.push(fan_out);
        if self.is_shutting_down() {
            self.background.give_places_back();
        }
    }

    /// The places among fan-outs, for a connection that waits for one.
    pub(crate) fn fan_out_places(&self) -> &Arc<Semaphore> {
        &self.background.places
    }
}
