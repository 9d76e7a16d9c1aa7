//! What durability costs where nothing hides it: one message at a time, and one topic rewritten over and over.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Bench;
use crate::clients::{GLANCE, Watch};
use crate::drive::{Drive, Topics};
use crate::error::{Error, Result, fault};
use crate::mqtt::{self, Output, Packet};
use crate::net::{Id, Net, expect_packet};
use crate::payload::{Payloads, Stamp};
use crate::publisher::Window;
use crate::report::{Report, Span};

const QOS: u8 = 1;
const TOPIC: &str = "durable/state";
/// The file that is overwritten has this size: as much as a run may write, so that its size never changes.
const PREALLOCATED: u64 = 16 << 20;

/// One retained topic rewritten again and again, each time acknowledged before the next (`--window`).
pub(super) fn rewrite(mut bench: Bench) -> Result<Report> {
    let count = bench.args.count.unwrap_or(86_400);
    let window = Window { undelivered: u64::MAX, ..bench.window(1, QOS, 1) };
    let publishers = bench.publishers(1, QOS, window, 1)?;
    let publishers = publishers.into_iter().map(|publisher| publisher.retaining()).collect();
    let topics = Topics { names: vec![TOPIC.to_owned()], hears: |_, _, _| true, is_all_or_none: true };
    let mut drive = Drive::new(publishers, &[], topics, bench.args.payload);
    drive.publishers.iter_mut().for_each(|publisher| publisher.allow(count));
    let span = Span::begin(bench.broker)?;
    drive.run(&mut bench.net, 0, |_, _| 0)?;
    let mut report = Report::new("rewrite", QOS);
    report.per_unit("rewrite", count, span.end()?);
    if !last_is_kept(&mut bench, &drive.payloads, count - 1)? {
        report.note("the retained message is not the last one acknowledged");
    }
    Ok(report)
}

fn last_is_kept(bench: &mut Bench, payloads: &Payloads, last: u64) -> Result<bool> {
    let reader = bench.subscribers(vec![vec![]], QOS)?[0];
    mqtt::subscribe(bench.net.out(reader), 1, &[TOPIC.to_owned()], QOS);
    let (mut kept, mut watch) = (None, Watch::new());
    while kept.is_none() && !watch.is_stuck(0) {
        bench.net.turn(GLANCE, |_, id, event| {
            if let Packet::Publish(publish) = expect_packet(id, event)? {
                kept = payloads.read(publish.payload).map(|stamp| stamp.sequence).or(Some(u64::MAX));
            }
            Ok(())
        })?;
    }
    Ok(kept == Some(last))
}

/// Time from PUBLISH to PUBACK with one message on its way at QoS 1 and a persistent subscriber that is away. With
/// `--dir`, each message is followed by the same bytes written and synced to files there: one that grows, and one
/// that has its size from the beginning.
pub(super) fn ack_latency(mut bench: Bench) -> Result<Report> {
    if bench.qos(QOS) != QOS {
        return fault("this scenario is about QoS 1");
    }
    let count = bench.args.count.unwrap_or(1_000) as usize;
    bench.absent_subscriber("load-latency", TOPIC, QOS)?;
    let window = bench.window(1, QOS, 1);
    let publisher = bench.publishers(1, QOS, window, 1)?[0].id;
    let mut files = bench.args.dir.as_deref().map(Files::new).transpose()?;
    let mut payloads = Payloads::new(bench.args.payload);
    let [mut acks, mut appends, mut overwrites] = [(); 3].map(|()| Vec::with_capacity(count));
    let warm_up = count.div_ceil(10);
    let (mut packet, mut spent_in_files) = (Output::new(bench.link.version), Duration::ZERO);
    let mut span = Span::begin(bench.broker)?;
    for number in 0..warm_up + count {
        if number == warm_up {
            [&mut acks, &mut appends, &mut overwrites].into_iter().for_each(Vec::clear);
            (span, spent_in_files) = (Span::begin(bench.broker)?, Duration::ZERO);
        }
        let packet_id = (number % 65_535) as u16 + 1;
        let stamp = Stamp { sequence: number as u64, ..Stamp::default() };
        packet.bytes.clear();
        mqtt::publish(&mut packet, TOPIC, QOS, false, packet_id, payloads.write(stamp));
        acks.push(publish_one(&mut bench.net, publisher, &packet.bytes, packet_id)?);
        if let Some(files) = &mut files {
            let began = Instant::now();
            appends.push(timed(|| files.append(&packet.bytes))?);
            overwrites.push(timed(|| files.overwrite(&packet.bytes))?);
            spent_in_files += began.elapsed();
        }
    }
    let mut report = Report::new("ack-latency", QOS);
    let mut spent = span.end()?;
    spent.wall = spent.wall.saturating_sub(spent_in_files);
    report.per_unit("message", count as u64, spent);
    report.percentiles("ack", &mut acks);
    if files.is_some() {
        report.percentiles("append_sync", &mut appends);
        report.percentiles("overwrite_sync", &mut overwrites);
        // The percentiles have sorted them.
        let median = |nanos: &[u64]| nanos.get(nanos.len() / 2).copied().unwrap_or(0).max(1) as f64;
        report.number("ack_per_append_sync", median(&acks) / median(&appends));
        report.number("ack_per_overwrite_sync", median(&acks) / median(&overwrites));
    }
    Ok(report)
}

