//! `Group`: what a shared subscription (MQTT 5 section 4.8.2) has in place of a session: members,
//! and whose turn it is.
//!
//! A message goes to a member that is connected and has room, else to one that is connected, else,
//! at QoS 1 and 2, to a session that is away; among those of one kind in rotation. So that nobody
//! is asked in vain again and again, each member is filed in exactly one list of its group as what
//! it is believed to be ([`Filed`]). How many are busy, full or away does not matter then.
//!
//! How a member is filed changes under the lock of its client only. Two rules keep that right:
//!
//! - Whoever picks a member looks at it under its lock, and files it anew if it is worse than
//!   believed.
//! - Whoever lets go of the client's lock ([`Locked`](super::client::Locked)) files it anew where
//!   it is better than believed. For this the client knows the groups that have it filed as
//!   anything but ready ([`FiledWorse`]). So no acknowledgement, written output, read back message
//!   or new connection is missed, whatever brought it about.
//!
//! Each vain look is paid for by what made the member worse: the cost of a message is constant in
//! the mean.
//!
//! Lock order: client, then the groups' map, then the lists of a group. The lists are locked for
//! some steps, and nothing is locked under them but the rules of access, for a look.

mod pick;
mod roll;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use self::roll::{Filed, Keyed, Left, Roll};
use super::{Client, ClientState};
use crate::router::{Route, Subscriber, SubscriptionOptions};
use crate::session::Readiness;

/// A member: its session, and what it has asked for.
pub(super) type Member = Route<Arc<Client>>;

impl Keyed for Member {
    fn key(&self) -> u64 {
        self.subscriber.key()
    }
}

/// See the module's documentation.
pub(crate) struct Group {
    /// The whole filter, `$share/{name}/{filter}`: what a session knows its subscription by.
    pub(super) filter: Arc<str>,
    members: Mutex<Roll<Member>>,
}

/// The groups that have a session filed as something that is served later than a ready one.
#[derive(Default)]
pub(crate) struct FiledWorse {
    /// As busy or away.
    waiting: Vec<Weak<Group>>,
    /// As one that took no more.
    full: Vec<Weak<Group>>,
    /// Some of them as away.
    as_away: bool,
    /// What it held when it took no more; with less it is asked again.
    full_at: Fill,
}

/// What a session holds, as its bounds count it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fill {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// Which of the two lists of [`FiledWorse`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Row {
    Waiting,
    Full,
}

fn row(filed: Filed) -> Option<Row> {
    match filed {
        Filed::Ready => None,
        Filed::Busy | Filed::Away => Some(Row::Waiting),
        Filed::Full | Filed::AwayFull => Some(Row::Full),
    }
}

impl FiledWorse {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.full.is_empty()
    }

    /// Whatever it holds, it may take more.
    pub(super) fn ask_again(&mut self) {
        self.full_at = Fill { messages: usize::MAX, bytes: usize::MAX };
    }

    fn row(&mut self, row: Row) -> &mut Vec<Weak<Group>> {
        match row {
            Row::Waiting => &mut self.waiting,
            Row::Full => &mut self.full,
        }
    }

    fn push(&mut self, row: Row, group: Weak<Group>) -> u32 {
        let row = self.row(row);
        if row.is_empty() {
            // Most sessions are in one group.
            row.reserve_exact(1);
        }
        row.push(group);
        // A session has no more subscriptions than a number of 32 bits can count.
        u32::try_from(row.len() - 1).unwrap_or(u32::MAX)
    }

    fn remove(&mut self, row: Row, place: u32, key: u64) {
        let row = self.row(row);
        if (place as usize) < row.len() {
            row.swap_remove(place as usize);
        }
        if let Some(moved) = row.get(place as usize).and_then(Weak::upgrade) {
            moved.members.lock().set_place(key, place);
        }
    }
}

impl Group {
    /// A group without members.
    pub(super) fn new(filter: Arc<str>) -> Self {
        Self { filter, members: Mutex::default() }
    }

    /// Adds a member or replaces its options. Under the client's lock.
    pub(super) fn join(
        self: &Arc<Self>,
        client: &Arc<Client>,
        state: &mut ClientState,
        options: SubscriptionOptions,
    ) {
        let filed = standing(state.readiness());
        let mut members = self.members.lock();
        if let Some(known) = members.get_mut(client.key) {
            known.options = options;
            return;
        }
        // Filed at once where it belongs.
        let place = match row(filed) {
            Some(row) => {
                let worse = state.filed_worse.get_or_insert_default();
                worse.as_away |= filed == Filed::Away;
                worse.push(row, Arc::downgrade(self))
            }
            None => 0,
        };
        members.insert(Route { subscriber: Arc::clone(client), options }, filed, place);
    }

