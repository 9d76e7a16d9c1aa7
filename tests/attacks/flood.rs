//! Many at once who never come to the point. What they cost is measured in a broker that is a process of its own.
//!
//! The bound for those before CONNECT: [`PER_CONNECTION`] for each of `limits.connections_max`, and `limits.handshake_bytes_max` for all
//! together.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::program::Program;
use crate::support::wire::{self, Connect};
use crate::support::{DEADLINE, RawClient};

/// Bytes of memory for a connection without CONNECT: the 4,096 bytes of it that are free, twice that as vectors grow, and the task.
const PER_CONNECTION: usize = 12 * 1_024;

/// `limits.handshake_bytes_max` of these tests.
const HANDSHAKE_BYTES_MAX: usize = 4_000_000;

fn configuration() -> String {
    format!(
        "sys_interval = \"1s\"\n[storage]\nkind = \"memory\"\n[limits]\nhandshake_bytes_max = {HANDSHAKE_BYTES_MAX}\n\
         [[listeners]]\nbind = \"127.0.0.1:0\"\n"
    )
}

/// Connects, subscribes, publishes and gets it back; how long that took.
fn round_trip(addr: SocketAddr) -> Duration {
    let started = Instant::now();
    let mut client = RawClient::clean(addr, "healthy");
    client.subscribe("healthy", 1);
    client.send(&wire::publish_qos0("healthy", "m"));
    client.expect_message("healthy", "m");
    client.disconnect();
    started.elapsed()
}

/// A machine has other things to do; the best of several is what the broker can do.
fn is_served_within_a_second(addr: SocketAddr) -> bool {
    (0..5).any(|_| round_trip(addr) < Duration::from_secs(1))
}

/// Watches a counter of `$SYS` until it is there.
#[track_caller]
fn wait_for_counter(watcher: &mut RawClient, topic: &str, at_least: usize) {
    let deadline = Instant::now() + 3 * DEADLINE;
    let mut value = 0;
    while value < at_least {
        let publish = watcher.expect_publish();
        if publish.topic == topic {
            value = String::from_utf8_lossy(&publish.payload).parse().expect("a number");
        }
        assert!(Instant::now() < deadline, "{topic} is {value}, not {at_least}");
    }
}

fn watch(program: &Program) -> RawClient {
    let mut watcher = RawClient::clean(program.addr(), "watcher");
    watcher.subscribe("$SYS/#", 0);
    watcher
}

/// As many as this process may open, and no more than `wanted`.
fn sockets(wanted: usize) -> usize {
    let may = rlimit::increase_nofile_limit(u64::MAX).expect("the hard limit is allowed");
    // Other tests of this process have their own.
    wanted.min(usize::try_from(may).unwrap_or(usize::MAX).saturating_sub(1_000))
}

#[track_caller]
fn expect_closed(mut stream: TcpStream) {
    stream.set_read_timeout(Some(2 * DEADLINE)).expect("a timeout");
    match stream.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("not closed: {other:?}"),
    }
}

#[test]
fn ten_thousand_half_open_connections() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = Program::start(directory.path(), &configuration());
    let count = sockets(10_000);
    let mut watcher = watch(&program);
    assert!(is_served_within_a_second(program.addr()));
    let before = program.resident();
    // Half say nothing; the others stop in the midst of a large CONNECT, as far as each may go without counting against all.
    let connect = Connect::new("half").will("w", vec![0; 65_535], 0, false).bytes();
    let half = &connect[..4_096];
    let attackers: Vec<TcpStream> = (0..count)
        .map(|n| {
            let mut stream = TcpStream::connect(program.addr()).expect("a connection");
            if n % 2 == 1 {
                stream.write_all(half).expect("taken");
            }
            stream
        })
        .collect();
    wait_for_counter(&mut watcher, "$SYS/broker/bytes/received", count / 2 * half.len());
    let grown = program.resident().saturating_sub(before);
    println!("{count} half-open connections: {} bytes each", grown / count);
    assert!(grown <= count * PER_CONNECTION, "{grown} bytes for {count} half-open connections");
    assert!(is_served_within_a_second(program.addr()));
    // Those who want more share what all may have: the broker holds so much, whoever sends it.
    let greedy: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(program.addr()).expect("a connection");
            // Whoever is over is closed, perhaps before all of it is sent.
            let _ = stream.write_all(&connect[..connect.len() - 1]);
            stream
        })
        .collect();
    let fit = HANDSHAKE_BYTES_MAX / (connect.len() - 4_096) + 1;
    wait_for_counter(&mut watcher, "$SYS/broker/connections/refused/handshake_bytes_max", greedy.len() - fit);
    let grown = program.resident().saturating_sub(before);
    let bound = (count + greedy.len()) * PER_CONNECTION + 2 * HANDSHAKE_BYTES_MAX;
    assert!(grown <= bound, "{grown} bytes, and the bound is {bound}");
    assert!(is_served_within_a_second(program.addr()));
    // `connect_timeout` ends all of them.
    attackers.into_iter().chain(greedy).for_each(expect_closed);
    wait_for_counter(&mut watcher, "$SYS/broker/connections/refused/connect_timeout", count);
    assert!(is_served_within_a_second(program.addr()));
    program.end();
}

#[test]
fn lengths_that_are_announced_and_never_sent() {
    const CLIENTS: usize = 500;
    let directory = tempfile::tempdir().expect("a directory");
    let program = Program::start(directory.path(), &configuration());
    let mut watcher = watch(&program);
    let mut clients: Vec<TcpStream> =
        (0..CLIENTS).map(|n| RawClient::clean(program.addr(), &format!("liar-{n}")).into_stream()).collect();
    assert!(is_served_within_a_second(program.addr()));
    let before = program.resident();
    // PUBLISH of nearly `limits.packet_bytes_max`, and a thousand bytes of it.
    let publish = wire::publish_qos0("t", vec![0; 15_900_000]);
    for client in &mut clients {
        client.write_all(&publish[..1_000]).expect("taken");
    }
    wait_for_counter(&mut watcher, "$SYS/broker/bytes/received", CLIENTS * 1_000);
    let grown = program.resident().saturating_sub(before);
    println!("{CLIENTS} announced packets of 16 MB: {} bytes each", grown / CLIENTS);
    assert!(grown <= CLIENTS * PER_CONNECTION, "{grown} bytes for {CLIENTS} announced packets");
    assert!(is_served_within_a_second(program.addr()));
    drop(clients);
    program.end();
}
