//! Publishes that take long: filters that all match, and receivers that do not read.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::error::Result;
use crate::mqtt::{self, Wishes};
use crate::net::Id;

/// Levels of the topics; a filter has a `+` for each bit of its number.
const LEVELS: usize = 18;
/// What the publishers send in one piece: one read of the broker.
const BLOB_BYTES: usize = 64 * 1024;
/// Of which `hostile-wait` has the pair's receiver hear.
pub(super) const SHARED_WITH_PAIR: &str = "l0/#";
/// How long a case waits for its messages.
const PATIENCE: Duration = Duration::from_secs(30);

fn base() -> String {
    (0..LEVELS).map(|level| format!("l{level}")).collect::<Vec<_>>().join("/")
}

/// Filters that all match what begins with `base()`.
fn matching(count: usize) -> Vec<String> {
    let filter = |number: usize| {
        let level = |level| if number >> level & 1 == 1 { "+".to_owned() } else { format!("l{level}") };
        format!("{}/#", (0..LEVELS).map(level).collect::<Vec<_>>().join("/"))
    };
    (0..count).map(filter).collect()
}

/// Appends empty publishes to topics that are all different; returns how many.
fn blob(stage: &mut Stage, publisher: Id, name: &str, bytes: usize) -> u64 {
    let (base, mut count) = (base(), 0);
    let out = stage.net.out(publisher);
    let before = out.bytes.len();
    while out.bytes.len() - before < bytes {
        mqtt::publish(out, &format!("{base}/{name}/{count}"), 0, false, 0, b"");
        count += 1;
    }
    count
}

fn publishers(stage: &mut Stage, count: usize) -> Result<Vec<Id>> {
    stage.clients("publisher", count, Wishes { clean_start: true, ..Wishes::default() }, None)
}

/// 20,000 filters of one client that all match; two publishers, one read each.
pub(super) fn filters(stage: &mut Stage) -> Result<()> {
    let receiver = stage.subscribers(vec![matching(20_000)], 0, "receiver")?[0];
    let publishers = publishers(stage, 2)?;
    stage.begin()?;
    let sent: u64 =
        publishers.iter().enumerate().map(|(n, id)| blob(stage, *id, &n.to_string(), BLOB_BYTES)).sum();
    stage.within(PATIENCE, |stage| stage.got(receiver).publishes >= sent).map(drop)
}

/// 200,000 of them, and four publishers that send 18 KB each second together.
pub(super) fn filters_200k(stage: &mut Stage) -> Result<()> {
    const EACH_SECOND: usize = 18_000;
    const SECONDS: usize = 15;
    const STEPS: usize = 10;
    stage.subscribers(vec![matching(200_000)], 0, "receiver")?;
    let publishers = publishers(stage, 4)?;
    stage.begin()?;
    for step in 0..SECONDS * STEPS {
        for id in &publishers {
            blob(stage, *id, &format!("{id}-{step}"), EACH_SECOND / STEPS / publishers.len());
        }
        stage.pass(Duration::from_secs(1) / STEPS as u32)?;
    }
    publishers.iter().for_each(|id| stage.close(*id));
    Ok(())
}

/// 3,000 receivers that do not read, and tiny messages in large pieces.
pub(super) fn receivers(stage: &mut Stage) -> Result<()> {
    const RECEIVERS: usize = 3_000;
    const BLOBS: usize = 3;
    const MESSAGES: usize = 4_000;
    let receivers = stage.subscribers(vec![vec!["tiny".to_owned()]; RECEIVERS], 0, "receiver")?;
    receivers.iter().for_each(|id| stage.net.pause(*id));
    let publisher = publishers(stage, 1)?[0];
    stage.begin()?;
    for _ in 0..BLOBS {
        for _ in 0..MESSAGES {
            mqtt::publish(stage.net.out(publisher), "tiny", 0, false, 0, b"tiny");
        }
        stage.pass(Duration::from_secs(2))?;
    }
    Ok(())
}

/// The pair's receiver hears of a publisher whose reads take long as well: what its own publisher
/// sends must not wait with that.
pub(super) fn wait(stage: &mut Stage) -> Result<()> {
    const BLOBS: usize = 5;
    let receiver = stage.subscribers(vec![matching(20_000)], 0, "receiver")?[0];
    let publisher = publishers(stage, 1)?[0];
    stage.begin()?;
    let mut sent = 0;
    for n in 0..BLOBS {
        let begun = Instant::now();
        sent += blob(stage, publisher, &n.to_string(), BLOB_BYTES / 4);
        stage.within(PATIENCE, |stage| stage.got(receiver).publishes >= sent)?;
        stage.pass(Duration::from_secs(2).saturating_sub(begun.elapsed()))?;
    }
    Ok(())
}
