//! The durable log's housekeeping: checkpoints, so that old segments tell of messages only, and freeing segments in which little is alive.
//!
//! A checkpoint holds everything but bodies. With it every segment below is needed only for the messages in it, and goes as a whole when
//! the last of them is over: nothing is copied for that. Only where a few messages keep a segment alive they are copied forward. So
//! what is written twice is: the state, once per [`CHECKPOINT_BYTES`] of log or twice its own size, whichever is more; and of a segment's
//! messages less than a quarter, once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;

use super::lifecycle::begun;
use super::turn_log::will_record;
use super::{Client, ClientState, Core};
use crate::ledger::Position;
use crate::storage::{
    Batch, DeliverRecord, FrameAt, Log, MessageRecord, Numbers, Record, Records, SegmentInfo,
    SubscribeRecord, Urgency,
};

/// Bytes of log after which a checkpoint is worth its writing.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Segments that are no reason for a checkpoint.
const SEGMENTS_FEW: usize = 16;
/// Longer than a turn lasts. What a turn has taken out of a session and not yet submitted is neither in the checkpoint nor in the log.
const TURN_TIME: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 100 });
/// A segment is copied forward when less than one part in this many of it is alive.
const COPIED_BELOW: u64 = 4;
/// Retained revisions in one frame of a checkpoint.
const REVISIONS_PER_FRAME: usize = 10_000;

type Clients = HashMap<u64, Arc<Client>, RandomState>;

/// A live frame on its way to a new place.
struct Copied {
    from: Position,
    frame: FrameAt,
    deliveries: Vec<(u64, u64)>,
    retained: Option<Box<str>>,
}

/// Looks after the log until the broker shuts down.
pub(crate) async fn run(core: Arc<Core>) {
    let Some(log) = core.log.clone() else { return };
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut checkpoint_bytes = 0;
    let mut segments = SEGMENTS_FEW;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = core.shut_down() => return,
        }
        if log.status().failing {
            // On a full disk this may be what makes room.
            free(&log).await;
            continue;
        }
        // Each start begins a segment: many short runs leave many small ones.
        let due = log.bytes_since_checkpoint() >= CHECKPOINT_BYTES.max(2 * checkpoint_bytes)
            || log.sealed_segments().len() > 2 * segments;
        if !due {
            free(&log).await;
            continue;
        }
        tokio::select! {
            result = core.tend(&log) => match result {
                Ok(bytes) => checkpoint_bytes = bytes,
                // The log itself goes on; it only grows until this succeeds.
                Err(error) => tracing::error!(%error, "no checkpoint of the durable log could be written; the next attempt follows"),
            },
            () = core.shut_down() => return,
        }
        segments = log.sealed_segments().len().max(SEGMENTS_FEW);
    }
}

/// Frees segments whose last message is over since the last checkpoint.
async fn free(log: &Arc<Log>) {
    let below = log.checkpoint_position().segment();
    let is_dead = |segment: &SegmentInfo| segment.live == 0 && segment.id < below;
    if !log.sealed_segments().iter().any(is_dead) {
        return;
    }
    let log = Arc::clone(log);
    if let Err(error) = blocking(move || log.free_dead_segments()).await {
        tracing::error!(%error, "files of the durable log that are not needed any more cannot be removed");
    }
}

