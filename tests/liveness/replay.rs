//! Retained messages of every size come to the last, whatever their number: a replay goes on when
//! there is room again.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Connect, RawClient, wire};
use crate::wires::{CARRIERS, Carrier, Rig, STORAGES};

/// An empty payload is never a retained message.
const SIZES: [usize; 6] = [1, 1_000, 1_200, 3_000, 20_000, 100_000];

/// Several times what a session encodes ahead, in no more messages than a window or two.
fn count(size: usize) -> usize {
    (1_200_000 / size).clamp(20, 1_200)
}

#[test]
fn a_replay_comes_to_its_end_whatever_the_size_of_the_messages() {
    for storage in STORAGES {
        let rig = Rig::new(storage);
        let mut publisher = rig.open(Carrier::Tcp);
        publisher.send(&Connect::new("publisher").bytes());
        publisher.expect(0x20);
        for size in SIZES {
            for qos in [0, 1] {
                let payload = vec![b'x'; size];
                for n in 0..count(size) {
                    let topic = format!("r/{size}/{qos}/{n}");
                    let id = (qos == 1).then_some(n as u16 + 1);
                    publisher.send(&wire::raw_publish(qos << 1 | 1, topic, id, &payload));
                    if qos == 1 {
                        publisher.expect(0x40);
                    }
                }
                publisher.send(&wire::PINGREQ);
                publisher.expect(0xd0);
            }
        }
        let mut faults = Vec::new();
        for carrier in CARRIERS {
            for is_persistent in [false, true] {
                for size in SIZES {
                    for (stored, asked) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                        let mut wire = rig.open(carrier);
                        let id = format!("{carrier:?}-{is_persistent}-{size}-{stored}-{asked}");
                        let connect =
                            if is_persistent { Connect::persistent(&id) } else { Connect::new(&id) };
                        wire.send(&connect.bytes());
                        wire.expect(0x20);
                        wire.patience(Duration::from_secs(3));
                        wire.send(&wire::subscribe(1, &[(format!("r/{size}/{stored}/#"), asked)]));
                        wire.expect(0x90);
                        let mut seen = 0;
                        while seen < count(size) {
                            let Ok(Some((first, body))) = wire.packet() else { break };
                            assert_eq!(first & 0xf1, 0x31, "a retained message");
                            if first & 0x06 != 0 {
                                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                                let id = u16::from_be_bytes([body[2 + topic], body[3 + topic]]);
                                wire.send(&wire::puback(id));
                            }
                            seen += 1;
                        }
                        if seen < count(size) {
                            faults.push(format!("{storage:?} {id}: {seen} of {}", count(size)));
                        }
                    }
                }
            }
        }
        assert!(faults.is_empty(), "stood still:\n{}", faults.join("\n"));
    }
}

/// How a connection ends in the midst of a replay.
#[derive(Debug, Clone, Copy)]
enum End {
    Cut,
    Disconnect,
    TakeOver,
    AtOnce,
}

/// Reported: what had not been sent when the connection ended was never sent, though the session
/// went on.
#[test]
fn a_replay_goes_on_with_the_next_connection_of_its_session() {
    const RETAINED: usize = 200;
    for (storage, end) in STORAGES
        .into_iter()
        .flat_map(|storage| [End::Cut, End::Disconnect, End::TakeOver, End::AtOnce].map(|end| (storage, end)))
    {
        let rig = Rig::new(storage);
        let broker = &rig.broker;
        let mut publisher = RawClient::clean(broker.addrs()[0], "publisher");
        for n in 0..RETAINED {
            publisher.send(&wire::raw_publish(3, format!("r/{n}"), Some(1), b"value"));
            publisher.expect_packet();
        }
        let mut client = RawClient::persistent(broker.addrs()[0], "client");
        let mut got = BTreeSet::new();
        if let End::AtOnce = end {
            let subscribe = wire::subscribe(1, &[("r/#", 1)]);
            client.send(&[&subscribe[..], &wire::DISCONNECT].concat());
            while client.packet_or_end().is_some() {}
        } else {
            client.subscribe("r/#", 1);
            take(&mut client, &mut got, 10);
        }
        match end {
            End::Disconnect => client.disconnect(),
            End::Cut => client.vanish(),
            // The older one is closed by the one that comes.
            End::TakeOver | End::AtOnce => {}
        }
        let mut client = RawClient::resume(broker.addrs()[0], "client");
        let left = RETAINED - got.len();
        take(&mut client, &mut got, left);
        assert_eq!(got.len(), RETAINED, "{storage:?} {end:?}");
        // All of them once more, and nothing that was left twice.
        client.subscribe("r/#", 1);
        take(&mut client, &mut BTreeSet::new(), RETAINED);
        client.expect_nothing();
    }
}

/// Takes so many topics that were not seen yet, and acknowledges each.
fn take(client: &mut RawClient, got: &mut BTreeSet<String>, count: usize) {
    let all = got.len() + count;
    while got.len() < all {
        let publish = client.expect_publish();
        assert!(publish.retain, "{publish:?}");
        client.send(&wire::puback(publish.id()));
        got.insert(publish.topic);
    }
}
