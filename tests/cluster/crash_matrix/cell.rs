//! One cell: bring the operator to the call, let it meet its outcome, and judge what becomes of it, twice.

use super::{
    delivered::{Delivered, View},
    outcome::{self, Outcome},
    scenario::{Call, FIELD, Scenario},
    user::{Acted, User},
};
use crate::test_env::{EnvOptions, PATIENCE, TestEnv, owned, record_of, value_of};
use boltz_emulator::Operation;
use boltz_harness::{ApiProxy, eventually};
use boltz_operator::api::annotations::ROTATE_ANNOTATION;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Half of it is the window in which a key has to be stored.
const SETTLE_TIME: Duration = Duration::from_secs(6);

/// What the operator logs when a call has no answer in time. No outcome makes it wait so long, unless it is killed before.
const TIMEOUTS: [&str; 3] = ["in time", "imeout", "timed out"];
/// A step that takes longer may use up the window in which a key has to be stored. No outcome makes one take so long.
const LONGEST_STEP: Duration = Duration::from_secs(1);
/// How often a cell is set up.
const MOST_TRIES: usize = 3;

/// Cells that do something side by side. Those that only wait for the second judgement are not counted: they cost little.
/// With more of them two processors are so busy that calls come late, and the cost of the cell says nothing.
static BUSY: Semaphore = Semaphore::const_new(10);

/// What a cell that kept the promise has cost.
#[derive(Debug)]
pub struct Cost {
    pub posts: usize,
    /// To the API server.
    pub writes: usize,
    /// A call was slow although nothing was done to it: the machine was busy, and the cost says nothing.
    pub is_late: bool,
    /// Whether the user found something to act on. If not, the cell shows nothing.
    pub acted: Acted,
}

/// What is wrong.
enum Wrong {
    /// The promise is broken.
    Promise(String),
    /// It costs too much. Whether two things are written at once is chance, so this counts only if it is so again.
    Cost(String),
}

impl From<String> for Wrong {
    fn from(why: String) -> Self {
        Self::Promise(why)
    }
}

/// The cost, or what is wrong.
pub async fn run(call: &'static Call, outcome: Outcome, user: User) -> Result<Cost, String> {
    let cell = format!("{}/{}", call.name, outcome.name());
    let mut was_costly = false;
    for _ in 0..MOST_TRIES {
        match try_once(call, outcome, user).await {
            Ok(Some(cost)) => return Ok(cost),
            Ok(None) => eprintln!("{cell}: the call came before its fault; once more"),
            Err(Wrong::Cost(why)) if !was_costly => {
                was_costly = true;
                eprintln!("{cell}: once more, because it cost too much: {why}");
            }
            Err(Wrong::Cost(why) | Wrong::Promise(why)) => return Err(why),
        }
    }
    Err(format!("the call came before its fault, or cost too much, {MOST_TRIES} times"))
}

/// None, if the call came before its fault.
async fn try_once(call: &'static Call, outcome: Outcome, user: User) -> Result<Option<Cost>, Wrong> {
    let busy = BUSY.acquire().await.map_err(|error| Wrong::Promise(error.to_string()))?;
    let settle_time = format!("{}s", SETTLE_TIME.as_secs());
    let mut env = TestEnv::with_options(EnvOptions {
        arguments: owned(&["--settle-time", &settle_time, "--request-timeout", "1500ms"]),
        proxy: true,
        ..EnvOptions::default()
    })
    .await;
    let cell = Cell { call, outcome, user, delivered: Delivered::default() };
    let cost = cell.run_on(&mut env, busy).await;
    let with_log = |why: String| format!("{why}\n{}", env.operator.process().last_lines(30));
    cost.map_err(|wrong| match wrong {
        Wrong::Promise(why) => Wrong::Promise(with_log(why)),
        Wrong::Cost(why) => Wrong::Cost(with_log(why)),
    })
}

struct Cell {
    call: &'static Call,
    outcome: Outcome,
    user: User,
    delivered: Delivered,
}

