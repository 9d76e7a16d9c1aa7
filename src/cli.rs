//! The command line: what can be typed, and what `check` prints.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use ternmq::auth::acl::{Access, Who};
use ternmq::config::{Flags, Loaded, Sources};

use crate::passwd;

/// An MQTT broker. Settings come from defaults, the file, TERNMQ_… environment variables and flags; later ones win.
#[derive(Debug, Parser)]
#[command(name = "ternmq", version)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: SettingFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

/// The flags that say where settings come from, or are settings. They are taken before a command and behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
struct SettingFlags {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here, plain TCP, in place of the configured listeners
    #[arg(long, value_name = "ADDR:PORT")]
    bind: Option<String>,
    /// Let clients without login use the listener of --bind even beyond loopback
    #[arg(long)]
    allow_anonymous: bool,
    /// Keep durable state in this directory [default: $STATE_DIRECTORY, $XDG_DATA_HOME/ternmq or
    /// $HOME/.local/share/ternmq, the first that the environment has]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Keep durable state on disk, or in memory until the broker ends: disk or memory
    #[arg(long, value_name = "KIND")]
    storage: Option<String>,
    /// Log level: error, warn, info, debug, trace, or directives such as info,ternmq=debug
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

impl SettingFlags {
    /// These, and `others` where these say nothing.
    fn or(self, others: Self) -> Self {
        Self {
            config: self.config.or(others.config),
            bind: self.bind.or(others.bind),
            allow_anonymous: self.allow_anonymous || others.allow_anonymous,
            data_dir: self.data_dir.or(others.data_dir),
            storage: self.storage.or(others.storage),
            log: self.log.or(others.log),
            log_format: self.log_format.or(others.log_format),
        }
    }
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Print the effective configuration and where each value comes from, or every fault in it
    Check(SettingFlags),
    /// Add a user to a password file, change the password, delete the user, or check a password
    Passwd(passwd::Arguments),
    /// Ask the access rules of the configuration
    #[command(subcommand)]
    Acl(AclCommand),
}

#[derive(Debug, Clone, Subcommand)]
enum AclCommand {
    /// Print whether a client may read or write a topic, and the rule that says so; exit code 0 allowed, 1 denied, 2 faults
    Explain(Question),
}

/// What `acl explain` is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct Question {
    /// The client's user name; without it the client is anonymous
    #[arg(long)]
    user: Option<String>,
    /// The client's id
    #[arg(long)]
    client: String,
    /// The topic of a message
    #[arg(long)]
    pub(crate) topic: String,
    /// Whether the client is to be sent the message, or publishes it
    #[arg(long)]
    access: AccessWord,
    #[command(flatten)]
    settings: SettingFlags,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum AccessWord {
    Read,
    Write,
}

impl Question {
    /// Who wants to do something.
    pub(crate) fn who(&self) -> Who<'_> {
        Who { user: self.user.as_deref(), client_id: &self.client }
    }

    /// What they want to do with the topic.
    pub(crate) fn access(&self) -> Access {
        match self.access {
            AccessWord::Read => Access::Read,
            AccessWord::Write => Access::Write,
        }
    }
}

impl Arguments {
    /// What was typed; faults in it end the program here, with exit code 2.
    pub(crate) fn read() -> Self {
        let arguments = Self::parse();
        if arguments.passwd().is_some() && arguments.settings != SettingFlags::default() {
            let what = "`passwd` knows the file and the user, and no settings of a broker";
            Self::command().error(ErrorKind::ArgumentConflict, what).exit();
        }
        arguments
    }

    /// Whether the configuration is to be shown and nothing started.
    pub(crate) fn is_check(&self) -> bool {
        matches!(self.command, Some(Command::Check(_)))
    }

    /// What is to be done with a password file, if that is what was asked for.
    pub(crate) fn passwd(&self) -> Option<&passwd::Arguments> {
        match &self.command {
            Some(Command::Passwd(arguments)) => Some(arguments),
            _ => None,
        }
    }

    /// The question to the access rules, if that is what was asked for.
    pub(crate) fn question(&self) -> Option<Question> {
        match &self.command {
            Some(Command::Acl(AclCommand::Explain(question))) => Some(question.clone()),
            _ => None,
        }
    }

    /// Where the configuration comes from; values are judged when they are loaded, with all others.
    pub(crate) fn into_sources(self, environment: Vec<(OsString, OsString)>) -> Sources {
        let behind = match self.command {
            Some(Command::Check(settings)) => settings,
            Some(Command::Acl(AclCommand::Explain(question))) => question.settings,
            Some(Command::Passwd(_)) | None => SettingFlags::default(),
        };
        let settings = behind.or(self.settings);
        let flags = Flags {
            data_dir: settings.data_dir,
            storage: settings.storage,
            bind: settings.bind,
            allow_anonymous: settings.allow_anonymous,
            log: settings.log,
            log_format: settings.log_format,
        };
        Sources { file: settings.config, environment, flags }
    }
}

/// Prints the effective configuration to standard output, warnings to standard error.
///
/// # Errors
/// That of the output.
pub(crate) fn print(loaded: &Loaded) -> io::Result<()> {
    let mut output = io::stdout().lock();
    for setting in &loaded.settings {
        writeln!(output, "{setting}")?;
    }
    output.flush()?;
    let mut errors = io::stderr().lock();
    loaded.warnings.iter().try_for_each(|warning| writeln!(errors, "warning: {warning}"))
}
