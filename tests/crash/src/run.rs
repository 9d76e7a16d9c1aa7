//! A run: rounds of cycles with a kill each, then healing, then the verdict.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep, timeout};

use crate::actors;
use crate::broker::{Kind, Program};
use crate::check::{self, Before, Violation};
use crate::history::{Event, What};
use crate::mqtt::Packet;
use crate::rng::Rng;
use crate::watch::{FileAim, FileEvent, watch};
use crate::world::{Aim, Focus, Mood, Stage, World};

/// A broker that has not answered a single CONNECT by then does not start.
const START_MAX: Duration = Duration::from_secs(20);
/// A stage that is not done by then is given up; what is missing then is what the checker reports.
const STAGE_MAX: Duration = Duration::from_secs(60);

/// Bytes of load after which the broker thinks of a checkpoint, and a little more.
const LOAD: u64 = 9 << 20;
/// Load ends by then, whatever has been done.
const LOAD_MAX: Duration = Duration::from_secs(6);

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The broker.
    pub kind: Kind,
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
    /// Of a hundred cycles so many are heavy.
    pub heavy: u32,
    /// Invariants that are asked; none: all of them.
    pub only: Vec<String>,
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
    /// At this file.
    file: Option<FileAim>,
    /// The time from packet or file to the kill.
    linger: Duration,
    /// A heavy cycle, about this.
    heavy: Option<Focus>,
    /// At the latest then; of a heavy cycle, counted from the end of the load.
    after: Duration,
    /// So long until the next start.
    pause: Duration,
    /// The next starts that are cut short: after these parts of the time that a start takes.
    starts: Vec<f64>,
}

impl Death {
    fn of_cycle(plan: &Plan, cycle: u32) -> Self {
        let mut rng = Rng::new(plan.seed, &format!("cycle {cycle}"));
        let pause = if rng.percent(50) { Duration::ZERO } else { rng.millis(0, 30) };
        let starts = match rng.percent(12) {
            true => (0..rng.range(1, 3)).map(|_| f64::from(rng.range(0, 120)) / 100.0).collect(),
            false => Vec::new(),
        };
        let linger = if rng.percent(70) { Duration::ZERO } else { rng.millis(0, 40) };
        let after = Duration::from_millis(500);
        let death = Self { aim: None, file: None, linger, heavy: None, after, pause, starts };
        if rng.percent(plan.heavy) {
            let file = *rng.pick(&[
                FileAim::SegmentGoes,
                FileAim::SegmentGoes,
                FileAim::SegmentGoes,
                FileAim::CheckpointAppears,
                FileAim::CheckpointAppears,
                FileAim::UnfinishedAppears,
            ]);
            let aim = rng.percent(20).then(|| (Aim::MemberConnAck, rng.range(1, 4)));
            let focus = *rng.pick(&[Focus::Groups, Focus::Groups, Focus::Retained, Focus::Both]);
            // The broker looks every second whether a checkpoint is due and segments can go.
            let after = rng.millis(1200, 3000);
            let file = Some(file).filter(|_| aim.is_none());
            return Self { aim, file, heavy: Some(focus), after, ..death };
        }
        if rng.percent(40) {
            return Self { after: rng.millis(30, 450), ..death };
        }
        if rng.percent(15) {
            return Self { file: Some(*rng.pick(&FileAim::ALL)), ..death };
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
            (Aim::MemberConnAck, 12),
        ]);
        Self { aim: Some((aim, rng.range(1, most))), ..death }
    }
}

/// Runs until the cycles are over or a round has violations; calls `progress` after each round.
///
/// # Errors
/// The broker cannot be started, or the system fails us otherwise.
pub fn run(plan: &Plan, directory: &Path, progress: impl Fn(&Outcome)) -> io::Result<Outcome> {
    let program = Program::new(plan.kind.clone(), directory)?;
    let files = watch(&program.data())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = World::new(plan.seed, plan.calm);
    let outcome = LocalSet::new().block_on(&runtime, rounds(plan, &program, &world, files, progress));
    world.broker.borrow_mut().take();
    outcome
}