impl Core {
    /// Writes a checkpoint, copies forward what keeps nearly dead segments alive, and frees dead ones. Returns the checkpoint's size.
    pub(crate) async fn tend(self: &Arc<Self>, log: &Arc<Log>) -> io::Result<u64> {
        let core = Arc::clone(self);
        let (writer, bytes) = blocking({
            let (core, log) = (Arc::clone(&core), Arc::clone(log));
            move || core.write_checkpoint(&log)
        })
        .await?;
        tokio::time::sleep(TURN_TIME).await;
        log.wait(log.submitted()).await;
        blocking(move || writer.finish()).await?;
        let checkpoint = log.checkpoint_position();
        let sparse = |segment: &SegmentInfo| {
            segment.live > 0
                && segment.live < segment.bytes / COPIED_BELOW
                && segment.id < checkpoint.segment()
        };
        let sparse: Vec<u32> = log.sealed_segments().iter().filter(|s| sparse(s)).map(|s| s.id).collect();
        if !sparse.is_empty() {
            let clients: Arc<Clients> = Arc::new(
                self.clients.iter().map(|entry| (entry.value().key, Arc::clone(entry.value()))).collect(),
            );
            for segment in sparse {
                let (core, log_, clients_) = (Arc::clone(&core), Arc::clone(log), Arc::clone(&clients));
                let (copied, first, end) =
                    blocking(move || core.copy_forward(&log_, segment, &clients_)).await?;
                // Only what is on disk at its new place may leave the old one.
                log.wait(end).await;
                self.moved(&clients, &copied, first);
            }
        }
        let log = Arc::clone(log);
        let freed = blocking(move || log.free_dead_segments()).await?;
        tracing::debug!(
            checkpoint_bytes = bytes,
            freed_segments = freed.segments,
            freed_bytes = freed.bytes,
            "durable log tended"
        );
        Ok(bytes)
    }

    /// Everything but bodies, as of now or a little later.
    fn write_checkpoint(&self, log: &Log) -> io::Result<(crate::storage::CheckpointWriter, u64)> {
        use std::sync::atomic::Ordering::Acquire;
        let mut writer = log.begin_checkpoint()?;
        let mut bytes = 0;
        let mut body = Vec::new();
        let clients: Vec<Arc<Client>> = self.clients.iter().map(|entry| Arc::clone(entry.value())).collect();
        for client in clients {
            body.clear();
            self.tell_client(&client, &mut client.lock(), &mut body);
            if !body.is_empty() {
                bytes += body.len() as u64;
                writer.frame(&body)?;
            }
        }
        let mut revisions = self.retained_revisions();
        revisions.sort_unstable();
        for revisions in revisions.chunks(REVISIONS_PER_FRAME) {
            let mut before = 0;
            let differences: Vec<u64> = revisions
                .iter()
                .map(|revision| {
                    let difference = revision - before;
                    before = *revision;
                    difference
                })
                .collect();
            body.clear();
            Record::Revisions { differences: Numbers::Slice(&differences) }.write(&mut body);
            bytes += body.len() as u64;
            writer.frame(&body)?;
        }
        body.clear();
        let (next_key, next_revision) = (self.next_key.load(Acquire), self.next_revision.load(Acquire));
        Record::Counters { next_key, next_revision }.write(&mut body);
        Record::Clock(self.clock.reading()).write(&mut body);
        writer.frame(&body)?;
        Ok((writer, bytes))
    }

