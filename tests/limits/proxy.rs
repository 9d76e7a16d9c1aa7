//! The PROXY protocol: who may send it, and whose address counts then.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::support::wire::Connect;
use crate::support::{RawClient, TestBroker};
use crate::{eventually, refused};

/// A broker that takes headers from 127.0.0.1, and lets each address have one connection.
fn broker() -> TestBroker {
    TestBroker::with_config(|config| {
        config.listeners[0].proxy_protocol_from = vec!["127.0.0.1".parse().unwrap()];
        config.limits.connections_per_address_max = Some(1);
    })
}

fn v1(source: &str) -> Vec<u8> {
    let (family, target) = if source.contains(':') { ("TCP6", "::1") } else { ("TCP4", "127.0.0.1") };
    format!("PROXY {family} {source} {target} 40000 1883\r\n").into_bytes()
}

fn v2(source: IpAddr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec();
    match source {
        IpAddr::V4(source) => {
            header.extend([0x11, 0, 12]);
            header.extend(source.octets());
            header.extend(Ipv4Addr::LOCALHOST.octets());
        }
        IpAddr::V6(source) => {
            header.extend([0x21, 0, 36]);
            header.extend(source.octets());
            header.extend(Ipv6Addr::LOCALHOST.octets());
        }
    }
    header.extend([0x9C, 0x40, 0x07, 0x5B]);
    header
}

fn connects(broker: &TestBroker, header: &[u8], id: &str) -> RawClient {
    let mut client = RawClient::connect(broker.addr());
    client.send(&[header, &Connect::new(id).bytes()].concat());
    client.expect(&[0x20, 2, 0, 0]);
    client
}

fn is_turned_away(broker: &TestBroker, header: &[u8], reason: &str) {
    let before = refused(&broker.metrics(), reason);
    let mut client = RawClient::connect(broker.addr());
    client.send(&[header, &Connect::new("away").bytes()].concat());
    client.expect_closed();
    eventually(broker, reason, |metrics| refused(metrics, reason) == before + 1);
}

#[test]
fn limits_hold_for_the_address_that_the_header_names() {
    let broker = broker();
    let v6: IpAddr = "2001:db8:0:1::1".parse().unwrap();
    let headers = [v1("10.0.0.1"), v1("2001:db8::1"), v2(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2))), v2(v6)];
    let clients: Vec<RawClient> = headers
        .iter()
        .enumerate()
        .map(|(n, header)| connects(&broker, header, &format!("client-{n}")))
        .collect();
    // Each has its one connection now, in whatever version it is named, and from anywhere in its network.
    for header in [
        v1("10.0.0.1"),
        v1("10.0.0.2"),
        v2(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))),
        v1("2001:db8::ffff"),
        v1("2001:db8:0:1:2::"),
    ] {
        is_turned_away(&broker, &header, "connections_per_address_max");
    }
    drop(clients);
    eventually(&broker, "all gone", |metrics| metrics.sockets == 0);
    connects(&broker, &v1("10.0.0.1"), "again").disconnect();
}

#[test]
fn a_proxy_may_speak_for_itself_or_not_know() {
    let broker = broker();
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    // Neither names an address that a limit could count.
    let _clients = [connects(&broker, local, "local"), connects(&broker, b"PROXY UNKNOWN\r\n", "unknown")];
}

#[test]
fn header_and_connect_may_come_in_pieces() {
    let broker = broker();
    for (n, header) in [v1("10.0.0.1"), v2("2001:db8::1".parse().unwrap())].into_iter().enumerate() {
        let bytes = [header, Connect::new(format!("piece-{n}")).bytes()].concat();
        let mut client = RawClient::connect(broker.addr());
        for byte in bytes {
            client.send(&[byte]);
        }
        client.expect(&[0x20, 2, 0, 0]);
        client.expect_nothing();
    }
}

#[test]
fn from_a_proxy_the_header_is_required_and_must_be_right() {
    let broker = broker();
    is_turned_away(&broker, b"", "proxy_protocol");
    is_turned_away(&broker, b"PROXY TCP4 10.0.0.1\r\n", "proxy_protocol");
    is_turned_away(&broker, &[b'P'; 200], "proxy_protocol");
    is_turned_away(&broker, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff", "proxy_protocol");
}

#[test]
fn a_proxy_that_sends_no_header_is_closed_after_connect_timeout() {
    let broker = TestBroker::with_config(|config| {
        config.listeners[0].proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.limits.connect_timeout = Duration::from_millis(300);
    });
    let mut silent = RawClient::connect(broker.addr());
    let mut half = RawClient::connect(broker.addr());
    half.send(b"PROXY TCP4 10.0");
    silent.expect_closed();
    half.expect_closed();
    eventually(&broker, "two timeouts", |metrics| refused(metrics, "connect_timeout") == 2);
}

#[test]
fn from_anybody_else_a_header_is_no_mqtt() {
    let broker = broker();
    for (n, header) in [v1("10.0.0.1"), v2("10.0.0.1".parse().unwrap())].into_iter().enumerate() {
        let mut spoofer = RawClient::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), broker.addr());
        spoofer.send(&[&header[..], &Connect::new("spoofer").bytes()].concat());
        spoofer.expect_closed();
        eventually(&broker, "a refusal", |metrics| refused(metrics, "not_connect") == n as u64 + 1);
        eventually(&broker, "its end", |metrics| metrics.sockets == 0);
    }
    let mut honest = RawClient::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), broker.addr());
    honest.send(&Connect::new("honest").bytes());
    honest.expect(&[0x20, 2, 0, 0]);
}
