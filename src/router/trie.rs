//! A trie of wildcard filters in one arena.
//!
//! The edges to literal children of all nodes are one hash table of node numbers, keyed by (parent, level) and
//! compared with what the node itself says; `+` is a field of its parent, and a filter that ends in `#` is kept
//! in the node before the `#`. Subscribers stand in a table of their own, for most nodes have none.
//! Nodes that nothing needs any more are freed at once, up the chain.
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
    nodes: Vec<Node>,
    edges: HashTable<u32>,
    free: u32,
    free_len: usize,
    slots: Vec<Slot<S>>,
    slot_free: u32,
}

/// 40 bytes, and the text of a level that does not fit in.
struct Node {
    level: Level,
    /// The slot of the filter that ends here.
    filter: u32,
    /// The slot of the filter that ends in `#` after this level.
    subtree_filter: u32,
    parent: u32,
    plus: u32,
    /// Literal children: how many edges begin here.
    literals: u32,
}

impl<S: Subscriber> Trie<S> {
    pub(super) fn new(state: RandomState) -> Self {
        Self {
            state,
            nodes: vec![Node::new(NONE, "")],
            edges: HashTable::new(),
            free: NONE,
            free_len: 0,
            slots: Vec::new(),
            slot_free: NONE,
        }
    }

    /// Nodes in use; the root counts while the filter `#` is there.
    pub(super) fn nodes(&self) -> usize {
        let root = usize::from(self.node(ROOT).subtree_filter != NONE);
        self.nodes.len() - 1 - self.free_len + root
    }

    /// Adds a subscriber to the filter `head`/`rest`; returns what it replaces.
    pub(super) fn insert(&mut self, head: &str, rest: Option<&str>, route: Route<S>) -> Option<Route<S>> {
        let (mut at, mut level, mut rest) = (ROOT, head, rest);
        loop {
            if level == "#" && rest.is_none() {
                return self.add(at, End::Subtree, route);
            }
            at = if level == "+" { self.plus_or_insert(at) } else { self.literal_or_insert(at, level) };
            match rest {
                None => return self.add(at, End::Here, route),
                Some(text) => (level, rest) = split_level(text),
            }
        }
    }

