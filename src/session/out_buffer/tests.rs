use super::*;
use crate::protocol::QoS;

fn drain(mut output: Output, step: usize) -> Vec<u8> {
    let mut seen = Vec::new();
    while !output.is_empty() {
        let mut slices = [IoSlice::new(&[]); 3];
        let used = output.slices(&mut slices);
        assert!(used > 0, "not empty, yet nothing to write");
        let mut left = step;
        let mut taken = 0;
        for slice in &slices[..used] {
            let n = left.min(slice.len());
            seen.extend_from_slice(&slice[..n]);
            left -= n;
            taken += n;
        }
        output.advance(taken);
    }
    seen
}

#[test]
fn any_partial_writes_give_the_bytes_in_order() {
    let message = Arc::new(Message::new(Arc::from("t"), Box::from(&b"0123456789"[..]), QoS::AtMostOnce));
    for step in 1..40 {
        let mut out = OutBuffer::default();
        out.append(b"head");
        out.append_large(Keep::Always, Arc::clone(&message), |_| ());
        out.append_large(Keep::Always, Arc::clone(&message), |_| ());
        out.append(b"mid");
        out.append_large(Keep::Always, Arc::clone(&message), |_| ());
        out.append(b"tail");
        assert_eq!(out.pending(), 4 + 10 + 10 + 3 + 10 + 4);
        let output = out.take();
        assert!(!out.has_output());
        assert_eq!(drain(output, step), b"head01234567890123456789mid0123456789tail");
    }
}

#[test]
fn pending_counts_until_written() {
    let mut out = OutBuffer::default();
    out.append(b"abc");
    let output = out.take();
    assert_eq!((out.pending(), output.first()), (3, &b"abc"[..]));
    out.append(b"de");
    out.written(2);
    assert_eq!(out.pending(), 3);
}

/// Bytes of an output that are charged to it, without what its pieces take besides.
fn content(out: &OutBuffer) -> usize {
    let room = out.tail.capacity() - out.tail.len();
    out.own_bytes() - room - out.chunks.as_ref().map_or(0, |chunks| chunks.overhead())
}

#[test]
fn a_payload_is_charged_once_and_its_receivers_are_charged_with_the_rest() {
    let accounts = Arc::new(Accounts::default());
    let body = vec![0; 10 * SHARED_UNIT];
    let message = Arc::new(Message::new("t", &body, QoS::AtMostOnce));
    let mut receivers = [OutBuffer::default(), OutBuffer::default()];
    for out in &mut receivers {
        out.append(b"head");
        out.append_large(Keep::Always, Arc::clone(&message), |_| ());
        let before = accounts.total();
        out.charge_to(&accounts);
        assert!([before, accounts.total()].iter().all(|total| [0, message.memory()].contains(total)));
        assert_eq!((out.pending(), content(out)), (4 + body.len(), 4));
    }
    let once = message.memory();
    drop(message);
    assert_eq!(accounts.total(), once);
    for (out, left) in receivers.iter_mut().zip([once, 0]) {
        // Written in part it counts as a whole; what came meanwhile is charged behind it.
        let mut output = out.take();
        output.advance(104);
        let later = Arc::new(Message::new("t", &body, QoS::AtMostOnce));
        out.append_large(Keep::Always, later, |_| ());
        out.put_back(output);
        out.written(104);
        out.charge_to(&accounts);
        assert_eq!((content(out), accounts.total()), (0, once + once.max(left)));
        let mut output = out.take();
        output.advance(2 * body.len() - 100);
        assert!(output.is_empty());
        out.released(output.take_released());
        out.written(2 * body.len() - 100);
        assert_eq!((content(out), out.pending(), accounts.total()), (0, 0, left));
    }
}

#[test]
fn patching_touches_only_the_packet_appended() {
    let mut out = OutBuffer::default();
    out.append(b"xxxx");
    out.append_patched(b"\x30\x05\0\x01t\0\0", 0x32, Some((5, 0x0102)));
    assert_eq!(out.take().first(), b"xxxx\x32\x05\0\x01t\x01\x02");
}

#[test]
fn what_is_put_back_again_and_again_is_in_small_pieces() {
    let mut out = OutBuffer::default();
    for n in 0..4_000_u32 {
        out.append(&n.to_be_bytes().repeat(250));
    }
    let mut seen = Vec::new();
    // A receiver that takes little at a time: each time the rest is put back, under the session's lock.
    while out.has_output() {
        let mut output = out.take();
        let first = output.first();
        assert!(first.len() <= TAIL_BYTES_MAX + 1_000, "a piece of {} bytes is moved", first.len());
        let n = first.len().min(3_000);
        seen.extend_from_slice(&first[..n]);
        output.advance(n);
        out.put_back(output);
        out.written(n);
    }
    let expected: Vec<u8> = (0..4_000_u32).flat_map(|n| n.to_be_bytes().repeat(250)).collect();
    assert!(seen == expected && out.pending() == 0);
}

#[test]
fn what_is_put_back_takes_no_more_room_than_it_needs_and_that_is_charged() {
    // A buffer that was lent, and is much larger than what came into it.
    for large in [false, true] {
        let mut out = OutBuffer::default();
        out.lend(|| Vec::with_capacity(TAIL_BYTES_MAX));
        let message = Arc::new(Message::new("t", vec![0; 20_000], QoS::AtMostOnce));
        for _ in 0..4 {
            out.append(&[0xd0, 0].repeat(500));
            if large {
                out.append_large(Keep::UnlessShort, Arc::clone(&message), |out| out.extend([0x30, 0]));
            }
        }
        assert!(large || out.own_bytes() >= TAIL_BYTES_MAX, "the room counts: {}", out.own_bytes());
        let mut output = out.take();
        output.advance(1);
        out.put_back(output);
        out.written(1);
        assert_eq!(out.pending(), 4_000 - 1 + if large { 4 * 20_002 } else { 0 });
        assert!((4_000..7_000).contains(&out.own_bytes()), "{}", out.own_bytes());
    }
}

#[test]
fn a_connection_that_is_closed_for_want_of_memory_keeps_the_rest_of_a_packet_that_has_begun() {
    let message = Arc::new(Message::new("t", [7; 20], QoS::AtMostOnce));
    let packets = || {
        let mut out = OutBuffer::default();
        out.append(&[0x40, 2, 0, 1]);
        out.append(&[0x40, 2, 0, 2]);
        out.append_large(Keep::UnlessShort, Arc::clone(&message), |out| out.extend([0x30, 23, 0, 1, b't']));
        out.append_large(Keep::Always, Arc::clone(&message), |out| out.extend([0x30, 23, 0, 1, b't']));
        out.append(&[0x40, 2, 0, 3]);
        out
    };
    let ends = [0, 4, 8, 33, 58, 62];
    for written in 0..=62_usize {
        for put_back in [false, true] {
            let mut out = packets();
            let mut output = out.take();
            output.advance(written);
            if put_back {
                out.put_back(output);
                out.written(written);
                output = out.take();
            }
            output.keep_begun();
            let end = *ends.iter().find(|end| **end >= written).expect("within");
            assert_eq!(output.bytes(), end - written, "{written} {put_back}");
            assert_eq!(drain(output, 7).len(), end - written);
        }
    }
}
