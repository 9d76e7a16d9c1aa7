//! Deliveries that wait for the log go when it is there, whoever else was at work meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crate::support::{Connect, wire};
use crate::wires::{CARRIERS, Carrier, Rig, Storage, Wire};

fn open(rig: &Rig, carrier: Carrier, connect: &Connect) -> Wire {
    let mut wire = rig.open(carrier);
    wire.send(&connect.bytes());
    wire.expect(0x20);
    wire
}

/// Takes a QoS 2 publish to its end.
fn complete(mut publisher: Wire, id: u16) -> Wire {
    assert_eq!(publisher.expect(0x50).1[..2], id.to_be_bytes(), "PUBREC");
    publisher.send(&wire::pubrel(id));
    assert_eq!(publisher.expect(0x70).1[..2], id.to_be_bytes(), "PUBCOMP");
    publisher
}

/// Two publishers are told that their messages are taken, one of them at work for long in the same
/// turn: the subscriber has both, and did nothing for it. (A wake-up that one turn had asked for
/// counted for the other, which was on disk only later.)
#[test]
fn messages_of_two_publishers_at_qos_2_arrive_by_themselves() {
    const ROUNDS: u16 = 150;
    for carrier in CARRIERS {
        let rig = Rig::new(Storage::Disk);
        let mut subscriber = open(&rig, carrier, &Connect::persistent("subscriber"));
        subscriber.send(&wire::subscribe(1, &[("t/#", 2)]));
        subscriber.expect(0x90);
        subscriber.patience(Duration::from_secs(3));
        let mut quick = open(&rig, Carrier::Tcp, &Connect::new("quick"));
        let mut slow = open(&rig, Carrier::Tcp, &Connect::new("slow"));
        let noise = wire::raw_publish(0, "elsewhere/and/not/heard", None, [0; 20]).repeat(900);
        let noise: Arc<[u8]> = noise.into();
        for round in 1..=ROUNDS {
            let first = wire::publish_qos2(round, "t/slow", "m");
            let second = wire::publish_qos2(round, "t/quick", "m");
            let noise = Arc::clone(&noise);
            let sending = std::thread::spawn(move || {
                slow.send(&first);
                slow.send(&noise);
                complete(slow, round)
            });
            quick.send(&second);
            quick = complete(quick, round);
            slow = sending.join().expect("a publisher");
            let mut ids = Vec::new();
            for n in 0..2 {
                let packet = subscriber.packet();
                let Ok(Some((first, body))) = packet else {
                    panic!("{carrier:?}, round {round}: {n} of 2 messages have come: {packet:?}")
                };
                assert_eq!(first & 0xf6, 0x34, "a message at QoS 2");
                let topic = usize::from(u16::from_be_bytes([body[0], body[1]]));
                ids.push(u16::from_be_bytes([body[2 + topic], body[3 + topic]]));
            }
            for id in ids {
                subscriber.send(&wire::pubrec(id));
                assert_eq!(subscriber.expect(0x60).1[..2], id.to_be_bytes(), "PUBREL");
                subscriber.send(&wire::pubcomp(id));
            }
        }
    }
}
