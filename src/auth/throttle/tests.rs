//! Throttling on virtual time.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const NOW: Admission = Admission::Check { after: Duration::ZERO };

fn limits() -> ThrottleLimits {
    ThrottleLimits {
        failures_max: 3,
        address_failures_max: 12,
        user_failures_max: 20,
        window: 100 * SECOND,
        delay_min: SECOND,
        delay_max: 4 * SECOND,
        user_delay: 2 * SECOND,
        ban_time: 200 * SECOND,
        entries_max: 1_000,
    }
}

/// Failures of one pair up to its ban under [`limits`]: three without consequence, three delayed, and one more.
const FAILURES_TO_BAN: usize = 7;

fn v4(n: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, n))
}

fn v6(network: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host))
}

fn refused(banned: Banned, seconds: u32) -> Admission {
    Admission::Refuse { banned, remaining: seconds * SECOND }
}

/// Fails until this user is banned at this address.
fn ban(throttle: &mut Throttle, now: Duration, address: IpAddr, user: &str) {
    let bans: Vec<_> =
        (0..FAILURES_TO_BAN).filter_map(|_| throttle.failed(now, address, user).banned).collect();
    assert_eq!(bans, [Banned::UserAtAddress]);
}

#[test]
fn delays_double_and_then_comes_the_ban() {
    let mut throttle = Throttle::new(limits());
    let mut delays = Vec::new();
    for n in 0..FAILURES_TO_BAN {
        assert_eq!(throttle.admit(SECOND, v4(1), "ada"), NOW);
        let failure = throttle.failed(SECOND, v4(1), "ada");
        assert_eq!(failure.banned, (n == FAILURES_TO_BAN - 1).then_some(Banned::UserAtAddress));
        delays.push(failure.delay.as_secs());
    }
    assert_eq!(delays, [0, 0, 0, 1, 2, 4, 4]);
    assert_eq!(throttle.admit(SECOND, v4(1), "ada"), refused(Banned::UserAtAddress, 200));
    // Others at the address, and the user elsewhere, are not touched.
    assert_eq!(throttle.admit(SECOND, v4(1), "bob"), NOW);
    assert_eq!(throttle.admit(SECOND, v4(2), "ada"), NOW);
    // Attempts meanwhile do not prolong it, nor failures of checks that were under way.
    assert_eq!(throttle.admit(150 * SECOND, v4(1), "ada"), refused(Banned::UserAtAddress, 51));
    let late = throttle.failed(150 * SECOND, v4(1), "ada");
    assert_eq!(late, Failure { delay: 4 * SECOND, banned: None });
    assert_eq!(throttle.counts().banned_now, 1);
    // Then everything begins anew.
    assert_eq!(throttle.admit(201 * SECOND, v4(1), "ada"), NOW);
    assert_eq!(throttle.failed(201 * SECOND, v4(1), "ada"), Failure { delay: Duration::ZERO, banned: None });
    let counts = throttle.counts();
    let expected =
        ThrottleCounts { failures: 9, delayed: 5, refused: 2, user_bans: 1, ..ThrottleCounts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn a_success_takes_back_what_the_user_did_here_only() {
    let mut throttle = Throttle::new(limits());
    for _ in 0..100 {
        assert_eq!(throttle.failed(SECOND, v4(1), "bob").banned, None);
        throttle.succeeded(SECOND, v4(2), "bob");
        throttle.succeeded(SECOND, v4(1), "bob");
        if throttle.failed(SECOND, v4(1), "ada").banned.is_some() {
            break;
        }
    }
    // Elsewhere, and for others, it counts as before.
    assert_eq!(throttle.admit(SECOND, v4(1), "ada"), refused(Banned::UserAtAddress, 200));
    assert_eq!(throttle.admit(SECOND, v4(1), "bob"), NOW);
}

#[test]
fn who_has_one_password_cannot_guess_others_for_ever() {
    let mut throttle = Throttle::new(limits());
    let mut guesses = 0;
    while guesses < 1_000 && throttle.admit(SECOND, v4(1), &format!("user-{guesses}")) == NOW {
        throttle.failed(SECOND, v4(1), &format!("user-{guesses}"));
        throttle.succeeded(SECOND, v4(1), "own");
        guesses += 1;
    }
    // Twelve for nothing, three late ones, and the last.
    assert_eq!(guesses, 16);
    assert_eq!(throttle.admit(SECOND, v4(1), "own"), refused(Banned::Address, 200));
    assert_eq!(throttle.counts().address_bans, 1);
}

#[test]
fn one_misconfigured_device_does_not_lock_out_its_site() {
    let mut throttle = Throttle::new(limits());
    for second in 0..10_000 {
        let now = second * SECOND;
        if let Admission::Check { .. } = throttle.admit(now, v4(1), "old device") {
            throttle.failed(now, v4(1), "old device");
        }
        assert_eq!(throttle.admit(now, v4(1), "new device"), NOW, "second {second}");
    }
    assert_eq!(throttle.counts().address_bans, 0);
    assert!(throttle.counts().user_bans > 40);
}

#[test]
fn failures_count_within_a_window() {
    let mut throttle = Throttle::new(limits());
    // Three in each window, for long.
    for second in (0..10_000).step_by(34) {
        let failure = throttle.failed(second * SECOND, v4(1), "ada");
        assert_eq!(failure, Failure { delay: Duration::ZERO, banned: None }, "second {second}");
    }
}

#[test]
fn a_user_under_attack_waits_but_gets_in() {
    let mut throttle = Throttle::new(limits());
    throttle.succeeded(SECOND, v4(200), "ada");
    for n in 0..21 {
        assert_eq!(throttle.admit(SECOND, v4(201), "ada"), NOW);
        throttle.failed(SECOND, v4(n), "ada");
    }
    let slowed = Admission::Check { after: 2 * SECOND };
    assert_eq!(throttle.admit(SECOND, v4(201), "ada"), slowed);
    // Where the user has been before, nothing changes; nor for other users.
    assert_eq!(throttle.admit(SECOND, v4(200), "ada"), NOW);
    assert_eq!(throttle.admit(SECOND, v4(201), "bob"), NOW);
    throttle.succeeded(SECOND, v4(201), "ada");
    assert_eq!(throttle.admit(SECOND, v4(201), "ada"), NOW);
    assert_eq!(throttle.admit(SECOND, v4(202), "ada"), slowed);
    // The attack is over for as long as the window is.
    assert_eq!(throttle.admit(101 * SECOND, v4(202), "ada"), NOW);
    assert_eq!(throttle.counts().slowed, 2);
}

#[test]
fn an_ipv6_network_is_one_peer() {
    let mut throttle = Throttle::new(limits());
    for host in 0..FAILURES_TO_BAN {
        throttle.failed(SECOND, v6(1, u16::try_from(host).expect("small")), "ada");
    }
    assert_eq!(throttle.admit(SECOND, v6(1, 999), "ada"), refused(Banned::UserAtAddress, 200));
    assert_eq!(throttle.admit(SECOND, v6(2, 0), "ada"), NOW);
    let mapped = IpAddr::V6(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped());
    assert_eq!(AddressGroup::of(mapped), AddressGroup::of(v4(1)));
    assert_ne!(AddressGroup::of(v4(2)), AddressGroup::of(v4(1)));
}

#[test]
fn a_maximum_of_zero_turns_its_count_off() {
    let off = ThrottleLimits { failures_max: 0, address_failures_max: 0, user_failures_max: 0, ..limits() };
    let mut throttle = Throttle::new(off);
    for _ in 0..1_000 {
        assert_eq!(throttle.failed(SECOND, v4(1), "ada"), Failure { delay: Duration::ZERO, banned: None });
        assert_eq!(throttle.admit(SECOND, v4(1), "ada"), NOW);
    }
}

#[test]
fn odd_limits_end_in_a_ban_all_the_same() {
    for (delay_min, delay_max) in [(0, 0), (5, 1), (0, 1_000_000), (1, u64::MAX)] {
        let limits = ThrottleLimits {
            delay_min: Duration::from_secs(delay_min),
            delay_max: Duration::from_secs(delay_max),
            ..limits()
        };
        let mut throttle = Throttle::new(limits);
        let is_banned = (0..80).any(|_| throttle.failed(SECOND, v4(1), "ada").banned.is_some());
        assert!(is_banned, "{delay_min} {delay_max}");
    }
}

#[test]
fn a_full_table_forgets_what_is_over_soonest() {
    let mut throttle = Throttle::new(ThrottleLimits { entries_max: 4, ..limits() });
    ban(&mut throttle, SECOND, v4(100), "ada");
    for n in 0..50 {
        throttle.failed(2 * SECOND, v4(n), "bob");
        assert!(throttle.pairs.len() <= 4 && throttle.addresses.len() <= 4);
    }
    // A ban is over later than a count that began with it.
    assert_eq!(throttle.admit(2 * SECOND, v4(100), "ada"), refused(Banned::UserAtAddress, 199));
    assert_eq!(throttle.counts().evicted, 47 + 47);
    // All is forgotten in time, without a failure.
    throttle.admit(1_000 * SECOND, v4(1), "");
    assert_eq!((throttle.pairs.len(), throttle.addresses.len(), throttle.users.len()), (0, 0, 0));
    assert_eq!(throttle.counts().banned_now, 0);
}

/// What an attacker does: from one of his addresses, for one of the users, after some time.
fn attack() -> impl Strategy<Value = Vec<(u64, u8, u8, bool)>> {
    prop::collection::vec((0_u64..40, 0_u8..6, 0_u8..4, prop::bool::weighted(0.1)), 0..400)
}

proptest! {
    #[test]
    fn nobody_locks_out_a_user_elsewhere_and_bans_end(attack in attack(), entries_max in 1_usize..12) {
        let limits = ThrottleLimits { entries_max, ..limits() };
        let mut throttle = Throttle::new(limits);
        let mut now = Duration::ZERO;
        let mut last_ban_began = None;
        for (wait, address, user, succeeds) in attack {
            now += Duration::from_secs(wait);
            let user = format!("user-{user}");
            match throttle.admit(now, v4(address), &user) {
                Admission::Refuse { remaining, .. } => {
                    let began = last_ban_began.expect("a ban was told");
                    prop_assert!(!remaining.is_zero() && now + remaining <= began + limits.ban_time);
                }
                Admission::Check { after } => {
                    prop_assert!(after.is_zero() || after == limits.user_delay);
                    if succeeds {
                        throttle.succeeded(now, v4(address), &user);
                    } else {
                        let failure = throttle.failed(now, v4(address), &user);
                        prop_assert!(failure.delay <= limits.delay_max);
                        last_ban_began = failure.banned.map(|_| now).or(last_ban_began);
                    }
                }
            }
            // The victim, elsewhere, is checked: at once or a little later.
            let admission = throttle.admit(now, v4(250), &user);
            let is_checked = matches!(admission, Admission::Check { after } if after <= limits.user_delay);
            prop_assert!(is_checked, "{:?}", admission);
            for len in [throttle.pairs.len(), throttle.addresses.len(), throttle.users.len(), throttle.known.len()] {
                prop_assert!(len <= entries_max);
            }
            prop_assert!(throttle.counts().banned_now <= 2 * entries_max as u64);
        }
        throttle.admit(now + limits.ban_time, v4(250), "");
        for address in 0..6 {
            prop_assert_eq!(throttle.admit(now + limits.ban_time, v4(address), "user-0"), NOW);
        }
    }

    #[test]
    fn guesses_are_few_however_they_are_spread(waits in prop::collection::vec(0_u64..30, 0..500)) {
        // One user at one address, table large enough: the times of all checks.
        let limits = limits();
        let mut throttle = Throttle::new(limits);
        let (mut now, mut checks) = (Duration::ZERO, Vec::new());
        for wait in waits {
            now += Duration::from_secs(wait);
            if let Admission::Check { .. } = throttle.admit(now, v4(1), "ada") {
                throttle.failed(now, v4(1), "ada");
                checks.push(now);
            }
        }
        // Two windows may meet in the stretch of one, if no ban comes between them.
        for (n, first) in checks.iter().enumerate() {
            let within = checks[n..].iter().filter(|time| **time < *first + limits.window).count();
            prop_assert!(within < 2 * FAILURES_TO_BAN, "{} checks from {:?} on", within, first);
        }
    }
}
