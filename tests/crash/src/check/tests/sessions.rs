//! I8 to I11, I15, I16, I18.

use super::{BOTH, breaks, keeps};

/// The subscriber cuts and comes back.
const BACK: &str = "
    s#1 cut
    s#3 -> CONNECT
    s#3 <- CONNACK present
";
/// `one` and `two` at QoS 1, acknowledged.
const PAIR: &str = "
    p#2 -> PUBLISH 1 q1 t/a one
    p#2 -> PUBLISH 2 q1 t/a two
    p#2 <- PUBACK 1
    p#2 <- PUBACK 2
";
/// `two` at QoS 2, acknowledged.
const TWO: &str = "
    p#2 -> PUBLISH 1 q2 t/a two
    p#2 <- PUBREC 1
    p#2 -> PUBREL 1
    p#2 <- PUBCOMP 1
";

#[test]
fn i8_an_id_belongs_to_one_unfinished_message() {
    let first = "s#1 <- PUBLISH 1 q1 t/a one\n";
    keeps(&[BOTH, PAIR, first, "s#1 -> PUBACK 1\ns#1 <- PUBLISH 1 q1 t/a two\ns#1 -> PUBACK 1"]);
    breaks(&[BOTH, PAIR, first, "s#1 <- PUBLISH 1 q1 t/a two\ns#1 -> PUBACK 1"], &["I8"]);
    let zero = "s#1 <- PUBLISH 0 q1 t/a one\ns#1 -> PUBACK 0\ns#1 <- PUBLISH 1 q1 t/a two\ns#1 -> PUBACK 1";
    breaks(&[BOTH, PAIR, zero], &["I8"]);
    // Across connections, while PUBCOMP is owed.
    let half = "s#1 <- PUBLISH 1 q2 t/a two\ns#1 -> PUBREC 1\n";
    let other = "p#2 -> PUBLISH 3 q1 t/b x\np#2 <- PUBACK 3\n";
    let reused = "s#3 <- PUBLISH 1 q1 t/b x\ns#3 -> PUBACK 1\ns#3 <- PUBREL 1\ns#3 -> PUBCOMP 1\n";
    breaks(&[BOTH, TWO, half, BACK, other, reused], &["I8"]);
    let free = "s#3 <- PUBREL 1\ns#3 -> PUBCOMP 1\ns#3 <- PUBLISH 1 q1 t/b x\ns#3 -> PUBACK 1\n";
    keeps(&[BOTH, TWO, half, BACK, other, free]);
}

#[test]
fn i8_a_clean_session_takes_its_ids_with_it() {
    let clean = "
        s#1 -> CONNECT clean
        s#1 <- CONNACK new
        s#1 -> SUBSCRIBE 1 t/# q1
        s#1 <- SUBACK 1 1
        p#2 -> CONNECT
        p#2 <- CONNACK new
        p#2 -> PUBLISH 1 q1 t/a x
        p#2 <- PUBACK 1
        s#1 <- PUBLISH 1 q1 t/a x
        s#1 cut
    ";
    // A session was made in between, and CONNACK was lost.
    let between = "s#3 -> CONNECT\ns#3 cut\ns#4 -> CONNECT\ns#4 <- CONNACK present\n";
    let next = "
        s#4 -> SUBSCRIBE 2 t/# q1
        s#4 <- SUBACK 2 1
        p#2 -> PUBLISH 1 q1 t/a y
        p#2 <- PUBACK 1
        s#4 <- PUBLISH 1 q1 t/a y
        s#4 -> PUBACK 1
    ";
    keeps(&[clean, between, next]);
}

#[test]
fn i9_what_is_unfinished_is_sent_again() {
    let got = "s#1 <- PUBLISH 1 q1 t/a one\ns#1 <- PUBLISH 2 q1 t/a two\n";
    let again = "s#3 <- PUBLISH 1 q1 t/a one DUP\ns#3 <- PUBLISH 2 q1 t/a two DUP\ns#3 -> PUBACK 1\ns#3 -> PUBACK 2\n";
    keeps(&[BOTH, PAIR, got, BACK, again]);
    breaks(&[BOTH, PAIR, got, BACK], &["I9"]);
    // Two instances of one message, because it was published twice: each in its place.
    let newer = "p#2 -> PUBLISH 1 q1 t/a three\np#2 <- PUBACK 1\n";
    let early = "s#3 <- PUBLISH 3 q1 t/a three\ns#3 -> PUBACK 3\n";
    breaks(&[BOTH, PAIR, got, BACK, newer, early, again], &["I6", "I9"]);
    keeps(&[BOTH, PAIR, got, BACK, newer, again, early]);
}

#[test]
fn i9_an_answer_that_was_lost_brings_a_message_back_to_its_place() {
    let got = "s#1 <- PUBLISH 1 q1 t/a one\ns#1 <- PUBLISH 2 q1 t/a two\ns#1 -> PUBACK 1\n";
    let again = "s#3 <- PUBLISH 1 q1 t/a one DUP\ns#3 <- PUBLISH 2 q1 t/a two DUP\n";
    let third = "s#3 cut\ns#4 -> CONNECT\ns#4 <- CONNACK present\n";
    let at_last = "s#4 <- PUBLISH 1 q1 t/a one DUP\ns#4 <- PUBLISH 2 q1 t/a two DUP\ns#4 -> PUBACK 1\ns#4 -> PUBACK 2\n";
    keeps(&[BOTH, PAIR, got, BACK, again, third, at_last]);
}

