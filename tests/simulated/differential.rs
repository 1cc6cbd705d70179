//! The differential test: the same schedules through the world of the decisions' tests (`tests/plan-world`) and through the
//! real controller and executor, whose API server and Boltz are those of this suite. Both must take the same steps and get
//! the same answers.
//!
//! What is compared is the sequence of steps of the object, each with the kind of its answer, over the whole schedule.
//! A normal form leaves out what only one of the two has:
//!
//! - `ReadLive`. The controller reads more: when it starts before its Secrets are listed, and when the echo of somebody's
//!   write shows a Secret whose value it has not read. A read changes nothing, and that each revocation follows one, other
//!   tests check (`promptness.rs`, `pure/plan/revocation.rs`). What a read shows decides the next step, which is compared.
//! - Steps that were `Postponed`: the world has no pauses of the account (`boltz/breaker.rs`), so nothing is postponed in it.
//! - `WriteStatus`, if more than one call goes wrong: then two things wait, for times of which a part is random, and status is
//!   written before the one, the other or both.
//! - Times. The controller shortens each wait after a failure by up to a fifth, at random; the world by a tenth.

use crate::{
    fault_injection::{Fault as Struck, Met, lock},
    process::Process,
    threads::play_all,
    world::{MINUTE, SECOND, World},
};
use boltz_emulator::Settings;
use boltz_operator::{
    api::annotations::{PAUSED_ANNOTATION, ROTATE_ANNOTATION, ROTATE_NOW_ANNOTATION},
    plan::{BoltzErrorKind, Step},
};
use parking_lot::Mutex;
use plan_world::{Fault, World as PlanWorld};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Once},
    time::Duration,
};
use tokio::time::sleep;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt};

const SCHEDULES: u64 = 200;
/// How long it is quiet between two moves. No sum of them is a time of the protocol: at the same moment, chance decides
/// what comes first.
const PHASES: [Duration; 3] = [Duration::from_secs(197), Duration::from_secs(787), Duration::from_secs(2833)];
const SECOND_UID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

/// A call that can go wrong, by what both worlds know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    DryRun,
    Object,
    Status,
    Secret,
    SecretDeletion,
    Create,
    Revoke,
}

impl Call {
    const WRITES: [Self; 6] =
        [Self::DryRun, Self::Object, Self::Status, Self::Secret, Self::Create, Self::Revoke];

    fn of_step(step: &Step) -> Option<Self> {
        Some(match step {
            Step::Wait
            | Step::ReadLive
            | Step::CheckKey { .. }
            | Step::RestartWorkload { .. }
            | Step::ReadRollout { .. } => {
                return None;
            }
            Step::Preflight => Self::DryRun,
            Step::WriteAttempt { .. }
            | Step::WriteLedger(_)
            | Step::AddFinalizer
            | Step::RemoveFinalizer { .. } => Self::Object,
            Step::WriteStatus(_) => Self::Status,
            Step::Store { .. }
            | Step::WriteRecord(_)
            | Step::MoveSecret { .. }
            | Step::Reshape
            | Step::ReleaseSecret { .. } => Self::Secret,
            Step::DeleteSecret { .. } => Self::SecretDeletion,
            Step::Mint(_) => Self::Create,
            Step::Revoke { .. } => Self::Revoke,
        })
    }

    fn of_request(what: &str) -> Option<Self> {
        let (method, path) = what.split_once(' ')?;
        Some(match (method, path) {
            ("Boltz", path) if path.ends_with("/revoke") => Self::Revoke,
            ("Boltz", path) if path.starts_with("POST") => Self::Create,
            ("POST" | "PATCH", path) if path.ends_with(" dry") => Self::DryRun,
            ("PATCH", path) if path.ends_with("/status") => Self::Status,
            ("PATCH", path) if path.contains("/boltzapikeys/") => Self::Object,
            ("PATCH" | "POST", path) if path.contains("/secrets") => Self::Secret,
            ("DELETE", path) if path.contains("/secrets/") => Self::SecretDeletion,
            _ => return None,
        })
    }

