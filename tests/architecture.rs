//! Watches the architecture that ARCHITECTURE.md draws: which module may use which, what the pure modules must not know,
//! no panics on peers' data, files of a size to be read.
//!
//! It reads the sources. Comments, the text of literals and everything under `#[cfg(test)]` do not count.

#[path = "architecture/faults.rs"]
mod faults;
#[path = "architecture/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use source::{Source, sources};

/// Each module of the library, and what of the crate it may use. None may use one that stands above it, so there is no
/// cycle. (`lib.rs` declares and re-exports all of them.)
const MODULES: [(&str, &[&str]); 18] = [
    (
        "server",
        &[
            "auth",
            "authentication",
            "broker",
            "config",
            "data_dir",
            "metrics",
            "net",
            "protocol",
            "router",
            "session",
            "storage",
        ],
    ),
    (
        "net",
        &[
            "accounts",
            "auth",
            "authentication",
            "broker",
            "config",
            "escape",
            "protocol",
            "session",
            "storage",
        ],
    ),
    (
        "broker",
        &[
            "accounts",
            "auth",
            "authentication",
            "config",
            "escape",
            "ledger",
            "metrics",
            "protocol",
            "router",
            "session",
            "storage",
            "sync",
            "turns",
        ],
    ),
    ("auth", &["config", "escape", "protocol"]),
    ("authentication", &["protocol"]),
    ("session", &["accounts", "ledger", "protocol"]),
    ("router", &["accounts", "protocol"]),
    ("storage", &["ledger", "protocol", "sync", "turns"]),
    ("protocol", &[]),
    ("logging", &["config", "metrics"]),
    ("config", &[]),
    ("data_dir", &[]),
    ("metrics", &[]),
    ("escape", &[]),
    ("ledger", &["turns"]),
    ("turns", &["sync"]),
    ("accounts", &[]),
    ("sync", &[]),
];

/// Values in, values out: no runtime, no clock, no sockets, no files, no threads, no log.
const PURE: [&str; 5] = ["protocol", "session", "router", "ledger", "accounts"];
const IMPURE: [&str; 12] = [
    "tokio",
    "rustls",
    "socket2",
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "Instant",
    "SystemTime",
    "async",
    "tracing",
];

