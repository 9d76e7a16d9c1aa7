//! Who may have one connection more: bounds for each address (`limits.connections_per_address_max`, `limits.connect_rate_max`) and for each user
//! (`limits.connections_per_user_max`).
//!
//! A connection that was let in holds a slot, which gives its place back however the connection ends. Without those limits nothing is
//! counted. The tables hold those that have connections (bounded by `limits.connections_max`) and, for the rate, [`IDLE_MAX`] addresses that have
//! none any more.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ahash::RandomState;
use parking_lot::Mutex;

use super::bucket::Bucket;
use super::{Cause, Core};
use crate::escape::escape;
use crate::protocol::ReasonCode;
use crate::session::Timestamp;

/// Addresses without connection whose rate is remembered. When there are more, the half that was not heard of for longest is forgotten.
const IDLE_MAX: usize = 16_384;

/// Addresses and users with their connections.
#[derive(Default)]
pub(super) struct Admission {
    addresses: Mutex<Addresses>,
    users: Mutex<HashMap<Arc<str>, usize, RandomState>>,
}

#[derive(Default)]
struct Addresses {
    table: HashMap<u128, Address, RandomState>,
    /// How many of them have no connection.
    idle: usize,
}

struct Address {
    connections: usize,
    rate: Bucket,
}

/// A connection counted for its address; dropping it gives the place back.
pub(crate) struct AddressSlot {
    core: Arc<Core>,
    key: u128,
}

/// A connection counted for its user; dropping it gives the place back.
pub(crate) struct UserSlot {
    core: Arc<Core>,
    user: Arc<str>,
}

impl Core {
    /// Counts a connection for its address; `None` if no limit asks for it. A refusal is counted and told here.
    ///
    /// # Errors
    /// A limit bites: the connection is to be closed.
    pub(crate) fn admit_address(
        self: &Arc<Self>,
        address: IpAddr,
    ) -> Result<Option<Box<AddressSlot>>, Cause> {
        let limits = self.limits.now();
        if limits.connections_per_address_max.is_none() && limits.connect_rate_max.is_none() {
            return Ok(None);
        }
        let (key, now) = (network(address), self.now());
        let admitted = self.admission.addresses.lock().admit(
            key,
            limits.connections_per_address_max,
            limits.connect_rate_max,
            now,
        );
        match admitted {
            Ok(()) => Ok(Some(Box::new(AddressSlot { core: Arc::clone(self), key }))),
            Err(limit) => {
                if let Some(untold) = self.told.tell(limit, now) {
                    let value = limits.connections_per_address_max.filter(|_| limit == PER_ADDRESS);
                    tracing::warn!(
                        %address,
                        limit,
                        value = value.or(limits.connect_rate_max),
                        untold,
                        "connections of an address turned away; told every ten seconds at most"
                    );
                }
                Err(Cause::Limit { limit, code: ReasonCode::ConnectionRateExceeded })
            }
        }
    }

    /// Counts a connection for its user; `None` if no limit asks for it, or nobody has logged in. A client that takes over its own connection
    /// is let in: the older one ends.
    ///
    /// # Errors
    /// The user has `limits.connections_per_user_max` connections.
    pub(crate) fn admit_user(
        self: &Arc<Self>,
        user: Option<&Arc<str>>,
        client_id: &str,
    ) -> Result<Option<Box<UserSlot>>, Cause> {
        let (Some(max), Some(user)) = (self.limits.now().connections_per_user_max, user) else {
            return Ok(None);
        };
        let takes_over = self.is_connected_as(user, client_id);
        let mut users = self.admission.users.lock();
        let connections = users.get(user).copied().unwrap_or_default();
        if connections >= max && !takes_over {
            drop(users);
            if let Some(untold) = self.told.tell(PER_USER, self.now()) {
                tracing::warn!(
                    user_name = %escape(user),
                    limit = PER_USER,
                    value = max,
                    untold,
                    "connections of a user refused; told every ten seconds at most"
                );
            }
            return Err(Cause::Limit { limit: PER_USER, code: ReasonCode::QuotaExceeded });
        }
        users.insert(Arc::clone(user), connections + 1);
        drop(users);
        Ok(Some(Box::new(UserSlot { core: Arc::clone(self), user: Arc::clone(user) })))
    }

    fn is_connected_as(&self, user: &Arc<str>, client_id: &str) -> bool {
        let client = self.clients.get(client_id).map(|entry| Arc::clone(entry.value()));
        client.is_some_and(|client| client.user.as_ref() == Some(user) && client.lock().link.is_some())
    }
}

const PER_ADDRESS: &str = "limits.connections_per_address_max";
const RATE: &str = "limits.connect_rate_max";
const PER_USER: &str = "limits.connections_per_user_max";

