//! Hashes cost what they cost: who has the broker compute them, and how many at a time.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::house::{House, expect_refusal};
use crate::support::wire5::Connect5;
use crate::support::{Connect, RawClient, RawClient5, ServerPacket, ServerPacket5, wire};

/// bob: builder, for next to nothing.
const BOB: &str = "bob:$7$101$MDEyMzQ1Njc4OWFi$05MiFcfkZx1BSeHFobQxcPs5r2GPtqXYqFnS01wIvll4QsNqJSrMjq4yqTO2dSf7XDNnollOfkz1oXQPPGTN0w==\n";

/// A user whose password costs so many iterations, and that nobody knows.
fn costly(user: &str, iterations: u32) -> String {
    format!("{user}:$7${iterations}$MDEyMzQ1Njc4OWFi${}==\n", "A".repeat(86))
}

#[track_caller]
fn connack(client: &mut RawClient5) -> u8 {
    let ServerPacket5::ConnAck(false, code, _) = client.expect_packet() else { panic!("no CONNACK") };
    client.expect_closed();
    code
}

#[test]
fn many_logins_with_an_expensive_hash() {
    const ATTEMPTS: usize = 300;
    const TIMEOUT: Duration = Duration::from_secs(5);
    let house = House::with(|config, directory| {
        // A second or so of one core.
        fs::write(directory.join("passwords"), costly("victim", 1_000_000) + BOB).expect("passwords");
        config.auth.password_file = Some(directory.join("passwords"));
        config.limits.connect_timeout = TIMEOUT;
    });
    let bob = Connect::new("bob").user_name("bob").password("builder");
    let mut connected = house.open(&bob);
    let mut attackers: Vec<RawClient> = (0..ATTEMPTS).map(|_| RawClient::connect(house.addr())).collect();
    for (n, attacker) in attackers.iter_mut().enumerate() {
        attacker.send(&Connect::new(format!("a-{n}")).user_name("victim").password("guess").bytes());
    }
    // Somebody at the attackers' address whose password is the right one.
    let mut neighbour = RawClient::connect(house.addr());
    neighbour.send(&Connect::new("neighbour").user_name("bob").password("builder").bytes());
    let mut modern: Vec<RawClient5> = (0..10).map(|_| RawClient5::connect(house.addr())).collect();
    for client in &mut modern {
        client.send(&Connect5::new("five").user_name("victim").password("guess").bytes());
    }
    // Ten of one user at one address are under way, as many as may fail (`auth.failures_max`); the others wait for their turn.
    // Who is connected notices nothing.
    connected.subscribe("t", 1);
    connected.send(&wire::publish_qos0("t", "m"));
    connected.expect_message("t", "m");
    // Another address has its turn after the one that is at work, not behind all of them. (They take more than `connect_timeout`.)
    let mut other = RawClient::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), house.addr());
    other.send(&bob.bytes());
    assert_eq!(other.expect_packet(), ServerPacket::ConnAck(false, 0));
    // MQTT 5 knows why: 0x88 is not 0x86, so that a client with the right password comes back.
    let codes: Vec<u8> = modern.iter_mut().map(connack).collect();
    assert!(codes.contains(&0x88) && codes.iter().all(|code| [0x86, 0x88].contains(code)), "{codes:x?}");
    // Nobody is told that his password is wrong who was only not judged in time, at the attackers' address as well.
    assert!(matches!(neighbour.expect_packet(), ServerPacket::ConnAck(false, 0 | 3)));
    let codes: Vec<u8> = attackers.iter_mut().map(expect_refusal).collect();
    assert!(codes.iter().all(|code| [3, 4].contains(code)), "{codes:?}");
    // Those whose turn did not come within `connect_timeout` are told that the server is unavailable, and counted: nothing is computed for them.
    let busy = codes.iter().filter(|code| **code == 3).count();
    assert!(busy >= ATTEMPTS - 20, "{codes:?}");
    house.eventually("refusals", |metrics| {
        metrics.refused.get("refused_service_unavailable").is_some_and(|refused| *refused >= busy as u64)
    });
    assert_eq!(house.refusal(&bob.clone().password("wrong")), 4);
}

