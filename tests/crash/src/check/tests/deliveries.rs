//! I1 to I7.

use super::{BOTH, breaks, keeps};

const SENT_1: &str = "
    p#2 -> PUBLISH 1 q1 t/a one
    p#2 <- PUBACK 1
";
const GOT_1: &str = "
    s#1 <- PUBLISH 1 q1 t/a one
    s#1 -> PUBACK 1
";
const CRASH: &str = "
    KILL
    s#1 end
    p#2 end
    START
    s#3 -> CONNECT
    s#3 <- CONNACK present
    p#4 -> CONNECT
    p#4 <- CONNACK present
";
const SENT_2: &str = "
    p#2 -> PUBLISH 1 q2 t/a two
    p#2 <- PUBREC 1
    p#2 -> PUBREL 1
    p#2 <- PUBCOMP 1
";

#[test]
fn i1_what_was_acknowledged_is_delivered() {
    keeps(&[BOTH, SENT_1, GOT_1]);
    keeps(&[BOTH, SENT_1, CRASH, "s#3 <- PUBLISH 1 q1 t/a one\ns#3 -> PUBACK 1"]);
    breaks(&[BOTH, SENT_1], &["I1"]);
    breaks(&[BOTH, SENT_1, CRASH], &["I1"]);
    // Not acknowledged, and sent by nobody again because its session is over: it may be lost.
    keeps(&["c#9 -> CONNECT clean\nc#9 <- CONNACK new\nc#9 -> PUBLISH 1 q1 t/a x\nc#9 cut", BOTH]);
}

#[test]
fn i1_only_while_a_subscription_surely_stands() {
    let given_up = "s#1 -> UNSUBSCRIBE 2 t/#\ns#1 <- UNSUBACK 2\n";
    keeps(&[BOTH, given_up, SENT_1]);
    // What is not begun may be dropped when the subscription goes; but not from the middle.
    keeps(&[BOTH, SENT_1, given_up]);
    let more = "p#2 -> PUBLISH 1 q1 t/a later\np#2 <- PUBACK 1\n";
    let later = "s#1 <- PUBLISH 1 q1 t/a later\ns#1 -> PUBACK 1\n";
    breaks(&[BOTH, SENT_1, more, later, given_up], &["I1"]);
    // A SUBSCRIBE that was not answered promises nothing.
    let asked = "s#1 -> CONNECT\ns#1 <- CONNACK new\ns#1 -> SUBSCRIBE 1 t/# q2\n";
    let publisher = "p#2 -> CONNECT\np#2 <- CONNACK new\n";
    keeps(&[asked, publisher, SENT_1]);
    breaks(&[asked, publisher, "s#1 <- SUBACK 1 2\n", SENT_1], &["I1"]);
}

#[test]
fn i1_a_clean_session_has_no_gaps() {
    let clean = "
        s#1 -> CONNECT clean
        s#1 <- CONNACK new
        s#1 -> SUBSCRIBE 1 t/# q1
        s#1 <- SUBACK 1 1
        p#2 -> CONNECT
        p#2 <- CONNACK new
    ";
    let more = "p#2 -> PUBLISH 1 q1 t/a later\np#2 <- PUBACK 1\n";
    let later = "s#1 <- PUBLISH 2 q1 t/a later\ns#1 -> PUBACK 2\n";
    keeps(&[clean, SENT_1, more, "s#1 cut"]);
    keeps(&[clean, SENT_1, more, GOT_1, later, "s#1 cut"]);
    breaks(&[clean, SENT_1, more, later, "s#1 cut"], &["I1"]);
}

#[test]
fn i2_nothing_is_invented() {
    breaks(&[BOTH, "s#1 <- PUBLISH 1 q1 t/a one\ns#1 -> PUBACK 1\n", SENT_1], &["I2"]);
    breaks(&[BOTH, SENT_1, GOT_1, "s#1 <- PUBLISH 2 q1 t/a 0ne\ns#1 -> PUBACK 2"], &["I2"]);
    breaks(&[BOTH, SENT_1, "s#1 <- PUBLISH 1 q1 t/b one\ns#1 -> PUBACK 1"], &["I2"]);
    let as_qos2 = "s#1 <- PUBLISH 1 q2 t/a one\ns#1 -> PUBREC 1\ns#1 <- PUBREL 1\ns#1 -> PUBCOMP 1";
    breaks(&[BOTH, SENT_1, as_qos2], &["I2"]);
    breaks(&[BOTH, "s#1 garbage"], &["I2"]);
}

