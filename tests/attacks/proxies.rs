//! Naming a false address to a broker that takes addresses from a proxy: to escape a ban, to have another banned, to hide in the log.
//!
//! Whose header is taken, and which headers are, is in `tests/limits/proxy.rs`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::house::House;
use crate::program::Program;
use crate::support::{Connect, RawClient, ServerPacket};

const PASSWORDS: &str = "alice:$7$101$MDEyMzQ1Njc4OWFi$vqJUSfSA6RyVlZH0AYXnmGfhmL90Jp4p1bTMflm2TCFxpN6Hg8TjqkSs1xZolvDFF+f+vkLGDtj4BoJjysRpqA==\n";

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NO_PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// A broker that takes headers from 127.0.0.1 only, and bans an address after one failure too many.
fn house() -> House {
    House::with(|config, directory| {
        fs::write(directory.join("passwords"), PASSWORDS).expect("a file");
        config.auth.password_file = Some(directory.join("passwords"));
        config.auth.address_failures_max = 2;
        config.auth.delay_max = Duration::ZERO;
        config.listeners[0].allow_anonymous = false;
        config.listeners[0].proxy_protocol_from = vec!["127.0.0.1".parse().expect("an address")];
    })
}

fn header(source: &str) -> Vec<u8> {
    format!("PROXY TCP4 {source} 127.0.0.1 40000 1883\r\n").into_bytes()
}

fn v2(source: Ipv4Addr) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0C".to_vec();
    header.extend(source.octets());
    header.extend(Ipv4Addr::LOCALHOST.octets());
    header.extend([0x9C, 0x40, 0x07, 0x5B]);
    header
}

/// The code of CONNACK, or `None` if the connection ends without one.
fn code(house: &House, from: IpAddr, bytes: &[u8]) -> Option<u8> {
    let mut client = RawClient::connect_from(from, house.addr());
    client.send(bytes);
    match client.packet_or_end()? {
        ServerPacket::ConnAck(_, code) => Some(code),
        other => panic!("{other:?}"),
    }
}

fn login(password: &str) -> Vec<u8> {
    Connect::new("client").user_name("alice").password(password).bytes()
}

#[test]
fn escaping_a_ban_by_a_header_of_ones_own() {
    let house = house();
    for _ in 0..3 {
        assert_eq!(code(&house, NO_PROXY, &login("guess")), Some(4));
    }
    assert_eq!(code(&house, NO_PROXY, &login("wonder")), Some(5));
    // Whoever is no proxy names no address, in either version; and behind the proxy's header no second one is taken.
    for header in [header("10.0.0.9"), v2(Ipv4Addr::new(10, 0, 0, 9))] {
        assert_eq!(code(&house, NO_PROXY, &[&header[..], &login("wonder")].concat()), None);
        let twice = [&self::header("10.0.0.8")[..], &header, &login("wonder")].concat();
        assert_eq!(code(&house, PROXY, &twice), None);
    }
    house.eventually("four refusals", |metrics| metrics.refused.get("not_connect") == Some(&4));
    assert_eq!(code(&house, PROXY, &[header("10.0.0.9"), login("wonder")].concat()), Some(0));
}

#[test]
fn having_the_proxy_or_somebody_behind_it_banned() {
    let house = house();
    // Nobody but who fails is banned: not the proxy, with all the others behind it.
    for _ in 0..3 {
        assert_eq!(code(&house, PROXY, &[header("10.0.0.66"), login("guess")].concat()), Some(4));
    }
    assert_eq!(code(&house, PROXY, &[header("10.0.0.66"), login("wonder")].concat()), Some(5));
    assert_eq!(code(&house, PROXY, &[v2(Ipv4Addr::new(10, 0, 0, 66)), login("wonder")].concat()), Some(5));
    assert_eq!(code(&house, PROXY, &[header("10.0.0.1"), login("wonder")].concat()), Some(0));
    // Nor has anybody who is no proxy another one banned.
    for _ in 0..5 {
        assert_eq!(code(&house, NO_PROXY, &[header("10.0.0.1"), login("guess")].concat()), None);
    }
    assert_eq!(code(&house, PROXY, &[header("10.0.0.1"), login("wonder")].concat()), Some(0));
    assert_eq!(code(&house, NO_PROXY, &login("wonder")), Some(0));
}

