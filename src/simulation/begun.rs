//! What a session had been sent at QoS 2 when it ended goes to no other member of its group
//! ([MQTT-4.8.2-5]); what it had not been sent does. The session ends with its connection, and is on
//! record all the same.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::asking::{drain_qos2, wait_until};
use super::broker::{Power, SMALL, TestBroker};
use super::support::raw_client::RawClient;
use super::support::raw_client5::RawClient5;
use super::support::wire5::Connect5;
use crate::config::Limits;
use crate::storage::simulated::{Fault, SimulatedFiles, Step};

const MESSAGES: usize = 100;

type Payloads = BTreeSet<Vec<u8>>;

/// A group: "A" is connected with session expiry 0, and is sent a window; "B" is away. Returns what
/// was sent.
fn send_a_window(broker: &TestBroker) -> (RawClient5, Payloads) {
    RawClient5::open(broker.addr, &Connect5::resuming("A").session_expiry(1_000)).0.disconnect();
    let mut member = RawClient::persistent(broker.addr, "B");
    member.subscribe("$share/g/x", 2);
    member.disconnect();
    let mut first = RawClient5::resume_with(broker.addr, &Connect5::resuming("A"));
    first.subscribe("$share/g/x", 2);
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..MESSAGES {
        publisher.publish("x", 2, n.to_string());
    }
    let sent = first.publishes_until_ping().into_iter().map(|publish| publish.payload).collect();
    (first, sent)
}

/// Its connection ends, and the power goes at this step after that; how many steps there are.
fn end_with_a_connection(cut: Option<u64>) -> u64 {
    let files = SimulatedFiles::new(7);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    let (mut first, sent) = send_a_window(&broker);
    assert!((1..MESSAGES).contains(&sent.len()), "{} are sent", sent.len());
    let begin = files.steps().len() as u64;
    let power = Power::with(&files, move |step: &Step| {
        (cut.map(|cut| begin + cut) == Some(step.number)).then_some(Fault::PowerCut)
    });
    if cut != Some(0) {
        first.finish_sending();
        wait_until("its session ends", || !power.is_on() || !broker.core.has_anything_for("A"));
        wait_until("the end goes on", || !power.is_on() || broker.core.is_leaving_nobody());
        let log = broker.log();
        wait_until("it is on record", || !power.is_on() || log.committed() >= log.submitted());
    }
    let steps = files.steps().len() as u64 - begin;
    power.cut(&files);
    for seed in 0..2 {
        let found = files.after_power_cut(seed);
        let again = TestBroker::start(Arc::new(found), SMALL, Limits::default()).unwrap();
        wait_until("the end goes on at the next start", || again.core.is_leaving_nobody());
        let got: Payloads = drain_qos2(&again, "B").into_iter().map(|publish| publish.payload).collect();
        let twice: Vec<_> = got.intersection(&sent).collect();
        assert!(twice.is_empty(), "cut {cut:?}, seed {seed}: {} go to another member", twice.len());
        assert_eq!(got.len(), MESSAGES - sent.len(), "cut {cut:?}, seed {seed}: the others do");
        again.kill();
    }
    broker.kill();
    steps
}

#[test]
fn what_a_session_was_sent_at_qos_2_ends_with_it() {
    let steps = end_with_a_connection(None);
    assert!(steps > 3, "{steps}");
    // 0: it is connected still.
    for cut in 0..=steps {
        end_with_a_connection(Some(cut));
    }
}
