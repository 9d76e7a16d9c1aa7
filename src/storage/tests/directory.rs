//! The same on a real directory.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

fn open(path: &Path, options: LogOptions) -> Rig {
    let files = DirFiles::new(path).expect("the directory is there");
    Rig::try_open(Arc::new(files), options).expect("it opens")
}

fn names(path: &Path) -> Vec<String> {
    let mut names = DirFiles::new(path).and_then(|files| files.list()).expect("a list");
    names.sort();
    names
}

fn deeds() -> Vec<Deed> {
    let mut deeds = Vec::new();
    for round in 0..10_usize {
        deeds.push(Deed::Submit(vec![1 + round, 700, 40], Urgency::Waited));
        deeds.push(Deed::Turn(1));
        if round % 4 == 3 {
            deeds.push(Deed::Checkpoint(round));
            deeds.push(Deed::Free);
        }
    }
    deeds
}

#[test]
fn everything_is_found_again() {
    for sync in [Sync::Always, Sync::Interval(Duration::from_secs(9)), Sync::Never] {
        for in_order in [true, false] {
            let directory = tempfile::tempdir().expect("a directory");
            let options = LogOptions { sync, ..SMALL };
            let mut account = Account::default();
            for _ in 0..3 {
                let mut rig = open(directory.path(), options);
                account.check(&rig.found);
                assert_eq!(rig.report.damage, []);
                perform(&deeds(), &mut rig, &SimulatedFiles::new(0), &mut account);
                let mut body = Vec::new();
                for (position, expected) in &account.submitted {
                    if !account.freed.contains(&position.segment()) {
                        rig.log.read(*position, &mut body).expect("it is there");
                        assert!(body == *expected);
                    }
                }
                if in_order {
                    rig.close();
                }
            }
            account.check(&open(directory.path(), options).found);
        }
    }
}

#[test]
fn files_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rig = open(directory.path(), SMALL);
    rig.submit(&[b"secret"], Urgency::Waited);
    assert!(checkpoint(&mut rig, vec![b"state".to_vec()], &mut Account::default()));
    assert_eq!(names(directory.path()).len(), 2);
    for name in names(directory.path()) {
        let mode = fs::metadata(directory.path().join(name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn damage_is_kept_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut rig = open(directory.path(), SMALL);
    let frames = rig.submit(&[b"one", b"two", b"three"], Urgency::Waited);
    rig.turn();
    rig.close();
    let name = "segment-00000001-00000000.log";
    let path = directory.path().join(name);
    let sound = fs::read(&path).expect("it is there");
    let mut bytes = sound.clone();
    bytes[32 + 15 + 13] ^= 1;
    bytes.extend(b"garbage");
    fs::write(&path, &bytes).expect("it is written");
    let rig = open(directory.path(), SMALL);
    assert_same(&rig.found.frames, &[frames[0].clone(), frames[2].clone()]);
    let kept: Vec<_> = rig.report.damage.iter().map(|damage| damage.kept_as.clone().expect("kept")).collect();
    assert_eq!(kept.len(), 2);
    assert_eq!(fs::read(directory.path().join(&kept[0])).expect("kept"), bytes[47..62]);
    assert_eq!(fs::read(directory.path().join(&kept[1])).expect("kept"), b"garbage");
    let before = names(directory.path());
    drop(rig);
    let rig = open(directory.path(), SMALL);
    assert_eq!((names(directory.path()), rig.report.damage.len()), (before, 1));
}

#[test]
fn what_is_no_file_of_the_log_stays() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("lock"), "4711").expect("it is written");
    fs::create_dir(directory.path().join("segment-00000005-00000000.log")).expect("it is made");
    let rig = open(directory.path(), SMALL);
    rig.close();
    assert_eq!(names(directory.path()), ["lock"]);
    assert_eq!(fs::read(directory.path().join("lock")).expect("it is there"), b"4711");
}

#[test]
fn a_directory_that_is_none_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    assert!(DirFiles::new(&directory.path().join("missing")).is_err());
    let files = DirFiles::new(directory.path()).expect("it is there");
    drop(directory);
    assert!(Rig::try_open(Arc::new(files), SMALL).is_err());
}
