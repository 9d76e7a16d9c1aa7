//! What stands in the output: wire images, shared payloads, room for the replay of retained messages.

use std::sync::Arc;

use super::wire::*;
use crate::protocol::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::protocol::{Framed, Packet, ProtocolVersion, QoS, decode, frame};
use crate::session::{
    EncodeScratch, Granted, Outgoing, SHARE_PAYLOAD_ABOVE, Session, SessionLimits, Timestamp,
};

/// Delivers the PUBLISH of these bytes, as the broker does with one that it has read.
fn forward(session: &mut Session, scratch: &mut EncodeScratch, bytes: &[u8], granted: QoS, retain: bool) {
    let Ok(Framed::Frame(frame)) = frame(bytes, usize::MAX, ProtocolVersion::V311) else {
        panic!("{bytes:02x?}")
    };
    let Ok(Packet::Publish(publish)) = decode(&frame, ProtocolVersion::V311) else { panic!("{bytes:02x?}") };
    let now = Timestamp::default();
    let mut outgoing =
        Outgoing::from_publish(&publish, publish.topic, ProtocolVersion::V311, 7, now, scratch);
    session.deliver(&mut outgoing, &Granted { retain, ..Granted::with_qos(granted) });
}

#[test]
fn a_forwarded_publish_is_right_for_every_pair_of_qos() {
    let mut scratch = EncodeScratch::default();
    let first_bytes = [(0x30, AtMostOnce), (0x3b, AtLeastOnce), (0x3d, ExactlyOnce)];
    for (first_byte, published) in first_bytes {
        for granted in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let mut session = connected(limits());
            let mut bytes = vec![first_byte, 0, 0, 1, b't'];
            if published != AtMostOnce {
                bytes.extend([0xab, 0xcd]);
            }
            bytes.extend(b"body");
            bytes[1] = bytes.len() as u8 - 2;
            // Twice: the second finds what the first has prepared.
            for n in 1..=2 {
                forward(&mut session, &mut scratch, &bytes, granted, false);
                let qos = if (published as u8) < granted as u8 { published } else { granted };
                let id = if qos == AtMostOnce { 0 } else { n };
                // Neither DUP nor RETAIN of the publisher is passed on ([MQTT-3.3.1-3], [MQTT-3.3.1-9]).
                assert_eq!(write_all(&mut session), [publish(qos, id, b"body")], "{published:?} {granted:?}");
            }
        }
    }
}

#[test]
fn one_outgoing_serves_receivers_of_all_kinds() {
    let message = message(b"body", ExactlyOnce);
    let mut scratch = EncodeScratch::default();
    let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
    let mut expected_id = [0, 1, 1];
    for _ in 0..2 {
        for (granted, n) in [(ExactlyOnce, 2), (AtMostOnce, 0), (AtLeastOnce, 1)] {
            let mut session = connected(limits());
            session.deliver(&mut outgoing, &Granted::with_qos(granted));
            assert_eq!(write_all(&mut session), [publish(granted, expected_id[n], b"body")]);
        }
        expected_id = [0, 1, 1];
    }
}

#[test]
fn a_length_written_longer_than_needed_is_passed_on_in_its_shortest_form() {
    let mut session = connected(limits());
    let mut scratch = EncodeScratch::default();
    forward(&mut session, &mut scratch, &[0x30, 0x84, 0x00, 0, 1, b't', b'x'], AtMostOnce, false);
    let output = session.out.take();
    assert_eq!(bytes_of(&output), [0x30, 4, 0, 1, b't', b'x']);
}

#[test]
fn a_large_payload_is_shared_by_its_receivers_and_a_small_one_is_not_kept() {
    for (len, shared) in [(SHARE_PAYLOAD_ABOVE, false), (SHARE_PAYLOAD_ABOVE + 1, true)] {
        let body: Vec<u8> = (0..len).map(|n| n as u8).collect();
        let message = message(&body, AtMostOnce);
        let mut scratch = EncodeScratch::default();
        let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
        let mut sessions: Vec<Session> = (0..3).map(|_| connected(limits())).collect();
        for session in &mut sessions {
            session.deliver(&mut outgoing, &Granted::with_qos(AtMostOnce));
        }
        drop(outgoing);
        assert_eq!(Arc::strong_count(&message), if shared { 1 + 3 } else { 1 }, "{len} bytes");
        for session in &mut sessions {
            let copied = session.out.capacity();
            assert_eq!(copied < len, shared, "{copied} bytes of buffer for a payload of {len}");
            assert_eq!(write_all(session), [publish(AtMostOnce, 0, &body)]);
        }
        assert_eq!(Arc::strong_count(&message), 1);
    }
}

#[test]
fn large_and_small_packets_keep_their_order_through_partial_writes() {
    let large: Vec<u8> = (0..20_000).map(|n| (n % 251) as u8).collect();
    let mut expected = Vec::new();
    let mut session = connected(SessionLimits { inflight_max: 100, queue_bytes_max: 10_000_000, ..limits() });
    let mut wire = Vec::new();
    for n in 1..=9_u16 {
        let payload = if n % 3 == 0 { large.as_slice() } else { b"small" };
        deliver(&mut session, payload, AtLeastOnce);
        expected.push(publish(AtLeastOnce, n, payload));
        // The socket takes some odd number of bytes; the rest goes back before what is appended next.
        let mut output = session.out.take();
        let taken = (7_001 * usize::from(n)).min(bytes_of(&output).len());
        wire.extend_from_slice(&bytes_of(&output)[..taken]);
        output.advance(taken);
        session.out.put_back(output);
        session.out.written(taken);
    }
    let rest = session.out.take();
    wire.extend(bytes_of(&rest));
    assert_eq!(packets(&wire), expected);
}

#[test]
fn retained_messages_are_paced_by_window_and_output_and_stand_outside_the_queue_limits() {
    let mut session =
        connected(SessionLimits { inflight_max: 3, queue_messages_max: 0, queue_bytes_max: 0, ..limits() });
    assert_eq!(session.replay_room(), 3);
    while session.has_room_for_replay() {
        deliver_retained(&mut session, b"r", AtLeastOnce);
    }
    assert_eq!((session.unfinished(), session.queued()), (3, 0));
    write_all(&mut session);
    assert!(!session.has_room_for_replay(), "the window is closed");
    acknowledge(&mut session, AckKind::PubAck, 2);
    assert_eq!(session.replay_room(), 1);
    assert!(session.has_room_for_replay());

    let mut sent = 0;
    while session.has_room_for_replay() {
        deliver_retained(&mut session, &[0; 10_000], AtMostOnce);
        sent += 1;
        assert!(sent < 1_000, "nothing paces QoS 0");
    }
    assert!(session.out.pending() < 256 * 1024 + 11_000);
    assert_eq!(write_all(&mut session).len(), sent);
    assert!(session.has_room_for_replay());
}

#[test]
fn no_retained_message_for_a_session_without_connection() {
    let mut session = offline(limits());
    assert!(!session.has_room_for_replay());
    deliver_retained(&mut session, b"r", AtLeastOnce);
    assert_eq!((session.unfinished(), session.queued()), (0, 0));
}
