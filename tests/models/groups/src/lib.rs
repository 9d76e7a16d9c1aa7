//! A member whose standing changes while publishers pick it: in no order of steps is it left filed
//! worse than it is.
//!
//! The lists are the broker's (`src/broker/group/roll.rs`). The locks, and what is done under
//! which, are written down here once more as `src/broker/group.rs`, `group/pick.rs` and `Locked` in
//! `client.rs` do it.

#![cfg(test)]

#[allow(dead_code, unreachable_pub)]
#[path = "../../../../src/broker/group/roll.rs"]
mod roll;

use loom::sync::{Arc, Mutex, MutexGuard};
use loom::thread;

use roll::{Filed, Keyed, Roll};

struct Peer;

const KEY: u64 = 1;

impl Keyed for Peer {
    fn key(&self) -> u64 {
        KEY
    }
}

/// What the client's lock guards.
struct State {
    is_connected: bool,
    has_room: bool,
    /// The group has it filed as something else than ready.
    is_filed_worse: bool,
}

impl State {
    fn standing(&self) -> Filed {
        match (self.is_connected, self.has_room) {
            (false, _) => Filed::Away,
            (true, false) => Filed::Busy,
            (true, true) => Filed::Ready,
        }
    }
}

struct House {
    client: Mutex<State>,
    group: Mutex<Roll<Peer>>,
    /// The faults that the model has to find.
    fault: Fault,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// What a publisher has seen is filed after the client's lock is let go.
    FiledOutside,
    /// Better standing is told after the client's lock is let go, by what was seen under it.
    ToldOutside,
    /// The lists are looked at one after the other, each under a lock of its own.
    ListByList,
}

impl House {
    fn new(fault: Fault, is_connected: bool) -> Arc<Self> {
        let state = State { is_connected, has_room: false, is_filed_worse: !is_connected };
        let mut roll = Roll::default();
        assert!(roll.insert(Peer, if is_connected { Filed::Ready } else { Filed::Away }, 0));
        Arc::new(Self { client: Mutex::new(state), group: Mutex::new(roll), fault })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.client.lock().unwrap()
    }

    /// `Group::file`.
    fn file(&self, state: &mut State, filed: Filed) {
        self.group.lock().unwrap().file(KEY, filed);
        state.is_filed_worse = filed != Filed::Ready;
    }

    /// `Drop for Locked`.
    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        if !state.is_filed_worse {
            return;
        }
        let standing = state.standing();
        if self.fault == Fault::ToldOutside {
            drop(state);
            self.group.lock().unwrap().file(KEY, standing);
            self.lock().is_filed_worse = standing != Filed::Ready;
            return;
        }
        self.file(&mut state, standing);
    }

    /// `Core::deliver_shared`: picks it where it is filed best, looks, and files it anew if it is
    /// worse.
    fn publish(&self) -> bool {
        const ORDER: [Filed; 3] = [Filed::Ready, Filed::Busy, Filed::Away];
        loop {
            let picked = if self.fault == Fault::ListByList {
                // By the second the member may be filed as what was looked at in the first.
                ORDER.into_iter().find(|filed| self.group.lock().unwrap().next(*filed, |_| true).is_some())
            } else {
                let mut group = self.group.lock().unwrap();
                ORDER.into_iter().find(|filed| group.next(*filed, |_| true).is_some())
            };
            let Some(filed) = picked else { return false };
            let mut state = self.lock();
            let standing = state.standing();
            if (standing as u8) > filed as u8 {
                if self.fault == Fault::FiledOutside {
                    state.is_filed_worse = true;
                    drop(state);
                    self.group.lock().unwrap().file(KEY, standing);
                } else {
                    self.file(&mut state, standing);
                    self.unlock(state);
                }
                continue;
            }
            // It takes the message, and has no room for another.
            state.has_room = false;
            let standing = state.standing();
            if standing != filed {
                self.file(&mut state, standing);
            }
            self.unlock(state);
            return true;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        self.unlock(state);
    }

    fn assert_not_filed_worse(&self) {
        let state = self.lock();
        let filed = self.group.lock().unwrap().filed(KEY);
        assert!(filed.is_some_and(|filed| filed as u8 <= state.standing() as u8), "{filed:?}");
        assert_eq!(filed != Some(Filed::Ready), state.is_filed_worse);
    }
}

/// Two publishers, and a client that acknowledges, or attaches, or both, and goes.
fn run(fault: Fault, is_connected: bool, changes: &'static [fn(&mut State)]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let house = House::new(fault, is_connected);
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let house = Arc::clone(&house);
                thread::spawn(move || {
                    // It is in some list at every moment.
                    assert!(house.publish(), "a group with a member finds none");
                })
            })
            .collect();
        for change in changes {
            house.change(change);
        }
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        house.assert_not_filed_worse();
    });
}

fn acknowledge(state: &mut State) {
    state.has_room = state.is_connected;
}

fn attach(state: &mut State) {
    (state.is_connected, state.has_room) = (true, true);
}

fn detach(state: &mut State) {
    (state.is_connected, state.has_room) = (false, false);
}

#[test]
fn an_acknowledgement_is_not_missed() {
    run(Fault::None, true, &[acknowledge, acknowledge]);
}

#[test]
fn an_attaching_member_is_not_missed() {
    run(Fault::None, false, &[attach]);
    run(Fault::None, true, &[detach, attach]);
    run(Fault::None, false, &[attach, detach]);
}

#[test]
#[should_panic]
fn a_filing_after_the_lock_is_found() {
    run(Fault::FiledOutside, true, &[acknowledge]);
}

#[test]
#[should_panic]
fn a_word_after_the_lock_is_found() {
    run(Fault::ToldOutside, true, &[acknowledge, detach, attach]);
}

#[test]
#[should_panic]
fn a_look_list_by_list_is_found() {
    run(Fault::ListByList, true, &[acknowledge, acknowledge]);
}