    /// The same fault in the other world.
    fn struck(self, fault: Fault) -> Struck {
        let is_boltz = matches!(self, Self::Create | Self::Revoke);
        match fault {
            Fault::CrashBefore => Struck::CrashBefore,
            Fault::CrashAfter => Struck::CrashAfter,
            Fault::Cut => Struck::Cut,
            Fault::Lost => Struck::Lost,
            // Only these two take effect late in the world; what else is late has no effect in it.
            Fault::Late(by) if matches!(self, Self::Create | Self::Secret) => Struck::Late(by),
            Fault::Late(_) => Struck::Cut,
            Fault::Refused if is_boltz => Struck::Status(402),
            Fault::Refused | Fault::Forbidden => Struck::Status(403),
            Fault::Conflict => Struck::Status(409),
            Fault::NotFound => Struck::Status(404),
            Fault::Boltz(BoltzErrorKind::Unavailable) => Struck::Status(503),
            Fault::Boltz(BoltzErrorKind::Invalid) => Struck::Status(422),
            Fault::Silent(_) | Fault::Undone | Fault::Boltz(_) => panic!("{fault:?} has no counterpart"),
        }
    }
}

/// What users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Waits,
    Rotates,
    RotatesNow,
    DeletesTheSecret,
    EditsTheValue,
    Suspends,
    Resumes,
    ChangesTheAddresses,
    ChangesTheLabels,
    RenamesTheSecret,
    Pauses,
    EndsThePause,
    StripsTheFinalizer,
    Retains,
    Deletes,
    Creates,
    RestartsTheOperator,
}

static GLOBALLY: Once = Once::new();

#[derive(Clone, Debug)]
struct Schedule {
    name: String,
    spec: Json,
    /// And how long it is quiet then.
    moves: Vec<(User, Duration)>,
    /// The calls of that kind with that number, from 0, go wrong.
    faults: Vec<(Call, usize, Fault)>,
}

/// A process of the decisions' world, which waits as long as the other does on average.
fn start(world: &PlanWorld, number: u64) -> plan_world::Process {
    let mut process = plan_world::Process::start_other(world, number);
    process.jitter = 0.5;
    process
}

/// A step and the kind of its answer, as both worlds name them.
type Told = (String, String);

fn change(spec: &mut Json, user: User, number: usize) {
    match user {
        User::Suspends => spec["suspend"] = json!(true),
        User::Resumes => spec["suspend"] = json!(false),
        User::ChangesTheAddresses => spec["allowedIPs"] = json!([format!("192.0.2.{number}")]),
        User::ChangesTheLabels => {
            spec["secret"]["template"] = json!({"labels": {"number": number.to_string()}})
        }
        User::RenamesTheSecret => spec["secret"]["name"] = json!("moved"),
        User::Retains => spec["deletionPolicy"] = json!("Retain"),
        _ => {}
    }
}

impl Schedule {
    fn named(name: &str, spec: Json, moves: &[(User, Duration)], faults: &[(Call, usize, Fault)]) -> Self {
        Self { name: name.to_owned(), spec, moves: moves.to_vec(), faults: faults.to_vec() }
    }

    /// Which fault the next call meets.
    fn faults(&self) -> impl FnMut(Option<Call>) -> Option<Fault> + use<> {
        let faults = self.faults.clone();
        let mut counts: BTreeMap<Call, usize> = BTreeMap::new();
        move |call| {
            let call = call?;
            let count = counts.entry(call).or_default();
            let fault = faults.iter().find(|(of, number, _)| *of == call && *number == *count);
            *count += 1;
            fault.map(|(.., fault)| *fault)
        }
    }

