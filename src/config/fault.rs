//! What is wrong with a configuration, and where a value came from.

use std::fmt;
use std::path::PathBuf;

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// Nowhere: it is a default that depends on this: an environment variable that is not ours, or the machine.
    DefaultFrom(&'static str),
    /// The configuration file at this path.
    File(PathBuf),
    /// The environment variable of this name.
    Environment(String),
    /// The flag of this name, dashes included.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::DefaultFrom(name) => write!(f, "default, from {name}"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// One thing that is wrong. Displayed on one line: `limits.inflight_max = 0: expected … (in ternmq.toml)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting's path, such as `limits.queue_bytes_max` or `listeners[1].tls.certificate`; empty when the fault
    /// is one of the whole source (a file that cannot be read).
    pub path: String,
    /// The value as it was written, if there is one.
    pub value: Option<String>,
    /// What is wrong and what is expected instead.
    pub problem: String,
    /// Where the value was set.
    pub origin: Origin,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if !self.path.is_empty() {
            f.write_str(": ")?;
        }
        match &self.origin {
            Origin::Default => f.write_str(&self.problem),
            origin => write!(f, "{} (in {origin})", self.problem),
        }
    }
}

/// Why there is no configuration. Displayed with one fault on each line, then the warnings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFaults {
    /// Every fault that was found; never empty.
    pub faults: Vec<Fault>,
    /// What is allowed but hardly meant, and may be what the faults come from: a variable that is
    /// no setting because its name is misspelt.
    pub warnings: Vec<String>,
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, fault) in self.faults.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

impl std::error::Error for ConfigFaults {}
