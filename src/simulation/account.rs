//! The judge: what was sent, what was acknowledged, who must and who may get it, and what came.
//!
//! The invariants are those of the crash checker: nothing acknowledged is lost, nothing comes that was not sent or is not for this receiver, QoS 2
//! comes once, a repetition at QoS 1 says so, order holds for one publisher, topic and QoS.

use std::collections::{BTreeMap, BTreeSet};

use super::support::server_packet::Publish;

/// Publisher and number.
pub(super) type Uid = (String, u64);

/// What a payload begins with.
pub(super) fn text_of(uid: &Uid) -> String {
    format!("{}:{}:", uid.0, uid.1)
}

fn uid_of(publish: &Publish) -> Uid {
    let text = publish.text();
    let mut parts = text.split(':');
    match (parts.next(), parts.next().and_then(|number| number.parse().ok())) {
        (Some(publisher), Some(number)) => (publisher.to_owned(), number),
        _ => panic!("nobody has sent {publish:?}"),
    }
}

#[derive(Debug)]
struct Message {
    topic: String,
    qos: u8,
    payload: Vec<u8>,
    sends: u32,
    acked: bool,
    must: BTreeSet<String>,
    may: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Got {
    copies: u32,
    /// Without DUP.
    fresh: u32,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Account {
    messages: BTreeMap<Uid, Message>,
    got: BTreeMap<(String, Uid), Got>,
    /// By receiver, publisher, topic and QoS: the latest that came.
    latest: BTreeMap<(String, String, String, u8), u64>,
    /// Told when something is wrong.
    pub(super) history: Vec<String>,
}

impl Account {
    /// Something happened.
    pub(super) fn note(&mut self, what: String) {
        self.history.push(what);
    }

    pub(super) fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.history.join("\n"));
    }

    /// A message leaves for the first time.
    pub(super) fn sent(
        &mut self,
        uid: &Uid,
        topic: &str,
        qos: u8,
        payload: &[u8],
        must: BTreeSet<String>,
        may: BTreeSet<String>,
    ) {
        let message = Message {
            topic: topic.to_owned(),
            qos,
            payload: payload.to_vec(),
            sends: 1,
            acked: false,
            must,
            may,
        };
        self.messages.insert(uid.clone(), message);
    }

    /// It leaves again; meanwhile others may have subscribed.
    pub(super) fn sent_again(&mut self, uid: &Uid, may: BTreeSet<String>) {
        if let Some(message) = self.messages.get_mut(uid) {
            message.sends += 1;
            message.may.extend(may);
        }
    }

    /// The broker has taken it over: from now on it must come.
    pub(super) fn acked(&mut self, uid: &Uid) {
        if let Some(message) = self.messages.get_mut(uid) {
            message.acked = true;
        }
    }

    /// The receiver has asked for something that ends its claim to messages of these topics.
    pub(super) fn waive(&mut self, receiver: &str, topics: impl Fn(&str) -> bool) {
        for message in self.messages.values_mut().filter(|message| topics(&message.topic)) {
            message.must.remove(receiver);
        }
    }

    /// The receiver's session is gone: nothing sent so far may come any more.
    pub(super) fn session_gone(&mut self, receiver: &str) {
        for message in self.messages.values_mut() {
            message.must.remove(receiver);
            message.may.remove(receiver);
        }
    }

    /// This one must not come, if it has not.
    pub(super) fn called_off(&mut self, uid: &Uid) {
        if let Some(message) = self.messages.get_mut(uid) {
            message.must.clear();
            message.may.clear();
        }
    }

    /// A message arrived and is none that the receiver knows already.
    pub(super) fn received(&mut self, receiver: &str, publish: &Publish, granted: u8, ordered: bool) {
        let uid = uid_of(publish);
        self.note(format!(
            "  {receiver} < {uid:?} {} q{} id {:?} dup {}",
            publish.topic, publish.qos, publish.packet_id, publish.dup
        ));
        let Some(message) = self.messages.get(&uid) else {
            self.fail(&format!("{receiver} got what was never sent: {publish:?}"))
        };
        if message.topic != publish.topic || message.payload != publish.payload {
            self.fail(&format!("{receiver} got something else than was sent: {publish:?}"));
        }
        let qos = message.qos.min(granted);
        if qos != publish.qos || publish.retain {
            self.fail(&format!("{receiver}, granted {granted}, got {uid:?} as {publish:?}"));
        }
        if !message.may.contains(receiver) {
            self.fail(&format!("{receiver} got {uid:?}, which is not for it (any more)"));
        }
        let sends = message.sends;
        let got = self.got.entry((receiver.to_owned(), uid.clone())).or_default();
        got.copies += 1;
        got.fresh += u32::from(!publish.dup);
        let (copies, fresh) = (got.copies, got.fresh);
        // Where the publisher's QoS is lower, its own repetition is another message.
        if qos == 2 && copies > 1 {
            self.fail(&format!("{receiver} got {uid:?} twice at QoS 2"));
        }
        let fresh_max = if message_is_once(self.messages.get(&uid)) { 1 } else { sends };
        if qos == 1 && ordered && fresh > fresh_max {
            self.fail(&format!(
                "{receiver} got {uid:?} again without DUP: {fresh} times, sent {sends} times"
            ));
        }
        if copies == 1 && ordered {
            let key = (receiver.to_owned(), uid.0.clone(), publish.topic.clone(), publish.qos);
            let latest = self.latest.entry(key).or_default();
            if *latest > uid.1 {
                let latest = *latest;
                self.fail(&format!("{receiver} got {uid:?} after {latest}"));
            }
            *latest = uid.1;
        }
    }

    /// What must have come and has not.
    pub(super) fn missing(&self) -> Vec<(String, Uid)> {
        let mut missing = Vec::new();
        for (uid, message) in self.messages.iter().filter(|(_, message)| message.acked) {
            for receiver in &message.must {
                if !self.got.contains_key(&(receiver.clone(), uid.clone())) {
                    missing.push((receiver.clone(), uid.clone()));
                }
            }
        }
        missing
    }
}

/// At QoS 2 the publisher's repetition is no second message.
fn message_is_once(message: Option<&Message>) -> bool {
    message.is_some_and(|message| message.qos == 2)
}

/// A topic's retained message: one publisher, so what it may be is what was acknowledged last or anything sent later.
#[derive(Debug)]
pub(super) struct Register {
    /// Empty: removed.
    values: Vec<Vec<u8>>,
    acked: usize,
}

impl Default for Register {
    fn default() -> Self {
        Self { values: vec![Vec::new()], acked: 0 }
    }
}

impl Register {
    /// A value is on its way; returns what it is called.
    pub(super) fn sent(&mut self, value: &[u8]) -> usize {
        self.values.push(value.to_vec());
        self.values.len() - 1
    }

    pub(super) fn acked(&mut self, index: usize) {
        self.acked = self.acked.max(index);
    }

    pub(super) fn may_be(&self, value: &[u8]) -> bool {
        self.values[self.acked..].iter().any(|known| known == value)
    }
}
