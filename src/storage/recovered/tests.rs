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