#[test]
fn i9_pubrel_is_sent_again_and_not_the_message() {
    let got = "s#1 <- PUBLISH 1 q2 t/a two\ns#1 -> PUBREC 1\n";
    let released = "s#3 <- PUBREL 1\ns#3 -> PUBCOMP 1\n";
    keeps(&[BOTH, TWO, got, BACK, released]);
    breaks(&[BOTH, TWO, got, BACK], &["I9"]);
    // PUBREL came, PUBCOMP was not sent: PUBREL comes again.
    let seen = "s#1 <- PUBREL 1\n";
    keeps(&[BOTH, TWO, got, seen, BACK, released]);
    breaks(&[BOTH, TWO, got, seen, BACK], &["I9"]);
    breaks(&[BOTH, TWO, got, seen, BACK, "s#3 <- PUBLISH 1 q2 t/a two DUP\n", released], &["I4", "I9"]);
}

#[test]
fn i10_session_present_says_what_is() {
    keeps(&["s#1 -> CONNECT\ns#1 <- CONNACK new\ns#1 cut\ns#2 -> CONNECT\ns#2 <- CONNACK present"]);
    breaks(&["s#1 -> CONNECT\ns#1 <- CONNACK present"], &["I10"]);
    breaks(
        &["s#1 -> CONNECT\ns#1 <- CONNACK new\nKILL\ns#1 end\nSTART\ns#2 -> CONNECT\ns#2 <- CONNACK new"],
        &["I10"],
    );
    // Not answered: nobody knows.
    for word in ["new", "present"] {
        keeps(&["s#1 -> CONNECT\nKILL\ns#1 end\nSTART\ns#2 -> CONNECT\n", &format!("s#2 <- CONNACK {word}")]);
    }
}

#[test]
fn i10_subscriptions_stand_before_their_owner_is_back() {
    let restarted = "
        KILL
        s#1 end
        p#2 end
        START
        p#3 -> CONNECT
        p#3 <- CONNACK present
        p#3 -> PUBLISH 1 q1 t/a early
        p#3 <- PUBACK 1
        s#4 -> CONNECT
        s#4 <- CONNACK present
    ";
    keeps(&[BOTH, restarted, "s#4 <- PUBLISH 1 q1 t/a early\ns#4 -> PUBACK 1"]);
    breaks(&[BOTH, restarted], &["I1", "I10"]);
}

const CRASH: &str = "
    KILL
    p#2 end
    START
    p#3 -> CONNECT
    p#3 <- CONNACK present
";

#[test]
fn i11_a_the_same_id_before_pubrel_is_the_same_message() {
    let sent = "p#2 -> PUBLISH 7 q2 t/a x\np#2 <- PUBREC 7\n";
    for dup in ["", " DUP"] {
        let again =
            format!("p#3 -> PUBLISH 7 q2 t/a x{dup}\np#3 <- PUBREC 7\np#3 -> PUBREL 7\np#3 <- PUBCOMP 7\n");
        let got = |conn: u32, id: u16| {
            format!(
                "s#{conn} <- PUBLISH {id} q2 t/a x\ns#{conn} -> PUBREC {id}\n\
                 s#{conn} <- PUBREL {id}\ns#{conn} -> PUBCOMP {id}\n"
            )
        };
        let back = "s#1 end\ns#4 -> CONNECT\ns#4 <- CONNACK present\n";
        keeps(&[BOTH, sent, &got(1, 1), CRASH, back, &again]);
        breaks(&[BOTH, sent, &got(1, 1), CRASH, back, &again, &got(4, 2)], &["I4", "I11"]);
        // A subscriber at QoS 1 sees it as well.
        let low = BOTH.replace("q2", "q1").replace("SUBACK 1 2", "SUBACK 1 1");
        let got =
            |conn: u32, id: u16| format!("s#{conn} <- PUBLISH {id} q1 t/a x\ns#{conn} -> PUBACK {id}\n");
        keeps(&[&low, sent, &got(1, 1), CRASH, back, &again]);
        breaks(&[&low, sent, &got(1, 1), CRASH, back, &again, &got(4, 2)], &["I5", "I11"]);
    }
    breaks(
        &[
            "p#2 -> CONNECT\np#2 <- CONNACK new\n",
            sent,
            "p#2 -> PUBLISH 7 q2 t/a x\np#2 -> DISCONNECT\np#2 end",
        ],
        &["I11", "I16"],
    );
}

