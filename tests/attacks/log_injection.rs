//! Forging the log: whatever clients call themselves and their topics, each event is one line, with the fields that the broker gave it.

use std::fs;
use std::path::Path;

use crate::house::refusal;
use crate::program::Program;
use crate::support::wire::{self, Connect};
use crate::support::wire5::Connect5;
use crate::support::{RawClient, RawClient5};
use crate::token::{self, of};

/// What one would write in order to end a line, begin another, add a field, move a terminal's cursor or turn the writing around.
fn names() -> Vec<String> {
    let mut names: Vec<String> = [
        "a\nb",
        "a\r\nb",
        "a\rb",
        "x\n2026-01-01T00:00:00.000000Z  WARN ternmq::auth::gate: login banned: peer=10.0.0.1:1 user_name=admin",
        "\u{1b}[2K\u{1b}[1A\u{1b}]0;title\u{7}",
        "\u{9b}2J\u{85}\u{8}\u{7f}",
        "a\u{2028}b\u{2029}c",
        "\u{202e}nimda\u{202c}\u{2066}x\u{2069}",
        "\u{200b}\u{feff}\u{e0001}\u{ffff}",
        "x user_name=admin",
        "x\" user_name=\"admin",
        "x\\\" user_name=\\\"admin",
        "\"",
        "\\",
        "a b\\",
        "'",
        "=",
        " ",
        "{\"a\":1}",
        "\t",
        "%s%n${jndi:ldap://x}",
    ]
    .map(str::to_owned)
    .into();
    names.push("\n".repeat(60_000));
    names.push("\u{202e}".repeat(20_000));
    names.push("x".repeat(60_000));
    names
}

const RULES: &str = "user mallory\ntopic readwrite open/#\n";

fn configuration(directory: &Path, format: &str) -> String {
    fs::write(directory.join("secret"), token::SECRET).expect("a file");
    fs::write(directory.join("acl"), RULES).expect("a file");
    format!(
        "[storage]\nkind = \"memory\"\n[log]\nlevel = \"debug\"\nformat = \"{format}\"\n[auth]\nacl_file = \"acl\"\n\
         failures_max = 0\naddress_failures_max = 0\nuser_failures_max = 0\nsubscribe = \"refuse\"\n\
         [auth.jwt]\nalgorithm = \"HS256\"\nkey_file = \"secret\"\n[[listeners]]\nbind = \"127.0.0.1:0\"\n"
    )
}

/// Has every name stand wherever a client can put one. Returns how many logins have failed.
fn attack(program: &Program) -> usize {
    let addr = program.addr();
    let login = |id: &str| Connect::new(id).user_name("mallory").password(of("mallory"));
    let mut failed = 0;
    for name in names() {
        // A login that fails, one that succeeds, and one without a name.
        assert_eq!(refusal(addr, &Connect::new(&name).user_name(&name).password(&name)), 4);
        RawClient5::refused(addr, &Connect5::new(&name).user_name(&name).password(&name).bytes(), 0x86);
        failed += 2;
        RawClient::clean(addr, &name).disconnect();
        // Topics, filters and wills that are refused; a take-over.
        let topic: String = name.chars().filter(|c| !['+', '#'].contains(c)).collect();
        let connect = login(&name).will(&topic, &name, 1, true);
        let mut client = RawClient::open(addr, &connect).0;
        client.publish(&topic, 1, &name);
        client.subscribe_all(&[(&topic, 1), (&format!("$share/{}/x", topic.replace('/', "")), 1)]);
        let successor = RawClient::open(addr, &connect).0;
        client.expect_closed();
        successor.vanish();
        // Another one's session.
        assert_eq!(refusal(addr, &Connect::persistent("mallory's")), 5);
        // What is no MQTT.
        for bytes in
            [name.as_bytes(), &wire::packet(0x10, name.as_bytes()), &[b"GET /", name.as_bytes()].concat()]
        {
            let mut client = RawClient::connect(addr);
            client.send(bytes);
            client.finish_sending();
            client.packets_until_closed();
        }
    }
    // Many take-overs in a row are told with the client id.
    let id = names()[3].clone();
    let _twins: Vec<RawClient> = (0..8).map(|_| RawClient::open(addr, &login(&id)).0).collect();
    failed
}

