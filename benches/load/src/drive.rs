//! Publishers and subscribers at work: refill the windows, read, check, until everything expected has come.
//!
//! Topics are a table; the tag in each payload is its topic's place there, so that a delivery with the wrong topic is
//! noticed, and one to a subscriber that did not ask for it as well.

use std::time::{Duration, Instant};

use crate::clients::{GLANCE, Watch};
use crate::error::Result;
use crate::mqtt::{self, Packet};
use crate::net::{Event, Id, Net, expect_packet};
use crate::payload::{Order, Payloads, Stamp};
use crate::probe::Process;
use crate::publisher::Publisher;

/// How often memory is looked at while messages flow.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Publisher(usize),
    Subscriber(usize),
    Nothing,
}

/// The topics, which of them a subscriber hears, and how its deliveries are numbered.
pub struct Topics {
    /// By tag.
    pub names: Vec<String>,
    /// Whether this subscriber subscribes to the topic of this tag.
    pub hears: fn(subscriber: usize, tag: usize, subscribers: usize) -> bool,
    /// Whether a subscriber hears all messages of a publisher or none; otherwise only the order is judged per message
    /// and the number at the end.
    pub is_all_or_none: bool,
}

/// See the module's documentation.
pub struct Drive {
    /// The publishing clients.
    pub publishers: Vec<Publisher>,
    /// Deliveries so far, without wrong ones.
    pub received: u64,
    /// Sequence numbers and faults.
    pub order: Order,
    /// The highest memory seen, while `watch_memory` is on.
    pub rss_peak: u64,
    /// The process whose memory is watched while messages flow.
    pub watch_memory: Option<Process>,
    /// Writes and checks the messages.
    pub payloads: Payloads,
    topics: Topics,
    subscribers: usize,
    roles: Vec<Role>,
}

impl Drive {
    /// Messages of `publishers` go to `subscribers`, which are connected.
    pub fn new(publishers: Vec<Publisher>, subscribers: &[Id], topics: Topics, payload: usize) -> Self {
        let mut drive = Self {
            order: Order::new(subscribers.len().max(1), publishers.len()),
            publishers: Vec::new(),
            received: 0,
            rss_peak: 0,
            watch_memory: None,
            payloads: Payloads::new(payload),
            topics,
            subscribers: subscribers.len().max(1),
            roles: Vec::new(),
        };
        for (index, publisher) in publishers.iter().enumerate() {
            drive.assign(publisher.id, Role::Publisher(index));
        }
        drive.publishers = publishers;
        for (index, id) in subscribers.iter().enumerate() {
            drive.assign(*id, Role::Subscriber(index));
        }
        drive
    }

    /// A subscriber that came later.
    pub fn add_subscriber(&mut self, index: usize, id: Id) {
        self.assign(id, Role::Subscriber(index));
    }

    fn assign(&mut self, id: Id, role: Role) {
        if self.roles.len() <= id {
            self.roles.resize(id + 1, Role::Nothing);
        }
        self.roles[id] = role;
    }

    /// Publishes what the quotas allow, `choose` says on which topic, until `expected` deliveries have come in all and
    /// everything is acknowledged. Silence ends it too: what is missing then is counted.
    pub fn run(
        &mut self,
        net: &mut Net,
        expected: u64,
        mut choose: impl FnMut(usize, u64) -> usize,
    ) -> Result<()> {
        let mut watch = Watch::new();
        let mut memory_due = Instant::now();
        while self.received < expected || self.publishers.iter().any(|publisher| !publisher.is_done()) {
            for (index, publisher) in self.publishers.iter_mut().enumerate() {
                for _ in 0..publisher.room() {
                    let tag = choose(index, publisher.sequence());
                    publisher.send(net, &mut self.payloads, &self.topics.names[tag], tag as u32, 0);
                }
            }
            net.turn(GLANCE, |net, id, event| self.receive(net, id, event).map(drop))?;
            let sent: u64 = self.publishers.iter().map(Publisher::sequence).sum();
            if watch.is_stuck(self.received + sent) {
                break;
            }
            if let Some(process) = self.watch_memory.filter(|_| memory_due <= Instant::now()) {
                self.rss_peak = self.rss_peak.max(process.rss()?);
                memory_due = Instant::now() + MEMORY_INTERVAL;
            }
        }
        // The last acknowledgements leave, and whatever came too much is seen.
        net.turn(Duration::ZERO, |net, id, event| self.receive(net, id, event).map(drop))?;
        Ok(())
    }

    /// Takes one event; returns what a good delivery carried.
    pub fn receive(&mut self, net: &mut Net, id: Id, event: Event<'_>) -> Result<Option<Stamp>> {
        let packet = expect_packet(id, event)?;
        match (self.roles.get(id).copied().unwrap_or(Role::Nothing), &packet) {
            (Role::Publisher(index), _) => {
                if !self.publishers[index].handle(net, &packet) {
                    self.order.faults.corrupt += 1;
                }
            }
            (Role::Subscriber(index), Packet::Publish(publish)) => {
                if publish.qos > 0 {
                    mqtt::answer(net.out(id), &packet);
                }
                return Ok(self.deliver(index, publish.topic, publish.payload));
            }
            (Role::Subscriber(_), Packet::Pubrel(_)) => mqtt::answer(net.out(id), &packet),
            // Only a subscriber that comes back gets its CONNACK here, and its session must be there.
            (Role::Subscriber(_), Packet::Connack { present: true, code: 0 }) => {}
            _ => self.order.faults.corrupt += 1,
        }
        Ok(None)
    }

