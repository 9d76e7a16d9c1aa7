//! Watches that `statements.toml` and the tests agree: every statement has a test that exists, or a reason why not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

/// A statement with what the list says about it.
struct Statement {
    /// "3.1.1" or "5": the same id may be in both.
    version: String,
    id: String,
    tests: Vec<String>,
    exception: Option<String>,
}

fn directory() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance"))
}

fn list() -> Table {
    let text = std::fs::read_to_string(directory().join("statements.toml")).expect("statements.toml");
    text.parse().expect("statements.toml is TOML")
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let values = value.map(|value| value.as_array().expect("an array").as_slice()).unwrap_or_default();
    values.iter().map(|value| value.as_str().expect("a string").to_owned()).collect()
}

fn statements() -> Vec<Statement> {
    let list = list();
    let known = ["version", "id", "text", "tests", "exception", "note"];
    let mut statements = Vec::new();
    for entry in list["statement"].as_array().expect("[[statement]]") {
        let entry = entry.as_table().expect("a table");
        let unknown: Vec<&String> = entry.keys().filter(|key| !known.contains(&key.as_str())).collect();
        assert!(unknown.is_empty(), "unknown keys {unknown:?} in {entry:?}");
        let text = |key: &str| entry.get(key).map(|value| value.as_str().expect("a string").to_owned());
        let id = text("id").expect("a statement has an id");
        assert!(text("text").is_some_and(|text| !text.trim().is_empty()), "{id} has no text");
        let version = text("version").unwrap_or_else(|| "3.1.1".to_owned());
        assert!(matches!(version.as_str(), "3.1.1" | "5"), "{id} is of version {version}");
        statements.push(Statement {
            version,
            id,
            tests: strings(entry.get("tests")),
            exception: text("exception"),
        });
    }
    statements
}

/// `module::function` of every test in the files of this directory, `v5::module::function` of those below it.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    collect_tests(directory(), "", &mut tests);
    collect_tests(&directory().join("v5"), "v5::", &mut tests);
    tests
}

fn collect_tests(directory: &Path, parent: &str, tests: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).expect("the directory of the tests") {
        let path = entry.expect("an entry of the directory").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let module = path.file_stem().and_then(|stem| stem.to_str()).expect("the name of a module");
        let source = std::fs::read_to_string(&path).expect("a source file");
        let mut attribute = false;
        for line in source.lines().map(str::trim) {
            if line == "#[test]" || line.starts_with("#[tokio::test") {
                attribute = true;
            } else if attribute && !line.starts_with("#[") {
                let name = line.trim_start_matches("async ").strip_prefix("fn ").expect("a function");
                let name = name.split('(').next().unwrap_or_default();
                assert!(tests.insert(format!("{parent}{module}::{name}")), "{name} is there twice");
                attribute = false;
            }
        }
    }
}

/// `MQTT-3.1.2-24` as it begins the name of a test: `mqtt_3_1_2_24`, or `mqtt5_3_1_2_24` for MQTT 5.
fn prefix(statement: &Statement) -> String {
    let name = statement.id.to_lowercase().replace(['-', '.'], "_");
    if statement.version == "5" { name.replacen("mqtt", "mqtt5", 1) } else { name }
}

/// The part of a test's name that says which statement it shows, for names that carry one.
fn prefix_of_test(test: &str) -> Option<String> {
    let (_, name) = test.rsplit_once("::")?;
    let (mqtt, numbers) = name.split_once('_').filter(|(mqtt, _)| matches!(*mqtt, "mqtt" | "mqtt5"))?;
    Some(format!("{mqtt}_{}", numbers.split('_').take(4).collect::<Vec<_>>().join("_")))
}

#[test]
fn every_statement_has_a_test_that_exists_or_a_reason_why_not() {
    let tests = tests();
    for Statement { id, tests: listed, exception, .. } in statements() {
        match exception {
            Some(reason) => {
                assert!(reason.trim().len() > 20, "{id}: the reason of the exception says too little");
                assert!(listed.is_empty(), "{id} has tests and an exception");
            }
            None => assert!(!listed.is_empty(), "{id} has neither test nor exception"),
        }
        for test in &listed {
            assert!(tests.contains(test), "{id} names {test}, which does not exist");
        }
    }
}

#[test]
fn every_test_named_after_a_statement_is_listed_with_it() {
    let by_prefix: BTreeMap<String, Statement> =
        statements().into_iter().map(|statement| (prefix(&statement), statement)).collect();
    for test in tests() {
        let Some(prefix) = prefix_of_test(&test) else { continue };
        let statement =
            by_prefix.get(&prefix).unwrap_or_else(|| panic!("{test}: no such statement in the list"));
        assert!(statement.tests.contains(&test), "{test} is missing from {} in the list", statement.id);
    }
}

#[test]
fn every_statement_with_tests_has_one_that_carries_its_id() {
    for statement in statements().iter().filter(|statement| statement.exception.is_none()) {
        let carried = statement.tests.iter().any(|test| prefix_of_test(test) == Some(prefix(statement)));
        assert!(carried, "no test of {} carries its id", statement.id);
    }
}

#[test]
fn ids_are_unique() {
    let mut ids = BTreeSet::new();
    for statement in statements() {
        assert!(ids.insert(prefix(&statement)), "{} is there twice", statement.id);
    }
}

#[test]
fn the_list_is_whole() {
    let list = list();
    let statements = statements();
    for version in ["3.1.1", "5"] {
        let there = statements.iter().filter(|statement| statement.version == version).count();
        assert_eq!(i64::try_from(there).ok(), list["count"][version].as_integer(), "statements of {version}");
    }
    // A statement that vanishes from the list, or one that is added, has to be looked at by somebody.
    assert!(statements.iter().all(|statement| statement.id.starts_with("MQTT-")));
}
