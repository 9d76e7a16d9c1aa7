//! `Stalled`: what a client has sent and what has to wait for room on the disk, while its connection
//! is read on.
//!
//! Behind a PUBLISH or SUBSCRIBE that waits may stand the acknowledgements by which its client makes
//! room, or the end of the connection. So, as long as the disk is full or fails, packets that have to
//! wait are put by, and what ends something or needs no disk goes ahead of them: PUBACK, PUBREC,
//! PUBCOMP, PINGREQ, AUTH, DISCONNECT, and a PUBREL whose PUBLISH is not among those that wait.
//! Acknowledgements keep their order, and what waits keeps its own ([MQTT-4.6.0-1] to
//! [MQTT-4.6.0-4]); there is no order between the two. When there is room, all of it is taken up as if
//! it had just been read.
//!
//! What is put by is charged like a packet that has not come as a whole (`limits.unfinished_bytes_max`),
//! and bounded for each connection. At the first bound QoS 0 messages are dropped, so that whoever
//! sends nothing else behind what waits is read for ever; at the second one nothing more is read. When
//! the connection ends, its client has no answer to what still waits: that is dropped, and counted.
//!
//! Nothing of this is asked while no packet waits. A log that is busy and writes is waited for without
//! it: that takes a moment, and the bytes wait in the socket.

use std::task::{Context, Poll};

use super::connection::{Connection, Progress};
use super::worker::{self, Worker};
use crate::broker::{Cause, Turn, cost};
use crate::escape::escape;
use crate::protocol::{Frame, Framed, Packet, QoS, decode, frame};

/// Behind so many bytes further QoS 0 messages are dropped. The packet that waits first does not count.
const MESSAGES_MAX: usize = 64 * 1024;
/// With so many the connection is not read.
const BYTES_MAX: usize = 2 * MESSAGES_MAX;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Stalled {
    /// Whole packets, in their order.
    bytes: Vec<u8>,
    /// Bytes of the first one.
    first: usize,
    /// Packet ids of QoS 2 messages among them, as they are on the wire.
    exactly_once: Vec<[u8; 2]>,
}

impl Stalled {
    /// Bytes behind the packet that waits first.
    fn behind(&self) -> usize {
        self.bytes.len() - self.first
    }

    /// Whether a packet goes ahead of what waits.
    fn is_ahead(&self, frame: &Frame<'_>) -> bool {
        match frame.packet_type() {
            // PUBLISH, SUBSCRIBE, UNSUBSCRIBE.
            3 | 8 | 10 => false,
            // PUBREL.
            6 => frame.body().first_chunk().is_none_or(|id| !self.exactly_once.contains(id)),
            _ => true,
        }
    }

    fn put_by(&mut self, frame: &Frame<'_>) {
        if self.bytes.is_empty() {
            self.first = frame.total();
        }
        self.bytes.extend_from_slice(frame.wire());
    }
}

impl Connection {
    /// The log is full, and something of this connection waits for it. `true`: it is read on, because
    /// that may last.
    #[cold]
    pub(super) fn goes_on_beside(&mut self) -> bool {
        if self.from_log.stalled.is_none() {
            if !self.is_stuck() {
                return false;
            }
            self.from_log.stalled = Some(Box::default());
        }
        // What has been read already is looked through in any case.
        self.backlog || !self.is_at_bound()
    }

    fn is_at_bound(&self) -> bool {
        let behind = self.from_log.stalled.as_ref().map_or(0, |stalled| stalled.behind());
        behind + self.partial.len() >= BYTES_MAX
    }

    /// There is room, or nothing waits any more: what was put by comes first.
    #[cold]
    pub(super) fn take_up_stalled(&mut self) {
        let Some(stalled) = self.from_log.stalled.take() else { return };
        let mut bytes = stalled.bytes;
        bytes.append(&mut self.partial);
        self.partial = bytes;
        self.backlog = !self.partial.is_empty();
    }

    /// Reads once, as far as that is allowed, and handles what goes ahead.
    #[cold]
    pub(super) fn poll_input_beside(&mut self, cx: &mut Context<'_>) -> Result<Progress, Cause> {
        if !self.backlog {
            if self.is_at_bound() {
                return Ok(Progress::Waiting);
            }
            let read = worker::with(|Worker { buffer, .. }| {
                let read_max = self.rate.as_ref().map_or(buffer.len(), |rate| rate.read_max());
                let space = buffer.get_mut(..read_max.min(MESSAGES_MAX)).unwrap_or_default();
                let Poll::Ready(result) = self.stream.poll_read(cx, space) else { return Ok(None) };
                let n = result?;
                self.partial.extend_from_slice(buffer.get(..n).unwrap_or_default());
                Ok::<_, Cause>(Some(n))
            })?;
            let Some(n) = read else { return Ok(Progress::Waiting) };
            if n == 0 {
                return Err(Cause::PeerClosed);
            }
            self.core.metrics.bytes_received.add(n as u64);
            if let Some(rate) = &mut self.rate {
                rate.took_bytes(n, self.core.now());
            }
        }
        let bytes = std::mem::take(&mut self.partial);
        let consumed = worker::with(|worker| self.handle_beside(&mut worker.turn, &bytes))?;
        if consumed == 0 {
            self.partial = bytes;
        } else {
            self.keep(bytes.get(consumed..).unwrap_or_default());
        }
        self.charge_stalled()?;
        Ok(Progress::Read)
    }

