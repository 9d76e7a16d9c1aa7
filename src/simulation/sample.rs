//! A broker's state with something of everything in it: how it is made, and how a later broker is asked for all of it.
//!
//! `tests/fixtures/format-1` is such a state, as a directory. Nothing in it ends before the year 2150.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::broker::TestBroker;
use super::support::raw_client5::RawClient5;
use super::support::server_packet5::Publish5;
use super::support::wire5::{self, Connect5, NO_LOCAL, RETAIN_AS_PUBLISHED, disconnect5, four, id, text};
use crate::config::Limits;
use crate::storage::{Files, LogOptions};

/// More than a hundred years, in seconds.
const LONG: u32 = 4_000_000_000;

/// Topic and payload of each retained message.
pub(super) const RETAINED: [(&str, &str); 4] = [
    ("retained/1", "first"),
    ("retained/2", "second, replaced"),
    ("retained/5", "with properties"),
    ("status", "gone"),
];

/// No limit on how long a session is kept.
pub(super) fn limits() -> Limits {
    Limits { session_expiry: None, inflight_max: 4, ..Limits::default() }
}

pub(super) fn start(files: Arc<dyn Files>, options: LogOptions) -> TestBroker {
    TestBroker::start(files, options, limits()).unwrap()
}

fn long(client_id: &str) -> Connect5 {
    Connect5::resuming(client_id).session_expiry(LONG)
}

fn open(addr: SocketAddr, client_id: &str) -> RawClient5 {
    RawClient5::open(addr, &long(client_id)).0
}

/// Payload of the n-th message in the queue of "queue".
pub(super) fn queued(n: usize) -> String {
    format!("queued {n} {}", "x".repeat(40))
}

/// How many of them there are.
pub(super) const QUEUED: usize = 12;

/// Brings everything about on a new broker. What is returned must stay connected until the broker's end.
pub(super) fn make(broker: &TestBroker) -> Vec<RawClient5> {
    let addr = broker.addr;
    let mut publisher = RawClient5::clean(addr, "publisher");
    publisher.publish_retained("retained/1", 1, "first");
    publisher.publish_retained("retained/2", 1, "first");
    publisher.publish_retained("retained/3", 2, "removed later");
    let properties = [four(id::MESSAGE_EXPIRY, LONG), text(id::CONTENT_TYPE, "text/plain")].concat();
    publisher.publish_with("retained/5", 3, &properties, "with properties");

    // Subscriptions with all options; one that is over.
    let mut options = open(addr, "options");
    options.subscribe_with_id("options/#", 1 | NO_LOCAL | RETAIN_AS_PUBLISHED, 7);
    options.subscribe("options/not", 2);
    options.unsubscribe(&["options/not"]);
    options.disconnect();
    // A queue, longer than the window.
    let mut queue = open(addr, "queue");
    queue.subscribe_with_id("queue/#", 2, 268_435_455);
    queue.disconnect();
    // Members of a group.
    for member in ["member-1", "member-2"] {
        let mut client = open(addr, member);
        client.subscribe("$share/group/shared/+", 1);
        client.disconnect();
    }
    let properties = [four(id::MESSAGE_EXPIRY, LONG), wire5::user("name", "value")].concat();
    for n in 0..QUEUED {
        let qos = 1 + (n % 2) as u8;
        publisher.publish_with("queue/topic", qos << 1, &properties, queued(n));
    }
    for n in 0..4 {
        publisher.publish("shared/1", 1, format!("shared {n}"));
    }
    // Deliveries under way: PUBREC came for the first, nothing for the others.
    let mut underway = open(addr, "under-way");
    underway.subscribe("under-way", 2);
    for n in 0..3 {
        publisher.publish("under-way", 2, format!("under way {n}"));
    }
    let first = underway.expect_message("under-way", "under way 0");
    underway.send(&wire5::ack5(0x50, first.id(), 0, &[]));
    underway.expect_message("under-way", "under way 1");
    underway.expect_message("under-way", "under way 2");
    underway.expect_pubrel(first.id());
    underway.send(&disconnect5(0, &[]));
    underway.packets_until_closed();
    // A session that is over.
    let mut ended = open(addr, "ended");
    ended.subscribe("ended", 1);
    ended.disconnect();
    RawClient5::clean(addr, "ended").disconnect();
    // Wills: of a client that is connected, of one whose delay runs.
    let mut watch = open(addr, "watch");
    watch.subscribe("status", 2);
    watch.disconnect();
    let mut living = long("living").will("status", "gone", 2, true);
    living = living.will_with(four(id::WILL_DELAY, 0));
    let living = RawClient5::open(addr, &living).0;
    let delayed =
        long("delayed").will("delayed", "never before 2150", 1, false).will_with(four(id::WILL_DELAY, LONG));
    RawClient5::open(addr, &delayed).0.vanish();

    broker.tend_now();

    // After the checkpoint.
    publisher.publish_retained("retained/2", 1, "second, replaced");
    publisher.publish_retained("retained/3", 1, "");
    let mut inbound = open(addr, "inbound");
    inbound.send(&wire5::publish5(0x04, "options/in", Some(11), &[], "received"));
    inbound.expect_answer();
    inbound.send(&disconnect5(0, &[]));
    inbound.packets_until_closed();
    let mut late = open(addr, "late");
    late.subscribe("late/+/#", 1);
    late.disconnect();
    publisher.publish("late/1", 1, "after the checkpoint");
    publisher.publish("options/1", 1, "for options");
    vec![living]
}

