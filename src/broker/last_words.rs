//! `LastWords`: what a connection that has ended is still to be sent.
//!
//! Whatever a client asked for before it left, or before it broke a rule, is answered, as the
//! standard wants it: CONNECT with CONNACK ([MQTT-3.1.4-4], in MQTT 5 [MQTT-3.1.4-5]), PUBLISH with
//! its acknowledgement ([MQTT-4.3.2-2], in MQTT 5 [MQTT-4.3.2-4]), SUBSCRIBE with SUBACK
//! ([MQTT-3.8.4-1]). The session does not wait for that: it is over, or a successor's, and the task
//! that is ending takes along what was not written.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Core;
use super::client::Link;
use crate::accounts::signed;
use crate::ledger::Position;
use crate::session::{Output, Session};

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct LastWords {
    /// Goes at once.
    pub(crate) output: Option<Box<Output>>,
    /// Goes when the log is at its position, in this order.
    pub(crate) held: VecDeque<(Position, Vec<u8>)>,
    /// The socket is not closed before the log is here: who has sent DISCONNECT and sees it closed
    /// may rely on it that the will is not published.
    pub(crate) on_record: Option<Position>,
    bytes: usize,
    /// What of those is not charged elsewhere: bodies that others hold as well are.
    own_bytes: usize,
}

impl LastWords {
    /// Takes over what a session whose connection ends has for it. Nobody else is writing. If it is
    /// closed because memory is short (`is_short`), that is the rest of a packet that has begun.
    pub(super) fn take(link: &mut Link, session: &mut Session, is_short: bool) -> Self {
        if is_short {
            link.held = None;
            let mut output = Box::new(session.out.take());
            output.keep_begun();
            let bytes = output.bytes();
            let output = (bytes > 0).then_some(output);
            return Self { output, bytes, own_bytes: bytes, ..Self::default() };
        }
        let (bytes, own_bytes) = (session.out.pending(), session.out.own_bytes());
        let output = session.out.has_output().then(|| Box::new(session.out.take()));
        let held = link.held.take().map(|held| held.into_answers()).unwrap_or_default();
        let answers = held.iter().map(|(_, answers)| answers.len()).sum::<usize>();
        let (bytes, own_bytes) = (bytes + answers, own_bytes + answers);
        Self { output, held, on_record: None, bytes, own_bytes }
    }

    /// The same with what the log has to have before the socket is closed.
    #[must_use]
    pub(super) fn not_before(mut self, on_record: Option<Position>) -> Self {
        self.on_record = on_record;
        self
    }

    /// A packet that follows everything.
    pub(crate) fn then(&mut self, packet: Vec<u8>) {
        if !packet.is_empty() {
            let until = self.held.back().map_or(Position::START, |last| last.0);
            self.held.push_back((until, packet));
        }
    }

    /// Whether there is nothing to be sent.
    pub(crate) fn is_empty(&self) -> bool {
        self.output.is_none() && self.held.is_empty()
    }
}

/// Bytes of last words, in the total of what waits in memory.
pub(crate) struct LastWordsCharge {
    core: Arc<Core>,
    bytes: usize,
    own_bytes: i64,
}

impl LastWordsCharge {
    pub(crate) fn new(core: &Arc<Core>, words: &LastWords) -> Self {
        let (bytes, own_bytes) = (words.bytes, signed(words.own_bytes));
        core.memory.add(own_bytes);
        core.memory.add_last_words(bytes);
        Self { core: Arc::clone(core), bytes, own_bytes }
    }
}

impl Drop for LastWordsCharge {
    fn drop(&mut self) {
        self.core.memory.remove_last_words(self.bytes);
        self.core.memory.add(-self.own_bytes);
    }
}
