//! What happened, in one order: every packet of every client, the ends of connections, the deaths of the broker.
//!
//! A packet to the broker stands in the history before it is written, one from the broker after it was read. So an
//! event that stands before another one in the history and depends on the broker did happen before it, and whatever
//! the broker did for a request lies between the request and its answer.

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use crate::mqtt::Packet;

/// The name of a client, its client id.
pub type Client = Rc<str>;
/// The number of a connection; it grows, and no two have the same.
pub type ConnId = u32;
/// Where an event stands in the history.
pub type Index = usize;

/// So long a client that misses something says nothing before it does (invariant I19).
pub const IDLE: Duration = Duration::from_secs(4);

/// One thing that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// Time since the start of the run.
    pub at: Duration,
    /// Number of the cycle, from 1.
    pub cycle: u32,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The client is about to write this.
    Sent(Client, ConnId, Packet),
    /// The client has read this.
    Received(Client, ConnId, Packet),
    /// The client drops its connection.
    Cut(Client, ConnId),
    /// The client sees that its connection has ended.
    Closed(Client, ConnId),
    /// The client has waited for more than comes at once, and nothing came any more.
    Quiet(Client, ConnId),
    /// The client has read all there was, has answered it, has sent nothing for [`IDLE`], got
    /// nothing, and misses something. What it sends after this may be what wakes the broker.
    Idle(Client, ConnId),
    /// The client cannot go on with the connection: these bytes are no packet.
    Garbage(Client, ConnId, String),
    /// The broker got SIGKILL.
    Killed,
    /// The broker is being started.
    Started,
    /// A file of the data directory has appeared or gone, and the broker's death was waiting for that.
    File(String),
    /// The broker ended, or did not start, without our doing.
    Died(String),
}

impl What {
    /// Whose it is; nobody's if it is the broker's.
    pub fn client(&self) -> Option<(&Client, ConnId)> {
        match self {
            Self::Sent(client, conn, _)
            | Self::Received(client, conn, _)
            | Self::Cut(client, conn)
            | Self::Closed(client, conn)
            | Self::Quiet(client, conn)
            | Self::Idle(client, conn)
            | Self::Garbage(client, conn, _) => Some((client, *conn)),
            Self::Killed | Self::Started | Self::File(_) | Self::Died(_) => None,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cycle {} {:.6} ", self.cycle, self.at.as_secs_f64())?;
        match &self.what {
            What::Sent(client, conn, packet) => write!(f, "{client}#{conn} -> {packet}"),
            What::Received(client, conn, packet) => write!(f, "{client}#{conn} <- {packet}"),
            What::Cut(client, conn) => write!(f, "{client}#{conn} cuts the connection"),
            What::Closed(client, conn) => write!(f, "{client}#{conn} sees the end of the connection"),
            What::Quiet(client, conn) => write!(f, "{client}#{conn} gets nothing more"),
            What::Idle(client, conn) => {
                write!(f, "{client}#{conn} has waited in silence, and something is missing")
            }
            What::Garbage(client, conn, text) => write!(f, "{client}#{conn} <- {text}"),
            What::Killed => write!(f, "---- broker: SIGKILL"),
            What::Started => write!(f, "---- broker: started"),
            What::File(text) => write!(f, "---- {text}"),
            What::Died(text) => write!(f, "---- broker: {text}"),
        }
    }
}
