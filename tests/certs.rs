//! The script that makes certificates to try TLS with: what it makes is valid, private, and what it was asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn generate(out: &Path, arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("certs/generate.sh");
    Command::new("sh").arg(script).arg("--out").arg(out).args(arguments).output().expect("sh")
}

fn openssl(out: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("openssl").args(arguments).current_dir(out).output().expect("openssl");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn verifies(out: &Path, purpose: &str, certificate: &str) -> bool {
    openssl(out, &["verify", "-x509_strict", "-CAfile", "ca.crt", "-purpose", purpose, certificate]).0
}

#[test]
fn certificates_are_valid_private_and_renewable() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("o u t");
    let made = generate(&out, &["--server", "broker.lan,10.1.2.3,fd00::1", "--client", "sensor-1"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let mut names: Vec<String> = Vec::new();
    for entry in fs::read_dir(&out).expect("made") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("UTF-8");
        let mode = entry.metadata().expect("there").permissions().mode() & 0o777;
        assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["ca.crt", "ca.key", "sensor-1.crt", "sensor-1.key", "server.crt", "server.key"]);

    assert!(verifies(&out, "sslserver", "server.crt"));
    assert!(verifies(&out, "sslclient", "sensor-1.crt"));
    assert!(!verifies(&out, "sslclient", "server.crt"), "a server's certificate is none for a client");
    assert!(!verifies(&out, "sslserver", "sensor-1.crt"), "a client's certificate is none for a server");
    for (option, name) in [
        ("-checkhost", "localhost"),
        ("-checkhost", "broker.lan"),
        ("-checkip", "127.0.0.1"),
        ("-checkip", "::1"),
        ("-checkip", "10.1.2.3"),
        ("-checkip", "fd00::1"),
    ] {
        let (_, answer) = openssl(&out, &["x509", "-in", "server.crt", "-noout", option, name]);
        assert!(answer.contains("does match"), "{name}: {answer}");
    }

    let read = |name: &str| fs::read(out.join(name)).expect("there");
    let (ca, server) = (read("ca.crt"), read("server.crt"));
    assert!(generate(&out, &[]).status.success());
    assert_eq!(read("ca.crt"), ca, "the CA stays");
    assert_ne!(read("server.crt"), server, "the server's is new");
    assert!(verifies(&out, "sslclient", "sensor-1.crt") && verifies(&out, "sslclient", "client.crt"));
    assert!(generate(&out, &["--new-ca"]).status.success());
    assert_ne!(read("ca.crt"), ca);
    assert!(verifies(&out, "sslserver", "server.crt") && !verifies(&out, "sslclient", "sensor-1.crt"));
}

#[test]
fn bad_options_make_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("out");
    for arguments in [
        &["--client", "../x"] as &[&str],
        &["--client", "ca"],
        &["--client", ""],
        &["--client"],
        &["--server", "a\nb"],
        &["--server", "a b"],
        &["--days", "0"],
        &["--days", "x"],
        &["--frce"],
    ] {
        let output = generate(&out, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("generate.sh: "), "{arguments:?}");
        assert!(!out.exists(), "{arguments:?}");
    }
}
