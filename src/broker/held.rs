//! Answers that wait for the durable log.
//!
//! An acknowledgement leaves when everything that its connection had put on record by then is
//! committed. The answers behind it wait as well, so that they keep their order ([MQTT-4.6.0-2],
//! [MQTT-4.6.0-3]). They are let go by the connection's task ([`attend`](Core::attend)), or, if it
//! has ended, with its last words.

use std::collections::VecDeque;

use super::client::{ClientState, Link};
use super::flush::take_spare;
use super::{Client, Core};
use crate::ledger::Position;

/// The answers of one connection that wait.
#[derive(Default)]
pub(crate) struct Held {
    answers: VecDeque<(Position, Vec<u8>)>,
    bytes: usize,
}

impl Held {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the log has to come for the oldest.
    pub(super) fn next(&self) -> Option<Position> {
        self.answers.front().map(|next| next.0)
    }

    /// All of them, oldest first, each with what it waits for.
    pub(super) fn into_answers(self) -> VecDeque<(Position, Vec<u8>)> {
        self.answers
    }
}

impl Link {
    /// Keeps answers until the log has come to `recorded`, or as long as those before them. `false`
    /// if there is nothing to wait for: then they stay with the caller.
    pub(crate) fn hold_answers(&mut self, recorded: Option<Position>, answers: &mut Vec<u8>) -> bool {
        let last = self.held.as_ref().and_then(|held| held.answers.back()).map(|last| last.0);
        let Some(until) = recorded.max(last) else { return false };
        let held = self.held.get_or_insert_default();
        held.bytes += answers.len();
        match held.answers.back_mut() {
            Some(last) if last.0 == until => last.1.append(answers),
            _ => held.answers.push_back((until, std::mem::take(answers))),
        }
        true
    }
}

impl Core {
    /// Whether answers of a connection wait.
    pub(crate) fn is_holding(&self, client: &Client, epoch: u64) -> bool {
        client.lock().link_of(epoch).is_some_and(|link| link.held.is_some())
    }
}

/// Moves what is due to the output.
pub(super) fn release_due(state: &mut ClientState, committed: Position) {
    let Some(link) = &mut state.link else { return };
    let Some(held) = &mut link.held else { return };
    while let Some((until, _)) = held.answers.front()
        && *until <= committed
        && let Some((_, answers)) = held.answers.pop_front()
    {
        held.bytes -= answers.len();
        state.session.out.lend(take_spare);
        state.session.send_acks(&answers);
    }
    if held.answers.is_empty() {
        link.held = None;
    }
}
