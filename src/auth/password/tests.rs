//! Hashes that others have made, faults, and what a check computes.

use std::cell::RefCell;
use std::path::Path;

use base64ct::Encoding as _;
use proptest::prelude::*;

use super::hash::Kind;
use super::*;

thread_local! {
    static COMPUTED: RefCell<Vec<Kind>> = const { RefCell::new(Vec::new()) };
}

/// Called where a hash is computed.
pub(super) fn note_computation(kind: Kind) {
    COMPUTED.with_borrow_mut(|computed| computed.push(kind));
}

/// What this thread has computed since it was asked last.
fn computed() -> Vec<Kind> {
    COMPUTED.take()
}

fn parse(text: &str) -> PasswordFile {
    PasswordFile::parse(Path::new("passwords"), text.as_bytes()).expect("a good file")
}

fn faults(text: impl AsRef<[u8]>) -> Vec<String> {
    let faults = PasswordFile::parse(Path::new("passwords"), text.as_ref()).expect_err("faults");
    faults.iter().map(ToString::to_string).collect()
}

/// The password of all of [`VECTORS`].
const PASSWORD: &str = "Größe 7!";

/// By argon2-cffi (the reference implementation in C), mosquitto_passwd 2.0.11, Python's hashlib and libxcrypt.
const VECTORS: [&str; 13] = [
    "$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$LiES5uQloCyhglFrfNSrGMsOjzCRP7L10BRoPVXUIeY",
    "$argon2id$v=19$m=128,t=3,p=2$c29tZXNhbHQxMg$wJ8pzDkSbNQAS7ZxZrik7o1rlP+MXgEl",
    "$argon2id$v=16$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$csXKHUmhd2eJjXgxpvTkkbrxvNunW14y6ljSzkTQhTI",
    "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$EyKFY4OUobB0N6x/hhX+Qm2nK5D5lvsuf8cjvg+P4EQ",
    "PBKDF2$sha512$1000$c2FsdHNhbHRzYWx0c2FsdA==$2SAM0IhchmzhOBldqdwBQC450AG4gozk/h8ohBes1zbmiCn17dEvI8m28K8fvbGjt4S86N1/zaM+0NBtQJI6eA==",
    "PBKDF2$sha256$1000$c2FsdHNhbHRzYWx0c2FsdA==$ms6FPVXt2gBXbOxj4cH//b9jNFQtnCJKBwRpkZqFwBc=",
    "PBKDF2$sha512$1000$c2FsdHNhbHRzYWx0c2FsdA==$2SAM0IhchmzhOBldqdwBQC450AG4gozk/h8ohBes1zY=",
    "$6$MDEyMzQ1Njc4OQ==$wMa7gOYw+pulDrzNedsiMRJX6fb5BfNcnZvsP6DcH9ZhG6G+eIOvkJmjMB/TThCH2nSkE2DdnaEtJclTldCukw==",
    "$6$qQOVD3YrykNlfoAk$6QLGA5GleSI+bSQVp6dGDSniwNmQRUGISOdH5WPXV+XqfA79LT0eU553GrtB4bG5uB+WGxmlE70RjkuWL8czvQ==",
    "$7$101$axYCcANT4gmrhfRw$+RD0vXqz1CGlx6z3fo4GiqmbgobCa/fmpmxO/fYhWJvDc+obNf/IWn0DONGRj6+xG8rcHrOBMWJUg7OK4rE8QA==",
    "$2b$05$abcdefghijklmnopqrstuuzmY/udhRtiR4sxZdGQ7ebdJU709n/Aa",
    "$2a$04$abcdefghijklmnopqrstuunPb1Je52A4cX.3wSv85pFQ/zJ6cR4w.",
    "$2y$04$abcdefghijklmnopqrstuunPb1Je52A4cX.3wSv85pFQ/zJ6cR4w.",
];

