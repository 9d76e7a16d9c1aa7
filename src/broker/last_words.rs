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
}

impl LastWords {
    /// Takes over what a session whose connection ends has for it. Nobody else is writing.
    pub(super) fn take(link: &mut Link, session: &mut Session) -> Self {
        let bytes = session.out.pending();
        let output = session.out.has_output().then(|| Box::new(session.out.take()));
        let held = link.held.take().map(|held| held.into_answers()).unwrap_or_default();
        let bytes = bytes + held.iter().map(|(_, answers)| answers.len()).sum::<usize>();
        Self { output, held, on_record: None, bytes }
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
pub(crate) struct LastWordsCharge(Arc<Core>, i64);

impl LastWordsCharge {
    pub(crate) fn new(core: &Arc<Core>, words: &LastWords) -> Self {
        let bytes = i64::try_from(words.bytes).unwrap_or(i64::MAX);
        core.memory.add(bytes);
        Self(Arc::clone(core), bytes)
    }
}

impl Drop for LastWordsCharge {
    fn drop(&mut self) {
        self.0.memory.add(-self.1);
    }
}
