//! The crash test: kills a broker at random moments while publishers and flaky subscribers are at work, and judges by the
//! recorded history whether anything that was acknowledged is lost, delivered twice, out of order or back from the dead.
//!
//! It knows the broker as a program, a port and a data directory, so it tests any of them: TernMQ,
//! which must keep its promise; mosquitto, which does not make it, as the proof that the checker
//! finds losses; and mutants of TernMQ with a fault each. See `README.md`.

mod actors;
mod args;
mod broker;
mod check;
mod conn;
mod history;
mod mqtt;
mod mutants;
mod payload;
mod rng;
mod run;
mod watch;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use args::Args;
use broker::Kind;
use mutants::{Finder, Mutant, Yard};
use run::{Outcome, Plan};

/// Violations of one invariant told in full.
const TOLD_MAX: usize = 2;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "--help" || word == "-h") {
        println!("{}", args::USAGE);
        return ExitCode::SUCCESS;
    }
    let outcome = Args::parse(words)
        .map_err(io::Error::other)
        .and_then(|args| if args.mutants.is_none() { one_run(&args) } else { mutants(&args) });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("crash: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs, tells, and leaves what is needed to look into a failure.
fn observed(args: &Args, is_loud: bool) -> io::Result<Outcome> {
    let plan = Plan {
        kind: args.kind.clone(),
        cycles: args.cycles,
        round: args.round,
        seed: args.seed,
        kills: args.kills,
        calm: args.calm,
        heavy: args.heavy,
        only: args.only.clone(),
    };
    if let Some(keep) = &args.keep {
        std::fs::create_dir_all(keep)?;
    }
    let directory = match &args.keep {
        Some(keep) => tempfile::Builder::new().prefix("crash-").tempdir_in(keep)?,
        None => tempfile::Builder::new().prefix("ternmq-crash-").tempdir()?,
    };
    let started = Instant::now();
    let outcome = run::run(&plan, directory.path(), |outcome| {
        if is_loud && (outcome.cycles / args.round).is_multiple_of(10) {
            let seconds = started.elapsed().as_secs();
            println!("  {} cycles, {} acknowledged, {seconds} s", outcome.cycles, outcome.acknowledged);
        }
    })?;
    if is_loud {
        println!(
            "{} cycles, {} kills, {} messages acknowledged, {} deliveries, {:.1} s, seed {}",
            outcome.cycles,
            outcome.kills,
            outcome.acknowledged,
            outcome.received,
            started.elapsed().as_secs_f64(),
            args.seed
        );
    }
    if !outcome.violations.is_empty() && is_loud {
        tell(args, &outcome);
        // A loss that was expected needs no looking into.
        if !args.must_lose || args.keep.is_some() {
            let mut text = String::new();
            for event in &outcome.history {
                let _ = writeln!(text, "{event}");
            }
            let kept = directory.keep();
            std::fs::write(kept.join("history.txt"), text)?;
            println!("history, log and data: {}", kept.display());
        }
    }
    Ok(outcome)
}

fn tell(args: &Args, outcome: &Outcome) {
    println!("violations in the round that ends with cycle {}, seed {}:", outcome.cycles, args.seed);
    println!("{}", check::counts(&outcome.violations));
    if args.must_lose {
        let loss = outcome.violations.iter().find(|violation| violation.invariant == "I1");
        println!("\n{}", loss.map_or_else(String::new, |loss| check::explain(loss, &outcome.history)));
        return;
    }
    let mut told: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in &outcome.violations {
        let told = told.entry(violation.invariant).or_default();
        *told += 1;
        if *told <= TOLD_MAX {
            println!("\n{}", check::explain(violation, &outcome.history));
        }
    }
}

/// True if the outcome is as it should be.
fn one_run(args: &Args) -> io::Result<bool> {
    let outcome = observed(args, true)?;
    if !args.must_lose {
        println!("{}", if outcome.violations.is_empty() { "no violation" } else { "FAILED" });
        return Ok(outcome.violations.is_empty());
    }
    let is_lost = outcome.violations.iter().any(|violation| violation.invariant == "I1");
    println!("{}", if is_lost { "lost, as expected" } else { "FAILED: a loss (I1) was expected" });
    Ok(is_lost)
}

/// True if each mutant that was tried is found, by one of its invariants or by its test.
fn mutants(args: &Args) -> io::Result<bool> {
    let all = mutants::of_tree(&args.tree)?;
    let names = args.mutants.as_deref().unwrap_or_default();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|mutant| mutant.name != **name)) {
        return Err(io::Error::other(format!("no mutant {unknown}")));
    }
    let mut chosen: Vec<&Mutant> =
        all.iter().filter(|mutant| names.is_empty() || names.contains(&mutant.name)).collect();
    let first = args.first as usize % chosen.len().max(1);
    chosen.rotate_left(first);
    let yard = Yard::new(&args.tree)?;
    let started = Instant::now();
    let mut all_found = true;
    println!("| mutant | found | by | expected | built in | run in |\n|---|---|---|---|---|---|");
    for (place, mutant) in chosen.iter().enumerate() {
        if args.minutes.is_some_and(|minutes| started.elapsed().as_secs() >= 60 * u64::from(minutes)) {
            let rest: Vec<&str> = chosen[place..].iter().map(|mutant| mutant.name.as_str()).collect();
            println!("\nnot tried, the time is over: {}", rest.join(", "));
            break;
        }
        let (expected, begun) = (mutant.found_by.to_string(), Instant::now());
        let invariants = match &mutant.found_by {
            Finder::Invariants(invariants) => invariants,
            Finder::Test(test) => {
                let outcome = yard.fails(mutant, test)?;
                all_found &= outcome == Ok(true);
                let (found, by) = match &outcome {
                    Ok(true) => ("by its test", expected.as_str()),
                    Ok(false) => ("NOT: its test succeeds, or there is none", ""),
                    Err(_) => ("NOT TRIED", ""),
                };
                let took = begun.elapsed().as_secs_f64();
                println!("| {} | {found} | {by} | {expected} | {took:.1} s | |", mutant.name);
                if let Err(text) = outcome {
                    eprintln!("{}: {text}", mutant.name);
                }
                continue;
            }
        };
        let program = match yard.build(mutant)? {
            Ok(program) => program,
            Err(text) => {
                all_found = false;
                println!("| {} | NOT TRIED | | {expected} | | |", mutant.name);
                eprintln!("{}: {text}", mutant.name);
                continue;
            }
        };
        let built = begun.elapsed().as_secs_f64();
        let heavy = if mutant.is_heavy { 100 } else { args.heavy };
        let args = Args { kind: Kind::Ternmq(program), heavy, ..args.clone() };
        let outcome = observed(&args, chosen.len() == 1)?;
        let run = begun.elapsed().as_secs_f64() - built;
        let by: BTreeSet<&str> = outcome.violations.iter().map(|violation| violation.invariant).collect();
        let is_found = invariants.iter().any(|expected| by.contains(expected.as_str()));
        all_found &= is_found;
        let found = match (is_found, outcome.violations.is_empty()) {
            (true, _) => format!("by cycle {}", outcome.cycles),
            (false, false) => format!("NOT AS EXPECTED, by cycle {}", outcome.cycles),
            (false, true) => format!("NOT within {} cycles", outcome.cycles),
        };
        let by = by.into_iter().collect::<Vec<_>>().join(" ");
        println!("| {} | {found} | {by} | {expected} | {built:.1} s | {run:.1} s |", mutant.name);
    }
    Ok(all_found)
}
