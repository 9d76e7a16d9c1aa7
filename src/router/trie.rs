//! A trie of wildcard filters in one arena.
//!
//! The edges to literal children of all nodes are one hash table of node numbers, keyed by (parent, level) and
//! compared with what the node itself says; `+` is a field of its parent, and a filter that ends in `#` is kept
//! in the node before the `#`. Nodes that nothing needs any more are freed at once, up the chain.
//! The first edge may be several levels of a filter at once (the caller cuts off the head).
//! Insertion, removal and matching are loops; the deepest filter costs heap, never stack.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;
use hashbrown::HashTable;

use super::subscribers::{Removal, Subscribers};
use super::{Route, Subscriber, split_level};

const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;
/// A level up to this length is kept in its node; it fills what the node would leave unused.
const LEVEL_INLINE_MAX: usize = 14;
/// Below this an emptied arena is kept for the next filter.
const ARENA_KEPT: usize = 16;

/// Wildcard filters and their subscribers.
pub(super) struct Trie<S> {
    state: RandomState,
    /// The root is always there; freed nodes are chained through `parent`.
    nodes: Vec<Node<S>>,
    edges: HashTable<u32>,
    free: u32,
    free_len: usize,
}

struct Node<S> {
    level: Level,
    /// Of the filter that ends here.
    subscribers: Option<Subscribers<S>>,
    /// Of the filter that ends in `#` after this level.
    subtree_subscribers: Option<Subscribers<S>>,
    parent: u32,
    plus: u32,
    /// Literal children: how many edges begin here.
    literals: u32,
}

impl<S: Subscriber> Trie<S> {
    pub(super) fn new(state: RandomState) -> Self {
        Self { state, nodes: vec![Node::new(NONE, "")], edges: HashTable::new(), free: NONE, free_len: 0 }
    }

    /// Nodes in use besides the root.
    pub(super) fn nodes(&self) -> usize {
        self.nodes.len() - 1 - self.free_len
    }

    /// Nodes the arena has room made for, in use or not.
    #[cfg(test)]
    pub(super) fn arena_len(&self) -> usize {
        self.nodes.len()
    }

    /// Adds a subscriber to the filter `head`/`rest`; returns what it replaces.
    pub(super) fn insert(&mut self, head: &str, rest: Option<&str>, route: Route<S>) -> Option<Route<S>> {
        let (mut at, mut level, mut rest) = (ROOT, head, rest);
        loop {
            if level == "#" && rest.is_none() {
                return add(&mut self.node_mut(at).subtree_subscribers, route);
            }
            at = if level == "+" { self.plus_or_insert(at) } else { self.literal_or_insert(at, level) };
            match rest {
                None => return add(&mut self.node_mut(at).subscribers, route),
                Some(text) => (level, rest) = split_level(text),
            }
        }
    }

    /// Removes the subscriber `key` from the filter `head`/`rest`, and the nodes only this filter needed.
    pub(super) fn remove(&mut self, head: &str, rest: Option<&str>, key: u64) -> Option<Route<S>> {
        let (mut at, mut level, mut rest) = (ROOT, head, rest);
        let removed = loop {
            if level == "#" && rest.is_none() {
                break take(&mut self.node_mut(at).subtree_subscribers, key)?;
            }
            at = if level == "+" { self.plus(at)? } else { self.literal(at, level)? };
            match rest {
                None => break take(&mut self.node_mut(at).subscribers, key)?,
                Some(text) => (level, rest) = split_level(text),
            }
        };
        self.prune(at);
        Some(removed)
    }

    /// Calls `found` with the subscribers of each filter that matches the topic `head`/`rest`.
    ///
    /// `wildcard_first` says whether filters that begin with a wildcard count.
    pub(super) fn matches(
        &self,
        head: &str,
        rest: Option<&str>,
        wildcard_first: bool,
        found: &mut impl FnMut(&Subscribers<S>),
    ) {
        // Nodes to return to, with what of the topic follows them. A node is reached from its parent alone, so
        // none is visited twice, and at most one waits per level. Most topics never need it to allocate.
        let mut waiting: Vec<(u32, &str)> = Vec::new();
        let (mut at, mut level, mut rest) = (ROOT, head, rest);
        loop {
            let node = self.node(at);
            let wildcards = at != ROOT || wildcard_first;
            if wildcards && let Some(subscribers) = &node.subtree_subscribers {
                found(subscribers);
            }
            let literal = if node.literals > 0 { self.literal(at, level) } else { None };
            let plus = if wildcards { self.plus(at) } else { None };
            let next = match rest {
                None => {
                    for child in [literal, plus].into_iter().flatten() {
                        let child = self.node(child);
                        // "sport/#" matches "sport" too (section 4.7.1.2).
                        [&child.subscribers, &child.subtree_subscribers]
                            .into_iter()
                            .flatten()
                            .for_each(&mut *found);
                    }
                    waiting.pop()
                }
                Some(rest) => match (literal, plus) {
                    (Some(literal), plus) => {
                        waiting.extend(plus.map(|plus| (plus, rest)));
                        Some((literal, rest))
                    }
                    (None, Some(plus)) => Some((plus, rest)),
                    (None, None) => waiting.pop(),
                },
            };
            let Some((node, text)) = next else { return };
            at = node;
            (level, rest) = split_level(text);
        }
    }

