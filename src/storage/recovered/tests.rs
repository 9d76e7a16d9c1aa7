//! What the records of a session and a topic add up to.

use super::*;

fn body(record: Record<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    record.write(&mut body);
    body
}

#[test]
fn what_was_given_up_is_marked_whatever_runs_it_is_told_in() {
    let mut recovered = Recovered::default();
    let session = SessionRecord { session: 1, keep: None, client_id: "c", epoch: 1, user: None };
    recovered.frame(Position::new(1, 0), 20, &body(Record::Session(session)));
    // Told before its messages are, and a second time by a checkpoint.
    for runs in [&[5, 1, 2, 8][..], &[3, 1, 14, 1]] {
        let record = Record::GivenUp { session: 1, runs: Numbers::Slice(runs) };
        recovered.frame(Position::new(1, 1), 20, &body(record));
    }
    let (qos, retain, subscription_ids) = (QoS::ExactlyOnce, false, Numbers::Slice(&[]));
    let message = MessageRecord { qos, expires_at: None, topic: "x", properties: &[], payload: &[] };
    for sequence in 0..16 {
        let deliver =
            DeliverRecord { session: 1, sequence, qos, retain, subscription_ids, shared: Some("f") };
        let mut frame = body(Record::Message(message));
        Record::Deliver(deliver).write(&mut frame);
        recovered.frame(Position::new(1, 2 + sequence as u32), 20, &frame);
    }
    recovered.finish();
    let messages = &recovered.sessions[&1].messages;
    let given_up = messages.iter().filter(|message| message.is_given_up);
    let given_up: Vec<u64> = given_up.map(|message| message.sequence).collect();
    assert_eq!(given_up, [2, 3, 4, 5, 6, 7, 8, 9, 14]);
}

#[test]
fn the_epoch_of_a_session_never_falls_and_may_be_missing() {
    let mut recovered = Recovered::default();
    for epoch in [3, 7, 5] {
        let record =
            Record::Session(SessionRecord { session: 1, keep: None, client_id: "c", epoch, user: None });
        recovered.frame(Position::new(1, epoch as u32), 20, &body(record));
    }
    // As the first form of the record has it: kind, length, session, keep, client id.
    recovered.frame(Position::new(1, 9), 20, &[9, 4, 0, 0, 0, 2, 0, 1, b'd']);
    recovered.finish();
    let epoch = |key| recovered.sessions.get(&key).map(|session| (&*session.client_id, session.epoch));
    assert_eq!((epoch(1), epoch(2)), (Some(("c", 7)), Some(("d", 0))));
}

/// Records of one topic say the same in whatever order they are read.
#[test]
fn what_is_over_of_a_topic_stays_over_wherever_its_end_stands() {
    let retain = |revision: u64| {
        let payload = revision.to_string();
        let message = MessageRecord {
            qos: QoS::AtLeastOnce,
            expires_at: None,
            topic: "t",
            properties: b"",
            payload: payload.as_bytes(),
        };
        let mut body = body(Record::Message(message));
        Record::Retain { revision, source: None }.write(&mut body);
        body
    };
    let unretain = |revision| body(Record::Unretain { revision, topic: "t" });
    for (records, left) in [
        ([retain(5), unretain(5), retain(6)], Some("6")),
        ([retain(5), unretain(6), retain(7)], Some("7")),
        ([retain(5), retain(5), unretain(5)], None),
        ([retain(5), retain(6), unretain(7)], None),
    ] {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut recovered = Recovered::default();
            for (at, index) in order.into_iter().enumerate() {
                recovered.frame(Position::new(1, at as u32), 20, &records[index]);
            }
            recovered.finish();
            assert!(recovered.next_revision > 5);
            let found: Vec<_> = recovered.take_retained().filter_map(|(_, found)| found.message).collect();
            let found: Vec<_> = found.iter().map(|message| &*message.payload).collect();
            let left: Vec<_> = left.iter().map(|left| left.as_bytes()).collect();
            assert_eq!(found, left, "{order:?}");
        }
    }
    // From a checkpoint, of one whose record follows.
    let mut recovered = Recovered::default();
    recovered.checkpoint_position(Position::new(1, 100));
    recovered.checkpoint_frame(&unretain(5));
    recovered.frame(Position::new(1, 100), 20, &retain(5));
    recovered.finish();
    assert_eq!(recovered.take_retained().count(), 0);
}
