//! The engine where the order of events matters that no client can bring about at will.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use super::client::Replay;
use super::flush::{By, Flushed, flush, give_spare, take_spare};
use super::{
    Attached, Cause, Client, Clock, ConnectRequest, Core, Handle, Kept, Publisher, Security, Turn, WallClock,
    signal,
};
use crate::accounts::{Account, Charge};
use crate::config::{Limits, RefusedPublish};
use crate::protocol::{
    Connect, Framed, Packet, ProtocolVersion, QoS, ReasonCode, SessionExpiry, decode, frame,
};
use crate::router::{ReplayCursor, SubscriptionOptions};
use crate::session::{EncodeScratch, Message, Outgoing, Session};
use crate::storage::simulated::SimulatedFiles;
use crate::storage::{Batch, Log, LogOptions, Record, Recovered, SessionRecord, Urgency, WillRecord};

mod deferred;
mod memory;
mod take_overs;
mod waits;

const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A connection as far as the engine knows it.
struct Peer<'c> {
    handle: Arc<Handle>,
    connecting: Pin<Box<dyn Future<Output = Result<Attached, Cause>> + 'c>>,
}

impl<'c> Peer<'c> {
    fn new(core: &'c Arc<Core>, clean_session: bool, socket: Option<Arc<TcpStream>>) -> Self {
        Self::made(core, "id", clean_session, socket, None)
    }

    /// One with this client id.
    fn named(core: &'c Arc<Core>, id: &'c str) -> Self {
        Self::made(core, id, true, None, None)
    }

    /// One whose login holds until then.
    fn with_login(core: &'c Arc<Core>, login_until: Option<u64>) -> Self {
        Self::made(core, "id", true, None, login_until)
    }

    fn made(
        core: &'c Arc<Core>,
        id: &'c str,
        clean_session: bool,
        socket: Option<Arc<TcpStream>>,
        login_until: Option<u64>,
    ) -> Self {
        let handle = Arc::new(Handle::default());
        let shared = Arc::clone(&handle);
        let connecting = Box::pin(async move {
            let connect = Connect {
                clean_start: clean_session,
                session_expiry: if clean_session {
                    SessionExpiry::AtDisconnect
                } else {
                    SessionExpiry::ServerDefault
                },
                ..Connect::new(ProtocolVersion::V311, id)
            };
            core.connect(ConnectRequest {
                connect: &connect,
                limits: &core.limits.now(),
                peer: PEER,
                user: None,
                login_until,
                login_entry: None,
                socket,
                authentication: None,
                handle: shared,
                waker: Waker::noop().clone(),
            })
            .await
        });
        Self { handle, connecting }
    }

    fn poll(&mut self) -> Option<Attached> {
        match self.connecting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result.unwrap()),
            Poll::Pending => None,
        }
    }
}

#[test]
fn a_session_that_is_away_holds_no_buffer_for_output() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let mut peer = Peer::new(&core, false, None);
    let attached = peer.poll().expect("nobody is there yet");
    let client = attached.client;
    core.add_subscription(&client, &mut client.lock(), "t", SubscriptionOptions::with_qos(QoS::AtLeastOnce))
        .unwrap();
    core.disconnected(&client, attached.epoch, &Cause::PeerClosed);
    give_spare(Vec::with_capacity(60_000));
    let message = Arc::new(Message::new(Arc::from("t"), Box::from(&b"x"[..]), QoS::AtLeastOnce));
    assert!(core.publish_message(&mut Turn::new(), &message, false).is_none());
    assert_eq!(client.lock().session.queued(), 1);
    assert!(take_spare().capacity() >= 60_000, "the spare buffer lies with a session that has no connection");
}