    /// Through the world of the decisions' tests.
    fn in_the_world(&self) -> Vec<Told> {
        let mut world = PlanWorld::with(self.spec.clone());
        world.told = Some(Vec::new());
        let mut spec = self.spec.clone();
        let mut fault = self.faults();
        let mut lives = 1;
        let mut process = start(&world, lives);
        for (number, (user, quiet)) in self.moves.iter().enumerate() {
            let has_object = world.object.as_ref().is_some_and(|object| !object.deleting);
            let text = number.to_string();
            change(&mut spec, *user, number);
            match user {
                User::Waits => {}
                User::RestartsTheOperator => {
                    lives += 1;
                    process = start(&world, lives);
                }
                User::Creates if world.object.is_none() => world.create(SECOND_UID, spec.clone()),
                _ if !has_object => {}
                User::Rotates => world.edit(|object| object.rotate = Some(text)),
                User::RotatesNow => world.edit(|object| object.rotate_now = Some(text)),
                User::DeletesTheSecret => {
                    world.secrets.remove("key");
                    world.mark_changed();
                }
                User::EditsTheValue => {
                    if world.secrets.contains_key("key") {
                        world.secret().value = Some(format!("edited {number}"));
                    }
                }
                User::Pauses => world.edit(|object| object.is_paused = true),
                User::EndsThePause => world.edit(|object| object.is_paused = false),
                User::StripsTheFinalizer => world.edit(|object| object.finalizers.clear()),
                User::Deletes => world.delete(),
                User::Creates => {}
                User::Suspends
                | User::Resumes
                | User::ChangesTheAddresses
                | User::ChangesTheLabels
                | User::RenamesTheSecret
                | User::Retains => world.edit_spec(spec.clone()),
            }
            world.follow_users();
            let until = world.elapsed + *quiet;
            while process.live_with(&mut world, until, &mut |step| fault(Call::of_step(step))).is_err() {
                let up = world.elapsed + SECOND;
                world.advance_to(up);
                lives += 1;
                process = start(&world, lives);
            }
        }
        assert_eq!(world.violation, None, "{self:?}");
        let told = world.told.unwrap().into_iter();
        told.map(|(step, answer)| (step.to_owned(), answer.to_owned())).collect()
    }

    /// Through the controller and the executor.
    async fn in_the_simulation(&self) -> (Vec<Told>, Arc<World>) {
        let steps = Steps::default();
        GLOBALLY.call_once(|| {
            // Without it, an event whose place was first reached by a thread without a subscriber may count as never wanted.
            let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
        });
        let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(steps.clone()));
        let world = World::new(Settings::default());
        let mut next = self.faults();
        world.faults(move |met: &Met| {
            let call = Call::of_request(&met.what);
            next(call).zip(call).map(|(fault, call)| call.struck(fault))
        });
        let mut spec = self.spec.clone();
        world.create(&spec);
        let mut process = Process::start(&world, 1);
        for (number, (user, quiet)) in self.moves.iter().enumerate() {
            let has_object =
                world.object().is_some_and(|object| object["metadata"]["deletionTimestamp"].is_null());
            let text = number.to_string();
            change(&mut spec, *user, number);
            world.tell(format!("{user:?}"));
            match user {
                User::Waits => {}
                User::RestartsTheOperator => process.restart(),
                User::Creates => world.create(&spec),
                _ if !has_object => {}
                User::Rotates => world.annotate(ROTATE_ANNOTATION, &text),
                User::RotatesNow => world.annotate(ROTATE_NOW_ANNOTATION, &text),
                User::DeletesTheSecret => world.delete_secret(),
                User::EditsTheValue => world.alter_secret(&format!("edited {number}")),
                User::Pauses => world.annotate(PAUSED_ANNOTATION, "true"),
                User::EndsThePause => world.annotate(PAUSED_ANNOTATION, "false"),
                User::StripsTheFinalizer => world.edit(json!({"metadata": {"finalizers": []}})),
                User::Deletes => world.delete(),
                User::Suspends
                | User::Resumes
                | User::ChangesTheAddresses
                | User::ChangesTheLabels
                | User::RenamesTheSecret
                | User::Retains => world.edit(json!({"spec": spec})),
            }
            sleep(*quiet).await;
        }
        assert_eq!(world.violation(), None, "{self:?}");
        (steps.take(), world)
    }

    /// See above.
    fn normal(&self, told: Vec<Told>) -> Vec<Told> {
        let is_crowded = self.faults.len() > 1;
        let is_left_out = |step: &str, answer: &str| {
            step == "ReadLive" || answer == "Postponed" || is_crowded && step == "WriteStatus"
        };
        told.into_iter().filter(|(step, answer)| !is_left_out(step, answer)).collect()
    }

    /// What differs, if anything does.
    async fn play(&self) -> Option<String> {
        let of_world = self.normal(self.in_the_world());
        let (told, simulation) = self.in_the_simulation().await;
        let of_executor = self.normal(told);
        if of_world == of_executor {
            return None;
        }
        let first = of_world.iter().zip(&of_executor).take_while(|(one, other)| one == other).count();
        let line =
            |told: Option<&Told>| told.map_or("-".to_owned(), |(step, answer)| format!("{step}: {answer}"));
        let lines: Vec<String> = (0..of_world.len().max(of_executor.len()))
            .map(|index| {
                let mark = if index == first { "> " } else { "  " };
                format!("{mark}{:32} {}", line(of_world.get(index)), line(of_executor.get(index)))
            })
            .collect();
        Some(format!(
            "{}\n{self:?}\n{}\n\n  {:32} executor\n{}\n",
            self.name,
            simulation.transcript(),
            "world",
            lines.join("\n")
        ))
    }
}

