//! JSON Web Tokens (RFC 7519) in the place of a password: `JwtVerifier` judges one and says who its bearer is, and until when.
//!
//! The algorithm and the key come from the configuration. A token that names another algorithm is refused before its signature is
//! looked at, and keys, key ids and addresses of keys in a token are not looked at at all. The time is passed in.
//!
//! Not done here: whatever `exp` means for a client that is already connected (see [`JwtIdentity::expires_at`]), and revocation of
//! single tokens.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, VerificationAlgorithm,
};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::config::{JwtAlgorithm, JwtConfig};

/// Longest token that is looked at, in bytes. A longer one is [`JwtFault::TooLong`].
pub const TOKEN_BYTES_MAX: usize = 8_192;

/// Shortest secret of HS256, in bytes (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// Smallest modulus of RS256, in bits (RFC 7518, section 3.3).
const RSA_BITS_MIN: usize = 2_048;

/// The last second of the year 9999: later times than this are cut to it, so that no sum of times overflows.
const LAST_SECOND: u64 = 253_402_300_799;

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// `auth.jwt.key_file` or `auth.jwt.algorithm` is not set.
    #[error("auth.jwt needs key_file and algorithm")]
    NotConfigured,
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds no key for the algorithm.
    #[error("{path}: {why}", path = path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Why a token lets nobody in. Nothing of the token is in it, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtFault {
    /// More than [`TOKEN_BYTES_MAX`].
    #[error("the token is too long")]
    TooLong,
    /// No token at all, or one whose parts cannot be read, or that asks to be read in a way that is not known (`crit`).
    #[error("this is no token that can be read")]
    Malformed,
    /// It names another algorithm than the configured one.
    #[error("the token names another algorithm than auth.jwt.algorithm")]
    Algorithm,
    /// It was not signed with the key, or was changed.
    #[error("the signature does not fit")]
    Signature,
    /// `exp` is not there.
    #[error("the token has no expiry (exp)")]
    NoExpiry,
    /// `exp` is over.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is still to come.
    #[error("the token is not valid yet (nbf)")]
    NotYetValid,
    /// `iss` is not the configured one.
    #[error("the token has another issuer (iss) than auth.jwt.issuer")]
    Issuer,
    /// `aud` does not contain the configured one, or there is an `aud` and none is configured (RFC 7519, section 4.1.3).
    #[error("the token is for another audience (aud) than auth.jwt.audience")]
    Audience,
    /// The claim of the user name is not there, or is no text that can be one.
    #[error("the token has no user name in the claim that auth.jwt.user_claim names")]
    NoUser,
    /// CONNECT names another user.
    #[error("CONNECT names another user than the token")]
    OtherUser,
}

/// Who a token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIdentity {
    /// The user name.
    pub user: String,
    /// From when on the token counts no longer: its `exp` and the leeway. Whoever came in by it has to leave then.
    pub expires_at: SystemTime,
}

/// The configured key and what is asked of a token.
#[derive(Debug)]
pub struct JwtVerifier {
    key: DecodingKey,
    validation: Validation,
    issuer: Option<String>,
    audience: Option<String>,
    user_claim: String,
    leeway: Duration,
    username_must_match: bool,
}

impl JwtVerifier {
    /// Reads the key.
    ///
    /// # Errors
    /// The key file cannot be read, or has no key for the algorithm: none at all, one of another kind, one that is too short.
    pub fn load(config: &JwtConfig) -> Result<Self, JwtKeyError> {
        let (Some(path), Some(algorithm)) = (&config.key_file, config.algorithm) else {
            return Err(JwtKeyError::NotConfigured);
        };
        let bytes = fs::read(path).map_err(|source| JwtKeyError::Read { path: path.clone(), source })?;
        let (key, algorithm) = match algorithm {
            JwtAlgorithm::Hs256 => (secret(path, &bytes)?, Algorithm::HS256),
            JwtAlgorithm::Rs256 => (public_key(path, &bytes, Kind::Rsa)?, Algorithm::RS256),
            JwtAlgorithm::Es256 => (public_key(path, &bytes, Kind::P256)?, Algorithm::ES256),
            JwtAlgorithm::EdDsa => (public_key(path, &bytes, Kind::Ed25519)?, Algorithm::EdDSA),
        };
        // The library judges form, algorithm and signature. Claims are judged here: it would ask the system's clock.
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Ok(JwtVerifier {
            key,
            validation,
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            user_claim: config.user_claim.clone(),
            leeway: config.leeway,
            username_must_match: config.username_must_match,
        })
    }

