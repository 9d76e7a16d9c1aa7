//! A trie of wildcard filters in arenas.
//!
//! A *node* is a level, or a head of several, that more than one filter begins with. What only one filter has below a node is kept in one piece,
//! a *tail*, with the
//! filter's subscribers; when a second filter comes that shares its first level, that level becomes a node. So a filter mostly costs one
//! tail: 32 bytes and its text. The literal children of all nodes are one hash table of edges, which are links with half a hash of (parent, level),
//! compared with what the node or tail itself says; a child that begins with `+` is a field of its parent, and so are the filters that end
//! at a node, or in `#` after it: tails without text.
//! Tails stand without gaps; nodes that nothing needs any more are freed at once, up the chain.
//! Insertion, removal and matching are loops; the deepest filter costs heap, never stack.

mod matching;
mod node;

use ahash::RandomState;
use hashbrown::HashTable;

use self::node::{Child, Edge, End, Link, NONE, Node, edge_hash};
use super::arena::Arena;
use super::spread;
use super::subscribers::{Removal, Subscribers};
use super::texts::{Text, Texts};
use super::{Route, Subscriber};

const ROOT: u32 = 0;
/// Below this an emptied arena is kept for the next filter.
const ARENA_KEPT: usize = 16;

/// Wildcard filters and their subscribers.
pub(super) struct Trie<S> {
    state: RandomState,
    /// How many levels of a filter its first edge takes.
    head_levels: usize,
    /// The root is always there; freed nodes are chained through `parent`.
    nodes: Arena<Node>,
    tails: Arena<Tail<S>>,
    edges: HashTable<Edge>,
    texts: Texts,
    free: u32,
    free_len: usize,
}

/// What one filter has below its parent.
struct Tail<S> {
    rest: Text,
    parent: u32,
    subscribers: Subscribers<S>,
}

impl<S: Subscriber> Trie<S> {
    pub(super) fn new(state: RandomState, head_levels: usize) -> Self {
        let mut nodes = Arena::default();
        nodes.push(Node::new(NONE, Text::EMPTY));
        Self {
            state,
            head_levels,
            nodes,
            tails: Arena::default(),
            edges: HashTable::new(),
            texts: Texts::default(),
            free: NONE,
            free_len: 0,
        }
    }

