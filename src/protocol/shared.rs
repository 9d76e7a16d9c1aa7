//! The filters of shared subscriptions: `$share/{name}/{filter}` (MQTT 5, section 4.8.2).
//!
//! The syntax is MQTT 5's; clients of 3.1.1 are offered the same. Who of a group gets a message is the
//! router's to decide.

use super::error::TopicError;
use super::topic::validate_topic_filter;

const PREFIX: &str = "$share/";

/// A shared subscription's filter, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SharedFilter<'a> {
    /// The share name: at least one character, no `/`, `+` or `#`.
    pub name: &'a str,
    /// The filter that topics are matched against, valid by itself.
    pub filter: &'a str,
}

impl<'a> SharedFilter<'a> {
    /// `None` if `filter` is no shared subscription: it does not begin with `$share/`.
    ///
    /// # Errors
    /// It does begin so, but the share name is empty or has a wildcard, or no valid filter follows. MQTT 5
    /// forbids that and [`super::decode()`] refuses it. To MQTT 3.1.1 these are filters like any other which
    /// only match what nobody can publish; SUBSCRIBE of 3.1.1 lets them through, so that SUBACK can refuse
    /// them with 0x80.
    pub fn parse(filter: &'a str) -> Result<Option<Self>, TopicError> {
        let Some(shared) = filter.strip_prefix(PREFIX) else { return Ok(None) };
        let (name, filter) = shared.split_once('/').unwrap_or((shared, ""));
        if name.is_empty() || name.contains(['+', '#', '\0']) {
            return Err(TopicError::BadShareName);
        }
        if filter.is_empty() {
            return Err(TopicError::NoSharedFilter);
        }
        validate_topic_filter(filter)?;
        Ok(Some(Self { name, filter }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_filters_are_taken_apart() {
        for (text, name, filter) in [
            ("$share/g/a/b", "g", "a/b"),
            ("$share/g/#", "g", "#"),
            ("$share/g//", "g", "/"),
            ("$share/g//a", "g", "/a"),
            ("$share/$share/$share/g/+", "$share", "$share/g/+"),
            ("$share/\u{e9} x/$SYS/#", "\u{e9} x", "$SYS/#"),
        ] {
            assert_eq!(SharedFilter::parse(text), Ok(Some(SharedFilter { name, filter })), "{text}");
        }
    }

    #[test]
    fn other_filters_are_left_alone() {
        for text in ["a", "$share", "$Share/g/a", "/$share/g/a", "$shared/g/a", "$SYS/#", "#"] {
            assert_eq!(SharedFilter::parse(text), Ok(None), "{text}");
        }
    }

    /// [MQTT-4.8.2-1], [MQTT-4.8.2-2] of MQTT 5
    #[test]
    fn bad_shared_filters_are_refused() {
        for text in ["$share/", "$share//a", "$share/+/a", "$share/#", "$share/g+/a", "$share/g#/a"] {
            assert_eq!(SharedFilter::parse(text), Err(TopicError::BadShareName), "{text}");
        }
        for text in ["$share/g", "$share/g/"] {
            assert_eq!(SharedFilter::parse(text), Err(TopicError::NoSharedFilter), "{text}");
        }
        assert_eq!(SharedFilter::parse("$share/g/a#"), Err(TopicError::MisplacedMultiLevel));
        assert_eq!(SharedFilter::parse("$share/g/a+"), Err(TopicError::MisplacedSingleLevel));
    }
}
