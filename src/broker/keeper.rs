//! The durable log's housekeeping: checkpoints, so that old segments tell of messages only, and freeing segments in which little is alive.
//!
//! A checkpoint holds everything but bodies. With it every segment below is needed only for the messages in it, and goes as a whole when
//! the last of them is over: nothing is copied for that. Only where a few messages keep a segment alive they are copied forward. So
//! what is written twice is: the state, once per [`CHECKPOINT_BYTES`] of log or twice its own size, whichever is more; and of a segment's
//! messages less than a quarter, once.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::RandomState;

use super::hand_over::tell_given_up;
use super::lifecycle::begun;
use super::turn_log::will_record;
use super::{Client, ClientState, Core};
use crate::ledger::Position;
use crate::session::Snapshot;
use crate::storage::{
    Batch, Begun, DeliverRecord, FrameAt, Freed, Log, MessageRecord, Numbers, Record, Records, SegmentInfo,
    SubscribeRecord, Urgency,
};
use crate::turns::BarrierSeat;

/// Bytes of log after which a checkpoint is worth its writing.
const CHECKPOINT_BYTES: u64 = 8 * 1024 * 1024;
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Segments that are no reason for a checkpoint.
const SEGMENTS_FEW: usize = 16;
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
        let (is_short, reserve) = (log.is_short_of_room(), Arc::clone(&log));
        // Before anything else: a disk that has room again is written to again.
        let tend = move || {
            reserve.tend_reserve();
            Ok(())
        };
        let _ = blocking(tend).await;
        if log.status().failing {
            // What is written already may be enough to free something.
            core.try_to_free(&log).await;
            continue;
        }
        // Each start begins a segment: many short runs leave many small ones.
        let due = log.bytes_since_checkpoint() >= CHECKPOINT_BYTES.max(2 * checkpoint_bytes)
            || log.sealed_segments().len() > 2 * segments
            // On a full disk for everything that can be gained by it.
            || is_short && log.sealed_segments().iter().any(|segment| segment.live < segment.bytes / COPIED_BELOW);
        if !due {
            core.try_to_free(&log).await;
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

/// Tells of a disk that does not answer, until the log is closed: the end of the broker waits for
/// the disk as well. Apart from [`run`], which may be one of those who wait.
pub(crate) async fn watch_disk(core: Arc<Core>) {
    let Some(log) = core.log.as_ref().map(Arc::downgrade) else { return };
    drop(core);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match log.upgrade() {
            Some(log) if !log.is_closed() => log.tell_stalled(Instant::now()),
            _ => return,
        }
    }
}

impl Core {
    /// Frees what nothing refers to any more. That it cannot be freed is told to the operator's log.
    pub(crate) async fn try_to_free(&self, log: &Arc<Log>) {
        let mut seat = self.barrier_seat.lock().await;
        if let Err(error) = self.free(log, &mut seat).await
            && !log.status().failing
        {
            tracing::error!(%error, "files of the durable log that are not needed any more cannot be removed");
        }
    }

    /// Frees segments whose last message has ended since the last checkpoint.
    async fn free(&self, log: &Arc<Log>, seat: &mut BarrierSeat) -> io::Result<Freed> {
        let Some(condemned) = log.condemn() else { return Ok(Freed::default()) };
        // A turn may have given up the last reference and not yet put on record what replaces it.
        let condemned = self.ledger.turns().barrier(seat, condemned).await;
        let log = Arc::clone(log);
        blocking(move || log.free(condemned)).await
    }

    /// Writes a checkpoint, copies forward what keeps nearly dead segments alive, and frees dead ones. Returns the checkpoint's size.
    pub(crate) async fn tend(self: &Arc<Self>, log: &Arc<Log>) -> io::Result<u64> {
        let mut seat = self.barrier_seat.lock().await;
        let core = Arc::clone(self);
        let (writer, bytes) = blocking({
            let (core, log) = (Arc::clone(&core), Arc::clone(log));
            move || core.write_checkpoint(&log)
        })
        .await?;
        // What turns had in their hands while it was gathered is in no session, and not in it.
        let writer = self.ledger.turns().barrier(&mut seat, writer).await;
        blocking({
            let log = Arc::clone(log);
            move || log.finish_checkpoint(writer)
        })
        .await?;
        self.superseded.settled();
        let checkpoint = log.checkpoint_position();
        let sparse = |segment: &SegmentInfo| {
            segment.live > 0
                && segment.live < segment.bytes / COPIED_BELOW
                && segment.id < checkpoint.segment()
        };
        let sparse: Vec<u32> = log.sealed_segments().iter().filter(|s| sparse(s)).map(|s| s.id).collect();
        if !sparse.is_empty() {
            let clients: Arc<Clients> =
                Arc::new(self.all_clients().into_iter().map(|client| (client.key, client)).collect());
            for segment in sparse {
                let (core, log_, clients_) = (Arc::clone(&core), Arc::clone(log), Arc::clone(&clients));
                // Only what is on disk at its new place may leave the old one.
                let (copied, first) = blocking(move || {
                    let copied = core.copy_forward(&log_, segment, &clients_)?;
                    log_.wait_synced()?;
                    Ok(copied)
                })
                .await?;
                self.moved(&clients, &copied, first);
                if log.is_short_of_room() {
                    // Each copy needs the room that the one before it has given back.
                    self.free(log, &mut seat).await?;
                }
            }
        }
        let freed = self.free(log, &mut seat).await?;
        tracing::debug!(
            checkpoint_bytes = bytes,
            freed_segments = freed.segments,
            freed_bytes = freed.bytes,
            "checkpoint of the durable log written"
        );
        Ok(bytes)
    }

