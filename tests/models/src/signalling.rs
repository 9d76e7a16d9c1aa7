//! A signal is left and the task looks, in whatever order: what it is about is seen.

use std::future::poll_fn;
use std::task::{Poll, Waker};

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::check;
use crate::signals::Signals;
use crate::sync::Mutex;

/// A link: what others change, and how they tell.
struct Link {
    signals: Signals,
    /// What the signal is about.
    left: Mutex<u32>,
    waker: Mutex<Option<Waker>>,
}

const FLUSH: u8 = 1;

impl Link {
    /// As `Link::signal`, by one who has changed something before.
    fn tell(&self) {
        *self.left.lock() += 1;
        if self.signals.leave(FLUSH) {
            let waker = self.waker.lock().clone();
            waker.expect("known from the moment of attaching").wake();
        }
    }
}

#[test]
fn two_who_signal_at_once_are_both_seen() {
    check(|| {
        let link =
            Arc::new(Link { signals: Signals::default(), left: Mutex::new(0), waker: Mutex::new(None) });
        let mut others = Vec::new();
        let mut seen = 0;
        block_on(poll_fn(|cx| {
            if others.is_empty() {
                *link.waker.lock() = Some(cx.waker().clone());
                for _ in 0..2 {
                    let link = Arc::clone(&link);
                    others.push(thread::spawn(move || link.tell()));
                }
            }
            // As `poll_turns`: the signals first, then what they are about.
            let _ = link.signals.take();
            seen += std::mem::take(&mut *link.left.lock());
            if seen == 2 { Poll::Ready(()) } else { Poll::Pending }
        }));
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}
