//! `ternmq passwd` from outside: files made, changed, checked; what is printed, and exit codes.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A line of another user that no check of this file computes.
const BOB: &str = "bob:$6$MDEyMzQ1Njc4OQ==$wMa7gOYw+pulDrzNedsiMRJX6fb5BfNcnZvsP6DcH9ZhG6G+eIOvkJmjMB/TThCH2nSkE2DdnaEtJclTldCukw==";

struct Ran {
    code: Option<i32>,
    stderr: String,
}

/// Runs `ternmq passwd` with these bytes on standard input; nothing may come on standard output.
fn passwd(arguments: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ternmq"))
        .arg("passwd")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("piped").write_all(input);
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the program ends");
    assert_eq!(String::from_utf8_lossy(&stdout), "");
    Ran { code: status.code(), stderr: String::from_utf8(stderr).expect("UTF-8") }
}

/// Runs it and expects that it says nothing and succeeds.
fn succeeds(arguments: &[&str], input: &[u8]) {
    let ran = passwd(arguments, input);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{arguments:?}");
}

fn is_right(file: &str, user: &str, password: &str) -> bool {
    match passwd(&[file, user, "--check"], password.as_bytes()) {
        Ran { code: Some(0), stderr } if stderr.is_empty() => true,
        Ran { code: Some(1), stderr }
            if stderr == "ternmq: the password is wrong, or there is no such user\n" =>
        {
            false
        }
        Ran { code, stderr } => panic!("exit code {code:?}: {stderr}"),
    }
}

/// A directory, and the path of a password file in it.
fn place() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("passwords").to_str().expect("UTF-8").to_owned();
    (directory, path)
}

fn read(path: &str) -> String {
    fs::read_to_string(path).expect("readable")
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).expect("there").mode() & 0o777
}

fn names(directory: &Path) -> usize {
    fs::read_dir(directory).expect("a directory").count()
}

#[test]
fn a_user_is_made_changed_checked_and_deleted() {
    let (directory, path) = place();
    succeeds(&[&path, "ada"], b"first\n");
    assert!(read(&path).starts_with("ada:$argon2id$v=19$m=19456,t=2,p=1$"));
    assert_eq!(mode(&path), 0o600);
    assert!(is_right(&path, "ada", "first\n"));
    assert!(is_right(&path, "ada", "first"));
    assert!(is_right(&path, "ada", "first\r\n"));
    assert!(!is_right(&path, "ada", "second\n"));
    assert!(!is_right(&path, "ada", "\n"));
    assert!(!is_right(&path, "eve", "first\n"));

    succeeds(&[&path, "ada"], b"second\n");
    assert!(!is_right(&path, "ada", "first\n") && is_right(&path, "ada", "second\n"));
    assert_eq!(read(&path).lines().count(), 1);

    succeeds(&[&path, "ada", "--delete"], b"");
    assert_eq!(read(&path), "");
    assert!(!is_right(&path, "ada", "second\n"));
    assert_eq!(names(directory.path()), 1, "nothing else is left");
}

#[test]
fn only_the_users_line_changes() {
    let (_directory, path) = place();
    let before = format!("# made by hand\n\n{BOB}\nada:$6$old$hash\n  # note\nno colon\r\n");
    fs::write(&path, &before).expect("a file");
    let ran = passwd(&[&path, "ada"], b"new\n");
    assert_eq!(ran.code, Some(0));
    let expected = format!(
        "warning: {path}:5: expected user:hash, but there is no colon\n\
         warning: {path}:6: expected user:hash, but there is no colon\n\
         warning: the lines above are kept, but no broker will start with them\n"
    );
    assert_eq!(ran.stderr, expected);
    let after = read(&path);
    let changed = after.lines().nth(3).expect("a line").to_owned();
    assert!(changed.starts_with("ada:$argon2id$"), "{changed}");
    assert_eq!(after, before.replace("ada:$6$old$hash", &changed));

    let ran = passwd(&[&path, "ada", "--delete"], b"");
    assert_eq!(ran.code, Some(0));
    assert_eq!(read(&path), before.replace("ada:$6$old$hash\n", ""));
}

#[test]
fn modes_and_links_stay_as_the_owner_wants_them() {
    let (directory, path) = place();
    fs::write(&path, BOB).expect("a file");
    for (before, after) in [(0o644, 0o600), (0o600, 0o600), (0o400, 0o400), (0o640, 0o640)] {
        fs::set_permissions(&path, PermissionsExt::from_mode(before)).expect("ours");
        succeeds(&[&path, "ada"], b"x\n");
        assert_eq!(mode(&path), after, "{before:o}");
    }
    let link = directory.path().join("link");
    symlink("passwords", &link).expect("a link");
    let link = link.to_str().expect("UTF-8");
    succeeds(&[link, "eve"], b"y\n");
    assert!(fs::symlink_metadata(link).expect("there").is_symlink());
    assert!(is_right(&path, "eve", "y") && is_right(link, "ada", "x"));
    assert_eq!(names(directory.path()), 2);
}

