//! `Departed`: sessions that are over and have given their client ids free, and are not done with yet.
//!
//! A session's client id is free at once when it ends. What it leaves behind may take longer: its end
//! is on its way to the disk, and its will, or its last message, on its way to many receivers. Who
//! comes next with this client id is told that there is no session, so after a crash there must be
//! none either; and what he publishes must come behind the will. So he waits for both, and only he:
//! the broker knows here, by client id, what there is to wait for.
//!
//! An entry goes when the log is there and the messages are delivered; once in a second the timers'
//! task looks ([`forget_departed`](Core::forget_departed)). How many there can be is bounded by what
//! waits for the log (each end is a record of it) and by fan-outs under way (each holds more than an
//! entry). They are charged to [`Account::Ended`].

use std::sync::Arc;

use ahash::RandomState;
use dashmap::DashMap;

use super::fan_out::FAN_OUT_LOOK;
use super::{Client, Core};
use crate::accounts::{Account, Charge};
use crate::ledger::Position;

/// What an entry takes besides its client id.
const ENTRY_BYTES: usize = 160;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Departed(DashMap<Arc<str>, Rest, RandomState>);

/// What sessions of one client id have left.
struct Rest {
    /// Where the log has their ends.
    on_record: Position,
    /// Those whose messages were on their way.
    publishing: Vec<Arc<Client>>,
    _charge: Charge,
}

impl Rest {
    fn is_publishing(&self) -> bool {
        self.publishing.iter().any(|client| client.is_publishing())
    }
}

impl Core {
    /// The session is over and its client id is about to be free.
    pub(super) fn note_departed(&self, client: &Arc<Client>) {
        let on_record = client.lock().on_record;
        let publishing = client.is_publishing().then(|| Arc::clone(client));
        if on_record <= self.ledger.committed() && publishing.is_none() {
            return;
        }
        let mut rest = self.departed.0.entry(Arc::clone(&client.id)).or_insert_with(|| Rest {
            on_record,
            publishing: Vec::new(),
            _charge: Charge::new(&self.accounts, Account::Ended, ENTRY_BYTES + client.id.len()),
        });
        rest.on_record = rest.on_record.max(on_record);
        // Those who came between have waited for those before them, and published nothing if they
        // were turned away: mostly this is empty.
        rest.publishing.retain(|before| before.is_publishing());
        rest.publishing.extend(publishing);
    }

    /// Waits, for a session that is new, until the messages of those before it with this client id are
    /// delivered; the ends of these are what its CONNACK waits for. `false`: the broker shuts down.
    pub(super) async fn until_departed(&self, client: &Client) -> bool {
        if client.lock().epoch > 0 {
            return true;
        }
        let is_publishing =
            || self.departed.0.get(&client.id).is_some_and(|departed| departed.is_publishing());
        while is_publishing() {
            if self.is_shutting_down() {
                return false;
            }
            tokio::time::sleep(FAN_OUT_LOOK).await;
        }
        if let Some(on_record) = self.departed.0.get(&client.id).map(|departed| departed.on_record) {
            let mut state = client.lock();
            state.on_record = state.on_record.max(on_record);
        }
        true
    }

    /// Forgets those who are done with.
    pub(super) fn forget_departed(&self) {
        // The last of a session may go with it.
        let _turn = self.enter_turn();
        let committed = self.ledger.committed();
        self.departed.0.retain(|_, rest| rest.on_record > committed || rest.is_publishing());
    }

    /// Client ids whose last session has left something.
    #[cfg(test)]
    pub(crate) fn departed(&self) -> usize {
        self.departed.0.len()
    }
}
