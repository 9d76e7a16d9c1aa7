//! The rules of `[[acl]]` tables. Their shape was judged when the configuration was read; their topics are judged here.

use super::filter::Template;
use super::{Acl, AclFault, AclFaults, Rule, Whom};
use crate::config::{AclAccess, AclTable, AclTopics, AclWho};
use crate::escape::escape;

impl Acl {
    /// Takes in the rules of tables; the place of each is its key path, `acl[0]` for the first.
    ///
    /// # Errors
    /// Every topic that is wrong; the list is of no use then.
    pub fn extend(&mut self, tables: &[AclTable]) -> Result<(), AclFaults> {
        let mut faults = Vec::new();
        for (n, table) in tables.iter().enumerate() {
            let place = format!("acl[{n}]");
            let whom = match &table.who {
                AclWho::Everyone => Whom::Everyone,
                AclWho::Anonymous => Whom::Anonymous,
                AclWho::User(user) => Whom::User(user),
            };
            let (topics, word) = match &table.topics {
                AclTopics::Topics(topics) => (topics, "topic"),
                AclTopics::Patterns(topics) => (topics, "pattern"),
            };
            for topic in topics {
                let template =
                    if word == "pattern" { Template::pattern(topic) } else { Template::topic(topic) };
                match template {
                    Ok(template) => {
                        let text = format!("{word} {} {topic}", access_word(table.access));
                        let place = place.as_str().into();
                        self.add(whom, Rule { template, access: table.access, place, text: text.into() });
                    }
                    Err(problem) => {
                        let problem = format!("{problem}: \"{}\"", escape(topic));
                        faults.push(AclFault { place: place.clone(), problem });
                    }
                }
            }
        }
        AclFaults::check(faults)
    }
}

fn access_word(access: AclAccess) -> &'static str {
    match access {
        AclAccess::Read => "read",
        AclAccess::Write => "write",
        AclAccess::ReadWrite => "readwrite",
        AclAccess::Deny => "deny",
    }
}