/// Sends `packet` and waits for its PUBACK; nanoseconds.
fn publish_one(net: &mut Net, publisher: Id, packet: &[u8], packet_id: u16) -> Result<u64> {
    let (mut watch, mut acknowledged) = (Watch::new(), None);
    let began = Instant::now();
    net.out(publisher).bytes.extend_from_slice(packet);
    while acknowledged.is_none() {
        net.turn(GLANCE, |_, id, event| match expect_packet(id, event)? {
            Packet::Puback(found) if found == packet_id && id == publisher => {
                acknowledged = Some(began.elapsed());
                Ok(())
            }
            other => fault(format!("{other:?} in place of the PUBACK of {packet_id}")),
        })?;
        if watch.is_stuck(0) {
            return fault("no PUBACK");
        }
    }
    Ok(acknowledged.unwrap_or_default().as_nanos() as u64)
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<u64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_nanos() as u64)
}

/// What the disk needs for the same bytes. The files have no name, so that nothing of them is left.
struct Files {
    growing: File,
    fixed: File,
    fixed_end: u64,
}

impl Files {
    fn new(directory: &Path) -> Result<Self> {
        let make = |name: &str| {
            let path = directory.join(format!("{name}-{}", std::process::id()));
            let file = OpenOptions::new().write(true).create_new(true).open(&path);
            let file = file.map_err(|error| Error(format!("{}: {error}", path.display())))?;
            std::fs::remove_file(&path)?;
            Ok::<_, Error>(file)
        };
        let (growing, mut fixed) = (make("load-growing")?, make("load-fixed")?);
        // Written, not only sized: the first write to a hole changes what the file system knows of the file.
        let zeros = vec![0; 1 << 20];
        (0..PREALLOCATED >> 20).try_for_each(|_| fixed.write_all(&zeros))?;
        fixed.sync_all()?;
        fixed.seek(SeekFrom::Start(0))?;
        Ok(Self { growing, fixed, fixed_end: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.growing.write_all(bytes)?;
        Ok(self.growing.sync_data()?)
    }

    fn overwrite(&mut self, bytes: &[u8]) -> Result<()> {
        if self.fixed_end + bytes.len() as u64 > PREALLOCATED {
            self.fixed.seek(SeekFrom::Start(0))?;
            self.fixed_end = 0;
        }
        self.fixed.write_all(bytes)?;
        self.fixed_end += bytes.len() as u64;
        Ok(self.fixed.sync_data()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_file_keeps_its_size_and_starts_over() {
        let mut files = Files::new(&std::env::temp_dir()).unwrap();
        let large = vec![7; (PREALLOCATED / 2 + 1) as usize];
        for _ in 0..3 {
            files.overwrite(&large).unwrap();
            files.append(&large[..100]).unwrap();
        }
        assert_eq!(files.fixed.metadata().unwrap().len(), PREALLOCATED);
        assert_eq!(files.growing.metadata().unwrap().len(), 300);
    }
}
