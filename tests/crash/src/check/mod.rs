//! The checker: judges a history of one round, at whose end everything was to be acknowledged and delivered.
//!
//! One function per invariant, numbered as in the reliability notes: I1 to I13, I15, I16, I18 to
//! I20. (I14, keep alive, and I17, authorization, are no matter of crashes and have tests of their
//! own.) Whatever is not certain, because a packet was never answered, counts for the broker.

mod analysis;
mod claims;
mod delivery;
mod facts;
mod group;
mod ids;
mod inbound;
mod liveness;
mod once;
mod order;
mod report;
mod retained;
mod session;
#[cfg(test)]
mod tests;
mod wills;

use std::rc::Rc;

pub use analysis::Analysis;
pub use facts::Before;
pub use report::{counts, explain};

use crate::history::{Client, Event, Index};

/// What the broker must not have done.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Number of the invariant.
    pub invariant: &'static str,
    /// At which client it showed.
    pub client: Client,
    /// Of which topic, if of one.
    pub topic: Option<Rc<str>>,
    /// What is wrong.
    pub text: String,
    /// The events that show it.
    pub at: Vec<Index>,
}

impl Violation {
    fn new(invariant: &'static str, client: &Client, text: String, at: &[Index]) -> Self {
        Self { invariant, client: Rc::clone(client), topic: None, text, at: at.to_vec() }
    }

    fn of_topic(self, topic: &Rc<str>) -> Self {
        Self { topic: Some(Rc::clone(topic)), ..self }
    }
}

/// Judges a round, and says what the next one has to know.
pub fn judge(events: &[Event], before: &Before) -> (Vec<Violation>, Before) {
    let analysis = Analysis::of(events, before);
    let rules: [fn(&Analysis<'_>) -> Vec<Violation>; 18] = [
        delivery::i1_no_acknowledged_loss,
        delivery::i2_no_invention,
        delivery::i3_no_stray,
        once::i4_qos2_once,
        once::i5_repeats_justified,
        order::i6_order,
        order::i7_acknowledgement_order,
        ids::i8_ids,
        ids::i9_resume,
        session::i10_session_present,
        inbound::i11_inbound_qos2,
        retained::i12_retained_register,
        wills::i13_wills,
        session::i15_clean_session,
        liveness::i16_liveness,
        session::i18_take_over,
        liveness::i19_by_itself,
        group::i20_groups,
    ];
    let violations = rules.iter().flat_map(|rule| rule(&analysis)).collect();
    let mut after = analysis.after();
    after.retained = retained::values(&analysis);
    (violations, after)
}
