//! The output of a connection, as its own task writes it.

use std::task::{Context, Poll};

use super::connection::Connection;
use crate::broker::{Cause, Flushed};

impl Connection {
    /// Writes to a plain socket, as publishers do, and waits for it where it takes no more.
    pub(super) fn poll_plain_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Cause> {
        let mut is_ready = false;
        loop {
            match self.core.flush_own(&self.client, is_ready) {
                Flushed::Done => return Ok(Poll::Ready(())),
                Flushed::Blocked => match self.stream.poll_write_ready(cx) {
                    Poll::Ready(result) => {
                        result?;
                        is_ready = true;
                    }
                    Poll::Pending => return Ok(Poll::Pending),
                },
            }
        }
    }

    /// Writes to a TLS stream, of which this task has the only end.
    pub(super) fn poll_tls_output(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Cause> {
        loop {
            if self.output.is_none() {
                let mut guard = self.client.lock();
                let state = &mut *guard;
                let Some(link) = state.link.as_mut().filter(|link| link.epoch == self.epoch) else {
                    return Err(Cause::TakenOver);
                };
                link.flush.keep();
                if !state.session.out.has_output() {
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
                    let _turn = self.core.enter_turn();
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
}
