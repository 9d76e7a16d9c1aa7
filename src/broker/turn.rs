//! `Turn`: what one run through a connection's input gathers, and settles at its end.
//!
//! A turn handles every packet of one read. Receivers are noted once, not once per message; their output is written at the end, a bounded
//! number of them directly by this thread, the rest by their own tasks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::client::signal;
use super::fan_out::Publishing;
use super::promise::Promiser;
use super::turn_log::TurnLog;
use super::{Client, Core, flush};
use crate::session::{DropReason, EncodeScratch, Timestamp};
use crate::turns::TurnGuard;

/// Receivers whose output the publisher's thread writes itself in one turn.
const DIRECT_FLUSHES_MAX: usize = 64;
/// Time after which the rest is left to the receivers' tasks: the publisher's thread serves others too.
const DIRECT_FLUSH_TIME_MAX: Duration = Duration::from_micros(500);

/// A turn that took this long has held up others: its budget is a tenth of it.
const LONG: Duration = Duration::from_millis(10);

/// See the module's documentation.
pub(crate) struct Turn {
    pub(crate) now: Timestamp,
    began: Option<Instant>,
    /// Held from the beginning of the turn until everything it has taken out is on record.
    guard: Option<TurnGuard>,
    /// What of its work is left.
    pub(crate) budget: Budget,
    /// Whose messages with many receivers go on record with this turn.
    pub(super) published: Vec<Publishing>,
    pub(super) touched: Vec<Arc<Client>>,
    /// Who promises to write their output.
    pub(super) promiser: Promiser,
    /// It is a connection's, which may put writes off.
    pub(super) is_connections: bool,
    pub(crate) scratch: EncodeScratch,
    /// Room for the identifiers of one delivery's subscriptions.
    pub(crate) subscription_ids: Vec<u32>,
    /// A receiver that keeps reading is close to its bound: the publisher had better wait a moment.
    pub(crate) congested: bool,
    /// What goes into the durable log.
    pub(crate) log: TurnLog,
    pub(crate) sent: u64,
    pub(crate) queued: u64,
    /// What receivers hold in memory more than before.
    pub(super) held: i64,
    dropped: [u64; DropReason::ALL.len()],
}

impl Turn {
    pub(crate) fn new() -> Self {
        Self {
            now: Timestamp::default(),
            began: None,
            guard: None,
            budget: Budget::of_turn(),
            published: Vec::new(),
            touched: Vec::new(),
            promiser: Promiser::new(),
            is_connections: false,
            scratch: EncodeScratch::default(),
            subscription_ids: Vec::new(),
            congested: false,
            log: TurnLog::default(),
            sent: 0,
            queued: 0,
            held: 0,
            dropped: [0; DropReason::ALL.len()],
        }
    }

    /// Begins a turn of nobody's connection.
    pub(crate) fn begin(&mut self, core: &Core) {
        self.begin_as(core, Promiser::new());
        self.is_connections = false;
    }

    /// Begins a turn of a connection.
    pub(crate) fn begin_as(&mut self, core: &Core, promiser: Promiser) {
        (self.promiser, self.is_connections) = (promiser, true);
        let now = Instant::now();
        (self.now, self.began) = (core.clock.at(now), Some(now));
        self.congested = false;
        self.guard = core.enter_turn();
        self.budget = Budget::of_turn();
    }

    pub(crate) fn count_drop(&mut self, reason: DropReason, n: u64) {
        if let Some(count) = self.dropped.get_mut(reason as usize) {
            *count += n;
        }
    }

    /// Writes what the turn produced and adds up its counts. `Some`: how long it took, if that was
    /// too long; it is counted.
    pub(crate) fn finish(&mut self, core: &Core) -> Option<Duration> {
        self.settle_counts(core);
        self.log.commit(core);
        self.published.clear();
        // Before anybody is told that his message was taken.
        core.memory.add(std::mem::take(&mut self.held));
        core.shed_if_over();
        if !self.touched.is_empty() {
            self.write_touched(core);
        }
        self.guard = None;
        let took = self.began.take()?.elapsed();
        (took >= LONG).then(|| {
            core.metrics.turns_long.add(1);
            took
        })
    }

    fn write_touched(&mut self, core: &Core) {
        let mut direct = 0;
        let mut started = None;
        // One by one: should writing to one panic, whoever finishes the turn then goes on with the
        // others. They were promised it.
        self.touched.reverse();
        while let Some(client) = self.touched.pop() {
            let may_write = direct < DIRECT_FLUSHES_MAX
                && match started {
                    None => true,
                    // The clock is read every eighth time.
                    Some(started) => direct % 8 != 0 || Instant::elapsed(&started) < DIRECT_FLUSH_TIME_MAX,
                };
            if may_write {
                started.get_or_insert_with(Instant::now);
                direct += 1;
                flush::flush(core, &client, self.now, flush::By::Publisher, false);
            } else {
                direct = DIRECT_FLUSHES_MAX;
                let mut state = client.lock();
                core.settle(&client, &mut state);
                if let Some(link) = &state.link {
                    link.signal(signal::FLUSH);
                }
            }
        }
        self.touched.shrink_to(1_024);
        self.scratch.shrink();
    }

    fn settle_counts(&mut self, core: &Core) {
        let metrics = &core.metrics;
        metrics.publish_sent.add(std::mem::take(&mut self.sent));
        metrics.publish_queued.add(std::mem::take(&mut self.queued));
        for (reason, count) in DropReason::ALL.into_iter().zip(&mut self.dropped) {
            metrics.dropped.add(reason.label(), std::mem::take(count));
        }
    }
}
