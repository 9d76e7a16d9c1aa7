//! Random lives of a group, against what a group may do by what its members are at that moment.

use super::{FILTER, House};
use crate::broker::client::locks_taken;
use crate::config::Limits;
use crate::protocol::QoS;
use crate::session::Readiness;

/// What a group may do with a message, by what its members are at that moment.
fn check(house: &House, members: &[usize], qos: QoS, at: &str) {
    let max = house.core.limits.now().queue_messages_max;
    let stands = |member: &usize| {
        let state = house.members[*member].lock();
        (state.session.readiness(), state.session.queued() < max)
    };
    let before: Vec<_> = members.iter().map(stands).collect();
    let had = house.all();
    house.publish(qos);
    let got: Vec<_> = house
        .all()
        .iter()
        .zip(&had)
        .enumerate()
        .filter(|(_, (now, had))| now > had)
        .map(|(n, _)| n)
        .collect();
    let any = |wanted: Readiness| before.contains(&(wanted, true));
    let best = if any(Readiness::Ready) {
        Some(Readiness::Ready)
    } else if any(Readiness::Busy) {
        Some(Readiness::Busy)
    } else if any(Readiness::Away) && qos != QoS::AtMostOnce {
        Some(Readiness::Away)
    } else {
        None
    };
    match (best, &got[..]) {
        // It is not counted among what a member has, sent or waiting.
        (_, []) if qos == QoS::AtMostOnce => {}
        (None, []) => {}
        (Some(best), [receiver]) => {
            let place = members.iter().position(|member| member == receiver);
            assert_eq!(place.and_then(|place| before.get(place)), Some(&(best, true)), "{at}: {before:?}");
        }
        _ => panic!("{at}: {got:?} got it, {before:?}"),
    }
}

#[test]
fn the_best_member_gets_each_message_whatever_has_happened_to_it() {
    let mut tries = 0;
    let mut events = 0;
    for seed in 0..60_u64 {
        let mut number = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut below = move |n: usize| {
            number ^= number << 13;
            number ^= number >> 7;
            number ^= number << 17;
            (number % n as u64) as usize
        };
        let mut house = House::new(Limits { queue_messages_max: 3, ..Limits::default() });
        let mut members = Vec::new();
        for _ in 0..1 + below(8) {
            members.push(house.join());
        }
        for step in 0..400 {
            let member = below(house.members.len());
            events += 1;
            let connected = house.members[member].lock().session.is_connected();
            match below(12) {
                0 | 1 if !connected => house.attach(member, 1 + below(3) as u16),
                0 if connected => house.detach(member),
                1..=3 => {
                    if connected && house.members[member].lock().session.unfinished() > 0 {
                        house.acknowledge(member);
                    }
                }
                4 => {
                    let mut state = house.members[member].lock();
                    match members.iter().position(|known| *known == member) {
                        Some(place) => {
                            members.remove(place);
                            state.session.unsubscribe(FILTER);
                            house.core.remove_subscription(FILTER, house.members[member].key, &mut state);
                        }
                        None => {
                            members.push(member);
                            drop(state);
                            house.enter(&house.members[member], QoS::ExactlyOnce);
                        }
                    }
                }
                5 if below(4) == 0 => drop(house.members[member].lock().session.drop_queued(|_| true)),
                kind => {
                    let before = locks_taken();
                    let qos = if kind == 6 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    check(&house, &members, qos, &format!("seed {seed}, step {step}"));
                    let looked = house.members.len() * 2 + members.len();
                    tries += locks_taken() - before - looked;
                }
            }
        }
    }
    assert!(tries <= 3 * events, "{tries} members were looked at in {events} events");
}
