//! What a history consists of, and what one round leaves to the next.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::history::{Client, ConnId, Index};
use crate::mqtt::{Publish, Will, shared};

/// Never, as an index.
pub const NEVER: Index = Index::MAX;

/// Whether the broker has a session for a client, as far as the client can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It cannot have one.
    Absent,
    /// It must have one.
    Present,
    /// A CONNECT that would have changed it was not answered.
    Unknown,
}

/// What is known at the beginning of a round.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Sessions; a client that is missing has none.
    pub sessions: HashMap<Client, Presence>,
    /// Subscriptions of persistent sessions: granted QoS, and whether it is certain.
    pub subscriptions: HashMap<(Client, Rc<str>), (u8, bool)>,
    /// The values that each retained topic may have.
    pub retained: HashMap<Rc<str>, Vec<Option<Rc<str>>>>,
    /// Payloads published in the round before.
    pub published: HashSet<Rc<str>>,
    /// What was received in the round before: an acknowledgement that the broker has forgotten in a crash brings it back.
    pub received: HashSet<(Client, Rc<str>)>,
}

/// A message that a client published, or its will.
#[derive(Clone, Debug)]
pub struct Message {
    /// Who published it.
    pub client: Client,
    /// As it was published first.
    pub publish: Publish,
    /// Every sending: PUBLISH, or the CONNECT with the will.
    pub sends: Vec<Index>,
    /// PUBACK or PUBREC.
    pub acked: Option<Index>,
    /// Which life of the broker sent that.
    pub acked_epoch: Option<usize>,
    /// PUBACK or PUBCOMP.
    pub done: Option<Index>,
    /// Its session ended before it was done: nobody sends it again.
    pub is_abandoned: bool,
    /// It is a will.
    pub is_will: bool,
    /// Its id had been used and finished before.
    pub is_id_reused: bool,
}

/// A PUBLISH that a client received.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// When.
    pub at: Index,
    /// By whom.
    pub client: Client,
    /// On which connection.
    pub conn: ConnId,
    /// From which life of the broker. (What it said last may be read when the next one has begun.)
    pub epoch: usize,
    /// Which session of the client, counted.
    pub session: usize,
    /// What.
    pub publish: Publish,
    /// Which message of this round; none for one of an earlier round, a deletion, or what nobody published.
    pub message: Option<usize>,
    /// Not a repetition of a QoS 2 message that the receiver has not seen released: it goes on to the application.
    pub is_onward: bool,
}

/// A time in which a subscription stood.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// Whose.
    pub client: Client,
    /// Its filter.
    pub filter: Rc<str>,
    /// QoS granted, or asked for if never answered.
    pub qos: u8,
    /// From SUBACK to the moment the client begins to give it up.
    pub sure: Vec<(Index, Index)>,
    /// From SUBSCRIBE to UNSUBACK or the CONNACK of a new session.
    pub possible: (Index, Index),
    /// It ends with its connection.
    pub is_clean: bool,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Whose.
    pub client: Client,
    /// Its number.
    pub id: ConnId,
    /// CONNECT.
    pub connect: Index,
    /// To which life of the broker.
    pub epoch: usize,
    /// Clean session.
    pub is_clean: bool,
    /// MQTT 5: the session may end any time after the connection.
    pub expires: bool,
    /// Nothing of an earlier session can be in it: it is clean, or the one before was.
    pub starts_anew: bool,
    /// Its will.
    pub will: Option<Will>,
    /// What the client could know of its session at CONNECT.
    pub expected: Presence,
    /// CONNACK, and session present.
    pub connack: Option<(Index, bool)>,
    /// DISCONNECT.
    pub disconnect: Option<Index>,
    /// The client dropped it.
    pub cut: Option<Index>,
    /// The client saw its end.
    pub closed: Option<Index>,
}

impl Connection {
    /// When the client last had it.
    pub fn end(&self) -> Index {
        self.cut.unwrap_or(NEVER).min(self.closed.unwrap_or(NEVER))
    }
}

impl Subscription {
    /// Whether it is one of a group's.
    pub fn is_shared(&self) -> bool {
        shared(&self.filter).is_some()
    }

    /// From here on it is not certain any more.
    pub(super) fn doubt(&mut self, at: Index) {
        if let Some((_, end)) = self.sure.last_mut() {
            *end = (*end).min(at);
        }
    }
}
