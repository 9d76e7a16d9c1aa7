//! Random operations on a session and its reference model.

use proptest::prelude::*;

use super::model::Reached;
use super::model_run::run;
use crate::session::DropReason;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_session_behaves_like_its_model(
        limits in any::<[u8; 3]>(),
        operations in prop::collection::vec(any::<[u8; 4]>(), 0..300),
    ) {
        run(&[&limits[..], operations.as_flattened()].concat(), &mut Reached::default());
    }
}

/// The same, from fixed seeds: long runs, and proof that the operations lead into every corner they should.
#[test]
fn random_operations_reach_every_outcome() {
    let mut reached = Reached::default();
    for seed in 1..=40_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .take(3 + 4 * 1_000)
        .collect();
        run(&bytes, &mut reached);
    }
    assert!(reached.operations >= 10_000);
    // Messages of the model do not expire, and nothing of it comes by a shared subscription.
    let beyond = [DropReason::ClientPacketMax, DropReason::Expired, DropReason::SharedGroupGone];
    for reason in DropReason::ALL.into_iter().filter(|reason| !beyond.contains(reason)) {
        assert!(reached.dropped[reason as usize] > 10, "{reason:?}: {reached:?}");
    }
    for count in [
        reached.sent,
        reached.queued,
        reached.ended,
        reached.resent,
        reached.pubrel_resent,
        reached.resend_paced,
        reached.waited_for_output,
        reached.put_back,
        reached.repeated,
        reached.retained,
        reached.wrong_acks,
    ] {
        assert!(count > 10, "{reached:?}");
    }
}