    /// Every session that is not ended on record, by key. One that moves from the registry to those
    /// that are leaving is entered there first, so it is found in one of the two.
    pub(super) fn all_clients(&self) -> Vec<Arc<Client>> {
        let registered = self.clients.iter().map(|entry| Arc::clone(entry.value()));
        let mut clients: Vec<Arc<Client>> = registered.collect();
        clients.extend(self.leaving.iter().map(|entry| Arc::clone(entry.value())));
        clients.sort_unstable_by_key(|client| client.key);
        clients.dedup_by_key(|client| client.key);
        clients
    }

    /// Everything but bodies, as of now or a little later.
    fn write_checkpoint(&self, log: &Log) -> io::Result<(crate::storage::CheckpointWriter, u64)> {
        use std::sync::atomic::Ordering::Acquire;
        let mut writer = log.begin_checkpoint()?;
        let mut bytes = 0;
        let mut body = Vec::new();
        for client in self.all_clients() {
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
        self.superseded.tell(|body| {
            bytes += body.len() as u64;
            writer.frame(body)
        })?;
        body.clear();
        let (next_key, next_revision) = (self.next_key.load(Acquire), self.next_revision.load(Acquire));
        Record::Counters { next_key, next_revision }.write(&mut body);
        Record::Clock(self.clock.reading()).write(&mut body);
        writer.frame(&body)?;
        Ok((writer, bytes))
    }

    /// Also of messages whose turns have not put them on record yet: the checkpoint counts only when
    /// they have.
    fn retained_revisions(&self) -> Vec<u64> {
        let mut revisions = Vec::new();
        self.retained.for_each(|kept| {
            if kept.revision != 0 {
                revisions.push(kept.revision);
            }
        });
        revisions
    }

    fn tell_client(&self, client: &Client, state: &mut ClientState, body: &mut Vec<u8>) {
        let durable = state.session.is_durable();
        if durable {
            self.tell_session(client, state, body);
        } else if let Some(leaving) = state.leaving.as_deref().filter(|leaving| leaving.ends_on_record()) {
            client.record(state, Some(Duration::ZERO)).write(body);
            // What it had begun at QoS 2 is not among what it gives away, and not told.
            let begun = Begun { at_least_once: 0, exactly_once: 0 };
            self.kept_for_no_time(client, begun).write(body);
            tell_live(client.key, Snapshot::default(), leaving.sequences(), body);
            tell_given_up(client.key, &leaving.given_up(), |record| record.write(body));
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
            Record::Detached { session, since, keep, begun: begun(state) }.write(body);
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
        let leaving = state.leaving.iter().flat_map(|leaving| leaving.sequences());
        tell_live(session, state.session.snapshot(), leaving, body);
        let given_up = state.leaving.as_ref().map(|leaving| leaving.given_up()).unwrap_or_default();
        tell_given_up(session, &given_up, |record| record.write(body));
    }

    /// Submits copies of what is alive in a segment.
    fn copy_forward(
        &self,
        log: &Log,
        segment: u32,
        clients: &Clients,
    ) -> io::Result<(Vec<Copied>, Position)> {
        let mut batch = Batch::default();
        let mut copied = Vec::new();
        log.scan_segment(segment, &mut |position, _, body| {
            copied.extend(self.copy_frame(&mut batch, position, body, clients));
        })?;
        // Less than a quarter of a segment: one batch.
        let submitted = log.submit(&mut batch, Urgency::Waited);
        Ok((copied, submitted.first))
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
                        && position_of(&client.lock(), sequence) == Some(from)
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
        let _turn = self.ledger.turns().enter();
        for Copied { from, frame, deliveries, retained } in copied {
            let to = first.plus(frame.offset);
            for (session, sequence) in deliveries {
                if let Some(client) = clients.get(session) {
                    let mut state = client.lock();
                    state.session.moved(*sequence, *from, to);
                    if let Some(leaving) = &state.leaving {
                        leaving.moved(*sequence, *from, to);
                    }
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

/// What is live of a session: its deliveries, and what it is giving to other members and still owns.
fn tell_live(session: u64, snapshot: Snapshot, leaving: impl Iterator<Item = u64>, body: &mut Vec<u8>) {
    let mut runs = snapshot.live;
    runs.extend(leaving.map(|sequence| (sequence, 1)));
    runs.sort_unstable();
    let live: Vec<u64> = runs.iter().flat_map(|(first, length)| [*first, *length]).collect();
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

/// Where the log has the message of a delivery that is not over: in the session, or on its way to
/// another member.
fn position_of(state: &ClientState, sequence: u64) -> Option<Position> {
    let leaving = || state.leaving.as_ref()?.position_of(sequence);
    state.session.position_of(sequence).or_else(leaving)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
