//! `TurnLog`: what one turn puts on record, handed to the durable log with one lock and one copy at the turn's end.
//!
//! A publish is one frame, and so takes effect as a whole: the message, every durable session that gets it, its place as retained message, the
//! publisher's QoS 2 id. Whatever must not be acknowledged before it is on disk sets `waited`; [`commit`](TurnLog::commit) then gives
//! the place which the watermark has to reach first. A turn that concerns nothing durable leaves no trace here and costs no more than that.

use std::sync::Arc;

use super::{Client, Core};
use crate::ledger::{Position, Stored};
use crate::protocol::QoS;
use crate::session::{LogWork, Message, Outgoing, Will};
use crate::storage::{
    Batch, DeliverRecord, FrameAt, Log, MessageRecord, Numbers, Record, SourceRecord, Urgency, WillRecord,
};

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct TurnLog {
    batch: Batch,
    /// Messages that learn their place when the batch is submitted.
    placed: Vec<(Arc<Message>, FrameAt)>,
    /// The durable receivers of the message under way.
    targets: Vec<Target>,
    /// Deliveries that are over, of one session.
    finished: Vec<u64>,
    finished_of: u64,
    waited: bool,
    /// Something that makes the log grow was put on record since this was asked; ends do not.
    has_grown: bool,
    /// There is a time in it.
    stamped: bool,
    /// Receivers of QoS 2 messages, which go when this turn's batch is on disk.
    waiting: Vec<Arc<Client>>,
    /// One of them is connected.
    waited_for: bool,
}

/// A durable session that has taken the message into its queue.
pub(super) struct Target {
    pub(super) session: u64,
    pub(super) sequence: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) subscription_ids: Box<[u32]>,
    pub(super) shared: Option<Arc<str>>,
}

/// What a publish does to its topic's retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retention {
    /// Nothing that is to be remembered.
    None,
    /// It is the retained message now, with this revision.
    Kept(u64),
    /// There is none any more, as of this revision.
    Removed(u64),
}

/// Messages of a turn that are looked through for one.
const LOOKED_THROUGH: usize = 16;
/// Receivers that are registered in one turn.
pub(super) const WAKES_AT_ONCE: usize = 1_024;

impl TurnLog {
    /// The message under way was taken into a durable session.
    pub(super) fn deliver(&mut self, target: Target) {
        self.targets.push(target);
    }

    /// A receiver has a message that it is sent when this turn's records are committed. Whatever
    /// connection it has when they are submitted is woken then; `is_connected`: it has one now, and
    /// had better not wait for company.
    pub(super) fn wake_at_commit(&mut self, client: &Arc<Client>, is_connected: bool) {
        self.waited_for |= is_connected;
        if self.waiting.last().is_none_or(|last| !Arc::ptr_eq(last, client)) {
            self.waiting.push(Arc::clone(client));
        }
    }

