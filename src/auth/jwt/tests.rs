use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rsa};
use serde_json::json;

use super::*;

/// The time at which tests look at tokens: some second of 2026.
const NOW: u64 = 1_790_000_000;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Base64 of URLs (RFC 4648, section 5) without padding, written here so that tests do not use what they test.
fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..=chunk.len() {
            text.push(char::from(alphabet[(bits >> (18 - 6 * n) & 63) as usize]));
        }
    }
    text
}

const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const PEM: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn pem(der: &[u8]) -> String {
    let mut body = encode(der, PEM);
    while !body.len().is_multiple_of(4) {
        body.push('=');
    }
    let lines: Vec<&str> =
        body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

/// A token with any header and any way to sign.
fn token(header: Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!(
        "{}.{}",
        encode(header.to_string().as_bytes(), URL),
        encode(claims.to_string().as_bytes(), URL)
    );
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(&signature, URL))
}

fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

fn claims() -> Value {
    json!({"sub": "device-7", "exp": NOW + 60})
}

/// A verifier with a key file of these bytes.
fn load(
    algorithm: JwtAlgorithm,
    key: &[u8],
    change: impl Fn(&mut JwtConfig),
) -> Result<JwtVerifier, JwtKeyError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    fs::write(&path, key).unwrap();
    let mut config = JwtConfig { algorithm: Some(algorithm), key_file: Some(path), ..JwtConfig::default() };
    change(&mut config);
    JwtVerifier::load(&config)
}

fn verifier(change: impl Fn(&mut JwtConfig)) -> JwtVerifier {
    load(JwtAlgorithm::Hs256, SECRET, change).unwrap()
}