#[test]
fn replays_of_filters_that_are_given_up_again_do_not_pile_up() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let retained = Arc::new(Message::new(Arc::from("t"), Box::from(&b"x"[..]), QoS::AtMostOnce));
    core.retained.set(Kept { message: retained, revision: 0 });
    let mut peer = Peer::new(&core, false, None);
    let client = peer.poll().expect("nobody is there yet").client;
    let mut turn = Turn::new();
    let mut publisher =
        Publisher::new(ProtocolVersion::V311, RefusedPublish::AckAndCount, &Limits::default());
    for n in 0..1_000 {
        let filter = format!("{n}/#");
        let with_length = [&(filter.len() as u16).to_be_bytes(), filter.as_bytes()].concat();
        for (first_byte, options) in [(0x82, &[1][..]), (0xA2, &[])] {
            let body = [&[0, 1], &with_length[..], options].concat();
            let bytes = [&[first_byte, body.len() as u8], &body[..]].concat();
            let Ok(Framed::Frame(framed)) = frame(&bytes, 1_000, ProtocolVersion::V311) else {
                panic!("{bytes:?}")
            };
            match decode(&framed, ProtocolVersion::V311).unwrap() {
                Packet::Subscribe(subscribe) => {
                    core.subscribe(&mut turn, &client, &mut publisher, &subscribe)
                }
                Packet::Unsubscribe(unsubscribe) => {
                    core.unsubscribe(&mut turn, &client, &mut publisher, &unsubscribe);
                }
                _ => panic!("{bytes:?}"),
            }
        }
    }
    let owed = client.lock().replays.as_ref().map_or(0, |replays| replays.len());
    assert!(owed < 100, "{owed} replays are kept for no subscription");
}

#[test]
fn an_ended_subscription_in_process_keeps_no_messages_for_who_still_knows_it() {
    let core = Core::new(Limits::default(), Security::default());
    let session = Session::new(core.limits.of_sessions(), false);
    let client = Client::in_process(core.next_key(), session);
    let options = SubscriptionOptions::with_qos(QoS::AtMostOnce);
    assert!(core.add_subscription(&client, &mut client.lock(), "t", options).is_ok());
    // As a publisher keeps it, or a thread for publishers of many topics.
    let mut route = Vec::new();
    core.router.route("t", &mut route);
    let message = Arc::new(Message::new("t", b"unread", QoS::AtMostOnce));
    let mut turn = Turn::new();
    assert!(core.publish_message(&mut turn, &message, false).is_none());
    let unread = |client: &Client| client.lock().local.as_ref().map(|queue| queue.len());
    assert!(unread(&client).is_some_and(|len| len == 1));
    core.end_session(&client);
    assert_eq!(unread(&client), None);
    let mut scratch = EncodeScratch::default();
    let mut outgoing = Outgoing::from_message(&message, turn.now, &mut scratch);
    core.deliver_all(&mut turn, &route, &mut outgoing);
    assert_eq!((unread(&client), client.lock().session.queued()), (None, 0), "by the route of before");
}

#[test]
fn a_publisher_that_makes_room_for_a_replay_says_so() {
    runtime().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let _client_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        socket.writable().await.unwrap();
        let core = Core::new(Limits::default(), Security::default());
        let mut peer = Peer::new(&core, true, Some(Arc::new(socket)));
        let client = peer.poll().expect("nobody is there yet").client;
        client.lock().replays.get_or_insert_default().push_back(Replay {
            filter: Arc::from("t"),
            options: SubscriptionOptions::with_qos(QoS::AtMostOnce),
            cursor: ReplayCursor::default(),
            _charge: Charge::new(&core.accounts, Account::Subscriptions, 0),
        });
        // CONNACK stands in the output; another client's thread writes it.
        flush(&core, &client, core.now(), By::Publisher, false);
        assert!(!client.lock().session.out.has_output(), "it is written");
        assert_eq!(peer.handle.take_signals() & signal::FLUSH, signal::FLUSH);
    });
}

