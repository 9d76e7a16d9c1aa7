//! A subscriber with a persistent session: it keeps its QoS 2 ids through everything.

use std::collections::BTreeSet;
use std::time::Duration;

use super::account::Account;
use super::broker::Dead;
use super::support::server_packet::{Publish, ServerPacket};
use super::support::wire::{self, Connect};
use super::wire_client::Wire;
use super::world::{Known, Life};
use crate::storage::simulated::Random;

struct Subscription {
    filter: &'static str,
    qos: u8,
    known: Known,
}

/// See the module's documentation.
pub(super) struct Receiver {
    name: &'static str,
    /// The members of a group share one account.
    is_member: bool,
    session: Known,
    subscriptions: Vec<Subscription>,
    /// QoS 2 messages that the broker has not released.
    open: BTreeSet<u16>,
    wire: Option<Wire>,
    /// It acknowledges nothing more on this connection.
    is_holding: bool,
}

fn matches(filter: &str, topic: &str) -> bool {
    let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
    topic.starts_with(filter.trim_end_matches(['#', '+']))
}

impl Receiver {
    pub(super) fn new(name: &'static str, filters: &[(&'static str, u8)]) -> Self {
        let subscriptions = filters
            .iter()
            .map(|(filter, qos)| Subscription { filter, qos: *qos, known: Known::No })
            .collect();
        Self {
            name,
            is_member: false,
            session: Known::No,
            subscriptions,
            open: BTreeSet::new(),
            wire: None,
            is_holding: false,
        }
    }

    pub(super) fn member(name: &'static str) -> Self {
        Self { is_member: true, ..Self::new(name, &[("$share/g/two/#", 2), ("$share/g/one/#", 1)]) }
    }

    pub(super) fn account_name(&self) -> &'static str {
        if self.is_member { "group" } else { self.name }
    }

    /// Whether a message on this topic comes here.
    pub(super) fn wants(&self, topic: &str) -> Known {
        let mine = self.subscriptions.iter().find(|subscription| matches(subscription.filter, topic));
        mine.map_or(Known::No, |subscription| subscription.known)
    }

    /// Whether it surely has its session and all its subscriptions.
    pub(super) fn is_sure(&self) -> bool {
        let is_sure = |subscription: &Subscription| subscription.known == Known::Yes;
        self.session == Known::Yes && self.subscriptions.iter().all(is_sure)
    }

    fn ends_with_session(&self, topic: &str) -> bool {
        self.subscriptions.iter().any(|known| known.qos == 2 && matches(known.filter, topic))
    }

    pub(super) fn dies(&mut self) {
        self.wire = None;
    }

    /// CleanSession 0, over the old connection if there is one; then subscribes to what it is not sure to have.
    pub(super) fn connect(
        &mut self,
        life: &Life,
        account: &mut Account,
        subscribe: bool,
    ) -> Result<(), Dead> {
        account.note(format!("{} connects", self.name));
        let known = self.session;
        if known == Known::No {
            self.session = Known::Maybe;
        }
        // Until the broker has seen the new connection, the old one stays open: this is a take-over.
        let opened = life.open(&Connect::persistent(self.name));
        let (wire, present) = opened?;
        match (known, present) {
            (Known::Yes, false) => account.fail(&format!("the session of {} is lost", self.name)),
            (Known::No, true) => account.fail(&format!("{} has a session and should not", self.name)),
            _ => {}
        }
        if !present {
            self.is_new(account);
        }
        self.session = Known::Yes;
        self.wire = Some(wire);
        self.is_holding = false;
        if subscribe {
            self.subscribe(account)?;
        }
        Ok(())
    }

    fn is_new(&mut self, account: &mut Account) {
        self.open.clear();
        self.subscriptions.iter_mut().for_each(|subscription| subscription.known = Known::No);
        if !self.is_member {
            account.session_gone(self.name);
        }
    }

    fn subscribe(&mut self, account: &mut Account) -> Result<(), Dead> {
        let asked: Vec<(&str, u8)> = self
            .subscriptions
            .iter_mut()
            .filter(|subscription| subscription.known != Known::Yes)
            .map(|subscription| {
                subscription.known = Known::Maybe;
                (subscription.filter, subscription.qos)
            })
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        account.note(format!("{} subscribes to {asked:?}", self.name));
        self.send(&wire::subscribe(9, &asked))?;
        self.until(account, |packet| match packet {
            ServerPacket::SubAck(9, codes) => {
                assert!(codes.iter().all(|code| *code < 3), "{codes:?}");
                true
            }
            _ => false,
        })?;
        self.subscriptions.iter_mut().for_each(|subscription| subscription.known = Known::Yes);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, account: &mut Account, random: &mut Random) -> Result<(), Dead> {
        if self.wire.is_none() {
            return Ok(());
        }
        let index = random.below(self.subscriptions.len());
        let filter = self.subscriptions[index].filter;
        account.note(format!("{} unsubscribes from {filter}", self.name));
        self.subscriptions[index].known = Known::Maybe;
        account.waive(self.name, |topic| matches(filter, topic));
        self.send(&wire::unsubscribe(8, &[filter]))?;
        self.until(account, |packet| packet == ServerPacket::UnsubAck(8))?;
        self.subscriptions[index].known = Known::No;
        Ok(())
    }

    /// CleanSession 1: after CONNACK there is nothing of the old session, for ever.
    pub(super) fn begin_anew(&mut self, life: &Life, account: &mut Account) -> Result<(), Dead> {
        account.note(format!("{} begins anew", self.name));
        // What it had begun at QoS 2 ends with its session ([MQTT-4.8.2-5]); the rest goes to another member.
        account.waive(self.account_name(), |topic| !self.is_member || self.ends_with_session(topic));
        self.session = Known::Maybe;
        for subscription in &mut self.subscriptions {
            if subscription.known == Known::Yes {
                subscription.known = Known::Maybe;
            }
        }
        let (wire, present) = life.open(&Connect::new(self.name))?;
        assert!(!present);
        self.session = Known::No;
        self.is_new(account);
        account.note(format!("{} has begun anew", self.name));
        // Whether its end comes by DISCONNECT or not does not matter any more.
        self.wire = None;
        drop(wire);
        Ok(())
    }

    pub(super) fn leave(&mut self, account: &mut Account, politely: bool) -> Result<(), Dead> {
        let Some(wire) = self.wire.take() else { return Ok(()) };
        account.note(format!("{} leaves, politely: {politely}", self.name));
        if politely { wire.leave(&wire::DISCONNECT) } else { Ok(()) }
    }

    /// Takes what is there. `hold`: at some point it stops to acknowledge.
    pub(super) fn drain(&mut self, account: &mut Account, hold: bool) -> Result<(), Dead> {
        if self.wire.is_none() {
            return Ok(());
        }
        self.is_holding |= hold;
        account.note(format!("{} takes what is there, acknowledges: {}", self.name, !self.is_holding));
        self.send(&wire::PINGREQ)?;
        self.until(account, |packet| packet == ServerPacket::PingResp)
    }

    /// Takes what comes within this time.
    pub(super) fn take(&mut self, account: &mut Account, time: Duration) -> Result<(), Dead> {
        while let Some(wire) = &mut self.wire
            && let Some(packet) = wire.next(time)?
        {
            self.handle(account, packet)?;
        }
        Ok(())
    }

    fn until(
        &mut self,
        account: &mut Account,
        mut done: impl FnMut(ServerPacket) -> bool,
    ) -> Result<(), Dead> {
        loop {
            let Some(wire) = &mut self.wire else { return Err(Dead) };
            let packet = wire.expect()?;
            match packet {
                ServerPacket::Publish(_) | ServerPacket::PubRel(_) => self.handle(account, packet)?,
                packet if done(packet.clone()) => return Ok(()),
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    fn handle(&mut self, account: &mut Account, packet: ServerPacket) -> Result<(), Dead> {
        let answer = match packet {
            ServerPacket::Publish(publish) => self.publish(account, &publish),
            ServerPacket::PubRel(id) => {
                account.note(format!("  {} < PUBREL {id}", self.name));
                self.open.remove(&id);
                wire::pubcomp(id)
            }
            other => panic!("unexpected: {other:?}"),
        };
        if self.is_holding { Ok(()) } else { self.send(&answer) }
    }

    fn publish(&mut self, account: &mut Account, publish: &Publish) -> Vec<u8> {
        let id = publish.id();
        if publish.qos == 2 && !self.open.insert(id) {
            account.note(format!("  {} < {} id {id} again", self.name, publish.text()));
            if !publish.dup {
                account.fail(&format!("{} got {publish:?}, whose id is in use, without DUP", self.name));
            }
            return wire::pubrec(id);
        }
        let filter = self.subscriptions.iter().find(|known| matches(known.filter, &publish.topic));
        let granted = filter.map_or(0, |subscription| subscription.qos);
        account.received(self.account_name(), publish, granted, !self.is_member);
        if publish.qos == 2 { wire::pubrec(id) } else { wire::puback(id) }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Dead> {
        self.wire.as_mut().map_or(Err(Dead), |wire| wire.send(bytes))
    }
}
