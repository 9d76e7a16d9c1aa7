//! mosquitto's `acl_file`: `user NAME`, `topic [ACCESS] TOPIC`, `pattern [ACCESS] TOPIC`, comments.
//!
//! A line is read as mosquitto 2.0 reads it: words end at a blank; a topic or a user name is the rest of its line without blanks and
//! tabs around it, so both may have blanks inside; a lone word after `topic` is the topic, even if it is `read`. A comment has its `#` in
//! the first column. What mosquitto refuses is a fault here, and so is what it accepts but no client could ever match: text that is not
//! UTF-8, and control characters.

use super::filter::Template;
use super::{Acl, AclFault, AclFaults, Rule, Whom};
use crate::config::AclAccess;
use crate::escape::escape;

impl Acl {
    /// The rules of a file with this content; `source` is its name in [`RuleRef`](super::RuleRef)s and faults.
    ///
    /// # Errors
    /// Every line that is wrong.
    pub fn parse(content: &[u8], source: &str) -> Result<Self, AclFaults> {
        let mut acl = Acl::default();
        let mut faults = Vec::new();
        let mut user: Option<String> = None;
        for (n, line) in content.split(|byte| *byte == b'\n').enumerate() {
            let place = || format!("{source}:{}", n + 1);
            match read_line(line) {
                Ok(Line::Nothing) => {}
                Ok(Line::User(name)) => user = Some(name.to_owned()),
                Ok(Line::Rule { template, access, is_pattern, text }) => {
                    let whom = match &user {
                        _ if is_pattern => Whom::Everyone,
                        None => Whom::Anonymous,
                        Some(user) => Whom::User(user),
                    };
                    acl.add(whom, Rule { template, access, place: place().into(), text: text.into() });
                }
                Err(problem) => faults.push(AclFault { place: place(), problem }),
            }
        }
        AclFaults::check(faults).map(|()| acl)
    }
}

enum Line<'a> {
    Nothing,
    User(&'a str),
    Rule { template: Template, access: AclAccess, is_pattern: bool, text: &'a str },
}

/// What C's `isspace` calls white space.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn read_line(line: &[u8]) -> Result<Line<'_>, String> {
    if line.first() == Some(&b'#') {
        return Ok(Line::Nothing);
    }
    let line = str::from_utf8(line).map_err(|_| "not UTF-8".to_owned())?.trim_end_matches(is_space);
    let text = line.trim_start_matches(' ');
    if text.is_empty() {
        return Ok(Line::Nothing);
    }
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_matches([' ', '\t']);
    match word {
        "user" if rest.is_empty() => Err("expected a user name after \"user\"".to_owned()),
        "user" if rest.chars().any(char::is_control) => Err("control characters in the user name".to_owned()),
        "user" => Ok(Line::User(rest)),
        "topic" | "pattern" if rest.is_empty() => Err(format!("expected a topic after \"{word}\"")),
        "topic" | "pattern" => {
            let (access, topic) = match rest.split_once(' ') {
                None => (AclAccess::ReadWrite, rest),
                Some((access, topic)) => (read_access(access)?, topic.trim_start_matches([' ', '\t'])),
            };
            let is_pattern = word == "pattern";
            let template = if is_pattern { Template::pattern(topic) } else { Template::topic(topic) };
            let template = template.map_err(|problem| format!("{problem}: \"{}\"", escape(topic)))?;
            Ok(Line::Rule { template, access, is_pattern, text })
        }
        word if word.starts_with('#') => Err("a comment has to begin in the first column".to_owned()),
        word => {
            Err(format!("expected \"user\", \"topic\" or \"pattern\" and a blank, not \"{}\"", escape(word)))
        }
    }
}

fn read_access(word: &str) -> Result<AclAccess, String> {
    match word {
        "read" => Ok(AclAccess::Read),
        "write" => Ok(AclAccess::Write),
        "readwrite" => Ok(AclAccess::ReadWrite),
        "deny" => Ok(AclAccess::Deny),
        word => Err(format!(
            "expected \"read\", \"write\", \"readwrite\" or \"deny\" before a topic with a blank in it, not \"{}\"",
            escape(word)
        )),
    }
}
