//! Who has failed to log in too often: pure counting, with the time passed in.
//!
//! Three counts, each over a window of time that begins with its first failure:
//! - *user at address*: after `failures_max` failures each further answer comes later than the one before (doubling), and after the longest
//!   delay this user is banned at this address. Others at the address are not touched, so one misconfigured device does not lock
//!   out the site behind the same NAT. A success takes the count back.
//! - *address*, whatever the users: the same with `address_failures_max`. Only failures that were checked count, so the
//!   device above, banned, adds nothing. A success takes nothing back: else whoever has one password could guess others for ever.
//! - *user*, whatever the address: after `user_failures_max` every attempt waits `user_delay` before it is checked, right or wrong (else no answer
//!   would be an answer). There is no ban: nobody can lock a user out from elsewhere. Addresses from which the user has logged in before
//!   do not wait.
//!
//! Failures count when they are known. How many attempts may be under way until then, the lanes beside it see to.
//!
//! What follows: a ban is over after `ban_time` at the latest, as refused attempts do not prolong it; an attacker has `failures_max` and a few more guesses
//! per user, address and `ban_time`. Against many thousand addresses only good passwords help.
//!
//! Names that do not exist are counted like others. Addresses are counted by [`AddressGroup`]. Names are kept as a keyed hash. Each table has at most
//! `entries_max` entries; the one that would be over soonest goes first.

mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use self::table::Table;

/// An address as far as one peer cannot change it at will: all of an IPv4 address, the first 64 bits of an IPv6 one. An IPv4 address in
/// IPv6's clothes (`::ffff:192.0.2.1`) is the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressGroup {
    /// One IPv4 address.
    V4([u8; 4]),
    /// A network of IPv6, prefix length 64.
    V6([u8; 8]),
}

impl AddressGroup {
    /// The group of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// How much is too much. A maximum of 0 turns its count off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Failures of a user at an address that have no consequence.
    pub failures_max: u32,
    /// Failures at an address that have no consequence.
    pub address_failures_max: u32,
    /// Failures of a user at all addresses that have no consequence.
    pub user_failures_max: u32,
    /// For how long failures are counted, from the first one on.
    pub window: Duration,
    /// How late the answer to the first failure above a maximum comes.
    pub delay_min: Duration,
    /// The longest delay; the failure after it brings the ban.
    pub delay_max: Duration,
    /// How long an attempt for a user waits who is attacked from many addresses.
    pub user_delay: Duration,
    /// How long a ban lasts.
    pub ban_time: Duration,
    /// Most entries of each table; some 100 bytes each.
    pub entries_max: usize,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        Self {
            failures_max: 10,
            address_failures_max: 50,
            user_failures_max: 100,
            window: Duration::from_secs(600),
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(16),
            user_delay: Duration::from_secs(4),
            ban_time: Duration::from_secs(600),
            entries_max: 10_000,
        }
    }
}

/// What is banned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Banned {
    /// Every user at the address.
    Address,
    /// The user at the address.
    UserAtAddress,
}

impl Banned {
    /// As a label of metrics and in the log.
    pub fn name(self) -> &'static str {
        match self {
            Banned::Address => "address",
            Banned::UserAtAddress => "user_at_address",
        }
    }
}

/// What is to be done with an attempt, before the password is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Check it, after this time (most often zero).
    Check {
        /// How long to wait before the check.
        after: Duration,
    },
    /// Refuse it unchecked, and do not report it as a failure.
    Refuse {
        /// What is banned.
        banned: Banned,
        /// For how long still.
        remaining: Duration,
    },
}

/// What follows from a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// How late the answer is to be sent.
    pub delay: Duration,
    /// The ban that begins with it, for [`ThrottleLimits::ban_time`]: the moment for a line in the log.
    pub banned: Option<Banned>,
}

/// Counted since the start, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThrottleCounts {
    /// Failures reported.
    pub failures: u64,
    /// Of these, answered late.
    pub delayed: u64,
    /// Attempts that had to wait because of attacks on the user.
    pub slowed: u64,
    /// Attempts refused because of a ban.
    pub refused: u64,
    /// Bans of addresses that have begun.
    pub address_bans: u64,
    /// Bans of users at addresses that have begun.
    pub user_bans: u64,
    /// Bans in force at the last call.
    pub banned_now: u64,
    /// Entries that went before their time because a table was full.
    pub evicted: u64,
}

