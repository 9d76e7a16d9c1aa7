//! Which time is on record, and what it has to do with the time of day.
//!
//! Three clocks:
//! - *Broker time* ([`Timestamp`], [`Clock::now`]): milliseconds since the start, monotonic.
//!   Everything that runs goes by it.
//! - *Log time*: broker time plus a base that each start chooses. Every time on record is log time
//!   (when a session was left, when a message expires), so none of them moves while the broker
//!   runs, whatever happens to the time of day.
//! - The *wall clock*: the system's time of day. It may be wrong, and be set right or wrong at any
//!   moment. It serves to tell at a start how long the broker was away, and for what others give as
//!   time of day (the `exp` of a token).
//!
//! The record `Clock` says what the wall clock showed at a moment of log time. It is written at
//! each start and in each checkpoint, when the wall clock has jumped against broker time by more
//! than [`JUMP_MS`] (looked at by the timers, and before anything with a time in it is handed to
//! the log), and at the end. Between two of them the two clocks go alike, so the newest holds for
//! whatever follows it.
//!
//! A start takes the newest one and lets log time go on from there, by as much as the wall clock
//! has gone on since, and not at all if it stands before that: log time never falls. A wall clock
//! of before [`PLAUSIBLE_MS`] is that of a machine which does not know the time: what it shows says
//! nothing of how long anything took.
//!
//! # Three cases
//! *No clock that runs without power.* The device starts in 1970, so does log time: L = 0. After a
//! minute NTP sets the wall clock to W; the timers put `Clock { L: 60 s, wall: W }` on record. A
//! session is made, and left at L = 120 s; 50 messages wait for it. Restart, wall W + 5 min: log
//! time goes on at 60 s plus 5 min, the session has been away for four minutes, and 50 of 50 are
//! there. If the device starts in 1970 again, log time goes on from the last time on record, as if
//! it had not been switched off: what is owed is kept for longer rather than lost.
//!
//! *Forty days switched off.* The last record says `Clock { L, wall: W }`. Start at W + 40 d: log
//! time goes on at L + 40 d. A session that is kept for 30 d has expired, and so has a message with
//! an interval of a day. Both go. What was to be kept for 50 d has 10 left.
//!
//! *The clock is set back* by an hour while the broker runs: `Clock { L, wall: W - 1 h }` is on
//! record, nothing else happens, and the next start reckons from there. If it is set back while the
//! broker is off, log time goes on from the newest time on record.
//!
//! # What it does not do
//! Time in which the machine was suspended is like a jump of the wall clock: it does not count. A
//! jump within the last 200 ms before a crash, with nothing on record after it, is taken for time
//! that has passed.
//!
//! # Why the format has no new number
//! Versions before this one pass over kinds of records that they do not know, and take log time for
//! the wall clock. The two are the same wherever the wall clock was right from the first start on.
//! Where it was not, such a version sees times that lie in the past, and does what it would have
//! done with what it wrote itself. A new number would have it refuse the directory altogether.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::{Cause, Client, Core, signal};
use crate::session::Timestamp;
use crate::storage::{Batch, ClockRecord, Log, Record, Recovered, Urgency};

/// The wall clock has jumped if it has gone on by so much more or less than the monotonic one.
const JUMP_MS: u64 = 1_000;
/// 2025-01-01, when there was no TernMQ yet.
const PLAUSIBLE_MS: u64 = 1_735_689_600_000;
/// Nothing is on record.
const NEVER: i64 = i64::MIN;

/// Where the time of day comes from: milliseconds of the Unix epoch.
#[derive(Clone)]
pub(crate) struct WallClock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl WallClock {
    /// The system's.
    pub(crate) fn system() -> Self {
        Self(Arc::new(|| unix_millis(system_time())))
    }

