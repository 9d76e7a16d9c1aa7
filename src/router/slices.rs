//! Finding the receivers of a message in slices: what one slice may do, and where the next one goes on.
//!
//! Between two slices no lock is held and anything may change, so a [`RouteCursor`] knows no numbers of
//! nodes. It knows the way to the next node as choices, one for each level of the topic, and long lists of
//! subscribers by their filter and the last key that was taken. To go on costs as many steps as the topic
//! has levels.
//!
//! What a slice has found is a sorted *run*. Runs are merged in slices as well, at the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::vec::IntoIter;

use super::subscribers::Subscribers;
use super::{Place, Route, Router, Subscriber, head_of};

/// A list of subscribers that is not longer is always taken as a whole.
const LIST_AT_ONCE: usize = 64;
/// With each of so many bytes of the topic a node counts as one step more: they may all be looked at there.
const BYTES_PER_STEP: usize = 256;

/// How far a match has come; for one topic.
#[derive(Debug)]
pub struct RouteCursor<S> {
    place: WalkPlace,
    /// Lists that have to be finished before the walk goes on.
    long: Vec<Long>,
    is_walked: bool,
    runs: Runs<S>,
}

/// Where the walk through the filters goes on.
#[derive(Default, Debug)]
struct WalkPlace {
    phase: Phase,
    path: Vec<Choice>,
}

#[derive(Clone, Copy, Default, PartialEq, Debug)]
enum Phase {
    #[default]
    Exact,
    Shard,
    Broad,
    Lists,
}

/// Which child of a node is the next on the way, and whether its other one is still to be visited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Choice {
    Literal,
    LiteralPlusWaits,
    Plus,
}

/// A list of subscribers that did not fit into a slice.
#[derive(Debug)]
pub(super) struct Long {
    filter: String,
    /// The key that was taken last.
    after: Option<u64>,
}

/// What one call may still do, and what it has found.
pub(super) struct Slice<'a, S> {
    /// Steps; below zero if the last one was more than there were.
    left: isize,
    /// Steps that a node costs, where no more bytes are looked at than the topic has.
    node: isize,
    into: &'a mut Vec<Route<S>>,
    /// Lists in `into`: one alone needs no merging.
    lists: usize,
    long: &'a mut Vec<Long>,
}

impl<'a, S: Subscriber> Slice<'a, S> {
    pub(super) fn new(
        topic: &str,
        steps: usize,
        into: &'a mut Vec<Route<S>>,
        long: &'a mut Vec<Long>,
    ) -> Self {
        let left = isize::try_from(steps).unwrap_or(isize::MAX).max(1);
        Self { left, node: (1 + topic.len() / BYTES_PER_STEP) as isize, into, lists: 0, long }
    }

    /// Counts a node; `true` if it was the last for this time.
    #[inline]
    pub(super) fn spend(&mut self) -> bool {
        // Nothing is looked at behind the end, so it never goes far below zero; to ask costs more.
        self.left = self.left.wrapping_sub(self.node);
        self.is_over()
    }

    pub(super) fn is_over(&self) -> bool {
        self.left <= 0
    }

    /// Takes the subscribers of a filter that matches, or notes the filter if they are too many.
    #[inline]
    pub(super) fn take(&mut self, subscribers: &Subscribers<S>, filter: impl FnOnce() -> String) {
        match subscribers {
            Subscribers::One(one) => self.into.push(one.clone()),
            Subscribers::Many(_) if self.is_too_long(subscribers.len()) => {
                self.long.push(Long { filter: filter(), after: None });
                return;
            }
            Subscribers::Many(_) => subscribers.append_to(self.into),
        }
        self.lists += 1;
    }

    /// Spends what a list costs, or all that is left.
    #[inline(never)]
    fn is_too_long(&mut self, len: usize) -> bool {
        let is_too_long = len > LIST_AT_ONCE && len > self.left();
        self.left = if is_too_long { 0 } else { self.left.saturating_sub_unsigned(len) };
        is_too_long
    }

    fn left(&self) -> usize {
        usize::try_from(self.left).unwrap_or(0)
    }

    /// Takes more of a long list; `true` if that was the rest.
    fn take_after(&mut self, subscribers: Option<&Subscribers<S>>, after: &mut Option<u64>) -> bool {
        let Some(subscribers) = subscribers else { return true };
        let (before, wanted) = (self.into.len(), self.left().max(1));
        subscribers.append_after(*after, wanted, self.into);
        let taken = self.into.len() - before;
        self.left = self.left.saturating_sub_unsigned(taken);
        self.lists += 1;
        *after = self.into.last().map(|route| route.subscriber.key());
        taken < wanted
    }
}

