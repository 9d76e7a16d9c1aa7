//! What the trie keeps, and what it gives back.

use std::sync::Arc;

use super::*;
use crate::protocol::QoS;
use crate::router::SubscriptionOptions;
use crate::router::slices::Slice;
use crate::router::tests::Peer;

fn route(key: u64) -> Route<Peer> {
    Route { subscriber: Peer(key), options: SubscriptionOptions::with_qos(QoS::AtMostOnce) }
}

fn trie() -> Trie<Peer> {
    Trie::new(RandomState::new(), 1)
}

fn found(trie: &Trie<Peer>, topic: &str) -> usize {
    let (mut routes, mut long) = (Vec::new(), Vec::new());
    let mut slice = Slice::new(topic, usize::MAX, &mut routes, &mut long);
    assert!(trie.matches(topic, true, &mut Vec::new(), &mut slice));
    routes.len()
}

#[test]
fn nodes_and_tails_have_the_size_the_memory_target_counts_on() {
    assert_eq!((size_of::<Node>(), size_of::<Tail<Arc<u64>>>()), (28, 32));
}

#[test]
fn a_filter_of_its_own_is_one_tail_and_becomes_nodes_as_others_share_its_levels() {
    let mut trie = trie();
    let sizes = |trie: &Trie<Peer>| (trie.nodes.len() - 1 - trie.free_len, trie.tails.len());
    for (filter, expected) in [
        ("a/b/c/+", (0, 1)),
        ("x/b/c/+", (0, 2)),
        // "a", "b" and "c" are shared now, and below them stand "+" and "d/+".
        ("a/b/c/d/+", (3, 3)),
        ("a/b/#", (3, 4)),
        ("a/b/c/d/+", (3, 4)),
        ("+/b", (3, 5)),
        // "+" and "b" are shared: one filter ends there, one in "#" after it.
        ("+/b/#", (5, 6)),
        ("#", (5, 7)),
    ] {
        trie.insert(filter, route(1));
        assert_eq!(sizes(&trie), expected, "{filter}");
    }
    for (filter, expected) in [
        ("+/b", (5, 6)),
        ("a/b/c/+", (5, 5)),
        ("a/b/c/d/+", (4, 4)),
        ("a/b/#", (2, 3)),
        ("+/b/#", (0, 2)),
        ("x/b/c/+", (0, 1)),
        ("#", (0, 0)),
    ] {
        assert!(trie.remove(filter, 2).is_none());
        assert!(trie.remove(filter, 1).is_some(), "{filter}");
        assert!(trie.remove(filter, 1).is_none());
        assert_eq!(sizes(&trie), expected, "{filter}");
    }
    assert_eq!(trie.nodes(), 0);
}

#[test]
fn freed_nodes_and_tails_are_used_again_and_texts_given_back() {
    let mut trie = trie();
    trie.insert("stays/+", route(1));
    for n in 0..10_000 {
        let (long, short) = (format!("head {n}/+/x/#"), format!("head {n}/+"));
        assert!(trie.insert(&long, route(n)).is_none());
        assert!(trie.insert(&short, route(n)).is_none());
        assert_eq!(trie.nodes(), 5, "two nodes and three tails");
        assert!(trie.remove(&long, n).is_some());
        assert!(trie.remove(&short, n).is_some());
    }
    assert_eq!((trie.nodes(), trie.nodes.len(), trie.tails.len(), trie.edges.len()), (1, 3, 1, 1));
    assert!(trie.texts.bytes_held() < 8 * 1024, "{}", trie.texts.bytes_held());
    assert_eq!(found(&trie, "stays/here"), 1);
}

#[test]
fn a_trie_that_thins_out_gives_its_memory_back() {
    let mut trie = trie();
    for n in 0..10_000 {
        trie.insert(&format!("head {n}/#"), route(n));
    }
    let full = trie.tails.capacity();
    for n in 100..10_000 {
        assert!(trie.remove(&format!("head {n}/#"), n).is_some());
    }
    assert!(trie.tails.capacity() < full / 20 && trie.edges.capacity() < 1_000);
    assert!(trie.texts.bytes_held() < 8 * 1024);
    for n in 0..100 {
        assert_eq!(found(&trie, &format!("head {n}/x")), 1, "{n}");
        assert!(trie.remove(&format!("head {n}/#"), n).is_some());
    }
    let small = [trie.nodes.capacity(), trie.tails.capacity(), trie.edges.capacity()];
    assert!(small.iter().all(|capacity| *capacity <= ARENA_KEPT), "{small:?}");
    assert!(trie.insert("again/#", route(1)).is_none());
    assert!(trie.remove("again/#", 1).is_some());
    assert_eq!(trie.nodes(), 0);
}
