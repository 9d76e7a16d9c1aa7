//! Messages read back from the durable log: the middle of a long queue, and what a shared subscription hands over.
//!
//! While what clients hold is above half of `limits.memory_max`, a connection reads back no more
//! than it can send at once, and what it reads is charged from the moment it is in memory: else
//! many that do not read would have everything back that has just been left to the disk.

use std::sync::Arc;

use super::{Client, Core};
use crate::accounts::{Account, Charge};
use crate::escape::escape;
use crate::ledger::Position;
use crate::session::{Message, Session};
use crate::storage::{MessageRecord, ReadError, Record, Records, Window};

/// Messages read back before a client is connected: more than fit into most windows.
const LOADED_FIRST: usize = 128;

/// A message that was asked for: the position of its delivery, its place in the log, and what was found there.
pub(crate) type Loaded = (u64, Position, Result<Message, ReadError>);

/// Bytes that are read back in one go when memory has become short meanwhile.
const LOADED_SHORT: usize = 16 * 1024;

/// Messages read back for a connection, charged until the session has them.
pub(crate) struct ReadBack {
    loaded: Vec<Loaded>,
    charge: Option<Charge>,
}

impl ReadBack {
    /// None: the reader failed, or is to be asked again later.
    pub(crate) const NOTHING: Self = Self { loaded: Vec::new(), charge: None };
}

impl Core {
    /// Whether a session's messages had better be read back now.
    pub(crate) fn wants_messages(&self, session: &Session) -> bool {
        session.wants_messages(true) && (self.accounts.may_read_ahead() || session.wants_messages(false))
    }

    /// The messages that a connection had better read back now, at most `max`.
    pub(crate) fn wanted(&self, client: &Client, max: usize) -> Vec<(u64, Position)> {
        client.lock().session.wanted(max, self.accounts.may_read_ahead())
    }

    /// Reads messages back for a connection, in their order: all of them, or the first few if memory
    /// is short. Blocks.
    pub(crate) fn read_back(&self, wanted: Vec<(u64, Position)>) -> ReadBack {
        let (mut window, mut frame) = (Window::default(), Vec::new());
        let mut charge = Charge::new(&self.accounts, Account::Waiting, 0);
        let (mut loaded, mut bytes) = (Vec::with_capacity(wanted.len()), 0);
        for (sequence, position) in wanted {
            let read = self.read(&mut window, position, &mut frame);
            bytes += read.as_ref().map_or(0, Message::memory);
            charge.follow(bytes);
            loaded.push((sequence, position, read));
            if bytes >= LOADED_SHORT && !self.accounts.may_read_ahead() {
                break;
            }
        }
        ReadBack { loaded, charge: Some(charge) }
    }

    /// Reads messages back, in their order. Blocks.
    pub(crate) fn load(&self, wanted: Vec<(u64, Position)>) -> Vec<Loaded> {
        let (mut window, mut frame) = (Window::default(), Vec::new());
        let read = |(sequence, position)| (sequence, position, self.read(&mut window, position, &mut frame));
        wanted.into_iter().map(read).collect()
    }

    /// Reads back what a client that is about to connect will be sent first, so that it follows CONNACK.
    pub(super) async fn load_first(self: &Arc<Self>, client: &Arc<Client>) {
        let wanted = client.lock().session.wanted_first(LOADED_FIRST, self.accounts.may_read_ahead());
        if wanted.is_empty() {
            return;
        }
        let core = Arc::clone(self);
        let loaded = tokio::task::spawn_blocking(move || core.read_back(wanted)).await;
        // A reader that failed is asked again by the connection.
        self.provide(client, loaded.unwrap_or(ReadBack::NOTHING));
    }

    fn read(
        &self,
        window: &mut Window,
        position: Position,
        frame: &mut Vec<u8>,
    ) -> Result<Message, ReadError> {
        let log = self.log.as_ref().ok_or(ReadError::Gone)?;
        log.read_with(window, position, frame)?;
        let message = Records::new(frame).find_map(|record| match record {
            Record::Message(message) => Some(self.message(&message)),
            _ => None,
        });
        message.ok_or(ReadError::Damaged)
    }

    /// The message that a record tells of.
    pub(super) fn message(&self, record: &MessageRecord<'_>) -> Message {
        let expires_at = record.expires_at.map(|at| self.moment(at));
        Message::new(record.topic, record.payload, record.qos).with_properties(record.properties, expires_at)
    }

    /// Hands messages that were read back to the session that wants them. What cannot be read is lost, and said so.
    /// `false`: some could not be read at the moment, and are still wanted.
    pub(crate) fn provide(&self, client: &Arc<Client>, read: ReadBack) -> bool {
        let ReadBack { loaded, charge } = read;
        let mut is_whole = true;
        let _turn = self.enter_turn();
        let mut guard = client.lock();
        let state = &mut *guard;
        state.session.at(self.now());
        for (sequence, position, message) in loaded {
            if message.as_ref().is_err_and(ReadError::is_passing) {
                is_whole = false;
                continue;
            }
            if message.is_err() && state.session.position_of(sequence) != Some(position) {
                // Copied forward meanwhile, and asked for again.
                continue;
            }
            if let Ok(message) = &message {
                message.charge_to(&self.accounts);
            }
            let error = message.as_ref().err().map(ToString::to_string);
            let message = message.ok();
            let may = message.as_ref().is_none_or(|message| self.may_receive(client, message.topic()));
            if !may {
                self.metrics.dropped.add("acl_read", 1);
            }
            if state.session.provide(sequence, message.filter(|_| may))
                && let Some(error) = error
            {
                tracing::error!(
                    client_id = %escape(&client.id),
                    error,
                    "a queued message in the data directory cannot be read back and is lost"
                );
                self.metrics.dropped.add("unreadable", 1);
            }
        }
        self.count_late_drops(state);
        self.record_work_now(client, &mut state.session);
        self.settle(client, state);
        drop(guard);
        drop(charge);
        self.shed_if_over();
        is_whole
    }
}
