//! Tokens (JWT) that are forged, stolen, or have had their day, through the broker. What a token may look like is in `src/auth/jwt/tests.rs`.

use std::time::{Duration, Instant};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use aws_lc_rs::{rsa, signature};
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::json;
use ternmq::config::{Config, JwtAlgorithm};

use crate::house::House;
use crate::support::{Connect, Connect5, DEADLINE, RawClient, RawClient5, ServerPacket, ServerPacket5, wire};
use crate::token::{
    SECRET, hs256, login, login5, made, of, seconds_from_now, stays5, take_tokens, with_claims,
};

fn house(change: impl FnOnce(&mut Config)) -> House {
    House::with(|config, directory| {
        take_tokens(config, directory);
        // All of these fail on purpose.
        (config.auth.failures_max, config.auth.address_failures_max, config.auth.user_failures_max) =
            (0, 0, 0);
        change(config);
    })
}

fn with_token(token: impl AsRef<[u8]>) -> Connect {
    Connect::new("client").user_name("alice").password(token)
}

/// One that takes tokens of this algorithm, signed by the owner of this public key.
fn house_of(algorithm: JwtAlgorithm, public: &[u8]) -> House {
    let public = pem(public);
    House::with(move |config, directory| {
        take_tokens(config, directory);
        std::fs::write(directory.join("public.pem"), &public).expect("a file");
        config.auth.jwt.algorithm = Some(algorithm);
        config.auth.jwt.key_file = Some(directory.join("public.pem"));
    })
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", Base64::encode_string(der))
}

#[test]
fn forged_tokens() {
    let house = house(|_| {});
    let claims = json!({"sub": "alice", "exp": seconds_from_now(60)});
    let unsigned = |alg: &str| made(&json!({ "alg": alg }), &claims, |_| Vec::new());
    let good = of("alice");
    let parts: Vec<&str> = good.split('.').collect();
    let admin = Base64UrlUnpadded::encode_string(
        json!({"sub": "admin", "exp": seconds_from_now(60)}).to_string().as_bytes(),
    );
    let bomb = format!("{}1{}", "[".repeat(3_000), "]".repeat(3_000));
    let deep = Base64UrlUnpadded::encode_string(bomb.as_bytes());
    for (what, token) in [
        ("no algorithm", unsigned("none")),
        ("no algorithm, loudly", unsigned("NONE")),
        ("no signature", unsigned("HS256")),
        ("the signature left away", format!("{}.{}.", parts[0], parts[1])),
        ("and its dot", format!("{}.{}", parts[0], parts[1])),
        ("another algorithm", made(&json!({"alg": "HS384"}), &claims, hs256(SECRET))),
        (
            "another key",
            made(&json!({"alg": "HS256"}), &claims, hs256(b"some other secret that is long enough")),
        ),
        ("the empty key", made(&json!({"alg": "HS256"}), &claims, hs256(b""))),
        ("other claims", format!("{}.{admin}.{}", parts[0], parts[2])),
        ("twice", format!("{good}.{good}")),
        ("a prefix", format!("Bearer {good}")),
        ("a line break", format!("{good}\n")),
        ("a key of its own", {
            let key = json!({"kty": "oct", "k": Base64UrlUnpadded::encode_string(b"mine")});
            made(&json!({"alg": "HS256", "jwk": key}), &claims, hs256(b"mine"))
        }),
        ("a file as key", made(&json!({"alg": "HS256", "kid": "/dev/null"}), &claims, hs256(b""))),
        ("something critical", made(&json!({"alg": "HS256", "crit": ["x"], "x": 1}), &claims, hs256(SECRET))),
        ("deep in brackets", format!("{}.{deep}.{}", parts[0], parts[2])),
        ("deep in brackets from the start", format!("{deep}.{}.{}", parts[1], parts[2])),
        ("as long as can be", "x".repeat(65_535)),
        ("nothing", String::new()),
    ] {
        assert_eq!(house.refusal(&with_token(&token)), 4, "{what}");
    }
    assert_eq!(house.refusal(&with_token(b"\xFF\xFE.\0.\x80")), 4);
    house.open(&with_token(&good)).disconnect();
}

