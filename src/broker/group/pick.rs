//! Whose turn it is: a message for one member of a group.

use std::cell::Cell;
use std::sync::Arc;

use super::{Filed, Group, Member, standing};
use crate::broker::{Core, Turn, cost};
use crate::protocol::QoS;
use crate::session::{Delivered, DropReason, Outgoing, Readiness};

/// Members that are found full for one message before it is dropped. They are filed anew when they
/// hold less; only a message smaller than the one they did not take could find room before that.
const FULL_TRIES_MAX: usize = 4;

/// Members whose clients cannot take a message, for its size, before it is dropped: a group of
/// clients that take nothing must not cost more with each of them.
const MISFITS_MAX: usize = 64;

/// Members that are found away before it is taken for granted that somebody is connected: each costs
/// a look through all whose sessions are not kept. If it is wrong, messages go to one that is away.
const AWAY_TRIES_MAX: usize = 64;

/// The order in which members are asked: at QoS 0, and above.
const AT_MOST_ONCE: [Filed; 3] = [Filed::Ready, Filed::Busy, Filed::Full];
const ABOVE: [Filed; 5] = [Filed::Ready, Filed::Busy, Filed::Away, Filed::Full, Filed::AwayFull];

/// What became of one message so far.
#[derive(Default)]
struct Search {
    /// Only members whose sessions are on record are asked.
    only_durable: bool,
    /// So many were passed over for that.
    passed_over: Cell<u32>,
    why: Option<DropReason>,
    found_full: usize,
    /// Members that the message does not suit. They keep their filing, and are not asked again for
    /// this message.
    misfits: Vec<u64>,
    /// So many were asked who may not read its topic.
    refused: Cell<u32>,
}

impl Core {
    /// Hands a message to one member of the group.
    pub(in crate::broker) fn deliver_shared(
        &self,
        turn: &mut Turn,
        group: &Arc<Group>,
        outgoing: &mut Outgoing<'_>,
    ) {
        let order = if outgoing.qos() == QoS::AtMostOnce { &AT_MOST_ONCE[..] } else { &ABOVE };
        let mut search = Search::default();
        if self.search(turn, group, order, outgoing, &mut search) {
            return;
        }
        match search.why {
            None if search.refused.get() > 0 => self.metrics.dropped.add("acl_read", 1),
            why => turn.count_drop(why.unwrap_or(DropReason::OfflineQos0), 1),
        }
    }

    /// Hands a message that is on record to a member with which it stays there, also to one that is
    /// away; `false`: the group has none that takes it.
    pub(in crate::broker) fn deliver_to_durable(
        &self,
        turn: &mut Turn,
        group: &Arc<Group>,
        outgoing: &mut Outgoing<'_>,
    ) -> bool {
        let mut search = Search { only_durable: true, ..Search::default() };
        self.search(turn, group, &ABOVE, outgoing, &mut search)
    }

    /// Whether somebody has taken it.
    fn search(
        &self,
        turn: &mut Turn,
        group: &Arc<Group>,
        order: &[Filed],
        outgoing: &mut Outgoing<'_>,
        search: &mut Search,
    ) -> bool {
        let mut is_taken = false;
        while !is_taken
            && let Some((filed, member)) = self.next_member(group, order, outgoing, search)
            && search.goes_on(filed)
        {
            is_taken = self.offer(turn, group, filed, &member, outgoing, search);
        }
        turn.budget.spend(search.refused.get() + search.passed_over.get());
        is_taken
    }

    /// The best member of the group. One that may not read the topic is passed over, and stays filed
    /// as it is: it may read others.
    fn next_member(
        &self,
        group: &Group,
        order: &[Filed],
        outgoing: &Outgoing<'_>,
        search: &Search,
    ) -> Option<(Filed, Member)> {
        let is_ruled = self.access.is_active();
        group.next(order, |member| {
            let client = &member.subscriber;
            // At QoS 0 it would leave the record as well.
            let keeps = client.is_durable() && member.options.qos != QoS::AtMostOnce;
            if search.only_durable && !keeps {
                search.passed_over.set(search.passed_over.get().saturating_add(1));
                return false;
            }
            let may = !is_ruled || self.may_receive(client, outgoing.topic());
            if !may {
                search.refused.set(search.refused.get().saturating_add(1));
            }
            may && !search.misfits.contains(&client.key)
        })
    }

