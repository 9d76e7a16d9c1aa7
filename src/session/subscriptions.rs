//! The filters one session is subscribed to: what is removed from the router when the session ends.

use std::sync::Arc;

use ahash::RandomState;
use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::protocol::QoS;

/// What a client asked for with a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterOptions {
    /// The granted QoS.
    pub qos: QoS,
    /// The client's own messages are not wanted (MQTT 5 section 3.8.3.1).
    pub no_local: bool,
    /// RETAIN comes as it was published.
    pub retain_as_published: bool,
    /// The subscription's identifier.
    pub subscription_id: Option<NonZeroU32>,
}

impl From<QoS> for FilterOptions {
    /// A plain subscription of MQTT 3.1.1.
    fn from(qos: QoS) -> Self {
        Self { qos, no_local: false, retain_as_published: false, subscription_id: None }
    }
}

/// One filter and its options are the common case of a device and need no allocation.
#[derive(Debug, Default)]
pub(super) enum Subscriptions {
    #[default]
    None,
    One(Arc<str>, FilterOptions),
    Many(Box<HashMap<Arc<str>, FilterOptions, RandomState>>),
}

impl Subscriptions {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(filters) => filters.len(),
        }
    }

    /// The session's own copy of an equal filter.
    pub(super) fn get(&self, filter: &str) -> Option<(&Arc<str>, FilterOptions)> {
        match self {
            Self::None => None,
            Self::One(one, options) => (**one == *filter).then_some((one, *options)),
            Self::Many(filters) => filters.get_key_value(filter).map(|(filter, options)| (filter, *options)),
        }
    }

    /// Adds a filter or replaces its options.
    pub(super) fn set(&mut self, filter: Arc<str>, options: FilterOptions) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(filter, options),
            Self::One(one, _) if one == filter => Self::One(one, options),
            Self::One(one, one_options) => {
                Self::Many(Box::new([(one, one_options), (filter, options)].into_iter().collect()))
            }
            Self::Many(mut filters) => {
                filters.insert(filter, options);
                Self::Many(filters)
            }
        };
    }

    /// Removes a filter, compared byte by byte ([MQTT-3.10.4-1]).
    pub(super) fn remove(&mut self, filter: &str) -> Option<Arc<str>> {
        match self {
            Self::None => None,
            Self::One(one, _) if **one == *filter => match std::mem::take(self) {
                Self::One(one, _) => Some(one),
                _ => None,
            },
            Self::One(..) => None,
            Self::Many(filters) => {
                let removed = filters.remove_entry(filter).map(|(filter, _)| filter);
                if filters.is_empty() {
                    *self = Self::None;
                }
                removed
            }
        }
    }

    /// All filters with their options, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, FilterOptions)> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one, options) => (Some((one, *options)), None),
            Self::Many(filters) => (None, Some(filters.iter().map(|(filter, options)| (filter, *options)))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The filters that begin so.
    pub(super) fn with_prefix(&self, prefix: &str) -> Vec<Arc<str>> {
        match self {
            Self::None => Vec::new(),
            Self::One(one, _) => [one].into_iter().filter(|one| one.starts_with(prefix)).cloned().collect(),
            Self::Many(filters) => {
                filters.keys().filter(|filter| filter.starts_with(prefix)).cloned().collect()
            }
        }
    }

    /// All filters; the set is empty after it.
    pub(super) fn take_all(&mut self) -> Vec<Arc<str>> {
        match std::mem::take(self) {
            Self::None => Vec::new(),
            Self::One(one, _) => vec![one],
            Self::Many(filters) => filters.into_keys().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_shrinks_through_its_forms() {
        let mut set = Subscriptions::default();
        assert_eq!(set.remove("a"), None);
        set.set(Arc::from("a"), QoS::AtMostOnce.into());
        set.set(Arc::from("a"), QoS::ExactlyOnce.into());
        assert_eq!(set.get("a").map(|(_, options)| options.qos), Some(QoS::ExactlyOnce));
        set.set(Arc::from("b"), QoS::AtLeastOnce.into());
        set.set(Arc::from("b"), QoS::AtMostOnce.into());
        assert_eq!((set.len(), set.get("b").map(|(_, options)| options.qos)), (2, Some(QoS::AtMostOnce)));
        let mut all: Vec<&str> = set.iter().map(|(filter, _)| &**filter).collect();
        all.sort_unstable();
        assert_eq!(all, ["a", "b"]);
        assert_eq!(set.remove("c"), None);
        assert_eq!(set.remove("a").as_deref(), Some("a"));
        assert_eq!(set.take_all(), [Arc::from("b")]);
        assert_eq!(set.len(), 0);
    }
}
