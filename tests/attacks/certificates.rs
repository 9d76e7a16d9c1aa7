//! Certificates that are not one's own, not for this, or no longer good, on a listener that takes the user from them.
//!
//! Expired ones, ones that are not valid yet, and revocation lists that are over or of another CA are in `tests/tls_certificates.rs`.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::HandshakeKind;
use ternmq::config::Transport;

use crate::house::House;
use crate::pki::{Ca, Identity, connect, named, publish};
use crate::support::RawClient;
use crate::support::wire::Connect;
use crate::token::login;

const NOT_AUTHORIZED: u8 = 5;

/// Everybody has a place of his own, and `device` may do more.
const RULES: &str = "\
user device
topic readwrite #
user watcher
topic readwrite #
pattern readwrite users/%u/#
";

/// A listener with TLS, one without for those who watch.
fn house(ca: &Ca) -> House {
    House::with_rules(RULES, |config, _| {
        let mut tls = config.listeners[0].clone();
        // A reload tells listeners apart by what they are bound to.
        tls.bind = "127.0.0.2:0".parse().expect("an address");
        tls.transport = Transport::Tls(ca.strict_server());
        // As the documentation has it: what the certificate says, and nothing else.
        tls.auth = Some(vec![ternmq::config::AuthMethod::Certificate]);
        config.listeners.push(tls);
    })
}

fn tls(house: &House) -> std::net::SocketAddr {
    house.broker.addrs()[1]
}

#[test]
fn certificates_that_name_nobody() {
    let ca = Ca::new();
    let house = house(&ca);
    let two_names = |params: &mut CertificateParams| {
        // rcgen keeps one name of a type: the other one goes by the number of the type.
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "device");
    };
    let nameless = |params: &mut CertificateParams| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "device");
        params.subject_alt_names = vec![SanType::DnsName("device".try_into().expect("a name"))];
    };
    let cases: [(&str, Identity); 7] = [
        ("no common name", ca.client("", nameless)),
        ("an empty one", ca.client("", |_| {})),
        ("two", ca.client("mallory", two_names)),
        ("NUL", ca.client("device\0.example", |_| {})),
        ("a line break", ca.client("device\nuser_name=admin", |_| {})),
        ("too long", ca.client(&"x".repeat(300), |_| {})),
        ("an escape", ca.client("\u{1b}[2Kdevice", |_| {})),
    ];
    for (what, identity) in cases {
        // The handshake is good, so it is MQTT that refuses: with and without a user name to make up for it.
        assert_eq!(ca.connect(tls(&house), Some(&identity)).code, Some(NOT_AUTHORIZED), "{what}");
        let as_device = Connect::new("tls").user_name("device").password("");
        let code = connect(tls(&house), &ca.client_config(Some(&identity)), &as_device).code;
        assert!(code.is_some_and(|code| code > 0), "{what}: {code:?}");
        let code = connect(tls(&house), &ca.client_config(Some(&identity)), &login("tls", "device")).code;
        assert!(code.is_some_and(|code| code > 0), "a token where only certificates count, {what}: {code:?}");
    }
    assert_eq!(ca.connect(tls(&house), Some(&ca.client("device", |_| {}))).code, Some(0));
}

#[test]
fn certificates_with_names_like_patterns() {
    let ca = Ca::new();
    let house = house(&ca);
    let mut watcher = house.open(&login("w", "watcher"));
    watcher.subscribe("#", 0);
    let names = ["+", "#", "/", "device/", "a/b", "%u", "%c", "+/+", "$SYS", "Device", "device ", " device"];
    for (n, name) in names.into_iter().enumerate() {
        let identity = ca.client(name, |_| {});
        // A client id of its own: the last one's session may be there yet, and is another user's.
        let own_id = Connect::new(format!("tls-{n}"));
        let answer = connect(tls(&house), &ca.client_config(Some(&identity)), &own_id);
        assert_eq!(answer.code, Some(0), "{name:?}");
        let mut stream = answer.stream;
        for topic in ["secret", "users/device/x", "users/a/b/x", "users/a/x", "users/x", "users//x"] {
            publish(&mut stream, topic);
        }
        watcher.expect_nothing();
    }
    // The user in CONNECT is not the one who counts.
    let identity = ca.client("mallory", |_| {});
    let claimed = Connect::new("tls").user_name("device").password("x");
    let mut answer = connect(tls(&house), &ca.client_config(Some(&identity)), &claimed);
    assert_eq!(answer.code, Some(0));
    publish(&mut answer.stream, "users/device/x");
    publish(&mut answer.stream, "users/mallory/x");
    watcher.expect_message("users/mallory/x", "m");
}

