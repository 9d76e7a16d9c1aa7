//! What a rule matches: a topic filter in which whole levels may stand for the name of the client.
//!
//! A rule is compared level by level with a topic or with another filter, with the names put in on the way: nothing is built and
//! nothing recurses. A name's `+` and `#` are never wildcards, and its `/` separates levels, as if the name had been written into the rule.

use super::Who;
use crate::protocol::validate_topic_filter;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level<'a> {
    Literal(&'a str),
    /// `+`
    Any,
    /// `#`, always the last
    Rest,
}

impl<'a> Level<'a> {
    fn of(text: &'a str) -> Self {
        match text {
            "+" => Level::Any,
            "#" => Level::Rest,
            text => Level::Literal(text),
        }
    }

    /// Whether topics that begin with this level begin with `$`.
    fn is_dollar(self) -> bool {
        matches!(self, Level::Literal(text) if text.starts_with('$'))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Template {
    text: Box<str>,
    /// How much of `text`, in bytes, every topic that matches begins with.
    fixed: usize,
    uses_user: bool,
    uses_client_id: bool,
}

impl Template {
    /// A rule that stands for itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn topic(text: &str) -> Result<Self, String> {
        Self::new(text, false)
    }

    /// A rule in which the levels `%u` and `%c` stand for the user name and the client id.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn pattern(text: &str) -> Result<Self, String> {
        Self::new(text, true)
    }

    fn new(text: &str, is_pattern: bool) -> Result<Self, String> {
        validate_topic_filter(text).map_err(|error| format!("not a valid topic filter: {error}"))?;
        if text.chars().any(char::is_control) {
            return Err("control characters (a tab?) in the topic".to_owned());
        }
        let is_name = |level: &str| is_pattern && matches!(level, "%u" | "%c");
        if is_pattern {
            let inside = text.split('/').find(|l| !is_name(l) && (l.contains("%u") || l.contains("%c")));
            if inside.is_some() {
                return Err(
                    "%u and %c have to be whole levels, with nothing else between the slashes".to_owned()
                );
            }
        }
        let uses = |name: &str| is_pattern && text.split('/').any(|level| level == name);
        // The slash before the first level that is not fixed does not count: `a/#` matches `a`.
        let fixed_levels =
            text.split('/').take_while(|level| !is_name(level) && Level::of(level) == Level::Literal(level));
        let fixed = fixed_levels.map(|level| level.len() + 1).sum::<usize>().saturating_sub(1);
        Ok(Template { text: text.into(), fixed, uses_user: uses("%u"), uses_client_id: uses("%c") })
    }

    /// Whether this, as a `deny`, matches the topic.
    pub(super) fn denies(&self, topic: &str, who: Who<'_>) -> bool {
        self.applies(who) && self.matches(topic, who)
    }

    /// Whether this, as a rule that grants, matches the topic.
    pub(super) fn grants(&self, topic: &str, who: Who<'_>) -> bool {
        self.may_grant(topic, who) && self.matches(topic, who)
    }

    /// Whether this, as a `deny`, matches some topic that `filter` matches.
    pub(super) fn denies_some(&self, filter: &str, who: Who<'_>) -> bool {
        self.applies(who) && self.overlaps(filter, who)
    }

    /// Whether this, as a rule that grants, matches every topic that `filter` matches.
    pub(super) fn grants_all(&self, filter: &str, who: Who<'_>) -> bool {
        self.may_grant(filter, who) && self.covers(filter, who)
    }

    fn applies(&self, who: Who<'_>) -> bool {
        !self.uses_user || who.user.is_some()
    }

    /// Whether a client must not get anything from this rule by the choice of its name.
    fn may_grant(&self, topic: &str, who: Who<'_>) -> bool {
        let is_level = |name: Option<&str>| name.is_some_and(|name| !name.contains('/'));
        (!self.uses_user || is_level(who.user))
            && (!self.uses_client_id || is_level(Some(who.client_id)))
            && (!topic.starts_with('$') || self.text.starts_with('$'))
    }

    fn levels<'a>(&'a self, who: Who<'a>) -> impl Iterator<Item = Level<'a>> {
        self.text.split('/').flat_map(move |level| {
            let name = match level {
                "%u" if self.uses_user => who.user,
                "%c" if self.uses_client_id => Some(who.client_id),
                _ => None,
            };
            let is_name = name.is_some();
            let levels = name.unwrap_or(level).split('/');
            levels.map(move |part| if is_name { Level::Literal(part) } else { Level::of(part) })
        })
    }

    fn matches(&self, topic: &str, who: Who<'_>) -> bool {
        if !topic.starts_with(self.text.get(..self.fixed).unwrap_or_default()) {
            return false;
        }
        let mut rule = self.levels(who).peekable();
        if topic.starts_with('$') && !rule.peek().is_some_and(|level| level.is_dollar()) {
            return false;
        }
        let mut topic = topic.split('/');
        loop {
            match (rule.next(), topic.next()) {
                (Some(Level::Rest), _) | (None, None) => return true,
                (Some(Level::Any), Some(_)) => {}
                (Some(Level::Literal(level)), Some(other)) if level == other => {}
                _ => return false,
            }
        }
    }

    fn covers(&self, filter: &str, who: Who<'_>) -> bool {
        let mut rule = self.levels(who).peekable();
        if filter.starts_with('$') && !rule.peek().is_some_and(|level| level.is_dollar()) {
            return false;
        }
        let mut filter = filter.split('/').map(Level::of);
        let mut is_first = true;
        loop {
            match (rule.next(), filter.next()) {
                (Some(Level::Rest), _) | (None, None) => return true,
                // Every topic has a first level, so `+/#` is all that `#` is. Further on `a/#` matches `a`, and `a/+/#` does not.
                (Some(Level::Any), Some(Level::Rest)) if is_first => return rule.next() == Some(Level::Rest),
                (Some(Level::Any), Some(Level::Any | Level::Literal(_))) => {}
                (Some(Level::Literal(level)), Some(Level::Literal(other))) if level == other => {}
                _ => return false,
            }
            is_first = false;
        }
    }

    fn overlaps(&self, filter: &str, who: Who<'_>) -> bool {
        let (mut rule, mut filter) = (self.levels(who), filter.split('/').map(Level::of));
        // What is common so far is one level, without a character.
        let mut is_empty = false;
        let mut is_first = true;
        loop {
            let (level, other) = (rule.next(), filter.next());
            // A wildcard in front matches no topic that begins with `$`.
            let are_apart = |a: Option<Level<'_>>, b: Option<Level<'_>>| {
                a.is_some_and(Level::is_dollar) && matches!(b, Some(Level::Any | Level::Rest))
            };
            if is_first && (are_apart(level, other) || are_apart(other, level)) {
                return false;
            }
            match (level, other) {
                // `/#` and `+` have only the empty topic in common, which is none.
                (Some(Level::Rest), None) | (None, Some(Level::Rest)) if is_empty => return false,
                (Some(Level::Rest), _) | (_, Some(Level::Rest)) | (None, None) => return true,
                (Some(Level::Literal(level)), Some(Level::Literal(other))) if level != other => return false,
                (Some(_), Some(_)) => {}
                (Some(_), None) | (None, Some(_)) => return false,
            }
            is_empty = is_first && [level, other].contains(&Some(Level::Literal("")));
            is_first = false;
        }
    }
}