/// How everything has to be in the end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The object has its key, as after that scenario.
    AtRest(Scenario),
    /// The object is gone, and so are its keys.
    Gone,
    /// The object lost its finalizer while it was being deleted. Nobody revokes by guess, so its keys are reported.
    Reported,
}

impl Cell {
    async fn run_on(&self, env: &mut TestEnv, busy: SemaphorePermit<'_>) -> Result<Option<Cost>, Wrong> {
        self.call.scenario.prepare(env).await?;
        let watch = self.delivered.watch(View::of(env));
        let acted = tokio::select! {
            acted = self.story(env, busy) => acted?,
            violation = watch => return Err(Wrong::Promise(violation)),
        };
        let Some(acted) = acted else { return Ok(None) };
        let writes = env.proxy.as_ref().map(ApiProxy::writes).unwrap_or_default();
        let cost = Cost {
            posts: env.emulator.count(Operation::Create),
            writes: writes.len(),
            is_late: was_late(&env.operator.log()),
            acted,
        };
        self.judge_cost(&cost).map_err(|why| Wrong::Cost(format!("{why}: {writes:#?}")))?;
        self.judge_revocations(env)?;
        Ok(Some(cost))
    }

    /// None, if the call came before its fault.
    async fn story(&self, env: &mut TestEnv, busy: SemaphorePermit<'_>) -> Result<Option<Acted>, String> {
        let armed = outcome::arm(env, self.call.target, self.outcome);
        // Nobody makes time wait: on a busy machine the overlap may be over by now.
        if self.call.scenario == Scenario::EndOfOverlap && env.emulator.count(Operation::Revoke) > 0 {
            return Ok(None);
        }
        self.call.scenario.trigger(env).await?;
        armed.is_met(env).await?;
        let acted = self.user.acts(env).await?;
        armed.carry_out(env).await?;
        let end = self.end();
        if !matches!(end, End::Gone | End::Reported) {
            self.user.follows_up(env).await?;
        }
        eventually(PATIENCE, "no effect is still to come, and the end is good", async || {
            let late = env.emulator.late() + env.proxy.as_ref().map_or(0, ApiProxy::late);
            if late == 0 { self.look(env, end).await } else { Err(format!("{late} effects are to come")) }
        })
        .await?;
        // Whatever was sent by now has had its effect when the settle time is over, and two passes have shown it.
        drop(busy);
        tokio::time::sleep(SETTLE_TIME).await;
        env.passes(2).await;
        self.look(env, end)
            .await
            .map_err(|why| format!("it was good, and is not when it has settled: {why}"))?;
        Ok(Some(acted))
    }

    fn end(&self) -> End {
        let is_deleted = self.call.scenario == Scenario::Delete;
        match self.user {
            User::DeletesAndRecreatesIt => End::AtRest(Scenario::Create),
            User::StripsTheFinalizer if is_deleted => End::Reported,
            user if is_deleted || user.ends_the_object() => End::Gone,
            _ => End::AtRest(self.call.scenario),
        }
    }

    async fn look(&self, env: &TestEnv, end: End) -> Result<(), String> {
        match end {
            End::AtRest(scenario) => at_rest(env, scenario).await,
            End::Gone => gone(env, self.user).await,
            End::Reported => reported(env).await,
        }
    }

    fn judge_cost(&self, cost: &Cost) -> Result<(), String> {
        let Cost { posts, writes, is_late, .. } = cost;
        if *is_late {
            return Ok(());
        }
        let expected = self.call.posts(self.outcome);
        // What a user does may add keys, and may also make some needless.
        let (least, more) =
            if self.user == User::Waits { (*expected.start(), 0) } else { (0, self.user.posts()) };
        let allowed = least..=expected.end() + more;
        if !allowed.contains(posts) {
            return Err(format!("{posts} POSTs instead of {allowed:?}"));
        }
        let allowed = self.call.writes();
        if self.user == User::Waits && !allowed.contains(writes) {
            return Err(format!("{writes} writes to the API server instead of {allowed:?}"));
        }
        Ok(())
    }

