//! Large SUBSCRIBE and UNSUBSCRIBE packets, and what large or many sessions leave behind.

use std::time::Duration;

use super::stage::Stage;
use crate::error::Result;
use crate::mqtt::{self, Wishes};

/// How long a case waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
const CLEAN: Wishes = Wishes { clean_start: true, expiry: 0, receive_maximum: None };
const KEPT: Wishes = Wishes { clean_start: true, expiry: 3_600, receive_maximum: None };
/// Filters of four bytes in the packet each: 15.9 MB.
const TINY_FILTERS: usize = 3_970_000;

/// An UNSUBSCRIBE of 169 KB with 20,000 filters, of a session that has 9,000 messages queued.
pub(super) fn unsubscribe(stage: &mut Stage) -> Result<()> {
    const FILTERS: usize = 20_000;
    const QUEUED: u64 = 9_000;
    let filters: Vec<String> = (0..FILTERS).map(|n| format!("u{n:05}")).collect();
    let hoarder = stage.client("hoarder", KEPT)?;
    mqtt::subscribe(stage.net.out(hoarder), 1, &filters, 1);
    mqtt::subscribe(stage.net.out(hoarder), 2, &["queued".to_owned()], 1);
    stage.until(|stage| stage.got(hoarder).subacks == 2)?;
    let publisher = stage.client("publisher", CLEAN)?;
    stage
        .publish_all(publisher, QUEUED, |out, id, _| mqtt::publish(out, "queued", 1, false, id, b"queued"))?;
    stage.begin()?;
    mqtt::unsubscribe(stage.net.out(hoarder), 3, &filters);
    stage.within(PATIENCE, |stage| stage.got(hoarder).subacks == 3).map(drop)
}

/// A SUBSCRIBE of 15.9 MB.
pub(super) fn subscribe(stage: &mut Stage) -> Result<()> {
    subscribe_much(stage, 1, CLEAN)
}

/// Two of them, of sessions that are kept.
pub(super) fn subscribe_persistent(stage: &mut Stage) -> Result<()> {
    subscribe_much(stage, 2, KEPT)
}

fn subscribe_much(stage: &mut Stage, clients: usize, wishes: Wishes) -> Result<()> {
    let filters = vec!["a".to_owned(); TINY_FILTERS];
    let clients = stage.clients("subscriber", clients, wishes, None)?;
    stage.begin()?;
    for id in &clients {
        mqtt::subscribe(stage.net.out(*id), 1, &filters, 0);
    }
    stage.within(PATIENCE, |stage| clients.iter().all(|id| stage.got(*id).subacks == 1)).map(drop)
}

/// Two sessions of 1,000,000 filters end.
pub(super) fn ends(stage: &mut Stage) -> Result<()> {
    const FILTERS: usize = 1_000_000;
    const EACH: usize = 100_000;
    let clients = stage.clients("large", 2, CLEAN, None)?;
    for id in &clients {
        for part in 0..FILTERS / EACH {
            let filters: Vec<String> = (0..EACH).map(|n| format!("{id}/{}/+", part * EACH + n)).collect();
            mqtt::subscribe(stage.net.out(*id), 1, &filters, 0);
            stage.until(|stage| stage.got(*id).subacks == 1 + part as u64)?;
        }
    }
    stage.begin()?;
    clients.iter().for_each(|id| stage.close(*id));
    stage.pass(Duration::from_secs(8))
}

/// Sessions with queues full of messages that have expired: more messages come, and then the clients.
pub(super) fn expired(stage: &mut Stage) -> Result<()> {
    const SESSIONS: usize = 20;
    const QUEUED: u64 = 9_900;
    let absent = stage.clients("absent", SESSIONS, KEPT, Some("expiring"))?;
    absent.iter().for_each(|id| stage.close(*id));
    let publisher = stage.client("publisher", CLEAN)?;
    stage.publish_all(publisher, QUEUED, |out, id, _| {
        mqtt::publish_expiring(out, "expiring", id, 1, b"late")
    })?;
    stage.pass(Duration::from_secs(2))?;
    stage.begin()?;
    stage
        .publish_all(publisher, 200, |out, id, _| mqtt::publish(out, "expiring", 1, false, id, b"in time"))?;
    let wishes = Wishes { clean_start: false, ..KEPT };
    stage.clients("absent", SESSIONS, wishes, None).map(drop)
}

/// 10,000 sessions expire within a second.
pub(super) fn expiry(stage: &mut Stage) -> Result<()> {
    const SESSIONS: usize = 10_000;
    let clients = stage.clients("short", SESSIONS, Wishes { expiry: 2, ..KEPT }, Some("short/{}/+"))?;
    stage.begin()?;
    clients.iter().for_each(|id| stage.close(*id));
    stage.pass(Duration::from_secs(8))
}

/// 200 clients subscribe to everything, with 20,000 messages retained.
pub(super) fn replay(stage: &mut Stage) -> Result<()> {
    const RETAINED: u64 = 20_000;
    const CLIENTS: usize = 200;
    let publisher = stage.client("publisher", CLEAN)?;
    stage.publish_all(publisher, RETAINED, |out, id, n| {
        mqtt::publish(out, &format!("retained/{}/{n}", n % 100), 1, true, id, b"some state of a device");
    })?;
    let clients = stage.clients("curious", CLIENTS, CLEAN, None)?;
    stage.begin()?;
    for id in &clients {
        mqtt::subscribe(stage.net.out(*id), 1, &["retained/#".to_owned(), "+/+/+".to_owned()], 0);
    }
    stage
        .within(PATIENCE, |stage| clients.iter().all(|id| stage.got(*id).publishes >= 2 * RETAINED))
        .map(drop)
}