    /// Any other, for tests.
    #[cfg(test)]
    pub(crate) fn from_fn(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    fn now(&self) -> u64 {
        (self.0)()
    }
}

#[allow(clippy::disallowed_methods, reason = "the one place where the wall clock is right")]
fn system_time() -> SystemTime {
    SystemTime::now()
}

/// Milliseconds of the Unix epoch; 0 before it.
pub(crate) fn unix_millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// See the module's documentation.
pub(super) struct Clock {
    started: Instant,
    /// Log time at that moment.
    base: u64,
    wall: WallClock,
    /// Wall clock minus log time, as the log has it.
    on_record: AtomicI64,
    /// The same, as those who go by the time of day were last told.
    told: AtomicI64,
}

impl Clock {
    /// A clock that nothing is known to before it.
    pub(super) fn new(wall: WallClock) -> Self {
        let now = wall.now();
        Self::with_base(wall, now, now)
    }

    /// The clock of a start that has found this.
    pub(super) fn after(found: &Recovered, wall: WallClock) -> Self {
        let now = wall.now();
        let base = base(found.clock, found.newest_stamp, now);
        Self::with_base(wall, base, now)
    }

    fn with_base(wall: WallClock, base: u64, now: u64) -> Self {
        let told = AtomicI64::new(difference(now, base));
        Self { started: Instant::now(), base, wall, on_record: AtomicI64::new(NEVER), told }
    }

    /// Now, on the broker's monotonic clock.
    pub(super) fn now(&self) -> Timestamp {
        self.at(Instant::now())
    }

