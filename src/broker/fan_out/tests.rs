//! Many fan-outs at once: what they hold, and that each comes to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::super::background::FAN_OUTS_AT_ONCE;
use super::super::{
    Client, ConnectRequest, Core, Handle, Publisher, Security, Turn, WallClock, turn_log::WAKES_AT_ONCE,
};
use super::FanOut;
use crate::accounts::Account;
use crate::config::{Limits, RefusedPublish};
use crate::protocol::{Connect, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, SessionExpiry};
use crate::router::{Route, SubscriptionOptions};
use crate::session::{Message, Owner, Session, Will};
use crate::storage::LogOptions;
use crate::storage::simulated::SimulatedFiles;

/// More receivers than one turn serves.
const RECEIVERS: usize = 3_000;

fn subscribe(core: &Core, client: &Arc<Client>, topic: &str, qos: QoS) {
    let options = SubscriptionOptions::with_qos(qos);
    assert!(core.add_subscription(client, &mut client.lock(), topic, options).is_ok());
}

fn client(core: &Core, id: &str) -> Arc<Client> {
    let session = Session::new(core.limits.of_sessions(), true);
    Client::new(core.next_key(), Owner { client_id: Arc::from(id), user: None }, session, None)
}

/// Sessions that are away: what comes at QoS 0 is dropped, and counted.
fn with_receivers(core: &Core) {
    for n in 0..RECEIVERS {
        subscribe(core, &client(core, &n.to_string()), "gone", QoS::AtMostOnce);
    }
}

fn served(core: &Core) -> u64 {
    core.metrics().dropped.get("offline_qos0").copied().unwrap_or(0)
}

fn publish_will(core: &Core, client: &Arc<Client>) -> Option<Box<FanOut>> {
    let will = Will {
        key: 0,
        owner: Owner { client_id: Arc::clone(&client.id), user: None },
        topic: Arc::from("gone"),
        payload: Box::from(&[0; 100][..]),
        qos: QoS::AtLeastOnce,
        retain: false,
        delay: Duration::ZERO,
        forwarded: Box::default(),
        expiry_seconds: None,
        charge: None,
    };
    let mut turn = Turn::new();
    turn.begin(core);
    let fan_out = core.publish_will(&mut turn, client, &will);
    turn.finish(core);
    fan_out
}

/// A network is gone, and with it all who were connected through it.
#[test]
fn many_wills_at_once_have_lists_for_a_few() {
    const WILLS: usize = 200;
    // What a fan-out in line holds: itself and its message.
    const IN_LINE: usize = size_of::<FanOut>() + 500;
    const LISTS: usize = RECEIVERS * size_of::<Route<Arc<Client>>>();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let core = Core::new(Limits::default(), Security::default());
    with_receivers(&core);
    let gone = client(&core, "gone");
    let before = core.accounts.of(Account::Waiting);
    let held = || core.accounts.of(Account::Waiting) - before;
    let bound = (FAN_OUTS_AT_ONCE + 1) * 2 * LISTS + WILLS * IN_LINE;
    assert!(bound < WILLS * LISTS / 4, "else this shows nothing");
    let mut ends = Vec::new();
    let fan_outs: Vec<_> = (0..WILLS).filter_map(|_| publish_will(&core, &gone)).collect();
    assert_eq!(fan_outs.len(), WILLS, "none of them fits into a turn");
    assert!((WILLS * 100..bound).contains(&held()), "{} bytes", held());
    for fan_out in fan_outs {
        let core = Arc::clone(&core);
        ends.push(runtime.spawn(async move { core.complete_fan_out(fan_out).await }));
    }
    let mut most = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ends.iter().all(|end| end.is_finished()) {
        assert!(Instant::now() < deadline, "the wills do not go on");
        most = most.max(held());
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(most < bound, "{most} bytes, for all at once {}", WILLS * LISTS);
    assert_eq!(served(&core), (WILLS * RECEIVERS) as u64, "each will goes to everybody");
    assert_eq!(held(), 0, "everything is given back");
}

/// Two of one client, of which the second has the place that the first waits for.
#[test]
fn a_client_that_has_a_place_waits_for_no_other_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let core = Core::new(Limits::default(), Security::default());
    with_receivers(&core);
    let clients: Vec<_> = (0..FAN_OUTS_AT_ONCE).map(|n| client(&core, &n.to_string())).collect();
    let places: Vec<_> = clients.iter().filter_map(|_| core.background.take_place()).collect();
    let first: Vec<_> = clients.iter().map(|client| publish_will(&core, client)).collect();
    drop(places);
    let second: Vec<_> = clients.iter().map(|client| publish_will(&core, client)).collect();
    let is_in_line = |fan_out: &Option<Box<FanOut>>| fan_out.as_ref().unwrap().needs_place();
    assert!(first.iter().all(is_in_line) && !second.iter().any(is_in_line));
    runtime.block_on(async {
        let mut ends = tokio::task::JoinSet::new();
        for (first, second) in first.into_iter().zip(second) {
            let core = Arc::clone(&core);
            ends.spawn(async move { core.complete_fan_outs([first, second]).await });
        }
        let all = tokio::time::timeout(Duration::from_secs(30), ends.join_all()).await;
        assert!(all.is_ok(), "each waits for the places of the others");
    });
    assert_eq!(served(&core), (2 * FAN_OUTS_AT_ONCE * RECEIVERS) as u64);
}

