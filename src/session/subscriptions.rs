//! The filters one session is subscribed to: what is removed from the router when the session ends.
//!
//! They stand in a row in one buffer, each as `length u16, flags u8, [identifier u32,] text`: a filter costs little more than its text. A few are simply
//! searched; more get a hash table of their places, four bytes each and one of the table's own. What is removed leaves a hole, until holes
//! make up half of the buffer and the rest is moved together.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroU32;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::protocol::QoS;

/// Up to this many are searched one after the other.
const FEW_MAX: usize = 12;
/// Length and flags.
const HEAD: usize = 3;
const ID: usize = 4;
const NO_LOCAL: u8 = 4;
const RETAIN_AS_PUBLISHED: u8 = 8;
const HAS_ID: u8 = 16;

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

struct Table {
    records: Vec<u8>,
    /// Where each record begins.
    places: HashTable<u32>,
    state: RandomState,
    holes: usize,
}

impl Subscriptions {
    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::None => 0,
            Form::Few(records) => Records { bytes: records, at: 0 }.count(),
            Form::Many(table) => table.places.len(),
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
            Form::Few(records) => {
                let at = find(records, filter)?;
                Some(read(records, at)?.1)
            }
            Form::Many(table) => {
                let at = table.find(filter)?;
                Some(read(&table.records, at as usize)?.1)
            }
        }
    }

    /// Whether there is a place for one more: a table reaches over 4 GB.
    pub(super) fn has_room(&self) -> bool {
        match &self.0 {
            Form::None | Form::Few(_) => true,
            Form::Many(table) => u32::try_from(table.records.len() + (1 << 17)).is_ok(),
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
                if (Records { bytes: records, at: 0 }).count() > FEW_MAX {
                    self.0 = Form::Many(Box::new(Table::new(std::mem::take(records))));
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
                let Some(at) = find(records, filter) else { return false };
                let len = record_len(records, at);
                records.drain(at..(at + len).min(records.len()));
                if records.is_empty() {
                    self.0 = Form::None;
                } else if records.capacity() > 2 * records.len() {
                    records.shrink_to_fit();
                }
                true
            }
            Form::Many(table) => {
                let removed = table.remove(filter);
                if table.places.len() <= FEW_MAX / 2 {
                    table.compact();
                    self.0 = Form::Few(std::mem::take(&mut table.records));
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
        let few = few.into_iter().flat_map(|bytes| Records { bytes, at: 0 }.filter_map(|at| read(bytes, at)));
        let many = many
            .into_iter()
            .flat_map(|table| table.places.iter().filter_map(|at| read(&table.records, *at as usize)));
        few.chain(many).map(|(filter, options)| (text(filter), options))
    }
}

impl fmt::Debug for Subscriptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Table {
    fn new(records: Vec<u8>) -> Self {
        let mut table = Self { records, places: HashTable::new(), state: RandomState::new(), holes: 0 };
        let Self { records, places, state, .. } = &mut table;
        for at in (Records { bytes: records, at: 0 }) {
            let hash = hash_at(state, records, at as u32);
            places.insert_unique(hash, at as u32, |at| hash_at(state, records, *at));
        }
        table
    }

    fn find(&self, filter: &str) -> Option<u32> {
        let hash = hash(&self.state, filter.as_bytes());
        self.places.find(hash, |at| filter_at(&self.records, *at as usize) == filter.as_bytes()).copied()
    }

    fn add(&mut self, filter: &str, options: FilterOptions) {
        // Below 4 GB: see `has_room`.
        let at = self.records.len() as u32;
        append(&mut self.records, filter, options);
        let Self { records, places, state, .. } = self;
        places.insert_unique(hash(state, filter.as_bytes()), at, |at| hash_at(state, records, *at));
    }

    fn remove(&mut self, filter: &str) -> bool {
        let Some(at) = self.find(filter) else { return false };
        let hash = hash(&self.state, filter.as_bytes());
        if let Ok(found) = self.places.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.holes += record_len(&self.records, at as usize);
        if self.holes > self.records.len() / 2 {
            self.compact();
        }
        true
    }

    /// Moves the records together and gives memory back.
    fn compact(&mut self) {
        let Self { records, places, state, holes } = self;
        let mut fresh = Vec::new();
        fresh.reserve_exact(records.len().saturating_sub(*holes));
        for at in places.iter_mut() {
            let from = *at as usize;
            let record = records.get(from..from + record_len(records, from)).unwrap_or_default();
            *at = fresh.len() as u32;
            fresh.extend_from_slice(record);
        }
        (*records, *holes) = (fresh, 0);
        if places.len() < places.capacity() / 4 {
            places.shrink_to(2 * places.len(), |at| hash_at(state, records, *at));
        }
    }
}

/// The places of records in a row.
struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let at = self.at;
        (at < self.bytes.len()).then(|| {
            self.at += record_len(self.bytes, at);
            at
        })
    }
}