#[test]
fn i11_b_after_pubcomp_the_same_id_is_a_new_message() {
    let sent = |payload: &str| {
        format!("p#2 -> PUBLISH 7 q2 t/a {payload}\np#2 <- PUBREC 7\np#2 -> PUBREL 7\np#2 <- PUBCOMP 7\n")
    };
    let got = |id: u16, payload: &str| {
        format!(
            "s#1 <- PUBLISH {id} q2 t/a {payload}\ns#1 -> PUBREC {id}\ns#1 <- PUBREL {id}\ns#1 -> PUBCOMP {id}\n"
        )
    };
    keeps(&[BOTH, &sent("x"), &got(1, "x"), &sent("y"), &got(2, "y")]);
    breaks(&[BOTH, &sent("x"), &got(1, "x"), &sent("y")], &["I1", "I11"]);
    // The first use of an id is no matter of I11.
    breaks(&[BOTH, &sent("x")], &["I1"]);
}

#[test]
fn i11_c_dup_at_first_sight_is_no_duplicate() {
    let sent = "p#2 -> PUBLISH 7 q2 t/a x DUP\np#2 <- PUBREC 7\np#2 -> PUBREL 7\np#2 <- PUBCOMP 7\n";
    keeps(&[BOTH, sent, "s#1 <- PUBLISH 1 q2 t/a x\ns#1 -> PUBREC 1\ns#1 <- PUBREL 1\ns#1 -> PUBCOMP 1"]);
    breaks(&[BOTH, sent], &["I1", "I11"]);
}

#[test]
fn i11_d_an_unknown_pubrel_is_answered() {
    let start = "p#2 -> CONNECT\np#2 <- CONNACK new\np#2 -> PUBREL 9\n";
    keeps(&[start, "p#2 <- PUBCOMP 9\np#2 -> DISCONNECT\np#2 end"]);
    breaks(&[start, "p#2 -> DISCONNECT\np#2 end"], &["I11"]);
    keeps(&[start, "p#2 cut"]);
}

#[test]
fn i15_a_clean_session_leaves_nothing() {
    let cleaned = "s#1 cut\ns#3 -> CONNECT clean\ns#3 <- CONNACK new\n";
    let sent = "p#2 -> PUBLISH 1 q1 t/a x\np#2 <- PUBACK 1\n";
    keeps(&[BOTH, sent, cleaned, "s#3 cut\ns#4 -> CONNECT\ns#4 <- CONNACK new"]);
    breaks(&[BOTH, cleaned, sent, "s#3 <- PUBLISH 1 q1 t/a x\ns#3 -> PUBACK 1"], &["I3", "I15"]);
    let crash = "KILL\ns#3 end\nSTART\ns#4 -> CONNECT\n";
    keeps(&[BOTH, cleaned, crash, "s#4 <- CONNACK new"]);
    breaks(&[BOTH, cleaned, crash, "s#4 <- CONNACK present"], &["I10", "I15"]);
    // Its own subscriptions end with it, also when a persistent session takes its place.
    let own = "s#3 -> SUBSCRIBE 1 c/# q1\ns#3 <- SUBACK 1 1\n";
    let taken = "s#4 -> CONNECT\ns#4 <- CONNACK new\ns#3 end\n";
    keeps(&[BOTH, cleaned, own, taken, "p#2 -> PUBLISH 1 q1 c/a x\np#2 <- PUBACK 1"]);
    // Queued before, delivered after.
    let old = "s#4 <- CONNACK new\ns#4 <- PUBLISH 1 q1 t/a x\ns#4 -> PUBACK 1\n";
    breaks(&[BOTH, sent, cleaned, crash, old], &["I3", "I15"]);
}

#[test]
fn i16_the_broker_keeps_going() {
    let publisher = "p#2 -> CONNECT\np#2 <- CONNACK new\n";
    keeps(&[publisher, "p#2 -> PUBLISH 1 q1 t/a x\np#2 <- PUBACK 1"]);
    breaks(&[publisher, "p#2 -> PUBLISH 1 q1 t/a x"], &["I16"]);
    breaks(&[publisher, "p#2 -> PUBLISH 1 q2 t/a x\np#2 <- PUBREC 1\np#2 -> PUBREL 1"], &["I16"]);
    breaks(&[publisher, "DIED"], &["I16"]);
    breaks(&["p#2 -> CONNECT\np#2 end"], &["I16"]);
    keeps(&["p#2 -> CONNECT\nKILL\np#2 end"]);
    // Milliseconds are lines here.
    let waiting = "q#9 -> PINGREQ\n".repeat(5000);
    breaks(&["p#2 -> CONNECT\n", &waiting, "p#2 <- CONNACK new"], &["I16"]);
}

#[test]
fn i18_the_older_connection_is_closed() {
    let taken =
        "s#1 -> CONNECT\ns#1 <- CONNACK new\ns#2 -> CONNECT\ns#2 <- CONNACK present\ns#1 -> PINGREQ\n";
    keeps(&[taken, "s#1 end"]);
    breaks(&[taken], &["I18"]);
    breaks(&[taken, "s#1 <- PINGRESP\ns#1 end"], &["I18"]);
    let asked = taken.replacen("s#2", "s#1 -> PINGREQ\ns#2", 1);
    keeps(&[&asked, "s#1 <- PINGRESP\ns#1 end"]);
    breaks(&[&asked, "s#1 <- PINGRESP\ns#1 <- PINGRESP\ns#1 end"], &["I18"]);
}
