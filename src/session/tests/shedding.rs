//! What is left out of output and queue when memory is short.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::out_buffer::Keep;
use super::wire::*;
use crate::protocol::QoS::{AtLeastOnce, AtMostOnce};
use crate::session::{Message, OutBuffer, SessionLimits, Shed, Sheddable};

/// A packet of the model: whether it may be left out, and its bytes.
#[derive(Debug, Clone)]
enum Step {
    Small(bool, usize),
    Large(bool, usize),
    Acks,
    /// So many bytes are written of what was taken; the rest is put back.
    Write(usize),
    Shed(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 1_usize..60_000).prop_map(|(droppable, len)| Step::Small(droppable, len)),
        3 => (any::<bool>(), 1_usize..60_000).prop_map(|(droppable, len)| Step::Large(droppable, len)),
        1 => Just(Step::Acks),
        4 => (0_usize..200_000).prop_map(Step::Write),
        2 => (0_usize..300_000).prop_map(Step::Shed),
    ]
}

/// A packet that can be found again: a fixed header, its number and whether it may be left out, then its number over and over.
fn packet(number: u32, droppable: bool, len: usize) -> Vec<u8> {
    let rest = len + HEAD - 5;
    let mut bytes = vec![0x30];
    bytes.extend([0, 7, 14].map(|shift| (rest >> shift) as u8 | 0x80));
    bytes.push((rest >> 21) as u8);
    bytes.extend(number.to_be_bytes());
    bytes.push(droppable.into());
    bytes.extend(number.to_be_bytes().iter().cycle().take(len));
    bytes
}

const HEAD: usize = 10;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn what_is_sent_is_whole_packets_in_order_and_only_what_may_is_left_out(
        steps in prop::collection::vec(step(), 1..120)
    ) {
        let mut out = OutBuffer::default();
        let mut sent: Vec<(bool, Vec<u8>)> = Vec::new();
        let mut written: Vec<u8> = Vec::new();
        let (mut lost, mut lost_bytes) = (0, 0);
        for step in steps.into_iter().chain([Step::Write(usize::MAX)]) {
            let number = sent.len() as u32;
            match step {
                Step::Small(droppable, len) => {
                    let bytes = packet(number, droppable, len);
                    if droppable {
                        out.append_patched(&bytes, bytes[0], None);
                    } else {
                        out.append(&bytes);
                    }
                    sent.push((droppable, bytes));
                }
                Step::Large(droppable, len) => {
                    let bytes = packet(number, droppable, len);
                    let keep = if droppable { Keep::UnlessShort } else { Keep::Always };
                    let message = Message::new(Arc::from("t"), Box::from(&bytes[HEAD..]), AtMostOnce);
                    out.append_large(keep, Arc::new(message), |out| out.extend_from_slice(&bytes[..HEAD]));
                    sent.push((droppable, bytes));
                }
                Step::Acks => {
                    let bytes = packet(number, false, 4);
                    out.append_with(Keep::Always, |out| out.extend_from_slice(&bytes));
                    sent.push((false, bytes));
                }
                Step::Write(mut n) => {
                    let mut output = out.take();
                    let before = written.len();
                    while n > 0 && !output.is_empty() {
                        let piece = output.first();
                        let some = piece.len().min(n);
                        written.extend_from_slice(&piece[..some]);
                        n -= some;
                        output.advance(some);
                    }
                    out.put_back(output);
                    out.written(written.len() - before);
                }
                Step::Shed(wanted) => {
                    let (pending, droppable) = (out.pending(), out.droppable());
                    let (messages, bytes) = out.shed(wanted);
                    prop_assert!(bytes >= wanted.min(droppable) && bytes <= droppable);
                    prop_assert_eq!(out.droppable(), droppable - bytes);
                    prop_assert_eq!(out.pending(), pending - bytes);
                    lost += messages;
                    lost_bytes += bytes;
                }
            }
        }
        prop_assert_eq!(out.pending(), 0);
        prop_assert_eq!(written.len() + lost_bytes, sent.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
        let mut rest = &written[..];
        let mut missing = 0;
        for (droppable, bytes) in &sent {
            match rest.strip_prefix(&bytes[..]) {
                Some(behind) => rest = behind,
                None => {
                    prop_assert!(*droppable, "a packet that must be sent is missing");
                    missing += 1;
                }
            }
        }
        prop_assert!(rest.is_empty());
        prop_assert_eq!(missing, lost);
    }
}

fn limits_for_shedding() -> SessionLimits {
    SessionLimits { queue_bytes_max: 10_000_000, queue_messages_max: 1_000, ..limits() }
}

#[test]
fn qos_0_goes_first_then_what_waits_oldest_first() {
    let mut session = connected(limits_for_shedding());
    write_all(&mut session);
    let body = vec![b'x'; 20_000];
    for _ in 0..10 {
        deliver(&mut session, &body, AtMostOnce);
    }
    for _ in 0..100 {
        deliver(&mut session, &body, AtLeastOnce);
    }
    let (held, queued) = (session.holds(), session.queued());
    assert!(queued > 50 && held > 1_500_000, "{queued} {held}");
    let Shed { messages, bytes } = session.shed(100_000, Sheddable::Any);
    assert_eq!((messages, session.queued()), (5, queued));
    assert!(session.holds() <= held - bytes);
    // Nothing of the output is written: all of it may go.
    let shed = session.shed(1_000_000, Sheddable::AtMostOnce);
    assert_eq!((shed.messages, session.queued()), (5, queued));
    assert_eq!(session.holds_of(Sheddable::AtMostOnce), 0);
    assert_eq!(session.shed(100_000, Sheddable::AtMostOnce), Shed::default());
    // Last those that were sent and may have to be sent again: they go on without that.
    let unfinished = session.unfinished();
    assert!(unfinished > 0);
    let shed = session.shed(usize::MAX, Sheddable::Any);
    assert_eq!((shed.messages, session.queued()), (queued + unfinished, 0));
    assert_eq!(session.unfinished(), unfinished);
    assert_eq!(session.shed(usize::MAX, Sheddable::Any), Shed::default());
    assert_eq!(session.holds(), session.out.memory());
}
