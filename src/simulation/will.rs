//! A client that has a will, and ends in every way.
//!
//! The will goes on record with CONNACK and does not hold it up: it is sure when something later was acknowledged that needed the disk.

use super::account::{Account, Uid, text_of};
use super::broker::Dead;
use super::receiver::Receiver;
use super::support::wire::{self, Connect};
use super::wire_client::Wire;
use super::world::{Life, receivers_of};

struct Pending {
    uid: Uid,
    /// It is on record.
    is_durable: bool,
    /// Its connection has ended: it is to be published.
    is_due: bool,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct WillClient {
    wire: Option<Wire>,
    numbers: u64,
    pending: Vec<Pending>,
}

impl WillClient {
    /// With a new will, over the old connection if there is one.
    pub(super) fn connect(
        &mut self,
        life: &Life,
        account: &mut Account,
        receivers: &[Receiver],
    ) -> Result<(), Dead> {
        self.numbers += 1;
        let uid = ("W".to_owned(), self.numbers);
        account.note(format!("W connects with will {}", self.numbers));
        let text = text_of(&uid);
        // Who subscribes before it is published gets it as well.
        let may = receivers.iter().map(|receiver| receiver.account_name().to_owned()).collect();
        let (must, _) = receivers_of(receivers, "will/w");
        account.sent(&uid, "will/w", 2, text.as_bytes(), must, may);
        let connect =
            if self.numbers.is_multiple_of(2) { Connect::new("W") } else { Connect::persistent("W") };
        let (wire, _) = life.open(&connect.will("will/w", text, 2, false))?;
        self.ended();
        self.pending.push(Pending { uid, is_durable: false, is_due: false });
        self.wire = Some(wire);
        Ok(())
    }

    /// The connection is gone without DISCONNECT.
    fn ended(&mut self) {
        self.wire = None;
        self.pending.iter_mut().for_each(|will| will.is_due = true);
    }

    pub(super) fn leave(&mut self, account: &mut Account, politely: bool) -> Result<(), Dead> {
        let Some(wire) = self.wire.take() else { return Ok(()) };
        account.note(format!("W leaves, politely: {politely}"));
        if !politely {
            self.ended();
            return Ok(());
        }
        let Some(will) = self.pending.pop() else { return Ok(()) };
        wire.leave(&wire::DISCONNECT)?;
        account.note(format!("will {} is called off", will.uid.1));
        account.called_off(&will.uid);
        Ok(())
    }

    /// Something that came after CONNACK was acknowledged and is on disk.
    pub(super) fn something_is_durable(&mut self, account: &mut Account) {
        self.pending.iter_mut().for_each(|will| will.is_durable = true);
        self.settle(account);
    }

    /// The broker ends. Wills that are on record will be published.
    pub(super) fn dies(&mut self, account: &mut Account) {
        self.ended();
        self.settle(account);
        self.pending.clear();
    }

    fn settle(&mut self, account: &mut Account) {
        self.pending.retain(|will| {
            let is_sure = will.is_durable && will.is_due;
            if is_sure {
                account.note(format!("will {} must come", will.uid.1));
                account.acked(&will.uid);
            }
            !is_sure
        });
    }
}
