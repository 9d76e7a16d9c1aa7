//! `Stragglers`: unfinished deliveries that a client has left behind thousands of later ones, found by id and by age.
//!
//! There can be as many as the in-flight window allows, which is 65,535 if so configured: looking one up must not walk through all.

use std::collections::BTreeMap;

use super::inflight::Delivery;
use crate::protocol::PacketId;

/// See the module's documentation. Without memory while there are none.
#[derive(Debug, Default)]
pub(super) struct Stragglers(Option<Box<Maps>>);

#[derive(Debug, Default)]
struct Maps {
    by_position: BTreeMap<u64, (PacketId, Delivery)>,
    positions: BTreeMap<PacketId, u64>,
}

impl Stragglers {
    pub(super) fn insert(&mut self, position: u64, id: PacketId, delivery: Delivery) {
        let maps = self.0.get_or_insert_default();
        maps.by_position.insert(position, (id, delivery));
        maps.positions.insert(id, position);
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |maps| maps.positions.len())
    }

    pub(super) fn contains(&self, id: PacketId) -> bool {
        self.0.as_ref().is_some_and(|maps| maps.positions.contains_key(&id))
    }

    /// Where the delivery with this id stands.
    pub(super) fn position(&self, id: PacketId) -> Option<u64> {
        self.0.as_ref()?.positions.get(&id).copied()
    }

    /// Behind the last of them; 0 if there is none.
    pub(super) fn end(&self) -> u64 {
        let last = self.0.as_ref().and_then(|maps| maps.by_position.last_key_value());
        last.map_or(0, |(position, _)| position + 1)
    }

    pub(super) fn get_mut(&mut self, id: PacketId) -> Option<&mut Delivery> {
        let maps = self.0.as_mut()?;
        let position = maps.positions.get(&id)?;
        maps.by_position.get_mut(position).map(|(_, delivery)| delivery)
    }

    pub(super) fn remove(&mut self, id: PacketId) {
        let Some(maps) = &mut self.0 else { return };
        if let Some(position) = maps.positions.remove(&id) {
            maps.by_position.remove(&position);
        }
        if maps.positions.is_empty() {
            self.0 = None;
        }
    }

    /// All of them, oldest first, to be changed; those for which `finished` holds afterwards are removed.
    pub(super) fn change_all(
        &mut self,
        mut change: impl FnMut(u64, PacketId, &mut Delivery),
        finished: impl Fn(&Delivery) -> bool,
    ) {
        let Some(maps) = &mut self.0 else { return };
        let positions = &mut maps.positions;
        maps.by_position.retain(|position, (id, delivery)| {
            change(*position, *id, delivery);
            let done = finished(delivery);
            if done {
                positions.remove(id);
            }
            !done
        });
        if maps.positions.is_empty() {
            self.0 = None;
        }
    }

    /// The oldest from a position on.
    pub(super) fn next(&self, from: u64) -> Option<(u64, PacketId, &Delivery)> {
        let maps = self.0.as_ref()?;
        maps.by_position.range(from..).next().map(|(position, (id, delivery))| (*position, *id, delivery))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}
