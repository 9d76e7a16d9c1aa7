//! `Accounts`: what clients make the broker hold in memory, by what it is for, and the bound on all
//! of it together (`limits.memory_max`).
//!
//! Whatever a peer can make grow stands in one of these accounts. A value that is held carries a
//! [`Charge`], which gives back what it was charged with when it is dropped, or it is settled by
//! its owner ([`Accounts::add`]). Nothing in here decides what is to be given up: that is
//! `broker::memory`.
//!
//! Two numbers are kept per change, that of the account and the sum, so that looking at the sum at
//! the end of a turn is one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// What memory is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// Queues and unwritten output of all clients, without the bodies that [`Bodies`](Self::Bodies) has.
    Waiting,
    /// Bodies that may have several holders, each once.
    Bodies,
    /// Bodies on their way to clients that may have to be sent again, without those that
    /// [`Bodies`](Self::Bodies) has.
    InFlight,
    /// Answers that wait for the durable log.
    Answers,
    /// Wills.
    Wills,
    /// Topics that numbers stand for, in both directions.
    Aliases,
    /// Filters of all sessions, in the session and in the router, and groups of shared ones.
    Subscriptions,
    /// What each session takes by itself, with its client id and user name.
    Sessions,
    /// The same of sessions and groups that have ended, while somebody still keeps them among the
    /// receivers of a topic; and client ids whose last session's end, or will, is on its way.
    Ended,
    /// Packets that have not come as a whole.
    Unfinished,
    /// CONNECTs that are not answered yet.
    Handshakes,
    /// Retained messages.
    Retained,
    /// Receivers that connections have found for the topics they publish to, and the topics.
    Routes,
}

impl Account {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 13] = [
        Self::Waiting,
        Self::Bodies,
        Self::InFlight,
        Self::Answers,
        Self::Wills,
        Self::Aliases,
        Self::Subscriptions,
        Self::Sessions,
        Self::Ended,
        Self::Unfinished,
        Self::Handshakes,
        Self::Retained,
        Self::Routes,
    ];

    /// Its name among the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Bodies => "bodies",
            Self::InFlight => "in_flight",
            Self::Answers => "answers",
            Self::Wills => "wills",
            Self::Aliases => "aliases",
            Self::Subscriptions => "subscriptions",
            Self::Sessions => "sessions",
            Self::Ended => "ended",
            Self::Unfinished => "unfinished",
            Self::Handshakes => "handshakes",
            Self::Retained => "retained",
            Self::Routes => "routes",
        }
    }
}

/// Accounts of what stays for as long as its client wants: nothing of it can be given up for
/// others, so it has a part of its own.
const LASTING: [Account; 4] = [Account::Wills, Account::Aliases, Account::Subscriptions, Account::Sessions];

/// The part of the whole that [`LASTING`] accounts may fill together.
const LASTING_PART: usize = 4;

/// Whether what lasts has to fit into its part of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It is new.
    Needed,
    /// It is new, and takes the place of what gives so many bytes back when that has ended.
    InPlaceOf(usize),
    /// It was there when the broker stopped: it is kept, whatever the bound is today.
    Given,
}

/// The part of the whole that routes may fill: who has no room finds them anew for each message.
const ROUTES_PART: usize = 16;

/// Above this part of the whole nothing is read back before it can be sent.
const READ_AHEAD_PART: usize = 2;

