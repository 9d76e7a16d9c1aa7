//! Who may publish and receive what: the place where the broker asks its rules.
//!
//! A route that a connection keeps was judged when it was made: receivers that may not read the topic are not in it, and a [`Verdict`]
//! beside it says whether the connection may publish there. So a message costs no question. New rules make every kept route be made anew
//! and are put to what waits in queues. In-process publishers and subscribers are the program itself: nobody asks them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::client::signal;
use super::{Cause, Client, Core};
use crate::auth::acl::{Access, Acl, Decision, Who};
use crate::auth::entry::EntryId;
use crate::authentication::AuthenticationMethods;
use crate::escape::escape;
use crate::router::Route;
use crate::session::{Message, Owner};

/// What the rules say of a topic for the connection that publishes to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) may_publish: bool,
    /// It follows from rules, and is about this publisher alone.
    pub(crate) is_ruled: bool,
    /// Sessions that have subscribed to the topic and may not read it.
    pub(crate) left_out: u32,
}

impl Verdict {
    const FREE: Self = Self { may_publish: true, is_ruled: false, left_out: 0 };
}

/// What a broker is given to judge its clients by.
#[derive(Default)]
pub(crate) struct Security {
    pub(crate) methods: AuthenticationMethods,
    /// `None`: everybody may do everything.
    pub(crate) rules: Option<Arc<Acl>>,
    /// `auth.subscribe = "refuse"`.
    pub(crate) refuses_subscriptions: bool,
}

/// The rules of a broker.
pub(crate) struct AccessControl {
    is_active: AtomicBool,
    /// `auth.subscribe`: a filter that asks for more than the client may read is refused.
    refuses_subscriptions: AtomicBool,
    /// `None`: everybody may do everything.
    rules: RwLock<Option<Arc<Acl>>>,
}

impl AccessControl {
    pub(super) fn is_active(&self) -> bool {
        self.is_active.load(Ordering::Acquire)
    }

    fn rules(&self) -> Option<Arc<Acl>> {
        if self.is_active() { self.rules.read().clone() } else { None }
    }

    /// Whether SUBSCRIBE is judged, and not only what comes of it.
    pub(super) fn refuses_subscriptions(&self) -> bool {
        self.refuses_subscriptions.load(Ordering::Relaxed)
    }

    pub(super) fn new(rules: Option<Arc<Acl>>, refuses_subscriptions: bool) -> Self {
        let is_active = AtomicBool::new(rules.is_some());
        let refuses_subscriptions = AtomicBool::new(refuses_subscriptions);
        Self { is_active, refuses_subscriptions, rules: RwLock::new(rules) }
    }

    fn set(&self, rules: Option<Arc<Acl>>) {
        let is_active = rules.is_some();
        *self.rules.write() = rules;
        self.is_active.store(is_active, Ordering::Release);
    }
}

