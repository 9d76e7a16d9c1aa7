//! A client that leaves is answered first: DISCONNECT, the end of its input or a fault of its own
//! may come in the same segment as what it asked.

use crate::support::{Connect, Connect5, wire, wire5};
use crate::wires::{CARRIERS, Carrier, Rig, STORAGES, Storage};

const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const SUBACK: u8 = 0x90;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;

/// No packet has this type with these flags.
const MALFORMED: [u8; 2] = [0xf3, 0x00];

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum End {
    Disconnect,
    Fin,
    Malformed,
}

/// What a client sends between CONNECT and its end, and the types of the answers.
#[derive(Debug, Clone, Copy)]
enum Asks {
    Nothing,
    Publish(u8),
    Retained(u8),
    Subscribe,
    Itself,
    Ping,
}

impl Asks {
    fn bytes(self, is_v5: bool) -> Vec<u8> {
        let id = |qos| (qos > 0).then_some(7);
        let publish = |topic, flags, qos| match is_v5 {
            false => wire::raw_publish(flags, topic, id(qos), "m"),
            true => wire5::publish5(flags, topic, id(qos), &[], "m"),
        };
        let subscribe = || match is_v5 {
            false => wire::subscribe(3, &[("u", 0)]),
            true => wire5::subscribe5(3, &[], &[("u", 0)]),
        };
        match self {
            Self::Nothing => Vec::new(),
            Self::Publish(qos) => publish("t", qos << 1, qos),
            Self::Retained(qos) => publish("t", qos << 1 | 1, qos),
            Self::Subscribe => subscribe(),
            Self::Itself => [subscribe(), publish("u", 0, 0)].concat(),
            Self::Ping => wire::PINGREQ.to_vec(),
        }
    }

    fn answers(self) -> &'static [u8] {
        match self {
            Self::Nothing | Self::Publish(0) | Self::Retained(0) => &[],
            Self::Publish(1) | Self::Retained(1) => &[PUBACK],
            Self::Publish(_) | Self::Retained(_) => &[PUBREC],
            Self::Subscribe => &[SUBACK],
            Self::Itself => &[SUBACK, PUBLISH],
            Self::Ping => &[PINGRESP],
        }
    }
}

fn connect(is_v5: bool, is_persistent: bool, id: &str) -> Vec<u8> {
    match (is_v5, is_persistent) {
        (false, false) => Connect::new(id).bytes(),
        (false, true) => Connect::persistent(id).bytes(),
        (true, false) => Connect5::new(id).bytes(),
        (true, true) => Connect5::persistent(id).bytes(),
    }
}

#[test]
fn a_client_that_leaves_at_once_has_its_answers() {
    let asks = [
        Asks::Nothing,
        Asks::Publish(0),
        Asks::Publish(1),
        Asks::Publish(2),
        Asks::Retained(1),
        Asks::Retained(2),
        Asks::Subscribe,
        Asks::Itself,
        Asks::Ping,
    ];
    let mut faults = Vec::new();
    for storage in STORAGES {
        let rig = Rig::new(storage);
        let mut n = 0;
        for carrier in CARRIERS {
            for is_v5 in [false, true] {
                for is_persistent in [false, true] {
                    for ask in asks {
                        for end in [End::Disconnect, End::Fin, End::Malformed] {
                            n += 1;
                            let mut wire = rig.open(carrier);
                            let mut bytes = connect(is_v5, is_persistent, &format!("c{n}"));
                            bytes.extend(ask.bytes(is_v5));
                            match end {
                                End::Disconnect => bytes.extend(wire::DISCONNECT),
                                End::Malformed => bytes.extend(MALFORMED),
                                End::Fin => {}
                            }
                            wire.send(&bytes);
                            if let End::Fin = end {
                                wire.finish_sending();
                            }
                            let mut expected = [&[CONNACK], ask.answers()].concat();
                            if is_v5 && matches!(end, End::Malformed) {
                                expected.push(DISCONNECT);
                            }
                            let mut got = wire.kinds_until_closed();
                            if let (Asks::Itself, Ok(kinds)) = (ask, &mut got)
                                && let Some(middle) = kinds.get_mut(1..3)
                            {
                                // SUBACK may wait for the disk, and a message overtake it (section
                                // 3.8.4).
                                middle.sort_unstable_by(|a, b| b.cmp(a));
                            }
                            if got.as_ref() != Ok(&expected) {
                                faults.push(format!(
                                    "{storage:?} {carrier:?} v5 {is_v5} persistent {is_persistent} {ask:?} {end:?}: \
                                     {got:x?}, expected {expected:x?}"
                                ));
                            }
                        }
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The answers to a client that does not read them are nobody else's business: its successor does
/// not wait for them.
#[test]
fn a_successor_does_not_wait_for_the_last_words() {
    for storage in STORAGES {
        let rig = Rig::new(storage);
        for attempt in 0.. {
            let mut leaving = rig.open(Carrier::Tcp);
            leaving.send(&Connect::persistent("leaves").bytes());
            leaving.expect(CONNACK);
            leaving.send(&wire::subscribe(1, &[("t", 0)]));
            leaving.expect(SUBACK);
            // More than the sockets take: it reads nothing of it.
            let message = wire::raw_publish(0, "t", None, vec![b'x'; 1_000_000]);
            let mut publisher = rig.open(Carrier::Tcp);
            publisher.send(&Connect::new("publisher").bytes());
            publisher.expect(CONNACK);
            for _ in 0..20 {
                publisher.send(&message);
            }
            publisher.send(&wire::PINGREQ);
            publisher.expect(PINGRESP);
            leaving.send(&wire::DISCONNECT);
            crate::support::broker::eventually(&rig.broker, "the end", |metrics| {
                metrics.clients_connected == 1
            });
            let mut successor = rig.open(Carrier::Tcp);
            successor.send(&Connect::persistent("leaves").bytes());
            successor.expect(CONNACK);
            // The older socket is still there.
            if rig.broker.metrics().sockets == 3 {
                break;
            }
            assert!(attempt < 5, "the older one's time was over each time, or the successor waited for it");
            drop((leaving, publisher, successor));
            crate::support::broker::eventually(&rig.broker, "the end", |metrics| metrics.sockets == 0);
        }
    }
}

/// What a client that is gone was owed holds nothing back.
#[test]
fn a_client_that_is_gone_costs_nothing() {
    let rig = Rig::new(Storage::Disk);
    for n in 0..50 {
        let mut wire = rig.open(Carrier::Tcp);
        let mut bytes = Connect::new(format!("c{n}")).bytes();
        bytes.extend(wire::raw_publish(3, "t", Some(1), "m"));
        wire.send(&bytes);
        drop(wire);
    }
    let begun = std::time::Instant::now();
    crate::support::broker::eventually(&rig.broker, "the end", |metrics| {
        metrics.connections == 50 && metrics.sockets == 0
    });
    assert!(begun.elapsed() < std::time::Duration::from_secs(5));
}
