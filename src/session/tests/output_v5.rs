//! PUBLISH on the wire to clients of MQTT 5: topic aliases, subscription identifiers, images shared by receivers of both versions.

use std::sync::Arc;

use super::wire::*;
use super::wire_v5::*;
use crate::protocol::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use crate::protocol::encode::AckKind;
use crate::protocol::{Framed, Packet, ProtocolVersion, decode, frame};
use crate::session::{EncodeScratch, Granted, Message, Outgoing, Session, SessionLimits, Terms, Timestamp};

fn roomy_v5(terms: Terms) -> Session {
    let mut session = offline(SessionLimits { inflight_max: 100, ..limits() });
    attach_v5(&mut session, terms);
    session
}

fn deliver_on(session: &mut Session, topic: &str, qos: QoS) -> (String, Option<u16>) {
    let message = Arc::new(Message::new(Arc::from(topic), Box::from(&b"m"[..]), qos));
    deliver_message(session, &message, qos);
    let sent = write_v5(session);
    let [Sent5::Publish(publish)] = sent.as_slice() else { panic!("{sent:?}") };
    assert_eq!(publish.payload, b"m");
    (publish.topic.clone(), publish.alias)
}

#[test]
fn a_topic_is_introduced_once_and_then_a_number_and_the_numbers_end_at_the_clients_maximum() {
    let mut session = roomy_v5(Terms { topic_alias_maximum: 2, ..V5 });
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        let first = |name: &str| if qos == AtMostOnce { name.to_owned() } else { String::new() };
        assert_eq!(deliver_on(&mut session, "a", qos), (first("a"), Some(1)));
        assert_eq!(deliver_on(&mut session, "b", qos), (first("b"), Some(2)));
        assert_eq!(deliver_on(&mut session, "c", qos), ("c".to_owned(), None));
    }
    // A new connection knows none of them ([MQTT-3.3.2-7]), not even one that takes the session over.
    let sent = attach_v5(&mut session, Terms { topic_alias_maximum: 1, ..V5 });
    let forms: Vec<(&str, Option<u16>)> =
        publishes(&sent).iter().map(|publish| (&*publish.topic, publish.alias)).collect();
    let expected = [("a", Some(1)), ("b", None), ("c", None), ("", Some(1)), ("b", None), ("c", None)];
    assert_eq!(forms, expected);
    session.detach();
    assert!(publishes(&attach_v5(&mut session, V5)).iter().all(|publish| publish.alias.is_none()));
}

#[test]
fn the_numbers_given_out_are_few_whatever_the_client_allows() {
    let mut session = roomy_v5(Terms { topic_alias_maximum: u16::MAX, ..V5 });
    let given = (0..200).filter(|n| deliver_on(&mut session, &format!("t/{n}"), AtMostOnce).1.is_some());
    assert_eq!(given.count(), 64);
}

#[test]
fn subscription_ids_are_sent_along_at_once_after_waiting_and_again() {
    let ids = [1, 127, 128, 268_435_455];
    for outlives in [true, false] {
        let mut session = Session::new(Arc::new(SessionLimits { inflight_max: 1, ..limits() }), outlives);
        attach_v5(&mut session, V5);
        let mut scratch = EncodeScratch::default();
        let granted = Granted { subscription_ids: &ids, ..Granted::with_qos(AtLeastOnce) };
        for (payload, qos) in [(b"a", AtMostOnce), (b"b", AtLeastOnce), (b"c", AtLeastOnce)] {
            let message = message_v5(payload, qos, None);
            let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
            session.deliver(&mut outgoing, &granted);
        }
        let mut sent = write_v5(&mut session);
        acknowledge(&mut session, AckKind::PubAck, 1);
        sent.extend(write_v5(&mut session));
        if outlives {
            session.detach();
            sent.extend(attach_v5(&mut session, V5));
        }
        let sent = publishes(&sent);
        let payloads: Vec<&[u8]> = sent.iter().map(|publish| &*publish.payload).collect();
        assert_eq!(payloads, [&b"a"[..], b"b", b"c", b"c"][..3 + usize::from(outlives)]);
        for publish in sent {
            assert_eq!((&publish.subscription_ids[..], &publish.others[..]), (&ids[..], &FORWARDED[..]));
        }
    }
}

#[test]
fn a_client_of_3_1_1_gets_no_subscription_ids() {
    let mut session = connected(limits());
    let mut scratch = EncodeScratch::default();
    let message = message_v5(b"m", AtLeastOnce, Some(Timestamp::from_millis(1_000)));
    let mut outgoing = Outgoing::from_message(&message, Timestamp::default(), &mut scratch);
    session.deliver(&mut outgoing, &Granted { subscription_ids: &[5], ..Granted::with_qos(AtLeastOnce) });
    assert_eq!(write_all(&mut session), [publish(AtLeastOnce, 1, b"m")]);
}

/// A PUBLISH on topic `t` with payload `body` as a client would send it.
fn from_client(version: ProtocolVersion, first_byte: u8, section: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first_byte, 0, 0, 1, b't'];
    if first_byte & 6 != 0 {
        bytes.extend([0xab, 0xcd]);
    }
    if version == ProtocolVersion::V5 {
        bytes.push(section.len() as u8);
        bytes.extend(section);
    }
    bytes.extend(b"body");
    bytes[1] = bytes.len() as u8 - 2;
    bytes
}