#[test]
fn hashes_of_others_are_understood() {
    for vector in VECTORS {
        let file = parse(&format!("ada:{vector}\n"));
        assert!(file.verify("ada", PASSWORD.as_bytes()), "{vector}");
        for wrong in ["", "Größe 7", "Größe 7!!", "grösse 7!", "\0Größe 7!"] {
            assert!(!file.verify("ada", wrong.as_bytes()), "{wrong:?} for {vector}");
        }
        for user in ["", "Ada", "ada ", "bob"] {
            assert!(!file.verify(user, PASSWORD.as_bytes()), "{user:?} for {vector}");
        }
    }
}

#[test]
fn a_bit_more_or_less_is_another_hash() {
    for vector in VECTORS.iter().filter(|vector| !vector.contains("m=19456")) {
        // Some character of the hash, and one of the salt.
        let hash_at = vector.len() - 8;
        let salt_at = if vector.starts_with("$2") { 10 } else { vector.rfind('$').expect("a hash") - 5 };
        for at in [hash_at, salt_at] {
            let mut other = (*vector).to_owned();
            let replacement = if vector[at..].starts_with('A') { "B" } else { "A" };
            other.replace_range(at..=at, replacement);
            assert!(!parse(&format!("ada:{other}")).verify("ada", PASSWORD.as_bytes()), "{other}");
        }
    }
}

#[test]
fn bcrypt_looks_at_72_bytes() {
    let file = parse("ada:$2y$04$abcdefghijklmnopqrstuubzadhGtS2zEF.gu0yd0opP6cVzb.e0i");
    assert!(file.verify("ada", &[b'x'; 72]));
    assert!(file.verify("ada", &[b'x'; 100]));
    assert!(!file.verify("ada", &[b'x'; 71]));
}

#[test]
fn the_empty_password_is_one_like_others() {
    let file = parse(
        "u:$7$101$GRaEQurRFgfGPZMj$djmwBBfUqIsXdpIqVdEnwlanA6yne+BPZfHuGp1nE/PPw2u2FwEUj0kIER343BWymrYt4+1Z9G63LnvdnuHq8Q==",
    );
    assert!(file.verify("u", b""));
    assert!(!file.verify("u", b" "));
    assert!(!file.verify("v", b""));
}

#[test]
fn our_own_hash_is_read_again() {
    let hash = new_hash(PASSWORD.as_bytes()).expect("random bytes");
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    assert_ne!(new_hash(PASSWORD.as_bytes()), Ok(hash.clone()), "the salt is new each time");
    let file = parse(&format!("ada:{hash}"));
    assert!(file.verify("ada", PASSWORD.as_bytes()));
    assert!(!file.verify("ada", b"other"));
    assert_eq!(file.warnings(), [""; 0]);
}

#[test]
fn a_file_has_comments_blanks_and_ends_of_any_kind() {
    let hash = VECTORS[7];
    let text =
        format!("\u{feff}ada:{hash}\r\n# bob:x\r\n\r\n  \n b b : {hash} \t\n#\nü/+$#:{hash}\nlast:{hash}");
    let file = parse(&text);
    for user in ["ada", "b b", "ü/+$#", "last"] {
        assert!(file.contains(user), "{user}");
        assert!(file.verify(user, PASSWORD.as_bytes()), "{user}");
    }
    assert_eq!(file.len(), 4);
    assert!(parse("").is_empty());
    assert!(parse("# nobody\n\n").is_empty());
}

#[test]
fn all_faults_are_told_with_their_lines() {
    let good = VECTORS[7];
    let text =
        format!("ada:{good}\nno colon\nbob:secret\n# x\nada:{good}\n:{good}\neve:\n\nz\u{1b}z:$9$x$y\n");
    let unknown = "this is no hash that TernMQ knows (perhaps a password in plain text?); set the password with `ternmq passwd`";
    assert_eq!(
        faults(text),
        [
            "passwords:2: expected user:hash, but there is no colon".to_owned(),
            format!("passwords:3: user \"bob\": {unknown}"),
            "passwords:5: user \"ada\" is on line 1 already".to_owned(),
            "passwords:6: there is no user name before the colon".to_owned(),
            "passwords:7: user \"eve\": nothing after the colon; set a password with `ternmq passwd`"
                .to_owned(),
            format!("passwords:9: user \"z\\u{{1b}}z\": {unknown}"),
        ]
    );
    assert_eq!(faults(b"a:\xff"), ["passwords:1: not UTF-8"]);
    let long = format!("{}:{good}", "x".repeat(TEXT_LEN_MAX + 1));
    assert_eq!(
        faults(long),
        ["passwords:1: the user name is longer than the 65,535 bytes that CONNECT can carry"]
    );
}

