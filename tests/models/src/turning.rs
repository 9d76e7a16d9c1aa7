//! A turn takes a message out of a session and puts its successor on record later; whoever has seen
//! the session without it and waits for the turns of that moment finds the successor.

use loom::future::block_on;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;

use crate::check;
use crate::turns::Turns;

/// What a turn moves: from the session into the log.
#[derive(Default)]
struct World {
    is_in_session: AtomicBool,
    is_in_log: AtomicBool,
    session: Mutex<()>,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self::default();
        world.is_in_session.store(true, Ordering::Relaxed);
        Arc::new(world)
    }

    /// One turn.
    fn move_on(&self, turns: &Turns) {
        let turn = turns.enter();
        {
            let _session = self.session.lock().unwrap();
            self.is_in_session.store(false, Ordering::Relaxed);
        }
        thread::yield_now();
        self.is_in_log.store(true, Ordering::Release);
        drop(turn);
    }

    fn is_gone_from_session(&self) -> bool {
        let _session = self.session.lock().unwrap();
        !self.is_in_session.load(Ordering::Relaxed)
    }
}

#[test]
fn what_a_turn_has_in_its_hands_is_on_record_behind_the_barrier() {
    check(|| {
        let (turns, mut seat) = Turns::new();
        let turns = Arc::new(turns);
        let world = World::new();
        let turn = thread::spawn({
            let (turns, world) = (Arc::clone(&turns), Arc::clone(&world));
            move || world.move_on(&turns)
        });
        let is_gone = world.is_gone_from_session();
        block_on(turns.barrier(&mut seat, ()));
        if is_gone {
            assert!(world.is_in_log.load(Ordering::Acquire), "it is nowhere");
        }
        turn.join().unwrap();
    });
}

/// Turns that come while barriers are under way are counted in the phase of one of them, and must
/// not be overlooked by the next.
#[test]
fn the_second_of_two_barriers_sees_turns_that_began_during_the_first() {
    check(|| {
        let (turns, mut seat) = Turns::new();
        let turns = Arc::new(turns);
        let world = World::new();
        let turn = thread::spawn({
            let (turns, world) = (Arc::clone(&turns), Arc::clone(&world));
            move || world.move_on(&turns)
        });
        block_on(turns.barrier(&mut seat, ()));
        let is_gone = world.is_gone_from_session();
        block_on(turns.barrier(&mut seat, ()));
        if is_gone {
            assert!(world.is_in_log.load(Ordering::Acquire), "it is nowhere");
        }
        turn.join().unwrap();
    });
}
