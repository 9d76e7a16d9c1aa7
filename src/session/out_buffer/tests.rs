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
        assert_eq!((out.pending(), out.own_bytes()), (4 + body.len(), 4));
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
        assert_eq!((out.own_bytes(), accounts.total()), (0, once + once.max(left)));
        let mut output = out.take();
        output.advance(2 * body.len() - 100);
        assert!(output.is_empty());
        out.released(output.take_released());
        out.written(2 * body.len() - 100);
        assert_eq!((out.own_bytes(), out.pending(), accounts.total()), (0, 0, left));
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
