//! The filters one session is subscribed to: what is removed from the router when the session ends.
//!
//! Each is a record ([`record`]) that costs little more than its text. A few stand in one buffer and are simply searched; more of them lie in pages
//! behind a table of their places ([`table`]).

mod record;
mod table;

use std::fmt;
use std::num::NonZeroU32;

use self::record::Record;
use self::table::Table;
use crate::protocol::QoS;

/// Up to this many are searched one after the other.
const FEW_MAX: usize = 12;

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

/// The filters of a session with their options; see the module's documentation.
#[derive(Default)]
pub struct Subscriptions(Form);

/// One filter is the common case of a device, and no filter that of most publishers.
#[derive(Default)]
enum Form {
    #[default]
    None,
    /// Records in a row, without holes.
    Few(Vec<u8>),
    Many(Box<Table>),
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::None => 0,
            Form::Few(records) => record::all(records).count(),
            Form::Many(table) => table.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The options of a filter.
    pub fn get(&self, filter: &str) -> Option<FilterOptions> {
        match &self.0 {
            Form::None => None,
            Form::Few(records) => Some(find(records, filter)?.1.options()),
            Form::Many(table) => table.get(filter),
        }
    }

    /// Whether there is a place for one more: a table reaches over 4 GB of pages.
    pub(super) fn has_room(&self) -> bool {
        match &self.0 {
            Form::None | Form::Few(_) => true,
            Form::Many(table) => table.has_room(),
        }
    }

    /// Adds a filter or replaces its options.
    pub(super) fn set(&mut self, filter: &str, options: FilterOptions) {
        self.remove(filter);
        match &mut self.0 {
            Form::None => {
                let mut records = Vec::new();
                append(&mut records, filter, options);
                self.0 = Form::Few(records);
            }
            Form::Few(records) => {
                append(records, filter, options);
                if record::all(records).count() > FEW_MAX {
                    self.0 = Form::Many(Box::new(record::all(records).collect()));
                }
            }
            Form::Many(table) => table.add(filter, options),
        }
    }

    /// Removes a filter, compared byte by byte ([MQTT-3.10.4-1]); whether it was there.
    pub(super) fn remove(&mut self, filter: &str) -> bool {
        match &mut self.0 {
            Form::None => false,
            Form::Few(records) => {
                let Some((at, found)) = find(records, filter) else { return false };
                let end = at + found.len();
                records.drain(at..end);
                if records.is_empty() {
                    self.0 = Form::None;
                } else if records.capacity() > 2 * records.len() {
                    records.shrink_to_fit();
                }
                true
            }
            Form::Many(table) => {
                let removed = table.remove(filter);
                if table.len() <= FEW_MAX / 2 {
                    let mut records = Vec::new();
                    table.iter().for_each(|record| append(&mut records, record.filter(), record.options()));
                    self.0 = Form::Few(records);
                }
                removed
            }
        }
    }

    /// All filters with their options, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, FilterOptions)> {
        let (few, many) = match &self.0 {
            Form::None => (None, None),
            Form::Few(records) => (Some(records), None),
            Form::Many(table) => (None, Some(table)),
        };
        let few = few.into_iter().flat_map(|records| record::all(records));
        let many = many.into_iter().flat_map(|table| table.iter());
        few.chain(many).map(|record| (record.filter(), record.options()))
    }

    /// Some of the filters, at most about `max`, from a place on; 0 is the first place. Also where to go
    /// on; `None`: these were the last.
    pub fn slice(&self, from: usize, max: usize) -> (Vec<Box<str>>, Option<usize>) {
        match &self.0 {
            Form::None => (Vec::new(), None),
            Form::Few(records) => {
                (record::all(records).map(|record| Box::from(record.filter())).collect(), None)
            }
            Form::Many(table) => table.slice(from, max),
        }
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Adds a record to a few.
fn append(records: &mut Vec<u8>, filter: &str, options: FilterOptions) {
    let size = record::size(filter, options);
    if records.capacity() - records.len() < size {
        // Exactly so much for the first, then a little ahead; not doubled.
        records.reserve_exact(size + records.len() / 16);
    }
    record::write(records, filter, options);
}

/// Where a filter stands among a few.
fn find<'a>(records: &'a [u8], filter: &str) -> Option<(usize, Record<'a>)> {
    let mut at = 0;
    for record in record::all(records) {
        if record.is(filter) {
            return Some((at, record));
        }
        at += record.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn options(bits: u8, id: u32) -> FilterOptions {
        FilterOptions {
            qos: [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(bits % 3)],
            no_local: bits & 4 != 0,
            retain_as_published: bits & 8 != 0,
            subscription_id: NonZeroU32::new(id),
        }
    }

    fn bytes_held(set: &Subscriptions) -> usize {
        match &set.0 {
            Form::None => 0,
            Form::Few(records) => records.capacity(),
            Form::Many(table) => table.bytes_held(),
        }
    }

    #[test]
    fn takes_no_more_room_in_a_session_than_a_list() {
        assert_eq!(size_of::<Subscriptions>(), 24);
        let mut set = Subscriptions::default();
        set.set("plant/7", QoS::AtLeastOnce.into());
        assert_eq!(bytes_held(&set), 3 + 7);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn is_a_map(
            steps in prop::collection::vec((0u32..40, any::<u8>(), 0u32..3, prop::bool::weighted(0.6)), 1..300),
        ) {
            let mut set = Subscriptions::default();
            let mut model: HashMap<String, FilterOptions> = HashMap::new();
            for (n, bits, id, add) in steps {
                let filter = format!("level/{n}/{}", "x".repeat(n as usize));
                if add {
                    set.set(&filter, options(bits, id));
                    model.insert(filter.clone(), options(bits, id));
                } else {
                    prop_assert_eq!(set.remove(&filter), model.remove(&filter).is_some());
                }
                prop_assert_eq!(set.get(&filter), model.get(&filter).copied());
                prop_assert_eq!((set.len(), set.is_empty()), (model.len(), model.is_empty()));
            }
            let all: HashMap<String, FilterOptions> =
                set.iter().map(|(filter, options)| (filter.to_owned(), options)).collect();
            prop_assert_eq!(all, model);
        }
    }

    #[test]
    fn gives_memory_back_and_does_not_grow_over_cycles() {
        let mut set = Subscriptions::default();
        let name = |n: usize| format!("site/device{n}/state");
        for n in 0..10_000 {
            set.set(&name(n), QoS::AtMostOnce.into());
        }
        let full = bytes_held(&set);
        assert!(full < 10_000 * 36, "{full} bytes for 10,000 filters of 22");
        for n in 100..10_000 {
            assert!(set.remove(&name(n)));
        }
        assert!(bytes_held(&set) < full / 20, "{} of {full}", bytes_held(&set));
        for n in 100..50_000 {
            set.set(&name(n), QoS::AtMostOnce.into());
            set.set(&name(n), QoS::AtLeastOnce.into());
            assert!(set.remove(&name(n)));
        }
        assert!(bytes_held(&set) < full / 20, "{} of {full}", bytes_held(&set));
        assert!((0..100).all(|n| set.remove(&name(n))));
        assert_eq!((set.len(), bytes_held(&set)), (0, 0));
    }
}