    fn deliver(&mut self, subscriber: usize, topic: &[u8], payload: &[u8]) -> Option<Stamp> {
        let stamp = self.payloads.read(payload).filter(|stamp| {
            let tag = stamp.tag as usize;
            self.topics.names.get(tag).is_some_and(|name| name.as_bytes() == topic)
                && (self.topics.hears)(subscriber, tag, self.subscribers)
        });
        let Some(stamp) = stamp else {
            self.order.faults.corrupt += 1;
            return None;
        };
        let is_new = if self.topics.is_all_or_none {
            self.order.accept(subscriber, stamp)
        } else {
            self.order.accept_rising(subscriber, stamp)
        };
        if !is_new {
            return None;
        }
        self.received += 1;
        self.publishers[stamp.publisher as usize].note_delivery();
        Some(stamp)
    }

    /// Counts what has not come; call once, at the end.
    pub fn settle(&mut self, expected: u64) {
        let gone = expected.saturating_sub(self.received);
        // Gaps found on the way are part of it.
        self.order.faults.missing = self.order.faults.missing.max(gone);
        self.order.faults.disordered += self.received.saturating_sub(expected);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Link;
    use crate::publisher::Window;

    fn net() -> Net {
        let link = Link { address: "127.0.0.1:1".parse().unwrap(), version: mqtt::Version::V3, tls: None };
        Net::new(link).unwrap()
    }

    fn drive() -> Drive {
        let window = Window { unacknowledged: 1, undelivered: 2, burst: 1 };
        let publishers = (0..2).map(|n| Publisher::new(n, n, 0, window, 1)).collect();
        let topics = Topics {
            names: vec!["a".to_owned(), "b".to_owned()],
            hears: |subscriber, tag, _| subscriber == tag,
            is_all_or_none: true,
        };
        Drive::new(publishers, &[2, 3], topics, 64)
    }

    fn payload(publisher: u32, tag: u32, sequence: u64) -> Vec<u8> {
        Payloads::new(64).write(Stamp { publisher, tag, sequence, intended_ns: 0 }).to_vec()
    }

    #[test]
    fn wrong_topics_receivers_and_numbers_are_faults() {
        let mut drive = drive();
        assert!(drive.deliver(0, b"a", &payload(0, 0, 0)).is_some());
        assert!(drive.deliver(0, b"b", &payload(0, 0, 1)).is_none(), "wrong topic");
        assert!(drive.deliver(1, b"a", &payload(0, 0, 1)).is_none(), "wrong receiver");
        assert!(drive.deliver(0, b"a", &payload(0, 0, 0)).is_none(), "a second time");
        assert!(drive.deliver(0, b"a", &payload(2, 0, 0)).is_none(), "an unknown publisher");
        assert_eq!(drive.order.faults.corrupt, 3);
        assert_eq!(drive.order.faults.disordered, 1);
        assert_eq!(drive.received, 1);
        drive.settle(4);
        assert_eq!(drive.order.faults.missing, 3);
    }

    #[test]
    fn deliveries_open_the_window() {
        let mut drive = drive();
        let mut net = net();
        let id = net.open().unwrap();
        assert_eq!(id, drive.publishers[0].id);
        drive.publishers[0].allow(5);
        assert_eq!(drive.publishers[0].room(), 2);
        for _ in 0..2 {
            drive.publishers[0].send(&mut net, &mut drive.payloads, "a", 0, 0);
        }
        assert_eq!(drive.publishers[0].room(), 0);
        drive.deliver(0, b"a", &payload(0, 0, 0));
        assert_eq!(drive.publishers[0].room(), 1);
    }

    #[test]
    fn a_burst_waits_until_it_is_whole_except_the_last() {
        let window = Window { unacknowledged: 9, undelivered: 4, burst: 3 };
        let mut net = net();
        let id = net.open().unwrap();
        let (mut publisher, mut payloads) = (Publisher::new(id, 0, 1, window, 1), Payloads::new(64));
        publisher.allow(5);
        assert_eq!(publisher.room(), 4);
        for _ in 0..4 {
            publisher.send(&mut net, &mut payloads, "a", 0, 0);
        }
        assert_eq!(publisher.room(), 0);
        publisher.note_delivery();
        assert_eq!(publisher.room(), 1, "one is left, no burst can be waited for");
        publisher.allow(4);
        assert_eq!(publisher.room(), 0, "one place, three wanted");
        publisher.note_delivery();
        publisher.note_delivery();
        assert_eq!(publisher.room(), 3);
    }
}