/// What was left out for want of memory leaves nothing for which its task would wait for the socket.
#[test]
fn a_socket_that_took_no_more_is_written_again_after_all_was_left_out() {
    runtime().block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (socket, _) = listener.accept().await.unwrap();
        let socket = Arc::new(socket);
        socket.writable().await.unwrap();
        let core = Core::new(Limits::default(), Security::default());
        let mut peer = Peer::new(&core, true, Some(Arc::clone(&socket)));
        let attached = peer.poll().expect("nobody is there yet");
        let client = attached.client;
        let options = SubscriptionOptions::with_qos(QoS::AtMostOnce);
        assert!(core.add_subscription(&client, &mut client.lock(), "t", options).is_ok());
        let publish = |payload: &[u8]| {
            let mut turn = Turn::new();
            let message = Arc::new(Message::new("t", payload, QoS::AtMostOnce));
            assert!(core.publish_message(&mut turn, &message, false).is_none());
            turn.finish(&core);
        };
        let is_blocked = || client.lock().link.as_ref().is_some_and(|link| link.gate.is_blocked());
        while !is_blocked() {
            publish(&[b'x'; 60_000]);
        }
        assert_eq!(core.flush_own(&client, false), Flushed::Blocked);
        drop(client.lock().session.out.take());
        assert!(core.attend(&client, attached.epoch).is_some_and(|attention| attention.output));
        assert_eq!(core.flush_own(&client, false), Flushed::Blocked);
        let reading = async {
            loop {
                client_end.readable().await.unwrap();
                let _ = client_end.try_read(&mut [0; 60_000]);
            }
        };
        tokio::select! {
            writable = socket.writable() => writable.unwrap(),
            () = reading => {}
        }
        assert_eq!(core.flush_own(&client, true), Flushed::Done);
        assert!(core.attend(&client, attached.epoch).is_some_and(|attention| !attention.output));
        publish(b"later");
        assert!(!client.lock().session.out.has_output(), "it is written");
    });
}

/// A clock that can be set.
fn settable() -> (Arc<AtomicU64>, WallClock) {
    let wall = Arc::new(AtomicU64::new(1_800_000_000_000));
    let read = Arc::clone(&wall);
    (wall, WallClock::from_fn(move || read.load(Ordering::SeqCst)))
}

#[test]
fn a_login_that_ends_at_a_time_of_day_is_asked_again_when_the_clock_is_set() {
    const HOUR: u64 = 3_600_000;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let (wall, clock) = settable();
    let (ledger, seat) = crate::ledger::Ledger::new();
    let ledger = (Arc::new(ledger), seat);
    let core = Core::with_log(Limits::default(), Security::default(), None, ledger, Clock::new(clock));
    let core = Arc::new(core);
    let until = wall.load(Ordering::SeqCst) + 2 * HOUR;
    let mut peer = Peer::with_login(&core, Some(until));
    let attached = peer.poll().expect("nobody is there yet");
    let ends_in = || {
        let state = attached.client.lock();
        let link = state.link.as_ref().expect("it is connected");
        let hours = link.login_ends.expect("it ends").since(core.now()).as_secs_f64() / 3_600.0;
        (hours.round() as u64, link.close_cause.clone(), state.timer)
    };
    core.look_at_clock();
    let timer = ends_in().2;
    assert_eq!(ends_in(), (2, None, timer));
    // What was a future in two hours is one in five: the clock was too fast.
    wall.fetch_sub(3 * HOUR, Ordering::SeqCst);
    core.look_at_clock();
    assert_eq!((ends_in().0, ends_in().1), (5, None));
    assert!(ends_in().2 > timer);
    wall.fetch_add(4 * HOUR, Ordering::SeqCst);
    core.look_at_clock();
    assert_eq!((ends_in().0, ends_in().1), (1, None));
    wall.fetch_add(HOUR, Ordering::SeqCst);
    core.look_at_clock();
    assert_eq!((ends_in().0, ends_in().1), (0, Some(Cause::LoginExpired)));
    assert!(peer.handle.take_signals() & signal::CLOSE != 0);
}

