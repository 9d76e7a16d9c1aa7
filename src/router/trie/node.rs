//! The pieces of a trie: nodes, the links between them, and what is compared with a topic.

use std::hash::{BuildHasher, Hasher};

use ahash::RandomState;

use crate::router::texts::Text;

/// No node, no tail.
pub(super) const NONE: u32 = u32::MAX;

pub(super) struct Node {
    pub(super) level: Text,
    pub(super) parent: u32,
    /// The tail of the filter that ends here.
    pub(super) filter: u32,
    /// The tail of the filter that ends in `#` after this level.
    pub(super) subtree_filter: u32,
    pub(super) plus: Link,
    /// Literal children: how many edges begin here.
    pub(super) literals: u32,
}

/// The number of a node, or with the highest bit that of a tail.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Link(pub(super) u32);

/// A link with half of its hash, so that what has another one need not be looked at, nor anything when the table grows: that is three places in memory each.
pub(super) struct Edge {
    pub(super) hash: u32,
    pub(super) link: Link,
}

/// What a link leads to.
pub(super) enum Child {
    Node(u32),
    Tail(u32),
}

impl Link {
    pub(super) const NONE: Self = Self(NONE);
    const TAIL: u32 = 1 << 31;

    pub(super) fn tail(number: u32) -> Self {
        Self(number | Self::TAIL)
    }

    pub(super) fn child(self) -> Child {
        if self.0 & Self::TAIL == 0 { Child::Node(self.0) } else { Child::Tail(self.0 & !Self::TAIL) }
    }
}

/// Which of the two filters that a node can end.
#[derive(Clone, Copy)]
pub(super) enum End {
    Here,
    Subtree,
}

impl Node {
    pub(super) fn new(parent: u32, level: Text) -> Self {
        Self { level, parent, filter: NONE, subtree_filter: NONE, plus: Link::NONE, literals: 0 }
    }

    pub(super) fn is_bare(&self) -> bool {
        self.filter == NONE && self.subtree_filter == NONE && self.plus == Link::NONE && self.literals == 0
    }

    pub(super) fn end(&mut self, end: End) -> &mut u32 {
        match end {
            End::Here => &mut self.filter,
            End::Subtree => &mut self.subtree_filter,
        }
    }
}

/// Whether what is left of a filter matches what is left of a topic.
pub(super) fn rest_matches(mut filter: Option<&[u8]>, mut topic: Option<&[u8]>) -> bool {
    loop {
        (filter, topic) = match (filter, topic) {
            // "sport/#" matches "sport" too.
            (Some(b"#"), _) | (None, None) => return true,
            (Some(filter), Some(topic)) => {
                let ((level, below), (name, following)) = (split_level(filter), split_level(topic));
                if level != b"+" && level != name {
                    return false;
                }
                (below, following)
            }
            (None, Some(_)) | (Some(_), None) => return false,
        };
    }
}

pub(super) fn split_level(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match text.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
        None => (text, None),
    }
}

pub(super) fn edge_hash(state: &RandomState, parent: u32, level: &[u8]) -> u32 {
    let mut hasher = state.build_hasher();
    hasher.write_u32(parent);
    hasher.write(level);
    hasher.finish() as u32
}
