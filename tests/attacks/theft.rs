//! Taking a session that is another user's: its queue, its subscriptions, its will, its connection.

use std::fs;

use crate::house::{House, topics5};
use crate::support::{Connect, Connect5, RawClient, RawClient5, ServerPacket, wire5};
use crate::token::{login, login5, stays, stays5};

/// Everybody may do everything: it is the session that is protected.
const RULES: &str = "pattern readwrite #\n";

fn house(on_disk: bool) -> House {
    House::with_rules(RULES, |config, directory| {
        config.listeners[0].allow_anonymous = true;
        if on_disk {
            config.data_dir = Some(directory.join("data"));
        }
    })
}

/// Every way to ask for the session `device` without being alice.
fn refused_to_everybody_else(house: &House) {
    for connect in [
        stays("device", "mallory"),
        login("device", "mallory"),
        Connect::persistent("device"),
        Connect::new("device"),
        stays("device", "Alice"),
        stays("device", "alice "),
        login("device", "mallory").will("w", "m", 1, true),
    ] {
        assert_eq!(house.refusal(&connect), 5, "{connect:?}");
    }
    for connect in [
        stays5("device", "mallory"),
        login5("device", "mallory"),
        Connect5::resuming("device").user_name("mallory").password(crate::token::of("mallory")),
        login5("device", "mallory").session_expiry(0),
        Connect5::persistent("device"),
        Connect5::resuming("device"),
        Connect5::new("device"),
    ] {
        RawClient5::refused(house.addr(), &connect.bytes(), 0x87);
    }
}

#[test]
fn a_session_of_another_user_in_every_state() {
    for on_disk in [false, true] {
        let house = house(on_disk);
        // Connected, in either version: the connection does not even notice.
        let mut alice = house.open(&stays("device", "alice").will("will", "stolen", 1, false));
        alice.subscribe("queue/#", 1);
        refused_to_everybody_else(&house);
        alice.expect_nothing();
        alice.disconnect();
        let mut alice = house.open5(&stays5("device", "alice"));
        refused_to_everybody_else(&house);
        alice.expect_nothing();
        alice.disconnect();
        // Away, with something in its queue.
        house.open(&login("p", "bob")).publish("queue/1", 1, "m");
        refused_to_everybody_else(&house);
        let house = if on_disk { house.restart() } else { house };
        refused_to_everybody_else(&house);
        let (mut alice, present) = RawClient::open(house.addr(), &stays("device", "alice"));
        assert!(present);
        alice.expect_message_and_ack("queue/1", "m");
        assert_eq!(house.broker.metrics().wills_published, 0);
        assert_eq!(house.broker.metrics().closed.get("taken_over"), None);
        // Its owner ends it, and the client id is anybody's.
        alice.disconnect();
        house.open(&login("device", "alice")).disconnect();
        house.eventually("no session", |metrics| metrics.sessions_offline == 0);
        house.open(&login("device", "mallory")).disconnect();
    }
}

#[test]
fn a_session_that_ends_with_its_connection() {
    let house = house(false);
    let mut alice = house.open(&login("device", "alice"));
    alice.subscribe("t", 1);
    refused_to_everybody_else(&house);
    alice.expect_nothing();
    alice.vanish();
    house.eventually("its end", |metrics| metrics.clients_connected == 0);
    let (mut mallory, present) = RawClient::open(house.addr(), &stays("device", "mallory"));
    assert!(!present);
    house.open(&login("p", "bob")).publish("t", 1, "m");
    mallory.expect_nothing();
}

#[test]
fn an_anonymous_session_that_becomes_a_users() {
    for on_disk in [false, true] {
        let mut house = house(on_disk);
        // Nobody can prove whose it is: it is given up, with its queue, and not handed on.
        let mut anonymous = RawClient5::persistent(house.addr(), "device");
        anonymous.subscribe("queue/#", 1);
        anonymous.disconnect();
        house.open(&login("p", "bob")).publish("queue/1", 1, "m");
        if on_disk {
            house = house.restart();
        }
        let (mut mallory, present, _) = RawClient5::open(house.addr(), &stays5("device", "mallory"));
        assert!(!present);
        house.open(&login("p", "bob")).publish("queue/2", 1, "m");
        assert_eq!(topics5(&mut mallory), [] as [String; 0]);
        // And from now on it is mallory's.
        RawClient5::refused(house.addr(), &Connect5::persistent("device").bytes(), 0x87);
        mallory.expect_nothing();
    }
}

