//! Start: the sessions, retained messages and wills that the durable log remembers are put where they were.
//!
//! All of it before the listeners open: whoever connects finds the routes of the others, and no device that died with the broker is
//! announced as alive.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ahash::RandomState;

use super::client::KeepFor;
use super::turn_log::TurnLog;
use super::{Client, Core, Turn};
use crate::accounts::Room;
use crate::escape::escape;
use crate::ledger::Stored;
use crate::protocol::{PacketId, QoS};
use crate::router::SubscriptionOptions;
use crate::session::{Message, Owner, RestoredMessage, Session, SharedMessage, Will, message_cost};
use crate::storage::{
    Begun, OwnedMessage, Record, Recovered, RecoveredMessage, RecoveredSession, RecoveredWill,
};

/// The sessions that a start has taken up, for what names them by their keys.
type ByKey = HashMap<u64, Arc<Client>, RandomState>;

/// What a start has found, for the log.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Restored {
    pub(crate) sessions: usize,
    pub(crate) queued: usize,
    pub(crate) retained: usize,
    pub(crate) wills: usize,
}

impl Core {
    /// Takes everything up. Sessions whose time has passed are ended, wills of those who were connected are published.
    pub(crate) fn restore(self: &Arc<Self>, mut recovered: Recovered) -> Restored {
        let _turn = self.enter_turn();
        self.next_key.fetch_max(recovered.next_key, Ordering::AcqRel);
        self.next_revision.fetch_max(recovered.next_revision, Ordering::AcqRel);
        let mut restored = Restored::default();
        for (topic, retained) in recovered.take_retained() {
            let Some(message) = retained.message else { continue };
            if message.expires_at.is_some_and(|at| at <= self.clock.base()) {
                continue;
            }
            let message = self.owned(&topic, &message);
            message.set_stored(Stored::new(&self.ledger, retained.position, retained.frame_bytes));
            let source = retained.source.map(|source| owner(&source.client_id, source.user.as_deref()));
            self.restore_retained(message, retained.revision, source.as_ref());
            restored.retained += 1;
        }
        let mut sessions: Vec<(u64, RecoveredSession)> = recovered.sessions.drain().collect();
        // Of two with one client id, which only damage can bring about, the newer one stays.
        sessions.sort_unstable_by_key(|(key, _)| *key);
        let mut turn_log = TurnLog::default();
        let mut by_key = ByKey::default();
        for (key, session) in sessions {
            if session.client_id.is_empty() {
                turn_log.record(&Record::SessionEnd { session: key }, false);
                continue;
            }
            if session.keep == Some(Duration::ZERO) {
                self.restore_end(&mut turn_log, key, session);
                continue;
            }
            restored.queued += session.messages.len();
            restored.sessions += 1;
            by_key.insert(key, self.restore_session(&mut turn_log, key, session));
        }
        turn_log.commit(self);
        restored.wills = recovered.wills.len();
        for (key, will) in recovered.wills {
            self.restore_will(key, &will, &by_key);
        }
        restored
    }

    /// A session that was about to end. What it had not given to other members yet is given now.
    fn restore_end(&self, turn_log: &mut TurnLog, key: u64, recovered: RecoveredSession) {
        let mut messages = Vec::new();
        let begun = self.begun_before(&recovered).exactly_once;
        for message in recovered.messages {
            let may_be_sent = !message.is_given_up && message.sequence < begun;
            if message.qos != QoS::ExactlyOnce || !may_be_sent {
                messages.extend(self.given_up(message));
            }
        }
        if messages.is_empty() {
            turn_log.record(&Record::SessionEnd { session: key }, false);
            return;
        }
        let owner = owner(&recovered.client_id, recovered.user.as_deref());
        let session = Session::new(self.limits.of_sessions(), false);
        let charge = self.charge_session(&owner, Room::Given);
        self.resume_end(&Client::new(key, owner, session, charge), messages);
    }

    /// A message that other members of its group are to get.
    fn given_up(&self, message: RecoveredMessage) -> Option<SharedMessage> {
        let filter = Arc::from(message.extra?.shared?);
        let stored = Stored::new(&self.ledger, message.position, message.frame_bytes);
        Some(SharedMessage { filter, message: Err(stored), sequence: message.sequence, origin: None })
    }

    /// What may have been sent before the end of the last run.
    fn begun_before(&self, recovered: &RecoveredSession) -> Begun {
        // With a connection at the crash, whatever fits into its window may have been sent. Ends of
        // QoS 1 are put on record without haste: any number of those may have been sent, so they do
        // not count. At QoS 2 most ends are PUBRECs, which are on record before PUBREL. But a PUBREC
        // with an error, an expiry and a message too large for the client end a delivery without
        // haste as well. So those of the last batch stand in the queue again and count: as many that
        // were sent may lie beyond the window. They come again without DUP, under their packet ids,
        // by which a client knows them; if the session ends, other members may be sent them.
        let window = usize::from(self.limits.now().inflight_max);
        recovered.detached.map_or_else(
            || {
                let mut exactly_once = recovered
                    .messages
                    .iter()
                    .filter(|message| message.qos == QoS::ExactlyOnce && !message.is_given_up);
                let beyond = exactly_once.nth(window);
                let next = recovered.next_sequence;
                Begun { at_least_once: next, exactly_once: beyond.map_or(next, |message| message.sequence) }
            },
            |(_, begun)| begun,
        )
    }