    /// The durable receivers of the message under way leave the turn: it goes on in another one.
    pub(super) fn take_targets(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.targets)
    }

    /// Those of earlier turns are back.
    pub(super) fn put_targets(&mut self, targets: &mut Vec<Target>) {
        self.targets.append(targets);
    }

    /// Receivers that wait for the commit of this turn, so far.
    pub(super) fn waiting(&self) -> &[Arc<Client>] {
        &self.waiting
    }

    /// Receivers that wait for the commit of the message under way leave the turn as well. Others
    /// may be among them, who wait for something that this turn puts on record: they are woken a
    /// little later.
    pub(super) fn take_waiting(&mut self) -> Vec<Arc<Client>> {
        std::mem::take(&mut self.waiting)
    }

    /// These wait for it as well.
    pub(super) fn put_waiting(&mut self, waiting: &mut Vec<Arc<Client>>) {
        self.waited_for |= !waiting.is_empty();
        self.waiting.append(waiting);
    }

    /// Puts a publish on record, if there is anything about it to be remembered: who has taken it since the last one, what is retained, and
    /// `also`. `waited`: it is acknowledged only after that.
    pub(super) fn publish(
        &mut self,
        core: &Core,
        outgoing: &mut Outgoing<'_>,
        retention: Retention,
        also: &[Record<'_>],
        waited: bool,
    ) {
        if self.targets.is_empty() && retention == Retention::None && also.is_empty() {
            return;
        }
        self.batch.begin();
        let body = self.batch.body();
        let message =
            (!self.targets.is_empty() || matches!(retention, Retention::Kept(_))).then(|| outgoing.message());
        if let Some(message) = &message {
            self.stamped |= message.expires_at().is_some();
            Record::Message(MessageRecord {
                qos: message.qos(),
                expires_at: message.expires_at().map(|at| core.log_time(at)),
                topic: message.topic(),
                properties: message.forwarded(),
                payload: message.payload(),
            })
            .write(body);
        }
        for target in self.targets.drain(..) {
            Record::Deliver(DeliverRecord {
                session: target.session,
                sequence: target.sequence,
                qos: target.qos,
                retain: target.retain,
                subscription_ids: Numbers::Slice(&target.subscription_ids),
                shared: target.shared.as_deref(),
            })
            .write(body);
        }
        match retention {
            Retention::None => {}
            Retention::Kept(revision) => {
                let source = message.as_ref().and_then(|message| core.sources.get(message.source()));
                let source = source
                    .as_ref()
                    .map(|owner| SourceRecord { client_id: &owner.client_id, user: owner.user.as_deref() });
                Record::Retain { revision, source }.write(body);
            }
            Retention::Removed(revision) => {
                Record::Unretain { revision, topic: outgoing.topic() }.write(body);
            }
        }
        for record in also {
            record.write(body);
        }
        let frame = self.batch.end();
        self.has_grown = true;
        if let Some(message) = message {
            self.placed.push((message, frame));
        }
        self.waited |= waited;
    }

    /// Whether this message is among the last that were put down and are not submitted yet. `false`
    /// says nothing: a turn may have put down more than it pays to look through.
    pub(super) fn has_put_down(&self, message: &Arc<Message>) -> bool {
        self.placed.iter().rev().take(LOOKED_THROUGH).any(|(placed, _)| Arc::ptr_eq(placed, message))
    }

    /// Puts one record down that is not acknowledged, or (`waited`) not before it is on disk.
    pub(crate) fn record(&mut self, record: &Record<'_>, waited: bool) {
        self.batch.begin();
        record.write(self.batch.body());
        self.batch.end();
        self.stamped |= matches!(record, Record::Detached { .. });
        self.has_grown |= matches!(record, Record::Subscribe(_) | Record::Will(_));
        self.waited |= waited;
    }

    /// A will is to be published if its client goes without a word. `session`: the client's, if it outlives the connection.
    pub(super) fn begin_will(&mut self, will: &Will, session: u64) {
        if will.key != 0 {
            self.record(&will_record(will, session), true);
        }
    }

    /// A will is off the record, with the next batch or (`waited`) with one of its own.
    pub(super) fn end_will(&mut self, will: &Will, waited: bool) {
        if will.key != 0 {
            self.record(&Record::WillEnd { will: will.key }, waited);
        }
    }

    /// The answers of this turn wait for everything that is on record by now, even if this turn adds nothing.
    pub(crate) fn wait(&mut self) {
        self.waited = true;
    }

    /// Puts down what has happened to a session's deliveries; the answers it wants sent afterwards go into `answers`.
    pub(crate) fn work(&mut self, session: u64, work: &mut LogWork, answers: &mut Vec<u8>) {
        if self.finished_of != session {
            self.settle_finished();
            self.finished_of = session;
        }
        self.finished.append(&mut work.finished);
        for (sequence, id) in work.completing.drain(..) {
            self.record(&Record::Completing { session, sequence, id: id.get() }, true);
        }
        if !work.answers.is_empty() {
            answers.append(&mut work.answers);
            // Also PUBREL for a PUBREC that came twice: the first may still be on its way to the disk.
            self.waited = true;
        }
    }

    /// Whether anything was put on record since the last time this was asked that makes the log
    /// grow. What ends something makes room.
    pub(crate) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    fn settle_finished(&mut self) {
        if self.finished.is_empty() {
            return;
        }
        let finished = std::mem::take(&mut self.finished);
        let record = Record::Finished { session: self.finished_of, sequences: Numbers::Slice(&finished) };
        self.record(&record, false);
        self.finished = finished;
        self.finished.clear();
    }

    /// Hands everything to the log; not under a client's lock, but for a `TurnLog` that has no
    /// deliveries. If something of it is to be waited for: the place the watermark has to reach.
    pub(crate) fn commit(&mut self, core: &Core) -> Option<Position> {
        let waited = std::mem::take(&mut self.waited);
        self.targets.clear();
        self.batch.drop_unfinished();
        self.settle_finished();
        if self.batch.is_empty() && !waited {
            return None;
        }
        let Some(log) = &core.log else {
            // Nobody is durable without a log.
            self.placed.clear();
            self.waiting.clear();
            return None;
        };
        let waited_for = std::mem::take(&mut self.waited_for);
        let urgency = if waited || waited_for { Urgency::Waited } else { Urgency::Lazy };
        if self.batch.is_empty() {
            return Some(log.submitted_and_wanted());
        }
        if std::mem::take(&mut self.stamped) {
            core.record_jump(log);
        }
        let submitted = log.submit(&mut self.batch, urgency);
        for (message, frame) in self.placed.drain(..) {
            let position = submitted.first.plus(frame.offset);
            message.set_stored(Stored::new(&core.ledger, position, frame.len));
        }
        self.wake_receivers(core, log, submitted.end);
        waited.then_some(submitted.end)
    }
}

