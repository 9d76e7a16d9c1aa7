//! What is done when clients hold too much, one round at a time.

use std::io::IoSlice;

use super::*;
use crate::accounts::Account;
use crate::broker::last_words::LastWordsCharge;

const MAX: usize = 8_000_000;

/// A client without socket: nobody writes its output.
fn stalled(core: &Arc<Core>, id: &str) -> Attached {
    let attached = Peer::named(core, id).poll().expect("nobody is there yet");
    let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
    assert!(core.add_subscription(&attached.client, &mut attached.client.lock(), id, options).is_ok());
    attached
}

/// A message that cannot be dropped once it is in the output.
fn send(core: &Core, topic: &str, bytes: usize) {
    let mut turn = Turn::new();
    turn.begin(core);
    let message = Arc::new(Message::new(topic, vec![7; bytes], QoS::AtLeastOnce));
    assert!(core.publish_message(&mut turn, &message, false).is_none());
    turn.finish(core);
}

fn is_closing(peer: &Attached) -> bool {
    peer.client.lock().link.as_ref().is_none_or(|link| link.close_cause.is_some())
}

/// One more round, whenever the last one was.
fn round(core: &Core) {
    core.memory.set_max(Some(MAX));
    core.shed_if_over();
}

#[test]
fn what_those_hold_who_are_closing_is_as_good_as_given_back() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    core.memory.set_max(None);
    let peers = ["small", "middle", "large"].map(|id| stalled(&core, id));
    let closing = || peers.each_ref().map(is_closing);
    for (id, bytes) in [("small", 2_000_000), ("middle", 3_000_000), ("large", 5_000_000)] {
        send(&core, id, bytes);
    }
    assert!(core.accounts.total() > 10_000_000, "{}", core.accounts.total());
    round(&core);
    assert_eq!(closing(), [false, false, true]);
    // It has been told, and its task has not come to it yet.
    round(&core);
    assert_eq!(closing(), [false, false, true]);
    // Its session is over; for a second it may still be sent what it has asked for.
    let [.., large] = &peers;
    let end = core.disconnected(&large.client, large.epoch, &Cause::LoginExpired);
    let words = core.settle_end_now(&large.client, end);
    let charge = LastWordsCharge::new(&core, &words);
    assert!(core.accounts.total() > 10_000_000, "{}", core.accounts.total());
    round(&core);
    assert_eq!(closing(), [false, false, true]);
    drop((words, charge));
    assert!(core.accounts.total() < 6_000_000, "a body counts once: {}", core.accounts.total());
    // From then on the next one is.
    let another = stalled(&core, "another");
    send(&core, "another", 4_000_000);
    round(&core);
    assert_eq!((closing(), is_closing(&another)), ([false, false, true], true));
}

#[test]
fn who_is_closed_for_want_of_memory_gives_it_back_at_once() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    core.memory.set_max(Some(MAX));
    let peer = stalled(&core, "stalled");
    send(&core, "stalled", 9_000_000);
    round(&core);
    assert!(is_closing(&peer));
    let end = core.disconnected(&peer.client, peer.epoch, &Cause::MemoryMax);
    let words = core.settle_end_now(&peer.client, end);
    assert!(words.is_empty(), "nothing of its output is written");
    drop(peer);
    assert!(core.accounts.total() < 1_000, "{}", core.accounts.total());
}

/// What a session gives away counts as waiting for it: it may come back.
#[test]
fn what_is_given_away_and_what_waits_are_bounded_together() {
    const MAX: usize = 4;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits { queue_messages_max: MAX, ..Limits::default() }, Security::default());
    let away = || {
        let mut peer = Peer::new(&core, false, None);
        let attached = peer.poll().expect("nobody is there");
        let client = Arc::clone(&attached.client);
        let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
        drop(core.add_subscription(&client, &mut client.lock(), "$share/g/t", options));
        let end = core.disconnected(&client, attached.epoch, &Cause::PeerClosed);
        core.settle_end_now(&client, end);
        client
    };
    let client = away();
    for _ in 0..MAX {
        send(&core, "t", 10);
    }
    assert_eq!(client.lock().session.queued(), MAX);
    // It comes and goes while another member is there, to whom they are to be given.
    let other = Peer::named(&core, "other").poll().expect("nobody is there");
    let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
    drop(core.add_subscription(&other.client, &mut other.client.lock(), "$share/g/t", options));
    let client = away();
    assert_eq!(client.lock().session.queued(), 0, "they are being given away");
    // An entry with its body, and how the session was to deliver it, should it come back.
    let waiting = core.accounts.of(Account::Waiting);
    assert!((MAX * 250..MAX * 400).contains(&waiting), "{waiting}");
    let end = core.disconnected(&other.client, other.epoch, &Cause::PeerClosed);
    core.settle_end_now(&other.client, end);
    send(&core, "t", 10);
    assert_eq!(client.lock().session.queued(), 0);
    assert_eq!(core.metrics().dropped.get("queue_full"), Some(&1), "{:#?}", core.metrics().dropped);
    core.hand_over_now();
    assert!(core.is_leaving_nobody());
    assert_eq!(client.lock().session.queued(), MAX, "nobody else is left to have them");
}

