//! What a connection's task has to see to, worked out anew each time from the state of its session.
//!
//! No flag says that something is owed or that somebody is going to be woken: a flag can be set by
//! the one and cleared by the other. The task asks
//! [`Core::attend`] at the end of each of its polls, does what can be done, and registers for the rest, until nothing can be done. The causes, and
//! who wakes the task for each:
//!
//! | what is owed | it can go when | who wakes |
//! |---|---|---|
//! | answers that are held | the log is at their position | the log, registered by the task at the oldest one's position |
//! | a queued message that waits for the log, and has a place there | the log is behind that place | the log, registered by the task; by [`flush`](super::flush) where a publisher's write has brought it to the front |
//! | a queued message that has no place yet | its turn is committed | the turn, which registers the link of that moment (`TurnLog::commit`), unless a turn before it has, at whose place the task is woken and sees this one's |
//! | what waits for the record of the connection itself | the log is there, or fails | the log, registered by the task; it wakes all who wait when it begins to fail |
//! | a PUBREL that is sent again, for the record of its PUBREC | the log is there | the log, registered by the task |
//! | messages for which the window is closed | an acknowledgement comes | the socket: acknowledgements are read by this task |
//! | messages for which the output is too long | some of it is written | who writes pumps the session; if more than that is to be done, a publisher signals the task |
//! | retained messages | the output is nearly written, the window open, SUBACK sent | as the three above |
//! | retained messages that go on record, while the log is full | the log has room | the log, registered by the task |
//! | messages to be read back from the log | at once | a publisher's write and shedding signal the task; the reader's end wakes it |
//! | output | somebody writes it | the turn that promised to, or one of the next turns of its connection, which signals if it has none ([`deferred`](super::deferred)); the one who is writing; a signal where a publisher leaves it; the socket where it took no more, also if nothing is left for it |
//!
//! Others change a session's state outside of its task as well: rules of access and `memory_max`
//! take messages out of its queue. What stands behind them may be sent then: they signal the task.

use super::client::ClientState;
use super::held::release_due;
use super::{Client, Core};
use crate::ledger::Position;

/// See the module's documentation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attention {
    /// Where the log has to come for the nearest of all that waits for it.
    pub(crate) log: Option<Position>,
    /// A message can be sent.
    pub(crate) send: bool,
    /// A slice of retained messages can be sent.
    pub(crate) replay: bool,
    /// Retained messages wait for room in the log.
    pub(crate) replay_waits: bool,
    /// Messages had better be read back.
    pub(crate) load: bool,
    /// There is output, or a socket that took no more, and nobody is writing.
    pub(crate) output: bool,
}

impl Core {
    /// Does for a connection what the log has made possible, and says what is left to be done.
    /// `None`: the session is not this connection's any more.
    pub(crate) fn attend(&self, client: &Client, epoch: u64) -> Option<Attention> {
        let mut guard = client.lock();
        let state = &mut *guard;
        let link = state.link_of(epoch)?;
        if link.held.is_some() {
            release_due(state, self.ledger.committed());
        }
        if state.session.can_send() {
            let _turn = self.enter_turn();
            state.session.at(self.now()).send_more();
            self.count_late_drops(state);
            self.record_work_now(client, &mut state.session);
            self.settle(client, state);
        }
        Some(state.attention(self))
    }
}

impl ClientState {
    /// What there is to be done for the attached connection.
    fn attention(&self, core: &Core) -> Attention {
        let Some(link) = &self.link else { return Attention::default() };
        let held = link.held.as_ref().and_then(|held| held.next());
        // The log first: if it moves in between, what it was waited for can be sent, and is seen
        // there.
        let log = [held, self.session.awaits_log()].into_iter().flatten().min();
        let may_replay = self.may_replay();
        let replay_waits = may_replay && core.replay_waits(self);
        Attention {
            log,
            send: self.session.can_send(),
            replay: may_replay && !replay_waits,
            replay_waits,
            load: core.wants_messages(&self.session),
            output: (self.session.out.has_output() || link.gate.is_blocked()) && !link.gate.is_writing(),
        }
    }

    /// Whether retained messages are owed and some can be sent now: not before SUBACK, which may be
    /// held.
    pub(crate) fn may_replay(&self) -> bool {
        self.replays.is_some()
            && self.session.has_room_for_replay()
            && self.link.as_ref().is_some_and(|link| link.held.is_none())
    }
}
