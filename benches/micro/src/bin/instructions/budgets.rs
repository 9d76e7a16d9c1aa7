//! The file of budgets: one line per case, and by how much a count may be above.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use toml::{Table, Value};

use crate::callgrind::Count;

/// What the file says where it has nothing else: compilers and system libraries differ by that much.
const TOLERANCE: f64 = 0.05;
/// Counts as small as a packet id's are whole numbers, and one more is no regression yet.
const TOLERANCE_INSTRUCTIONS: f64 = 2.0;
/// A budget that is too large by this part guards nothing.
const FAR_BELOW: f64 = 0.15;

const HEADER: &str = "\
# Instructions per operation at most, counted by callgrind: see benches/README.md, \"Instructions\". A count fails above budget + tolerance.
# Written by `(cd benches/micro && cargo run --release -- --write)`, which keeps tolerances. One case with a tolerance of its own:
#   name = { count = 120, tolerance = 0.1 }
";

/// See the module's documentation.
pub(crate) struct Budgets {
    /// Of the processor they were counted on.
    pub(crate) architecture: String,
    tolerance: f64,
    /// In the order of the cases.
    counts: Vec<(String, Budget)>,
}

struct Budget {
    count: f64,
    /// If it has its own.
    tolerance: Option<f64>,
}

/// What a count is to its budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Kept,
    TooMany,
    FarBelow,
    /// There is none.
    Unknown,
}

impl Budgets {
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error| format!("{error}"))?;
        let architecture =
            table.get("architecture").and_then(Value::as_str).ok_or("architecture is missing")?;
        let tolerance = table.get("tolerance").and_then(Value::as_float).ok_or("tolerance is missing")?;
        let listed = table.get("count").and_then(Value::as_table).ok_or("[count] is missing")?;
        let mut counts = Vec::new();
        for (name, value) in listed {
            let own = value
                .get("tolerance")
                .map(|value| value.as_float().ok_or_else(|| format!("{name}: what tolerance?")));
            let count = value
                .get("count")
                .unwrap_or(value)
                .as_integer()
                .ok_or_else(|| format!("{name}: what count?"))?;
            counts.push((name.clone(), Budget { count: count as f64, tolerance: own.transpose()? }));
        }
        Ok(Self { architecture: architecture.to_owned(), tolerance, counts })
    }

    /// Budgets that these counts just keep; tolerances are those of `old`.
    pub(crate) fn from_counts(counts: &[Count], old: Option<&Self>) -> Self {
        let budget = |count: &Count| {
            let tolerance = old.and_then(|old| old.get(count.name)).and_then(|budget| budget.tolerance);
            (count.name.to_owned(), Budget { count: count.median.round(), tolerance })
        };
        Self {
            architecture: std::env::consts::ARCH.to_owned(),
            tolerance: old.map_or(TOLERANCE, |old| old.tolerance),
            counts: counts.iter().map(budget).collect(),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<(), String> {
        fs::write(file, self.text()).map_err(|error| format!("{}: {error}", file.display()))
    }

    fn text(&self) -> String {
        let mut text = HEADER.to_owned();
        let _ = writeln!(
            text,
            "architecture = \"{}\"\ntolerance = {}\n\n[count]",
            self.architecture, self.tolerance
        );
        for (name, Budget { count, tolerance }) in &self.counts {
            let _ = match tolerance {
                None => writeln!(text, "{name} = {count}"),
                Some(tolerance) => {
                    writeln!(text, "{name} = {{ count = {count}, tolerance = {tolerance:?} }}")
                }
            };
        }
        text
    }

    fn get(&self, name: &str) -> Option<&Budget> {
        self.counts.iter().find(|(known, _)| known == name).map(|(_, budget)| budget)
    }

    /// The budget of a case, and what this count is to it.
    pub(crate) fn judge(&self, name: &str, count: f64) -> (Option<f64>, Verdict) {
        let Some(budget) = self.get(name) else { return (None, Verdict::Unknown) };
        let tolerated = budget.count * budget.tolerance.unwrap_or(self.tolerance);
        let verdict = if count > budget.count + tolerated.max(TOLERANCE_INSTRUCTIONS) {
            Verdict::TooMany
        } else if count < budget.count * (1.0 - FAR_BELOW) - TOLERANCE_INSTRUCTIONS {
            Verdict::FarBelow
        } else {
            Verdict::Kept
        };
        (Some(budget.count), verdict)
    }

    /// Names of budgets for which nothing was counted.
    pub(crate) fn without_case<'b>(&'b self, counts: &'b [Count]) -> impl Iterator<Item = &'b str> {
        let counted: BTreeMap<&str, ()> = counts.iter().map(|count| (count.name, ())).collect();
        self.counts.iter().map(|(name, _)| name.as_str()).filter(move |name| !counted.contains_key(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "architecture = \"x\"\ntolerance = 0.05\n[count]\nbig = 1000\nsmall = 10\n\
                        loose = { count = 1000, tolerance = 0.1 }\n";

    #[test]
    fn a_count_fails_above_budget_and_tolerance_only() {
        let budgets = Budgets::parse(TEXT).unwrap();
        for (name, count, verdict) in [
            ("big", 1_050.0, Verdict::Kept),
            ("big", 1_050.1, Verdict::TooMany),
            ("big", 900.0, Verdict::Kept),
            ("big", 800.0, Verdict::FarBelow),
            ("small", 12.0, Verdict::Kept),
            ("small", 12.1, Verdict::TooMany),
            ("loose", 1_100.0, Verdict::Kept),
            ("loose", 1_100.1, Verdict::TooMany),
            ("other", 1.0, Verdict::Unknown),
        ] {
            assert_eq!(budgets.judge(name, count).1, verdict, "{name} {count}");
        }
        let counts = [
            Count { name: "big", median: 1.0, spread: 0.0 },
            Count { name: "new", median: 1.0, spread: 0.0 },
        ];
        assert_eq!(budgets.without_case(&counts).collect::<Vec<_>>(), ["loose", "small"]);
    }

    #[test]
    fn what_is_written_is_read_and_keeps_tolerances() {
        let old = Budgets::parse(TEXT).unwrap();
        let counts = [
            Count { name: "loose", median: 99.8, spread: 0.0 },
            Count { name: "big", median: 7.0, spread: 0.0 },
        ];
        let new = Budgets::parse(&Budgets::from_counts(&counts, Some(&old)).text()).unwrap();
        assert_eq!((new.architecture.as_str(), new.tolerance), (std::env::consts::ARCH, 0.05));
        assert_eq!(new.judge("loose", 110.0), (Some(100.0), Verdict::Kept));
        assert_eq!(new.judge("loose", 110.1), (Some(100.0), Verdict::TooMany));
        assert_eq!(new.judge("big", 7.0), (Some(7.0), Verdict::Kept));
        assert_eq!(new.judge("small", 7.0), (None, Verdict::Unknown));
    }

    #[test]
    fn a_file_that_says_nothing_is_refused() {
        assert!(Budgets::parse("[count]\n").is_err());
        assert!(Budgets::parse("architecture = \"x\"\ntolerance = 0.05\n[count]\nbig = \"many\"\n").is_err());
    }
}