impl Core {
    /// Puts new rules in force: for routes that are kept, for what waits in queues, for replays under way, and from now on.
    /// Whether subscriptions are refused counts for those that come.
    pub(crate) fn set_rules(&self, rules: Option<Arc<Acl>>, refuses_subscriptions: bool) {
        self.access.refuses_subscriptions.store(refuses_subscriptions, Ordering::Relaxed);
        self.access.set(rules.clone());
        self.router.invalidate();
        let Some(rules) = rules else { return };
        // Collected first: no guard of the registry lives while a client is locked.
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            let _turn = self.enter_turn();
            let mut state = client.lock();
            let dropped = state.session.drop_queued(|topic| !may_read(&rules, &client, topic));
            if dropped > 0 {
                self.metrics.dropped.add("acl_read", dropped);
                tracing::info!(
                    client_id = %escape(&client.id),
                    dropped,
                    "queued messages dropped: the rules of access do not allow the client to read them any more"
                );
            }
            self.record_work_now(&client, &mut state.session);
            if dropped > 0
                && let Some(link) = &state.link
            {
                // What stood behind it may go now.
                link.signal(signal::FLUSH);
            }
        }
    }

    /// Ends the connections that came in by an entry of the password file that does not count any more. Sessions stay, and so do the rules for
    /// them; wills are published where these allow it.
    pub(crate) fn end_logins_unless(&self, counts: impl Fn(&str, EntryId) -> bool) {
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        clients.iter().for_each(|client| self.end_login_unless(client, &counts));
    }

    /// The same for one client.
    pub(crate) fn end_login_unless(&self, client: &Client, counts: impl Fn(&str, EntryId) -> bool) {
        let mut state = client.lock();
        if let (Some(link), Some(user)) = (&mut state.link, client.user.as_deref())
            && link.login_entry.is_some_and(|entry| !counts(user, entry))
        {
            link.close_cause.get_or_insert(Cause::LoginRevoked);
            link.signal(signal::CLOSE);
        }
    }

    /// Nobody learns what the rules say until this is dropped.
    #[cfg(test)]
    pub(crate) fn hold_rules(&self) -> impl Drop {
        self.access.rules.write()
    }

    /// Takes the receivers out that may not read the topic, and says whether `publisher` may publish there.
    pub(super) fn judge(
        &self,
        publisher: Option<&Client>,
        topic: &str,
        routes: &mut Vec<Route<Arc<Client>>>,
    ) -> Verdict {
        let Some(rules) = self.access.rules() else { return Verdict::FREE };
        let mut left_out = 0;
        let mut last = None;
        routes.retain(|route| {
            let client = &route.subscriber;
            let may = may_read(&rules, client, topic);
            // A session may have several routes, one behind the other.
            if !may && last.replace(client.key) != Some(client.key) {
                left_out += 1;
            }
            may
        });
        let may_publish = publisher.is_none_or(|publisher| {
            let decision = rules.decide(who(publisher), Access::Write, topic);
            self.tell(&rules, who(publisher), "publish", topic, decision);
            decision.allowed
        });
        Verdict { may_publish, is_ruled: true, left_out }
    }

    /// Whether a will may be published, or what its owner has asked for otherwise.
    pub(super) fn may_publish(&self, owner: &Owner, topic: &str) -> bool {
        let Some(rules) = self.access.rules() else { return true };
        let who = Who { user: owner.user.as_deref(), client_id: &owner.client_id };
        let decision = rules.decide(who, Access::Write, topic);
        self.tell(&rules, who, "will", topic, decision);
        decision.allowed
    }

    /// Whether a session may have a message of this topic now.
    pub(super) fn may_receive(&self, client: &Client, topic: &str) -> bool {
        self.access.rules().is_none_or(|rules| may_read(&rules, client, topic))
    }

    /// Whether who stored a retained message may write its topic now. It stays where it is: rights can come back.
    pub(super) fn may_still_be_there(&self, message: &Message) -> bool {
        let Some(rules) = self.access.rules() else { return true };
        self.sources.get(message.source()).is_none_or(|source| {
            let who = Who { user: source.user.as_deref(), client_id: &source.client_id };
            rules.decide(who, Access::Write, message.topic()).allowed
        })
    }

    /// Whether a session may subscribe to this filter, where that is judged (`auth.subscribe`).
    pub(super) fn may_subscribe(&self, client: &Client, filter: &str) -> bool {
        if client.in_process {
            return true;
        }
        let Some(rules) = self.access.rules() else { return true };
        let decision = rules.may_subscribe(who(client), filter);
        self.tell(&rules, who(client), "subscribe", filter, decision);
        decision.allowed
    }

    fn tell(&self, rules: &Acl, who: Who<'_>, what: &'static str, topic: &str, decision: Decision) {
        if decision.allowed {
            return;
        }
        let Some(untold) = self.told.tell(what, self.now()) else { return };
        tracing::warn!(
            client_id = %escape(who.client_id),
            user_name = who.user.map(|name| tracing::field::display(escape(name))),
            access = what,
            topic = %escape(topic),
            rule = rules.why(decision),
            untold,
            "refused by the rules of access; told every ten seconds at most"
        );
    }
}

fn who(client: &Client) -> Who<'_> {
    Who { user: client.user.as_deref(), client_id: &client.id }
}

fn may_read(rules: &Acl, client: &Client, topic: &str) -> bool {
    // The members of a group are asked one by one.
    client.in_process || client.group.is_some() || rules.decide(who(client), Access::Read, topic).allowed
}
