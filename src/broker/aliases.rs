//! Topics that a publisher lets numbers stand for (MQTT 5 section 3.3.2.3.4).

use std::sync::Arc;

use super::Cause;
use crate::accounts::{Account, Accounts, Charge};
use crate::session::ALIAS_COST;

/// Topics that a client lets numbers stand for: number 1 is the first.
pub(super) struct Aliases {
    topics: Vec<Option<Box<str>>>,
    charge: Charge,
}

/// The topic that a number stands for.
pub(super) fn known_topic(aliases: Option<&Aliases>, alias: u16) -> Option<&str> {
    aliases?.topics.get(usize::from(alias).checked_sub(1)?)?.as_deref()
}

/// Notes the topic an alias stands for from now on, if the packet names one (MQTT 5 section 3.3.2.3.4).
pub(super) fn resolve_alias(
    accounts: &Arc<Accounts>,
    aliases: &mut Option<Box<Aliases>>,
    alias: u16,
    topic: &str,
    alias_max: u16,
) -> Result<(), Cause> {
    if alias > alias_max {
        return Err(Cause::TopicAliasInvalid);
    }
    if topic.is_empty() {
        return Ok(());
    }
    let Aliases { topics, charge } = &mut **aliases.get_or_insert_with(|| {
        Box::new(Aliases { topics: Vec::new(), charge: Charge::new(accounts, Account::Aliases, 0) })
    });
    let index = usize::from(alias) - 1;
    if topics.len() <= index {
        topics.resize(index + 1, None);
    }
    if let Some(place) = topics.get_mut(index)
        && place.as_deref() != Some(topic)
    {
        if let Some(before) = place.take() {
            charge.shrink(before.len() + ALIAS_COST);
        }
        if !charge.grow_lasting(topic.len() + ALIAS_COST) {
            return Err(Cause::MemoryMax);
        }
        *place = Some(Box::from(topic));
    }
    Ok(())
}