#[test]
fn certificates_that_were_made_for_something_else_or_by_somebody_else() {
    let (ca, other) = (Ca::new(), Ca::new());
    let house = house(&ca);
    let usages = |usages: Vec<ExtendedKeyUsagePurpose>| {
        move |params: &mut CertificateParams| params.extended_key_usages = usages
    };
    let of_time = |from: i32, to: i32| {
        move |params: &mut CertificateParams| {
            (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(to, 1, 1));
        }
    };
    let cases: [(&str, Identity); 7] = [
        ("a server's", ca.client("device", usages(vec![ExtendedKeyUsagePurpose::ServerAuth]))),
        ("one for code", ca.client("device", usages(vec![ExtendedKeyUsagePurpose::CodeSigning]))),
        ("of another CA of the same name", other.client("device", |_| {})),
        ("signed by a client", ca.client_of_client("device")),
        ("expired", ca.client("device", of_time(2020, 2021))),
        ("not valid yet", ca.client("device", of_time(2090, 2099))),
        (
            "a CA's",
            ca.client("device", |params| {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
                params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
                params.distinguished_name = named("device");
            }),
        ),
    ];
    let refused = |house: &House| house.refused("tls");
    for (what, identity) in &cases {
        let before = refused(&house);
        assert_eq!(ca.connect(tls(&house), Some(identity)).code, None, "{what}");
        house.eventually(what, |metrics| metrics.refused.get("tls").copied().unwrap_or(0) == before + 1);
    }
    assert_eq!(ca.connect(tls(&house), None).code, None, "none at all");
    // Signed by itself.
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = named("device");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let own = params.self_signed(&key).expect("a certificate");
    let own = Identity::new(vec![own.der().clone()], key.serialize_der());
    assert_eq!(ca.connect(tls(&house), Some(&own)).code, None, "signed by itself");
    // One that says nothing of its uses is good for all of them (RFC 5280, section 4.2.1.12).
    assert_eq!(ca.connect(tls(&house), Some(&ca.client("device", usages(Vec::new())))).code, Some(0));
}

#[test]
fn a_certificate_that_is_revoked_while_it_is_in_use() {
    let ca = Ca::new();
    let house = house(&ca);
    let good = ca.client("watcher", |params| params.serial_number = Some(SerialNumber::from(6_u64)));
    let stolen = ca.client("device", |params| params.serial_number = Some(SerialNumber::from(7_u64)));
    let (good, stolen) = (ca.client_config(Some(&good)), ca.client_config(Some(&stolen)));
    let connects = |config: &Arc<_>, id: &str| connect(tls(&house), config, &Connect::new(id));
    let mut first = connects(&stolen, "one");
    assert_eq!((first.code, connects(&good, "two").code), (Some(0), Some(0)));
    // It has a ticket by now, with which it would come in without showing the certificate.
    let resumed = connects(&stolen, "three");
    assert_eq!((resumed.code, resumed.stream.conn.handshake_kind()), (Some(0), Some(HandshakeKind::Resumed)));
    ca.revoke(&[7]);
    house.reload();
    assert_eq!(connects(&stolen, "four").code, None, "by its ticket");
    assert_eq!(connects(&stolen, "four").code, None, "by its certificate");
    assert_eq!(connects(&good, "five").code, Some(0));
    // As built, and said in README: who is connected stays.
    publish(&mut first.stream, "still/there");
    // A list that cannot be read leaves the last one in force.
    std::fs::write(ca.crl(), "nothing").expect("a file");
    let failures = house.broker.reload(&house.config);
    assert!(failures.len() == 1 && failures[0].contains("ca.crl"), "{failures:?}");
    assert_eq!((connects(&stolen, "six").code, connects(&good, "seven").code), (None, Some(0)));
}

#[test]
fn plain_mqtt_on_the_port_that_asks_for_certificates() {
    let ca = Ca::new();
    let house = house(&ca);
    let mut client = RawClient::connect(tls(&house));
    client.send(&login("plain", "device").bytes());
    // An alert may come; no CONNACK does.
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.into_stream(), &mut bytes);
    assert_ne!(bytes.first(), Some(&0x20), "{bytes:x?}");
    house.eventually("a refusal", |metrics| metrics.refused.get("tls") == Some(&1));
}