    /// Removes a member; `true` if none is left. Under the client's lock.
    pub(super) fn leave(&self, key: u64, state: &mut ClientState) -> bool {
        let (left, is_empty) = {
            let mut members = self.members.lock();
            (members.remove(key), members.is_empty())
        };
        let Some(Left { member, filed, place }) = left else { return is_empty };
        if let (Some(row), Some(worse)) = (row(filed), &mut state.filed_worse) {
            worse.remove(row, place, key);
        }
        // Not under the lock of the lists: it may be the last handle.
        drop(member);
        is_empty
    }

    /// The one whose turn it is among those filed best, in this order, and wanted. Under one lock: a
    /// member that is filed anew between two lists would be in neither.
    fn next(&self, order: &[Filed], wanted: impl Fn(&Member) -> bool) -> Option<(Filed, Member)> {
        let mut members = self.members.lock();
        order.iter().find_map(|filed| Some((*filed, members.next(*filed, &wanted)?.clone())))
    }

    fn find(&self, filed: Filed, wanted: impl Fn(&Member) -> bool) -> Option<Member> {
        self.members.lock().find(filed, wanted).cloned()
    }

    fn member(&self, key: u64) -> Option<Member> {
        self.members.lock().get(key).cloned()
    }

    /// A member is found to be away. Under the client's lock.
    fn file_as_away(self: &Arc<Self>, client: &Client, state: &mut ClientState) {
        let is_known = self.members.lock().filed(client.key) == Some(Filed::AwayFull);
        if !is_known {
            self.file(client, state, Filed::Away);
        }
    }

    /// Files a member anew. Under the client's lock.
    fn file(self: &Arc<Self>, client: &Client, state: &mut ClientState, filed: Filed) {
        let Some((before, place)) = self.members.lock().file(client.key, filed) else { return };
        let (old, new) = (row(before), row(filed));
        if let (Some(old), Some(worse)) = (old, &mut state.filed_worse)
            && Some(old) != new
        {
            worse.remove(old, place, client.key);
        }
        let fill = state.fill();
        let Some(row) = new else { return };
        let worse = state.filed_worse.get_or_insert_default();
        worse.as_away |= matches!(filed, Filed::Away | Filed::AwayFull);
        if row == Row::Full {
            worse.full_at = worse.full_at.max(fill);
        }
        if old != new {
            let place = worse.push(row, Arc::downgrade(self));
            self.members.lock().set_place(client.key, place);
        }
    }
}

/// How a session is filed that has not been found full.
fn standing(readiness: Readiness) -> Filed {
    match readiness {
        Readiness::Ready => Filed::Ready,
        Readiness::Busy => Filed::Busy,
        // One that has ended leaves its groups before its lock is let go.
        Readiness::Away | Readiness::Ended => Filed::Away,
    }
}

impl Fill {
    fn max(self, other: Self) -> Self {
        Self { messages: self.messages.max(other.messages), bytes: self.bytes.max(other.bytes) }
    }

    fn is_less_than(self, other: Self) -> bool {
        self.messages < other.messages || self.bytes < other.bytes
    }
}

/// Files a session anew in the groups that have it filed worse than it is. Called whenever its lock
/// is let go and there are such groups.
#[cold]
pub(super) fn file_better(key: u64, state: &mut ClientState) {
    let filed = standing(state.readiness());
    let fill = state.fill();
    let Some(worse) = &mut state.filed_worse else { return };
    let is_back = filed != Filed::Away && std::mem::take(&mut worse.as_away);
    if !worse.full.is_empty() && (is_back || fill.is_less_than(worse.full_at)) {
        worse.full_at = Fill::default();
        for group in std::mem::take(&mut worse.full) {
            let Some(group) = group.upgrade() else { continue };
            group.members.lock().file(key, filed);
            if let Some(row) = row(filed) {
                worse.as_away |= filed == Filed::Away;
                let place = worse.push(row, Arc::downgrade(&group));
                group.members.lock().set_place(key, place);
            }
        }
    }
    if filed == Filed::Ready {
        for group in worse.waiting.drain(..).filter_map(|group| group.upgrade()) {
            group.members.lock().file(key, filed);
        }
        worse.waiting.shrink_to(ROW_KEPT);
    } else if is_back {
        for group in worse.waiting.iter().filter_map(Weak::upgrade) {
            group.members.lock().file(key, filed);
        }
    }
}

/// Entries for which a session that is ready again keeps room.
const ROW_KEPT: usize = 4;