#[test]
fn tokens_that_are_good_for_somebody_else_or_another_time() {
    let house = house(|_| {});
    for (what, claims) in [
        ("expired", json!({"sub": "alice", "exp": seconds_from_now(-1)})),
        ("expired long ago", json!({"sub": "alice", "exp": 0})),
        ("before there was time", json!({"sub": "alice", "exp": -1})),
        ("for ever", json!({ "sub": "alice" })),
        ("for ever, in words", json!({"sub": "alice", "exp": "never"})),
        ("for ever, by null", json!({"sub": "alice", "exp": null})),
        ("not yet", json!({"sub": "alice", "exp": seconds_from_now(60), "nbf": seconds_from_now(30)})),
        ("another's", json!({"sub": "bob", "exp": seconds_from_now(60)})),
        ("nobody's", json!({"exp": seconds_from_now(60)})),
        ("somebody's in another claim", json!({"user": "alice", "exp": seconds_from_now(60)})),
        ("of many", json!({"sub": ["alice"], "exp": seconds_from_now(60)})),
        ("for another service", json!({"sub": "alice", "exp": seconds_from_now(60), "aud": "http"})),
    ] {
        assert_eq!(house.refusal(&with_token(with_claims(&claims))), 4, "{what}");
    }
    // Without a name in CONNECT it is the token's, as in MQTT 5 it may be; a control character in it is nobody.
    let (client, ..) = RawClient5::open(house.addr(), &Connect5::new("five").password(of("alice")));
    client.disconnect();
    RawClient5::refused(house.addr(), &Connect5::new("five").password(of("alice\n")).bytes(), 0x86);
}

#[test]
fn a_public_key_for_a_secret() {
    let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).expect("DER");
    let house = house_of(JwtAlgorithm::Rs256, public.as_ref());
    let claims = json!({"sub": "alice", "exp": seconds_from_now(60)});
    let rs256 = |message: &[u8]| {
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).expect("a signature");
        signature
    };
    // Everybody knows the public key. As the secret of HS256, which the token asks for, it opens nothing.
    let pem = pem(public.as_ref());
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), public.as_ref(), b""] {
        for algorithm in ["HS256", "RS256", "none"] {
            let token = made(&json!({ "alg": algorithm }), &claims, hs256(secret));
            assert_eq!(house.refusal(&with_token(token)), 4, "{algorithm}");
        }
    }
    assert_eq!(house.refusal(&with_token(made(&json!({"alg": "HS256"}), &claims, rs256))), 4);
    house.open(&with_token(made(&json!({"alg": "RS256"}), &claims, rs256))).disconnect();
    // Nor does a broker start that is told to take it as a secret.
    let mut config = house.config.clone();
    config.auth.jwt.algorithm = Some(JwtAlgorithm::Hs256);
    let failures = house.broker.reload(&config);
    assert!(failures.len() == 1 && failures[0].contains("public.pem"), "{failures:?}");
    house.open(&with_token(made(&json!({"alg": "RS256"}), &claims, rs256))).disconnect();
}

#[test]
fn a_signature_of_nothing() {
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let public: &signature::EcdsaPublicKey = key.public_key();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(public).expect("DER");
    let house = house_of(JwtAlgorithm::Es256, public.as_ref());
    let claims = json!({"sub": "alice", "exp": seconds_from_now(60)});
    let header = json!({"alg": "ES256"});
    // r and s of zero, or of the order of the group: what a careless verifier takes for a signature of anything.
    let order = Base64::decode_vec("/////wAAAAD//////////7zm+q2nF56E87nKwvxjJVE=").expect("base 64");
    for signature in
        [vec![0; 64], [&order[..], &order].concat(), [vec![0; 32], order].concat(), vec![0xFF; 64]]
    {
        assert_eq!(house.refusal(&with_token(made(&header, &claims, |_| signature.clone()))), 4);
    }
    let sign =
        |message: &[u8]| key.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec();
    house.open(&with_token(made(&header, &claims, sign))).disconnect();
}

