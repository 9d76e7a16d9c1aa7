//! What rules mean: a table that mosquitto is asked as well, random lists against a plain reading of the rules, filters against all topics
//! they match.

mod parsing;
mod random;
mod strict;

use super::{Access, Acl, Decision, Reason, Who};

/// A list from the text of a file.
#[track_caller]
fn acl(text: &str) -> Acl {
    Acl::parse(text.as_bytes(), "f").unwrap_or_else(|faults| panic!("{text}: {faults}"))
}

/// The answer in the words of the table.
fn words(acl: &Acl, decision: Decision) -> String {
    let why = match decision.reason {
        Reason::Rule(id) => {
            acl.rule(id).expect("a rule of this list").place.trim_start_matches("f:").to_owned()
        }
        Reason::NoRule => "-".to_owned(),
        Reason::UnsafeName => "name".to_owned(),
    };
    format!("{} {why}", if decision.allowed { "yes" } else { "no" })
}

#[test]
fn the_table_holds() {
    let mut rules: Option<String> = None;
    let mut list = Acl::default();
    let (mut questions, mut wrong) = (0, Vec::new());
    for line in include_str!("table.txt").lines() {
        match (line, &mut rules) {
            ("rules", _) => rules = Some(String::new()),
            ("asked", Some(text)) => {
                list = acl(text);
                rules = None;
            }
            (line, Some(text)) => *text = format!("{text}{line}\n"),
            (line, None) if line.is_empty() || line.starts_with("# ") || line == "#" => {}
            (line, None) => {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                let [user, client_id, topic, read, write] = cells[..] else { panic!("{line}") };
                let user = match user {
                    "-" => None,
                    "''" => Some(""),
                    user => Some(user),
                };
                for (access, expected) in [(Access::Read, read), (Access::Write, write)] {
                    questions += 1;
                    let found = words(&list, list.decide(Who { user, client_id }, access, topic));
                    if found != expected.to_lowercase() {
                        wrong.push(format!("{access:?} {line}: {found}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(questions >= 250, "{questions}");
}