#[test]
fn incomplete_hashes_are_faults() {
    let s64 = base64ct::Base64::encode_string(&[7; 64]);
    let s63 = base64ct::Base64::encode_string(&[7; 63]);
    let s15 = base64ct::Base64::encode_string(&[7; 15]);
    for hash in [
        "$6$c2FsdA==".to_owned(),
        format!("$6$c2FsdA==${s63}"),
        format!("$6$c2FsdA==${s64}$"),
        format!("$6$${s64}"),
        format!("$6$c2FsdA=${s64}"),
        format!("$6$c2Fs*A==${s64}"),
        format!("$7$0$c2FsdA==${s64}"),
        format!("$7$-1$c2FsdA==${s64}"),
        format!("$7$+1$c2FsdA==${s64}"),
        format!("$7$c2FsdA==${s64}"),
        format!("PBKDF2$sha512$1$c2FsdA==${s15}"),
        "$argon2id$v=19$m=64,t=2$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=19$m=64,t=2,p=0$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=19$m=64,t=0,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=19$m=7,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=19$m=64,t=1,p=1$c2FsdA$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=18$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$argon2id$v=19$m=64,t=1,p=1,data=x$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg".to_owned(),
        "$2b$03$abcdefghijklmnopqrstuuzmY/udhRtiR4sxZdGQ7ebdJU709n/Aa".to_owned(),
        "$2b$05$abcdefghijklmnopqrstuuzmY/udhRtiR4sxZdGQ7ebdJU709n/A".to_owned(),
    ] {
        let faults = faults(format!("ada:{hash}"));
        assert!(faults.len() == 1 && faults[0].contains("is not complete"), "{hash}: {faults:?}");
    }
}

#[test]
fn costs_have_a_bound() {
    let s64 = base64ct::Base64::encode_string(&[7; 64]);
    let rest = "$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZg";
    let bcrypt = "$abcdefghijklmnopqrstuuzmY/udhRtiR4sxZdGQ7ebdJU709n/Aa";
    for (at_bound, above) in [
        (format!("$7$2000000$c2FsdA==${s64}"), format!("$7$2000001$c2FsdA==${s64}")),
        (
            format!("PBKDF2$sha256$2000000$c2FsdA==${s64}"),
            format!("PBKDF2$sha256$99999999999$c2FsdA==${s64}"),
        ),
        (format!("$argon2id$v=19$m=262144,t=8,p=16{rest}"), format!("$argon2id$v=19$m=262144,t=9,p=1{rest}")),
        (format!("$argon2id$v=19$m=262144,t=1,p=1{rest}"), format!("$argon2id$v=19$m=262145,t=1,p=1{rest}")),
        (
            format!("$argon2id$v=19$m=262144,t=1,p=1{rest}"),
            format!("$argon2id$v=19$m=64,t=999999999999999999,p=1{rest}"),
        ),
        (format!("$argon2id$v=19$m=256,t=1,p=16{rest}"), format!("$argon2id$v=19$m=256,t=1,p=17{rest}")),
        (format!("$2b$15{bcrypt}"), format!("$2b$16{bcrypt}")),
    ] {
        parse(&format!("ada:{at_bound}"));
        let faults = faults(format!("ada:{above}"));
        assert!(faults.len() == 1 && faults[0].contains("at most"), "{above}: {faults:?}");
    }
}

