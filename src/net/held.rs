//! Answers that wait for the durable log, and what else a connection does when the log has moved.
//!
//! An acknowledgement leaves when everything that this connection had put on record by then is committed. The answers behind it wait as
//! well, so that they keep their order ([MQTT-4.6.0-2], [MQTT-4.6.0-3]). A connection that nothing durable concerns never comes here.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::connection::Connection;
use super::worker;
use crate::broker::{Cause, Loaded};
use crate::ledger::Position;
use crate::storage::Log;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Held {
    answers: VecDeque<(Position, Vec<u8>)>,
    bytes: usize,
    /// The watermark at which the task is woken.
    woken_at: Position,
}

/// What a connection with a durable session has besides.
#[derive(Default)]
pub(super) struct FromLog {
    /// Messages being read back.
    loading: Option<JoinHandle<Vec<Loaded>>>,
    /// The watermark at which the task is woken for a QoS 2 message.
    woken_at: Position,
    /// What it sent was put on record, if only for nobody to wait for it.
    pub(super) has_recorded: bool,
}

/// Messages read back in one go.
const LOAD_MESSAGES: usize = 512;

impl Held {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Connection {
    /// Keeps the gathered answers until the log has come to `recorded`, or as long as those before them.
    pub(super) fn hold_answers(&mut self, recorded: Option<Position>) {
        let held = self.held.get_or_insert_default();
        let last = held.answers.back().map_or(Position::START, |last| last.0);
        let until = recorded.map_or(last, |recorded| recorded.max(last));
        let answers = std::mem::take(&mut self.publisher.acks);
        held.bytes += answers.len();
        match held.answers.back_mut() {
            Some(last) if last.0 == until => last.1.extend_from_slice(&answers),
            _ => held.answers.push_back((until, answers)),
        }
    }

    /// Does what the log has made possible since the last time: answers leave, messages that waited are sent, those in the log only are read
    /// back. Registers for what is still open.
    pub(super) fn poll_log(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        let Some(log) = self.core.log.clone() else { return Ok(()) };
        self.release_answers(cx, &log);
        if !self.durable {
            return Ok(());
        }
        self.poll_waiting(cx, &log)?;
        if self.poll_loading(cx) {
            // What was read back may have to wait for the log in its turn.
            self.poll_waiting(cx, &log)?;
        }
        Ok(())
    }

    fn release_answers(&mut self, cx: &mut Context<'_>, log: &Log) {
        loop {
            let Some(held) = &mut self.held else { return };
            let committed = log.committed();
            while let Some((until, _)) = held.answers.front()
                && *until <= committed
                && let Some((_, answers)) = held.answers.pop_front()
            {
                held.bytes -= answers.len();
                if self.publisher.acks.is_empty() {
                    self.publisher.acks = answers;
                } else {
                    self.publisher.acks.extend_from_slice(&answers);
                }
            }
            let next = held.answers.front().map(|next| next.0);
            if next.is_none() {
                self.held = None;
            }
            if !self.publisher.acks.is_empty() {
                worker::with(|worker| {
                    worker.turn.begin(self.core.now());
                    self.send_answers(&mut worker.turn);
                    worker.turn.finish(&self.core);
                });
            }
            let Some(next) = next else { return };
            if let Some(held) = &mut self.held
                && held.woken_at != next
            {
                held.woken_at = next;
                log.wake_at(next, cx.waker());
            }
            if log.committed() < next {
                return;
            }
        }
    }

    /// Messages leave when the log has what must be there before them.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, log: &Log) -> Result<(), Cause> {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        let Some(link) = state.link_of(self.epoch) else { return Err(Cause::TakenOver) };
        link.waits_for_log = false;
        loop {
            let committed = self.core.ledger.committed();
            state.session.at(self.core.now()).log_moved();
            self.core.count_late_drops(state);
            self.core.record_work_now(&self.client, &mut state.session);
            if state.session.waits_for_commit() {
                let end = log.submitted();
                if self.from_log.woken_at != end {
                    self.from_log.woken_at = end;
                    log.wake_at(end, cx.waker());
                }
            }
            // If it moved meanwhile, a message may have been found waiting, and its waiting over before that was asked.
            if self.core.ledger.committed() == committed {
                return Ok(());
            }
        }
    }

    /// Reads messages back as far as they are wanted; whether any came.
    fn poll_loading(&mut self, cx: &mut Context<'_>) -> bool {
        let mut came = false;
        loop {
            if let Some(loading) = &mut self.from_log.loading {
                let Poll::Ready(loaded) = Pin::new(loading).poll(cx) else { return came };
                self.from_log.loading = None;
                // A reader that failed is asked again: the messages are still wanted.
                self.core.provide(&self.client, loaded.unwrap_or_default());
                came = true;
            }
            let wanted = self.client.lock().session.wanted(LOAD_MESSAGES);
            if wanted.is_empty() {
                return came;
            }
            let core = Arc::clone(&self.core);
            // From a card or a tired disk that takes its time: not on a thread that serves others.
            self.from_log.loading = Some(tokio::task::spawn_blocking(move || core.load(wanted)));
        }
    }

    /// Before the broker stops: what can still be put on record is, and acknowledged.
    pub(super) async fn settle_held(&mut self, patience: Duration) {
        let Some(log) = self.core.log.clone() else { return };
        let last = self.held.as_ref().and_then(|held| held.answers.back()).map(|last| last.0);
        if let Some(last) = last
            && tokio::time::timeout(patience, log.wait(last)).await.is_ok()
        {
            poll_fn(|cx| {
                self.release_answers(cx, &log);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// Whether reading is to pause because the log cannot keep up, or cannot write at all. The bytes wait in the client's socket.
    pub(super) fn log_is_full(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(log) = &self.core.log else { return false };
        if !log.is_full() {
            self.from_log.has_recorded = false;
            return false;
        }
        // Whoever needs no disk is not held up by it.
        if self.held.is_none() && !self.from_log.has_recorded {
            return false;
        }
        log.wake_when_not_full(cx.waker());
        log.is_full()
    }
}
