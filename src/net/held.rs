//! What a connection does when the durable log has moved: answers leave (`broker/held.rs`), messages that waited are sent, those that are in the log
//! only are read back. A connection that nothing durable concerns never comes here.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::connection::Connection;
use crate::broker::{Cause, Loaded};
use crate::ledger::Position;
use crate::storage::Log;

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

impl Connection {
    /// Does what the log has made possible since the last time: answers leave, messages that waited are sent, those in the log only are read
    /// back. Registers for what is still open.
    pub(super) fn poll_log(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        let Some(log) = self.core.log.clone() else { return Ok(()) };
        if self.holding {
            self.holding = self.core.release_answers(&self.client, self.epoch, cx.waker());
        }
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

    /// Messages leave when the log has what must be there before them.
    fn poll_waiting(&mut self, cx: &mut Context<'_>, log: &Log) -> Result<(), Cause> {
        let _turn = self.core.enter_turn();
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
        if let Some(last) = self.core.held_until(&self.client, self.epoch)
            && tokio::time::timeout(patience, log.wait(last)).await.is_ok()
        {
            poll_fn(|cx| {
                self.holding = self.core.release_answers(&self.client, self.epoch, cx.waker());
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
        if !self.holding && !self.from_log.has_recorded {
            return false;
        }
        log.wake_when_not_full(cx.waker());
        log.is_full()
    }
}
