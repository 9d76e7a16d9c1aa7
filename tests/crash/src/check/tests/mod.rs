//! Hand-written histories: for every invariant one that keeps it and one that breaks it.
//!
//! A line is `client#connection -> packet`, `<-` for one received; `cut`, `end`, `quiet`, and for the broker `KILL`,
//! `START`. `WAIT` is a long time. Blank lines and `//` are skipped.

mod deliveries;
mod groups;
mod sessions;
mod state;

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use super::{Before, judge};
use crate::history::{Event, IDLE, What};
use crate::mqtt::{Connect, Packet, Publish, Will};

/// A subscriber `s` on connection 1 with `t/#` at QoS 2, and a publisher `p` on connection 2.
const BOTH: &str = "
    s#1 -> CONNECT
    s#1 <- CONNACK new
    s#1 -> SUBSCRIBE 1 t/# q2
    s#1 <- SUBACK 1 2
    p#2 -> CONNECT
    p#2 <- CONNACK new
";

fn history(text: &str) -> Vec<Event> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let mut events = Vec::new();
    let mut at = Duration::ZERO;
    for line in lines {
        if line == "WAIT" {
            at += IDLE;
            continue;
        }
        let what = what(line).unwrap_or_else(|| panic!("cannot read {line:?}"));
        events.push(Event { at, cycle: 1, what });
        at += Duration::from_millis(1);
    }
    events
}

fn what(line: &str) -> Option<What> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[0] {
        "KILL" => return Some(What::Killed),
        "START" => return Some(What::Started),
        "DIED" => return Some(What::Died(line.to_owned())),
        _ => {}
    }
    let (client, conn) = words[0].split_once('#')?;
    let (client, conn): (Rc<str>, u32) = (client.into(), conn.parse().ok()?);
    Some(match words[1] {
        "cut" => What::Cut(client, conn),
        "end" => What::Closed(client, conn),
        "quiet" => What::Quiet(client, conn),
        "idle" => What::Idle(client, conn),
        "garbage" => What::Garbage(client, conn, line.to_owned()),
        "->" => {
            let packet = packet(&client, &words[2..])?;
            What::Sent(client, conn, packet)
        }
        "<-" => {
            let packet = packet(&client, &words[2..])?;
            What::Received(client, conn, packet)
        }
        _ => return None,
    })
}

fn packet(client: &Rc<str>, words: &[&str]) -> Option<Packet> {
    let number = |at: usize| words.get(at)?.parse::<u16>().ok();
    let qos = |at: usize| words.get(at)?.strip_prefix('q')?.parse::<u8>().ok();
    let has = |word: &str| words.contains(&word);
    Some(match words[0] {
        "CONNECT" => {
            let will = words.iter().position(|word| *word == "will").and_then(|at| {
                let (topic, payload) = (Rc::from(words[at + 1]), Rc::from(words[at + 2]));
                Some(Will { topic, payload, qos: qos(at + 3)?, retain: has("RETAIN") })
            });
            let expiry =
                words.iter().position(|word| *word == "expiry").and_then(|at| words[at + 1].parse().ok());
            Packet::Connect(Connect { client_id: Rc::clone(client), clean: has("clean"), will, expiry })
        }
        "CONNACK" => Packet::ConnAck { present: has("present"), code: 0 },
        "PUBLISH" => Packet::Publish(Publish {
            id: number(1)?,
            qos: qos(2)?,
            topic: words[3].into(),
            payload: words.get(4).filter(|word| **word != "-").map_or("".into(), |word| (*word).into()),
            dup: has("DUP"),
            retain: has("RETAIN"),
        }),
        "PUBACK" => Packet::PubAck(number(1)?),
        "PUBREC" => Packet::PubRec(number(1)?),
        "PUBREL" => Packet::PubRel(number(1)?),
        "PUBCOMP" => Packet::PubComp(number(1)?),
        "SUBSCRIBE" => Packet::Subscribe { id: number(1)?, filter: words[2].into(), qos: qos(3)? },
        "SUBACK" => Packet::SubAck { id: number(1)?, code: number(2)? as u8 },
        "UNSUBSCRIBE" => Packet::Unsubscribe { id: number(1)?, filter: words[2].into() },
        "UNSUBACK" => Packet::UnsubAck(number(1)?),
        "PINGREQ" => Packet::PingReq,
        "PINGRESP" => Packet::PingResp,
        "DISCONNECT" if has("0") => Packet::DisconnectForGood,
        "DISCONNECT" => Packet::Disconnect,
        _ => return None,
    })
}