    fn restore_session(
        self: &Arc<Self>,
        turn_log: &mut TurnLog,
        key: u64,
        recovered: RecoveredSession,
    ) -> Arc<Client> {
        let mut session = Session::new(self.limits.of_sessions(), true);
        session.make_durable(&self.ledger);
        let begun = self.begun_before(&recovered);
        if recovered.detached.is_none() {
            // What comes from now on was not sent before, should the client stay away until the next crash.
            let (since, keep) = (self.clock.base(), recovered.keep);
            turn_log.record(&Record::Detached { session: key, since, keep, begun }, false);
        }
        let (given_up, messages): (Vec<_>, Vec<_>) =
            recovered.messages.into_iter().partition(|message| message.is_given_up);
        let messages = messages.into_iter().map(|message| {
            let (subscription_ids, shared) = match message.extra {
                Some(extra) => (extra.subscription_ids, extra.shared.map(Arc::from)),
                None => (Box::default(), None),
            };
            RestoredMessage {
                sequence: message.sequence,
                position: message.position,
                frame_bytes: message.frame_bytes,
                cost: u32::try_from(message_cost(message.message_bytes as usize)).unwrap_or(u32::MAX),
                qos: message.qos,
                retain: message.retain,
                again: message.sequence
                    < if message.qos == QoS::ExactlyOnce { begun.exactly_once } else { begun.at_least_once },
                subscription_ids,
                shared,
            }
        });
        let completing: Vec<(u64, PacketId)> = recovered
            .completing
            .iter()
            .filter_map(|(sequence, id)| Some((*sequence, PacketId::new(*id)?)))
            .collect();
        let received: Vec<PacketId> = recovered.received.iter().filter_map(|id| PacketId::new(*id)).collect();
        session.restore(recovered.next_sequence, messages, &completing, &received);

        let owner = owner(&recovered.client_id, recovered.user.as_deref());
        let charge = self.charge_session(&owner, Room::Given);
        let client = Client::new(key, owner, session, charge);
        client.set_durable();
        let mut guard = client.lock();
        let state = &mut *guard;
        // It has had a connection, whatever the record says.
        state.epoch = recovered.epoch.max(1);
        state.keep_for = recovered.keep.map_or(KeepFor::Ever, KeepFor::Time);
        if let KeepFor::Time(time) = state.keep_for {
            let since = recovered.detached.map_or_else(|| self.clock.base(), |(since, _)| since);
            let passed = Duration::from_millis(self.clock.base().saturating_sub(since));
            let at = self.now().after(time.saturating_sub(passed));
            state.expires_at = Some(at);
            self.timers.set(&client, state, at);
        }
        // What others were about to have when the last run was stopped.
        let given_up = given_up.into_iter().filter_map(|message| self.given_up(message)).collect();
        self.give_away(&client, state, given_up);
        for (filter, options) in recovered.subscriptions {
            let options = SubscriptionOptions {
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                subscription_id: NonZeroU32::new(options.subscription_id),
            };
            if self.restore_subscription(&client, state, &filter, options).is_err() {
                tracing::warn!(
                    client_id = %escape(&client.id),
                    filter = %escape(&filter),
                    "a stored subscription is beyond the limits of today (limits.subscriptions_max, limits.subscription_bytes_max, \
                     limits.topic_levels_max) and left out"
                );
                self.metrics.dropped.add("subscriptions_max", 1);
            }
        }
        drop(guard);
        if let Some(older) = self.clients.insert(Arc::clone(&client.id), Arc::clone(&client)) {
            // Not by `end_session`: its client id belongs to the newer one.
            self.end_session(&older);
        }
        client
    }

    /// The will of a client that was connected when the broker stopped: published now, or when its delay has passed.
    fn restore_will(&self, key: u64, recovered: &RecoveredWill, sessions: &ByKey) {
        let will = Will {
            key,
            owner: sessions.get(&recovered.session).map_or_else(
                || owner(&recovered.client_id, recovered.user.as_deref()),
                |client| client.owner(),
            ),
            topic: Arc::from(&*recovered.topic),
            payload: recovered.message.payload.clone(),
            qos: recovered.message.qos,
            retain: recovered.retain,
            delay: recovered.delay,
            forwarded: recovered.message.properties.clone(),
            expiry_seconds: recovered.expiry_seconds,
            charge: None,
        };
        let will = will.charged(&self.accounts);
        if !will.delay.is_zero()
            && let Some(client) = sessions.get(&recovered.session)
        {
            let mut state = client.lock();
            let at = self.now().after(will.delay);
            state.delayed_will = Some(Box::new((at, will)));
            if let Some(at) = state.offline_deadline() {
                self.timers.set(client, &mut state, at);
            }
            return;
        }
        let mut turn = Turn::new();
        turn.begin(self);
        let fan_out = self.publish_will_of(&mut turn, recovered.session, &will);
        turn.finish(self);
        if let Some(fan_out) = fan_out {
            self.complete_fan_out_now(fan_out);
        }
    }

    fn owned(&self, topic: &str, message: &OwnedMessage) -> Message {
        let expires_at = message.expires_at.map(|at| self.moment(at));
        Message::new(topic, &message.payload, message.qos).with_properties(&message.properties, expires_at)
    }
}

fn owner(client_id: &str, user: Option<&str>) -> Owner {
    Owner { client_id: Arc::from(client_id), user: user.map(Arc::from) }
}
