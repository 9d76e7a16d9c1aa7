//! Single frames and whole segments are read while the log is written.

use super::*;

#[test]
fn every_frame_is_read_where_it_is() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let mut random = Random(4);
    let mut frames = Vec::new();
    for round in 0..60_usize {
        let bodies = [body(&mut random, round * 60), body(&mut random, 500), body(&mut random, 501)];
        frames.extend(rig.submit(&bodies.each_ref().map(Vec::as_slice), Urgency::Waited));
        rig.turn();
    }
    assert!(rig.log.sealed_segments().len() > 40);
    let again = Rig::open(&files.copy(), SMALL);
    for log in [&rig.log, &again.log] {
        let mut read = b"what was here before".to_vec();
        for (position, body) in frames.iter().rev().chain(&frames) {
            log.read(*position, &mut read).expect("it is there");
            assert!(read == *body);
        }
        let mut window = Window::default();
        let odd = frames.iter().skip(1).step_by(2);
        for (position, body) in frames.iter().chain(frames.iter().rev()).chain(odd) {
            log.read_with(&mut window, *position, &mut read).expect("it is there");
            assert!(read == *body);
        }
        let mut scanned = Vec::new();
        for segment in 1..=frames[frames.len() - 1].0.segment() {
            log.scan_segment(segment, &mut |position, len, body| {
                assert_eq!(len as usize, body.len() + frame::FRAME_HEADER);
                scanned.push((position, body.to_vec()));
            })
            .expect("it is there");
        }
        assert_same(&scanned, &frames);
    }
}

#[test]
fn a_window_does_not_show_what_was_there_before() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let (mut window, mut read) = (Window::default(), Vec::new());
    let first = rig.submit(&[b"one", b"two"], Urgency::Waited);
    rig.turn();
    for (position, body) in &first {
        rig.log.read_with(&mut window, *position, &mut read).expect("it is there");
        assert!(read == *body);
    }
    // Behind what the window has seen; then the same places in a file that takes the place of the first.
    let failing = files.steps().len() as u64 + 2;
    files.on_step(move |step| (step.number == failing).then_some(Fault::Broken));
    let second = rig.submit(&[b"three", b"four"], Urgency::Waited);
    rig.turn();
    rig.log.read_with(&mut window, second[0].0, &mut read).expect("it is written");
    files.heal();
    rig.pass(Duration::from_secs(1));
    rig.turn();
    assert_eq!(rig.log.committed(), end_of(&second[1]));
    for (position, body) in first.iter().chain(&second) {
        rig.log.read_with(&mut window, *position, &mut read).expect("it is there");
        assert!(read == *body);
    }
}

#[test]
fn what_is_not_there_is_told_apart() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, SMALL);
    let mut body = Vec::new();
    let frames = rig.submit(&[b"one", b"two", b"three"], Urgency::Waited);
    assert!(matches!(rig.log.read(frames[0].0, &mut body), Err(ReadError::NotWritten)));
    rig.turn();
    assert_eq!(rig.log.written(), end_of(&frames[2]));
    assert!(matches!(rig.log.read(end_of(&frames[2]), &mut body), Err(ReadError::NotWritten)));
    assert!(matches!(rig.log.read(Position::new(0, 0), &mut body), Err(ReadError::Gone)));
    assert!(rig.log.scan_segment(9, &mut |_, _, _| ()).is_err());
    for offset in 1..12 {
        assert!(matches!(rig.log.read(frames[1].0.plus(offset), &mut body), Err(ReadError::Damaged)));
    }
    let name = files.list().expect("a list").remove(0);
    let sound = files.contents(&name).expect("it is there");
    let start = frame::FILE_HEADER + frames[1].0.offset() as usize;
    for at in start..start + 15 {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        let damaged = files.copy();
        let rig = Rig::open(&damaged, SMALL);
        damaged.set_contents(&name, bytes);
        assert!(matches!(rig.log.read(frames[1].0, &mut body), Err(ReadError::Damaged)), "byte {at}");
        rig.log.read(frames[2].0, &mut body).expect("the next is sound");
        assert_eq!(body, b"three");
        let mut scanned = Vec::new();
        rig.log.scan_segment(1, &mut |position, _, _| scanned.push(position)).expect("it is there");
        assert_eq!(scanned, [frames[0].0, frames[2].0]);
    }
    files.spoil(&name, 0);
    assert!(matches!(rig.log.read(frames[0].0, &mut body), Err(ReadError::Io(_))));
}