/// So many checks may be under way together in any case: with fewer, whoever fails would slow down others at the address.
pub(super) const PLACES_MIN: usize = 4;

/// Under what an attempt is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ThrottleKeys {
    pub(super) address: AddressGroup,
    user: u64,
}

/// How long a success of a user at an address is remembered.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// The counts. Times are those of any clock that only goes forward, since any moment; one that is earlier than the last counts as the last.
#[derive(Debug)]
pub struct Throttle {
    limits: ThrottleLimits,
    names: ahash::RandomState,
    now: Duration,
    pairs: Table<(u64, AddressGroup)>,
    addresses: Table<AddressGroup>,
    users: Table<u64>,
    /// Users at addresses that have logged in.
    known: Table<(u64, AddressGroup)>,
    counts: ThrottleCounts,
}

impl Throttle {
    /// Nothing has failed yet.
    pub fn new(limits: ThrottleLimits) -> Self {
        let table_len_max = limits.entries_max;
        Self {
            limits,
            names: ahash::RandomState::new(),
            now: Duration::ZERO,
            pairs: Table::new(table_len_max),
            addresses: Table::new(table_len_max),
            users: Table::new(table_len_max),
            known: Table::new(table_len_max),
            counts: ThrottleCounts::default(),
        }
    }

    /// Other limits for what is counted from now on. Bans in force last as long as they were meant to, and tables stay as large as they may be.
    pub fn set_limits(&mut self, limits: ThrottleLimits) {
        self.limits = ThrottleLimits { entries_max: self.limits.entries_max, ..limits };
    }

    /// Under what an attempt is counted.
    pub(super) fn keys(&self, address: IpAddr, user: &str) -> ThrottleKeys {
        ThrottleKeys { address: AddressGroup::of(address), user: self.names.hash_one(user) }
    }

    /// How many checks of a user at an address may be under way together: as many as may still fail.
    pub(super) fn places(&self, keys: ThrottleKeys) -> usize {
        if self.addresses.banned_until(&keys.address).is_some() {
            return usize::MAX;
        }
        places(&self.pairs, &(keys.user, keys.address), self.limits.failures_max)
    }

    /// The same for an address, whatever the users.
    pub(super) fn places_of_address(&self, address: AddressGroup) -> usize {
        places(&self.addresses, &address, self.limits.address_failures_max)
    }

    /// Whether a ban has begun since an attempt was admitted, that is refused unchecked then.
    pub(super) fn admit_again(&mut self, now: Duration, address: IpAddr, user: &str) -> Admission {
        let (address, user) = self.begin(now, address, user);
        self.refusal(address, user).unwrap_or(Admission::Check { after: Duration::ZERO })
    }

    /// What is to be done with an attempt of `user` (the empty name if there is none) at `address`.
    pub fn admit(&mut self, now: Duration, address: IpAddr, user: &str) -> Admission {
        let (address, user) = self.begin(now, address, user);
        if let Some(refused) = self.refusal(address, user) {
            return refused;
        }
        let failures_max = self.limits.user_failures_max;
        let is_attacked = failures_max > 0 && self.users.failures(&user) > failures_max;
        if !is_attacked || self.known.contains(&(user, address)) {
            return Admission::Check { after: Duration::ZERO };
        }
        self.counts.slowed += 1;
        Admission::Check { after: self.limits.user_delay }
    }

    fn refusal(&mut self, address: AddressGroup, user: u64) -> Option<Admission> {
        let address_ban = self.addresses.banned_until(&address).map(|until| (Banned::Address, until));
        let pair_ban = self.pairs.banned_until(&(user, address)).map(|until| (Banned::UserAtAddress, until));
        let (banned, until) = address_ban.or(pair_ban)?;
        self.counts.refused += 1;
        Some(Admission::Refuse { banned, remaining: until.saturating_sub(self.now) })
    }