impl<S: Subscriber> Router<S> {
    /// Appends the receivers of a message with this topic name, in the order of the keys: each session once,
    /// or, where it has matching subscriptions with No Local or an identifier, each of its subscriptions
    /// once, one behind the other.
    ///
    /// A filter that begins with a wildcard does not match a topic that begins with `$` (section 4.7.2).
    pub fn route(&self, topic: &str, into: &mut Vec<Route<S>>) {
        let start = into.len();
        let mut long = Vec::new();
        let mut slice = Slice::new(topic, usize::MAX, into, &mut long);
        let path = &mut Vec::new();
        self.take_exact(topic, &mut slice);
        self.match_shard(topic, path, &mut slice);
        self.match_broad(topic, path, &mut slice);
        if slice.lists > 1 {
            merge(into, start);
        }
    }

    /// The same in slices of about so many steps: a step is a node visited or a receiver found,
    /// from some tens of nanoseconds to half a microsecond; `steps` is what is left of them
    /// afterwards. `true` when `into` has all of them; until then call it again with the same
    /// topic. What is appended before the end is final, and the caller may take it out.
    ///
    /// Subscriptions may come and go between the calls. One that is there all the time is found once, as
    /// `route` finds it; another one is found once or not at all.
    pub fn route_from(
        &self,
        topic: &str,
        cursor: &mut RouteCursor<S>,
        steps: &mut usize,
        into: &mut Vec<Route<S>>,
    ) -> bool {
        let allowed = (*steps).max(1);
        if cursor.is_walked && cursor.runs.is_over() {
            return true;
        }
        if cursor.is_walked {
            *steps = 0;
            return cursor.runs.merge_into(allowed, into);
        }
        let start = into.len();
        let mut slice = Slice::new(topic, allowed, into, &mut cursor.long);
        let is_whole = self.walk(topic, &mut cursor.place, &mut slice);
        *steps = slice.left();
        if slice.lists > 1 {
            merge(into, start);
        }
        cursor.is_walked = is_whole;
        if is_whole && cursor.runs.is_empty() {
            return true;
        }
        cursor.runs.add(into.split_off(start), allowed);
        false
    }

    /// `true` if it has come to the end.
    #[inline]
    fn walk(&self, topic: &str, place: &mut WalkPlace, slice: &mut Slice<'_, S>) -> bool {
        while !slice.is_over()
            && let Some(mut long) = slice.long.pop()
        {
            let Long { filter, after } = &mut long;
            if !self.look_up(filter, |subscribers| slice.take_after(subscribers, after)) {
                slice.long.push(long);
            }
        }
        if place.phase == Phase::Exact && !slice.is_over() {
            slice.spend();
            self.take_exact(topic, slice);
            place.phase = Phase::Shard;
        }
        if place.phase == Phase::Shard && !slice.is_over() && self.match_shard(topic, &mut place.path, slice)
        {
            place.phase = Phase::Broad;
        }
        if place.phase == Phase::Broad && !slice.is_over() && self.match_broad(topic, &mut place.path, slice)
        {
            place.phase = Phase::Lists;
        }
        place.phase == Phase::Lists && slice.long.is_empty()
    }

    #[inline]
    fn take_exact(&self, topic: &str, slice: &mut Slice<'_, S>) {
        let hash = self.hash(topic);
        if let Some(subscribers) = self.exact_shard(hash).read().get(hash, topic) {
            slice.take(subscribers, || topic.to_owned());
        }
    }

    #[inline]
    fn match_shard(&self, topic: &str, path: &mut Vec<Choice>, slice: &mut Slice<'_, S>) -> bool {
        // A filter of the shards has two literal levels, so a topic of one level has nothing there.
        !topic.contains('/') || self.shard(self.hash(head_of(topic))).read().matches(topic, true, path, slice)
    }

    #[inline]
    fn match_broad(&self, topic: &str, path: &mut Vec<Choice>, slice: &mut Slice<'_, S>) -> bool {
        self.broad.read().matches(topic, !topic.starts_with('$'), path, slice)
    }

    /// Hands over the subscribers of this very filter, under the lock they are kept under.
    fn look_up<R>(&self, filter: &str, take: impl FnOnce(Option<&Subscribers<S>>) -> R) -> R {
        match self.place(filter) {
            Place::Exact { hash, .. } => take(self.exact_shard(hash).read().get(hash, filter)),
            Place::Shard { trie, .. } => take(trie.read().get(filter)),
            Place::Broad => take(self.broad.read().get(filter)),
        }
    }
}

impl<S: Subscriber> RouteCursor<S> {
    /// Routes that it has found and that are not in order yet.
    pub(super) fn found(&self) -> usize {
        self.runs.len()
    }
}

impl<S> Default for RouteCursor<S> {
    fn default() -> Self {
        Self { place: WalkPlace::default(), long: Vec::new(), is_walked: false, runs: Runs::default() }
    }
}

