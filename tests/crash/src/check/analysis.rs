//! A history read once: which messages there are and how they fared, which subscriptions stood when, which sessions must
//! be there, what each receiver got.
//!
//! Facts only; the invariants judge them. A history covers one round. What a round leaves to the next one is small,
//! because a round ends with everything acknowledged and everybody disconnected: see [`Before`].

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::facts::{Before, Connection, Message, NEVER, Presence, Receipt, Subscription};
use crate::history::{Client, ConnId, Event, Index, What};
use crate::mqtt::{Connect, Packet, Publish};

/// The facts.
#[derive(Debug)]
pub struct Analysis<'a> {
    /// The history.
    pub events: &'a [Event],
    /// What was before.
    pub before: &'a Before,
    /// Messages in the order of their first sending.
    pub messages: Vec<Message>,
    /// Receipts in order.
    pub receipts: Vec<Receipt>,
    /// Subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Connections in order of their CONNECT.
    pub connections: Vec<Connection>,
    /// Deaths of the broker.
    pub kills: Vec<Index>,
    /// Starts of the broker.
    pub starts: Vec<Index>,
    /// Sessions at the end.
    pub sessions: HashMap<Client, Presence>,
    /// Which session each client has had last, counted as in [`Receipt::session`].
    pub last_sessions: HashMap<Client, usize>,
    /// Clients with shared subscriptions, and with nothing else: what one of them does not answer,
    /// another one may get.
    pub members: HashSet<Client>,
    by_payload: HashMap<Rc<str>, usize>,
}

/// What is gathered on the way.
#[derive(Default)]
struct Gathering {
    /// Messages not done, by client and packet id.
    unfinished: HashMap<(Client, u16), usize>,
    used: HashSet<(Client, u16)>,
    /// QoS 2 ids not released, by receiver.
    open: HashMap<Client, HashMap<u16, Rc<str>>>,
    /// Indices of standing subscriptions.
    standing: HashMap<(Client, Rc<str>), usize>,
    /// SUBSCRIBE and UNSUBSCRIBE not answered.
    asked: HashMap<(ConnId, u16), Rc<str>>,
    conns: HashMap<ConnId, usize>,
    /// How many sessions each client has had.
    sessions: HashMap<Client, usize>,
}

impl<'a> Analysis<'a> {
    /// Reads a history.
    pub fn of(events: &'a [Event], before: &'a Before) -> Self {
        let mut analysis = Self {
            events,
            before,
            messages: Vec::new(),
            receipts: Vec::new(),
            subscriptions: Vec::new(),
            connections: Vec::new(),
            kills: Vec::new(),
            starts: Vec::new(),
            sessions: before.sessions.clone(),
            last_sessions: HashMap::new(),
            members: HashSet::new(),
            by_payload: HashMap::new(),
        };
        let mut gathering = Gathering::default();
        for ((client, filter), (qos, is_sure)) in &before.subscriptions {
            gathering.standing.insert((Rc::clone(client), Rc::clone(filter)), analysis.subscriptions.len());
            analysis.subscriptions.push(Subscription {
                client: Rc::clone(client),
                filter: Rc::clone(filter),
                qos: *qos,
                sure: if *is_sure { vec![(0, NEVER)] } else { Vec::new() },
                possible: (0, NEVER),
                is_clean: false,
            });
        }
        for (at, event) in events.iter().enumerate() {
            match &event.what {
                What::Sent(client, conn, packet) => analysis.sent(&mut gathering, at, client, *conn, packet),
                What::Received(client, conn, packet) => {
                    analysis.received(&mut gathering, at, client, *conn, packet);
                }
                What::Cut(_, conn) => {
                    analysis.ended(&mut gathering, *conn, |c| c.cut = c.cut.or(Some(at)), at)
                }
                What::Closed(_, conn) => {
                    analysis.ended(&mut gathering, *conn, |c| c.closed = c.closed.or(Some(at)), at);
                }
                What::Killed => analysis.kills.push(at),
                What::Started => analysis.starts.push(at),
                What::Quiet(..) | What::Idle(..) | What::Garbage(..) | What::File(_) | What::Died(_) => {}
            }
        }
        analysis.last_sessions = gathering.sessions;
        let subscriptions = analysis.subscriptions.iter().filter(|s| s.is_shared());
        analysis.members = subscriptions.map(|subscription| Rc::clone(&subscription.client)).collect();
        for receipt in &mut analysis.receipts {
            receipt.message = analysis.by_payload.get(&receipt.publish.payload).copied();
        }
        analysis
    }

