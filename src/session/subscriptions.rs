//! The filters one session is subscribed to: what is removed from the router when the session ends.

use std::sync::Arc;

use ahash::RandomState;
use std::collections::HashMap;

use crate::protocol::QoS;

/// One filter and its granted QoS are the common case of a device and need no allocation.
#[derive(Debug, Default)]
pub(super) enum Subscriptions {
    #[default]
    None,
    One(Arc<str>, QoS),
    Many(Box<HashMap<Arc<str>, QoS, RandomState>>),
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
    pub(super) fn get(&self, filter: &str) -> Option<(&Arc<str>, QoS)> {
        match self {
            Self::None => None,
            Self::One(one, qos) => (**one == *filter).then_some((one, *qos)),
            Self::Many(filters) => filters.get_key_value(filter).map(|(filter, qos)| (filter, *qos)),
        }
    }

    /// Adds a filter or replaces its options.
    pub(super) fn set(&mut self, filter: Arc<str>, qos: QoS) {
        *self = match std::mem::take(self) {
            Self::None => Self::One(filter, qos),
            Self::One(one, _) if one == filter => Self::One(one, qos),
            Self::One(one, one_qos) => {
                Self::Many(Box::new([(one, one_qos), (filter, qos)].into_iter().collect()))
            }
            Self::Many(mut filters) => {
                filters.insert(filter, qos);
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
        set.set(Arc::from("a"), QoS::AtMostOnce);
        set.set(Arc::from("a"), QoS::ExactlyOnce);
        assert_eq!(set.get("a").map(|(_, qos)| qos), Some(QoS::ExactlyOnce));
        set.set(Arc::from("b"), QoS::AtLeastOnce);
        set.set(Arc::from("b"), QoS::AtMostOnce);
        assert_eq!((set.len(), set.get("b").map(|(_, qos)| qos)), (2, Some(QoS::AtMostOnce)));
        assert_eq!(set.remove("c"), None);
        assert_eq!(set.remove("a").as_deref(), Some("a"));
        assert_eq!(set.take_all(), [Arc::from("b")]);
        assert_eq!(set.len(), 0);
    }
}
