//! A packet that has not come as a whole: its bytes are kept, and charged if they are many.

use std::task::Context;

use super::connection::Connection;
use super::hold::HOLD;
use super::worker::HEADROOM;
use crate::broker::{Cause, UnfinishedCharge};

impl Connection {
    /// Keeps the bytes of an unfinished packet; no memory if there are none.
    pub(super) fn keep(&mut self, rest: &[u8]) {
        if rest.is_empty() {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
            self.partial.extend_from_slice(rest);
        }
    }

    /// Brings the charge up to date with what is kept; a small packet costs nothing.
    pub(super) fn charge_unfinished(&mut self) -> Result<(), Cause> {
        self.charge_input(self.partial.len(), self.backlog)
    }

    /// So many bytes of input are kept; `is_at_it`: and are about to be handled.
    pub(super) fn charge_input(&mut self, bytes: usize, is_at_it: bool) -> Result<(), Cause> {
        let bytes = bytes.saturating_sub(HEADROOM);
        if bytes == 0 {
            self.unfinished = None;
            return Ok(());
        }
        self.unfinished
            .get_or_insert_with(|| UnfinishedCharge::new(&self.core, &self.client, self.epoch))
            .set(bytes)?;
        self.work_on_unfinished(is_at_it);
        Ok(())
    }

    /// While what has come is being handled nobody closes the connection for holding it.
    pub(super) fn work_on_unfinished(&self, is_at_it: bool) {
        if let Some(unfinished) = &self.unfinished {
            unfinished.work_on_it(is_at_it);
        }
    }

    /// A client in the midst of a large packet is not read while another, which holds more, has to go.
    pub(super) fn hold_if_too_much_is_unfinished(&mut self, cx: &mut Context<'_>) -> bool {
        if self.unfinished.is_none() || !self.core.is_too_much_unfinished() {
            return false;
        }
        self.core.metrics.held.add("unfinished_bytes_max", 1);
        self.hold_for(HOLD, cx)
    }
}