#[test]
fn after_a_failed_sync_everything_is_read_from_the_new_file() {
    let files = SimulatedFiles::new(1);
    let mut rig = Rig::open(&files, LogOptions { segment_bytes: 100_000, ..SMALL });
    let mut frames = Vec::new();
    let mut body = Vec::new();
    for round in 0..12_u8 {
        if round % 3 == 1 {
            let mut left = 1 + round / 3 % 2;
            files.on_step(move |step| {
                let fails = step.kind == StepKind::Sync && left > 0;
                left -= u8::from(fails);
                fails.then_some(Fault::Broken)
            });
        }
        frames.extend(rig.submit(&[&[round; 700], &[round; 7]], Urgency::Waited));
        rig.turn();
        while rig.log.status().failing {
            assert!(rig.log.committed() < end_of(&frames[frames.len() - 1]));
            rig.pass(Duration::from_millis(250));
            rig.turn();
        }
        assert_eq!(rig.log.committed(), end_of(&frames[frames.len() - 1]));
        for (position, expected) in &frames {
            rig.log.read(*position, &mut body).expect("it is there");
            assert!(body == *expected);
        }
    }
    // A file for each time, each with what follows the last good sync.
    assert_eq!(files.list().expect("a list").len(), 5);
    let mut scanned = Vec::new();
    let visit = &mut |position, _, body: &[u8]| scanned.push((position, body.to_vec()));
    rig.log.scan_segment(1, visit).expect("it is there");
    assert_same(&scanned, &frames);
    let status = rig.log.status();
    assert_eq!((status.sync_failures, status.write_failures), (4, 2));
    for seed in 0..20 {
        let again = Rig::open(&files.after_power_cut(seed), SMALL);
        assert_same(&again.found.frames, &frames);
        assert_eq!(again.report.segments, 1);
    }
}

/// Two threads make names; the sync that fails is the other's.
#[test]
fn a_failed_sync_of_names_is_nobodys_alone() {
    let files = SimulatedFiles::new(1);
    let directory = crate::storage::directory::Directory::new(Arc::new(files.clone()));
    let since = directory.failures();
    directory.create("mine").expect("it is made");
    files.on_step(|step| (step.kind == StepKind::SyncDir).then_some(Fault::Broken));
    assert!(directory.sync_names(directory.failures()).is_err());
    files.heal();
    // It would succeed, and the name is not safe.
    assert!(directory.sync_names(since).is_err());
    assert!((0..20).any(|seed| files.after_power_cut(seed).contents("mine").is_none()));
    let since = directory.failures();
    directory.rename("mine", "still mine").expect("it is renamed");
    directory.sync_names(since).expect("nothing has failed since");
    assert!((0..20).all(|seed| files.after_power_cut(seed).contents("still mine").is_some()));
}

/// Whoever is told so asks again, and whoever is told otherwise has lost the message.
#[test]
fn a_read_that_may_succeed_later_says_so() {
    let io = |code| ReadError::Io(std::io::Error::from_raw_os_error(code));
    // ENFILE, EMFILE, ENOMEM, EAGAIN, EINTR.
    for error in [ReadError::NotWritten, io(23), io(24), io(12), io(11), io(4)] {
        assert!(error.is_passing(), "{error:?}");
    }
    // EIO, EACCES, and a segment that is not there.
    for error in [ReadError::Gone, ReadError::Damaged, io(5), io(13), io(2)] {
        assert!(!error.is_passing(), "{error:?}");
    }
}