/// Modules that handle peers' data.
const NO_PANIC: [&str; 8] = ["auth", "protocol", "session", "router", "broker", "net", "ledger", "storage"];
const PANICS: [&str; 6] = [".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];
/// Files where some are right: file, how many, why.
const PANICS_ALLOWED: [(&str, usize, &str); 0] = [];

const LINES_MAX: usize = 450;
/// Files that may be longer: file, lines, why.
const LONG_FILES: [(&str, usize, &str); 0] = [];

/// How the versions of the protocol could be told apart.
const VERSION_WORDS: [&str; 4] = ["V31", "V311", "V5", "has_properties"];
/// Where that is right outside of `protocol`: file, word, why.
const VERSION_ALLOWED: [(&str, &str, &str); 6] = [
    ("net/handshake.rs", "V311", "framing before CONNECT has told the version"),
    ("net/set_up.rs", "V311", "CONNECT itself, and the answer to a level that is unknown"),
    ("net/set_up.rs", "has_properties", "whether a faulty CONNECT is answered at all"),
    ("session/outgoing.rs", "has_properties", "which of the wire images; what is in them is the encoder's"),
    ("session/mod.rs", "V311", "the terms of a session that never had a connection"),
    ("session/terms.rs", "V311", "what a client may do that can say nothing of it"),
];

/// What each module uses, and a file that does so.
fn edges(sources: &[Source]) -> BTreeMap<(String, String), String> {
    let mut edges = BTreeMap::new();
    for source in sources.iter().filter(|source| source.module != "lib") {
        for used in source.uses() {
            edges.entry((source.module.clone(), used)).or_insert_with(|| source.name.clone());
        }
    }
    edges
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed =
        |from: &str, to: &str| MODULES.iter().any(|(module, uses)| *module == from && uses.contains(&to));
    let faults: Vec<String> = edges(&sources())
        .into_iter()
        .filter(|((from, to), _)| !allowed(from, to))
        .map(|((from, to), file)| format!("{from} uses {to} (src/{file})"))
        .collect();
    assert!(faults.is_empty(), "not in the table of tests/architecture.rs:\n{}", faults.join("\n"));
}

#[test]
fn the_table_allows_no_more_than_is_used() {
    let edges = edges(&sources());
    for (module, uses) in MODULES {
        for used in uses {
            let edge = (module.to_owned(), (*used).to_owned());
            assert!(edges.contains_key(&edge), "{module} no longer uses {used}: take it out of the table");
        }
    }
}

#[test]
fn every_module_is_in_the_table_and_uses_only_those_below_it() {
    let place = |name: &str| MODULES.iter().position(|(module, _)| *module == name);
    for source in sources() {
        let known = source.module == "lib" || place(&source.module).is_some();
        assert!(known, "src/{}: its module is not in the table", source.name);
    }
    for (index, (module, uses)) in MODULES.iter().enumerate() {
        for used in *uses {
            assert!(
                place(used).is_some_and(|below| below > index),
                "{module} uses {used}, which is not below it"
            );
        }
    }
}

#[test]
fn protocol_session_and_router_are_pure() {
    for source in sources().iter().filter(|source| PURE.contains(&source.module.as_str())) {
        for word in IMPURE {
            assert!(!source.mentions(word), "src/{} mentions {word}", source.name);
        }
    }
}

#[test]
fn only_the_outer_modules_wait() {
    for source in sources() {
        // In `turns` it is the keeper that waits, for the turns of everybody else.
        let may = ["auth", "net", "broker", "server", "turns"].contains(&source.module.as_str());
        assert!(may || !source.mentions("await"), "src/{} awaits", source.name);
    }
}

#[test]
fn nothing_panics_on_what_peers_send() {
    for source in sources().iter().filter(|source| NO_PANIC.contains(&source.module.as_str())) {
        let found: usize = PANICS.iter().map(|panic| source.code.matches(panic).count()).sum();
        let allowed = PANICS_ALLOWED.iter().find(|(file, ..)| *file == source.name).map_or(0, |(_, n, _)| *n);
        assert_eq!(found, allowed, "src/{}: of {PANICS:?}", source.name);
    }
}

#[test]
fn versions_of_the_protocol_are_told_apart_in_protocol_only() {
    // Elsewhere the difference arrives as values. The version itself is handed to the codec, and a log line may name it.
    for source in sources().iter().filter(|source| source.module != "protocol") {
        let code: String = source.code.split_whitespace().collect::<Vec<_>>().join(" ");
        for comparison in [
            "version ==",
            "version !=",
            "== version",
            "!= version",
            "match version",
            ".version {",
            "matches!(version",
        ] {
            assert!(!code.contains(comparison), "src/{}: `{comparison}`", source.name);
        }
        for word in VERSION_WORDS {
            let allowed = VERSION_ALLOWED.iter().any(|(file, w, _)| *file == source.name && *w == word);
            assert_eq!(source.mentions(word), allowed, "src/{}: {word}", source.name);
        }
    }
}

#[test]
fn files_are_of_a_size_to_be_read() {
    let sources = sources();
    for source in &sources {
        let exception = LONG_FILES.iter().find(|(file, ..)| *file == source.name);
        let max = exception.map_or(LINES_MAX, |(_, lines, _)| *lines);
        assert!(source.lines <= max, "src/{} has {} lines, {max} are allowed", source.name, source.lines);
    }
    for (file, ..) in LONG_FILES {
        let lines = sources.iter().find(|source| source.name == file).map_or(0, |source| source.lines);
        assert!(lines > LINES_MAX, "src/{file} needs no exception");
    }
}

#[test]
fn unsafe_code_is_forbidden() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).expect("readable");
    let lints = manifest.split("[lints.rust]").nth(1).expect("a table of lints");
    let mut lints = lints.lines().take_while(|line| !line.starts_with('['));
    assert!(lints.any(|line| line == "unsafe_code = \"deny\""));
    for source in sources() {
        assert!(!source.mentions("unsafe"), "src/{}", source.name);
    }
    // All modules of the library are below its root. `main.rs` cannot forbid what one of its
    // modules needs; the others do, and that one is small.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let read = |file: &str| fs::read_to_string(root.join(file)).expect("readable");
    for file in ["lib.rs", "cli.rs", "passwd.rs", "process.rs", "reload.rs"] {
        assert!(read(file).lines().any(|line| line == "#![forbid(unsafe_code)]"), "src/{file}");
    }
    let allowed = read("allocator.rs");
    assert!(allowed.lines().count() < 140 && allowed.matches("unsafe {").count() == 2, "src/allocator.rs");
    assert!(!read("main.rs").contains("unsafe"), "src/main.rs");
}
