//! Client ids and user names chosen so that a pattern (`%c`, `%u`) grants another's topics.

use std::collections::BTreeSet;

use crate::house::{House, topics};
use crate::support::{Connect, RawClient, ServerPacket};
use crate::token::{login, of};

/// Everybody has a place of his own by client id and by user name; victim has things there.
const RULES: &str = "\
user alice
topic readwrite #
user %u
topic read own/#
pattern readwrite clients/%c/#
pattern readwrite users/%u/#
pattern read pairs/%u/%c
pattern readwrite %c/bare
";

/// Topics that are victim's, and one that nobody should get by any name.
const TOPICS: [&str; 9] = [
    "clients/victim/x",
    "clients/victim/a/b",
    "clients/victim",
    "users/victim/x",
    "users/victim/a/b",
    "users/victim",
    "pairs/victim/victim",
    "victim/bare",
    "clients/x/y",
];

/// What a client of this id and user is sent of all that, and what of all that it can publish.
fn reach(house: &House, id: &str, user: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut alice = house.open(&login("alice", "alice"));
    let mut client = house.open(&login(id, user));
    client.subscribe("#", 0);
    for topic in TOPICS {
        alice.publish_retained(topic, 1, "m");
    }
    let read = topics(&mut client).into_iter().collect();
    client.unsubscribe("#");
    let mut other = house.open(&login("other", "alice"));
    other.subscribe("#", 0);
    topics(&mut other);
    for topic in TOPICS {
        client.publish(topic, 1, "m");
    }
    let written = topics(&mut other).into_iter().collect();
    (read, written)
}

#[test]
fn names_that_look_like_wildcards_levels_and_patterns() {
    let house = House::with_rules(RULES, |_, _| {});
    let nothing = BTreeSet::new();
    for name in [
        "+",
        "#",
        "+/+",
        "+/#",
        "/",
        "//",
        "",
        "%c",
        "%u",
        "%c/#",
        "victim/",
        "victim/a",
        "victim/#",
        "/victim",
        "x/y",
        "../victim",
        "Victim",
        "victim ",
        " victim",
        "victim\u{200b}",
        "vict\u{456}m",
        "$SYS",
        "$share/g/victim",
        "clients/victim",
        "users",
        "\u{202e}mitciv",
    ] {
        // As an id with a user of no consequence, as a user, and as both.
        let mut pairs = vec![(name, "nobody")];
        // No token names nobody.
        if !name.is_empty() {
            pairs.extend([("somewhere", name), (name, name)]);
        }
        for (id, user) in pairs {
            assert_eq!(reach(&house, id, user), (nothing.clone(), nothing.clone()), "{id:?} as {user:?}");
        }
    }
    // By the name itself it is possible: what is above was no mistake of the rules. A client id is its bearer's choice, so a rule with `%c`
    // alone protects nothing; that is for `%u`.
    let of = |topics: &[&str]| topics.iter().map(|topic| (*topic).to_owned()).collect::<BTreeSet<_>>();
    let by_id = of(&["clients/victim", "clients/victim/a/b", "clients/victim/x", "victim/bare"]);
    assert_eq!(reach(&house, "victim", "nobody"), (by_id.clone(), by_id));
    let by_user = of(&["users/victim", "users/victim/a/b", "users/victim/x"]);
    assert_eq!(reach(&house, "somewhere", "victim"), (by_user.clone(), by_user));
}

#[test]
fn a_user_who_is_called_like_a_pattern() {
    let house = House::with_rules(RULES, |_, _| {});
    let mut alice = house.open(&login("alice", "alice"));
    let mut client = house.open(&login("victim", "%u"));
    client.subscribe("#", 0);
    // The rules of the user `%u` are those of that user; in a pattern the name is put in once, and not looked at again.
    for topic in
        ["own/x", "users/%u/x", "users/victim/x", "users/%c/x", "pairs/%u/victim", "pairs/victim/victim"]
    {
        alice.publish(topic, 1, "m");
    }
    assert_eq!(topics(&mut client), ["own/x", "users/%u/x", "pairs/%u/victim"]);
    let mut bob = house.open(&login("bob", "bob"));
    bob.subscribe("own/#", 0);
    alice.publish("own/x", 1, "m");
    bob.expect_nothing();
}

#[test]
fn names_that_no_client_may_have() {
    let house = House::with_rules(RULES, |_, _| {});
    let ill_formed = [&b"vict\0im"[..], b"\xC0\xAF", b"\xFF", b"victim\xED\xA0\x80", b"\xF8\x88\x80\x80\x80"];
    for name in ill_formed {
        for connect in [
            Connect::new(name).user_name("alice").password(of("alice")),
            Connect::new("id").user_name(name).password(of("alice")),
        ] {
            let mut client = RawClient::connect(house.addr());
            client.send(&connect.bytes());
            client.expect_closed();
        }
    }
    // A user that differs from the token's in what nobody sees is another.
    for user in ["alice\u{200b}", "\u{feff}alice", "alice\u{ffff}", "alice\n", "\u{202e}ecila", "al\u{ed}ce"]
    {
        assert_eq!(house.refusal(&Connect::new("id").user_name(user).password(of("alice"))), 4, "{user:?}");
    }
}

#[test]
fn a_will_in_the_place_of_another() {
    let house = House::with_rules(RULES, |_, _| {});
    let mut alice = house.open(&login("alice", "alice"));
    alice.subscribe("#", 1);
    // Whose will is judged when it is sent: by the names of the session it was left with, in that moment as well.
    for (id, user, allowed) in [
        ("mallory", "mallory", false),
        ("victim/x", "mallory", false),
        ("+", "victim", false),
        ("elsewhere", "victim", true),
    ] {
        let mut client = RawClient::connect(house.addr());
        client.send(&login(id, user).will("users/victim/state", "gone", 1, false).bytes());
        assert_eq!(client.expect_packet(), ServerPacket::ConnAck(false, 0));
        client.vanish();
        house.eventually("its end", |metrics| metrics.clients_connected == 1);
        let expected: &[&str] = if allowed { &["users/victim/state"] } else { &[] };
        assert_eq!(topics(&mut alice), expected, "{id} as {user}");
    }
}
