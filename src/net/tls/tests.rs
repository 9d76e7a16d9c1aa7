use std::path::PathBuf;
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, SanType};

use super::*;
use crate::config::CertificateName;

/// A certificate (DER) of a client with these common names and alternative names.
fn client(common_names: &[&str], alternatives: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "plant");
    for (n, name) in common_names.iter().enumerate() {
        // rcgen keeps one name of a type: the further ones go by the number of the type.
        let kind = if n == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
        params.distinguished_name.push(kind, *name);
    }
    params.subject_alt_names = alternatives;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

#[test]
fn a_user_is_named_by_the_one_common_name() {
    let user = |names: &[&str]| certificate_user(&client(names, vec![dns("other")]), CertificateName::Cn);
    assert_eq!(user(&["device-7"]).as_deref(), Some("device-7"));
    assert_eq!(user(&["Gerät 7"]).as_deref(), Some("Gerät 7"));
    let longest = "x".repeat(256);
    assert_eq!(user(&[&longest]), Some(longest.clone()));
    for bad in [
        &[][..],
        &[""],
        &["device-7\0admin"],
        &["device\n7"],
        &["device-7", "admin"],
        &["device-7", ""],
        &[&format!("{longest}x")],
    ] {
        assert_eq!(user(bad), None, "{bad:?}");
    }
    assert_eq!(certificate_user(&client(&["device-7"], Vec::new()), CertificateName::None), None);
    assert_eq!(certificate_user(b"", CertificateName::Cn), None);
    let cut = client(&["device-7"], Vec::new());
    assert_eq!(certificate_user(&cut[..cut.len() / 2], CertificateName::Cn), None);
}

#[test]
fn a_common_name_in_an_encoding_that_is_not_read_names_nobody() {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    let name = rcgen::string::BmpString::try_from("device-7").unwrap();
    params.distinguished_name.push(DnType::CommonName, DnValue::BmpString(name));
    let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    assert_eq!(certificate_user(certificate.der(), CertificateName::Cn), None);
}

#[test]
fn a_user_is_named_by_the_one_alternative_name_that_is_text() {
    let user = |names| certificate_user(&client(&["other"], names), CertificateName::San);
    let email = || SanType::Rfc822Name("a@b.example".try_into().unwrap());
    let uri = || SanType::URI("urn:device:7".try_into().unwrap());
    let address = || SanType::IpAddress("10.0.0.7".parse().unwrap());
    assert_eq!(user(vec![dns("device-7.example")]).as_deref(), Some("device-7.example"));
    assert_eq!(user(vec![email()]).as_deref(), Some("a@b.example"));
    assert_eq!(user(vec![address(), uri()]).as_deref(), Some("urn:device:7"));
    for names in [vec![], vec![address()], vec![dns("a"), dns("b")], vec![email(), uri()]] {
        assert_eq!(user(names.clone()), None, "{names:?}");
    }
}

/// A directory of certificates and keys; certificates end at midnight before a day of January 2030.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        Files(tempfile::tempdir().unwrap())
    }

    fn make(&self, file: &str, names: &[&str], day: u8) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_after = rcgen::date_time_ymd(2030, 1, day);
        let certificate = params.self_signed(&key).unwrap();
        let path = |end: &str| -> PathBuf { self.0.path().join(format!("{file}.{end}")) };
        std::fs::write(path("crt"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        CertificateFiles { certificate: path("crt"), private_key: path("key") }
    }
}

fn config(first: &CertificateFiles, more: Vec<CertificateFiles>) -> TlsConfig {
    TlsConfig {
        certificate: first.certificate.clone(),
        private_key: first.private_key.clone(),
        certificates: more,
        ..TlsConfig::default()
    }
}

/// Noon of a day of January 2030.
fn noon(day: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_893_456_000 + (day - 1) * 86_400 + 43_200)
}

