//! `Told`: how often the operator's log speaks of a limit that bites again and again.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::session::Timestamp;

/// One line for each limit in this time; what happens in between is counted.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// See the module's documentation. The keys are limits, a fixed set of names in the code.
#[derive(Default)]
pub(crate) struct Told(Mutex<BTreeMap<&'static str, Last>>);

struct Last {
    at: Timestamp,
    untold: u64,
}

impl Told {
    /// Whether to speak of the limit now: then how often it has bitten since the last time, untold.
    pub(crate) fn tell(&self, limit: &'static str, now: Timestamp) -> Option<u64> {
        let mut told = self.0.lock();
        match told.get_mut(limit) {
            Some(last) if now.since(last.at) < AGAIN_AFTER => {
                last.untold += 1;
                None
            }
            Some(last) => {
                last.at = now;
                Some(std::mem::take(&mut last.untold))
            }
            None => {
                told.insert(limit, Last { at: now, untold: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_told_once_in_its_time_with_what_was_left_out() {
        let told = Told::default();
        let at = Timestamp::from_millis;
        assert_eq!(told.tell("a", at(0)), Some(0));
        assert_eq!(told.tell("b", at(1)), Some(0));
        assert_eq!((told.tell("a", at(2)), told.tell("a", at(9_999))), (None, None));
        assert_eq!(told.tell("a", at(10_000)), Some(2));
        assert_eq!(told.tell("a", at(20_000)), Some(0));
    }
}
