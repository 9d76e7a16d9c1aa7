//! QoS 2 from the client: what counts as the same message.

use super::wire::*;
use crate::session::Reception::{New, Repeated};

#[test]
fn an_id_not_released_is_a_repetition_and_after_release_a_new_message() {
    let mut session = connected(limits());
    // Whether DUP was set is not even told: only the id counts.
    assert_eq!(session.accept_publish(id(7)), New);
    assert_eq!(session.accept_publish(id(7)), Repeated);
    assert_eq!(session.accept_publish(id(8)), New);
    session.release(id(7));
    assert_eq!(session.accept_publish(id(7)), New);
    assert_eq!(session.accept_publish(id(8)), Repeated);
}

#[test]
fn a_release_of_an_unknown_id_is_harmless() {
    let mut session = connected(limits());
    session.release(id(9));
    assert_eq!(session.accept_publish(id(9)), New);
}

#[test]
fn ids_received_survive_the_connection_and_not_the_session() {
    let mut session = connected(limits());
    session.accept_publish(id(7));
    session.detach();
    attach(&mut session);
    assert_eq!(session.accept_publish(id(7)), Repeated);
    let _ = session.end();
    assert_eq!(session.accept_publish(id(7)), New);
}

#[test]
fn ids_of_both_directions_have_nothing_to_do_with_each_other() {
    use crate::protocol::QoS::ExactlyOnce;
    use crate::protocol::encode::AckKind;
    let mut session = connected(limits());
    deliver(&mut session, b"a", ExactlyOnce);
    assert_eq!(session.accept_publish(id(1)), New);
    session.release(id(1));
    assert_eq!(session.unfinished(), 1);
    write_all(&mut session);
    acknowledge(&mut session, AckKind::PubRec, 1);
    assert_eq!(write_all(&mut session), [Sent::Ack(AckKind::PubRel, 1)]);
}
