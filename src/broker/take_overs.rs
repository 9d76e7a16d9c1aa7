//! Take-overs in quick succession: two devices with one client id put each other out for ever, and neither tells anybody.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;

use super::client::Link;
use super::{Cause, ClientState, Core};
use crate::escape::escape;
use crate::protocol::{ReasonCode, encode};
use crate::session::Timestamp;

/// More take-overs of one client id than this ...
const QUICK: usize = 5;
/// ... within this time are told, ...
const WITHIN: Duration = Duration::from_secs(10);
/// ... so often at most for one client id.
const AGAIN_AFTER: Duration = Duration::from_secs(60);
/// Client ids that are watched. Beyond that the one that was taken over longest ago is not any more.
const WATCHED_MAX: usize = 1_024;

/// Client ids that were taken over lately.
#[derive(Default)]
pub(super) struct TakeOvers(Mutex<HashMap<Arc<str>, Watched, RandomState>>);

#[derive(Default)]
struct Watched {
    /// The last ones, `QUICK` at most.
    recent: VecDeque<Timestamp>,
    told: Option<Timestamp>,
    /// Since it was told last.
    count: u64,
}

/// What a take-over is, after those before it.
#[derive(Debug, PartialEq, Eq)]
enum Noted {
    /// Nothing unusual.
    Single,
    /// One of many, which was told already.
    Quick,
    /// One of many: to be told, with how many there were since that was told last.
    Tell(u64),
}

impl Core {
    /// A connection was closed because another one came with its client id.
    pub(super) fn note_take_over(&self, client_id: &Arc<str>, old_peer: SocketAddr, new_peer: SocketAddr) {
        tracing::info!(
            client_id = %escape(client_id),
            %old_peer,
            %new_peer,
            "client id in use: the older connection is closed"
        );
        let noted = self.take_overs.note(client_id, self.now());
        if noted != Noted::Single {
            self.metrics.quick_take_overs.add(1);
        }
        if let Noted::Tell(count) = noted {
            tracing::warn!(
                client_id = %escape(client_id),
                %old_peer,
                %new_peer,
                count,
                "this client id is taken over again and again: do two devices have it? Told once a minute at most"
            );
        }
    }
}

impl TakeOvers {
    fn note(&self, client_id: &Arc<str>, now: Timestamp) -> Noted {
        let mut all = self.0.lock();
        if all.len() >= WATCHED_MAX && !all.contains_key(client_id) {
            make_room(&mut all, now);
        }
        let watched = all.entry(Arc::clone(client_id)).or_default();
        let is_quick = watched.recent.len() >= QUICK
            && watched.recent.front().is_some_and(|first| now.since(*first) <= WITHIN);
        if watched.recent.len() >= QUICK {
            watched.recent.pop_front();
        }
        watched.recent.push_back(now);
        if !is_quick {
            watched.count = watched.recent.len() as u64;
            return Noted::Single;
        }
        watched.count += 1;
        if watched.told.is_some_and(|told| now.since(told) < AGAIN_AFTER) {
            return Noted::Quick;
        }
        watched.told = Some(now);
        Noted::Tell(std::mem::take(&mut watched.count))
    }
}

fn make_room(all: &mut HashMap<Arc<str>, Watched, RandomState>, now: Timestamp) {
    let last = |watched: &Watched| watched.recent.back().copied().unwrap_or_default();
    all.retain(|_, watched| now.since(last(watched)) <= AGAIN_AFTER);
    if all.len() >= WATCHED_MAX {
        // All at once, so that a flood of ids does not search for the oldest each time.
        let mut times: Vec<Timestamp> = all.values().map(last).collect();
        let median = *times.select_nth_unstable(WATCHED_MAX / 2).1;
        all.retain(|_, watched| last(watched) > median);
    }
}

/// Tells the older client why it is closed (MQTT 5 [MQTT-3.1.4-3]), if its socket can be written
/// here. A TLS socket, and one that somebody is writing to at this moment, are left to the
/// connection's own task.
pub(super) fn say_taken_over(link: &Link, state: &ClientState) {
    if link.gate.is_blocked() {
        // In the midst of a packet: nothing more can be said.
        link.handle.set_told();
    } else if let Some(socket) = &link.socket
        && state.session.terms().says_goodbye
        && !link.gate.is_writing()
    {
        let mut disconnect = Vec::new();
        let max = u32::try_from(state.session.terms().packet_bytes_max).ok();
        if encode::disconnect(
            &mut disconnect,
            ReasonCode::SessionTakenOver,
            Some(&Cause::TakenOver.to_string()),
            max,
        ) {
            let _ = socket.try_write(&disconnect);
        }
        link.handle.set_told();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn the_sixth_within_ten_seconds_is_told_and_then_once_a_minute() {
        let take_overs = TakeOvers::default();
        let id: Arc<str> = Arc::from("twin");
        for n in 0..5 {
            assert_eq!(take_overs.note(&id, at(n * 2_000)), Noted::Single);
        }
        assert_eq!(take_overs.note(&id, at(10_000)), Noted::Tell(6));
        assert_eq!(take_overs.note(&Arc::from("another"), at(10_000)), Noted::Single);
        for n in 1..60 {
            assert_eq!(take_overs.note(&id, at(10_000 + n * 1_000)), Noted::Quick);
        }
        assert_eq!(take_overs.note(&id, at(70_000)), Noted::Tell(60));
    }

    #[test]
    fn a_client_that_comes_back_now_and_then_is_not_told() {
        let take_overs = TakeOvers::default();
        let id: Arc<str> = Arc::from("restless");
        for n in 0..100 {
            assert_eq!(take_overs.note(&id, at(n * 2_001)), Noted::Single);
        }
    }

    #[test]
    fn what_is_watched_is_bounded() {
        let take_overs = TakeOvers::default();
        for n in 0..100_000_u64 {
            take_overs.note(&Arc::from(n.to_string()), at(n / 100));
            assert!(take_overs.0.lock().len() <= WATCHED_MAX);
        }
    }
}
