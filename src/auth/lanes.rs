//! `Lanes`: how many logins are being checked at one time for an address, and for a user at an address; further ones wait in their order.
//!
//! A failure counts when its answer is there. Guesses that are sent all at once would all be checked before the first of them counts; so no more are
//! under way than may still fail ([`Throttle::places`]), and the throttle judges each again when its turn has come. Who has been banned meanwhile
//! has not to wait for the refusal.
//!
//! Devices that come back together behind one address with good passwords wait for each other, and all come in. Who waits gives up by dropping the
//! future; nothing here looks at a clock. Waiting costs some bytes for each connection, which `limits.connections_max` bounds.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::throttle::{AddressGroup, Throttle, ThrottleKeys};

/// Those who have given up are looked for when so many wait, and then at twice as many as are left.
const SWEPT_AT_LEAST: usize = 64;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Lanes {
    throttle: Arc<Mutex<Throttle>>,
    lanes: Mutex<HashMap<Key, Lane, ahash::RandomState>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    UserAtAddress(ThrottleKeys),
    Address(AddressGroup),
}

#[derive(Debug, Default)]
struct Lane {
    under_way: usize,
    waiting: VecDeque<oneshot::Sender<Place>>,
    swept_at: usize,
}

/// One check that may be under way; its end is when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lanes: Arc<Lanes>,
    key: Key,
}

impl Lanes {
    pub(super) fn new(throttle: Arc<Mutex<Throttle>>) -> Arc<Self> {
        Arc::new(Self { throttle, lanes: Mutex::default() })
    }

    /// Waits for its turn: first among those of the user at the address, then among all of the address.
    /// What to hold while the check is under way.
    pub(super) async fn enter(self: &Arc<Self>, address: IpAddr, user: &str) -> [Place; 2] {
        let keys = self.throttle.lock().keys(address, user);
        let pair = self.turn(Key::UserAtAddress(keys)).await;
        [pair, self.turn(Key::Address(keys.address)).await]
    }

    async fn turn(self: &Arc<Self>, key: Key) -> Place {
        let places = self.places(key);
        let turn = {
            let mut lanes = self.lanes.lock();
            let lane = lanes.entry(key).or_default();
            if lane.under_way < places && lane.waiting.is_empty() {
                lane.under_way += 1;
                return Place { lanes: Arc::clone(self), key };
            }
            lane.sweep();
            let (sender, turn) = oneshot::channel();
            lane.waiting.push_back(sender);
            turn
        };
        match turn.await {
            Ok(place) => place,
            // A sender is dropped only when its receiver is.
            Err(_) => std::future::pending().await,
        }
    }

    fn places(&self, key: Key) -> usize {
        let throttle = self.throttle.lock();
        match key {
            Key::UserAtAddress(keys) => throttle.places(keys),
            Key::Address(address) => throttle.places_of_address(address),
        }
    }

    /// One check is over; those whose turn it is begin.
    fn leave(self: &Arc<Self>, key: Key) {
        let places = self.places(key);
        let mut next = Vec::new();
        {
            let mut lanes = self.lanes.lock();
            let Some(lane) = lanes.get_mut(&key) else { return };
            lane.under_way = lane.under_way.saturating_sub(1);
            while lane.under_way < places
                && let Some(sender) = lane.waiting.pop_front()
            {
                if !sender.is_closed() {
                    lane.under_way += 1;
                    next.push(sender);
                }
            }
            if lane.under_way == 0 {
                lanes.remove(&key);
            }
        }
        // Not under the lock: a place that nobody takes any more comes back here.
        for sender in next {
            let _ = sender.send(Place { lanes: Arc::clone(self), key });
        }
    }
}

impl Lane {
    fn sweep(&mut self) {
        if self.waiting.len() >= self.swept_at.max(SWEPT_AT_LEAST) {
            self.waiting.retain(|sender| !sender.is_closed());
            self.swept_at = 2 * self.waiting.len();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lanes.leave(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::auth::throttle::{PLACES_MIN, ThrottleLimits};

    /// What it is ready with, if it is.
    fn now<T>(future: &mut Pin<Box<impl Future<Output = T>>>) -> Option<T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn lanes(failures_max: u32, address_failures_max: u32) -> Arc<Lanes> {
        let limits = ThrottleLimits {
            failures_max,
            address_failures_max,
            delay_max: Duration::ZERO,
            ..ThrottleLimits::default()
        };
        Lanes::new(Arc::new(Mutex::new(Throttle::new(limits))))
    }

    /// Lets as many in at once as have a place.
    fn let_in(lanes: &Arc<Lanes>, user: impl Fn(usize) -> String) -> Vec<[Place; 2]> {
        let mut inside = Vec::new();
        while let Some(place) = now(&mut Box::pin(lanes.enter(HOME, &user(inside.len())))) {
            assert!(inside.len() < 1_000);
            inside.push(place);
        }
        inside
    }

    #[test]
    fn no_more_are_under_way_than_may_fail() {
        let lanes = lanes(10, 20);
        let of_alice = let_in(&lanes, |_| "alice".to_owned());
        assert_eq!(of_alice.len(), 10);
        assert_eq!(let_in(&lanes, |n| format!("user {n}")).len(), 10);
        drop(of_alice);
        for failures in 1..=10 {
            lanes.throttle.lock().failed(Duration::ZERO, HOME, "alice");
            let places = PLACES_MIN.max(10 - failures);
            assert_eq!(let_in(&lanes, |_| "alice".to_owned()).len(), places, "{failures}");
        }
        assert_eq!(let_in(&lanes, |n| format!("user {n}")).len(), 10);
        // Banned: nobody waits to be told.
        lanes.throttle.lock().failed(Duration::ZERO, HOME, "alice");
        let mut refused: Vec<_> = (0..15).map(|_| Box::pin(lanes.enter(HOME, "alice"))).collect();
        let inside: Vec<_> = refused.iter_mut().filter_map(now).collect();
        assert_eq!(inside.len(), 9, "as many as the address has places");
        drop((inside, refused));
        assert!(lanes.lanes.lock().is_empty());
    }

    #[test]
    fn turns_come_in_order_and_who_has_given_up_loses_no_place() {
        let lanes = lanes(1, 0);
        let mut inside = let_in(&lanes, |_| "alice".to_owned());
        assert_eq!(inside.len(), PLACES_MIN);
        let mut waiting: Vec<_> = (0..200).map(|_| Box::pin(lanes.enter(HOME, "alice"))).collect();
        waiting.iter_mut().for_each(|one| assert!(now(one).is_none()));
        // Others do not wait.
        assert!(now(&mut Box::pin(lanes.enter(HOME, "bob"))).is_some());
        // Every second one gives up, some before their turn has come and one after.
        let mut n = 0;
        waiting.retain(|_| {
            n += 1;
            n % 2 == 0
        });
        assert_eq!(waiting.len(), 100);
        inside.pop();
        drop(waiting.remove(0));
        for mut one in waiting {
            drop(now(&mut one).expect("its turn"));
        }
        drop(inside);
        assert!(lanes.lanes.lock().is_empty());
    }

    #[test]
    fn those_who_have_given_up_do_not_pile_up() {
        let lanes = lanes(1, 1);
        let _inside = let_in(&lanes, |_| "alice".to_owned());
        for _ in 0..10_000 {
            assert!(now(&mut Box::pin(lanes.enter(HOME, "alice"))).is_none());
        }
        let waiting: usize = lanes.lanes.lock().values().map(|lane| lane.waiting.len()).sum();
        assert!(waiting <= SWEPT_AT_LEAST, "{waiting}");
    }
}