/// See the module's documentation.
#[derive(Debug)]
pub struct Accounts {
    bytes: [AtomicI64; Account::ALL.len()],
    total: AtomicI64,
    /// `usize::MAX`: there is no bound.
    max: AtomicUsize,
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Accounts {
    /// Nothing is held yet. `max`: `limits.memory_max`; `None`: there is no bound.
    pub fn new(max: Option<usize>) -> Self {
        let max = AtomicUsize::new(max.unwrap_or(usize::MAX));
        Self { bytes: Default::default(), total: AtomicI64::new(0), max }
    }

    /// Another bound.
    pub fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// The bound; `usize::MAX`: there is none.
    pub fn max(&self) -> usize {
        self.max.load(Ordering::Relaxed)
    }

    /// Bytes of one account.
    pub fn of(&self, account: Account) -> usize {
        usize::try_from(self.place(account).load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Bytes of all accounts together.
    pub fn total(&self) -> usize {
        usize::try_from(self.total.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether all accounts together are above the bound.
    pub fn is_over(&self) -> bool {
        self.total() > self.max()
    }

    /// Whether there is room to read messages back from the disk before they can be sent: a part of
    /// the bound that is below what shedding leaves, so that what has left memory stays away.
    pub fn may_read_ahead(&self) -> bool {
        self.total() <= self.max() / READ_AHEAD_PART
    }

    /// So many bytes more are held, or fewer.
    pub fn add(&self, account: Account, bytes: i64) {
        if bytes != 0 {
            self.place(account).fetch_add(bytes, Ordering::Relaxed);
            self.total.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Takes so many bytes more for what lasts, if that part of the bound has room; `false`, and
    /// nothing is taken, if not.
    #[must_use]
    pub fn add_lasting(&self, account: Account, bytes: usize) -> bool {
        self.take_lasting(account, bytes, Room::Needed)
    }

    /// The same where something else may give room.
    #[must_use]
    pub fn take_lasting(&self, account: Account, bytes: usize, room: Room) -> bool {
        self.add(account, signed(bytes));
        let fits = match room {
            Room::Needed => self.has_room_for_lasting(0),
            Room::InPlaceOf(other) => self.lasting().saturating_sub(other) <= self.max() / LASTING_PART,
            Room::Given => true,
        };
        if !fits {
            self.add(account, -signed(bytes));
        }
        fits
    }

    /// Whether that part of the bound has room for so many bytes more.
    pub fn has_room_for_lasting(&self, bytes: usize) -> bool {
        self.lasting().saturating_add(bytes) <= self.max() / LASTING_PART
    }

    fn lasting(&self) -> usize {
        LASTING.into_iter().map(|account| self.of(account)).sum()
    }

    fn place(&self, account: Account) -> &AtomicI64 {
        // There is one place for each.
        let [first, ..] = &self.bytes;
        self.bytes.get(account as usize).unwrap_or(first)
    }
}

/// Bytes as a change of an account.
pub fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What one holder is charged with; given back when it is dropped.
#[derive(Debug)]
pub struct Charge {
    accounts: Arc<Accounts>,
    account: Account,
    bytes: usize,
}

impl Charge {
    /// Charges so many bytes, whatever the bound.
    pub fn new(accounts: &Arc<Accounts>, account: Account, bytes: usize) -> Self {
        accounts.add(account, signed(bytes));
        Self { accounts: Arc::clone(accounts), account, bytes }
    }

    /// The same for what lasts; `None` if that part of the bound has no room.
    pub fn lasting(accounts: &Arc<Accounts>, account: Account, bytes: usize) -> Option<Self> {
        Self::lasting_in(accounts, account, bytes, Room::Needed)
    }

    /// The same where something else may give room.
    pub fn lasting_in(accounts: &Arc<Accounts>, account: Account, bytes: usize, room: Room) -> Option<Self> {
        let fits = accounts.take_lasting(account, bytes, room);
        fits.then(|| Self { accounts: Arc::clone(accounts), account, bytes })
    }

    /// The holder, who keeps routes, wants to keep so many bytes of them; `false`, and nothing has
    /// changed, if these are more than before and their part of the bound has no room.
    #[must_use]
    pub fn set_routes(&mut self, bytes: usize) -> bool {
        let before = self.bytes;
        self.set(bytes);
        let fits = bytes <= before || self.accounts.of(self.account) <= self.accounts.max() / ROUTES_PART;
        if !fits {
            self.set(before);
        }
        fits
    }

    /// Bytes charged.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The same bytes are held for something else from now on.
    pub fn move_to(&mut self, account: Account) {
        self.accounts.add(account, signed(self.bytes));
        self.accounts.add(self.account, -signed(self.bytes));
        self.account = account;
    }

    /// The holder holds so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        self.accounts.add(self.account, signed(bytes) - signed(self.bytes));
        self.bytes = bytes;
    }

    /// The same in steps of [`STEP`], for what changes with each packet: below one step nothing is
    /// charged, and no counter is touched.
    pub fn follow(&mut self, bytes: usize) {
        let bytes = bytes / STEP * STEP;
        if bytes != self.bytes {
            self.set(bytes);
        }
    }

    /// The holder wants to hold so many bytes more for as long as it likes; `false` if that part of
    /// the bound has no room.
    #[must_use]
    pub fn grow_lasting(&mut self, bytes: usize) -> bool {
        let fits = self.accounts.add_lasting(self.account, bytes);
        if fits {
            self.bytes += bytes;
        }
        fits
    }

    /// So many of them are given back.
    pub fn shrink(&mut self, bytes: usize) {
        self.set(self.bytes.saturating_sub(bytes));
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.accounts.add(self.account, -signed(self.bytes));
    }
}

/// What changes with each packet is charged in steps of this many bytes, and each client holds less
/// than one step uncharged.
pub const STEP: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_in_its_account_and_in_the_sum_until_it_is_dropped() {
        let accounts = Arc::new(Accounts::new(Some(1_000)));
        let mut will = Charge::new(&accounts, Account::Wills, 100);
        let retained = Charge::new(&accounts, Account::Retained, 950);
        assert_eq!((accounts.of(Account::Wills), accounts.of(Account::Retained)), (100, 950));
        assert!(accounts.total() == 1_050 && accounts.is_over());
        will.shrink(60);
        assert_eq!((will.bytes(), accounts.of(Account::Wills), accounts.total()), (40, 40, 990));
        assert!(!accounts.is_over());
        drop(retained);
        drop(will);
        assert!(accounts.total() == 0 && Account::ALL.iter().all(|account| accounts.of(*account) == 0));
    }

    #[test]
    fn what_lasts_has_a_quarter_for_all_of_it() {
        let accounts = Arc::new(Accounts::new(Some(1_000)));
        let will = Charge::lasting(&accounts, Account::Wills, 200).expect("room");
        let mut alias = Charge::lasting(&accounts, Account::Aliases, 0).expect("room");
        assert!(alias.grow_lasting(50));
        assert!(!alias.grow_lasting(1) && !accounts.add_lasting(Account::Subscriptions, 1));
        assert!(Charge::lasting(&accounts, Account::Wills, 1).is_none());
        assert_eq!(accounts.total(), 250);
        let kept = Charge::lasting_in(&accounts, Account::Sessions, 30, Room::Given).expect("it was there");
        assert_eq!((accounts.of(Account::Sessions), accounts.total()), (30, 280));
        assert!(Charge::lasting_in(&accounts, Account::Sessions, 1, Room::Needed).is_none());
        let new = |other| Charge::lasting_in(&accounts, Account::Sessions, 31, Room::InPlaceOf(other));
        assert!(new(60).is_none() && new(61).is_some());
        drop((will, kept));
        assert!(accounts.add_lasting(Account::Subscriptions, 200));
        accounts.set_max(None);
        assert!(accounts.add_lasting(Account::Subscriptions, usize::MAX / 8));
    }

    #[test]
    fn routes_have_a_sixteenth_for_all_of_them() {
        let accounts = Arc::new(Accounts::new(Some(1_600)));
        let [mut first, mut second] = [0; 2].map(|bytes| Charge::new(&accounts, Account::Routes, bytes));
        assert!(first.set_routes(60) && second.set_routes(40) && !second.set_routes(41));
        assert_eq!((second.bytes(), accounts.of(Account::Routes), accounts.total()), (40, 100, 100));
        accounts.set_max(Some(160));
        assert!(first.set_routes(50) && !first.set_routes(51), "less is always possible");
        accounts.set_max(None);
        assert!(first.set_routes(usize::MAX / 32));
        drop((first, second));
        assert_eq!(accounts.total(), 0);
    }

    #[test]
    fn nothing_is_read_ahead_above_half_of_the_bound() {
        let accounts = Accounts::new(Some(1_000));
        accounts.add(Account::Waiting, 500);
        assert!(accounts.may_read_ahead());
        accounts.add(Account::Bodies, 1);
        assert!(!accounts.may_read_ahead());
        accounts.set_max(None);
        assert!(accounts.may_read_ahead());
    }

    #[test]
    fn what_changes_often_is_charged_in_steps() {
        let accounts = Arc::new(Accounts::default());
        let mut answers = Charge::new(&accounts, Account::Answers, 0);
        for (bytes, charged) in [(1, 0), (STEP - 1, 0), (STEP, STEP), (3 * STEP - 1, 2 * STEP), (STEP - 1, 0)]
        {
            answers.follow(bytes);
            assert_eq!(accounts.of(Account::Answers), charged, "{bytes}");
        }
    }

    #[test]
    fn each_account_has_a_name_and_a_place_of_its_own() {
        let accounts = Accounts::default();
        for (n, account) in Account::ALL.into_iter().enumerate() {
            accounts.add(account, n as i64 + 1);
        }
        let bytes: Vec<usize> = Account::ALL.into_iter().map(|account| accounts.of(account)).collect();
        assert_eq!(bytes, (1..=Account::ALL.len()).collect::<Vec<_>>());
        let mut names: Vec<&str> = Account::ALL.into_iter().map(Account::label).collect();
        names.dedup();
        assert_eq!(names.len(), Account::ALL.len());
    }
}