/// What a session is charged with is enough for its parts, and its client id is there once, also
/// when it took the place of another session.
#[test]
fn what_names_a_session_is_there_once() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let id = "i".repeat(10_000);
    let sessions = || core.accounts.of(Account::Sessions);
    let attached = Peer::named(&core, &id).poll().expect("nobody is there yet");
    let one = sessions();
    assert!((id.len() + size_of::<Client>() + 200..id.len() + 1_500).contains(&one), "{one}");
    core.disconnected(&attached.client, attached.epoch, &Cause::PeerClosed);
    assert_eq!(core.clients.len(), 0);
    let ended = || core.accounts.of(Account::Ended);
    assert_eq!((sessions(), ended()), (0, one), "it makes room for others, and somebody still holds it");
    drop(attached);
    assert_eq!((sessions(), ended()), (0, 0));
    // Of what lasts there is room for one, and no more.
    core.memory.set_max(Some(4 * one));
    let first = Peer::made(&core, &id, false, None, None).poll().expect("nobody is there");
    core.disconnected(&first.client, first.epoch, &Cause::PeerClosed);
    drop(first.client.lock().closing.take());
    let second = Peer::named(&core, &id).poll().expect("nobody is there");
    assert!(!Arc::ptr_eq(&first.client, &second.client));
    assert_eq!((sessions(), ended()), (one, one), "who still holds the first one holds its client id");
    // A clean start has the room of the session before it, and nobody else has it.
    let other = "j".repeat(10_000);
    let mut third = Peer::named(&core, &other);
    let refused = third.connecting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let code = ReasonCode::QuotaExceeded;
    assert!(
        matches!(refused, Poll::Ready(Err(Cause::Limit { limit: "limits.memory_max", code: c })) if c == code)
    );
    assert!(second.client.lock().link.is_some(), "nothing has happened to it");
    assert_eq!((sessions(), third.handle.take_signals()), (one, 0));
    drop(first);
    assert_eq!((sessions(), ended()), (one, 0));
    let key = core.clients.iter().next().map(|entry| Arc::clone(entry.key())).expect("it is there");
    assert!(Arc::ptr_eq(&key, &second.client.id));
}

/// Reported: the newest messages were dropped, when the older ones were with somebody who tried to
/// write them at that moment.
#[test]
fn what_is_being_written_is_cut_when_the_writer_is_back() {
    const MESSAGES: u32 = 900;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    core.memory.set_max(None);
    let peer = stalled(&core, "stalled");
    let send = |n: u32| {
        let mut turn = Turn::new();
        turn.begin(&core);
        let payload = [&n.to_be_bytes(), &[0; 996][..]].concat();
        let message = Arc::new(Message::new("stalled", payload, QoS::AtMostOnce));
        assert!(core.publish_message(&mut turn, &message, false).is_none());
        turn.finish(&core);
    };
    (0..MESSAGES).for_each(send);
    let dropped = || core.metrics().dropped.get("memory_max").copied().unwrap_or_default();
    let taken = {
        let mut state = peer.client.lock();
        assert!(state.link.as_mut().is_some_and(|link| link.gate.enter(By::OwnTask)));
        state.session.out.take()
    };
    send(MESSAGES);
    let max = core.accounts.total() / 2;
    core.memory.set_max(Some(max));
    core.shed_if_over();
    assert_eq!((dropped(), is_closing(&peer)), (0, false), "its writer is asked");
    let mut state = peer.client.lock();
    let _ = state.link.as_mut().map(|link| link.gate.leave(By::OwnTask, true));
    state.session.out.put_back(taken);
    core.cut_as_promised(&peer.client, &mut state);
    assert!((400..600).contains(&dropped()), "{}", dropped());
    assert!(core.accounts.total() < max, "{} of {max}", core.accounts.total());
    let output = state.session.out.take();
    let mut pieces = [IoSlice::new(&[]); 16];
    let count = output.slices(&mut pieces);
    let newest = pieces[count - 1].last_chunk::<1_000>().map(|payload| payload[..4].to_vec());
    assert_eq!(newest, Some(MESSAGES.to_be_bytes().to_vec()), "the newest is there");
}

/// What stands behind a message that is given up may be sent then, and its publisher does not come
/// by again.
#[test]
fn who_loses_messages_of_its_queue_is_told_to_look_at_the_rest() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits { inflight_max: 1, ..Limits::default() }, Security::default());
    let peer = stalled(&core, "t");
    for _ in 0..100 {
        send(&core, "t", 10);
    }
    let handle = peer.client.lock().link.as_ref().map(|link| Arc::clone(&link.handle)).expect("connected");
    handle.take_signals();
    let shed = core.shed_entries_of(&peer.client, 3_000);
    assert!((1..99).contains(&shed.messages), "{shed:?}");
    assert_eq!(peer.client.lock().session.queued(), 99 - shed.messages);
    assert_eq!(handle.take_signals() & signal::FLUSH, signal::FLUSH);
}