/// A publish of a client's own to "t", which the first turn does not finish.
fn publish(core: &Core, who: &Arc<Client>) -> Publisher {
    let mut publisher =
        Publisher::new(ProtocolVersion::V311, RefusedPublish::AckAndCount, &Limits::default());
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "t",
        packet_id: PacketId::new(1),
        properties: PublishProperties::default(),
        payload: &[0; 100],
        wire: &[],
        packet_id_offset: 0,
    };
    let mut turn = Turn::new();
    turn.begin(core);
    core.publish(&mut turn, who, &mut publisher, &publish).unwrap();
    turn.finish(core);
    assert!(publisher.is_pending(), "it does not fit into a turn");
    publisher
}

fn continue_publish(core: &Core, who: &Client, publisher: &mut Publisher) {
    let mut turn = Turn::new();
    turn.begin(core);
    core.continue_publish(&mut turn, who, publisher);
    turn.finish(core);
}

/// More receivers of "t" than are found in one turn, and no room for connections to keep them.
fn with_receivers_that_nobody_keeps() -> Arc<Core> {
    let core = Core::new(Limits::default(), Security::default());
    for n in 0..2 * RECEIVERS {
        subscribe(&core, &client(&core, &n.to_string()), "t", QoS::AtMostOnce);
    }
    core.accounts.set_max(Some(8 * 2 * RECEIVERS * size_of::<Route<Arc<Client>>>()));
    core
}

/// As their connections do it: each waits for a place and goes on with it, some leave before that.
#[test]
fn many_connections_that_publish_to_many_have_lists_for_a_few() {
    const PUBLISHERS: usize = 60;
    const IN_LINE: usize = size_of::<FanOut>() + 500;
    const LISTS: usize = 2 * RECEIVERS * size_of::<Route<Arc<Client>>>();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let core = with_receivers_that_nobody_keeps();
    let before = core.accounts.of(Account::Waiting);
    let held = || core.accounts.of(Account::Waiting) - before;
    let bound = FAN_OUTS_AT_ONCE * 2 * LISTS + PUBLISHERS * IN_LINE;
    assert!(bound < PUBLISHERS * LISTS / 3, "else this shows nothing");
    let all: Vec<_> = (0..PUBLISHERS).map(|n| client(&core, &format!("publisher {n}"))).collect();
    let publishers: Vec<_> = all.iter().map(|who| (Arc::clone(who), publish(&core, who))).collect();
    let waiting = publishers.iter().filter(|(_, publisher)| publisher.needs_place()).count();
    assert_eq!(waiting, PUBLISHERS - FAN_OUTS_AT_ONCE, "the others wait without a list");
    assert!(held() < bound, "{} bytes", held());
    let mut ends = Vec::new();
    for (n, (who, mut publisher)) in publishers.into_iter().enumerate() {
        let core = Arc::clone(&core);
        ends.push(runtime.spawn(async move {
            if n % 3 == 0 {
                // Its connection is closed.
                let fan_out = publisher.take_fan_out().unwrap();
                drop(publisher);
                core.complete_fan_out(fan_out).await;
                return;
            }
            while publisher.is_pending() {
                if publisher.needs_place() {
                    continue_publish(&core, &who, &mut publisher);
                    assert!(publisher.needs_place(), "nothing happens without one");
                    publisher.keep_place(core.background.wait_for_place().await.unwrap());
                }
                continue_publish(&core, &who, &mut publisher);
                tokio::task::yield_now().await;
            }
            assert!(!publisher.acks.is_empty(), "its answer comes with the last slice");
        }));
    }
    let mut most = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ends.iter().all(|end| end.is_finished()) {
        assert!(Instant::now() < deadline, "they do not go on");
        most = most.max(held());
        std::thread::sleep(Duration::from_millis(1));
    }
    ends.into_iter().for_each(|end| runtime.block_on(end).unwrap());
    assert!(most < bound, "{most} bytes, for all at once {}", PUBLISHERS * LISTS);
    assert_eq!(served(&core), (PUBLISHERS * 2 * RECEIVERS) as u64, "each message goes to everybody");
    assert!(!all.iter().any(|who| who.is_publishing()));
    assert_eq!((held(), core.accounts.of(Account::Routes)), (0, 0), "everything is given back");
}

