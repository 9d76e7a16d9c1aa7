use proptest::prelude::*;

use super::*;

fn round_trip(records: &[Record<'_>]) {
    let mut body = Vec::new();
    for record in records {
        record.write(&mut body);
    }
    let mut read = Records::new(&body);
    let back: Vec<Record<'_>> = read.by_ref().collect();
    assert_eq!(back, records);
    assert!(read.is_whole());
}

fn every_kind() -> Vec<Record<'static>> {
    let second = Some(Duration::from_secs(1));
    vec![
        Record::Message(MessageRecord {
            qos: QoS::ExactlyOnce,
            expires_at: Some(1_700_000_000_123),
            topic: "a/ö",
            properties: &[1, 1],
            payload: &[0, 255, 7],
        }),
        Record::Message(MessageRecord {
            qos: QoS::AtMostOnce,
            expires_at: None,
            topic: "t",
            properties: &[],
            payload: &[],
        }),
        Record::Deliver(DeliverRecord {
            session: 1 << 40,
            sequence: u64::MAX,
            qos: QoS::AtLeastOnce,
            retain: true,
            subscription_ids: Numbers::Slice(&[1, 268_435_455]),
            shared: Some("$share/g/a/#"),
        }),
        Record::Deliver(DeliverRecord {
            session: 0,
            sequence: 0,
            qos: QoS::ExactlyOnce,
            retain: false,
            subscription_ids: Numbers::Slice(&[]),
            shared: None,
        }),
        Record::Retain { revision: 300, source: None },
        Record::Retain { revision: 300, source: Some(SourceRecord { client_id: "c", user: None }) },
        Record::Retain { revision: 7, source: Some(SourceRecord { client_id: "c", user: Some("") }) },
        Record::Unretain { revision: 127, topic: "x" },
        Record::Received { session: 5, id: 65_535 },
        Record::Released { session: 5, id: 1 },
        Record::Finished { session: 5, sequences: Numbers::Slice(&[3, 1, 128]) },
        Record::Completing { session: 5, sequence: 65_536, id: 2 },
        Record::Session(SessionRecord {
            session: 6,
            keep: None,
            client_id: "client",
            epoch: 300,
            user: Some("user"),
        }),
        Record::Session(SessionRecord { session: 6, keep: second, client_id: "", epoch: 0, user: None }),
        Record::SessionEnd { session: 6 },
        Record::Subscribe(SubscribeRecord {
            session: 6,
            qos: QoS::ExactlyOnce,
            no_local: true,
            retain_as_published: false,
            subscription_id: 0,
            filter: "+/#",
        }),
        Record::Subscribe(SubscribeRecord {
            session: 6,
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: true,
            subscription_id: 77,
            filter: "f",
        }),
        Record::Unsubscribe { session: 6, filter: "+/#" },
        Record::Detached {
            session: 6,
            since: 1_700_000_000_000,
            keep: second,
            begun: Begun { at_least_once: 9, exactly_once: 200 },
        },
        Record::Will(WillRecord {
            will: 8,
            session: 0,
            qos: QoS::AtLeastOnce,
            retain: true,
            delay: Duration::from_secs(60),
            expiry_seconds: Some(0),
            topic: "will",
            properties: &[3, 0, 1, b'x'],
            payload: b"gone",
            client_id: "sensor",
            user: Some(""),
        }),
        Record::WillEnd { will: 8 },
        Record::Snapshot {
            session: 6,
            next_sequence: 12,
            live: Numbers::Slice(&[3, 2, 9, 1]),
            received: Numbers::Slice(&[7]),
        },
        Record::Revisions { differences: Numbers::Slice(&[1, 1, 4_000_000_000]) },
        Record::Counters { next_key: 3, next_revision: 4 },
        Record::Clock(ClockRecord { log_time: 86_400_000, wall: 1_700_000_000_123 }),
        Record::GivenUp { session: 6, runs: Numbers::Slice(&[3, 2, 9, 1]) },
    ]
}

#[test]
fn every_record_reads_back_as_it_was() {
    let all = every_kind();
    round_trip(&all);
    let kinds: std::collections::BTreeSet<u8> = all.iter().map(Record::kind).collect();
    assert_eq!(kinds, (1..=20).collect(), "one of each kind is tried");
}

#[test]
fn what_later_versions_add_is_passed_over() {
    let mut body = Vec::new();
    Record::SessionEnd { session: 4 }.write(&mut body);
    // One field more, and a kind nobody knows.
    body[1] = 3;
    body.extend_from_slice(&[9, 9, 200, 2, 0, 0, 0, 1, 1]);
    Record::WillEnd { will: 1 }.write(&mut body);
    let mut records = Records::new(&body);
    let read: Vec<_> = records.by_ref().collect();
    assert_eq!(read, [Record::SessionEnd { session: 4 }, Record::WillEnd { will: 1 }]);
    assert!(records.is_whole());
}

#[test]
fn the_first_form_of_detached_has_one_number_for_both() {
    let body = [13, 4, 0, 0, 0, 6, 1, 0, 9];
    let begun = Begun { at_least_once: 9, exactly_once: 9 };
    assert_eq!(
        Records::new(&body).next(),
        Some(Record::Detached { session: 6, since: 1, keep: None, begun })
    );
}

#[test]
fn the_first_form_of_session_and_will_names_no_user() {
    let mut body = vec![9, 4, 0, 0, 0, 6, 0, 1, b'c'];
    body.extend([14, 9, 0, 0, 0, 8, 6, 1, 0, 0, 1, b't', 0, 0]);
    let records: Vec<_> = Records::new(&body).collect();
    let user = None;
    assert_eq!(
        records[0],
        Record::Session(SessionRecord { session: 6, keep: None, client_id: "c", epoch: 0, user })
    );
    let Record::Will(will) = records[1] else { panic!("{records:?}") };
    assert_eq!((will.topic, will.client_id, will.user), ("t", "", None));
}

#[test]
fn a_body_cut_anywhere_is_told() {
    for record in every_kind() {
        let mut body = Vec::new();
        record.write(&mut body);
        for end in 1..body.len() {
            let mut records = Records::new(&body[..end]);
            assert_eq!(records.by_ref().count(), 0, "{record:?} cut at {end}");
            assert!(!records.is_whole());
        }
    }
}

proptest! {
    #[test]
    fn bytes_of_any_kind_do_no_harm(body in prop::collection::vec(any::<u8>(), 0..400)) {
        for record in Records::new(&body) {
            if let Record::Finished { sequences, .. } = record {
                let _ = sequences.iter().count();
            }
        }
    }

    #[test]
    fn any_numbers_read_back(session: u64, id in 1_u16.., sequences in prop::collection::vec(any::<u64>(), 0..20)) {
        round_trip(&[
            Record::Finished { session, sequences: Numbers::Slice(&sequences) },
            Record::Completing { session, sequence: session, id },
        ]);
    }
}