    /// Judges `token`, the password of a CONNECT with user name `user`, at the time `now`.
    ///
    /// # Errors
    /// The first reason found why it lets nobody in. The signature is judged before any claim.
    pub fn check(&self, token: &[u8], user: Option<&str>, now: SystemTime) -> Result<JwtIdentity, JwtFault> {
        let claims = self.claims(token)?;
        let exp = seconds(claims.get("exp").ok_or(JwtFault::NoExpiry)?).ok_or(JwtFault::Malformed)?;
        let expires_at = after_epoch(exp) + self.leeway;
        if expires_at <= now {
            return Err(JwtFault::Expired);
        }
        if let Some(nbf) = claims.get("nbf") {
            let nbf = seconds(nbf).ok_or(JwtFault::Malformed)?;
            if after_epoch(nbf) > now + self.leeway {
                return Err(JwtFault::NotYetValid);
            }
        }
        self.check_parties(&claims)?;
        let name = claims.get(&self.user_claim).and_then(Value::as_str).filter(|name| is_user_name(name));
        let name = name.ok_or(JwtFault::NoUser)?;
        if self.username_must_match && user.is_some_and(|user| user != name) {
            return Err(JwtFault::OtherUser);
        }
        Ok(JwtIdentity { user: name.to_owned(), expires_at })
    }

    /// The claims of a token that was signed with the key.
    fn claims(&self, token: &[u8]) -> Result<Map<String, Value>, JwtFault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtFault::TooLong);
        }
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &self.key, &self.validation);
        let decoded = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => JwtFault::Signature,
            ErrorKind::InvalidAlgorithm => JwtFault::Algorithm,
            _ => JwtFault::Malformed,
        })?;
        // What `crit` names must be understood (RFC 7515, section 4.1.11); we understand no extension.
        if decoded.header.crit.is_some() {
            return Err(JwtFault::Malformed);
        }
        Ok(decoded.claims)
    }

    fn check_parties(&self, claims: &Map<String, Value>) -> Result<(), JwtFault> {
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(JwtFault::Issuer);
        }
        let is_for_us = match (claims.get("aud"), &self.audience) {
            (None, None) => true,
            (Some(Value::String(one)), Some(us)) => one == us,
            (Some(Value::Array(all)), Some(us)) => all.iter().any(|one| one.as_str() == Some(us)),
            _ => false,
        };
        if is_for_us { Ok(()) } else { Err(JwtFault::Audience) }
    }
}

/// A NumericDate: seconds, perhaps with a fraction, which is cut off.
fn seconds(value: &Value) -> Option<u64> {
    match value.as_u64() {
        Some(seconds) => Some(seconds.min(LAST_SECOND)),
        // The cast cuts off what does not fit: what is before 1970 becomes 1970.
        None => value.as_f64().map(|seconds| (seconds as u64).min(LAST_SECOND)),
    }
}

fn after_epoch(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// What MQTT could carry as a user name, and no control character, which would serve nobody but to mislead.
fn is_user_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

fn secret(path: &Path, bytes: &[u8]) -> Result<DecodingKey, JwtKeyError> {
    let error = |why: String| JwtKeyError::Key { path: path.to_owned(), why };
    if bytes.windows(10).any(|window| window == b"-----BEGIN") {
        // A public key is known to everybody: as a secret it would let everybody in.
        return Err(error("HS256 needs a secret, this is a key or certificate in PEM".to_owned()));
    }
    // Editors end a file with a line break.
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() < SECRET_BYTES_MIN {
        return Err(error(format!("HS256 needs a secret of at least {SECRET_BYTES_MIN} bytes")));
    }
    Ok(DecodingKey::from_secret(bytes))
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rsa,
    P256,
    Ed25519,
}

fn public_key(path: &Path, bytes: &[u8], kind: Kind) -> Result<DecodingKey, JwtKeyError> {
    let error = |why: String| JwtKeyError::Key { path: path.to_owned(), why };
    let der = SubjectPublicKeyInfoDer::from_pem_slice(bytes)
        .map_err(|_| error("expected a public key in PEM (BEGIN PUBLIC KEY)".to_owned()))?;
    let (algorithm, what): (&'static dyn VerificationAlgorithm, _) = match kind {
        Kind::Rsa => (&RSA_PKCS1_2048_8192_SHA256, "RS256 needs an RSA key"),
        Kind::P256 => (&ECDSA_P256_SHA256_FIXED, "ES256 needs a key on the curve P-256"),
        Kind::Ed25519 => (&ED25519, "EdDSA needs an Ed25519 key"),
    };
    // Else a key of another kind would be found out by every token being refused.
    ParsedPublicKey::new(algorithm, &der).map_err(|_| error(what.to_owned()))?;
    if kind == Kind::Rsa && rsa_bits(&der).is_none_or(|bits| bits < RSA_BITS_MIN) {
        return Err(error(format!("RS256 needs an RSA key of at least {RSA_BITS_MIN} bits")));
    }
    Ok(match kind {
        Kind::Rsa => DecodingKey::from_rsa_der(&der),
        Kind::P256 => DecodingKey::from_ec_der(&der),
        Kind::Ed25519 => DecodingKey::from_ed_der(&der),
    })
}

fn rsa_bits(der: &[u8]) -> Option<usize> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    Some(info.parsed().ok()?.key_size())
}

#[cfg(test)]
mod tests;