    /// Nodes and tails in use, without the root.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() - 1 - self.free_len + self.tails.len()
    }

    /// Adds a subscriber to the filter; returns what it replaces.
    pub(super) fn insert(&mut self, filter: &str, route: Route<S>) -> Option<Route<S>> {
        let (mut at, mut text) = (ROOT, filter.as_bytes());
        loop {
            if text == b"#" {
                return self.insert_end(at, End::Subtree, route);
            }
            let (level, rest) = self.split(at, text);
            match self.child(at, level).map(Link::child) {
                None => {
                    let rest = self.texts.add(text);
                    let tail = self.push_tail(at, rest, Subscribers::One(route));
                    self.attach(at, Link::tail(tail));
                    return None;
                }
                Some(Child::Tail(tail)) => {
                    let rest = self.tail(tail).rest;
                    if self.texts.get(rest) == text {
                        return self.tail_mut(tail).subscribers.insert(route);
                    }
                    // The next turn finds a node instead.
                    self.expand(tail, level.len());
                }
                Some(Child::Node(node)) => match rest {
                    None => return self.insert_end(node, End::Here, route),
                    Some(rest) => (at, text) = (node, rest),
                },
            }
        }
    }

    /// Removes the subscriber `key` from the filter, and the nodes only this filter needed.
    pub(super) fn remove(&mut self, filter: &str, key: u64) -> Option<Route<S>> {
        let tail = self.find(filter)?;
        // No tail has the number NONE.
        match self.tails.get_mut(tail as usize)?.subscribers.remove(key) {
            Removal::Absent => None,
            Removal::Removed(route) => Some(route),
            Removal::Last => {
                let removed = self.remove_tail(tail)?;
                self.prune(removed.parent);
                self.tidy();
                removed.subscribers.into_only()
            }
        }
    }

    /// The subscribers of this very filter.
    pub(super) fn get(&self, filter: &str) -> Option<&Subscribers<S>> {
        self.tails.get(self.find(filter)? as usize).map(|tail| &tail.subscribers)
    }

    /// The filter's tail, or perhaps NONE.
    fn find(&self, filter: &str) -> Option<u32> {
        let (mut at, mut text) = (ROOT, filter.as_bytes());
        loop {
            if text == b"#" {
                return Some(self.node(at).subtree_filter);
            }
            let (level, rest) = self.split(at, text);
            match self.child(at, level)?.child() {
                Child::Tail(tail) if self.texts.get(self.tail(tail).rest) == text => return Some(tail),
                Child::Tail(_) => return None,
                Child::Node(node) => match rest {
                    None => return Some(self.node(node).filter),
                    Some(rest) => (at, text) = (node, rest),
                },
            }
        }
    }

    /// The first level of a text below this node, and what follows its `/` if there is one.
    fn split<'t>(&self, at: u32, text: &'t [u8]) -> (&'t [u8], Option<&'t [u8]>) {
        let levels = if at == ROOT { self.head_levels } else { 1 };
        let mut slashes = text.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        match slashes.nth(levels - 1) {
            Some((slash, _)) => (&text[..slash], Some(&text[slash + 1..])),
            None => (text, None),
        }
    }

    fn node(&self, at: u32) -> &Node {
        // Numbers come from this arena alone.
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn tail(&self, at: u32) -> &Tail<S> {
        // As above.
        &self.tails[at as usize]
    }

    fn tail_mut(&mut self, at: u32) -> &mut Tail<S> {
        &mut self.tails[at as usize]
    }

    fn child(&self, at: u32, level: &[u8]) -> Option<Link> {
        if level == b"+" {
            return Some(self.node(at).plus).filter(|plus| *plus != Link::NONE);
        }
        self.literal(at, level)
    }

    fn literal(&self, parent: u32, level: &[u8]) -> Option<Link> {
        let hash = edge_hash(&self.state, parent, level);
        let is_it = |edge: &Edge| {
            edge.hash == hash && {
                let (of, text) = self.edge_text(edge.link);
                of == parent && text.strip_prefix(level).is_some_and(|after| matches!(after, [] | [b'/', ..]))
            }
        };
        self.edges.find(spread(hash), is_it).map(|edge| edge.link)
    }

    /// Whose child it is, and the text that begins with its level.
    fn edge_text(&self, link: Link) -> (u32, &[u8]) {
        let (parent, text) = match link.child() {
            Child::Node(at) => (self.node(at).parent, self.node(at).level),
            Child::Tail(at) => (self.tail(at).parent, self.tail(at).rest),
        };
        (parent, self.texts.get(text))
    }

    fn edge(&self, link: Link) -> Edge {
        let (parent, text) = self.edge_text(link);
        Edge { hash: edge_hash(&self.state, parent, self.split(parent, text).0), link }
    }

    /// Enters a child whose level `at` does not have yet.
    fn attach(&mut self, at: u32, link: Link) {
        let (_, text) = self.edge_text(link);
        if self.split(at, text).0 == b"+" {
            self.node_mut(at).plus = link;
            return;
        }
        let edge = self.edge(link);
        self.edges.insert_unique(spread(edge.hash), edge, |edge| spread(edge.hash));
        self.node_mut(at).literals += 1;
    }

    /// Takes a child out of its parent, in place of which `other` comes if there is one: it has the same level.
    fn detach(&mut self, link: Link, other: Option<Link>) {
        let (at, _) = self.edge_text(link);
        if self.node(at).plus == link {
            self.node_mut(at).plus = other.unwrap_or(Link::NONE);
            return;
        }
        let hash = self.edge(link).hash;
        let Ok(mut edge) = self.edges.find_entry(spread(hash), |edge| edge.link == link) else { return };
        match other {
            Some(other) => edge.get_mut().link = other,
            None => {
                edge.remove();
                self.node_mut(at).literals -= 1;
            }
        }
    }

    fn push_tail(&mut self, parent: u32, rest: Text, subscribers: Subscribers<S>) -> u32 {
        // The number stays below half of NONE: that many tails would be 64 GiB.
        let tail = self.tails.len() as u32;
        self.tails.push(Tail { rest, parent, subscribers });
        tail
    }

    /// Makes a node of the first level of a tail, `len` bytes long.
    fn expand(&mut self, tail: u32, len: usize) {
        let Tail { rest, parent, .. } = *self.tail(tail);
        let node = self.allocate(Node::new(parent, rest.first(len)));
        self.detach(Link::tail(tail), Some(Link(node)));
        let below = rest.after(len + 1);
        let text = self.texts.get(rest);
        let ends_here = text.len() == len;
        let is_subtree = !ends_here && self.texts.get(below) == b"#";
        // The slash, and what is now said by a field.
        self.texts.free(usize::from(!ends_here) + usize::from(is_subtree));
        let tail_now = self.tail_mut(tail);
        tail_now.parent = node;
        tail_now.rest = if ends_here || is_subtree { Text::EMPTY } else { below };
        if ends_here {
            self.node_mut(node).filter = tail;
        } else if is_subtree {
            self.node_mut(node).subtree_filter = tail;
        } else {
            self.attach(node, Link::tail(tail));
        }
    }

    fn insert_end(&mut self, at: u32, end: End, route: Route<S>) -> Option<Route<S>> {
        let tail = *self.node_mut(at).end(end);
        if let Some(tail) = self.tails.get_mut(tail as usize) {
            return tail.subscribers.insert(route);
        }
        *self.node_mut(at).end(end) = self.push_tail(at, Text::EMPTY, Subscribers::One(route));
        None
    }

    /// Takes a tail out. The last one comes into its place.
    fn remove_tail(&mut self, tail: u32) -> Option<Tail<S>> {
        self.relink(tail, NONE);
        let last = self.tails.len() as u32 - 1;
        if last != tail {
            self.relink(last, tail);
        }
        let removed = self.tails.swap_remove(tail as usize)?;
        self.texts.free(self.texts.get(removed.rest).len());
        Some(removed)
    }

    /// Has the tail's parent know it by another number, or with NONE no more.
    fn relink(&mut self, tail: u32, number: u32) {
        let parent = self.tail(tail).parent;
        let node = self.node_mut(parent);
        if node.filter == tail {
            node.filter = number;
        } else if node.subtree_filter == tail {
            node.subtree_filter = number;
        } else {
            self.detach(Link::tail(tail), (number != NONE).then(|| Link::tail(number)));
        }
    }

    fn allocate(&mut self, node: Node) -> u32 {
        if self.free != NONE {
            let at = self.free;
            self.free = self.node(at).parent;
            self.free_len -= 1;
            *self.node_mut(at) = node;
            return at;
        }
        // As with tails.
        let at = self.nodes.len() as u32;
        self.nodes.push(node);
        at
    }

    /// Frees a node that nothing needs, and then perhaps its parent.
    fn prune(&mut self, from: u32) {
        let mut at = from;
        while at != ROOT && self.node(at).is_bare() {
            let Node { parent, level, .. } = *self.node(at);
            self.detach(Link(at), None);
            self.texts.free(self.texts.get(level).len());
            *self.node_mut(at) = Node::new(self.free, Text::EMPTY);
            self.free = at;
            self.free_len += 1;
            at = parent;
        }
    }

    /// Gives memory back.
    fn tidy(&mut self) {
        if self.nodes() == 0 {
            self.texts.clear();
            if self.nodes.len() > ARENA_KEPT || self.tails.capacity() > ARENA_KEPT {
                *self = Self::new(self.state.clone(), self.head_levels);
            }
            return;
        }
        if self.texts.wants_compaction() {
            let levels = self.nodes.iter_mut().map(|node| &mut node.level);
            self.texts.compact(levels.chain(self.tails.iter_mut().map(|tail| &mut tail.rest)));
        }
        if self.edges.capacity() > 16 && self.edges.len() < self.edges.capacity() / 4 {
            self.edges.shrink_to(2 * self.edges.len(), |edge| spread(edge.hash));
        }
    }
}

#[cfg(test)]
mod tests;
