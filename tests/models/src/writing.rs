//! Output that publishers and the client's own task write is written to the last byte, once and in
//! one piece.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::sync::{Arc, Condvar};
use loom::thread;

use loom::sync::atomic::{AtomicBool, Ordering};

use crate::check;
use crate::gate::{By, Gate};
use crate::signals::Signals;
use crate::sync::Mutex;

const FLUSH: u8 = 1;
const CLOSE: u8 = 2;

struct Client {
    state: Mutex<State>,
    signals: Signals,
    socket: Socket,
    is_over: AtomicBool,
}

struct State {
    gate: Gate,
    out: Vec<u8>,
    waker: Option<Waker>,
    /// A successor has the session.
    is_taken_over: bool,
}

/// It takes a few bytes at a time, and says when it takes more.
struct Socket(Mutex<Wire>, Condvar);

struct Wire {
    room: usize,
    taken: Vec<u8>,
    waker: Option<Waker>,
}

impl Socket {
    /// Takes what it can of it.
    fn write(&self, bytes: &mut Vec<u8>) {
        let mut wire = self.0.lock();
        let n = wire.room.min(bytes.len());
        wire.room -= n;
        wire.taken.extend(bytes.drain(..n));
        self.1.notify_all();
    }

    /// Ready when it takes more.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut wire = self.0.lock();
        if wire.room > 0 {
            return Poll::Ready(());
        }
        wire.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until so many bytes have come.
    fn wait_for(&self, bytes: usize) {
        let mut wire = self.0.lock();
        while wire.taken.len() < bytes {
            wire = self.1.wait(wire).unwrap();
        }
    }