#[test]
fn i3_nothing_strays() {
    let given_up = "s#1 -> UNSUBSCRIBE 2 t/#\ns#1 <- UNSUBACK 2\n";
    breaks(&[BOTH, given_up, SENT_1, GOT_1], &["I3"]);
    // Sent before UNSUBACK came: it may have been on its way.
    keeps(&[BOTH, "s#1 -> UNSUBSCRIBE 2 t/#\n", SENT_1, "s#1 <- UNSUBACK 2\n", GOT_1]);
    keeps(&[BOTH, given_up, SENT_1, "s#1 -> SUBSCRIBE 3 t/# q2\ns#1 <- SUBACK 3 2"]);
    breaks(
        &[BOTH, "p#2 -> PUBLISH 1 q1 u one\np#2 <- PUBACK 1\ns#1 <- PUBLISH 1 q1 u one\ns#1 -> PUBACK 1"],
        &["I3"],
    );
}

#[test]
fn i4_qos_2_goes_on_once() {
    let got = "s#1 <- PUBLISH 1 q2 t/a two\ns#1 -> PUBREC 1\n";
    let released = "s#3 <- PUBREL 1\ns#3 -> PUBCOMP 1\n";
    keeps(&[BOTH, SENT_2, got, "s#1 <- PUBREL 1\ns#1 -> PUBCOMP 1"]);
    // Again with the same id before PUBREL: a repetition.
    let again = "s#3 <- PUBLISH 1 q2 t/a two DUP\ns#3 -> PUBREC 1\n";
    keeps(&[BOTH, SENT_2, got, CRASH, again, released]);
    // With another id: the application gets it twice.
    let other = "s#3 <- PUBLISH 2 q2 t/a two\ns#3 -> PUBREC 2\ns#3 <- PUBREL 2\ns#3 -> PUBCOMP 2\n";
    breaks(&[BOTH, SENT_2, got, CRASH, released, other], &["I4"]);
    // With the same id after PUBREL.
    let late = "s#3 <- PUBLISH 1 q2 t/a two DUP\ns#3 -> PUBREC 1\ns#3 <- PUBREL 1\ns#3 -> PUBCOMP 1\n";
    breaks(&[BOTH, SENT_2, got, CRASH, released, late], &["I4"]);
}

#[test]
fn i5_repeats_are_justified() {
    let got = "s#1 <- PUBLISH 1 q1 t/a one\n";
    let again = "s#3 <- PUBLISH 1 q1 t/a one DUP\ns#3 -> PUBACK 1\n";
    keeps(&[BOTH, SENT_1, got, CRASH, again]);
    // The PUBACK may not have been read.
    let reconnect = "s#1 cut\ns#3 -> CONNECT\ns#3 <- CONNACK present\n";
    keeps(&[BOTH, SENT_1, GOT_1, reconnect, again]);
    // It was.
    let fence = "s#1 -> PINGREQ\ns#1 <- PINGRESP\n";
    breaks(&[BOTH, SENT_1, GOT_1, fence, reconnect, again], &["I5"]);
    keeps(&[BOTH, SENT_1, GOT_1, fence, CRASH, again]);
    // Without DUP, with another id, on the same connection.
    breaks(&[BOTH, SENT_1, GOT_1, CRASH, "s#3 <- PUBLISH 1 q1 t/a one\ns#3 -> PUBACK 1"], &["I5"]);
    breaks(&[BOTH, SENT_1, GOT_1, CRASH, "s#3 <- PUBLISH 2 q1 t/a one DUP\ns#3 -> PUBACK 2"], &["I5"]);
    breaks(&[BOTH, SENT_1, GOT_1, "s#1 <- PUBLISH 1 q1 t/a one DUP\ns#1 -> PUBACK 1"], &["I5"]);
}

#[test]
fn i5_what_is_published_again_may_come_again() {
    let resent =
        "p#2 cut\np#4 -> CONNECT\np#4 <- CONNACK present\np#4 -> PUBLISH 1 q1 t/a one DUP\np#4 <- PUBACK 1\n";
    let first = "p#2 -> PUBLISH 1 q1 t/a one\n";
    let second = "s#1 <- PUBLISH 2 q1 t/a one\ns#1 -> PUBACK 2\n";
    keeps(&[BOTH, first, GOT_1, resent, second]);
    breaks(&[BOTH, first, GOT_1, resent, second, "s#1 <- PUBLISH 3 q1 t/a one\ns#1 -> PUBACK 3"], &["I5"]);
}