/// Hands `bytes` to receivers of both versions and all QoS, each kind twice, and compares each one's output.
fn check_receivers(version: ProtocolVersion, bytes: &[u8], topic: &str, expiry: Option<u32>, others: &[u8]) {
    let Ok(Framed::Frame(framed)) = frame(bytes, usize::MAX, version) else { panic!("{bytes:02x?}") };
    let Ok(Packet::Publish(read)) = decode(&framed, version) else { panic!("{bytes:02x?}") };
    let mut scratch = EncodeScratch::default();
    let now = Timestamp::from_millis(77_000);
    let mut outgoing = Outgoing::from_publish(&read, topic, version, 7, now, &mut scratch);
    for _ in 0..2 {
        for granted in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let qos = if (read.qos as u8) < granted as u8 { read.qos } else { granted };
            let id = u16::from(qos != AtMostOnce);
            let mut old = connected(limits());
            old.deliver(&mut outgoing, &Granted::with_qos(granted));
            assert_eq!(write_all(&mut old), [publish(qos, id, b"body")], "{version:?} {granted:?}");
            let mut new = roomy_v5(V5);
            new.at(now).deliver(&mut outgoing, &Granted::with_qos(granted));
            let Sent5::Publish(plain) = plain(qos, id, b"body") else { unreachable!() };
            let expected = Publish5 { expiry, others: others.to_vec(), ..plain };
            assert_eq!(write_v5(&mut new), [Sent5::Publish(expected)], "{version:?} {granted:?}");
        }
    }
}

const V311: ProtocolVersion = ProtocolVersion::V311;
const V5_0: ProtocolVersion = ProtocolVersion::V5;

#[test]
fn receivers_of_both_versions_get_what_publishers_of_both_versions_send() {
    for first_byte in [0x30, 0x31, 0x32, 0x3b, 0x34, 0x3d] {
        check_receivers(V311, &from_client(V311, first_byte, &[]), "t", None, &[]);
        check_receivers(V5_0, &from_client(V5_0, first_byte, &[]), "t", None, &[]);
        check_receivers(V5_0, &from_client(V5_0, first_byte, &FORWARDED), "t", None, &FORWARDED);
        let expiring = [&[0x02, 0, 0, 1, 0][..], &FORWARDED].concat();
        check_receivers(V5_0, &from_client(V5_0, first_byte, &expiring), "t", Some(256), &FORWARDED);
        // The alias is between publisher and broker ([MQTT-3.3.2-7]).
        let aliased = [&[0x23, 0, 3][..], &FORWARDED].concat();
        check_receivers(V5_0, &from_client(V5_0, first_byte, &aliased), "t", None, &FORWARDED);
        let mut unnamed = from_client(V5_0, first_byte, &aliased);
        unnamed.remove(4);
        (unnamed[1], unnamed[3]) = (unnamed[1] - 1, 0);
        check_receivers(V5_0, &unnamed, "t", None, &FORWARDED);
    }
}

#[test]
fn a_remaining_length_longer_than_needed_goes_to_nobody() {
    let bytes = [&[0x32, 0x89, 0x00, 0, 1, b't', 0xab, 0xcd][..], b"body"].concat();
    check_receivers(V311, &bytes, "t", None, &[]);
}

#[test]
fn the_publishers_bytes_are_used_again_only_where_they_are_what_we_would_write() {
    let image_is_source = |version, bytes: &[u8], receiver, has_id| {
        let Ok(Framed::Frame(framed)) = frame(bytes, usize::MAX, version) else { panic!("{bytes:02x?}") };
        let Ok(Packet::Publish(read)) = decode(&framed, version) else { panic!("{bytes:02x?}") };
        let mut scratch = EncodeScratch::default();
        let now = Timestamp::default();
        let mut outgoing = Outgoing::from_publish(&read, "t", version, 7, now, &mut scratch);
        let layout = crate::session::outgoing::Layout { version: receiver, has_id };
        std::ptr::eq(outgoing.image(layout).bytes.as_ptr(), bytes.as_ptr())
    };
    let plain = from_client(V5_0, 0x32, &FORWARDED);
    assert!(image_is_source(V5_0, &plain, V5_0, true));
    assert!(!image_is_source(V5_0, &plain, V5_0, false));
    assert!(!image_is_source(V5_0, &plain, V311, true));
    assert!(image_is_source(V311, &from_client(V311, 0x30, &[]), V311, false));
    assert!(image_is_source(V311, &from_client(V311, 0x30, &[]), ProtocolVersion::V31, false));
    assert!(!image_is_source(V311, &from_client(V311, 0x30, &[]), V5_0, false));
    let expiring = from_client(V5_0, 0x30, &[0x02, 0, 0, 1, 0]);
    assert!(!image_is_source(V5_0, &expiring, V5_0, false));
    let aliased = from_client(V5_0, 0x30, &[0x23, 0, 1]);
    assert!(!image_is_source(V5_0, &aliased, V5_0, false));
}
