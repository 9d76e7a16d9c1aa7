use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use crate::turns::*;

fn is_ready(barrier: std::pin::Pin<&mut impl Future>) -> bool {
    barrier.poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_barrier_waits_for_turns_that_had_begun_and_for_no_others() {
    let (turns, mut seat) = Turns::new();
    let (first, second) = (turns.enter(), turns.enter());
    let mut barrier = pin!(turns.barrier(&mut seat, ()));
    assert!(!is_ready(barrier.as_mut()));
    drop(first);
    assert!(!is_ready(barrier.as_mut()));
    let _later = turns.enter();
    drop(second);
    // `_later` is counted in the phase that the second round waits for: it must end as well, or
    // begin after that round has.
    drop(_later);
    assert!(is_ready(barrier.as_mut()));
}

#[test]
fn a_turn_that_begins_in_the_second_round_is_not_waited_for() {
    let (turns, mut seat) = Turns::new();
    for _ in 0..5 {
        let before = turns.enter();
        let mut barrier = pin!(turns.barrier(&mut seat, ()));
        assert!(!is_ready(barrier.as_mut()));
        drop(before);
        assert!(is_ready(barrier.as_mut()));
        let _behind = turns.enter();
    }
    assert!(!turns.is_any_open());
}

#[test]
fn one_that_is_dropped_half_way_leaves_the_next_one_right() {
    let (turns, mut seat) = Turns::new();
    let first = turns.enter();
    {
        let mut barrier = pin!(turns.barrier(&mut seat, ()));
        assert!(!is_ready(barrier.as_mut()));
    }
    let second = turns.enter();
    let mut barrier = pin!(turns.barrier(&mut seat, ()));
    assert!(!is_ready(barrier.as_mut()));
    drop(first);
    assert!(!is_ready(barrier.as_mut()));
    drop(second);
    assert!(is_ready(barrier.as_mut()));
}

#[test]
fn many_threads_and_a_barrier() {
    let (turns, mut seat) = Turns::new();
    let turns = Arc::new(turns);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    // Each thread raises what it took before it ends its turn: after a barrier everything that
    // was taken before is there.
    let taken = Arc::new(AtomicU64::new(0));
    let given = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (turns, stop) = (turns.clone(), stop.clone());
            let (taken, given) = (taken.clone(), given.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let _turn = turns.enter();
                    taken.fetch_add(1, Ordering::SeqCst);
                    std::thread::yield_now();
                    given.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for _ in 0..500 {
        let before = taken.load(Ordering::SeqCst);
        runtime.block_on(turns.barrier(&mut seat, ()));
        assert!(given.load(Ordering::SeqCst) >= before);
    }
    stop.store(true, Ordering::SeqCst);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