#[test]
fn i5_dup_means_sent_before() {
    breaks(&[BOTH, SENT_1, "s#1 <- PUBLISH 1 q1 t/a one DUP\ns#1 -> PUBACK 1"], &["I5"]);
    let away = "s#1 -> DISCONNECT\ns#1 end\n";
    let back = "s#3 -> CONNECT\ns#3 <- CONNACK present\ns#3 <- PUBLISH 1 q1 t/a one DUP\ns#3 -> PUBACK 1\n";
    breaks(&[BOTH, away, SENT_1, back], &["I5"]);
    // The broker may not have noticed yet that the connection was gone.
    keeps(&[BOTH, "s#1 cut\n", SENT_1, back]);
}

const PAIR: &str = "
    p#2 -> PUBLISH 1 q1 t/a one
    p#2 -> PUBLISH 2 q1 t/a two
    p#2 <- PUBACK 1
    p#2 <- PUBACK 2
";

#[test]
fn i6_order_of_first_and_of_last_receipts() {
    let in_order = "
        s#1 <- PUBLISH 1 q1 t/a one
        s#1 <- PUBLISH 2 q1 t/a two
    ";
    keeps(&[BOTH, PAIR, in_order, "s#1 -> PUBACK 1\ns#1 -> PUBACK 2"]);
    let swapped = "
        s#1 <- PUBLISH 1 q1 t/a two
        s#1 -> PUBACK 1
        s#1 <- PUBLISH 2 q1 t/a one
        s#1 -> PUBACK 2
    ";
    breaks(&[BOTH, PAIR, swapped], &["I6"]);
    // Sent again in the wrong order: the last receipts are wrong, and so is the resumption.
    let again = "
        s#3 <- PUBLISH 2 q1 t/a two DUP
        s#3 <- PUBLISH 1 q1 t/a one DUP
        s#3 -> PUBACK 2
        s#3 -> PUBACK 1
    ";
    breaks(&[BOTH, PAIR, in_order, CRASH, again], &["I6", "I9"]);
    // The second copy of the later one was not to come any more: the subscription that stands is a new one.
    let answered = "s#1 -> PUBACK 1\ns#1 -> PUBACK 2\n";
    let gives_up = "s#3 -> UNSUBSCRIBE 8 t/#\n";
    let anew = "s#3 <- UNSUBACK 8\ns#3 -> SUBSCRIBE 9 t/# q2\ns#3 <- SUBACK 9 2\n";
    keeps(&[BOTH, PAIR, in_order, answered, CRASH, gives_up, again, anew]);
    breaks(&[BOTH, PAIR, in_order, answered, CRASH, again], &["I6"]);
    // A repetition that was broken off, in a session that was then given up.
    let given_up = "
        s#3 <- PUBLISH 1 q1 t/a one DUP
        s#3 cut
        s#5 -> CONNECT clean
        s#5 <- CONNACK new
        s#5 cut
        s#7 -> CONNECT
        s#7 <- CONNACK new
        s#7 -> SUBSCRIBE 1 t/# q2
        s#7 <- SUBACK 1 2
    ";
    keeps(&[BOTH, PAIR, in_order, CRASH, given_up]);
    // One that was sent before there was a subscription, and again.
    let before = "p#2 -> CONNECT\np#2 <- CONNACK new\np#2 -> PUBLISH 1 q1 t/a one\n";
    let subscribed = "s#1 -> CONNECT\ns#1 <- CONNACK new\ns#1 -> SUBSCRIBE 1 t/# q2\ns#1 <- SUBACK 1 2\n";
    let after = "p#2 -> PUBLISH 2 q1 t/a two\np#2 cut\ns#1 <- PUBLISH 1 q1 t/a two\ns#1 -> PUBACK 1\n";
    let again = "
        p#4 -> CONNECT
        p#4 <- CONNACK present
        p#4 -> PUBLISH 1 q1 t/a one DUP
        p#4 -> PUBLISH 2 q1 t/a two DUP
        p#4 <- PUBACK 1
        p#4 <- PUBACK 2
        s#1 <- PUBLISH 2 q1 t/a one
        s#1 <- PUBLISH 3 q1 t/a two
        s#1 -> PUBACK 2
        s#1 -> PUBACK 3
    ";
    keeps(&[before, subscribed, after, again]);
    // The same, while an earlier session had one.
    let earlier = "s#9 -> CONNECT clean\ns#9 <- CONNACK new\ns#9 -> SUBSCRIBE 1 t/# q2\ns#9 <- SUBACK 1 2\n";
    let clean =
        "s#9 cut\ns#1 -> CONNECT clean\ns#1 <- CONNACK new\ns#1 -> SUBSCRIBE 1 t/# q2\ns#1 <- SUBACK 1 2\n";
    keeps(&[earlier, before, clean, after, again]);
    // Of different QoS they may pass one another.
    let mixed = "
        p#2 -> PUBLISH 1 q1 t/a one
        p#2 -> PUBLISH 2 q2 t/a two
        p#2 <- PUBACK 1
        p#2 <- PUBREC 2
        p#2 -> PUBREL 2
        p#2 <- PUBCOMP 2
        s#1 <- PUBLISH 1 q2 t/a two
        s#1 -> PUBREC 1
        s#1 <- PUBREL 1
        s#1 -> PUBCOMP 1
        s#1 <- PUBLISH 2 q1 t/a one
        s#1 -> PUBACK 2
    ";
    keeps(&[BOTH, mixed]);
}

