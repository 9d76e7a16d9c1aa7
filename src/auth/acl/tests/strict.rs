//! The strict judgement of SUBSCRIBE, by examples. (That nothing unreadable is granted: `random`.)

use super::super::Who;
use super::{acl, words};

#[track_caller]
fn judge(rules: &str, cases: &[(&str, &str)]) {
    let acl = acl(rules);
    for (filter, expected) in cases {
        let who = Who { user: Some("bob"), client_id: "k" };
        assert_eq!(words(&acl, acl.may_subscribe(who, filter)), *expected, "{filter} under\n{rules}");
    }
}

#[test]
fn a_filter_is_granted_if_one_rule_covers_it() {
    judge(
        "user bob\ntopic read a/#\ntopic read b/+/c\ntopic write w/#\ntopic readwrite +/d\ntopic read $x/#",
        &[
            ("a", "yes 2"),
            ("a/#", "yes 2"),
            ("a/+", "yes 2"),
            ("a/+/c/#", "yes 2"),
            ("b/+/c", "yes 3"),
            ("b/x/c", "yes 3"),
            ("b/+/+", "no -"),
            ("b/#", "no -"),
            ("b/+/c/#", "no -"),
            ("w/#", "no -"),
            ("+/d", "yes 5"),
            ("q/d", "yes 5"),
            ("$q/d", "no -"),
            ("+/+", "no -"),
            ("#", "no -"),
            ("+", "no -"),
            ("$x", "yes 6"),
            ("$x/#", "yes 6"),
            ("$x/+/y", "yes 6"),
            ("$+", "no -"),
            ("", "no -"),
            ("a#", "no -"),
        ],
    );
}

#[test]
fn everything_covers_everything_but_what_begins_with_a_dollar() {
    let cases =
        [("#", "yes 2"), ("+", "yes 2"), ("+/#", "yes 2"), ("a", "yes 2"), ("$x/#", "no -"), ("$x", "no -")];
    judge("user bob\ntopic read #", &cases);
    judge("user bob\ntopic read +/#", &cases);
    judge(
        "user bob\ntopic read +/+/#",
        &[("#", "no -"), ("+/#", "no -"), ("+/+/#", "yes 2"), ("+/+", "yes 2")],
    );
}

#[test]
fn a_deny_that_matches_part_of_it_refuses_it() {
    judge(
        "user bob\ntopic read #\ntopic deny a/+/s\ntopic deny $x/#",
        &[
            ("#", "no 3"),
            ("a/#", "no 3"),
            ("a/b/+", "no 3"),
            ("+/b/s", "no 3"),
            ("a/b/s", "no 3"),
            ("a/b", "yes 2"),
            ("a/+", "yes 2"),
            ("a/+/t", "yes 2"),
            ("b/#", "yes 2"),
            ("a/+/s/t", "yes 2"),
            ("$x/a", "no 4"),
        ],
    );
}

#[test]
fn the_empty_topic_is_nothing_that_a_deny_could_take() {
    let cases = [("+", "yes 2"), ("+/+", "no 3"), ("+/#", "no 3"), ("/#", "no 3"), ("a/#", "yes 2")];
    judge("user bob\ntopic read #\ntopic deny /#", &cases);
    judge("user bob\ntopic read #\ntopic deny +", &[("/#", "yes 2"), ("a/#", "no 3"), ("/a", "yes 2")]);
}

#[test]
fn a_deny_below_a_dollar_takes_nothing_from_wildcards_in_front() {
    judge(
        "user bob\ntopic read #\ntopic deny $x/#",
        &[("#", "yes 2"), ("+/a", "yes 2"), ("+", "yes 2"), ("$x/#", "no 3"), ("$x", "no 3")],
    );
    // And the other way round: a deny with a wildcard in front takes nothing from what begins with a dollar.
    judge("user bob\ntopic read $x/#\ntopic deny #", &[("$x/#", "yes 2"), ("a", "no 3")]);
}

#[test]
fn a_deny_for_everyone_stands_behind_the_rules_of_the_user() {
    judge(
        "user bob\ntopic read a/#\npattern deny +/s\npattern read #",
        &[
            ("a/#", "yes 2"),
            ("a/s", "yes 2"),
            ("b/#", "no 3"),
            ("#", "no 3"),
            ("b/t", "yes 4"),
            ("b/+/t", "yes 4"),
        ],
    );
}

#[test]
fn names_are_put_into_patterns() {
    judge(
        "pattern read d/%u/#\npattern read +/%c",
        &[
            ("d/bob/#", "yes 1"),
            ("d/bob", "yes 1"),
            ("d/al/#", "no -"),
            ("d/+/#", "no -"),
            ("+/k", "yes 2"),
            ("+/+", "no -"),
        ],
    );
    let acl = acl("pattern read d/%c/#\npattern read e/#");
    let ask = |client_id, filter| words(&acl, acl.may_subscribe(Who { user: None, client_id }, filter));
    assert_eq!(ask("a/b", "d/a/b/#"), "no -");
    assert_eq!(ask("a/b", "e/#"), "yes 2");
    assert_eq!(ask("+", "e/#"), "no name");
    assert_eq!(ask("#", "d/k/#"), "no name");
}

#[test]
fn of_a_shared_subscription_the_filter_inside_counts() {
    judge(
        "user bob\ntopic read a/#\ntopic read $share/#",
        &[
            ("$share/g/a/#", "yes 2"),
            ("$share/g/b/#", "no -"),
            ("$share/a/b", "no -"),
            ("$share/g/$share/x", "yes 3"),
            ("$share/g", "no -"),
            ("$share/", "no -"),
            ("$share/+/a", "no -"),
        ],
    );
}
