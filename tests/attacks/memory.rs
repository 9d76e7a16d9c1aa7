//! Making the broker hold memory: large messages that nobody takes, for many, again and again. What
//! it held goes back to the system, and the log stays short. The bounds themselves have their tests
//! in `tests/limits/memory.rs`.

use std::io::Write;
use std::net::TcpStream;

use crate::program::Program;
use crate::support::wire;
use crate::support::{DEADLINE, RawClient};

const CONFIGURATION: &str =
    "sys_interval = \"0s\"\n[storage]\nkind = \"memory\"\n[[listeners]]\nbind = \"127.0.0.1:0\"\n";

/// What may stay with the process beyond what it held before.
const STAYS_MAX: usize = 32 * 1024 * 1024;

#[test]
fn memory_of_large_messages_goes_back_to_the_system() {
    const SUBSCRIBERS: usize = 30;
    const SIZES: [usize; 12] = [3, 15, 7, 12, 5, 9, 14, 4, 11, 6, 13, 8];
    let directory = tempfile::tempdir().unwrap();
    let program = Program::start(directory.path(), CONFIGURATION);
    let round = |large: bool| {
        let subscribers: Vec<TcpStream> = (0..SUBSCRIBERS)
            .map(|n| {
                let mut client = RawClient::clean(program.addr(), &format!("subscriber-{n}"));
                client.subscribe("large", (n % 3) as u8);
                // It reads nothing of what comes.
                client.into_stream()
            })
            .collect();
        let mut publisher = RawClient::clean(program.addr(), "publisher");
        for (n, megabytes) in SIZES.into_iter().enumerate().take(if large { SIZES.len() } else { 1 }) {
            let size = if large { megabytes * 1_000_000 + n * 70_001 } else { 1_000 };
            publisher.publish("large", 1, vec![n as u8; size]);
        }
        drop((subscribers, publisher));
        // All have gone when the broker has room for one that is alone.
        let mut last = RawClient::clean(program.addr(), "last");
        last.expect_nothing();
        last.disconnect();
    };
    round(false);
    let before = program.resident();
    for _ in 0..3 {
        round(true);
    }
    let deadline = std::time::Instant::now() + DEADLINE;
    let mut after = program.resident();
    while after > before + STAYS_MAX && std::time::Instant::now() < deadline {
        // The last connections may still be closing.
        std::thread::yield_now();
        after = program.resident();
    }
    println!("{before} bytes before, {after} after");
    assert!(after <= before + STAYS_MAX, "{before} bytes before, {after} after");
}

#[test]
fn a_bound_that_bites_in_every_turn_is_told_once_in_ten_seconds() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = "[limits]\nmemory_max = \"2MB\"\nretained_bytes_max = \"none\"\n";
    let program = Program::start(
        directory.path(),
        &format!("{configuration}{CONFIGURATION}").replace("sys_interval = \"0s\"\n", ""),
    );
    let mut publisher = RawClient::clean(program.addr(), "publisher");
    for n in 0..3 {
        publisher.publish_retained(&format!("r/{n}"), 1, vec![0; 1_000_000]);
    }
    for _ in 0..500 {
        publisher.publish("unrelated", 1, "x");
    }
    let mut stream = publisher.into_stream();
    let _ = stream.write_all(&wire::PINGREQ);
    let lines = program.end();
    let told =
        lines.iter().filter(|line| line.contains("limits.memory_max") && line.contains("WARN")).count();
    assert!((1..=2).contains(&told), "{lines:#?}");
}