#[test]
fn i7_acknowledgements_come_in_order() {
    let none = "p#2 -> CONNECT\np#2 <- CONNACK new\n";
    keeps(&[none, PAIR]);
    let swapped =
        PAIR.replace("PUBACK 1", "PUBACK 9").replace("PUBACK 2", "PUBACK 1").replace("PUBACK 9", "PUBACK 2");
    breaks(&[none, &swapped], &["I7"]);
    let releases = |one: u16, two: u16| {
        format!(
            "p#2 -> PUBLISH 1 q2 t/a one
             p#2 -> PUBLISH 2 q2 t/a two
             p#2 <- PUBREC 1
             p#2 <- PUBREC 2
             p#2 -> PUBREL 1
             p#2 -> PUBREL 2
             p#2 <- PUBCOMP 1
             p#2 <- PUBCOMP 2
             s#1 <- PUBLISH 1 q2 t/a one
             s#1 <- PUBLISH 2 q2 t/a two
             s#1 -> PUBREC 1
             s#1 -> PUBREC 2
             s#1 <- PUBREL {one}
             s#1 <- PUBREL {two}
             s#1 -> PUBCOMP 1
             s#1 -> PUBCOMP 2"
        )
    };
    keeps(&[BOTH, &releases(1, 2)]);
    breaks(&[BOTH, &releases(2, 1)], &["I7"]);
    let records = releases(1, 2)
        .replace("p#2 <- PUBREC 1\n", "")
        .replace("p#2 -> PUBREL 1\n", "p#2 <- PUBREC 1\np#2 -> PUBREL 1\n");
    breaks(&[BOTH, &records], &["I7"]);
}

#[test]
fn what_was_handed_on_at_qos_1_before_it_was_stored_may_be_forgotten() {
    let sent = "p#2 -> PUBLISH 1 q1 t/a one\n";
    let got = "s#1 <- PUBLISH 5 q1 t/a one\n";
    let again = "p#4 -> PUBLISH 1 q1 t/a one DUP\np#4 <- PUBACK 1\n";
    // No DUP, another id; and the old id for another message.
    let anew = "s#3 <- PUBLISH 6 q1 t/a one\ns#3 -> PUBACK 6\n";
    let other = "p#4 -> PUBLISH 2 q1 t/b x\np#4 <- PUBACK 2\ns#3 <- PUBLISH 5 q1 t/b x\ns#3 -> PUBACK 5\n";
    keeps(&[BOTH, sent, got, CRASH, again, anew, other]);
    // Once it was acknowledged, the broker has to know.
    let acknowledged = "p#2 <- PUBACK 1\n";
    breaks(&[BOTH, sent, got, acknowledged, CRASH, anew], &["I5", "I9"]);
    let new = "p#4 -> PUBLISH 2 q1 t/b x\np#4 <- PUBACK 2\ns#3 <- PUBLISH 5 q1 t/b x\ns#3 -> PUBACK 5\n";
    breaks(&[BOTH, sent, got, acknowledged, CRASH, new], &["I8"]);
    // And without a crash.
    let back = "s#1 cut\ns#3 -> CONNECT\ns#3 <- CONNACK present\n";
    breaks(&[BOTH, sent, got, acknowledged, back, anew], &["I5", "I9"]);
}
