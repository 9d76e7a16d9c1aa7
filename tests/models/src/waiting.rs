//! Who waits for the watermark is woken when it is there, or when the log begins to fail.

use std::future::poll_fn;
use std::task::Poll;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::AtomicBool;
use loom::thread;

use crate::check;
use crate::ledger::Position;
use crate::sync::Ordering;
use crate::watermark::Watermark;

fn at(offset: u32) -> Position {
    Position::new(1, offset)
}

/// As `Log::wait`.
async fn come_to(mark: &Watermark, end: Position) {
    poll_fn(|cx| {
        if mark.position() >= end {
            return Poll::Ready(());
        }
        mark.wake_at(end, cx.waker());
        Poll::Pending
    })
    .await;
}

#[test]
fn nobody_waits_for_a_place_that_is_reached() {
    check(|| {
        let mark = Arc::new(Watermark::at(at(0)));
        let writer = thread::spawn({
            let mark = Arc::clone(&mark);
            move || [at(10), at(20)].into_iter().for_each(|end| mark.advance(end))
        });
        let other = thread::spawn({
            let mark = Arc::clone(&mark);
            move || block_on(come_to(&mark, at(20)))
        });
        block_on(come_to(&mark, at(5)));
        other.join().unwrap();
        writer.join().unwrap();
    });
}

/// What waits for the log only as long as the log can be written goes when it cannot: `poll_work`
/// looks at the flag before it registers, and afterwards once more.
#[test]
fn nobody_waits_for_a_log_that_has_failed() {
    check(|| {
        let mark = Arc::new(Watermark::at(at(0)));
        let is_failing = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (mark, is_failing) = (Arc::clone(&mark), Arc::clone(&is_failing));
            move || {
                // As `Shared::set_failing`.
                is_failing.store(true, Ordering::Release);
                mark.wake_all();
            }
        });
        block_on(poll_fn(|cx| {
            loop {
                let was_failing = is_failing.load(Ordering::Acquire);
                if was_failing {
                    return Poll::Ready(());
                }
                mark.wake_at(at(10), cx.waker());
                if is_failing.load(Ordering::Acquire) == was_failing {
                    return Poll::Pending;
                }
            }
        }));
        writer.join().unwrap();
    });
}

#[test]
fn nobody_waits_for_a_log_that_is_closed() {
    check(|| {
        let mark = Arc::new(Watermark::at(at(0)));
        let is_closed = Arc::new(AtomicBool::new(false));
        let writer = thread::spawn({
            let (mark, is_closed) = (Arc::clone(&mark), Arc::clone(&is_closed));
            move || {
                is_closed.store(true, Ordering::Release);
                mark.close();
            }
        });
        block_on(poll_fn(|cx| {
            mark.wake_at(at(10), cx.waker());
            // Registered first, then looked.
            if is_closed.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        }));
        writer.join().unwrap();
    });
}
