//! Who waits for the log while the disk stalls.

use super::*;

/// Each turn has a message for the same client: it waits for the first of them, and then for the
/// next, so that what waits does not grow with what is published.
#[test]
fn a_receiver_stands_once_among_those_who_wait_for_the_disk() {
    let runtime = runtime();
    let _in_runtime = runtime.enter();
    let files = SimulatedFiles::new(1);
    let core = Core::open_with(
        Arc::new(files.clone()),
        LogOptions::default(),
        Limits::default(),
        Security::default(),
        WallClock::system(),
    )
    .expect("a log");
    let log = core.log.as_ref().expect("it was opened");
    let attached = runtime.block_on(Peer::made(&core, "id", false, None, None).connecting).expect("let in");
    let client = &attached.client;
    let options = SubscriptionOptions::with_qos(QoS::ExactlyOnce);
    assert!(core.add_subscription(client, &mut client.lock(), "t", options).is_ok());
    runtime.block_on(log.wait(log.submitted()));
    let before = log.waiters();
    files.hold_syncs();
    for n in 0..100_u8 {
        let mut turn = Turn::new();
        turn.begin(&core);
        let message = Arc::new(Message::new("t", [n], QoS::ExactlyOnce));
        assert!(core.publish_message(&mut turn, &message, false).is_none());
        turn.finish(&core);
    }
    let waiting = log.waiters() - before;
    assert!((1..=2).contains(&waiting), "{waiting}");
    assert_eq!(client.lock().session.unfinished(), 0, "nothing is sent before it is on disk");
    // When it is woken it sees all that is on disk by then.
    files.release_syncs();
    runtime.block_on(log.wait(log.submitted()));
    assert_eq!(core.attend(client, attached.epoch).map(|attention| attention.log), Some(None));
    assert!(client.lock().session.unfinished() > 0);
}
