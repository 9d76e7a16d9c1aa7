//! Guessing passwords, and keeping others out by doing so.
//!
//! That an unknown user costs the same hash as a wrong password is counted in `src/auth/password/tests.rs`
//! (`a_check_computes_one_hash_whoever_asks`); here it is what can be seen from outside.
//!
//! As built: a *user at an address* and an *address* are banned, for `auth.ban_time`. A user is never banned everywhere: above
//! `auth.user_failures_max` failures anywhere, attempts at addresses where the user has not logged in before wait for 4 s.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use ternmq::config::Config;

use crate::house::{House, expect_refusal};
use crate::program::Program;
use crate::support::{Connect, Connect5, DEADLINE, RawClient, RawClient5, ServerPacket};

/// alice: wonder, bob: builder.
const PASSWORDS: &str = "\
alice:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==
bob:$7$101$MDEyMzQ1Njc4OWFi$05MiFcfkZx1BSeHFobQxcPs5r2GPtqXYqFnS01wIvll4QsNqJSrMjq4yqTO2dSf7XDNnollOfkz1oXQPPGTN0w==
";

const UNAVAILABLE: u8 = 3;
const BAD_CREDENTIALS: u8 = 4;
const NOT_AUTHORIZED: u8 = 5;

fn house(change: impl FnOnce(&mut Config)) -> House {
    House::with(|config, directory| {
        fs::write(directory.join("passwords"), PASSWORDS).expect("passwords");
        config.auth.password_file = Some(directory.join("passwords"));
        config.listeners[0].allow_anonymous = false;
        // Answers are not late, and the first failure above a maximum brings the ban, unless a test says otherwise.
        config.auth.delay_max = Duration::ZERO;
        change(config);
    })
}

fn login(user: &str, password: &str) -> Connect {
    // An id for each: a session belongs to its user, and the one before may not be noticed to have gone yet.
    Connect::new(format!("of {user}")).user_name(user).password(password)
}

fn alice() -> Connect {
    login("alice", "wonder")
}

fn bob() -> Connect {
    login("bob", "builder")
}

fn guess(user: &str) -> Connect {
    login(user, "guess")
}

