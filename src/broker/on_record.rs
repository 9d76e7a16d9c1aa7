//! What has to be on record of a session before CONNACK tells its client of it, and when its client
//! goes.

use std::sync::Arc;
use std::time::Duration;

use super::client::KeepFor;
use super::lifecycle::begun;
use super::turn_log::TurnLog;
use super::{Client, ClientState, Core};
use crate::ledger::Position;
use crate::session::Timestamp;
use crate::storage::{Log, Record};

impl Core {
    /// Waits for room in the log, where it is only busy. `false`: the disk takes nothing, and what waits
    /// for it is at its bound.
    pub(super) async fn has_room_soon(&self, log: &Log, patience: Duration) -> bool {
        let is_busy = !log.status().failing && !log.is_short_of_room();
        is_busy && tokio::time::timeout(patience, log.wait_not_full()).await.is_ok()
    }

    /// Puts on record what CONNACK will say of a session that is kept: that it exists, and that it stays
    /// as long as that, and that a delayed will is not sent; `Some`: CONNACK must wait until the log is
    /// there, no longer than `patience`. In memory the same holds from here on, so that a checkpoint
    /// says it for the record.
    pub(super) fn record_before_connack(
        &self,
        log: &Log,
        client: &Arc<Client>,
        outlives: bool,
        keep_for: KeepFor,
        patience: Duration,
    ) -> Option<Position> {
        let mut guard = client.lock();
        let state = &mut *guard;
        let is_new = state.epoch == 0;
        // On a full disk a client that comes back is let in to make room.
        let may_wait = is_new || !log.is_short_of_room() && !self.ledger.is_failing();
        if state.session.is_ended() || !may_wait {
            return None;
        }
        let mut turn_log = TurnLog::default();
        if outlives && !state.session.is_durable() {
            state.session.make_durable(&self.ledger);
            client.set_durable();
            state.keep_for = keep_for;
            turn_log.record(&client.record(state, keep_for.time()), true);
        } else if state.link.is_none() {
            if outlives && would_end_early(state, keep_for, self.now()) {
                // As if its client had just gone.
                state.keep_for = keep_for;
                self.set_expiry(client, state);
                turn_log.record(&self.detached(client, state), true);
            }
            if let Some((_, will)) = state.delayed_will.as_deref_mut() {
                // Back in time: it is not sent (MQTT 5 [MQTT-3.1.3-9]), after a crash neither. Until the
                // connection is there it waits in memory, off the record.
                turn_log.end_will(will, true);
                will.key = 0;
            }
        }
        if let Some(end) = turn_log.commit(self) {
            state.on_record = end;
        }
        let waits = Some(state.on_record).filter(|on_record| log.committed() < *on_record);
        if waits.is_some() && !is_new {
            self.put_deadlines_off(client, state, patience);
        }
        waits
    }

    /// The client is there: neither its session nor its will falls due while it waits for CONNACK.
    fn put_deadlines_off(&self, client: &Arc<Client>, state: &mut ClientState, patience: Duration) {
        let until = self.now().after(patience).after(Duration::from_secs(1));
        if let Some(expires_at) = &mut state.expires_at {
            *expires_at = until.max(*expires_at);
        }
        if let Some((due, _)) = state.delayed_will.as_deref_mut() {
            *due = until.max(*due);
        }
        if let Some(at) = state.offline_deadline() {
            self.timers.set(client, state, at);
        }
    }

    /// CONNACK has waited in vain: a session that was there before is again without connection, and
    /// its will is to be sent when its time comes.
    pub(super) fn stay_without_connection(&self, client: &Arc<Client>) {
        // To the end: what the session gives away may be the last that refers to its place in the log.
        let _turn = self.enter_turn();
        {
            let mut guard = client.lock();
            let state = &mut *guard;
            if state.link.is_some() || state.session.is_ended() {
                return;
            }
            let mut turn_log = TurnLog::default();
            if let Some((_, will)) = state.delayed_will.as_deref_mut()
                && will.key == 0
            {
                will.key = self.next_key();
                turn_log.begin_will(will, client.key);
            }
            if state.expires_at.is_none() {
                self.set_expiry(client, state);
            }
            if state.session.is_durable() {
                turn_log.record(&self.detached(client, state), false);
            }
            turn_log.commit(self);
        }
        self.hand_over_of_absent(client);
    }

    /// What goes on record of a session whose client has gone just now.
    pub(super) fn detached(&self, client: &Client, state: &ClientState) -> Record<'static> {
        let (session, since) = (client.key, self.log_time(self.now()));
        Record::Detached { session, since, keep: state.keep_for.time(), begun: begun(state) }
    }
}

/// Whether a session without connection would end, by what is on record, before half of the time is
/// over for which CONNACK says that it stays. Half of it: else each client that comes back would wait
/// for the disk, and a moment later the whole time is on record anyway.
fn would_end_early(state: &ClientState, keep_for: KeepFor, now: Timestamp) -> bool {
    let left = match (state.expires_at, state.keep_for) {
        (Some(at), _) => at.since(now),
        (None, KeepFor::Time(time)) => time,
        (None, KeepFor::Nothing) => Duration::ZERO,
        (None, KeepFor::Ever) => return false,
    };
    match keep_for {
        KeepFor::Nothing => false,
        KeepFor::Time(time) => left < time / 2,
        KeepFor::Ever => true,
    }
}