/// What a turn finds is kept by its connection as long as the account of routes has room.
#[test]
fn lists_that_connections_keep_stay_within_their_part() {
    const KEPT: usize = 3;
    const PUBLISHERS: usize = 8;
    let list = 1 + RECEIVERS * size_of::<Route<Arc<Client>>>();
    let core = Core::new(Limits::default(), Security::default());
    for n in 0..RECEIVERS {
        subscribe(&core, &client(&core, &n.to_string()), "t", QoS::AtMostOnce);
    }
    core.accounts.set_max(Some(16 * (KEPT * list + list / 2)));
    let mut publishers = Vec::new();
    for n in 1..=PUBLISHERS {
        let who = client(&core, "publisher");
        let mut publisher = publish(&core, &who);
        while publisher.is_pending() {
            continue_publish(&core, &who, &mut publisher);
        }
        publishers.push(publisher);
        assert_eq!(core.metrics().memory["routes"], (n.min(KEPT) * list) as u64);
        assert_eq!(served(&core), (n * RECEIVERS) as u64);
    }
    publishers.remove(0);
    let who = client(&core, "publisher");
    publishers.push(publish(&core, &who));
    assert_eq!(core.accounts.of(Account::Routes), KEPT * list, "there is room again");
    drop(publishers);
    assert_eq!(core.accounts.of(Account::Routes), 0);
}

/// All places are with connections that end before their next turn.
#[test]
fn who_leaves_with_the_place_it_has_waited_for_waits_for_no_other() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let core = with_receivers_that_nobody_keeps();
    let mut places: Vec<_> = std::iter::from_fn(|| core.background.take_place()).collect();
    assert_eq!(places.len(), FAN_OUTS_AT_ONCE);
    let who = client(&core, "publisher");
    let mut publishers: Vec<_> = places.iter().map(|_| publish(&core, &who)).collect();
    publishers.iter_mut().for_each(|publisher| {
        assert!(publisher.needs_place());
        publisher.keep_place(places.pop().unwrap());
    });
    runtime.block_on(async {
        let mut ends = tokio::task::JoinSet::new();
        for mut publisher in publishers {
            let core = Arc::clone(&core);
            let fan_out = publisher.take_fan_out().unwrap();
            ends.spawn(async move { core.complete_fan_out(fan_out).await });
        }
        let all = tokio::time::timeout(Duration::from_secs(30), ends.join_all()).await;
        assert!(all.is_ok(), "each waits for the places of the others");
    });
    assert_eq!(served(&core), (FAN_OUTS_AT_ONCE * 2 * RECEIVERS) as u64);
}

/// What nobody goes on with at the end keeps no connection from its own end.
#[test]
fn at_a_shutdown_the_queue_gives_its_places_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let core = Core::new(Limits::default(), Security::default());
    with_receivers(&core);
    let fill = || (0..FAN_OUTS_AT_ONCE).for_each(|_| core.publish_later("gone", "m"));
    fill();
    assert!(core.background.take_place().is_none());
    core.begin_shutdown();
    runtime.block_on(Arc::clone(&core).run_background());
    let free = || std::iter::from_fn(|| core.background.take_place()).collect::<Vec<_>>().len();
    assert_eq!(free(), FAN_OUTS_AT_ONCE);
    fill();
    assert_eq!(free(), FAN_OUTS_AT_ONCE, "nor does what comes later");
}

