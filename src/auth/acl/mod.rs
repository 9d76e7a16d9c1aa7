//! Access control lists: which client may read or write which topic.
//!
//! The rules are those of mosquitto's `acl_file`, from such a file (`file`) or from `[[acl]]` tables (`table`). For a client there are
//! two stages: the rules of its user (or of anonymous clients), then those for everyone, which are `pattern` lines and tables that
//! name nobody. In each stage a `deny` that matches decides first, then a rule that grants the access; the first stage that decides
//! is the end of it, so a `pattern deny` takes nothing away that a `topic` rule of the user grants. What no rule grants is denied.
//! A topic that begins with `$` is only matched by a rule that begins with `$`. mosquitto calls a client with an empty user name
//! anonymous; so does this.
//!
//! Where mosquitto 2.0.11 is laxer than its manual or lets a client choose its rights by its name, this is stricter:
//! - `+` or `#` in the client id or user name: nothing from the rules for everyone (the same in mosquitto). `/` in it: nothing from
//!   patterns that use the name (mosquitto inserts it, levels and all). A `deny` still matches as mosquitto's does.
//! - `pattern %c/#` gives a client called `$x` nothing below `$x`: the rule itself does not begin with `$`. (mosquitto grants it.)
//! - `%u` and `%c` inside of a level are a fault. (mosquitto's manual excludes them; the program inserts the name.)
//!
//! At SUBSCRIBE mosquitto 2.0.11 grants every valid filter and then decides on each message at delivery, retained ones included, with
//! [`Acl::decide`]'s question for reading. [`Acl::may_subscribe`] is the strict alternative.
//!
//! Values only; nothing here knows sessions. A decision allocates nothing and takes time in proportion to the rules of the client.

mod file;
mod filter;
mod load;
mod table;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;

pub use self::load::{Explanation, explain, load};

use self::filter::Template;
use crate::config::AclAccess;
use crate::escape::escape;
use crate::protocol::{SharedFilter, validate_topic_filter};

/// What a client wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// To be sent a message of the topic.
    Read,
    /// To publish to the topic.
    Write,
}

/// The client that asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// The user it has shown to be; `None` or empty for an anonymous client.
    pub user: Option<&'a str>,
    /// Its client id.
    pub client_id: &'a str,
}

impl<'a> Who<'a> {
    fn names(self) -> impl Iterator<Item = &'a str> {
        self.user.into_iter().chain([self.client_id])
    }
}

/// One rule of one [`Acl`]; of no use with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(u32);

/// Whether something is allowed, and why. Small enough to be kept for every client and topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is.
    pub allowed: bool,
    /// What decided.
    pub reason: Reason,
}

impl Decision {
    /// The rule that decided, if one did.
    pub fn rule(self) -> Option<RuleId> {
        match self.reason {
            Reason::Rule(id) => Some(id),
            Reason::NoRule | Reason::UnsafeName => None,
        }
    }

    const fn by(allowed: bool, id: RuleId) -> Self {
        Decision { allowed, reason: Reason::Rule(id) }
    }

    const fn denied(reason: Reason) -> Self {
        Decision { allowed: false, reason }
    }
}

/// Why a decision is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// This rule grants it, or denies it.
    Rule(RuleId),
    /// No rule grants it.
    NoRule,
    /// No rule of the user grants it, and the rules for everyone are not asked: the client id or the user name has `+` or `#` in it.
    UnsafeName,
}

/// A rule as its author sees it. Displayed as `acl.txt:3: topic read a/#`, on one line whatever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleRef<'a> {
    /// `file:line`, or the key path of a table such as `acl[3]`.
    pub place: &'a str,
    /// The line as it stands there, or one that would say the same as the table.
    pub text: &'a str,
}

impl fmt::Display for RuleRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place.escape_debug(), escape(self.text))
    }
}

/// Something wrong with a rule. Displayed on one line: `acl.txt:3: expected …`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclFault {
    /// `file:line`, the key path of a table such as `acl[3]`, or the file.
    pub place: String,
    /// What is wrong and what is expected instead.
    pub problem: String,
}

impl fmt::Display for AclFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place.escape_debug(), self.problem)
    }
}

/// Every fault that was found; never empty. Displayed with one fault on each line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclFaults(pub Vec<AclFault>);

impl AclFaults {
    /// `Ok` if there are none.
    fn check(faults: Vec<AclFault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(AclFaults(faults)) }
    }
}

impl fmt::Display for AclFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for AclFaults {}

/// Whom a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whom<'a> {
    Everyone,
    Anonymous,
    User(&'a str),
}

#[derive(Debug, Clone)]
struct Rule {
    template: Template,
    access: AclAccess,
    place: Box<str>,
    text: Box<str>,
}

impl Rule {
    fn gives(&self, access: Access) -> bool {
        match self.access {
            AclAccess::ReadWrite => true,
            AclAccess::Read => access == Access::Read,
            AclAccess::Write => access == Access::Write,
            AclAccess::Deny => false,
        }
    }
}

/// The rules of one stage, each kind in the order in which it was read.
#[derive(Debug, Clone, Default)]
struct Stage {
    denies: Vec<RuleId>,
    grants: Vec<RuleId>,
}

impl Stage {
    fn is_empty(&self) -> bool {
        self.denies.is_empty() && self.grants.is_empty()
    }
}

/// A list of rules. Without any it denies everything; whether there is a list at all is for the caller to know.
#[derive(Debug, Clone, Default)]
pub struct Acl {
    rules: Vec<Rule>,
    users: HashMap<Box<str>, Stage, ahash::RandomState>,
    anonymous: Stage,
    everyone: Stage,
}