    /// Looks at a member that is filed so; whether it has taken the message.
    fn offer(
        &self,
        turn: &mut Turn,
        group: &Arc<Group>,
        filed: Filed,
        member: &Member,
        outgoing: &mut Outgoing<'_>,
        search: &mut Search,
    ) -> bool {
        let client = &member.subscriber;
        turn.budget.spend(cost::RECEIVER);
        let mut state = client.lock();
        let readiness = state.readiness();
        let is_connected = match readiness {
            Readiness::Ready | Readiness::Busy => true,
            Readiness::Away => false,
            // One with many filters leaves the router in slices. It is asked no more.
            Readiness::Ended => {
                group.leave(client.key, &mut state);
                return false;
            }
        };
        let worse = match (filed, readiness) {
            (Filed::Ready, Readiness::Busy) => Some(Filed::Busy),
            (Filed::Ready | Filed::Busy, Readiness::Away) => Some(Filed::Away),
            (Filed::Full, Readiness::Away) => Some(Filed::AwayFull),
            _ => None,
        };
        if let Some(worse) = worse {
            group.file(client, &mut state, worse);
            return false;
        }
        let routes = std::slice::from_ref(member);
        match self.deliver_locked(turn, client, &mut state, outgoing, routes, Some(&group.filter)) {
            // Queued: at QoS 2 it waits for the log.
            Delivered::Sent | Delivered::Queued => {
                let now = standing(state.readiness());
                if now != filed {
                    group.file(client, &mut state, now);
                }
                return true;
            }
            Delivered::Dropped(reason) => {
                search.why.get_or_insert(reason);
                match reason {
                    DropReason::QueueFullQos0
                    | DropReason::QueueFull
                    | DropReason::QueueFullBytes
                    | DropReason::OfflineQos0 => {
                        search.found_full += 1;
                        let full = if is_connected { Filed::Full } else { Filed::AwayFull };
                        group.file(client, &mut state, full);
                    }
                    _ => search.misfits.push(client.key),
                }
            }
            // Only subscriptions that do not want their own client's messages.
            Delivered::Ended => search.misfits.push(client.key),
        }
        false
    }

    /// Whether a group has a connected member other than `key`, the one that has gone away, to which
    /// its messages may go: to stay on record, if they `are_on_record`.
    pub(in crate::broker) fn has_connected_member(
        &self,
        filter: &str,
        key: u64,
        are_on_record: bool,
    ) -> bool {
        let Some(group) = self.groups.get(filter).and_then(|entry| entry.value().group.clone()) else {
            return false;
        };
        // It may be filed as ready still, and the next message would go to it in vain.
        if let Some(gone) = group.member(key) {
            file_if_away(&group, &gone);
        }
        let mut tries = AWAY_TRIES_MAX;
        [Filed::Ready, Filed::Busy, Filed::Full].into_iter().any(|filed| {
            let may_take = |member: &Member| {
                member.subscriber.key != key && (!are_on_record || member.subscriber.is_durable())
            };
            while let Some(member) = group.find(filed, may_take) {
                tries -= 1;
                if !file_if_away(&group, &member) || tries == 0 {
                    return true;
                }
            }
            false
        })
    }
}

/// Files a member anew if it is away, or over; whether it is.
fn file_if_away(group: &Arc<Group>, member: &Member) -> bool {
    let mut state = member.subscriber.lock();
    let is_away = matches!(state.readiness(), Readiness::Away | Readiness::Ended);
    if is_away {
        group.file_as_away(&member.subscriber, &mut state);
    }
    is_away
}

impl Search {
    fn goes_on(&self, filed: Filed) -> bool {
        let may_be_full = !matches!(filed, Filed::Full | Filed::AwayFull);
        self.misfits.len() < MISFITS_MAX && (may_be_full || self.found_full < FULL_TRIES_MAX)
    }
}
