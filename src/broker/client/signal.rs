//! What a connection's task is woken for, besides its socket.

/// Write the output.
pub(crate) const FLUSH: u8 = 1;
/// End: the cause stands in the link.
pub(crate) const CLOSE: u8 = 2;
/// The keep alive has passed: read what there is, then judge.
pub(crate) const KEEP_ALIVE: u8 = 4;
/// A successor is about to take the session over: read what there is, then say so.
pub(crate) const READ: u8 = 8;
/// Let go of routes that do not hold any more: sessions that have ended may be among their
/// receivers.
pub(crate) const ROUTES: u8 = 16;