#[test]
fn owner_and_group_stay() {
    let (_directory, path) = place();
    fs::write(&path, BOB).expect("a file");
    // Only root may give files away; others see that theirs stay theirs.
    let _ = std::os::unix::fs::chown(&path, Some(65_534), Some(65_534));
    let before = fs::metadata(&path).expect("there");
    succeeds(&[&path, "ada"], b"x\n");
    let after = fs::metadata(&path).expect("there");
    assert_eq!((after.uid(), after.gid()), (before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino(), "it was replaced, not written over");
}

#[test]
fn passwords_may_be_anything_but_nothing() {
    let (_directory, path) = place();
    let longest = "p".repeat(65_535);
    for password in [" ", "a b ", "Größe 7! 😀", "$6$a$b:c#", &longest] {
        succeeds(&[&path, "ada"], format!("{password}\nnot this line\n").as_bytes());
        assert!(is_right(&path, "ada", password));
        let shorter = password.trim_end_matches([' ', 'p']);
        assert_eq!(is_right(&path, "ada", &format!("{shorter}\n")), shorter == password);
    }
    let before = read(&path);
    let too_long = format!("{longest}p\n");
    for (input, complaint) in [
        ("", "there is no password on standard input"),
        ("\n", "the password is empty"),
        ("\r\n", "the password is empty"),
        (too_long.as_str(), "the password is longer than the 65,535 bytes that CONNECT can carry"),
    ] {
        let ran = passwd(&[&path, "ada"], input.as_bytes());
        assert_eq!((ran.code, ran.stderr), (Some(1), format!("ternmq: {complaint}\n")));
    }
    assert_eq!(read(&path), before);
    // Bytes that are no text, too.
    succeeds(&[&path, "ada"], b"\xff\x00\xfe\n");
    assert_eq!(passwd(&[&path, "ada", "--check"], b"\xff\x00\xfe\n").code, Some(0));
    assert_eq!(passwd(&[&path, "ada", "--check"], b"\xff\n").code, Some(1));
}

#[test]
fn names_that_a_file_cannot_hold_are_refused() {
    let (directory, path) = place();
    for name in ["", "a:b", "#a", " a", "a ", "a\nb"] {
        let ran = passwd(&[&path, name], b"x\n");
        assert_eq!(ran.code, Some(2), "{name:?}");
        assert!(ran.stderr.starts_with("ternmq: ") && ran.stderr.lines().count() == 1, "{}", ran.stderr);
    }
    assert_eq!(names(directory.path()), 0, "no file was made for them");
    succeeds(&[&path, "ü b/+#$"], b"x\n");
    assert!(is_right(&path, "ü b/+#$", "x"));
    // Two tasks at one time are none.
    assert_eq!(passwd(&[&path, "--delete", "--check", "ada"], b"").code, Some(2));
}

#[test]
fn what_is_not_there_or_no_file_is_told() {
    let (directory, path) = place();
    for flag in ["--delete", "--check"] {
        let ran = passwd(&[&path, "ada", flag], b"x\n");
        assert_eq!(ran.code, Some(1), "{flag}");
        assert!(ran.stderr.contains(&path), "{}", ran.stderr);
    }
    assert_eq!(names(directory.path()), 0);
    fs::write(&path, BOB).expect("a file");
    let ran = passwd(&[&path, "ada", "--delete"], b"");
    assert_eq!(
        (ran.code, ran.stderr),
        (Some(1), format!("ternmq: there is no user \"ada\" in the password file {path}\n"))
    );
    assert_eq!(read(&path), BOB);
    let ran = passwd(&[directory.path().to_str().expect("UTF-8"), "ada"], b"x\n");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("is no regular file"), "{}", ran.stderr);
    let ran = passwd(&[&format!("{path}/nowhere"), "ada"], b"x\n");
    assert_eq!(ran.code, Some(1));
}

#[test]
fn faults_of_a_file_are_all_told_and_no_hash_with_them() {
    let (_directory, path) = place();
    fs::write(&path, format!("{BOB}\nada:SECRET\n{BOB}\neve:$6$SECRET\n")).expect("a file");
    let ran = passwd(&[&path, "bob", "--check"], b"x\n");
    assert_eq!(ran.code, Some(2));
    assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
    for part in [":2: user \"ada\"", "`ternmq passwd`", ":3: user \"bob\" is on line 1", ":4: user \"eve\""] {
        assert!(ran.stderr.contains(part), "no {part} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("SECRET"), "{}", ran.stderr);
    // The way out that the fault names is one.
    assert_eq!(passwd(&[&path, "ada"], b"x\n").code, Some(0));
    assert_eq!(passwd(&[&path, "bob"], b"y\n").code, Some(0));
    succeeds(&[&path, "eve", "--delete"], b"");
    assert!(is_right(&path, "ada", "x") && is_right(&path, "bob", "y"));
}

#[test]
fn users_added_at_one_time_are_all_there() {
    let (_directory, path) = place();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let path = &path;
            scope.spawn(move || succeeds(&[path, &format!("user-{n}")], format!("pw-{n}\n").as_bytes()));
        }
    });
    assert_eq!(read(&path).lines().count(), 6);
    for n in 0..6 {
        assert!(is_right(&path, &format!("user-{n}"), &format!("pw-{n}")));
    }
}