/// What slices have found, each in the order of the keys.
#[derive(Debug)]
struct Runs<S> {
    found: Vec<Vec<Route<S>>>,
    /// The same once it is being merged.
    merging: Option<Merging<S>>,
}

#[derive(Debug)]
struct Merging<S> {
    runs: Vec<IntoIter<Route<S>>>,
    /// The first key of each run that has one, and its number: of equal keys the earlier run comes first.
    next: BinaryHeap<Reverse<(u64, usize)>>,
    /// The route that later ones may have to be merged with.
    last: Vec<Route<S>>,
}

impl<S> Default for Runs<S> {
    fn default() -> Self {
        Self { found: Vec::new(), merging: None }
    }
}

impl<S: Subscriber> Runs<S> {
    fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Whether all of them are merged.
    fn is_over(&self) -> bool {
        self.found.is_empty() && self.merging.as_ref().is_none_or(|merging| merging.next.is_empty())
    }

    /// Routes in them.
    fn len(&self) -> usize {
        let merging = self.merging.iter().flat_map(|merging| &merging.runs);
        self.found.iter().map(Vec::len).sum::<usize>() + merging.map(IntoIter::len).sum::<usize>()
    }

    /// Adds a run. Small ones are put together, so that there are few, and of many filters of one session
    /// one route is left; that is work for one slice of so many steps.
    fn add(&mut self, run: Vec<Route<S>>, steps: usize) {
        let Some(first) = run.first() else { return };
        if let Some(last) = self.found.last_mut() {
            let is_behind = last.last().is_none_or(|route| route.subscriber.key() <= first.subscriber.key());
            if is_behind || last.len() + run.len() <= steps.max(LIST_AT_ONCE) {
                if is_behind {
                    run.into_iter().for_each(|route| push_merged(last, 0, route));
                } else {
                    last.extend(run);
                    merge(last, 0);
                }
                return;
            }
        }
        self.found.push(run);
    }

    /// Appends the next of all routes in the order of their keys; `true` if these were the last.
    fn merge_into(&mut self, steps: usize, into: &mut Vec<Route<S>>) -> bool {
        if self.merging.is_none() && self.found.len() < 2 {
            // In order already, and only to be moved.
            self.found.pop().into_iter().for_each(|mut run| into.append(&mut run));
            return true;
        }
        let merging = self.merging.get_or_insert_with(|| Merging::new(std::mem::take(&mut self.found)));
        merging.merge_into(steps, into)
    }
}

impl<S: Subscriber> Merging<S> {
    fn new(found: Vec<Vec<Route<S>>>) -> Self {
        let runs: Vec<IntoIter<Route<S>>> = found.into_iter().map(Vec::into_iter).collect();
        let next = runs.iter().enumerate().filter_map(|(number, run)| first_of(run, number)).collect();
        Self { runs, next, last: Vec::with_capacity(2) }
    }

    fn merge_into(&mut self, steps: usize, into: &mut Vec<Route<S>>) -> bool {
        for _ in 0..steps.max(1) {
            let Some(Reverse((_, number))) = self.next.pop() else { break };
            let Some(run) = self.runs.get_mut(number) else { break };
            if let Some(route) = run.next() {
                push_merged(&mut self.last, 0, route);
                // What cannot change any more.
                into.extend(self.last.drain(..self.last.len() - 1));
            }
            self.next.extend(first_of(run, number));
        }
        if self.next.is_empty() {
            into.append(&mut self.last);
        }
        self.next.is_empty()
    }
}

fn first_of<S: Subscriber>(run: &IntoIter<Route<S>>, number: usize) -> Option<Reverse<(u64, usize)>> {
    run.as_slice().first().map(|route| Reverse((route.subscriber.key(), number)))
}

/// Makes the routes from `start` on unique by session, keeping the highest QoS of each. Where a session has a
/// subscription that stands alone, all its routes stay, one behind the other.
fn merge<S: Subscriber>(routes: &mut Vec<Route<S>>, start: usize) {
    let mut tail = routes.split_off(start);
    // Each list that was appended is sorted: the stable sort finds these runs and only merges them.
    tail.sort_by_key(|route| route.subscriber.key());
    tail.into_iter().for_each(|route| push_merged(routes, start, route));
}

/// Adds a route behind those with lower keys or the same, or lets the last of them tell its QoS.
fn push_merged<S: Subscriber>(routes: &mut Vec<Route<S>>, start: usize, route: Route<S>) {
    match routes[start..].last_mut() {
        Some(last)
            if last.subscriber.key() == route.subscriber.key()
                && !last.options.stands_alone()
                && !route.options.stands_alone() =>
        {
            if route.options.qos as u8 > last.options.qos as u8 {
                last.options = route.options;
            }
        }
        _ => routes.push(route),
    }
}

#[cfg(test)]
mod tests;
