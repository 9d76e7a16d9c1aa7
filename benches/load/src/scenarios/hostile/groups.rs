//! Groups whose members are all busy.

use std::time::Duration;

use super::stage::Stage;
use crate::error::Result;
use crate::mqtt::{self, Wishes};
use crate::net::Id;

const FILTER: &str = "$share/g/job";
const TOPIC: &str = "job";
/// Unacknowledged deliveries of a member, unless it asks for less.
const WINDOW: u64 = 64;

/// Members that acknowledge nothing, with their windows full, and who publishes to them.
fn members(stage: &mut Stage, count: usize, receive_maximum: Option<u16>) -> Result<(Vec<Id>, Id)> {
    let wishes = Wishes { clean_start: true, expiry: 0, receive_maximum };
    let members = stage.clients("member", count, wishes, Some(FILTER))?;
    let publisher = stage.client("publisher", Wishes { receive_maximum: None, ..wishes })?;
    let each = receive_maximum.map_or(WINDOW, u64::from);
    publish(stage, publisher, count as u64 * each)?;
    Ok((members, publisher))
}

fn publish(stage: &mut Stage, publisher: Id, count: u64) -> Result<()> {
    stage.publish_all(publisher, count, |out, id, _| mqtt::publish(out, TOPIC, 1, false, id, b"some work"))
}

/// 1,000 members with full windows lose their connections at once.
pub(super) fn leave_at_once(stage: &mut Stage) -> Result<()> {
    let (members, _) = members(stage, 1_000, None)?;
    stage.begin()?;
    members.iter().for_each(|id| stage.close(*id));
    stage.pass(Duration::from_secs(10))
}

/// 5,000 members, each with the one message it wants at a time, and more messages.
pub(super) fn busy(stage: &mut Stage) -> Result<()> {
    let (members, publisher) = members(stage, 5_000, Some(1))?;
    stage.begin()?;
    publish(stage, publisher, 3_000)?;
    members.iter().for_each(|id| stage.close(*id));
    stage.pass(Duration::from_secs(5))
}