#[test]
fn a_delayed_will_that_another_user_would_cut_off() {
    let house = house(false);
    let mut alice = house.open(&login("watcher", "alice"));
    alice.subscribe("will", 1);
    let will = stays5("device", "alice").will("will", "gone", 1, false);
    house.open5(&will.will_with(wire5::four(wire5::id::WILL_DELAY, 1))).vanish();
    // To come back in time ends a delayed will, to end the session sends it at once; both are the owner's to do.
    RawClient5::refused(house.addr(), &stays5("device", "mallory").bytes(), 0x87);
    RawClient5::refused(house.addr(), &login5("device", "mallory").bytes(), 0x87);
    assert_eq!(house.broker.metrics().wills_published, 0);
    alice.expect_message_and_ack("will", "gone");
}

#[test]
fn racing_for_a_client_id() {
    let house = house(false);
    // Whoever is first has it; of the others none gets in while it is there, whatever the moment.
    for round in 0..20 {
        let id = format!("race-{round}");
        let mut clients: Vec<(RawClient, &str)> = (0..12)
            .map(|n| {
                let user = ["alice", "mallory", "bob"][n % 3];
                let mut client = RawClient::connect(house.addr());
                client.send(&if n % 2 == 0 { login(&id, user) } else { stays(&id, user) }.bytes());
                (client, user)
            })
            .collect();
        let mut owners: Vec<&str> = Vec::new();
        for (client, user) in &mut clients {
            match client.packet_or_end() {
                Some(ServerPacket::ConnAck(_, 0)) => owners.push(user),
                Some(ServerPacket::ConnAck(_, 5)) | None => {}
                other => panic!("{other:?}"),
            }
        }
        owners.dedup();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners.len(), 1, "{owners:?} share the client id {id}");
    }
}

#[test]
fn an_assigned_client_id_of_another() {
    let house = house(false);
    let (_alice, _, properties) = RawClient5::open(house.addr(), &stays5("", "alice"));
    let id = properties.text(wire5::id::ASSIGNED_CLIENT_ID).expect("an assigned client id").to_owned();
    RawClient5::refused(house.addr(), &stays5(&id, "mallory").bytes(), 0x87);
    // The next one cannot be told from this one.
    let (_other, _, properties) = RawClient5::open(house.addr(), &stays5("", "mallory"));
    let next = properties.text(wire5::id::ASSIGNED_CLIENT_ID).expect("an assigned client id");
    let same = id.bytes().zip(next.bytes()).filter(|(a, b)| a == b).count();
    assert!(id.len() >= 20 && same < id.len() - 8, "{id} and {next}");
}

#[test]
fn a_take_over_by_the_same_user_from_a_connection_that_is_not_proved() {
    let house = House::with_rules(RULES, |config, directory| {
        config.listeners[0].allow_anonymous = true;
        fs::write(directory.join("passwords"), "# nobody\n").expect("a file");
        config.auth.password_file = Some(directory.join("passwords"));
    });
    let mut alice = house.open(&stays("device", "alice"));
    // The name alone, the name with anything for a password, and an expired token.
    let expired = serde_json::json!({"sub": "alice", "exp": crate::token::seconds_from_now(-1)});
    for connect in [
        Connect::persistent("device").user_name("alice"),
        Connect::persistent("device").user_name("alice").password(""),
        Connect::persistent("device").user_name("alice").password("x"),
        Connect::persistent("device").user_name("alice").password(crate::token::with_claims(&expired)),
    ] {
        assert_eq!(house.refusal(&connect), 4);
    }
    assert_eq!(house.refusal(&Connect::persistent("device")), 5);
    alice.expect_nothing();
}
