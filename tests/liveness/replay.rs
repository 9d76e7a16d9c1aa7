//! Retained messages of every size come to the last, whatever their number: a replay goes on when
//! there is room again.

use std::time::Duration;

use crate::support::{Connect, wire};
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