fn append(records: &mut Vec<u8>, filter: &str, options: FilterOptions) {
    let FilterOptions { qos, no_local, retain_as_published, subscription_id } = options;
    let mut flags = qos as u8;
    for (is_set, flag) in [
        (no_local, NO_LOCAL),
        (retain_as_published, RETAIN_AS_PUBLISHED),
        (subscription_id.is_some(), HAS_ID),
    ] {
        flags |= if is_set { flag } else { 0 };
    }
    // A text in MQTT has at most 65,535 bytes.
    let len = u16::try_from(filter.len()).unwrap_or(u16::MAX);
    let size = HEAD + ID + usize::from(len);
    if records.capacity() - records.len() < size {
        // Exactly so much for the first, then a little ahead; not doubled.
        let size = size - if subscription_id.is_none() { ID } else { 0 };
        records.reserve_exact(size + records.len() / 16);
    }
    records.extend_from_slice(&len.to_le_bytes());
    records.push(flags);
    records.extend(subscription_id.into_iter().flat_map(|id| id.get().to_le_bytes()));
    records.extend(filter.bytes().take(len.into()));
}

/// Length and flags of the record at this place.
fn head(records: &[u8], at: usize) -> (usize, u8) {
    match records.get(at..at + HEAD) {
        Some([low, high, flags]) => (usize::from(u16::from_le_bytes([*low, *high])), *flags),
        _ => (0, 0),
    }
}

fn text_at(records: &[u8], at: usize) -> usize {
    at + HEAD + if head(records, at).1 & HAS_ID == 0 { 0 } else { ID }
}

fn record_len(records: &[u8], at: usize) -> usize {
    text_at(records, at) - at + head(records, at).0
}

fn filter_at(records: &[u8], at: usize) -> &[u8] {
    let start = text_at(records, at);
    records.get(start..start + head(records, at).0).unwrap_or_default()
}

fn read(records: &[u8], at: usize) -> Option<(&[u8], FilterOptions)> {
    let (_, flags) = head(records, at);
    let id = records.get(at + HEAD..)?.first_chunk().filter(|_| flags & HAS_ID != 0);
    let options = FilterOptions {
        qos: match flags & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            _ => QoS::ExactlyOnce,
        },
        no_local: flags & NO_LOCAL != 0,
        retain_as_published: flags & RETAIN_AS_PUBLISHED != 0,
        subscription_id: id.and_then(|id| NonZeroU32::new(u32::from_le_bytes(*id))),
    };
    Some((filter_at(records, at), options))
}

fn find(records: &[u8], filter: &str) -> Option<usize> {
    Records { bytes: records, at: 0 }.find(|at| filter_at(records, *at) == filter.as_bytes())
}

/// What went in as text comes out as text.
fn text(filter: &[u8]) -> &str {
    std::str::from_utf8(filter).unwrap_or_default()
}

fn hash_at(state: &RandomState, records: &[u8], at: u32) -> u64 {
    hash(state, filter_at(records, at as usize))
}

fn hash(state: &RandomState, filter: &[u8]) -> u64 {
    let mut hasher = state.build_hasher();
    hasher.write(filter);
    hasher.finish()
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
            Form::Many(table) => table.records.capacity() + 5 * table.places.capacity(),
        }
    }

    #[test]
    fn takes_no_more_room_in_a_session_than_a_list() {
        assert_eq!(size_of::<Subscriptions>(), 24);
        let mut set = Subscriptions::default();
        set.set("plant/7", QoS::AtLeastOnce.into());
        assert_eq!(bytes_held(&set), HEAD + 7);
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
