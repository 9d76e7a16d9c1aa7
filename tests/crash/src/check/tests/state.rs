//! I12 and I13.

use super::{breaks, keeps};

/// A writer `w`, `one` acknowledged in r/a.
const WRITTEN: &str = "
    w#1 -> CONNECT
    w#1 <- CONNACK new
    w#1 -> PUBLISH 1 q1 r/a one RETAIN
    w#1 <- PUBACK 1
";

/// A reader on this connection finds this.
fn read(conn: u32, found: &str) -> String {
    let start = format!(
        "r#{conn} -> CONNECT clean\nr#{conn} <- CONNACK new\n\
         r#{conn} -> SUBSCRIBE 1 +/a q1\nr#{conn} <- SUBACK 1 1\n"
    );
    let found = match found {
        "" => String::new(),
        _ => format!("r#{conn} <- PUBLISH 1 q1 r/a {found} RETAIN\nr#{conn} -> PUBACK 1\n"),
    };
    format!("{start}{found}r#{conn} quiet\nr#{conn} cut\n")
}

#[test]
fn i12_the_last_acknowledged_value_is_found() {
    let overwritten = "w#1 -> PUBLISH 1 q1 r/a two RETAIN\nw#1 <- PUBACK 1\n";
    keeps(&[WRITTEN, &read(2, "one"), overwritten, &read(3, "two")]);
    breaks(&[WRITTEN, &read(2, "")], &["I12"]);
    breaks(&[WRITTEN, overwritten, &read(2, "one")], &["I12"]);
    breaks(&[&read(2, "one"), WRITTEN], &["I12"]);
    keeps(&[&read(2, ""), WRITTEN]);
}

#[test]
fn i12_a_deletion_deletes() {
    let deleted = "w#1 -> PUBLISH 1 q1 r/a - RETAIN\nw#1 <- PUBACK 1\n";
    keeps(&[WRITTEN, deleted, &read(2, "")]);
    breaks(&[WRITTEN, deleted, &read(2, "one")], &["I12"]);
    breaks(&[WRITTEN, deleted, &read(2, "-")], &["I12"]);
}

#[test]
fn i12_what_is_not_acknowledged_may_be_there_or_not_but_not_come_and_go() {
    let pending = "w#1 -> PUBLISH 1 q1 r/a two RETAIN\n";
    let done = "w#1 <- PUBACK 1\n";
    keeps(&[WRITTEN, pending, &read(2, "one"), &read(3, "two"), done]);
    breaks(&[WRITTEN, pending, &read(2, "two"), &read(3, "one"), done], &["I12"]);
    // A crash may take it; the writer sends it again.
    let crash = "KILL\nw#1 end\nSTART\n";
    let again =
        "w#4 -> CONNECT\nw#4 <- CONNACK present\nw#4 -> PUBLISH 1 q1 r/a two RETAIN DUP\nw#4 <- PUBACK 1\n";
    keeps(&[WRITTEN, pending, &read(2, "two"), crash, &read(3, "one"), again, &read(5, "two")]);
    breaks(&[WRITTEN, pending, done, crash, &read(3, "one")], &["I12"]);
}

#[test]
fn i12_retain_says_that_it_is_old() {
    let live = |flag: &str| {
        format!(
            "r#2 -> CONNECT
             r#2 <- CONNACK new
             r#2 -> SUBSCRIBE 1 t/a q1
             r#2 <- SUBACK 1 1
             w#1 -> PUBLISH 1 q1 r/a two RETAIN
             w#1 <- PUBACK 1
             r#2 -> SUBSCRIBE 2 q/a q1
             r#2 <- SUBACK 2 1
             r#2 <- PUBLISH 1 q1 r/a two{flag}
             r#2 -> PUBACK 1"
        )
    };
    breaks(&[WRITTEN, &live(" RETAIN")], &["I12"]);
    keeps(&[
        WRITTEN,
        &live("")
            .replace("t/a", "r/a")
            .replace("SUBACK 1 1", "SUBACK 1 1\nr#2 <- PUBLISH 9 q1 r/a one RETAIN\nr#2 -> PUBACK 9"),
    ]);
}

/// A watcher `v` of w/#, and a client with a will.
const MORTAL: &str = "
    v#1 -> CONNECT
    v#1 <- CONNACK new
    v#1 -> SUBSCRIBE 1 w/# q2
    v#1 <- SUBACK 1 2
    m#2 -> CONNECT clean will w/m gone q1
    m#2 <- CONNACK new
