//! `Line`: where connections wait that have more to do than fits into one turn.
//!
//! If each of them went to the end of the runtime's queue after its turn, whoever has little to do
//! would wait there behind all of them: a thousand such clients, a thousand turns. So they stand in
//! a line of their own, and only a few at a time, a permit each, come into that queue.
//!
//! A permit is for one turn. It is given back at the end of the poll that it was for, whatever that
//! has done; nothing is waited for meanwhile but a thread.
//!
//! A publish to many receivers may need a place among the fan-outs (`broker/fan_out.rs`) before it
//! goes on. Its connection waits for that here, and joins the line with it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{Connection, Next};
use super::worker::{self, Worker};
use crate::broker::{Cause, signal};

type Acquiring = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// A permit of these, when there is one. They are never closed.
fn acquire(permits: &Arc<Semaphore>) -> Acquiring {
    let permits = Arc::clone(permits);
    Box::pin(async { permits.acquire_owned().await.ok() })
}

/// Where a connection is. Nearly all are outside.
#[derive(Default)]
pub(super) enum Line {
    #[default]
    Outside,
    Waiting(Acquiring),
    /// For a place among the fan-outs, and for its turn after that.
    WaitingForPlace(Acquiring),
    /// It has its turn when its task is polled next.
    Permitted(#[expect(dead_code, reason = "it is given back when dropped")] OwnedSemaphorePermit),
}

impl Line {
    /// Queues up for another turn; the task is woken for it.
    pub(super) fn join(&mut self, permits: &Arc<Semaphore>, cx: &mut Context<'_>) {
        *self = Self::Waiting(acquire(permits));
        self.is_waiting(cx);
    }

    /// Whether others are before it yet, or those whose sockets have news; the task is woken when
    /// that is over.
    pub(super) fn is_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let permit = match self {
            Self::Waiting(permit) => permit,
            Self::WaitingForPlace(_) => return true,
            Self::Outside | Self::Permitted(_) => return false,
        };
        if let Poll::Ready(permit) = permit.as_mut().poll(cx) {
            *self = permit.map_or(Self::Outside, Self::Permitted);
            worker::let_others_first(cx);
        }
        true
    }

    /// The turn is over.
    pub(super) fn leave(&mut self) {
        *self = Self::Outside;
    }
}

impl Connection {
    /// Joins the line for another turn, if it needs one.
    pub(super) fn queue_up(&mut self, next: Next, cx: &mut Context<'_>) {
        let has_more = match next {
            Next::Turn => true,
            // What has begun is brought to its end, whatever the connection waits for.
            Next::Wait => self.write_deferred() || self.publisher.is_pending(),
        };
        if has_more | std::mem::take(&mut self.wants_turn) {
            if self.poll_place(cx).is_ready() {
                self.line.join(&self.core.long_turns, cx);
            }
            if matches!(self.line, Line::Waiting(_) | Line::WaitingForPlace(_))
                && let Some(deferred) = self.deferred.take()
            {
                // That may be long. Receivers do not wait for it.
                self.core.write_later(deferred);
            }
        }
    }

    /// Ready when its publish has the place that it needs to go on, if it needs one.
    pub(super) fn poll_place(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.publisher.needs_place() {
            return Poll::Ready(());
        }
        if !matches!(self.line, Line::WaitingForPlace(_)) {
            self.line = Line::WaitingForPlace(acquire(self.core.fan_out_places()));
        }
        let Line::WaitingForPlace(place) = &mut self.line else { return Poll::Pending };
        let place = ready!(place.as_mut().poll(cx));
        self.line.leave();
        place.into_iter().for_each(|place| self.publisher.keep_place(place));
        Poll::Ready(())
    }

    /// While it waits for another turn: it hears that it has to end, and writes its output.
    pub(super) fn poll_in_line(&mut self, cx: &mut Context<'_>) -> Result<(), Cause> {
        let signals = self.gone.0.take_signals();
        if signals & signal::CLOSE != 0 {
            return Err(self.close_cause());
        }
        self.let_go_of_routes(signals);
        if matches!(self.line, Line::WaitingForPlace(_)) && self.poll_place(cx).is_ready() {
            self.line.join(&self.core.long_turns, cx);
        }
        // It has not been read; that is judged in its turn.
        let mut later = signals & signal::KEEP_ALIVE;
        if self.publisher.needs_place() {
            // Nothing is read before it goes on.
            later |= signals & signal::READ;
        } else if signals & signal::READ != 0 {
            self.read_before_take_over(cx)?;
        }
        self.gone.0.leave(later);
        self.poll_work(cx, false)?;
        // It stands in line for that.
        self.wants_turn = false;
        Ok(())
    }

    /// Does one slice of the writes that were put off; whether there are more.
    pub(super) fn write_deferred(&mut self) -> bool {
        if self.deferred.is_some() {
            worker::with(|Worker { turn, .. }| {
                turn.begin_as(&self.core, self.promiser);
                turn.write_deferred(&mut self.deferred);
                turn.finish(&self.core);
            });
        }
        self.deferred.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A task that stands in line.
    #[derive(Default)]
    struct Task {
        line: Line,
        woken: Arc<Woken>,
    }

    impl Task {
        fn with<T>(&mut self, f: impl FnOnce(&mut Line, &mut Context<'_>) -> T) -> T {
            let waker = Waker::from(Arc::clone(&self.woken));
            f(&mut self.line, &mut Context::from_waker(&waker))
        }

        fn join(&mut self, permits: &Arc<Semaphore>) {
            self.with(|line, cx| line.join(permits, cx));
        }

        /// Polled if it was woken; whether it has its turn.
        fn has_turn(&mut self) -> bool {
            self.woken.0.swap(0, Ordering::Relaxed) > 0 && !self.with(Line::is_waiting)
        }
    }

    #[test]
    fn so_many_have_their_turn_as_there_are_permits_in_the_order_in_which_they_came() {
        let permits = Arc::new(Semaphore::new(2));
        let mut tasks: [Task; 5] = Default::default();
        tasks.iter_mut().for_each(|task| task.join(&permits));
        let mut turns = Vec::new();
        // Between the permit and the turn the runtime looks at its sockets: each is polled twice.
        for _ in 0..2 * tasks.len() {
            let ready: Vec<usize> = (0..tasks.len()).filter(|n| tasks[*n].has_turn()).collect();
            assert!(ready.len() <= 2, "{ready:?} after {turns:?}");
            ready.iter().for_each(|n| tasks[*n].line.leave());
            turns.extend(ready);
        }
        assert_eq!(turns, [0, 1, 2, 3, 4]);
        assert_eq!(permits.available_permits(), 2);
    }

    #[test]
    fn who_leaves_the_line_or_ends_with_a_permit_holds_up_nobody() {
        let permits = Arc::new(Semaphore::new(1));
        let mut tasks: [Task; 3] = Default::default();
        tasks.iter_mut().for_each(|task| task.join(&permits));
        tasks[1].line.leave();
        tasks[0] = Task::default();
        let _ = tasks[2].has_turn();
        assert!(tasks[2].has_turn());
    }
}