impl Addresses {
    fn admit(
        &mut self,
        key: u128,
        connections_max: Option<usize>,
        rate_max: Option<usize>,
        now: Timestamp,
    ) -> Result<(), &'static str> {
        // Two seconds' worth may come at once.
        let rate = rate_max.unwrap_or(usize::MAX);
        let burst = rate.saturating_mul(2);
        let idle = &mut self.idle;
        let address = self.table.entry(key).or_insert_with(|| {
            *idle += 1;
            Address { connections: 0, rate: Bucket::full(burst, now) }
        });
        if connections_max.is_some_and(|max| address.connections >= max) {
            return Err(PER_ADDRESS);
        }
        if rate_max.is_some() && !address.rate.try_take(rate, burst, now) {
            return Err(RATE);
        }
        if address.connections == 0 {
            self.idle -= 1;
        }
        address.connections += 1;
        Ok(())
    }

    fn release(&mut self, key: u128, keeps_rate: bool) {
        let Some(address) = self.table.get_mut(&key) else { return };
        address.connections -= 1;
        if address.connections > 0 {
            return;
        }
        if keeps_rate {
            self.idle += 1;
        } else {
            self.table.remove(&key);
        }
        if self.idle > IDLE_MAX {
            self.forget_half();
        }
    }

    fn forget_half(&mut self) {
        let is_idle = |address: &Address| address.connections == 0;
        let mut times: Vec<Timestamp> =
            self.table.values().filter(|address| is_idle(address)).map(|address| address.rate.at()).collect();
        let half = times.len() / 2;
        let median = *times.select_nth_unstable(half).1;
        self.table.retain(|_, address| !is_idle(address) || address.rate.at() > median);
        self.idle = self.table.values().filter(|address| is_idle(address)).count();
    }
}

impl Drop for AddressSlot {
    fn drop(&mut self) {
        let keeps_rate = self.core.limits.now().connect_rate_max.is_some();
        self.core.admission.addresses.lock().release(self.key, keeps_rate);
    }
}

impl Drop for UserSlot {
    fn drop(&mut self) {
        let mut users = self.core.admission.users.lock();
        if let Some(connections) = users.get_mut(&self.user) {
            *connections -= 1;
            if *connections == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// What counts as one address: an IPv4 address, or the 64 bits of IPv6 that one subscriber of a network usually has to himself.
fn network(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Security;
    use crate::config::Limits;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff:ffff:ffff:ffff"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
        assert_ne!(of("0.0.0.0"), of("::1"));
    }

    #[test]
    fn addresses_are_counted_apart_and_places_given_back() {
        let mut addresses = Addresses::default();
        let admit = |addresses: &mut Addresses, key| addresses.admit(key, Some(2), None, at(0));
        assert_eq!((admit(&mut addresses, 1), admit(&mut addresses, 1)), (Ok(()), Ok(())));
        assert_eq!(admit(&mut addresses, 1), Err(PER_ADDRESS));
        assert_eq!(admit(&mut addresses, 2), Ok(()));
        addresses.release(1, false);
        assert_eq!((admit(&mut addresses, 1), admit(&mut addresses, 1)), (Ok(()), Err(PER_ADDRESS)));
        for key in [1, 1, 2] {
            addresses.release(key, false);
        }
        assert!(addresses.table.is_empty());
    }

    #[test]
    fn the_rate_is_remembered_when_the_connection_is_gone() {
        let mut addresses = Addresses::default();
        for _ in 0..4 {
            assert_eq!(addresses.admit(1, None, Some(2), at(0)), Ok(()));
            addresses.release(1, true);
        }
        assert_eq!(addresses.admit(1, None, Some(2), at(499)), Err(RATE));
        assert_eq!(addresses.admit(2, None, Some(2), at(499)), Ok(()));
        assert_eq!(addresses.admit(1, None, Some(2), at(500)), Ok(()));
    }

    #[test]
    fn of_idle_addresses_the_oldest_are_forgotten() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.admit(u128::MAX, None, Some(1), at(0)), Ok(()));
        for n in 0..200_000_u64 {
            assert_eq!(addresses.admit(n.into(), None, Some(1), at(n)), Ok(()));
            addresses.release(n.into(), true);
            assert!(addresses.table.len() <= IDLE_MAX + 2 && addresses.idle <= IDLE_MAX);
        }
        // One with a connection stays, whatever its age, and so do the latest.
        assert!(addresses.table.contains_key(&u128::MAX) && addresses.table.contains_key(&199_999));
        assert!(!addresses.table.contains_key(&0));
    }

    #[test]
    fn a_users_connections_are_counted_until_they_end() {
        let limits = Limits { connections_per_user_max: Some(2), ..Limits::default() };
        let core = Core::new(limits, Security::default());
        let (alice, bob): (Arc<str>, Arc<str>) = (Arc::from("alice"), Arc::from("bob"));
        let slots = [core.admit_user(Some(&alice), "a"), core.admit_user(Some(&alice), "b")];
        assert!(slots.iter().all(|slot| matches!(slot, Ok(Some(_)))));
        let refused = core.admit_user(Some(&alice), "c").err();
        let expected = Cause::Limit { limit: PER_USER, code: ReasonCode::QuotaExceeded };
        assert_eq!(refused, Some(expected));
        assert!(matches!(core.admit_user(Some(&bob), "c"), Ok(Some(_))));
        assert!(matches!(core.admit_user(None, "d"), Ok(None)));
        drop(slots);
        assert!(core.admission.users.lock().is_empty());
        assert!(matches!(core.admit_user(Some(&alice), "c"), Ok(Some(_))));
    }
}
