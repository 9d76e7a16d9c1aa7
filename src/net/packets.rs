//! One turn of a connection: every complete packet of a read, and the answers to them.

use std::sync::Arc;

use super::connection::Connection;
use crate::broker::{Cause, KeepFor, LargePacket, Turn, cost};
use crate::protocol::encode::{self, AckKind};
use crate::protocol::{Ack, Disconnect, Frame, Framed, Packet, ReasonCode, decode, frame};
use crate::storage::Record;

impl Connection {
    /// Handles complete packets in `bytes` as one turn; returns how many bytes they took. What is
    /// left when the turn's budget is spent is handled in the next one
    /// ([`backlog`](Self::backlog)).
    pub(super) fn handle_bytes(&mut self, turn: &mut Turn, bytes: &[u8]) -> Result<usize, Cause> {
        let core = Arc::clone(&self.core);
        let version = self.terms.version;
        let packet_bytes_max = self.publisher.packet_bytes_max();
        turn.begin_as(&core, self.promiser);
        turn.log.take_grown();
        let mut consumed = 0;
        let mut packets = 0;
        let mut published = 0;
        let mut subscribed = false;
        let mut result = Ok(());
        let mut last = 0;
        let goes_on = self.backlog;
        core.continue_publish(turn, &self.client, &mut self.publisher);
        self.backlog = false;
        while let Some(rest) = bytes.get(consumed..)
            && !rest.is_empty()
        {
            if turn.budget.is_spent() || self.publisher.is_pending() {
                self.backlog = true;
                break;
            }
            match frame(rest, packet_bytes_max, version) {
                Ok(Framed::NeedMore { .. }) => break,
                Ok(Framed::Frame(frame)) if self.must_wait_for_room(&mut turn.budget, &frame) => {
                    self.backlog = true;
                    break;
                }
                Ok(Framed::Frame(frame)) if LargePacket::is_it(&frame) => {
                    match self.handle_large(turn, &frame) {
                        Ok(true) => {
                            consumed += frame.total();
                            packets += 1;
                            subscribed |= frame.packet_type() == 8;
                        }
                        Ok(false) => {
                            self.backlog = true;
                            break;
                        }
                        Err(cause) => {
                            result = Err(cause);
                            break;
                        }
                    }
                }
                Ok(Framed::Frame(frame)) => {
                    consumed += frame.total();
                    packets += 1;
                    turn.budget.spend(cost::PACKET);
                    last = frame.packet_type();
                    let handled = decode(&frame, version).map_err(Cause::from).and_then(|packet| {
                        published += u64::from(matches!(packet, Packet::Publish(_)));
                        subscribed |= matches!(packet, Packet::Subscribe(_));
                        self.handle_packet(turn, packet)
                    });
                    if let Err(cause) = handled {
                        result = Err(cause);
                        break;
                    }
                }
                Err(error) => {
                    result = Err(error.into());
                    break;
                }
            }
        }
        if packets > 0 || goes_on {
            // What is at work for a client counts as its sign of life.
            self.client.heard(turn.now);
            core.metrics.packets_received.add(packets);
            core.metrics.publish_received.add(published);
            if let Some(rate) = &mut self.rate {
                rate.took_messages(usize::try_from(published).unwrap_or(usize::MAX), turn.now);
            }
        }
        self.send_acks(turn);
        if subscribed {
            // The first retained messages leave together with SUBACK; the rest is seen to by `poll_work`.
            core.replay(turn, &self.client);
        }
        self.backlog |= self.publisher.is_pending();
        turn.defer_flush(&core, &mut self.deferred, self.backlog);
        if let Some(took) = turn.finish(&core) {
            core.tell_long_turn(took, &self.client.id, last);
        }
        self.from_log.has_grown |= turn.log.take_grown();
        result.map(|()| consumed)
    }

    /// The acknowledgements of this turn's packets go out together, in their order; where they promise what is to survive a crash, when
    /// the log has it.
    pub(super) fn send_acks(&mut self, turn: &mut Turn) {
        if self.publisher.acks.is_empty() {
            return;
        }
        let recorded = turn.log.commit(&self.core);
        let mut guard = self.client.lock();
        let state = &mut *guard;
        if let Some(link) = state.link.as_mut().filter(|link| link.epoch == self.epoch) {
            if link.hold_answers(&self.core.accounts, recorded, &mut self.publisher.acks) {
                // How much is held has a bound, also for one that has made nothing grow.
                self.from_log.has_grown = true;
            } else {
                state.session.send_acks(&self.publisher.acks);
                turn.promise_flush(&self.client, state);
            }
        }
        drop(guard);
        self.publisher.acks.clear();
        self.publisher.acks.shrink_to(1_024);
    }