fn address(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// The code that comes back to an address of this machine.
#[track_caller]
fn code_at(house: &House, n: u8, connect: &Connect) -> u8 {
    let mut client = RawClient::connect_from(address(n), house.addr());
    client.send(&connect.bytes());
    match client.expect_packet() {
        ServerPacket::ConnAck(false, 0) => 0,
        ServerPacket::ConnAck(false, code) => {
            client.expect_closed();
            code
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn asking_which_users_there_are() {
    let house = house(|_| {});
    let mut answers = Vec::new();
    for user in ["alice", "nobody", "", "Alice", "alice ", "alic\u{435}"] {
        let mut client = RawClient::connect(house.addr());
        client.send(&guess(user).bytes());
        answers.push((client.packets_until_closed(), user));
        // MQTT 5 says more, and the same to all.
        let connect = Connect5::new("client").user_name(user).password("guess");
        let properties = RawClient5::refused(house.addr(), &connect.bytes(), 0x86);
        assert_eq!(properties.text(0x1F), Some("user name or password are not accepted"), "{user:?}");
    }
    for (answer, user) in &answers {
        assert_eq!(answer, &[ServerPacket::ConnAck(false, BAD_CREDENTIALS)], "{user:?}");
    }
    // A password without a user, and a user without a password, are no better.
    RawClient5::refused(house.addr(), &Connect5::new("client").password("wonder").bytes(), 0x86);
    assert_eq!(house.refusal(&Connect::new("client").user_name("alice")), BAD_CREDENTIALS);
}

#[test]
fn going_on_guessing() {
    let house = house(|config| {
        config.auth.failures_max = 3;
        config.auth.ban_time = Duration::from_secs(2);
    });
    let codes: Vec<u8> = (0..10).map(|_| code_at(&house, 1, &guess("alice"))).collect();
    // The fourth failure is one too many.
    assert_eq!(codes, [&[BAD_CREDENTIALS; 4][..], &[NOT_AUTHORIZED; 6]].concat());
    let connect = Connect5::new("client").user_name("alice").password("wonder");
    RawClient5::refused(house.addr(), &connect.bytes(), 0x8A);
    // Others at the address come in, and so does the user from elsewhere: an attacker shuts nobody out but where he is.
    assert_eq!((code_at(&house, 1, &bob()), code_at(&house, 2, &alice())), (0, 0));
    assert_eq!(house.refused("refused_banned"), 7);
    // It ends, though the attempts went on.
    let deadline = Instant::now() + DEADLINE;
    while code_at(&house, 1, &alice()) != 0 {
        assert!(Instant::now() < deadline, "banned for ever");
    }
}

#[test]
fn guessing_faster_than_answers_come() {
    let house = house(|config| {
        config.auth.failures_max = 1;
        config.auth.delay_max = Duration::from_secs(1);
    });
    let guesses = |count| -> Vec<(u8, Duration)> {
        let guess = || {
            let started = Instant::now();
            (code_at(&house, 1, &guess("alice")), started.elapsed())
        };
        (0..count).map(|_| guess()).collect()
    };
    // One is free, the second is answered late, the third brings the ban; to wait for answers in a row is all that helps nobody.
    let codes = guesses(4);
    assert_eq!(codes.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [4, 4, 4, 5]);
    assert!(codes[1].1 >= Duration::from_secs(1) && codes[2].1 >= Duration::from_secs(1), "{codes:?}");
}

#[test]
fn guessing_at_the_same_time_through_many_connections() {
    let house = house(|config| config.auth.failures_max = 3);
    // A hash that takes longer than to note a failure, as every hash that is in use.
    house.write("passwords", &format!("victim:$7$30000$MDEyMzQ1Njc4OWFi${}==\n", "A".repeat(86)));
    house.reload();
    let mut clients: Vec<RawClient> = (0..400).map(|_| RawClient::connect(house.addr())).collect();
    clients.iter_mut().for_each(|client| client.send(&guess("victim").bytes()));
    let mut codes = [0_usize; 6];
    clients.iter_mut().for_each(|client| codes[usize::from(expect_refusal(client))] += 1);
    // Four are under way together at most. The fourth failure brings the ban; three more may have begun before. All others wait until then, and
    // are refused unseen.
    assert!((4..=7).contains(&codes[4]), "{codes:?}");
    assert_eq!(codes[4] + codes[5], 400, "{codes:?}");
    assert_eq!(house.refusal(&guess("victim")), NOT_AUTHORIZED);
}

#[test]
fn guessing_for_many_users_at_the_same_time() {
    let house = house(|config| config.auth.address_failures_max = 20);
    let hash = format!("$7$30000$MDEyMzQ1Njc4OWFi${}==", "A".repeat(86));
    let users: String = (0..300).map(|n| format!("user-{n}:{hash}\n")).collect();
    house.write("passwords", &users);
    house.reload();
    let mut clients: Vec<RawClient> = (0..300).map(|_| RawClient::connect(house.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send(&guess(&format!("user-{n}")).bytes());
    }
    let mut codes = [0_usize; 6];
    clients.iter_mut().for_each(|client| codes[usize::from(expect_refusal(client))] += 1);
    assert!((21..=24).contains(&codes[4]), "{codes:?}");
    assert_eq!(codes[4] + codes[5], 300, "{codes:?}");
}

#[test]
fn a_site_behind_one_address_that_comes_back_at_once_is_let_in() {
    let house = house(|_| {});
    let mut clients: Vec<RawClient> = (0..500).map(|_| RawClient::connect(house.addr())).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        // One device of them has a wrong password, and does not give up.
        let (user, password) = if n % 25 == 0 { ("alice", "guess") } else { ("bob", "builder") };
        let connect = Connect::new(format!("device-{n}")).user_name(user).password(password);
        client.send(&connect.bytes());
    }
    for (n, client) in clients.iter_mut().enumerate() {
        if n % 25 == 0 {
            assert!([BAD_CREDENTIALS, NOT_AUTHORIZED].contains(&expect_refusal(client)));
        } else {
            assert_eq!(client.expect_packet(), ServerPacket::ConnAck(false, 0), "{n}");
        }
    }
}

#[test]
fn guessing_for_many_users_at_one_address() {
    let house = house(|config| config.auth.address_failures_max = 5);
    let codes: Vec<u8> = (0..8).map(|n| code_at(&house, 1, &guess(&format!("user-{n}")))).collect();
    assert_eq!(codes, [4, 4, 4, 4, 4, 4, 5, 5]);
    // The address is out as a whole, whoever it is now, and no other address is.
    assert_eq!(code_at(&house, 1, &bob()), NOT_AUTHORIZED);
    assert_eq!((code_at(&house, 2, &bob()), code_at(&house, 3, &alice())), (0, 0));
}

#[test]
fn a_success_of_ones_own_between_guesses_for_others() {
    let house = house(|config| config.auth.address_failures_max = 5);
    for n in 0..6 {
        assert_eq!(code_at(&house, 1, &bob()), 0);
        assert_eq!(code_at(&house, 1, &guess(&format!("user-{n}"))), BAD_CREDENTIALS);
    }
    assert_eq!(code_at(&house, 1, &bob()), NOT_AUTHORIZED);
}

#[test]
fn locking_a_user_out_by_failing_in_his_name() {
    // Attempts that have to wait for 4 s are refused by `connect_timeout` in the first broker, so that no clock has to tell them apart.
    for (patience, at_new_address) in [(Duration::from_secs(2), UNAVAILABLE), (DEADLINE, 0)] {
        let house = house(|config| {
            config.auth.user_failures_max = 10;
            config.limits.connect_timeout = patience;
        });
        // This is where alice is at home.
        assert_eq!(code_at(&house, 1, &alice()), 0);
        for n in 0..11 {
            assert_eq!(code_at(&house, 10 + n, &guess("alice")), BAD_CREDENTIALS);
        }
        assert_eq!(code_at(&house, 1, &alice()), 0, "at home, at once");
        assert_eq!(code_at(&house, 30, &alice()), at_new_address);
        assert_eq!(code_at(&house, 31, &bob()), 0, "others are not touched");
    }
}

#[test]
fn a_ban_by_others_does_not_end_a_connection() {
    let house = house(|config| {
        config.auth.failures_max = 1;
        config.auth.address_failures_max = 2;
    });
    let mut client = house.open(&alice());
    for user in ["alice", "alice", "bob", "bob", "bob"] {
        code_at(&house, 1, &guess(user));
    }
    assert_eq!(code_at(&house, 1, &alice()), NOT_AUTHORIZED);
    client.expect_nothing();
}

#[test]
fn a_ban_is_one_line_that_a_tool_can_look_for() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("passwords"), PASSWORDS).expect("passwords");
    let program = Program::start(
        directory.path(),
        "[storage]\nkind = \"memory\"\n[auth]\npassword_file = \"passwords\"\nfailures_max = 1\naddress_failures_max = 3\n\
         delay_max = \"0s\"\n[[listeners]]\nbind = \"127.0.0.1:0\"\n",
    );
    for user in ["alice", "alice", "alice", "bob", "bob", "bob"] {
        crate::house::refusal(program.addr(), &guess(user));
    }
    let log = program.end();
    let lines = |words: &str| -> Vec<&String> { log.iter().filter(|line| line.contains(words)).collect() };
    // Two of alice, then she is banned; two of bob, with the second of which the address is.
    assert_eq!(lines("login failed ").len(), 4, "{log:#?}");
    assert_eq!(lines("login refused: banned ").len(), 2, "{log:#?}");
    let bans = lines("login banned: ");
    assert_eq!(bans.len(), 2, "{log:#?}");
    assert!(bans[0].contains("user_name=alice banned=user_at_address"), "{log:#?}");
    assert!(bans[1].contains("user_name=bob banned=address"), "{log:#?}");
    for line in lines("login ") {
        assert!(line.contains("peer=127.0.0.1:"), "{line}");
        assert!(!line.contains("guess"), "a password in the log: {line}");
    }
}
