//! The command line.

use std::path::PathBuf;

use crate::broker::Kind;
use crate::mutants;

/// How to call the program.
pub const USAGE: &str = "\
crash [options]

  --broker PATH       TernMQ to be tested (default target/debug/ternmq)
  --peer mosquitto    mosquitto instead, with the strictest persistence it has
  --cycles N          kills (default 50)
  --round N           cycles between two checks (default 5)
  --seed N            of all random choices (default 1)
  --no-kill           the control: the same traffic, nobody kills the broker
  --calm              subscribers and publishers keep their connections and answer at once
  --must-lose         the run is good if the checker reports a loss (I1)
  --heavy PERCENT     of the cycles are heavy: long, with megabytes of traffic (default 8)
  --only INVARIANT    asks nothing but this (again for more of them)
  --mutant NAME       builds this mutant of TernMQ and expects that it is found (again for more of them)
  --mutants           the same for every mutant in turn, each for at most 100 cycles
  --first N           begins with the N-th mutant, of so many as there are, and goes round
  --minutes N         begins no further mutant after this time
  --tree DIR          the tree that mutants are made of (default: the working directory)
  --keep DIR          leave data, log and history of a failure here (default: a directory below the system's for
                      temporary files, named in the report)

Exit code: 0 if the outcome is as it should be, 1 if not, 2 if the run could not be made.";

/// Of a hundred cycles so many are heavy.
const HEAVY: u32 = 8;

/// What to run.
#[derive(Clone, Debug)]
pub struct Args {
    /// The broker.
    pub kind: Kind,
    /// Kills.
    pub cycles: u32,
    /// Cycles between checks.
    pub round: u32,
    /// Of all random choices.
    pub seed: u64,
    /// Whether the broker is killed.
    pub kills: bool,
    /// Whether clients keep their connections.
    pub calm: bool,
    /// Whether a loss is what is expected.
    pub must_lose: bool,
    /// Of a hundred cycles so many are heavy.
    pub heavy: u32,
    /// What is asked, if not everything.
    pub only: Vec<String>,
    /// Mutants to be found: these, or all if there are no names.
    pub mutants: Option<Vec<String>>,
    /// Which comes first.
    pub first: u32,
    /// When no further one is begun.
    pub minutes: Option<u32>,
    /// What they are made of.
    pub tree: PathBuf,
    /// Where failures are left.
    pub keep: Option<PathBuf>,
}

impl Args {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// Says which argument cannot be used.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = Self {
            kind: Kind::Ternmq("target/debug/ternmq".into()),
            cycles: 50,
            round: 5,
            seed: 1,
            kills: true,
            calm: false,
            must_lose: false,
            heavy: HEAVY,
            only: Vec::new(),
            mutants: None,
            first: 0,
            minutes: None,
            tree: ".".into(),
            keep: None,
        };
        let mut cycles = None;
        while let Some(name) = words.next() {
            match name.as_str() {
                "--no-kill" => args.kills = false,
                "--calm" => args.calm = true,
                "--must-lose" => args.must_lose = true,
                "--mutants" => args.mutants = Some(Vec::new()),
                _ => {
                    let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
                    match name.as_str() {
                        "--broker" => args.kind = Kind::Ternmq(value.into()),
                        "--peer" if value == "mosquitto" => args.kind = Kind::Mosquitto,
                        "--cycles" => cycles = Some(number(&name, &value)?),
                        "--round" => args.round = number(&name, &value)?,
                        "--seed" => args.seed = number(&name, &value)?,
                        "--heavy" => args.heavy = number(&name, &value)?,
                        "--only" => args.only.push(value),
                        "--mutant" => args.mutants.get_or_insert_default().push(value),
                        "--first" => args.first = number(&name, &value)?,
                        "--minutes" => args.minutes = Some(number(&name, &value)?),
                        "--tree" => args.tree = value.into(),
                        "--keep" => args.keep = Some(value.into()),
                        _ => return Err(format!("cannot use {name} {value}")),
                    }
                }
            }
        }
        args.cycles = cycles.unwrap_or(if args.mutants.is_none() { 50 } else { mutants::CYCLES_MAX });
        if args.round == 0 || args.cycles == 0 {
            return Err("a run without cycles shows nothing".to_owned());
        }
        Ok(args)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name}: {value:?} is no number of use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_line_is_read() {
        let args = parse("--cycles 7 --seed 3 --broker x --no-kill --round 2 --must-lose").unwrap();
        assert_eq!((args.cycles, args.seed, args.kills, args.round, args.must_lose), (7, 3, false, 2, true));
        assert!(matches!(args.kind, Kind::Ternmq(path) if path == *"x"));
        assert!(matches!(parse("--peer mosquitto").unwrap().kind, Kind::Mosquitto));
        assert_eq!(parse("--mutants").unwrap().cycles, 100);
        assert_eq!(parse("--mutants --cycles 9").unwrap().cycles, 9);
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for bad in
            ["--cycles", "--cycles x", "--cycles 0", "--round 0", "--peer rabbit", "--heavy x", "--what 1"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
