//! PUBREC: the body is needed no more, and that the client has it goes on record. The body's segment
//! is freed after that and not before: else a power cut leaves neither of the two, and the exchange
//! never comes to its end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use super::support::server_packet::ServerPacket;
use super::support::wire::{self, Connect};
use crate::config::Limits;
use crate::storage::simulated::{Fault, SimulatedFiles, Step, StepKind};

fn is_freed(step: &Step) -> bool {
    step.kind == StepKind::Remove && step.name.contains("segment")
}

/// A client sends PUBREC for a message whose segment nobody needs otherwise, and that is freed. The
/// power goes at this step after that; how many there are.
fn free_after_pubrec(cut: Option<u64>) -> u64 {
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    let mut client = RawClient::persistent(broker.addr, "client");
    client.subscribe("t", 2);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    let body = "x".repeat(SMALL.segment_bytes as usize);
    publisher.publish("t", 2, &body);
    let publish = client.expect_message("t", &body);
    // So that its segment is sealed, and below a checkpoint.
    for n in 0..20 {
        publisher.publish_retained("filler", 1, format!("{n}{}", "x".repeat(500)));
    }
    broker.tend_now();
    let begin = files.steps().len() as u64;
    let power = Power::with(&files, move |step: &Step| {
        (cut.map(|cut| begin + cut) == Some(step.number)).then_some(Fault::PowerCut)
    });
    client.send(&wire::pubrec(publish.id()));
    let deadline = Instant::now() + DEADLINE;
    while power.is_on() && !files.steps()[begin as usize..].iter().any(is_freed) {
        assert!(Instant::now() < deadline, "its segment stays");
        broker.free();
        std::thread::sleep(Duration::from_millis(1));
    }
    let steps = files.steps().len() as u64 - begin;
    power.cut(&files);
    for seed in 0..4 {
        let found = files.after_power_cut(seed);
        let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
        let (mut client, is_present) = RawClient::open(again.addr, &Connect::persistent("client"));
        assert!(is_present);
        let deadline = Instant::now() + DEADLINE;
        loop {
            assert!(Instant::now() < deadline, "cut {cut:?}, seed {seed}: neither PUBLISH nor PUBREL comes");
            match client.packets_until_ping().as_slice() {
                [] if !again.core.has_anything_for("client") => {
                    panic!("cut {cut:?}, seed {seed}: the message is lost half way");
                }
                [] => {}
                [ServerPacket::PubRel(id)] if *id == publish.id() => break,
                [ServerPacket::Publish(again)] => {
                    assert_eq!(
                        (again.id(), again.dup, &again.payload),
                        (publish.id(), true, &publish.payload)
                    );
                    break;
                }
                others => panic!("{others:?}"),
            }
        }
        again.kill();
    }
    broker.kill();
    steps
}

#[test]
fn the_body_of_a_message_is_freed_after_its_pubrec_is_on_record() {
    let steps = free_after_pubrec(None);
    for cut in 1..=steps {
        free_after_pubrec(Some(cut));
    }
}
