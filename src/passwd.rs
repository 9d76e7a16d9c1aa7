//! `ternmq passwd`: password files made, changed and checked.
//!
//! Exit codes: 0 done, or the password is right; 1 it could not be done, or the password is wrong, or there is no such user; 2 faults in the
//! arguments, or, with `--check`, in the file; 130 interrupted at the question for the password.

#![forbid(unsafe_code)]

mod terminal;

use std::fmt;
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use ternmq::auth::password::edit::{self, NameError};
use ternmq::auth::password::store::{self, StoreError};
use ternmq::auth::password::{NewHashError, PasswordFile, PasswordFileError, TEXT_LEN_MAX, new_hash};

use self::terminal::Answer;

/// What can be typed after `ternmq passwd`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Arguments {
    /// The password file; made with mode 0600 if it is not there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user. The password is asked for, or read from standard input up to the end of the line
    #[arg(value_name = "USER")]
    user: String,
    /// Delete the user
    #[arg(long)]
    delete: bool,
    /// Change nothing; exit with 0 if the password is right, with 1 if it is wrong or the user is not there
    #[arg(long, conflicts_with = "delete")]
    check: bool,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Name(#[from] NameError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    File(#[from] PasswordFileError),
    #[error(transparent)]
    Hash(#[from] NewHashError),
    #[error("cannot read the password: {0}")]
    Input(#[from] io::Error),
    #[error("there is no password on standard input")]
    NoPassword,
    #[error("the password is empty")]
    Empty,
    #[error("the password is longer than the 65,535 bytes that CONNECT can carry")]
    TooLong,
    #[error("the two passwords differ")]
    Differ,
    #[error("there is no user {0:?} in the password file {path}", path = .1.display())]
    NoUser(String, PathBuf),
    #[error("the password is wrong, or there is no such user")]
    Wrong,
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Name(_) | Failure::File(PasswordFileError::Faults(_)) => ExitCode::from(2),
            // What a shell reports of a program that SIGINT ended.
            Failure::Interrupted => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Does what was asked for, complaints on standard error.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let done = if arguments.delete {
        delete(arguments)
    } else if arguments.check {
        check(arguments)
    } else {
        set(arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&format_args!("ternmq: {failure}"));
            failure.exit_code()
        }
    }
}

fn complain(what: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

fn set(arguments: &Arguments) -> Result<(), Failure> {
    // Nobody is to type a password twice for a name that cannot be.
    edit::check_name(&arguments.user)?;
    let password = if io::stdin().is_terminal() {
        let first = ask(&format!("Password for {:?}: ", arguments.user))?;
        refuse_empty(&first)?;
        let second = ask("The same again: ")?;
        if first != second {
            return Err(Failure::Differ);
        }
        first
    } else {
        read_line()?
    };
    refuse_empty(&password)?;
    // Before the file is locked: it takes its time.
    let hash = new_hash(&password)?;
    store::update(&arguments.file, true, |old| {
        let new = edit::set(old, &arguments.user, &hash)?;
        warn_of_faults(arguments, &new);
        Ok(new)
    })
}

fn delete(arguments: &Arguments) -> Result<(), Failure> {
    store::update(&arguments.file, false, |old| {
        let new = edit::remove(old, &arguments.user)
            .ok_or_else(|| Failure::NoUser(arguments.user.clone(), arguments.file.clone()))?;
        warn_of_faults(arguments, &new);
        Ok(new)
    })
}

fn check(arguments: &Arguments) -> Result<(), Failure> {
    let file = PasswordFile::read(&arguments.file)?;
    let password = if io::stdin().is_terminal() {
        ask(&format!("Password for {:?}: ", arguments.user))?
    } else {
        read_line()?
    };
    if file.verify(&arguments.user, &password) { Ok(()) } else { Err(Failure::Wrong) }
}

/// Lines that cannot be read stay in the file, but the broker will not take it.
fn warn_of_faults(arguments: &Arguments, new: &[u8]) {
    let faults = PasswordFile::parse(&arguments.file, new).err().unwrap_or_default();
    faults.iter().for_each(|fault| complain(&format_args!("warning: {fault}")));
    if !faults.is_empty() {
        complain(&"warning: the lines above are kept, but no broker will start with them");
    }
}

fn refuse_empty(password: &[u8]) -> Result<(), Failure> {
    if password.is_empty() { Err(Failure::Empty) } else { Ok(()) }
}

fn ask(question: &str) -> Result<Vec<u8>, Failure> {
    match terminal::ask(question, TEXT_LEN_MAX)? {
        Answer::Line(line) => Ok(line),
        Answer::TooLong => Err(Failure::TooLong),
        Answer::End => Err(Failure::NoPassword),
        Answer::Interrupt => Err(Failure::Interrupted),
    }
}

/// The first line of standard input without its end.
fn read_line() -> Result<Vec<u8>, Failure> {
    let mut line = Vec::new();
    // Two more for the end of the line and one to see that it is too long.
    let mut input = io::stdin().lock().take(TEXT_LEN_MAX as u64 + 3);
    if input.read_until(b'\n', &mut line)? == 0 {
        return Err(Failure::NoPassword);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        line.pop_if(|last| *last == b'\r');
    }
    if line.len() > TEXT_LEN_MAX { Err(Failure::TooLong) } else { Ok(line) }
}
