//! Random lists and questions: the compiled list answers as a plain reading of the documentation does, which writes names into rules and
//! looks at every rule; and what is granted to a subscription can all be read.

use proptest::prelude::*;

use super::super::filter::Template;
use super::super::{Access, Acl, Who};
use crate::protocol::matches;

/// Levels that meet each other often, and one that no rule has.
const LEVELS: [&str; 5] = ["a", "b", "", "$x", "z"];

/// Every topic of up to four of these levels.
fn topics() -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut last: Vec<String> = vec![String::new()];
    for depth in 0..4 {
        let longer = last.iter().flat_map(|before| {
            LEVELS.map(|level| if depth == 0 { level.to_owned() } else { format!("{before}/{level}") })
        });
        last = longer.collect();
        all.extend(last.iter().filter(|topic| !topic.is_empty()).cloned());
    }
    all
}

fn filter(levels: &'static [&'static str]) -> impl Strategy<Value = String> {
    let levels = prop::collection::vec(prop::sample::select(levels), 1..4);
    (levels, any::<bool>())
        .prop_map(|(levels, rest)| levels.join("/") + if rest { "/#" } else { "" })
        .prop_filter("a filter is not empty", |filter| !filter.is_empty())
}

fn plain_filter() -> impl Strategy<Value = String> {
    prop_oneof![9 => filter(&["a", "b", "", "$x", "+", "+"]), 1 => Just("#".to_owned())]
}

fn rule_filter() -> impl Strategy<Value = String> {
    prop_oneof![9 => filter(&["a", "b", "", "$x", "+", "+", "%u", "%c"]), 1 => Just("#".to_owned())]
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "$x", "a/b", "$x/a", "+", "#", "a+", ""])
}

#[derive(Debug, Clone)]
struct Line {
    user: Option<&'static str>,
    is_pattern: bool,
    access: &'static str,
    filter: String,
}

fn line() -> impl Strategy<Value = Line> {
    let user = prop::option::of(prop::sample::select(vec!["a", "b", "$x", "a/b", "a+"]));
    let access = prop::sample::select(vec!["read", "write", "readwrite", "readwrite", "deny"]);
    (user, any::<bool>(), access, rule_filter()).prop_map(|(user, is_pattern, access, filter)| Line {
        user,
        is_pattern,
        access,
        filter,
    })
}

/// The file with these rules: those of anonymous clients have to stand first.
fn file(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in
        lines.iter().filter(|line| line.user.is_none()).chain(lines.iter().filter(|line| line.user.is_some()))
    {
        if let Some(user) = line.user {
            text += &format!("user {user}\n");
        }
        text += &format!(
            "{} {} {}\n",
            if line.is_pattern { "pattern" } else { "topic" },
            line.access,
            line.filter
        );
    }
    text
}

/// What the documentation of the module says, word by word.
fn reference(lines: &[Line], who: Who<'_>, access: &str, topic: &str) -> bool {
    let user = who.user.filter(|user| !user.is_empty());
    for is_pattern in [false, true] {
        let stage: Vec<&Line> = lines
            .iter()
            .filter(|line| line.is_pattern == is_pattern && (is_pattern || line.user == user))
            .collect();
        let names = [user.unwrap_or(""), who.client_id];
        if is_pattern && !stage.is_empty() && names.iter().any(|name| name.contains(['+', '#'])) {
            return false;
        }
        let is_matched = |line: &Line, grants: bool| {
            let (mut names, mut is_bad) = (Vec::new(), false);
            let levels: Vec<&str> = line
                .filter
                .split('/')
                .map(|level| match level {
                    "%u" if is_pattern => {
                        is_bad |= user.is_none();
                        names.extend(user);
                        user.unwrap_or_default()
                    }
                    "%c" if is_pattern => {
                        names.push(who.client_id);
                        who.client_id
                    }
                    level => level,
                })
                .collect();
            if is_bad || (grants && names.iter().any(|name| name.contains('/'))) {
                return false;
            }
            let may = !topic.starts_with('$') || line.filter.starts_with('$') || !grants;
            may && matches(topic, &levels.join("/"))
        };
        if stage.iter().any(|line| line.access == "deny" && is_matched(line, false)) {
            return false;
        }
        if stage.iter().any(|line| [access, "readwrite"].contains(&line.access) && is_matched(line, true)) {
            return true;
        }
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn lists_answer_as_the_documentation_reads(
        lines in prop::collection::vec(line(), 0..8),
        user in prop::option::of(name()),
        client_id in name(),
    ) {
        let text = file(&lines);
        let acl = Acl::parse(text.as_bytes(), "f").expect("good rules");
        let who = Who { user, client_id };
        for topic in topics() {
            for (access, word) in [(Access::Read, "read"), (Access::Write, "write")] {
                let expected = reference(&lines, who, word, &topic);
                prop_assert_eq!(acl.decide(who, access, &topic).allowed, expected, "{:?} {} {}\n{}", who, word, topic, text);
            }
        }
    }

    #[test]
    fn what_is_granted_to_a_subscription_can_all_be_read(
        lines in prop::collection::vec(line(), 1..6),
        user in prop::option::of(name()),
        client_id in name(),
        filters in prop::collection::vec(plain_filter(), 10),
    ) {
        let acl = Acl::parse(file(&lines).as_bytes(), "f").expect("good rules");
        let rules = acl.for_client(Who { user, client_id });
        for filter in filters {
            let granted = rules.may_subscribe(&filter).allowed;
            prop_assert_eq!(granted, rules.may_subscribe(&format!("$share/g/{filter}")).allowed);
            if filter.contains(['+', '#']) {
                for topic in topics().iter().filter(|topic| granted && matches(topic, &filter)) {
                    prop_assert!(rules.decide(Access::Read, topic).allowed, "{} {}\n{}", filter, topic, file(&lines));
                }
            } else {
                prop_assert_eq!(rules.may_subscribe(&filter), rules.decide(Access::Read, &filter));
            }
        }
    }

    #[test]
    fn one_rule_covers_a_filter_if_it_matches_all_its_topics(
        rule in rule_filter(),
        filter in plain_filter(),
        user in prop::option::of(prop::sample::select(vec!["a", "$x", "a/b"])),
        client_id in prop::sample::select(vec!["b", "$x", "b/a"]),
    ) {
        // By the letter it matches the topic without a byte as well, which no message has; a rule need not.
        prop_assume!(filter != "/#");
        let template = Template::pattern(&rule).expect("a good rule");
        let who = Who { user, client_id };
        let all = topics();
        let mut of_filter = all.iter().filter(|topic| matches(topic, &filter));
        let grants = of_filter.clone().all(|topic| template.grants(topic, who));
        prop_assert_eq!(template.grants_all(&filter, who), grants, "{} {} {:?}", rule, filter, who);
        // Names of two levels make rules of more levels than the topics have.
        if user != Some("a/b") && client_id != "b/a" {
            let denies = of_filter.any(|topic| template.denies(topic, who));
            prop_assert_eq!(template.denies_some(&filter, who), denies, "{} {} {:?}", rule, filter, who);
        }
    }
}
