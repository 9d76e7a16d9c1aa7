//! A log that cannot be read for a moment, for want of files or of memory: nothing is lost, and what
//! was asked for is asked for again.

use std::sync::Arc;
use std::time::Instant;

use super::broker::{SMALL, TestBroker};
use super::support::raw_client::{DEADLINE, RawClient};
use crate::config::Limits;
use crate::storage::simulated::SimulatedFiles;

/// ENFILE, EMFILE, ENOMEM, EAGAIN.
const PASSING: [i32; 4] = [23, 24, 12, 11];
/// EIO.
const LASTING: i32 = 5;
const MESSAGES: usize = 50;

/// Messages that the log alone has, for each of these.
fn with_messages_for(members: &[&str], filter: &str) -> (SimulatedFiles, TestBroker) {
    let files = SimulatedFiles::new(1);
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    for id in members {
        let mut member = RawClient::persistent(broker.addr, id);
        member.subscribe(filter, 1);
        member.disconnect();
    }
    let mut publisher = RawClient::clean(broker.addr, "publisher");
    for n in 0..MESSAGES {
        publisher.publish("t", 1, n.to_string());
    }
    broker.kill();
    // After a restart no message is in memory.
    let broker = TestBroker::start(Arc::new(files.clone()), SMALL, Limits::default()).unwrap();
    (files, broker)
}

fn wait_for_reads(files: &SimulatedFiles, count: usize) {
    let deadline = Instant::now() + DEADLINE;
    while files.reads_refused() < count {
        assert!(Instant::now() < deadline, "asked for {} times", files.reads_refused());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

fn unreadable(broker: &TestBroker) -> u64 {
    broker.core.metrics().dropped.get("unreadable").copied().unwrap_or(0)
}

#[test]
fn a_client_gets_its_queue_when_the_log_can_be_read_again() {
    for code in PASSING {
        let (files, broker) = with_messages_for(&["A"], "t");
        files.refuse_reads(Some(code));
        let mut member = RawClient::resume(broker.addr, "A");
        // Before CONNACK, after it, and once more after a pause.
        wait_for_reads(&files, 2 * MESSAGES + 1);
        member.expect_nothing();
        files.refuse_reads(None);
        for n in 0..MESSAGES {
            member.expect_message_and_ack("t", n.to_string());
        }
        assert_eq!(unreadable(&broker), 0, "{code}");
        broker.kill();
    }
}

#[test]
fn a_hand_over_goes_on_when_the_log_can_be_read_again() {
    for code in PASSING {
        let (files, broker) = with_messages_for(&["A", "B"], "$share/g/t");
        let mut other = RawClient::resume(broker.addr, "B");
        let before = other.packets_until_ping().len();
        files.refuse_reads(Some(code));
        broker.core.expire_now("A");
        wait_for_reads(&files, MESSAGES);
        assert!(!broker.core.is_leaving_nobody(), "it waits: {code}");
        files.refuse_reads(None);
        for _ in before..MESSAGES {
            other.expect_publish();
        }
        assert_eq!(unreadable(&broker), 0, "{code}");
        broker.kill();
    }
}

/// The control: a disk that is broken there says the same every time, and the rest goes on.
#[test]
fn what_cannot_be_read_at_all_is_given_up() {
    let (files, broker) = with_messages_for(&["A"], "t");
    files.refuse_reads(Some(LASTING));
    let mut member = RawClient::resume(broker.addr, "A");
    let deadline = Instant::now() + DEADLINE;
    while broker.core.has_anything_for("A") {
        assert!(Instant::now() < deadline, "it is asked for without end");
    }
    assert_eq!(unreadable(&broker), MESSAGES as u64);
    member.expect_nothing();
    broker.kill();
}
