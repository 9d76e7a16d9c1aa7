//! `[[acl]]`: one rule of access control as a table of the file, and what makes a whole rule of its keys.
//!
//! Whether a topic is a valid filter is not judged here but by `auth::acl`, which has to judge those of its own files as well.

use super::fault::Origin;
use super::field::{Field, TextTest};
use super::layers::{Reading, Report};
use super::schema::{Setting, setting};

/// One `[[acl]]`: who may do what with which topics. `auth::acl` has the order in which rules are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AclTable {
    /// Whom it is for (`user = "…"`, `anonymous = true`, or everyone).
    pub who: AclWho,
    /// What is granted or denied (`access`).
    pub access: AclAccess,
    /// The topics (`topic`, `topics`, `pattern` or `patterns`).
    pub topics: AclTopics,
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclWho {
    /// Every client, with or without a user name.
    Everyone,
    /// Clients without a user name.
    Anonymous,
    /// The clients of one user.
    User(String),
}

/// What a rule grants or denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AclAccess {
    /// Grants receiving messages.
    Read,
    /// Grants publishing.
    Write,
    /// Grants both.
    ReadWrite,
    /// Denies both.
    Deny,
}

/// The topics of a rule: topic filters, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclTopics {
    /// Filters as they stand.
    Topics(Vec<String>),
    /// Filters in which the level `%u` stands for the user name and the level `%c` for the client id; for everyone.
    Patterns(Vec<String>),
}

/// A table while it is being read: everything may be missing.
#[derive(Debug, Clone, Default)]
pub(crate) struct AclDraft {
    pub(crate) user: Option<String>,
    pub(crate) anonymous: Option<bool>,
    pub(crate) access: Option<AclAccess>,
    pub(crate) topic: Option<String>,
    pub(crate) topics: Option<Vec<String>>,
    pub(crate) pattern: Option<String>,
    pub(crate) patterns: Option<Vec<String>>,
}

const ACCESS: [AclAccess; 4] = [AclAccess::Read, AclAccess::Write, AclAccess::ReadWrite, AclAccess::Deny];

const ANY_TEXT: TextTest = (|_| true, "text in quotes");

/// The settings of one `[[acl]]`.
pub(crate) const ACL_SETTINGS: &[Setting<AclDraft>] = &[
    setting("user", Field::OptionalText(|a: &mut AclDraft| &mut a.user, ANY_TEXT)),
    setting("anonymous", Field::Switch(|a| &mut a.anonymous)),
    setting(
        "access",
        Field::Choice(
            &["read", "write", "readwrite", "deny"],
            |a, n| a.access = ACCESS.get(n).copied(),
            // A place outside of the list for what is not set.
            |a| ACCESS.iter().position(|access| Some(*access) == a.access).unwrap_or(ACCESS.len()),
        ),
    ),
    setting("topic", Field::OptionalText(|a| &mut a.topic, ANY_TEXT)),
    setting("topics", Field::Texts(|a| &mut a.topics)),
    setting("pattern", Field::OptionalText(|a| &mut a.pattern, ANY_TEXT)),
    setting("patterns", Field::Texts(|a| &mut a.patterns)),
];

/// Where a rule's topics can stand.
const TOPIC_KEYS: [&str; 4] = ["topic", "topics", "pattern", "patterns"];

/// The rules of the file; faults go to the report.
pub(crate) fn tables(reading: &mut Reading) -> Vec<AclTable> {
    let drafts = std::mem::take(&mut reading.acl);
    let drafts = drafts.into_iter().enumerate();
    drafts.filter_map(|(n, draft)| table(draft?, n, &mut reading.report)).collect()
}

fn table(draft: AclDraft, n: usize, report: &mut Report) -> Option<AclTable> {
    let at = |key: &str| format!("acl[{n}].{key}");
    let given: Vec<&str> =
        TOPIC_KEYS.into_iter().filter(|key| report.origins.contains_key(&at(key))).collect();
    let mut problems: Vec<(String, &str)> = Vec::new();
    match given.as_slice() {
        [] => problems.push((
            format!("acl[{n}]"),
            "missing: expected topic, topics, pattern or patterns, which say what the rule is about",
        )),
        [_] => {}
        [_, second, ..] => problems.push((at(second), "expected one of topic, topics, pattern and patterns")),
    }
    if !report.origins.contains_key(&at("access")) {
        problems.push((at("access"), "missing: expected \"read\" or \"write\" or \"readwrite\" or \"deny\""));
    }
    if draft.anonymous == Some(false) {
        problems
            .push((at("anonymous"), "expected true, or no such line: without it the rule is for everyone"));
    }
    if draft.user.is_some() && draft.anonymous == Some(true) {
        problems.push((at("anonymous"), "a rule is for one user or for clients without one, not for both"));
    }
    if draft.user.as_deref() == Some("") {
        problems.push((at("user"), "expected a name; for clients without one it is anonymous = true"));
    }
    let is_pattern = draft.pattern.is_some() || draft.patterns.is_some();
    if is_pattern && (draft.user.is_some() || draft.anonymous == Some(true)) {
        let key = if draft.user.is_some() { "user" } else { "anonymous" };
        problems.push((at(key), "a pattern is for everyone; for some clients only it has to be a topic"));
    }
    if [&draft.topics, &draft.patterns].into_iter().flatten().any(Vec::is_empty) {
        problems.push((format!("acl[{n}]"), "expected at least one topic"));
    }
    if !problems.is_empty() {
        // Rules come from the file and nowhere else.
        let origin = report.file.clone().unwrap_or(Origin::Default);
        problems.iter().for_each(|(path, problem)| report.fault(path, None, (*problem).to_owned(), &origin));
        return None;
    }
    let who = match (draft.user, draft.anonymous) {
        (Some(user), _) => AclWho::User(user),
        (None, Some(true)) => AclWho::Anonymous,
        (None, _) => AclWho::Everyone,
    };
    let list = |one: Option<String>, more: Option<Vec<String>>| one.map(|one| vec![one]).or(more);
    let topics = match list(draft.pattern, draft.patterns) {
        Some(patterns) => AclTopics::Patterns(patterns),
        None => AclTopics::Topics(list(draft.topic, draft.topics)?),
    };
    Some(AclTable { who, access: draft.access?, topics })
}

impl From<&AclTable> for AclDraft {
    fn from(table: &AclTable) -> Self {
        let mut draft = AclDraft { access: Some(table.access), ..AclDraft::default() };
        match &table.who {
            AclWho::Everyone => {}
            AclWho::Anonymous => draft.anonymous = Some(true),
            AclWho::User(user) => draft.user = Some(user.clone()),
        }
        match &table.topics {
            AclTopics::Topics(topics) => (draft.topic, draft.topics) = one_or_more(topics),
            AclTopics::Patterns(topics) => (draft.pattern, draft.patterns) = one_or_more(topics),
        }
        draft
    }
}

fn one_or_more(topics: &[String]) -> (Option<String>, Option<Vec<String>>) {
    match topics {
        [one] => (Some(one.clone()), None),
        more => (None, Some(more.to_vec())),
    }
}
