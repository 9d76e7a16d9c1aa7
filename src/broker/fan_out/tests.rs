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

fn publish_will(core: &Core, client: &Client) -> Option<Box<FanOut>> {
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
    let is_in_line = |fan_out: &Option<Box<FanOut>>| fan_out.as_ref().unwrap().is_in_line();
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
