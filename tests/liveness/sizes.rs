//! Messages of 0 to 100,000 bytes come to the last, and no more of them than the window has room
//! for: from a queue, from a member of a group that has left, and to a client that is slow to
//! acknowledge. Small and large messages go different ways: copied or shared, in memory or read
//! back, in one segment of the log or in many.

use crate::support::{Connect, wire};
use crate::wires::{CARRIERS, Carrier, Rig, STORAGES, Storage, Wire};

const SIZES: [usize; 10] = [0, 1, 127, 1_000, 1_200, 4_096, 16_384, 65_535, 65_536, 100_000];
/// Messages on their way to a client at the same time.
const WINDOW: usize = 3;

/// More than a window and a segment of output have room for.
fn count(size: usize) -> usize {
    (800_000 / size.max(1)).clamp(12, 60)
}

fn rig(storage: Storage) -> Rig {
    Rig::with(storage, |config| {
        config.limits.inflight_max = WINDOW as u16;
        config.limits.queue_bytes_max = 16 * 1024 * 1024;
    })
}

fn open(rig: &Rig, carrier: Carrier, connect: &Connect) -> Wire {
    let mut wire = rig.open(carrier);
    wire.send(&connect.bytes());
    wire.expect(0x20);
    wire
}

fn subscribe(wire: &mut Wire, filter: &str, qos: u8) {
    wire.send(&wire::subscribe(1, &[(filter, qos)]));
    wire.expect(0x90);
}

/// Publishes them, numbered by their topics, and has each acknowledged.
fn publish(publisher: &mut Wire, size: usize, qos: u8) {
    let payload = vec![b'x'; size];
    for n in 0..count(size) {
        let id = n as u16 + 1;
        publisher.send(&wire::raw_publish(qos << 1, format!("s/{n}"), Some(id), &payload));
        if qos == 1 {
            publisher.expect(0x40);
        } else {
            publisher.expect(0x50);
            publisher.send(&wire::pubrel(id));
            publisher.expect(0x70);
        }
    }
}

/// A message's number and packet id.
#[track_caller]
fn message(first: u8, body: &[u8], size: usize, qos: u8) -> (usize, u16) {
    assert_eq!(first >> 1 & 3, qos);
    let topic = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
    assert_eq!(body.len(), topic + 2 + size);
    assert!(body[topic + 2..].iter().all(|byte| *byte == b'x'));
    let number = std::str::from_utf8(&body[2..topic]).expect("a topic").trim_start_matches("s/");
    (number.parse().expect("a number"), u16::from_be_bytes([body[topic], body[topic + 1]]))
}

fn acknowledge(subscriber: &mut Wire, id: u16, qos: u8) {
    if qos == 1 {
        subscriber.send(&wire::puback(id));
    } else {
        subscriber.send(&wire::pubrec(id));
        subscriber.expect(0x60);
        subscriber.send(&wire::pubcomp(id));
    }
}

/// Receives those from the number `first` on, and answers each packet when it comes.
#[track_caller]
fn receive_all(subscriber: &mut Wire, size: usize, qos: u8, first: usize) {
    let (mut number, mut open) = (first, 0);
    while number < count(size) || open > 0 {
        let (packet, body) = subscriber.packet().expect("input").expect("the connection is open");
        match packet & 0xf0 {
            0x30 => {
                let message = message(packet, &body, size, qos);
                assert_eq!(message.0, number, "{size} bytes at QoS {qos}");
                number += 1;
                if qos == 1 {
                    subscriber.send(&wire::puback(message.1));
                } else {
                    open += 1;
                    subscriber.send(&wire::pubrec(message.1));
                }
            }
            0x60 => {
                open -= 1;
                subscriber.send(&wire::pubcomp(u16::from_be_bytes([body[0], body[1]])));
            }
            _ => panic!("{packet:#x} {body:x?}"),
        }
    }
}

#[test]
fn a_queue_comes_to_its_end_whatever_the_size_of_the_messages() {
    for storage in STORAGES {
        let rig = rig(storage);
        let mut publisher = open(&rig, Carrier::Tcp, &Connect::new("publisher"));
        for (carrier, qos) in CARRIERS.into_iter().flat_map(|carrier| [(carrier, 1), (carrier, 2)]) {
            let connect = Connect::persistent(format!("{carrier:?}-{qos}"));
            for size in SIZES {
                let mut subscriber = open(&rig, carrier, &connect);
                subscribe(&mut subscriber, "s/#", qos);
                subscriber.send(&wire::DISCONNECT);
                assert_eq!(subscriber.kinds_until_closed(), Ok(Vec::new()));
                publish(&mut publisher, size, qos);
                let mut subscriber = open(&rig, carrier, &connect);
                receive_all(&mut subscriber, size, qos, 0);
                subscriber.send(&wire::unsubscribe(2, &["s/#"]));
                subscriber.expect(0xb0);
            }
        }
    }
}