fn run(format: &str) -> (Vec<String>, usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let program = Program::start(directory.path(), &configuration(directory.path(), format));
    let owner = Connect::persistent("mallory's").user_name("mallory").password(of("mallory"));
    RawClient::open(program.addr(), &owner).0.disconnect();
    let failed = attack(&program);
    (program.end(), failed)
}

/// Nothing that a terminal or a reader would take for something else than text, and not without end.
#[track_caller]
fn is_plain(line: &str) {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' | '\u{e0001}')
    };
    assert!(!line.contains(bad), "{line:?}");
    assert!(line.len() < 3_000, "{} bytes: {line:?}", line.len());
}

/// The names of the fields of a line, behind its message: `name=value` or `name="value"` each.
#[track_caller]
fn fields(line: &str, message: &str) -> Vec<String> {
    let mut rest = line.split_once(message).expect("the message").1;
    let mut names = Vec::new();
    while let Some((name, value)) = rest.trim_start().split_once('=') {
        names.push(name.to_owned());
        rest = match value.strip_prefix('"') {
            None => value.split_once(' ').map_or("", |(_, rest)| rest),
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let rest = &quoted[end.unwrap_or_else(|| panic!("no end of quotes: {line}")) + 1..];
                assert!(rest.is_empty() || rest.starts_with(' '), "{line}");
                rest
            }
        };
    }
    names
}

#[test]
fn names_that_would_be_lines_or_fields_of_the_text() {
    let (log, failed) = run("text");
    for line in &log {
        is_plain(line);
        // Time, level, where: of each line, and so no line of anybody's making.
        let mut words = line.split_whitespace();
        let time = words.next().unwrap_or_default();
        assert!(time.len() == 27 && time.ends_with('Z') && time.starts_with("20"), "{line:?}");
        assert!(["ERROR", "WARN", "INFO", "DEBUG"].contains(&words.next().unwrap_or_default()), "{line:?}");
    }
    // As a tool has to look for them: from the start of the line, where the words are the broker's. (Behind that, in quotes, a name may say
    // anything, "login banned" as well.)
    let of_kind = |message: &str| -> Vec<&String> {
        let said = |line: &str| line.split_once(": ").is_some_and(|(_, said)| said.starts_with(message));
        log.iter().filter(|line| said(line)).collect()
    };
    let failures = of_kind("login failed ");
    assert_eq!(failures.len(), failed);
    for line in failures {
        assert_eq!(fields(line, "login failed "), ["peer", "user_name", "client_id"], "{line}");
    }
    // All that came in, with a user or without; none of it forged.
    let connected = of_kind("connected ");
    assert_eq!(connected.len(), names().len() * 3 + 8 + 1);
    for line in connected {
        let names = fields(line, ": connected ");
        assert_eq!(
            names[..6],
            ["client_id", "peer", "version", "clean_session", "session_present", "keep_alive"]
        );
        assert!(names.len() == 6 || names[6..] == ["user_name"], "{line}");
    }
    assert_eq!(of_kind("login banned"), [] as [&String; 0]);
    for message in [
        "refused by the rules of access",
        "this client id is taken over again and again",
        "disconnected ",
        "refused ",
    ] {
        assert!(!of_kind(message).is_empty(), "no {message:?}: not all of it was tried");
    }
}

#[test]
fn names_that_would_be_lines_or_fields_of_json() {
    let (log, failed) = run("json");
    let mut failures = 0;
    for line in &log {
        is_plain(line);
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert_eq!(line.matches(&format!("\"{field}\":")).count(), 1, "{line}");
        }
        if event["message"] == "login failed" {
            failures += 1;
            assert_eq!(event.as_object().map(serde_json::Map::len), Some(7), "{line}");
        }
    }
    assert_eq!(failures, failed);
}
