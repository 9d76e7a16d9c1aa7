//! The end of a connection: its session is settled first, so that a successor need not wait; then
//! the client is sent what it is still owed.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::connection::Connection;
use super::stream::Stream;
use super::worker;
use crate::broker::{Cause, LastWords, LastWordsCharge};
use crate::protocol::encode;
use crate::session::Output;

/// How long a connection that has ended may take to be sent what it is owed: the log may have to
/// come to there first, and its client to read.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);

/// How long the end of a failed socket's input is waited for. The system has it at once.
const REST_TIME_MAX: Duration = Duration::from_millis(500);

/// A place among the connections whose end is being settled, `None` where there is no crowd. Who
/// needs one lets all others that are ready have their turns first.
async fn place_among_endings(endings: &Semaphore) -> Option<SemaphorePermit<'_>> {
    if !worker::count_ending() {
        return None;
    }
    // It is never closed.
    let place = endings.acquire().await.ok();
    tokio::task::yield_now().await;
    place
}

impl Connection {
    /// Ends the connection: whatever was answered is still sent, and a client that can be told is
    /// told why.
    pub(super) async fn close(mut self, mut cause: Cause) {
        if let Cause::Network(_) = cause
            && let Ok(last @ Cause::Disconnect { .. }) =
                tokio::time::timeout(REST_TIME_MAX, poll_fn(|cx| self.poll_rest(cx))).await
        {
            cause = last;
        }
        // A place that it waited for there would be nobody's.
        self.line.leave();
        while self.write_deferred() {
            tokio::task::yield_now().await;
        }
        // Nothing is read any more; the farewell may take its time.
        self.gone.0.set_read();
        self.drop_stalled();
        self.unfinished = None;
        let code = cause.disconnect_code().filter(|_| self.terms.says_goodbye);
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
        if let Some(fan_out) = self.publisher.take_fan_out() {
            // What has begun is done for everybody.
            self.core.complete_fan_out(fan_out).await;
        }
        // What another thread is writing at this moment goes first, and goes back where the socket
        // takes no more.
        poll_fn(|_| {
            // Whoever leaves a signal that lies there already wakes nobody.
            self.gone.0.take_signals();
            match self.core.reserve_output(&self.client, self.epoch) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        let core = Arc::clone(&self.core);
        // Thousands may end at once; others' turns come in between.
        let place = self.place_or_successor(&core.endings).await;
        let end = self.finish(&cause);
        let charge = LastWordsCharge::new(&core, end.last_words());
        if end.is_short()
            && let Some(output) = &mut self.output
        {
            output.keep_begun();
        }
        // The place is for work, not for waiting.
        let place = place.filter(|_| !end.takes_long());
        let mut words = core.settle_end(&self.client, end).await;
        if cause == Cause::TakenOver {
            if !self.gone.0.is_told() && self.output.is_none() && !farewell.is_empty() {
                // Plain sockets are mostly told by the one who took over.
                self.stream.say_last(&farewell).await;
            }
            // At once, even if another thread still holds the socket for a write: the successor
            // waits.
            self.stream.close();
            let _turn = core.enter_turn();
            self.output = None;
            return;
        }
        // A successor need not wait for the rest.
        self.gone.0.set_gone();
        words.then(farewell);
        let patience = match cause {
            Cause::Shutdown => self.core.limits.now().shutdown_timeout,
            _ => LAST_WORDS_TIME,
        };
        let is_owed = !words.is_empty() || self.output.is_some();
        let waits =
            is_owed || code.is_some() || words.on_record.is_some() || matches!(self.stream, Stream::Tls(_));
        let place = place.filter(|_| !waits);
        let mut saying = Box::pin(tokio::time::timeout(patience, self.say(words, &cause)));
        let is_said = saying.as_mut().await;
        {
            // Bodies that are in the log as well give their places up with it.
            let _turn = core.enter_turn();
            drop(saying);
            self.output = None;
        }
        drop(charge);
        // Else a reset, for input that nobody reads, could overtake what was sent.
        let is_to_be_read = code.is_some() || is_owed && cause != Cause::Shutdown;
        if is_to_be_read && matches!(is_said, Ok(Ok(()))) {
            self.stream.linger_for(LAST_WORDS_TIME).await;
        }
        let place = match place {
            // To close a socket is work as well.
            None if waits => place_among_endings(&core.endings).await,
            place => place,
        };
        self.stream.close();
        drop(self);
        drop(place);
    }

    /// The same for a connection that is still its session's; not waited for if a successor comes.
    async fn place_or_successor<'e>(&mut self, endings: &'e Semaphore) -> Option<SemaphorePermit<'e>> {
        let mut acquiring = std::pin::pin!(place_among_endings(endings));
        poll_fn(|cx| {
            // Looked at, so that a successor's signal wakes this task.
            self.gone.0.take_signals();
            if self.client.lock().link_of(self.epoch).is_none() {
                return Poll::Ready(None);
            }
            acquiring.as_mut().poll(cx)
        })
        .await
    }

    /// Sends what is owed, each answer when the log is where it has to be; returns when the socket
    /// may be closed.
    async fn say(&mut self, words: LastWords, cause: &Cause) -> io::Result<()> {
        let LastWords { output, held, on_record, .. } = words;
        let log = self.core.log.clone();
        if let Cause::Network(kind) = cause {
            return Err((*kind).into());
        }
        for output in [self.output.take(), output].into_iter().flatten() {
            self.write_output(*output).await?;
        }
        for (until, answers) in held {
            if let Some(log) = &log {
                log.wait(until).await;
            }
            self.stream.write_all(&answers).await?;
            self.core.metrics.bytes_sent.add(answers.len() as u64);
        }
        poll_fn(|cx| self.stream.poll_flush(cx)).await?;
        if let (Some(on_record), Some(log)) = (on_record, &log) {
            log.wait(on_record).await;
        }
        Ok(())
    }

    async fn write_output(&mut self, mut output: Output) -> io::Result<()> {
        while !output.is_empty() {
            match poll_fn(|cx| self.stream.poll_write(cx, output.first())).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    let _turn = self.core.enter_turn();
                    output.advance(n);
                    self.core.metrics.bytes_sent.add(n as u64);
                }
            }
        }
        Ok(())
    }
}
