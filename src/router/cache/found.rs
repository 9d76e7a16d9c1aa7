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
    /// Another slice; `true` if all receivers have been found. `router` and `topic` are those asked for.
    pub fn go_on(&mut self, router: &Router<S>, topic: &str, steps: usize) -> bool {
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

    /// The next ones, at most so many; none at the end. Those given before are let go of, if nobody else
    /// keeps them: so the end of a large list is no long work.
    pub fn next(&mut self, count: usize) -> &[Route<S>] {
        match &mut self.list {
            List::Kept(routes, given) => {
                let from = *given;
                *given = routes.len().min(from.saturating_add(count));
                routes.get(from..*given).unwrap_or_default()
            }
            List::Own(routes, given) => {
                routes.drain(..*given);
                *given = routes.len().min(count);
                // Nothing is ever added behind, so they lie in one piece.
                routes.as_slices().0.get(..*given).unwrap_or_default()
            }
        }
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