/// What a client's own message holds is given back with its last slice, and also when the client
/// leaves before that.
#[test]
fn the_charge_of_a_message_to_many_is_given_back() {
    for leaves in [false, true] {
        let core = Core::new(Limits::default(), Security::default());
        for n in 0..2 * RECEIVERS {
            subscribe(&core, &client(&core, &n.to_string()), "t", QoS::AtMostOnce);
        }
        let who = client(&core, "publisher");
        let mut publisher =
            Publisher::new(ProtocolVersion::V311, RefusedPublish::AckAndCount, &Limits::default());
        let before = core.accounts.total();
        let mut turn = Turn::new();
        turn.begin(&core);
        let payload = [0; 3_000];
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "t",
            packet_id: PacketId::new(1),
            properties: PublishProperties::default(),
            payload: &payload,
            wire: &[],
            packet_id_offset: 0,
        };
        core.publish(&mut turn, &who, &mut publisher, &publish).unwrap();
        turn.finish(&core);
        assert!(publisher.is_pending() && who.is_publishing());
        // While they are looked for, and while they are served.
        for _ in 0..2 {
            turn.begin(&core);
            core.continue_publish(&mut turn, &who, &mut publisher);
            turn.finish(&core);
            let held = core.accounts.total() - before;
            assert!(held > RECEIVERS * size_of::<Route<Arc<Client>>>() / 2, "{held} bytes");
        }
        let held = core.accounts.total() - before;
        assert!(held > RECEIVERS * size_of::<Route<Arc<Client>>>() / 2 + payload.len(), "{held} bytes");
        if leaves {
            let fan_out = publisher.take_fan_out().expect("it is pending");
            drop(publisher);
            assert_eq!(core.accounts.total() - before, held, "it goes on");
            core.complete_fan_out_now(fan_out);
        } else {
            while publisher.is_pending() {
                turn.begin(&core);
                core.continue_publish(&mut turn, &who, &mut publisher);
                turn.finish(&core);
            }
            // The list itself is kept for the next message.
            drop(publisher);
        }
        drop(turn);
        assert_eq!(served(&core), 2 * RECEIVERS as u64, "leaves: {leaves}");
        assert!(!who.is_publishing());
        assert_eq!(core.accounts.total(), before, "leaves: {leaves}");
    }
}

/// How often a connection was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

async fn connect(core: Arc<Core>, id: String, woken: Arc<Woken>) -> Arc<Client> {
    let connect = Connect {
        clean_start: false,
        session_expiry: SessionExpiry::ServerDefault,
        ..Connect::new(ProtocolVersion::V311, &id)
    };
    let request = ConnectRequest {
        connect: &connect,
        limits: &core.limits.now(),
        peer: std::net::SocketAddr::from(([127, 0, 0, 1], 1)),
        user: None,
        login_until: None,
        login_entry: None,
        socket: None,
        authentication: None,
        handle: Arc::new(Handle::default()),
        waker: Waker::from(woken),
    };
    core.connect(request).await.unwrap().client
}

/// A message at QoS 2 goes when it is on disk: then each of its receivers has to be woken, also
/// those that are too many for one turn to register.
#[test]
fn every_receiver_of_a_large_fan_out_is_woken() {
    for receivers in [WAKES_AT_ONCE, 2 * WAKES_AT_ONCE + 1, 5 * WAKES_AT_ONCE] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.unwrap();
        let files = SimulatedFiles::new(1);
        let (options, limits) = (LogOptions::default(), Limits::default());
        let core =
            Core::open_with(Arc::new(files), options, limits, Security::default(), WallClock::system())
                .unwrap();
        let all: Vec<Arc<Woken>> = (0..receivers).map(|_| Arc::default()).collect();
        runtime.block_on(async {
            let mut connecting = tokio::task::JoinSet::new();
            for (n, woken) in all.iter().enumerate() {
                connecting.spawn(connect(Arc::clone(&core), n.to_string(), Arc::clone(woken)));
            }
            for client in connecting.join_all().await {
                subscribe(&core, &client, "t", QoS::ExactlyOnce);
            }
            let log = core.log.as_ref().unwrap();
            log.wait(log.submitted()).await;
        });
        all.iter().for_each(|woken| woken.0.store(0, Ordering::Release));
        runtime.spawn(Arc::clone(&core).run_background());
        let message = Arc::new(Message::new("t", b"m", QoS::ExactlyOnce));
        let mut turn = Turn::new();
        turn.begin(&core);
        let rest = core.publish_message(&mut turn, &message, false);
        turn.finish(&core);
        assert_eq!(rest.is_some(), receivers > WAKES_AT_ONCE, "too many for one turn");
        rest.into_iter().for_each(|rest| core.complete_fan_out_now(rest));
        let asleep = || all.iter().filter(|woken| woken.0.load(Ordering::Acquire) == 0).count();
        let deadline = Instant::now() + Duration::from_secs(10);
        while asleep() > 0 {
            assert!(Instant::now() < deadline, "{} of {receivers} are not woken", asleep());
            std::thread::sleep(Duration::from_millis(1));
        }
        core.begin_shutdown();
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