    fn sent(&mut self, g: &mut Gathering, at: Index, client: &Client, conn: ConnId, packet: &Packet) {
        match packet {
            Packet::Connect(connect) => self.connect(g, at, conn, connect),
            Packet::Publish(publish) if publish.qos > 0 => self.publish(g, at, client, publish),
            // Nobody is told whether it took effect; but it may have.
            Packet::Publish(publish) if publish.retain => {
                self.push_message(client, publish.clone(), at, false, false);
            }
            Packet::Subscribe { id, filter, qos } => {
                g.asked.insert((conn, *id), Rc::clone(filter));
                let key = (Rc::clone(client), Rc::clone(filter));
                let is_clean = g.conns.get(&conn).is_some_and(|conn| self.connections[*conn].is_clean);
                g.standing.entry(key).or_insert_with(|| {
                    self.subscriptions.push(Subscription {
                        client: Rc::clone(client),
                        filter: Rc::clone(filter),
                        qos: *qos,
                        sure: Vec::new(),
                        possible: (at, NEVER),
                        is_clean,
                    });
                    self.subscriptions.len() - 1
                });
            }
            Packet::Unsubscribe { id, filter } => {
                g.asked.insert((conn, *id), Rc::clone(filter));
                if let Some(standing) = g.standing.get(&(Rc::clone(client), Rc::clone(filter))) {
                    self.subscriptions[*standing].doubt(at);
                }
            }
            Packet::Disconnect | Packet::DisconnectForGood => {
                if let Some(conn) = g.conns.get(&conn) {
                    let conn = &mut self.connections[*conn];
                    conn.disconnect = Some(at);
                    if conn.is_clean || conn.expires {
                        self.doubt_all(g, client, at);
                    }
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, g: &mut Gathering, at: Index, conn: ConnId, connect: &Connect) {
        let client = &connect.client_id;
        let session = self.sessions.entry(Rc::clone(client)).or_insert(Presence::Absent);
        let expected = *session;
        if connect.clean || *session == Presence::Absent {
            *session = Presence::Unknown;
        }
        let was_clean =
            self.connections.iter().rfind(|c| c.client == *client).is_some_and(|last| last.is_clean);
        let starts_anew = connect.clean || was_clean;
        if starts_anew {
            *g.sessions.entry(Rc::clone(client)).or_default() += 1;
            g.open.remove(client);
            self.doubt_all(g, client, at);
            self.abandon(g, client);
        }
        if let Some(will) = &connect.will {
            let publish = Publish {
                qos: will.qos,
                dup: false,
                retain: will.retain,
                id: 0,
                topic: Rc::clone(&will.topic),
                payload: Rc::clone(&will.payload),
            };
            self.push_message(client, publish, at, true, false);
        }
        g.conns.insert(conn, self.connections.len());
        self.connections.push(Connection {
            client: Rc::clone(client),
            id: conn,
            connect: at,
            epoch: self.starts.len(),
            is_clean: connect.clean,
            expires: connect.expiry.is_some(),
            starts_anew,
            will: connect.will.clone(),
            expected,
            connack: None,
            disconnect: None,
            cut: None,
            closed: None,
        });
    }

    fn publish(&mut self, g: &mut Gathering, at: Index, client: &Client, publish: &Publish) {
        let key = (Rc::clone(client), publish.id);
        if let Some(&known) = g.unfinished.get(&key) {
            let message = &mut self.messages[known];
            if message.publish.payload == publish.payload && message.publish.topic == publish.topic {
                message.sends.push(at);
                return;
            }
        }
        let is_id_reused = !g.used.insert(key.clone());
        g.unfinished.insert(key, self.messages.len());
        self.push_message(client, publish.clone(), at, false, is_id_reused);
    }

    fn push_message(
        &mut self,
        client: &Client,
        publish: Publish,
        at: Index,
        is_will: bool,
        is_id_reused: bool,
    ) {
        if !publish.payload.is_empty() {
            self.by_payload.insert(Rc::clone(&publish.payload), self.messages.len());
        }
        self.messages.push(Message {
            client: Rc::clone(client),
            publish,
            sends: vec![at],
            acked: None,
            acked_epoch: None,
            done: None,
            is_abandoned: false,
            is_will,
            is_id_reused,
        });
    }

    fn received(&mut self, g: &mut Gathering, at: Index, client: &Client, conn: ConnId, packet: &Packet) {
        match packet {
            Packet::ConnAck { present, code: 0 } => {
                let Some(&index) = g.conns.get(&conn) else { return };
                let connection = &mut self.connections[index];
                connection.connack = Some((at, *present));
                let (is_clean, connect) = (connection.is_clean, connection.connect);
                let session = if is_clean { Presence::Absent } else { Presence::Present };
                self.sessions.insert(Rc::clone(client), session);
                if !present {
                    *g.sessions.entry(Rc::clone(client)).or_default() += 1;
                    g.open.remove(client);
                    g.standing.retain(|(owner, _), standing| {
                        let subscription = &mut self.subscriptions[*standing];
                        let ends = owner == client && subscription.possible.0 <= connect;
                        if ends {
                            subscription.possible.1 = at;
                        }
                        !ends
                    });
                }
            }
            Packet::Publish(publish) => {
                let open = g.open.entry(Rc::clone(client)).or_default();
                let is_onward = publish.qos != 2
                    || open.insert(publish.id, Rc::clone(&publish.payload)).as_ref()
                        != Some(&publish.payload);
                let epoch = self.epoch(g, conn);
                self.receipts.push(Receipt {
                    at,
                    client: Rc::clone(client),
                    conn,
                    epoch,
                    session: g.sessions.get(client).copied().unwrap_or(0),
                    publish: publish.clone(),
                    message: None,
                    is_onward,
                });
            }
            Packet::PubRel(id) => {
                if let Some(open) = g.open.get_mut(client) {
                    open.remove(id);
                }
            }
            Packet::PubAck(id) | Packet::PubRec(id) | Packet::PubComp(id) => {
                let key = (Rc::clone(client), *id);
                let Some(&known) = g.unfinished.get(&key) else { return };
                let epoch = self.epoch(g, conn);
                let message = &mut self.messages[known];
                match (packet, message.publish.qos) {
                    (Packet::PubAck(_), 1) => message.done = Some(at),
                    (Packet::PubComp(_), 2) if message.acked.is_some() => message.done = Some(at),
                    (Packet::PubRec(_), 2) => {}
                    _ => return,
                }
                message.acked = message.acked.or(Some(at));
                message.acked_epoch = message.acked_epoch.or(Some(epoch));
                if message.done.is_some() {
                    g.unfinished.remove(&key);
                }
            }
            Packet::SubAck { id, code } => {
                let Some(filter) = g.asked.get(&(conn, *id)) else { return };
                let key = (Rc::clone(client), Rc::clone(filter));
                let Some(standing) = g.standing.get(&key) else { return };
                let subscription = &mut self.subscriptions[*standing];
                if *code < 0x80 {
                    subscription.qos = *code;
                    if subscription.sure.last().is_none_or(|(_, end)| *end != NEVER) {
                        subscription.sure.push((at, NEVER));
                    }
                }
            }
            Packet::UnsubAck(id) => {
                let Some(filter) = g.asked.get(&(conn, *id)) else { return };
                if let Some(standing) = g.standing.remove(&(Rc::clone(client), Rc::clone(filter))) {
                    self.subscriptions[standing].possible.1 = at;
                }
            }
            _ => {}
        }
    }

    fn ended(&mut self, g: &mut Gathering, conn: ConnId, note: impl Fn(&mut Connection), at: Index) {
        let Some(&index) = g.conns.get(&conn) else { return };
        note(&mut self.connections[index]);
        let (is_clean, client) =
            (self.connections[index].is_clean, Rc::clone(&self.connections[index].client));
        let is_last = self.connections.iter().rfind(|c| c.client == client).is_some_and(|c| c.id == conn);
        if self.connections[index].expires && is_last {
            self.doubt_all(g, &client, at);
            self.sessions.insert(Rc::clone(&client), Presence::Unknown);
        }
        if is_clean && is_last {
            self.doubt_all(g, &client, at);
            self.abandon(g, &client);
        }
    }

    fn epoch(&self, g: &Gathering, conn: ConnId) -> usize {
        g.conns.get(&conn).map_or(self.starts.len(), |conn| self.connections[*conn].epoch)
    }

    /// From here on none of the client's subscriptions is certain.
    fn doubt_all(&mut self, g: &Gathering, client: &Client, at: Index) {
        for ((owner, _), standing) in &g.standing {
            if owner == client {
                self.subscriptions[*standing].doubt(at);
            }
        }
    }

    fn abandon(&mut self, g: &mut Gathering, client: &Client) {
        g.unfinished.retain(|(owner, _), message| {
            if owner == client {
                self.messages[*message].is_abandoned = true;
            }
            owner != client
        });
    }

    /// Whether nothing is left of a client's earlier session from this event of a connection on.
    pub fn starts_anew(&self, what: &What) -> bool {
        match what {
            What::Received(_, _, Packet::ConnAck { present: false, .. }) => true,
            What::Sent(_, conn, Packet::Connect(_)) => {
                self.connections.iter().any(|connection| connection.id == *conn && connection.starts_anew)
            }
            _ => false,
        }
    }

    /// The receipts of live messages of this round, with their messages; not those of members of
    /// groups, who are not alone in it.
    pub fn deliveries(&self) -> impl Iterator<Item = (&Receipt, usize, &Message)> {
        let live = |receipt: &&Receipt| !receipt.publish.retain && !self.members.contains(&receipt.client);
        self.receipts.iter().filter(live).filter_map(|receipt| {
            let index = receipt.message?;
            Some((receipt, index, &self.messages[index]))
        })
    }

    /// Until when the broker may have used a connection: it need not have seen yet that the client dropped it.
    pub fn broker_end(&self, connection: &Connection) -> Index {
        let successor = self.connections.iter().filter(|next| next.client == connection.client);
        let connacks =
            successor.filter_map(|next| Some(next.connack?.0)).filter(|at| *at > connection.connect);
        let next = connacks.filter(|at| connection.connack.is_none_or(|(own, _)| own != *at)).min();
        let kill = self.kills.iter().copied().find(|kill| *kill > connection.connect);
        [connection.closed, next, kill].into_iter().flatten().min().unwrap_or(NEVER)
    }

    /// What the next round has to know; the retained values are added by their invariant.
    pub fn after(&self) -> Before {
        let mut after = Before { sessions: self.sessions.clone(), ..Before::default() };
        for subscription in &self.subscriptions {
            if subscription.possible.1 == NEVER && !subscription.is_clean {
                let is_sure = subscription.sure.last().is_some_and(|(_, end)| *end == NEVER);
                let key = (Rc::clone(&subscription.client), Rc::clone(&subscription.filter));
                after.subscriptions.insert(key, (subscription.qos, is_sure));
            }
        }
        after.published = self.by_payload.keys().cloned().collect();
        let received = self.receipts.iter();
        after.received = received
            .map(|receipt| (Rc::clone(&receipt.client), Rc::clone(&receipt.publish.payload)))
            .collect();
        after
    }
}