#[test]
fn who_gives_up_leaves_the_queue() {
    let house = House::with(|config, directory| {
        fs::write(directory.join("passwords"), costly("victim", 1_000_000) + BOB).expect("passwords");
        config.auth.password_file = Some(directory.join("passwords"));
        config.limits.connect_timeout = Duration::from_secs(1);
    });
    // Three waves, more than there are places for one address: a wave's are free when its time is over.
    for _ in 0..3 {
        let mut attackers: Vec<RawClient> = (0..60).map(|_| RawClient::connect(house.addr())).collect();
        for attacker in &mut attackers {
            attacker.send(&Connect::new("a").user_name("victim").password("guess").bytes());
        }
        // One without a place would be refused at once.
        attackers[59].stays_silent_and_open(Duration::from_millis(200));
        let codes: Vec<u8> = attackers.iter_mut().map(expect_refusal).collect();
        assert!(codes.iter().all(|code| [3, 4].contains(code)), "{codes:?}");
    }
}

#[test]
fn a_password_file_that_asks_for_too_much() {
    let (salt, hash) = ("MDEyMzQ1Njc4OWFi", "A".repeat(86));
    let pbkdf2 = |iterations: &str| format!("$7${iterations}${salt}${hash}==");
    let argon2 = |costs: &str| format!("$argon2id$v=19${costs}${salt}${}", "A".repeat(43));
    let bcrypt = |cost: &str| format!("$2b${cost}$abcdefghijklmnopqrstuuzmY/udhRtiR4sxZdGQ7ebdJU709n/Aa");
    let ours = [argon2("m=19456,t=2,p=1"), pbkdf2("210000")];
    for (text, word) in [
        (pbkdf2("2000001"), "iterations"),
        (pbkdf2("4294967295"), "iterations"),
        (pbkdf2("99999999999999999999"), "not complete"),
        (pbkdf2("0"), "not complete"),
        (pbkdf2("-1"), "not complete"),
        (format!("PBKDF2$sha512$4000000000${salt}${hash}=="), "iterations"),
        (argon2("m=4194304,t=1,p=1"), "memory"),
        (argon2("m=4294967295,t=1,p=1"), "memory"),
        (argon2("m=65536,t=4294967295,p=1"), "passes"),
        (argon2("m=8,t=1000000,p=1"), "passes"),
        (argon2("m=65536,t=1,p=16777215"), "lanes"),
        (argon2("m=0,t=1,p=1"), "not complete"),
        (bcrypt("31"), "cost"),
        (bcrypt("99"), "bcrypt"),
        ("x".repeat(1_000_000), "no hash"),
    ] {
        let house = House::with(|config, directory| {
            fs::write(directory.join("passwords"), BOB).expect("passwords");
            config.auth.password_file = Some(directory.join("passwords"));
            config.listeners[0].allow_anonymous = false;
        });
        // With the line among good ones nobody of the new file gets in, and those of the old one do.
        house.write("passwords", &format!("ok:{}\nmallory:{text}\nok2:{}\n", ours[0], ours[1]));
        let failures = house.broker.reload(&house.config);
        let [failure] = &failures[..] else { panic!("{word}: {failures:?}") };
        assert!(failure.contains("passwords:2: ") && failure.contains(word), "{failure}");
        assert!(!failure.contains(&hash[..20]), "a hash in the log: {failure}");
        assert_eq!(house.refusal(&Connect::new("m").user_name("mallory").password("x")), 4);
        house.open(&Connect::new("b").user_name("bob").password("builder")).disconnect();
        // And a broker that would begin so does not begin.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let error = runtime.block_on(ternmq::Broker::start(house.config.clone())).err().expect("an error");
        assert!(error.to_string().contains("passwords:2: "), "{error}");
    }
}