#[test]
fn what_a_member_leaves_comes_to_another_whatever_the_size_of_the_messages() {
    for storage in STORAGES {
        let rig = rig(storage);
        let mut publisher = open(&rig, Carrier::Tcp, &Connect::new("publisher"));
        for (carrier, size) in CARRIERS.into_iter().flat_map(|carrier| SIZES.map(|size| (carrier, size))) {
            for qos in [1, 2] {
                let id = format!("{carrier:?}-{size}-{qos}");
                let filter = format!("$share/{id}/s/#");
                let mut leaving = open(&rig, carrier, &Connect::new(format!("{id}-leaving")));
                subscribe(&mut leaving, &filter, qos);
                publish(&mut publisher, size, qos);
                let mut staying = open(&rig, carrier, &Connect::new(format!("{id}-staying")));
                subscribe(&mut staying, &filter, qos);
                leaving.send(&wire::DISCONNECT);
                // What was begun at QoS 2 ends with its session ([MQTT-4.8.2-5]).
                let first = if qos == 2 { WINDOW } else { 0 };
                receive_all(&mut staying, size, qos, first);
                staying.send(&wire::unsubscribe(2, &[&filter]));
                staying.expect(0xb0);
            }
        }
    }
}

/// A member that unsubscribes keeps what it was sent; what waits for it goes to another.
#[test]
fn what_a_member_unsubscribes_from_comes_to_another_whatever_the_size_of_the_messages() {
    for storage in STORAGES {
        let rig = rig(storage);
        let mut publisher = open(&rig, Carrier::Tcp, &Connect::new("publisher"));
        for (is_persistent, size) in [false, true].into_iter().flat_map(|is| SIZES.map(|size| (is, size))) {
            for qos in [1, 2] {
                let id = format!("{is_persistent}-{size}-{qos}");
                let filter = format!("$share/{id}/s/#");
                let name = format!("{id}-leaving");
                let connect = if is_persistent { Connect::persistent(name) } else { Connect::new(name) };
                let mut leaving = open(&rig, Carrier::Tcp, &connect);
                subscribe(&mut leaving, &filter, qos);
                publish(&mut publisher, size, qos);
                let mut staying = open(&rig, Carrier::Tcp, &Connect::new(format!("{id}-staying")));
                subscribe(&mut staying, &filter, qos);
                leaving.send(&wire::unsubscribe(2, &[&filter]));
                receive_all(&mut staying, size, qos, WINDOW);
                staying.send(&wire::unsubscribe(2, &[&filter]));
                staying.expect(0xb0);
            }
        }
    }
}

#[test]
fn a_window_holds_so_many_messages_whatever_their_size() {
    for storage in STORAGES {
        let rig = rig(storage);
        let mut publisher = open(&rig, Carrier::Tcp, &Connect::new("publisher"));
        for (carrier, size) in CARRIERS.into_iter().flat_map(|carrier| SIZES.map(|size| (carrier, size))) {
            for (is_persistent, qos) in [(false, 1), (false, 2), (true, 1), (true, 2)] {
                let id = format!("{carrier:?}-{size}-{qos}-{is_persistent}");
                let connect = if is_persistent { Connect::persistent(&id) } else { Connect::new(&id) };
                let mut subscriber = open(&rig, carrier, &connect);
                subscribe(&mut subscriber, "s/#", qos);
                publish(&mut publisher, size, qos);
                let mut unacknowledged = Vec::new();
                for n in 0..count(size) {
                    let (first, body) = subscriber.expect(0x30);
                    let (number, id) = message(first, &body, size, qos);
                    assert_eq!(number, n, "{size} bytes at QoS {qos}");
                    unacknowledged.push(id);
                    if unacknowledged.len() == WINDOW {
                        // Nothing else was sent before the answer.
                        subscriber.send(&wire::PINGREQ);
                        subscriber.expect(0xd0);
                        acknowledge(&mut subscriber, unacknowledged.remove(0), qos);
                    }
                }
                for id in unacknowledged {
                    acknowledge(&mut subscriber, id, qos);
                }
                subscriber.send(&wire::unsubscribe(2, &["s/#"]));
                subscriber.expect(0xb0);
            }
        }
    }
}