/// The invariants that the parts of a history, joined, break.
#[track_caller]
fn broken(parts: &[&str]) -> BTreeSet<&'static str> {
    let (violations, _) = judge(&history(&parts.concat()), &Before::default());
    violations.into_iter().map(|violation| violation.invariant).collect()
}

#[track_caller]
fn keeps(parts: &[&str]) {
    let (violations, _) = judge(&history(&parts.concat()), &Before::default());
    assert!(violations.is_empty(), "{violations:#?}");
}

#[track_caller]
fn breaks(parts: &[&str], invariants: &[&'static str]) {
    assert_eq!(broken(parts), invariants.iter().copied().collect());
}

#[test]
fn the_next_round_knows_what_the_last_one_left() {
    let first = [
        BOTH,
        "p#2 -> PUBLISH 1 q1 t/a x
         s#1 <- PUBLISH 1 q1 t/a x
         s#1 -> PUBACK 1
         p#2 <- PUBACK 1
         p#2 -> PUBLISH 1 q1 r/a y RETAIN
         p#2 <- PUBACK 1
         s#1 -> DISCONNECT
         s#1 end
         p#2 -> DISCONNECT
         p#2 end",
    ];
    let (violations, before) = judge(&history(&first.concat()), &Before::default());
    assert!(violations.is_empty(), "{violations:#?}");
    let invariants = |text: &str| {
        let (violations, _) = judge(&history(text), &before);
        violations.into_iter().map(|violation| violation.invariant).collect::<Vec<_>>()
    };
    let resumed = "s#3 -> CONNECT\ns#3 <- CONNACK present\n";
    let repeated = "s#3 <- PUBLISH 1 q1 t/a x DUP\ns#3 -> PUBACK 1\n";
    // The session, what may come again of it and what may not.
    assert!(invariants(resumed).is_empty());
    assert_eq!(invariants("s#3 -> CONNECT\ns#3 <- CONNACK new"), ["I10"]);
    assert_eq!(invariants(&["KILL\nSTART\n", resumed, repeated].concat()), [""; 0]);
    assert_eq!(invariants(&[resumed, repeated].concat()), ["I5"]);
    let new = "p#4 -> CONNECT\np#4 <- CONNACK present\np#4 -> PUBLISH 1 q1 t/a z\np#4 <- PUBACK 1\n";
    assert_eq!(invariants(&[new, resumed].concat()), ["I1"]);
    // The retained messages.
    let probe = "r#5 -> CONNECT clean\nr#5 <- CONNACK new\nr#5 -> SUBSCRIBE 1 r/# q1\nr#5 <- SUBACK 1 1\n";
    assert!(
        invariants(&[probe, "r#5 <- PUBLISH 1 q1 r/a y RETAIN\nr#5 -> PUBACK 1\nr#5 quiet"].concat())
            .is_empty()
    );
    assert_eq!(invariants(&[probe, "r#5 quiet"].concat()), ["I12"]);
}

#[test]
fn a_violation_is_told_with_its_events() {
    let events = history(&[BOTH, "p#2 -> PUBLISH 1 q1 t/a lost\np#2 <- PUBACK 1"].concat());
    let (violations, _) = judge(&events, &Before::default());
    let text = super::explain(&violations[0], &events);
    assert!(text.starts_with("I1 at s, topic t/a: \"lost\" of p"), "{text}");
    assert!(text.contains("* [6] cycle 1 0.006000 p#2 -> PUBLISH id=1 q1 t/a \"lost\""), "{text}");
    assert!(text.contains("  [0] cycle 1 0.000000 s#1 -> CONNECT"), "{text}");
    assert_eq!(super::counts(&violations), "I1: 1");
}
