//! The end of a log: its thread ends with it, whatever way it ends, and nothing is written after
//! that.

use std::thread;

use super::*;
use crate::logging::tests::Lines;

fn open(files: Arc<dyn Files>, found: &mut Found) -> Arc<Log> {
    let ledger = Arc::new(Ledger::default());
    Log::open(files, LogOptions::default(), ledger, found).expect("it opens").0
}

fn wait(log: &Log, end: Position) -> bool {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(log.wait_unless_closed(end))
}

#[test]
fn a_log_that_is_dropped_has_written_what_it_took_and_lets_the_next_one_begin() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut expected = Vec::new();
    // Without a pause: a thread that lived on would make the file that the next one wants to make.
    for n in 0..20_u8 {
        let files = Arc::new(DirFiles::new(directory.path()).expect("it is there"));
        let mut found = Found::default();
        let log = open(files, &mut found);
        let bodies: Vec<Vec<u8>> = found.frames.into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, expected);
        submit(&log, &[&[n]], Urgency::Lazy);
        expected.push(vec![n]);
        if n % 2 == 0 {
            let end = submit(&log, &[b"waited"], Urgency::Waited).0.end;
            expected.push(b"waited".to_vec());
            assert!(wait(&log, end), "{:?}", log.status());
        }
        drop(log);
    }
}

#[test]
fn what_is_closed_changes_nothing_any_more_and_lets_go_of_the_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("lock");
    let lock = || std::fs::File::create(&path).expect("a file");
    let held = lock();
    held.try_lock().expect("nobody has it");
    let files = Arc::new(DirFiles::new(directory.path()).expect("it is there").with_lock(held));
    let log = open(Arc::clone(&files) as Arc<dyn Files>, &mut Found::default());
    let mut checkpoint = log.begin_checkpoint().expect("it begins");
    let end = submit(&log, &[b"a"], Urgency::Waited).0.end;
    assert!(wait(&log, end));
    lock().try_lock().expect_err("as long as anything can be written");
    let other = files.create("other").expect("it is made");
    log.close();
    lock().try_lock().expect("as soon as nothing can");
    assert!(
        files.create("more").is_err()
            && files.remove("other").is_err()
            && files.rename("other", "b").is_err()
    );
    assert!(other.write_at(b"x", 0).is_err() && other.sync().is_err() && files.sync_dir().is_err());
    assert!(checkpoint.frame(&[0; 100_000]).and_then(|()| checkpoint.finish(Position::START)).is_err());
    // What is there can still be read.
    log.read(end_before(end), &mut Vec::new()).expect("it is there");
    assert!(!wait(&log, submit(&log, &[b"b"], Urgency::Waited).0.end), "nobody waits for ever");
}

fn end_before(end: Position) -> Position {
    Position::new(end.segment(), end.offset() - (frame::FRAME_HEADER + 1) as u32)
}

#[test]
fn a_panic_of_the_writer_is_told_and_closes_the_log() {
    let files = SimulatedFiles::new(1);
    let log = open(Arc::new(files.clone()), &mut Found::default());
    let end = submit(&log, &[b"a"], Urgency::Waited).0.end;
    assert!(wait(&log, end));
    assert!(!log.has_panicked());
    files.on_step(|step| if step.kind == StepKind::Write { panic!("a fault of the writer") } else { None });
    let end = submit(&log, &[b"b"], Urgency::Waited).0.end;
    let waiting = {
        let log = Arc::clone(&log);
        thread::spawn(move || wait(&log, end))
    };
    assert!(!waiting.join().expect("it ends"), "what was not written was committed");
    assert!(log.has_panicked() && log.is_closed());
}

#[test]
fn an_empty_file_in_the_place_of_a_new_segment_is_taken_and_any_other_is_left() {
    for (contents, writes) in [(Vec::new(), true), (vec![1], false)] {
        let files = SimulatedFiles::new(1);
        let mut rig = Rig::open(&files, SMALL);
        let name = "segment-00000001-00000000.log";
        files.set_contents(name, contents.clone());
        let (submitted, _) = submit(&rig.log, &[b"a"], Urgency::Waited);
        rig.turn();
        assert_eq!(rig.log.committed() >= submitted.end, writes);
        assert_eq!(rig.log.status().failing, !writes);
        assert_eq!(files.contents(name).expect("it is there") == contents, !writes);
    }
}

#[test]
fn a_file_system_without_syncs_of_directories_is_told_once() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, || {
        // What the kernel makes up itself cannot be synced: EINVAL.
        let files = DirFiles::new(std::path::Path::new("/proc")).expect("it is there");
        for _ in 0..3 {
            files.sync_dir().expect("as good as done");
        }
    });
    let told = lines.text().lines().filter(|line| line.contains("cannot sync names")).count();
    assert_eq!(told, 1, "{}", lines.text());
}
