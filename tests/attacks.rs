//! Does it stand …? Each test is named by the attack that it makes, and asserts what the attacker gets and what everybody else goes on
//! getting. What stands behind them by itself (decoders, counts, hashes, rules) has its tests in its module; limits by their names are in
//! `tests/limits.rs`, the rules of access in ordinary use in `tests/access.rs`.
//!
//! | attack | here |
//! |---|---|
//! | floods of half-open connections, packets that never end, bytes that drip | `flood`, `slow_loris` |
//! | making it hold memory that does not go back | `memory` |
//! | guessing passwords, banning others, exhausting the hashing threads, costly password files | `guessing`, `hash_cost` |
//! | filters, topics and names that pass the rules of access | `filters`, `names` |
//! | going on after one's rights were revoked: messages, wills, queues, retained messages | `revoked` |
//! | taking another user's session | `theft` |
//! | certificates that are not one's own, or no longer | `certificates` |
//! | naming a false address to a broker behind a proxy | `proxies` |
//! | forging lines of the log | `log_injection` |
//! | forged, stolen and outlived tokens; an authentication server that is down or lies | `tokens`, `back_end` |

#[path = "attacks/back_end.rs"]
mod back_end;
#[path = "attacks/certificates.rs"]
mod certificates;
#[path = "attacks/filters.rs"]
mod filters;
#[path = "attacks/flood.rs"]
mod flood;
#[path = "attacks/guessing.rs"]
mod guessing;
#[path = "attacks/hash_cost.rs"]
mod hash_cost;
#[path = "attacks/house.rs"]
mod house;
#[path = "attacks/log_injection.rs"]
mod log_injection;
#[path = "attacks/memory.rs"]
mod memory;
#[path = "attacks/names.rs"]
mod names;
#[path = "attacks/pki.rs"]
mod pki;
#[path = "attacks/program.rs"]
mod program;
#[path = "attacks/proxies.rs"]
mod proxies;
#[path = "attacks/revoked.rs"]
mod revoked;
#[path = "attacks/slow_loris.rs"]
mod slow_loris;
mod support;
#[path = "attacks/theft.rs"]
mod theft;
#[path = "attacks/token.rs"]
mod token;
#[path = "attacks/tokens.rs"]
mod tokens;
