//! Files and tables: what is a fault, where it is said to be, and that nothing panics.

use proptest::prelude::*;

use super::super::{Access, Acl, Who};
use super::acl;
use crate::config::{AclAccess, AclTable, AclTopics, AclWho};

const ANYONE: Who<'_> = Who { user: None, client_id: "k" };

/// The faults of a file, one line each.
fn faults(content: &[u8]) -> Vec<String> {
    let faults = Acl::parse(content, "f").err().map(|faults| faults.0).unwrap_or_default();
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn what_mosquitto_refuses_is_a_fault() {
    for (content, word) in [
        ("topic", "expected a topic"),
        ("topic ", "expected a topic"),
        ("pattern \t ", "expected a topic"),
        ("topic foo bar", "not \"foo\""),
        ("topic READ a", "not \"READ\""),
        ("topic  deny,  a", "not \"deny,\""),
        ("\ttopic read a", "not \"\\ttopic\""),
        (" # x", "first column"),
        ("user", "user name"),
        ("user   ", "user name"),
        ("user\ta", "not \"user\\ta\""),
        ("topic\tread\ta", "not \"topic\\tread\\ta\""),
        ("topix read a", "not \"topix\""),
        ("Topic read a", "not \"Topic\""),
        ("\u{feff}topic read a", "not \"\\u{feff}topic\""),
        ("topic read a#", "filter"),
        ("topic read a/#/b", "filter"),
        ("topic a+", "filter"),
        ("topic read a # comment", "filter"),
        ("pattern read x+%c", "filter"),
        // What it accepts, and what nobody could match or what is not what it seems.
        ("topic read\ta", "control"),
        ("topic a\u{b}b", "control"),
        ("topic read a\0b", "U+0000"),
        ("user a\0b", "control"),
        ("pattern read x-%c/y", "whole levels"),
        ("pattern read %u%c", "whole levels"),
        ("pattern read %%c", "whole levels"),
    ] {
        let found = faults(content.as_bytes());
        assert_eq!(found.len(), 1, "{content:?}: {found:?}");
        assert!(found[0].starts_with("f:1: ") && found[0].contains(word), "{content:?}: {found:?}");
    }
    assert_eq!(faults(b"topic read \xff"), ["f:1: not UTF-8"]);
    let long = format!("topic {}", "a".repeat(65_536));
    assert!(faults(long.as_bytes())[0].len() < 600);
    assert!(Acl::parse(&long.as_bytes()[..long.len() - 1], "f").is_ok());
}

#[test]
fn all_faults_are_told_with_their_lines() {
    let found = faults(b"topic read a\r\nuser\r\n\r\n# \xff\r\ntopic x y\r\nnonsense\r\ntopic b\r\n");
    let places: Vec<&str> = found.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(places, ["f:2", "f:5", "f:6"]);
}

#[test]
fn faults_and_rules_stay_on_one_line() {
    let acl = Acl::parse(b"topic a\xc2\x9bb", "f\ng").unwrap_err();
    assert_eq!(acl.to_string().lines().count(), 1);
    assert!(acl.to_string().starts_with("f\\ng:1: "), "{acl}");
}

#[test]
fn blank_lines_and_line_ends_of_windows_do_not_count() {
    let acl = acl("\r\n \t\n# c\r\nuser a b \r\ntopic read x y\t\r\n\ntopic write z");
    let who = Who { user: Some("a b"), client_id: "k" };
    let decision = acl.decide(who, Access::Read, "x y");
    let rule = acl.rule(decision.rule().expect("a rule")).expect("of this list");
    assert_eq!(rule.to_string(), "f:5: topic read x y");
    assert!(acl.decide(who, Access::Write, "z").allowed);
    assert_eq!((acl.rules_count(), acl.users_count()), (2, 1));
}

fn table(who: AclWho, access: AclAccess, topics: AclTopics) -> AclTable {
    AclTable { who, access, topics }
}

fn list(topics: &[&str]) -> Vec<String> {
    topics.iter().map(|topic| (*topic).to_owned()).collect()
}

#[test]
fn tables_are_rules_like_those_of_the_file() {
    let tables = [
        table(AclWho::User("bob".to_owned()), AclAccess::Read, AclTopics::Topics(list(&["t/a", "t/b"]))),
        table(AclWho::Anonymous, AclAccess::Write, AclTopics::Topics(list(&["t/c"]))),
        table(AclWho::Everyone, AclAccess::ReadWrite, AclTopics::Topics(list(&["t/%u", "e"]))),
        table(AclWho::Everyone, AclAccess::ReadWrite, AclTopics::Patterns(list(&["p/%u", "q/%c"]))),
        table(AclWho::Everyone, AclAccess::Deny, AclTopics::Topics(list(&["q/k2"]))),
    ];
    let mut acl = acl("user bob\ntopic deny t/b");
    acl.extend(&tables).expect("good tables");
    let ask = |user: Option<&str>, client_id: &str, access, topic: &str| {
        let decision = acl.decide(Who { user, client_id }, access, topic);
        let place = decision.rule().and_then(|id| acl.rule(id)).map(|rule| rule.place);
        (decision.allowed, place.unwrap_or("-").to_owned())
    };
    for (user, client_id, access, topic, allowed, place) in [
        (Some("bob"), "k", Access::Read, "t/a", true, "acl[0]"),
        (Some("bob"), "k", Access::Write, "t/a", false, "-"),
        (Some("bob"), "k", Access::Read, "t/b", false, "f:2"),
        (None, "k", Access::Read, "t/a", false, "-"),
        (None, "k", Access::Write, "t/c", true, "acl[1]"),
        (Some("bob"), "k", Access::Write, "t/c", false, "-"),
        (Some("bob"), "k", Access::Write, "t/%u", true, "acl[2]"),
        (Some("bob"), "k", Access::Write, "t/bob", false, "-"),
        (Some("bob"), "k", Access::Write, "e", true, "acl[2]"),
        (None, "k", Access::Write, "e", true, "acl[2]"),
        (None, "k+", Access::Write, "e", false, "-"),
        (Some("bob"), "k", Access::Write, "p/bob", true, "acl[3]"),
        (Some("bob"), "k", Access::Write, "q/k", true, "acl[3]"),
        (Some("bob"), "k2", Access::Write, "q/k2", false, "acl[4]"),
    ] {
        assert_eq!(ask(user, client_id, access, topic), (allowed, place.to_owned()), "{user:?} {topic}");
    }
    let decision = acl.decide(ANYONE, Access::Read, "q/k");
    let rule = acl.rule(decision.rule().expect("a rule")).expect("of this list");
    assert_eq!(rule.to_string(), "acl[3]: pattern readwrite q/%c");
}

#[test]
fn every_bad_topic_of_a_table_is_a_fault() {
    let tables = [
        table(AclWho::Everyone, AclAccess::Read, AclTopics::Topics(list(&["a#", "", "good"]))),
        table(AclWho::Everyone, AclAccess::Read, AclTopics::Patterns(list(&["x%u"]))),
        table(AclWho::Everyone, AclAccess::Read, AclTopics::Topics(list(&["x%u"]))),
    ];
    let faults = Acl::default().extend(&tables).expect_err("three bad topics");
    let places: Vec<&str> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
    assert_eq!(places, ["acl[0]", "acl[0]", "acl[1]"]);
}

#[test]
fn a_rule_of_another_list_is_none() {
    let decision = acl("topic a\ntopic b").decide(ANYONE, Access::Read, "b");
    assert_eq!(acl("topic a").rule(decision.rule().expect("a rule")), None);
}

/// Words that make lines which are nearly right.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "user", "topic", "pattern", "read", "deny", " ", "\t", "\n", "\r\n", "#", "/", "+", "a/#", "%u",
            "%c/", "$x",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,3}",
    ]
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Acl::parse(&bytes, "f").map_err(|faults| faults.to_string());
    }

    #[test]
    fn no_words_and_no_questions_panic(words in prop::collection::vec(word(), 0..30), user in word(), client_id in word(), topic in word()) {
        if let Ok(acl) = Acl::parse(words.concat().as_bytes(), "f") {
            for user in [None, Some(user.as_str())] {
                let rules = acl.for_client(Who { user, client_id: &client_id });
                let _ = (rules.decide(Access::Read, &topic), rules.may_subscribe(&topic));
            }
        }
    }
}