/// `DELAYED_WILLS=100000 cargo test --lib delayed_wills` has more of them.
#[test]
fn delayed_wills_find_their_sessions_at_a_start() {
    let sessions: u64 =
        std::env::var("DELAYED_WILLS").map_or(20_000, |sessions| sessions.parse().expect("a number"));
    let files = SimulatedFiles::new(1);
    let (log, _) =
        Log::open(Arc::new(files.clone()), LogOptions::default(), Arc::default(), &mut Recovered::default())
            .expect("a log");
    let mut batch = Batch::default();
    for n in 1..=sessions {
        let client_id = format!("client {n}");
        let session =
            SessionRecord { session: 2 * n, keep: None, client_id: &client_id, epoch: 1, user: None };
        let will = WillRecord {
            will: 2 * n + 1,
            session: 2 * n,
            qos: QoS::AtLeastOnce,
            retain: false,
            delay: Duration::from_secs(3_600),
            expiry_seconds: None,
            topic: "gone",
            properties: &[],
            payload: client_id.as_bytes(),
            client_id: &client_id,
            user: None,
        };
        batch.begin();
        Record::Session(session).write(batch.body());
        Record::Will(will).write(batch.body());
        batch.end();
        if n % 1_000 == 0 || n == sessions {
            log.submit(&mut batch, Urgency::Lazy);
        }
    }
    log.close();
    let begun = Instant::now();
    let core = Core::open_with(
        Arc::new(files),
        LogOptions::default(),
        Limits::default(),
        Security::default(),
        WallClock::system(),
    )
    .expect("a log");
    println!("{sessions} sessions with delayed wills: {:?}", begun.elapsed());
    assert_eq!(core.clients.len() as u64, sessions);
    for entry in &core.clients {
        let state = entry.value().lock();
        let (at, will) = &**state.delayed_will.as_ref().expect("it waits");
        assert_eq!((will.key, &*will.payload), (entry.value().key + 1, entry.key().as_bytes()));
        assert!(at.as_millis() >= 3_600_000 && state.timer.is_some());
    }
}

/// Found from outside: each UNSUBSCRIBE of one shared filter goes through the queue; 2,000 in one
/// read took 346 ms.
#[test]
fn giving_up_shared_filters_one_by_one_beside_a_long_queue_spends_the_turn() {
    const QUEUED: usize = 9_000;
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let core = Core::new(Limits::default(), Security::default());
    let mut peer = Peer::new(&core, false, None);
    let client = peer.poll().expect("nobody is there yet").client;
    let options = SubscriptionOptions::with_qos(QoS::AtLeastOnce);
    let mut state = client.lock();
    assert!(core.add_subscription(&client, &mut state, "t", options).is_ok());
    for n in 0..100 {
        assert!(core.add_subscription(&client, &mut state, &format!("$share/g/{n}"), options).is_ok());
    }
    drop(state);
    let message = Arc::new(Message::new("t", b"x", QoS::AtLeastOnce));
    for _ in 0..QUEUED + 64 {
        assert!(core.publish_message(&mut Turn::new(), &message, false).is_none());
    }
    assert_eq!(client.lock().session.queued(), QUEUED, "beside those that are on their way");
    let mut publisher =
        Publisher::new(ProtocolVersion::V311, RefusedPublish::AckAndCount, &Limits::default());
    let mut turn = Turn::new();
    let packets = (0..100).take_while(|n| {
        let filter = format!("$share/g/{n}");
        let body = [&[0, 1, 0, filter.len() as u8], filter.as_bytes()].concat();
        let bytes = [&[0xA2, body.len() as u8], &body[..]].concat();
        let Ok(Framed::Frame(framed)) = frame(&bytes, 1_000, ProtocolVersion::V311) else {
            panic!("{bytes:?}")
        };
        let Ok(Packet::Unsubscribe(unsubscribe)) = decode(&framed, ProtocolVersion::V311) else {
            panic!("{bytes:?}")
        };
        core.unsubscribe(&mut turn, &client, &mut publisher, &unsubscribe);
        !turn.budget.is_spent()
    });
    assert!(packets.count() < 10, "each goes through {QUEUED} messages");
}
