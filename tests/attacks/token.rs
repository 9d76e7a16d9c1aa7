//! Tokens (JWT) made by hand, and brokers that take them: the cheapest way to be any user, whatever its name.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use ternmq::config::{Config, JwtAlgorithm};

use crate::support::{Connect, Connect5};

pub(crate) const SECRET: &[u8] = b"a secret that is as long as it has to be";

/// Has the broker take tokens that are signed with [`SECRET`], and nobody else.
pub(crate) fn take_tokens(config: &mut Config, directory: &Path) {
    let key_file = directory.join("secret");
    std::fs::write(&key_file, SECRET).expect("a file");
    config.auth.jwt.algorithm = Some(JwtAlgorithm::Hs256);
    config.auth.jwt.key_file = Some(key_file);
    config.listeners[0].allow_anonymous = false;
}

/// Seconds since 1970, so many from now.
#[allow(clippy::disallowed_methods, reason = "what a token says of time is about the wall clock")]
pub(crate) fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("not for ever") + seconds
}

/// A token with any header, any claims, and any way to sign.
pub(crate) fn made(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let encode = |bytes: &[u8]| Base64UrlUnpadded::encode_string(bytes);
    let message =
        format!("{}.{}", encode(header.to_string().as_bytes()), encode(claims.to_string().as_bytes()));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encode(&signature))
}

pub(crate) fn hs256(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    move |message| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

/// What makes one this user for an hour.
pub(crate) fn of(user: &str) -> String {
    with_claims(&json!({"sub": user, "exp": seconds_from_now(3_600)}))
}

/// A token that is signed as it should be, whatever it says.
pub(crate) fn with_claims(claims: &Value) -> String {
    made(&json!({"alg": "HS256", "typ": "JWT"}), claims, hs256(SECRET))
}

/// CONNECT of MQTT 3.1.1 as this user, with CleanSession 1.
pub(crate) fn login(id: &str, user: &str) -> Connect {
    Connect::new(id).user_name(user).password(of(user))
}

/// The same with a session that stays.
pub(crate) fn stays(id: &str, user: &str) -> Connect {
    Connect::persistent(id).user_name(user).password(of(user))
}

/// CONNECT of MQTT 5 as this user, with Clean Start 1.
pub(crate) fn login5(id: &str, user: &str) -> Connect5 {
    Connect5::new(id).user_name(user).password(of(user))
}

/// The same with Clean Start 0 and a session that stays.
pub(crate) fn stays5(id: &str, user: &str) -> Connect5 {
    Connect5::persistent(id).user_name(user).password(of(user))
}
