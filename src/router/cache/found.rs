//! What a cache gives: routes to look at, a list to go through in slices, or a match that has only begun.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::router::{Generation, Route, RouteCursor, Router, Subscriber};

/// An answer within a budget.
#[derive(Debug)]
pub enum Lookup<'a, S, V> {
    /// Kept, or found within the budget.
    Found(Routes<'a, S>, V),
    /// It takes longer.
    Begun(Box<RouteMatch<S>>),
}

/// The routes of a topic, as long as the cache is not asked for another one.
pub enum Routes<'a, S> {
    /// The cache keeps them.
    Kept(&'a Arc<[Route<S>]>),
    /// They are there for this time only.
    Own(&'a [Route<S>]),
}

impl<S> Clone for Routes<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Routes<'_, S> {}

/// A match that goes on in slices, and what it has found.
#[derive(Debug)]
pub struct RouteMatch<S> {
    /// The receivers so far: for whoever judges them, when all are there.
    pub routes: Vec<Route<S>>,
    pub(super) cursor: RouteCursor<S>,
    /// From before the match, and which counter that is.
    pub(super) generation: Generation,
    pub(super) counter: u16,
}

/// The routes of a topic for somebody who goes through them bit by bit, while the cache may do anything.
pub struct RouteList<S> {
    list: List<S>,
}

enum List<S> {
    /// And how many have been given.
    Kept(Arc<[Route<S>]>, usize),
    /// And how many of the first have been given, and can be let go of.
    Own(VecDeque<Route<S>>, usize),
}

impl<S: Subscriber> RouteMatch<S> {
    /// A match at its beginning, for whoever has no cache.
    pub fn begin(router: &Router<S>, topic: &str) -> Self {
        let counter = router.generation_index(topic);
        let generation = router.generation_of(counter);
        Self { routes: Vec::new(), cursor: RouteCursor::default(), generation, counter }
    }

    /// How many there are so far, also those that are not in order yet.
    pub fn found(&self) -> usize {
        self.routes.len() + self.cursor.found()
    }

    /// Another slice; `true` if all receivers have been found. `router` and `topic` are those asked for.
    pub fn go_on(&mut self, router: &Router<S>, topic: &str, steps: &mut usize) -> bool {
        router.route_from(topic, &mut self.cursor, steps, &mut self.routes)
    }
}

impl<'a, S> Routes<'a, S> {
    /// All of them.
    pub fn as_slice(&self) -> &'a [Route<S>] {
        match self {
            Self::Kept(routes) => routes,
            Self::Own(routes) => routes,
        }
    }
}

impl<S: Clone> Routes<'_, S> {
    /// The same as a list, for which nothing is copied if the cache keeps them.
    pub fn to_list(&self) -> RouteList<S> {
        match self {
            Self::Kept(routes) => RouteList { list: List::Kept(Arc::clone(routes), 0) },
            Self::Own(routes) => RouteList::of_own(routes.to_vec()),
        }
    }
}

impl<S> RouteList<S> {
    pub(super) fn of_own(routes: Vec<Route<S>>) -> Self {
        Self { list: List::Own(routes.into(), 0) }
    }

    /// How many have not been given yet.
    pub fn left(&self) -> usize {
        match &self.list {
            List::Kept(routes, given) => routes.len() - given,
            List::Own(routes, given) => routes.len() - given,
        }
    }
}

impl<S> RouteList<S> {
    /// For how many it has room of its own: it keeps that until it is dropped.
    pub fn own(&self) -> usize {
        match &self.list {
            List::Kept(..) => 0,
            List::Own(routes, _) => routes.capacity(),
        }
    }
}

impl<S: Subscriber> RouteList<S> {
    /// The next ones, about so many, but never a part of one session's; none at the end. Those given before
    /// are let go of, if nobody else keeps them: so the end of a large list is no long work.
    pub fn next(&mut self, count: usize) -> &[Route<S>] {
        match &mut self.list {
            List::Kept(routes, given) => {
                let from = *given;
                let rest = routes.get(from..).unwrap_or_default();
                *given = from + whole(rest, count);
                routes.get(from..*given).unwrap_or_default()
            }
            List::Own(routes, given) => {
                routes.drain(..*given);
                // Nothing is ever added behind, so they lie in one piece.
                *given = whole(routes.as_slices().0, count);
                routes.as_slices().0.get(..*given).unwrap_or_default()
            }
        }
    }

    /// The last so many of those given last are to be given again.
    pub fn give_back(&mut self, count: usize) {
        let (List::Kept(_, given) | List::Own(_, given)) = &mut self.list;
        *given = given.saturating_sub(count);
    }
}

/// So many of the routes, and the others of the last one's session.
fn whole<S: Subscriber>(routes: &[Route<S>], count: usize) -> usize {
    let mut end = routes.len().min(count.max(1));
    while let (Some(last), Some(next)) = (routes.get(end.wrapping_sub(1)), routes.get(end))
        && last.subscriber.key() == next.subscriber.key()
    {
        end += 1;
    }
    end
}

impl<S> From<Vec<Route<S>>> for RouteList<S> {
    fn from(routes: Vec<Route<S>>) -> Self {
        Self::of_own(routes)
    }
}

impl<S> fmt::Debug for Routes<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("len", &self.as_slice().len()).finish()
    }
}

impl<S> fmt::Debug for RouteList<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteList").field("left", &self.left()).finish()
    }
}
