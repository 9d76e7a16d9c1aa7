//! How a question is written, and what an answer means; pure.

use std::fmt::{self, Write};

use aws_lc_rs::hmac;
use hyper::StatusCode;
use serde_json::Value;

use super::answers::Digest;
use super::{HttpAnswer, Unavailable};
use crate::config::HttpFormat;

/// Who wants to come in.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The user name of CONNECT.
    pub user: &'a str,
    /// The password of CONNECT. One that is not UTF-8 cannot be written as JSON, and is refused there without a question.
    pub password: &'a [u8],
    /// The client id.
    pub client_id: &'a str,
}

impl fmt::Debug for Question<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question")
            .field("user", &self.user)
            .field("client_id", &self.client_id)
            .finish_non_exhaustive()
    }
}

impl Question<'_> {
    /// What the question is remembered by: nobody without the key can tell a password from it, or make two that are the same.
    pub(super) fn digest(&self, key: &hmac::Key) -> Digest {
        let mut context = hmac::Context::with_key(key);
        for part in [self.user.as_bytes(), self.password, self.client_id.as_bytes()] {
            // With its length in front: where one ends and the next begins makes a difference.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = Digest::default();
        let tag = context.sign();
        digest.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }

    /// The body of the request; `None` if the format cannot carry it.
    pub(super) fn body(&self, format: HttpFormat) -> Option<Vec<u8>> {
        match format {
            HttpFormat::Json => {
                let password = std::str::from_utf8(self.password).ok()?;
                let value = serde_json::json!({
                    "username": self.user, "password": password, "clientid": self.client_id,
                });
                Some(value.to_string().into_bytes())
            }
            HttpFormat::Form => {
                let mut body = String::new();
                let fields = [
                    ("username", self.user.as_bytes()),
                    ("&password", self.password),
                    ("&clientid", self.client_id.as_bytes()),
                ];
                for (name, value) in fields {
                    body.push_str(name);
                    body.push('=');
                    escape_into(&mut body, value);
                }
                Some(body.into_bytes())
            }
        }
    }
}

/// Writes `value` as a form has it.
fn escape_into(body: &mut String, value: &[u8]) {
    for byte in value {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                body.push(char::from(*byte))
            }
            b' ' => body.push('+'),
            // Writing to a string does not fail.
            _ => drop(write!(body, "%{byte:02X}")),
        }
    }
}

/// Without parameters: Home Assistant's Supervisor compares the whole value.
pub(super) const fn content_type(format: HttpFormat) -> &'static str {
    match format {
        HttpFormat::Json => "application/json",
        HttpFormat::Form => "application/x-www-form-urlencoded",
    }
}

/// What status and body of an answer say.
pub(super) fn judge(status: StatusCode, body: &[u8]) -> HttpAnswer {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HttpAnswer::Denied,
        StatusCode::BAD_REQUEST if says_no(body) => HttpAnswer::Denied,
        status if status.is_success() => {
            if says_no(body) {
                HttpAnswer::Denied
            } else {
                HttpAnswer::Allowed
            }
        }
        status => HttpAnswer::Unavailable(Unavailable::Status(status.as_u16())),
    }
}

/// Whether a body is JSON with a `result` that is no yes, or with `ok` (`Ok`) = false. Servers that were written for other brokers
/// answer 200 and say no in the body; the older Supervisor answers 400 with a result of "error" to a wrong password.
fn says_no(body: &[u8]) -> bool {
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else { return false };
    let result = body.get("result").and_then(Value::as_str).unwrap_or_default();
    let is_no = ["deny", "error", "ignore"].iter().any(|no| result.eq_ignore_ascii_case(no));
    is_no || ["ok", "Ok"].iter().any(|key| body.get(*key) == Some(&Value::Bool(false)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    #[test]
    fn a_form_carries_every_byte() {
        let question = Question { user: "a b&c=d+é", password: b"\x00\xff%/~", client_id: "x-._*" };
        let body = String::from_utf8(question.body(HttpFormat::Form).expect("a body")).expect("ASCII");
        assert_eq!(body, "username=a+b%26c%3Dd%2B%C3%A9&password=%00%FF%25%2F%7E&clientid=x-._*");
    }

    #[test]
    fn json_escapes_what_it_must_and_refuses_what_is_no_text() {
        let question = Question { user: "a\"\\\n", password: b"p\"", client_id: "{}" };
        let body = question.body(HttpFormat::Json).expect("a body");
        let value: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(value, serde_json::json!({"username": "a\"\\\n", "password": "p\"", "clientid": "{}"}));
        assert_eq!(Question { password: b"\xff", ..question }.body(HttpFormat::Json), None);
    }

    #[test]
    fn digests_differ_where_questions_do() {
        let digest = |user, password, client_id| Question { user, password, client_id }.digest(&key());
        let one = digest("ab", b"c", "d");
        assert_eq!(one, digest("ab", b"c", "d"));
        for other in [
            digest("a", b"bc", "d"),
            digest("ab", b"", "cd"),
            digest("ab", b"d", "c"),
            digest("ab", b"cd", ""),
        ] {
            assert_ne!(one, other);
        }
        let question = Question { user: "ab", password: b"c", client_id: "d" };
        assert_ne!(one, question.digest(&hmac::Key::new(hmac::HMAC_SHA256, &[8; 32])));
    }

    #[test]
    fn the_password_is_not_in_the_debug_form() {
        let debug = format!("{:?}", Question { user: "u", password: b"secret", client_id: "c" });
        assert!(!debug.contains("secret") && !debug.contains("115"), "{debug}");
    }

    #[test]
    fn answers_are_told_apart() {
        let no_answer = |status| HttpAnswer::Unavailable(Unavailable::Status(status));
        for (status, body, expected) in [
            (200, "", HttpAnswer::Allowed),
            (204, "", HttpAnswer::Allowed),
            (200, "welcome", HttpAnswer::Allowed),
            (200, r#"{"result":"ok","data":{}}"#, HttpAnswer::Allowed),
            (200, r#"{"result":"allow"}"#, HttpAnswer::Allowed),
            (200, r#"{"result":"deny"}"#, HttpAnswer::Denied),
            (200, r#"{"result":"Ignore"}"#, HttpAnswer::Denied),
            (200, r#"{"Ok":false,"Error":"no"}"#, HttpAnswer::Denied),
            (200, r#"{"ok":true}"#, HttpAnswer::Allowed),
            (401, "", HttpAnswer::Denied),
            (403, r#"{"result":"ok"}"#, HttpAnswer::Denied),
            (400, r#"{"result":"error","message":"Unknown error"}"#, HttpAnswer::Denied),
            (400, "", no_answer(400)),
            (400, r#"{"result":"ok"}"#, no_answer(400)),
            (404, r#"{"result":"deny"}"#, no_answer(404)),
            (302, "", no_answer(302)),
            (500, "", no_answer(500)),
            (503, r#"{"result":"error"}"#, no_answer(503)),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(judge(status, body.as_bytes()), expected, "{status} {body}");
        }
    }
}