/// A token with so many seconds to go, and when that is over.
fn short(seconds: i64) -> (String, i64) {
    let exp = seconds_from_now(seconds);
    (with_claims(&json!({"sub": "alice", "exp": exp})), exp)
}

#[test]
fn staying_after_the_token_has_expired() {
    let house = house(|_| {});
    let mut watcher = house.open(&login("watcher", "watcher"));
    watcher.subscribe("will/#", 0);
    let (token, exp) = short(2);
    let mut silent = house.open(&with_token(&token).will("will/1", "gone", 0, false));
    let busy = Connect5::persistent("busy").user_name("alice").password(&token);
    let mut busy = house.open5(&busy.will("will/2", "gone", 0, false));
    // A packet now and then is a sign of life, and no reason to stay. (Answers are read, and the last word.)
    let deadline = Instant::now() + DEADLINE;
    let told = loop {
        assert!(Instant::now() < deadline, "it stays for ever");
        busy.send(&wire::PINGREQ);
        match busy.expect_packet() {
            ServerPacket5::PingResp => {}
            other => break other,
        }
    };
    assert!(matches!(told, ServerPacket5::Disconnect(0xA0, _)), "{told:?}");
    assert!(seconds_from_now(0) >= exp, "before its time");
    // 3.1.1 has no word for it.
    silent.expect_closed();
    let mut wills = [watcher.expect_publish().topic, watcher.expect_publish().topic];
    wills.sort();
    assert_eq!(wills, ["will/1", "will/2"]);
    house.eventually("both ends", |metrics| metrics.closed.get("login_expired") == Some(&2));
    // The same token brings nobody back, a new one does, to the same session.
    assert_eq!(house.refusal(&with_token(&token)), 4);
    let (_busy, present, _) = RawClient5::open(house.addr(), &stays5("busy", "alice"));
    assert!(present);
    watcher.expect_nothing();
}

#[test]
fn staying_by_not_reading_or_by_never_ending_a_packet() {
    let house = house(|config| config.limits.queue_bytes_max = 100_000);
    let mut publisher = house.open(&login("publisher", "publisher"));
    let (token, _) = short(2);
    let connect = |id: &str| Connect::new(id).user_name("alice").password(&token);
    let mut stalled = house.open(&connect("stalled"));
    stalled.subscribe("flood", 0);
    let mut endless = house.open(&connect("endless"));
    endless.send(&wire::publish_qos0("t", vec![0; 1_000_000])[..5_000]);
    let deadline = Instant::now() + DEADLINE;
    while house.dropped("queue_full_qos0") == 0 {
        assert!(Instant::now() < deadline, "nothing is dropped");
        publisher.publish("flood", 0, vec![0; 65_536]);
    }
    endless.expect_closed();
    house.eventually("both ends", |metrics| metrics.closed.get("login_expired") == Some(&2));
    house.eventually("their sockets", |metrics| metrics.sockets == 1);
    drop(stalled);
}

#[test]
fn a_key_that_is_taken_away() {
    let house = house(|_| {});
    let mut connected = house.open(&login("before", "alice"));
    house.write("secret", "a new secret that is as long as it has to be");
    house.reload();
    assert_eq!(house.refusal(&login("after", "alice")), 4);
    // As built, and said in README: who is connected stays, until the token expires.
    connected.expect_nothing();
    house.write("secret", "short");
    assert_eq!(house.broker.reload(&house.config).len(), 1);
    assert_eq!(house.refusal(&login("after", "alice")), 4);
}

#[test]
fn guessing_tokens_is_guessing() {
    let house = House::with(|config, directory| {
        take_tokens(config, directory);
        config.auth.failures_max = 2;
        config.auth.delay_max = Duration::ZERO;
    });
    for _ in 0..3 {
        assert_eq!(house.refusal(&with_token("x.y.z")), 4);
    }
    RawClient5::refused(house.addr(), &login5("client", "alice").bytes(), 0x8A);
    let mut bob = RawClient::connect(house.addr());
    bob.send(&login("bob", "bob").bytes());
    assert_eq!(bob.expect_packet(), ServerPacket::ConnAck(false, 0));
}
