//! Counts the instructions of each case under callgrind and holds them to the budgets in `instructions.toml`.
//!
//! `instructions` fails if a count is above its budget and the tolerance, or a case has no budget or a budget no case; it says where a budget
//! is far too large. `--write` writes the counts as the new budgets, `--runs N` counts N times and shows by how much that differs,
//! `--only TEXT` takes the cases whose names have the text in them.
//! Counts of one processor architecture say nothing of another's: there they are shown and not judged.

mod budgets;
mod callgrind;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;

use budgets::{Budgets, Verdict};
use callgrind::Count;
use micro::{Case, Operation, Scale, cases};

/// Measurements of a case, of which the middle one counts.
const MEASUREMENTS: usize = 5;

const USAGE: &str = "usage: instructions [--write | --runs N] [--only TEXT]";

struct Arguments {
    write: bool,
    runs: usize,
    only: String,
    /// We are the process that runs under callgrind.
    measure: bool,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments { write: false, runs: 1, only: String::new(), measure: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--write" => parsed.write = true,
            "--runs" => parsed.runs = arguments.next()?.parse().ok().filter(|runs| *runs > 0)?,
            "--only" => parsed.only = arguments.next()?,
            callgrind::MEASURE => parsed.measure = true,
            _ => return None,
        }
    }
    // Budgets of some cases alone would throw the others away.
    (!parsed.write || parsed.only.is_empty() && parsed.runs == 1).then_some(parsed)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let cases: Vec<&Case> = cases().filter(|case| case.name.contains(&arguments.only)).collect();
    if arguments.measure {
        measure(&cases);
        return ExitCode::SUCCESS;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.toml");
    match run(&arguments, &cases, &file) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// `false` if a budget is not kept.
fn run(arguments: &Arguments, cases: &[&'static Case], file: &Path) -> Result<bool, String> {
    let mut runs = Vec::new();
    for _ in 0..arguments.runs {
        runs.push(callgrind::count(cases, &arguments.only, MEASUREMENTS)?);
    }
    let counts = callgrind::over_runs(&runs);
    if arguments.write {
        let old = Budgets::read(file).ok();
        Budgets::from_counts(&counts, old.as_ref()).write(file)?;
        println!("{} budgets written", counts.len());
        return Ok(true);
    }
    let budgets = Budgets::read(file)?;
    let judged = budgets.architecture == std::env::consts::ARCH;
    println!("{:<38} {:>9} {:>9} {:>8} {:>8}", "instructions per operation", "count", "budget", "", "spread");
    let mut kept = true;
    for Count { name, median, spread } in &counts {
        let (budget, verdict) = budgets.judge(name, *median);
        let change =
            budget.map_or(String::new(), |budget| format!("{:+.1} %", (median / budget - 1.0) * 100.0));
        let budget = budget.map_or(String::new(), |budget| format!("{budget:.0}"));
        let remark = match verdict {
            Verdict::Kept => "",
            Verdict::TooMany => "  TOO MANY",
            Verdict::Unknown => "  NO BUDGET",
            Verdict::FarBelow => "  far below: tighten the budget",
        };
        println!("{name:<38} {median:>9.1} {budget:>9} {change:>8} {:>6.1} %{remark}", spread * 100.0);
        kept &= !matches!(verdict, Verdict::TooMany | Verdict::Unknown);
    }
    if arguments.only.is_empty() {
        for name in budgets.without_case(&counts) {
            println!("{name:<38} there is no such case  UNKNOWN");
            kept = false;
        }
    }
    if !judged {
        println!("Budgets are for {}: nothing was judged.", budgets.architecture);
        return Ok(true);
    }
    if !kept {
        println!(
            "Above budget, or without. Where that is meant: (cd benches/micro && cargo run --release -- --write), and say why in the commit."
        );
    }
    Ok(kept)
}

/// Under callgrind: what `counted` does is counted, and what was counted is written down at each call of `written_down`.
fn measure(cases: &[&Case]) {
    for case in cases {
        let mut operation = case.prepare(Scale::Small);
        // Buffers have their size afterwards, and what is made at the first use is there.
        operation.run(case.times);
        for _ in 0..MEASUREMENTS {
            operation.ready();
            counted(&mut *operation, case.times);
            written_down();
        }
    }
}

#[inline(never)]
fn counted(operation: &mut dyn Operation, times: u32) {
    operation.run(black_box(times));
}

#[inline(never)]
fn written_down() {
    black_box(());
}