/// Plays all of them, and shows the shortest that differs.
fn compare(what: &str, schedules: &[Schedule]) {
    let different = Mutex::new(Vec::new());
    play_all(what, schedules, async |schedule| {
        let difference = schedule.play().await;
        lock(&different).extend(difference);
    });
    let different = different.into_inner();
    let names: Vec<&str> = different.iter().filter_map(|text| text.lines().next()).collect();
    let shortest = different.iter().min_by_key(|text| text.len());
    let (count, all) = (names.len(), schedules.len());
    assert!(names.is_empty(), "{count} of {all} differ: {names:?}\n{}", shortest.unwrap());
}

/// The steps in the operator's log.
#[derive(Clone, Default)]
struct Steps(Arc<Mutex<Vec<(u64, Told)>>>);

impl Steps {
    fn take(&self) -> Vec<Told> {
        let mut lines = std::mem::take(&mut *lock(&self.0));
        // A step has a line for each thing that is to be said of it.
        lines.dedup();
        lines.into_iter().map(|(_, told)| told).collect()
    }
}

#[derive(Default)]
struct Line {
    reconcile_id: u64,
    step: Option<String>,
    result: Option<String>,
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "reconcile_id" {
            self.reconcile_id = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "step" => self.step = Some(value.to_owned()),
            "result" => self.result = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl<S: Subscriber> Layer<S> for Steps {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        if let Line { reconcile_id, step: Some(step), result: Some(result) } = line {
            lock(&self.0).push((reconcile_id, (step, result)));
        }
    }
}

fn overlap(overlap: &str) -> Json {
    json!({"rotation": {"overlap": overlap}, "suspend": false})
}

/// The traces of `tests/pure/traces.rs` that have one process and caches that follow; and each step that is left.
fn stories() -> Vec<Schedule> {
    use Call::{Create, Object, Secret, Status};
    use User::*;
    let long = 47 * MINUTE;
    let late = |seconds| Fault::Late(Duration::from_secs(seconds));
    let mut all = vec![
        Schedule::named(
            "nothing goes wrong",
            overlap("10m"),
            &[(Waits, long), (Rotates, long), (Deletes, long)],
            &[],
        ),
        Schedule::named("trace 4", overlap("10m"), &[(Waits, long), (DeletesTheSecret, long)], &[]),
        Schedule::named(
            "trace 4, with a restart",
            overlap("10m"),
            &[(Waits, long), (DeletesTheSecret, 3 * MINUTE), (RestartsTheOperator, long)],
            &[],
        ),
        Schedule::named(
            "trace 5",
            overlap("10m"),
            &[(RotatesNow, long), (RotatesNow, long)],
            &[(Create, 0, Fault::Lost)],
        ),
        Schedule::named(
            "trace 7",
            overlap("10m"),
            &[(Waits, long), (StripsTheFinalizer, long), (Deletes, long)],
            &[],
        ),
        Schedule::named(
            "trace 9",
            overlap("10m"),
            &[(Waits, long), (Rotates, long)],
            &[(Secret, 1, Fault::CrashAfter)],
        ),
        Schedule::named(
            "trace 18",
            overlap("10m"),
            &[(Waits, long), (Rotates, long)],
            &[(Status, 0, Fault::CrashBefore)],
        ),
        Schedule::named(
            "moved",
            overlap("10m"),
            &[(Waits, long), (RenamesTheSecret, long), (Deletes, long)],
            &[],
        ),
        Schedule::named("reshaped", overlap("10m"), &[(Waits, long), (ChangesTheLabels, long)], &[]),
        Schedule::named("retained", overlap("10m"), &[(Waits, long), (Retains, long), (Deletes, long)], &[]),
        Schedule::named(
            "retained at once",
            overlap("10m"),
            &[(Waits, long), (Retains, SECOND), (Deletes, long)],
            &[],
        ),
        Schedule::named(
            "paused",
            overlap("10m"),
            &[(Waits, long), (Pauses, long), (Rotates, long), (EndsThePause, long)],
            &[],
        ),
        Schedule::named(
            "suspended",
            overlap("10m"),
            &[(Waits, long), (Suspends, long), (DeletesTheSecret, long), (Resumes, long)],
            &[],
        ),
    ];
    for seconds in [1, 50, 119] {
        all.push(Schedule::named(
            &format!("trace 2, {seconds} s"),
            overlap("10m"),
            &[(Waits, SECOND / 2), (Deletes, long)],
            &[(Create, 0, late(seconds))],
        ));
    }
    for seconds in [30, 61, 100, 119] {
        all.push(Schedule::named(
            &format!("trace 17, {seconds} s"),
            overlap("10m"),
            &[(Waits, long)],
            &[(Secret, 0, late(seconds)), (Secret, 1, Fault::Cut), (Secret, 2, Fault::Cut)],
        ));
    }
    for fault in [Fault::Lost, Fault::Cut] {
        all.push(Schedule::named(
            &format!("trace 12, {fault:?}"),
            overlap("10m"),
            &[(Waits, long), (RotatesNow, long)],
            &[(Secret, 0, fault), (Secret, 1, fault), (Object, 2, fault), (Status, 2, fault)],
        ));
    }
    // Each call of a first key, a move, a reshape and a deletion, in each way.
    let moves = [
        (Waits, long),
        (RenamesTheSecret, long),
        (ChangesTheLabels, long),
        (Rotates, long),
        (Retains, long),
        (Deletes, long),
    ];
    for call in [Call::DryRun, Object, Status, Secret, Call::SecretDeletion, Create, Call::Revoke] {
        for fault in faults_of(call) {
            for number in 0..4 {
                let name = format!("{call:?} {number} {fault:?}");
                all.push(Schedule::named(&name, overlap("10m"), &moves, &[(call, number, fault)]));
            }
        }
    }
    all
}

fn faults_of(call: Call) -> Vec<Fault> {
    let late = Fault::Late(Duration::from_secs(40));
    let mut faults =
        vec![Fault::CrashBefore, Fault::CrashAfter, Fault::Cut, Fault::Lost, Fault::Refused, late];
    match call {
        Call::Create | Call::Revoke => {
            faults.extend([BoltzErrorKind::Unavailable, BoltzErrorKind::Invalid].map(Fault::Boltz));
        }
        // What is not there, or is another one now, is as good as deleted: that is no fault.
        Call::SecretDeletion => {}
        Call::Object => faults.push(Fault::Conflict),
        _ => faults.extend([Fault::Conflict, Fault::NotFound]),
    }
    faults
}

fn random(seed: u64) -> Schedule {
    use User::*;
    let mut random = StdRng::seed_from_u64(seed);
    let users = [
        Waits,
        Rotates,
        Rotates,
        RotatesNow,
        DeletesTheSecret,
        EditsTheValue,
        Suspends,
        Resumes,
        ChangesTheAddresses,
        ChangesTheLabels,
        Pauses,
        EndsThePause,
        StripsTheFinalizer,
        Deletes,
        Creates,
        RestartsTheOperator,
    ];
    let mut moves = vec![(Waits, PHASES[random.random_range(0..PHASES.len())])];
    for _ in 0..random.random_range(2..8) {
        moves
            .push((users[random.random_range(0..users.len())], PHASES[random.random_range(0..PHASES.len())]));
    }
    let mut faults: Vec<(Call, usize, Fault)> = Vec::new();
    for _ in 0..random.random_range(0..4) {
        let call = Call::WRITES[random.random_range(0..Call::WRITES.len())];
        let kinds = faults_of(call);
        faults.push((call, random.random_range(0..4), kinds[random.random_range(0..kinds.len())]));
    }
    let spec = overlap(["1s", "10m", "24h"][random.random_range(0..3)]);
    Schedule { name: format!("seed {seed}"), spec, moves, faults }
}

#[test]
fn the_worlds_of_both_suites_take_the_same_steps_in_every_story() {
    compare("stories in both worlds", &stories());
}

#[test]
fn the_worlds_of_both_suites_take_the_same_steps_in_random_schedules() {
    let told = std::env::var("SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let schedules = told.map_or(0..SCHEDULES, |seed| seed..seed + 1);
    compare("random schedules in both worlds", &schedules.map(random).collect::<Vec<_>>());
}