    /// One more slice of a SUBSCRIBE or UNSUBSCRIBE with many filters; `true`: it is done.
    fn handle_large(&mut self, turn: &mut Turn, frame: &Frame<'_>) -> Result<bool, Cause> {
        if self.client.lock().link_of(self.epoch).is_none() {
            return Err(Cause::TakenOver);
        }
        let mut packet = match self.large.take() {
            Some(packet) => packet,
            None => {
                // Answers leave in the order of what they answer.
                self.send_acks(turn);
                Box::new(LargePacket::begin(frame, self.terms.version)?)
            }
        };
        let (client, publisher) = (&self.client, &mut self.publisher);
        if !self.core.continue_large(turn, client, publisher, &mut packet, frame.body())? {
            self.large = Some(packet);
            return Ok(false);
        }
        self.send_acks(turn);
        Ok(true)
    }

    pub(super) fn handle_packet(&mut self, turn: &mut Turn, packet: Packet<'_>) -> Result<(), Cause> {
        if !matches!(
            packet,
            Packet::Publish(_)
                | Packet::PubRel(_)
                | Packet::PubAck(_)
                | Packet::PubRec(_)
                | Packet::PubComp(_)
        ) {
            // Answers leave in the order of what they answer.
            self.send_acks(turn);
        }
        match packet {
            Packet::Publish(publish) => {
                self.core.publish(turn, &self.client, &mut self.publisher, &publish)?;
            }
            Packet::PubAck(ack) => self.handle_ack(turn, AckKind::PubAck, ack),
            Packet::PubRec(ack) => self.handle_ack(turn, AckKind::PubRec, ack),
            Packet::PubComp(ack) => self.handle_ack(turn, AckKind::PubComp, ack),
            Packet::PubRel(Ack { packet_id, .. }) => {
                let (known, durable) = {
                    let mut state = self.client.lock();
                    (state.session.release(packet_id), state.session.is_durable())
                };
                if durable && !known {
                    // It came twice: the first may be on its way to the disk still.
                    turn.log.wait();
                } else if durable {
                    // Else, after a crash, a new message with this id would be taken for a repetition.
                    let record = Record::Released { session: self.client.key, id: packet_id.get() };
                    turn.log.record(&record, true);
                }
                let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
                self.publisher.acknowledge(AckKind::PubComp, packet_id, reason);
            }
            Packet::Subscribe(subscribe) => {
                self.check_answer(subscribe.count())?;
                self.core.subscribe(turn, &self.client, &mut self.publisher, &subscribe);
                self.send_acks(turn);
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.check_answer(unsubscribe.count())?;
                self.core.unsubscribe(turn, &self.client, &mut self.publisher, &unsubscribe);
                self.send_acks(turn);
            }
            Packet::PingReq => {
                let mut guard = self.client.lock();
                guard.session.send_pingresp();
                turn.promise_flush(&self.client, &mut guard);
            }
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(&disconnect)),
            Packet::Auth(auth) => self.handle_auth(&auth)?,
            Packet::Connect(_) => return Err(Cause::SecondConnect),
        }
        Ok(())
    }

    /// A client that cannot take the answer to so many filters cannot be answered at all: nothing of the packet is done.
    fn check_answer(&self, codes: usize) -> Result<(), Cause> {
        if encode::codes_len(codes) > self.terms.packet_bytes_max {
            return Err(Cause::AnswerTooLarge);
        }
        Ok(())
    }

    fn handle_ack(&mut self, turn: &mut Turn, kind: AckKind, ack: Ack) {
        let mut guard = self.client.lock();
        let state = &mut *guard;
        state.session.at(turn.now).handle_ack(kind, ack.packet_id, ack.reason_code);
        self.core.count_late_drops(state);
        if let Some(work) = state.session.log_work() {
            turn.log.work(self.client.key, work, &mut self.publisher.acks);
        }
        if self.client.has_charged_in_flight() {
            self.core.settle(&self.client, state);
        }
        if state.session.out.has_output() {
            turn.promise_flush(&self.client, state);
        }
    }

    /// DISCONNECT: what the client says about its will and its session.
    fn handle_disconnect(&self, disconnect: &Disconnect) -> Cause {
        if let Some(seconds) = disconnect.session_expiry {
            let mut guard = self.client.lock();
            let state = &mut *guard;
            if state.link_of(self.epoch).is_none() {
                return Cause::TakenOver;
            }
            if seconds > 0 && state.keep_for == KeepFor::Nothing {
                return Cause::SessionExpiryFromNothing;
            }
            state.keep_for = self.core.keep_for_seconds(seconds);
            state.session.set_outlives_connection(state.keep_for != KeepFor::Nothing);
        }
        // Every reason but the normal one leaves the will in place (section 3.14.4).
        Cause::Disconnect { with_will: disconnect.reason_code != ReasonCode::NORMAL_DISCONNECTION }
    }
}