    fn retained_revisions(&self) -> Vec<u64> {
        let mut revisions = Vec::new();
        let mut placeless = Vec::new();
        self.retained.for_each(|kept| {
            if kept.revision == 0 {
            } else if kept.message.stored().is_some() {
                revisions.push(kept.revision);
            } else {
                placeless.push(Box::<str>::from(kept.message.topic()));
            }
        });
        // Their turns are about to submit them. Until then neither they nor what they replace would be found after a crash.
        for topic in placeless {
            while let Some(kept) = self.retained.get(&topic) {
                if kept.message.stored().is_some() {
                    revisions.push(kept.revision);
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        revisions
    }

    fn tell_client(&self, client: &Client, state: &mut ClientState, body: &mut Vec<u8>) {
        let durable = state.session.is_durable();
        if durable {
            self.tell_session(client, state, body);
        }
        let session = if durable { client.key } else { 0 };
        let delayed = state.delayed_will.as_ref().map(|delayed| &delayed.1);
        for will in [state.session.will(), delayed, state.leaving_will.as_deref()].into_iter().flatten() {
            if will.key != 0 {
                will_record(will, session).write(body);
            }
        }
    }

    fn tell_session(&self, client: &Client, state: &ClientState, body: &mut Vec<u8>) {
        let (session, keep) = (client.key, state.keep_for.time());
        client.record(state, keep).write(body);
        if state.link.is_none() {
            let ends = self.log_time(state.expires_at.unwrap_or_else(|| self.now()));
            let kept = u64::try_from(keep.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
            let since = if state.expires_at.is_some() { ends.saturating_sub(kept) } else { ends };
            Record::Detached { session, since, keep, begun: begun(&state.session) }.write(body);
        }
        for (filter, options) in state.session.filters() {
            let record = SubscribeRecord {
                session,
                qos: options.qos,
                no_local: options.no_local,
                retain_as_published: options.retain_as_published,
                subscription_id: options.subscription_id.map_or(0, std::num::NonZeroU32::get),
                filter,
            };
            Record::Subscribe(record).write(body);
        }
        let snapshot = state.session.snapshot();
        let live: Vec<u64> = snapshot.live.iter().flat_map(|(first, length)| [*first, *length]).collect();
        let received: Vec<u16> = snapshot.received.iter().map(|id| id.get()).collect();
        Record::Snapshot {
            session,
            next_sequence: snapshot.next,
            live: Numbers::Slice(&live),
            received: Numbers::Slice(&received),
        }
        .write(body);
        for (sequence, id) in snapshot.completing {
            Record::Completing { session, sequence, id: id.get() }.write(body);
        }
    }

    /// Submits copies of what is alive in a segment.
    fn copy_forward(
        &self,
        log: &Log,
        segment: u32,
        clients: &Clients,
    ) -> io::Result<(Vec<Copied>, Position, Position)> {
        let mut batch = Batch::default();
        let mut copied = Vec::new();
        log.scan_segment(segment, &mut |position, _, body| {
            copied.extend(self.copy_frame(&mut batch, position, body, clients));
        })?;
        // Less than a quarter of a segment: one batch.
        let submitted = log.submit(&mut batch, Urgency::Waited);
        Ok((copied, submitted.first, submitted.end))
    }

    fn copy_frame(
        &self,
        batch: &mut Batch,
        from: Position,
        body: &[u8],
        clients: &Clients,
    ) -> Option<Copied> {
        let mut message: Option<MessageRecord<'_>> = None;
        let mut live: Vec<Record<'_>> = Vec::new();
        let mut deliveries = Vec::new();
        let mut retained = None;
        for record in Records::new(body) {
            match (record, &message) {
                (Record::Message(found), _) => message = Some(found),
                (Record::Deliver(DeliverRecord { session, sequence, .. }), Some(_)) => {
                    if let Some(client) = clients.get(&session)
                        && client.lock().session.position_of(sequence) == Some(from)
                    {
                        deliveries.push((session, sequence));
                        live.push(record);
                    }
                }
                (Record::Retain { revision, .. }, Some(message)) => {
                    let kept = self.retained.get(message.topic).filter(|kept| kept.revision == revision);
                    if kept.is_some_and(|kept| {
                        kept.message.stored().is_some_and(|stored| stored.position() == from)
                    }) {
                        retained = Some(Box::from(message.topic));
                        live.push(record);
                    }
                }
                _ => {}
            }
        }
        let message = message.filter(|_| !live.is_empty())?;
        batch.begin();
        Record::Message(message).write(batch.body());
        live.iter().for_each(|record| record.write(batch.body()));
        let frame = batch.end();
        Some(Copied { from, frame, deliveries, retained })
    }

    fn moved(&self, clients: &Clients, copied: &[Copied], first: Position) {
        for Copied { from, frame, deliveries, retained } in copied {
            let to = first.plus(frame.offset);
            for (session, sequence) in deliveries {
                if let Some(client) = clients.get(session) {
                    client.lock().session.moved(*sequence, *from, to);
                }
            }
            if let Some(kept) = retained.as_ref().and_then(|topic| self.retained.get(topic))
                && let Some(stored) = kept.message.stored()
            {
                stored.move_to(*from, to);
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