";
const COMES: &str = "
    v#1 <- PUBLISH 1 q1 w/m gone
    v#1 -> PUBACK 1
";
/// Something durable is acknowledged after the CONNACK of the mortal.
const STORED: &str = "
    p#3 -> CONNECT
    p#3 <- CONNACK new
    p#3 -> PUBLISH 1 q1 r/x y RETAIN
    p#3 <- PUBACK 1
";
const CRASH: &str = "
    KILL
    v#1 end
    m#2 end
    START
    v#4 -> CONNECT
    v#4 <- CONNACK present
";
const COMES_LATER: &str = "
    v#4 <- PUBLISH 1 q1 w/m gone
    v#4 -> PUBACK 1
";

#[test]
fn i13_a_will_comes_once_or_not_at_all() {
    keeps(&[MORTAL, "m#2 cut\n", COMES]);
    breaks(&[MORTAL, "m#2 cut\n"], &["I13"]);
    breaks(&[MORTAL, "m#2 cut\n", COMES, "v#1 <- PUBLISH 2 q1 w/m gone\nv#1 -> PUBACK 2"], &["I13", "I5"]);
    keeps(&[MORTAL, "m#2 -> DISCONNECT\nm#2 end\n"]);
    breaks(&[MORTAL, "m#2 -> DISCONNECT\nm#2 end\n", COMES], &["I13"]);
    // The end was not seen: DISCONNECT may have been lost.
    keeps(&[MORTAL, "m#2 -> DISCONNECT\nm#2 cut\n", COMES]);
    keeps(&[MORTAL, "m#2 -> DISCONNECT\nm#2 cut\n"]);
    // It stands to the end.
    breaks(&[MORTAL, COMES], &["I13"]);
}

#[test]
fn i13_take_over_publishes_the_will_of_the_older_connection() {
    let taken = "m#5 -> CONNECT clean\nm#5 <- CONNACK new\nm#2 end\n";
    keeps(&[MORTAL, taken, COMES]);
    breaks(&[MORTAL, taken], &["I13"]);
}

#[test]
fn i13_the_death_of_the_broker_publishes_what_was_stored() {
    keeps(&[MORTAL, STORED, CRASH, COMES_LATER]);
    breaks(&[MORTAL, STORED, CRASH], &["I13"]);
    // It may not have been stored yet.
    keeps(&[MORTAL, CRASH]);
    let late = MORTAL.replace("m#2 <- CONNACK new", "KILL\nm#2 <- CONNACK new\nm#2 end\nv#1 end\nSTART");
    keeps(&[&late, STORED, "KILL\nSTART\n"]);
    keeps(&[MORTAL, CRASH, COMES_LATER]);
    // The same for one that was published just before.
    let cut = "m#2 cut\nm#5 -> CONNECT clean\nm#5 <- CONNACK new\n";
    let crash = CRASH.replace("m#2", "m#5");
    keeps(&[MORTAL, cut, &crash]);
    breaks(&[MORTAL, cut, STORED, &crash], &["I13"]);
    keeps(&[MORTAL, cut, STORED, &crash, COMES_LATER]);
    let closed = "m#2 -> DISCONNECT\nm#2 end\n";
    breaks(&[MORTAL, STORED, closed, CRASH, COMES_LATER], &["I13"]);
}

#[test]
fn i13_an_availability_topic_tells_the_truth() {
    let available = "
        m#2 -> CONNECT clean will r/a offline q1 RETAIN
        m#2 <- CONNACK new
        m#2 -> PUBLISH 1 q1 r/a online RETAIN
        m#2 <- PUBACK 1
    ";
    let crash = "KILL\nm#2 end\nSTART\n";
    keeps(&[available, &read(3, "online"), crash, &read(4, "offline")]);
    breaks(&[available, crash, &read(4, "online")], &["I13"]);
    let back = "
        m#5 -> CONNECT clean will r/a offline2 q1 RETAIN
        m#5 <- CONNACK new
        m#5 -> PUBLISH 1 q1 r/a online2 RETAIN
        m#5 <- PUBACK 1
    ";
    keeps(&[available, crash, back, &read(4, "online2")]);
    breaks(&[available, crash, back, &read(4, "offline")], &["I12"]);
    // The broker need not have noticed yet.
    for found in ["online", "offline"] {
        keeps(&[available, "m#2 cut\n", &read(3, found)]);
    }
    breaks(&[available, "m#2 -> DISCONNECT\nm#2 end\n", &read(3, "offline")], &["I12"]);
}