    /// A turn of packets that are complete: each is handled, or put by.
    fn handle_beside(&mut self, turn: &mut Turn, bytes: &[u8]) -> Result<usize, Cause> {
        let core = std::sync::Arc::clone(&self.core);
        let (version, packet_bytes_max) = (self.terms.version, self.publisher.packet_bytes_max());
        turn.begin_as(&core, self.promiser);
        turn.log.take_grown();
        self.backlog = false;
        let (mut consumed, mut handled) = (0, 0);
        let mut result = Ok(());
        while let Some(rest) = bytes.get(consumed..)
            && !rest.is_empty()
        {
            if turn.budget.is_spent() {
                self.backlog = true;
                break;
            }
            let frame = match frame(rest, packet_bytes_max, version) {
                Ok(Framed::Frame(frame)) => frame,
                Ok(Framed::NeedMore { .. }) => break,
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            };
            turn.budget.spend(cost::PACKET);
            if !self.waits_beside(&frame) {
                let packet = decode(&frame, version).map_err(Cause::from);
                result = packet.and_then(|packet| self.handle_packet(turn, packet));
                handled += 1;
            }
            consumed += frame.total();
            if result.is_err() {
                break;
            }
        }
        if consumed > 0 {
            self.client.heard(turn.now);
            // The others count when they are taken up.
            core.metrics.packets_received.add(handled);
        }
        self.send_acks(turn);
        turn.defer_flush(&core, &mut self.deferred, self.backlog);
        turn.finish(&core);
        self.from_log.has_grown |= turn.log.take_grown();
        result.map(|()| consumed)
    }

    /// Whether a packet waits: then it is put by, or dropped if it is one too many at QoS 0.
    fn waits_beside(&mut self, frame: &Frame<'_>) -> bool {
        let Some(stalled) = &mut self.from_log.stalled else { return false };
        if stalled.is_ahead(frame) {
            return false;
        }
        if frame.packet_type() == 3 {
            // Its fault is told now, or when its time comes.
            let Ok(Packet::Publish(publish)) = decode(frame, self.terms.version) else { return false };
            match publish.packet_id {
                // An alias may stand for its topic from here on.
                None if stalled.behind() >= MESSAGES_MAX && publish.properties.topic_alias.is_none() => {
                    self.tell_dropped(1);
                    return true;
                }
                Some(id) if publish.qos == QoS::ExactlyOnce => {
                    stalled.exactly_once.push(id.get().to_be_bytes());
                }
                _ => {}
            }
        }
        stalled.put_by(frame);
        true
    }

    /// Brings the charge up to date. For want of memory the connection may be closed: nothing of what
    /// waits was acknowledged.
    fn charge_stalled(&mut self) -> Result<(), Cause> {
        let stalled = self.from_log.stalled.as_ref().map_or(0, |stalled| stalled.bytes.len());
        self.charge_input(stalled + self.partial.len(), false)
    }

    /// The connection ends: what waits is dropped, and its messages are counted.
    pub(super) fn drop_stalled(&mut self) {
        let partial = std::mem::take(&mut self.partial);
        let stalled = self.from_log.stalled.take();
        if stalled.is_none() && !self.from_log.waits_for_room {
            return;
        }
        let stalled = stalled.map(|stalled| stalled.bytes).unwrap_or_default();
        let mut messages = 0;
        for mut rest in [&*stalled, &*partial] {
            while let Ok(Framed::Frame(frame)) =
                frame(rest, self.publisher.packet_bytes_max(), self.terms.version)
            {
                messages += u64::from(frame.packet_type() == 3);
                rest = rest.get(frame.total()..).unwrap_or_default();
            }
        }
        if messages > 0 {
            self.tell_dropped(messages);
        }
    }

    #[cold]
    fn tell_dropped(&self, messages: u64) {
        self.core.metrics.dropped.add("disk_full", messages);
        if let Some(untold) = self.core.told.tell("disk_full", self.core.now()) {
            tracing::warn!(
                client_id = %escape(&self.client.id),
                messages,
                untold,
                "messages that waited for room on the disk are dropped: their client has gone, or sent more of them at QoS 0 than \
                 are kept waiting; none of them was acknowledged; told every ten seconds at most"
            );
        }
    }
}