    fn judge_revocations(&self, env: &TestEnv) -> Result<(), String> {
        let is_ended = self.call.scenario == Scenario::Delete || self.user.breaks_the_secret();
        // A known limit: nothing names a delivered key any more.
        let is_forgotten = self.user == User::DeletesTheSecret && self.outcome.kills();
        if is_ended || is_forgotten {
            Ok(())
        } else {
            self.delivered.revoked_too_early(env, self.call.scenario.overlap())
        }
    }
}

/// Whether a call was slow, as the log of the operator says.
fn was_late(log: &str) -> bool {
    let durations = log.split("duration_seconds=").skip(1).filter_map(|rest| rest.split(' ').next());
    let mut seconds = durations.filter_map(|duration| duration.parse::<f64>().ok());
    TIMEOUTS.iter().any(|text| log.contains(text)) || seconds.any(|step| step > LONGEST_STEP.as_secs_f64())
}

/// The promise after the end of an object.
async fn gone(env: &TestEnv, user: User) -> Result<(), String> {
    let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let namespace = namespaces.get_opt(&env.namespace).await.map_err(|error| error.to_string())?;
    let is_gone = object.is_none() && (namespace.is_none() || user != User::DeletesTheNamespace);
    let active = env.active_ids().len();
    if is_gone && active == 0 { Ok(()) } else { Err(format!("{active} active keys, gone: {is_gone}")) }
}

/// The promise after the end of an object that lost its finalizer.
async fn reported(env: &TestEnv) -> Result<(), String> {
    let object = env.objects().get_opt("key").await.map_err(|error| error.to_string())?;
    let line = format!("boltz_orphaned_keys {}", env.active_ids().len());
    let metrics = env.operator.get("/metrics").await?;
    let is_reported = metrics.lines().any(|known| known == line);
    if object.is_none() && is_reported { Ok(()) } else { Err(format!("not {line}")) }
}

/// The promise at rest.
async fn at_rest(env: &TestEnv, scenario: Scenario) -> Result<(), String> {
    let object = env.objects().get("key").await.map_err(|error| error.to_string())?;
    let status = object.status.unwrap_or_default();
    let name = if scenario == Scenario::Move { "moved" } else { "key" };
    let secrets: Vec<Secret> =
        env.secrets().list(&Default::default()).await.map_err(|error| error.to_string())?.items;
    let [secret] = secrets.as_slice() else { return Err(format!("{} Secrets", secrets.len())) };
    if secret.metadata.name.as_deref() != Some(name) || status.secret_name.as_deref() != Some(name) {
        return Err(format!(
            "the Secret is {:?}, status says {:?}",
            secret.metadata.name, status.secret_name
        ));
    }
    let record = record_of(secret);
    let value = value_of(secret, &record.secret_key);
    let has_field = secret.data.as_ref().is_some_and(|data| {
        data.get(FIELD).is_some_and(|field| field.0 == format!("BOLTZ_API_KEY={value}").into_bytes())
    });
    let id = env.emulator.authenticate(&value);
    let active: Vec<String> = env.active_ids().into_iter().collect();
    let ready = status.conditions.iter().any(|condition| {
        condition.type_ == "Ready" && condition.status == "True" && condition.reason == "Issued"
    });
    let rotated = !matches!(scenario, Scenario::Rotate | Scenario::Restart) || record.rotations >= 1;
    // Before that, nothing has been done yet about what the user did.
    let requested = object.metadata.annotations.as_ref().and_then(|known| known.get(ROTATE_ANNOTATION));
    let is_seen =
        status.observed_generation == object.metadata.generation && record.rotate.as_ref() == requested;
    if id.as_ref() == Some(&record.key_id)
        && status.key_id == id
        && active == [record.key_id.clone()]
        && status.previous_keys.is_empty()
        && ready
        && rotated
        && is_seen
        && has_field
    {
        Ok(())
    } else {
        Err(format!("the Secret holds {id:?}, active are {active:?}, status is {status:?}"))
    }
}