    /// An attempt that was admitted had the wrong password, or there is no such user.
    pub fn failed(&mut self, now: Duration, address: IpAddr, user: &str) -> Failure {
        let (address, user) = self.begin(now, address, user);
        self.counts.failures += 1;
        let limits = self.limits;
        if limits.user_failures_max > 0 {
            self.users.count(user, self.now, limits.window);
        }
        // Attempts that were under way together may fail after the ban has begun; they neither prolong it nor begin another.
        let pair = count(&mut self.pairs, (user, address), self.now, limits.failures_max, &limits);
        let site = count(&mut self.addresses, address, self.now, limits.address_failures_max, &limits);
        self.counts.user_bans += u64::from(pair.is_new_ban);
        self.counts.address_bans += u64::from(site.is_new_ban);
        let delay = pair.delay.max(site.delay);
        self.counts.delayed += u64::from(!delay.is_zero());
        let banned = if site.is_new_ban {
            Some(Banned::Address)
        } else {
            pair.is_new_ban.then_some(Banned::UserAtAddress)
        };
        self.note_tables();
        Failure { delay, banned }
    }

    /// An attempt that was admitted had the right password.
    pub fn succeeded(&mut self, now: Duration, address: IpAddr, user: &str) {
        let (address, user) = self.begin(now, address, user);
        // A ban that began while the check was under way stays: the address may be shared with the attacker, the guess be right.
        self.pairs.forgive(&(user, address));
        self.known.remember((user, address), self.now.saturating_add(KNOWN_FOR));
        self.note_tables();
    }

    /// The counts so far.
    pub fn counts(&self) -> ThrottleCounts {
        self.counts
    }

    /// Moves time on, forgets what is over, and gives the keys.
    fn begin(&mut self, now: Duration, address: IpAddr, user: &str) -> (AddressGroup, u64) {
        self.now = self.now.max(now);
        self.pairs.expire(self.now);
        self.addresses.expire(self.now);
        self.users.expire(self.now);
        self.known.expire(self.now);
        self.note_tables();
        (AddressGroup::of(address), self.names.hash_one(user))
    }

    fn note_tables(&mut self) {
        self.counts.banned_now = (self.pairs.bans() + self.addresses.bans()) as u64;
        self.counts.evicted =
            self.pairs.evicted() + self.addresses.evicted() + self.users.evicted() + self.known.evicted();
    }
}

/// How many checks that are counted under `key` may be under way together.
fn places<K: Copy + Eq + std::hash::Hash>(table: &Table<K>, key: &K, failures_max: u32) -> usize {
    if failures_max == 0 || table.banned_until(key).is_some() {
        return usize::MAX;
    }
    let left = failures_max.saturating_sub(table.failures(key));
    usize::try_from(left).unwrap_or(usize::MAX).max(PLACES_MIN)
}

/// What a count makes of a failure.
struct Counted {
    delay: Duration,
    is_new_ban: bool,
}

/// Counts a failure under `key` and says what follows.
fn count<K: Copy + Eq + std::hash::Hash>(
    table: &mut Table<K>,
    key: K,
    now: Duration,
    failures_max: u32,
    limits: &ThrottleLimits,
) -> Counted {
    if failures_max == 0 {
        return Counted { delay: Duration::ZERO, is_new_ban: false };
    }
    if table.banned_until(&key).is_some() {
        return Counted { delay: limits.delay_max, is_new_ban: false };
    }
    let failures = table.count(key, now, limits.window);
    match delay(failures.saturating_sub(failures_max), limits) {
        Some(delay) => Counted { delay, is_new_ban: false },
        None => {
            table.ban(key, now.saturating_add(limits.ban_time));
            Counted { delay: limits.delay_max, is_new_ban: true }
        }
    }
}

/// The delay of the answer to the failure that is `excess` above the maximum; `None` when it is time for a ban.
fn delay(excess: u32, limits: &ThrottleLimits) -> Option<Duration> {
    let Some(doublings) = excess.checked_sub(1) else { return Some(Duration::ZERO) };
    // Without a shortest delay the doubling would never end.
    let shortest = limits.delay_min.max(Duration::from_millis(1));
    let delay = 2_u32.checked_pow(doublings).and_then(|factor| shortest.checked_mul(factor))?;
    (delay <= limits.delay_max).then_some(delay)
}
