//! The filters that match a topic, in slices.

use super::node::{Child, Link, rest_matches};
use super::{ROOT, Tail, Trie};
use crate::router::Subscriber;
use crate::router::slices::{Choice, Slice};

/// Nodes to return to, with what of the topic follows them: at most one waits per level.
type Waiting<'t> = Vec<(u32, &'t [u8])>;

impl<S: Subscriber> Trie<S> {
    /// Has `slice` take the subscribers of each filter that matches the topic; `true` if these were all.
    ///
    /// Otherwise `path` leads to the node that is to be visited next; at the beginning and at the end it is
    /// empty. `wildcard_first` says whether filters that begin with a wildcard count. The topic has as many
    /// levels as the head, or more.
    pub(in crate::router) fn matches(
        &self,
        topic: &str,
        wildcard_first: bool,
        path: &mut Vec<Choice>,
        slice: &mut Slice<'_, S>,
    ) -> bool {
        // A node is reached from its parent alone, so none is visited twice. Most topics never need this to
        // allocate.
        let mut waiting: Waiting<'_> = Vec::new();
        let (mut at, mut text) = (ROOT, topic.as_bytes());
        if !path.is_empty() {
            // It is used up, wherever it leads: the next trie begins at its root.
            match self.descend(&std::mem::take(path), topic, &mut waiting) {
                Some(reached) => (at, text) = reached,
                None => return true,
            }
        }
        loop {
            let node = self.node(at);
            let wildcards = at != ROOT || wildcard_first;
            if wildcards {
                self.take(node.subtree_filter, slice);
            }
            let (level, rest) = self.split(at, text);
            let literal = if node.literals > 0 { self.literal(at, level) } else { None };
            let plus = if wildcards && node.plus != Link::NONE { Some(node.plus) } else { None };
            let mut next = None;
            for child in [plus, literal].into_iter().flatten() {
                match child.child() {
                    Child::Tail(number) => {
                        let filter = self.texts.get(self.tail(number).rest);
                        let (_, below) = self.split(at, filter);
                        if rest_matches(below, rest) {
                            self.take(number, slice);
                        }
                    }
                    Child::Node(child) => match rest {
                        Some(rest) => waiting.extend(next.replace((child, rest))),
                        None => {
                            let child = self.node(child);
                            // "sport/#" matches "sport" too (section 4.7.1.2).
                            self.take(child.filter, slice);
                            self.take(child.subtree_filter, slice);
                        }
                    },
                }
            }
            let Some(following) = next.or_else(|| waiting.pop()) else { break };
            (at, text) = following;
            if slice.spend() {
                *path = self.path_to(at, waiting);
                return false;
            }
        }
        true
    }

    #[inline]
    fn take(&self, number: u32, slice: &mut Slice<'_, S>) {
        // No tail has the number NONE.
        if let Some(tail) = self.tails.get(number as usize) {
            self.take_tail(tail, number, slice);
        }
    }

    /// Not part of the loop, which has enough to keep at hand.
    #[inline(never)]
    fn take_tail(&self, tail: &Tail<S>, number: u32, slice: &mut Slice<'_, S>) {
        slice.take(&tail.subscribers, || self.filter_of(number));
    }

    /// The choices that lead to a node, and where a sibling waits on the way.
    #[cold]
    fn path_to(&self, node: u32, mut waiting: Waiting<'_>) -> Vec<Choice> {
        let mut path = Vec::new();
        let mut at = node;
        while at != ROOT {
            let parent = self.node(at).parent;
            let plus_waits = waiting.pop_if(|(sibling, _)| self.node(*sibling).parent == parent);
            path.push(match plus_waits {
                Some(_) => Choice::LiteralPlusWaits,
                None if self.texts.get(self.node(at).level) == b"+" => Choice::Plus,
                None => Choice::Literal,
            });
            at = parent;
        }
        path.reverse();
        path
    }

    /// Goes the way that the path tells, as far as it is still there; then to the next node that waits.
    ///
    /// What is there all the time keeps its nodes, so where a node is gone, or a tail has come in its place,
    /// nothing is missed. What was a tail when its parent was visited and has become a node since does not
    /// wait, so nothing is found twice.
    #[cold]
    fn descend<'t>(
        &self,
        path: &[Choice],
        topic: &'t str,
        waiting: &mut Waiting<'t>,
    ) -> Option<(u32, &'t [u8])> {
        let (mut at, mut text) = (ROOT, topic.as_bytes());
        for choice in path {
            let (level, rest) = self.split(at, text);
            let Some(rest) = rest else { return waiting.pop() };
            let plus = Some(self.node(at).plus).filter(|plus| *plus != Link::NONE);
            if *choice == Choice::LiteralPlusWaits
                && let Some(Child::Node(plus)) = plus.map(Link::child)
            {
                waiting.push((plus, rest));
            }
            let next = if *choice == Choice::Plus { plus } else { self.literal(at, level) };
            match next.map(Link::child) {
                Some(Child::Node(node)) => (at, text) = (node, rest),
                _ => return waiting.pop(),
            }
        }
        Some((at, text))
    }

    /// The text of a filter.
    #[cold]
    fn filter_of(&self, number: u32) -> String {
        let tail = self.tail(number);
        let mut levels = Vec::new();
        let mut at = tail.parent;
        let parent = self.node(at);
        if parent.subtree_filter == number {
            levels.push(b"#".as_slice());
        } else if parent.filter != number {
            levels.push(self.texts.get(tail.rest));
        }
        while at != ROOT {
            levels.push(self.texts.get(self.node(at).level));
            at = self.node(at).parent;
        }
        levels.reverse();
        // Pieces of filters, which are text.
        String::from_utf8(levels.join(&b'/')).unwrap_or_default()
    }
}
