//! A QoS 2 message for a durable session goes when the log has it, whichever of the turn that
//! queued it, the log, the session's connection and other turns comes first.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::{Condvar, Mutex as Lock};
use loom::thread;

use crate::check;
use crate::ledger::Position;
use crate::sync::{AtomicU64, Mutex, Ordering};
use crate::watermark::Watermark;

/// A session and its link, under the client's lock.
struct Client(Mutex<State>);

struct State {
    link: Option<Waker>,
    queue: Vec<Arc<AtomicU64>>,
    sent: usize,
}

/// The log: the end of what was submitted, until the writer takes it.
struct Log {
    submitted: Lock<u64>,
    work: Condvar,
    mark: Watermark,
}

impl Log {
    fn submit(&self) -> Position {
        let mut submitted = self.submitted.lock().unwrap();
        *submitted += 10;
        self.work.notify_one();
        Position::from_u64(*submitted)
    }

    /// Writes until all is committed.
    fn write(&self, last: u64) {
        let mut written = 0;
        while written < last {
            let mut submitted = self.submitted.lock().unwrap();
            while *submitted == written {
                submitted = self.work.wait(submitted).unwrap();
            }
            written = *submitted;
            drop(submitted);
            self.mark.advance(Position::from_u64(written));
        }
    }
}

/// A turn that delivers one message: `deliver.rs`, then `TurnLog::commit`.
fn turn(client: &Client, log: &Log) {
    let message = Arc::new(AtomicU64::new(0));
    client.0.lock().queue.push(Arc::clone(&message));
    let end = log.submit();
    // `set_stored`; what begins here lies before `end`.
    message.store(end.as_u64() - 9, Ordering::Release);
    if let Some(link) = &client.0.lock().link {
        log.mark.wake_at(end, link);
    }
}

/// What `attend` does, and what it leaves to wait for: as `Session::awaits_log` has it.
fn attend(client: &Client, log: &Log) -> Option<Position> {
    let mut state = client.0.lock();
    loop {
        let place = state.queue.first()?.load(Ordering::Acquire);
        if place == 0 {
            // Its turn sees to it.
            return None;
        }
        if place >= log.mark.position().as_u64() {
            return Some(Position::from_u64(place + 1));
        }
        state.queue.remove(0);
        state.sent += 1;
    }
}

/// The task of the connection: attaches, then looks until all is sent.
fn connect(client: &Client, log: &Log, messages: usize) {
    let mut is_attached = false;
    block_on(poll_fn(|cx| {
        if !is_attached {
            client.0.lock().link = Some(cx.waker().clone());
            is_attached = true;
        }
        loop {
            let position = attend(client, log);
            if client.0.lock().sent == messages {
                return Poll::Ready(());
            }
            let Some(position) = position else { return Poll::Pending };
            log.mark.wake_at(position, cx.waker());
            if log.mark.position() < position {
                return Poll::Pending;
            }
        }
    }));
}

fn world() -> (Arc<Client>, Arc<Log>) {
    let client = Client(Mutex::new(State { link: None, queue: Vec::new(), sent: 0 }));
    let mark = Watermark::at(Position::START);
    let log = Log { submitted: Lock::new(0), work: Condvar::new(), mark };
    (Arc::new(client), Arc::new(log))
}

#[test]
fn a_connection_that_attaches_in_the_midst_of_a_turn_gets_its_message() {
    check(|| {
        let (client, log) = world();
        let turning = thread::spawn({
            let (client, log) = (Arc::clone(&client), Arc::clone(&log));
            move || turn(&client, &log)
        });
        let writing = thread::spawn({
            let log = Arc::clone(&log);
            move || log.write(10)
        });
        connect(&client, &log, 1);
        turning.join().unwrap();
        writing.join().unwrap();
    });
}

/// The wake-up that one turn has asked for does not count for another one.
#[test]
fn the_messages_of_two_turns_both_go() {
    check(|| {
        let (client, log) = world();
        let turning = thread::spawn({
            let (client, log) = (Arc::clone(&client), Arc::clone(&log));
            move || turn(&client, &log)
        });
        // One thread less, and fewer orders: the other turn's is the log's afterwards.
        let writing = thread::spawn({
            let (client, log) = (Arc::clone(&client), Arc::clone(&log));
            move || {
                turn(&client, &log);
                log.write(20);
            }
        });
        connect(&client, &log, 2);
        turning.join().unwrap();
        writing.join().unwrap();
    });
}
