//! The clients of the workload. Each is a loop per stage that returns when the stage is over (or its part of it done).
//!
//! Clients decide nothing about right and wrong: they do what the standard allows a client to do, at bad moments, and
//! the history tells the rest. Two rules of clients are kept, because order and repetition are judged by them:
//! acknowledgements go out in the order of what they acknowledge ([MQTT-4.6.0-2] to [MQTT-4.6.0-4]), and what is
//! unacknowledged is sent again in its old order ([MQTT-4.6.0-1]).

mod alternator;
mod churner;
mod member;
mod pairs;
mod publisher;
mod reader;
mod receiver;
mod retained;
mod subscriber;
mod twice;
mod wills;

use std::future::Future;
use std::rc::Rc;

use tokio::task::spawn_local;

use crate::world::{Stage, World};
use member::{Life, Member};
use publisher::{Publisher, Work};
use subscriber::{Profile, Subscriber};

/// A client of the workload.
trait Actor: 'static {
    /// Traffic; returns when the stage is over.
    fn traffic(&mut self) -> impl Future<Output = ()>;
    /// Brings to an end what was begun.
    fn finish(&mut self) -> impl Future<Output = ()> {
        async {}
    }
    /// Takes everything that is there for it.
    fn drain(&mut self) -> impl Future<Output = ()> {
        async {}
    }
    /// Looks, while nobody else has anything to do, whether messages come by themselves.
    fn rest(&mut self) -> impl Future<Output = ()> {
        async {}
    }
    /// Reads the retained messages.
    fn probe(&mut self) -> impl Future<Output = ()> {
        async {}
    }
    /// Disconnects cleanly.
    fn part(&mut self) -> impl Future<Output = ()>;
}

async fn act(mut actor: impl Actor, world: Rc<World>) {
    loop {
        let stage = world.now().stage;
        match stage {
            Stage::Traffic => actor.traffic().await,
            Stage::Finish => actor.finish().await,
            Stage::Drain => actor.drain().await,
            Stage::Rest => actor.rest().await,
            Stage::Probe => actor.probe().await,
            Stage::Part => actor.part().await,
            Stage::Stop => return,
        }
        if stage != Stage::Traffic {
            world.report_done();
        }
        while world.is(stage) {
            world.change().await;
        }
    }
}