    /// The client reads.
    fn make_room(&self, bytes: usize) {
        let waker = {
            let mut wire = self.0.lock();
            wire.room += bytes;
            wire.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Client {
    fn new(room: usize) -> Arc<Self> {
        let state = State { gate: Gate::default(), out: Vec::new(), waker: None, is_taken_over: false };
        Arc::new(Self {
            state: Mutex::new(state),
            signals: Signals::default(),
            socket: Socket(Mutex::new(Wire { room, taken: Vec::new(), waker: None }), Condvar::new()),
            is_over: AtomicBool::new(false),
        })
    }

    /// As `flush` in `broker/flush.rs`, with one round before the rest is left to the task. `true`:
    /// the socket takes no more.
    fn flush(&self, by: By, is_ready: bool) -> bool {
        let mut output = {
            let mut state = self.state.lock();
            if is_ready {
                state.gate.open();
            } else if by == By::OwnTask && state.gate.is_blocked() {
                return true;
            }
            if state.out.is_empty() || !state.gate.enter(by) {
                return false;
            }
            std::mem::take(&mut state.out)
        };
        self.socket.write(&mut output);
        let mut state = self.state.lock();
        if state.is_taken_over {
            return false;
        }
        let blocked = !output.is_empty();
        output.append(&mut state.out);
        state.out = output;
        if state.gate.leave(by, blocked) {
            state.waker.iter().for_each(Waker::wake_by_ref);
        }
        if !blocked && !state.out.is_empty() && self.signals.leave(FLUSH) {
            // It came meanwhile.
            state.waker.iter().for_each(Waker::wake_by_ref);
        }
        blocked
    }

    /// A turn of another client.
    fn publish(&self, byte: u8) {
        self.state.lock().out.push(byte);
        self.flush(By::Publisher, false);
    }

    /// As `shed_from` in `broker/memory.rs`, if everything is left out; how much that was.
    fn shed(&self) -> usize {
        let mut state = self.state.lock();
        let shed = std::mem::take(&mut state.out).len();
        if shed > 0 && self.signals.leave(FLUSH) {
            state.waker.iter().for_each(Waker::wake_by_ref);
        }
        shed
    }

    /// As `poll_work`: until nothing can be done.
    fn poll_work(&self, cx: &mut Context<'_>) {
        let _ = self.signals.take();
        loop {
            let is_any = {
                let state = self.state.lock();
                (!state.out.is_empty() || state.gate.is_blocked()) && !state.gate.is_writing()
            };
            if !is_any {
                return;
            }
            let mut is_ready = false;
            while self.flush(By::OwnTask, is_ready) {
                if self.socket.poll_ready(cx).is_pending() {
                    return;
                }
                is_ready = true;
            }
        }
    }

    fn taken(&self) -> Vec<u8> {
        self.socket.0.lock().taken.clone()
    }

    /// The client's task, until it is told that the model is over.
    fn run(&self) {
        block_on(poll_fn(|cx| {
            self.state.lock().waker.get_or_insert_with(|| cx.waker().clone());
            if self.is_over.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            self.poll_work(cx);
            Poll::Pending
        }));
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Release);
        let waker = self.state.lock().waker.clone();
        waker.into_iter().for_each(Waker::wake);
    }
}

#[test]
fn what_two_write_is_written_to_the_end() {
    check(|| {
        let client = Client::new(1);
        let task = thread::spawn({
            let client = Arc::clone(&client);
            move || client.run()
        });
        let publishers = [1, 2].map(|byte| {
            let client = Arc::clone(&client);
            thread::spawn(move || client.publish(byte))
        });
        client.socket.make_room(1);
        client.socket.wait_for(2);
        client.end();
        task.join().unwrap();
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        let mut taken = client.taken();
        taken.sort_unstable();
        assert_eq!(taken, [1, 2]);
    });
}

/// A socket takes no more, and all that waits for it is left out because memory is short. What comes
/// later is written all the same.
#[test]
fn what_comes_after_all_was_left_out_is_written() {
    check(|| {
        let client = Client::new(0);
        let task = thread::spawn({
            let client = Arc::clone(&client);
            move || client.run()
        });
        client.publish(1);
        let shed = client.shed();
        client.socket.make_room(2);
        client.publish(2);
        client.socket.wait_for(2 - shed);
        client.end();
        task.join().unwrap();
        assert_eq!(client.taken().last(), Some(&2));
    });
}

/// A connection that ends waits for the one who is writing, takes what he leaves, and writes the
/// rest itself.
#[test]
fn the_last_words_follow_what_another_was_writing() {
    // The socket takes some of it, and all.
    for room in [1, 2] {
        check(move || {
            let client = Client::new(room);
            client.state.lock().out.extend([1, 2]);
            let mut other = None;
            block_on(poll_fn(|cx| {
                if other.is_none() {
                    client.state.lock().waker = Some(cx.waker().clone());
                    let publisher = Arc::clone(&client);
                    other = Some(thread::spawn(move || publisher.flush(By::Publisher, false)));
                }
                if client.state.lock().gate.reserve() { Poll::Ready(()) } else { Poll::Pending }
            }));
            let mut rest = std::mem::take(&mut client.state.lock().out);
            client.socket.make_room(2);
            client.socket.write(&mut rest);
            assert_eq!(client.taken(), [1, 2]);
            other.map(|other| other.join().unwrap());
            assert_eq!(client.taken(), [1, 2], "nobody has written anything after that");
        });
    }
}

/// A connection that ends, and waits for the one who is writing, is taken over meanwhile. A signal
/// that it did not look at lies there: so the successor wakes nobody, unless it is taken first.
#[test]
fn a_connection_taken_over_does_not_wait_for_a_writer() {
    check(|| {
        let client = Client::new(2);
        client.state.lock().out.push(1);
        // A write has failed before; the task ends for another reason.
        assert!(client.signals.leave(CLOSE));
        let mut others = Vec::new();
        block_on(poll_fn(|cx| {
            if others.is_empty() {
                client.state.lock().waker = Some(cx.waker().clone());
                let publisher = Arc::clone(&client);
                others.push(thread::spawn(move || {
                    publisher.flush(By::Publisher, false);
                }));
                let successor = Arc::clone(&client);
                others.push(thread::spawn(move || {
                    let mut state = successor.state.lock();
                    state.is_taken_over = true;
                    if successor.signals.leave(CLOSE) {
                        state.waker.iter().for_each(Waker::wake_by_ref);
                    }
                }));
            }
            // As `Connection::close`.
            let _ = client.signals.take();
            let mut state = client.state.lock();
            if state.is_taken_over || state.gate.reserve() { Poll::Ready(()) } else { Poll::Pending }
        }));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
