//! Groups of the engine: who gets a message, and how many members are locked for it.

mod model;

use std::sync::Arc;

use crate::auth::acl::Acl;
use crate::broker::client::locks_taken;
use crate::broker::{Client, Core, Security, Turn};
use crate::config::Limits;
use crate::protocol::encode::AckKind;
use crate::protocol::{QoS, ReasonCode};
use crate::router::SubscriptionOptions;
use crate::session::{Message, Owner, Session, Terms};

const FILTER: &str = "$share/g/t";

/// One group and its members.
struct House {
    core: Arc<Core>,
    members: Vec<Arc<Client>>,
}

impl House {
    fn new(limits: Limits) -> Self {
        Self { core: Core::new(limits, Security::default()), members: Vec::new() }
    }

    /// With members that take one message without acknowledging it.
    fn with_connected(members: usize) -> Self {
        let mut house = Self::new(Limits::default());
        for _ in 0..members {
            let member = house.join();
            house.attach(member, 1);
        }
        house
    }

    /// A new member, which is away.
    fn join(&mut self) -> usize {
        self.join_with(QoS::ExactlyOnce)
    }

    fn join_with(&mut self, qos: QoS) -> usize {
        let owner = Owner { client_id: Arc::from(format!("m{}", self.members.len())), user: None };
        let session = Session::new(self.core.limits.of_sessions(), true);
        let client = Client::new(self.core.next_key(), owner, session, None);
        self.enter(&client, qos);
        self.members.push(client);
        self.members.len() - 1
    }

    fn enter(&self, client: &Arc<Client>, qos: QoS) {
        let options = SubscriptionOptions::with_qos(qos);
        self.core.add_subscription(client, &mut client.lock(), FILTER, options).unwrap();
    }

    fn attach(&self, member: usize, receive_maximum: u16) {
        let terms = Terms { receive_maximum, ..Terms::V311 };
        self.members[member].lock().session.attach(terms, b"connack", None, true);
    }

    fn detach(&self, member: usize) {
        self.members[member].lock().session.detach();
    }

    /// The member acknowledges what it was sent first.
    fn acknowledge(&self, member: usize) {
        let mut state = self.members[member].lock();
        let id = state.session.first_unfinished_id().unwrap();
        state.session.handle_ack(AckKind::PubAck, id, ReasonCode::Success);
    }

    /// What a member has, sent or waiting.
    fn has(&self, member: usize) -> usize {
        let state = self.members[member].lock();
        state.session.unfinished() + state.session.queued()
    }

    fn all(&self) -> Vec<usize> {
        (0..self.members.len()).map(|member| self.has(member)).collect()
    }

    /// Publishes; how many locks that took.
    fn publish(&self, qos: QoS) -> usize {
        let message = Arc::new(Message::new("t", b"x", qos));
        let mut turn = Turn::new();
        let before = locks_taken();
        assert!(self.core.publish_message(&mut turn, &message, false).is_none());
        let taken = locks_taken() - before;
        turn.finish(&self.core);
        taken
    }

    fn publish_many(&self, n: usize, qos: QoS) {
        for _ in 0..n {
            self.publish(qos);
        }
    }

    /// Publishes at QoS 1; who has one more now.
    fn next(&self) -> Option<usize> {
        let before = self.all();
        self.publish(QoS::AtLeastOnce);
        self.all().iter().zip(before).position(|(now, before)| *now > before)
    }

    fn dropped(&self, label: &str) -> u64 {
        self.core.metrics().dropped.get(label).copied().unwrap_or(0)
    }
}

#[test]
fn a_message_costs_no_more_however_many_members_are_busy() {
    let house = House::with_connected(5_000);
    for n in 0..5_000 {
        let tries = house.publish(QoS::AtLeastOnce);
        assert!(tries <= 2, "{tries} members were locked for message {n}, to members that are ready");
    }
    for n in 0..1_000 {
        let tries = house.publish(QoS::AtLeastOnce);
        assert!(tries <= 2, "{tries} members were locked for message {n}, to members that are busy");
    }
}

