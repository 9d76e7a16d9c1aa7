//! The list that a configuration asks for, and what it says about one question. The one place of the list that reads a file.

use std::{fmt, fs};

use super::{Access, Acl, AclFault, AclFaults, Who};
use crate::config::Config;
use crate::protocol::validate_topic_name;

/// The list of `auth.acl_file` and `[[acl]]` together; `None` if there is neither, and then everything is allowed. A file without rules
/// is a list: nothing is allowed. Blocks while the file is read.
///
/// # Errors
/// The file cannot be read, or everything that is wrong in either.
pub fn load(config: &Config) -> Result<Option<Acl>, AclFaults> {
    if config.auth.acl_file.is_none() && config.acl.is_empty() {
        return Ok(None);
    }
    let mut faults = Vec::new();
    let mut acl = Acl::default();
    if let Some(path) = &config.auth.acl_file {
        let place = path.display().to_string();
        match fs::read(path) {
            Ok(content) => match Acl::parse(&content, &place) {
                Ok(parsed) => acl = parsed,
                Err(found) => faults.extend(found.0),
            },
            Err(error) => faults.push(AclFault { place, problem: format!("cannot read the file: {error}") }),
        }
    }
    if let Err(found) = acl.extend(&config.acl) {
        faults.extend(found.0);
    }
    AclFaults::check(faults).map(|()| Some(acl))
}

/// The answer to one question, with its reason. Displayed on one line: `denied by acl.txt:3: topic deny a/#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The answer.
    pub allowed: bool,
    why: String,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed { "allowed" } else { "denied" };
        write!(f, "{word} {}", self.why)
    }
}

/// What the configuration says to `who` reading or writing `topic`.
///
/// # Errors
/// Those of [`load`], and a `topic` that no message can have.
pub fn explain(config: &Config, who: Who<'_>, access: Access, topic: &str) -> Result<Explanation, AclFaults> {
    let acl = load(config)?;
    if let Err(error) = validate_topic_name(topic) {
        let problem = format!("expected the topic of a message: {error}");
        return Err(AclFaults(vec![AclFault { place: "--topic".to_owned(), problem }]));
    }
    let Some(acl) = acl else {
        let why = "because there are no rules: neither auth.acl_file nor [[acl]] is configured".to_owned();
        return Ok(Explanation { allowed: true, why });
    };
    let decision = acl.decide(who, access, topic);
    let why = acl.why(decision);
    Ok(Explanation { allowed: decision.allowed, why })
}
