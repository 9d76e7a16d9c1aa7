//! `tests/FAULTS.md` says of each fault of other brokers which test of ours has it; here, that these tests are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Rows that name no test have to say why.
const REASONS: [&str; 2] = ["*Not ours*: ", "*Open*: "];

fn text() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/FAULTS.md");
    fs::read_to_string(path).expect("tests/FAULTS.md")
}

/// The last column of each row, by the row's number.
fn rows(text: &str) -> BTreeMap<String, String> {
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, identifier, fault, ours] = cells[..] else { panic!("four columns: {line}") };
        if number == "#" || number.starts_with('-') {
            continue;
        }
        assert!(!identifier.is_empty() && !fault.is_empty() && !ours.is_empty(), "an empty cell: {line}");
        assert!(rows.insert(number.to_owned(), ours.to_owned()).is_none(), "{number} is there twice");
    }
    rows
}

/// What is written as code and reads like `file::test`.
fn named_tests(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|code| code.split_once("::"))
}

/// The names of the tests in a file of this repository.
fn tests_of(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut tests = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        // Python's tests are told by their name.
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let declared = line.trim_start_matches("async ");
        let python = declared.strip_prefix("def ").filter(|name| name.starts_with("test_"));
        let rust = declared.strip_prefix("fn ").filter(|_| is_test);
        if let Some(name) = python.or(rust) {
            let end = name.find(['(', '<']).unwrap_or(name.len());
            tests.insert(name[..end].to_owned());
        }
        if declared.starts_with("fn ") {
            is_test = false;
        }
    }
    tests
}

#[test]
fn every_fault_of_other_brokers_has_a_test_that_exists_or_a_reason() {
    let text = text();
    let rows = rows(&text);
    assert!(rows.len() >= 178, "only {} rows", rows.len());
    let mut faults = Vec::new();
    for (number, ours) in &rows {
        let has_reason = REASONS.iter().any(|reason| ours.starts_with(reason));
        if !has_reason && named_tests(ours).next().is_none() {
            faults.push(format!("{number}: neither a test nor a reason: {ours}"));
        }
    }
    let mut files: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    // Line by line, so that a stray accent grave spoils its line only.
    for (file, test) in text.lines().flat_map(named_tests).filter(|(file, _)| *file != "file") {
        let tests = files.entry(file).or_insert_with(|| tests_of(file));
        if !tests.contains(test) {
            faults.push(format!("{file} has no test {test}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
