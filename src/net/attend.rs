//! What a connection does besides reading: it looks what is owed to its client
//! (`broker/attention.rs`), does what can be done, and registers for the rest.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::connection::{Connection, Socket};
use super::stalled::Stalled;
use super::stream::Stream;
use super::worker;
use crate::broker::{Budget, Cause, ReadBack};
use crate::protocol::{Frame, Packet, decode};

/// What a connection with a durable session has besides.
#[derive(Default)]
pub(super) struct FromLog {
    /// Messages being read back.
    loading: Option<JoinHandle<ReadBack>>,
    /// What this client sends has made the log grow. Once is enough: it is a publisher of what has to
    /// be stored.
    pub(super) has_grown: bool,
    /// The packet at the beginning of `partial`, or of what is put by, waits for room in the log.
    pub(super) waits_for_room: bool,
    /// What waits while the connection is read on.
    pub(super) stalled: Option<Box<Stalled>>,
}

/// How long a connection rests when what it wants cannot be read for a moment.
const READ_AGAIN: Duration = Duration::from_millis(100);
/// Messages read back in one go.
const LOAD_MESSAGES: usize = 512;

/// A SUBSCRIBE up to this size is looked through for filters that are new.
const LOOKED_THROUGH_BYTES: usize = 16 * 1024;

/// How often a connection looks again in one poll; then others on this thread have their turn.
const ROUNDS_MAX: usize = 16;

impl Connection {
    /// Goes round until nothing can be done now but reading, registered once for each cause that
    /// may change this. `may_replay`: it has a turn in which retained messages may be sent.
    pub(super) fn poll_work(&mut self, cx: &mut Context<'_>, may_replay: bool) -> Result<Socket, Cause> {
        let mut socket = Socket::Takes;
        let mut has_replayed = !may_replay;
        for _ in 0..ROUNDS_MAX {
            let ledger = &self.core.ledger;
            let is_failing = ledger.is_failing();
            let Some(attention) = self.core.attend(&self.client, self.epoch) else {
                return Err(Cause::TakenOver);
            };
            let mut again = attention.send;
            if let (Some(position), Some(log)) = (attention.log, &self.core.log) {
                log.wake_at(position, cx.waker());
                // What has changed before that was not told to this task.
                again |= ledger.committed() >= position || ledger.is_failing() != is_failing;
            }
            if attention.replay_waits
                && let Some(log) = &self.core.log
            {
                log.wake_when_not_full(cx.waker());
            }
            again |= self.poll_loading(cx, attention.load);
            match self.poll_output(cx, attention.output)? {
                Socket::Takes => again |= attention.output,
                Socket::Blocked => socket = Socket::Blocked,
            }
            if attention.replay {
                if has_replayed {
                    break;
                }
                has_replayed = true;
                again = true;
                self.replay();
            }
            if !again {
                return Ok(socket);
            }
        }
        // There is more; others first.
        self.wants_turn = true;
        Ok(socket)
    }

    /// Writes what the session wants sent, as far as the socket takes it.
    fn poll_output(&mut self, cx: &mut Context<'_>, is_any: bool) -> Result<Socket, Cause> {
        let is_written = match &self.stream {
            Stream::Tcp(_) if !is_any => Poll::Ready(()),
            Stream::Tcp(_) => self.poll_plain_output(cx)?,
            Stream::Tls(_) if is_any || self.output.is_some() => self.poll_tls_output(cx)?,
            Stream::Tls(_) => self.stream.poll_flush(cx)?,
        };
        Ok(if is_written.is_ready() { Socket::Takes } else { Socket::Blocked })
    }

    /// Sends a slice of the retained messages that are owed.
    fn replay(&self) {
        worker::with(|worker| {
            worker.turn.begin_as(&self.core, self.promiser);
            self.core.replay(&mut worker.turn, &self.client);
            worker.turn.finish(&self.core);
        });
    }

    /// Reads messages back as far as they are wanted; whether any came.
    fn poll_loading(&mut self, cx: &mut Context<'_>, is_wanted: bool) -> bool {
        if !is_wanted && self.from_log.loading.is_none() {
            return false;
        }
        let mut came = false;
        loop {
            if let Some(loading) = &mut self.from_log.loading {
                let Poll::Ready(loaded) = Pin::new(loading).poll(cx) else { return came };
                self.from_log.loading = None;
                // A reader that failed is asked again: the messages are still wanted.
                if !self.core.provide(&self.client, loaded.unwrap_or(ReadBack::NOTHING)) {
                    self.from_log.loading = Some(tokio::spawn(async {
                        tokio::time::sleep(READ_AGAIN).await;
                        ReadBack::NOTHING
                    }));
                    continue;
                }
                came = true;
            }
            let wanted = self.core.wanted(&self.client, LOAD_MESSAGES);
            if wanted.is_empty() {
                return came;
            }
            let core = Arc::clone(&self.core);
            // From a card or a tired disk that takes its time: not on a thread that serves others.
            self.from_log.loading = Some(tokio::task::spawn_blocking(move || core.read_back(wanted)));
        }
    }

    /// Whether something of this connection waits because the log cannot keep up, or cannot write at
    /// all.
    pub(super) fn log_is_full(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(log) = &self.core.log else { return false };
        // Whoever needs no disk is not held up by it, nor is who makes room by acknowledging.
        if log.is_full() && (self.from_log.waits_for_room || self.core.is_holding(&self.client, self.epoch)) {
            log.wake_when_not_full(cx.waker());
            if log.is_full() {
                return true;
            }
        }
        self.from_log.waits_for_room = false;
        if self.from_log.stalled.is_some() {
            self.take_up_stalled();
        }
        false
    }

    /// Whether what waits may have to wait for long.
    pub(super) fn is_stuck(&self) -> bool {
        let is_short = self.core.log.as_ref().is_some_and(|log| log.is_short_of_room());
        self.core.ledger.is_failing() || is_short && self.from_log.waits_for_room
    }

    /// Whether this packet has to wait for room in the log: one that would have to be stored on a full
    /// disk, and while the log is full for another reason also any publish of a client whose publishes
    /// have to be stored.
    pub(super) fn must_wait_for_room(&mut self, budget: &mut Budget, frame: &Frame<'_>) -> bool {
        self.from_log.waits_for_room = frame.makes_log_grow()
            && self.core.log.as_ref().is_some_and(|log| {
                log.is_short_of_room()
                    || (self.from_log.has_grown || frame.packet_type() == 8) && log.is_full()
            })
            && self.needs_disk(budget, frame);
        self.from_log.waits_for_room
    }

    #[cold]
    fn needs_disk(&self, budget: &mut Budget, frame: &Frame<'_>) -> bool {
        let is_short = self.core.log.as_ref().is_some_and(|log| log.is_short_of_room());
        if frame.packet_type() == 8 && (self.large.is_some() || frame.total() > LOOKED_THROUGH_BYTES) {
            // Some of it may be new, and the first part may have been taken.
            return self.client.lock().session.is_durable();
        }
        match decode(frame, self.terms.version) {
            // Its client's are stored; this one is soon taken, or the disk fails.
            Ok(Packet::Publish(_)) if !is_short => true,
            Ok(Packet::Publish(publish)) => {
                self.core.needs_disk(budget, &self.client, &self.publisher, &publish)
            }
            Ok(Packet::Subscribe(subscribe)) => {
                self.core.needs_room_to_subscribe(budget, &self.client, &subscribe)
            }
            _ => false,
        }
    }
}