/// Lets all clients loose on the current `LocalSet`; returns how many they are.
pub fn spawn_all(world: &Rc<World>) -> usize {
    let mut count = 0;
    macro_rules! spawn {
        ($actor:expr) => {{
            spawn_local(act($actor, Rc::clone(world)));
            count += 1;
        }};
    }
    let topics =
        |list: &[(&str, u8)]| list.iter().map(|(topic, qos)| (Rc::from(*topic), *qos)).collect::<Vec<_>>();
    for (name, window, work) in [
        ("p0", 1, topics(&[("t/0/a", 1)])),
        ("p1", 5, topics(&[("t/1/a", 1), ("t/1/b", 1)])),
        ("p2", 20, topics(&[("t/2/a", 1), ("t/2/b", 1)])),
        ("p3", 1, topics(&[("t/3/a", 2)])),
        ("p4", 5, topics(&[("t/4/a", 2), ("t/4/b", 2)])),
        ("p5", 20, topics(&[("t/5/a", 2), ("t/5/b", 2)])),
        ("p6", 8, topics(&[("t/6/a", 1), ("t/6/a", 2), ("t/6/b", 2)])),
    ] {
        spawn!(Publisher::new(world, name, window, Work::Messages(work)));
    }
    let changing = (0..churner::FILTERS).map(|n| (churner::filter(n), 1 + (n % 2) as u8)).collect();
    spawn!(Publisher::new(world, "pc", 10, Work::Messages(changing)));
    for (name, window, qos) in [("r1", 3, 1), ("r2", 3, 2)] {
        spawn!(Publisher::new(world, name, window, Work::retained(name, qos)));
    }
    // QoS 2 from several to one.
    for (name, window) in [("s1", 4), ("s2", 4), ("s3", 1)] {
        spawn!(Publisher::new(world, name, window, Work::Messages(topics(&[(&format!("s/{name}"), 2)]))));
    }
    let bulk = |list: &[(&str, u8)], sizes, budget| Work::Bulk(topics(list), sizes, budget);
    spawn!(Publisher::new(world, "pg1", 60, bulk(&[("gs/1/a", 1)], (2_000, 12_000), 10 << 20)));
    spawn!(Publisher::new(world, "pg2", 20, bulk(&[("gs/2/a", 2), ("gs/2/b", 1)], (2_000, 12_000), 4 << 20)));
    spawn!(Publisher::new(world, "pb", 10, bulk(&[("big/1", 1), ("big/2", 2)], (0, 100_000), 8 << 20)));
    spawn!(Publisher::new(world, "rb", 2, Work::kept("rb", 8, 3_000_000)));
    spawn!(Publisher::new(world, "rm", 20, Work::kept("rm", 150, 6_000)));
    for (name, life) in [
        ("gm1", Life::Silent),
        ("gm2", Life::Clean),
        ("gm3", Life::Expires),
        ("gm4", Life::Silent),
        ("gm0", Life::Takes),
    ] {
        // What others leave unanswered is lost with mosquitto, also where nobody kills it.
        if !world.calm || life == Life::Takes {
            spawn!(Member::new(world, name, life));
        }
    }
    spawn!(reader::Reader::new(world, "reader"));
    spawn!(pairs::Pairs::new(world, "pairs"));
    spawn!(twice::Twice::new(world, "q0"));
    for (name, filters, profile) in [
        ("steady", &[("t/#", 2)][..], Profile { late: 5, ..Profile::CALM }),
        (
            "flaky1",
            &[("t/1/#", 1), ("t/3/#", 1), ("t/5/a", 1)],
            Profile { cut: 60, lag: 40, ..Profile::CALM },
        ),
        (
            "flaky2",
            &[("t/2/#", 2), ("t/4/#", 2), ("t/6/+", 2)],
            Profile { cut: 60, lag: 60, ..Profile::CALM },
        ),
        ("absent", &[("t/#", 2)], Profile { away: 60, cut: 10, ..Profile::CALM }),
        (
            "taker",
            &[("t/0/#", 2), ("t/5/#", 2), ("t/6/+", 1)],
            Profile { takeover: 80, lag: 80, ..Profile::CALM },
        ),
        ("late", &[("t/+/a", 2)], Profile { late: 80, cut: 20, lag: 30, ..Profile::CALM }),
        ("sole", &[("s/#", 2)], Profile { cut: 30, lag: 30, ..Profile::CALM }),
        ("bulky", &[("big/#", 2)], Profile { cut: 10, ..Profile::CALM }),
        ("rsub", &[("r/#", 2)], Profile { cut: 30, late: 20, ..Profile::CALM }),
        ("wsub", &[("w/#", 2)], Profile { cut: 20, late: 20, ..Profile::CALM }),
    ] {
        spawn!(Subscriber::persistent(world, name, filters, profile));
    }
    spawn!(Subscriber::clean(
        world,
        "clean",
        &[("t/#", 2)],
        Profile { cut: 60, takeover: 10, ..Profile::CALM }
    ));
    for name in ["churn1", "churn2"] {
        spawn!(churner::Churner::new(world, name));
    }
    spawn!(alternator::Alternator::new(world, "alt"));
    spawn!(retained::Prober::new(world, "probe"));
    for (name, qos) in [("w1", 1), ("w2", 2), ("w3", 1)] {
        spawn!(wills::Mortal::new(world, name, qos));
    }
    for name in ["av1", "av2"] {
        spawn!(wills::Available::new(world, name));
    }
    count
}