async fn rounds(
    plan: &Plan,
    program: &Program,
    world: &Rc<World>,
    mut files: UnboundedReceiver<FileEvent>,
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
            is_alive = is_alive && cycle(plan, program, world, &mut files, &mut outcome).await?;
        }
        for stage in [Stage::Finish, Stage::Drain, Stage::Rest, Stage::Probe, Stage::Part] {
            if is_alive {
                heal(world, stage, clients).await;
            }
        }
        world.sentinels.borrow_mut().clear();
        world.owed.borrow_mut().clear();
        world.answered.borrow_mut().clear();
        let history = world.history.take();
        let (mut violations, after) = check::judge(&history, &before);
        let is_asked = |name: &str| plan.only.is_empty() || plan.only.iter().any(|only| only == name);
        violations.retain(|violation| is_asked(violation.invariant));
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
async fn cycle(
    plan: &Plan,
    program: &Program,
    world: &Rc<World>,
    files: &mut UnboundedReceiver<FileEvent>,
    outcome: &mut Outcome,
) -> io::Result<bool> {
    let death = Death::of_cycle(plan, outcome.cycles);
    world.linger.set(death.linger);
    while files.try_recv().is_ok() {}
    if let Some(focus) = death.heavy {
        load(&death, world, focus, files).await;
    }
    if plan.kills
        && let Some((aim, count)) = death.aim
    {
        world.aim(aim, count);
    }
    let deadline = Instant::now() + death.after;
    while world.now().addr.is_some() && !has_ended(world) {
        tokio::select! {
            () = world.bell.notified() => {
                if world.is_struck() {
                    sleep(death.linger).await;
                    break;
                }
            }
            Some(event) = files.recv() => {
                if plan.kills && death.file == Some(event.aim) {
                    world.record(What::File(format!("{:?}: {}", event.aim, event.name)));
                    sleep(death.linger).await;
                    break;
                }
            }
            () = tokio::time::sleep_until(deadline) => break,
        }
    }
    world.set_mood(Mood::Usual);
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
    for part in death.starts {
        let usual = world.start_time.get();
        world.adopt(program.start()?);
        sleep(usual.mul_f64(part)).await;
        world.kill();
        outcome.kills += 1;
    }
    start(program, world).await
}

/// The first part of a heavy cycle: load until a checkpoint is due, or, if segments are what the
/// broker's death waits for, until there is one, so that segments can go from then on. Then it is
/// quiet.
async fn load(death: &Death, world: &World, focus: Focus, files: &mut UnboundedReceiver<FileEvent>) {
    world.loaded.set(0);
    world.focus.set(focus);
    world.set_mood(Mood::Load);
    let deadline = Instant::now() + LOAD_MAX;
    let mut has_checkpoint = false;
    while world.now().addr.is_some() && !has_ended(world) && Instant::now() < deadline {
        if world.loaded.get() >= LOAD && (has_checkpoint || death.file != Some(FileAim::SegmentGoes)) {
            break;
        }
        if let Ok(Some(event)) = timeout(Duration::from_millis(10), files.recv()).await {
            has_checkpoint |= world.loaded.get() >= LOAD && event.aim == FileAim::CheckpointAppears;
        }
    }
    world.set_mood(Mood::Quiet);
}

fn has_ended(world: &World) -> bool {
    world.broker.borrow_mut().as_mut().is_some_and(|broker| broker.ended().is_some())
}

/// Starts the broker and waits until it has answered a CONNECT; false if it does not.
async fn start(program: &Program, world: &Rc<World>) -> io::Result<bool> {
    // More than once, because somebody else can have taken the port meanwhile.
    for _ in 0..3 {
        world.adopt(program.start()?);
        let begun = Instant::now();
        let deadline = begun + START_MAX;
        while !world.is_ready() && !has_ended(world) && Instant::now() < deadline {
            let _ = timeout(Duration::from_millis(50), world.bell.notified()).await;
        }
        if world.is_ready() {
            world.start_time.set(begun.elapsed());
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