#[test]
fn headers_that_two_readers_would_read_differently() {
    let house = house();
    for header in [
        "PROXY TCP4 10.0.0.1 127.0.0.1 40000 1883\n",
        "PROXY TCP4 10.0.0.1 127.0.0.1 40000 1883\r",
        "PROXY  TCP4 10.0.0.1 127.0.0.1 40000 1883\r\n",
        "PROXY TCP4 10.0.0.1\t127.0.0.1 40000 1883\r\n",
        "PROXY TCP4 010.0.0.1 127.0.0.1 40000 1883\r\n",
        "PROXY TCP4 10.0.0.1,10.0.0.2 127.0.0.1 40000 1883\r\n",
        "PROXY TCP4 10.1 127.0.0.1 40000 1883\r\n",
        "PROXY TCP4 ::1 127.0.0.1 40000 1883\r\n",
        "PROXY TCP6 10.0.0.1 ::1 40000 1883\r\n",
        "PROXY TCP4 10.0.0.1 127.0.0.1 40000 65536\r\n",
        "PROXY TCP4 10.0.0.1 127.0.0.1 -1 1883\r\n",
        "PROXY TCP4 10.0.0.1 127.0.0.1 40000\r\n",
        "PROXY TCP4 10.0.0.1 127.0.0.1 40000 1883 x\r\n",
        "PROXY UDP4 10.0.0.1 127.0.0.1 40000 1883\r\n",
        "proxy TCP4 10.0.0.1 127.0.0.1 40000 1883\r\n",
        " PROXY TCP4 10.0.0.1 127.0.0.1 40000 1883\r\n",
        "PROXY \r\n",
        "PROXY\r\n",
    ] {
        let bytes = [header.as_bytes(), &login("wonder")].concat();
        let mut client = RawClient::connect_from(PROXY, house.addr());
        client.send(&bytes);
        client.finish_sending();
        assert_eq!(client.packet_or_end(), None, "{header:?}");
    }
    for change in [(12, 0x31), (12, 0x22), (13, 0x12), (13, 0xFF), (15, 11), (14, 0xFF)] {
        let mut header = v2(Ipv4Addr::new(10, 0, 0, 1));
        header[change.0] = change.1;
        let mut client = RawClient::connect_from(PROXY, house.addr());
        client.send(&[header, login("wonder")].concat());
        client.finish_sending();
        assert_eq!(client.packet_or_end(), None, "{change:x?}");
    }
}

#[test]
fn the_log_names_the_address_of_the_header_and_nothing_else_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("passwords"), PASSWORDS).expect("a file");
    let mut program = Program::start(
        directory.path(),
        "[storage]\nkind = \"memory\"\n[auth]\npassword_file = \"passwords\"\n[[listeners]]\nbind = \"127.0.0.1:0\"\n\
         proxy_protocol_from = [\"127.0.0.1\"]\n",
    );
    let mut client = RawClient::connect(program.addr());
    client.send(&[header("10.0.0.1"), login("guess")].concat());
    client.packets_until_closed();
    let line = program.until("login failed").pop().expect("a line");
    assert!(line.contains("peer=10.0.0.1:40000"), "{line}");
    let mut client = RawClient::connect(program.addr());
    client.send(b"PROXY TCP4 10.0.0.1 127.0.0.1 1 2 \x1b[2K\"peer=6.6.6.6\r\n");
    client.packets_until_closed();
    let line = program.until("header of the PROXY protocol").pop().expect("a line");
    assert!(!line.contains("6.6.6.6") && !line.contains('\u{1b}'), "{line}");
    program.end();
}