/// The answer to a token of HS256 with these claims.
fn judge(verifier: &JwtVerifier, claims: &Value) -> Result<JwtIdentity, JwtFault> {
    verifier.check(token(json!({"alg": "HS256"}), claims, hs256(SECRET)).as_bytes(), None, at(NOW))
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

/// A key pair of each algorithm: its name, the public key, and how it signs.
struct Signer {
    algorithm: JwtAlgorithm,
    name: &'static str,
    public: Vec<u8>,
    sign: Sign,
}

fn signers() -> Vec<Signer> {
    let rsa = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap();
    let rsa_public = pem(rsa_public.as_ref());
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let ec_public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(ec.public_key()).unwrap();
    let ec_public = pem(ec_public.as_ref());
    let ed = Ed25519KeyPair::generate().unwrap();
    let ed_public = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(ed.public_key()).unwrap();
    let ed_public = pem(ed_public.as_ref());
    vec![
        Signer {
            algorithm: JwtAlgorithm::Hs256,
            name: "HS256",
            public: SECRET.to_vec(),
            sign: Box::new(hs256(SECRET)),
        },
        Signer {
            algorithm: JwtAlgorithm::Rs256,
            name: "RS256",
            public: rsa_public.into_bytes(),
            sign: Box::new(move |message| rsa_sign(&rsa, message)),
        },
        Signer {
            algorithm: JwtAlgorithm::Es256,
            name: "ES256",
            public: ec_public.into_bytes(),
            sign: Box::new(move |message| ec.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()),
        },
        Signer {
            algorithm: JwtAlgorithm::EdDsa,
            name: "EdDSA",
            public: ed_public.into_bytes(),
            sign: Box::new(move |message| ed.sign(message).as_ref().to_vec()),
        },
    ]
}

fn rsa_sign(key: &RsaKeyPair, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

#[test]
fn each_algorithm_takes_its_own_tokens_and_no_others() {
    let signers = signers();
    for configured in &signers {
        let verifier = load(configured.algorithm, &configured.public, |_| {}).unwrap();
        for signer in &signers {
            let made = token(json!({"alg": signer.name, "typ": "JWT"}), &claims(), &signer.sign);
            let result = verifier.check(made.as_bytes(), Some("device-7"), at(NOW));
            if signer.name == configured.name {
                let expected = JwtIdentity { user: "device-7".to_owned(), expires_at: at(NOW + 60) };
                assert_eq!(result, Ok(expected), "{}", signer.name);
                // One bit of the claims, and of the signature.
                for place in [made.find('.').unwrap() + 4, made.len() - 4] {
                    let mut changed = made.clone().into_bytes();
                    changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
                    assert!(verifier.check(&changed, None, at(NOW)).is_err(), "{} {place}", signer.name);
                }
            } else {
                assert_eq!(result, Err(JwtFault::Algorithm), "{} for {}", signer.name, configured.name);
                // The same signature under the name that is expected.
                let renamed = token(json!({"alg": configured.name}), &claims(), &signer.sign);
                assert_eq!(verifier.check(renamed.as_bytes(), None, at(NOW)), Err(JwtFault::Signature));
            }
        }
    }
}

#[test]
fn keys_of_others_sign_nothing() {
    let (ours, others) = (signers(), signers());
    for (ours, other) in ours.iter().zip(&others).skip(1) {
        let verifier = load(ours.algorithm, &ours.public, |_| {}).unwrap();
        let made = token(json!({"alg": other.name}), &claims(), &other.sign);
        assert_eq!(verifier.check(made.as_bytes(), None, at(NOW)), Err(JwtFault::Signature), "{}", ours.name);
    }
    let made = token(json!({"alg": "HS256"}), &claims(), hs256(b"another secret of thirty-two byte"));
    assert_eq!(verifier(|_| {}).check(made.as_bytes(), None, at(NOW)), Err(JwtFault::Signature));
}

#[test]
fn a_public_key_is_no_secret() {
    for signer in signers().iter().skip(1) {
        let verifier = load(signer.algorithm, &signer.public, |_| {}).unwrap();
        // Signed with what everybody knows: the file, and the file without its last line break.
        for secret in [&signer.public[..], signer.public.strip_suffix(b"\n").unwrap()] {
            let made = token(json!({"alg": "HS256"}), &claims(), hs256(secret));
            assert_eq!(
                verifier.check(made.as_bytes(), None, at(NOW)),
                Err(JwtFault::Algorithm),
                "{}",
                signer.name
            );
            let made = token(json!({"alg": signer.name}), &claims(), hs256(secret));
            assert_eq!(
                verifier.check(made.as_bytes(), None, at(NOW)),
                Err(JwtFault::Signature),
                "{}",
                signer.name
            );
        }
        // Nor can it be configured as one.
        let error = load(JwtAlgorithm::Hs256, &signer.public, |_| {}).unwrap_err().to_string();
        assert!(error.contains("needs a secret"), "{error}");
    }
}

#[test]
fn unsigned_tokens_let_nobody_in() {
    for signer in signers() {
        let verifier = load(signer.algorithm, &signer.public, |_| {}).unwrap();
        for name in ["none", "None", "NONE", ""] {
            for signature in [&b""[..], b"x"] {
                let made = token(json!({"alg": name}), &claims(), |_| signature.to_vec());
                assert!(verifier.check(made.as_bytes(), None, at(NOW)).is_err(), "{name}");
            }
        }
        let made = token(json!({"alg": signer.name}), &claims(), |_| Vec::new());
        assert_eq!(verifier.check(made.as_bytes(), None, at(NOW)), Err(JwtFault::Signature));
    }
}

#[test]
fn what_is_no_token_is_told_so() {
    let verifier = verifier(|_| {});
    let good = token(json!({"alg": "HS256"}), &claims(), hs256(SECRET));
    for bytes in [b"".as_slice(), b"password", b"a.b", b"..", b"a.b.c", b"\xff\xfe.\x00.x", b"e30.e30."] {
        assert_eq!(verifier.check(bytes, None, at(NOW)), Err(JwtFault::Malformed), "{bytes:?}");
    }
    for bytes in
        [format!("{good}."), format!("{good}.x"), format!("x.{good}"), format!(" {good}"), format!("{good}=")]
    {
        assert!(verifier.check(bytes.as_bytes(), None, at(NOW)).is_err(), "{bytes}");
    }
    let crit = token(json!({"alg": "HS256", "crit": ["b64"], "b64": true}), &claims(), hs256(SECRET));
    assert_eq!(verifier.check(crit.as_bytes(), None, at(NOW)), Err(JwtFault::Malformed));
    assert_eq!(judge(&verifier, &json!(["sub", "exp"])), Err(JwtFault::Malformed));
    let mut long = claims();
    long["x"] = json!("x".repeat(TOKEN_BYTES_MAX));
    assert_eq!(judge(&verifier, &long), Err(JwtFault::TooLong));
    long["x"] = json!("x".repeat(TOKEN_BYTES_MAX / 2));
    assert!(judge(&verifier, &long).is_ok());
}

#[test]
fn a_key_in_the_token_is_not_looked_at() {
    let header = json!({"alg": "HS256", "kid": "1", "jku": "http://evil.example/keys",
        "jwk": {"kty": "oct", "k": encode(b"the secret of somebody else, 32 b", URL)}});
    let made = token(header.clone(), &claims(), hs256(b"the secret of somebody else, 32 b"));
    assert_eq!(verifier(|_| {}).check(made.as_bytes(), None, at(NOW)), Err(JwtFault::Signature));
    let made = token(header, &claims(), hs256(SECRET));
    assert!(verifier(|_| {}).check(made.as_bytes(), None, at(NOW)).is_ok());
}

#[test]
fn times_are_judged() {
    let strict = verifier(|_| {});
    let lenient = verifier(|config| config.leeway = Duration::from_secs(30));
    for (times, by_strict, by_lenient) in [
        (json!({"exp": NOW + 1}), Ok(NOW + 1), Ok(NOW + 31)),
        (json!({"exp": NOW}), Err(JwtFault::Expired), Ok(NOW + 30)),
        (json!({"exp": NOW - 29}), Err(JwtFault::Expired), Ok(NOW + 1)),
        (json!({"exp": NOW - 30}), Err(JwtFault::Expired), Err(JwtFault::Expired)),
        (json!({"exp": NOW as f64 + 1.5}), Ok(NOW + 1), Ok(NOW + 31)),
        (json!({"exp": 0}), Err(JwtFault::Expired), Err(JwtFault::Expired)),
        (json!({"exp": -5}), Err(JwtFault::Expired), Err(JwtFault::Expired)),
        (json!({"exp": u64::MAX}), Ok(LAST_SECOND), Ok(LAST_SECOND + 30)),
        (json!({"exp": 1e300}), Ok(LAST_SECOND), Ok(LAST_SECOND + 30)),
        (json!({}), Err(JwtFault::NoExpiry), Err(JwtFault::NoExpiry)),
        (json!({"exp": null}), Err(JwtFault::Malformed), Err(JwtFault::Malformed)),
        (json!({"exp": (NOW + 60).to_string()}), Err(JwtFault::Malformed), Err(JwtFault::Malformed)),
        (json!({"exp": NOW + 60, "nbf": NOW}), Ok(NOW + 60), Ok(NOW + 90)),
        (json!({"exp": NOW + 60, "nbf": NOW + 30}), Err(JwtFault::NotYetValid), Ok(NOW + 90)),
        (json!({"exp": NOW + 60, "nbf": NOW + 31}), Err(JwtFault::NotYetValid), Err(JwtFault::NotYetValid)),
        (json!({"exp": NOW + 60, "nbf": "now"}), Err(JwtFault::Malformed), Err(JwtFault::Malformed)),
    ] {
        let mut claims = times;
        claims["sub"] = json!("u");
        let end = |result: Result<JwtIdentity, JwtFault>| result.map(|identity| identity.expires_at);
        assert_eq!(end(judge(&strict, &claims)), by_strict.map(at), "{claims}");
        assert_eq!(end(judge(&lenient, &claims)), by_lenient.map(at), "{claims}");
    }
}

#[test]
fn issuer_and_audience_are_judged() {
    let plain = verifier(|_| {});
    let strict = verifier(|config| {
        config.issuer = Some("https://id.example".to_owned());
        config.audience = Some("mqtt".to_owned());
    });
    for (parties, by_plain, by_strict) in [
        (json!({"iss": "https://id.example", "aud": "mqtt"}), Some(JwtFault::Audience), None),
        (json!({"iss": "https://id.example", "aud": ["web", "mqtt"]}), Some(JwtFault::Audience), None),
        (
            json!({"iss": "https://id.example", "aud": "web"}),
            Some(JwtFault::Audience),
            Some(JwtFault::Audience),
        ),
        (
            json!({"iss": "https://id.example", "aud": ["mqtt2"]}),
            Some(JwtFault::Audience),
            Some(JwtFault::Audience),
        ),
        (json!({"iss": "https://id.example", "aud": []}), Some(JwtFault::Audience), Some(JwtFault::Audience)),
        (json!({"iss": "https://id.example"}), None, Some(JwtFault::Audience)),
        (
            json!({"iss": "https://id.example/", "aud": "mqtt"}),
            Some(JwtFault::Audience),
            Some(JwtFault::Issuer),
        ),
        (
            json!({"iss": ["https://id.example"], "aud": "mqtt"}),
            Some(JwtFault::Audience),
            Some(JwtFault::Issuer),
        ),
        (json!({"aud": "mqtt"}), Some(JwtFault::Audience), Some(JwtFault::Issuer)),
        (json!({}), None, Some(JwtFault::Issuer)),
    ] {
        let mut claims = parties;
        claims["sub"] = json!("u");
        claims["exp"] = json!(NOW + 1);
        assert_eq!(judge(&plain, &claims).err(), by_plain, "{claims}");
        assert_eq!(judge(&strict, &claims).err(), by_strict, "{claims}");
    }
}

#[test]
fn the_user_is_that_of_the_claim() {
    let made =
        token(json!({"alg": "HS256"}), &json!({"sub": "a", "name": "b", "exp": NOW + 1}), hs256(SECRET));
    let check = |verifier: &JwtVerifier, user| {
        verifier.check(made.as_bytes(), user, at(NOW)).map(|identity| identity.user)
    };
    let by_sub = verifier(|_| {});
    assert_eq!(check(&by_sub, None).as_deref(), Ok("a"));
    assert_eq!(check(&by_sub, Some("a")).as_deref(), Ok("a"));
    assert_eq!(check(&by_sub, Some("b")), Err(JwtFault::OtherUser));
    assert_eq!(check(&by_sub, Some("")), Err(JwtFault::OtherUser));
    let by_name = verifier(|config| config.user_claim = "name".to_owned());
    assert_eq!(check(&by_name, Some("b")).as_deref(), Ok("b"));
    let any = verifier(|config| config.username_must_match = false);
    assert_eq!(check(&any, Some("b")).as_deref(), Ok("a"));
    for user in [json!(""), json!("a\u{0}b"), json!("a\n")] {
        let claims = json!({"sub": user, "exp": NOW + 1});
        assert_eq!(judge(&by_sub, &claims), Err(JwtFault::NoUser), "{claims}");
    }
    assert_eq!(judge(&by_sub, &json!({"exp": NOW + 1})), Err(JwtFault::NoUser));
    for user in [json!(7), json!(["a"]), json!({"a": 1}), json!(null)] {
        let claims = json!({"sub": "x", "name": user, "exp": NOW + 1});
        assert_eq!(judge(&by_name, &claims), Err(JwtFault::NoUser), "{claims}");
        assert!(judge(&by_sub, &json!({"sub": user, "exp": NOW + 1})).is_err(), "{claims}");
    }
}

#[test]
fn keys_that_do_not_fit_are_refused_when_they_are_read() {
    let signers = signers();
    for configured in &signers {
        for signer in signers.iter().filter(|signer| signer.name != configured.name) {
            let error = load(configured.algorithm, &signer.public, |_| {}).unwrap_err().to_string();
            assert!(error.contains("key"), "{} for {}: {error}", signer.name, configured.name);
        }
        assert!(matches!(load(configured.algorithm, b"", |_| {}), Err(JwtKeyError::Key { .. })));
    }
    // The right kind, on another curve.
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let p384 = AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(p384.public_key()).unwrap();
    let error = load(JwtAlgorithm::Es256, pem(p384.as_ref()).as_bytes(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("P-256"), "{error}");
    // Secrets: length without the line break at the end, which does not count.
    let ended = [SECRET, b"\r\n"].concat();
    let made = token(json!({"alg": "HS256"}), &claims(), hs256(SECRET));
    let verifier = load(JwtAlgorithm::Hs256, &ended, |_| {}).unwrap();
    assert!(verifier.check(made.as_bytes(), None, at(NOW)).is_ok());
    let short = [&SECRET[1..], b"\n"].concat();
    assert!(load(JwtAlgorithm::Hs256, &short, |_| {}).unwrap_err().to_string().contains("32"));
    // No file, no algorithm.
    let missing =
        load(JwtAlgorithm::Hs256, SECRET, |config| config.key_file = Some("/nonexistent/key".into()));
    assert!(matches!(missing, Err(JwtKeyError::Read { .. })));
    let unset = load(JwtAlgorithm::Hs256, SECRET, |config| config.algorithm = None);
    assert!(matches!(unset, Err(JwtKeyError::NotConfigured)));
}

#[test]
fn a_small_rsa_key_is_refused() {
    // A modulus of 1,024 bits, made up: only its size counts. SEQUENCE { rsaEncryption, BIT STRING { SEQUENCE { n, e } } }.
    let mut modulus = vec![0x02, 0x81, 0x81, 0x00];
    modulus.extend([0xc5; 128]);
    let mut key = vec![0x30, 0x81, 0x89];
    key.extend(modulus);
    key.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
    let mut info = vec![0x30, 0x81, 0x9f];
    info.extend([0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00]);
    info.extend([0x03, 0x81, 0x8d, 0x00]);
    info.extend(key);
    let error = load(JwtAlgorithm::Rs256, pem(&info).as_bytes(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("2048 bits"), "{error}");
}