impl Acl {
    /// The rules that apply to a client. Cheap enough to be looked up anew for every decision that is not cached.
    pub fn for_client<'a>(&'a self, who: Who<'a>) -> ClientRules<'a> {
        let who = Who { user: who.user.filter(|user| !user.is_empty()), ..who };
        let own = match who.user {
            None => Some(&self.anonymous),
            Some(user) => self.users.get(user),
        };
        let has_unsafe_name = who.names().any(|name| name.contains(['+', '#']));
        ClientRules { acl: self, own, who, has_unsafe_name }
    }

    /// Whether `who` may read or write the topic name `topic`.
    pub fn decide(&self, who: Who<'_>, access: Access, topic: &str) -> Decision {
        self.for_client(who).decide(access, topic)
    }

    /// Whether `who` may subscribe to `filter` where SUBSCRIBE is judged strictly, see [`ClientRules::may_subscribe`].
    pub fn may_subscribe(&self, who: Who<'_>, filter: &str) -> Decision {
        self.for_client(who).may_subscribe(filter)
    }

    /// What stands behind a [`RuleId`]; `None` if it is of another list.
    pub fn rule(&self, id: RuleId) -> Option<RuleRef<'_>> {
        self.get(id).map(|rule| RuleRef { place: &rule.place, text: &rule.text })
    }

    /// Why a decision of this list is as it is, for people.
    pub fn why(&self, decision: Decision) -> String {
        match decision.reason {
            Reason::Rule(id) => self.rule(id).map(|rule| format!("by {rule}")).unwrap_or_default(),
            Reason::NoRule => "because no rule grants it".to_owned(),
            Reason::UnsafeName => {
                "because no rule of its own grants it, and a client with + or # in its id or user name gets \
                                   nothing from rules for everyone"
                    .to_owned()
            }
        }
    }

    /// How many rules there are.
    pub fn rules_count(&self) -> usize {
        self.rules.len()
    }

    /// How many users have rules of their own.
    pub fn users_count(&self) -> usize {
        self.users.len()
    }

    fn get(&self, id: RuleId) -> Option<&Rule> {
        self.rules.get(usize::try_from(id.0).ok()?)
    }

    fn add(&mut self, whom: Whom<'_>, rule: Rule) {
        // Four thousand million rules do not fit into memory.
        let Ok(id) = u32::try_from(self.rules.len()).map(RuleId) else { return };
        let stage = match whom {
            Whom::Everyone => &mut self.everyone,
            Whom::Anonymous => &mut self.anonymous,
            Whom::User(user) => self.users.entry(user.into()).or_default(),
        };
        match rule.access {
            AclAccess::Deny => stage.denies.push(id),
            AclAccess::Read | AclAccess::Write | AclAccess::ReadWrite => stage.grants.push(id),
        }
        self.rules.push(rule);
    }
}

/// The rules of an [`Acl`] that apply to one client.
#[derive(Debug, Clone, Copy)]
pub struct ClientRules<'a> {
    acl: &'a Acl,
    own: Option<&'a Stage>,
    who: Who<'a>,
    has_unsafe_name: bool,
}

impl ClientRules<'_> {
    /// Whether the client may read or write the topic name `topic`.
    pub fn decide(&self, access: Access, topic: &str) -> Decision {
        self.ask(
            |rule| rule.template.denies(topic, self.who),
            |rule| rule.gives(access) && rule.template.grants(topic, self.who),
        )
    }

    /// Whether the client may subscribe to `filter` where SUBSCRIBE is judged strictly: only if it may read *every* topic that the filter
    /// matches, so that a granted subscription is never filtered. Of a shared subscription the filter inside is judged.
    ///
    /// One rule has to cover the whole filter, and no `deny` that would be asked before it may match any topic of it. This is on the
    /// safe side: a filter that is covered by several rules together only, or whose denied topics are all granted by an earlier stage, is
    /// refused. For a filter without wildcards the answer is that of [`decide`](Self::decide). An invalid filter is refused.
    pub fn may_subscribe(&self, filter: &str) -> Decision {
        let filter = match SharedFilter::parse(filter) {
            Ok(Some(shared)) => shared.filter,
            Ok(None) => filter,
            Err(_) => return Decision::denied(Reason::NoRule),
        };
        if validate_topic_filter(filter).is_err() {
            return Decision::denied(Reason::NoRule);
        }
        self.ask(
            |rule| rule.template.denies_some(filter, self.who),
            |rule| rule.gives(Access::Read) && rule.template.grants_all(filter, self.who),
        )
    }

    /// Goes through the stages.
    fn ask(&self, denies: impl Fn(&Rule) -> bool, grants: impl Fn(&Rule) -> bool) -> Decision {
        let first = |ids: &[RuleId], found: &dyn Fn(&Rule) -> bool| {
            ids.iter().copied().find(|id| self.acl.get(*id).is_some_and(found))
        };
        let everyone = &self.acl.everyone;
        for (stage, is_own) in self.own.map(|own| (own, true)).into_iter().chain([(everyone, false)]) {
            if !is_own && self.has_unsafe_name && !stage.is_empty() {
                return Decision::denied(Reason::UnsafeName);
            }
            if let Some(id) = first(&stage.denies, &denies) {
                return Decision::by(false, id);
            }
            if let Some(id) = first(&stage.grants, &grants) {
                return Decision::by(true, id);
            }
        }
        Decision::denied(Reason::NoRule)
    }
}
