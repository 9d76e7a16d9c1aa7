//! A run: rounds of cycles with a kill each, then healing, then the verdict.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::actors;
use crate::broker::{Kind, Program};
use crate::check::{self, Before, Violation};
use crate::history::{Event, What};
use crate::mqtt::Packet;
use crate::rng::Rng;
use crate::world::{Aim, Stage, World};

/// A broker that has not answered a single CONNECT by then does not start.
const START_MAX: Duration = Duration::from_secs(20);
/// A stage that is not done by then is given up; what is missing then is what the checker reports.
const STAGE_MAX: Duration = Duration::from_secs(40);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker.
    pub kind: Kind,
    /// Its environment.
    pub environment: Vec<(String, String)>,
    /// How many cycles at most.
    pub cycles: u32,
    /// Cycles between checks.
    pub round: u32,
    /// Of all random choices.
    pub seed: u64,
    /// Whether the broker is killed.
    pub kills: bool,
    /// Whether clients keep their connections.
    pub calm: bool,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cycles run.
    pub cycles: u32,
    /// Kills among them.
    pub kills: u32,
    /// Messages acknowledged to publishers.
    pub acknowledged: u64,
    /// Messages received.
    pub received: u64,
    /// Of the first round that had any.
    pub violations: Vec<Violation>,
    /// The history of that round.
    pub history: Vec<Event>,
}

/// When the broker of a cycle dies.
#[derive(Debug)]
struct Death {
    /// At this packet, counted from the first CONNACK.
    aim: Option<(Aim, u32)>,
    /// Or then.
    after: Duration,
    /// So long until the next start.
    pause: Duration,
}

impl Death {
    fn of_cycle(seed: u64, cycle: u32) -> Self {
        let mut rng = Rng::new(seed, &format!("cycle {cycle}"));
        let pause = if rng.percent(50) { Duration::ZERO } else { rng.millis(0, 30) };
        if rng.percent(45) {
            return Self { aim: None, after: rng.millis(30, 450), pause };
        }
        let (aim, most) = *rng.pick(&[
            (Aim::PubAck, 200),
            (Aim::PubRec, 120),
            (Aim::PubComp, 120),
            (Aim::SubAck, 30),
            (Aim::UnsubAck, 12),
            (Aim::ConnAck, 40),
            (Aim::Publish, 600),
            (Aim::PubRel, 200),
        ]);
        Self { aim: Some((aim, rng.range(1, most))), after: Duration::from_millis(500), pause }
    }
}

/// Runs until the cycles are over or a round has violations; calls `progress` after each round.
///
/// # Errors
/// The broker cannot be started, or the system fails us otherwise.
pub fn run(plan: &Plan, directory: &Path, progress: impl Fn(&Outcome)) -> io::Result<Outcome> {
    let program = Program::new(plan.kind.clone(), directory, plan.environment.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = World::new(plan.seed, plan.calm);
    let outcome = LocalSet::new().block_on(&runtime, rounds(plan, &program, &world, progress));
    world.broker.borrow_mut().take();
    outcome
}

async fn rounds(
    plan: &Plan,
    program: &Program,
    world: &Rc<World>,
    progress: impl Fn(&Outcome),
) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut before = Before::default();
    let clients = actors::spawn_all(world);
    let mut is_alive = start(program, world).await?;
    while outcome.cycles < plan.cycles {
        world.enter(Stage::Traffic);
        for _ in 0..plan.round.min(plan.cycles - outcome.cycles) {
            outcome.cycles += 1;
            world.cycle.set(outcome.cycles);
            is_alive = is_alive && cycle(plan, program, world, &mut outcome).await?;
        }
        for stage in [Stage::Finish, Stage::Drain, Stage::Probe, Stage::Part] {
            if is_alive {
                heal(world, stage, clients).await;
            }
        }
        world.sentinels.borrow_mut().clear();
        let history = world.history.take();
        let (violations, after) = check::judge(&history, &before);
        for event in &history {
            match &event.what {
                What::Received(_, _, Packet::PubAck(_) | Packet::PubRec(_)) => outcome.acknowledged += 1,
                What::Received(_, _, Packet::Publish(_)) => outcome.received += 1,
                _ => {}
            }
        }
        if !violations.is_empty() {
            outcome.violations = violations;
            outcome.history = history;
            break;
        }
        before = after;
        progress(&outcome);
    }
    world.enter(Stage::Stop);
    Ok(outcome)
}

/// One cycle; false if the broker does not come back.
async fn cycle(plan: &Plan, program: &Program, world: &Rc<World>, outcome: &mut Outcome) -> io::Result<bool> {
    let death = Death::of_cycle(plan.seed, outcome.cycles);
    let deadline = Instant::now() + death.after;
    if plan.kills
        && let Some((aim, count)) = death.aim
    {
        world.aim(aim, count);
    }
    while world.now().addr.is_some() && !has_ended(world) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || timeout(left, world.bell.notified()).await.is_err() {
            break;
        }
    }
    if !plan.kills {
        return Ok(!has_ended(world));
    }
    if has_ended(world) {
        let text = format!("ended by itself; see {}", program.log().display());
        world.record(What::Died(text));
        return Ok(false);
    }
    world.kill();
    outcome.kills += 1;
    sleep(death.pause).await;
    start(program, world).await
}

fn has_ended(world: &World) -> bool {
    world.broker.borrow_mut().as_mut().is_some_and(|broker| broker.ended().is_some())
}

/// Starts the broker and waits until it has answered a CONNECT; false if it does not.
async fn start(program: &Program, world: &Rc<World>) -> io::Result<bool> {
    // More than once, because somebody else can have taken the port meanwhile.
    for _ in 0..3 {
        world.adopt(program.start()?);
        let deadline = Instant::now() + START_MAX;
        while !world.is_ready() && !has_ended(world) && Instant::now() < deadline {
            let _ = timeout(Duration::from_millis(50), world.bell.notified()).await;
        }
        if world.is_ready() {
            return Ok(true);
        }
        world.kill();
    }
    world.record(What::Died(format!("does not start; see {}", program.log().display())));
    Ok(false)
}

/// Lets all clients do their part of a stage.
async fn heal(world: &Rc<World>, stage: Stage, clients: usize) {
    world.enter(stage);
    let all = async {
        while world.done() < clients {
            world.done_bell.notified().await;
        }
    };
    if timeout(STAGE_MAX, all).await.is_err() {
        let text =
            format!("{:?} was not done in {STAGE_MAX:?}: {} of {clients} clients", stage, world.done());
        world.record(What::Died(text));
    }
}
