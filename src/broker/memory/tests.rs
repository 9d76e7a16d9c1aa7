use super::*;
use crate::session::{Owner, Session, SessionLimits};

fn holders(bytes: &[usize]) -> Vec<Holder> {
    let limits = Arc::new(SessionLimits {
        inflight_max: 1,
        queue_messages_max: 1,
        queue_bytes_max: 1,
        subscriptions_max: 1,
        subscription_bytes_max: 1,
    });
    let client = |n| {
        let owner = Owner { client_id: Arc::from("id"), user: None };
        Client::new(n, owner, Session::new(Arc::clone(&limits), false), None)
    };
    bytes
        .iter()
        .map(|bytes| Holder { client: client(1), bytes: *bytes, shed: Shed::default(), promised: 0 })
        .collect()
}

#[test]
fn the_longest_are_cut_to_one_length() {
    for (bytes, over, expected) in [
        (&[100, 10, 10][..], 50, 50),
        (&[10, 100, 90], 50, 70),
        (&[10, 100, 90], 10, 90),
        (&[10, 100, 90], 11, 89),
        (&[10, 10], 20, 0),
        (&[10, 10], 1_000, 0),
        (&[], 1, 0),
    ] {
        let mut holders = holders(bytes);
        let level = level(&mut holders, over);
        assert_eq!(level, expected, "{bytes:?} {over}");
        let given: usize = holders.iter().map(|holder| holder.bytes.saturating_sub(level)).sum();
        assert!(given >= over.min(bytes.iter().sum()), "{bytes:?} {over}");
    }
}

impl Core {
    /// Has a client lose its oldest messages, until so many bytes of entries are given back.
    pub(in crate::broker) fn shed_entries_of(&self, client: &Arc<Client>, bytes: usize) -> Shed {
        let holder = Holder { client: Arc::clone(client), bytes: 0, shed: Shed::default(), promised: 0 };
        let mut holders = [holder];
        self.shed_entries(&mut holders, |_| bytes);
        let [holder] = holders;
        holder.shed
    }
}
