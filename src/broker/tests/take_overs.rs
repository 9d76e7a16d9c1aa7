//! Connections with one client id.

use std::sync::Arc;

use super::{Peer, runtime};
use crate::broker::client::locks_taken;
use crate::broker::{Cause, Core, Security};
use crate::config::Limits;

#[test]
fn nobody_attaches_before_the_old_connection_is_gone() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    for (second_is_clean, third_is_clean) in [(false, false), (false, true), (true, false), (true, true)] {
        let core = Core::new(Limits::default(), Security::default());
        let (mut first, mut second, mut third) = (
            Peer::new(&core, false, None),
            Peer::new(&core, second_is_clean, None),
            Peer::new(&core, third_is_clean, None),
        );
        first.poll().expect("nobody is there yet");
        assert!(second.poll().is_none(), "the first one's socket is still open");
        assert!(third.poll().is_none(), "the first one's socket is still open, whoever closes it");
        first.handle.set_gone();
        let attached = second.poll().expect("the first one is gone");
        assert!(!attached.session_present || !second_is_clean);
        assert!(third.poll().is_none(), "the second one is there now");
        second.handle.set_gone();
        let attached = third.poll().expect("the second one is gone");
        assert!(!attached.client.lock().session.is_ended());
        core.disconnected(&attached.client, attached.epoch, &Cause::Disconnect { with_will: false });
        assert_eq!(core.metrics().clients_connected, 0);
    }
}

/// Many connections with one client id: each comes in, and none of them looks while it is not its
/// turn.
#[test]
fn a_crowd_with_one_client_id_comes_in_one_by_one() {
    const CROWD: usize = 200;
    /// Locks of clients for one that comes in; with all looking it would be twice the crowd.
    const LOCKS_MAX: usize = 20;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    for is_clean in [false, true] {
        let core = Core::new(Limits::default(), Security::default());
        let mut crowd: Vec<_> = (0..CROWD).map(|_| Peer::new(&core, is_clean, None)).collect();
        let (gone, mut waiting) = crowd.split_last_mut().expect("there are many");
        gone.poll().expect("nobody is there yet");
        let mut before = gone;
        while !waiting.is_empty() {
            assert!(waiting.iter_mut().all(|peer| peer.poll().is_none()), "the socket before is open");
            before.handle.set_gone();
            let locks = locks_taken();
            // Whoever has no place yet is woken in vain here.
            let (next, rest) = waiting.split_first_mut().expect("it is not empty");
            assert!(rest.iter_mut().all(|peer| peer.poll().is_none()), "they came later");
            next.poll().expect("the one before is gone");
            let locks = locks_taken() - locks;
            assert!(locks <= LOCKS_MAX, "{locks} locks for one of {CROWD}");
            (before, waiting) = (next, rest);
        }
        drop(crowd);
        assert_eq!(core.entrance.lines(), 0);
    }
}

/// Who no longer waits leaves the line.
#[test]
fn a_connection_that_leaves_the_line_holds_up_nobody() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let mut peers: Vec<_> = (0..4).map(|_| Peer::new(&core, false, None)).collect();
    let mut polled = peers.iter_mut().map(Peer::poll).collect::<Vec<_>>();
    assert!(polled.remove(0).is_some() && polled.iter().all(Option::is_none));
    let handle = Arc::clone(&peers[0].handle);
    // The one whose turn it is, and one who waits for his.
    drop(peers.drain(1..3));
    handle.set_gone();
    assert!(peers[1].poll().is_some());
    drop(peers);
    assert_eq!(core.entrance.lines(), 0);
}

#[test]
fn what_is_left_for_a_connection_does_not_reach_its_successor() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let (mut first, mut second) = (Peer::new(&core, false, None), Peer::new(&core, false, None));
    first.poll().expect("nobody is there yet");
    assert!(second.poll().is_none());
    // It was about to end anyway, and does not look at its signals any more.
    first.handle.set_gone();
    assert!(second.poll().is_some_and(|attached| attached.session_present));
    assert_eq!(second.handle.take_signals(), 0);
}