    fn node(&self, at: u32) -> &Node<S> {
        // Numbers come from this arena alone.
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node<S> {
        &mut self.nodes[at as usize]
    }

    fn plus(&self, at: u32) -> Option<u32> {
        Some(self.node(at).plus).filter(|plus| *plus != NONE)
    }

    fn plus_or_insert(&mut self, at: u32) -> u32 {
        self.plus(at).unwrap_or_else(|| {
            let plus = self.allocate(at, "+");
            self.node_mut(at).plus = plus;
            plus
        })
    }

    fn literal(&self, parent: u32, level: &str) -> Option<u32> {
        let hash = edge_hash(&self.state, parent, level.as_bytes());
        self.edges.find(hash, |child| self.node(*child).is(parent, level)).copied()
    }

    fn literal_or_insert(&mut self, parent: u32, level: &str) -> u32 {
        if let Some(child) = self.literal(parent, level) {
            return child;
        }
        let child = self.allocate(parent, level);
        let hash = edge_hash(&self.state, parent, level.as_bytes());
        let (nodes, state) = (&self.nodes, &self.state);
        self.edges.insert_unique(hash, child, |at| nodes[*at as usize].hash(state));
        self.node_mut(parent).literals += 1;
        child
    }

    fn allocate(&mut self, parent: u32, level: &str) -> u32 {
        let node = Node::new(parent, level);
        if self.free != NONE {
            let at = self.free;
            self.free = self.node(at).parent;
            self.free_len -= 1;
            *self.node_mut(at) = node;
            return at;
        }
        // The length stays below NONE: that many nodes would be 256 GiB.
        let at = self.nodes.len() as u32;
        if self.nodes.len() == self.nodes.capacity() {
            // Doubling would leave a third of the arena unused on average.
            self.nodes.reserve_exact(4 + self.nodes.len() / 8);
        }
        self.nodes.push(node);
        at
    }

    fn prune(&mut self, from: u32) {
        let mut at = from;
        while at != ROOT && self.node(at).is_bare() {
            let node = self.node(at);
            let (parent, hash) = (node.parent, node.hash(&self.state));
            if self.node(parent).plus == at {
                self.node_mut(parent).plus = NONE;
            } else {
                if let Ok(edge) = self.edges.find_entry(hash, |child| *child == at) {
                    edge.remove();
                }
                self.node_mut(parent).literals -= 1;
            }
            *self.node_mut(at) = Node::new(self.free, "");
            self.free = at;
            self.free_len += 1;
            at = parent;
        }
        if self.nodes() == 0 && self.nodes.len() > ARENA_KEPT {
            self.nodes.truncate(1);
            self.nodes.shrink_to_fit();
            self.edges = HashTable::new();
            self.free = NONE;
            self.free_len = 0;
        }
    }
}

impl<S> Node<S> {
    fn new(parent: u32, level: &str) -> Self {
        Self {
            level: Level::new(level),
            subscribers: None,
            subtree_subscribers: None,
            parent,
            plus: NONE,
            literals: 0,
        }
    }

    fn is(&self, parent: u32, level: &str) -> bool {
        self.parent == parent && self.level.as_bytes() == level.as_bytes()
    }

    fn is_bare(&self) -> bool {
        self.subscribers.is_none()
            && self.subtree_subscribers.is_none()
            && self.plus == NONE
            && self.literals == 0
    }

    fn hash(&self, state: &RandomState) -> u64 {
        edge_hash(state, self.parent, self.level.as_bytes())
    }
}

/// The text of a level in two words.
enum Level {
    Inline { len: u8, bytes: [u8; LEVEL_INLINE_MAX] },
    // A thin pointer: with a fat one the node would not fit a cache line.
    Heap(Box<Box<[u8]>>),
}

impl Level {
    fn new(text: &str) -> Self {
        let mut bytes = [0; LEVEL_INLINE_MAX];
        match bytes.get_mut(..text.len()) {
            Some(inline) => {
                inline.copy_from_slice(text.as_bytes());
                Self::Inline { len: text.len() as u8, bytes }
            }
            None => Self::Heap(Box::new(text.as_bytes().into())),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Self::Heap(bytes) => bytes,
        }
    }
}

fn edge_hash(state: &RandomState, parent: u32, level: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish()
}

fn add<S: Subscriber>(slot: &mut Option<Subscribers<S>>, route: Route<S>) -> Option<Route<S>> {
    match slot {
        Some(subscribers) => subscribers.insert(route),
        None => {
            *slot = Some(Subscribers::One(route));
            None
        }
    }
}

fn take<S: Subscriber>(slot: &mut Option<Subscribers<S>>, key: u64) -> Option<Route<S>> {
    match slot.as_mut()?.remove(key) {
        Removal::Absent => None,
        Removal::Removed(route) => Some(route),
        Removal::Last => match slot.take() {
            Some(Subscribers::One(route)) => Some(route),
            // `Last` is said of `One` alone.
            Some(Subscribers::Many(_)) | None => None,
        },
    }
}
