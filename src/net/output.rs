//! The output of a connection, as its own task writes it, and its last words.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::connection::{Connection, Socket};
use super::stream::Stream;
use super::worker;
use crate::broker::{Cause, Flushed};
use crate::protocol::encode;

/// How long a client that is told why its connection ends may take to hear it.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// How long the end of a failed socket's input is waited for. The system has it at once.
const REST_TIME_MAX: Duration = Duration::from_millis(500);

impl Connection {
    /// Writes what the session wants sent, as far as the socket takes it.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>) -> Result<Socket, Cause> {
        loop {
            match &self.stream {
                Stream::Tcp(_) => loop {
                    match self.core.flush_own(&self.client) {
                        Flushed::Done => break,
                        Flushed::Blocked => match self.stream.poll_write_ready(cx) {
                            Poll::Ready(result) => result?,
                            Poll::Pending => return Ok(Socket::Blocked),
                        },
                    }
                },
                Stream::Tls(_) => {
                    if self.poll_tls_output(cx)?.is_pending() {
                        return Ok(Socket::Blocked);
                    }
                }
            }
            if !self.replaying || self.holding {
                return Ok(Socket::Takes);
            }
            let more = worker::with(|worker| {
                worker.turn.begin(self.core.now());
                let more = self.core.replay(&mut worker.turn, &self.client);
                worker.turn.finish(&self.core);
                more
            });
            let guard = self.client.lock();
            self.replaying = guard.replays.is_some();
            if more {
                // Slices of a long replay: others on this thread get their turn in between.
                cx.waker().wake_by_ref();
                return Ok(Socket::Takes);
            }
            if !guard.session.out.has_output() {
                return Ok(Socket::Takes);
            }
        }
    }

    fn poll_tls_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Cause> {
        loop {
            if self.output.is_none() {
                let mut guard = self.client.lock();
                let state = &mut *guard;
                let Some(link) = state.link.as_mut().filter(|link| link.epoch == self.epoch) else {
                    return Err(Cause::TakenOver);
                };
                link.flush_promised = false;
                if !state.session.out.has_output() {
                    link.blocked = false;
                    drop(guard);
                    return match self.stream.poll_flush(cx) {
                        Poll::Ready(result) => result.map(Poll::Ready).map_err(Cause::from),
                        Poll::Pending => Ok(Poll::Pending),
                    };
                }
                self.output = Some(Box::new(state.session.out.take()));
            }
            let Some(output) = &mut self.output else { continue };
            match self.stream.poll_write(cx, output.first()) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(result) => {
                    let n = result?;
                    if n == 0 {
                        return Err(Cause::PeerClosed);
                    }
                    output.advance(n);
                    let done = output.is_empty();
                    self.core.metrics.bytes_sent.add(n as u64);
                    let now = self.core.now();
                    let mut guard = self.client.lock();
                    if let Some(link) = guard.link_of(self.epoch) {
                        link.progress = now;
                        guard.session.out.released(output.take_released());
                        guard.session.at(now).output_written(n);
                        self.core.count_late_drops(&mut guard);
                        self.core.record_work_now(&self.client, &mut guard.session);
                        self.core.settle(&self.client, &mut guard);
                    }
                    if done {
                        self.output = None;
                    }
                }
            }
        }
    }

    /// Ends the connection. Where the end is ours, what stands in the output is still written, and a client that can be told is told why.
    pub(super) async fn close(mut self, mut cause: Cause) {
        if let Cause::Network(_) = cause
            && let Ok(last @ Cause::Disconnect { .. }) =
                tokio::time::timeout(REST_TIME_MAX, poll_fn(|cx| self.poll_rest(cx))).await
        {
            cause = last;
        }
        // Nothing is read any more; the farewell may take its time.
        self.partial = Vec::new();
        self.unfinished = None;
        let code = cause.disconnect_code().filter(|_| self.terms.says_goodbye);
        let taken_over = cause == Cause::TakenOver;
        let mut farewell = Vec::new();
        if let Some(code) = code {
            // A client whose Maximum Packet Size is too small for it is not told.
            let _ = encode::disconnect(
                &mut farewell,
                code,
                Some(&cause.to_string()),
                u32::try_from(self.terms.packet_bytes_max).ok(),
            );
        }
        if cause == Cause::Shutdown || (code.is_some() && !taken_over) {
            let patience = if cause == Cause::Shutdown {
                self.core.limits.now().shutdown_timeout
            } else {
                FAREWELL_TIME
            };
            if cause == Cause::Shutdown {
                self.settle_held(patience).await;
            }
            {
                let mut state = self.client.lock();
                // Not into the output of a successor that has come meanwhile.
                if state.link_of(self.epoch).is_some() {
                    state.session.send_farewell(&farewell);
                }
            }
            let _ = tokio::time::timeout(patience, poll_fn(|cx| self.poll_drained(cx))).await;
        }
        if let (Some(on_record), Some(log)) = (self.finish(&cause), &self.core.log) {
            // Who sees the socket closed may rely on it that the will is not published.
            let _ = tokio::time::timeout(FAREWELL_TIME, log.wait(on_record)).await;
        }
        if taken_over {
            if !self.gone.0.is_told() && self.output.is_none() && !farewell.is_empty() {
                // Plain sockets are mostly told by the one who took over.
                self.stream.say_last(&farewell).await;
            }
            // At once, even if another thread still holds the socket for a write: the successor waits.
            self.stream.close();
            return;
        }
        // A successor need not wait for the farewell.
        self.gone.0.set_gone();
        if code.is_some() {
            self.stream.linger_for(FAREWELL_TIME).await;
        } else {
            self.stream.close();
        }
    }

    /// Ready when the output is written.
    fn poll_drained(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_output(cx).is_err() {
            return Poll::Ready(());
        }
        let guard = self.client.lock();
        if self.output.is_none() && guard.session.out.pending() == 0 {
            return Poll::Ready(());
        }
        if guard.link.as_ref().is_some_and(|link| link.writing) {
            // Another thread is writing right now and will not tell.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}
