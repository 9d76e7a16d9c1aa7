//! Writes that a turn puts off.

use super::{Peer, runtime};
use crate::broker::{Core, DeferredFlush, Promiser, Security, Turn, signal};
use crate::config::Limits;

/// Each is done in one of the connection's next turns, or its receiver's task is told that it will
/// not be.
#[test]
fn a_write_that_was_put_off_is_done_or_told() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    // Without a plain socket whoever would write signals the receiver's task instead.
    let mut peer = Peer::new(&core, false, None);
    let attached = peer.poll().expect("nobody is there yet");
    let receiver = attached.client;
    let signals = || peer.handle.take_signals();
    let (promiser, mut turn) = (Promiser::new(), Turn::new());
    let put_off = |turn: &mut Turn, deferred: &mut Option<Box<DeferredFlush>>, is_touched: bool| {
        turn.begin_as(&core, promiser);
        if is_touched {
            let mut state = receiver.lock();
            state.session.send_pingresp();
            turn.promise_flush(&receiver, &mut state);
        }
        turn.defer_flush(&core, deferred, true);
        turn.finish(&core);
    };
    let mut deferred = None;

    // In vain: its connection waits, or ends.
    put_off(&mut turn, &mut deferred, true);
    assert_eq!(signals(), 0, "it is put off");
    deferred = None;
    assert_eq!(signals(), signal::FLUSH);

    // Until the last turn.
    put_off(&mut turn, &mut deferred, true);
    put_off(&mut turn, &mut deferred, true);
    put_off(&mut turn, &mut deferred, false);
    assert_eq!(signals(), 0);
    turn.begin_as(&core, promiser);
    turn.defer_flush(&core, &mut deferred, false);
    turn.finish(&core);
    assert!(deferred.is_none());
    assert_eq!(signals(), signal::FLUSH);

    // Not for ever, also if the receiver gets nothing more.
    let mut turns = 0;
    while signals() == 0 {
        put_off(&mut turn, &mut deferred, turns == 0);
        turns += 1;
        assert!(turns < 100);
    }
    assert!(deferred.is_none());

    // Not at all, where another client relies on it.
    turn.begin_as(&core, promiser);
    let mut other = Turn::new();
    other.begin(&core);
    for turn in [&mut turn, &mut other] {
        let mut state = receiver.lock();
        state.session.send_pingresp();
        turn.promise_flush(&receiver, &mut state);
    }
    other.finish(&core);
    assert_eq!(signals(), 0, "it was left to the first");
    turn.defer_flush(&core, &mut deferred, true);
    turn.finish(&core);
    assert_eq!(signals(), signal::FLUSH);
}

/// However many receivers a turn has, it wakes a bounded number, and its connection's next turns
/// wake the others.
#[test]
fn many_writes_are_done_in_slices() {
    const RECEIVERS: usize = 1_000;
    const SLICE_MAX: usize = 300;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let ids: Vec<_> = (0..RECEIVERS).map(|n| format!("receiver-{n}")).collect();
    let mut peers: Vec<_> = ids.iter().map(|id| Peer::named(&core, id)).collect();
    let receivers: Vec<_> = peers.iter_mut().map(|peer| peer.poll().expect("it is new").client).collect();
    let told = || peers.iter().filter(|peer| peer.handle.take_signals() & signal::FLUSH != 0).count();
    let (promiser, mut turn, mut deferred) = (Promiser::new(), Turn::new(), None);
    for goes_on in [false, true] {
        turn.begin_as(&core, promiser);
        for receiver in &receivers {
            let mut state = receiver.lock();
            state.session.send_pingresp();
            turn.promise_flush(receiver, &mut state);
        }
        turn.defer_flush(&core, &mut deferred, goes_on);
        turn.finish(&core);
        let mut all = 0;
        let first = told();
        assert_eq!(first == 0, goes_on);
        all += first;
        assert!(first <= SLICE_MAX, "{first} in one turn");
        while deferred.is_some() {
            turn.begin_as(&core, promiser);
            turn.write_deferred(&mut deferred);
            turn.finish(&core);
            let slice = told();
            assert!((1..=SLICE_MAX).contains(&slice), "{slice} in one turn");
            all += slice;
        }
        assert_eq!(all, RECEIVERS);
        // As their tasks do.
        for receiver in &receivers {
            let mut state = receiver.lock();
            state.session.out.take();
            state.link.as_mut().expect("it is attached").flush.keep();
        }
    }
}