#[test]
fn days_are_counted_to_the_first_end_of_all_certificates() {
    let files = Files::new();
    let (first, second) = (files.make("first", &["a"], 20), files.make("second", &["b"], 10));
    let alone = TlsServer::load(&config(&first, Vec::new())).unwrap();
    assert_eq!(alone.days_left(noon(1)), 18);
    let both = TlsServer::load(&config(&first, vec![second.clone()])).unwrap();
    assert_eq!((both.days_left(noon(9)), both.days_left(noon(10))), (0, -1));
    // An intermediate counts as well.
    let chain = [&first, &second].map(|files| std::fs::read_to_string(&files.certificate).unwrap()).concat();
    std::fs::write(&first.certificate, chain).unwrap();
    assert_eq!(TlsServer::load(&config(&first, Vec::new())).unwrap().days_left(noon(1)), 8);
}

#[test]
fn a_reload_takes_what_is_good_and_leaves_the_old_otherwise() {
    let files = Files::new();
    let first = files.make("first", &["a"], 20);
    let server = TlsServer::load(&config(&first, Vec::new())).unwrap();
    let before = Arc::clone(&server.current.read().config);
    std::fs::write(&first.certificate, "nothing").unwrap();
    let error = server.reload(&config(&first, Vec::new())).unwrap_err().to_string();
    assert!(error.contains("first.crt"), "{error}");
    assert!(Arc::ptr_eq(&before, &server.current.read().config));
    assert_eq!(server.days_left(noon(1)), 18);
    // The key of another certificate.
    let other = files.make("other", &["a"], 5);
    let mixed = CertificateFiles { certificate: other.certificate, private_key: first.private_key.clone() };
    server.reload(&config(&mixed, Vec::new())).unwrap_err();
    assert_eq!(server.days_left(noon(1)), 18);
    let first = files.make("first", &["a"], 10);
    server.reload(&config(&first, Vec::new())).unwrap();
    assert_eq!(server.days_left(noon(1)), 8);
}

#[test]
fn certificates_are_chosen_by_name() {
    let files = Files::new();
    let key = |file: &str, names: &[&str]| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        certified_key(&files.make(file, names, 1), &provider).unwrap()
    };
    let mut resolver = Resolver::new(key("default", &["mqtt.example", "b.wild.example"]));
    assert!(resolver.add(key("other", &["Other.example", "mqtt.example"])));
    assert!(resolver.add(key("wild", &["*.wild.example"])));
    assert!(!resolver.add(key("nameless", &["10.0.0.1"])));
    let default = resolver.choose(None).clone();
    let other = resolver.choose(Some("other.example")).clone();
    let wild = resolver.choose(Some("a.wild.example")).clone();
    assert!(!Arc::ptr_eq(&default, &other) && !Arc::ptr_eq(&default, &wild) && !Arc::ptr_eq(&other, &wild));
    for (name, expected) in [
        ("mqtt.example", &default),
        ("unknown.example", &default),
        ("OTHER.example", &other),
        ("A.Wild.example", &wild),
        // The first certificate that has a name keeps it, even from a wildcard.
        ("b.wild.example", &default),
        // A wildcard is one label.
        ("wild.example", &default),
        ("x.a.wild.example", &default),
    ] {
        assert!(Arc::ptr_eq(resolver.choose(Some(name)), expected), "{name}");
    }
}

#[test]
fn a_further_certificate_without_a_name_is_refused() {
    let files = Files::new();
    let first = files.make("first", &["a"], 20);
    let nameless = files.make("nameless", &["10.0.0.1"], 20);
    let error = TlsServer::load(&config(&first, vec![nameless])).err().unwrap().to_string();
    assert!(error.contains("nameless.crt") && error.contains("DNS name"), "{error}");
}

#[test]
fn readme_names_the_suites_and_groups_that_are_there() {
    let readme = include_str!("../../../README.md");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let suites = provider.cipher_suites.iter().map(|suite| format!("{:?}", suite.suite()));
    let groups = provider.kx_groups.iter().map(|group| format!("{:?}", group.name()));
    let there: std::collections::BTreeSet<String> = suites.chain(groups).collect();
    let (_, table) = readme.split_once("| TLS | what is there |").expect("a table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let words = table.split('`').skip(1).step_by(2).map(str::to_owned);
    let words = words.filter(|word| ["TLS", "X25519", "secp"].iter().any(|start| word.starts_with(start)));
    assert_eq!(words.collect::<std::collections::BTreeSet<_>>(), there);
}
