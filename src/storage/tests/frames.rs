//! The format, byte by byte.

use super::frame::*;
use super::*;

#[test]
fn a_file_looks_as_documented() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    rig.submit(&[b"ab", b"c"], Urgency::Waited);
    rig.turn();
    rig.submit(&[b"de"], Urgency::Waited);
    rig.turn();
    rig.close();
    let bytes = files.contents("segment-00000001-00000000.log").expect("named as documented");
    let tag = number(&bytes, 20);
    assert!(tag != 0 && tag >> 31 == 0);
    let mut expected = b"TernMQ\r\n\x01\0\x01\0\x01\0\0\0\0\0\0\0".to_vec();
    expected.extend(tag.to_le_bytes());
    expected.extend([0; 4]);
    expected.extend(crc32fast::hash(&expected).to_le_bytes());
    // What mix makes of segment 1 and these offsets, from another implementation of it.
    for (offset, mix, tag, body) in [
        (0_u32, 0x10b0_f93f, !tag, &b"ab"[..]),
        (14, 0x6c10_885d, tag, b"c"),
        (27, 0x3030_a4b9, !tag, b"de"),
        (41, 0xb59f_4dc9, !tag, b""),
    ] {
        assert_eq!(expected.len(), FILE_HEADER + offset as usize);
        let mut checked = (body.len() as u32).to_le_bytes().to_vec();
        checked.extend(body);
        expected.extend(tag.to_le_bytes());
        expected.extend(&checked[..4]);
        expected.extend((crc32fast::hash(&checked) ^ mix).to_le_bytes());
        expected.extend(body);
    }
    assert_eq!(bytes, expected);
}

#[test]
fn a_checkpoint_looks_as_documented() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    rig.submit(&[b"ab"], Urgency::Waited);
    assert!(checkpoint(&mut rig, vec![b"state".to_vec()], &mut Account::default()));
    let bytes = files.contents("checkpoint-00000001-0000000e.log").expect("named as documented");
    assert_eq!((bytes[10], number(&bytes, 12), number(&bytes, 16)), (2, 1, 14));
    let frame = &bytes[FILE_HEADER..FILE_HEADER + 17];
    assert_eq!((number(frame, 0), number(frame, 4)), (number(&bytes, 20), 5));
    assert_eq!(number(frame, 8) ^ crc32fast::hash(b"\x05\0\0\0state"), 0xb52e_177d);
    let end = &bytes[FILE_HEADER + 17..];
    assert_eq!((end.len(), number(end, 0), number(end, 4)), (12, !number(&bytes, 20), 0));
}

#[test]
fn headers_and_names_come_back() {
    let header = FileHeader { kind: Kind::Segment, segment: 0xab, offset: 0x1000, tag: 77 };
    assert_eq!(header.name(), "segment-000000ab-00001000.log");
    for kind in [Kind::Segment, Kind::Checkpoint] {
        let header = FileHeader { kind, ..header };
        assert_eq!(FileHeader::decode(&header.encode()), Ok(header));
        assert_eq!(FileHeader::from_name(&header.name()), Some(FileHeader { tag: 0, ..header }));
        for at in 0..FILE_HEADER {
            let mut bytes = header.encode();
            bytes[at] ^= 1;
            assert_eq!(FileHeader::decode(&bytes), Err(HeaderFault::Unreadable), "byte {at}");
        }
    }
    for name in ["segment-000000AB-00001000.log", "segment-ab-1000.log", "segment-+00000ab-00001000.log", "x"]
    {
        assert_eq!(FileHeader::from_name(name), None);
    }
}

#[test]
fn a_batch_says_where_its_frames_are() {
    let mut batch = Batch::default();
    assert!(batch.is_empty());
    let mut frame = |body: &[u8]| {
        batch.begin();
        batch.body().extend_from_slice(body);
        batch.end()
    };
    assert_eq!(frame(b"12345"), FrameAt { offset: 0, len: 17 });
    assert_eq!(frame(b""), FrameAt { offset: 17, len: 0 });
    assert_eq!(frame(b"1"), FrameAt { offset: 17, len: 13 });
    assert_eq!((batch.bytes(), batch.is_empty()), (30, false));
}