/// What a client of this session gets when it comes back: so many messages, acknowledged, and nothing more. `None`: it has no session.
fn collect(addr: SocketAddr, client_id: &str, count: usize) -> Option<Vec<Publish5>> {
    let (mut client, present, _) = RawClient5::open(addr, &long(client_id));
    if !present {
        return None;
    }
    let got = (0..count).map(|_| client.expect_any_and_ack()).collect();
    client.finish_pubrels();
    client.disconnect();
    Some(got)
}

/// What stands in the queue of "queue", whatever damage the broker has come through; `None`: it has no session, or no subscription.
pub(super) fn collect_queue(addr: SocketAddr) -> Option<Vec<String>> {
    const LAST: &str = "the last one";
    let mut publisher = RawClient5::clean(addr, "publisher");
    let is_subscribed = publisher.publish_with("queue/topic", 4, &[], LAST) == 0;
    let (mut client, present, _) = RawClient5::open(addr, &long("queue"));
    if !(is_subscribed && present) {
        return None;
    }
    let mut got = Vec::new();
    loop {
        let text = client.expect_any_and_ack().text();
        if text == LAST {
            return Some(got);
        }
        got.push(text);
    }
}

/// The retained messages.
pub(super) fn retained(addr: SocketAddr) -> BTreeMap<String, Publish5> {
    let mut client = RawClient5::clean(addr, "retained");
    client.subscribe("#", 0);
    let found = client.publishes_until_ping();
    client.disconnect();
    found.into_iter().map(|publish| (publish.topic.clone(), publish)).collect()
}

fn texts(got: &[Publish5]) -> Vec<String> {
    got.iter().map(Publish5::text).collect()
}

/// Everything is there, once.
pub(super) fn check(broker: &TestBroker) {
    let addr = broker.addr;
    let kept = retained(addr);
    let found: Vec<(&str, String)> = kept.iter().map(|(topic, kept)| (topic.as_str(), kept.text())).collect();
    assert_eq!(found, RETAINED.map(|(topic, payload)| (topic, payload.to_owned())));
    let with_properties = &kept["retained/5"];
    assert_eq!(with_properties.properties.text(id::CONTENT_TYPE), Some("text/plain"));
    assert!(with_properties.expiry().is_some_and(|left| left > 1_000_000_000));

    // Subscriptions are live before anybody is back.
    let mut publisher = RawClient5::clean(addr, "publisher");
    publisher.publish_with("options/2", 3, &[], "retained flag");
    publisher.publish("options/not", 1, "only once");
    publisher.publish_retained("options/2", 1, "");

    let got = collect(addr, "options", 5).expect("a session");
    assert_eq!(texts(&got), ["received", "for options", "retained flag", "only once", ""]);
    assert!(got.iter().all(|publish| publish.subscription_ids() == [7] && publish.qos == 1));
    assert!(got[2].retain && !got[1].retain);
    let mut own = open(addr, "options");
    own.publish("options/3", 1, "its own");
    own.expect_nothing();
    own.disconnect();

    let got = collect(addr, "queue", QUEUED).expect("a session");
    assert_eq!(texts(&got), (0..QUEUED).map(queued).collect::<Vec<_>>());
    for (n, publish) in got.iter().enumerate() {
        assert_eq!(usize::from(publish.qos), 1 + n % 2);
        assert_eq!(usize::from(publish.id()), n + 1);
        assert_eq!(publish.subscription_ids(), [268_435_455]);
        assert!(publish.expiry().is_some_and(|left| left > 1_000_000_000));
        assert!(publish.properties.has(id::USER_PROPERTY));
    }

    // They took turns.
    let mut shared = texts(&collect(addr, "member-1", 2).expect("a session"));
    shared.extend(texts(&collect(addr, "member-2", 2).expect("a session")));
    shared.sort();
    assert_eq!(shared, ["shared 0", "shared 1", "shared 2", "shared 3"]);

    let (mut client, present, _) = RawClient5::open(addr, &long("under-way"));
    assert!(present);
    client.expect_pubrel(1);
    client.send(&wire5::ack5(0x70, 1, 0, &[]));
    for n in 1..3 {
        let publish = client.expect_message("under-way", format!("under way {n}"));
        assert!(publish.dup && usize::from(publish.id()) == n + 1, "{publish:?}");
    }
    client.disconnect();

    assert!(collect(addr, "ended", 0).is_none());
    let got = collect(addr, "watch", 1).expect("a session");
    assert_eq!(texts(&got), ["gone"], "the will of who was connected, once");
    assert_eq!(texts(&collect(addr, "late", 1).expect("a session")), ["after the checkpoint"]);
    assert_eq!(texts(&collect(addr, "delayed", 0).expect("a session")), [""; 0]);

    // The id that was received is known, and another one not.
    let (mut client, present, _) = RawClient5::open(addr, &long("inbound"));
    assert!(present);
    client.send(&wire5::publish5(0x0C, "options/in", Some(11), &[], "received"));
    client.expect_answer();
    client.send(&wire5::ack5(0x62, 11, 0, &[]));
    client.expect(&[0x70, 2, 0, 11]);
    client.disconnect();
    assert_eq!(texts(&collect(addr, "options", 0).expect("a session")), [""; 0]);
}
