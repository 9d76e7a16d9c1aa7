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
    /// there. In memory the same holds from
    /// here on, so that a checkpoint says it for the record.
    pub(super) fn record_before_connack(
        &self,
        log: &Log,
        client: &Arc<Client>,
        outlives: bool,
        keep_for: KeepFor,
    ) -> Option<Position> {
        let mut guard = client.lock();
        let state = &mut *guard;
        let mut turn_log = TurnLog::default();
        if !outlives || state.session.is_ended() {
            // Nothing of it has to be there after a crash.
        } else if !state.session.is_durable() {
            state.session.make_durable(&self.ledger);
            state.keep_for = keep_for;
            turn_log.record(&client.record(state, keep_for.time()), true);
        } else if state.link.is_none()
            && would_end_early(state, keep_for, self.now())
            && !log.is_full()
            && !self.ledger.is_failing()
        {
            // As if its client had just gone. (On a full disk it is let in to make room.)
            state.keep_for = keep_for;
            self.set_expiry(client, state);
            turn_log.record(&self.detached(client, state), true);
        }
        if let Some((_, will)) = state.delayed_will.as_deref_mut()
            && outlives
            && !log.is_full()
            && !self.ledger.is_failing()
        {
            // Back in time: it is not sent (MQTT 5 [MQTT-3.1.3-9]), after a crash neither. Until the
            // connection is there it waits in memory, off the record.
            turn_log.end_will(will, true);
            will.key = 0;
        }
        if let Some(end) = turn_log.commit(self) {
            state.on_record = end;
        }
        Some(state.on_record).filter(|on_record| log.committed() < *on_record)
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
