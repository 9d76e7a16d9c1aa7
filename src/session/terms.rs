//! `Terms`: what CONNECT settled for one connection, as values, so that nobody asks for the protocol version later.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;

use crate::accounts::{Account, Accounts, Charge};
use crate::protocol::ProtocolVersion;

/// What a connection's client can take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How packets are encoded; the encoder alone looks at it.
    pub version: ProtocolVersion,
    /// QoS 1 and 2 messages the client takes without acknowledging one (Receive Maximum, section 3.1.2.11.3).
    pub receive_maximum: u16,
    /// Bytes of the largest packet the client takes (Maximum Packet Size, section 3.1.2.11.4).
    pub packet_bytes_max: usize,
    /// Topics the client lets us replace by numbers (Topic Alias Maximum, section 3.1.2.11.5).
    pub topic_alias_maximum: u16,
    /// Whether the client is told in DISCONNECT why its connection is closed.
    pub says_goodbye: bool,
    /// QoS 2 messages the client may leave unreleased: the Receive Maximum it was told.
    pub receive_maximum_granted: u16,
}

impl Terms {
    /// Those of MQTT 3.1.1, which can say none of it.
    pub const V311: Self = Self {
        version: ProtocolVersion::V311,
        receive_maximum: u16::MAX,
        packet_bytes_max: usize::MAX,
        topic_alias_maximum: 0,
        says_goodbye: false,
        receive_maximum_granted: u16::MAX,
    };
}

/// Numbers that stand for topics towards the client of one connection ([MQTT-3.3.2-7]).
#[derive(Debug, Default)]
pub(super) struct TopicAliases {
    max: u16,
    given: HashMap<Arc<str>, u16, RandomState>,
    /// What the topics are charged with, once the broker has said where.
    charge: Option<Charge>,
}

/// More are not given out whatever the client allows: what is saved must be worth the memory.
const ALIASES_MAX: u16 = 64;

/// Bytes that a number for a topic takes besides the topic's name.
pub const ALIAS_COST: usize = 48;

/// How a topic is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopicForm {
    /// As it is.
    Name,
    /// With its name and a number that stands for it from now on.
    Introduced(u16),
    /// By its number alone.
    Alias(u16),
}

impl TopicAliases {
    pub(super) fn new(max: u16) -> Self {
        Self { max: max.min(ALIASES_MAX), given: HashMap::default(), charge: None }
    }

    /// From now on the topics are charged; one for which there is no room gets no number.
    pub(super) fn charge_to(&mut self, accounts: &Arc<Accounts>) {
        self.charge = Some(Charge::new(accounts, Account::Aliases, 0));
    }

    /// The form for a topic that is about to be sent; a number is given out while there are any, if it may be.
    pub(super) fn form(&mut self, topic: &str, may_introduce: bool) -> TopicForm {
        if let Some(alias) = self.given.get(topic) {
            return TopicForm::Alias(*alias);
        }
        let next = self.given.len() as u16 + 1;
        if next > self.max || !may_introduce {
            return TopicForm::Name;
        }
        if let Some(charge) = &mut self.charge
            && !charge.grow_lasting(topic.len() + ALIAS_COST)
        {
            return TopicForm::Name;
        }
        self.given.insert(Arc::from(topic), next);
        TopicForm::Introduced(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_introduced_once_and_stay_within_the_clients_maximum() {
        let mut aliases = TopicAliases::new(2);
        assert_eq!(aliases.form("a", false), TopicForm::Name);
        assert_eq!(aliases.form("a", true), TopicForm::Introduced(1));
        assert_eq!(aliases.form("a", false), TopicForm::Alias(1));
        assert_eq!(aliases.form("b", true), TopicForm::Introduced(2));
        assert_eq!(aliases.form("c", true), TopicForm::Name);
        assert_eq!(aliases.form("a", true), TopicForm::Alias(1));
        assert_eq!(aliases.form("b", true), TopicForm::Alias(2));
        assert_eq!(TopicAliases::new(0).form("a", true), TopicForm::Name);
    }
}
