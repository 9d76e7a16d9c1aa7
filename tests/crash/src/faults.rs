//! The faults that a broker built with the feature `planted-faults` can be told to have, and which invariants find
//! them. They check the checker and the workload: each must be found within 100 cycles.

/// Kills within which a fault has to be found.
pub const CYCLES_MAX: u32 = 100;

/// A planted fault.
#[derive(Debug)]
pub struct Fault {
    /// Value of `TERNMQ_FAULT`.
    pub name: &'static str,
    /// The invariants of which at least one finds it.
    pub found_by: &'static [&'static str],
    /// Unsynced writes are lost with the process, as in a power cut: `TERNMQ_POWER_CUT=1`.
    pub is_power_cut: bool,
}

const fn fault(name: &'static str, found_by: &'static [&'static str]) -> Fault {
    Fault { name, found_by, is_power_cut: false }
}

/// All of them.
pub static ALL: [Fault; 14] = [
    // A kill between the acknowledgement and the write: the message is not there after the restart.
    fault("ack-before-write", &["I1", "I10", "I11", "I12", "I13"]),
    // The kill takes what was written and not synced.
    Fault { is_power_cut: true, ..fault("write-without-sync", &["I1", "I10", "I11", "I12", "I13"]) },
    // `twice` sends its message again after the kill: a second copy.
    fault("qos2-id-not-stored", &["I4", "I11"]),
    // The id of a finished message is still taken after the kill: the next message with it is swallowed.
    fault("id-not-released", &["I1", "I11"]),
    // `twice` says DUP at first sight; publishers after a kill as well, if their PUBLISH had not been read.
    fault("dup-is-duplicate", &["I1", "I11"]),
    // The flaky subscribers cut between PUBREC and PUBREL.
    fault("pubrel-not-resent", &["I9"]),
    // The flaky subscribers hold answers back and go on with messages of the same session.
    fault("packet-id-reused", &["I8", "I9", "I4"]),
    // `taker` takes over with answers held back and messages waiting.
    fault("queue-dropped-at-takeover", &["I1", "I9"]),
    // Publishers knock every millisecond and publish at once; most subscribers come later.
    fault("routes-after-listen", &["I1", "I10"]),
    // A third of the connections with wills end with DISCONNECT.
    fault("will-on-disconnect", &["I13"]),
    // A deletion is acknowledged, the broker dies, a reader finds the old value.
    fault("stale-retained", &["I12"]),
    // Answers are held back, the connection ends, and what comes again is out of order.
    fault("order-swapped-on-retry", &["I6", "I9"]),
    // A subscription that was acknowledged does not stand after the kill.
    fault("subscription-lost", &["I1", "I10"]),
    // `alt` was persistent, then clean, then the broker dies, then it is persistent again.
    fault("clean-session-resurrected", &["I10", "I15", "I3"]),
];

/// The fault of this name.
///
/// # Errors
/// There is none; says which there are.
pub fn named(name: &str) -> Result<&'static Fault, String> {
    let names: Vec<&str> = ALL.iter().map(|fault| fault.name).collect();
    ALL.iter()
        .find(|fault| fault.name == name)
        .ok_or_else(|| format!("no fault {name}; there are {}", names.join(", ")))
}

impl Fault {
    /// What the broker's environment says of it.
    pub fn environment(&self) -> Vec<(String, String)> {
        let mut environment = vec![("TERNMQ_FAULT".to_owned(), self.name.to_owned())];
        if self.is_power_cut {
            environment.push(("TERNMQ_POWER_CUT".to_owned(), "1".to_owned()));
        }
        environment
    }
}
