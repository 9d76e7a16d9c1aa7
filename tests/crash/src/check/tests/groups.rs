//! I19, I20, and the retained register with writes at QoS 0.

use super::{BOTH, breaks, keeps};

/// Members `a` and `b`; `b` stays.
const GROUP: &str = "
    a#1 -> CONNECT
    a#1 <- CONNACK new
    a#1 -> SUBSCRIBE 1 $share/g/t/# q1
    a#1 <- SUBACK 1 1
    b#2 -> CONNECT
    b#2 <- CONNACK new
    b#2 -> SUBSCRIBE 1 $share/g/t/# q1
    b#2 <- SUBACK 1 1
    p#3 -> CONNECT
    p#3 <- CONNACK new
";
const SENT: &str = "
    p#3 -> PUBLISH 1 q1 t/a one
    p#3 <- PUBACK 1
";
const A_HAS_IT: &str = "a#1 <- PUBLISH 1 q1 t/a one\n";
const A_ENDS: &str = "
    a#1 cut
    a#4 -> CONNECT clean
    a#4 <- CONNACK new
    a#4 -> DISCONNECT
    a#4 end
";
const B_TAKES_IT: &str = "b#2 <- PUBLISH 7 q1 t/a one\nb#2 -> PUBACK 7\n";

#[test]
fn i20_somebody_answers_what_was_acknowledged_for_the_group() {
    keeps(&[GROUP, SENT, A_HAS_IT, "a#1 -> PUBACK 1"]);
    keeps(&[GROUP, SENT, A_HAS_IT, A_ENDS, B_TAKES_IT]);
    // It went nowhere; nobody answered it; it ended with the session of the one that had it.
    breaks(&[GROUP, SENT], &["I20"]);
    breaks(&[GROUP, SENT, A_HAS_IT], &["I20"]);
    breaks(&[GROUP, SENT, A_HAS_IT, A_ENDS], &["I20"]);
    // The publisher was promised nothing.
    keeps(&[GROUP, "p#3 -> PUBLISH 1 q1 t/a one\np#3 cut\np#5 -> CONNECT clean\np#5 <- CONNACK new"]);
}

#[test]
fn i20_only_while_a_member_stays() {
    let b_leaves = "b#2 -> UNSUBSCRIBE 2 $share/g/t/#\nb#2 <- UNSUBACK 2\n";
    keeps(&[GROUP, SENT, A_HAS_IT, b_leaves, A_ENDS]);
    breaks(&[GROUP, SENT, A_HAS_IT, b_leaves], &["I20"]);
}

#[test]
fn i20_a_member_may_get_it_again_without_dup_and_what_the_filter_matches() {
    let once_more = "
        a#1 cut
        a#4 -> CONNECT
        a#4 <- CONNACK present
        a#4 <- PUBLISH 9 q1 t/a one
        a#4 -> PUBACK 9
    ";
    keeps(&[GROUP, SENT, A_HAS_IT, once_more]);
    let other = "p#3 -> PUBLISH 1 q1 x/a one\np#3 <- PUBACK 1\na#1 <- PUBLISH 1 q1 x/a one\n";
    // It has no subscription for it of any QoS, and none at all.
    breaks(&[GROUP, other], &["I20"]);
}

#[test]
fn i20_a_session_with_expiry_may_end_at_any_time() {
    let a = GROUP.replace("a#1 -> CONNECT", "a#1 -> CONNECT expiry 1");
    let gone = "a#1 cut\na#4 -> CONNECT expiry 1\na#4 <- CONNACK new\n";
    let back = "a#1 cut\na#4 -> CONNECT expiry 1\na#4 <- CONNACK present\na#4 <- PUBLISH 1 q1 t/a one DUP\na#4 -> PUBACK 1\n";
    let ends = "a#1 -> DISCONNECT 0\na#1 end\n";
    keeps(&[&a, SENT, A_HAS_IT, gone, B_TAKES_IT]);
    keeps(&[&a, SENT, A_HAS_IT, back]);
    keeps(&[&a, SENT, A_HAS_IT, ends, B_TAKES_IT]);
    breaks(&[&a, SENT, A_HAS_IT, ends], &["I20"]);
    // It alone is no member that stays.
    let alone: String =
        a.lines().filter(|line| !line.trim().starts_with("b#")).map(|line| format!("{line}\n")).collect();
    keeps(&[&alone, SENT, A_HAS_IT, ends]);
}

#[test]
fn i19_what_is_owed_comes_by_itself() {
    let sent = "p#2 -> PUBLISH 1 q1 t/a one\np#2 <- PUBACK 1\n";
    let got = "s#1 <- PUBLISH 1 q1 t/a one\ns#1 -> PUBACK 1\n";
    let speaks = "WAIT\ns#1 idle\ns#1 -> PINGREQ\n";
    let answered = "s#1 <- PINGRESP\n";
    keeps(&[BOTH, sent, "WAIT\n", got]);
    breaks(&[BOTH, sent, speaks, got, answered], &["I19"]);
    // The silence was about something else, or nothing was due.
    keeps(&[BOTH, sent, got, speaks, answered]);
    keeps(&[BOTH, speaks, sent, got, answered]);
    // It never came: that is a loss.
    breaks(&[BOTH, sent, speaks, answered], &["I1"]);
}

#[test]
fn i12_a_write_at_qos_0_may_take_effect_and_never_hides_what_was_there() {
    let written = "
        p#1 -> CONNECT
        p#1 <- CONNACK new
        p#1 -> PUBLISH 1 q1 r/a large RETAIN
        p#1 <- PUBACK 1
        p#1 -> PUBLISH 0 q0 r/a small RETAIN
    ";
    let read = |found: &str| {
        format!(
            "s#9 -> CONNECT clean\ns#9 <- CONNACK new\ns#9 -> SUBSCRIBE 1 r/# q0\ns#9 <- SUBACK 1 0\n{found}s#9 quiet\n"
        )
    };
    let crash = "KILL\np#1 end\nSTART\n";
    for value in ["large", "small"] {
        keeps(&[written, crash, &read(&format!("s#9 <- PUBLISH 0 q0 r/a {value} RETAIN\n"))]);
    }
    // One of them, and not nothing.
    breaks(&[written, crash, &read("")], &["I12"]);
}
