//! SUBSCRIBE and UNSUBSCRIBE with more filters than fit into one turn.
//!
//! The packet stays where it was read. It is checked first, then its filters are taken one by one, both in
//! slices; the answer comes behind the last. Nothing behind the packet is handled before that, so the client
//! sees no difference but time. A client that leaves in the midst has made some of its subscriptions.

use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;

use super::budget::cost;
use super::{Cause, Client, Core, Publisher, Turn};
use crate::protocol::encode;
use crate::protocol::{Frame, ProtocolVersion, ReasonCode, Subscribe, Unsubscribe};
use crate::protocol::{SubscribeCursor, UnsubscribeCursor};

/// Packets up to so many bytes are handled at once.
pub(crate) const AT_ONCE_BYTES: usize = 1_024;

/// How far a large packet has come.
pub(crate) enum LargePacket {
    Subscribe(Progress<SubscribeCursor>),
    Unsubscribe(Progress<UnsubscribeCursor>),
}

/// Where its filters stand, and what they have brought.
pub(crate) struct Progress<C> {
    cursor: C,
    is_checked: bool,
    codes: Vec<ReasonCode>,
    /// Filters that were refused at a limit.
    refused: u64,
    /// Shared subscriptions that were given up.
    given_up: HashSet<Box<str>, RandomState>,
    /// The answer waits for what earlier turns have put on record: the last may have nothing to add.
    waits: bool,
}

impl<C> Progress<C> {
    fn new(cursor: C) -> Self {
        Self {
            cursor,
            is_checked: false,
            codes: Vec::new(),
            refused: 0,
            given_up: HashSet::default(),
            waits: false,
        }
    }

    /// Checks more of the packet; `true` when all of it is right and the client can take the answer.
    fn check(
        &mut self,
        turn: &mut Turn,
        packet_bytes_max: usize,
        check: impl FnOnce(&mut C, usize) -> Result<bool, Cause>,
        count: impl FnOnce(&C) -> usize,
    ) -> Result<bool, Cause> {
        if !self.is_checked {
            let steps = turn.budget.left() as usize;
            turn.budget.keep(0);
            self.is_checked = check(&mut self.cursor, steps)?;
            if self.is_checked {
                let codes = count(&self.cursor);
                if encode::codes_len(codes) > packet_bytes_max {
                    return Err(Cause::AnswerTooLarge);
                }
                self.codes.reserve_exact(codes);
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// The packet is done, and its answer is added in this turn.
    fn wait(&self, turn: &mut Turn) {
        if self.waits {
            turn.log.wait();
        }
    }
}

impl LargePacket {
    /// Whether a packet is handled in slices.
    pub(crate) fn is_it(frame: &Frame<'_>) -> bool {
        frame.total() > AT_ONCE_BYTES && matches!(frame.packet_type(), 8 | 10)
    }

    /// # Errors
    /// A fault at its beginning.
    pub(crate) fn begin(frame: &Frame<'_>, version: ProtocolVersion) -> Result<Self, Cause> {
        Ok(if frame.packet_type() == 8 {
            Self::Subscribe(Progress::new(Subscribe::begin(frame, version)?))
        } else {
            Self::Unsubscribe(Progress::new(Unsubscribe::begin(frame, version)?))
        })
    }
}

impl Core {
    /// One more slice of a large packet with this body; `true`: it is done, and its answer is added to
    /// `publisher.acks`.
    ///
    /// # Errors
    /// The packet breaks a rule, or its answer is larger than the client takes.
    pub(crate) fn continue_large(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        packet: &mut LargePacket,
        body: &[u8],
    ) -> Result<bool, Cause> {
        match packet {
            LargePacket::Subscribe(progress) => self.subscribe_slice(turn, client, publisher, progress, body),
            LargePacket::Unsubscribe(progress) => {
                self.unsubscribe_slice(turn, client, publisher, progress, body)
            }
        }
    }

    fn subscribe_slice(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        progress: &mut Progress<SubscribeCursor>,
        body: &[u8],
    ) -> Result<bool, Cause> {
        let packet_bytes_max = client.lock().session.terms().packet_bytes_max;
        let check = |cursor: &mut SubscribeCursor, steps| cursor.check(body, steps).map_err(Cause::from);
        if !progress.check(turn, packet_bytes_max, check, SubscribeCursor::count)? {
            return Ok(false);
        }
        let id = progress.cursor.subscription_id;
        let mut state = client.lock();
        while !turn.budget.is_spent() {
            let Some((filter, options)) = progress.cursor.next(body) else {
                drop(state);
                progress.wait(turn);
                publisher.answer_subscribe(progress.cursor.packet_id, &progress.codes);
                self.log_refused_filters(client, progress.refused);
                return Ok(true);
            };
            let code =
                self.subscribe_one(turn, client, &mut state, (filter, options, id), &mut progress.refused);
            progress.waits |= state.session.is_durable() && !code.is_error();
            progress.codes.push(code);
        }
        Ok(false)
    }

    fn unsubscribe_slice(
        &self,
        turn: &mut Turn,
        client: &Arc<Client>,
        publisher: &mut Publisher,
        progress: &mut Progress<UnsubscribeCursor>,
        body: &[u8],
    ) -> Result<bool, Cause> {
        let packet_bytes_max = client.lock().session.terms().packet_bytes_max;
        let check = |cursor: &mut UnsubscribeCursor, steps| cursor.check(body, steps).map_err(Cause::from);
        if !progress.check(turn, packet_bytes_max, check, UnsubscribeCursor::count)? {
            return Ok(false);
        }
        let mut guard = client.lock();
        let state = &mut *guard;
        while !turn.budget.is_spent() {
            let Some(filter) = progress.cursor.next(body) else {
                let given_up = &progress.given_up;
                self.give_away_of(
                    turn,
                    client,
                    state,
                    |shared| given_up.contains(shared),
                    given_up.is_empty(),
                );
                drop(guard);
                progress.wait(turn);
                publisher.answer_unsubscribe(progress.cursor.packet_id, &progress.codes);
                return Ok(true);
            };
            let code = self.unsubscribe_one(turn, client, state, filter);
            if code == ReasonCode::Success && filter.starts_with("$share/") {
                progress.given_up.insert(Box::from(filter));
            }
            progress.waits |= state.session.is_durable();
            progress.codes.push(code);
            turn.budget.spend(cost::FILTER);
        }
        Ok(false)
    }
}