#[test]
fn a_check_computes_one_hash_whoever_asks() {
    let texts = [7, 9, 5, 4, 10, 0].map(|at| format!("ada:{0}\nbob:{0}\neve:{1}\n", VECTORS[at], VECTORS[1]));
    for text in texts {
        let file = parse(&text);
        computed();
        assert!(file.verify("ada", PASSWORD.as_bytes()));
        let right = computed();
        assert_eq!(right.len(), 1);
        for (user, password) in [("ada", "wrong"), ("nobody", PASSWORD), ("nobody", "wrong"), ("", "")] {
            assert!(!file.verify(user, password.as_bytes()));
            assert_eq!(computed(), right, "{user} {password}");
        }
    }
    // Where there is nobody it is the hash that there would be.
    assert!(!parse("").verify("ada", b"x"));
    assert_eq!(computed(), [Kind::NEW]);
}

#[test]
fn a_decoy_is_computed_to_its_end_and_opens_nothing() {
    let kinds = [
        Kind::Sha512,
        Kind::Pbkdf2Sha256 { iterations: 2 },
        Kind::Pbkdf2Sha512 { iterations: 2 },
        Kind::Bcrypt { cost: 4 },
        Kind::Argon2id { version: 0x13, memory_kib: 8, passes: 1, lanes: 1 },
        Kind::NEW,
    ];
    for kind in kinds {
        let decoy = Hash::decoy(kind);
        assert!(!decoy.matches(b""), "{kind:?}");
        assert!(decoy.can_be_computed(), "{kind:?}: it would take no time");
    }
}

#[test]
fn weak_and_mixed_files_are_warned_of() {
    let file = parse(&format!("a:{}\nb:{}\nc:{}", VECTORS[7], VECTORS[8], VECTORS[9]));
    let warnings = file.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("2 of 3 users have $6$ hashes"), "{warnings:?}");
    assert!(warnings[1].starts_with("2 kinds of hashes"), "{warnings:?}");
}

#[test]
fn what_cannot_be_read_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("none");
    let error = PasswordFile::read(&path).expect_err("not there").to_string();
    assert!(error.starts_with(&format!("cannot read the password file {}: ", path.display())), "{error}");
    // Longer than any memory.
    let endless = PasswordFile::read(Path::new("/dev/zero")).expect_err("endless");
    assert!(matches!(endless, PasswordFileError::TooLarge { .. }));
}

/// Something like a hash: fields of the kinds that there are, right and wrong.
fn hash_like() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        Just(String::new()),
        prop::sample::select(vec![
            "6",
            "7",
            "argon2id",
            "2b",
            "PBKDF2",
            "sha512",
            "sha256",
            "v=19",
            "m=8,t=1,p=1"
        ])
        .prop_map(str::to_owned),
        "[0-9]{1,3}",
        prop::collection::vec(any::<u8>(), 64).prop_map(|bytes| base64ct::Base64::encode_string(&bytes)),
        "[A-Za-z0-9+/]{1,24}={0,2}",
        any::<String>(),
    ];
    prop::collection::vec(field, 0..7).prop_map(|fields| fields.join("$"))
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = PasswordFile::parse(Path::new("passwords"), &bytes);
    }

    #[test]
    fn nothing_like_a_hash_panics_or_is_shown(hash in hash_like(), prefix in "(\\$6\\$|\\$7\\$9\\$|PBKDF2\\$sha512\\$9\\$)?") {
        let secret = "SECRETsalt";
        let text = format!("ada:{prefix}{secret}{hash}");
        match PasswordFile::parse(Path::new("passwords"), text.as_bytes()) {
            Ok(file) => prop_assert_eq!(file.len(), 1),
            Err(faults) => for fault in faults {
                prop_assert!(!fault.to_string().contains(secret), "{}", fault);
            },
        }
        if let Ok(file) = PasswordFile::parse(Path::new("passwords"), format!("ada:{prefix}{hash}").as_bytes()) {
            file.verify("ada", b"x");
        }
    }
}
