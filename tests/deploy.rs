//! What is in `deploy/` besides the sample configuration, which `config.rs` checks: the systemd unit.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `systemd-analyze security` may say at most; `deploy/README.md` has what it consists of, and when it was measured.
const EXPOSURE_MAX: f64 = 1.2;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ternmq.service")
}

#[test]
fn the_unit_can_be_reloaded() {
    let unit = std::fs::read_to_string(unit()).expect("readable");
    assert!(unit.lines().any(|line| line == "ExecReload=/bin/kill -HUP $MAINPID"));
}

#[test]
fn the_sandbox_of_the_unit_does_not_get_weaker() {
    let analyzed = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager"])
        .arg(unit())
        .env("LC_ALL", "C.UTF-8")
        .output();
    let output = match analyzed {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!(
                "skipped: there is no systemd-analyze here, so nobody has judged the sandbox of deploy/ternmq.service"
            );
            return;
        }
        output => output.expect("systemd-analyze runs"),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("Overall exposure level"));
    let exposure: Option<f64> = line
        .and_then(|line| line.rsplit_once(": "))
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    let complaints = String::from_utf8_lossy(&output.stderr);
    let exposure = exposure.unwrap_or_else(|| panic!("no exposure level: {text}{complaints}"));
    assert!(exposure <= EXPOSURE_MAX, "{exposure} instead of {EXPOSURE_MAX}:\n{text}");
}