#[test]
fn busy_members_have_their_turns_in_order() {
    let house = House::with_connected(5);
    let order: Vec<_> = (0..15).map(|_| house.next().unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
}

#[test]
fn ready_members_have_their_turns_in_order() {
    let mut house = House::new(Limits::default());
    for _ in 0..4 {
        let member = house.join();
        house.attach(member, 100);
    }
    let order: Vec<_> = (0..12).map(|_| house.next().unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn a_busy_member_that_acknowledges_gets_the_next_message() {
    let house = House::with_connected(100);
    for _ in 0..100 {
        house.publish(QoS::AtLeastOnce);
    }
    for member in [57, 3, 99, 57] {
        house.acknowledge(member);
        assert_eq!(house.next(), Some(member));
    }
}

#[test]
fn a_full_group_drops_after_few_tries_and_goes_on_when_there_is_room() {
    let mut house = House::new(Limits { queue_messages_max: 2, ..Limits::default() });
    for _ in 0..1_000 {
        let member = house.join();
        house.attach(member, 1);
    }
    for _ in 0..3_000 {
        house.publish(QoS::AtLeastOnce);
    }
    assert_eq!((house.dropped("queue_full"), house.all()), (0, vec![3; 1_000]));
    // The first that finds them full may correct how they are filed.
    let corrections = house.publish(QoS::AtLeastOnce);
    assert!(corrections <= 1_010, "{corrections}");
    for n in 0..100 {
        let tries = house.publish(QoS::AtLeastOnce);
        assert!(tries <= 8, "{tries} members were locked for message {n}");
    }
    assert_eq!(house.dropped("queue_full"), 101);
    for member in [700, 7, 700] {
        house.acknowledge(member);
        assert_eq!(house.has(member), 2);
        assert_eq!(house.next(), Some(member));
    }
}

#[test]
fn absent_sessions_have_their_turns_until_one_attaches() {
    let mut house = House::new(Limits::default());
    for _ in 0..4 {
        house.join();
    }
    let order: Vec<_> = (0..8).map(|_| house.next().unwrap()).collect();
    assert_eq!(order, [0, 1, 2, 3, 0, 1, 2, 3]);
    house.attach(2, 10);
    assert_eq!((house.next(), house.next()), (Some(2), Some(2)));
    house.detach(2);
    let order: Vec<_> = (0..4).map(|_| house.next().unwrap()).collect();
    assert_eq!(order, [0, 1, 3, 2], "it stands behind those that have waited longer");
}

#[test]
fn a_message_at_qos_0_to_absent_members_is_dropped_at_once() {
    let mut house = House::new(Limits::default());
    for _ in 0..1_000 {
        house.join();
    }
    let tries = house.publish(QoS::AtMostOnce);
    assert!(tries <= 8, "{tries} members were locked");
    assert_eq!(house.dropped("offline_qos0"), 1);
}

#[test]
fn an_absent_member_that_asked_for_qos_0_does_not_stop_the_others() {
    let mut house = House::new(Limits::default());
    for _ in 0..200 {
        house.join_with(QoS::AtMostOnce);
    }
    let member = house.join();
    house.publish(QoS::AtLeastOnce);
    assert_eq!(house.has(member), 1);
    let tries = house.publish(QoS::AtLeastOnce);
    assert!(tries <= 2 && house.has(member) == 2, "{tries} members were locked");
}

#[test]
fn who_leaves_in_the_midst_is_passed_over() {
    let house = House::with_connected(5);
    for _ in 0..7 {
        house.publish(QoS::AtLeastOnce);
    }
    let leaving = &house.members[2];
    {
        let mut state = leaving.lock();
        state.session.unsubscribe(FILTER);
        house.core.remove_subscription(FILTER, leaving.key, &mut state);
    }
    house.core.end_session(&house.members[4]);
    house.core.hand_over_now();
    assert_eq!(house.all(), [2, 2, 1, 2, 0], "what one had that has ended goes to the next");
    let order: Vec<_> = (0..6).map(|_| house.next().unwrap()).collect();
    assert_eq!(order, [0, 1, 3, 0, 1, 3]);
}

#[test]
fn a_group_without_members_leaves_nothing() {
    let house = House::with_connected(3);
    for member in &house.members {
        house.core.end_session(member);
        house.core.hand_over_now();
    }
    assert_eq!((house.core.groups.len(), house.core.router.subscriptions()), (0, 0));
    house.publish(QoS::AtLeastOnce);
}

#[test]
fn a_connected_member_is_found_without_locking_all() {
    let mut house = House::new(Limits::default());
    for _ in 0..2_000 {
        house.join();
    }
    let keys: Vec<u64> = house.members.iter().map(|member| member.key).collect();
    let before = locks_taken();
    assert!(!house.core.has_connected_member(FILTER, keys[0], false));
    house.attach(1_999, 1);
    assert!(house.core.has_connected_member(FILTER, keys[0], false));
    assert!(!house.core.has_connected_member(FILTER, keys[1_999], false), "nobody else is connected");
    // Busy, and full, it is still connected.
    house.publish(QoS::AtLeastOnce);
    house.publish(QoS::AtLeastOnce);
    assert!(house.core.has_connected_member(FILTER, keys[0], false));
    house.detach(1_999);
    assert!(!house.core.has_connected_member(FILTER, keys[0], false));
    let taken = locks_taken() - before;
    assert!(taken <= 20, "{taken} locks");
}

#[test]
fn a_session_in_many_groups_is_told_of_where_it_was_filed_worse() {
    const GROUPS: usize = 50;
    let mut house = House::new(Limits { queue_messages_max: 1_000, ..Limits::default() });
    let (one, other) = (house.join(), house.join());
    let filter = |n: usize| format!("$share/{n}/t");
    let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
    for n in 0..GROUPS {
        for client in &house.members {
            house.core.add_subscription(client, &mut client.lock(), &filter(n), options).unwrap();
        }
    }
    house.attach(one, 1);
    house.attach(other, 64);
    // In every group the first is found busy.
    house.publish_many(3, QoS::AtLeastOnce);
    let total = house.all().iter().sum::<usize>();
    assert_eq!(total, 3 * (GROUPS + 1));
    let leaving = &house.members[one];
    for n in (0..GROUPS).step_by(3) {
        house.core.remove_subscription(&filter(n), leaving.key, &mut leaving.lock());
    }
    while house.members[one].lock().session.unfinished() > 0 {
        house.acknowledge(one);
    }
    // It is ready, and has its turn in every group it is still in.
    house.attach(one, 64);
    while house.members[other].lock().session.unfinished() > 0 {
        house.acknowledge(other);
    }
    house.publish_many(2, QoS::AtMostOnce);
    let worse = house.members[one].lock().filed_worse.as_ref().is_none_or(|worse| worse.is_empty());
    assert!(worse, "a group has it filed as busy still");
}

#[test]
fn a_program_that_embeds_the_broker_takes_turns_with_clients() {
    let mut house = House::new(Limits { queue_messages_max: 2, ..Limits::default() });
    let member = house.join();
    house.attach(member, 64);
    let session = Session::new(house.core.limits.of_sessions(), false);
    let local = Client::in_process(house.core.next_key(), session);
    house.enter(&local, QoS::AtLeastOnce);
    let waits = || local.lock().local.as_ref().map_or(0, |queue| queue.len());
    house.publish_many(4, QoS::AtLeastOnce);
    assert_eq!((house.has(member), waits()), (2, 2));
    house.publish_many(3, QoS::AtMostOnce);
    assert_eq!((waits(), house.dropped("queue_full")), (2, 0), "full, it is passed over");
    drop(local.lock().local.as_mut().and_then(|queue| queue.pop()));
    house.publish_many(2, QoS::AtLeastOnce);
    assert_eq!(waits(), 2, "there was room again");
}

#[test]
fn higher_bounds_count_at_once() {
    let mut house = House::new(Limits { queue_messages_max: 1, ..Limits::default() });
    let member = house.join();
    house.attach(member, 1);
    house.publish_many(4, QoS::AtLeastOnce);
    assert_eq!((house.has(member), house.dropped("queue_full")), (2, 2));
    house.core.clients.insert(Arc::clone(&house.members[member].id), Arc::clone(&house.members[member]));
    house.core.set_limits(&Limits { queue_messages_max: 5, ..Limits::default() });
    let other = house.join();
    house.publish_many(4, QoS::AtLeastOnce);
    assert_eq!((house.has(member), house.has(other)), (6, 0));
}

#[test]
fn a_member_that_may_not_read_the_topic_is_passed_over() {
    let mut house = House::with_connected(3);
    let rules = |text: &str| Acl::parse(text.as_bytes(), "f").ok().map(Arc::new);
    house.core.set_rules(rules("pattern read %c\n"), false);
    let owner = Owner { client_id: Arc::from("t"), user: None };
    let client =
        Client::new(house.core.next_key(), owner, Session::new(house.core.limits.of_sessions(), true), None);
    house.enter(&client, QoS::AtLeastOnce);
    house.members.push(client);
    house.attach(3, 1);
    for n in 0..5 {
        let tries = house.publish(QoS::AtLeastOnce);
        assert!(tries <= 2, "{tries} members were locked for message {n}");
    }
    assert_eq!(house.all(), [0, 0, 0, 5]);
    // Each had its turn and keeps its filing: with other rules they are ready.
    house.core.set_rules(rules("topic read #\n"), false);
    house.publish_many(3, QoS::AtLeastOnce);
    assert_eq!(house.all(), [1, 1, 1, 5]);
    house.core.set_rules(rules("topic read other\n"), false);
    house.publish(QoS::AtLeastOnce);
    assert_eq!((house.all(), house.dropped("acl_read")), (vec![1, 1, 1, 5], 1));
}

#[test]
fn a_message_too_large_for_one_goes_to_another() {
    let mut house = House::with_connected(0);
    for n in 0..10 {
        let member = house.join();
        let packet_bytes_max = if n == 7 { usize::MAX } else { 4 };
        let terms = Terms { packet_bytes_max, ..Terms::V311 };
        house.members[member].lock().session.attach(terms, b"connack", None, true);
    }
    house.publish_many(5, QoS::AtLeastOnce);
    assert_eq!(house.all(), [0, 0, 0, 0, 0, 0, 0, 5, 0, 0]);
    house.core.end_session(&house.members[7]);
    house.core.hand_over_now();
    let dropped = house.dropped("client_packet_max");
    assert_eq!(dropped, 5, "what it had goes to nobody");
    for _ in 0..200 {
        let member = house.join();
        let terms = Terms { packet_bytes_max: 4, ..Terms::V311 };
        house.members[member].lock().session.attach(terms, b"connack", None, true);
    }
    let tries = house.publish(QoS::AtLeastOnce);
    assert!(tries <= 64, "{tries} members were locked");
}