    /// Removes the subscriber `key` from the filter `head`/`rest`, and the nodes only this filter needed.
    pub(super) fn remove(&mut self, head: &str, rest: Option<&str>, key: u64) -> Option<Route<S>> {
        let (mut at, mut level, mut rest) = (ROOT, head, rest);
        let removed = loop {
            if level == "#" && rest.is_none() {
                break self.take(at, End::Subtree, key)?;
            }
            at = if level == "+" { self.plus(at)? } else { self.literal(at, level)? };
            match rest {
                None => break self.take(at, End::Here, key)?,
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
            if wildcards && let Some(subscribers) = self.subscribers(node.subtree_filter) {
                found(subscribers);
            }
            let literal = if node.literals > 0 { self.literal(at, level) } else { None };
            let plus = if wildcards { self.plus(at) } else { None };
            let next = match rest {
                None => {
                    for child in [literal, plus].into_iter().flatten() {
                        let child = self.node(child);
                        // "sport/#" matches "sport" too (section 4.7.1.2).
                        let both = [child.filter, child.subtree_filter];
                        both.into_iter().filter_map(|slot| self.subscribers(slot)).for_each(&mut *found);
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

    fn node(&self, at: u32) -> &Node {
        // Numbers come from this arena alone.
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
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
        reserve_some(&mut self.nodes);
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
            self.slots = Vec::new();
            self.slot_free = NONE;
        }
    }

    fn subscribers(&self, slot: u32) -> Option<&Subscribers<S>> {
        match self.slots.get(slot as usize) {
            Some(Slot::Used(subscribers)) => Some(subscribers),
            // No slot has the number NONE.
            Some(Slot::Free { .. }) | None => None,
        }
    }

    fn add(&mut self, at: u32, end: End, route: Route<S>) -> Option<Route<S>> {
        let slot = *self.node_mut(at).slot_of(end);
        if let Some(Slot::Used(subscribers)) = self.slots.get_mut(slot as usize) {
            return subscribers.insert(route);
        }
        let used = Slot::Used(Subscribers::One(route));
        let slot = match self.slots.get_mut(self.slot_free as usize) {
            Some(free) => {
                let slot = self.slot_free;
                if let Slot::Free { next } = std::mem::replace(free, used) {
                    self.slot_free = next;
                }
                slot
            }
            None => {
                // There are at most two per node, so this too stays far below NONE.
                let slot = self.slots.len() as u32;
                reserve_some(&mut self.slots);
                self.slots.push(used);
                slot
            }
        };
        *self.node_mut(at).slot_of(end) = slot;
        None
    }

    fn take(&mut self, at: u32, end: End, key: u64) -> Option<Route<S>> {
        let slot = *self.node_mut(at).slot_of(end);
        let place = self.slots.get_mut(slot as usize)?;
        let Slot::Used(subscribers) = place else { return None };
        match subscribers.remove(key) {
            Removal::Absent => None,
            Removal::Removed(route) => Some(route),
            Removal::Last => {
                let used = std::mem::replace(place, Slot::Free { next: self.slot_free });
                self.slot_free = slot;
                *self.node_mut(at).slot_of(end) = NONE;
                match used {
                    Slot::Used(Subscribers::One(route)) => Some(route),
                    // `Last` is said of `One` alone.
                    Slot::Used(Subscribers::Many(_)) | Slot::Free { .. } => None,
                }
            }
        }
    }
}

/// Place for the subscribers of one filter.
enum Slot<S> {
    Used(Subscribers<S>),
    Free { next: u32 },
}

/// Which of the two filters that a node can end.
#[derive(Clone, Copy)]
enum End {
    Here,
    Subtree,
}

impl Node {
    fn new(parent: u32, level: &str) -> Self {
        Self { level: Level::new(level), filter: NONE, subtree_filter: NONE, parent, plus: NONE, literals: 0 }
    }

    fn is(&self, parent: u32, level: &str) -> bool {
        self.parent == parent && self.level.as_bytes() == level.as_bytes()
    }

    fn is_bare(&self) -> bool {
        let fields = [self.filter, self.subtree_filter, self.plus];
        fields == [NONE; 3] && self.literals == 0
    }

    fn slot_of(&mut self, end: End) -> &mut u32 {
        match end {
            End::Here => &mut self.filter,
            End::Subtree => &mut self.subtree_filter,
        }
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

/// Makes room for one more if there is none, without the third that doubling leaves unused on average.
fn reserve_some<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact(4 + items.len() / 8);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::protocol::QoS;
    use crate::router::SubscriptionOptions;
    use crate::router::tests::Peer;

    fn route(key: u64) -> Route<Peer> {
        Route { subscriber: Peer(key), options: SubscriptionOptions::with_qos(QoS::AtMostOnce) }
    }

    #[test]
    fn nodes_and_slots_have_the_size_the_memory_target_counts_on() {
        assert_eq!(size_of::<Node>(), 40);
        assert_eq!(size_of::<Slot<Arc<u64>>>(), 16);
    }

    #[test]
    fn freed_nodes_and_slots_are_used_again() {
        let mut trie = Trie::new(RandomState::new());
        trie.insert("stays", Some("+"), route(1));
        for n in 0..10_000 {
            let head = format!("head {n}");
            assert!(trie.insert(&head, Some("+/x/#"), route(n)).is_none());
            assert!(trie.insert(&head, Some("+"), route(n)).is_none());
            assert_eq!(trie.nodes(), 5);
            assert!(trie.remove(&head, Some("+/x/#"), n).is_some());
            assert!(trie.remove(&head, Some("+"), n).is_some());
        }
        assert_eq!((trie.nodes(), trie.nodes.len(), trie.slots.len(), trie.edges.len()), (2, 6, 3, 1));
    }

    #[test]
    fn an_emptied_trie_gives_its_memory_back() {
        let mut trie = Trie::new(RandomState::new());
        trie.insert("#", None, route(1));
        for n in 0..1_000 {
            trie.insert(&format!("head {n}"), Some("#"), route(n));
        }
        for n in 0..1_000 {
            assert!(trie.remove(&format!("head {n}"), Some("#"), n).is_some());
        }
        assert!(trie.remove("#", None, 1).is_some(), "the last filter stands in the root");
        assert_eq!((trie.nodes.capacity(), trie.slots.capacity(), trie.edges.capacity()), (1, 0, 0));
        assert!(trie.insert("again", Some("#"), route(1)).is_none());
        assert!(trie.remove("again", Some("#"), 1).is_some());
        assert_eq!(trie.nodes(), 0);
    }
}