    /// A moment of the system's monotonic clock on the broker's.
    pub(super) fn at(&self, moment: Instant) -> Timestamp {
        let passed = moment.saturating_duration_since(self.started);
        Timestamp::from_millis(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Log time at the start.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// A moment as it is put on record.
    pub(super) fn log_time(&self, at: Timestamp) -> u64 {
        self.base.saturating_add(at.as_millis())
    }

    /// The opposite: a moment before this run is its beginning.
    pub(super) fn moment(&self, log_time: u64) -> Timestamp {
        Timestamp::from_millis(log_time.saturating_sub(self.base))
    }

    /// The moment at which the wall clock will show this, if it goes on as it does; now, if it has.
    pub(super) fn moment_of_wall(&self, unix_millis: u64) -> Timestamp {
        self.now().after(Duration::from_millis(unix_millis.saturating_sub(self.wall.now())))
    }

    /// What there is to be put on record about now.
    pub(super) fn reading(&self) -> ClockRecord {
        ClockRecord { log_time: self.log_time(self.now()), wall: self.wall.now() }
    }

    /// The same, if the log has it otherwise.
    fn unrecorded(&self) -> Option<ClockRecord> {
        let reading = self.reading();
        has_jumped(&self.on_record, reading).then_some(reading)
    }

    /// The log has it, before whatever is handed to it from now on.
    fn recorded(&self, reading: ClockRecord) {
        self.on_record.store(difference(reading.wall, reading.log_time), Ordering::Release);
    }

    /// Whether the wall clock has jumped since this was last asked.
    fn take_jump(&self) -> bool {
        let reading = self.reading();
        let jumped = has_jumped(&self.told, reading);
        if jumped {
            self.told.store(difference(reading.wall, reading.log_time), Ordering::Release);
        }
        jumped
    }
}

/// Where log time goes on.
fn base(clock: Option<ClockRecord>, newest_stamp: u64, now: u64) -> u64 {
    match clock {
        Some(ClockRecord { log_time, wall }) => {
            let passed = if wall < PLAUSIBLE_MS { 0 } else { now.saturating_sub(wall) };
            newest_stamp.max(log_time.saturating_add(passed))
        }
        // Written by a version that put the wall clock of its start on record; or nothing was.
        None if newest_stamp > 0 && newest_stamp < PLAUSIBLE_MS => newest_stamp,
        None => newest_stamp.max(now),
    }
}

fn difference(wall: u64, log_time: u64) -> i64 {
    i64::try_from(i128::from(wall) - i128::from(log_time)).unwrap_or(i64::MAX)
}

fn has_jumped(known: &AtomicI64, reading: ClockRecord) -> bool {
    let known = known.load(Ordering::Acquire);
    known == NEVER || known.abs_diff(difference(reading.wall, reading.log_time)) > JUMP_MS
}

impl Core {
    /// A moment of the broker's clock as it is put on record.
    pub(crate) fn log_time(&self, at: Timestamp) -> u64 {
        self.clock.log_time(at)
    }

    /// The opposite: a moment before this run is its beginning.
    pub(crate) fn moment(&self, log_time: u64) -> Timestamp {
        self.clock.moment(log_time)
    }

    /// Now, on the broker's monotonic clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// To be called before anything with a time in it is handed to the log: what the wall clock
    /// shows stands before it, if the log has it otherwise. Others may see the same and say it as
    /// well.
    pub(super) fn record_jump(&self, log: &Log) {
        if let Some(reading) = self.clock.unrecorded() {
            self.record_clock(log, reading, Urgency::Waited);
        }
    }

    /// Puts on record what the clocks show: at a start, and at the end.
    pub(super) fn record_clock_now(&self, log: &Log) {
        self.record_clock(log, self.clock.reading(), Urgency::Lazy);
    }

    fn record_clock(&self, log: &Log, reading: ClockRecord, urgency: Urgency) {
        let mut batch = Batch::default();
        batch.begin();
        Record::Clock(reading).write(batch.body());
        batch.end();
        log.submit(&mut batch, urgency);
        self.clock.recorded(reading);
    }

    /// The timers' look at the clock: a jump is put on record, and who stays until a time of day is
    /// asked again.
    pub(super) fn look_at_clock(&self) {
        if let Some(log) = &self.log {
            self.record_jump(log);
        }
        if !self.clock.take_jump() {
            return;
        }
        tracing::info!(
            "the system's time of day has jumped; nothing that waits for its time is touched by that"
        );
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            self.ask_login_again(&client);
        }
    }

    /// A login that holds until a time of day: that is another moment now.
    fn ask_login_again(&self, client: &Arc<Client>) {
        let mut guard = client.lock();
        let state = &mut *guard;
        let Some(link) = &mut state.link else { return };
        let Some(until) = link.login_until else { return };
        let ends = self.clock.moment_of_wall(until);
        link.login_ends = Some(ends);
        if ends <= self.now() {
            link.close_cause.get_or_insert(Cause::LoginExpired);
            link.signal(signal::CLOSE);
        } else if let Some(at) = link.deadline(client.last_heard()) {
            self.timers.set(client, state, at);
        }
    }

    /// Writes what is left to the log and ends it: see [`Log::close`]. Blocks.
    pub(crate) fn close_log(&self) {
        if let Some(log) = &self.log {
            self.record_clock_now(log);
            log.close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_time_goes_on_from_what_is_known() {
        const TODAY: u64 = 1_800_000_000_000;
        let clock = |log_time, wall| Some(ClockRecord { log_time, wall });
        for (found, newest_stamp, now, expected, why) in [
            (None, 0, TODAY, TODAY, "nothing is there"),
            (None, TODAY - 5, TODAY, TODAY, "of an earlier version, and the clock was right"),
            (None, TODAY + 5, TODAY, TODAY + 5, "of an earlier version, and the clock was set back"),
            (None, 7, TODAY, 7, "of an earlier version that did not know the time"),
            (clock(100, TODAY - 30), 100, TODAY, 130, "the clock has gone on"),
            (clock(100, TODAY - 30), 140, TODAY, 140, "something is on record that happened later"),
            (clock(100, TODAY + 30), 120, TODAY, 120, "the clock was set back"),
            (clock(100, 50), 110, TODAY, 110, "the time was not known then"),
            (clock(TODAY, TODAY), TODAY, 9, TODAY, "the time is not known now"),
            (clock(u64::MAX, TODAY), u64::MAX, u64::MAX, u64::MAX, "numbers have an end"),
        ] {
            assert_eq!(base(found, newest_stamp, now), expected, "{why}");
        }
        assert_eq!(difference(u64::MAX, 0), i64::MAX);
    }
}
