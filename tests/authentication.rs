//! Enhanced authentication (MQTT 5 section 4.12) with a method that a program adds: a challenge and an answer.

mod support;

use std::sync::Arc;

use support::{Connect, RawClient, TestBroker, wire};
use ternmq::Extensions;
use ternmq::authentication::{AuthenticationExchange, AuthenticationMethod, AuthenticationStep};
use ternmq::protocol::ReasonCode;

/// Sends "guess" and lets in who answers "right".
struct Guess;

impl AuthenticationMethod for Guess {
    fn name(&self) -> &str {
        "GUESS"
    }

    fn begin(&self, _client_id: &str) -> Box<dyn AuthenticationExchange> {
        Box::new(GuessExchange { asked: false })
    }
}

struct GuessExchange {
    asked: bool,
}

impl AuthenticationExchange for GuessExchange {
    fn step(&mut self, data: Option<&[u8]>) -> AuthenticationStep {
        if !std::mem::replace(&mut self.asked, true) {
            return AuthenticationStep::Continue(b"guess".to_vec());
        }
        match data {
            Some(b"right") => AuthenticationStep::Success(Some(b"welcome".to_vec())),
            _ => AuthenticationStep::Refused(ReasonCode::NotAuthorized),
        }
    }
}

/// A broker open to nobody but those the method lets in.
fn broker() -> TestBroker {
    TestBroker::with_extensions(
        |config| config.listeners[0].allow_anonymous = false,
        Extensions::default().with_authentication_method(Arc::new(Guess)),
    )
}

fn properties(method: &str, data: &[u8]) -> Vec<u8> {
    let mut section = vec![0x15];
    section.extend(wire::field(method));
    if !data.is_empty() {
        section.push(0x16);
        section.extend(wire::field(data));
    }
    section.insert(0, section.len() as u8);
    section
}

fn connect(method: &str) -> Vec<u8> {
    let mut body = wire::field("MQTT");
    body.extend([5, 0x02, 0, 0]);
    body.extend(properties(method, b""));
    body.extend(wire::field("client"));
    wire::packet(0x10, &body)
}

fn auth(code: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let mut body = vec![code];
    body.extend(properties(method, data));
    wire::packet(0xF0, &body)
}

/// Expects a packet of this type, and this text in it.
#[track_caller]
fn expect(client: &mut RawClient, first_byte: u8, code: u8, text: &str) {
    let (byte, body) = client.expect_raw_packet();
    let has_text = text.is_empty() || body.windows(text.len()).any(|window| window == text.as_bytes());
    let code_at = usize::from(first_byte == 0x20);
    assert!(byte == first_byte && body.get(code_at) == Some(&code) && has_text, "{byte:#04x} {body:02x?}");
}

fn let_in(broker: &TestBroker) -> RawClient {
    let mut client = RawClient::connect(broker.addr());
    client.send(&connect("GUESS"));
    expect(&mut client, 0xF0, 0x18, "guess");
    client.send(&auth(0x18, "GUESS", b"right"));
    expect(&mut client, 0x20, 0x00, "welcome");
    client
}

#[test]
fn mqtt5_a_method_lets_a_client_in_by_challenge_and_answer() {
    let broker = broker();
    let mut client = let_in(&broker);
    client.send(&wire::PINGREQ);
    client.expect(&[0xD0, 0]);
}

#[test]
fn mqtt5_a_wrong_answer_an_unknown_method_and_a_plain_client_are_refused() {
    let broker = broker();
    let mut wrong = RawClient::connect(broker.addr());
    wrong.send(&connect("GUESS"));
    expect(&mut wrong, 0xF0, 0x18, "guess");
    wrong.send(&auth(0x18, "GUESS", b"wrong"));
    expect(&mut wrong, 0x20, 0x87, "");
    wrong.expect_closed();
    let mut unknown = RawClient::connect(broker.addr());
    unknown.send(&connect("OTHER"));
    expect(&mut unknown, 0x20, 0x8C, "");
    unknown.expect_closed();
    let mut plain = RawClient::connect(broker.addr());
    plain.send(&Connect::new("plain").bytes());
    plain.expect(&[0x20, 2, 0, 5]);
    plain.expect_closed();
}

#[test]
fn mqtt5_anything_but_auth_before_connack_is_a_protocol_error() {
    let broker = broker();
    for packet in [wire::PINGREQ.to_vec(), auth(0x18, "OTHER", b"right"), auth(0x19, "GUESS", b"right")] {
        let mut client = RawClient::connect(broker.addr());
        client.send(&connect("GUESS"));
        expect(&mut client, 0xF0, 0x18, "guess");
        client.send(&packet);
        expect(&mut client, 0x20, 0x82, "");
        client.expect_closed();
    }
}

#[test]
fn mqtt5_re_authentication_runs_by_the_same_method_only() {
    let broker = broker();
    let mut client = let_in(&broker);
    client.send(&auth(0x19, "GUESS", b""));
    expect(&mut client, 0xF0, 0x18, "guess");
    client.send(&wire::PINGREQ);
    client.expect(&[0xD0, 0]);
    client.send(&auth(0x18, "GUESS", b"right"));
    expect(&mut client, 0xF0, 0x00, "welcome");
    // Once more, and wrongly.
    client.send(&auth(0x19, "GUESS", b""));
    expect(&mut client, 0xF0, 0x18, "guess");
    client.send(&auth(0x18, "GUESS", b"wrong"));
    expect(&mut client, 0xE0, 0x87, "");
    client.expect_closed();
    // Out of the blue, and by another method.
    for packet in [auth(0x18, "GUESS", b"right"), auth(0x19, "OTHER", b"")] {
        let mut client = let_in(&broker);
        client.send(&packet);
        expect(&mut client, 0xE0, 0x82, "");
        client.expect_closed();
    }
}

#[test]
fn mqtt5_who_does_not_go_on_is_closed_after_connect_timeout() {
    let broker = TestBroker::with_extensions(
        |config| config.limits.connect_timeout = std::time::Duration::from_millis(300),
        Extensions::default().with_authentication_method(Arc::new(Guess)),
    );
    let mut client = RawClient::connect(broker.addr());
    client.send(&connect("GUESS"));
    expect(&mut client, 0xF0, 0x18, "guess");
    client.expect_closed();
}