impl TurnLog {
    /// Has the receivers of this turn's QoS 2 messages woken when these are on disk. The messages
    /// have their places now: a connection that attaches from here on finds them itself, and
    /// whoever is attached is registered here, whatever it waits for already.
    fn wake_receivers(&mut self, core: &Core, log: &Log, end: Position) {
        if self.waiting.len() > WAKES_AT_ONCE {
            // Whoever is registered later than the log is there is woken at once.
            core.wake_later(self.waiting.split_off(WAKES_AT_ONCE), end);
        }
        if self.waiting.len() > 1 {
            self.waiting.sort_unstable_by_key(|client| client.key);
            self.waiting.dedup_by_key(|client| client.key);
        }
        wake_at(log, self.waiting.drain(..), end);
        self.waiting.shrink_to(WAKES_AT_ONCE);
    }
}

/// Has connected ones woken when the log has come to `end`. Who is woken before that anyway registers
/// himself then: his messages have their places, and on a disk that stalls each turn would add to
/// what waits there.
pub(super) fn wake_at(log: &Log, clients: impl Iterator<Item = Arc<Client>>, end: Position) {
    for client in clients {
        if let Some(link) = &mut client.lock().link
            && (link.wakes_at > end || link.wakes_at <= log.committed())
        {
            link.wakes_at = end;
            log.wake_at(end, &link.waker);
        }
    }
}

/// What the log tells of a will. `session`: the client's, if it outlives the connection, else 0.
pub(super) fn will_record(will: &Will, session: u64) -> Record<'_> {
    Record::Will(WillRecord {
        will: will.key,
        session,
        qos: will.qos,
        retain: will.retain,
        delay: will.delay,
        expiry_seconds: will.expiry_seconds,
        topic: &will.topic,
        properties: &will.forwarded,
        payload: &will.payload,
        client_id: &will.owner.client_id,
        user: will.owner.user.as_deref(),
    })
}
