//! Running this very program under callgrind, and reading what it counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use micro::Case;

/// The argument that makes the program measure.
pub(crate) const MEASURE: &str = "--measure";

/// Instructions of one operation.
pub(crate) struct Count {
    pub(crate) name: &'static str,
    /// The middle one of its measurements; over several runs the middle one of those.
    pub(crate) median: f64,
    /// By what part of it the lowest and the highest differ: of the measurements in one run, of the medians in several.
    pub(crate) spread: f64,
}

/// Counts each case once.
pub(crate) fn count(cases: &[&'static Case], only: &str, measurements: usize) -> Result<Vec<Count>, String> {
    let directory = tempfile::tempdir().map_err(|error| format!("no directory: {error}"))?;
    let output = directory.path().join("counts");
    let program = std::env::current_exe().map_err(|error| format!("where am I? {error}"))?;
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
        .args(["--toggle-collect=instructions::counted*", "--dump-before=instructions::written_down*"])
        .arg(format!("--callgrind-out-file={}", output.display()))
        .arg(program)
        .args([MEASURE, "--only", only])
        .stdin(Stdio::null());
    let status = command.status().map_err(|error| format!("valgrind does not start: {error}"))?;
    if !status.success() {
        return Err(format!("valgrind: {status}"));
    }
    let mut counts = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        // Numbered from 1, in the order in which they were measured.
        let totals = (1..=measurements)
            .map(|number| total(&output.with_extension((index * measurements + number).to_string())))
            .collect::<Result<Vec<u64>, String>>()?;
        let each = totals.into_iter().map(|total| total as f64 / f64::from(case.times)).collect();
        counts.push(middle(case.name, each));
    }
    let more = output.with_extension((cases.len() * measurements + 1).to_string());
    if more.exists() {
        return Err("callgrind has written more than was measured".to_owned());
    }
    Ok(counts)
}

/// One count of each case from several runs.
pub(crate) fn over_runs(runs: &[Vec<Count>]) -> Vec<Count> {
    if let [run] = runs {
        return run.iter().map(|count| Count { ..*count }).collect();
    }
    let mut medians: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    for count in runs.iter().flatten() {
        medians.entry(count.name).or_default().push(count.median);
    }
    let names = runs.first().into_iter().flatten().map(|count| count.name);
    names.map(|name| middle(name, medians.remove(name).unwrap_or_default())).collect()
}

fn middle(name: &'static str, mut counts: Vec<f64>) -> Count {
    counts.sort_by(f64::total_cmp);
    let median = counts[counts.len() / 2];
    Count { name, median, spread: (counts[counts.len() - 1] - counts[0]) / median }
}

/// The number of instructions that callgrind has written into this file.
fn total(file: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("callgrind wrote too little: {error}"))?;
    let total = text
        .lines()
        .find_map(|line| line.strip_prefix("totals: "))
        .and_then(|total| total.trim().parse().ok());
    total.filter(|total| *total > 0).ok_or_else(|| format!("{}: nothing was counted", file.display()))
}
